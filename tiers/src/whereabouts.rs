//! Where the node of a data directory answers, for commands beside it: a small file that lives as long as the node does.
//!
//! A node that was killed leaves it behind, so it is a hint: whoever reads it asks the address.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    pub process: u32,
    pub url: String,
}

fn path(data: &Path) -> PathBuf {
    data.join("node.json")
}

/// Reads it; `None` where no node has said anything.
pub fn read(data: &Path) -> Option<Whereabouts> {
    let said: Value = serde_json::from_slice(&fs::read(path(data)).ok()?).ok()?;
    let process = said["process"].as_u64().and_then(|process| u32::try_from(process).ok())?;
    Some(Whereabouts { process, url: said["url"].as_str()?.to_owned() })
}

/// Says it: whole or not at all.
pub fn tell(data: &Path, whereabouts: &Whereabouts) -> io::Result<()> {
    let beside = data.join(format!("node.{}.new", whereabouts.process));
    let text = json!({ "process": whereabouts.process, "url": whereabouts.url }).to_string();
    fs::write(&beside, text)?;
    fs::rename(beside, path(data))
}

/// Takes back what this node has said; what another has said in the meantime stays.
pub fn forget(data: &Path, process: u32) {
    if read(data).is_some_and(|said| said.process == process) {
        let _ = fs::remove_file(path(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_and_taken_back_by_the_same_node() {
        let folder = tempfile::tempdir().unwrap();
        let said = Whereabouts { process: 7, url: "http://127.0.0.1:1".into() };
        tell(folder.path(), &said).unwrap();
        forget(folder.path(), 8);
        assert_eq!(read(folder.path()), Some(said));
        forget(folder.path(), 7);
        assert_eq!(read(folder.path()), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
