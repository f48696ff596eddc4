//! Whether the time of an answer tells who has an account (checklist A4): two kinds of requests whose answers are the same, one at a
//! time in turns.

use std::time::{Duration, Instant};

use ntier_tests::world::agent;
use serde_json::{Value, json};

use crate::auth::people::{self, PASSWORD};
use crate::subject::Subject;

/// Of each kind, before the first that counts.
const WARM_UP: usize = 5;

/// Two kinds of requests.
struct Pair {
    name: &'static str,
    kinds: [&'static str; 2],
    path: &'static str,
    /// The body of the nth request where there is no such user, and where there is.
    bodies: fn(usize) -> [Value; 2],
    status: u16,
}

const ALL: [Pair; 3] = [
    Pair {
        name: "sign-in",
        kinds: ["unknown user", "wrong password"],
        path: "/token?grant_type=password",
        bodies: |number| {
            let body = |email: String| json!({ "email": email, "password": "another horse battery" });
            [body(format!("nobody{number}@example.com")), body(people::email(number))]
        },
        status: 400,
    },
    Pair {
        name: "sign-up",
        kinds: ["new address", "one that is there"],
        path: "/signup",
        bodies: |number| {
            let body = |email: String| json!({ "email": email, "password": PASSWORD });
            [body(format!("new{number}@example.com")), body(people::email(number))]
        },
        status: 200,
    },
    Pair {
        name: "recover",
        kinds: ["unknown address", "one that is there"],
        path: "/recover",
        bodies: |number| {
            [json!({ "email": format!("nobody{number}@example.com") }), json!({ "email": people::email(number) })]
        },
        status: 200,
    },
];

/// Of two kinds.
pub struct Compared {
    pub name: &'static str,
    pub kinds: [&'static str; 2],
    /// Shortest first.
    pub times: [Vec<Duration>; 2],
}

/// How much two series differ.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// Of the medians, the first less the second.
    pub median_ms: f64,
    /// How often a request of the first kind takes longer than one of the second.
    pub longer: f64,
    /// How likely at least such a ranking is where both are alike (Mann-Whitney, two-sided, normal approximation).
    pub p: f64,
}

pub fn all(subject: &Subject, requests: usize) -> Result<Vec<Compared>, String> {
    ALL.iter().map(|pair| compare(subject, pair, requests)).collect()
}

fn compare(subject: &Subject, pair: &Pair, requests: usize) -> Result<Compared, String> {
    let agent = agent();
    let mut times = [Vec::new(), Vec::new()];
    let mut from = 0;
    for number in 0..requests + WARM_UP {
        let bodies = (pair.bodies)(number).map(|body| body.to_string());
        // Each comes first as often as the other.
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut answers = [const { String::new() }; 2];
        for kind in order {
            from += 1;
            let begun = Instant::now();
            let (status, text) = people::post(&agent, subject, None, from, pair.path, &bodies[kind])?;
            let time = begun.elapsed();
            if status != pair.status {
                return Err(format!("{} of {} on {}: {status} {text}", pair.name, bodies[kind], subject.name));
            }
            if number >= WARM_UP {
                times[kind].push(time);
            }
            answers[kind] = text;
        }
        are_alike(&answers).map_err(|fault| format!("{} on {}: {fault}", pair.name, subject.name))?;
    }
    for times in &mut times {
        times.sort();
    }
    Ok(Compared { name: pair.name, kinds: pair.kinds, times })
}

/// Users have the same fields, whose values differ; all else is the same.
fn are_alike([one, other]: &[String; 2]) -> Result<(), String> {
    let fields = |text: &str| {
        let value: Value = serde_json::from_str(text).ok()?;
        value.get("id")?;
        Some(value.as_object()?.keys().cloned().collect::<Vec<_>>())
    };
    let are_alike = match (fields(one), fields(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    };
    if are_alike { Ok(()) } else { Err(format!("the answers differ: {one} and {other}")) }
}

impl Compared {
    pub fn difference(&self) -> Difference {
        let [first, second] = &self.times;
        let (longer, p) = rank_sum(first, second);
        Difference { median_ms: quantile_ms(first, 0.5) - quantile_ms(second, 0.5), longer, p }
    }
}

/// Of a sorted series.
pub fn quantile_ms(sorted: &[Duration], share: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "short series"
    )]
    let at = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// The middle half is so wide.
pub fn spread_ms(sorted: &[Duration]) -> f64 {
    quantile_ms(sorted, 0.75) - quantile_ms(sorted, 0.25)
}

/// How often one of the first is longer than one of the second, half of those counted that are equal; and the p-value. Nanoseconds are
/// hardly ever equal, so ties change nothing else.
#[expect(clippy::cast_precision_loss, reason = "short series")]
fn rank_sum(first: &[Duration], second: &[Duration]) -> (f64, f64) {
    let pairs = (first.len() * second.len()) as f64;
    let longer: f64 = first
        .iter()
        .flat_map(|one| second.iter().map(move |other| one.cmp(other)))
        .map(|order| match order {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
        .sum();
    let deviation = (pairs * (first.len() + second.len() + 1) as f64 / 12.0).sqrt();
    (longer / pairs, two_sided((longer - pairs / 2.0).abs() / deviation))
}

/// How likely a normal variable is at least so many deviations away; Numerical Recipes' `erfcc`, good to seven digits.
fn two_sided(deviations: f64) -> f64 {
    let x = deviations / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + x / 2.0);
    let terms = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    t * (terms.into_iter().fold(0.0, |sum, term| sum * t + term) - x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(times: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        times.into_iter().map(Duration::from_micros).collect()
    }

    #[test]
    fn normal_tails() {
        for (deviations, expected) in [(0.0, 1.0), (1.0, 0.317_310_5), (1.959_964, 0.05), (3.290_527, 0.001)] {
            assert!((two_sided(deviations) - expected).abs() < 1e-6, "{deviations}: {}", two_sided(deviations));
        }
    }

    #[test]
    fn series_that_are_alike_are_told_apart_by_nobody() {
        let (longer, p) = rank_sum(&series((0..200).map(|n| 2 * n)), &series((0..200).map(|n| 2 * n + 1)));
        assert!((longer - 0.5).abs() < 0.01 && p > 0.9, "{longer} {p}");
        let (longer, p) = rank_sum(&series(200..400), &series(0..200));
        assert!((longer - 1.0).abs() < 1e-9 && p < 1e-9, "{longer} {p}");
        // Without correction for continuity, as R's wilcox.test(…, exact = FALSE, correct = FALSE) has it.
        let (longer, p) = rank_sum(&series([10, 30, 50, 70, 90]), &series([20, 25, 35, 40, 45]));
        assert!((longer - 0.68).abs() < 1e-9 && (p - 0.347_208).abs() < 1e-5, "{longer} {p}");
    }

    #[test]
    fn the_middle_half() {
        let times = series((0..=100).map(|n| n * 1000));
        assert!((quantile_ms(&times, 0.5) - 50.0).abs() < 1e-9 && (spread_ms(&times) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn answers_differ_in_the_values_of_users_only() {
        let alike = |one: &str, other: &str| are_alike(&[one.to_owned(), other.to_owned()]).is_ok();
        assert!(alike(r#"{"id":"a","email":"b"}"#, r#"{"id":"c","email":"d"}"#));
        assert!(!alike(r#"{"id":"a","email":"b"}"#, r#"{"id":"c"}"#));
        assert!(!alike(r#"{"msg":"a"}"#, r#"{"msg":"b"}"#));
        assert!(alike("{}", "{}"));
    }
}
