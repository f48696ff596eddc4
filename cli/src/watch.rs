//! Watches a project's migrations by looking at their names, times and sizes twice a second: few files, any file system.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ntier::project::{Project, Source};
use tokio::time::{MissedTickBehavior, interval};

pub struct Watch {
    pub project: Project,
    folder: PathBuf,
    seen: BTreeMap<PathBuf, (Option<SystemTime>, u64)>,
    tick: tokio::time::Interval,
}

impl Watch {
    /// `None` where there is no folder to watch.
    pub fn new(project: &Project) -> Option<Self> {
        let Source::Folder(source) = &project.source else { return None };
        let folder = source.join("migrations");
        let mut tick = interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let seen = look(&folder);
        Some(Self { project: project.clone(), folder, seen, tick })
    }

    /// Returns when files were added or changed, with their names, once they stay as they are: an editor writes a
    /// file in several steps.
    pub async fn changed(&mut self) -> Vec<String> {
        let mut settled = self.seen.clone();
        loop {
            self.tick.tick().await;
            let now = look(&self.folder);
            if now != settled {
                settled = now;
                continue;
            }
            if settled != self.seen {
                let before = std::mem::replace(&mut self.seen, settled.clone());
                let changed = settled.iter().filter(|(path, state)| before.get(*path) != Some(state));
                let names: Vec<String> = changed.map(|(path, _)| path.display().to_string()).collect();
                if !names.is_empty() {
                    return names;
                }
            }
        }
    }
}

fn look(folder: &PathBuf) -> BTreeMap<PathBuf, (Option<SystemTime>, u64)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeMap::new() };
    let files = entries.flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .filter_map(|path| {
            let metadata = path.metadata().ok()?;
            Some((path, (metadata.modified().ok(), metadata.len())))
        })
        .collect()
}
