//! Connections that become websockets: realtime's.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ntier_realtime::{Realtime, Refused};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// The place of a connection among those of its worker. A websocket keeps it.
#[derive(Debug, Clone)]
pub struct Seat(#[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

impl Seat {
    pub fn new(place: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(place))
    }
}

/// Answers a handshake; the connection is served once the answer has been sent.
pub fn answer(
    realtime: &Arc<Realtime>,
    mut request: Request<Incoming>,
    seat: Seat,
    stop: watch::Receiver<bool>,
) -> Response<Bytes> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let admitted = realtime.admit(&parts).and_then(|admitted| {
        let place = realtime.place().map_err(Refused::Handshake)?;
        Ok((admitted, place))
    });
    let (admitted, place) = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => return refuse(&refused),
    };
    let Some(accept) = ntier_realtime::accept(&parts.method, &parts.headers) else {
        return refuse(&Refused::NoWebsocket);
    };
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            Realtime::serve(place, TokioIo::new(stream), admitted, stop).await;
        }
        drop(seat);
    });
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn refuse(refused: &Refused) -> Response<Bytes> {
    match refused {
        Refused::NoWebsocket => {
            let mut response =
                crate::json(StatusCode::UPGRADE_REQUIRED, json!({ "error": "This is a websocket" }).to_string());
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            response
        }
        Refused::Version => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        }
        Refused::Handshake(handshake) => {
            let status = StatusCode::from_u16(handshake.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            crate::json(status, handshake.body().to_string())
        }
    }
}
