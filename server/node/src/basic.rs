//! `Authorization: Basic` of file managers, which know no other: a key or a token in the password's place is a bearer's, whatever the
//! name; else they are the e-mail and the password of a user.
//!
//! Browsers remember such credentials and send them with whatever any page asks for. So they count only where it is not a page of
//! another site that asks.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use ntier_auth::Auth;
use ntier_security::intrusion::Event;
use ntier_storage::Body;

use crate::cookies;

/// Makes the bearer of what was shown; what else is shown stays as it is.
pub async fn to_bearer(headers: &mut HeaderMap, auth: Option<&Auth>, address: IpAddr) -> Result<(), Response<Body>> {
    let Some((name, password)) = headers.get(header::AUTHORIZATION).and_then(credentials) else { return Ok(()) };
    if cookies::is_from_elsewhere(headers) {
        return Err(plain(StatusCode::FORBIDDEN, "Pages of other sites may not ask with a password"));
    }
    let token = if is_token(&password) {
        password
    } else {
        let Some(auth) = auth else { return Err(refuse()) };
        let user_agent = headers.get(header::USER_AGENT);
        match auth.token_of(address, user_agent, &name, &password).await {
            Ok(token) => token,
            Err(response)
                if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS =>
            {
                return Err(response.map(ntier_storage::full));
            }
            Err(response) => {
                let mut refused = refuse();
                refused.extensions_mut().insert(Event::WrongPassword);
                refused.extensions_mut().extend(response.into_parts().0.extensions);
                return Err(refused);
            }
        }
    };
    let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {token}")) else { return Err(refuse()) };
    bearer.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, bearer);
    Ok(())
}

/// Name and password (RFC 7617).
fn credentials(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':').filter(|_| !text.contains(char::is_control))?;
    Some((name.to_owned(), password.to_owned()))
}

/// A key of ours, or a JWT.
fn is_token(text: &str) -> bool {
    text.starts_with("sb_") || (text.starts_with("eyJ") && text.split('.').count() == 3)
}

fn refuse() -> Response<Body> {
    let mut response = plain(StatusCode::UNAUTHORIZED, "Wrong e-mail or password");
    let challenge = HeaderValue::from_static("Basic realm=\"ntier\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn plain(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = Response::new(ntier_storage::full(message));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_read() {
        for (value, expected) in [
            ("Basic YWRhOmE6Yg==", Some(("ada", "a:b"))),
            ("basic  YWRhOg==", Some(("ada", ""))),
            ("Basic YWRh", None),
            ("Basic %", None),
            ("Basic YQA6Yg==", None),
            ("Bearer YWRhOmE6Yg==", None),
        ] {
            let found = credentials(&HeaderValue::from_static(value));
            assert_eq!(found.as_ref().map(|(name, password)| (name.as_str(), password.as_str())), expected, "{value}");
        }
        assert!(is_token("sb_secret_x") && is_token("eyJh.b.c") && !is_token("eyJ") && !is_token("secret"));
    }

    #[tokio::test]
    async fn security_pages_of_other_sites_do_not_use_what_a_browser_remembers() {
        let basic = format!("Basic {}", STANDARD.encode("any:sb_secret_key"));
        for (more, may) in [
            (&[][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://here")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("origin", "https://elsewhere")], false),
            (&[("origin", "null")], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, basic.parse().unwrap());
            headers.insert(header::HOST, HeaderValue::from_static("here"));
            headers.extend(
                more.iter()
                    .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value))),
            );
            let done = to_bearer(&mut headers, None, IpAddr::from([127, 0, 0, 1])).await;
            assert_eq!(done.err().map(|refusal| refusal.status()), (!may).then_some(StatusCode::FORBIDDEN), "{more:?}");
            assert_eq!(headers[header::AUTHORIZATION] == "Bearer sb_secret_key", may, "{more:?}");
        }
    }
}
