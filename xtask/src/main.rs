//! Automation in Rust: `cargo xtask test`, `tidy`, `help`.

mod packages;
mod run;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  test     everything that must pass: tidy, formatting, lints, all tests on the embedded database and on a
           PostgreSQL server; installs what it needs first and prints what
  tidy     checks the arrows between the rooms, module comments and forbidden names
  help     this text
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_else(|| "help".into());
    let done = match command.as_str() {
        "test" => test(),
        "tidy" => tidy::check(),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no command {other:?}\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<(), String> {
    packages::ensure()?;
    tidy::check()?;
    run::cargo(&["fmt", "--all", "--check"])?;
    run::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    // The suites run the program itself.
    run::cargo(&["build", "--package", "ntier-cli"])?;
    run::cargo(&["test", "--workspace"])
}
