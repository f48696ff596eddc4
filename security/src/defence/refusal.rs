//! What is told to whoever is not let in. Nodes and balancers say it alike, and it costs nothing to make.

use std::time::Duration;

use crate::firewall::Reason;

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Firewall(Reason),
    /// For so long; `None` until that is lifted.
    Banned(Option<Duration>),
    /// The next request may come after this time.
    Throttled(Duration),
    Limited(Duration),
}

impl Refusal {
    /// The status of HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Self::Firewall(Reason::Network | Reason::Path) | Self::Banned(_) => 403,
            Self::Firewall(Reason::Method) => 405,
            Self::Firewall(Reason::Headers) => 431,
            Self::Firewall(Reason::Body) => 413,
            Self::Throttled(_) | Self::Limited(_) => 429,
        }
    }

    /// A JSON object.
    pub fn body(&self) -> &'static str {
        match self {
            Self::Firewall(Reason::Network) => r#"{"code":"address_denied","message":"This address is not let in"}"#,
            Self::Firewall(Reason::Path) => r#"{"code":"path_denied","message":"Nobody is let in here"}"#,
            Self::Firewall(Reason::Method) => r#"{"code":"method_denied","message":"This method is not served"}"#,
            Self::Firewall(Reason::Headers) => {
                r#"{"code":"headers_too_large","message":"The headers of the request are too large"}"#
            }
            Self::Firewall(Reason::Body) => r#"{"code":"body_too_large","message":"The request body is too large"}"#,
            Self::Banned(_) => {
                r#"{"code":"address_banned","message":"Too much that looks like an attack came from this address"}"#
            }
            Self::Throttled(_) => {
                r#"{"code":"address_throttled","message":"Too many requests of this address were refused; go on more slowly"}"#
            }
            Self::Limited(_) => r#"{"code":"over_request_rate_limit","message":"Request rate limit reached"}"#,
        }
    }

    /// After how many whole seconds it may be tried again.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Banned(left) => left.map(seconds),
            Self::Throttled(wait) | Self::Limited(wait) => Some(seconds(*wait)),
            Self::Firewall(_) => None,
        }
    }
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
