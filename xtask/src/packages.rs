//! What the tests need beside Rust: a PostgreSQL server from Debian's packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run;

/// Installs what is missing, and says so; needs Debian or Ubuntu, and root or sudo.
pub fn ensure() -> Result<(), String> {
    if postgresql_bin().is_some() {
        return Ok(());
    }
    println!("installing Debian's package postgresql (the tests run on a PostgreSQL server too)");
    let apt = |arguments: &[&str]| {
        let mut command = if is_root() { Command::new("apt-get") } else { Command::new("sudo") };
        if !is_root() {
            command.arg("apt-get");
        }
        run::command(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt(&["update", "-qq"])?;
    apt(&["install", "-y", "-qq", "--no-install-recommends", "postgresql"])?;
    postgresql_bin()
        .map(drop)
        .ok_or_else(|| "the package postgresql brought no /usr/lib/postgresql/*/bin/postgres".into())
}

/// The newest installed server's programs.
fn postgresql_bin() -> Option<PathBuf> {
    let versions = std::fs::read_dir(Path::new("/usr/lib/postgresql")).ok()?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("postgres").exists().then_some((version, bin))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

fn is_root() -> bool {
    run::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim_ascii() == b"0")
}
