//! What processes tell each other, as lines of words: `u KIND ID AMOUNT` for requests that were let through, `p KIND ID EVENT POINTS`.

use std::fmt::Write as _;

use crate::bounded::Key;
use crate::intrusion::{Event, Points};
use crate::rates::Used;

/// `None` where there is nothing to say.
pub fn write(used: &[Used], points: &[Points]) -> Option<String> {
    let mut out = String::new();
    for Used { key, amount } in used {
        let _ = writeln!(out, "u {} {:x} {amount}", key.kind, key.id);
    }
    for Points { key, event, points } in points {
        let _ = writeln!(out, "p {} {:x} {} {points:.3}", key.kind, key.id, event.name());
    }
    (!out.is_empty()).then_some(out)
}

/// Lines that are none are passed over.
pub fn read(text: &str) -> (Vec<Used>, Vec<Points>) {
    let (mut all, mut points) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["u", kind, id, amount] => {
                all.extend(key(kind, id).zip(amount.parse().ok()).map(|(key, amount)| Used { key, amount }));
            }
            ["p", kind, id, event, amount] => {
                let Some(((key, event), amount)) = key(kind, id).zip(Event::named(event)).zip(amount.parse().ok())
                else {
                    continue;
                };
                points.push(Points { key, event, points: amount });
            }
            _ => {}
        }
    }
    (all, points)
}

fn key(kind: &str, id: &str) -> Option<Key> {
    Some(Key { kind: kind.parse().ok()?, id: u128::from_str_radix(id, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            used in prop::collection::vec((any::<u8>(), any::<u128>(), 1u32..1000), 0..20),
            points in prop::collection::vec((any::<u8>(), any::<u128>(), 0..Event::ALL.len(), -100i32..100), 0..20),
        ) {
            let used: Vec<Used> = used
                .into_iter()
                .map(|(kind, id, amount)| Used { key: Key { kind, id }, amount: f64::from(amount) })
                .collect();
            let points: Vec<Points> = points
                .into_iter()
                .map(|(kind, id, event, points)| Points {
                    key: Key { kind, id },
                    event: Event::ALL[event],
                    points: f64::from(points) / 4.0,
                })
                .collect();
            let text = write(&used, &points).unwrap_or_default();
            prop_assert_eq!(read(&text), (used, points));
        }

        #[test]
        fn nonsense_is_passed_over(text in "([up] [0-9a-z ]{0,20}\n?)*") {
            let _ = read(&text);
        }
    }
}
