//! What the balancer answers itself: one table of codes. Nothing of it tells where backends are or why they failed.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::exchange::Failure;
use crate::head::Fault;
use crate::upload::ClientFault;

/// Why a request is not answered by a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No backend is up.
    NoBackend,
    /// As many requests are under way as may be.
    Busy,
    /// Its backend could not be reached.
    Unreachable,
    /// Its backend has not said what became of it.
    FateUnknown,
    /// Its backend's answer was not understood.
    BadAnswer,
    Late,
    Malformed(Fault),
    BodyTooLarge,
    BodyTooSlow,
    BodyBroken,
}

struct Wire {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    /// In seconds, where trying again may help.
    retry_after: Option<u32>,
    /// The client's connection may be used for another request.
    keeps: bool,
}

impl Refusal {
    /// What becomes of a failed attempt that is not repeated.
    pub fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Connect(_) => Self::Unreachable,
            Failure::Own(_) => Self::Busy,
            Failure::Unanswered { .. } | Failure::Broken(_) => Self::FateUnknown,
            Failure::Malformed(_) => Self::BadAnswer,
            Failure::Late => Self::Late,
            Failure::Client(ClientFault::Gone) => Self::BodyBroken,
            Failure::Client(ClientFault::Slow) => Self::BodyTooSlow,
            Failure::Client(ClientFault::TooLarge) => Self::BodyTooLarge,
        }
    }

    /// Codes stay as they are: `NTIER2xx` are the balancer's.
    fn wire(self) -> Wire {
        let again = |status, code, message| Wire { status, code, message, retry_after: Some(1), keeps: true };
        let refused = |status, code, message| Wire { status, code, message, retry_after: None, keeps: false };
        match self {
            Self::NoBackend => again(StatusCode::SERVICE_UNAVAILABLE, "NTIER201", "No server can answer at the moment"),
            Self::Busy => {
                again(StatusCode::SERVICE_UNAVAILABLE, "NTIER202", "Too many requests are under way at the moment")
            }
            Self::Unreachable => again(StatusCode::SERVICE_UNAVAILABLE, "NTIER203", "The server could not be reached"),
            Self::FateUnknown => Wire {
                retry_after: None,
                ..again(
                    StatusCode::BAD_GATEWAY,
                    "NTIER204",
                    "The server ended before it answered; the request may have been carried out",
                )
            },
            Self::BadAnswer => Wire {
                retry_after: None,
                ..again(StatusCode::BAD_GATEWAY, "NTIER205", "The server's answer could not be understood")
            },
            Self::Late => Wire {
                retry_after: None,
                ..again(
                    StatusCode::GATEWAY_TIMEOUT,
                    "NTIER206",
                    "The server did not answer in time; the request may have been carried out",
                )
            },
            Self::Malformed(Fault::Host) => {
                refused(StatusCode::BAD_REQUEST, "NTIER207", "A request has to say which host it is for, once")
            }
            Self::Malformed(Fault::Coding) => {
                refused(StatusCode::NOT_IMPLEMENTED, "NTIER208", "The body's transfer coding is not known")
            }
            Self::Malformed(Fault::Connect) => {
                refused(StatusCode::METHOD_NOT_ALLOWED, "NTIER209", "Tunnels to other hosts are not made")
            }
            Self::BodyTooLarge => refused(StatusCode::PAYLOAD_TOO_LARGE, "NTIER210", "The request body is too large"),
            Self::BodyTooSlow => refused(StatusCode::REQUEST_TIMEOUT, "NTIER211", "The request body took too long"),
            Self::BodyBroken => refused(StatusCode::BAD_REQUEST, "NTIER212", "The request body could not be read"),
        }
    }

    pub fn code(self) -> &'static str {
        self.wire().code
    }

    /// In the form that Supabase's clients know.
    pub fn response(self) -> Response<Bytes> {
        let wire = self.wire();
        let body = json!({ "code": wire.code, "message": wire.message, "details": null, "hint": null }).to_string();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = wire.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        if let Some(seconds) = wire.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if !wire.keeps {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn refusals_say_what_helps_and_nothing_of_the_inside() {
        let cause = || io::Error::other("connect to 10.0.0.7:54321 refused");
        for (failure, status, code, retry) in [
            (Failure::Connect(cause()), 503, "NTIER203", true),
            (Failure::Own(cause()), 503, "NTIER202", true),
            (Failure::Unanswered { cause: cause(), was_reused: false }, 502, "NTIER204", false),
            (Failure::Late, 504, "NTIER206", false),
            (Failure::Client(ClientFault::Slow), 408, "NTIER211", false),
        ] {
            let refusal = Refusal::of(&failure);
            let response = refusal.response();
            assert_eq!((response.status().as_u16(), refusal.code()), (status, code), "{failure}");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retry, "{failure}");
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["code"], code);
            assert!(!body.to_string().contains("10.0.0.7"), "{body}");
        }
    }
}
