//! `ntier bans`: who is kept out, and why; bans and exemptions by hand. Every node and balancer on the database heeds a change within
//! seconds.

use clap::ArgMatches;
use ntier::defence::{self, Ban, Verdict};
use ntier::server;
use ntier::settings::{Mode, duration};
use ntier_backing::database::Database;
use ntier_security::network::Network;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::progress::Progress;
use crate::{arguments, table};

pub async fn run(flags: &ArgMatches) -> Result<(), Failure> {
    let (name, flags) = flags.subcommand().unwrap_or(("list", flags));
    let settings = arguments::settings(flags, Mode::Serve)?.settings;
    let network = flags.try_get_one::<String>("network").ok().flatten().map(|text| read(text)).transpose()?;
    let progress = Progress::new();
    let database = server::visit(&settings, std::env::current_exe()?, &|step| progress.observe(step)).await?;
    drop(progress);
    let done = match (name, network) {
        ("add", Some(network)) => add(&database, network, flags).await,
        ("lift", network) => lift(&database, network).await,
        _ => list(&database, flags).await,
    };
    database.close().await;
    done
}

fn read(text: &str) -> Result<Network, Failure> {
    text.parse()
        .map_err(|()| Failure::new(format!("expected an address or a range such as 203.0.113.0/24, found {text:?}")))
}

async fn list(database: &Database, flags: &ArgMatches) -> Result<(), Failure> {
    let bans = defence::list(database, flags.get_flag("all")).await?;
    if flags.get_flag("json") {
        println!("{:#}", Value::Array(bans.iter().map(object).collect()));
        return Ok(());
    }
    if bans.is_empty() {
        println!("nobody is banned");
        return Ok(());
    }
    let cells: Vec<Vec<Option<String>>> = bans.iter().map(cells).collect();
    print!("{}", table::render(&["network", "is", "for", "why", "by", "times", "since (UTC)"], &cells));
    Ok(())
}

fn object(ban: &Ban) -> Value {
    json!({
        "network": ban.network.to_string(),
        "verdict": if ban.verdict == Verdict::Never { "never" } else { "ban" },
        "reason": ban.reason,
        "source": ban.source,
        "times": ban.times,
        "since": ban.since,
        "seconds_left": ban.seconds_left,
    })
}

fn cells(ban: &Ban) -> Vec<Option<String>> {
    let (is, time) = match (ban.verdict, ban.seconds_left) {
        (Verdict::Never, left) => ("never banned", left.map_or_else(String::new, left_of)),
        (Verdict::Banned, None) => ("banned", "ever".into()),
        (Verdict::Banned, Some(left)) if left <= 0 => ("banned before", String::new()),
        (Verdict::Banned, Some(left)) => ("banned", left_of(left)),
    };
    let all = [
        ban.network.to_string(),
        is.into(),
        time,
        ban.reason.clone(),
        ban.source.clone(),
        ban.times.to_string(),
        ban.since.clone(),
    ];
    all.map(Some).to_vec()
}

/// In the largest unit that is not too coarse.
fn left_of(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

async fn add(database: &Database, network: Network, flags: &ArgMatches) -> Result<(), Failure> {
    let text = |name| flags.get_one::<String>(name).map(String::as_str);
    let verdict = if flags.get_flag("never") { Verdict::Never } else { Verdict::Banned };
    let time = match text("for") {
        Some(time) => Some(duration(time).map_err(Failure::new)?),
        None => None,
    };
    if network.prefix() == 0 && verdict == Verdict::Banned {
        return Err(Failure::new("that would keep everybody out; firewall.allow lets in only those whom it names"));
    }
    defence::add(database, network, verdict, text("reason").unwrap_or("by hand"), time).await?;
    match verdict {
        Verdict::Banned => println!("banned {network}"),
        Verdict::Never => println!("{network} is never banned"),
    }
    Ok(())
}

async fn lift(database: &Database, network: Option<Network>) -> Result<(), Failure> {
    let lifted = defence::lift(database, network).await?;
    if let (Some(network), true) = (network, lifted.is_empty()) {
        return Err(Failure::new(format!("nothing is said of {network}; `ntier bans` lists what is")));
    }
    for network in &lifted {
        println!("lifted {network}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_say_them() {
        for (seconds, expected) in [(59, "59 s"), (600, "10 min"), (7200, "2 h"), (600_000, "6 days")] {
            assert_eq!(left_of(seconds), expected);
        }
    }
}
