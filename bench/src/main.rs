//! `cargo xtask bench rest`: the data API on a PostgreSQL server and on the embedded database, beside pgbench with the same
//! statements in the same transactions on the same server, in one run. `bench auth`: sign-in on both, beside bcrypt and the data API.
//! `bench files`: files, beside nginx and a plain copy. `bench realtime`: broadcasts, changes, and what clients and triggers cost.
//! `bench balance`: the balancer, beside `HAProxy` and nginx. `bench nodes`: what more nodes bring.
//! README.md says how to read them.

mod auth;
mod balance;
mod case;
mod ceiling;
mod files;
mod load;
mod measure;
mod nodes;
mod realtime;
mod report;
mod run;
mod share;
mod soak;
mod subject;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

fn main() -> ExitCode {
    let bench =
        Command::new("bench").about("Measures the data API, sign-in, files and realtime").subcommand_required(true);
    let matches = bench.subcommands([rest(), auth(), files(), realtime(), balance(), nodes(), soak()]).get_matches();
    let measured = match matches.subcommand() {
        Some(("rest", flags)) => options(flags).map(|options| run::rest(&options)),
        Some(("auth", flags)) => auth_options(flags).map(|options| auth::auth(&options)),
        Some(("files", flags)) => options(flags).map(|options| files::files(&options)),
        Some(("realtime", flags)) => options(flags).map(|options| realtime::realtime(&options)),
        Some(("balance", flags)) => options(flags).map(|options| balance::balance(&options)),
        Some(("nodes", flags)) => options(flags).map(|options| nodes::nodes(&options)),
        Some(("soak", flags)) => soak_options(flags).map(|options| soak::soak(&options)),
        _ => None,
    };
    match measured.unwrap_or_else(|| Err("there is nothing to measure".into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn binary() -> Arg {
    let path = value_parser!(PathBuf);
    Arg::new("binary").long("binary").value_name("PATH").required(true).value_parser(path).help("The ntier to measure")
}

fn soak() -> Command {
    let minutes = Arg::new("minutes").long("minutes").default_value("10").value_parser(value_parser!(u32).range(1..));
    Command::new("soak").about("Memory under load that goes on").args([binary(), minutes.help("Of load")])
}

fn soak_options(flags: &ArgMatches) -> Option<soak::Options> {
    Some(soak::Options { binary: flags.get_one::<PathBuf>("binary")?.clone(), minutes: *flags.get_one("minutes")? })
}

fn rest() -> Command {
    Command::new("rest").about("Requests of a signed-in user, beside pgbench").arg(binary()).args(of_a_run())
}

fn auth() -> Command {
    let requests = Arg::new("requests").long("requests").value_name("N").default_value("200");
    let requests = requests.value_parser(value_parser!(u16).range(2..=1000));
    Command::new("auth")
        .about(
            "Sign-in, beside bcrypt and the data API; what others notice of it, and what the time of an answer tells",
        )
        .args([binary(), requests.help("Of each of two kinds whose times are compared")])
        .args(of_a_run())
}

fn files() -> Command {
    Command::new("files")
        .about("Downloads beside nginx, uploads beside a plain copy, and the memory of large files")
        .arg(binary())
        .args(of_a_run())
}

fn realtime() -> Command {
    Command::new("realtime")
        .about(
            "Broadcasts to many clients, the memory of quiet ones, changes of tables, and what a published table costs",
        )
        .arg(binary())
        .args(of_a_run())
}

fn balance() -> Command {
    Command::new("balance").about("The balancer, beside HAProxy and nginx").arg(binary()).args(of_a_run())
}

fn nodes() -> Command {
    Command::new("nodes").about("One, two and three small nodes behind the balancer").arg(binary()).args(of_a_run())
}

fn of_a_run() -> [Arg; 5] {
    let path = || value_parser!(PathBuf);
    let count = || value_parser!(u32).range(1..);
    [
        Arg::new("seconds").long("seconds").default_value("8").value_parser(count()).help("For each measurement"),
        Arg::new("rounds").long("rounds").default_value("1").value_parser(count()).help("The middle one counts"),
        Arg::new("only").long("only").value_name("NAME").default_value("").help("Only what has this in its name"),
        Arg::new("json").long("json").value_name("FILE").value_parser(path()).help("Keeps all that was measured"),
        Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("One second for each, to try it"),
    ]
}

fn auth_options(flags: &ArgMatches) -> Option<auth::Options> {
    let run::Options { binary, seconds, warm_up, rounds, only, json, is_quick } = options(flags)?;
    let requests = if is_quick { 20 } else { usize::from(*flags.get_one::<u16>("requests")?) };
    Some(auth::Options { binary, seconds, warm_up, rounds, requests, only, json })
}

fn options(flags: &ArgMatches) -> Option<run::Options> {
    let is_quick = flags.get_flag("quick");
    Some(run::Options {
        binary: flags.get_one::<PathBuf>("binary")?.clone(),
        seconds: if is_quick { 1 } else { *flags.get_one("seconds")? },
        warm_up: if is_quick { 1 } else { 2 },
        rounds: *flags.get_one("rounds")?,
        only: flags.get_one::<String>("only")?.clone(),
        json: flags.get_one::<PathBuf>("json").cloned(),
        is_quick,
    })
}
