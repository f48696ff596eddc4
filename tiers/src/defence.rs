//! What the defence of a process needs beside it: bans in the database, what other processes see, records for others to read.
//!
//! At start the bans are read. In its loop, a few times a second, it writes down what happened and bans whom the scores say; once a second
//! it tells the others what they should count too and hears them, and looks whether the bans are others. A notification makes it look at
//! once. Where the database is away what has to be written waits, and everything goes on as it stands. At the end it is dropped.

mod bans;
mod crowdsec;
mod records;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ntier_backing::database::{Database, Notification};
use ntier_node::{Log, Observation};
use ntier_security::Secret;
use ntier_security::defence::{self, Defence, Limits, Mode};
use ntier_security::firewall::{Access, Pattern, Rules};
use ntier_security::intrusion::{Policy, Standing};
use ntier_security::network::Network;
use ntier_security::networks::Networks;
use ntier_security::rates::Rate;
use tokio::sync::broadcast::{self, error::RecvError};

pub use bans::{Ban, CHANNEL, Verdict, add, lift, list};
use bans::{Outcome, Shares, Wanted};
use records::Records;

/// What a process is told of its defence.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `None` where it is switched off.
    pub mode: Option<Mode>,
    pub never: Vec<Network>,
    /// Where records go.
    pub log: Option<PathBuf>,
    pub policy: Policy,
    /// In a second; 0 for as often as they like.
    pub per_address: u32,
    pub per_user: u32,
    pub per_key: u32,
    /// Of one address at once; 0 for as many as it likes.
    pub connections: usize,
    pub firewall: Firewall,
    pub crowdsec: CrowdSec,
}

/// Rules about requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firewall {
    /// If it has any, others are kept out.
    pub allow: Vec<Network>,
    pub deny: Vec<Network>,
    /// A file with one network in a line.
    pub deny_file: Option<PathBuf>,
    pub methods: Vec<String>,
    pub deny_paths: Vec<Pattern>,
    pub most_headers: Option<usize>,
    pub most_header_bytes: Option<usize>,
    pub most_body_bytes: Option<u64>,
}

/// A CrowdSec whose decisions are bans.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CrowdSec {
    /// Of its local API; `None` for none.
    pub url: Option<String>,
    /// Of a bouncer.
    pub key: Option<Secret<String>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Some(Mode::On),
            // An undeclared proxy on this machine stands for everybody behind it.
            never: vec![
                Network::new([127, 0, 0, 0].into(), 8),
                Network::new(std::net::Ipv6Addr::LOCALHOST.into(), 128),
            ]
            .into_iter()
            .flatten()
            .collect(),
            log: None,
            policy: Policy::default(),
            per_address: 1000,
            per_user: 0,
            per_key: 0,
            connections: 1000,
            firewall: Firewall::default(),
            crowdsec: CrowdSec::default(),
        }
    }
}

/// What kind of process it is. Requests are counted among those of a kind, as one that passes a balancer and a node is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Node,
    Balancer,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Balancer => "balancer",
        }
    }
}

impl Settings {
    /// The defence; `None` where it is switched off. Declared proxies are never banned: they stand for those behind them.
    pub fn defence(&self, trusted: &[Network]) -> Result<Option<Arc<Defence>>, Unread> {
        let Some(mode) = self.mode else { return Ok(None) };
        let settings = defence::Settings {
            mode,
            rules: self.firewall.rules()?,
            policy: self.policy,
            never: [self.never.as_slice(), trusted].concat(),
            limits: Limits {
                address: Rate::per_second(self.per_address),
                user: Rate::per_second(self.per_user),
                key: Rate::per_second(self.per_key),
            },
            connections: Some(self.connections).filter(|most| *most > 0),
        };
        Ok(Some(Arc::new(Defence::new(settings, Instant::now()))))
    }
}

/// Why a file of networks is not in force.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("{path}: {cause}", path = path.display())]
    File { path: PathBuf, cause: std::io::Error },
    #[error("{path}, line {line}: expected an address or a range such as 10.0.0.0/8, found {found:?}", path = path.display())]
    Line { path: PathBuf, line: usize, found: String },
}

impl Firewall {
    fn rules(&self) -> Result<Rules, Unread> {
        let said = |networks: &[Network], access| networks.iter().map(move |network| (*network, access)).collect();
        let mut networks: Vec<(Network, Access)> = said(&self.allow, Access::Allow);
        networks.extend(said(&self.deny, Access::Deny));
        if let Some(path) = &self.deny_file {
            let text = std::fs::read_to_string(path).map_err(|cause| Unread::File { path: path.clone(), cause })?;
            for (number, line) in text.lines().enumerate() {
                let word = line.split(['#', ';']).next().unwrap_or_default().trim();
                let found = || Unread::Line { path: path.clone(), line: number + 1, found: word.to_owned() };
                if !word.is_empty() {
                    networks.push((word.parse().map_err(|()| found())?, Access::Deny));
                }
            }
        }
        Ok(Rules {
            networks: Networks::new(networks),
            is_closed: !self.allow.is_empty(),
            methods: self.methods.clone(),
            denied_paths: self.deny_paths.clone(),
            most_headers: self.most_headers,
            most_header_bytes: self.most_header_bytes,
            most_body_bytes: self.most_body_bytes,
        })
    }

    /// When the file was changed last.
    fn changed(&self) -> Option<SystemTime> {
        std::fs::metadata(self.deny_file.as_ref()?).ok()?.modified().ok()
    }
}

/// How often it looks at what happened here.
const PULSE: Duration = Duration::from_millis(200);
/// So many of these are until it tells the others and hears them.
const SHARE_EVERY: u32 = 5;
/// And until it looks whether the file of networks has changed.
const FILE_EVERY: u32 = 25;

/// Keeps the defence going, until it is dropped.
pub async fn keep(
    settings: Settings,
    defence: Arc<Defence>,
    role: Role,
    database: Database,
    log: Log,
    mut notifications: broadcast::Receiver<Notification>,
) {
    let process = format!("{:016x}", name());
    let crowdsec = crowdsec::keep(settings.crowdsec.clone(), database.clone(), process.clone(), log);
    let work = async {
        let mut keeper = Keeper::new(settings, defence, Some(Shares::new(database, process, role)), log);
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for beat in 0_u32.. {
            let is_told = tokio::select! {
                _ = pulse.tick() => false,
                notification = notifications.recv() => match notification {
                    Ok(notification) => notification.channel == CHANNEL,
                    Err(RecvError::Lagged(_)) => true,
                    Err(RecvError::Closed) => return,
                },
            };
            keeper.beat(beat, is_told).await;
        }
    };
    tokio::join!(work, crowdsec);
}

/// Likewise of a process that shares no database: what it finds out is heeded by it alone, each time for a minute.
pub async fn keep_alone(settings: Settings, defence: Arc<Defence>, log: Log) {
    let mut keeper = Keeper::new(settings, defence, None, log);
    let mut pulse = tokio::time::interval(PULSE);
    for beat in 0_u32.. {
        pulse.tick().await;
        keeper.beat(beat, false).await;
    }
}

/// What the loop has.
struct Keeper {
    settings: Settings,
    defence: Arc<Defence>,
    /// `None` where there is no database.
    shares: Option<Shares>,
    records: Records,
    /// Bans that are not in the database yet.
    wanted: Vec<Wanted>,
    file: Option<SystemTime>,
    /// Why it could not do something, as it was told last.
    told: Option<String>,
    log: Log,
}

/// Bans that wait for the database.
const MOST_WANTED: usize = 1000;

impl Keeper {
    fn new(settings: Settings, defence: Arc<Defence>, shares: Option<Shares>, log: Log) -> Self {
        Self {
            shares,
            records: Records::new(settings.log.clone()),
            wanted: Vec::new(),
            file: settings.firewall.changed(),
            told: None,
            settings,
            defence,
            log,
        }
    }

    async fn beat(&mut self, beat: u32, is_told: bool) {
        let (records, lost) = self.defence.take_records();
        let is_on = self.defence.mode() == Mode::On;
        for record in records.iter().filter(|record| record.standing == Standing::Banned) {
            let (network, reason) = (Network::of_client(record.address), record.event.name());
            let wanted = Wanted { network, reason, since: Instant::now() };
            if is_on && self.wanted.len() < MOST_WANTED && self.wanted.iter().all(|other| other.network != network) {
                self.wanted.push(wanted);
            } else if !is_on {
                let network = network.to_string();
                self.log.observe(&Observation::WouldBan { network: &network, reason });
            }
        }
        let written = self.records.events(&records, lost, self.defence.mode());
        self.tell(written.map_err(|cause| format!("records of attacks are not written: {cause}")));
        if beat.is_multiple_of(FILE_EVERY) {
            self.read_file();
        }
        if !self.wanted.is_empty() || is_told || beat.is_multiple_of(SHARE_EVERY) {
            let shared = self.share().await;
            self.tell(shared.map_err(|cause| format!("bans are not shared: {cause}")));
        }
    }

    async fn share(&mut self) -> Result<(), ntier_backing::database::Error> {
        let Some(shares) = &mut self.shares else {
            self.wanted.clear();
            return Ok(());
        };
        let ladder = self.defence.policy().ladder();
        while let Some(wanted) = self.wanted.last() {
            match shares.ban(wanted, &ladder).await? {
                Outcome::Banned(banned) => {
                    let _ = self.records.ban(wanted, &banned);
                    let network = wanted.network.to_string();
                    let (reason, seconds) = (wanted.reason, banned.seconds);
                    self.log.observe(&Observation::Banned { network: &network, reason, seconds });
                }
                Outcome::Lifted => self.defence.pardon(wanted.network),
                Outcome::Stands => {}
            }
            self.wanted.pop();
        }
        shares.exchange(&self.defence).await
    }

    fn read_file(&mut self) {
        let changed = self.settings.firewall.changed();
        if changed == self.file {
            return;
        }
        let rules = self.settings.firewall.rules();
        if rules.is_ok() {
            self.file = changed;
        }
        let done = rules.map(|rules| self.defence.set_rules(rules));
        self.tell(done.map_err(|cause| format!("networks stay as they are: {cause}")));
    }

    /// Tells a fault once.
    fn tell(&mut self, done: Result<(), String>) {
        let Err(cause) = done else { return };
        if self.told.as_ref() != Some(&cause) {
            self.log.observe(&Observation::DefenceFailed { cause: &cause });
            self.told = Some(cause);
        }
    }
}

/// A name for this process, among those that share a database.
fn name() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_networks_is_read_and_its_faults_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deny");
        let firewall = Firewall { deny_file: Some(path.clone()), ..Firewall::default() };
        assert!(firewall.rules().unwrap_err().to_string().contains("deny"));
        std::fs::write(&path, "# spam\n203.0.113.0/24 ; a comment\n\n2001:db8::/32\n").unwrap();
        let rules = firewall.rules().unwrap();
        assert_eq!(rules.networks.get("203.0.113.7".parse().unwrap()), Some(Access::Deny));
        assert_eq!(rules.networks.get("2001:db8::1".parse().unwrap()), Some(Access::Deny));
        assert_eq!(rules.networks.get("198.51.100.1".parse().unwrap()), None);
        std::fs::write(&path, "203.0.113.0/24\nhere\n").unwrap();
        let told = firewall.rules().unwrap_err().to_string();
        assert!(told.ends_with("line 2: expected an address or a range such as 10.0.0.0/8, found \"here\""), "{told}");
    }

    #[test]
    fn security_h9_declared_proxies_are_never_banned() {
        let trusted: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap()];
        let defence = Settings::default().defence(&trusted).unwrap().unwrap();
        let now = Instant::now();
        for address in ["10.1.2.3", "127.0.0.1", "203.0.113.7"].map(|text| text.parse().unwrap()) {
            for _ in 0..50 {
                defence.note(ntier_security::intrusion::Event::ScannerPath, address, None, None, now);
            }
        }
        let (records, _) = defence.take_records();
        let banned: Vec<_> = records.iter().filter(|record| record.standing == Standing::Banned).collect();
        assert_eq!(banned.iter().map(|record| record.address.to_string()).collect::<Vec<_>>(), ["203.0.113.7"]);
        assert!(Settings { mode: None, ..Settings::default() }.defence(&[]).unwrap().is_none());
    }
}
