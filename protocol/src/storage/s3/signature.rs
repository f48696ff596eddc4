//! Signature Version 4: who signed a request, and whether they did. Whose secret that is, is not known here.
//!
//! Source: Amazon S3 API Reference, "Signature Calculations for the Authorization Header", "Using Query Parameters" and
//! "Transferring Payload in Multiple Chunks".

use aws_lc_rs::{constant_time, digest, hmac};

use super::encoding;
use super::instant;
use super::{Code, Error, Parts};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Seconds by which the clocks of a client may differ from ours.
const SKEW: i64 = 15 * 60;

/// Seconds that a presigned URL may live at most: a week.
const LONGEST: i64 = 7 * 24 * 3600;

/// What a request says of its signature. Nothing of it is known to be true before [`Signed::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub access_key: String,
    /// Supabase: the user's JWT, with which the project's name is the access key and the anon key the secret.
    pub session_token: Option<String>,
    pub payload: Payload,
    /// As the canonical request has it.
    payload_text: String,
    /// `20130524T000000Z`
    date: String,
    at: i64,
    scope: Scope,
    /// Names of those that were signed, in lower case.
    headers: Vec<String>,
    value: String,
    /// Seconds, where it is a presigned URL.
    expires: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    day: String,
    region: String,
    service: String,
}

/// How the body is covered by the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Unsigned,
    /// Its SHA-256.
    Whole([u8; 32]),
    Chunked {
        /// Each chunk has a signature.
        signed: bool,
        /// Headers come behind the last chunk.
        trailer: bool,
    },
}

/// Reads a signature, from the header or else from the query. A header of another kind counts for nothing beside a presigned URL.
pub fn read(parts: &Parts<'_>) -> Result<Signed, Error> {
    match parts.header("authorization").and_then(|header| header.strip_prefix(ALGORITHM)) {
        Some(header) if header.starts_with(' ') => in_header(parts, header),
        _ => in_query(parts),
    }
}

fn in_header(parts: &Parts<'_>, header: &str) -> Result<Signed, Error> {
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for field in header.split(',') {
        match field.trim().split_once('=') {
            Some(("Credential", value)) => credential = Some(value),
            Some(("SignedHeaders", value)) => signed_headers = Some(value),
            Some(("Signature", value)) => signature = Some(value),
            _ => return Err(malformed()),
        }
    }
    let date = parts.header("x-amz-date");
    let (Some(credential), Some(signed_headers), Some(signature), Some(date)) =
        (credential, signed_headers, signature, date)
    else {
        return Err(malformed());
    };
    let payload_text = parts.header("x-amz-content-sha256").unwrap_or(match parts.method {
        "GET" | "HEAD" | "DELETE" => EMPTY,
        _ => "UNSIGNED-PAYLOAD",
    });
    let session_token = parts.header("x-amz-security-token").map(str::to_owned);
    signed(Fields { credential, signed_headers, signature, date, payload_text, session_token, expires: None })
}

fn in_query(parts: &Parts<'_>) -> Result<Signed, Error> {
    const NAMES: [&str; 8] = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Security-Token",
        "X-Amz-Content-Sha256",
    ];
    let mut found: [Option<String>; 8] = Default::default();
    for (name, value) in encoding::pairs(parts.query) {
        if let Some(at) = NAMES.iter().position(|known| known.as_bytes() == name) {
            let value = String::from_utf8(value).map_err(|_| malformed())?;
            // Two of one kind: nobody can say which of them was meant.
            if found[at].replace(value).is_some() {
                return Err(malformed());
            }
        }
    }
    let [algorithm, credential, signed_headers, signature, date, expires, session_token, sha256] = found;
    let Some(credential) = credential else {
        return Err(Error::new(Code::AccessDenied, "Missing signature"));
    };
    let (Some(signed_headers), Some(signature), Some(date), Some(expires)) = (signed_headers, signature, date, expires)
    else {
        return Err(malformed());
    };
    let expires = expires.parse().ok().filter(|expires| (1..=LONGEST).contains(expires));
    if algorithm.as_deref() != Some(ALGORITHM) || expires.is_none() {
        return Err(Error::new(Code::InvalidSignature, "Invalid algorithm or expiration"));
    }
    let payload_text = sha256.as_deref().or_else(|| parts.header("x-amz-content-sha256")).unwrap_or("UNSIGNED-PAYLOAD");
    signed(Fields {
        credential: &credential,
        signed_headers: &signed_headers,
        signature: &signature,
        date: &date,
        payload_text,
        session_token,
        expires,
    })
}

struct Fields<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    date: &'a str,
    payload_text: &'a str,
    session_token: Option<String>,
    expires: Option<i64>,
}

fn signed(fields: Fields<'_>) -> Result<Signed, Error> {
    // From the right: an access key may have slashes.
    let mut credential = fields.credential.rsplitn(5, '/');
    let mut next = || credential.next().ok_or_else(malformed);
    let (end, service, region, day, access_key) = (next()?, next()?, next()?, next()?, next()?);
    let at = instant::seconds(fields.date).ok_or_else(malformed)?;
    let hex = fields.signature.len() == 64 && fields.signature.bytes().all(|byte| byte.is_ascii_hexdigit());
    if end != "aws4_request" || !fields.date.starts_with(day) || day.len() != 8 || access_key.is_empty() || !hex {
        return Err(malformed());
    }
    Ok(Signed {
        access_key: access_key.to_owned(),
        session_token: fields.session_token.filter(|token| !token.is_empty()),
        payload: payload(fields.payload_text)?,
        payload_text: fields.payload_text.to_owned(),
        date: fields.date.to_owned(),
        at,
        scope: Scope { day: day.to_owned(), region: region.to_owned(), service: service.to_owned() },
        headers: fields.signed_headers.split(';').map(str::to_ascii_lowercase).collect(),
        value: fields.signature.to_ascii_lowercase(),
        expires: fields.expires,
    })
}

fn payload(text: &str) -> Result<Payload, Error> {
    Ok(match text {
        "UNSIGNED-PAYLOAD" => Payload::Unsigned,
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Payload::Chunked { signed: true, trailer: false },
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Payload::Chunked { signed: true, trailer: true },
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Payload::Chunked { signed: false, trailer: true },
        text => match unhex(text) {
            Some(hash) => Payload::Whole(hash),
            None => return Err(Error::new(Code::InvalidRequest, "x-amz-content-sha256 is not supported")),
        },
    })
}

impl Signed {
    /// Whether the holder of this secret signed this request, and not too long ago. `now` is in seconds since 1970.
    ///
    /// The region may be any: it is a part of what is signed, and we are in none.
    pub fn verify(&self, parts: &Parts<'_>, secret: &str, now: i64) -> Result<Chain, Error> {
        self.in_time(now)?;
        self.covers(parts)?;
        if self.scope.service != "s3" {
            return Err(Error::new(Code::AccessDenied, "Invalid Service"));
        }
        let chain = self.chain(secret);
        if Self::paths(parts).iter().any(|path| self.signature_holds(parts, path, &chain)) {
            return Ok(chain);
        }
        Err(Code::SignatureDoesNotMatch.into())
    }

    fn in_time(&self, now: i64) -> Result<(), Error> {
        let Some(expires) = self.expires else {
            return if (self.at - now).abs() > SKEW { Err(Code::RequestTimeTooSkewed.into()) } else { Ok(()) };
        };
        if self.at > now + SKEW {
            return Err(Error::new(Code::AccessDenied, "Request is not yet valid"));
        }
        if now > self.at + expires { Err(Code::ExpiredToken.into()) } else { Ok(()) }
    }

    /// Whoever has a presigned URL must not be able to say more with it than its maker did: `x-amz-copy-source`, for one.
    fn covers(&self, parts: &Parts<'_>) -> Result<(), Error> {
        let signed = |name: &str| self.headers.iter().any(|signed| signed == name);
        // Its value is in the canonical request whether or not it is among the signed headers.
        let matters = |name: &str| name == "host" || name.starts_with("x-amz-") && name != "x-amz-content-sha256";
        match parts.headers.iter().find(|(name, _)| matters(name) && !signed(name)) {
            None if signed("host") => Ok(()),
            None => Err(Error::new(Code::AccessDenied, "The host header was not signed")),
            Some((name, _)) => Err(Error::new(Code::AccessDenied, format!("{name} was not signed"))),
        }
    }

    /// As Amazon has it, and as it was sent: some clients sign the one where it differs from the other.
    fn paths(parts: &Parts<'_>) -> Vec<String> {
        let canonical = encoding::path(&encoding::decoded(parts.path));
        let mut paths = vec![canonical];
        if paths[0] != parts.path {
            paths.push(parts.path.to_owned());
        }
        paths
    }

    fn signature_holds(&self, parts: &Parts<'_>, path: &str, chain: &Chain) -> bool {
        let canonical = self.canonical_request(parts, path);
        let expected = chain.sign(&format!("{ALGORITHM}\n{}\n{}", chain.stamp, sha256_hex(canonical.as_bytes())));
        constant_time::verify_slices_are_equal(expected.as_bytes(), self.value.as_bytes()).is_ok()
    }

    fn canonical_request(&self, parts: &Parts<'_>, path: &str) -> String {
        let mut text = format!("{}\n{path}\n{}\n", parts.method, canonical_query(parts.query));
        for name in &self.headers {
            let values: Vec<String> =
                parts.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| folded(value)).collect();
            text.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        text.push_str(&format!("\n{}\n{}", self.headers.join(";"), self.payload_text));
        text
    }

    /// What the chunks' signatures continue, whether or not this one holds.
    pub fn chain(&self, secret: &str) -> Chain {
        let Scope { day, region, service } = &self.scope;
        let of_day = mac(format!("AWS4{secret}").as_bytes(), day);
        let of_region = mac(of_day.as_ref(), region);
        let of_service = mac(of_region.as_ref(), service);
        let key = mac(of_service.as_ref(), "aws4_request");
        Chain {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
            stamp: format!("{}\n{day}/{region}/{service}/aws4_request", self.date),
            previous: self.value.clone(),
        }
    }
}

/// What the signatures of chunks continue: each covers the one before it.
#[derive(Debug, Clone)]
pub struct Chain {
    key: hmac::Key,
    /// Date and scope.
    stamp: String,
    previous: String,
}

impl Chain {
    /// Whether this is the signature of the next chunk; `hash` is the chunk's.
    pub(super) fn chunk(&mut self, hash: &[u8], signature: &str) -> Result<(), Error> {
        let rest = format!("{}\n{}\n{EMPTY}\n{}", self.stamp, self.previous, hex(hash));
        self.next(&format!("AWS4-HMAC-SHA256-PAYLOAD\n{rest}"), signature)
    }

    /// Whether this is the signature of the headers behind the body: lines of name, colon, value.
    pub(super) fn trailer(&mut self, lines: &str, signature: &str) -> Result<(), Error> {
        let rest = format!("{}\n{}\n{}", self.stamp, self.previous, sha256_hex(lines.as_bytes()));
        self.next(&format!("AWS4-HMAC-SHA256-TRAILER\n{rest}"), signature)
    }

    fn next(&mut self, text: &str, signature: &str) -> Result<(), Error> {
        let expected = self.sign(text);
        let given = signature.to_ascii_lowercase();
        if constant_time::verify_slices_are_equal(expected.as_bytes(), given.as_bytes()).is_err() {
            return Err(Code::SignatureDoesNotMatch.into());
        }
        self.previous = expected;
        Ok(())
    }

    fn sign(&self, text: &str) -> String {
        hex(hmac::sign(&self.key, text.as_bytes()).as_ref())
    }
}

/// All pairs but the signature itself, encoded Amazon's way and sorted.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = encoding::pairs(query)
        .filter(|(name, _)| name != b"X-Amz-Signature")
        .map(|(name, value)| (encoding::query(&name), encoding::query(&value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Without blanks around it, and one where there were several.
fn folded(value: &str) -> String {
    value.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn malformed() -> Error {
    Error::new(Code::InvalidSignature, "Invalid signature format")
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> = text.chars().map(|character| character.to_digit(16)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests;
