//! Which backends there are: those in the settings, those that names resolve to, those that have registered themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use crate::observe::{Observation, Observe};
use crate::plan::Member;
use crate::settings::{Host, Origin};

/// How long a resolver may take.
const RESOLVE: Duration = Duration::from_secs(5);

/// A name with its port, and its addresses.
pub type Resolved = (String, Vec<SocketAddr>);

/// What is known, by where it is known from.
#[derive(Debug, Default)]
pub struct Known {
    pub settings: Vec<Origin>,
    /// What names resolved to.
    pub resolved: BTreeMap<String, Vec<SocketAddr>>,
    pub registered: Vec<Member>,
}

impl Known {
    /// All of them; whoever is named in several places has the weight that the settings give it.
    pub fn members(&self) -> Vec<Member> {
        let mut all: BTreeMap<SocketAddr, u32> =
            self.registered.iter().map(|member| (member.address, member.weight)).collect();
        for origin in &self.settings {
            for address in self.addresses(origin) {
                all.insert(address, origin.weight);
            }
        }
        all.into_iter().map(|(address, weight)| Member { address, weight }).collect()
    }

    fn addresses(&self, origin: &Origin) -> Vec<SocketAddr> {
        match &origin.host {
            Host::Address(address) => vec![SocketAddr::new(*address, origin.port)],
            Host::Name(_) => self.resolved.get(&place(origin)).cloned().unwrap_or_default(),
        }
    }

    /// The names to look up.
    pub fn names(&self) -> Vec<String> {
        let named = self.settings.iter().filter(|origin| matches!(origin.host, Host::Name(_)));
        named.map(place).collect()
    }
}

/// Name and port.
fn place(origin: &Origin) -> String {
    Origin { weight: 1, ..origin.clone() }.to_string()
}

/// Looks names up again and again, for as long as somebody listens; what a name resolves to is told each time that it is known.
pub async fn resolve(names: Vec<String>, every: Duration, told: mpsc::Sender<Resolved>, observe: Observe) {
    let mut tick = interval(every);
    loop {
        tick.tick().await;
        for name in &names {
            let cause = match timeout(RESOLVE, tokio::net::lookup_host(name)).await {
                Ok(Ok(addresses)) => {
                    let addresses: Vec<SocketAddr> = addresses.collect();
                    if told.send((name.clone(), addresses)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Err(cause)) => cause.to_string(),
                Err(_) => "no answer within the time".to_owned(),
            };
            observe.tell(&Observation::Unresolved { name, cause: &cause });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_come_from_several_places_and_are_there_once() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let known = Known {
            settings: ["10.0.0.1:80;weight=3", "nodes.internal:80;weight=2", "elsewhere:80"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            resolved: BTreeMap::from([(
                "nodes.internal:80".to_owned(),
                vec![address("10.0.0.2:80"), address("10.0.0.3:80")],
            )]),
            registered: vec![
                Member { address: address("10.0.0.1:80"), weight: 1 },
                Member { address: address("10.0.0.4:80"), weight: 1 },
            ],
        };
        let found: Vec<_> =
            known.members().iter().map(|member| format!("{}*{}", member.address, member.weight)).collect();
        assert_eq!(found, ["10.0.0.1:80*3", "10.0.0.2:80*2", "10.0.0.3:80*2", "10.0.0.4:80*1"]);
        assert_eq!(known.names(), ["nodes.internal:80", "elsewhere:80"]);
    }
}
