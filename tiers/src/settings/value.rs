//! How the text of a setting is read. Each says what it wanted when it cannot.

use std::time::Duration;

use ntier_backing::bus::Servers;
use ntier_node::Log;
use ntier_security::defence::Mode;
use ntier_security::firewall::Pattern;
use ntier_security::network::Network;

use super::Bus;

pub type Read<T> = Result<T, String>;

pub fn boolean(text: &str) -> Read<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(expected("true or false", text)),
    }
}

pub fn count<T: TryFrom<u64>>(text: &str, least: u64) -> Read<T> {
    let number = text.replace('_', "").parse().ok().filter(|number: &u64| *number >= least);
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| expected(&format!("a number from {least}"), text))
}

/// Names between commas.
#[expect(clippy::unnecessary_wraps, reason = "one signature for all readers of values")]
pub fn names(text: &str) -> Read<Vec<String>> {
    Ok(text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
}

/// `250ms`, `8s`, `2min`, `1h`.
pub fn duration(text: &str) -> Read<Duration> {
    let wrong = || expected("a duration such as 250ms, 8s or 2min", text);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let milliseconds = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let milliseconds = number.checked_mul(milliseconds).filter(|total| *total > 0).ok_or_else(wrong)?;
    Ok(Duration::from_millis(milliseconds))
}

/// `10MB`, `512kB`, or a number of bytes.
pub fn bytes(text: &str) -> Read<u64> {
    let wrong = || expected("a size such as 512kB or 10MB", text);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// How nodes hear each other.
pub fn bus(text: &str) -> Read<Bus> {
    match text {
        "local" => Ok(Bus::Local),
        "postgres" => Ok(Bus::Postgres),
        // It may have a password in it.
        _ => Servers::parse(text).map(Bus::Nats).ok_or_else(|| "expected postgres, local or nats://host".to_owned()),
    }
}

/// A subject of NATS, without wildcards.
pub fn subject(text: &str) -> Read<String> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    text.split('.').all(is_name).then(|| text.to_owned()).ok_or_else(|| expected("a subject such as ntier.shop", text))
}

pub fn log(text: &str) -> Read<Log> {
    match text {
        "nothing" => Ok(Log::Nothing),
        "faults" => Ok(Log::Faults),
        "requests" => Ok(Log::Requests),
        _ => Err(expected("nothing, faults or requests", text)),
    }
}

/// A duration, in whole seconds.
pub fn seconds(text: &str) -> Read<i64> {
    let seconds = duration(text)?.as_secs();
    i64::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or_else(|| expected("at least a second", text))
}

/// Likewise, as a token says it.
pub fn whole_seconds(text: &str) -> Read<u32> {
    u32::try_from(seconds(text)?).map_err(|_| expected("a shorter time", text))
}

pub fn networks(text: &str) -> Read<Vec<Network>> {
    let network = |name: &String| name.parse().map_err(|()| expected("an address or a range such as 10.0.0.0/8", name));
    names(text)?.iter().map(network).collect()
}

/// A server without a path, as `http://10.0.0.5:54321`.
pub fn origin(text: &str) -> Read<String> {
    let wrong = || expected("an address such as http://10.0.0.5:54321", text);
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let has_host = uri.host().is_some_and(|host| !host.is_empty())
        && !uri.authority().is_some_and(|who| who.as_str().contains('@'));
    match uri.scheme_str() {
        Some("http" | "https") if is_bare && has_host => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(wrong()),
    }
}

/// Paths with stars.
pub fn patterns(text: &str) -> Read<Vec<Pattern>> {
    let pattern = |name: &String| name.parse().map_err(|()| expected("a path such as /auth/v1/admin/**", name));
    names(text)?.iter().map(pattern).collect()
}

/// What is done about attacks; `None` for nothing.
pub fn defence(text: &str) -> Read<Option<Mode>> {
    match text {
        "on" => Ok(Some(Mode::On)),
        "watch" => Ok(Some(Mode::Watch)),
        "off" => Ok(None),
        _ => Err(expected("on, watch or off", text)),
    }
}

pub fn expected(what: &str, text: &str) -> String {
    format!("expected {what}, found {text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_servers_and_nothing_more() {
        assert_eq!(origin("http://10.0.0.5:54321/").as_deref(), Ok("http://10.0.0.5:54321"));
        assert_eq!(origin("https://node.example").as_deref(), Ok("https://node.example"));
        for wrong in ["10.0.0.5:54321", "ftp://x", "http://", "http://x/path", "http://x?y", "http://user@x", ""] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2min"), Ok(Duration::from_mins(2)));
        assert!(duration("5").is_err() && duration("0s").is_err() && duration("soon").is_err());
        assert_eq!(bytes("10MB"), Ok(10 << 20));
        assert_eq!(bytes("7"), Ok(7));
        assert!(bytes("99999999999GB").is_err());
    }

    #[test]
    fn numbers_have_a_least() {
        assert_eq!(count::<usize>("1_000", 1), Ok(1000));
        assert_eq!(count::<usize>("0", 1), Err("expected a number from 1, found \"0\"".into()));
    }
}
