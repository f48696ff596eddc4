//! What is needed beside Rust, from Debian's packages: installed when it is missing, and said so.

use std::path::Path;
use std::process::Command;

use crate::run;

/// A package, and a program or file that says whether it is there.
pub struct Package {
    name: &'static str,
    program: &'static str,
    why: &'static str,
}

const POSTGRESQL: Package =
    Package { name: "postgresql", program: "/usr/lib/postgresql/*/bin/postgres", why: "a PostgreSQL server" };
const OPENSSL: Package = Package { name: "openssl", program: "openssl", why: "certificates for servers" };
const NODEJS: Package = Package { name: "nodejs", program: "node", why: "supabase-js as a client" };
const NPM: Package = Package { name: "npm", program: "npm", why: "to install supabase-js" };
const CHROMIUM: Package = Package { name: "chromium", program: "chromium", why: "sign-in in a browser" };
const MAIL: Package = Package {
    name: "python3-aiosmtpd",
    program: "/usr/lib/python3/dist-packages/aiosmtpd/smtp.py",
    why: "a mail server that asks for TLS and a password",
};
const VENV: Package = Package {
    name: "python3-venv",
    program: "/usr/lib/*/ensurepip/__init__.py",
    why: "to install boto3 and aws-cli, which are clients of S3",
};
const RCLONE: Package = Package { name: "rclone", program: "rclone", why: "another client of S3, and of WebDAV" };
const LITMUS: Package = Package { name: "litmus", program: "litmus", why: "what servers of WebDAV are tested with" };
const NATS: Package =
    Package { name: "nats-server", program: "/usr/*/nats-server", why: "a bus between nodes that is not PostgreSQL" };
const PEBBLE: Package =
    Package { name: "pebble", program: "pebble", why: "an authority that issues certificates for balancers" };
const CURL: Package = Package { name: "curl", program: "curl", why: "what a newcomer is told to type" };
const WRK: Package = Package { name: "wrk", program: "wrk", why: "load over HTTP" };
const NGINX: Package =
    Package { name: "nginx-light", program: "nginx", why: "what files and the balancer are held against" };
const HAPROXY: Package = Package { name: "haproxy", program: "haproxy", why: "what the balancer is held against" };

pub const TEST: &[Package] =
    &[POSTGRESQL, OPENSSL, MAIL, CURL, NODEJS, NPM, CHROMIUM, VENV, RCLONE, LITMUS, NATS, PEBBLE];
const H2LOAD: Package = Package { name: "nghttp2-client", program: "h2load", why: "load over HTTP/2" };

pub const BENCH: &[Package] = &[POSTGRESQL, OPENSSL, CURL, WRK, H2LOAD, NGINX, HAPROXY];

/// Installs what is missing; needs Debian or Ubuntu, and root or sudo.
pub fn ensure(wanted: &[Package]) -> Result<(), String> {
    let missing: Vec<&Package> = wanted.iter().filter(|package| !is_there(package.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        println!("installing Debian's package {}: {}", package.name, package.why);
    }
    apt(&["update", "-qq"])?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(missing.iter().map(|package| package.name));
    apt(&install)?;
    match missing.iter().find(|package| !is_there(package.program)) {
        None => Ok(()),
        Some(package) => Err(format!("the package {} brought no {}", package.name, package.program)),
    }
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    let is_root = run::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim_ascii() == b"0");
    let mut command = Command::new(if is_root { "apt-get" } else { "sudo" });
    if !is_root {
        command.arg("apt-get");
    }
    run::command(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// A name is looked for in the search path; a `*` in a path stands for one folder.
fn is_there(program: &str) -> bool {
    if let Some((before, after)) = program.split_once("/*/") {
        let folders = std::fs::read_dir(before).into_iter().flatten().flatten();
        return folders.into_iter().any(|folder| folder.path().join(after).exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).exists())
}
