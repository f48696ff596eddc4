//! What a client takes for given, and the locks to which it shows that it has the keys: the header `If` (RFC 4918, 10.4).

use http::StatusCode;
use ntier_protocol::storage::dav::condition::{self, List};
use ntier_protocol::storage::error::Code;
use uuid::Uuid;

use super::locks::{Below, Lock};
use super::place::Place;
use super::{Fault, Kind};
use crate::Storage;
use crate::error::Error;
use crate::visitor::Visitor;

impl Storage {
    /// Whether one of the header's lists is so, if there are any.
    pub(super) async fn dav_expect(&self, visitor: &Visitor, place: &Place, kind: &Kind) -> Result<(), Fault> {
        let lists = lists(visitor)?;
        if lists.is_empty() {
            return Ok(());
        }
        let locks = self.dav_locks(visitor, place, Below::Nothing).await?;
        for list in &lists {
            let is_so = match list.resource.as_deref().map(|url| Place::of_url(visitor, url)) {
                None => holds(list, &locks, place, kind),
                Some(Ok(other)) => self.dav_holds_of(visitor, list, &other).await?,
                // What is elsewhere has no state here.
                Some(Err(_)) => list.all(|_| false, |_| false),
            };
            if is_so {
                return Ok(());
            }
        }
        Err(Fault::Status(StatusCode::PRECONDITION_FAILED))
    }

    /// Of another place than the one that is asked for.
    async fn dav_holds_of(&self, visitor: &Visitor, list: &List, place: &Place) -> Result<bool, Error> {
        let kind = match self.dav_look(visitor, place).await {
            Err(error) if error.wire().code == Code::NoSuchBucket => Kind::Nothing,
            found => found?.kind,
        };
        let locks = self.dav_locks(visitor, place, Below::Nothing).await?;
        Ok(holds(list, &locks, place, &kind))
    }
}

pub fn lists(visitor: &Visitor) -> Result<Vec<List>, Fault> {
    let Some(value) = visitor.headers.get("if") else { return Ok(Vec::new()) };
    let lists = value.to_str().ok().and_then(condition::parse);
    lists.ok_or(Fault::Status(StatusCode::BAD_REQUEST))
}

/// Whether one of them mentions the lock, and so shows the key to it, whatever else it says.
pub fn show(lists: &[List], lock: &str) -> bool {
    lists.iter().flat_map(List::tokens).any(|uri| token(uri).as_deref() == Some(lock))
}

/// The lock that a URI names, if it is one of ours.
pub fn token(uri: &str) -> Option<String> {
    let id = uri.strip_prefix("urn:uuid:").or_else(|| uri.strip_prefix("opaquelocktoken:"))?;
    Uuid::try_parse(id).ok().map(|id| id.to_string())
}

fn holds(list: &List, locks: &[Lock], place: &Place, kind: &Kind) -> bool {
    let is_lock = |uri: &str| {
        let token = token(uri);
        locks.iter().any(|lock| lock.covers(&place.path) && Some(&lock.token) == token.as_ref())
    };
    let etag = match kind {
        Kind::File(object) => Some(object.metadata.etag.as_str()),
        Kind::Folder | Kind::Nothing => None,
    };
    list.all(is_lock, |tag| Some(tag) == etag)
}
