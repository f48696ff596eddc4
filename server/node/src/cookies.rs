//! Sessions in cookies that no script can read, for pages served from this very origin (checklist T6).
//!
//! A page asks for it with the header `X-Use-Cookie`: the tokens of a sign-in then come as cookies instead of in the body, and later
//! requests are made with them. A form or a page of another site cannot: the cookies are `SameSite=Lax`, the header is needed for
//! whatever changes something, and the origin has to be our own (OWASP, "Cross-Site Request Forgery Prevention").

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use serde_json::Value;

const WANTED: HeaderName = HeaderName::from_static("x-use-cookie");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const ACCESS: &str = "__Host-ntier-access";
const REFRESH: &str = "__Host-ntier-refresh";
/// Seconds; browsers keep no cookie longer than 400 days.
const LONGEST: u64 = 400 * 86_400;

/// What a request says about cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookies {
    /// Tokens are to come as cookies.
    pub are_wanted: bool,
    ends_session: bool,
}

/// Puts what the cookies hold where everybody looks for it, if the request may use them. `whole` makes a body.
pub fn take<B>(request: &mut Request<B>, whole: impl FnOnce(Bytes) -> B) -> Cookies {
    let are_wanted = request.headers().contains_key(WANTED) && is_own(request.headers());
    let path = request.uri().path();
    let cookies = Cookies { are_wanted, ends_session: path == "/auth/v1/logout" };
    let may = are_wanted || (is_safe(request.method()) && is_from_here(request.headers()));
    if !may || !request.headers().contains_key(COOKIE) {
        return cookies;
    }
    let refreshes = path == "/auth/v1/token"
        && request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "grant_type=refresh_token"));
    if refreshes {
        if let Some(token) = cookie(request.headers(), REFRESH) {
            let body = serde_json::json!({ "refresh_token": token }).to_string();
            *request.body_mut() = whole(body.into());
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
    } else if !request.headers().contains_key(AUTHORIZATION)
        && let Some(token) = cookie(request.headers(), ACCESS)
        && let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}"))
    {
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    cookies
}

impl Cookies {
    /// Takes the tokens out of an answer of sign-in, and gives them as cookies.
    pub fn give(self, mut response: Response<Bytes>) -> Response<Bytes> {
        if self.ends_session && response.status().is_success() {
            set(response.headers_mut(), ACCESS, "", 0);
            set(response.headers_mut(), REFRESH, "", 0);
            return response;
        }
        if !response.status().is_success() {
            return response;
        }
        let Ok(Value::Object(mut session)) = serde_json::from_slice::<Value>(response.body()) else { return response };
        let text = |session: &serde_json::Map<String, Value>, name: &str| {
            session.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let (Some(access), Some(refresh)) = (text(&session, "access_token"), text(&session, "refresh_token")) else {
            return response;
        };
        let life = session.get("expires_in").and_then(Value::as_u64).unwrap_or(0);
        set(response.headers_mut(), ACCESS, &access, life);
        set(response.headers_mut(), REFRESH, &refresh, LONGEST);
        for name in ["access_token", "refresh_token"] {
            session.insert(name.to_owned(), "".into());
        }
        *response.body_mut() = Value::Object(session).to_string().into();
        response
    }
}

fn set(headers: &mut HeaderMap, name: &str, value: &str, life: u64) {
    let cookie = format!("{name}={value}; Path=/; Max-Age={life}; Secure; HttpOnly; SameSite=Lax");
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        headers.append(SET_COOKIE, value);
    }
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value.to_owned())
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Asked by a page of ours, or by somebody who typed the address; browsers that do not say so use the header.
fn is_from_here(headers: &HeaderMap) -> bool {
    let site = headers.get(FETCH_SITE).and_then(|value| value.to_str().ok());
    matches!(site, Some("same-origin" | "none")) && is_own(headers)
}

/// Asked by a page of another site, as far as browsers say so.
pub fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get(FETCH_SITE).and_then(|value| value.to_str().ok());
    !matches!(site, None | Some("same-origin" | "none")) || !is_own(headers)
}

/// The page that asks, if it says which, is served from here.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(ORIGIN) else { return true };
    let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    authority.is_some() && authority == text(HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str, headers: &[(&'static str, &str)]) -> Request<Bytes> {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(uri).body(Bytes::new()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    #[test]
    fn security_t6_cookies_count_where_no_other_site_can_make_them_count() {
        let cookie = ("cookie", "a=b; __Host-ntier-access=token; c=d");
        let host = ("host", "app.example.com");
        let wanted = ("x-use-cookie", "1");
        for (line, more, expected) in [
            ("POST /rest/v1/notes", vec![], false),
            ("POST /rest/v1/notes", vec![wanted], true),
            ("POST /rest/v1/notes", vec![wanted, ("origin", "https://app.example.com")], true),
            ("POST /rest/v1/notes", vec![wanted, ("origin", "https://evil.com")], false),
            ("POST /rest/v1/notes", vec![wanted, ("origin", "null")], false),
            ("POST /rest/v1/notes", vec![("sec-fetch-site", "same-origin")], false),
            ("GET /rest/v1/notes", vec![], false),
            ("GET /rest/v1/notes", vec![("sec-fetch-site", "same-origin")], true),
            ("GET /rest/v1/notes", vec![("sec-fetch-site", "none")], true),
            ("GET /rest/v1/notes", vec![("sec-fetch-site", "cross-site")], false),
            ("GET /rest/v1/notes", vec![("sec-fetch-site", "same-site")], false),
        ] {
            let mut asked = request(line, &[vec![cookie, host], more.clone()].concat());
            take(&mut asked, |body| body);
            assert_eq!(asked.headers().get(AUTHORIZATION).is_some(), expected, "{line} {more:?}");
        }
        let mut asked = request("GET /x", &[cookie, host, wanted, ("authorization", "Bearer own")]);
        take(&mut asked, |body| body);
        assert_eq!(asked.headers()[AUTHORIZATION], "Bearer own", "what is said goes before what is kept");
    }

    #[test]
    fn security_t6_tokens_come_as_cookies_that_no_script_reads() {
        let mut asked = request("POST /auth/v1/token?grant_type=password", &[("x-use-cookie", "1"), ("host", "a")]);
        let cookies = take(&mut asked, |body| body);
        let body = r#"{"access_token":"x","refresh_token":"y","expires_in":3600,"user":{"id":"u"}}"#;
        let given = cookies.give(Response::new(body.into()));
        let set: Vec<&str> = given.headers().get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(
            set,
            [
                "__Host-ntier-access=x; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax",
                "__Host-ntier-refresh=y; Path=/; Max-Age=34560000; Secure; HttpOnly; SameSite=Lax",
            ]
        );
        assert!(!std::str::from_utf8(given.body()).unwrap().contains("\"x\""), "{:?}", given.body());
        let refresh = ("cookie", "__Host-ntier-refresh=y");
        let mut asked =
            request("POST /auth/v1/token?grant_type=refresh_token", &[("x-use-cookie", "1"), ("host", "a"), refresh]);
        take(&mut asked, |body| body);
        assert_eq!(asked.body().as_ref(), br#"{"refresh_token":"y"}"#);
        let error = Response::builder().status(400).body(Bytes::from("{}")).unwrap();
        assert!(cookies.give(error).headers().get(SET_COOKIE).is_none());
    }
}
