//! Locks on writing (RFC 4918, 6 and 7), in the database, so that every node knows them. They hold between clients of WebDAV; who asks
//! in another way is not held back.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, Response, StatusCode};
use ntier_backing::database::Row;
use ntier_protocol::storage::error::{Code, Error as Wire};
use quick_xml::escape::escape;
use serde_json::json;
use uuid::Uuid;

use super::place::Place;
use super::xml::{self, Entry};
use super::{Answer, Fault, Found, Kind, condition, depth, described, media_type, multistatus};
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
/// Locks of one bucket.
const MOST: &str = "10000";
/// Bytes of what a client says of its user.
const LONGEST_OWNER: usize = 1000;

/// What is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Content,
    /// It goes, and all that is below.
    Tree,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    token: String,
    /// Of the object or folder; empty for the bucket.
    name: String,
    is_deep: bool,
    is_shared: bool,
    owner: String,
    /// It is the caller's.
    is_own: bool,
    seconds: u64,
}

impl Lock {
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

    fn covers(&self, path: &str) -> bool {
        self.name == path
            || self.is_deep
                && (self.name.is_empty() || path.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('/')))
    }

    fn xml(&self, place: &Place) -> String {
        let scope = if self.is_shared { "shared" } else { "exclusive" };
        let depth = if self.is_deep { "infinity" } else { "0" };
        let root = super::place::href(Some(&place.bucket), &self.name, false);
        let mut out = format!(
            "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope><D:depth>{depth}</D:depth>"
        );
        if !self.owner.is_empty() {
            let _ = write!(out, "<D:owner>{}</D:owner>", escape(&self.owner));
        }
        let _ = write!(
            out,
            "<D:timeout>Second-{}</D:timeout><D:locktoken><D:href>urn:uuid:{}</D:href></D:locktoken>\
             <D:lockroot><D:href>{}</D:href></D:lockroot></D:activelock>",
            self.seconds,
            self.token,
            escape(&root)
        );
        out
    }
}

const SELECT: &str = "select token, name, is_deep, is_shared, owner, role = $2 and sub is not distinct from $3, \
    ceil(extract(epoch from expires_at - now()))::bigint from ntier.dav_locks where bucket_id = $1 and expires_at > now()";

impl Storage {
    /// Locks on the place, on what it is in and, if wanted, on what is below.
    async fn dav_locks(&self, visitor: &Visitor, place: &Place, below: bool) -> Result<Vec<Lock>, Error> {
        let caller = visitor.caller()?;
        let text = format!(
            "{SELECT} and (name = any (array(select jsonb_array_elements_text($4::jsonb))) \
             or ($5::boolean and starts_with(name, $6))) order by name, token limit {MOST}"
        );
        let mut above = vec![String::new()];
        for (at, _) in place.path.match_indices('/') {
            above.push(place.path[..at].to_owned());
        }
        above.push(place.path.clone());
        let statement = sql(
            &text,
            &[
                Some(place.bucket.as_str()),
                Some(&caller.role),
                owner(caller).as_deref(),
                Some(&json!(above).to_string()),
                Some(if below { "true" } else { "false" }),
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
        entries: &mut [Entry],
    ) -> Result<(), Error> {
        let locks = self.dav_locks(visitor, place, entries.len() > 1).await?;
        for entry in entries.iter_mut().filter(|_| !locks.is_empty()) {
            let of_entry = locks.iter().filter(|lock| lock.covers(&entry.path));
            entry.locks = of_entry.map(|lock| lock.xml(place)).collect();
        }
        Ok(())
    }

    /// Whether what the client takes for given is so, and it has the keys to what is locked.
    pub(super) async fn dav_may_change(
        &self,
        visitor: &Visitor,
        place: &Place,
        found: &Found,
        change: Change,
    ) -> Result<(), Fault> {
        let locks = self.dav_locks(visitor, place, change == Change::Tree).await?;
        let lists = conditions(visitor)?;
        let mut holds = lists.is_empty();
        for list in &lists {
            if holds {
                break;
            }
            holds = match list.place(visitor)? {
                Some(other) if other.bucket != place.bucket || other.path != place.path => {
                    let found = self.dav_look(visitor, &other).await?;
                    list.holds(&self.dav_locks(visitor, &other, false).await?, &other, &found.kind)
                }
                _ => list.holds(&locks, place, &found.kind),
            };
        }
        if !holds {
            return Err(Fault::Status(StatusCode::PRECONDITION_FAILED));
        }
        let is_shown = |lock: &&Lock| lock.is_own && lists.iter().any(|list| list.shows(&lock.token));
        // What is made or taken away changes the folder.
        let changes_folder = change == Change::Tree || found.kind == Kind::Nothing;
        let concerns = |lock: &&Lock| {
            lock.covers(&place.path)
                || (change == Change::Tree && lock.name.starts_with(&place.prefix()))
                || (changes_folder && lock.name == place.parent())
        };
        let (shared, exclusive): (Vec<&Lock>, Vec<&Lock>) =
            locks.iter().filter(concerns).partition(|lock| lock.is_shared);
        let is_open = exclusive.iter().all(is_shown) && (shared.is_empty() || shared.iter().any(is_shown));
        if is_open { Ok(()) } else { Err(Fault::Condition(StatusCode::LOCKED, "lock-token-submitted")) }
    }

    pub(super) async fn dav_lock(&self, visitor: &Visitor, place: &Place, body: Body) -> Answer {
        let body = body::whole(body).await?;
        if body.is_empty() {
            return self.dav_renew(visitor, place).await;
        }
        let info = xml::lockinfo(&body)?;
        let is_deep = match depth(visitor) {
            Some("0") => false,
            Some("infinity") | None => true,
            Some(_) => return Err(Fault::Status(StatusCode::BAD_REQUEST)),
        };
        let found = self.dav_look(visitor, place).await?;
        if found.kind == Kind::Nothing {
            if !found.has_parent || place.with_slash {
                return Err(Fault::Status(StatusCode::CONFLICT));
            }
            // What is not there yet is made, so that nobody else makes it (RFC 4918, 7.3).
            self.dav_may_change(visitor, place, &found, Change::Content).await?;
            let description = described(media_type(&place.path));
            self.dav_store(visitor, (&place.bucket, &place.key()?), false, description, body::empty()).await?;
        } else {
            self.dav_may_write(visitor, place, &found).await?;
        }
        let mut lock = Lock {
            token: Uuid::new_v4().to_string(),
            name: place.path.clone(),
            is_deep,
            is_shared: info.is_shared,
            owner: info.owner.chars().take(LONGEST_OWNER).filter(|letter| !letter.is_control()).collect(),
            is_own: true,
            seconds: seconds(visitor),
        };
        // A file has nothing below.
        lock.is_deep &= found.kind == Kind::Folder;
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
        let text = format!(
            "insert into ntier.dav_locks (token, bucket_id, name, is_deep, is_shared, owner, role, sub, expires_at) \
             select $1::uuid, $2, $3, $4::boolean, $5::boolean, $6, $7, $8, now() + make_interval(secs => $9::int) \
             where not exists (select from ntier.dav_locks l where l.bucket_id = $2 and not (l.is_shared and $5::boolean) \
             and (l.name = $3 or (l.is_deep and (l.name = '' or starts_with($3, l.name || '/'))) \
             or ($4::boolean and starts_with(l.name, $10)))) \
             and (select count(*) from ntier.dav_locks where bucket_id = $2) < {MOST} returning token"
        );
        let take = sql(
            &text,
            &[
                Some(&lock.token),
                Some(place.bucket.as_str()),
                Some(&lock.name),
                flag(lock.is_deep),
                flag(lock.is_shared),
                Some(&lock.owner),
                Some(&caller.role),
                owner(caller).as_deref(),
                Some(&lock.seconds.to_string()),
                Some(&place.prefix()),
            ],
        );
        let answer = session::finish(&self.database, vec![alone, sweep, take]).await?;
        if store::first(&answer, 2).is_none() {
            return Err(Fault::Condition(StatusCode::LOCKED, "no-conflicting-lock"));
        }
        Ok(())
    }

    /// Who may not write may not keep others from it.
    async fn dav_may_write(&self, visitor: &Visitor, place: &Place, found: &Found) -> Result<(), Fault> {
        let caller = visitor.caller()?;
        let request = Request::of(visitor, "storage.object.upload");
        if found.kind == Kind::Folder {
            let owner = owner(caller);
            let key = place.placeholder()?;
            let target = Target { bucket: &place.bucket, key: &key, owner: owner.as_deref(), upsert: true };
            self.may_upload(Some(caller), &request, &target, &described("application/octet-stream")).await?;
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
        let locks = self.dav_locks(visitor, place, false).await?;
        let shown = locks
            .into_iter()
            .find(|lock| lock.is_own && lock.covers(&place.path) && lists.iter().any(|list| list.shows(&lock.token)));
        let Some(mut lock) = shown else {
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
        let locks = self.dav_locks(visitor, place, false).await?;
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
    let mut response = multistatus(format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>{}</D:lockdiscovery></D:prop>\n",
        lock.xml(place)
    ));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `Timeout: Infinite, Second-600`: the first that is a number, within our bounds.
fn seconds(visitor: &Visitor) -> u64 {
    let said = visitor.header(&HeaderName::from_static("timeout")).unwrap_or_default();
    let said = said.split(',').find_map(|part| part.trim().strip_prefix("Second-")?.parse::<u64>().ok());
    said.unwrap_or(USUAL).clamp(1, LONGEST)
}

/// The lock that a URI names, if it is one of ours.
fn token(uri: &str) -> Option<String> {
    let id = uri.strip_prefix("urn:uuid:").or_else(|| uri.strip_prefix("opaquelocktoken:"))?;
    Uuid::try_parse(id).ok().map(|id| id.to_string())
}

fn conditions(visitor: &Visitor) -> Result<Vec<condition::List>, Fault> {
    match visitor.header(&HeaderName::from_static("if")) {
        None => Ok(Vec::new()),
        Some(text) => condition::parse(text).ok_or(Fault::Status(StatusCode::BAD_REQUEST)),
    }
}

impl condition::List {
    fn place(&self, visitor: &Visitor) -> Result<Option<Place>, Fault> {
        self.resource.as_deref().map(|url| Place::of_url(visitor, url)).transpose().map_err(Fault::from)
    }

    /// Whether it mentions the lock.
    fn shows(&self, lock: &str) -> bool {
        self.tokens().any(|uri| token(uri).as_deref() == Some(lock))
    }

    fn holds(&self, locks: &[Lock], place: &Place, kind: &Kind) -> bool {
        let is_lock = |uri: &str| {
            let token = token(uri);
            locks.iter().any(|lock| lock.covers(&place.path) && Some(&lock.token) == token.as_ref())
        };
        let etag = match kind {
            Kind::File(object) => Some(object.metadata.etag.as_str()),
            Kind::Folder | Kind::Nothing => None,
        };
        self.all(is_lock, |tag| Some(tag) == etag)
    }
}
