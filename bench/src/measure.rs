//! Start time and memory of a node and its engine.

use std::fs;
use std::time::{Duration, Instant};

use ntier_tests::node::Node;

use crate::subject::Subject;

/// Of a node and of its engine, in MB: proportional set size, where what processes share is divided among them.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub node: f64,
    pub engine: f64,
}

pub fn memory(node: &Node) -> Result<Memory, String> {
    let of = |process: u32| -> Result<f64, String> {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(|cause| format!("{path}: {cause}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kilobytes.map(|kilobytes| kilobytes / 1024.0).ok_or_else(|| format!("{path} says no Pss"))
    };
    Ok(Memory { node: of(node.process())?, engine: node.engine().map_or(Ok(0.0), of)? })
}

/// The middle one of several starts on what is there, from the start of the process to the first answer of the data API.
pub fn starts(subject: &mut Subject, count: usize) -> Result<Duration, String> {
    let mut times = Vec::new();
    for _ in 0..count {
        subject.node.stop();
        let begun = Instant::now();
        subject.restart()?;
        let mut request =
            ntier_tests::world::agent().get(format!("{}/rest/v1/items?select=id&id=eq.1", subject.node.url));
        for (name, value) in &subject.headers {
            request = request.header(*name, value);
        }
        let status = request.call().map_err(|cause| cause.to_string())?.status();
        if !status.is_success() {
            return Err(format!("the first answer was {status}"));
        }
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}
