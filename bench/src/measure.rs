//! Memory, processor time and start time of a node and its database, as Linux tells them in /proc.

use std::fs;
use std::time::{Duration, Instant};

use ntier_tests::node::Node;
use serde_json::{Value, json};

use crate::case::Case;
use crate::subject::Subject;

/// Of one process, in MB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident set size.
    pub rss: f64,
    /// Proportional set size: what processes share is divided among them, so only this may be summed.
    pub pss: f64,
}

/// Of a node and of its engine, where it has one.
#[derive(Debug, Clone, Copy)]
pub struct GroupMemory {
    pub node: Memory,
    pub engine: Memory,
}

impl GroupMemory {
    pub fn of(node: &Node) -> Result<Self, String> {
        Ok(Self { node: memory(node.process())?, engine: node.engine().map_or(Ok(Memory::default()), memory)? })
    }

    pub fn pss(&self) -> f64 {
        self.node.pss + self.engine.pss
    }

    pub fn rss(&self) -> f64 {
        self.node.rss + self.engine.rss
    }

    pub fn json(&self) -> Value {
        let one = |memory: Memory| json!({ "rss_mb": memory.rss, "pss_mb": memory.pss });
        json!({ "node": one(self.node), "engine": one(self.engine) })
    }
}

/// Of one process, by now.
pub fn memory(process: u32) -> Result<Memory, String> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|cause| format!("{path}: {cause}"))?;
    let megabytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kilobytes.map(|kilobytes| kilobytes / 1024.0).ok_or_else(|| format!("{path} says no {name}"))
    };
    Ok(Memory { rss: megabytes("Rss:")?, pss: megabytes("Pss:")? })
}

/// The most that a process has had in memory at once, in MB.
pub fn peak(process: u32) -> Result<f64, String> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).map_err(|cause| format!("{path}: {cause}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.map(|kilobytes| kilobytes / 1024.0).ok_or_else(|| format!("{path} says no VmHWM"))
}

/// Lets [`peak`] begin anew.
pub fn forget_peak(process: u32) -> Result<(), String> {
    let path = format!("/proc/{process}/clear_refs");
    fs::write(&path, "5").map_err(|cause| format!("{path}: {cause}"))
}

/// Processor time that a process and all below it have had, with that of children which ended meanwhile.
pub fn processor_time(process: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let time = |task: &fs::DirEntry| -> Duration {
        let path = task.path();
        let nanoseconds = fs::read_to_string(path.join("schedstat"))
            .ok()
            .and_then(|text| text.split(' ').next().and_then(|first| first.parse().ok()));
        let children = fs::read_to_string(path.join("children")).unwrap_or_default();
        let below: Duration = children.split_whitespace().filter_map(|id| id.parse().ok()).map(processor_time).sum();
        Duration::from_nanos(nanoseconds.unwrap_or_default()) + below
    };
    tasks.map(|task| time(&task)).sum::<Duration>() + ended_children_time(process)
}

/// The kernel tells it in hundredths of a second.
fn ended_children_time(process: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in parentheses may have spaces; cutime and cstime are the 14th and 15th field behind it.
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks: f64 = behind.split_whitespace().skip(13).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / 100.0)
}

/// The share of the processors that somebody uses now, while nothing of ours runs: the more, the less a rate says.
pub fn busy() -> Result<f64, String> {
    let read = || -> Result<(f64, f64), String> {
        let text = fs::read_to_string("/proc/stat").map_err(|cause| format!("/proc/stat: {cause}"))?;
        let times: Vec<f64> = text.lines().next().map(numbers).unwrap_or_default();
        // user nice system idle iowait …
        let idle = times.iter().skip(3).take(2).sum();
        Ok((idle, times.iter().take(8).sum()))
    };
    let (idle, all) = read()?;
    std::thread::sleep(Duration::from_secs(1));
    let (idle_then, all_then) = read()?;
    Ok(1.0 - (idle_then - idle) / (all_then - all).max(1.0))
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Several starts on what is there, from the start of the process to the first answer of the data API, shortest first.
pub fn starts(subject: &mut Subject, case: &Case, count: usize) -> Result<Vec<Duration>, String> {
    let mut times = Vec::new();
    for _ in 0..count {
        subject.node.stop();
        let begun = Instant::now();
        subject.restart()?;
        subject.ask(case, "1")?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times)
}
