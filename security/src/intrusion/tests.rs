//! What the scores say of attackers, of users who err, and of many behind one address.

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(begun: Instant, seconds: f64) -> Instant {
    begun + Duration::from_secs_f64(seconds)
}

/// One that has seen nothing.
struct Watch {
    scores: Scores,
    policy: Policy,
    begun: Instant,
}

impl Watch {
    fn new() -> Self {
        Self { scores: Scores::new(4096), policy: Policy::default(), begun: Instant::now() }
    }

    fn note(&self, event: Event, from: &str, account: Option<&str>, seconds: f64) -> Standing {
        self.scores.note(event, address(from), account, &self.policy, at(self.begun, seconds)).standing
    }

    fn standing(&self, from: &str, seconds: f64) -> Standing {
        self.scores.standing(address(from), &self.policy, at(self.begun, seconds)).standing
    }

    /// How often it takes until it is banned, so many times a second; `None` where it never is.
    fn until_banned(&self, event: Event, a_second: f64) -> Option<u32> {
        (1..10_000)
            .find(|number| self.note(event, "203.0.113.7", None, f64::from(*number) / a_second) == Standing::Banned)
    }
}

#[test]
fn who_guesses_is_banned_soon_and_who_mistypes_is_not() {
    let watch = Watch::new();
    for number in 0..5 {
        let stands = watch.note(Event::WrongPassword, "198.51.100.1", Some("ada@example.com"), f64::from(number) * 5.0);
        assert_eq!(stands, Standing::Clear);
    }
    assert_eq!(Watch::new().until_banned(Event::WrongPassword, 10.0), Some(21));
    // Somebody who tries once in a minute, the whole day, is banned as well.
    assert!(Watch::new().until_banned(Event::WrongPassword, 1.0 / 30.0).is_some());
    assert_eq!(Watch::new().until_banned(Event::WrongPassword, 1.0 / 120.0), None, "and one every two minutes is not");
}

#[test]
fn each_event_alone_has_its_end() {
    for (event, a_second, expected) in [
        (Event::WrongCode, 10.0, Some(21)),
        (Event::ScannerPath, 10.0, Some(7)),
        (Event::Injection, 10.0, Some(11)),
        (Event::Malformed, 10.0, Some(11)),
        // These alone never ban.
        (Event::TooLarge, 10.0, None),
        (Event::Limited, 100.0, None),
        (Event::ReusedToken, 10.0, None),
        (Event::WrongKey, 10.0, None),
        (Event::Denied, 10.0, None),
        (Event::NotFound, 100.0, None),
        (Event::Refused, 100.0, None),
        (Event::TooSlow, 10.0, None),
        (Event::Crowded, 100.0, None),
    ] {
        let banned = Watch::new().until_banned(event, a_second);
        assert!(
            match (banned, expected) {
                (Some(banned), Some(expected)) => banned.abs_diff(expected) <= 1,
                (banned, expected) => banned == expected,
            },
            "{event:?}: {banned:?}, expected {expected:?}"
        );
    }
}

#[test]
fn a_client_that_is_denied_much_is_not_even_slowed_down() {
    let watch = Watch::new();
    for number in 0..5000 {
        assert_eq!(watch.note(Event::Denied, "203.0.113.7", None, f64::from(number) * 0.1), Standing::Clear);
    }
    // One with every fault that a client may have, at everybody's of a house, is slowed down at most.
    for number in 0..5000 {
        for event in [Event::Refused, Event::Denied, Event::WrongKey, Event::TooSlow] {
            assert_ne!(watch.note(event, "203.0.113.8", None, f64::from(number) * 0.1), Standing::Banned);
        }
        assert_eq!(watch.note(Event::Refused, "203.0.113.9", None, f64::from(number) * 0.1), Standing::Clear);
    }
}

#[test]
fn who_tries_out_names_is_slowed_down() {
    let watch = Watch::new();
    let stands: Vec<_> =
        (0..200).map(|number| watch.note(Event::NotFound, "203.0.113.7", None, f64::from(number) * 0.02)).collect();
    assert_eq!((stands[50], stands[150], stands[199]), (Standing::Clear, Standing::Throttled, Standing::Throttled));
}

/// Four hundred people behind one address: each mistypes twice an hour, and gets in at the third try.
#[test]
fn many_people_behind_one_address_are_left_alone() {
    let watch = Watch::new();
    for number in 0..800 {
        let (seconds, user) = (f64::from(number) * 4.5, format!("user{}@example.com", number % 400));
        for try_again in 0..2 {
            let stands = watch.note(Event::WrongPassword, "203.0.113.7", Some(&user), seconds + f64::from(try_again));
            assert_eq!(stands, Standing::Clear, "{number}");
        }
        watch.scores.forgive(address("203.0.113.7"), &user, &watch.policy, at(watch.begun, seconds + 2.0));
    }
}

#[test]
fn getting_in_forgives_that_account_alone() {
    let watch = Watch::new();
    for number in 0..19 {
        watch.note(Event::WrongPassword, "203.0.113.7", Some("victim@example.com"), f64::from(number) * 0.1);
        // Its own account, to which it knows the password.
        watch.note(Event::WrongPassword, "203.0.113.7", Some("mallory@example.com"), f64::from(number) * 0.1);
        watch.scores.forgive(address("203.0.113.7"), "mallory@example.com", &watch.policy, at(watch.begun, 2.0));
    }
    assert!(watch.standing("203.0.113.7", 2.0) >= Standing::Throttled);
    assert_eq!(watch.note(Event::ScannerPath, "203.0.113.7", None, 3.0), Standing::Banned);
}

#[test]
fn an_account_that_many_fail_at_counts_double() {
    let watch = Watch::new();
    let mut tries = 0;
    for number in 0..50 {
        let from = format!("203.0.113.{number}");
        let banned = (0..20).take_while(|_| {
            tries += 1;
            watch.note(Event::WrongPassword, &from, Some("ada@example.com"), f64::from(tries) * 0.01)
                != Standing::Banned
        });
        assert!(banned.count() <= if number == 0 { 19 } else { 11 }, "{number}");
    }
    // She mistypes herself meanwhile.
    for number in 0..4 {
        let stands =
            watch.note(Event::WrongPassword, "198.51.100.1", Some("ada@example.com"), 12.0 + f64::from(number));
        assert_eq!(stands, Standing::Clear);
    }
}

#[test]
fn what_one_process_sees_counts_at_the_others() {
    let (one, other) = (Watch::new(), Watch::new());
    for number in 0..11 {
        one.note(Event::WrongPassword, "2001:db8::1", Some("ada@example.com"), f64::from(number) * 0.1);
        other.note(Event::WrongPassword, "2001:db8::2", Some("ada@example.com"), f64::from(number) * 0.1);
    }
    assert!(one.standing("2001:db8::1", 2.0) < Standing::Banned);
    let told = one.scores.untold();
    assert_eq!(told.len(), 3, "the address, the account, and both: {told:?}");
    assert_eq!(one.scores.untold(), []);
    let heard = told.into_iter().filter_map(|points| other.scores.hear(points, &other.policy, at(other.begun, 2.0)));
    let heard: Vec<_> = heard.map(|(network, scored)| (network.to_string(), scored.standing)).collect();
    assert_eq!(heard, [("2001:db8::/64".to_owned(), Standing::Banned)]);
    other.scores.forget("2001:db8::/64".parse().unwrap());
    assert_eq!(other.standing("2001:db8::1", 2.0), Standing::Clear);
    let nonsense = Points { key: address_key(address("2001:db8::1")), event: Event::Refused, points: f64::NAN };
    assert!(other.scores.hear(nonsense, &other.policy, other.begun).is_none());
}

#[test]
fn bans_grow_to_an_end() {
    let minutes = |policy: Policy| policy.ladder().iter().map(|ban| ban.as_secs() / 60).collect::<Vec<_>>();
    assert_eq!(minutes(Policy::default()), [10, 40, 160, 640, 2560, 10_080]);
    let short = Policy { ban_time: Duration::from_hours(1), longest_ban: Duration::from_mins(5), ..Policy::default() };
    assert_eq!(minutes(short), [5]);
}

#[test]
fn events_have_names() {
    assert!(Event::ALL.iter().enumerate().all(|(at, event)| *event as usize == at));
    assert!(Event::ALL.iter().all(|event| Event::named(event.name()) == Some(*event)));
    assert_eq!(Event::named("nothing"), None);
}
