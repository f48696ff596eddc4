//! Bans of a CrowdSec: its decisions, as its local API streams them to a bouncer (`GET /v1/decisions/stream`), become rows, so that every
//! node and balancer heeds them.
//!
//! The API remembers what a bouncer's key has been told, so one process of all asks: the one whose turn it is (`ntier.turns`). Whoever takes
//! over asks for everything first, and drops what is not said any more. While CrowdSec is away its bans stay until their own ends.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use ntier_backing::database::{self, Database};
use ntier_backing::outbound::{self, Outbound};
use ntier_node::{Log, Observation};
use ntier_security::network::Network;
use serde_json::{Value, json};

use super::CrowdSec;
use super::bans::{run, statement};

/// How often it is asked.
const PAUSE: Duration = Duration::from_secs(10);
/// Bytes of an answer: a list of a hundred thousand decisions.
const LONGEST: usize = 32 << 20;

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Outbound(#[from] outbound::Fault),
    #[error("its address is none: {0}")]
    Url(#[from] http::Error),
    #[error("it answers {0}; is the key a bouncer's?")]
    Status(u16),
    #[error("it does not answer decisions: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("{0}")]
    Database(#[from] database::Error),
}

/// Asks again and again, as long as it is its turn; a fault is told once.
pub async fn keep(settings: CrowdSec, database: Database, process: String, log: Log) {
    let (Some(url), Some(key)) = (settings.url, settings.key) else { return };
    let outbound = Outbound::with_longest(LONGEST);
    let (mut is_ours, mut told) = (false, None);
    loop {
        let was_ours = std::mem::replace(&mut is_ours, false);
        let done: Result<(), Fault> = async {
            if !turn(&database, &process).await? {
                return Ok(());
            }
            let stream = ask(&outbound, &url, key.expose(), !was_ours).await?;
            apply(&database, &stream, !was_ours).await?;
            is_ours = true;
            Ok(())
        }
        .await;
        let cause = done.err().map(|cause| cause.to_string());
        if let Some(cause) = cause.as_deref().filter(|cause| told.as_deref() != Some(*cause)) {
            log.observe(&Observation::DefenceFailed { cause: &format!("CrowdSec's bans are not read: {cause}") });
        }
        told = cause;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether it is this process that asks.
async fn turn(database: &Database, process: &str) -> Result<bool, database::Error> {
    let sql = statement(
        "insert into ntier.turns as turn (name, holder, until) values ('crowdsec', $1, now() + interval '30 seconds') \
         on conflict (name) do update set holder = excluded.holder, until = excluded.until \
         where turn.holder = excluded.holder or turn.until < now() returning 1",
        &[Some(process)],
    );
    let answer = run(database, vec![sql]).await?;
    Ok(answer.results.first().is_some_and(|result| !result.rows.is_empty()))
}

async fn ask(outbound: &Outbound, url: &str, key: &str, is_first: bool) -> Result<Stream, Fault> {
    let url = format!("{}/v1/decisions/stream?startup={is_first}&scopes=ip,range", url.trim_end_matches('/'));
    let request = Request::get(url).header("x-api-key", key).header("user-agent", "ntier").body(Bytes::new())?;
    let response = outbound.send(request).await?;
    if !response.status().is_success() {
        return Err(Fault::Status(response.status().as_u16()));
    }
    Ok(Stream::read(&serde_json::from_slice(response.body())?))
}

/// What is said since it was asked last.
#[derive(Debug, PartialEq)]
struct Stream {
    new: Vec<Decision>,
    deleted: Vec<Network>,
}

#[derive(Debug, PartialEq)]
struct Decision {
    network: Network,
    scenario: String,
    seconds: f64,
}

impl Stream {
    /// What is no ban of an address or a network is passed over.
    fn read(said: &Value) -> Self {
        let list = |name: &str| said[name].as_array().map(Vec::as_slice).unwrap_or_default().to_vec();
        let network = |decision: &Value| {
            let is_ban = decision["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("ban"));
            let scope = decision["scope"].as_str().unwrap_or_default().to_ascii_lowercase();
            let value = decision["value"].as_str().filter(|_| is_ban && ["ip", "range"].contains(&scope.as_str()))?;
            value.parse::<Network>().ok()
        };
        let new = |decision: Value| {
            let seconds = duration(decision["duration"].as_str()?).filter(|seconds| *seconds > 0.0)?;
            let scenario = decision["scenario"].as_str().unwrap_or("crowdsec").chars().take(200).collect();
            Some(Decision { network: network(&decision)?, scenario, seconds })
        };
        Self {
            new: list("new").into_iter().filter_map(new).collect(),
            deleted: list("deleted").iter().filter_map(network).collect(),
        }
    }
}

/// As Go writes it: `3h59m58.7s`, `-1m0s`. In seconds.
fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        seconds += number
            * match &rest[digits..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Some(sign * seconds)
}

/// What an operator or this project said of a network stays as it is.
async fn apply(database: &Database, stream: &Stream, is_whole: bool) -> Result<(), database::Error> {
    let new =
        json!(stream.new.iter().map(|one| (one.network.to_string(), &one.scenario, one.seconds)).collect::<Vec<_>>());
    let deleted = json!(stream.deleted.iter().map(ToString::to_string).collect::<Vec<_>>());
    let (new, deleted) = (new.to_string(), deleted.to_string());
    let mut statements = Vec::new();
    if is_whole {
        statements.push(statement(
            "delete from ntier.bans where source = 'crowdsec' and network not in \
             (select (said ->> 0)::cidr from jsonb_array_elements($1::jsonb) said)",
            &[Some(&new)],
        ));
    }
    if !stream.deleted.is_empty() {
        statements.push(statement(
            "delete from ntier.bans where source = 'crowdsec' and network in \
             (select said::cidr from jsonb_array_elements_text($1::jsonb) said)",
            &[Some(&deleted)],
        ));
    }
    if !stream.new.is_empty() {
        statements.push(statement(
            "insert into ntier.bans as ban (network, reason, source, expires_at) \
             select distinct on (1) (said ->> 0)::cidr, said ->> 1, 'crowdsec', now() + make_interval(secs => (said ->> 2)::float8) \
             from jsonb_array_elements($1::jsonb) said order by 1, (said ->> 2)::float8 desc \
             on conflict (network) do update set reason = excluded.reason, source = 'crowdsec', created_at = now(), \
             expires_at = excluded.expires_at, lifted_at = null \
             where ban.verdict = 'ban' and (ban.source = 'crowdsec' or ban.expires_at <= now())",
            &[Some(&new)],
        ));
    }
    if statements.is_empty() { Ok(()) } else { run(database, statements).await.map(drop) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_read() {
        let said = json!({
            "new": [
                { "id": 1, "origin": "cscli", "type": "ban", "scope": "Ip", "value": "203.0.113.7", "duration": "3h59m58.7s",
                  "scenario": "manual 'ban' from 'x'" },
                { "id": 2, "origin": "lists", "type": "ban", "scope": "Range", "value": "198.51.100.0/24", "duration": "1m",
                  "scenario": "crowdsecurity/http-probing" },
                { "id": 3, "type": "captcha", "scope": "Ip", "value": "203.0.113.8", "duration": "1m" },
                { "id": 4, "type": "ban", "scope": "Country", "value": "XX", "duration": "1m" },
                { "id": 5, "type": "ban", "scope": "Ip", "value": "here", "duration": "1m" },
                { "id": 6, "type": "ban", "scope": "Ip", "value": "203.0.113.9", "duration": "-5s" },
            ],
            "deleted": [{ "type": "ban", "scope": "Ip", "value": "2001:db8::7", "duration": "-13s" }],
        });
        let decision = |network: &str, scenario: &str, seconds| Decision {
            network: network.parse().unwrap(),
            scenario: scenario.into(),
            seconds,
        };
        let expected = Stream {
            new: vec![
                decision("203.0.113.7", "manual 'ban' from 'x'", 14_398.7),
                decision("198.51.100.0/24", "crowdsecurity/http-probing", 60.0),
            ],
            deleted: vec!["2001:db8::7".parse().unwrap()],
        };
        assert_eq!(Stream::read(&said), expected);
        let nothing = Stream { new: Vec::new(), deleted: Vec::new() };
        for empty in [json!({ "new": null, "deleted": null }), json!([]), json!(null)] {
            assert_eq!(Stream::read(&empty), nothing);
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("4h0m0s", Some(14_400.0)),
            ("1h2m3.5s", Some(3723.5)),
            ("300ms", Some(0.3)),
            ("-1m30s", Some(-90.0)),
            ("", Some(0.0)),
            ("1", None),
            ("1d", None),
            ("soon", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
