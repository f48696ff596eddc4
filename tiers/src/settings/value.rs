//! How the text of a setting is read. Each says what it wanted when it cannot.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ntier_node::Log;

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

pub fn log(text: &str) -> Read<Log> {
    match text {
        "faults" => Ok(Log::Faults),
        "requests" => Ok(Log::Requests),
        _ => Err(expected("faults or requests", text)),
    }
}

/// An address, or a range of them in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    pub fn contains(&self, other: IpAddr) -> bool {
        let other = other.to_canonical();
        let (one, other, width) = match (self.address, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => (u128::from(one.to_bits()), u128::from(other.to_bits()), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let host = u32::from(width - self.prefix);
        one.checked_shr(host).unwrap_or(0) == other.checked_shr(host).unwrap_or(0)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || expected("an address or a range such as 10.0.0.0/8", text);
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), |prefix| prefix.trim().parse().map_err(|_| wrong()))?;
        if prefix > width { Err(wrong()) } else { Ok(Self { address, prefix }) }
    }
}

pub fn networks(text: &str) -> Read<Vec<Network>> {
    names(text)?.iter().map(|name| name.parse()).collect()
}

pub fn expected(what: &str, text: &str) -> String {
    format!("expected {what}, found {text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn networks_hold_addresses() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.200.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        }
        assert!("10.0.0.0/33".parse::<Network>().is_err() && "here".parse::<Network>().is_err());
    }
}
