//! The `Range` header (RFC 9110, 14.2).

use std::ops::Range;

/// More are not worth the trouble: whoever asks for so many gets the whole (RFC 9110, 14.2, lets a server do so).
const MOST: usize = 16;

/// What of a file is to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The whole: nothing is asked, or nothing that is understood.
    Whole,
    /// In the order in which they were asked, none empty, none beyond the file.
    Parts(Vec<Range<u64>>),
    /// None of what was asked is there.
    Unsatisfiable,
}

/// Reads the header for a file of this size in bytes.
pub fn parse(header: Option<&str>, size: u64) -> Wanted {
    let Some(list) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let mut parts = Vec::new();
    let mut asked = 0;
    for spec in list.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        asked += 1;
        match one(spec, size) {
            Some(part) => parts.extend(part),
            None => return Wanted::Whole,
        }
    }
    let total: u64 = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.end - part.start));
    match parts.len() {
        _ if asked == 0 || asked > MOST => Wanted::Whole,
        0 => Wanted::Unsatisfiable,
        // Overlapping ranges would make more of a file than there is.
        2.. if total > size => Wanted::Whole,
        _ => Wanted::Parts(parts),
    }
}

/// `None` is not understood, `Some(None)` lies beyond the file.
fn one(spec: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More than fits is more than there is.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => size.saturating_sub(number(suffix)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some((range.start < range.end).then_some(range))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        let parts = |list: &[(u64, u64)]| Wanted::Parts(list.iter().map(|(from, to)| *from..*to).collect());
        for (header, expected) in [
            ("bytes=0-4", parts(&[(0, 5)])),
            ("bytes=5-", parts(&[(5, 10)])),
            ("bytes=-3", parts(&[(7, 10)])),
            ("bytes=-30", parts(&[(0, 10)])),
            ("bytes=0-99", parts(&[(0, 10)])),
            ("bytes=9-99999999999999999999999", parts(&[(9, 10)])),
            ("bytes=0-0, 2-3,-1", parts(&[(0, 1), (2, 4), (9, 10)])),
            ("bytes=0-0,50-60", parts(&[(0, 1)])),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=3-2", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=0-4", Wanted::Whole),
            ("bytes=0-9,0-9", Wanted::Whole),
            ("bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", Wanted::Whole),
        ] {
            assert_eq!(parse(Some(header), 10), expected, "{header}");
        }
        assert_eq!(parse(None, 10), Wanted::Whole);
        assert_eq!(parse(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_file(header in "bytes=[0-9, -]{0,30}", size in 0_u64..100) {
            if let Wanted::Parts(parts) = parse(Some(&header), size) {
                prop_assert!(!parts.is_empty());
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
            }
        }
    }
}
