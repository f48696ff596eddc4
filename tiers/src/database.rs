//! Which database: the embedded one in the data directory, or the server that the settings name.

use std::path::PathBuf;

use ntier_backing::database::{Embedded, EngineCommand, Options, Target};

use crate::defence;
use crate::settings::Settings;

/// The channel on which PostgREST's users say that the schema changed.
pub const CHANNEL: &str = "pgrst";

/// `program` is this executable: its hidden command `engine` is the child.
pub fn target(settings: &Settings, program: PathBuf) -> Target {
    match &settings.database {
        Some(address) => Target::External(address.clone()),
        None => Target::Embedded(embedded(settings, program)),
    }
}

/// The engine allocates much while it opens and little afterwards: its allocator (mimalloc, where the program uses it) gives back
/// at once what it does not use, 40 MB (docs/decisions/0002-embedded-engine.md).
const ENVIRONMENT: &[(&str, &str)] =
    &[("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ARENA_EAGER_COMMIT", "0"), (MARK, "1")];
/// So a child knows itself in an executable that is not ours.
pub(crate) const MARK: &str = "NTIER_IS_ENGINE";

fn embedded(settings: &Settings, program: PathBuf) -> Embedded {
    let data = settings.data.clone();
    let arguments = vec!["engine".into(), "--data".into(), data.to_string_lossy().into_owned()];
    Embedded { data, engine: EngineCommand { program, arguments, environment: ENVIRONMENT.to_vec() } }
}

/// For a command that comes and goes: a database that a node serves now is shared with it, else it is started.
pub async fn visit(settings: &Settings, program: PathBuf) -> Target {
    match target(settings, program) {
        Target::Embedded(embedded) if embedded.is_served().await => Target::External(embedded.address("ntier command")),
        target => target,
    }
}

/// For a node: it shares its connections among requests.
pub fn options(settings: &Settings) -> Options {
    Options {
        connections: settings.connections,
        max_waiting: settings.max_waiting,
        listen: vec![CHANNEL.into(), defence::CHANNEL.into()],
        ..Options::default()
    }
}

/// For a command: one connection, nobody to listen.
pub fn visitor() -> Options {
    Options { connections: 1, ..Options::default() }
}
