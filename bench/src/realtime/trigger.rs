//! What it costs whoever writes that a table is in the publication: the same inserts into two tables that are alike but for that, in turns.

use serde_json::{Value, json};

use super::Options;
use crate::case::{Case, one_row};
use crate::load;
use crate::subject::Subject;

/// Seconds of a turn, so short that what others do on this machine meets both of a pair.
const TURN: u32 = 1;
const WITHOUT: Case = one_row("POST without", "/plain_events");
const WITH: Case = one_row("POST with", "/published_events");

/// Transactions a second, of each table in its turns.
pub struct Cost {
    pub name: String,
    pub subject: &'static str,
    pub pairs: Vec<[f64; 2]>,
}

impl Cost {
    /// By how much a transaction takes longer, and both rates: in the pair that is in the middle, and in those a quarter from each end.
    pub fn quartiles(&self) -> Option<[(f64, [f64; 2]); 3]> {
        let mut pairs: Vec<_> =
            self.pairs.iter().map(|&[without, with]| (without / with - 1.0, [without, with])).collect();
        pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
        let last = pairs.len().checked_sub(1)?;
        Some([last / 4, pairs.len() / 2, last - last / 4].map(|at| pairs[at]))
    }

    pub fn json(&self) -> Value {
        json!({ "case": self.name, "subject": self.subject, "pairs_without_with": self.pairs })
    }
}

/// By pgbench, past the node.
pub fn by_pgbench(options: &Options, subject: &Subject, clients: u32) -> Result<Cost, String> {
    let insert = |table: &str| {
        let script = format!("insert into {table} (body) values ('hello');\n");
        load::pgbench(&subject.database_url, &script, clients, TURN).map(|seen| seen.rate)
    };
    let name = format!("pgbench, {clients} at once");
    in_turns(options, name, subject.name, || insert("plain_events"), || insert("published_events"))
}

/// By the data API of a node, with policies and all else that is of a request.
pub fn by_requests(options: &Options, subject: &Subject) -> Result<Cost, String> {
    let post = |case: &Case| load::wrk(subject, case, TURN).map(|seen| seen.rate);
    for case in [&WITHOUT, &WITH] {
        subject.ask(case, "")?;
    }
    let name = format!("POST, {} at once", load::CONNECTIONS);
    in_turns(options, name, subject.name, || post(&WITHOUT), || post(&WITH))
}

/// Three pairs for each second of a measurement: they differ by more than what is to be seen.
fn in_turns(
    options: &Options,
    name: String,
    subject: &'static str,
    without: impl Fn() -> Result<f64, String>,
    with: impl Fn() -> Result<f64, String>,
) -> Result<Cost, String> {
    without()?;
    with()?;
    let pairs = (0..3 * options.seconds).map(|pair| {
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
        let pairs = vec![[100.0, 50.0], [120.0, 100.0], [100.0, 100.0], [130.0, 100.0], [110.0, 100.0]];
        let mut cost = Cost { name: String::new(), subject: "server", pairs };
        let said = |cost: &Cost| cost.quartiles().map(|three| three.map(|(more, _)| format!("{:.0}", 100.0 * more)));
        assert_eq!(said(&cost).unwrap(), ["10", "20", "30"]);
        cost.pairs.truncate(1);
        assert_eq!(said(&cost).unwrap(), ["100", "100", "100"]);
        cost.pairs.clear();
        assert!(said(&cost).is_none());
    }
}
