//! Certificates of an authority (ACME, RFC 8555) for all balancers of a database.
//!
//! Each balancer looks every second at what the database has: certificates, which it shows from then on, and challenges, which it answers.
//! Where one is due, one balancer asks for it (`order`) as long as it gives signs of life (`store`); when it is killed, another one does.

mod order;
mod store;
mod when;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ntier_backing::database::{Database, Target};
use ntier_balancer::issued::{Certificate, Issued, Told};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::database::visitor;
use crate::settings::{Challenge, Settings};
use order::Authority;
use store::{Asked, Known, Look, Store};

/// Between two looks.
const PACE: Duration = Duration::from_secs(1);
/// After so long each balancer knows of a challenge, unless it has lost the database.
const KNOWN_TO_ALL: Duration = Duration::from_millis(2500);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Database(#[from] ntier_backing::database::Error),
    #[error("{0}")]
    Keys(#[from] crate::keys::Error),
    #[error(
        "private keys are sealed with the vault's key, which this balancer does not have: copy vault.key from the data directory of a \
         node, or set vault_key to what is in it"
    )]
    NoVault,
    #[error("the certificate of {0} is sealed with a key that this balancer does not have")]
    Sealed(String),
    #[error("it cannot be sealed")]
    Unsealed,
    #[error("{0}")]
    Authority(#[from] instant_acme::Error),
    #[error("the authority found: {0}")]
    Refused(String),
    #[error("the authority does not offer {0} for this name")]
    NotOffered(&'static str),
    #[error("no key or certificate can be made: {0}")]
    Made(#[from] rcgen::Error),
    #[error("what was issued cannot be used: {0}")]
    Unusable(#[from] ntier_balancer::issued::Unusable),
    #[error("what was issued cannot be read: {0}")]
    Unread(#[from] x509_cert::der::Error),
    #[error("what is kept of the account cannot be read: {0}")]
    Account(serde_json::Error),
    #[error("another balancer has taken over")]
    Lost,
}

impl Error {
    /// What concerns the certificate of one name, and no other.
    fn is_of_one_name(&self) -> bool {
        matches!(self, Self::Sealed(_) | Self::Unusable(_) | Self::Lost)
    }

    fn kind(&self) -> when::Failure {
        match self {
            Self::Database(_) | Self::Authority(instant_acme::Error::Other(_)) => when::Failure::Unreached,
            _ => when::Failure::Refused,
        }
    }
}

/// Looks for them as long as somebody wants to know; `None` where the settings name none.
pub(super) fn follow(settings: &Settings) -> Option<Told> {
    let address = settings.database.clone().filter(|_| !settings.balance.acme.domains.is_empty())?;
    let (told, receiver) = watch::channel(Arc::default());
    let settings = settings.clone();
    tokio::spawn(async move {
        let target = Target::External(address);
        let mut store = None;
        let mut keeper = Keeper::new(&settings, told);
        while !keeper.told.is_closed() {
            if store.is_none() {
                match Database::open(target.clone(), visitor()).await {
                    Ok(database) => store = Some(Arc::new(Store::new(database, &settings))),
                    Err(cause) => keeper.say(Some(cause.to_string())),
                }
            }
            if let Some(store) = &store {
                keeper.look(store).await;
            }
            sleep(PACE).await;
        }
        drop(keeper);
        if let Some(store) = store {
            store.close().await;
        }
    });
    Some(receiver)
}

/// Knows what there is, and tells it.
struct Keeper {
    domains: Vec<String>,
    challenge: Challenge,
    authority: Arc<Authority>,
    told: watch::Sender<Arc<Issued>>,
    /// With the number of each.
    certificates: HashMap<String, (i64, Certificate)>,
    /// The numbers of those that cannot be read.
    unread: HashMap<String, i64>,
    proofs: HashMap<Asked, Certificate>,
    asked: Vec<Asked>,
    /// What was said last of what is wrong: it is not said every second.
    fault: Option<String>,
    is_begun: bool,
    asking: Option<JoinHandle<()>>,
}

impl Keeper {
    fn new(settings: &Settings, told: watch::Sender<Arc<Issued>>) -> Self {
        let acme = &settings.balance.acme;
        Self {
            domains: acme.domains.clone(),
            challenge: acme.challenge,
            authority: Arc::new(Authority::new(acme)),
            told,
            certificates: HashMap::new(),
            unread: HashMap::new(),
            proofs: HashMap::new(),
            asked: Vec::new(),
            fault: None,
            is_begun: false,
            asking: None,
        }
    }

    async fn look(&mut self, store: &Arc<Store>) {
        let looked = self.try_look(store).await;
        self.say(looked.err().map(|cause| cause.to_string()));
    }

    /// What is wrong, once.
    fn say(&mut self, fault: Option<String>) {
        if fault == self.fault {
            return;
        }
        match &fault {
            Some(cause) => eprintln!("certificates not looked at: {cause}"),
            None => eprintln!("certificates looked at again"),
        }
        self.fault = fault;
    }

    async fn try_look(&mut self, store: &Arc<Store>) -> Result<(), Error> {
        let look = store.look(&self.domains).await?;
        let is_other = self.take(store, &look).await?;
        if is_other || !self.is_begun {
            self.told.send_replace(Arc::new(self.issued()));
        }
        if !self.is_begun {
            self.is_begun = true;
            for name in self.domains.iter().filter(|name| !self.certificates.contains_key(*name)) {
                let way = self.challenge.name();
                eprintln!("no certificate yet: clients are refused until there is one, by {way} tls.name={name}");
            }
        }
        if self.asking.as_ref().is_none_or(JoinHandle::is_finished)
            && let Some(name) = look.due(&self.domains)
            && let Some(failures) = store.claim(name).await?
        {
            let (store, authority, name) = (store.clone(), self.authority.clone(), name.to_owned());
            let challenge = self.challenge;
            let asking = async move { ask(&store, &authority, challenge, &name, failures).await };
            self.asking = Some(tokio::spawn(asking));
        }
        Ok(())
    }

    /// Whether anything is other than before.
    async fn take(&mut self, store: &Store, look: &Look) -> Result<bool, Error> {
        let mut is_other = false;
        for known in look.known.iter().filter(|known| known.number > 0) {
            if self.certificates.get(&known.name).is_some_and(|(number, _)| *number == known.number) {
                continue;
            }
            match store.certificate(&known.name).await {
                Ok(found) => {
                    self.certificates.insert(known.name.clone(), found);
                    self.unread.remove(&known.name);
                    eprintln!("certificate in use, until {} tls.name={}", known.until, known.name);
                    is_other = true;
                }
                Err(cause) if cause.is_of_one_name() => self.unread(store, known, &cause).await?,
                Err(cause) => return Err(cause),
            }
        }
        if look.asked != self.asked {
            self.proofs.retain(|asked, _| look.asked.contains(asked));
            for asked in look.asked.iter().filter(|asked| asked.kind == Challenge::TlsAlpn.name()) {
                if !self.proofs.contains_key(asked) {
                    self.proofs.insert(asked.clone(), order::proof(&asked.name, &asked.answer)?);
                }
            }
            self.asked.clone_from(&look.asked);
            is_other = true;
        }
        Ok(is_other)
    }

    /// One that cannot be read is told once, and another is asked for: unless it is this balancer's key that is wrong, by which the account
    /// could not be read either.
    async fn unread(&mut self, store: &Store, known: &Known, cause: &Error) -> Result<(), Error> {
        if self.unread.insert(known.name.clone(), known.number) == Some(known.number) {
            return Ok(());
        }
        eprintln!("certificate not read: {cause} tls.name={}", known.name);
        if matches!(store.account().await, Ok(Some(_))) {
            store.wanted(&known.name, known.number).await
        } else {
            Ok(())
        }
    }

    fn issued(&self) -> Issued {
        let certificates: HashMap<_, _> =
            self.certificates.iter().map(|(name, (_, certificate))| (name.clone(), certificate.clone())).collect();
        let first = self.domains.iter().find_map(|name| certificates.get(name)).cloned();
        let answers = self.asked.iter().filter(|asked| asked.kind == Challenge::Http.name());
        Issued {
            first,
            certificates,
            answers: answers.map(|asked| (asked.token.clone(), asked.answer.clone())).collect(),
            proofs: self.proofs.iter().map(|(asked, proof)| (asked.name.clone(), proof.clone())).collect(),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(asking) = &self.asking {
            asking.abort();
        }
    }
}

/// Asks for one, as long as no other balancer does.
async fn ask(store: &Store, authority: &Authority, challenge: Challenge, name: &str, failures: usize) {
    let asked = tokio::select! {
        asked = obtain(store, authority, challenge, name) => asked,
        () = store.hold(name) => Err(Error::Lost),
    };
    match asked {
        Ok(()) => eprintln!("certificate obtained tls.name={name}"),
        Err(Error::Lost) => eprintln!("certificate not obtained: {} tls.name={name}", Error::Lost),
        Err(cause) => {
            let pause = when::pause(cause.kind(), failures + 1, fastrand::f64());
            eprintln!("certificate not obtained, again in {} s tls.name={name}: {cause}", pause.as_secs());
            // Where that cannot be said either, the lease ends, and somebody asks again.
            let _ = store.put_off(name, pause, &cause.to_string()).await;
        }
    }
}

async fn obtain(store: &Store, authority: &Authority, challenge: Challenge, name: &str) -> Result<(), Error> {
    eprintln!("certificate asked for tls.name={name}");
    let account = if let Some(kept) = store.account().await? {
        authority.account(kept).await?
    } else {
        let (account, made) = authority.register().await?;
        if store.keep_account(&made).await? {
            account
        } else {
            // Another balancer was faster.
            authority.account(store.account().await?.ok_or(Error::Lost)?).await?
        }
    };
    let got = order::certificate(store, &account, challenge, name).await;
    if let Err(Error::Authority(instant_acme::Error::Api(problem))) = &got
        && problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist")
    {
        store.forget_account().await?;
    }
    store.keep(name, &got?).await
}
