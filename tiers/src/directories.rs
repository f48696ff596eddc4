//! The data directory: nobody else's business.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("cannot create {}: {cause}", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub cause: io::Error,
}

/// Creates it with mode 0700. One that is there keeps its mode: what is secret in it is private by itself.
pub fn create_private(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|cause| Error { path: path.to_owned(), cause })
}
