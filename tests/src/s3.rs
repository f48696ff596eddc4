//! A client of S3 that signs by hand: presigned URLs, for every method (Amazon S3 API Reference, "Authenticating Requests: Using Query
//! Parameters"). What real clients do beyond that is tried by `tests/clients/s3.py`.

use aws_lc_rs::{digest, hmac};

/// Who signs.
#[derive(Debug, Clone)]
pub struct Signer {
    pub access_key: String,
    pub secret: String,
    pub session_token: Option<String>,
    /// When, in seconds since 1970.
    pub at: i64,
    /// For how many seconds.
    pub expires: u32,
}

impl Signer {
    /// The path and query of a request that is signed: `line` is such as `GET /bucket/key?list-type=2`, encoded.
    ///
    /// # Panics
    /// When the line has no method.
    pub fn sign(&self, host: &str, line: &str) -> String {
        let (method, target) = line.split_once(' ').expect("a method and a path");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = format!("/storage/v1/s3{path}");
        let time = date(self.at);
        let scope = format!("{}/us-east-1/s3/aws4_request", &time[..8]);
        let mut pairs: Vec<String> = query.split('&').filter(|pair| !pair.is_empty()).map(with_value).collect();
        pairs.extend([
            "X-Amz-Algorithm=AWS4-HMAC-SHA256".to_owned(),
            format!("X-Amz-Credential={}", encoded(&format!("{}/{scope}", self.access_key))),
            format!("X-Amz-Date={time}"),
            format!("X-Amz-Expires={}", self.expires),
            "X-Amz-SignedHeaders=host".to_owned(),
        ]);
        pairs.extend(self.session_token.iter().map(|token| format!("X-Amz-Security-Token={}", encoded(token))));
        pairs.sort();
        let query = pairs.join("&");
        let request = format!("{method}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
        let hash = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for step in [&time[..8], "us-east-1", "s3", "aws4_request"] {
            key = mac(&key, step);
        }
        let signature = hex(&mac(&key, &format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}")));
        format!("{path}?{query}&X-Amz-Signature={signature}")
    }
}

fn with_value(pair: &str) -> String {
    if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// `20130524T000000Z`. Source: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn date(at: i64) -> String {
    let (days, second) = (at.div_euclid(86_400) + 719_468, at.rem_euclid(86_400));
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (day, hour) = (of_year - (153 * shifted + 2) / 5 + 1, second / 3600);
    format!("{year:04}{month:02}{day:02}T{hour:02}{:02}{:02}Z", second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_amazons() {
        for (at, expected) in
            [(0, "19700101T000000Z"), (1_369_353_600, "20130524T000000Z"), (1_709_251_199, "20240229T235959Z")]
        {
            assert_eq!(date(at), expected);
        }
    }
}
