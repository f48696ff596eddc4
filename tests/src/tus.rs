//! The unmodified tus-js-client, in a program that goes on with what was sent before (`tests/clients/tus`).

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{directory, npm};

/// Sends a file to the bucket `films`, in chunks of so many bytes, and remembers that in another file; what else there is to say
/// is said in its environment.
///
/// # Panics
/// When its packages cannot be installed.
pub fn client(url: &str, file: &Path, chunk: usize, memory: &Path) -> Command {
    let folder = directory::repository().join("tests/clients/tus");
    npm::install(&folder);
    let mut command = npm::command("node", &folder);
    command.arg("upload.mjs").env("ENDPOINT", format!("{url}/storage/v1/upload/resumable")).env("BUCKET", "films");
    command.env("FILE", file).env("CHUNK", chunk.to_string()).env("MEMORY", memory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Bytes of a film: they differ from place to place.
pub fn film(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(next).collect()
}
