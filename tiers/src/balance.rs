//! The balancer of a project: its settings made whole.

mod acme;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use ntier_backing::database::{Database, Options, Target};
use ntier_balancer::{Member, Observe, settings};
use ntier_security::defence::Defence;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub use ntier_balancer::issued::Told;
pub use ntier_balancer::settings::Place;
pub use ntier_balancer::{Beside, Error, Running};

use crate::database::visitor;
use crate::defence::{self, Role, Unread};
use crate::fault::{Fault, Place as Where};
use crate::nodes;
use crate::settings::{Acme, Challenge, Settings};

/// How long a balancer waits to be told of nodes before it serves.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Between two attempts to reach the database for bans.
const DATABASE_AGAIN: Duration = Duration::from_secs(2);

/// Where operators ask.
pub fn admin(settings: &Settings) -> Place {
    settings.balance.admin.clone().unwrap_or_else(|| Place::Unix(settings.data.join("balance.sock")))
}

/// The balancer's own settings, or what is wrong with them (checklist S3, H11).
pub fn assemble(settings: &Settings) -> Result<settings::Settings, Vec<Fault>> {
    let own = &settings.balance;
    let files = own.certificate.clone().zip(own.key.clone());
    let tls = files.map(|(certificate, key)| settings::Files { certificate, key });
    let service = settings::Settings { admin: admin(settings), tls, ..own.service.clone() };
    let speaks_tls = service.tls.is_some() || !own.acme.domains.is_empty();
    let mut faults = Vec::new();
    let mut refuse = |message: String| faults.push(Fault::error(Where::Together, message));
    check_acme(&own.acme, settings.database.is_some(), service.redirect.is_some()).for_each(&mut refuse);
    if own.certificate.is_some() != own.key.is_some() {
        refuse("TLS needs both balance.tls_certificate and balance.tls_key".into());
    } else if service.redirect.is_some() && !speaks_tls {
        refuse("balance.redirect leads to TLS: it needs balance.tls_certificate and balance.tls_key, or balance.acme.domains".into());
    }
    if !service.listen.ip().is_loopback() && service.trusted_proxy.is_empty() && !speaks_tls {
        refuse(format!(
            "listening on {} would answer the network without TLS; name balance.tls_certificate and balance.tls_key, \
             or balance.acme.domains, listen on 127.0.0.1, or put a proxy that ends TLS in front and name its address in balance.trusted_proxy",
            service.listen
        ));
    }
    if service.proxy_protocol && service.trusted_proxy.is_empty() {
        refuse("balance.proxy_protocol is for the proxies of balance.trusted_proxy, and none is named".into());
    }
    if let Place::Tcp(address) = &service.admin
        && !address.ip().is_loopback()
    {
        refuse(format!("balance.admin is for operators: {address} would show it to the network"));
    }
    if faults.is_empty() { Ok(service) } else { Err(faults) }
}

/// Likewise where a balancer goes on with other settings. Where it listens and which certificates an authority issues stays as it `began`,
/// so what speaks TLS is held against that.
pub fn assemble_again(
    settings: &Settings,
    began: &Settings,
    address: SocketAddr,
) -> Result<settings::Settings, Vec<Fault>> {
    let mut settings = settings.clone();
    settings.balance.service.listen = address;
    settings.balance.acme.clone_from(&began.balance.acme);
    assemble(&settings)
}

/// What is missing for certificates of an authority.
fn check_acme(acme: &Acme, has_database: bool, has_redirect: bool) -> impl Iterator<Item = String> {
    let is_asked = !acme.domains.is_empty();
    let database = "balance.acme.domains: certificates are kept in the database that balancers share, and database_url names none; \
                    certificates of your own need none (balance.tls_certificate)";
    let terms = "balance.acme.domains: the authority issues nothing until you agree to its terms (balance.acme.terms_agreed = true)";
    let redirect =
        "balance.acme.challenge = \"http-01\" is asked for at port 80: it needs balance.redirect, such as 0.0.0.0:80";
    [
        (database, !has_database),
        (terms, !acme.terms_agreed),
        (redirect, acme.challenge == Challenge::Http && !has_redirect),
    ]
    .into_iter()
    .filter(move |(_, is_wrong)| is_asked && *is_wrong)
    .map(|(message, _)| message.to_owned())
}

/// Certificates of an authority, where the settings ask for some (balance.acme.domains), as they come and are renewed. It waits for the first
/// look likewise.
pub async fn issued(settings: &Settings) -> Option<Told> {
    let mut told = acme::follow(settings)?;
    let _ = timeout(FIRST_LOOK, told.changed()).await;
    Some(told)
}

/// The nodes that say in the database where they are (`advertise`), where the settings name one. It waits for the first look, if that takes
/// no longer than [`FIRST_LOOK`]: who takes the place of another knows what that knew.
pub async fn registered(settings: &Settings) -> watch::Receiver<Vec<Member>> {
    let (told, mut receiver) = watch::channel(Vec::new());
    let has_database = settings.database.is_some();
    let (address, pace) = (settings.database.clone(), settings.balance.service.resolve);
    tokio::spawn(async move {
        let Some(address) = address else { return told.closed().await };
        let mut known = nodes::follow(Target::External(address));
        let mut places = Places::default();
        while !told.is_closed() {
            // Names may lead elsewhere meanwhile, or lead anywhere at last.
            if let Ok(Err(_)) = timeout(pace, known.changed()).await {
                return;
            }
            let nodes = known.borrow_and_update().clone();
            let urls = nodes.into_iter().filter(|node| !node.is_leaving).map(|node| node.url);
            let members = places.members(urls.collect()).await;
            told.send_if_modified(|before| {
                let is_new = *before != members;
                *before = members;
                is_new
            });
        }
    });
    if has_database {
        let _ = timeout(FIRST_LOOK, receiver.changed()).await;
    }
    receiver
}

/// Where nodes are that are known now.
#[derive(Debug, Default)]
struct Places(HashMap<String, SocketAddr>);

impl Places {
    /// Where they are. One whose name cannot be looked up just now is where it was before.
    async fn members(&mut self, urls: Vec<String>) -> Vec<Member> {
        self.0.retain(|url, _| urls.contains(url));
        let mut members = Vec::new();
        for url in urls {
            let before = self.0.get(&url).copied();
            let Some(address) = place(&url).await.or(before) else { continue };
            members.push(Member { address, weight: 1 });
            self.0.insert(url, address);
        }
        members
    }
}

/// Where a node is, whose address may be a name. Balancers speak HTTP with nodes; TLS is what is in front of them.
async fn place(url: &str) -> Option<SocketAddr> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    tokio::net::lookup_host((host, uri.port_u16().unwrap_or(80))).await.ok()?.next()
}

/// Who is kept out, by the settings, the bans of the database and what is seen here; `None` where that is switched off. It is kept up to date
/// as long as the process runs.
pub fn defence(settings: &Settings) -> Result<Option<Arc<Defence>>, Unread> {
    let Some(defence) = settings.defence.defence(&settings.balance.service.trusted_proxy)? else { return Ok(None) };
    let (own, log, address) = (settings.defence.clone(), settings.log, settings.database.clone());
    tokio::spawn({
        let defence = defence.clone();
        async move {
            let Some(address) = address else { return defence::keep_alone(own, defence, log).await };
            let options = Options { listen: vec![defence::CHANNEL.into()], ..visitor() };
            let database = loop {
                match Database::open(Target::External(address.clone()), options.clone()).await {
                    Ok(database) => break database,
                    // Whoever needs it says so: nodes are not known without it either.
                    Err(_) => sleep(DATABASE_AGAIN).await,
                }
            };
            let told = database.notifications();
            defence::keep(own, defence, Role::Balancer, database, log, told).await;
        }
    });
    Ok(Some(defence))
}

/// Starts it.
pub async fn start(service: settings::Settings, beside: Beside) -> Result<Running, Error> {
    if let Place::Unix(path) = &service.admin
        && let Some(folder) = path.parent()
    {
        crate::directories::create_private(folder).map_err(|error| error.cause)?;
    }
    ntier_balancer::start(service, beside, Observe::Changes).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mode;

    #[test]
    fn what_is_said_of_tls_fits_together() {
        for (certificate, key, redirect, expected) in [
            (Some("c.pem"), Some("k.pem"), Some("0.0.0.0:80"), 0),
            (Some("c.pem"), None, None, 2),
            (None, None, Some("0.0.0.0:80"), 2),
        ] {
            let mut settings = Settings::new(Mode::Serve);
            settings.balance.service.listen = "0.0.0.0:443".parse().unwrap();
            settings.balance.service.redirect = redirect.map(|place| place.parse().unwrap());
            (settings.balance.certificate, settings.balance.key) = (certificate.map(Into::into), key.map(Into::into));
            assert_eq!(
                assemble(&settings).err().map_or(0, |faults| faults.len()),
                expected,
                "{certificate:?} {redirect:?}"
            );
        }
    }

    #[test]
    fn security_s3_tls_stays_where_the_network_is_answered() {
        let mut began = Settings::new(Mode::Serve);
        began.balance.service.listen = "0.0.0.0:443".parse().unwrap();
        (began.balance.certificate, began.balance.key) = (Some("c.pem".into()), Some("k.pem".into()));
        let mut plain = Settings::new(Mode::Serve);
        plain.balance.service.listen = "127.0.0.1:8000".parse().unwrap();
        // What an authority issues is asked for at the start only.
        let mut later = plain.clone();
        later.balance.acme.domains = vec!["shop.example".into()];
        for (settings, address, is_right) in [
            (&began, "0.0.0.0:443", true),
            (&plain, "0.0.0.0:443", false),
            (&later, "0.0.0.0:443", false),
            (&plain, "127.0.0.1:8000", true),
        ] {
            let found = assemble_again(settings, &began, address.parse().unwrap());
            assert_eq!(found.is_ok(), is_right, "{address}");
        }
    }

    #[tokio::test]
    async fn a_node_whose_name_cannot_be_looked_up_is_where_it_was() {
        let urls =
            ["http://10.0.0.1:54321", "http://node.invalid:54321", "http://other.invalid:54321"].map(str::to_owned);
        let known: SocketAddr = "10.0.0.2:54321".parse().unwrap();
        let gone = "http://gone.invalid:54321".to_owned();
        let mut places = Places([(urls[1].clone(), known), (gone.clone(), known)].into());
        let found = places.members(urls.to_vec()).await;
        let found: Vec<_> = found.iter().map(|member| member.address.to_string()).collect();
        assert_eq!(found, ["10.0.0.1:54321", "10.0.0.2:54321"]);
        assert!(!places.0.contains_key(&gone), "who is not known any more is forgotten");
    }

    #[test]
    fn an_authority_is_asked_only_where_it_can_answer() {
        for (domains, database, terms, challenge, redirect, expected) in [
            ("shop.example", true, true, "tls-alpn-01", None, 0),
            ("shop.example", true, true, "http-01", Some("0.0.0.0:80"), 0),
            ("shop.example", true, true, "http-01", None, 1),
            ("shop.example", false, true, "tls-alpn-01", None, 1),
            ("shop.example", false, false, "http-01", None, 3),
            ("", false, false, "http-01", None, 0),
        ] {
            let mut settings = Settings::new(Mode::Serve);
            let set = |settings: &mut Settings, name: &str, text: &str| {
                (crate::settings::definitions().find(|one| one.name == name).unwrap().set)(settings, text).unwrap();
            };
            set(&mut settings, "balance.acme.domains", domains);
            set(&mut settings, "balance.acme.challenge", challenge);
            set(&mut settings, "balance.acme.terms_agreed", &terms.to_string());
            settings.balance.service.redirect = redirect.map(|place: &str| place.parse().unwrap());
            if database {
                set(&mut settings, "database_url", "postgres://h/d");
            }
            let found = assemble(&settings).err().map_or(0, |faults| faults.len());
            assert_eq!(found, expected, "{domains} {database} {terms} {challenge} {redirect:?}");
        }
    }

    #[test]
    fn security_s3_h11_the_network_is_answered_by_tls_only_and_operators_never() {
        for (listen, proxy, admin, expected) in [
            ("127.0.0.1:8000", None, None, 0),
            ("0.0.0.0:8000", None, None, 1),
            ("0.0.0.0:8000", Some("10.0.0.0/8"), None, 0),
            ("127.0.0.1:8000", None, Some("127.0.0.1:9901"), 0),
            ("0.0.0.0:8000", None, Some("0.0.0.0:9901"), 2),
        ] {
            let mut settings = Settings::new(Mode::Serve);
            settings.balance.service.listen = listen.parse().unwrap();
            settings.balance.service.trusted_proxy = proxy.iter().map(|proxy| proxy.parse().unwrap()).collect();
            settings.balance.admin = admin.map(|admin| Place::Tcp(admin.parse().unwrap()));
            assert_eq!(assemble(&settings).err().map_or(0, |faults| faults.len()), expected, "{listen} {admin:?}");
        }
    }
}
