//! The command line: commands with help that teaches, and flags made from the table of settings.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use ntier::settings::{Definition, Kind, Loaded, Mode, Sources, definitions, load};

use crate::failure::Failure;

const ABOUT: &str = "A Supabase-compatible backend in one binary, with PostgreSQL inside";

const START: &str = "\
Start here:
  ntier dev                         in any folder: a database, an API and a page that uses it
  ntier sql 'select version()'      SQL as the owner, also while the node runs
  ntier keys                        what clients need to connect

An existing Supabase project (supabase/config.toml, migrations/, seed.sql) runs as it is.
Clients: any of Supabase's libraries, curl, and psql (psql -h \"$PWD/.ntier\" -U postgres).";

const SETTINGS: &str = "\
Each flag is also a line in ntier.toml beside the folder supabase/, and a variable: --api-max-rows 100 is
  [api]
  max_rows = 100
and NTIER_API_MAX_ROWS=100. A flag wins over the environment, the environment over the file.";

const DEV: &str = "\
Runs the project in the current folder, or a built-in sample where there is none, on an embedded PostgreSQL that \
keeps its data in .ntier/. Applies supabase/migrations/*.sql now and whenever one is added, supabase/seed.sql at the \
first start, and serves a folder public/ if there is one. Requests without an API key act as the role anon.";

const SERVE: &str = "\
Runs the project for others: like dev, but API keys are required and nothing is watched. With --database-url it uses a \
PostgreSQL server (15 or newer) and keeps nothing of importance but the keys. Ends in order on SIGTERM: requests under \
way are answered first.";

const REST: &str = "\
Serves the data API alone, in the place of PostgREST: its settings under its names, from a file as PostgREST reads it and \
from the environment (PGRST_DB_URI, PGRST_DB_SCHEMAS, PGRST_DB_ANON_ROLE, PGRST_JWT_SECRET, ...), its paths at the root, on a \
PostgreSQL server as it is. Nothing is created in the database. SIGUSR1, SIGUSR2 and NOTIFY pgrst read schema and settings \
again.

It listens on 127.0.0.1 unless server-host says otherwise.";

const BALANCE: &str = "\
Stands in front of several nodes: takes HTTP/1.1, HTTP/2 and websockets, and passes each request on to a node that is up. Nodes are \
named by balance.backends. One that fails is left alone; a request that is safe to repeat goes to another.

  ntier balance --balance-backends 10.0.0.1:54321,10.0.0.2:54321
  ntier balance status

SIGHUP, or a change of ntier.toml, reads the settings again; SIGUSR2 starts the binary that is there by now in the place of this one; \
neither drops a connection. Ends in order on SIGTERM: requests under way are answered first.";

const UP: &str = "\
The last tier on this machine, to try it: nodes, a balancer in front, and PostgreSQL (this machine's, or the one that --database-url \
names), each a process of its own. What ends is started again: kill a node, and ask again. Real machines: docs/how-to/tiers.md.

  ntier up
  ntier up --nodes 5
  ntier balance status";

const SQL: &str = "\
Runs SQL as the owner of the database: from the argument, from a file, or from standard input. Several statements are \
one transaction. Works while a node runs, and starts the embedded database for a moment where none does.

  ntier sql 'select * from messages'
  ntier sql --file report.sql --json
  ntier sql < schema.sql";

const ROTATE: &str = "\
Lets another key sign tokens: the one that has been published in waiting, where there is one of this algorithm. The key before \
verifies until its last tokens are expired, so nobody is signed out; then it is dropped. A new key is published in waiting, for \
those who keep the public keys (/auth/v1/.well-known/jwks.json) for a while. API keys and the JWT secret stay as they are.

A node that runs on this data directory takes the keys within seconds, without a restart: it looks whether keys.json has \
changed. Nodes elsewhere need a copy of the file. Signing keys of the project's own (auth.signing_keys_path in config.toml) are \
not changed here; the node takes a change of that file likewise.

  ntier keys rotate
  ntier keys rotate --algorithm eddsa";

const MOVE: &str = "\
Takes the application to another database: from the embedded one to a PostgreSQL server, back to a data directory, or from one \
server to another, with its schema, rows, users, files and keys. It goes on answering meanwhile. At the end writes are refused for a \
moment: the rest is copied, both ends are compared, row by row and file by file, and how long that took is said. Passwords, sessions, \
API keys and file names stay as they are.

  ntier move --to postgres://user:password@host/database
  ntier move --to postgres://… --to-settings new/ntier.toml     files to S3 as [storage.s3] there says
  ntier move --database-url postgres://… --to ./data            back
  ntier move --to dump.sql                                      out: a script for psql

The target has to be empty. Killed or broken off, the same command goes on where it was. Afterwards the old database takes no \
writes, so that none is lost there; --cancel opens it again, also before the end.";

const BANS: &str = "\
Lists who is kept out, and why. Addresses that attack are banned by themselves (the settings defence.*), each time for longer; here \
networks are banned and pardoned by hand, or named as never to be banned. It works while nodes run: each of them, and each balancer, \
heeds a change within seconds.

  ntier bans
  ntier bans add 203.0.113.0/24 --for 24h --reason 'asks for everything'
  ntier bans add 198.51.100.7 --never
  ntier bans lift 203.0.113.7";

pub fn command() -> Command {
    let styles = Styles::styled()
        .header(AnsiColor::Green.on_default().bold())
        .literal(AnsiColor::Cyan.on_default())
        .placeholder(AnsiColor::Cyan.on_default());
    let few = |command: Command| with_settings(command, &["project", "data", "database_url"]);
    Command::new("ntier")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(START)
        .styles(styles)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_all(Command::new("dev").about("Run the project here, for you alone").long_about(DEV)))
        .subcommand(with_all(Command::new("serve").about("Run the project for others").long_about(SERVE)))
        .subcommand(
            Command::new("rest").about("Serve the data API alone, in the place of PostgREST").long_about(REST).arg(
                Arg::new("file")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("PostgREST's configuration file"),
            ),
        )
        .subcommand(balance())
        .subcommand(
            with_settings(
                Command::new("up").about("Run a balancer and several nodes here, to try them").long_about(UP),
                &["project", "data", "database_url", "balance.listen"],
            )
            .arg(
                Arg::new("nodes")
                    .long("nodes")
                    .value_name("N")
                    .value_parser(value_parser!(u16).range(1..=64))
                    .default_value("3")
                    .help("How many nodes"),
            ),
        )
        .subcommand(
            few(Command::new("migrate").about("Apply what is pending in supabase/migrations, then end"))
                .arg(Arg::new("status").long("status").action(ArgAction::SetTrue).help("Only say what is pending")),
        )
        .subcommand(
            few(Command::new("move").about("Take the application to another database").long_about(MOVE))
                .arg(
                    Arg::new("to")
                        .long("to")
                        .value_name("URL|DIR|FILE.sql")
                        .required_unless_present_any(["cancel", "to-settings"])
                        .help("Where to: a PostgreSQL server, a data directory for the embedded database, or a script"),
                )
                .arg(
                    Arg::new("to-data")
                        .long("to-data")
                        .value_name("DIR")
                        .value_parser(value_parser!(PathBuf))
                        .help("A data directory for keys and files beside the server [default: they stay]"),
                )
                .arg(
                    Arg::new("to-settings")
                        .long("to-settings")
                        .value_name("FILE")
                        .value_parser(value_parser!(PathBuf))
                        .help("An ntier.toml of the target: where its data and files are"),
                )
                .arg(
                    Arg::new("leave-out")
                        .long("leave-out")
                        .action(ArgAction::SetTrue)
                        .help("Go without what cannot be taken along, such as foreign tables"),
                )
                .arg(
                    Arg::new("cancel")
                        .long("cancel")
                        .action(ArgAction::SetTrue)
                        .conflicts_with_all(["to", "to-data", "to-settings", "leave-out"])
                        .help("Forget a move: writes are done here again"),
                ),
        )
        .subcommand(
            with_settings(
                Command::new("keys").about("Show the API keys and secrets, or rotate the key that signs tokens"),
                &["project", "data", "jwt_secret"],
            )
            .arg(json("As one JSON object"))
            .args_conflicts_with_subcommands(true)
            .subcommand(
                with_settings(
                    Command::new("rotate").about("Let another key sign tokens").long_about(ROTATE),
                    &["project", "data", "auth.jwt_expiry"],
                )
                .arg(
                    Arg::new("algorithm")
                        .long("algorithm")
                        .value_name("NAME")
                        .value_parser(["es256", "eddsa", "rs256"])
                        .ignore_case(true)
                        .help("How the new key signs [default: as the one before]"),
                ),
            ),
        )
        .subcommand(
            few(Command::new("sql").about("Run SQL as the owner").long_about(SQL))
                .arg(Arg::new("sql").value_name("SQL").help("What to run; - or nothing for standard input"))
                .arg(
                    Arg::new("file")
                        .long("file")
                        .short('f')
                        .value_name("FILE")
                        .value_parser(value_parser!(PathBuf))
                        .conflicts_with("sql")
                        .help("Run the SQL in this file"),
                )
                .arg(json("Rows as JSON, one array of objects for each statement")),
        )
        .subcommand(bans(few))
        .subcommand(
            few(Command::new("status").about("Say whether a node runs here, and what its database holds"))
                .arg(json("As one JSON object")),
        )
        .subcommand(
            Command::new("completions")
                .about("Print completions for a shell")
                .arg(Arg::new("shell").required(true).value_parser(value_parser!(Shell))),
        )
        .subcommand(
            Command::new("engine")
                .hide(true)
                .arg(Arg::new("data").long("data").required(true).value_parser(value_parser!(PathBuf))),
        )
}

fn balance() -> Command {
    let of = |command: Command, of: fn(&str) -> bool| {
        definitions()
            .filter(|definition| of(definition.name))
            .fold(command, |command, definition| command.arg(flag(definition)))
    };
    of(Command::new("balance").about("Stand in front of several nodes").long_about(BALANCE), |name| {
        ["balance.", "defence.", "firewall."].iter().any(|prefix| name.starts_with(prefix))
            || matches!(name, "project" | "data" | "database_url" | "log")
    })
    .after_help(SETTINGS)
    .args_conflicts_with_subcommands(true)
    .subcommand(
        of(Command::new("status").about("Say how a balancer and its nodes do"), |name| {
            matches!(name, "project" | "data" | "balance.admin")
        })
        .arg(json("As one JSON object")),
    )
}

fn bans(few: impl Fn(Command) -> Command) -> Command {
    let flag = |name: &'static str, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let value = |name: &'static str, value, help| Arg::new(name).long(name).value_name(value).help(help);
    let network = || Arg::new("network").value_name("NETWORK").help("An address, or a range such as 203.0.113.0/24");
    few(Command::new("bans").about("Show who is kept out; ban and pardon").long_about(BANS))
        .args_conflicts_with_subcommands(true)
        .args([flag("all", "Also bans that are over"), json("As a JSON array")])
        .subcommand(
            few(Command::new("list").about("Show who is kept out, as without it"))
                .args([flag("all", "Also bans that are over"), json("As a JSON array")]),
        )
        .subcommand(
            few(Command::new("add").about("Ban a network, or have it never banned"))
                .arg(network().required(true))
                .arg(value("for", "TIME", "So long, such as 30min or 24h [default: until it is lifted]"))
                .arg(value("reason", "TEXT", "Why, for those who read the list"))
                .arg(flag("never", "It is never banned, whatever it does")),
        )
        .subcommand(
            few(Command::new("lift").about("Take back what is said of a network, and forget what was"))
                .arg(network().required_unless_present("all").conflicts_with("all"))
                .arg(flag("all", "All bans")),
        )
}

fn json(help: &'static str) -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help(help)
}

fn with_all(command: Command) -> Command {
    let node = definitions().filter(|definition| !definition.name.starts_with("balance."));
    node.fold(command, |command, definition| command.arg(flag(definition))).after_help(SETTINGS)
}

fn with_settings(command: Command, names: &[&str]) -> Command {
    let chosen = names.iter().filter_map(|name| Definition::find(name));
    chosen.fold(command, |command, definition| command.arg(flag(definition)))
}

fn flag(definition: &'static Definition) -> Arg {
    let help = format!("{} [default: {}]", definition.doc, definition.default);
    let arg = Arg::new(definition.name).long(definition.flag()).help(help).action(ArgAction::Set);
    match definition.kind {
        Kind::Boolean => arg.value_name("BOOL").num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::Path(name) => arg.value_name(name).value_hint(clap::ValueHint::AnyPath),
        Kind::Value(name) => arg.value_name(name),
    }
}

/// Assembles the settings of a command from its flags, the environment and the files; warnings go to standard error.
pub fn settings(flags: &ArgMatches, mode: Mode) -> Result<Loaded, Failure> {
    let given = |definition: &Definition| {
        let text = flags.try_get_one::<String>(definition.name).ok().flatten()?;
        Some((definition.name.to_owned(), text.clone()))
    };
    let sources = Sources {
        mode,
        directory: std::env::current_dir()?,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        flags: definitions().filter_map(given).collect(),
    };
    let loaded = load(&sources).map_err(|faults| Failure::faults(&faults))?;
    for remark in &loaded.remarks {
        eprintln!("{remark}");
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_of_a_rotation_stand_behind_it() {
        let parse = |line: &[&str]| command().try_get_matches_from(line);
        assert!(parse(&["ntier", "keys", "rotate", "--data", "x", "--algorithm", "EdDSA"]).is_ok());
        assert!(
            parse(&["ntier", "keys", "--data", "x", "rotate"]).is_err(),
            "it would rotate other keys than it seems"
        );
        assert!(parse(&["ntier", "keys", "rotate", "--algorithm", "hs256"]).is_err());
    }

    #[test]
    fn a_boolean_flag_needs_no_value() {
        let value = |line: &[&str]| {
            let matches = command().try_get_matches_from(line).unwrap();
            matches.subcommand().unwrap().1.get_one::<String>("api.require_key").cloned()
        };
        assert_eq!(value(&["ntier", "dev", "--api-require-key"]), Some("true".into()));
        assert_eq!(value(&["ntier", "dev", "--api-require-key=false"]), Some("false".into()));
        assert_eq!(value(&["ntier", "dev"]), None);
    }
}
