//! The keys of a data directory: made at the first start, kept in one private file.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ntier_security::keys::{Fault, Keys};
use ntier_security::vault::Vault;

use crate::settings::Settings;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{} is damaged: {cause}", path.display())]
    Damaged { path: PathBuf, cause: serde_json::Error },
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error("there are no keys in {}: start `ntier dev` or `ntier serve` there first", .0.display())]
    None(PathBuf),
}

/// Where they are.
pub fn path(data: &Path) -> PathBuf {
    data.join("keys.json")
}

/// Reads the keys, or makes them; refuses those that protect nobody (checklist S1, S2).
pub fn obtain(settings: &Settings) -> Result<Keys, Error> {
    let path = path(&settings.data);
    let keys = if let Some(keys) = read(&path)? {
        keys
    } else {
        create(&path, &Keys::generate(now())?)?;
        read(&path)?.ok_or_else(|| Error::None(settings.data.clone()))?
    };
    configured(keys, settings)
}

/// The key with which secrets in the database are sealed, in a file of its own: it outlives the others, which may be changed.
pub fn vault(settings: &Settings) -> Result<Vault, Error> {
    let path = settings.data.join("vault.key");
    let file = |cause| Error::File { path: path.clone(), cause };
    let key = match fs::read_to_string(&path) {
        Ok(key) => key,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            write_new(&path, &ntier_security::keys::random(32)?).map_err(file)?;
            fs::read_to_string(&path).map_err(file)?
        }
        Err(cause) => return Err(file(cause)),
    };
    let damaged = |_| file(io::Error::new(io::ErrorKind::InvalidData, "it is no key of 32 bytes in base64url"));
    Vault::new(key.trim()).map_err(damaged)
}

/// Reads the keys that a start has made.
pub fn existing(settings: &Settings) -> Result<Keys, Error> {
    let keys = read(&path(&settings.data))?.ok_or_else(|| Error::None(settings.data.clone()))?;
    configured(keys, settings)
}

fn configured(keys: Keys, settings: &Settings) -> Result<Keys, Error> {
    let keys = match &settings.jwt_secret {
        Some(secret) => keys.with_jwt_secret(secret.expose(), now())?,
        None => keys,
    };
    if !settings.insecure_dev {
        keys.check()?;
    }
    Ok(keys)
}

fn read(path: &Path) -> Result<Option<Keys>, Error> {
    let file = |cause| Error::File { path: path.to_owned(), cause };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(file(cause)),
    };
    // A copy or a restore may have opened it to others.
    if fs::metadata(path).map_err(file)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(file)?;
    }
    let keys = serde_json::from_str(&text).map_err(|cause| Error::Damaged { path: path.to_owned(), cause })?;
    Ok(Some(keys))
}

/// Whole or not at all: written beside it, then linked to its name. Where somebody else was faster, theirs stay.
fn create(path: &Path, keys: &Keys) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(keys).map_err(|cause| Error::Damaged { path: path.to_owned(), cause })?;
    write_new(path, &text).map_err(|cause| Error::File { path: path.to_owned(), cause })
}

/// Likewise of any text.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&beside);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).and_then(|mut out| {
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.sync_all()
    });
    let linked = written.and_then(|()| fs::hard_link(&beside, path));
    let _ = fs::remove_file(&beside);
    match linked {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mode;
    use ntier_security::Secret;

    fn settings(data: &Path) -> Settings {
        Settings { data: data.into(), ..Settings::new(Mode::Serve) }
    }

    #[test]
    fn security_s1_keys_are_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(existing(&settings(folder.path())), Err(Error::None(_))));
        let first = obtain(&settings(folder.path())).unwrap();
        assert_eq!(obtain(&settings(folder.path())).unwrap(), first);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path(folder.path())), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::set_permissions(path(folder.path()), Permissions::from_mode(0o644)).unwrap();
        obtain(&settings(folder.path())).unwrap();
        assert_eq!(mode(&path(folder.path())), 0o600);
    }

    #[test]
    fn those_who_start_together_have_the_same_keys() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Keys::generate(1).unwrap(), Keys::generate(1).unwrap());
        create(&path(folder.path()), &one).unwrap();
        create(&path(folder.path()), &other).unwrap();
        assert_eq!(read(&path(folder.path())).unwrap(), Some(one));
    }

    #[test]
    fn security_s2_a_published_secret_starts_in_insecure_dev_only() {
        let folder = tempfile::tempdir().unwrap();
        let secret = Secret::new("super-secret-jwt-token-with-at-least-32-characters-long".to_owned());
        let mut settings = Settings { jwt_secret: Some(secret), ..settings(folder.path()) };
        assert!(matches!(obtain(&settings), Err(Error::Fault(Fault::Published))));
        settings.insecure_dev = true;
        assert!(obtain(&settings).is_ok());
    }
}
