//! Automation in Rust: `cargo xtask test`, `tidy`, `help`.

mod node;
mod packages;
mod run;
mod scratch;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  test     everything that must pass: tidy, formatting, lints, all tests on the embedded database and on a
           PostgreSQL server; installs what it needs first and prints what
  tidy     checks the arrows between the rooms, module comments and forbidden names
  bench    `bench rest`: the data API beside pgbench, as ratios (bench/README.md); --only NAME, --seconds N, --rounds N,
           --quick, --json FILE, and --binary PATH for a build that is there already
           `bench auth`: sign-in beside bcrypt and the data API, what others notice of it, and what the time of an answer
           tells; the same flags, and --requests N
           `bench files`: downloads beside nginx, uploads beside a plain copy, the memory of large files; the same flags
           `bench realtime`: broadcasts to many clients, the memory of quiet ones, changes of tables to a thousand, and
           what a published table costs whoever writes to it; the same flags
           `bench balance`: the balancer beside HAProxy and nginx, before the same origins; the same flags
           `bench nodes`: one, two and three nodes behind the balancer, each with a small part of a processor; the same flags
           `bench soak`: memory under load that goes on; --minutes N
  help     this text
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_else(|| "help".into());
    let done = match command.as_str() {
        "test" => test(),
        "bench" => bench(),
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

fn bench() -> Result<(), String> {
    packages::ensure(packages::BENCH)?;
    let mut arguments: Vec<String> = std::env::args().skip(2).collect();
    if arguments.is_empty() {
        arguments.push("rest".into());
    }
    if !arguments
        .iter()
        .any(|argument| argument == "--binary" || argument.starts_with("--binary=") || argument == "--help")
    {
        run::cargo(&["build", "--release", "--package", "ntier-cli"])?;
        arguments.extend(["--binary", "target/release/ntier"].map(String::from));
    }
    // It hashes passwords too, to tell how long the node needs for one: so it is built as the node is.
    let mut all = vec!["run", "--quiet", "--release", "--package", "ntier-bench", "--"];
    all.extend(arguments.iter().map(String::as_str));
    run::cargo(&all)
}

fn test() -> Result<(), String> {
    packages::ensure(packages::TEST)?;
    node::ensure()?;
    tidy::check()?;
    run::cargo(&["fmt", "--all", "--check"])?;
    // The suites run the program itself.
    // All at once: what is built for one package alone has other features, and is built again for the tests.
    run::linted(&["build", "--workspace", "--all-targets"], &[])?;
    // Tests wait for other programs more than they compute.
    let threads = 2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let mut environment = Vec::new();
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        environment.push(("RUST_TEST_THREADS", threads.to_string()));
    }
    let scratch = scratch::Scratch::make();
    environment.extend(scratch.iter().map(|scratch| ("TMPDIR", scratch.path())));
    // No example of the documentation is run, as there is none; so rustdoc need not read every crate to find that out.
    run::linted(&["test", "--workspace", "--all-targets"], &environment)
}
