//! Lists of objects: a folder as a file manager shows it (v1), or pages by a cursor (v2). Source: storage-api, `storage/object.ts`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use ntier_backing::database::{Row, Statement};
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::BucketId;
use ntier_protocol::storage::request::{self, List, ListV2, SortColumn, SortOrder};
use serde_json::{Map, Value, json};

use crate::Storage;
use crate::body::{self, Body};
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::time;
use crate::visitor::Visitor;

/// Rows of a page, at most.
const MOST: u32 = 1000;

/// A row of a list as JSON, of `r`.
const TIMES: &str = concat!(
    "'updated_at', ",
    time!("r.updated_at"),
    ", 'created_at', ",
    time!("r.created_at"),
    ", 'last_accessed_at', ",
    time!("r.last_accessed_at"),
    ", 'metadata', r.metadata"
);

impl Storage {
    /// `POST /object/list/{bucket}`.
    pub(crate) async fn list(&self, visitor: &Visitor, bucket: &str, body: Body) -> Result<Response<Body>, Error> {
        let bucket = BucketId::parse(bucket)?;
        let wanted: List = request::parse(&body::whole(body).await?)?;
        let mut prefix = wanted.prefix;
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let search = wanted.search.unwrap_or_default();
        let (column, order) = match &wanted.sort_by {
            Some(sort) => (sort.column, sort.order.unwrap_or(SortOrder::Asc)),
            None => (SortColumn::Name, SortOrder::Asc),
        };
        let escape = |text: &str| if column == SortColumn::Name { text.to_owned() } else { escape_like(text) };
        let (prefix, search) = (escape(&prefix), escape(&search));
        let levels = format!("{prefix}{search}").split('/').count();
        let text = format!(
            "select coalesce(json_agg(json_build_object('name', r.name, 'id', r.id, {TIMES})), '[]') \
             from storage.search($1, $2, $3::int, $4::int, $5::int, $6, $7, $8) r"
        );
        let statement = sql(
            &text,
            &[
                Some(&prefix),
                Some(bucket.as_str()),
                Some(&wanted.limit.unwrap_or(100).to_string()),
                Some(&levels.to_string()),
                Some(&wanted.offset.unwrap_or(0).to_string()),
                Some(&search),
                Some(column.name()),
                Some(order.name()),
            ],
        );
        self.json(visitor, "storage.object.list", statement).await?.ok_or(Error::Incomplete)
    }

    /// `POST /object/list-v2/{bucket}`.
    pub(crate) async fn list_v2(&self, visitor: &Visitor, bucket: &str, body: Body) -> Result<Response<Body>, Error> {
        let bucket = BucketId::parse(bucket)?;
        let wanted: ListV2 = request::parse(&body::whole(body).await?)?;
        let limit = wanted.limit.unwrap_or(MOST).clamp(1, MOST) as usize;
        let mut page = Page::of(&wanted)?;
        page.limit = limit;
        let work = Work { service: Vec::new(), caller: vec![page.statement(&bucket)] };
        let request = Request::of(visitor, "storage.object.list_v2");
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        let (mut folders, mut objects) = (Vec::new(), Vec::new());
        for row in rows.iter().take(limit) {
            let entry: Value = row.text(0).and_then(|json| serde_json::from_str(json).ok()).ok_or(Error::Incomplete)?;
            if entry["id"].is_null() { folders.push(folder(entry)) } else { objects.push(entry) }
        }
        let mut result = json!({ "hasNext": rows.len() > limit, "folders": folders, "objects": objects });
        if rows.len() > limit
            && let Some(last) = rows.get(limit - 1)
        {
            result["nextCursor"] = page.cursor(last).into();
        }
        Ok(respond::json(&result))
    }
}

/// Where a page begins, and how it is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    prefix: String,
    with_delimiter: bool,
    column: SortColumn,
    order: SortOrder,
    /// The last name of the page before, and its time where that counts.
    after: Option<(String, Option<String>)>,
    limit: usize,
}

impl Page {
    fn of(wanted: &ListV2) -> Result<Self, Error> {
        let wrong = || Wire::new(Code::InvalidParameter, "Invalid Parameter continuation token");
        let (column, order) = match &wanted.sort_by {
            Some(sort) => (sort.column, sort.order.unwrap_or(SortOrder::Asc)),
            None => (SortColumn::Name, SortOrder::Asc),
        };
        if column == SortColumn::LastAccessedAt {
            let message = "body/sortBy/column must be equal to one of the allowed values";
            return Err(Wire::new(Code::InvalidRequest, message).into());
        }
        let mut page = Self {
            prefix: wanted.prefix.clone().unwrap_or_default(),
            with_delimiter: wanted.with_delimiter.unwrap_or(false),
            column,
            order,
            after: None,
            limit: 0,
        };
        let Some(cursor) = wanted.cursor.as_deref().filter(|cursor| !cursor.is_empty()) else { return Ok(page) };
        let text = STANDARD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
        // As storage-api writes it: a letter, a colon and a value on each line.
        let (mut name, mut at) = (String::new(), None);
        for line in text.split('\n') {
            match line.split_once(':').ok_or_else(wrong)? {
                ("l", value) => value.clone_into(&mut name),
                ("o", value) => page.order = if value == "desc" { SortOrder::Desc } else { SortOrder::Asc },
                ("c", "created_at") => page.column = SortColumn::CreatedAt,
                ("c", "updated_at") => page.column = SortColumn::UpdatedAt,
                ("c", _) => page.column = SortColumn::Name,
                ("a", value) => at = Some(value.to_owned()),
                _ => return Err(wrong().into()),
            }
        }
        page.after = Some((name, at));
        Ok(page)
    }

    /// One row more than the page has, so that it is known whether there is another.
    fn statement(&self, bucket: &BucketId) -> Statement {
        let limit = (self.limit + 1).to_string();
        let (name, at) = match &self.after {
            Some((name, at)) => (Some(name.as_str()), at.as_deref()),
            None => (None, None),
        };
        if self.with_delimiter {
            let levels = self.prefix.split('/').count().to_string();
            let text = format!(
                "select json_build_object('key', r.key, 'name', r.name, 'id', r.id, {TIMES}) \
                 from storage.search_v2($1, $2, $3::int, $4::int, $5, $6, $7, $8) r"
            );
            let parameters = [
                Some(self.prefix.as_str()),
                Some(bucket.as_str()),
                Some(&limit),
                Some(&levels),
                Some(name.unwrap_or_default()),
                Some(self.order.name()),
                Some(self.column.name()),
                Some(at.unwrap_or_default()),
            ];
            return sql(&text, &parameters);
        }
        let (direction, than) = match self.order {
            SortOrder::Asc => ("asc", ">"),
            SortOrder::Desc => ("desc", "<"),
        };
        let (after, order) = match self.column {
            SortColumn::Name | SortColumn::LastAccessedAt => {
                (format!("r.name collate \"C\" {than} $4"), format!("r.name collate \"C\" {direction}"))
            }
            SortColumn::CreatedAt | SortColumn::UpdatedAt => {
                let column = format!("date_trunc('milliseconds', r.{})", self.column.name());
                let after = format!("({column}, r.name collate \"C\") {than} (coalesce($5::timestamptz, 'epoch'), $4)");
                (after, format!("{column} {direction}, r.name collate \"C\" {direction}"))
            }
        };
        let text = format!(
            "select json_build_object('name', r.name, 'id', r.id, {TIMES}) from storage.objects r \
             where r.bucket_id = $1 and starts_with(r.name, $2) and ($4::text is null or {after}) \
             order by {order} limit $3::bigint"
        );
        let mut parameters = vec![Some(bucket.as_str()), Some(&self.prefix), Some(&limit), name];
        if after.contains("$5") {
            parameters.push(at);
        }
        sql(&text, &parameters)
    }

    /// Where the page after the one that ends with this row begins.
    fn cursor(&self, last: &Row) -> String {
        let entry: Value = last.text(0).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let mut text = format!("l:{}\no:{}", entry["name"].as_str().unwrap_or_default(), self.order.name());
        if self.column != SortColumn::Name {
            text.push_str(&format!("\nc:{}", self.column.name()));
            if let Some(at) = entry[self.column.name()].as_str() {
                text.push_str(&format!("\na:{at}"));
            }
        }
        STANDARD.encode(text)
    }
}

/// A folder's name ends in a slash, and it has nothing else.
fn folder(entry: Value) -> Value {
    let name = entry["name"].as_str().unwrap_or_default();
    let mut folder = Map::new();
    folder.extend(entry.get("key").filter(|key| !key.is_null()).map(|key| ("key".to_owned(), key.clone())));
    let name = if name.ends_with('/') { name.to_owned() } else { format!("{name}/") };
    folder.insert("name".into(), name.into());
    Value::Object(folder)
}

fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_says_where_to_go_on() {
        let page = |cursor: Option<&str>| Page::of(&ListV2 { cursor: cursor.map(str::to_owned), ..ListV2::default() });
        let cursor = STANDARD.encode("l:a/b:c\no:desc\nc:created_at\na:2026-11-21T15:41:34.987Z");
        let found = page(Some(&cursor)).unwrap();
        assert_eq!(found.after, Some(("a/b:c".into(), Some("2026-11-21T15:41:34.987Z".into()))));
        assert_eq!((found.order, found.column), (SortOrder::Desc, SortColumn::CreatedAt));
        assert_eq!(page(None).unwrap().after, None);
        for wrong in ["%", "bm9uc2Vuc2U=", "eDp5"] {
            assert!(page(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
