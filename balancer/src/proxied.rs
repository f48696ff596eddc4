//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): what a proxy that passes bytes says of its client, before
//! everything else. Pure; only declared proxies are asked for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// A line of version 1 is no longer.
const LINE: usize = 107;
/// What version 2 may add: our clients' proxies say little.
const MOST: usize = 2048;

/// What is no such head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a declared proxy does not speak the PROXY protocol")]
pub struct Fault;

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Bytes that it took.
    pub length: usize,
    /// Whose connection it is; `None` where it is the proxy's own.
    pub source: Option<IpAddr>,
}

/// Reads what stands at the front; `None` until it is whole.
pub fn parse(bytes: &[u8]) -> Result<Option<Said>, Fault> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        return if common < SIGNATURE.len() { Ok(None) } else { second(bytes) };
    }
    first(bytes)
}

fn first(bytes: &[u8]) -> Result<Option<Said>, Fault> {
    let common = bytes.len().min(6);
    if bytes[..common] != b"PROXY "[..common] {
        return Err(Fault);
    }
    let Some(end) = bytes.iter().take(LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE { Ok(None) } else { Err(Fault) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Fault)?;
    let words: Vec<&str> = std::str::from_utf8(line).map_err(|_| Fault)?.split(' ').collect();
    let source = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", source, target, port, target_port] => {
            target.parse::<Ipv4Addr>().map_err(|_| Fault)?;
            are_ports(port, target_port)?;
            Some(IpAddr::V4(source.parse().map_err(|_| Fault)?))
        }
        ["PROXY", "TCP6", source, target, port, target_port] => {
            target.parse::<Ipv6Addr>().map_err(|_| Fault)?;
            are_ports(port, target_port)?;
            Some(IpAddr::V6(source.parse().map_err(|_| Fault)?))
        }
        _ => return Err(Fault),
    };
    Ok(Some(Said { length: end + 1, source }))
}

fn are_ports(one: &str, other: &str) -> Result<(), Fault> {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    if is_port(one) && is_port(other) { Ok(()) } else { Err(Fault) }
}

fn second(bytes: &[u8]) -> Result<Option<Said>, Fault> {
    let Some([command, family, high, low]) = bytes.get(12..16) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if command >> 4 != 2 || length > MOST {
        return Err(Fault);
    }
    let Some(rest) = bytes.get(16..16 + length) else { return Ok(None) };
    let source = match (command & 15, family >> 4) {
        (0, _) | (1, 0 | 3) => None,
        (1, 1) => {
            let address: [u8; 4] =
                rest.get(..4).filter(|_| length >= 12).ok_or(Fault)?.try_into().map_err(|_| Fault)?;
            Some(IpAddr::from(address))
        }
        (1, 2) => {
            let address: [u8; 16] =
                rest.get(..16).filter(|_| length >= 36).ok_or(Fault)?.try_into().map_err(|_| Fault)?;
            Some(IpAddr::from(address))
        }
        _ => return Err(Fault),
    };
    Ok(Some(Said { length: 16 + length, source }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second_version(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    #[test]
    fn a_proxy_says_whose_connection_it_is() {
        let four = [198, 51, 100, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
        let six = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 20]].concat();
        let source = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let cases = [
            (b"PROXY TCP4 198.51.100.7 10.0.0.1 4000 80\r\n".to_vec(), Ok(source("198.51.100.7"))),
            (b"PROXY TCP6 2001:db8::1 ::1 4000 80\r\n".to_vec(), Ok(source("2001:db8::1"))),
            (b"PROXY UNKNOWN\r\n".to_vec(), Ok(None)),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Ok(None)),
            (b"PROXY TCP4 ::1 10.0.0.1 4000 80\r\n".to_vec(), Err(Fault)),
            (b"PROXY TCP4 198.51.100.7 10.0.0.1 4000\r\n".to_vec(), Err(Fault)),
            (b"PROXY TCP4 198.51.100.7 10.0.0.1 4000 80000\r\n".to_vec(), Err(Fault)),
            (b"PROXY TCP4 198.51.100.7 10.0.0.1 4000 80\n".to_vec(), Err(Fault)),
            (b"GET / HTTP/1.1\r\n".to_vec(), Err(Fault)),
            ([b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(), Err(Fault)),
            (second_version(0x21, 0x11, &four), Ok(source("198.51.100.7"))),
            (second_version(0x21, 0x21, &six), Ok(source("::1"))),
            // Health checks of the proxy itself.
            (second_version(0x20, 0, &[]), Ok(None)),
            (second_version(0x21, 0x11, &four[..8]), Err(Fault)),
            (second_version(0x31, 0x11, &four), Err(Fault)),
            (second_version(0x21, 0x11, &[0; 3000]), Err(Fault)),
        ];
        for (bytes, expected) in cases {
            let said = |found: Option<Said>| {
                let found = found.unwrap();
                assert_eq!(found.length, bytes.len());
                found.source
            };
            assert_eq!(parse(&bytes).map(said), expected, "{:?}", String::from_utf8_lossy(&bytes));
            if expected.is_ok() {
                for cut in 0..bytes.len() {
                    assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
                }
                let more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
                assert_eq!(parse(&more).unwrap().unwrap().length, bytes.len());
            }
        }
    }
}
