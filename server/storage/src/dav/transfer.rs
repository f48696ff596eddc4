//! COPY and MOVE, of files and of folders.

use http::{HeaderName, StatusCode};
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::ObjectKey;

use super::locks::Change;
use super::place::{self, Place};
use super::{Answer, Fault, Kind, MOST, depth};
use crate::Storage;
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store;
use crate::transfer::{Changes, Route};
use crate::visitor::Visitor;

impl Storage {
    pub(super) async fn dav_transfer(&self, visitor: &Visitor, from: &Place) -> Answer {
        let to = Place::destination(visitor)?;
        let is_move = visitor.method.as_str() == "MOVE";
        if from.path.is_empty() || to.path.is_empty() || (from.bucket == to.bucket && from.path == to.path) {
            return Err(Fault::Status(StatusCode::FORBIDDEN));
        }
        let source = self.dav_look(visitor, from).await?;
        if source.kind == Kind::Nothing {
            return Err(Wire::no_such_key().into());
        }
        let to = Place { with_slash: false, ..to };
        let target = self.dav_look(visitor, &to).await?;
        if !target.has_parent {
            return Err(Fault::Status(StatusCode::CONFLICT));
        }
        // Neither into itself, nor in the place of what it is in.
        if to.is_within(from) || from.is_within(&to) {
            return Err(Fault::Status(StatusCode::FORBIDDEN));
        }
        let is_there = target.kind != Kind::Nothing;
        if is_there && visitor.header(&HeaderName::from_static("overwrite")).is_some_and(|text| text.trim() == "F") {
            return Err(Fault::Status(StatusCode::PRECONDITION_FAILED));
        }
        let is_shallow = match depth(visitor) {
            None | Some("infinity") => false,
            Some("0") if !is_move || source.kind != Kind::Folder => true,
            Some(_) => return Err(Fault::Status(StatusCode::BAD_REQUEST)),
        };
        if is_move {
            self.dav_may_change(visitor, from, &source, Change::Tree).await?;
        }
        self.dav_may_change(visitor, &to, &target, if is_there { Change::Tree } else { Change::Content }).await?;
        let is_file = |kind: &Kind| matches!(kind, Kind::File(_));
        // A file takes the place of a file in one step.
        let at_once = is_file(&source.kind) && is_file(&target.kind) && (!is_move || from.bucket == to.bucket);
        if is_there && !at_once {
            self.dav_remove(visitor, &to, &target.kind).await?;
        }
        match (is_file(&source.kind), is_move) {
            (true, true) if at_once => self.dav_replace(visitor, from, &to).await?,
            (true, _) => self.dav_transfer_one(visitor, &route(from, &to)?, is_move).await?,
            (false, true) if from.bucket == to.bucket => self.dav_move_folder(visitor, from, &to).await?,
            (false, false) if is_shallow => self.dav_make_folder(visitor, &to).await?,
            (false, _) => self.dav_transfer_each(visitor, from, &to, is_move).await?,
        }
        if is_move {
            self.dav_drop_locks(from).await?;
        }
        Ok(respond::status(if is_there { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
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

    /// Takes the target away and puts the source there; tried first, so that nothing is lost where only one of both may be done.
    async fn dav_replace(&self, visitor: &Visitor, from: &Place, to: &Place) -> Result<(), Fault> {
        let bucket = Some(from.bucket.as_str());
        let remove = sql(
            "delete from storage.objects where bucket_id = $1 and name = $2 returning version",
            &[bucket, Some(&to.path)],
        );
        let rename = sql(
            "update storage.objects set name = $3 where bucket_id = $1 and name = $2 returning id",
            &[bucket, Some(&from.path), Some(to.key()?.as_str())],
        );
        let request = Request::of(visitor, "storage.object.move");
        for mode in [Mode::Try, Mode::Write] {
            let work = Work { service: Vec::new(), caller: vec![remove.clone(), rename.clone()] };
            let answer = session::as_caller(&self.database, visitor.caller()?, &request, mode, work).await?;
            let replaced = store::first(&answer, 0).and_then(|row| row.text(0)).map(str::to_owned);
            if mode == Mode::Write {
                self.discard(replaced.into_iter().collect());
            } else if replaced.is_none() || store::first(&answer, 1).is_none() {
                return Err(Fault::Status(StatusCode::FORBIDDEN));
            }
        }
        Ok(())
    }

    /// All names below begin otherwise, in one statement: whole, or not at all where the caller may not move all of them.
    async fn dav_move_folder(&self, visitor: &Visitor, from: &Place, to: &Place) -> Result<(), Fault> {
        const MOVE: &str = "with next as (select id, $3 || substr(name, length($2) + 1) as name from storage.objects \
            where bucket_id = $1 and name collate \"C\" >= $2 and name collate \"C\" < storage.after_prefix($2)), \
            moved as (update storage.objects o set name = next.name from next where o.id = next.id returning o.id) \
            select (select count(*) from next), (select count(*) from moved), \
            (select coalesce(max(octet_length(name)), 0) from next)";
        to.key()?;
        let statement = sql(MOVE, &[Some(from.bucket.as_str()), Some(&from.prefix()), Some(&to.prefix())]);
        let request = Request::of(visitor, "storage.object.move");
        for mode in [Mode::Try, Mode::Write] {
            let work = Work { service: Vec::new(), caller: vec![statement.clone()] };
            let answer = session::as_caller(&self.database, visitor.caller()?, &request, mode, work).await?;
            let row = store::first(&answer, 0).ok_or(Error::Incomplete)?;
            let longest = row.text(2).and_then(|text| text.parse::<usize>().ok()).unwrap_or(usize::MAX);
            if row.text(0) != row.text(1) {
                return Err(Fault::Status(StatusCode::FORBIDDEN));
            }
            if longest > 1024 {
                return Err(Wire::new(Code::InvalidKey, "A name would be too long").into());
            }
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
            return Err(Fault::Condition(StatusCode::INSUFFICIENT_STORAGE, "number-of-matches-within-limits"));
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
                failed.push((place::href(Some(&to.bucket), &target, false), error.wire().code.status()));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Fault::Partly(failed)) }
    }
}

fn route(from: &Place, to: &Place) -> Result<Route, Error> {
    Ok(Route { from: (from.bucket.clone(), from.key()?), to: (to.bucket.clone(), to.key()?) })
}
