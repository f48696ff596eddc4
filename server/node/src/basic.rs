//! `Authorization: Basic` of file managers, which know no other: a key or a token in the password's place is a bearer's, whatever the
//! name; else they are the e-mail and the password of a user.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use ntier_auth::Auth;
use ntier_storage::Body;

/// Makes the bearer of what was shown; what else is shown stays as it is.
pub async fn to_bearer(headers: &mut HeaderMap, auth: Option<&Auth>, address: IpAddr) -> Result<(), Response<Body>> {
    let Some((name, password)) = headers.get(header::AUTHORIZATION).and_then(credentials) else { return Ok(()) };
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
            Err(_) => return Err(refuse()),
        }
    };
    match HeaderValue::from_str(&format!("Bearer {token}")) {
        Ok(mut bearer) => {
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
            Ok(())
        }
        Err(_) => Err(refuse()),
    }
}

/// Name and password (RFC 7617).
fn credentials(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// A key of ours, or a JWT.
fn is_token(text: &str) -> bool {
    text.starts_with("sb_") || (text.starts_with("eyJ") && text.split('.').count() == 3)
}

fn refuse() -> Response<Body> {
    let mut response = Response::new(ntier_storage::full("Wrong e-mail or password"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"ntier\", charset=\"UTF-8\""));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
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
            ("Bearer YWRhOmE6Yg==", None),
        ] {
            let found = credentials(&HeaderValue::from_static(value));
            assert_eq!(found.as_ref().map(|(name, password)| (name.as_str(), password.as_str())), expected, "{value}");
        }
        assert!(is_token("sb_secret_x") && is_token("eyJh.b.c") && !is_token("eyJ") && !is_token("secret"));
    }
}
