//! `POST /signup`: by e-mail or phone with a password, or as nobody in particular.

use bytes::Bytes;
use http::Response;
use ntier_backing::database::Statement;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, SignUp};
use ntier_protocol::auth::user::User;
use ntier_security::one_time::Sent;
use ntier_security::password;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::Auth;
use crate::error::Error;
use crate::limits::Limit;
use crate::mail::{About, Kind};
use crate::mailing::level;
use crate::pkce;
use crate::respond;
use crate::sms::{Channel, channel};
use crate::store::{self, Actor, By, sql};
use crate::user::forget_password;
use crate::visitor::Visitor;

/// What a new user is made of.
#[derive(Debug, Default)]
pub struct NewUser<'a> {
    pub id: String,
    pub aud: &'a str,
    pub role: &'a str,
    pub email: Option<&'a str>,
    pub phone: Option<&'a str>,
    /// The hash.
    pub password: Option<&'a str>,
    pub app_metadata: Value,
    pub user_metadata: Map<String, Value>,
    pub is_anonymous: bool,
    pub email_confirmed: Confirmed,
    pub phone_confirmed: bool,
    /// Who comes from elsewhere: a provider, the name there, and what is kept of it. Others have an identity for each address.
    pub identity: Option<(&'a str, &'a str, Value)>,
}

/// Whether an address counts as its user's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Confirmed {
    #[default]
    No,
    /// It is taken as such.
    Taken,
    /// Somebody has made sure.
    Proven,
}

impl NewUser<'_> {
    /// As a hook gets it, before it is there.
    pub fn shown(&self) -> Value {
        let identities: Vec<Value> = match &self.identity {
            Some((provider, subject, data)) => {
                vec![json!({ "provider": provider, "id": subject, "identity_data": data })]
            }
            None => Vec::new(),
        };
        json!({
            "id": self.id, "aud": self.aud, "role": self.role, "email": self.email.unwrap_or_default(),
            "phone": self.phone.unwrap_or_default(), "app_metadata": self.app_metadata, "user_metadata": self.user_metadata,
            "identities": identities, "is_anonymous": self.is_anonymous,
        })
    }

    /// The user, and an identity for each way in which it can be found.
    pub fn statements(&self) -> Vec<Statement> {
        let (app, user) = (self.app_metadata.to_string(), Value::Object(self.user_metadata.clone()).to_string());
        let flag = |is_so: bool| Some(if is_so { "true" } else { "false" });
        let mut all = vec![sql(
            "insert into auth.users (instance_id, id, aud, role, email, phone, encrypted_password, raw_app_meta_data, raw_user_meta_data, \
             is_anonymous, email_confirmed_at, phone_confirmed_at, confirmation_token, recovery_token, email_change_token_new, email_change, \
             created_at, updated_at) \
             values ('00000000-0000-0000-0000-000000000000', $1, $2, $3, $4, $5, $6, $7::jsonb, $8::jsonb, $9, \
             case when $10::boolean then now() end, case when $11::boolean then now() end, '', '', '', '', now(), now())",
            &[
                Some(&self.id),
                Some(self.aud),
                Some(self.role),
                self.email,
                self.phone,
                Some(self.password.unwrap_or_default()),
                Some(&app),
                Some(&user),
                flag(self.is_anonymous),
                flag(self.email_confirmed != Confirmed::No),
                flag(self.phone_confirmed),
            ],
        )];
        if let Some((provider, subject, data)) = &self.identity {
            all.push(identity(&self.id, provider, subject, data));
            return all;
        }
        for (provider, value) in [("email", self.email), ("phone", self.phone)] {
            let Some(value) = value else { continue };
            let proven = provider == "email" && self.email_confirmed == Confirmed::Proven;
            let data = json!({ "sub": self.id, provider: value, "email_verified": proven, "phone_verified": false });
            all.push(identity(&self.id, provider, &self.id, &data));
        }
        all
    }
}

/// A new way in which a user signs in; `subject` is the user's name at the provider.
pub fn identity(user: &str, provider: &str, subject: &str, data: &Value) -> Statement {
    sql(
        "insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at) \
         values ($1, $2, $3::jsonb, $4, now(), now(), now())",
        &[Some(subject), Some(user), Some(&data.to_string()), Some(provider)],
    )
}

impl Auth {
    pub(crate) async fn sign_up(&self, visitor: &Visitor, body: &Bytes) -> Result<Response<Bytes>, Error> {
        let asked: SignUp = request::read(body)?;
        if asked.email.is_empty() && asked.phone.is_empty() && asked.password.is_empty() {
            return self.sign_up_anonymously(visitor, asked).await;
        }
        if !self.settings.signup {
            return Err(Refused::new(422, Code::SignupDisabled, "Signups not allowed for this instance").into());
        }
        if asked.password.is_empty() {
            return Err(Refused::invalid("Signup requires a valid password").into());
        }
        let (provider, address) = match (asked.email.as_str(), asked.phone.as_str()) {
            ("", "") => {
                return Err(Refused::invalid(match (self.settings.email, self.settings.phone) {
                    (true, true) => "Sign up only available with email or phone provider",
                    (true, false) => "Sign up only available with email provider",
                    (false, true) => "Sign up only available with phone provider",
                    (false, false) => "Sign up with this provider not possible",
                })
                .into());
            }
            (email, "") => ("email", self.email(email)?),
            ("", phone) => ("phone", self.phone(phone)?),
            _ => {
                let message = "Only an email address or phone number should be provided on signup.";
                return Err(Refused::invalid(message).into());
            }
        };
        self.check_password(&asked.password)?;
        self.limit(Limit::SignUp, visitor, None).await?;
        let by_email = provider == "email";
        let challenge = pkce::challenge(&asked.challenge)?;
        let confirmed = if by_email { self.settings.email_autoconfirm } else { self.settings.phone_autoconfirm };
        let channel = channel(&asked.channel)?;
        match (confirmed, by_email) {
            (true, _) => {}
            (false, true) => self.may_mail(&Sent::default())?,
            (false, false) => self.may_message(&address, &Sent::default())?,
        }
        let exists = || Refused::new(422, Code::UserAlreadyExists, "User already registered");
        // Hashed also where there is such a user already, so that the time does not tell.
        let hash = self.hashing.hash(&asked.password).await?;
        let by = if by_email { By::Email(&address) } else { By::Phone(&address) };
        let mut user_metadata = asked.data.unwrap_or_default();
        if !confirmed {
            let address = if by_email { Address::Email(&address) } else { Address::Phone(&address, channel) };
            let signing_up = self.sign_up_unconfirmed(visitor, address, &hash, user_metadata, challenge);
            return level(Box::pin(signing_up)).await;
        }
        if let Some(account) = store::find(&self.database, by).await? {
            let traits = json!({ "provider": provider });
            let actor = Actor::user(&account.user);
            let audit = store::audit("user_repeated_signup", "user", &actor, &visitor.address, &traits);
            store::write(&self.database, vec![audit]).await?;
            return Err(exists().into());
        }
        if by_email {
            user_metadata.insert("email_verified".into(), true.into());
        }
        let id = Uuid::new_v4().to_string();
        let user = NewUser {
            id: id.clone(),
            aud: store::AUDIENCE,
            role: "authenticated",
            email: by_email.then_some(&address),
            phone: (!by_email).then_some(&address),
            password: Some(&hash),
            app_metadata: json!({ "provider": provider, "providers": [provider] }),
            user_metadata,
            is_anonymous: false,
            email_confirmed: if by_email { Confirmed::Taken } else { Confirmed::No },
            phone_confirmed: !by_email,
            ..NewUser::default()
        };
        self.before_user(visitor, &user).await?;
        let actor = Actor { id: &id, name: &address };
        let traits = json!({ "provider": provider });
        let new = self.begin("password");
        let mut all = user.statements();
        all.push(store::audit("user_signedup", "team", &actor, &visitor.address, &traits));
        all.push(store::audit("login", "account", &actor, &visitor.address, &traits));
        all.extend(new.statements(&id, visitor));
        match store::write(&self.database, all).await {
            Ok(answer) => {
                let user = store::last_user(&answer)?;
                self.after_user(visitor, &user).await?;
                Ok(respond::json(200, &self.begun(&new, user, None).await?))
            }
            // Somebody else was a moment faster.
            Err(Error::Taken(_)) => Err(exists().into()),
            Err(error) => Err(error),
        }
    }

    /// The user has to show first that the mailbox or the phone is its own. Nobody learns whether there was such a user before.
    async fn sign_up_unconfirmed(
        &self,
        visitor: &Visitor,
        address: Address<'_>,
        hash: &str,
        data: Map<String, Value>,
        challenge: Option<&str>,
    ) -> Result<Response<Bytes>, Error> {
        let (provider, name) = (address.provider(), address.name());
        let traits = json!({ "provider": provider });
        let found = match address {
            Address::Email(email) => store::by_email(&self.database, email).await?,
            Address::Phone(phone, _) => store::by_phone(&self.database, phone).await?,
        };
        let is_new = found.is_none();
        let (id, mut all) = match found {
            Some((account, _)) if address.is_confirmed(&account.user) => {
                self.pause_signup(address).await?;
                let actor = Actor::user(&account.user);
                let audit = store::audit("user_repeated_signup", "user", &actor, &visitor.address, &traits);
                let answer = store::write(&self.database, vec![audit, sql("select ntier.utc(now())", &[])]).await?;
                let now = answer.results.last().and_then(|result| result.rows.first()?.text(0)).unwrap_or_default();
                return Ok(respond::json(200, &pretended(address, &data, now)));
            }
            Some((account, tokens)) => {
                self.may_send(visitor, address, &tokens.confirmation).await?;
                self.pause_signup(address).await?;
                // Who signed up before may have been somebody else, who waits for the owner of the mailbox to confirm: what that one
                // said is void, and so is the link that was sent for it.
                let said = json!(data).to_string();
                let text = "update auth.users set encrypted_password = $2, raw_user_meta_data = $3::jsonb, updated_at = now() \
                    where id = $1 and email_confirmed_at is null and phone_confirmed_at is null";
                let anew = sql(text, &[Some(&account.user.id), Some(hash), Some(&said)]);
                (account.user.id.clone(), vec![forget_password(&account.user.id), anew])
            }
            None => {
                self.may_send(visitor, address, &Sent::default()).await?;
                let new = unconfirmed(address, Some(hash), data.clone());
                self.before_user(visitor, &new).await?;
                self.pause_signup(address).await?;
                (new.id.clone(), new.statements())
            }
        };
        all.extend(match address {
            Address::Email(email) => {
                let about = About { id: &id, email, data: &data };
                self.send(Kind::Confirmation, &about, self.redirect(visitor), challenge)?
            }
            Address::Phone(phone, channel) => self.send_code("confirmation", &id, phone, channel)?,
        });
        let actor = Actor { id: &id, name };
        all.push(store::audit("user_confirmation_requested", "user", &actor, &visitor.address, &traits));
        all.push(store::select_user(&id));
        let user = store::last_user(&store::write(&self.database, all).await?)?;
        if is_new {
            self.after_user(visitor, &user).await?;
        }
        Ok(respond::json(200, &user))
    }

    /// Also where nothing is sent: whoever signs up twice learns nothing either.
    async fn pause_signup(&self, address: Address<'_>) -> Result<(), Error> {
        match address {
            Address::Email(email) => self.pause("signup", email).await,
            Address::Phone(..) => Ok(()),
        }
    }

    async fn may_send(&self, visitor: &Visitor, address: Address<'_>, before: &Sent) -> Result<(), Error> {
        match address {
            Address::Email(_) => {
                self.may_mail(before)?;
                self.limit(Limit::Mail, visitor, None).await
            }
            Address::Phone(phone, _) => {
                self.may_message(phone, before)?;
                self.limit(Limit::Message, visitor, None).await
            }
        }
    }

    async fn sign_up_anonymously(&self, visitor: &Visitor, asked: SignUp) -> Result<Response<Bytes>, Error> {
        if !self.settings.anonymous {
            let message = "Anonymous sign-ins are disabled";
            return Err(Refused::new(422, Code::AnonymousProviderDisabled, message).into());
        }
        if !self.settings.signup {
            return Err(Refused::new(422, Code::SignupDisabled, "Signups not allowed for this instance").into());
        }
        self.limit(Limit::Anonymous, visitor, None).await?;
        let id = Uuid::new_v4().to_string();
        let user = NewUser {
            id: id.clone(),
            aud: store::AUDIENCE,
            role: "authenticated",
            app_metadata: json!({}),
            user_metadata: asked.data.unwrap_or_default(),
            is_anonymous: true,
            ..NewUser::default()
        };
        self.before_user(visitor, &user).await?;
        let new = self.begin("anonymous");
        let mut all = user.statements();
        all.extend(new.statements(&id, visitor));
        let user = store::last_user(&store::write(&self.database, all).await?)?;
        self.after_user(visitor, &user).await?;
        Ok(respond::json(200, &self.begun(&new, user, None).await?))
    }

    /// The address as it is kept.
    pub(crate) fn email(&self, text: &str) -> Result<String, Error> {
        if !self.settings.email {
            return Err(Refused::new(400, Code::EmailProviderDisabled, "Email signups are disabled").into());
        }
        email(text)
    }

    /// The number as it is kept.
    pub(crate) fn phone(&self, text: &str) -> Result<String, Error> {
        if !self.settings.phone {
            return Err(Refused::new(400, Code::PhoneProviderDisabled, "Phone signups are disabled").into());
        }
        phone(text)
    }

    pub(crate) fn check_password(&self, password: &str) -> Result<(), Error> {
        password::check(password, self.settings.password).map_err(|fault| match fault {
            password::Fault::TooLong => too_long().into(),
            password::Fault::Weak { message, reasons } => Refused::weak(message, reasons).into(),
        })
    }
}

/// Where somebody is reached who is not known to be there.
#[derive(Debug, Clone, Copy)]
pub enum Address<'a> {
    Email(&'a str),
    Phone(&'a str, Channel),
}

impl<'a> Address<'a> {
    fn provider(self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Phone(..) => "phone",
        }
    }

    fn name(self) -> &'a str {
        match self {
            Self::Email(name) | Self::Phone(name, _) => name,
        }
    }

    fn is_confirmed(self, user: &User) -> bool {
        match self {
            Self::Email(_) => user.email_confirmed_at.is_some(),
            Self::Phone(..) => user.phone_confirmed_at.is_some(),
        }
    }
}

/// A new user whose address is not known to be its own; `password` is a hash.
pub fn unconfirmed<'a>(address: Address<'a>, password: Option<&'a str>, data: Map<String, Value>) -> NewUser<'a> {
    let (provider, name) = (address.provider(), address.name());
    NewUser {
        id: Uuid::new_v4().to_string(),
        aud: store::AUDIENCE,
        role: "authenticated",
        email: matches!(address, Address::Email(_)).then_some(name),
        phone: matches!(address, Address::Phone(..)).then_some(name),
        password,
        app_metadata: json!({ "provider": provider, "providers": [provider] }),
        user_metadata: data,
        ..NewUser::default()
    }
}

/// What a new user would look like. Source: GoTrue, `sanitizeUser`.
fn pretended(address: Address<'_>, data: &Map<String, Value>, now: &str) -> Value {
    let provider = address.provider();
    let (email, phone) = if provider == "email" { (address.name(), "") } else { ("", address.name()) };
    json!({
        "id": Uuid::new_v4().to_string(), "aud": store::AUDIENCE, "role": "", "email": email, "phone": phone,
        "confirmation_sent_at": now, "app_metadata": { "provider": provider, "providers": [provider] }, "user_metadata": data,
        "identities": [], "created_at": now, "updated_at": now, "is_anonymous": false,
    })
}

pub fn too_long() -> Refused {
    Refused::invalid(format!("Password cannot be longer than {} characters", password::LONGEST))
}

pub fn email(text: &str) -> Result<String, Error> {
    let invalid = || Refused::invalid("Unable to validate email address: invalid format").into();
    request::email(text).ok_or_else(invalid)
}

pub fn phone(text: &str) -> Result<String, Error> {
    let invalid = || Refused::invalid("Invalid phone number format (E.164 required)").into();
    request::phone(text).ok_or_else(invalid)
}
