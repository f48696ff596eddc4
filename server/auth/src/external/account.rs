//! The account of whoever has come from a provider: found, linked or made.

use ntier_backing::database::{self, Statement};
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::user::User;
use ntier_security::one_time::Sent;
use serde_json::{Value, json};
use uuid::Uuid;

use super::linking::{self, Candidate, Decision, Facts, Policy, Refusal};
use super::profile::Profile;
use crate::error::Error;
use crate::mail::{About, Kind, Notice};
use crate::signup::{self, Confirmed, NewUser};
use crate::store::{self, Account, Actor, By, sql};
use crate::user::{EMAIL_EXISTS, merge, set_providers};
use crate::visitor::Visitor;
use crate::{ATTEMPTS, Auth, now};

/// How somebody comes: from a provider, with what it gave, to whom.
#[derive(Debug)]
pub struct Arrival<'a> {
    pub provider: &'a str,
    pub profile: &'a Profile,
    pub email_optional: bool,
    pub linking: Option<&'a str>,
    pub invite: Option<&'a str>,
    pub target: &'a str,
}

impl Auth {
    /// Finds or makes the account of whoever has come, and does the rest in the same batch; gives the user.
    pub(super) async fn come_in(
        &self,
        visitor: &Visitor,
        arrival: &Arrival<'_>,
        then: &(dyn Fn(&str) -> Vec<Statement> + Sync),
    ) -> Result<User, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_to_come_in(visitor, arrival, then).await {
                Err(Error::Changed(what)) if what == "the flow" => {
                    return Err(Refused::new(400, Code::FlowStateAlreadyUsed, "State has already been used").into());
                }
                // Perhaps somebody with the same address or identity was a moment faster.
                Err(Error::Changed(_) | Error::Taken(_)) if attempt < ATTEMPTS => {}
                done => return done,
            }
        }
    }

    async fn try_to_come_in(
        &self,
        visitor: &Visitor,
        arrival: &Arrival<'_>,
        then: &(dyn Fn(&str) -> Vec<Statement> + Sync),
    ) -> Result<User, Error> {
        let Arrival { provider, profile, .. } = arrival;
        if let Some(token) = arrival.invite {
            return self.accept_invitation(visitor, arrival, token, then).await;
        }
        let facts = self.linking_facts(arrival).await?;
        let policy = Policy { signup: self.settings.signup, email_optional: arrival.email_optional };
        let mut all = Vec::new();
        let id = match linking::decide(&facts, profile, policy) {
            Decision::Refuse(refusal) => return Err(refused(refusal, provider).into()),
            Decision::Create => {
                let id = Uuid::new_v4().to_string();
                return self.create(visitor, arrival, id, then).await;
            }
            Decision::SignIn { user } => {
                let account = self.may_come_in(&user).await?;
                all.push(sql(
                    "update auth.identities set identity_data = $3::jsonb, last_sign_in_at = now(), updated_at = now() \
                     where provider = $1 and provider_id = $2",
                    &[
                        Some(provider),
                        Some(&profile.subject),
                        Some(&Value::Object(profile.identity_data()).to_string()),
                    ],
                ));
                all.push(merge("raw_user_meta_data", &user, &profile.identity_data()));
                all.extend(confirmed_by(&account.user, arrival)?);
                user
            }
            Decision::Link { user } => {
                let account = self.may_come_in(&user).await?;
                if !is_proven(&account.user, profile, self.settings.email_autoconfirm) {
                    all.extend(cleanse(&user));
                }
                all.extend(attach(visitor, &account, arrival));
                all.push(merge("raw_user_meta_data", &user, &profile.identity_data()));
                all.extend(self.linked(&account.user, provider));
                all.extend(confirmed_by(&account.user, arrival)?);
                user
            }
            Decision::Attach { user } => {
                let account = self.may_come_in(&user).await?;
                all.extend(attach(visitor, &account, arrival));
                all.extend(self.linked(&account.user, provider));
                all.extend(first_address(&account.user, profile, facts.is_taken)?);
                user
            }
        };
        let actor = Actor { id: &id, name: profile.main().map_or("", |email| &email.address) };
        let traits = json!({ "provider": provider });
        all.push(store::audit("login", "account", &actor, &visitor.address, &traits));
        all.extend(then(&id));
        all.push(store::select_user(&id));
        store::last_user(&store::write(&self.database, all).await?)
    }

    fn linked(&self, user: &User, provider: &str) -> Option<Statement> {
        self.notice(Notice::IdentityLinked, user, json!({ "Provider": provider }))
    }

    async fn linking_facts(&self, arrival: &Arrival<'_>) -> Result<Facts, Error> {
        let Arrival { provider, profile, .. } = arrival;
        let verified = json!(profile.verified().collect::<Vec<_>>()).to_string();
        let main = profile.main().map(|email| email.address.as_str());
        let identity = "select user_id from auth.identities where provider = $1 and provider_id = $2";
        let candidates = "with asked as (select array(select jsonb_array_elements_text($1::jsonb)) as all) \
            select u.id, coalesce(u.email = $2, false) from auth.users u, asked \
              where u.email = any(asked.all) and not u.is_sso_user and u.deleted_at is null \
            union select u.id, coalesce(u.email = $2, false) from asked, auth.identities i join auth.users u on u.id = i.user_id \
              where i.email = any(asked.all) and i.identity_data ->> 'email_verified' = 'true' and i.provider not like 'sso:%' \
              and not u.is_sso_user and u.deleted_at is null";
        let taken = "select 1 from auth.users where email = $1 and not is_sso_user and deleted_at is null";
        let statements = vec![
            sql(identity, &[Some(provider), Some(&profile.subject)]),
            sql(candidates, &[Some(&verified), main]),
            sql(taken, &[main]),
        ];
        let answer = store::read(&self.database, statements).await?;
        let rows = |at: usize| answer.results.get(at).map(|result| result.rows.as_slice()).unwrap_or_default();
        let candidate =
            |row: &database::Row| Some(Candidate { user: row.text(0)?.to_owned(), is_main: row.text(1) == Some("t") });
        Ok(Facts {
            identity: rows(0).first().and_then(|row| row.text(0).map(str::to_owned)),
            candidates: rows(1).iter().filter_map(candidate).collect(),
            is_taken: !rows(2).is_empty(),
            target: arrival.linking.map(str::to_owned),
        })
    }

    async fn may_come_in(&self, id: &str) -> Result<Account, Error> {
        let gone = || Error::from(Refused::new(422, Code::UserNotFound, "Linking target user not found"));
        let account = store::find(&self.database, By::Id(id)).await?.ok_or_else(gone)?;
        if account.is_banned {
            return Err(Refused::new(403, Code::UserBanned, "User is banned").into());
        }
        Ok(account)
    }

    async fn create(
        &self,
        visitor: &Visitor,
        arrival: &Arrival<'_>,
        id: String,
        then: &(dyn Fn(&str) -> Vec<Statement> + Sync),
    ) -> Result<User, Error> {
        let Arrival { provider, profile, .. } = arrival;
        let email = profile.main();
        let is_confirmed = email.is_none_or(|email| email.verified || self.settings.email_autoconfirm);
        let data = profile.identity_data();
        let user = NewUser {
            id: id.clone(),
            aud: store::AUDIENCE,
            role: "authenticated",
            email: email.map(|email| email.address.as_str()),
            app_metadata: json!({ "provider": provider, "providers": [provider] }),
            user_metadata: data.clone(),
            email_confirmed: if email.is_some() && is_confirmed { Confirmed::Taken } else { Confirmed::No },
            identity: Some((provider, &profile.subject, Value::Object(data.clone()))),
            ..NewUser::default()
        };
        self.before_user(visitor, &user).await?;
        let mut all = user.statements();
        let actor = Actor { id: &id, name: email.map_or("", |email| &email.address) };
        let traits = json!({ "provider": provider });
        all.push(store::audit("user_signedup", "team", &actor, &visitor.address, &traits));
        if let Some(email) = email.filter(|_| !is_confirmed) {
            // The account is there, and waits for its owner.
            self.may_mail(&Sent::default()).map_err(|_| refused(Refusal::Unverified, provider))?;
            let about = About { id: &id, email: &email.address, data: &data };
            all.extend(self.send(Kind::Confirmation, &about, arrival.target, None)?);
            store::write(&self.database, all).await?;
            let message = format!(
                "Unverified email with {provider}. A confirmation email has been sent to your {provider} email"
            );
            return Err(Refused::new(422, Code::ProviderEmailNeedsVerification, message).into());
        }
        all.push(store::audit("login", "account", &actor, &visitor.address, &traits));
        all.extend(then(&id));
        all.push(store::select_user(&id));
        let user = store::last_user(&store::write(&self.database, all).await?)?;
        self.after_user(visitor, &user).await?;
        Ok(user)
    }

    /// Whoever was invited by e-mail comes with an identity that has the same address.
    async fn accept_invitation(
        &self,
        visitor: &Visitor,
        arrival: &Arrival<'_>,
        token: &str,
        then: &(dyn Fn(&str) -> Vec<Statement> + Sync),
    ) -> Result<User, Error> {
        let unknown = || Error::from(Refused::new(404, Code::InviteNotFound, "Invite not found"));
        let (account, tokens) = store::with_tokens(&self.database, token, None).await?.ok_or_else(unknown)?;
        if !tokens.confirmation.is(token, self.settings.code_life, now()) {
            return Err(unknown());
        }
        let user = &account.user;
        if account.is_banned || user.invited_at.is_none() || user.email_confirmed_at.is_some() {
            return Err(unknown());
        }
        if !arrival.profile.emails.iter().any(|email| email.address == user.email) {
            let message = "Invited email does not match emails from external provider";
            return Err(Refused::invalid(message).into());
        }
        let spend = "with spent as (update auth.users set confirmation_token = '' where id = $1 and confirmation_token = $2 returning 1) \
            select ntier.expect(exists (select from spent), 'the invitation')";
        let mut all = vec![sql(spend, &[Some(&user.id), Some(&tokens.confirmation.hash)])];
        all.extend(cleanse(&user.id));
        all.extend(attach(visitor, &account, arrival));
        all.push(merge("raw_user_meta_data", &user.id, &arrival.profile.identity_data()));
        all.push(confirm(&user.id));
        let traits = json!({ "provider": arrival.provider });
        all.push(store::audit("invite_accepted", "account", &Actor::user(user), &visitor.address, &traits));
        all.extend(then(&user.id));
        all.push(store::select_user(&user.id));
        store::last_user(&store::write(&self.database, all).await?)
    }
}

/// The identity becomes one of the user's.
fn attach(visitor: &Visitor, account: &Account, arrival: &Arrival<'_>) -> Vec<Statement> {
    let (user, data) = (&account.user, arrival.profile.identity_data());
    let traits = json!({ "provider": arrival.provider, "provider_id": arrival.profile.subject });
    vec![
        signup::identity(&user.id, arrival.provider, &arrival.profile.subject, &Value::Object(data.clone())),
        set_providers(&user.id),
        store::audit("identity_linked", "user", &Actor::user(user), &visitor.address, &traits),
    ]
}

/// Whoever has not confirmed its address does so by a provider that has made sure of it, or not at all.
fn confirmed_by(user: &User, arrival: &Arrival<'_>) -> Result<Vec<Statement>, Error> {
    if user.email_confirmed_at.is_some() || user.email.is_empty() {
        return Ok(Vec::new());
    }
    if arrival.profile.verified().any(|address| address == user.email) {
        return Ok(vec![confirm(&user.id)]);
    }
    Err(refused(Refusal::Unverified, arrival.provider).into())
}

/// Whoever had no address has the identity's from now on, and is nobody in particular no more.
fn first_address(user: &User, profile: &Profile, is_taken: bool) -> Result<Vec<Statement>, Error> {
    let mut all = Vec::new();
    if user.is_anonymous {
        all.push(sql("update auth.users set is_anonymous = false where id = $1", &[Some(&user.id)]));
    }
    if let Some(email) = profile.main().filter(|email| email.verified && user.email.is_empty()) {
        if is_taken {
            return Err(Refused::new(400, Code::EmailExists, EMAIL_EXISTS).into());
        }
        all.push(sql("update auth.users set email = $2 where id = $1", &[Some(&user.id), Some(&email.address)]));
        all.push(confirm(&user.id));
    }
    Ok(all)
}

/// Somebody has shown that the account's address is theirs: the owner of the mailbox, or a provider that has made sure of it. Where
/// sign-ups are taken as confirmed, a date of confirmation says nothing.
fn is_proven(user: &User, profile: &Profile, autoconfirm: bool) -> bool {
    let by_identity = user.identities.iter().any(|identity| {
        let email = identity.email.as_deref().unwrap_or_default();
        identity.identity_data.get("email_verified") == Some(&Value::Bool(true))
            && (email == user.email || profile.verified().any(|address| address == email))
    });
    by_identity || (!autoconfirm && user.email_confirmed_at.is_some())
}

/// Whoever made the account may be somebody else, who waits for the owner of the address to come (pre-hijacking): nothing of what they
/// could sign in with stays.
fn cleanse(user: &str) -> Vec<Statement> {
    [
        "delete from auth.identities where user_id = $1",
        "delete from auth.mfa_factors where user_id = $1",
        "delete from auth.webauthn_credentials where user_id = $1",
        "update auth.users set encrypted_password = '', phone = null, phone_confirmed_at = null, raw_user_meta_data = '{}', \
         recovery_token = '', email_change = '', email_change_token_new = '', email_change_token_current = '', phone_change = '', \
         phone_change_token = '', reauthentication_token = '' where id = $1",
    ]
    .into_iter()
    .map(|text| sql(text, &[Some(user)]))
    .chain([store::end_sessions(user, None)])
    .collect()
}

fn confirm(user: &str) -> Statement {
    sql(
        "update auth.users set email_confirmed_at = coalesce(email_confirmed_at, now()), confirmation_token = '', is_anonymous = false, \
         updated_at = now() where id = $1",
        &[Some(user)],
    )
}

fn refused(refusal: Refusal, provider: &str) -> Refused {
    match refusal {
        Refusal::LinkedAlready => Refused::new(422, Code::IdentityAlreadyExists, "Identity is already linked"),
        Refusal::LinkedToAnother => {
            Refused::new(422, Code::IdentityAlreadyExists, "Identity is already linked to another user")
        }
        Refusal::NoEmail => {
            Refused::new(500, Code::UnexpectedFailure, "Error getting user email from external provider")
        }
        Refusal::Unverified => {
            let message =
                format!("Unverified email with {provider}. Verify the email with {provider} in order to sign in");
            Refused::new(422, Code::ProviderEmailNeedsVerification, message)
        }
        Refusal::Ambiguous => {
            let message = "Multiple accounts with the same email address in the same linking domain detected: default";
            Refused::new(500, Code::UnexpectedFailure, message)
        }
        Refusal::SignUpDisabled => Refused::new(422, Code::SignupDisabled, "Signups not allowed for this instance"),
    }
}
