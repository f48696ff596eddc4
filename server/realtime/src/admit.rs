//! Who comes: the handshake of the websocket, and the tokens that a client shows later.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use ntier_protocol::realtime::error::{Handshake, Shutdown, Token};
use ntier_protocol::realtime::frame::Version;
use ntier_protocol::realtime::join::is_key;
use ntier_security::UnixTime;
use ntier_security::caller::{Credentials, Refusal};
use ntier_security::token;
use serde_json::{Map, Value};

use crate::Realtime;
use crate::authorize::Asker;
use crate::sessions::Session;

/// What a connection has shown, which its tokens come beside.
#[derive(Debug, Clone)]
pub struct Credential {
    apikey: Option<String>,
    user_agent: Option<String>,
    /// What policies may want to know of it, as a JSON object.
    headers: Arc<str>,
}

/// Somebody whose token is right, and how long that holds.
#[derive(Debug, Clone)]
pub struct Holder {
    pub asker: Asker,
    /// `None`: the key of the connection.
    pub token: Option<Arc<str>>,
    /// `None`: it does not expire.
    pub until: Option<Instant>,
    /// When it was looked at.
    pub since: Instant,
    /// `None`: it names none.
    pub session: Option<Arc<Session>>,
}

/// Somebody who may come in.
#[derive(Debug)]
pub struct Admitted {
    pub(crate) version: Version,
    pub(crate) credential: Credential,
    pub(crate) holder: Holder,
}

/// Why somebody may not.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no handshake of a websocket.
    NoWebsocket,
    /// Neither 1.0 nor 2.0: realtime answers it with 403 and nothing.
    Version,
    Handshake(Handshake),
}

/// What `Sec-WebSocket-Accept` says to the client's key (RFC 6455, 4.2.2). `None` where it is no handshake.
pub fn accept(method: &Method, headers: &HeaderMap) -> Option<HeaderValue> {
    const SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let has = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let is_handshake = method == Method::GET
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_handshake)?.to_str().ok()?;
    if STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{SALT}").as_bytes());
    HeaderValue::from_str(&STANDARD.encode(hash.as_ref())).ok()
}

impl Realtime {
    /// Decides whether a client may connect.
    pub fn admit(&self, parts: &Parts) -> Result<Admitted, Refused> {
        if accept(&parts.method, &parts.headers).is_none() {
            return Err(Refused::NoWebsocket);
        }
        let query = parts.uri.query().unwrap_or_default();
        let parameter = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        let version = Version::read(parameter("vsn").as_deref()).ok_or(Refused::Version)?;
        let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let apikey = text(HeaderName::from_static("x-api-key")).or_else(|| parameter("apikey"));
        let credential = Credential { apikey, user_agent: text(header::USER_AGENT), headers: told(&parts.headers) };
        if self.joins.is_reached() {
            return Err(Refused::Handshake(Handshake::TooManyJoins));
        }
        let holder = self.identify(&credential, None).map_err(|unfit| {
            Refused::Handshake(match unfit {
                Unfit::Refused(Refusal::NoKey) => Handshake::NoKey,
                Unfit::Refused(Refusal::Token(token::Refusal::Expired)) => Handshake::Expired,
                other => Handshake::Token(other.fault(None)),
            })
        })?;
        Ok(Admitted { version, credential, holder })
    }

    /// Looks at a token, on a connection that has shown this.
    pub(crate) fn holder(&self, credential: &Credential, token: &str) -> Result<Holder, Token> {
        self.identify(credential, Some(token)).map_err(|unfit| unfit.fault(Some(token)))
    }

    /// Whether a token is still good; looked at again from time to time, as its key may not be in force any more.
    pub(crate) fn still(
        &self,
        credential: &Credential,
        holder: &Holder,
        now: Instant,
    ) -> Result<Option<Holder>, Shutdown> {
        if let Some(until) = holder.until.filter(|until| *until <= now) {
            return Err(Shutdown::Token(Token::Expired { ago: (now - until).as_secs() }));
        }
        if holder.session.as_ref().is_some_and(|session| session.is_over()) {
            return Err(Shutdown::Token(Token::SessionOver));
        }
        if now.saturating_duration_since(holder.since) < self.settings.limits.token_check {
            return Ok(None);
        }
        let token = holder.token.as_deref();
        let again = self.identify(credential, token);
        again.map(Some).map_err(|unfit| Shutdown::Token(unfit.fault(token)))
    }

    fn identify(&self, credential: &Credential, token: Option<&str>) -> Result<Holder, Unfit> {
        let authorization = token.map(|token| format!("Bearer {}", token.trim()));
        let credentials = Credentials {
            apikey: credential.apikey.as_deref(),
            authorization: authorization.as_deref(),
            user_agent: credential.user_agent.as_deref(),
        };
        let now = now();
        let caller = self.doorkeeper.identify(credentials, now)?;
        let claims: Value = serde_json::from_str(&caller.claims).unwrap_or_default();
        // A key of ours has none.
        let is_token = token.or(credential.apikey.as_deref()).is_some_and(|token| !is_key(token.trim()));
        if is_token && (claims["role"].is_null() || claims["exp"].is_null()) {
            return Err(Unfit::MissingClaims);
        }
        let exp = claims["exp"].as_f64().map(|exp| Duration::try_from_secs_f64(exp).unwrap_or_default());
        let left = exp.map(|exp| exp.saturating_sub(Duration::from_secs(now.unsigned_abs())));
        // To whoever holds a token for long, no leeway is given: what ends at once is not begun.
        if left == Some(Duration::ZERO) {
            return Err(Refusal::Token(token::Refusal::Expired).into());
        }
        let since = Instant::now();
        Ok(Holder {
            asker: Asker::new(&caller, &credential.headers),
            token: token.map(Arc::from),
            // Beyond what a clock can count it does not end.
            until: left.and_then(|left| since.checked_add(left)),
            since,
            session: self.sessions.of(&claims),
        })
    }
}

/// What policies are told of a request: the headers that are its sender's own, but for the key, and for what is another for each.
pub(crate) fn told(headers: &HeaderMap) -> Arc<str> {
    let mut told = Map::new();
    for (name, value) in headers {
        let name = name.as_str();
        if name.starts_with("x-")
            && !matches!(name, "x-api-key" | "x-request-id")
            && let Ok(value) = value.to_str()
        {
            told.insert(name.to_owned(), value.into());
        }
    }
    Value::Object(told).to_string().into()
}

/// Why somebody holds no token that is good for long.
enum Unfit {
    Refused(Refusal),
    /// It does not say who its holder is, or until when.
    MissingClaims,
}

impl From<Refusal> for Unfit {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Unfit {
    /// In realtime's words.
    fn fault(&self, token: Option<&str>) -> Token {
        let refusal = match self {
            Self::Refused(refusal) => refusal,
            Self::MissingClaims => return Token::MissingClaims,
        };
        match refusal {
            Refusal::Token(token::Refusal::Expired) => Token::Expired { ago: token.and_then(ago).unwrap_or_default() },
            Refusal::Token(token::Refusal::NoKey | token::Refusal::Signature) => Token::Signature,
            Refusal::NoKey | Refusal::UnknownKey | Refusal::SecretInBrowser | Refusal::Token(_) => Token::Malformed,
        }
    }
}

/// For how many seconds a token is expired. It was signed by us.
fn ago(token: &str) -> Option<u64> {
    let claims = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let ago = Duration::from_secs(now().unsigned_abs())
        .saturating_sub(Duration::try_from_secs_f64(claims["exp"].as_f64()?).ok()?);
    Some(ago.as_secs())
}

pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_answered_as_the_rfc_has_it() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
        };
        let whole = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let said = accept(&Method::GET, &headers(&whole));
        assert_eq!(said, Some(HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        assert_eq!(accept(&Method::POST, &headers(&whole)), None);
        for left_out in 0..whole.len() {
            let rest: Vec<_> =
                whole.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, pair)| *pair).collect();
            assert_eq!(accept(&Method::GET, &headers(&rest)), None, "without {}", whole[left_out].0);
        }
        let wrong = [whole[0], whole[1], whole[2], ("sec-websocket-key", "short")];
        assert_eq!(accept(&Method::GET, &headers(&wrong)), None);
    }
}
