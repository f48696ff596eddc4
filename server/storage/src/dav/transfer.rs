//! COPY and MOVE, of files and of folders.

use http::StatusCode;
use ntier_backing::database::Statement;
use ntier_protocol::storage::error::Error as Wire;
use ntier_protocol::storage::name::ObjectKey;

use super::locks::Change;
use super::place::{self, Place};
use super::propfind::too_many;
use super::{Answer, Fault, Found, Kind, MOST, depth, is_infinite, refused, rows, status};
use crate::Storage;
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store;
use crate::transfer::{Changes, Route};
use crate::visitor::Visitor;

/// What is asked for, as far as it can be done.
struct Transfer {
    to: Place,
    source: Kind,
    target: Kind,
    is_move: bool,
    /// Of a folder, nothing that is in it.
    is_shallow: bool,
}

impl Storage {
    pub(super) async fn dav_transfer(&self, visitor: &Visitor, from: &Place) -> Answer {
        let Transfer { to, source, target, is_move, is_shallow } = &self.dav_wanted(visitor, from).await?;
        let is_there = *target != Kind::Nothing;
        self.dav_expect(visitor, from, source).await?;
        if *is_move {
            self.dav_may_change(visitor, from, Change::Gone).await?;
        }
        self.dav_may_change(visitor, to, if is_there { Change::Gone } else { Change::Made }).await?;
        if *is_move && from.bucket == to.bucket {
            self.dav_rename(visitor, (from, source), (to, target)).await?;
        } else {
            // A copy of a file takes the place of a file by itself.
            if is_there && (*is_move || *source == Kind::Folder || *target == Kind::Folder) {
                self.dav_remove(visitor, to, target).await?;
            }
            match source {
                Kind::Folder if *is_shallow => self.dav_make_folder(visitor, to).await?,
                Kind::Folder => self.dav_transfer_each(visitor, from, to, *is_move).await?,
                Kind::File(_) | Kind::Nothing => {
                    let route = Route { from: (from.bucket.clone(), from.key()?), to: (to.bucket.clone(), to.key()?) };
                    self.dav_transfer_one(visitor, &route, *is_move).await?;
                }
            }
        }
        if *is_move {
            self.dav_drop_locks(from).await?;
            self.dav_keep_parent(visitor, from).await?;
        } else {
            self.dav_copy_properties(from, to, source).await?;
        }
        Ok(respond::status(if is_there { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
    }

    /// Looks at both places, and refuses what makes no sense there.
    async fn dav_wanted(&self, visitor: &Visitor, from: &Place) -> Result<Transfer, Fault> {
        let to = Place::destination(visitor)?.without_slash();
        let is_move = visitor.method.as_str() == "MOVE";
        if from.path.is_empty() || to.path.is_empty() || (from.bucket == to.bucket && from.path == to.path) {
            return Err(Fault::Status(StatusCode::FORBIDDEN));
        }
        let source = self.dav_look(visitor, from).await?.kind;
        if source == Kind::Nothing {
            return Err(Wire::no_such_key().into());
        }
        let Found { kind: target, has_parent } = self.dav_look(visitor, &to).await?;
        if !has_parent {
            return Err(Fault::Status(StatusCode::CONFLICT));
        }
        // Neither into itself, nor in the place of what it is in.
        if to.is_within(from) || from.is_within(&to) {
            return Err(Fault::Status(StatusCode::FORBIDDEN));
        }
        if target != Kind::Nothing && visitor.text("overwrite").is_some_and(|text| text.trim() == "F") {
            return Err(Fault::Status(StatusCode::PRECONDITION_FAILED));
        }
        let is_shallow = match depth(visitor) {
            Some("0") => true,
            depth if is_infinite(depth) => false,
            _ => return Err(Fault::Status(StatusCode::BAD_REQUEST)),
        };
        if is_move && is_shallow && source == Kind::Folder {
            return Err(Fault::Status(StatusCode::BAD_REQUEST));
        }
        Ok(Transfer { to, source, target, is_move, is_shallow })
    }

    /// Takes the target away and puts the source there, whole or not at all. Blobs stay where they are.
    async fn dav_rename(
        &self,
        visitor: &Visitor,
        (from, source): (&Place, &Kind),
        (to, target): (&Place, &Kind),
    ) -> Result<(), Fault> {
        let is_there = *target != Kind::Nothing;
        let mut caller = vec![rename(from, source, to)?];
        if is_there {
            caller.insert(0, remove(to, target));
        }
        let request = Request::of(visitor, "storage.object.move");
        let work = Work { service: Vec::new(), caller };
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Write, work).await;
        let answer = answer.map_err(|error| {
            if refused(&error, DIVISION_BY_ZERO).is_some() {
                Fault::Status(StatusCode::FORBIDDEN)
            } else if refused(&error, OUT_OF_RANGE).is_some() {
                too_many()
            } else {
                Fault::Error(error)
            }
        })?;
        if is_there {
            let versions = store::first(&answer, 0).and_then(|row| row.text(0)).unwrap_or("[]");
            self.discard(serde_json::from_str(versions).unwrap_or_default());
        }
        Ok(())
    }

    async fn dav_transfer_one(&self, visitor: &Visitor, route: &Route, is_move: bool) -> Result<(), Error> {
        let caller = visitor.caller()?;
        if is_move {
            self.rename(caller, &Request::of(visitor, "storage.object.move"), route).await?;
        } else {
            let request = Request::of(visitor, "storage.object.copy");
            self.copy(caller, &request, route, Changes::default(), true).await?;
        }
        Ok(())
    }

    /// One by one: what stands in the way of one does not stand in that of the others.
    async fn dav_transfer_each(&self, visitor: &Visitor, from: &Place, to: &Place, is_move: bool) -> Result<(), Fault> {
        let text = format!(
            "select name from storage.objects where bucket_id = $1 and name collate \"C\" >= $2 \
             and name collate \"C\" < storage.after_prefix($2) order by name collate \"C\" limit {}",
            MOST + 1
        );
        let list = sql(&text, &[Some(from.bucket.as_str()), Some(&from.prefix())]);
        let work = Work { service: Vec::new(), caller: vec![list] };
        let request = Request::of(visitor, "storage.object.list");
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        if rows.len() > MOST {
            return Err(too_many());
        }
        let mut failed = Vec::new();
        for name in rows.iter().filter_map(|row| row.text(0)) {
            let target = format!("{}{}", to.prefix(), name.strip_prefix(&from.prefix()).unwrap_or_default());
            let done = match (ObjectKey::parse(name), ObjectKey::parse(&target)) {
                (Ok(key), Ok(target)) => {
                    let route = Route { from: (from.bucket.clone(), key), to: (to.bucket.clone(), target) };
                    self.dav_transfer_one(visitor, &route, is_move).await
                }
                (Err(wrong), _) | (_, Err(wrong)) => Err(wrong.into()),
            };
            if let Err(error) = done {
                failed.push((place::href(Some(&to.bucket), &target, false), status(error.wire().code)));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Fault::Partly(failed)) }
    }
}

/// Files that are moved by one statement: some seconds on the embedded database, for which others wait.
const MOST_AT_ONCE: usize = 50_000;
/// Bytes of a name (`ObjectKey`).
const LONGEST: usize = 1024;

/// A statement of a caller that has not done all that it should undoes its transaction; SQL has no other way to say so.
fn all_or_nothing() -> String {
    format!(
        "(case when (select count(*) from seen) > {MOST_AT_ONCE} then 2147483648 end)::int, \
         1 / (count(*) > 0 and count(*) = (select count(*) from seen))::int"
    )
}

/// There are more rows than are moved together,
const OUT_OF_RANGE: &str = "22003";
/// or some may not be changed.
const DIVISION_BY_ZERO: &str = "22012";

/// What there is, as the caller sees it.
fn seen(kind: &Kind, columns: &str) -> String {
    let (rows, limit) = (rows(kind, "name", "$2"), MOST_AT_ONCE + 1);
    format!("with seen as (select {columns} from storage.objects where bucket_id = $1 and {rows} limit {limit})")
}

/// Removes all of it, or fails; gives the versions.
fn remove(place: &Place, kind: &Kind) -> Statement {
    let text = format!(
        "{}, removed as (delete from storage.objects o using seen where o.id = seen.id \
         and (select count(*) from seen) <= {MOST_AT_ONCE} returning o.version) \
         select coalesce(jsonb_agg(version), '[]'), {} from removed",
        seen(kind, "id"),
        all_or_nothing()
    );
    sql(&text, &[Some(place.bucket.as_str()), Some(&place.path)])
}

/// Gives all of it other names, or fails; also where one would be too long.
fn rename(from: &Place, kind: &Kind, to: &Place) -> Result<Statement, Error> {
    let text = format!(
        "{}, moved as (update storage.objects o set name = seen.name from seen where o.id = seen.id \
         and octet_length(seen.name) <= {LONGEST} and (select count(*) from seen) <= {MOST_AT_ONCE} returning 1) \
         select {} from moved",
        seen(kind, "id, $3 || substr(name, length($2) + 1) as name"),
        all_or_nothing()
    );
    Ok(sql(&text, &[Some(from.bucket.as_str()), Some(&from.path), Some(to.key()?.as_str())]))
}
