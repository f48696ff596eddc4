//! Listings of objects, in the order of their bytes, by pages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use ntier_backing::database::{Row, Statement};
use ntier_protocol::storage::error::Error as Wire;
use ntier_protocol::storage::s3::answer::{self, Listed, Page};
use ntier_protocol::storage::s3::request::{List, ListVersion};
use ntier_protocol::storage::s3::{self, Code};

use super::{Fault, respond};
use crate::Storage;
use crate::body::Body;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, Metadata, format_time, time};
use crate::visitor::Visitor;

/// What a listing reads of `r`; a folder has no id.
const COLUMNS: &str = concat!("r.id, r.name, r.metadata, ", time!("r.updated_at"));

impl Storage {
    pub(super) async fn s3_list(&self, visitor: &Visitor, list: &List) -> Result<Response<Body>, Fault> {
        let bucket = sql("select id from storage.buckets where id = $1", &[Some(&list.bucket)]);
        let work = Work { service: vec![bucket], caller: vec![statement(list)?] };
        let request = Request::of(visitor, "storage.s3.object.list");
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
        store::first(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        let rows = answer.results.get(1).map(|result| result.rows.as_slice()).unwrap_or_default();
        Ok(respond::xml(answer::objects(list, &page(list, rows))))
    }
}

/// One row more than the page has, so that it is known whether there is another.
fn statement(list: &List) -> Result<Statement, Fault> {
    let limit = if list.limit == 0 { 0 } else { list.limit + 1 }.to_string();
    let after = match &list.token {
        Some(token) => Some(place(token)?),
        None => list.after.clone(),
    };
    let bucket = Some(list.bucket.as_str());
    let (prefix, limit, after) = (Some(list.prefix.as_str()), Some(limit.as_str()), after.as_deref());
    // A folder is one step in the index, whatever is in it (`storage.walk_level`).
    if let Some(delimiter) = &list.delimiter {
        let text = format!(
            "select {COLUMNS} from storage.list_objects_with_delimiter($1, $2, $3, $4::int, '', coalesce($5, '')) r"
        );
        return Ok(sql(&text, &[bucket, prefix, Some(delimiter), limit, after]));
    }
    // A range of the index on bucket and name, in its order.
    let text = format!(
        "select {COLUMNS} from storage.objects r where r.bucket_id = $1 and r.name collate \"C\" >= $2 \
         and r.name collate \"C\" < storage.after_prefix($2) and ($4::text is null or r.name collate \"C\" > $4) \
         order by r.name collate \"C\" limit $3::bigint"
    );
    Ok(sql(&text, &[bucket, prefix, limit, after]))
}

fn page(list: &List, rows: &[Row]) -> Page {
    let limit = list.limit as usize;
    let mut page = Page::default();
    let mut last = String::new();
    for row in rows.iter().take(limit) {
        let name = row.text(1).unwrap_or_default();
        if row.text(0).is_some() {
            page.objects.push(listed(row, name));
            name.clone_into(&mut last);
        } else {
            let folder = format!("{name}{}", list.delimiter.as_deref().unwrap_or_default());
            last.clone_from(&folder);
            page.prefixes.push(folder);
        }
    }
    page.next = (rows.len() > limit).then(|| match list.version {
        ListVersion::One | ListVersion::Versions => last,
        ListVersion::Two => token(&last),
    });
    page
}

fn listed(row: &Row, name: &str) -> Listed {
    let metadata = Metadata::of(row.text(2));
    let modified_at = metadata.modified.map(format_time);
    Listed {
        key: name.to_owned(),
        modified_at: modified_at.unwrap_or_else(|| row.text(3).unwrap_or_default().to_owned()),
        etag: metadata.etag,
        size_bytes: metadata.size_bytes,
    }
}

/// As storage-api writes it.
pub(super) fn token(place: &str) -> String {
    STANDARD.encode(format!("l:{place}"))
}

/// The other way round. What follows in one of storage-api's is how it is ordered, which is always the same here.
pub(super) fn place(token: &str) -> Result<String, Fault> {
    let text = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let place = text.as_deref().and_then(|text| text.strip_prefix("l:")).filter(|place| !place.contains('\0'));
    let place = place.map(|place| place.split('\n').next().unwrap_or(place).to_owned());
    place.ok_or_else(|| s3::Error::new(Code::InvalidParameter, "Invalid Parameter continuation token").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_place() {
        for text in ["a", "folder/", "ä:b", ""] {
            assert_eq!(place(&token(text)).unwrap(), text);
        }
        assert_eq!(place(&STANDARD.encode("l:a\no:asc")).unwrap(), "a");
        for text in ["%", "YQ==", "bDoA"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
