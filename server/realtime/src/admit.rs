//! Who comes: the handshake of the websocket, and the tokens that a client shows later.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use ntier_protocol::realtime::error::{Handshake, Token};
use ntier_protocol::realtime::frame::Version;
use ntier_security::UnixTime;
use ntier_security::caller::{Credentials, Refusal};
use ntier_security::token;

use crate::Realtime;

/// What a connection has shown, which its tokens come beside.
#[derive(Debug, Clone)]
pub struct Credential {
    apikey: Option<String>,
    user_agent: Option<String>,
}

/// Somebody whose token is right, and how long that holds.
#[derive(Debug, Clone, Copy)]
pub struct Holder {
    /// `None`: a key, which does not expire.
    pub until: Option<Instant>,
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
        let credential = Credential { apikey, user_agent: text(header::USER_AGENT) };
        let holder = self.identify(&credential, None).map_err(|refusal| {
            Refused::Handshake(match refusal {
                Refusal::NoKey => Handshake::NoKey,
                Refusal::Token(token::Refusal::Expired) => Handshake::Expired,
                other => Handshake::Token(fault(&other)),
            })
        })?;
        Ok(Admitted { version, credential, holder })
    }

    /// Looks at a token, on a connection that has shown this.
    pub(crate) fn holder(&self, credential: &Credential, token: &str) -> Result<Holder, Token> {
        self.identify(credential, Some(token)).map_err(|refusal| fault(&refusal))
    }

    fn identify(&self, credential: &Credential, token: Option<&str>) -> Result<Holder, Refusal> {
        let authorization = token.map(|token| format!("Bearer {}", token.trim()));
        let credentials = Credentials {
            apikey: credential.apikey.as_deref(),
            authorization: authorization.as_deref(),
            user_agent: credential.user_agent.as_deref(),
        };
        let now = now();
        let caller = self.doorkeeper.identify(credentials, now)?;
        let claims: serde_json::Value = serde_json::from_str(&caller.claims).unwrap_or_default();
        let since_1970 = Duration::from_secs(now.unsigned_abs());
        let exp = claims["exp"].as_f64().map(|exp| Duration::try_from_secs_f64(exp).unwrap_or_default());
        let left = exp.map(|exp| exp.saturating_sub(since_1970));
        // Beyond what a clock can count it does not end.
        let until = left.and_then(|left| Instant::now().checked_add(left));
        Ok(Holder { until })
    }
}

/// In realtime's words.
fn fault(refusal: &Refusal) -> Token {
    match refusal {
        Refusal::Token(token::Refusal::Expired) => Token::Expired { ago: 0 },
        Refusal::Token(token::Refusal::NoKey | token::Refusal::Signature) => Token::Signature,
        Refusal::NoKey | Refusal::UnknownKey | Refusal::SecretInBrowser | Refusal::Token(_) => Token::Malformed,
    }
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
