//! E-mail and password with each request, for programs that know nothing else, such as file managers.
//!
//! A password is checked as at sign-in, with its limits, and then not again as long as nothing changes about its user: each check is
//! meant to cost. No session begins: whoever shows a password each time has nothing to refresh and nothing to sign out of.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use ntier_protocol::auth::error::{Code, Error as Refused, Version};
use ntier_protocol::auth::request::PasswordGrant;
use serde_json::json;
use uuid::Uuid;

use crate::error::Error;
use crate::issue::Subject;
use crate::store::{self, Account, By, Way};
use crate::visitor::Visitor;
use crate::{Auth, now, respond, token};

/// How long a token is given out again.
const LONGEST: Duration = Duration::from_mins(5);
/// Users who are remembered.
const MOST: usize = 1000;

/// Those whose password was right, by an HMAC of what they showed. On this node alone.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<HashMap<String, Place>>);

/// A file manager asks many things at once: the first asks for all, the others wait.
type Place = Arc<tokio::sync::Mutex<Option<Known>>>;

struct Known {
    /// As it was when the password was right.
    account: Account,
    token: String,
    until: Instant,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Known").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Remembered {
    fn place(&self, key: &str) -> Place {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(key) {
            return place.clone();
        }
        if places.len() >= MOST {
            places.clear();
        }
        places.entry(key.to_owned()).or_default().clone()
    }

    fn forget(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl Auth {
    /// An access token of the user who has this e-mail and password, or the refusal of a sign-in. `address` is the client's.
    pub async fn token_of(
        &self,
        address: IpAddr,
        user_agent: Option<&HeaderValue>,
        email: &str,
        password: &str,
    ) -> Result<String, Response<Bytes>> {
        let key = self.codes.hash("basic", &json!([email, password]).to_string());
        let place = self.remembered.place(&key);
        let mut known = place.lock().await;
        let mut request = Request::new(Bytes::new());
        request.headers_mut().extend(user_agent.map(|agent| (http::header::USER_AGENT, agent.clone())));
        let visitor = Visitor::new(&request, address);
        let asked =
            PasswordGrant { email: email.to_owned(), password: password.to_owned(), ..PasswordGrant::default() };
        let done = self.known(&visitor, &asked, known.take()).await;
        match done {
            Ok(now_known) => Ok(known.insert(now_known).token.clone()),
            Err(error) => {
                self.remembered.forget(&key);
                let mut response = respond::error(&error, Version::of(None));
                visitor.tell_account(&mut response);
                Err(response)
            }
        }
    }

    async fn known(&self, visitor: &Visitor, asked: &PasswordGrant, before: Option<Known>) -> Result<Known, Error> {
        let account = match before {
            Some(known) => {
                let account = store::find(&self.database, By::Id(&known.account.user.id)).await?;
                // Another password, a ban, another role: whatever it is, it is looked at from the beginning.
                let unchanged = account.filter(|account| *account == known.account);
                match unchanged {
                    Some(_) if known.until > Instant::now() => return Ok(known),
                    Some(account) => account,
                    None => self.check(visitor, asked).await?,
                }
            }
            None => self.check(visitor, asked).await?,
        };
        let ways = vec![Way { method: "password".into(), timestamp: now() }];
        let subject = Subject { user: account.user.clone(), ways, client: None, method: "password" };
        let (token, expires) = self.access_token(&Uuid::nil(), &subject).await?;
        let half = Duration::from_secs(u64::try_from((expires - now()) / 2).unwrap_or_default());
        Ok(Known { account, token, until: Instant::now() + half.min(LONGEST) })
    }

    async fn check(&self, visitor: &Visitor, asked: &PasswordGrant) -> Result<Account, Error> {
        if self.settings.captcha.is_some() {
            let message = "captcha protection: a password alone is not enough";
            return Err(Refused::new(400, Code::CaptchaFailed, message).into());
        }
        let right = self.right_password(visitor, asked).await?;
        token::write(self, right.statements).await?;
        Ok(right.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_shared_and_not_without_end() {
        let remembered = Remembered::default();
        assert!(Arc::ptr_eq(&remembered.place("a"), &remembered.place("a")));
        assert!(!Arc::ptr_eq(&remembered.place("a"), &remembered.place("b")));
        let before = remembered.place("a");
        remembered.forget("a");
        assert!(!Arc::ptr_eq(&before, &remembered.place("a")));
        for number in 0..2 * MOST {
            remembered.place(&number.to_string());
        }
        assert!(remembered.0.lock().unwrap().len() <= MOST);
    }
}
