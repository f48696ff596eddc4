//! What is asked by HTTP: broadcasts of whoever has no socket, `POST /api/broadcast` and `POST /api/broadcast/{topic}/events/{event}`, and
//! an operator's figures.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use ntier_protocol::realtime::http::{self as posts, Posted, Refusal};
use ntier_protocol::realtime::message::{Content, Json, Payload};
use ntier_protocol::realtime::outbound::{self, Meta};
use ntier_protocol::realtime::topic;
use ntier_security::caller::Credentials;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::Realtime;
use crate::admit::{now, told};
use crate::authorize::{Asker, Extension, Failure};
use crate::hub::Room;

impl Realtime {
    /// `path` is what follows `/realtime/v1`.
    pub async fn answer(&self, path: &str, request: &Request<Bytes>) -> Response<Bytes> {
        let steps: Vec<&str> = path.split('/').skip(1).collect();
        let done = match (request.method(), steps.as_slice()) {
            (&Method::GET, ["api", "ping"]) => return said(StatusCode::OK, &json!({ "message": "Success" })),
            (&Method::POST, ["api", "broadcast"]) => self.post_many(request).await,
            (&Method::POST, ["api", "broadcast", topic, "events", event]) => self.post_one(request, topic, event).await,
            (&Method::GET, ["metrics"]) => {
                return match self.may_post(request) {
                    Ok(asker) if &*asker.role == "service_role" => self.metrics(),
                    _ => said(StatusCode::UNAUTHORIZED, &Refusal::Unauthorized.body()),
                };
            }
            _ => return said(StatusCode::NOT_FOUND, &json!({ "message": "Not found" })),
        };
        match done {
            Ok(()) => {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = StatusCode::ACCEPTED;
                response
            }
            Err(refusal) => {
                let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                said(status, &refusal.body())
            }
        }
    }

    async fn post_many(&self, request: &Request<Bytes>) -> Result<(), Refusal> {
        let asker = self.may_post(request)?;
        let posted = posts::many(request.body(), &self.settings.limits)?;
        let count = posted.len() as u64;
        match self.hub.rate.left() {
            0 => return Err(Refusal::OverRate),
            left if left < count => return Err(Refusal::BatchTooLarge),
            _ => self.hub.rate.add(count),
        }
        for posted in posted {
            // Who may not write to a room is not told that it is there.
            if !posted.private || self.may_write(&asker, &posted.name).await == Ok(true) {
                self.post(&posted, text(&posted)).await;
            }
        }
        Ok(())
    }

    async fn post_one(&self, request: &Request<Bytes>, topic: &str, event: &str) -> Result<(), Refusal> {
        let asker = self.may_post(request)?;
        let decoded = |raw: &str| percent_decode_str(raw).decode_utf8_lossy().into_owned();
        let query = request.uri().query().unwrap_or_default();
        let is_private =
            form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "private" && value == "true");
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let (topic, event, body) = (decoded(topic), decoded(event), request.body().clone());
        let posted = posts::one(&topic, &event, is_private, media_type, body, &self.settings.limits)?;
        if self.hub.rate.is_reached() {
            return Err(Refusal::OverRate);
        }
        if posted.private && !self.may_write(&asker, &posted.name).await.map_err(refusal)? {
            return Err(Refusal::Forbidden);
        }
        self.hub.rate.add(1);
        let message = outbound::broadcast(&topic::of(&posted.name), &posted.event, posted.content.clone(), None);
        self.post(&posted, Some(message.payload)).await;
        Ok(())
    }

    async fn post(&self, posted: &Posted, payload: Option<Payload>) {
        let Some(payload) = payload else { return };
        let room = Room { name: posted.name.as_str().into(), is_private: posted.private };
        self.say(&room, &payload, None);
        self.hub.pace(&room).await;
    }

    async fn may_write(&self, asker: &Asker, name: &str) -> Result<bool, Failure> {
        self.rights.writes(asker, &name.into(), Extension::Broadcast).await
    }

    fn may_post(&self, request: &Request<Bytes>) -> Result<Asker, Refusal> {
        let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        let credentials = Credentials {
            apikey: text(HeaderName::from_static("apikey")),
            authorization: text(header::AUTHORIZATION),
            user_agent: text(header::USER_AGENT),
        };
        let who = if credentials.authorization.is_some() {
            self.doorkeeper.holder(credentials, now())
        } else {
            self.doorkeeper.identify(credentials, now())
        };
        who.map(|caller| Asker::new(&caller, &told(request.headers()))).map_err(|_| Refusal::Unauthorized)
    }
}

fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Policy => Refusal::Policies("RLS policy error"),
        Failure::Cancelled => Refusal::Policies("Query canceled"),
        Failure::NoPartition => Refusal::Policies("Missing messages partition"),
        Failure::Unreachable => Refusal::Policies("Tenant database unavailable"),
        Failure::NoConnections => Refusal::Policies("Tenant database has too many connections"),
        Failure::Busy => Refusal::Exhausted,
    }
}

/// One of many goes out as text, whatever the client speaks.
fn text(posted: &Posted) -> Option<Payload> {
    let Content::Json(payload) = &posted.content else { return None };
    let mut text = format!("{{\"type\":\"broadcast\",\"event\":{},\"payload\":", json!(posted.event)).into_bytes();
    text.extend_from_slice(payload.bytes());
    if posted.id.is_some() {
        text.extend_from_slice(b",\"meta\":");
        text.extend_from_slice(Meta { id: posted.id.clone(), ..Meta::default() }.json().bytes());
    }
    text.push(b'}');
    Json::read(&text.into()).map(Payload::Json)
}

fn said(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
