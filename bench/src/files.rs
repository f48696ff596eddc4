//! `cargo xtask bench files`: public downloads beside nginx, which serves the very same files of the same folder; uploads beside a plain
//! copy with fsync to the same disk; and how much memory a large file takes. README.md says how to read it.

mod disk;
mod nginx;

use std::io::{self, Read};
use std::time::Duration;

use ntier_tests::postgres::Postgres;
use ntier_tests::world::{agent, hasty_agent};
use serde_json::{Value, json};

use crate::load::{self, Answered, CONNECTIONS, Load, Wrk};
use crate::measure;
use crate::run::Options;
use crate::subject::{self, Subject};
use nginx::Nginx;

/// What is downloaded: its name, its size, and how many connections ask for it.
const DOWNLOADS: [(&str, usize, u32); 2] = [("10 kB", 10_000, CONNECTIONS), ("10 MB", 10_000_000, 8)];
/// Who uploads at once.
const UPLOADERS: [usize; 2] = [1, 4];
const UPLOADED: usize = 10_000_000;
/// Files whose memory is compared.
const LARGE: [(&str, u64); 2] = [("10 MB", 10_000_000), ("2 GB", 2_000_000_000)];
const LARGEST: &str = "3GiB";

/// One thing on one subject, in each round with what it is held against.
struct Line {
    name: String,
    subject: &'static str,
    rounds: Vec<Beside>,
}

#[derive(Debug, Clone)]
struct Beside {
    /// Requests a second, or MB a second.
    rate: f64,
    other: f64,
    /// Of one request, or of one file.
    p99_ms: f64,
    other_p99_ms: f64,
}

impl Beside {
    fn ratio(&self) -> f64 {
        self.rate / self.other
    }
}

impl Line {
    /// The round whose ratio is in the middle; the lower one where there are two.
    fn middle(&self) -> Option<&Beside> {
        let mut rounds: Vec<_> = self.rounds.iter().collect();
        rounds.sort_by(|one, other| one.ratio().total_cmp(&other.ratio()));
        rounds.get(rounds.len().saturating_sub(1) / 2).copied()
    }
}

pub fn files(options: &Options) -> Result<(), String> {
    load::are_installed(&options.binary)?;
    nginx::is_installed()?;
    let busy = measure::busy()?;
    let server = ntier_tests::postgres::start("");
    server.sql("postgres", "create database bench");
    let flags = ["--storage-file-size-limit", LARGEST];
    let start = |name, url| Subject::start_project(name, &options.binary, url, &subject::project(), &flags);
    let subjects = [start("server", Some(server.url("bench")))?, start("embedded", None)?];
    let (mut lines, mut memory) = (Vec::new(), Vec::new());
    for subject in &subjects {
        prepare(subject)?;
        for (name, bytes, connections) in DOWNLOADS {
            if format!("download {name}").contains(&options.only) {
                lines.push(download(options, subject, (name, bytes, connections))?);
            }
        }
        for clients in UPLOADERS {
            if "upload 10 MB".contains(&options.only) {
                lines.push(upload(options, subject, clients)?);
            }
        }
        if "memory".contains(&options.only) {
            memory.push(memory_of(subject)?);
        }
    }
    print(options, &server, busy, &lines, &memory);
    if let Some(path) = &options.json {
        let raw = format!("{:#}\n", raw(options, busy, &lines, &memory));
        std::fs::write(path, raw).map_err(|cause| format!("{}: {cause}", path.display()))?;
    }
    Ok(())
}

fn prepare(subject: &Subject) -> Result<(), String> {
    let body = json!({ "id": "files", "name": "files", "public": true }).to_string();
    let url = format!("{}/storage/v1/bucket", subject.node.url);
    let mut made = agent()
        .post(&url)
        .header("apikey", &subject.headers[0].1)
        .header("authorization", &subject.admin)
        .header("content-type", "application/json")
        .send(&body)
        .map_err(|cause| format!("{url}: {cause}"))?;
    if made.status().is_success() { Ok(()) } else { Err(made.body_mut().read_to_string().unwrap_or_default()) }
}

/// Puts a file there, whatever was there before.
fn put(subject: &Subject, name: &str, bytes: u64, mut body: impl Read) -> Result<(), String> {
    let url = format!("{}/storage/v1/object/files/{name}", subject.node.url);
    let mut put = hasty_agent(Duration::from_mins(5))
        .post(&url)
        .header("apikey", &subject.headers[0].1)
        .header("authorization", &subject.admin)
        .header("x-upsert", "true")
        .header("content-type", "application/octet-stream")
        .header("content-length", bytes.to_string())
        .send(ureq::SendBody::from_reader(&mut body))
        .map_err(|cause| format!("{url}: {cause}"))?;
    if put.status().is_success() { Ok(()) } else { Err(put.body_mut().read_to_string().unwrap_or_default()) }
}

fn download(
    options: &Options,
    subject: &Subject,
    (name, bytes, connections): (&str, usize, u32),
) -> Result<Line, String> {
    let key = name.replace(' ', "");
    put(subject, &key, bytes as u64, content(bytes as u64))?;
    let nginx = Nginx::start(&subject.blobs())?;
    let file = disk::of_size(&subject.blobs(), bytes as u64)?;
    let path = format!("/storage/v1/object/public/files/{key}");
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        println!("download {name} from {} … {round} of {}", subject.name, options.rounds);
        let ask = |url: &str, path: &str| -> Result<Answered, String> {
            let found = agent().get(format!("{url}{path}")).call();
            let found = found.map_err(|cause| cause.to_string())?.into_body().into_with_config().limit(u64::MAX);
            if found.read_to_vec().map_err(|cause| cause.to_string())?.len() != bytes {
                return Err(format!("{url}{path} is not the file"));
            }
            let request = ["GET".to_owned(), path.to_owned(), String::new()];
            let measure = |seconds| {
                let load = Load {
                    script: "",
                    request: &request,
                    connections,
                    seconds,
                    pause: Duration::ZERO,
                    patience: load::PATIENCE,
                };
                Wrk::start(url, &load).and_then(Wrk::end).and_then(load::answered)
            };
            measure(options.warm_up)?;
            measure(options.seconds)
        };
        let other = ask(&nginx.url, &format!("/{file}"))?;
        let own = ask(&subject.node.url, &path)?;
        rounds.push(Beside { rate: own.rate, other: other.rate, p99_ms: own.p99_ms, other_p99_ms: other.p99_ms });
    }
    Ok(Line { name: format!("download {name}"), subject: subject.name, rounds })
}

fn upload(options: &Options, subject: &Subject, clients: usize) -> Result<Line, String> {
    let file = content_of(UPLOADED);
    let folder = subject.blobs().join("copies");
    std::fs::create_dir_all(&folder).map_err(|cause| cause.to_string())?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        println!("upload 10 MB to {}, {clients} at once … {round} of {}", subject.name, options.rounds);
        let other = disk::busy(clients, options, |client, _| disk::copy(&folder, client, &file))?;
        let own = disk::busy(clients, options, |client, turn| {
            put(subject, &format!("{client}/{}", turn % 4), file.len() as u64, file.as_slice())
        })?;
        rounds.push(Beside { rate: own.rate, other: other.rate, p99_ms: own.p99_ms, other_p99_ms: other.p99_ms });
    }
    std::fs::remove_dir_all(&folder).map_err(|cause| cause.to_string())?;
    Ok(Line { name: format!("upload 10 MB, {clients} at once"), subject: subject.name, rounds })
}

/// The most that the node has taken while a file went in and came out again.
struct Peak {
    subject: &'static str,
    idle_mb: f64,
    /// Of each of [`LARGE`].
    peaks_mb: Vec<f64>,
}

fn memory_of(subject: &Subject) -> Result<Peak, String> {
    let process = subject.node.process();
    let mut peak = Peak { subject: subject.name, idle_mb: measure::peak(process)?, peaks_mb: Vec::new() };
    for (name, bytes) in LARGE {
        println!("memory of {}, {name} …", subject.name);
        measure::forget_peak(process)?;
        put(subject, "large", bytes, content(bytes))?;
        let url = format!("{}/storage/v1/object/public/files/large", subject.node.url);
        let found = hasty_agent(Duration::from_mins(5)).get(&url).call().map_err(|cause| cause.to_string())?;
        same(found.into_body().into_with_config().limit(u64::MAX).reader(), content(bytes))?;
        peak.peaks_mb.push(measure::peak(process)?);
    }
    Ok(peak)
}

/// Bytes that differ from place to place.
fn content(bytes: u64) -> impl Read {
    let block = content_of(1 << 20);
    let blocks = std::iter::repeat_with(move || io::Cursor::new(block.clone()));
    Blocks { blocks, current: io::Cursor::default() }.take(bytes)
}

struct Blocks<I> {
    blocks: I,
    current: io::Cursor<Vec<u8>>,
}

impl<I: Iterator<Item = io::Cursor<Vec<u8>>>> Read for Blocks<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.current.read(buffer)? {
            0 => {
                self.current = self.blocks.next().unwrap_or_default();
                self.current.read(buffer)
            }
            read => Ok(read),
        }
    }
}

/// Which no disk and no network makes smaller.
fn content_of(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(bytes).collect()
}

fn same(mut one: impl Read, mut other: impl Read) -> Result<(), String> {
    let (mut found, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let read = one.read(&mut found).map_err(|cause| cause.to_string())?;
        if read == 0 {
            let rest = other.read(&mut expected).map_err(|cause| cause.to_string())?;
            return if rest == 0 { Ok(()) } else { Err("the file came back shorter".into()) };
        }
        other.read_exact(&mut expected[..read]).map_err(|_| "the file came back longer")?;
        if found[..read] != expected[..read] {
            return Err("the file came back different".into());
        }
    }
}

fn print(options: &Options, server: &Postgres, busy: f64, lines: &[Line], memory: &[Peak]) {
    println!("\n{}", server.sql("bench", "select version()"));
    println!("{} s for each; others used {:.0} % of the processors before the run", options.seconds, 100.0 * busy);
    println!(
        "\n{:<24} {:<9} {:>10} {:>10} {:>6} {:>9} {:>9}   downloads: requests/s beside nginx; uploads: MB/s beside a copy",
        "", "", "ours", "other", "ratio", "p99 ms", "other"
    );
    for line in lines {
        let Some(middle) = line.middle() else { continue };
        let Beside { rate, other, p99_ms, other_p99_ms } = middle;
        println!(
            "{:<24} {:<9} {rate:>10.0} {other:>10.0} {:>5.0}% {p99_ms:>9.2} {other_p99_ms:>9.2}",
            line.name,
            line.subject,
            100.0 * middle.ratio()
        );
    }
    for Peak { subject, idle_mb, peaks_mb } in memory {
        let peaks: Vec<String> =
            LARGE.iter().zip(peaks_mb).map(|((name, _), peak)| format!("{name}: {peak:.0} MB")).collect();
        println!("{subject:<9} RSS at most, up and down: idle {idle_mb:.0} MB; {}", peaks.join("; "));
    }
}

fn raw(options: &Options, busy: f64, lines: &[Line], memory: &[Peak]) -> Value {
    let round = |beside: &Beside| {
        json!({
            "rate": beside.rate, "other": beside.other, "ratio": beside.ratio(), "p99_ms": beside.p99_ms,
            "other_p99_ms": beside.other_p99_ms,
        })
    };
    let lines = lines.iter().map(|line| {
        json!({ "case": line.name, "subject": line.subject, "rounds": line.rounds.iter().map(round).collect::<Vec<_>>() })
    });
    let memory = memory
        .iter()
        .map(|peak| json!({ "subject": peak.subject, "idle_mb": peak.idle_mb, "peaks_mb": peak.peaks_mb }));
    json!({
        "busy_before": busy, "seconds": options.seconds, "warm_up_seconds": options.warm_up,
        "cases": lines.collect::<Vec<_>>(), "memory": memory.collect::<Vec<_>>(),
    })
}
