//! Rows as facts: buckets and objects, and the statements that read and write them. Nothing is decided here.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use ntier_backing::blobs::BlobId;
use ntier_backing::database::{Answer, Row, Statement};
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::session::sql;

/// A time as storage-api writes it.
macro_rules! time {
    ($column:literal) => {
        concat!("to_char(", $column, " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
    };
}
pub(crate) use time;

/// What of a bucket decides about requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub public: bool,
    /// Bytes.
    pub file_size_limit: Option<u64>,
    pub allowed_mime_types: Vec<String>,
}

impl Bucket {
    /// One row, or none.
    pub fn select(id: &BucketId) -> Statement {
        sql(
            "select public, file_size_limit, to_json(allowed_mime_types) from storage.buckets where id = $1",
            &[Some(id.as_str())],
        )
    }

    pub fn of(answer: &Answer, index: usize) -> Option<Self> {
        let row = first(answer, index)?;
        Some(Self {
            public: row.text(0) == Some("t"),
            file_size_limit: row.text(1).and_then(|text| text.parse().ok()),
            allowed_mime_types: row.text(2).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
        })
    }
}

/// An object, as it is given out.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub id: String,
    pub name: String,
    /// Names the blob, or the parts that are one together.
    pub version: String,
    pub metadata: Metadata,
    pub user_metadata: Option<Value>,
    pub created_at: String,
    pub updated_at: String,
    /// Where it is made of several blobs.
    pub parts: Vec<Part>,
    /// What responses say of it, once somebody was told.
    pub headers: OnceLock<HeaderMap>,
}

/// A piece of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub blob: BlobId,
    pub size_bytes: u64,
}

impl Object {
    /// Columns that [`Object::of`] reads, of `storage.objects o`.
    pub const COLUMNS: &str = concat!(
        "o.id, o.name, o.version, o.metadata, o.user_metadata, ",
        time!("o.created_at"),
        ", ",
        time!("o.updated_at")
    );

    /// By its place; one row, or none.
    pub fn select(bucket: &BucketId, key: &ObjectKey) -> Statement {
        let text = format!("select {} from storage.objects o where o.bucket_id = $1 and o.name = $2", Self::COLUMNS);
        sql(&text, &[Some(bucket.as_str()), Some(key.as_str())])
    }

    pub fn of(row: &Row) -> Result<Self, Error> {
        let text = |column: usize| row.text(column).map(str::to_owned);
        Ok(Self {
            id: text(0).ok_or(Error::Incomplete)?,
            name: text(1).ok_or(Error::Incomplete)?,
            version: text(2).unwrap_or_default(),
            metadata: Metadata::of(row.text(3)),
            user_metadata: row.text(4).and_then(|json| serde_json::from_str(json).ok()),
            created_at: text(5).unwrap_or_default(),
            updated_at: text(6).unwrap_or_default(),
            parts: Vec::new(),
            headers: OnceLock::new(),
        })
    }

    /// What [`Object::select`] found.
    pub fn found(answer: &Answer, index: usize) -> Result<Option<Self>, Error> {
        first(answer, index).map(Self::of).transpose()
    }
}

/// The blobs of which `storage.objects o` is made, as pairs of name and size; null where it is one. A version that somebody brought from elsewhere need
/// not be a UUID.
pub const PARTS: &str = "(select jsonb_agg(jsonb_build_array(p.blob, p.size) order by p.number) from ntier.object_parts p \
    where p.version = case when o.version ~ '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then o.version::uuid end)";

/// The parts of the object at this place, for the service to read.
pub fn select_parts(bucket: &BucketId, key: &ObjectKey) -> Statement {
    let text = format!("select {PARTS}, o.version from storage.objects o where o.bucket_id = $1 and o.name = $2");
    sql(&text, &[Some(bucket.as_str()), Some(key.as_str())])
}

/// What [`select_parts`] found, if it is of this version.
pub fn parts(answer: &Answer, index: usize, version: &str) -> Result<Vec<Part>, Error> {
    first(answer, index)
        .filter(|row| row.text(1) == Some(version))
        .map_or_else(|| Ok(Vec::new()), |row| parts_of(row.text(0)))
}

/// What [`PARTS`] gives.
pub fn parts_of(json: Option<&str>) -> Result<Vec<Part>, Error> {
    let Some(json) = json else { return Ok(Vec::new()) };
    let pairs: Vec<(String, u64)> = serde_json::from_str(json).map_err(|_| Error::Incomplete)?;
    let part = |(blob, size_bytes): (String, u64)| {
        Ok(Part { blob: BlobId::parse(&blob).ok_or(Error::Incomplete)?, size_bytes })
    };
    pairs.into_iter().map(part).collect()
}

/// What is known of a file: column `metadata`, in storage-api's words.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    pub size_bytes: u64,
    pub media_type: String,
    pub cache_control: String,
    /// With its quotes.
    pub etag: String,
    pub modified: Option<SystemTime>,
    pub robots: Option<String>,
}

impl Metadata {
    pub fn of(json: Option<&str>) -> Self {
        let value: Value = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| {
            let value = value.get(name)?;
            value.as_u64().or_else(|| value.as_str()?.parse().ok())
        };
        Self {
            size_bytes: number("size").or_else(|| number("contentLength")).unwrap_or_default(),
            media_type: text("mimetype").unwrap_or_else(|| "application/octet-stream".into()),
            cache_control: text("cacheControl").unwrap_or_else(|| "no-cache".into()),
            etag: text("eTag").unwrap_or_default(),
            modified: text("lastModified").and_then(|text| parse_time(&text)),
            robots: text("xRobotsTag"),
        }
    }

    pub fn json(&self) -> Value {
        let mut map = Map::new();
        map.insert("eTag".into(), self.etag.as_str().into());
        map.insert("size".into(), self.size_bytes.into());
        map.insert("mimetype".into(), self.media_type.as_str().into());
        map.insert("cacheControl".into(), self.cache_control.as_str().into());
        map.insert("lastModified".into(), format_time(self.modified.unwrap_or(SystemTime::UNIX_EPOCH)).into());
        map.insert("contentLength".into(), self.size_bytes.into());
        map.insert("httpStatusCode".into(), 200.into());
        map.extend(self.robots.as_ref().map(|robots| ("xRobotsTag".to_owned(), robots.as_str().into())));
        Value::Object(map)
    }
}

/// A row that is to be there.
#[derive(Debug, Clone)]
pub struct NewObject<'a> {
    pub bucket: &'a BucketId,
    pub key: &'a ObjectKey,
    pub owner: Option<&'a str>,
    pub metadata: Value,
    pub user_metadata: Option<Value>,
    /// `None` where it is only tried whether the row may be there: who names a blob is the service alone.
    pub version: Option<&'a str>,
    pub upsert: bool,
    /// Bytes that all of the owner's objects may have together.
    pub quota: Option<u64>,
}

impl NewObject<'_> {
    /// An upsert keeps who owned the object where the caller is nobody, and gives its id.
    pub fn insert(&self) -> Statement {
        let uuid = self.owner.filter(|owner| uuid::Uuid::try_parse(owner).is_ok());
        let (metadata, user_metadata) = (self.metadata.to_string(), self.user_metadata.as_ref().map(Value::to_string));
        let quota = self.quota.map(|quota| quota.to_string());
        let mut parameters = vec![
            Some(self.bucket.as_str()),
            Some(self.key.as_str()),
            uuid,
            self.owner,
            Some(metadata.as_str()),
            user_metadata.as_deref(),
        ];
        let (column, value, set) = match self.version {
            Some(version) => {
                parameters.push(Some(version));
                (", version", format!(", ${}", parameters.len()), ", version = excluded.version")
            }
            None => ("", String::new(), ""),
        };
        // The trigger that counts sees it, as it comes after the row.
        let quota = quota.as_deref().map_or_else(String::new, |quota| {
            parameters.push(Some(quota));
            format!(" from (select set_config('ntier.storage_quota', ${}, true)) quota", parameters.len())
        });
        let upsert = format!(
            " on conflict (bucket_id, name) do update set metadata = excluded.metadata, user_metadata = excluded.user_metadata, \
             owner = coalesce(excluded.owner, objects.owner), owner_id = coalesce(excluded.owner_id, objects.owner_id){set} \
             returning id"
        );
        let text = format!(
            "insert into storage.objects (bucket_id, name, owner, owner_id, metadata, user_metadata{column}) \
             select $1, $2, $3::uuid, $4, $5::jsonb, $6::jsonb{value}{quota}{}",
            if self.upsert { upsert.as_str() } else { "" }
        );
        sql(&text, &parameters)
    }
}

/// The rows that name the parts of a version.
pub fn insert_parts(version: &str, parts: &[Part]) -> Statement {
    let rows: Vec<Value> =
        parts.iter().map(|part| json!({ "blob": part.blob.as_str(), "size": part.size_bytes })).collect();
    sql(
        "insert into ntier.object_parts (version, number, blob, size) \
         select $1::uuid, number, (part->>'blob')::uuid, (part->>'size')::bigint \
         from jsonb_array_elements($2::jsonb) with ordinality as list (part, number)",
        &[Some(version), Some(&Value::Array(rows).to_string())],
    )
}

pub fn first(answer: &Answer, index: usize) -> Option<&Row> {
    answer.results.get(index)?.rows.first()
}

/// Seconds and milliseconds in UTC, as JavaScript writes dates.
pub fn format_time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// The other way round; `None` where it is written otherwise.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let milliseconds = if text.get(19..20) == Some(".") { number(20..23).unwrap_or_default() } else { 0 };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(milliseconds))
}

/// Year, month and day of a day since 1970. Source: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// Days since 1970 of a date after it.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_written_as_javascript_does() {
        for (milliseconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_795_275_694_987, "2026-11-21T15:41:34.987Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
            assert_eq!(format_time(time), expected);
        }
        assert_eq!(parse_time("soon"), None);
        assert_eq!(parse_time("2026-13-01T00:00:00.000Z"), None);
    }

    proptest! {
        #[test]
        fn times_come_back(milliseconds in 0_u64..7_000_000_000_000) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_time(&format_time(time)), Some(time));
        }
    }

    #[test]
    fn metadata_comes_back() {
        let metadata = Metadata {
            size_bytes: 3,
            media_type: "text/plain".into(),
            cache_control: "max-age=3600".into(),
            etag: "\"abc\"".into(),
            modified: parse_time("2026-11-21T15:41:34.987Z"),
            robots: Some("none".into()),
        };
        assert_eq!(Metadata::of(Some(&metadata.json().to_string())), metadata);
    }
}
