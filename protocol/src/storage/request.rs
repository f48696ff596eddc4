//! The JSON bodies of requests. Source: storage-api, `http/routes/bucket` and `http/routes/object`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::storage::error::{Code, Error};
use crate::storage::media_type;

/// Names in one request, at most. Source: storage-api, `MAX_OBJECTS_PER_REQUEST`.
const MOST: usize = 1000;

/// Reads a body.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|fault| {
        let fault = fault.to_string();
        let field = fault.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let message = match field {
            Some(field) => format!("body must have required property '{field}'"),
            None => format!("body is not understood: {fault}"),
        };
        Error::new(Code::InvalidRequest, message)
    })
}

/// `POST /bucket`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CreateBucket {
    pub name: String,
    pub id: Option<String>,
    #[serde(default)]
    pub public: Option<bool>,
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    pub file_size_limit: Option<Value>,
    pub allowed_mime_types: Option<Vec<String>>,
}

/// `PUT /bucket/{id}`: what is not there stays; null takes a limit away.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct UpdateBucket {
    pub public: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    pub file_size_limit: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub allowed_mime_types: Option<Option<Vec<String>>>,
}

fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// `POST /object/list/{bucket}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct List {
    pub prefix: String,
    pub limit: Option<u32>,
    pub offset: Option<u32>,
    pub search: Option<String>,
    #[serde(rename = "sortBy")]
    pub sort_by: Option<SortBy>,
}

/// By what a list is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SortBy {
    pub column: SortColumn,
    pub order: Option<SortOrder>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SortColumn {
    Name,
    UpdatedAt,
    CreatedAt,
    LastAccessedAt,
}

impl SortColumn {
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::UpdatedAt => "updated_at",
            Self::CreatedAt => "created_at",
            Self::LastAccessedAt => "last_accessed_at",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SortOrder {
    Asc,
    Desc,
}

impl SortOrder {
    pub fn name(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}

/// `POST /object/list-v2/{bucket}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct ListV2 {
    pub prefix: Option<String>,
    pub limit: Option<u32>,
    pub cursor: Option<String>,
    pub with_delimiter: Option<bool>,
    #[serde(rename = "sortBy")]
    pub sort_by: Option<SortBy>,
}

/// `POST /object/sign/{bucket}/{key}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sign {
    /// Seconds.
    #[serde(rename = "expiresIn")]
    pub expires_in: u32,
    pub transform: Option<serde_json::Map<String, Value>>,
}

/// `POST /object/sign/{bucket}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SignMany {
    /// Seconds.
    #[serde(rename = "expiresIn")]
    pub expires_in: u32,
    pub paths: Vec<String>,
}

/// `POST /object/move` and `POST /object/copy`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    pub bucket_id: String,
    pub source_key: String,
    pub destination_key: String,
    pub destination_bucket: Option<String>,
    /// Of a copy: `false` gives it the metadata of the request.
    pub copy_metadata: Option<bool>,
    pub metadata: Option<NewMetadata>,
}

/// What a copy is to be instead of what its source is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct NewMetadata {
    #[serde(rename = "cacheControl")]
    pub cache_control: Option<String>,
    pub mimetype: Option<String>,
}

/// `DELETE /object/{bucket}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Remove {
    pub prefixes: Vec<String>,
}

/// Refuses lists that are empty or too long.
pub fn check_names(field: &str, names: &[String]) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::new(Code::InvalidRequest, message));
    match names.len() {
        0 => refuse(format!("body/{field} must NOT have fewer than 1 items")),
        count if count > MOST => refuse(format!("body/{field} must NOT have more than {MOST} items")),
        _ => Ok(()),
    }
}

/// A limit of a bucket: a number of bytes, or such as `20MB`; null is none. Source: storage-api, `parseFileSizeToBytes`: units
/// of a thousand.
pub fn size_limit(value: &Value) -> Result<Option<u64>, Error> {
    let wrong = || Error::new(Code::InvalidRequest, "Invalid file size format, hint: use 20GB / 20MB / 30KB / 3B");
    match value {
        Value::Null => Ok(None),
        Value::Number(number) => number.as_u64().map(Some).ok_or_else(wrong),
        Value::String(text) => {
            let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let factor = match text[digits..].to_ascii_lowercase().as_str() {
                "b" => 1,
                "kb" => 1000,
                "mb" => 1_000_000,
                "gb" => 1_000_000_000,
                _ => return Err(wrong()),
            };
            decimal(&text[..digits], factor).map(Some).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

/// `1.5` times a factor, without the errors of floating point.
fn decimal(text: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole: u64 = whole.parse().ok()?;
    let divisor = 10_u64.checked_pow(u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?)?;
    let fraction: u64 = fraction.parse().ok()?;
    whole.checked_mul(factor)?.checked_add(fraction.checked_mul(factor)? / divisor)
}

/// The types that a bucket is to take; empty ones are left out.
pub fn media_types(list: Vec<String>) -> Result<Vec<String>, Error> {
    let list: Vec<String> = list.into_iter().filter(|text| !text.is_empty()).collect();
    match list.iter().find(|text| !media_type::is_pattern(text)) {
        Some(wrong) => Err(Error::not_your_media_type(&wrong.chars().take(200).collect::<String>())),
        None => Ok(list),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_are_numbers_or_have_units() {
        for (value, expected) in [
            (json!(null), Some(None)),
            (json!(20), Some(Some(20))),
            (json!("1mb"), Some(Some(1_000_000))),
            (json!("1.5KB"), Some(Some(1500))),
            (json!("20GB"), Some(Some(20_000_000_000))),
            (json!("3b"), Some(Some(3))),
            (json!("3"), None),
            (json!("mb"), None),
            (json!("-1mb"), None),
            (json!("1.2.3mb"), None),
            (json!("99999999999999gb"), None),
            (json!(-1), None),
            (json!(1.5), None),
            (json!(true), None),
        ] {
            assert_eq!(size_limit(&value).ok(), expected, "{value}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |body: &str| parse::<Transfer>(body.as_bytes()).unwrap_err().message;
        assert_eq!(message("{}"), "body must have required property 'bucketId'");
        assert_eq!(message(""), "body must have required property 'bucketId'");
        assert!(message("[").starts_with("body is not understood"));
    }

    #[test]
    fn null_takes_a_limit_away_and_absence_does_not() {
        let update: UpdateBucket = parse(br#"{"file_size_limit":null}"#).unwrap();
        assert_eq!((update.file_size_limit, update.allowed_mime_types), (Some(Value::Null), None));
    }
}
