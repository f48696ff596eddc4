//! What it costs whoever writes that a table is in the publication: the same inserts into two tables that are alike but for that, in turns.

use serde_json::{Value, json};

use super::Options;
use crate::case::{Case, one_row};
use crate::load;
use crate::subject::Subject;
use ntier_tests::postgres::Postgres;

const PAIRS: usize = 7;
const WITHOUT: Case = one_row("POST without", "/plain_events");
const WITH: Case = one_row("POST with", "/published_events");

/// Transactions a second, of each table in its turns.
pub struct Cost {
    pub name: String,
    pub subject: &'static str,
    pub pairs: Vec<[f64; 2]>,
}

impl Cost {
    /// By how much a transaction takes longer, in the pair that is in the middle, with both rates.
    pub fn middle(&self) -> Option<(f64, [f64; 2])> {
        let mut pairs: Vec<_> =
            self.pairs.iter().map(|&[without, with]| (without / with - 1.0, [without, with])).collect();
        pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
        pairs.get(pairs.len() / 2).copied()
    }

    pub fn json(&self) -> Value {
        json!({ "case": self.name, "subject": self.subject, "pairs_without_with": self.pairs })
    }
}

/// By pgbench on the server, alone and with eight at once.
pub fn on_server(options: &Options, server: &Postgres, clients: u32) -> Result<Cost, String> {
    let insert = |table: &str| {
        let script = format!("insert into {table} (body) values ('hello');\n");
        load::pgbench(server, &script, clients, each(options)).map(|seen| seen.rate)
    };
    let name = format!("pgbench, {clients} at once");
    in_turns(name, "server", || insert("plain_events"), || insert("published_events"))
}

/// By the data API of a node, with policies and all else that is of a request.
pub fn by_requests(options: &Options, subject: &Subject) -> Result<Cost, String> {
    let post = |case: &Case| load::wrk(subject, case, each(options)).map(|seen| seen.rate);
    for case in [&WITHOUT, &WITH] {
        subject.ask(case, "")?;
    }
    in_turns(format!("POST, {} at once", load::CONNECTIONS), subject.name, || post(&WITHOUT), || post(&WITH))
}

/// Short turns, so that what others do on this machine meets both.
fn each(options: &Options) -> u32 {
    (options.seconds / 4).max(1)
}

fn in_turns(
    name: String,
    subject: &'static str,
    without: impl Fn() -> Result<f64, String>,
    with: impl Fn() -> Result<f64, String>,
) -> Result<Cost, String> {
    without()?;
    with()?;
    let pairs = (0..PAIRS).map(|pair| {
        // Who is first is second the next time.
        if pair % 2 == 0 { Ok([without()?, with()?]) } else { with().and_then(|with| Ok([without()?, with])) }
    });
    Ok(Cost { name, subject, pairs: pairs.collect::<Result<_, String>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_in_the_middle_tells_the_cost() {
        let pairs = vec![[100.0, 50.0], [120.0, 100.0], [100.0, 100.0]];
        let cost = Cost { name: String::new(), subject: "server", pairs };
        let (more, rates) = cost.middle().unwrap();
        assert!((more - 0.2).abs() < 1e-9 && (rates[1] - 100.0).abs() < 1e-9);
    }
}
