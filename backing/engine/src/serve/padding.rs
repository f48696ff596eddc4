//! Files that are only in the way, so that a recovery comes to its end.
//!
//! After a crash PostgreSQL makes each unlogged relation anew: it goes through the folder of a database, and for `17921_init` it makes
//! `17921`. The engine's file system gives a folder in portions, in the order of names, and counts where a portion begins: each file that
//! is made meanwhile moves those behind it, so at the next portion some are given once more. If one of them is such a file, what it is to
//! make is there already, and the database would never open again. With other files before them the portions are cut elsewhere.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// How often the portions are cut anew.
const ATTEMPTS: u32 = 10;
/// Files that are added each time; a portion has somewhat more than a hundred.
const STEP: u32 = 17;

/// What was put in the way, until the database is open or given up.
#[derive(Debug, Default)]
pub struct Padding {
    files: Vec<PathBuf>,
    attempts: u32,
}

impl Padding {
    /// Whether it is worth another attempt, after this was the cause that the last one failed.
    pub fn helps(&mut self, data: &Path, cause: &str) -> bool {
        let Some(folder) = folder(cause) else { return false };
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            return false;
        }
        let folder = data.join("cluster/pgdata").join(folder);
        for _ in 0..STEP {
            // Before all numbers, and no name of PostgreSQL's.
            let file = folder.join(format!("0-{}", self.files.len()));
            if File::create(&file).is_err() {
                return false;
            }
            self.files.push(file);
        }
        true
    }
}

impl Drop for Padding {
    fn drop(&mut self) {
        for file in &self.files {
            // PostgreSQL does not mind one that stays.
            let _ = fs::remove_file(file);
        }
    }
}

/// The folder of a database in which a relation's file was there already.
fn folder(cause: &str) -> Option<&str> {
    let (_, rest) =
        cause.split_once("could not create file \\\"").or_else(|| cause.split_once("could not create file \""))?;
    let (file, rest) = rest.split_once(['"', '\\'])?;
    let (folder, name) = file.rsplit_once('/')?;
    let is_plain = !folder.split('/').any(|step| step.is_empty() || step == "..");
    let is_relation = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    (is_plain && is_relation && folder.starts_with("base/") && rest.contains(": File exists")).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_already_names_its_folder() {
        let said = |file: &str, why: &str| {
            format!(
                "Postgres startup returned: E(code=\"58P02\", message=\"could not create file \\\"{file}\\\": {why}\")"
            )
        };
        for (cause, expected) in [
            (said("base/5/17921", "File exists"), Some("base/5")),
            ("could not create file \"base/5/17921\": File exists".into(), Some("base/5")),
            (said("base/5/17921", "No space left on device"), None),
            (said("base/../../x/17921", "File exists"), None),
            (said("base/5/postmaster.pid", "File exists"), None),
            ("something else".into(), None),
        ] {
            assert_eq!(folder(&cause), expected, "{cause}");
        }
    }

    #[test]
    fn what_was_put_in_the_way_is_taken_away() {
        let data = std::env::temp_dir().join(format!("ntier-padding-{}", std::process::id()));
        let folder = data.join("cluster/pgdata/base/5");
        fs::create_dir_all(&folder).unwrap();
        let count = || fs::read_dir(&folder).unwrap().count();
        let mut padding = Padding::default();
        let cause = "could not create file \"base/5/17921\": File exists";
        assert!(padding.helps(&data, cause) && padding.helps(&data, cause));
        assert_eq!(count(), 2 * STEP as usize);
        drop(padding);
        assert_eq!(count(), 0);
        fs::remove_dir_all(data).unwrap();
    }
}
