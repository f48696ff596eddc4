//! A Node.js that supabase-js accepts: the machine's own, or one from the npm registry under `target/tools`.

use std::path::Path;
use std::process::Command;

use crate::run;

/// What supabase-js asks for; Debian 12 has 18.
const LEAST: u32 = 20;
const FOLDER: &str = "target/tools";

/// Makes sure that there is one; the tests look in the folder first.
pub fn ensure() -> Result<(), String> {
    if version("node").is_some_and(|version| version >= LEAST) {
        return Ok(());
    }
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => {
            return Err(format!(
                "supabase-js needs Node.js {LEAST} or newer, and there is no package of it for {other}"
            ));
        }
    };
    let package = format!("node-linux-{machine}");
    let program = Path::new(FOLDER).join("node_modules").join(&package).join("bin/node");
    if version(&program.to_string_lossy()).is_none() {
        println!("installing Node.js 22 into {FOLDER}: supabase-js needs {LEAST} or newer");
        let wanted = format!("{package}@22");
        run::command(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--prefix", FOLDER, &wanted]))?;
    }
    // Under a name that does not depend on the machine.
    let link = Path::new(FOLDER).join("bin");
    let _ = std::fs::remove_file(&link);
    let target = Path::new("node_modules").join(&package).join("bin");
    std::os::unix::fs::symlink(target, &link).map_err(|cause| format!("{}: {cause}", link.display()))
}

/// The first number of its version.
fn version(program: &str) -> Option<u32> {
    let said = run::output(Command::new(program).arg("--version")).ok()?;
    String::from_utf8_lossy(&said).trim().trim_start_matches('v').split('.').next()?.parse().ok()
}
