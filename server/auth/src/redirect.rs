//! Where a browser may be sent: to the site, or to what was allowed (checklist A11). Source: GoTrue, `utilities.IsRedirectURLValid`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use ntier_backing::outbound::is_this_machine;
use ntier_protocol::auth::error::Error as Refused;
use ntier_protocol::auth::user::Session;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The asked address if it is allowed, else the site's.
pub fn target<'a>(asked: Option<&'a str>, site: &'a str, allowed: &[String]) -> &'a str {
    asked.filter(|asked| is_allowed(asked, site, allowed)).unwrap_or(site)
}

/// Whether a browser may be sent to the asked address.
pub fn is_allowed(asked: &str, site: &str, allowed: &[String]) -> bool {
    // What a browser would read in another way than we do goes nowhere.
    if asked.contains(['\\', '\r', '\n', '\t', '@', ' ']) {
        return false;
    }
    let without_fragment = asked.split('#').next().unwrap_or_default();
    let Ok(url) = without_fragment.parse::<Uri>() else { return false };
    let Some(scheme) = url.scheme_str() else { return false };
    if matches!(scheme, "javascript" | "data" | "vbscript" | "file") {
        return false;
    }
    if let Ok(site) = site.parse::<Uri>()
        && site.scheme_str() == Some(scheme)
        && url.host().is_some()
        && site.host() == url.host()
        && (site.port_u16() == url.port_u16() || url.host().is_some_and(is_this_machine))
    {
        return true;
    }
    // A pattern's stars are for names: a host in digits is allowed where it stands in the pattern.
    let host = url.host().unwrap_or_default();
    let is_named = !matches!(scheme, "http" | "https") || is_name(host) || is_this_machine(host);
    let beginning = format!("{scheme}://{host}");
    // What comes behind a host begins with a slash for browsers, also where it is left out.
    let text = match without_fragment.split_once("://") {
        Some((scheme, rest)) if rest.find('?') < rest.find('/').or(Some(rest.len())) => rest
            .split_once('?')
            .map_or_else(|| without_fragment.to_owned(), |(host, query)| format!("{scheme}://{host}/?{query}")),
        _ => without_fragment.to_owned(),
    };
    allowed
        .iter()
        .any(|pattern| (is_named || pattern.starts_with(&beginning)) && fits(pattern.as_bytes(), text.as_bytes()))
}

/// Whether a host is a name, and not an address in digits, of which browsers know many forms (`0x7f.1`).
fn is_name(host: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    host.bytes().all(is_letter) && host.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && !is_number
}

/// Names and values for a query or a fragment.
pub type Parameters = Vec<(&'static str, String)>;

/// An address that a browser is sent to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Without its fragment, which is ours to say.
    address: String,
    fragment: String,
}

impl Target {
    pub fn new(address: &str) -> Self {
        Self { address: address.split('#').next().unwrap_or_default().to_owned(), fragment: String::new() }
    }

    /// With more in the query.
    pub fn query(mut self, parameters: &[(&'static str, String)]) -> Self {
        if !parameters.is_empty() {
            self.address.push(if self.address.contains('?') { '&' } else { '?' });
            self.address.push_str(&encoded(parameters));
        }
        self
    }

    pub fn fragment(self, parameters: &[(&'static str, String)]) -> Self {
        let mark = if parameters.is_empty() { "" } else { "&" };
        // Clients know by it that we have sent the browser.
        Self { fragment: format!("#{}{mark}sb=", encoded(parameters)), ..self }
    }

    /// 303: whatever was sent, it is looked at now.
    pub fn see_other(&self) -> Response<Bytes> {
        self.response(StatusCode::SEE_OTHER)
    }

    /// 302.
    pub fn found(&self) -> Response<Bytes> {
        self.response(StatusCode::FOUND)
    }

    pub fn address(&self) -> String {
        format!("{}{}", self.address, self.fragment)
    }

    fn response(&self, status: StatusCode) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        if let Ok(location) = HeaderValue::from_str(&self.address()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

fn encoded(parameters: &[(&'static str, String)]) -> String {
    form(parameters.iter().map(|(name, value)| (*name, value.as_str())))
}

/// All but what stands for itself (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As a part of a query or a form.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// As a form or a query has them.
pub fn form<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pair = |(name, value): (&str, &str)| format!("{}={}", escaped(name), escaped(value));
    parameters.into_iter().map(pair).collect::<Vec<_>>().join("&")
}

/// What a client makes a session of.
pub fn session_parameters(session: &Session) -> Parameters {
    vec![
        ("access_token", session.access_token.clone()),
        ("expires_at", session.expires_at.to_string()),
        ("expires_in", session.expires_in.to_string()),
        ("refresh_token", session.refresh_token.clone()),
        ("token_type", session.token_type.to_owned()),
    ]
}

/// Source: GoTrue, `getErrorQueryString`.
pub fn error_parameters(refused: &Refused) -> Parameters {
    use ntier_protocol::auth::error::Code;
    let error = match (refused.code, refused.status) {
        (Code::SignupDisabled | Code::UserBanned | Code::ProviderEmailNeedsVerification, _) | (_, 403) => {
            "access_denied"
        }
        (_, 400) => "invalid_request",
        (_, 401) => "unauthorized_client",
        (_, 503) => "temporarily_unavailable",
        _ => "server_error",
    };
    vec![
        ("error", error.to_owned()),
        ("error_code", refused.code.text().to_owned()),
        ("error_description", refused.message.clone()),
    ]
}

/// `*` stands for anything but `.` and `/`, `**` for anything, `?` for one character that is neither.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let is_plain = |byte: u8| byte != b'.' && byte != b'/';
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|at| fits(rest, &text[at..])),
        [b'*', rest @ ..] => {
            let most = text.iter().position(|byte| !is_plain(*byte)).unwrap_or(text.len());
            (0..=most).any(|at| fits(rest, &text[at..]))
        }
        [b'?', rest @ ..] => matches!(text, [byte, after @ ..] if is_plain(*byte) && fits(rest, after)),
        [wanted, rest @ ..] => matches!(text, [byte, after @ ..] if byte == wanted && fits(rest, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_a11_only_allowed_addresses_are_gone_to() {
        let site = "https://app.example.com";
        let allowed = [
            "https://*.example.org/**",
            "myapp://callback",
            "https://one.example.net/x?",
            "https://*-team.example.net/**",
            "https://192.0.2.7/**",
        ]
        .map(str::to_owned);
        for (asked, is_fine) in [
            ("https://app.example.com/welcome?x=1#y", true),
            ("https://app.example.com:8443/", false),
            ("http://app.example.com/", false),
            ("https://app.example.com.evil.com/", false),
            ("https://app.example.com@evil.com/", false),
            ("https://evil.com/?https://app.example.com", false),
            ("//evil.com", false),
            ("/\\evil.com", false),
            ("javascript:alert(1)", false),
            ("https://a.example.org/b/c", true),
            ("https://a.b.example.org/", false),
            ("myapp://callback", true),
            ("myapp://callback2", false),
            ("https://one.example.net/xy", true),
            ("https://one.example.net/x/", false),
            ("https://[2001:db8::1]?-team.example.net/x", false),
            ("https://0x01020304?-team.example.net/x", false),
            ("https://16909060?-team.example.net/x", false),
            ("https://evil?-team.example.net/x", false),
            ("https://a-team.example.net/x", true),
            ("https://192.0.2.7/x", true),
            ("https://192.0.2.8/x", false),
            ("", false),
        ] {
            assert_eq!(target(Some(asked), site, &allowed) == asked, is_fine, "{asked}");
        }
        assert_eq!(target(Some("http://127.0.0.1:9999/x"), "http://127.0.0.1:3000", &[]), "http://127.0.0.1:9999/x");
        assert_eq!(target(None, site, &allowed), site);
    }
}
