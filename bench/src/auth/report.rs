//! The tables, and all that was measured as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::auth::timing::{Compared, quantile_ms, spread_ms};
use crate::auth::{Beside, Crowd, Line, Options, Other};
use crate::case::{BY_KEY, ONE_ROW};
use crate::load::{Answered, CONNECTIONS};
use crate::report::{answered, processors};

pub struct Report<'a> {
    pub options: &'a Options,
    /// The share of the processors that others used before the run.
    pub busy: f64,
    /// PostgreSQL's version.
    pub server: String,
    pub rates: Vec<Line<Beside>>,
    pub crowds: Vec<Line<Crowd>>,
    /// On which subject.
    pub times: Vec<(&'static str, Compared)>,
}

pub fn print(report: &Report) {
    println!("\n{}", report.server);
    println!(
        "{} processors, {CONNECTIONS} connections, {} s for each; others used {:.0} % of the processors before the run",
        processors(),
        report.options.seconds,
        100.0 * report.busy,
    );
    if !report.rates.is_empty() {
        print_rates(&report.rates);
    }
    if !report.crowds.is_empty() {
        print_crowds(&report.crowds);
    }
    if !report.times.is_empty() {
        print_times(&report.times);
    }
}

fn print_rates(lines: &[Line<Beside>]) {
    println!(
        "\n{:<12} {:<9} {:>9} {:>8} {:>8} {:>8}   {:<26} {:>8} {:>7} {:>7} {:>6}",
        "", "", "requests", "p50", "p99", "refused", "beside", "", "p50", "p99", "of it"
    );
    println!(
        "{:<12} {:<9} {:>9} {:>8} {:>8} {:>8}   {:<26} {:>8} {:>7} {:>7}",
        "", "", "/s", "ms", "ms", "", "", "/s", "ms", "ms"
    );
    for line in lines {
        let Some(measured) = line.middle(Beside::ratio) else {
            println!("{:<12} {:<9}    FAILED", line.name, line.subject);
            continue;
        };
        let Answered { rate, p50_ms, p99_ms, .. } = &measured.answered;
        let (other, p50, p99) = match &measured.other {
            Other::Bcrypt { hash, threads } => {
                let hash_ms = hash.as_secs_f64() * 1000.0;
                (format!("bcrypt {hash_ms:.1} ms, {threads} at once"), String::new(), String::new())
            }
            Other::Data(data) => {
                let name = if line.name == "refresh" { ONE_ROW.name } else { BY_KEY.name };
                (name.to_owned(), format!("{:.2}", data.p50_ms), format!("{:.2}", data.p99_ms))
            }
        };
        println!(
            "{:<12} {:<9} {rate:>9.1} {p50_ms:>8.2} {p99_ms:>8.2} {:>8}   {other:<26} {:>8.1} {p50:>7} {p99:>7} {:>5.0}%",
            line.name,
            line.subject,
            shown(&measured.refused),
            measured.other.rate(),
            100.0 * measured.ratio(),
        );
    }
}

fn print_crowds(lines: &[Line<Crowd>]) {
    println!(
        "\n{:<12} {:<9} {:>7} {:>7} {:>7}   {:<21} {:>7} {:>7} {:>7} {:>9}   {:>10} {:>8}",
        "", "", "alone", "p50", "p99", "while people sign in", "", "p50", "p99", "p99 by", "sign-ins", "refused"
    );
    println!(
        "{:<12} {:<9} {:>7} {:>7} {:>7}   {:<21} {:>7} {:>7} {:>7} {:>9}   {:>10}",
        "", "", "/s", "ms", "ms", "", "/s", "ms", "ms", "", "/s"
    );
    for line in lines {
        let Some(crowd) = line.middle(Crowd::ratio) else {
            println!("{:<12} {:<9}    FAILED", line.name, line.subject);
            continue;
        };
        let Crowd { alone, beside, sign_ins, refused } = crowd;
        println!(
            "{:<12} {:<9} {:>7.0} {:>7.2} {:>7.2}   {:<21} {:>7.0} {:>7.2} {:>7.2} {:>8.1}×   {:>10.1} {:>8}",
            line.name,
            line.subject,
            alone.rate,
            alone.p50_ms,
            alone.p99_ms,
            "",
            beside.rate,
            beside.p50_ms,
            beside.p99_ms,
            crowd.ratio(),
            sign_ins.rate,
            shown(refused),
        );
    }
}

fn print_times(times: &[(&'static str, Compared)]) {
    println!(
        "\n{:<10} {:<9} {:<17} {:>8} {:>8}   {:<17} {:>8} {:>8}   {:>10} {:>7} {:>8}",
        "one by one", "", "", "median", "spread", "", "median", "spread", "difference", "longer", "p"
    );
    println!(
        "{:<10} {:<9} {:<17} {:>8} {:>8}   {:<17} {:>8} {:>8}   {:>10}",
        "", "", "", "ms", "ms", "", "ms", "ms", "ms"
    );
    for (subject, compared) in times {
        let Compared { name, kinds: [one, other], times: [first, second] } = compared;
        let difference = compared.difference();
        println!(
            "{name:<10} {subject:<9} {one:<17} {:>8.2} {:>8.2}   {other:<17} {:>8.2} {:>8.2}   {:>+10.2} {:>6.0}% {:>8.2e}",
            quantile_ms(first, 0.5),
            spread_ms(first),
            quantile_ms(second, 0.5),
            spread_ms(second),
            difference.median_ms,
            100.0 * difference.longer,
            difference.p,
        );
    }
}

/// `429: 12`.
fn shown(refused: &BTreeMap<u16, u64>) -> String {
    let all: Vec<_> = refused.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    if all.is_empty() { "0".to_owned() } else { all.join(", ") }
}

pub fn json(report: &Report) -> Value {
    json!({
        "server": report.server, "processors": processors(), "busy_before": report.busy, "connections": CONNECTIONS,
        "seconds": report.options.seconds, "warm_up_seconds": report.options.warm_up,
        "rates": report.rates.iter().map(|line| lines(line, beside)).collect::<Vec<_>>(),
        "crowds": report.crowds.iter().map(|line| lines(line, crowd)).collect::<Vec<_>>(),
        "times": report.times.iter().map(|(subject, compared)| times(subject, compared)).collect::<Vec<_>>(),
    })
}

fn lines<T>(line: &Line<T>, round: fn(&T) -> Value) -> Value {
    json!({ "name": line.name, "subject": line.subject, "rounds": line.rounds.iter().map(round).collect::<Vec<_>>() })
}

fn beside(measured: &Beside) -> Value {
    let other = match &measured.other {
        Other::Bcrypt { hash, threads } => json!({ "hash_ms": hash.as_secs_f64() * 1000.0, "threads": threads }),
        Other::Data(data) => answered(data),
    };
    json!({ "wrk": answered(&measured.answered), "refused": measured.refused, "beside": other, "ratio": measured.ratio() })
}

fn crowd(crowd: &Crowd) -> Value {
    let Crowd { alone, beside, sign_ins, refused } = crowd;
    json!({
        "alone": answered(alone), "beside": answered(beside), "p99_ratio": crowd.ratio(), "sign_ins": answered(sign_ins), "refused": refused,
    })
}

fn times(subject: &str, compared: &Compared) -> Value {
    let difference = compared.difference();
    let kinds = compared.kinds.iter().zip(&compared.times).map(|(kind, times)| {
        json!({
            "kind": kind, "median_ms": quantile_ms(times, 0.5), "spread_ms": spread_ms(times),
            "ms": times.iter().map(|time| time.as_secs_f64() * 1000.0).collect::<Vec<_>>(),
        })
    });
    json!({
        "name": compared.name, "subject": subject, "kinds": kinds.collect::<Vec<_>>(), "median_difference_ms": difference.median_ms,
        "longer": difference.longer, "p": difference.p,
    })
}
