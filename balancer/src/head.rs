//! A request's head as the backend gets it: what concerns the client's connection is left out, what is known of the client is added.

use bytes::{BufMut, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Version, header};
use hyper::ext::Protocol;

use crate::decode::concerns_one_connection;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    Length(u64),
    Chunked,
}

/// What is known of the client and its connection.
#[derive(Debug, Clone, Copy)]
pub struct Via<'a> {
    /// The peer's address, as text.
    pub peer: &'a str,
    /// The peer is a proxy whose word about the client is believed.
    pub is_trusted: bool,
    pub is_tls: bool,
    /// Of this request; one that came from a trusted proxy is kept.
    pub id: &'a str,
}

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("A request has to say which host it is for, once")]
    Host,
    #[error("The body comes in a transfer coding that is not known here")]
    Coding,
    #[error("A tunnel to another host is not made here")]
    Connect,
}

/// Whether the request can be passed on at all.
pub fn check(parts: &Parts) -> Result<(), Fault> {
    if parts.method == Method::CONNECT {
        return Err(Fault::Connect);
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let first = hosts.next();
    let is_needed = parts.uri.authority().is_none() && parts.version == Version::HTTP_11;
    if hosts.next().is_some() || (first.is_none() && is_needed) {
        return Err(Fault::Host);
    }
    // What authority is meant decides about redirects and cookies; two of them decide twice.
    if let (Some(host), Some(authority)) = (first, parts.uri.authority())
        && parts.version == Version::HTTP_2
        && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(Fault::Host);
    }
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|coding| !is_chunked(coding)) || codings.next().is_some() {
        return Err(Fault::Coding);
    }
    Ok(())
}

/// What the client wants its connection to become: a websocket, or nothing else (RFC 6455, 4.2.1).
pub fn wants_websocket(parts: &Parts) -> bool {
    let has = |name: HeaderName, token: &[u8]| {
        let values = parts.headers.get_all(name).iter();
        values
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
    };
    parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && has(header::UPGRADE, b"websocket")
        && has(header::CONNECTION, b"upgrade")
}

/// Whether an HTTP/2 stream is to become a websocket (RFC 8441).
pub fn is_extended_connect<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT
        && request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Makes of it what HTTP/1.1 knows. The key is there to keep caches from answering, and nobody looks at what is answered to it.
pub fn websocket_of_http2(parts: &mut Parts) {
    parts.method = Method::GET;
    let letters = std::iter::repeat_with(fastrand::alphanumeric).take(21);
    // Sixteen bytes in base64: the last letter says four bits.
    let key: String = letters.chain("Q==".chars()).collect();
    if let Ok(key) = HeaderValue::try_from(key) {
        parts.headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
}

/// Writes the head for the backend. How the body ends is said anew, as it was understood here.
pub fn write(out: &mut BytesMut, parts: &Parts, framing: Framing, via: &Via<'_>, becomes_websocket: bool) {
    out.reserve(1024);
    out.put_slice(parts.method.as_str().as_bytes());
    out.put_u8(b' ');
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if !path.starts_with('/') && path != "*" {
        out.put_u8(b'/');
    }
    out.put_slice(path.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    // The target's own authority goes before the header (RFC 9112, 3.2.2).
    let host = parts.uri.authority().map(|authority| host_of(authority.as_str()).as_bytes());
    let host = host.or_else(|| parts.headers.get(header::HOST).map(HeaderValue::as_bytes)).unwrap_or_default();
    line(out, b"host", host);
    let named = Named::of(parts);
    let mut told = Told::default();
    // Headers of one name follow each other; those of HTTP/2's cookies become one (RFC 9113, 8.2.3).
    for (name, value) in &parts.headers {
        let is_ours = match Kind::of(name) {
            Kind::Plain => false,
            Kind::Connection | Kind::Framing => true,
            Kind::Cookie => parts.version == Version::HTTP_2,
            Kind::Te => !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
            Kind::Forwarded(forwarded) => {
                told.hear(forwarded);
                !via.is_trusted || matches!(forwarded, Forwarded::For)
            }
        };
        if !is_ours && !named.has(name) {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if parts.version == Version::HTTP_2 {
        cookies(out, parts);
    }
    forwarded(out, parts, via, &told, host);
    match framing {
        Framing::Length(length) => {
            let mut digits = [0; 20];
            line(out, b"content-length", decimal(length, &mut digits));
        }
        Framing::Chunked => line(out, b"transfer-encoding", b"chunked"),
        Framing::Empty if parts.headers.contains_key(header::CONTENT_LENGTH) => line(out, b"content-length", b"0"),
        Framing::Empty => {}
    }
    if becomes_websocket {
        out.put_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    }
    out.put_slice(b"\r\n");
}

/// Without a user's name and password, which RFC 9110, 4.2.4 has no place for.
fn host_of(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Writes a header.
pub fn line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// A number in digits.
pub fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// What becomes of a header.
enum Kind {
    Plain,
    Connection,
    Framing,
    Cookie,
    Te,
    Forwarded(Forwarded),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Forwarded {
    For,
    Proto,
    Host,
    Id,
    /// Others that say who the client is.
    Other,
}

impl Kind {
    fn of(name: &HeaderName) -> Self {
        match *name {
            header::TE => Self::Te,
            header::HOST | header::CONTENT_LENGTH => Self::Framing,
            header::COOKIE => Self::Cookie,
            header::FORWARDED => Self::Forwarded(Forwarded::Other),
            _ if concerns_one_connection(name.as_str()) => Self::Connection,
            _ => match name.as_str() {
                "x-forwarded-for" => Self::Forwarded(Forwarded::For),
                "x-forwarded-proto" => Self::Forwarded(Forwarded::Proto),
                "x-forwarded-host" => Self::Forwarded(Forwarded::Host),
                "x-request-id" => Self::Forwarded(Forwarded::Id),
                "x-forwarded-port" | "x-forwarded-prefix" | "x-forwarded-server" | "x-real-ip" | "x-client-ip"
                | "true-client-ip" | "cf-connecting-ip" => Self::Forwarded(Forwarded::Other),
                // Of old gateways (CGI), where it becomes HTTP_PROXY.
                "proxy" => Self::Connection,
                _ => Self::Plain,
            },
        }
    }
}

/// Which of them a trusted proxy has said already.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each header")]
struct Told {
    chain: bool,
    proto: bool,
    host: bool,
    id: bool,
}

impl Told {
    fn hear(&mut self, forwarded: Forwarded) {
        match forwarded {
            Forwarded::For => self.chain = true,
            Forwarded::Proto => self.proto = true,
            Forwarded::Host => self.host = true,
            Forwarded::Id => self.id = true,
            Forwarded::Other => {}
        }
    }
}

fn forwarded(out: &mut BytesMut, parts: &Parts, via: &Via<'_>, told: &Told, host: &[u8]) {
    out.put_slice(b"x-forwarded-for: ");
    if via.is_trusted && told.chain {
        for value in parts.headers.get_all("x-forwarded-for") {
            out.reserve(value.len() + 2);
            out.put_slice(value.as_bytes());
            out.put_slice(b", ");
        }
    }
    out.put_slice(via.peer.as_bytes());
    out.put_slice(b"\r\n");
    if !(via.is_trusted && told.proto) {
        line(out, b"x-forwarded-proto", if via.is_tls { b"https" } else { b"http" });
    }
    if !(via.is_trusted && told.host) {
        line(out, b"x-forwarded-host", host);
    }
    if !(via.is_trusted && told.id) {
        line(out, b"x-request-id", via.id.as_bytes());
    }
}

fn cookies(out: &mut BytesMut, parts: &Parts) {
    let mut cookies = parts.headers.get_all(header::COOKIE).iter();
    let Some(first) = cookies.next() else { return };
    let mut all = first.as_bytes().to_vec();
    for cookie in cookies {
        all.extend_from_slice(b"; ");
        all.extend_from_slice(cookie.as_bytes());
    }
    line(out, b"cookie", &all);
}

/// Further headers that the client says concern its connection only.
struct Named(Vec<String>);

impl Named {
    fn of(parts: &Parts) -> Self {
        let values = parts.headers.get_all(header::CONNECTION).iter();
        let options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        let is_usual = |option: &[u8]| {
            [&b"close"[..], b"keep-alive", b"upgrade", b"te"].iter().any(|usual| option.eq_ignore_ascii_case(usual))
        };
        let named = options.filter(|option| !option.is_empty() && !is_usual(option));
        Self(named.map(|option| String::from_utf8_lossy(option).to_ascii_lowercase()).collect())
    }

    /// What says who asks, or for what, is passed on whatever Connection says: leaving it out would change the request's meaning.
    fn has(&self, name: &HeaderName) -> bool {
        !self.0.is_empty()
            && !matches!(*name, header::AUTHORIZATION | header::COOKIE | header::CONTENT_TYPE | header::EXPECT)
            && !matches!(name.as_str(), "apikey" | "idempotency-key" | "prefer" | "x-request-id")
            && !name.as_str().starts_with("x-forwarded-")
            && self.0.iter().any(|named| named == name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: Via<'static> = Via { peer: "203.0.113.9", is_trusted: false, is_tls: true, id: "7" };
    const PROXY: Via<'static> = Via { peer: "10.0.0.1", is_trusted: true, is_tls: false, id: "7" };

    fn parts(version: Version, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn written(parts: &Parts, framing: Framing, via: &Via<'_>) -> String {
        let mut out = BytesMut::new();
        write(&mut out, parts, framing, via, wants_websocket(parts));
        String::from_utf8(out.to_vec()).unwrap().replace("\r\n", "\n")
    }

    #[test]
    fn security_h9_a_stranger_does_not_say_who_it_is() {
        let parts = parts(
            Version::HTTP_11,
            "/rest/v1/films?id=eq.1",
            &[
                ("host", "shop.example"),
                ("X-Forwarded-For", "6.6.6.6"),
                ("X-Forwarded-Proto", "https"),
                ("Forwarded", "for=6.6.6.6"),
                ("X-Real-IP", "6.6.6.6"),
                ("X-Request-Id", "forged"),
                ("apikey", "k"),
            ],
        );
        let expected = "GET /rest/v1/films?id=eq.1 HTTP/1.1\nhost: shop.example\napikey: k\nx-forwarded-for: 203.0.113.9\n\
            x-forwarded-proto: https\nx-forwarded-host: shop.example\nx-request-id: 7\n\n";
        assert_eq!(written(&parts, Framing::Empty, &STRANGER), expected);
    }

    #[test]
    fn a_trusted_proxy_says_who_it_is_and_is_added() {
        let parts = parts(
            Version::HTTP_11,
            "/",
            &[
                ("host", "inner"),
                ("x-forwarded-for", "198.51.100.7"),
                ("x-forwarded-for", "10.0.0.9"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "shop.example"),
                ("x-request-id", "theirs"),
            ],
        );
        let expected = "GET / HTTP/1.1\nhost: inner\nx-forwarded-proto: https\nx-forwarded-host: shop.example\nx-request-id: theirs\n\
            x-forwarded-for: 198.51.100.7, 10.0.0.9, 10.0.0.1\n\n";
        assert_eq!(written(&parts, Framing::Empty, &PROXY), expected);
    }

    #[test]
    fn what_concerns_the_clients_connection_ends_here() {
        let parts = parts(
            Version::HTTP_11,
            "/",
            &[
                ("host", "h"),
                ("connection", "keep-alive, X-Hop, Authorization"),
                ("keep-alive", "5"),
                ("x-hop", "1"),
                ("authorization", "Bearer t"),
                ("te", "trailers"),
                ("proxy", "http://evil"),
                ("upgrade", "h2c"),
                ("transfer-encoding", "chunked"),
            ],
        );
        let text = written(&parts, Framing::Chunked, &STRANGER);
        assert!(text.contains("\nauthorization: Bearer t\nte: trailers\nx-forwarded-for"), "{text}");
        assert!(text.ends_with("\ntransfer-encoding: chunked\n\n"), "{text}");
        assert!(!text.contains("hop") && !text.contains("h2c") && !text.contains("evil"), "{text}");
    }

    #[test]
    fn a_length_is_said_as_it_was_understood() {
        let parts = parts(Version::HTTP_11, "/", &[("host", "h"), ("content-length", "0")]);
        assert!(written(&parts, Framing::Empty, &STRANGER).ends_with("\ncontent-length: 0\n\n"));
        assert!(
            written(&parts, Framing::Length(u64::MAX), &STRANGER)
                .ends_with("\ncontent-length: 18446744073709551615\n\n")
        );
    }

    #[test]
    fn a_target_with_an_authority_goes_before_the_header() {
        let parts = parts(Version::HTTP_11, "http://user:secret@shop.example:81/x", &[("host", "other")]);
        let text = written(&parts, Framing::Empty, &STRANGER);
        assert!(text.starts_with("GET /x HTTP/1.1\nhost: shop.example:81\n") && !text.contains("other"), "{text}");
    }

    #[test]
    fn cookies_of_http_2_become_one() {
        let parts = parts(Version::HTTP_2, "https://h/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        let text = written(&parts, Framing::Empty, &STRANGER);
        assert!(text.contains("\ncookie: a=1; b=2\n") && text.matches("cookie").count() == 1, "{text}");
    }

    #[test]
    fn only_websockets_are_upgrades() {
        for (upgrade, connection, expected) in
            [("websocket", "keep-alive, Upgrade", true), ("h2c", "upgrade", false), ("websocket", "keep-alive", false)]
        {
            let parts =
                parts(Version::HTTP_11, "/", &[("host", "h"), ("upgrade", upgrade), ("connection", connection)]);
            assert_eq!(wants_websocket(&parts), expected, "{upgrade} {connection}");
            let said =
                written(&parts, Framing::Empty, &STRANGER).contains("\nconnection: upgrade\nupgrade: websocket\n");
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn security_h4_what_is_said_twice_or_not_understood_is_refused() {
        for (version, target, headers, expected) in [
            (Version::HTTP_11, "/", vec![("host", "h")], Ok(())),
            (Version::HTTP_10, "/", vec![], Ok(())),
            (Version::HTTP_11, "/", vec![], Err(Fault::Host)),
            (Version::HTTP_11, "/", vec![("host", "h"), ("host", "h")], Err(Fault::Host)),
            (Version::HTTP_2, "https://h/", vec![("host", "other")], Err(Fault::Host)),
            (Version::HTTP_2, "https://h/", vec![("host", "H")], Ok(())),
            (Version::HTTP_11, "/", vec![("host", "h"), ("transfer-encoding", "Chunked")], Ok(())),
            (Version::HTTP_11, "/", vec![("host", "h"), ("transfer-encoding", "gzip, chunked")], Err(Fault::Coding)),
            (
                Version::HTTP_11,
                "/",
                vec![("host", "h"), ("transfer-encoding", "chunked"), ("transfer-encoding", "identity")],
                Err(Fault::Coding),
            ),
        ] {
            assert_eq!(check(&parts(version, target, &headers)), expected, "{headers:?}");
        }
    }
}
