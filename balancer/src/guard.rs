//! Who is let in: the balancer's part of the defence (`security::defence`).
//!
//! What nodes refuse they count themselves, and scores are shared; here is counted what never comes to a node.

use std::net::IpAddr;
use std::time::Instant;

use http::HeaderMap;
use ntier_security::defence::Defence;
use ntier_security::intrusion::Event;
use ntier_security::network::{self, Network};

use crate::answer::Refusal;
use crate::forward::Front;

/// Whose request it is: the peer's, or whose a trusted proxy says.
pub fn client(front: &Front, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    if front.is_trusted { network::client_of(front.address, headers, trusted) } else { front.address }
}

/// A request was refused here.
pub fn refused(defence: &Defence, refusal: Refusal, client: IpAddr, path: &str) {
    let event = match refusal {
        Refusal::Malformed(_) => Event::Malformed,
        Refusal::BodyTooLarge => Event::TooLarge,
        Refusal::BodyTooSlow => Event::TooSlow,
        _ => return,
    };
    defence.note(event, client, None, Some(path), Instant::now());
}

/// A connection ended because what came was no HTTP, or too much of it. Behind a proxy that speaks HTTP it is that proxy's own fault.
pub fn malformed(defence: &Defence, front: &Front, cause: &hyper::Error) {
    let event = if cause.is_parse_too_large() { Event::TooLarge } else { Event::Malformed };
    if cause.is_parse() && !front.is_trusted {
        defence.note(event, front.address, None, None, Instant::now());
    }
}
