//! Locks on writing (RFC 4918, 6 and 7), in the database, so that every node knows them. They hold between clients of WebDAV; who asks
//! in another way is not held back.

use std::collections::HashMap;

use http::StatusCode;
use ntier_backing::database::Row;
use ntier_protocol::storage::dav::answer::ActiveLock;
use serde_json::json;

use super::place::{self, Place};
use super::propfind::Seen;
use super::{Fault, given};
use crate::Storage;
use crate::error::Error;
use crate::session::{self, sql};
use crate::visitor::{Visitor, owner};

/// Locks that are told of one entry: many may share it.
const MOST_TOLD: usize = 10;

/// What is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Content,
    /// It comes to be, which changes the folder too.
    Made,
    /// It goes, and all that is below.
    Gone,
}

/// Of which places below the locks are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    Nothing,
    /// What is in the folder itself.
    Entries,
    Everything,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    pub token: String,
    /// Of the object or folder; empty for the bucket.
    pub name: String,
    pub is_deep: bool,
    pub is_shared: bool,
    /// As XML.
    pub owner: String,
    /// It is the caller's.
    pub is_own: bool,
    pub seconds: u64,
}

impl Lock {
    const COLUMNS: &str = "token, name, is_deep, is_shared, owner, role = $2 and sub is not distinct from $3, \
        ceil(extract(epoch from expires_at - now()))::bigint";

    fn of(row: &Row) -> Self {
        let text = |column: usize| row.text(column).unwrap_or_default().to_owned();
        Self {
            token: text(0),
            name: text(1),
            is_deep: text(2) == "t",
            is_shared: text(3) == "t",
            owner: text(4),
            is_own: text(5) == "t",
            seconds: text(6).parse().unwrap_or_default(),
        }
    }

    pub fn covers(&self, path: &str) -> bool {
        self.name == path
            || self.is_deep
                && (self.name.is_empty() || path.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('/')))
    }

    pub fn active(&self, place: &Place) -> ActiveLock {
        ActiveLock {
            token: format!("urn:uuid:{}", self.token),
            root: place::href(Some(&place.bucket), &self.name, false),
            is_deep: self.is_deep,
            is_shared: self.is_shared,
            owner: self.owner.clone(),
            seconds: self.seconds,
        }
    }
}

impl Storage {
    /// Locks on the place, on what it is in and, if wanted, on what is below.
    pub(super) async fn dav_locks(&self, visitor: &Visitor, place: &Place, below: Below) -> Result<Vec<Lock>, Error> {
        let caller = visitor.caller()?;
        let below = match below {
            Below::Nothing => "false",
            Below::Entries => "starts_with(name, $5) and strpos(substr(name, length($5) + 1), '/') = 0",
            Below::Everything => "starts_with(name, $5)",
        };
        let text = format!(
            "select {} from ntier.dav_locks where bucket_id = $1 and expires_at > now() \
             and (name = any (array(select jsonb_array_elements_text($4::jsonb))) or ($5::text is not null and {below})) \
             order by name, token",
            Lock::COLUMNS
        );
        let mut above = vec![String::new()];
        above.extend(place.path.match_indices('/').map(|(at, _)| place.path[..at].to_owned()));
        above.push(place.path.clone());
        let statement = sql(
            &text,
            &[
                Some(place.bucket.as_str()),
                Some(&caller.role),
                owner(caller).as_deref(),
                Some(&json!(above).to_string()),
                Some(&place.prefix()),
            ],
        );
        let answer = session::look(&self.database, vec![statement]).await?;
        Ok(answer.results.iter().flat_map(|result| &result.rows).map(Lock::of).collect())
    }

    /// Writes the locks of each entry into it: its own first, and those of what it is in.
    pub(super) async fn dav_tell_locks(
        &self,
        visitor: &Visitor,
        place: &Place,
        seen: &mut [Seen],
    ) -> Result<(), Error> {
        let below = if seen.len() > 1 { Below::Entries } else { Below::Nothing };
        let locks = self.dav_locks(visitor, place, below).await?;
        let (entries, above): (Vec<&Lock>, Vec<&Lock>) =
            locks.iter().partition(|lock| lock.name != place.path && lock.name.starts_with(&place.prefix()));
        let mut by_name: HashMap<&str, Vec<&Lock>> = HashMap::new();
        for lock in entries {
            by_name.entry(&lock.name).or_default().push(lock);
        }
        for seen in seen.iter_mut().filter(|_| !locks.is_empty()) {
            let own = by_name.get(seen.path.as_str()).into_iter().flatten();
            let all = own.chain(above.iter().filter(|lock| lock.covers(&seen.path)));
            seen.entry.locks = all.take(MOST_TOLD).map(|lock| lock.active(place)).collect();
        }
        Ok(())
    }

    /// Whether the client has the keys to what is locked. Gives all the locks.
    pub(super) async fn dav_may_change(
        &self,
        visitor: &Visitor,
        place: &Place,
        change: Change,
    ) -> Result<Vec<Lock>, Fault> {
        let below = if change == Change::Gone { Below::Everything } else { Below::Nothing };
        let locks = self.dav_locks(visitor, place, below).await?;
        let lists = given::lists(visitor)?;
        let is_shown = |lock: &&Lock| lock.is_own && given::show(&lists, &lock.token);
        let concerns = |lock: &&Lock| {
            lock.covers(&place.path)
                || (change == Change::Gone && lock.name.starts_with(&place.prefix()))
                || (change != Change::Content && lock.name == place.above())
        };
        let (shared, exclusive): (Vec<&Lock>, Vec<&Lock>) =
            locks.iter().filter(concerns).partition(|lock| lock.is_shared);
        if exclusive.iter().all(is_shown) && (shared.is_empty() || shared.iter().any(is_shown)) {
            Ok(locks)
        } else {
            Err(Fault::Condition(StatusCode::LOCKED, "lock-token-submitted"))
        }
    }

    /// What is gone is not locked.
    pub(super) async fn dav_drop_locks(&self, place: &Place) -> Result<(), Error> {
        let end = sql(
            "delete from ntier.dav_locks where bucket_id = $1 and (name = $2 or starts_with(name, $3))",
            &[Some(place.bucket.as_str()), Some(&place.path), Some(&place.prefix())],
        );
        session::finish(&self.database, vec![end]).await?;
        Ok(())
    }
}
