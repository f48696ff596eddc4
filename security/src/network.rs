//! Networks, and whose address a request has when proxies stand in front.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use http::{HeaderMap, HeaderValue};

/// An address, or a range of them in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of this address whose first `prefix` bits are its own; `None` where an address has fewer.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = address.to_canonical();
        (prefix <= width(address)).then_some(Self { address, prefix })
    }

    /// What counts as one when requests are counted, and what is banned together: an IPv4 address, but of IPv6 a /64, as whoever has one
    /// of its addresses has them all.
    pub fn of_client(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() || address.is_loopback() { width(address) } else { 64 };
        let network = Self { address, prefix };
        Self { address: network.range().0, prefix }
    }

    /// How many bits are its own.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Its first address and its last.
    pub fn range(&self) -> (IpAddr, IpAddr) {
        let host = u32::from(width(self.address) - self.prefix);
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(host).unwrap_or(0);
                let first = address.to_bits() & mask;
                (Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(first | !mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(host).unwrap_or(0);
                let first = address.to_bits() & mask;
                (Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(first | !mask).into())
            }
        }
    }

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

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.range().0;
        if self.prefix == width(first) { write!(out, "{first}") } else { write!(out, "{first}/{}", self.prefix) }
    }
}

/// Bits of an address of this kind.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.trim().parse().map_err(drop)?;
        let prefix = prefix.map_or(Ok(width(address)), |prefix| prefix.trim().parse().map_err(drop))?;
        if prefix > width(address) { Err(()) } else { Ok(Self { address, prefix }) }
    }
}

/// The client's address: the peer's, unless that is a proxy we trust. Then `X-Forwarded-For` is read from the right, where each proxy has
/// added whom it saw, up to the first that is not trusted. What stands left of it anybody may have written, and no hop but those that
/// are asked for is looked at: whatever bytes are in them. The walk ends at a hop that is no address; the client is then whoever has
/// said it, which is a trusted proxy that writes nonsense.
fn client<'a>(peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a [u8]>, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    for hop in forwarded.rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        if !is_trusted(client) {
            break;
        }
        let Some(address) = hop_address(hop) else { break };
        client = address;
    }
    client
}

/// Whom a proxy has seen. Some say the port too: `203.0.113.7:4711`, `[2001:db8::1]:4711`.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse().ok().map(|place: SocketAddr| place.ip()))?;
    Some(address.to_canonical())
}

/// Likewise, by the headers of a request.
pub fn client_of(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let forwarded = headers.get_all("x-forwarded-for").iter();
    client(peer, forwarded.map(HeaderValue::as_bytes), trusted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

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

    #[test]
    fn networks_are_written_as_they_are_read() {
        for (text, expected) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::7/32", "2001:db8::/32"),
            ("::1", "::1"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), expected);
        }
        for (address, expected) in [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::1", "::1"),
        ] {
            assert_eq!(Network::of_client(address.parse().unwrap()).to_string(), expected);
        }
    }

    #[test]
    fn security_a5_only_trusted_proxies_say_whose_address_it_is() {
        let trusted: Vec<Network> = ["10.0.0.0/8", "::1"].map(|text| text.parse().unwrap()).to_vec();
        for (peer, forwarded, expected) in [
            ("203.0.113.9", vec!["1.2.3.4"], "203.0.113.9"),
            ("10.0.0.1", vec!["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["6.6.6.6, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", vec!["6.6.6.6", "198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", vec!["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", vec!["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", vec!["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", vec!["6.6.6.6, 198.51.100.7:4711, [::ffff:10.0.0.2]:80"], "198.51.100.7"),
            // Whatever the client has written, the proxy appends.
            ("10.0.0.1", vec!["\u{e4}, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["\u{e4}", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["198.51.100.7, 10.0.0.2, nonsense"], "10.0.0.1"),
            ("10.0.0.1", vec!["nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", vec![], "10.0.0.1"),
        ] {
            let forwarded = forwarded.iter().map(|line| HeaderValue::from_bytes(line.as_bytes()).unwrap());
            let headers = forwarded.map(|line| (HeaderName::from_static("x-forwarded-for"), line)).collect();
            let found = client_of(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
        }
    }
}
