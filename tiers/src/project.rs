//! A project folder as Supabase has it: `supabase/config.toml`, `supabase/migrations/*.sql`, `supabase/seed.sql`.

pub mod config;
mod files;
mod known;
pub mod migrate;
mod script;
pub mod statements;

use std::path::PathBuf;

pub use config::Config;
pub use files::{File, Unread};
pub use migrate::{Failure, Outcome, Status};

use crate::fault::{Fault, Place};
use crate::settings::{Mode, Root};

/// A project: where it is and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The folder that holds `supabase/`; `None` where there is none.
    pub root: Option<PathBuf>,
    /// The folder with the migrations.
    pub source: Source,
    pub config: Config,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The folder `supabase`.
    Folder(PathBuf),
    /// The built-in sample, so that the first start shows something.
    Sample,
    /// A server without a project.
    None,
}

impl Project {
    /// Finds and reads the project. Without a folder, `dev` has its sample.
    pub fn open(root: &Root, mode: Mode, environment: config::Lookup<'_>) -> (Self, Vec<Fault>) {
        let (folder, named) = match root {
            Root::Named(folder) => (folder, true),
            Root::Current(folder) => (folder, false),
        };
        let inner = folder.join("supabase");
        let (root, source) = if inner.is_dir() {
            (folder.clone(), inner)
        } else if named && (folder.join("config.toml").is_file() || folder.join("migrations").is_dir()) {
            // The folder `supabase` itself was named.
            (folder.parent().unwrap_or(folder).to_owned(), folder.clone())
        } else if named {
            let message = format!("there is no project in {}: it has no folder supabase", folder.display());
            return (Self::without_folder(Source::None), vec![Fault::error(Place::Together, message)]);
        } else {
            let source = if mode == Mode::Dev { Source::Sample } else { Source::None };
            return (Self::without_folder(source), Vec::new());
        };
        let path = source.join("config.toml");
        let (config, faults) = match std::fs::read_to_string(&path) {
            Ok(text) => config::parse(&path, &text, environment),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => (Config::default(), Vec::new()),
            Err(cause) => {
                let place = Place::File { path, line: 1 };
                (Config::default(), vec![Fault::error(place, cause.to_string())])
            }
        };
        (Self { root: Some(root), source: Source::Folder(source), config }, faults)
    }

    fn without_folder(source: Source) -> Self {
        Self { root: None, source, config: Config::default() }
    }
}
