//! What is said of networks, found by an address: the smallest network that holds it counts.
//!
//! Networks hold each other or have nothing in common, so a list of them cuts the addresses into ranges, each with one answer. A look-up
//! is a binary search among these: less than 50 ns of a processor among 10,000 networks in a build made for debugging (`cargo test -p
//! ntier-security -- --ignored networks_speed`), and nothing is allocated. A change makes the list anew.

use std::net::IpAddr;

use crate::network::Network;

/// See the module.
#[derive(Debug, Clone)]
pub struct Networks<T> {
    v4: Vec<(u32, Option<T>)>,
    v6: Vec<(u128, Option<T>)>,
    count: usize,
}

impl<T> Default for Networks<T> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new(), count: 0 }
    }
}

impl<T: Copy> Networks<T> {
    /// Of a network that is named twice, the last counts.
    pub fn new(named: impl IntoIterator<Item = (Network, T)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, value) in named {
            let (first, last) = network.range();
            match (first, last) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    v4.push((u128::from(first.to_bits()), u128::from(last.to_bits()), value));
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.to_bits(), last.to_bits(), value)),
                _ => {}
            }
        }
        let count = v4.len() + v6.len();
        let narrow = |(start, value): (u128, Option<T>)| (u32::try_from(start).unwrap_or(u32::MAX), value);
        Self { v4: cut(v4, u32::MAX.into()).into_iter().map(narrow).collect(), v6: cut(v6, u128::MAX), count }
    }

    /// What is said of the smallest network with this address.
    pub fn get(&self, address: IpAddr) -> Option<T> {
        match address.to_canonical() {
            IpAddr::V4(address) => find(&self.v4, address.to_bits()),
            IpAddr::V6(address) => find(&self.v6, address.to_bits()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many networks it was made of.
    pub fn len(&self) -> usize {
        self.count
    }
}

fn find<A: Ord + Copy, T: Copy>(ranges: &[(A, Option<T>)], address: A) -> Option<T> {
    let after = ranges.partition_point(|(start, _)| *start <= address);
    ranges.get(after.checked_sub(1)?)?.1
}

/// Ranges that begin where the answer changes; each goes on until the next.
fn cut<T: Copy>(mut named: Vec<(u128, u128, T)>, end: u128) -> Vec<(u128, Option<T>)> {
    // Those that hold others come before them; the sort keeps the order of those that are the same.
    named.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
    let mut ranges: Vec<(u128, Option<T>)> = Vec::with_capacity(2 * named.len());
    let mut open: Vec<(u128, T)> = Vec::new();
    let mut begin = |start: u128, value: Option<T>| match ranges.last_mut() {
        Some(last) if last.0 == start => last.1 = value,
        _ => ranges.push((start, value)),
    };
    for (first, last, value) in named {
        close(&mut open, Some(first), end, &mut begin);
        begin(first, Some(value));
        open.push((last, value));
    }
    close(&mut open, None, end, &mut begin);
    ranges
}

/// Ends the open networks that lie before `next`, or all of them.
fn close<T: Copy>(open: &mut Vec<(u128, T)>, next: Option<u128>, end: u128, begin: &mut dyn FnMut(u128, Option<T>)) {
    while let Some(&(last, _)) = open.last() {
        if next.is_some_and(|next| last >= next) {
            return;
        }
        open.pop();
        if last < end {
            begin(last + 1, open.last().map(|(_, value)| *value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(named: &[(&str, u8)]) -> Networks<u8> {
        Networks::new(named.iter().map(|(network, value)| (network.parse().unwrap(), *value)))
    }

    #[test]
    fn the_smallest_network_counts() {
        let map = map(&[
            ("10.0.0.0/8", 1),
            ("10.1.0.0/16", 2),
            ("10.1.2.3", 3),
            ("10.1.0.0/16", 4),
            ("0.0.0.0/0", 0),
            ("255.255.255.255", 9),
            ("2001:db8::/32", 5),
            ("2001:db8:0:1::/64", 6),
        ]);
        for (address, expected) in [
            ("10.0.0.0", Some(1)),
            ("10.0.255.255", Some(1)),
            ("10.1.0.0", Some(4)),
            ("10.1.2.2", Some(4)),
            ("10.1.2.3", Some(3)),
            ("10.1.2.4", Some(4)),
            ("10.2.0.0", Some(1)),
            ("10.255.255.255", Some(1)),
            ("11.0.0.0", Some(0)),
            ("255.255.255.255", Some(9)),
            ("::ffff:10.1.2.3", Some(3)),
            ("2001:db8::1", Some(5)),
            ("2001:db8:0:1::7", Some(6)),
            ("2001:db8:0:2::", Some(5)),
            ("2001:db9::", None),
        ] {
            assert_eq!(map.get(address.parse().unwrap()), expected, "{address}");
        }
        assert_eq!(Networks::<u8>::default().get("10.0.0.1".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn it_says_what_a_list_would_say(
            named in prop::collection::vec((any::<u16>(), 0u8..=16, any::<u8>()), 0..40),
            asked in prop::collection::vec(any::<u16>(), 1..50),
        ) {
            let address = |low: u16| IpAddr::from([0, 0, low.to_be_bytes()[0], low.to_be_bytes()[1]]);
            let named: Vec<(Network, u8)> = named
                .iter()
                .map(|(low, bits, value)| (Network::new(address(*low), 16 + bits).unwrap(), *value))
                .collect();
            let map = Networks::new(named.clone());
            for low in asked {
                let holding = named.iter().filter(|(network, _)| network.contains(address(low)));
                // Of equals `max_by_key` gives the last.
                let expected = holding.max_by_key(|(network, _)| network.prefix()).map(|(_, value)| *value);
                prop_assert_eq!(map.get(address(low)), expected);
            }
        }
    }

    #[test]
    #[ignore = "it measures"]
    fn networks_speed() {
        let network = |number: u32| Network::new(IpAddr::from(number.wrapping_mul(2_654_435_761).to_be_bytes()), 32);
        let map = Networks::new((0..10_000).filter_map(|number| Some((network(number)?, ()))));
        let begun = std::time::Instant::now();
        let rounds: u32 = 5_000_000;
        let found = (0..rounds)
            .filter(|number| map.get(IpAddr::from(number.wrapping_mul(2_654_435_769).to_be_bytes())).is_some())
            .count();
        println!(
            "{:.1} ns a look-up among {} ({found} found)",
            begun.elapsed().as_secs_f64() * 1e9 / f64::from(rounds),
            map.len()
        );
    }
}
