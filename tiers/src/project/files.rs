//! The SQL files of a project, in the order in which they are applied.

use std::path::{Path, PathBuf};

use super::{Project, Source};

/// A migration or a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// As it is shown and, for a seed, recorded: `supabase/migrations/20260101000000_films.sql`.
    pub label: String,
    /// The digits before the first underscore; empty for a seed.
    pub version: String,
    pub name: String,
    pub text: String,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {cause}", path.display())]
pub struct Unread {
    pub path: PathBuf,
    pub cause: std::io::Error,
}

const SAMPLE: &str = include_str!("../../../examples/hello/supabase/migrations/20260101000000_messages.sql");

impl Project {
    /// The migrations, oldest first, and the names of files that are none.
    pub fn migrations(&self) -> Result<(Vec<File>, Vec<String>), Unread> {
        let folder = match &self.source {
            Source::Folder(folder) => folder,
            Source::Sample => return Ok((vec![sample()], Vec::new())),
            Source::None => return Ok((Vec::new(), Vec::new())),
        };
        if !self.config.migrations_enabled {
            return Ok((Vec::new(), Vec::new()));
        }
        let (mut files, mut others) = (Vec::new(), Vec::new());
        for path in list(&folder.join("migrations"))? {
            let label = label(folder, &path);
            match path.file_name().and_then(|name| name.to_str()).and_then(parse_name) {
                Some((version, name)) => {
                    let (version, name) = (version.to_owned(), name.to_owned());
                    files.push(File { label, version, name, text: read(&path)? });
                }
                None if path.extension().is_some_and(|extension| extension == "sql") => others.push(label),
                None => {}
            }
        }
        Ok((files, others))
    }

    /// The files of a folder that go into a bucket, each with the name that it gets there; of one file, that file. Links are not
    /// followed. `None` where there is nothing.
    pub fn objects(&self, path: &str) -> Result<Option<Vec<(String, PathBuf)>>, Unread> {
        let Source::Folder(folder) = &self.source else { return Ok(None) };
        let root = folder.join(path.strip_prefix("./").unwrap_or(path));
        if root.is_file() {
            let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Some(vec![(name, root)]));
        }
        if !root.is_dir() {
            return Ok(None);
        }
        let mut objects = Vec::new();
        walk(&root, "", &mut objects)?;
        objects.sort();
        Ok(Some(objects))
    }

    /// The seeds, in the order of the configuration.
    pub fn seeds(&self) -> Result<Vec<File>, Unread> {
        let Source::Folder(folder) = &self.source else { return Ok(Vec::new()) };
        if !self.config.seed_enabled {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for pattern in &self.config.seed_paths {
            for path in glob(folder, pattern)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push(File { label: label(folder, &path), version: String::new(), name, text: read(&path)? });
            }
        }
        Ok(files)
    }
}

fn sample() -> File {
    File {
        label: "the built-in sample".into(),
        version: "20260101000000".into(),
        name: "messages".into(),
        text: SAMPLE.into(),
    }
}

/// `<digits>_<name>.sql`, as the Supabase CLI has it.
fn parse_name(file: &str) -> Option<(&str, &str)> {
    let (version, name) = file.strip_suffix(".sql")?.split_once('_')?;
    (!version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())).then_some((version, name))
}

fn label(folder: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(folder).unwrap_or(path);
    Path::new("supabase").join(inside).to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<String, Unread> {
    std::fs::read_to_string(path).map_err(|cause| Unread { path: path.to_owned(), cause })
}

/// The files of a folder by name; none where there is no folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Unread> {
    let unread = |cause| Unread { path: folder.to_owned(), cause };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(unread(cause)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unread)?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Gathers the files of a folder and of those in it; `prefix` is the folder's name in the bucket.
fn walk(folder: &Path, prefix: &str, objects: &mut Vec<(String, PathBuf)>) -> Result<(), Unread> {
    let unread = |cause| Unread { path: folder.to_owned(), cause };
    for entry in std::fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let kind = entry.file_type().map_err(unread)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            walk(&entry.path(), &format!("{name}/"), objects)?;
        } else if kind.is_file() {
            objects.push((name, entry.path()));
        }
    }
    Ok(())
}

/// `*` stands for any part of the file's name; folders are written out.
fn glob(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, Unread> {
    let path = folder.join(pattern.strip_prefix("./").unwrap_or(pattern));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let files = list(path.parent().unwrap_or(folder))?;
    let fits = |file: &PathBuf| matches(&name, &file.file_name().unwrap_or_default().to_string_lossy());
    Ok(files.into_iter().filter(fits).collect())
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Config;

    #[test]
    fn names_have_a_version() {
        assert_eq!(parse_name("20260101000000_a_b.sql"), Some(("20260101000000", "a_b")));
        assert_eq!(parse_name("1_.sql"), Some(("1", "")));
        for other in ["films.sql", "_x.sql", "1a_x.sql", "1_x.txt", "1.sql"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_any_part() {
        for (pattern, name, fits) in
            [("*.sql", "a.sql", true), ("*.sql", "a.txt", false), ("s*d*.sql", "seed-1.sql", true), ("a", "a", true)]
        {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn files_for_a_bucket_have_their_folders_in_their_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("films/old")).unwrap();
        for name in ["films/b.txt", "films/old/a.txt", "secret"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(folder.path().join("secret"), folder.path().join("films/link")).unwrap();
        let project = Project { root: None, source: Source::Folder(folder.path().into()), config: Config::default() };
        let names = |path: &str| {
            let objects = project.objects(path).unwrap()?;
            Some(objects.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        assert_eq!(names("./films"), Some(vec!["b.txt".to_owned(), "old/a.txt".to_owned()]));
        assert_eq!(names("films/b.txt"), Some(vec!["b.txt".to_owned()]));
        assert_eq!(names("elsewhere"), None);
    }

    #[test]
    fn files_are_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("supabase");
        std::fs::create_dir_all(inner.join("migrations")).unwrap();
        for name in ["2_b.sql", "10_c.sql", "1_a.sql", "notes.sql", "README.md"] {
            std::fs::write(inner.join("migrations").join(name), "").unwrap();
        }
        std::fs::write(inner.join("seed.sql"), "select 1").unwrap();
        let project =
            Project { root: Some(folder.path().into()), source: Source::Folder(inner), config: Config::default() };
        let (files, others) = project.migrations().unwrap();
        let versions: Vec<&str> = files.iter().map(|file| file.version.as_str()).collect();
        assert_eq!(versions, ["10", "1", "2"], "by name, as the Supabase CLI has it");
        assert_eq!(others, ["supabase/migrations/notes.sql"]);
        assert_eq!(project.seeds().unwrap()[0].label, "supabase/seed.sql");
    }
}
