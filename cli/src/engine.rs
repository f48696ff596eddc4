//! `ntier engine`: the embedded database as a process of its own. The node starts it; nobody else needs to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;

pub fn run(flags: &ArgMatches) -> ExitCode {
    match flags.get_one::<PathBuf>("data") {
        Some(data) => ntier_engine::serve(&ntier_engine::Options::new(data)),
        None => ExitCode::from(2),
    }
}
