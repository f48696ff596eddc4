//! What a node is told: one table of settings, read from files, environment and flags, checked here and nowhere else.
//!
//! A later source wins: the defaults, the project's `supabase/config.toml`, `ntier.toml` beside that folder, the environment
//! (`NTIER_…`), the flags. All faults are told together. Relative paths belong to the current directory, in `ntier.toml`
//! to its own.

mod definitions;
mod load;
mod mails;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ntier_backing::database::{Address, usual_connections};
use ntier_node::Log;
use ntier_security::Secret;

pub use definitions::{DEFINITIONS, Definition, Kind};
pub use load::{Loaded, Root, Sources, load};
pub use ntier_security::network::Network;

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
    pub jwt_secret: Option<Secret<String>>,
    /// A file of private JSON Web Keys that sign instead of ours.
    pub signing_keys: Option<PathBuf>,
    /// Tokens that name audiences have to name this one.
    pub jwt_audience: Option<String>,
    pub api: Api,
    /// `None` where sign-in is switched off.
    pub auth: Option<ntier_auth::Settings>,
    /// `None` where files are switched off.
    pub storage: Option<Storage>,
    pub log: Log,
}

/// Files.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    pub service: ntier_storage::Settings,
    /// Where they are kept; `None` for `files` in the data directory.
    pub folder: Option<PathBuf>,
    /// A blob that no row names is removed when it is so old.
    pub sweep_after: Duration,
}

impl Default for Storage {
    fn default() -> Self {
        Self { service: ntier_storage::Settings::default(), folder: None, sweep_after: Duration::from_hours(1) }
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
    /// The defaults; everything else is set by [`DEFINITIONS`].
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
            jwt_secret: None,
            signing_keys: None,
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
            storage: Some(Storage::default()),
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
        faults
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
    fn security_s4_keys_are_required_except_in_dev() {
        assert!(Settings::new(Mode::Serve).api.require_key);
        assert!(!Settings::new(Mode::Dev).api.require_key);
    }
}
