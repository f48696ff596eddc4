//! What a node is told: one table of settings, read from files, environment and flags, checked here and nowhere else.
//!
//! A later source wins: the defaults, the project's `supabase/config.toml`, `ntier.toml` beside that folder, the environment
//! (`NTIER_…`), the flags. All faults are told together. Relative paths belong to the current directory, in `ntier.toml`
//! to its own.

mod balance;
mod definitions;
mod load;
mod mails;
pub(crate) mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ntier_backing::blobs::S3Settings;
use ntier_backing::bus;
use ntier_backing::database::{Address, usual_connections};
use ntier_node::Log;
use ntier_security::Secret;
use ntier_security::keys::S3Key;

pub use balance::{Acme, Balance, Challenge};
pub use definitions::{Definition, Kind, definitions};
pub use load::{Loaded, Root, Sources, load, load_file};
pub use ntier_security::network::Network;
pub use value::duration;

pub use crate::defence::Settings as Defence;
use crate::fault::{Fault, Place};

/// Which command asks: they differ in defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On a developer's machine: keys are not required, migrations are watched.
    Dev,
    Serve,
}

/// Everything, assembled.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub mode: Mode,
    /// The folder that holds `supabase/`; `None` for the built-in sample.
    pub project: Option<PathBuf>,
    pub data: PathBuf,
    /// `None` for the embedded database.
    pub database: Option<Address>,
    pub connections: usize,
    pub max_waiting: usize,
    pub listen: SocketAddr,
    /// Whose word about the caller's address and TLS is believed.
    pub trusted_proxy: Vec<Network>,
    pub insecure_dev: bool,
    pub public: Option<PathBuf>,
    /// The web site at `/`, instead of a folder: a public bucket's name.
    pub public_bucket: Option<String>,
    pub jwt_secret: Option<Secret<String>>,
    /// A file of private JSON Web Keys that sign instead of ours.
    pub signing_keys: Option<PathBuf>,
    /// Instead of the file `vault.key`.
    pub vault_key: Option<Secret<String>>,
    /// Where balancers find this node, which then says so in the database.
    pub advertise: Option<String>,
    /// How long a node that is asked to stop goes on to answer, and says that it is not ready.
    pub drain: Option<Duration>,
    /// Tokens that name audiences have to name this one.
    pub jwt_audience: Option<String>,
    pub api: Api,
    /// `None` where sign-in is switched off.
    pub auth: Option<ntier_auth::Settings>,
    pub storage: Storage,
    pub realtime: Realtime,
    pub balance: Balance,
    /// Whoever attacks is kept out.
    pub defence: Defence,
    pub log: Log,
}

/// Channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Realtime {
    pub enabled: bool,
    pub service: ntier_realtime::Settings,
    pub bus: Bus,
    /// On which nodes talk by NATS.
    pub bus_subject: String,
}

/// How nodes hear each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// By the PostgreSQL server, where there is one.
    Usual,
    Local,
    Postgres,
    Nats(bus::Servers),
}

impl Default for Realtime {
    fn default() -> Self {
        Self {
            enabled: true,
            service: ntier_realtime::Settings::default(),
            bus: Bus::Usual,
            bus_subject: "ntier".into(),
        }
    }
}

/// Files.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    pub enabled: bool,
    pub service: ntier_storage::Settings,
    /// Where they are kept; `None` for `files` in the data directory.
    pub folder: Option<PathBuf>,
    /// A blob that no row names is removed when it is so old.
    pub sweep_after: Duration,
    /// Where they are kept instead, if it has a bucket's name.
    pub s3: S3,
    pub s3_protocol: S3Protocol,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            enabled: true,
            service: ntier_storage::Settings::default(),
            folder: None,
            sweep_after: Duration::from_hours(1),
            s3: S3::default(),
            s3_protocol: S3Protocol { enabled: true, access_key_id: None, secret_access_key: None },
        }
    }
}

/// A bucket on S3, of Amazon or of anybody who speaks its protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct S3 {
    pub bucket: Option<String>,
    /// `None` for Amazon's.
    pub endpoint: Option<String>,
    pub region: String,
    pub prefix: String,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret<String>>,
    pub path_style: bool,
    pub allow_http: bool,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            bucket: None,
            endpoint: None,
            region: "us-east-1".into(),
            prefix: String::new(),
            access_key_id: None,
            secret_access_key: None,
            path_style: false,
            allow_http: false,
        }
    }
}

impl S3 {
    /// The bucket, if files are kept in one.
    pub fn bucket(&self) -> Option<S3Settings> {
        Some(S3Settings {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            bucket: self.bucket.clone()?,
            prefix: self.prefix.clone(),
            access_key_id: self.access_key_id.clone()?,
            secret_access_key: self.secret_access_key.clone()?,
            path_style: self.path_style,
            allow_http: self.allow_http,
        })
    }
}

/// S3's protocol, spoken to clients.
#[derive(Debug, Clone, PartialEq)]
pub struct S3Protocol {
    pub enabled: bool,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret<String>>,
}

impl S3Protocol {
    /// Instead of the one that is made at the first start.
    pub fn key(&self) -> Option<S3Key> {
        let (access_key_id, secret_access_key) = (self.access_key_id.clone()?, self.secret_access_key.clone()?);
        Some(S3Key { access_key_id, secret_access_key })
    }
}

/// The data API.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    pub require_key: bool,
    pub schemas: Vec<String>,
    pub extra_search_path: Vec<String>,
    pub max_rows: Option<u64>,
    pub limits: ntier_rest::Limits,
    pub aggregates: bool,
    pub auto_expose_new_tables: bool,
    /// No statement of a request may run longer, whatever its role may.
    pub timeout: Duration,
    pub max_body: u64,
}

impl Settings {
    /// The defaults; everything else is set by [`definitions`].
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            project: None,
            data: PathBuf::from(".ntier"),
            database: None,
            connections: usual_connections(),
            max_waiting: 1000,
            listen: SocketAddr::from(([127, 0, 0, 1], 54321)),
            trusted_proxy: Vec::new(),
            insecure_dev: false,
            public: None,
            public_bucket: None,
            jwt_secret: None,
            signing_keys: None,
            vault_key: None,
            advertise: None,
            drain: None,
            jwt_audience: None,
            api: Api {
                require_key: mode == Mode::Serve,
                schemas: vec!["public".into()],
                extra_search_path: vec!["public".into(), "extensions".into()],
                max_rows: Some(1000),
                limits: ntier_rest::Limits::default(),
                aggregates: false,
                auto_expose_new_tables: false,
                timeout: Duration::from_mins(1),
                max_body: 10 << 20,
            },
            // Whoever tries things out does not wait a minute between two e-mails.
            auth: Some(ntier_auth::Settings {
                mail_pause: if mode == Mode::Dev { 1 } else { 60 },
                ..ntier_auth::Settings::default()
            }),
            storage: Storage::default(),
            realtime: Realtime::default(),
            balance: Balance::default(),
            defence: Defence::default(),
            log: Log::Faults,
        }
    }

    /// What no single setting can say of itself (checklist S2, S3, S4).
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut refuse = |message: String| faults.push(Fault::error(Place::Together, message));
        let public = !self.listen.ip().is_loopback();
        if public && self.trusted_proxy.is_empty() {
            refuse(format!(
                "listening on {} would answer the network without TLS; listen on 127.0.0.1, or put a proxy that ends \
                 TLS in front and name its address in trusted_proxy",
                self.listen
            ));
        }
        if public && self.insecure_dev {
            refuse("insecure_dev is for a loopback address only".into());
        }
        if self.api.schemas.is_empty() {
            refuse("api.schemas needs at least one schema".into());
        }
        if self.database.is_none() && matches!(self.realtime.bus, Bus::Postgres | Bus::Nats(_)) {
            refuse("realtime.bus needs database_url: the embedded database has one node".into());
        }
        let crowdsec = &self.defence.crowdsec;
        if crowdsec.url.is_some() != crowdsec.key.is_some() {
            refuse(
                "defence.crowdsec_url needs defence.crowdsec_key, the key of a bouncer, and the other way round".into(),
            );
        }
        if self.defence.policy.throttle_at > self.defence.policy.ban_at {
            refuse("defence.throttle_at is above defence.ban_at: nobody would be slowed down before".into());
        }
        self.check_files(&mut refuse);
        faults
    }

    /// How this node and the others hear each other.
    pub fn bus(&self) -> bus::Way {
        let Realtime { enabled, bus, bus_subject, .. } = &self.realtime;
        match (&self.database, bus) {
            (Some(address), Bus::Usual | Bus::Postgres) if *enabled => bus::Way::Postgres(address.clone()),
            (Some(_), Bus::Nats(servers)) if *enabled => bus::Way::Nats(servers.clone().on(bus_subject)),
            _ => bus::Way::Local,
        }
    }

    fn check_files(&self, refuse: &mut dyn FnMut(String)) {
        if let (Some(folder), Some(bucket)) = (&self.public, &self.public_bucket) {
            let folder = folder.display();
            refuse(format!(
                "the folder {folder} (public) and the bucket {bucket} (public_bucket) cannot both be served at /"
            ));
        }
        if self.public_bucket.is_some() && !self.storage.enabled {
            refuse("public_bucket needs storage.enabled".into());
        }
        let Storage { s3, s3_protocol, folder, .. } = &self.storage;
        if s3.bucket.is_some() && folder.is_some() {
            refuse("files are kept in storage.folder or in storage.s3.bucket, not in both".into());
        }
        if s3.bucket.is_some() && (s3.access_key_id.is_none() || s3.secret_access_key.is_none()) {
            refuse("storage.s3.bucket needs storage.s3.access_key_id and storage.s3.secret_access_key".into());
        }
        if s3.bucket.is_none() && (s3.endpoint.is_some() || s3.access_key_id.is_some()) {
            refuse("storage.s3 needs a bucket; without one files are kept on the disk".into());
        }
        if s3_protocol.access_key_id.is_some() != s3_protocol.secret_access_key.is_some() {
            refuse("storage.s3_protocol needs both an access_key_id and a secret_access_key, or neither".into());
        }
    }

    /// Whether this address is that of a declared proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxy.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_s3_a_public_address_needs_a_declared_proxy() {
        let mut settings = Settings::new(Mode::Serve);
        assert!(settings.check().is_empty());
        settings.listen = SocketAddr::from(([0, 0, 0, 0], 80));
        assert_eq!(settings.check().len(), 1);
        settings.trusted_proxy = vec!["10.0.0.0/8".parse().unwrap()];
        assert!(settings.check().is_empty());
        assert!(settings.trusts("10.1.2.3".parse().unwrap()) && !settings.trusts("11.1.2.3".parse().unwrap()));
    }

    #[test]
    fn what_is_said_of_files_fits_together() {
        type Change = fn(&mut Settings);
        let faults = |change: fn(&mut Settings)| {
            let mut settings = Settings::new(Mode::Serve);
            change(&mut settings);
            let told: Vec<String> = settings.check().iter().map(ToString::to_string).collect();
            told.join("; ")
        };
        let cases: [(Change, &str); 7] = [
            (|settings| settings.public_bucket = Some("site".into()), ""),
            (
                |settings| {
                    settings.public_bucket = Some("site".into());
                    settings.public = Some("public".into());
                },
                "error: the folder public (public) and the bucket site (public_bucket) cannot both be served at /",
            ),
            (
                |settings| {
                    settings.public_bucket = Some("site".into());
                    settings.storage.enabled = false;
                },
                "error: public_bucket needs storage.enabled",
            ),
            (
                |settings| settings.storage.s3.bucket = Some("files".into()),
                "error: storage.s3.bucket needs storage.s3.access_key_id and storage.s3.secret_access_key",
            ),
            (
                |settings| {
                    settings.storage.s3.bucket = Some("files".into());
                    settings.storage.s3.access_key_id = Some("id".into());
                    settings.storage.s3.secret_access_key = Some(Secret::new("never shown".to_owned()));
                },
                "",
            ),
            (
                |settings| settings.storage.s3.endpoint = Some("https://s3.example.com".into()),
                "error: storage.s3 needs a bucket; without one files are kept on the disk",
            ),
            (
                |settings| settings.storage.s3_protocol.secret_access_key = Some(Secret::new("never shown".to_owned())),
                "error: storage.s3_protocol needs both an access_key_id and a secret_access_key, or neither",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(faults(change), expected);
        }
    }

    #[test]
    fn security_s6_secrets_of_files_are_not_shown() {
        let mut settings = Settings::new(Mode::Serve);
        for name in ["storage.s3.secret_access_key", "storage.s3_protocol.secret_access_key"] {
            (Definition::find(name).unwrap().set)(&mut settings, "never shown").unwrap();
        }
        assert!(!format!("{settings:?}").contains("never shown"));
    }

    #[test]
    fn nodes_hear_each_other_where_there_may_be_several() {
        let address = ntier_backing::database::parse_url("postgres://h/x").unwrap();
        let servers = bus::Servers::parse("nats://h").unwrap();
        let named = servers.clone().on("here");
        for (database, bus, expected) in [
            (None, Bus::Usual, Some(bus::Way::Local)),
            (None, Bus::Local, Some(bus::Way::Local)),
            (None, Bus::Postgres, None),
            (None, Bus::Nats(servers.clone()), None),
            (Some(&address), Bus::Usual, Some(bus::Way::Postgres(address.clone()))),
            (Some(&address), Bus::Postgres, Some(bus::Way::Postgres(address.clone()))),
            (Some(&address), Bus::Local, Some(bus::Way::Local)),
            (Some(&address), Bus::Nats(servers), Some(bus::Way::Nats(named))),
        ] {
            let mut settings = Settings::new(Mode::Serve);
            (settings.database, settings.realtime.bus) = (database.cloned(), bus);
            settings.realtime.bus_subject = "here".into();
            assert_eq!(settings.check().is_empty(), expected.is_some(), "{:?}", settings.realtime.bus);
            if let Some(expected) = expected {
                assert_eq!(settings.bus(), expected);
                settings.realtime.enabled = false;
                assert_eq!(settings.bus(), bus::Way::Local);
            }
        }
    }

    #[test]
    fn security_s4_keys_are_required_except_in_dev() {
        assert!(Settings::new(Mode::Serve).api.require_key);
        assert!(!Settings::new(Mode::Dev).api.require_key);
    }
}
