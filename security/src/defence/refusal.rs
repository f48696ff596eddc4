//! What is told to whoever is not let in. Nodes and balancers say it alike, and it costs nothing to make.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

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
    fn status(&self) -> StatusCode {
        match self {
            Self::Firewall(Reason::Network | Reason::Path) | Self::Banned(_) => StatusCode::FORBIDDEN,
            Self::Firewall(Reason::Method) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Firewall(Reason::Headers) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Firewall(Reason::Body) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Throttled(_) | Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// As clients and logs know it, and what is said of it.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Firewall(Reason::Network) => ("address_denied", "This address is not let in"),
            Self::Firewall(Reason::Path) => ("path_denied", "Nobody is let in here"),
            Self::Firewall(Reason::Method) => ("method_denied", "This method is not served"),
            Self::Firewall(Reason::Headers) => ("headers_too_large", "The headers of the request are too large"),
            Self::Firewall(Reason::Body) => ("body_too_large", "The request body is too large"),
            Self::Banned(_) => ("address_banned", "Too much that looks like an attack came from this address"),
            Self::Throttled(_) => {
                ("address_throttled", "Too many requests of this address were refused; go on more slowly")
            }
            Self::Limited(_) => ("over_request_rate_limit", "Request rate limit reached"),
        }
    }

    pub fn code(&self) -> &'static str {
        self.words().0
    }

    /// What is answered: a JSON object. The rest of the request is not read, so the connection ends.
    pub fn response(&self) -> Response<String> {
        let (code, message) = self.words();
        let mut response = Response::new(format!(r#"{{"code":"{code}","message":"{message}"}}"#));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.extend(self.retry_after().map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))));
        // A page of the application that is slowed down can read why.
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        response
    }

    /// After how many whole seconds it may be tried again.
    fn retry_after(&self) -> Option<u64> {
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
