//! What an operator sees: figures in the text format of Prometheus, at `GET /metrics`, for whoever has a secret key.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use crate::Realtime;

/// Counted since the node runs.
#[derive(Debug, Default)]
pub struct Figures {
    /// Messages that clients have sent.
    pub received: AtomicU64,
    /// Clients that were closed because they did not read.
    pub slow: AtomicU64,
}

/// Adds one.
pub fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}

impl Realtime {
    pub(crate) fn metrics(&self) -> Response<Bytes> {
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let seconds = |figure: &AtomicU64| {
            let micros = get(figure);
            format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
        };
        let feed = &self.feed.figures;
        let figures = [
            ("clients", "gauge", "Connected clients.", self.clients.load(Ordering::Relaxed).to_string()),
            ("channels", "gauge", "Channels that they have joined.", self.feed.channels().to_string()),
            ("messages_received_total", "counter", "Messages of clients.", get(&self.figures.received).to_string()),
            (
                "messages_told_total",
                "counter",
                "Broadcasts, presences and changes, for each who heard them.",
                get(&self.hub.told).to_string(),
            ),
            (
                "clients_closed_slow_total",
                "counter",
                "Clients that were closed because they did not read.",
                get(&self.figures.slow).to_string(),
            ),
            ("changes_read_total", "counter", "Changes of the database.", get(&feed.read).to_string()),
            (
                "changes_told_total",
                "counter",
                "Changes, for each who heard them as they came.",
                get(&feed.delivered).to_string(),
            ),
            (
                "changes_replayed_total",
                "counter",
                "Changes and broadcasts for clients that had been away.",
                get(&feed.replayed).to_string(),
            ),
            (
                "positions_too_old_total",
                "counter",
                "Channels that had been away for longer than changes are kept.",
                get(&feed.too_old).to_string(),
            ),
            (
                "broadcasts_too_large_total",
                "counter",
                "Broadcasts from the database that were larger than one may be, and were told nobody.",
                get(&feed.too_large).to_string(),
            ),
            ("change_lag_seconds", "gauge", "From the newest change until it was told.", seconds(&feed.lag)),
            ("change_lag_seconds_total", "counter", "Likewise, of all together.", seconds(&feed.lags)),
            ("other_nodes", "gauge", "Other nodes that are alive.", self.everybody().others().to_string()),
            ("bus_lost_total", "counter", "Messages that other nodes cannot have heard.", self.bus.lost().to_string()),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in figures {
            let _ = write!(
                text,
                "# HELP ntier_realtime_{name} {help}\n# TYPE ntier_realtime_{name} {kind}\nntier_realtime_{name} {value}\n"
            );
        }
        let mut response = Response::new(Bytes::from(text));
        let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, format);
        response
    }
}
