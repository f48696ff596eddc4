//! `ntier move`: takes an application to another database, and says what came of it.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use ntier::moving::{self, Compared, Event, Outcome, Report, Request};
use ntier::settings::{self, Mode, Settings};
use ntier_backing::database;

use crate::end::End;
use crate::failure::Failure;
use crate::{arguments, table};

/// How often a long copy says how far it is, where nobody sees it count.
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn run(flags: &ArgMatches) -> Result<(), Failure> {
    let source = arguments::settings(flags, Mode::Serve)?.settings;
    let program = std::env::current_exe()?;
    let teller = Teller::default();
    let observe = |event: Event<'_>| teller.tell(event);
    if flags.get_flag("cancel") {
        let had = moving::cancel(&source, program, &observe).await?;
        println!("{}", if had { "the move is forgotten: writes are done here again" } else { "there is no move" });
        return Ok(());
    }
    let leave_out = flags.get_flag("leave-out");
    let is_script = |to: &&String| Path::new(to).extension().is_some_and(|extension| extension == "sql");
    if let Some(file) = flags.get_one::<String>("to").filter(is_script) {
        let file = std::env::current_dir()?.join(file);
        let dumped = moving::dump(&source, &file, program, leave_out, &observe).await?;
        println!("{} rows of {} tables are in {}", dumped.rows, dumped.tables, file.display());
        println!("Files are not: the how-to says how they go along.");
        return Ok(());
    }
    let target = target(flags, &source)?;
    let request = Request { source: &source, target: &target, program, leave_out };
    let mut end = End::new()?;
    match moving::run(&request, &observe, end.asked()).await? {
        Outcome::Finished { target, at } => {
            println!("this was moved to {target} at {at}; `ntier move --cancel` lets writes be done here again");
            Ok(())
        }
        Outcome::BrokenOff => Err(Failure::new("the move was broken off; the same command goes on with it")),
        Outcome::Moved(report) => tell(&report, &source, &target),
    }
}

/// Where it goes: the source's settings, but for what the flags and their file say.
fn target(flags: &ArgMatches, source: &Settings) -> Result<Settings, Failure> {
    let mut target = source.clone();
    if let Some(file) = flags.get_one::<PathBuf>("to-settings") {
        target.database = None;
        target.storage.folder = None;
        target.storage.s3 = settings::S3::default();
        let before = (target.data.clone(), target.database.clone());
        target = settings::load_file(target, file).map_err(|faults| Failure::faults(&faults))?;
        if (target.data.clone(), target.database.clone()) == before && flags.get_one::<String>("to").is_none() {
            return Err(Failure::new(format!("{} says neither database_url nor data", file.display())));
        }
    }
    if let Some(to) = flags.get_one::<String>("to") {
        if to.starts_with("postgres://") || to.starts_with("postgresql://") {
            let address = database::parse_url(to).map_err(|fault| Failure::new(format!("--to: {fault}")))?;
            target.database = Some(address);
        } else if to.contains("://") {
            return Err(Failure::new("--to: expected postgres://… or a directory"));
        } else {
            target.database = None;
            target.data = std::env::current_dir()?.join(to);
        }
    }
    if let Some(data) = flags.get_one::<PathBuf>("to-data") {
        target.data = std::env::current_dir()?.join(data);
    }
    Ok(target)
}

fn tell(report: &Report, source: &Settings, target: &Settings) -> Result<(), Failure> {
    print!("{}", sums(&report.tables));
    println!("sequences  {}", report.sequences);
    match &report.files {
        Some(files) => {
            println!("files      {}, {} bytes, each read again where it came to", files.count, files.bytes);
            if files.missing > 0 {
                println!(
                    "           {} more are named by rows and were not there before the move either",
                    files.missing
                );
            }
        }
        None => println!("files      stay where they are"),
    }
    if report.keys {
        println!("keys       copied to {}", target.data.display());
    } else {
        println!("keys       those in {}", target.data.display());
    }
    println!("read-only  {:.2} s", report.window.as_secs_f64());
    println!(
        "in all     {:.1} s{}",
        report.took.as_secs_f64(),
        if report.resumed { ", after what was done before" } else { "" }
    );
    if !report.is_equal() {
        let faults = report.faults.iter().cloned();
        let other = report.tables.iter().filter(|compared| !compared.is_equal());
        let other = other.map(|compared| format!("{} is not the same", compared.name));
        for fault in faults.chain(other) {
            eprintln!("error: {fault}");
        }
        return Err(Failure::new("both ends differ: nothing was given up, and writes are done here again"));
    }
    let database = if target.database.is_some() { " --database-url …" } else { "" };
    println!("\nIt is there now: ntier serve --data {}{database}", shown(&target.data));
    if source.database.is_none() || target.database.is_none() || source.data != target.data {
        println!("Here nothing is written any more; `ntier move --cancel` would let it be.");
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains(' ') { format!("'{text}'") } else { text }
}

fn sums(tables: &[Compared]) -> String {
    let cells = |compared: &Compared| {
        let sum = |hash: i128| Some(format!("{:x}", hash.cast_unsigned() & u128::from(u64::MAX)));
        let same = if compared.is_equal() { "yes" } else { "NO" };
        vec![
            Some(compared.name.clone()),
            Some(compared.source.rows.to_string()),
            Some(compared.target.rows.to_string()),
            sum(compared.source.hash),
            sum(compared.target.hash),
            Some(same.to_owned()),
        ]
    };
    let filled: Vec<_> = tables.iter().filter(|compared| compared.source.rows + compared.target.rows > 0).collect();
    let rows: Vec<_> = filled.iter().map(|compared| cells(compared)).collect();
    let empty = tables.len() - filled.len();
    let table = table::render(&["table", "rows here", "rows there", "checksum here", "checksum there", "same"], &rows);
    format!("{table}tables     {}, {empty} of them empty at both ends\n", tables.len())
}

/// Says what is being done: on a terminal in one line that changes, elsewhere a line for each table and now and then one more.
#[derive(Default)]
struct Teller(Mutex<Told>);

#[derive(Default)]
struct Told {
    about: String,
    at: Option<Instant>,
    /// A line without an end is on the screen.
    open: bool,
}

impl Teller {
    fn tell(&self, event: Event<'_>) {
        match event {
            Event::Opened(name) => self.line(&format!("opened {name}")),
            Event::Doing(what) => self.line(&format!("{what} …")),
            Event::Rows { table, rows } => self.count(table, &format!("copying {table}, {rows} rows")),
            Event::Files { count } => self.count("files", &format!("copying files, {count}")),
            Event::Looking { table } => self.count(table, &format!("looking at {table}")),
            Event::Comparing { table } => self.count(table, &format!("comparing {table}")),
            Event::Note(note) => self.line(&format!("note: {note}")),
            Event::Closed => self.line("writes are refused here from now on"),
            Event::Reopened => self.line("writes are done here again"),
        }
    }

    fn line(&self, text: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut told.open) {
            eprint!("\r\x1b[K");
        }
        eprintln!("{text}");
    }

    fn count(&self, about: &str, text: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
            told.open = true;
        } else if told.about != about || told.at.is_none_or(|at| at.elapsed() >= PATIENCE) {
            eprintln!("{text}");
            told.at = Some(Instant::now());
        }
        about.clone_into(&mut told.about);
    }
}
