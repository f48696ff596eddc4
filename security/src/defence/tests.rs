//! Who is let in, slowed down and kept out, and what processes tell each other of it.

use super::*;
use crate::firewall::Access;

struct Case {
    defence: Defence,
    begun: Instant,
}

impl Case {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { never: vec!["127.0.0.0/8".parse().unwrap()], ..Settings::default() };
        change(&mut settings);
        let begun = Instant::now();
        Self { defence: Defence::new(settings, begun), begun }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.begun + Duration::from_secs(seconds)
    }

    fn asks(&self, address: &str, seconds: u64) -> Result<(), Refusal> {
        self.defence.admit(&facts(address), self.at(seconds))
    }

    fn fails(&self, address: &str, times: usize, seconds: u64) {
        for _ in 0..times {
            let address = address.parse().unwrap();
            self.defence.note(Event::WrongPassword, address, Some("ada"), Some("/auth/v1/token"), self.at(seconds));
        }
    }
}

fn facts(address: &str) -> Facts<'static> {
    Facts {
        address: address.parse().unwrap(),
        method: "GET",
        path: "/rest/v1/films",
        headers: 5,
        header_bytes: 200,
        body_bytes: None,
    }
}

#[test]
fn who_attacks_is_kept_out_and_others_are_not() {
    let case = Case::new(|_| ());
    case.fails("203.0.113.7", 20, 0);
    assert!(matches!(case.asks("203.0.113.7", 0), Err(Refusal::Banned(Some(_)))));
    assert_eq!(case.asks("203.0.113.8", 0), Ok(()));
    let (records, lost) = case.defence.take_records();
    let banned: Vec<_> = records.iter().filter(|record| record.standing == Standing::Banned).collect();
    assert_eq!((banned.len(), lost), (1, 0), "it is banned once");
    assert_eq!(banned[0].address, "203.0.113.7".parse::<IpAddr>().unwrap());
    // The database never said it: the word of this process alone does not hold for long.
    assert_eq!(case.asks("203.0.113.7", 61), Ok(()));
}

#[test]
fn a_ban_of_the_database_counts_until_it_is_lifted() {
    let case = Case::new(|_| ());
    case.fails("203.0.113.7", 20, 0);
    let network: Network = "203.0.113.7".parse().unwrap();
    case.defence.set_bans([(network, Said::Banned(Some(case.at(600))))], case.at(1));
    assert!(matches!(case.asks("203.0.113.7", 300), Err(Refusal::Banned(Some(left))) if left.as_secs() == 300));
    assert_eq!(case.asks("203.0.113.7", 600), Ok(()));
    case.defence.set_bans([("203.0.113.0/24".parse().unwrap(), Said::Banned(None))], case.at(1));
    assert_eq!(case.asks("203.0.113.9", 1_000_000), Err(Refusal::Banned(None)));
    case.defence.set_bans([], case.at(2));
    assert_eq!(case.asks("203.0.113.7", 3), Ok(()), "it is lifted here as well");
    case.fails("203.0.113.7", 20, 3);
    case.defence.pardon(network);
    assert_eq!(case.asks("203.0.113.7", 3), Ok(()));
}

#[test]
fn before_a_ban_comes_patience() {
    let case = Case::new(|_| ());
    case.fails("203.0.113.7", 12, 0);
    let answers: Vec<_> = (0..12).map(|_| case.asks("203.0.113.7", 0)).collect();
    assert_eq!(answers[..10], [Ok(()); 10]);
    assert_eq!(answers[10], Err(Refusal::Throttled(Duration::from_millis(500))));
    assert_eq!(case.asks("203.0.113.7", 1), Ok(()));
    assert_eq!((0..100).filter(|_| case.asks("203.0.113.7", 700).is_ok()).count(), 100, "the score is lower now");
}

#[test]
fn some_are_never_banned() {
    let case = Case::new(|settings| settings.limits.address = Some(Rate { size: 5.0, refill: 1.0 }));
    case.fails("127.0.0.1", 50, 0);
    case.defence.set_bans(
        [("198.51.100.0/24".parse().unwrap(), Said::Never), ("198.51.0.0/16".parse().unwrap(), Said::Banned(None))],
        case.at(0),
    );
    case.fails("198.51.100.7", 50, 0);
    for address in ["127.0.0.1", "198.51.100.7"] {
        assert!((0..50).all(|_| case.asks(address, 0).is_ok()), "{address}");
    }
    assert_eq!(case.asks("198.51.101.7", 0), Err(Refusal::Banned(None)));
}

#[test]
fn a_dry_run_writes_down_what_it_would_do() {
    let case = Case::new(|settings| {
        settings.mode = Mode::Watch;
        settings.limits.address = Some(Rate { size: 5.0, refill: 1.0 });
        settings.connections = Some(1);
    });
    case.fails("203.0.113.7", 30, 0);
    assert!((0..50).all(|_| case.asks("203.0.113.7", 0).is_ok()));
    assert!((0..5).all(|_| case.defence.connected("203.0.113.7".parse().unwrap(), case.at(0))));
    let (records, _) = case.defence.take_records();
    assert!(records.iter().any(|record| record.standing == Standing::Banned));
}

#[test]
fn limits_of_addresses_users_and_keys() {
    let rate = Some(Rate { size: 5.0, refill: 1.0 });
    let case = Case::new(|settings| settings.limits = Limits { address: rate, user: rate, key: rate });
    let facts = facts("203.0.113.7");
    assert_eq!((0..10).filter(|_| case.asks("203.0.113.7", 0).is_ok()).count(), 5);
    assert_eq!((0..10).filter(|_| case.asks("2001:db8::1", 0).is_ok()).count(), 5);
    assert!(case.asks("2001:db8::2", 0).is_err(), "the same /64");
    assert_eq!((0..10).filter(|_| case.defence.admit_user("ada", &facts, case.at(0)).is_ok()).count(), 5);
    assert_eq!((0..10).filter(|_| case.defence.admit_key(b"sb_key", &facts, case.at(0)).is_ok()).count(), 5);
    assert_eq!(case.defence.admit_user("bob", &facts, case.at(0)), Ok(()));
}

#[test]
fn connections_of_one_address_have_an_end() {
    let case = Case::new(|settings| settings.connections = Some(3));
    let connects = |address: &str| case.defence.connected(address.parse().unwrap(), case.at(0));
    assert_eq!([(); 5].map(|()| connects("203.0.113.7")), [true, true, true, false, false]);
    assert!(connects("203.0.113.8") && [(); 9].iter().all(|()| connects("127.0.0.1")));
    case.defence.disconnected("203.0.113.7".parse().unwrap());
    assert!(connects("203.0.113.7") && !connects("203.0.113.7"));
    for address in ["203.0.113.7", "203.0.113.7", "203.0.113.7", "203.0.113.7", "203.0.113.8"] {
        case.defence.disconnected(address.parse().unwrap());
    }
    (0..9).for_each(|_| case.defence.disconnected("127.0.0.1".parse().unwrap()));
    assert!(case.defence.open.lock().unwrap().is_empty(), "nothing is left of who left");
}

#[test]
fn answers_say_what_was_tried() {
    let case = Case::new(|_| ());
    let address = "203.0.113.7".parse().unwrap();
    for (event, status, path, query, expected) in [
        (None, 404, "/%2eenv", None, Some(Event::ScannerPath)),
        (None, 400, "/rest/v1/films", Some("id=1' or 1=1--"), Some(Event::Injection)),
        (None, 413, "/rest/v1/films", None, Some(Event::TooLarge)),
        (Some(Event::WrongKey), 401, "/rest/v1/films", None, Some(Event::WrongKey)),
        (None, 404, "/rest/v1/nothing", Some("select=*"), None),
        (None, 404, "/favicon.ico", None, None),
    ] {
        let answer = Answer { event, status, path, query, account: None };
        case.defence.refused(&answer, address, case.at(0));
        let (records, _) = case.defence.take_records();
        assert_eq!(records.first().map(|record| record.event), expected, "{path}");
    }
}

#[test]
fn processes_ban_together_what_each_alone_would_not() {
    let (one, other) = (Case::new(|_| ()), Case::new(|_| ()));
    one.fails("203.0.113.7", 11, 0);
    other.fails("203.0.113.7", 11, 0);
    let rate = Rate { size: 5.0, refill: 1.0 };
    for (case, is_alike, expected) in [(&one, true, false), (&other, false, true)] {
        let key = Key { kind: BY_ADDRESS, id: address_key("198.51.100.7".parse().unwrap()).id };
        case.defence.settings.write().unwrap().limits.address = Some(rate);
        case.defence.hear(&format!("u {} {:x} 5", key.kind, key.id), is_alike, Duration::ZERO, case.at(0));
        assert_eq!(case.asks("198.51.100.7", 0).is_ok(), expected, "a balancer's requests are a node's once more");
    }
    let told = one.defence.tell().unwrap();
    assert_eq!(one.defence.tell(), None);
    other.defence.hear(&told, true, Duration::ZERO, other.at(1));
    assert!(matches!(other.asks("203.0.113.7", 1), Err(Refusal::Banned(_))));
    assert!(other.defence.take_records().0.iter().any(|record| record.standing == Standing::Banned));
    other.defence.hear("x\nu 1\np 1 zz refused 3\n", true, Duration::ZERO, other.at(1));
}

#[test]
fn records_have_an_end_and_bans_are_kept() {
    let case = Case::new(|settings| settings.never = vec!["10.0.0.0/8".parse().unwrap()]);
    let note = |address: &str| {
        case.defence.note(Event::ScannerPath, address.parse().unwrap(), None, Some(&"é".repeat(300)), case.at(0));
    };
    for _ in 0..5000 {
        note("10.0.0.1");
    }
    (0..10).for_each(|_| note("203.0.113.7"));
    let (records, lost) = case.defence.take_records();
    assert_eq!((records.len(), lost), (MOST_RECORDS, 5010 - MOST_RECORDS as u64));
    assert!(records.iter().any(|record| record.standing == Standing::Banned));
    assert!(records[0].path.as_ref().unwrap().len() <= LONGEST_PATH);
}

#[test]
fn the_firewall_comes_first() {
    let case = Case::new(|settings| {
        settings.rules.networks = Networks::new([("203.0.113.0/24".parse().unwrap(), Access::Deny)]);
        settings.rules.most_body_bytes = Some(10);
    });
    assert_eq!(case.asks("203.0.113.7", 0), Err(Refusal::Firewall(Reason::Network)));
    let large = Facts { body_bytes: Some(11), ..facts("198.51.100.1") };
    assert_eq!(case.defence.admit(&large, case.at(0)), Err(Refusal::Firewall(Reason::Body)));
    case.defence.set_rules(Rules::default());
    assert_eq!(case.asks("203.0.113.7", 0), Ok(()));
}

#[test]
fn refusals_are_said_in_http() {
    for (refusal, status, retry) in [
        (Refusal::Banned(None), 403, None),
        (Refusal::Banned(Some(Duration::from_millis(1500))), 403, Some("2")),
        (Refusal::Throttled(Duration::from_millis(500)), 429, Some("1")),
        (Refusal::Limited(Duration::from_secs(3)), 429, Some("3")),
        (Refusal::Firewall(Reason::Body), 413, None),
    ] {
        let response = refusal.response();
        let again = response.headers().get("retry-after").map(|seconds| seconds.to_str().unwrap());
        assert_eq!((response.status().as_u16(), again), (status, retry), "{refusal:?}");
        let body: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        assert!(body["code"] == refusal.code() && body["message"].is_string());
    }
}

#[test]
#[ignore = "it measures"]
fn defence_speed() {
    let case = Case::new(|_| ());
    let ban = |number: u32| (Network::of_client(IpAddr::from(number.to_be_bytes())), Said::Banned(None));
    case.defence.set_bans((0..10_000_u32).map(|number| ban(number.wrapping_mul(2_654_435_761) | 1)), case.at(0));
    let (rounds, begun) = (2_000_000_u32, Instant::now());
    let through = (0..rounds)
        .filter(|number| {
            let address = IpAddr::from((number % 10_000).wrapping_mul(2_654_435_769).to_be_bytes());
            case.defence.admit(&Facts { address, ..facts("203.0.113.7") }, begun).is_ok()
        })
        .count();
    println!("{:.0} ns a request, {through} let through", begun.elapsed().as_secs_f64() * 1e9 / f64::from(rounds));
}
