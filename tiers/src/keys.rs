//! The keys of a data directory: made at the first start, kept in one private file, rotated in it. A project may have signing
//! keys of its own in a file that is not ours to write.
//!
//! A node follows these files by looking at them: that also finds what was copied here from elsewhere, and needs no process to
//! be found.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ntier_security::UnixTime;
use ntier_security::keys::{Fault, Keys, S3Key};
use ntier_security::signing::{Algorithm, Pair, Unusable};
use ntier_security::vault::Vault;
use serde_json::Value;

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
    #[error("{}: key {number} cannot be used: {cause}", path.display())]
    Unusable { path: PathBuf, number: usize, cause: Unusable },
    #[error("{} has no signing key", .0.display())]
    NoPairs(PathBuf),
    #[error("vault_key is no key of 32 bytes in base64url")]
    VaultKey,
    #[error(
        "the signing keys are those of auth.signing_keys_path, {}, a file that is yours to change: put the new key first, and \
         leave the others until their tokens are expired",
        .0.display()
    )]
    Yours(PathBuf),
}

/// How often a node looks whether its keys have changed.
pub const PAUSE: Duration = Duration::from_secs(2);

/// Where they are.
pub fn path(data: &Path) -> PathBuf {
    data.join("keys.json")
}

/// The keys of a node, followed through the changes of their files.
#[derive(Debug)]
pub struct Follower {
    settings: Settings,
    seen: Vec<Option<Stamp>>,
    pub keys: Keys,
}

impl Follower {
    /// Reads the keys, or makes them; refuses those that protect nobody (checklist S1, S2).
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        let path = path(&settings.data);
        match read(&path)? {
            None => create(&path, &Keys::generate(now())?)?,
            Some(keys) if keys.s3.is_none() => complete(settings, &path)?,
            Some(_) => {}
        }
        // Looked at before they are read: a change in between is seen later.
        let seen = stamps(settings);
        Ok(Self { settings: settings.clone(), seen, keys: existing(settings)? })
    }

    /// Whether the keys are others now. Those that cannot be read change nothing.
    pub fn look(&mut self, now: UnixTime) -> Result<bool, Error> {
        let seen = stamps(&self.settings);
        let keys = if seen == self.seen { self.keys.clone() } else { existing(&self.settings)? };
        let keys = keys.living(now, token_life(&self.settings));
        self.seen = seen;
        let changed = keys != self.keys;
        self.keys = keys;
        Ok(changed)
    }
}

/// What differs as soon as a file is written or replaced: the time, the inode, the length.
type Stamp = (SystemTime, u64, u64);

fn stamps(settings: &Settings) -> Vec<Option<Stamp>> {
    let stamp = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.ino(), found.len()))
    };
    let own = path(&settings.data);
    [Some(&own), settings.signing_keys.as_ref()].into_iter().flatten().map(|path| stamp(path)).collect()
}

/// What a rotation has changed.
#[derive(Debug)]
pub struct Rotation {
    pub before: Keys,
    pub after: Keys,
    pub at: UnixTime,
    /// Seconds that a token lives.
    pub token_life: i64,
}

/// Lets another key sign, by default of the same algorithm; the file is replaced as a whole.
pub fn rotate(settings: &Settings, algorithm: Option<Algorithm>) -> Result<Rotation, Error> {
    if let Some(path) = &settings.signing_keys {
        return Err(Error::Yours(path.clone()));
    }
    let path = path(&settings.data);
    let none = || Error::None(settings.data.clone());
    let file = |cause| Error::File { path: path.clone(), cause };
    let folder = match File::open(&settings.data) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Err(none()),
        opened => opened.map_err(file)?,
    };
    // Of two at the same time one waits for the other, until the folder is closed.
    folder.lock().map_err(file)?;
    let before = read(&path)?.ok_or_else(none)?;
    let (at, token_life) = (now(), token_life(settings));
    let after = before.clone().rotate(algorithm.unwrap_or(before.signing_algorithm), at, token_life)?;
    replace(&path, &folder, &text(&path, &after)?).map_err(file)?;
    Ok(Rotation { before, after, at, token_life })
}

/// The keys as their file has them, without what settings say.
pub(crate) fn kept(settings: &Settings) -> Result<Keys, Error> {
    read(&path(&settings.data))?.ok_or_else(|| Error::None(settings.data.clone()))
}

/// Puts these in the place of the file's. Those of another project that were there stay beside it.
pub(crate) fn keep(settings: &Settings, keys: &Keys) -> Result<(), Error> {
    let path = path(&settings.data);
    let file = |cause| Error::File { path: path.clone(), cause };
    let folder = File::open(&settings.data).map_err(file)?;
    folder.lock().map_err(file)?;
    match read(&path)? {
        None => create(&path, keys),
        Some(same) if same == *keys => Ok(()),
        Some(others) => {
            if others.jwt_secret != keys.jwt_secret {
                let before = path.with_extension("before.json");
                let _ = fs::remove_file(&before);
                fs::hard_link(&path, &before).map_err(file)?;
            }
            replace(&path, &folder, &text(&path, keys)?).map_err(file)
        }
    }
}

/// Makes the keys that a file from an older version lacks.
fn complete(settings: &Settings, path: &Path) -> Result<(), Error> {
    let file = |cause| Error::File { path: path.to_owned(), cause };
    let folder = File::open(&settings.data).map_err(file)?;
    folder.lock().map_err(file)?;
    match read(path)? {
        Some(keys) if keys.s3.is_none() => {
            let keys = Keys { s3: Some(S3Key::generate()?), ..keys };
            replace(path, &folder, &text(path, &keys)?).map_err(file)
        }
        // Another node was faster.
        _ => Ok(()),
    }
}

/// Where nobody signs in here, tokens are somebody else's, and live as long as ours do by default.
fn token_life(settings: &Settings) -> i64 {
    settings.auth.as_ref().map_or_else(|| ntier_auth::Settings::default().token_life, |auth| auth.token_life)
}

/// The key with which secrets in the database are sealed, in a file of its own: it outlives the others, which may be changed. Made where
/// there is none.
pub fn vault(settings: &Settings) -> Result<Vault, Error> {
    if let Some(vault) = existing_vault(settings)? {
        return Ok(vault);
    }
    let path = vault_path(settings);
    let made = write_new(&path, &ntier_security::keys::random(32)?);
    made.map_err(|cause| Error::File { path, cause })?;
    existing_vault(settings)?.ok_or_else(|| Error::None(settings.data.clone()))
}

/// Likewise, where there is one.
pub(crate) fn existing_vault(settings: &Settings) -> Result<Option<Vault>, Error> {
    if let Some(key) = &settings.vault_key {
        return Vault::new(key.expose()).map(Some).map_err(|_| Error::VaultKey);
    }
    let path = vault_path(settings);
    let file = |cause| Error::File { path: path.clone(), cause };
    let key = match fs::read_to_string(&path) {
        Ok(key) => key,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(file(cause)),
    };
    let damaged = |_| file(io::Error::new(io::ErrorKind::InvalidData, "it is no key of 32 bytes in base64url"));
    Vault::new(key.trim()).map(Some).map_err(damaged)
}

fn vault_path(settings: &Settings) -> PathBuf {
    settings.data.join("vault.key")
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
    let keys = match &settings.signing_keys {
        Some(path) => keys.with_pairs(pairs(path)?).ok_or_else(|| Error::NoPairs(path.clone()))?,
        None => keys.living(now(), token_life(settings)),
    };
    let s3 = settings.storage.s3_protocol.key().or_else(|| keys.s3.clone());
    let keys = Keys { s3, ..keys };
    if !settings.insecure_dev {
        keys.check()?;
    }
    Ok(keys)
}

/// The private JSON Web Keys in a file of the project.
fn pairs(path: &Path) -> Result<Vec<Pair>, Error> {
    let text = fs::read_to_string(path).map_err(|cause| Error::File { path: path.to_owned(), cause })?;
    let jwks: Vec<Value> =
        serde_json::from_str(&text).map_err(|cause| Error::Damaged { path: path.to_owned(), cause })?;
    let pair = |(at, jwk)| {
        Pair::from_jwk(jwk).map_err(|cause| Error::Unusable { path: path.to_owned(), number: at + 1, cause })
    };
    jwks.iter().enumerate().map(pair).collect()
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

fn text(path: &Path, keys: &Keys) -> Result<String, Error> {
    serde_json::to_string_pretty(keys).map_err(|cause| Error::Damaged { path: path.to_owned(), cause })
}

fn create(path: &Path, keys: &Keys) -> Result<(), Error> {
    write_new(path, &text(path, keys)?).map_err(|cause| Error::File { path: path.to_owned(), cause })
}

/// Whole or not at all: written beside it, then linked to its name. Where somebody else was faster, theirs stays.
pub(crate) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let beside = beside(path);
    let linked = write(&beside, text).and_then(|()| fs::hard_link(&beside, path));
    let _ = fs::remove_file(&beside);
    match linked {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

/// Likewise in the place of what is there; it stays its owner's, whoever replaces it.
fn replace(path: &Path, folder: &File, text: &str) -> io::Result<()> {
    let beside = beside(path);
    let replaced = write(&beside, text).and_then(|()| {
        let (old, new) = (fs::metadata(path)?, fs::metadata(&beside)?);
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            chown(&beside, Some(old.uid()), Some(old.gid()))?;
        }
        fs::rename(&beside, path)
    });
    if replaced.is_err() {
        let _ = fs::remove_file(&beside);
    }
    replaced?;
    folder.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.new", std::process::id()))
}

/// Writes a new private file, down to the disk.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.sync_all()
}

pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mode;
    use ntier_security::Secret;

    /// RFC 8037, A.1.
    const THEIRS: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"theirs","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn settings(data: &Path) -> Settings {
        Settings { data: data.into(), ..Settings::new(Mode::Serve) }
    }

    fn obtain(settings: &Settings) -> Result<Keys, Error> {
        Follower::start(settings).map(|follower| follower.keys)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn security_s1_keys_are_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(existing(&settings(folder.path())), Err(Error::None(_))));
        let first = obtain(&settings(folder.path())).unwrap();
        assert_eq!(obtain(&settings(folder.path())).unwrap(), first);
        assert_eq!(mode(&path(folder.path())), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::set_permissions(path(folder.path()), Permissions::from_mode(0o644)).unwrap();
        obtain(&settings(folder.path())).unwrap();
        assert_eq!(mode(&path(folder.path())), 0o600);
    }

    #[test]
    fn a_key_for_s3_is_added_to_a_file_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path());
        let old = Keys { s3: None, ..Keys::generate(1).unwrap() };
        create(&path(folder.path()), &old).unwrap();
        let keys = obtain(&settings).unwrap();
        assert!(keys.s3.is_some());
        assert_eq!(Keys { s3: None, ..keys.clone() }, old, "the others stay");
        assert_eq!(obtain(&settings).unwrap(), keys);
        let own = S3Key { access_key_id: "mine".into(), secret_access_key: Secret::new("x".repeat(32)) };
        settings.storage.s3_protocol.access_key_id = Some(own.access_key_id.clone());
        settings.storage.s3_protocol.secret_access_key = Some(own.secret_access_key.clone());
        assert_eq!(obtain(&settings).unwrap().s3, Some(own));
        assert_eq!(read(&path(folder.path())).unwrap(), Some(keys), "what a setting says is not kept");
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
    fn security_s1_a_rotation_replaces_the_file_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        assert!(matches!(rotate(&settings, None), Err(Error::None(_))));
        let missing = Settings { data: folder.path().join("nowhere"), ..settings.clone() };
        assert!(matches!(rotate(&missing, None), Err(Error::None(_))));
        let first = obtain(&settings).unwrap();
        fs::set_permissions(path(folder.path()), Permissions::from_mode(0o644)).unwrap();
        let inode = || fs::metadata(path(folder.path())).unwrap().ino();
        let before = inode();
        let rotation = rotate(&settings, None).unwrap();
        assert_eq!((&rotation.before, rotation.after.signing_algorithm), (&first, Algorithm::Es256));
        assert_eq!(rotation.after.signing(), first.standby[0]);
        assert_eq!(existing(&settings).unwrap(), rotation.after);
        assert_ne!(inode(), before, "whoever reads sees the one or the other");
        assert_eq!(mode(&path(folder.path())), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let edwards = rotate(&settings, Some(Algorithm::EdDsa)).unwrap().after;
        assert_eq!(edwards.signing_algorithm, Algorithm::EdDsa);
        let again = rotate(&settings, None).unwrap().after;
        assert_eq!((again.signing_algorithm, again.previous.len()), (Algorithm::EdDsa, 3), "as the one before");
    }

    #[test]
    fn a_rotation_by_root_leaves_the_file_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        obtain(&settings).unwrap();
        // Only root can give it away; for anybody else there is nothing to see.
        let owner = if chown(path(folder.path()), Some(7), Some(8)).is_ok() {
            (7, 8)
        } else {
            let found = fs::metadata(path(folder.path())).unwrap();
            (found.uid(), found.gid())
        };
        rotate(&settings, None).unwrap();
        let found = fs::metadata(path(folder.path())).unwrap();
        assert_eq!((found.uid(), found.gid()), owner);
    }

    #[test]
    fn rotations_at_the_same_time_come_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        obtain(&settings).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| rotate(&settings, None).unwrap());
            }
        });
        assert_eq!(existing(&settings).unwrap().previous.len(), 4);
    }

    #[test]
    fn a_node_follows_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let mut follower = Follower::start(&settings).unwrap();
        assert!(!follower.look(now()).unwrap());
        let rotation = rotate(&settings, Some(Algorithm::EdDsa)).unwrap();
        assert!(follower.look(now()).unwrap());
        assert_eq!(follower.keys, rotation.after);
        assert!(!follower.look(now()).unwrap());
        let damaged = fs::read_to_string(path(folder.path())).unwrap();
        fs::write(path(folder.path()), "{").unwrap();
        assert!(matches!(follower.look(now()), Err(Error::Damaged { .. })));
        assert_eq!(follower.keys, rotation.after, "those that it had are still good");
        fs::write(path(folder.path()), damaged).unwrap();
        assert!(!follower.look(now()).unwrap());
        let end = rotation.after.previous[0].ends(rotation.token_life);
        assert!(!follower.look(end).unwrap() && follower.look(end + 1).unwrap());
        assert!(follower.keys.previous.is_empty(), "nobody has to write for that");
    }

    #[test]
    fn a_project_may_have_signing_keys_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signing_keys.json");
        let settings = Settings { signing_keys: Some(file.clone()), ..settings(&folder.path().join("data")) };
        fs::create_dir(&settings.data).unwrap();
        let cases = [
            ("{}", "signing_keys.json is damaged"),
            ("[]", "signing_keys.json has no signing key"),
            (r#"[{"kty":"oct","k":"AAAA"}]"#, "signing_keys.json: key 1 cannot be used: it is none of EC"),
        ];
        for (text, message) in cases {
            fs::write(&file, text).unwrap();
            let told = obtain(&settings).unwrap_err().to_string();
            assert!(told.contains(message), "{told}");
        }
        fs::remove_file(&file).unwrap();
        assert!(matches!(obtain(&settings), Err(Error::File { .. })));
        fs::write(&file, format!("[{THEIRS}]")).unwrap();
        let mut follower = Follower::start(&settings).unwrap();
        assert_eq!((follower.keys.signing_key_id.as_str(), follower.keys.standby.len()), ("theirs", 0));
        assert!(matches!(rotate(&settings, None), Err(Error::Yours(path)) if path == file));
        fs::write(&file, format!("[{}, {THEIRS}]", THEIRS.replace("theirs", "next"))).unwrap();
        assert!(follower.look(now()).unwrap());
        assert_eq!((follower.keys.signing_key_id.as_str(), follower.keys.standby[0].id.as_str()), ("next", "theirs"));
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
