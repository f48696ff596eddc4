//! `ntier rest`: the data API alone, in the place of PostgREST, until somebody ends it.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use ntier::rest::{self, Running, Sources, Step};
use tokio::signal::unix::{SignalKind, signal};

use crate::end::End;
use crate::failure::Failure;

pub async fn run(flags: &ArgMatches) -> Result<(), Failure> {
    let environment = std::env::vars_os();
    let sources = Sources {
        file: flags.get_one::<PathBuf>("file").cloned(),
        environment: environment
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    };
    let mut end = End::new()?;
    let started = tokio::select! {
        started = rest::start(sources, &tell) => started,
        () = end.asked() => return Ok(()),
    };
    let mut running = started.map_err(|error| match error {
        rest::Error::Settings(faults) => Failure::faults(&faults),
        other => other.into(),
    })?;
    println!("ntier rest serves {}", running.place);
    if let Some(admin) = &running.admin {
        println!("for operators {admin}/ready");
    }
    let failed = tokio::select! {
        () = end.asked() => None,
        failed = serve(&mut running) => Some(failed?),
    };
    if failed.is_none() {
        eprintln!("stopping: requests under way are answered first; once more ends at once");
    }
    tokio::select! {
        stopped = running.stop() => stopped?,
        () = end.asked() => return Err(Failure::new("ended before all requests were answered")),
    }
    Ok(())
}

/// Serves, and reads everything again on SIGUSR1 and SIGUSR2; comes back only when serving ends.
async fn serve(running: &mut Running) -> Result<(), Failure> {
    let mut schema = signal(SignalKind::user_defined1())?;
    let mut config = signal(SignalKind::user_defined2())?;
    loop {
        tokio::select! {
            ended = running.failed() => return ended.map_err(|cause| Failure::new(format!("the server ended: {cause}"))),
            _ = schema.recv() => running.reload(),
            _ = config.recv() => running.reload(),
        }
    }
}

fn tell(step: Step<'_>) {
    match step {
        Step::Remark(fault) => eprintln!("{fault}"),
        Step::Waiting { cause, pause } => {
            let pause = Duration::as_secs(&pause);
            eprintln!("the database cannot be used yet, next attempt in {pause} s: {cause}");
        }
    }
}
