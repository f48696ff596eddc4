//! LOCK and UNLOCK.

use http::{HeaderName, Response, StatusCode};
use ntier_protocol::storage::dav::answer;
use ntier_protocol::storage::dav::body as dav_body;
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::media_type;
use uuid::Uuid;

use super::given;
use super::locks::{Below, Change, Lock};
use super::place::Place;
use super::write::Upload;
use super::{Answer, Fault, Kind, depth, is_infinite, xml};
use crate::Storage;
use crate::body::{self, Body};
use crate::download::set;
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

const LOCK_TOKEN: HeaderName = HeaderName::from_static("lock-token");

impl Storage {
    pub(super) async fn dav_lock(&self, visitor: &Visitor, place: &Place, body: Body) -> Answer {
        let body = body::whole(body).await?;
        if body.is_empty() {
            return self.dav_renew(visitor, place).await;
        }
        let info = dav_body::lockinfo(&body)?;
        let is_deep = match depth(visitor) {
            Some("0") => false,
            depth if is_infinite(depth) => true,
            _ => return Err(Fault::Status(StatusCode::BAD_REQUEST)),
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
        let owner = owner(caller);
        let whose = [Some(place.bucket.as_str()), Some(&caller.role), owner.as_deref()];
        // One at a time looks whether there is another.
        let alone = sql("select pg_advisory_xact_lock(hashtextextended('ntier.dav_locks ' || $1, 0))", &whose[..1]);
        let sweep = sql("delete from ntier.dav_locks where expires_at <= now()", &[]);
        let room = format!(
            "(select count(*) from ntier.dav_locks where bucket_id = $1) < {MOST} \
             and (select count(*) from ntier.dav_locks where role = $2 and sub is not distinct from $3) < {MOST_OF_CALLER}"
        );
        let has_room = sql(&format!("select {room}"), &whose);
        let text = format!(
            "insert into ntier.dav_locks (bucket_id, role, sub, token, name, is_deep, is_shared, owner, expires_at) \
             select $1, $2, $3, $4::uuid, $5, $6::boolean, $7::boolean, $8, now() + make_interval(secs => $9::int) \
             where {room} and not exists (select from ntier.dav_locks l where l.bucket_id = $1 and not (l.is_shared and $7::boolean) \
             and (l.name = $5 or (l.is_deep and (l.name = '' or starts_with($5, l.name || '/'))) \
             or ($6::boolean and starts_with(l.name, $10)))) returning token"
        );
        let flag = |is_so: bool| Some(if is_so { "true" } else { "false" });
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
        let lists = given::lists(visitor)?;
        let locks = self.dav_locks(visitor, place, Below::Nothing).await?;
        let is_meant = |lock: &Lock| lock.is_own && lock.covers(&place.path) && given::show(&lists, &lock.token);
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
        let token = visitor.header(&LOCK_TOKEN).and_then(|text| given::token(text.trim().trim_matches(['<', '>'])));
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
}

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
