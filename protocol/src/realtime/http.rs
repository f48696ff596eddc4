//! Broadcasts by HTTP: `POST /api/broadcast` with many, `POST /api/broadcast/{topic}/events/{event}` with one. Sources: realtime's
//! `batch_broadcast.ex`, `single_broadcast.ex`, the controllers and plugs of both, realtime-js's `httpSend`.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use bytes::Bytes;

use crate::realtime::limits::Limits;
use crate::realtime::message::{Content, Json};

/// One broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The name of the channel, without a prefix.
    pub name: String,
    pub event: String,
    pub content: Content,
    pub private: bool,
    /// That the sender gave; it is in the meta.
    pub id: Option<String>,
}

/// Why nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Unauthorized,
    /// May not write there. Of many, such are left out silently.
    Forbidden,
    Disabled,
    MediaType,
    /// The whole of an `errors`.
    Invalid(Value),
    TooManyRequests,
    OverRate,
    BatchTooLarge,
    /// The database does not let it be known who may write, in realtime's words.
    Policies(&'static str),
    /// Likewise, as it is busy.
    Exhausted,
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::Forbidden | Self::Disabled => 403,
            Self::MediaType => 415,
            Self::Invalid(_) | Self::Policies(_) => 422,
            Self::TooManyRequests | Self::OverRate | Self::BatchTooLarge | Self::Exhausted => 429,
        }
    }

    pub fn body(&self) -> Value {
        match self {
            Self::MediaType => {
                json!({ "error": "Unsupported Media Type. Use application/json or application/octet-stream" })
            }
            Self::Invalid(errors) => json!({ "errors": errors }),
            Self::Unauthorized | Self::Forbidden => json!({ "message": "Unauthorized" }),
            Self::Disabled => json!({ "message": "Tenant is suspended" }),
            Self::TooManyRequests => json!({ "message": "Too many requests" }),
            Self::OverRate => json!({ "message": "You have exceeded your rate limit" }),
            Self::BatchTooLarge => {
                json!({ "message": "Too many messages to broadcast, please reduce the batch size" })
            }
            Self::Exhausted => json!({ "message": "Connection pool exhausted" }),
            Self::Policies(message) => json!({ "message": message }),
        }
    }
}

const BLANK: &str = "can't be blank";
const INVALID: &str = "is invalid";
const TOO_LARGE: &str = "Payload size exceeds tenant limit";

/// Reads the body of many. One that is wrong keeps all from being sent.
pub fn many(body: &Bytes, limits: &Limits) -> Result<Vec<Posted>, Refusal> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        messages: Option<&'a RawValue>,
    }
    let refused = |errors: Value| Refusal::Invalid(json!({ "messages": errors }));
    let messages = serde_json::from_slice::<Body>(body).ok().and_then(|body| body.messages);
    let messages = messages.ok_or_else(|| refused(json!([BLANK])))?;
    let messages: Vec<Message> = serde_json::from_str(messages.get()).map_err(|_| refused(json!([INVALID])))?;
    if messages.is_empty() {
        return Err(refused(json!([BLANK])));
    }
    let read: Vec<_> = messages.into_iter().map(|message| message.read(body, limits)).collect();
    if read.iter().all(Result::is_ok) {
        return Ok(read.into_iter().filter_map(Result::ok).collect());
    }
    let errors: Vec<Value> = read.into_iter().map(|it| it.err().unwrap_or_default().into()).collect();
    Err(refused(errors.into()))
}

/// Reads the body of one, whose names are in the path.
pub fn one(
    name: &str,
    event: &str,
    private: bool,
    media_type: Option<&str>,
    body: Bytes,
    limits: &Limits,
) -> Result<Posted, Refusal> {
    let essence = media_type.unwrap_or("application/json").split(';').next().unwrap_or_default().trim();
    let content = if essence.eq_ignore_ascii_case("application/octet-stream") {
        Content::Binary(body)
    } else if essence.eq_ignore_ascii_case("application/json") {
        // Nothing is an empty object to Plug.
        let json = if body.is_empty() { Some(Json::empty()) } else { Json::read(&body) };
        Content::Json(json.ok_or_else(|| Refusal::Invalid(json!({ "payload": [INVALID] })))?)
    } else {
        return Err(Refusal::MediaType);
    };
    let mut errors = Map::new();
    for (key, value) in [("topic", name), ("event", event)] {
        if value.trim().is_empty() {
            errors.insert(key.to_owned(), json!([BLANK]));
        }
    }
    if !limits.passes(content.len()) {
        errors.insert("payload".to_owned(), json!([TOO_LARGE]));
    }
    if !errors.is_empty() {
        return Err(Refusal::Invalid(errors.into()));
    }
    Ok(Posted { name: name.to_owned(), event: event.to_owned(), content, private, id: None })
}

/// One of many, with whatever there is.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    topic: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    private: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

impl Message<'_> {
    fn read(self, body: &Bytes, limits: &Limits) -> Result<Posted, Map<String, Value>> {
        let mut errors = Map::new();
        let mut fault = |key: &str, what: &str| {
            errors.insert(key.to_owned(), json!([what]));
        };
        let name = required("topic", self.topic, &mut fault);
        let event = required("event", self.event, &mut fault);
        let id = text(self.id).unwrap_or_else(|()| {
            fault("id", INVALID);
            None
        });
        let private = private(self.private).unwrap_or_else(|()| {
            fault("private", INVALID);
            false
        });
        let payload = match self.payload {
            None => {
                fault("payload", BLANK);
                Json::empty()
            }
            Some(payload) => Json::part(body, payload),
        };
        if !payload.is_object() {
            fault("payload", INVALID);
        } else if !limits.passes(payload.len()) {
            fault("payload", TOO_LARGE);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Posted { name, event, content: Content::Json(payload), private, id })
    }
}

fn required(key: &str, raw: Option<&RawValue>, fault: &mut impl FnMut(&str, &str)) -> String {
    match text(raw) {
        Ok(Some(text)) if !text.trim().is_empty() => return text,
        Ok(_) => fault(key, BLANK),
        Err(()) => fault(key, INVALID),
    }
    String::new()
}

fn text(raw: Option<&RawValue>) -> Result<Option<String>, ()> {
    match raw {
        None => Ok(None),
        Some(raw) => serde_json::from_str(raw.get()).map(Some).map_err(drop),
    }
}

/// Texts and digits are booleans, too, as Ecto casts them.
fn private(raw: Option<&RawValue>) -> Result<bool, ()> {
    match raw.map(RawValue::get) {
        None | Some("false" | r#""false""# | r#""0""#) => Ok(false),
        Some("true" | r#""true""# | r#""1""#) => Ok(true),
        Some(_) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { payload_kilobytes: 1, ..Limits::default() }
    }

    fn said(result: Result<Vec<Posted>, Refusal>) -> String {
        match result {
            Ok(posted) => posted
                .iter()
                .map(|Posted { name, event, content, private, id }| {
                    format!("{name} {event} {} {private} {id:?}", content.len())
                })
                .collect::<Vec<_>>()
                .join("; "),
            Err(refusal) => format!("{} {}", refusal.status(), refusal.body()),
        }
    }

    #[test]
    fn many_are_read() {
        let large = format!(r#"{{"messages":[{{"topic":"a","event":"e","payload":{{"x":"{}"}}}}]}}"#, "x".repeat(1500));
        for (body, expected) in [
            (
                r#"{"messages":[{"topic":"a","event":"e","payload":{"x": 1}},{"topic":"b","event":"f","payload":{},"private":true,"id":"i"}]}"#,
                r#"a e 8 false None; b f 2 true Some("i")"#,
            ),
            (r#"{"messages":[{"topic":"a","event":"e","payload":{},"private":"1","more":[]}]}"#, "a e 2 true None"),
            (
                r#"{"messages":[{"topic":"topic"},{"payload":{"data":"data"}},{"topic":"t","payload":{},"event":"e"}]}"#,
                r#"422 {"errors":{"messages":[{"event":["can't be blank"],"payload":["can't be blank"]},{"topic":["can't be blank"],"event":["can't be blank"]},{}]}}"#,
            ),
            (
                r#"{"messages":[{"topic":7,"event":" ","payload":"x","private":"yes","id":[]}]}"#,
                r#"422 {"errors":{"messages":[{"topic":["is invalid"],"event":["can't be blank"],"id":["is invalid"],"private":["is invalid"],"payload":["is invalid"]}]}}"#,
            ),
            (&large[..], r#"422 {"errors":{"messages":[{"payload":["Payload size exceeds tenant limit"]}]}}"#),
            ("{}", r#"422 {"errors":{"messages":["can't be blank"]}}"#),
            ("nope", r#"422 {"errors":{"messages":["can't be blank"]}}"#),
            (r#"{"messages":[]}"#, r#"422 {"errors":{"messages":["can't be blank"]}}"#),
            (r#"{"messages":null}"#, r#"422 {"errors":{"messages":["can't be blank"]}}"#),
            (r#"{"messages":"x"}"#, r#"422 {"errors":{"messages":["is invalid"]}}"#),
            (r#"{"messages":["x"]}"#, r#"422 {"errors":{"messages":["is invalid"]}}"#),
        ] {
            assert_eq!(said(many(&Bytes::copy_from_slice(body.as_bytes()), &limits())), expected, "{body}");
        }
    }

    #[test]
    fn one_is_read() {
        for (name, event, media_type, body, expected) in [
            ("room:1", "e", Some("application/json; charset=utf-8"), "[1]", "room:1 e 3 true None"),
            ("r", "e", None, "{}", "r e 2 true None"),
            ("r", "e", None, "", "r e 2 true None"),
            ("r", "e", Some("Application/Octet-Stream"), "{", "r e 1 true None"),
            ("r", "e", Some("application/octet-stream"), "", "r e 0 true None"),
            ("r", "e", Some("application/json"), "{", r#"422 {"errors":{"payload":["is invalid"]}}"#),
            ("", " ", None, "{}", r#"422 {"errors":{"topic":["can't be blank"],"event":["can't be blank"]}}"#),
            (
                "r",
                "e",
                Some("text/plain"),
                "x",
                r#"415 {"error":"Unsupported Media Type. Use application/json or application/octet-stream"}"#,
            ),
        ] {
            let posted = one(name, event, true, media_type, Bytes::copy_from_slice(body.as_bytes()), &limits());
            assert_eq!(said(posted.map(|posted| vec![posted])), expected, "{body}");
        }
        let large = one("r", "e", true, Some("application/octet-stream"), vec![0; 1501].into(), &limits());
        assert_eq!(
            said(large.map(|it| vec![it])),
            r#"422 {"errors":{"payload":["Payload size exceeds tenant limit"]}}"#
        );
    }

    #[test]
    fn refusals_are_realtimes() {
        for (refusal, status, body) in [
            (Refusal::Unauthorized, 401, r#"{"message":"Unauthorized"}"#),
            (Refusal::Forbidden, 403, r#"{"message":"Unauthorized"}"#),
            (Refusal::Disabled, 403, r#"{"message":"Tenant is suspended"}"#),
            (Refusal::TooManyRequests, 429, r#"{"message":"Too many requests"}"#),
            (Refusal::OverRate, 429, r#"{"message":"You have exceeded your rate limit"}"#),
            (
                Refusal::BatchTooLarge,
                429,
                r#"{"message":"Too many messages to broadcast, please reduce the batch size"}"#,
            ),
            (Refusal::Policies("RLS policy error"), 422, r#"{"message":"RLS policy error"}"#),
        ] {
            assert_eq!((refusal.status(), refusal.body().to_string().as_str()), (status, body));
        }
    }
}
