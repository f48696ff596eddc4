//! Where things are: the program under test, and the fixture project.

use std::path::{Path, PathBuf};

/// The program, built beside this test.
///
/// # Panics
/// When it was not built; `cargo xtask test` does.
pub fn program() -> PathBuf {
    crate::report_at_once();
    let test = std::env::current_exe().expect("a test knows its own path");
    let program = test.ancestors().nth(2).expect("a test is in target/<profile>/deps").join("ntier");
    assert!(program.exists(), "{} is missing: cargo build -p ntier-cli", program.display());
    program
}

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository").to_owned()
}

/// The project that all worlds start with.
pub fn project() -> PathBuf {
    repository().join("tests/project")
}

/// Copies a folder with everything in it, but no sockets and locks.
///
/// # Panics
/// When the disk is full or the like.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
}
