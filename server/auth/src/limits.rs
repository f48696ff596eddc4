//! How often somebody may ask: buckets in PostgreSQL, so that all nodes know of each other's requests.
//!
//! Source of the numbers: GoTrue, `internal/conf/configuration.go`: 30 at once, and so many in five minutes; where fewer are allowed in that
//! time, no more at once.

use std::borrow::Cow;
use std::net::IpAddr;

use ntier_backing::database::{Batch, Session};
use ntier_protocol::auth::error::{Code, Error as Refused};
use serde_json::json;

use crate::Auth;
use crate::error::Error;
use crate::store::sql;
use crate::visitor::Visitor;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    SignUp,
    Anonymous,
    Token,
    User,
    Verify,
    Factor,
    Passkey,
    /// Applications that register themselves.
    Registration,
    /// What sends a message to a phone.
    Message,
    /// What sends an e-mail: one-time codes, recovery, repetitions.
    Mail,
}

/// How often one address may ask, where a project may say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Anonymous sign-ins in an hour.
    pub anonymous: u32,
    /// In five minutes: sign-ins and refreshes,
    pub token: u32,
    /// what signs up, sends a code or changes a user,
    pub sign_up: u32,
    /// and tokens that are shown.
    pub verify: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { anonymous: 30, token: 150, sign_up: 30, verify: 30 }
    }
}

/// So many may come at once.
const BURST: f64 = 30.0;
const FIVE_MINUTES: f64 = 300.0;
const HOUR: f64 = 3600.0;
/// A client on this very machine may ask that much more often: a test, a script, or a proxy that was not declared, behind which
/// there are many. Accounts are protected all the same.
const LOCAL: f64 = 100.0;

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Self::SignUp => "signup",
            Self::Anonymous => "anonymous",
            Self::Token => "token",
            Self::User => "user",
            Self::Verify => "verify",
            Self::Factor => "factor",
            Self::Passkey => "passkey",
            Self::Registration => "registration",
            Self::Message => "message",
            Self::Mail => "mail",
        }
    }

    /// So many at once, and in a second.
    fn size_and_refill(self, rates: &Rates) -> (f64, f64) {
        let rate = match self {
            Self::Token => rates.token,
            Self::SignUp | Self::User | Self::Mail | Self::Message => rates.sign_up,
            Self::Verify => rates.verify,
            Self::Passkey => 30,
            Self::Factor => return (BURST, 15.0 / 60.0),
            Self::Registration => return (BURST, 10.0 / FIVE_MINUTES),
            // Those of an hour may come at once.
            Self::Anonymous => return (f64::from(rates.anonymous), f64::from(rates.anonymous) / HOUR),
        };
        (BURST.min(f64::from(rate)), f64::from(rate) / FIVE_MINUTES)
    }
}

/// A bucket: its name, how much it holds, and how fast it fills.
type Bucket = (String, f64, f64);

/// The buckets from which a request takes.
fn buckets(rates: &Rates, limit: Limit, address: &str, account: Option<&str>) -> Vec<Bucket> {
    let is_local = address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let more = if is_local { LOCAL } else { 1.0 };
    let (size, refill) = limit.size_and_refill(rates);
    let mut all = vec![(format!("{}|{}", limit.name(), network(address)), size * more, refill * more)];
    // However many addresses ask: nobody guesses one user's password for long.
    all.extend(account.map(|account| (format!("account|{account}"), BURST, 30.0 / FIVE_MINUTES)));
    all
}

/// Whoever has an IPv6 network has all its addresses: /64 counts as one.
fn network(address: &str) -> Cow<'_, str> {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Cow::Owned(format!("{a:x}:{b:x}:{c:x}:{d:x}::/64"))
        }
        _ => Cow::Borrowed(address),
    }
}

/// The next e-mail is asked for too soon; so many seconds are left.
pub(crate) fn too_soon(left: i64) -> Error {
    let message = format!("For security purposes, you can only request this after {left} seconds.");
    Refused::new(429, Code::OverEmailSendRateLimit, message).into()
}

impl Auth {
    /// Counts the request, and refuses it where there were too many.
    pub(crate) async fn limit(&self, limit: Limit, visitor: &Visitor, account: Option<&str>) -> Result<(), Error> {
        if let Some(account) = account {
            visitor.account.get_or_init(|| account.to_lowercase());
        }
        let mut buckets = buckets(&self.settings.rates, limit, &visitor.address, account);
        let most = match limit {
            Limit::Mail => self.settings.mails_per_hour,
            Limit::Message => self.settings.sms.per_hour,
            _ => None,
        };
        if let Some(most) = most {
            // Of the whole project: whoever makes it send messages to others makes it a sender of spam.
            buckets.push((format!("project|{}", limit.name()), f64::from(most), f64::from(most) / HOUR));
        }
        let list = |values: Vec<serde_json::Value>| json!(values).to_string();
        let keys = list(buckets.iter().map(|(key, ..)| json!(key)).collect());
        let sizes = list(buckets.iter().map(|(_, size, _)| json!(size)).collect());
        let refills = list(buckets.iter().map(|(.., refill)| json!(refill)).collect());
        let statement = sql(
            "select ntier.take(array(select jsonb_array_elements_text($1::jsonb)), \
             array(select jsonb_array_elements($2::jsonb)::float8), array(select jsonb_array_elements($3::jsonb)::float8))",
            &[Some(&keys), Some(&sizes), Some(&refills)],
        );
        // Nobody waits for the disk for this.
        let settings = vec![("synchronous_commit".into(), "off".to_owned())];
        let session = Some(Session { settings, isolation: None });
        let batch = Batch { session, statements: vec![statement], ..Batch::default() };
        let answer = self.database.run(batch).await.map_err(Error::of)?;
        let taken = answer.results.first().and_then(|result| result.rows.first()?.text(0).map(|text| text == "t"));
        let refused = || Refused::new(429, Code::OverRequestRateLimit, "Request rate limit reached").into();
        if taken.ok_or(Error::Incomplete)? { Ok(()) } else { Err(refused()) }
    }

    /// One e-mail in a while is asked for, of a kind and for an address, whether somebody has it or not: else the refusal would tell
    /// (checklist A4).
    pub(crate) async fn pause(&self, kind: &str, email: &str) -> Result<(), Error> {
        let pause = self.settings.mail_pause;
        if pause <= 0 {
            return Ok(());
        }
        let (key, seconds) = (format!("mail|{kind}|{email}"), pause.to_string());
        let key = Some(key.as_str());
        let statements = vec![
            sql("select ntier.take(array[$1::text], array[1::float8], array[1 / $2::float8])", &[key, Some(&seconds)]),
            sql(
                "select greatest(1, ceil((1 - tokens) / refill))::bigint from ntier.rate_limits where key = $1",
                &[key],
            ),
        ];
        let session =
            Some(Session { settings: vec![("synchronous_commit".into(), "off".to_owned())], isolation: None });
        let answer = self.database.run(Batch { session, statements, ..Batch::default() }).await.map_err(Error::of)?;
        let said = |at: usize| answer.results.get(at).and_then(|result| result.rows.first()?.text(0));
        match (said(0), said(1).and_then(|left| left.parse().ok())) {
            (Some("t"), _) => Ok(()),
            (Some(_), Some(left)) => Err(too_soon(left)),
            _ => Err(Error::Incomplete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_a6_buckets_are_gotrues() {
        let of = |limit, address: &str| buckets(&Rates::default(), limit, address, None).remove(0);
        for (limit, refill) in
            [(Limit::Token, 0.5), (Limit::SignUp, 0.1), (Limit::User, 0.1), (Limit::Anonymous, 30.0 / 3600.0)]
        {
            let (key, size, found) = of(limit, "203.0.113.7");
            assert_eq!((key.as_str(), size), (format!("{}|203.0.113.7", limit.name()).as_str(), 30.0));
            assert!((found - refill).abs() < 1e-9, "{limit:?}");
        }
        assert!(of(Limit::Token, "127.0.0.1").1 > 1000.0);
        assert_eq!(of(Limit::Token, "2001:db8::1:2:3:4").0, "token|2001:db8:0:0::/64");
    }

    #[test]
    fn a_project_may_say_how_often() {
        let rates = Rates { anonymous: 7200, token: 3000, sign_up: 6, verify: 60 };
        for (limit, expected_size, expected_refill) in [
            (Limit::Anonymous, 7200.0, 2.0),
            (Limit::Token, 30.0, 10.0),
            (Limit::SignUp, 6.0, 0.02),
            (Limit::User, 6.0, 0.02),
            (Limit::Mail, 6.0, 0.02),
            (Limit::Message, 6.0, 0.02),
            (Limit::Verify, 30.0, 0.2),
            (Limit::Passkey, 30.0, 0.1),
            (Limit::Factor, 30.0, 0.25),
            (Limit::Registration, 30.0, 10.0 / 300.0),
        ] {
            let (_, size, refill) = buckets(&rates, limit, "203.0.113.7", None).remove(0);
            assert!((size - expected_size).abs() < 1e-9 && (refill - expected_refill).abs() < 1e-9, "{limit:?}");
        }
    }

    #[test]
    fn security_a7_an_account_has_a_bucket_of_its_own() {
        let all = buckets(&Rates::default(), Limit::Token, "::1", Some("ada@example.com"));
        assert_eq!(all[1], ("account|ada@example.com".to_owned(), 30.0, 0.1));
    }
}
