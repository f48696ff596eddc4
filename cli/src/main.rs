//! The `ntier` command: reads the command line, does what it says, and tells faults on standard error.
//!
//! Each command is a file; [`arguments`] has their flags, which come from the table of settings. Exit codes: 0 done,
//! 1 failed, 2 misused.

mod arguments;
mod balance;
mod bans;
mod descriptors;
mod end;
mod engine;
mod failure;
mod keys;
mod migrate;
mod moving;
mod node;
mod progress;
mod rest;
mod sql;
mod status;
mod succession;
mod table;
mod up;
mod watch;

use std::future::Future;
use std::process::ExitCode;

use clap::ArgMatches;

use failure::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = arguments::command().get_matches();
    let Some((name, flags)) = matches.subcommand() else { return ExitCode::from(2) };
    let done = match name {
        // Before anything else: the engine has no use for a runtime.
        "engine" => return engine::run(flags),
        "completions" => return completions(flags),
        "dev" | "serve" => run(node::run(name, flags)),
        "rest" => run(rest::run(flags)),
        "balance" => run(balance::run(flags)),
        "migrate" => run(migrate::run(flags)),
        "move" => run(moving::run(flags)),
        "keys" => keys::run(flags),
        "sql" => run(sql::run(flags)),
        "bans" => run(bans::run(flags)),
        "status" => run(status::run(flags)),
        "up" => run(up::run(flags)),
        _ => return ExitCode::from(2),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::FAILURE
        }
    }
}

/// One thread is enough beside the node's own workers: it speaks with the database.
fn run(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(Failure::from)?.block_on(work)
}

fn completions(flags: &ArgMatches) -> ExitCode {
    if let Some(&shell) = flags.get_one::<clap_complete::Shell>("shell") {
        clap_complete::generate(shell, &mut arguments::command(), "ntier", &mut std::io::stdout());
    }
    ExitCode::SUCCESS
}
