//! Which database: the embedded one in the data directory, or the server that the settings name.

use std::path::PathBuf;

use ntier_backing::database::{Embedded, EngineCommand, Options, Target};

use crate::settings::Settings;

/// The channel on which PostgREST's users say that the schema changed.
pub const CHANNEL: &str = "pgrst";

/// Where the cluster of a data directory is.
pub fn cluster(settings: &Settings) -> PathBuf {
    settings.data.join("postgres")
}

/// `program` is this executable: its hidden command `engine` is the child.
pub fn target(settings: &Settings, program: PathBuf) -> Target {
    if let Some(address) = &settings.database {
        Target::External(address.clone())
    } else {
        let data = cluster(settings);
        let arguments = vec!["engine".into(), "--data".into(), data.to_string_lossy().into_owned()];
        Target::Embedded(Embedded { data, engine: EngineCommand { program, arguments } })
    }
}

pub fn options(settings: &Settings) -> Options {
    Options {
        connections: settings.connections,
        max_waiting: settings.max_waiting,
        listen: vec![CHANNEL.into()],
        ..Options::default()
    }
}
