//! `ntier migrate`: applies our own migrations and the project's, then ends. A node that runs beside it sees the new schema.

use clap::ArgMatches;
use ntier::project::{Status, migrate};
use ntier::server::{self, Step};
use ntier::settings::{Loaded, Mode};

use crate::failure::Failure;
use crate::progress::Progress;
use crate::{arguments, table};

pub async fn run(flags: &ArgMatches) -> Result<(), Failure> {
    let Loaded { settings, project, .. } = arguments::settings(flags, Mode::Serve)?;
    let progress = Progress::new();
    let observe = |step| progress.observe(step);
    let database = server::visit(&settings, std::env::current_exe()?, &observe).await?;
    if flags.get_flag("status") {
        let list = migrate::status(&database, &project).await;
        drop(progress);
        database.close().await;
        show(&list?);
        return Ok(());
    }
    let database = server::prepare(&settings, database, &observe).await?;
    progress.observe(Step::Project);
    let applied = migrate::apply(&database, &project, &|outcome| progress.observe(Step::Done(outcome))).await;
    drop(progress);
    database.close().await;
    if !applied? {
        println!("nothing is pending");
    }
    Ok(())
}

fn show(list: &[Status]) {
    let rows: Vec<Vec<Option<String>>> = list
        .iter()
        .map(|status| {
            let state = match (status.applied, &status.file) {
                (true, Some(_)) => "applied",
                (true, None) => "applied, file is gone",
                (false, _) => "pending",
            };
            vec![Some(status.version.clone()), Some(state.to_owned()), status.file.clone()]
        })
        .collect();
    print!("{}", table::render(&["version", "state", "file"], &rows));
}
