//! Where a browser may be sent: to the site, or to what was allowed (checklist A11). Source: GoTrue, `utilities.IsRedirectURLValid`.

use http::Uri;
use std::net::IpAddr;

/// The asked address if it is allowed, else the site's.
pub fn target<'a>(asked: Option<&'a str>, site: &'a str, allowed: &[String]) -> &'a str {
    asked.filter(|asked| is_allowed(asked, site, allowed)).unwrap_or(site)
}

fn is_allowed(asked: &str, site: &str, allowed: &[String]) -> bool {
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
        && (site.port_u16() == url.port_u16() || url.host().is_some_and(is_loopback))
    {
        return true;
    }
    // An address in digits may mean another host than it seems to.
    if url.host().is_some_and(|host| host.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    allowed.iter().any(|pattern| fits(pattern.as_bytes(), without_fragment.as_bytes()))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
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
        let allowed = ["https://*.example.org/**", "myapp://callback", "https://one.example.net/x?"].map(str::to_owned);
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
            ("", false),
        ] {
            assert_eq!(target(Some(asked), site, &allowed) == asked, is_fine, "{asked}");
        }
        assert_eq!(target(Some("http://127.0.0.1:9999/x"), "http://127.0.0.1:3000", &[]), "http://127.0.0.1:9999/x");
        assert_eq!(target(None, site, &allowed), site);
    }
}
