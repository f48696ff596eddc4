//! The `Prefer` header: RFC 7240 as PostgREST reads it. The first of several values for one preference wins.

use super::request::{Count, Handling, Missing, Preferences, Resolution, Return, TransactionEnd};

/// Reads all `Prefer` headers of a request, in order.
pub fn preferences<'a>(headers: impl Iterator<Item = &'a str>) -> Preferences {
    let mut preferences = Preferences::default();
    for one in headers.flat_map(|header| header.split(',')).map(str::trim) {
        if !note(&mut preferences, one) {
            preferences.invalid.push(one.to_owned());
        }
    }
    preferences
}

fn note(preferences: &mut Preferences, one: &str) -> bool {
    fn first<T>(slot: &mut Option<T>, value: T) {
        slot.get_or_insert(value);
    }
    match one {
        "resolution=merge-duplicates" => first(&mut preferences.resolution, Resolution::MergeDuplicates),
        "resolution=ignore-duplicates" => first(&mut preferences.resolution, Resolution::IgnoreDuplicates),
        "return=representation" => first(&mut preferences.representation, Return::Representation),
        "return=headers-only" => first(&mut preferences.representation, Return::HeadersOnly),
        "return=minimal" => first(&mut preferences.representation, Return::Minimal),
        "count=exact" => first(&mut preferences.count, Count::Exact),
        "count=planned" => first(&mut preferences.count, Count::Planned),
        "count=estimated" => first(&mut preferences.count, Count::Estimated),
        "tx=commit" => first(&mut preferences.transaction, TransactionEnd::Commit),
        "tx=rollback" => first(&mut preferences.transaction, TransactionEnd::Rollback),
        "missing=default" => first(&mut preferences.missing, Missing::Default),
        "missing=null" => first(&mut preferences.missing, Missing::Null),
        "handling=strict" => first(&mut preferences.handling, Handling::Strict),
        "handling=lenient" => first(&mut preferences.handling, Handling::Lenient),
        _ => {
            if let Some(zone) = one.strip_prefix("timezone=") {
                first(&mut preferences.timezone, zone.to_owned());
            } else if let Some(number) = one.strip_prefix("max-affected=") {
                // Not a number is no limit, as the reference has it.
                if preferences.max_affected.is_none() {
                    preferences.max_affected = number.parse().ok();
                }
            } else {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_come_from_several_headers_in_any_order() {
        let read = preferences(["return=minimal, count=exact", "tx=rollback,return=representation"].into_iter());
        assert_eq!(read.representation, Some(Return::Minimal));
        assert_eq!((read.count, read.transaction), (Some(Count::Exact), Some(TransactionEnd::Rollback)));
        assert!(read.invalid.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let read = preferences(["handling=strict, anything, timezone=Europe/Berlin, max-affected=10"].into_iter());
        assert_eq!(read.invalid, ["anything"]);
        assert_eq!((read.timezone.as_deref(), read.max_affected), (Some("Europe/Berlin"), Some(10)));
    }
}
