//! `cargo xtask bench soak`: whether memory grows under load that goes on. Nothing is judged here but failed requests; the table shows
//! the memory after each round.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::case;
use crate::load;
use crate::measure::GroupMemory;
use crate::subject::Subject;

pub struct Options {
    pub binary: PathBuf,
    pub minutes: u32,
}

/// Seconds of load for each case in a round.
const TURN: u32 = 5;

pub fn soak(options: &Options) -> Result<(), String> {
    load::are_installed(&options.binary)?;
    let cases = case::chosen("")?;
    let server = ntier_tests::postgres::start("");
    server.sql("postgres", "create database bench");
    let subjects = [
        Subject::start("server", &options.binary, Some(server.url("bench")))?,
        Subject::start("embedded", &options.binary, None)?,
    ];
    println!(
        "{:>7} {:>12} {:>12} {:>12}   PSS in MB, requests since the start",
        "minute", "node", "engine", "requests"
    );
    let begun = Instant::now();
    let mut requests = [0.0; 2];
    while begun.elapsed() < Duration::from_secs(60 * u64::from(options.minutes)) {
        for (subject, requests) in subjects.iter().zip(&mut requests) {
            for case in &cases {
                *requests += load::wrk(subject, case, TURN)?.requests;
            }
            let memory = GroupMemory::of(&subject.node)?;
            let minute = begun.elapsed().as_secs_f64() / 60.0;
            let (node, engine) = (memory.node.pss, memory.engine.pss);
            println!("{minute:>7.1} {node:>12.1} {engine:>12.1} {requests:>12.0}   {}", subject.name);
        }
    }
    Ok(())
}
