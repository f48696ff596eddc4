//! Running other programs, showing what is run.

use std::process::Command;

pub fn cargo(arguments: &[&str]) -> Result<(), String> {
    command(program().args(arguments))
}

/// As [`cargo`], with our own crates compiled by clippy, where each lint is an error. It is the same compiler; and what
/// we depend on is read and built once, where `cargo clippy` before `cargo build` does so twice.
pub fn linted(arguments: &[&str], environment: &[(&str, String)]) -> Result<(), String> {
    let lints = ["-D", "warnings"].map(|word| format!("{word}__CLIPPY_HACKERY__")).concat();
    let mut cargo = program();
    cargo.args(arguments).env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver").env("CLIPPY_ARGS", lints);
    command(cargo.envs(environment.iter().map(|(name, value)| (name, value))))
}

fn program() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its end; its output goes where ours goes.
pub fn command(command: &mut Command) -> Result<(), String> {
    println!("$ {}", shown(command));
    let status = command.status().map_err(|cause| format!("cannot run {}: {cause}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command))) }
}

/// A command's standard output.
pub fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.output().map_err(|cause| format!("cannot run {}: {cause}", shown(command)))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{} ended with {}", shown(command), output.status))
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
