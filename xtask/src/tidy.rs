//! The house's rules that a compiler does not know: which room may use which, and what a source file looks like.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::run;

/// Each room and the rooms it may use. A room that is not here may not exist.
const ARROWS: &[(&str, &[&str])] = &[
    ("ntier-protocol", &[]),
    ("ntier-security", &[]),
    ("ntier-engine", &[]),
    ("ntier-backing", &["ntier-security"]),
    ("ntier-rest", &["ntier-protocol", "ntier-security", "ntier-backing"]),
    ("ntier-auth", &["ntier-protocol", "ntier-security", "ntier-backing"]),
    ("ntier-images", &[]),
    ("ntier-storage", &["ntier-images", "ntier-protocol", "ntier-security", "ntier-backing"]),
    ("ntier-realtime", &["ntier-protocol", "ntier-security", "ntier-backing"]),
    (
        "ntier-node",
        &[
            "ntier-rest",
            "ntier-auth",
            "ntier-storage",
            "ntier-realtime",
            "ntier-protocol",
            "ntier-security",
            "ntier-backing",
        ],
    ),
    ("ntier-balancer", &["ntier-security"]),
    (
        "ntier",
        &[
            "ntier-node",
            "ntier-balancer",
            "ntier-rest",
            "ntier-auth",
            "ntier-storage",
            "ntier-realtime",
            "ntier-engine",
            "ntier-backing",
            "ntier-security",
        ],
    ),
    ("ntier-cli", &["ntier", "ntier-engine", "ntier-backing", "ntier-security"]),
    ("ntier-tests", &["ntier", "ntier-backing", "ntier-security", "ntier-cli", "ntier-engine"]),
    ("ntier-bench", &["ntier-tests", "ntier-security"]),
    ("ntier-example-notebook", &["ntier"]),
    ("xtask", &[]),
];

/// Only these read the environment of the process.
const MAY_READ_ENVIRONMENT: &[&str] = &["tiers", "cli", "examples", "tests", "xtask"];

pub fn check() -> Result<(), String> {
    let mut faults = arrows()?;
    for file in sources(Path::new("."))? {
        let text = fs::read_to_string(&file).map_err(|cause| format!("{}: {cause}", file.display()))?;
        source(&file, &text, &mut faults);
    }
    if faults.is_empty() {
        println!("tidy: {} rooms, all arrows point one way", ARROWS.len());
        return Ok(());
    }
    Err(faults.join("\n"))
}

fn arrows() -> Result<Vec<String>, String> {
    let metadata = run::output(Command::new("cargo").args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_slice(&metadata).map_err(|cause| cause.to_string())?;
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(room, _)| *room == name) else {
            faults.push(format!("{name}: not in the table of rooms (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            if ARROWS.iter().any(|(room, _)| *room == used) && !allowed.contains(&used) {
                faults.push(format!("{name} uses {used}: that arrow points the wrong way (ARCHITECTURE.md)"));
            }
        }
    }
    Ok(faults)
}

fn source(file: &Path, text: &str, faults: &mut Vec<String>) {
    let name = file.display();
    if !text.starts_with("//!") {
        faults.push(format!("{name}: begins without a module comment (style: what lives here, what does not)"));
    }
    for forbidden in ["util", "utils", "common", "helpers", "prelude"] {
        if file.file_stem().is_some_and(|stem| stem == forbidden) {
            faults.push(format!("{name}: a file called {forbidden} hides two things; find them"));
        }
    }
    let room = file.components().nth(1).map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    if !MAY_READ_ENVIRONMENT.contains(&room.as_str()) && text.contains("std::env::var") {
        faults.push(format!("{name}: reads the environment; only tiers and cli may"));
    }
}

/// All our Rust files.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|cause| format!("{}: {cause}", folder.display()))? {
        let path = entry.map_err(|cause| cause.to_string())?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                found.extend(sources(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}
