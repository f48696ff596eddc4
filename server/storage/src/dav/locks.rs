//! Locks on writing (RFC 4918, 6 and 7), in the database, so that every node knows them. They hold between clients of WebDAV; who asks
//! in another way is not held back.

use std::collections::HashMap;

use http::{HeaderName, Response, StatusCode};
use ntier_backing::database::Row;
use ntier_protocol::storage::dav::answer::{self, ActiveLock};
use ntier_protocol::storage::dav::body as dav_body;
use ntier_protocol::storage::dav::condition::{self, List};
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::media_type;
use serde_json::json;
use uuid::Uuid;

use super::place::{self, Place};
use super::propfind::Seen;
use super::write::Upload;
use super::{Answer, Fault, Kind, depth, xml};
use crate::Storage;
use crate::body::{self, Body};
use crate::download::set;
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store;
use crate::upload::Target;
use crate::visitor::{Visitor, owner};

/// How long a lock holds at most, and where nothing is said, in seconds: a client that lives on renews it.
const LONGEST: u64 = 3600;
const USUAL: u64 = 600;
/// Locks of one bucket, and of one caller.
const MOST: usize = 10_000;
const MOST_OF_CALLER: usize = 1000;
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
    token: String,
    /// Of the object or folder; empty for the bucket.
    name: String,
    is_deep: bool,
    is_shared: bool,
    /// As XML.
    owner: String,
    /// It is the caller's.
    is_own: bool,
    seconds: u64,
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

    pub fn token(&self) -> &str {
        &self.token
    }

    fn covers(&self, path: &str) -> bool {
        self.name == path
            || self.is_deep
                && (self.name.is_empty() || path.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('/')))
    }

    fn active(&self, place: &Place) -> ActiveLock {
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
    async fn dav_locks(&self, visitor: &Visitor, place: &Place, below: Below) -> Result<Vec<Lock>, Error> {
        let caller = visitor.caller()?;
        let below = match below {
            Below::Nothing => "false",
            Below::Entries => "starts_with(name, $5) and strpos(substr(name, length($5) + 1), '/') = 0",
            Below::Everything => "starts_with(name, $5)",
        };
        let text = format!(
            "select {} from ntier.dav_locks where bucket_id = $1 and expires_at > now() \
             and (name = any (array(select jsonb_array_elements_text($4::jsonb))) or ($5::text is not null and {below})) \
             order by name, token limit {MOST}",
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
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        Ok(rows.iter().map(Lock::of).collect())
    }

    /// Writes the locks of each entry into it.
    pub(super) async fn dav_tell_locks(
        &self,
        visitor: &Visitor,
        place: &Place,
        below: Below,
        seen: &mut [Seen],
    ) -> Result<(), Error> {
        let locks = self.dav_locks(visitor, place, below).await?;
        let (own, above): (Vec<&Lock>, Vec<&Lock>) =
            locks.iter().partition(|lock| seen.len() > 1 && lock.name.starts_with(&place.prefix()));
        let mut by_name: HashMap<&str, Vec<&Lock>> = HashMap::new();
        for lock in own {
            by_name.entry(&lock.name).or_default().push(lock);
        }
        for seen in seen.iter_mut().filter(|_| !locks.is_empty()) {
            let above = above.iter().filter(|lock| lock.covers(&seen.path));
            let all = by_name.get(seen.path.as_str()).into_iter().flatten().chain(above);
            seen.entry.locks = all.take(MOST_TOLD).map(|lock| lock.active(place)).collect();
        }
        Ok(())
    }

    /// Whether what the client takes for given is so (RFC 4918, 10.4).
    pub(super) async fn dav_expect(&self, visitor: &Visitor, place: &Place, kind: &Kind) -> Result<(), Fault> {
        let lists = conditions(visitor)?;
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

    async fn dav_holds_of(&self, visitor: &Visitor, list: &List, place: &Place) -> Result<bool, Error> {
        let kind = match self.dav_look(visitor, place).await {
            Err(error) if error.wire().code == Code::NoSuchBucket => Kind::Nothing,
            found => found?.kind,
        };
        let locks = self.dav_locks(visitor, place, Below::Nothing).await?;
        Ok(holds(list, &locks, place, &kind))
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
        let lists = conditions(visitor)?;
        let is_shown = |lock: &&Lock| lock.is_own && lists.iter().any(|list| shows(list, &lock.token));
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

    pub(super) async fn dav_lock(&self, visitor: &Visitor, place: &Place, body: Body) -> Answer {
        let body = body::whole(body).await?;
        if body.is_empty() {
            return self.dav_renew(visitor, place).await;
        }
        let info = dav_body::lockinfo(&body)?;
        let is_deep = match depth(visitor) {
            Some("0") => false,
            None => true,
            Some(text) if text.eq_ignore_ascii_case("infinity") => true,
            Some(_) => return Err(Fault::Status(StatusCode::BAD_REQUEST)),
        };
        let found = self.dav_look(visitor, place).await?;
        self.dav_expect(visitor, place, &found.kind).await?;
        if found.kind == Kind::Nothing {
            if !found.has_parent || place.with_slash {
                return Err(Fault::Status(StatusCode::CONFLICT));
            }
            // What is not there yet is made, so that nobody else makes it (RFC 4918, 7.3).
            self.dav_may_change(visitor, place, Change::Made).await?;
            let upload = Upload::empty(media_type::of_name(&place.path), false);
            self.dav_store(visitor, place, &place.key()?, upload).await?;
        } else {
            self.dav_may_write(visitor, place, &found.kind).await?;
        }
        let lock = Lock {
            token: Uuid::new_v4().to_string(),
            name: place.path.clone(),
            // A file has nothing below.
            is_deep: is_deep && found.kind == Kind::Folder,
            is_shared: info.is_shared,
            owner: info.owner,
            is_own: true,
            seconds: seconds(visitor),
        };
        self.dav_take_lock(visitor, place, &lock).await?;
        let mut response = tell(place, &lock);
        if found.kind == Kind::Nothing {
            *response.status_mut() = StatusCode::CREATED;
        }
        set(response.headers_mut(), LOCK_TOKEN, &format!("<urn:uuid:{}>", lock.token));
        Ok(response)
    }

    async fn dav_take_lock(&self, visitor: &Visitor, place: &Place, lock: &Lock) -> Result<(), Fault> {
        let caller = visitor.caller()?;
        let flag = |set: bool| Some(if set { "true" } else { "false" });
        // One at a time looks whether there is another.
        let alone = sql(
            "select pg_advisory_xact_lock(hashtextextended('ntier.dav_locks ' || $1, 0))",
            &[Some(place.bucket.as_str())],
        );
        let sweep = sql("delete from ntier.dav_locks where expires_at <= now()", &[]);
        let owner = owner(caller);
        let room = format!(
            "(select count(*) from ntier.dav_locks where bucket_id = $1) < {MOST} \
             and (select count(*) from ntier.dav_locks where role = $2 and sub is not distinct from $3) < {MOST_OF_CALLER}"
        );
        let whose = [Some(place.bucket.as_str()), Some(&caller.role), owner.as_deref()];
        let has_room = sql(&format!("select {room}"), &whose);
        let text = format!(
            "insert into ntier.dav_locks (bucket_id, role, sub, token, name, is_deep, is_shared, owner, expires_at) \
             select $1, $2, $3, $4::uuid, $5, $6::boolean, $7::boolean, $8, now() + make_interval(secs => $9::int) \
             where {room} and not exists (select from ntier.dav_locks l where l.bucket_id = $1 and not (l.is_shared and $7::boolean) \
             and (l.name = $5 or (l.is_deep and (l.name = '' or starts_with($5, l.name || '/'))) \
             or ($6::boolean and starts_with(l.name, $10)))) returning token"
        );
        let (seconds, prefix) = (lock.seconds.to_string(), place.prefix());
        let what = [
            Some(lock.token.as_str()),
            Some(lock.name.as_str()),
            flag(lock.is_deep),
            flag(lock.is_shared),
            Some(lock.owner.as_str()),
            Some(seconds.as_str()),
            Some(prefix.as_str()),
        ];
        let take = sql(&text, &[&whose[..], &what[..]].concat());
        let answer = session::finish(&self.database, vec![alone, sweep, has_room, take]).await?;
        if store::first(&answer, 2).and_then(|row| row.text(0)) != Some("t") {
            return Err(Fault::Status(StatusCode::INSUFFICIENT_STORAGE));
        }
        store::first(&answer, 3).ok_or(Fault::Condition(StatusCode::LOCKED, "no-conflicting-lock"))?;
        Ok(())
    }

    /// Who may not write may neither keep others from it nor say something of it.
    pub(super) async fn dav_may_write(&self, visitor: &Visitor, place: &Place, kind: &Kind) -> Result<(), Fault> {
        let caller = visitor.caller()?;
        let request = Request::of(visitor, "storage.object.upload");
        if *kind == Kind::Folder {
            let (owner, key) = (owner(caller), place.placeholder()?);
            let target = Target { bucket: &place.bucket, key: &key, owner: owner.as_deref(), upsert: true };
            let description = Upload::empty("application/octet-stream", true).description;
            self.may_upload(Some(caller), &request, &target, &description).await?;
            return Ok(());
        }
        let touch = sql(
            "update storage.objects set name = name where bucket_id = $1 and name = $2 returning id",
            &[Some(place.bucket.as_str()), Some(&place.path)],
        );
        let work = Work { service: Vec::new(), caller: vec![touch] };
        let answer = session::as_caller(&self.database, caller, &request, Mode::Try, work).await?;
        store::first(&answer, 0).ok_or_else(|| Wire::new(Code::AccessDenied, "The file may not be changed"))?;
        Ok(())
    }

    async fn dav_renew(&self, visitor: &Visitor, place: &Place) -> Answer {
        let lists = conditions(visitor)?;
        let locks = self.dav_locks(visitor, place, Below::Nothing).await?;
        let is_meant =
            |lock: &Lock| lock.is_own && lock.covers(&place.path) && lists.iter().any(|list| shows(list, &lock.token));
        let Some(mut lock) = locks.into_iter().find(is_meant) else {
            return Err(Fault::Condition(StatusCode::PRECONDITION_FAILED, "lock-token-matches-request-uri"));
        };
        lock.seconds = seconds(visitor);
        let renew = sql(
            "update ntier.dav_locks set expires_at = now() + make_interval(secs => $2::int) where token = $1::uuid",
            &[Some(&lock.token), Some(&lock.seconds.to_string())],
        );
        session::finish(&self.database, vec![renew]).await?;
        Ok(tell(place, &lock))
    }

    pub(super) async fn dav_unlock(&self, visitor: &Visitor, place: &Place) -> Answer {
        let token = visitor.header(&LOCK_TOKEN).and_then(|text| token(text.trim().trim_matches(['<', '>'])));
        let token = token.ok_or(Fault::Status(StatusCode::BAD_REQUEST))?;
        let locks = self.dav_locks(visitor, place, Below::Nothing).await?;
        let Some(lock) = locks.iter().find(|lock| lock.token == token && lock.covers(&place.path)) else {
            return Err(Fault::Condition(StatusCode::CONFLICT, "lock-token-matches-request-uri"));
        };
        if !lock.is_own {
            return Err(Fault::Status(StatusCode::FORBIDDEN));
        }
        let end = sql("delete from ntier.dav_locks where token = $1::uuid", &[Some(&token)]);
        session::finish(&self.database, vec![end]).await?;
        Ok(respond::status(StatusCode::NO_CONTENT))
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

const LOCK_TOKEN: HeaderName = HeaderName::from_static("lock-token");

fn tell(place: &Place, lock: &Lock) -> Response<Body> {
    xml(StatusCode::OK, answer::locked(&lock.active(place)))
}

/// `Timeout: Infinite, Second-600`: the first that we understand, within our bounds.
fn seconds(visitor: &Visitor) -> u64 {
    let said = visitor.text("timeout").unwrap_or_default().split(',').map(str::trim);
    let mut said = said.filter_map(|text| match text.strip_prefix("Second-") {
        Some(number) => number.parse().ok(),
        None => text.eq_ignore_ascii_case("infinite").then_some(LONGEST),
    });
    said.next().unwrap_or(USUAL).clamp(1, LONGEST)
}

/// The lock that a URI names, if it is one of ours.
fn token(uri: &str) -> Option<String> {
    let id = uri.strip_prefix("urn:uuid:").or_else(|| uri.strip_prefix("opaquelocktoken:"))?;
    Uuid::try_parse(id).ok().map(|id| id.to_string())
}

/// The lists of the header `If`.
fn conditions(visitor: &Visitor) -> Result<Vec<List>, Fault> {
    let Some(value) = visitor.headers.get("if") else { return Ok(Vec::new()) };
    let lists = value.to_str().ok().and_then(condition::parse);
    lists.ok_or(Fault::Status(StatusCode::BAD_REQUEST))
}

/// Whether the list mentions the lock.
fn shows(list: &List, lock: &str) -> bool {
    list.tokens().any(|uri| token(uri).as_deref() == Some(lock))
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
