//! `ntier dev` and `ntier serve`: a node in this process, until somebody ends it.

use clap::ArgMatches;
use ntier::project::{Project, Source};
use ntier::server::{self, Running};
use ntier::settings::{Mode, Settings};

use crate::end::End;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::watch::Watch;
use crate::{arguments, descriptors};

pub async fn run(name: &str, flags: &ArgMatches) -> Result<(), Failure> {
    descriptors::allow_all();
    let mode = if name == "dev" { Mode::Dev } else { Mode::Serve };
    let loaded = arguments::settings(flags, mode)?;
    let program = std::env::current_exe()?;
    let mut end = End::new()?;
    let progress = Progress::new();
    let observe = |step| progress.observe(step);
    let started = tokio::select! {
        started = server::start(&loaded.settings, &loaded.project, program, &observe) => started,
        () = end.asked() => return Ok(()),
    };
    drop(progress);
    let mut running = started?;
    greet(&running, &loaded.settings, &loaded.project).await;
    let watch = (mode == Mode::Dev).then(|| Watch::new(&loaded.project)).flatten();
    let failed = tokio::select! {
        () = end.asked() => None,
        failed = serve(&mut running, watch) => Some(failed),
    };
    if failed.is_none() {
        eprintln!("stopping: requests under way are answered first; once more ends at once");
    }
    tokio::select! {
        stopped = running.stop() => stopped?,
        () = end.asked() => return Err(Failure::new("ended before all requests were answered")),
    }
    match failed {
        Some(Err(cause)) => Err(Failure::new(format!("the server ended: {cause}"))),
        Some(Ok(())) | None => Ok(()),
    }
}

/// Serves and watches; comes back only when serving ends.
async fn serve(running: &mut Running, watch: Option<Watch>) -> std::io::Result<()> {
    let Some(mut watch) = watch else { return running.failed().await };
    let project = watch.project.clone();
    loop {
        tokio::select! {
            ended = running.failed() => return ended,
            changed = watch.changed() => {
                let progress = Progress::new();
                let applied = running.apply(&project, &|outcome| progress.done(&outcome)).await;
                drop(progress);
                match applied {
                    Ok(true) => {}
                    Ok(false) => tell_unapplied(&changed),
                    Err(cause) => eprintln!("error: {cause}\nnothing of that file was applied; change it, and it is tried again"),
                }
            }
        }
    }
}

fn tell_unapplied(changed: &[String]) {
    for file in changed {
        eprintln!("note: {file} was applied before; put changes in a new migration, or start over without the data");
    }
}

/// What a person needs first. The secret keys are not part of it: `ntier keys` shows them to whoever may read the file.
async fn greet(running: &Running, settings: &Settings, project: &Project) {
    let url = &running.url;
    if settings.mode == Mode::Serve {
        println!("ntier serves {url}");
        return;
    }
    let what = match (&project.source, &project.root) {
        (Source::Sample, _) => "the built-in sample (no folder supabase/ here)".to_owned(),
        (_, Some(root)) => root.display().to_string(),
        (_, None) => "no project".to_owned(),
    };
    let database = match &settings.database {
        None => format!("PostgreSQL 18 inside, data in {}", settings.data.display()),
        Some(address) => format!("PostgreSQL server, database {}", address.database),
    };
    let key = &running.keys.publishable_key;
    let example = match running.example_table().await {
        Some(table) => format!("{url}/rest/v1/{table}?limit=3"),
        // Nothing is granted to visitors yet.
        None => format!("{url}/ready"),
    };
    println!(
        "\n  ntier dev\n\n  \
         URL              {url}\n  \
         Publishable key  {key}\n  \
         Other keys       ntier keys{data}\n  \
         Project          {what}\n  \
         Database         {database}\n{inbox}\n  \
         Try it:\n\n    curl '{example}' -H 'apikey: {key}'\n",
        data = data_flag(settings),
        inbox = match &settings.auth {
            Some(auth) if auth.smtp.is_none() => format!("  Mail             {url}/inbox\n"),
            _ => String::new(),
        },
    );
}

/// How another command finds the same directory.
fn data_flag(settings: &Settings) -> String {
    let usual = std::env::current_dir().is_ok_and(|here| here.join(".ntier") == settings.data);
    if usual { String::new() } else { format!(" --data {}", settings.data.display()) }
}
