//! Properties that clients set (PROPPATCH). They are kept and told without a thought: what they mean is the client's affair.

use std::collections::HashMap;

use http::StatusCode;
use ntier_protocol::storage::dav::answer;
use ntier_protocol::storage::dav::body::{self as dav_body, Asked, Change};
use ntier_protocol::storage::dav::{Name, Property};
use ntier_protocol::storage::error::Error as Wire;
use serde_json::{Map, Value, json};

use super::locks;
use super::place::Place;
use super::propfind::Seen;
use super::{Answer, Fault, Kind, refused, rows, xml};
use crate::Storage;
use crate::body::{self, Body};
use crate::error::Error;
use crate::session::{self, sql};
use crate::store;
use crate::upload::PLACEHOLDER;
use crate::visitor::Visitor;

/// An object has no more properties than it has room for.
const NO_ROOM: &str = "23514";

impl Storage {
    pub(super) async fn dav_proppatch(&self, visitor: &Visitor, place: &Place, body: Body) -> Answer {
        let changes = dav_body::proppatch(&body::whole(body).await?)?;
        let found = self.dav_look(visitor, place).await?;
        if found.kind == Kind::Nothing {
            return Err(Wire::no_such_key().into());
        }
        self.dav_expect(visitor, place, &found.kind).await?;
        self.dav_may_change(visitor, place, locks::Change::Content).await?;
        self.dav_may_write(visitor, place, &found.kind).await?;
        let names: Vec<&Name> = changes.iter().map(Change::name).collect();
        if !names.iter().any(|name| answer::is_live(name)) {
            self.dav_keep_properties(visitor, place, &found.kind, &changes).await?;
        }
        Ok(xml(StatusCode::MULTI_STATUS, answer::patched(&place.href(found.kind == Kind::Folder), &names)))
    }

    async fn dav_keep_properties(
        &self,
        visitor: &Visitor,
        place: &Place,
        kind: &Kind,
        changes: &[Change],
    ) -> Result<(), Fault> {
        // The last word counts.
        let mut last = Map::new();
        for change in changes {
            let element = match change {
                Change::Set(property) => Value::String(property.element.clone()),
                Change::Remove(_) => Value::Null,
            };
            last.insert(change.name().whole(), element);
        }
        let names: Vec<String> = last.keys().cloned().collect();
        last.retain(|_, element| !element.is_null());
        let keep = |name: &str| {
            sql(
                "insert into ntier.dav_properties as kept (object_id, properties) \
                 select id, $3::jsonb from storage.objects where bucket_id = $1 and name = $2 \
                 on conflict (object_id) do update set updated_at = now(), \
                 properties = (kept.properties - array(select jsonb_array_elements_text($4::jsonb))) || excluded.properties \
                 returning object_id",
                &[
                    Some(place.bucket.as_str()),
                    Some(name),
                    Some(&Value::Object(last.clone()).to_string()),
                    Some(&json!(names).to_string()),
                ],
            )
        };
        let statement = match kind {
            Kind::Folder => keep(place.placeholder()?.as_str()),
            Kind::File(_) | Kind::Nothing => keep(&place.path),
        };
        let no_room = |error: Error| match refused(&error, NO_ROOM) {
            Some(_) => Fault::Status(StatusCode::INSUFFICIENT_STORAGE),
            None => Fault::Error(error),
        };
        let answer = session::finish(&self.database, vec![statement.clone()]).await.map_err(no_room)?;
        if store::first(&answer, 0).is_none() {
            // A folder that nothing kept but what is in it.
            self.dav_make_folder(visitor, place).await?;
            session::finish(&self.database, vec![statement]).await.map_err(no_room)?;
        }
        Ok(())
    }

    /// Writes into each entry what clients have set, as far as it was asked for.
    pub(super) async fn dav_tell_properties(
        &self,
        place: &Place,
        asked: &Asked,
        seen: &mut [Seen],
    ) -> Result<(), Error> {
        if matches!(asked, Asked::These(names) if names.iter().all(answer::is_live)) {
            return Ok(());
        }
        let names: Vec<String> = seen.iter().map(keeper).collect();
        let select = sql(
            "select o.name, p.properties from storage.objects o join ntier.dav_properties p on p.object_id = o.id \
             where exists (select from ntier.dav_properties) and o.bucket_id = $1 \
             and o.name = any (array(select jsonb_array_elements_text($2::jsonb)))",
            &[Some(place.bucket.as_str()), Some(&json!(names).to_string())],
        );
        let answer = session::look(&self.database, vec![select]).await?;
        let rows = answer.results.iter().flat_map(|result| &result.rows);
        let mut kept: HashMap<&str, Vec<Property>> =
            rows.filter_map(|row| Some((row.text(0)?, properties(row.text(1)?)))).collect();
        for (seen, name) in seen.iter_mut().zip(&names) {
            seen.entry.properties = kept.remove(name.as_str()).unwrap_or_default();
        }
        Ok(())
    }

    /// What was copied has the properties of what it was copied from, and no others.
    pub(super) async fn dav_copy_properties(&self, from: &Place, to: &Place, kind: &Kind) -> Result<(), Error> {
        let (from, to) = ([from.bucket.as_str(), &from.path].map(Some), [to.bucket.as_str(), &to.path].map(Some));
        let forget = format!(
            "delete from ntier.dav_properties p using storage.objects o where o.id = p.object_id and o.bucket_id = $1 and {}",
            rows(kind, "o.name", "$2")
        );
        let copy = format!(
            "insert into ntier.dav_properties (object_id, properties) \
             select copy.id, p.properties from storage.objects o join ntier.dav_properties p on p.object_id = o.id \
             join storage.objects copy on copy.bucket_id = $3 and copy.name = $4 || substr(o.name, length($2) + 1) \
             where o.bucket_id = $1 and {} on conflict (object_id) do nothing",
            rows(kind, "o.name", "$2")
        );
        session::finish(&self.database, vec![sql(&forget, &to), sql(&copy, &[from, to].concat())]).await?;
        Ok(())
    }
}

/// The name of the object whose properties are the entry's.
fn keeper(seen: &Seen) -> String {
    match (seen.entry.is_folder, seen.path.as_str()) {
        (false, path) => path.to_owned(),
        (true, "") => PLACEHOLDER.to_owned(),
        (true, path) => format!("{path}/{PLACEHOLDER}"),
    }
}

fn properties(json: &str) -> Vec<Property> {
    let all: HashMap<String, String> = serde_json::from_str(json).unwrap_or_default();
    let mut properties: Vec<Property> = all
        .into_iter()
        .filter_map(|(name, element)| Some(Property { name: Name::of_whole(&name)?, element }))
        .collect();
    properties.sort_by(|one, other| one.element.cmp(&other.element));
    properties
}
