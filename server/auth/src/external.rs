//! Sign-in at another's: `GET /authorize` sends a browser to a provider, `/callback` takes it back with a code, for which the provider
//! tells who it is. Source: GoTrue, `internal/api/external.go`; RFC 6749, 4.1; RFC 7636.

mod account;
pub mod exchange;
mod linking;
pub mod named;
mod open_id;
mod profile;
mod provider;

use bytes::Bytes;
use http::{Method, Response};
use ntier_backing::database::Statement;
use ntier_backing::outbound;
use ntier_protocol::auth::error::{Code, Error as Refused, OAuthError};
use ntier_protocol::auth::request::{Challenge, IdTokenGrant};
use ntier_security::{UnixTime, keys, token};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::limits::Limit;
use crate::redirect::{Target, error_parameters, session_parameters};
use crate::store::{self, sql};
use crate::visitor::{Visitor, pairs};
use crate::{Auth, now, pkce, respond};

use account::Arrival;
use exchange::Tokens;
pub use open_id::discovery;
use profile::Profile;
pub use provider::External;
use provider::{Provider, Spoken};

/// Why a provider does not tell who has come.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Outbound(#[from] outbound::Fault),
    #[error("the address cannot be asked")]
    Address,
    #[error("the provider answers with status {0}")]
    Status(u16),
    #[error("the provider refuses: {0}")]
    Refused(String),
    #[error("the provider's answer has no {0}")]
    Incomplete(&'static str),
    #[error("{0} is not reached over TLS")]
    InTheClear(String),
    #[error("the issuer is another: {0:?}")]
    Issuer(String),
    #[error("Unacceptable audience in id_token: [{0}]")]
    Audience(String),
    #[error("Nonces mismatch")]
    Nonce,
    #[error("{0}")]
    Claims(&'static str),
    #[error("{0}")]
    Token(token::Refusal),
}

/// A provider that cannot be asked for what the configuration says.
fn unsupported(cause: &str) -> Error {
    Refused::invalid(format!("Unsupported provider: {cause}")).into()
}

/// What an application may not say in our place. Source: GoTrue, `reservedOAuthParams`.
pub const RESERVED: &[&str] = &[
    "provider",
    "scopes",
    "redirect_to",
    "skip_http_redirect",
    "invite_token",
    "apikey",
    "client_id",
    "client_secret",
    "redirect_uri",
    "response_type",
    "response_mode",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
];

/// A flow that a browser has begun, as `auth.flow_state` has it.
#[derive(Debug)]
struct Flow {
    id: String,
    provider: String,
    begun: UnixTime,
    /// The browser ends it with a code.
    auth_code: Option<String>,
    is_used: bool,
    target: String,
    linking: Option<String>,
    invite: Option<String>,
    email_optional: bool,
    /// Of our own proof at the provider.
    client_state: Option<String>,
    verifier: Option<String>,
}

impl Auth {
    /// `GET /authorize`.
    pub(crate) async fn authorize(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let address = self.provider_address(visitor, None).await?;
        Ok(Target::new(&address).found())
    }

    /// `GET /user/identities/authorize`: likewise, for whoever is signed in.
    pub(crate) async fn link_identity(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        if !self.settings.manual_linking {
            return Err(Refused::new(404, Code::ManualLinkingDisabled, "Manual linking is disabled").into());
        }
        let address = self.provider_address(visitor, Some(&who.account.user.id)).await?;
        if visitor.parameter("skip_http_redirect") == Some("true") {
            return Ok(respond::json(200, &json!({ "url": address })));
        }
        Ok(Target::new(&address).found())
    }

    /// Where the browser has to go; what is needed when it comes back is kept.
    async fn provider_address(&self, visitor: &Visitor, linking: Option<&str>) -> Result<String, Error> {
        let parameter = |name: &str| visitor.parameter(name).unwrap_or_default();
        let provider = self.provider(parameter("provider")).await?;
        let asked = Challenge {
            code_challenge: parameter("code_challenge").to_owned(),
            code_challenge_method: parameter("code_challenge_method").to_owned(),
        };
        let challenge = pkce::challenge(&asked)?;
        let invite = visitor.parameter("invite_token");
        self.limit(if invite.is_some() { Limit::Verify } else { Limit::Token }, visitor, None).await?;
        if let Some(token) = invite
            && store::with_tokens(&self.database, token, None).await?.is_none()
        {
            return Err(Refused::new(404, Code::UserNotFound, "User identified by token not found").into());
        }
        let verifier = if provider.pkce { Some(keys::random(32).map_err(|_| Error::Random)?) } else { None };
        let (state, client_state) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let more: Vec<(&str, &str)> =
            visitor.parameters().filter(|(name, _)| !RESERVED.contains(&name.to_lowercase().as_str())).collect();
        let address = self.exchange.address(&provider, &state, verifier.as_deref(), parameter("scopes"), &more).await;
        let address = address.map_err(|fault| unsupported(&fault.to_string()))?;
        let mut all = Vec::new();
        if let Some(verifier) = &verifier {
            all.push(sql(
                "insert into auth.oauth_client_states (id, provider_type, code_verifier, created_at) values ($1, $2, $3, now())",
                &[Some(&client_state), Some(&provider.name), Some(verifier)],
            ));
        }
        let code = challenge.map(|_| Uuid::new_v4().to_string());
        all.push(sql(
            "insert into auth.flow_state (id, auth_code, code_challenge_method, code_challenge, provider_type, authentication_method, \
             created_at, updated_at, invite_token, referrer, oauth_client_state_id, linking_target_id, email_optional) \
             values ($1, $2, $3, $4, $5, 'oauth', now(), now(), $6, $7, $8, $9, $10)",
            &[
                Some(&state),
                code.as_deref(),
                challenge.map(|_| "s256"),
                challenge,
                Some(&provider.name),
                invite,
                Some(self.redirect(visitor)),
                verifier.as_ref().map(|_| client_state.as_str()),
                linking,
                Some(if provider.email_optional { "true" } else { "false" }),
            ],
        ));
        store::write(&self.database, all).await?;
        Ok(address)
    }

    /// A provider that is switched on: of the settings, or one that an administrator has added.
    async fn provider(&self, name: &str) -> Result<Provider, Error> {
        let name = name.to_lowercase();
        let callback = format!("{}/callback", self.settings.url);
        if let Some(external) = self.settings.external.iter().find(|external| external.name == name) {
            return Ok(Provider::configured(external, &callback));
        }
        if !name.starts_with("custom:") {
            let is_known = named::find(&name).is_some();
            let cause =
                if is_known { "provider is not enabled".into() } else { format!("Provider {name} could not be found") };
            return Err(unsupported(&cause));
        }
        let columns = Provider::COLUMNS;
        let text = format!("select {columns} from auth.custom_oauth_providers where identifier = $1 and enabled");
        let answer = store::read(&self.database, vec![sql(&text, &[Some(&name)])]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first());
        let row = row.ok_or_else(|| unsupported(&format!("custom provider {name} not found")))?;
        let provider = Provider::added(row, &self.vault, &callback);
        provider.ok_or_else(|| unsupported("its secret was sealed by another node: give it again"))
    }

    /// `GET` and `POST /callback`: the provider sends the browser back.
    pub(crate) async fn callback(
        &self,
        method: &Method,
        visitor: &Visitor,
        body: &Bytes,
    ) -> Result<Response<Bytes>, Error> {
        let sent = if method == Method::POST { pairs(&String::from_utf8_lossy(body)) } else { Vec::new() };
        let parameter = |name: &str| {
            let sent = sent.iter().find(|(key, value)| key == name && !value.is_empty());
            sent.map(|(_, value)| value.as_str()).or_else(|| visitor.parameter(name)).unwrap_or_default()
        };
        let flow = match self.flow(parameter("state")).await {
            Ok(flow) => flow,
            Err(Error::Refused(refused)) => {
                return Ok(Target::new(&self.settings.site_url).query(&error_parameters(&refused)).see_other());
            }
            Err(error) => return Err(error),
        };
        let target = Target::new(&flow.target);
        let refused = match parameter("error") {
            "" => self.arrive(visitor, &flow, parameter("code"), parameter("user")).await,
            // The provider's own words.
            error => {
                let mut all = vec![("error", error.to_owned())];
                let description = parameter("error_description");
                if !description.is_empty() {
                    all.push(("error_description", description.to_owned()));
                }
                return Ok(target.query(&all).fragment(&all).found());
            }
        };
        match refused {
            Ok(response) => Ok(response),
            Err(Error::Refused(refused)) => {
                let all = error_parameters(&refused);
                Ok(target.query(&all).fragment(&all).found())
            }
            Err(error) => Err(error),
        }
    }

    async fn flow(&self, state: &str) -> Result<Flow, Error> {
        if state.is_empty() {
            return Err(Refused::new(400, Code::BadOAuthCallback, "OAuth state parameter missing").into());
        }
        let invalid = |message: &str| Error::from(Refused::new(400, Code::BadOAuthState, message));
        let id = Uuid::try_parse(state).map_err(|_| invalid("OAuth state parameter is invalid"))?.to_string();
        let text = "select f.provider_type, extract(epoch from f.created_at)::bigint, f.auth_code, f.user_id is not null, f.referrer, \
            f.linking_target_id, f.invite_token, f.email_optional, c.id, c.code_verifier \
            from auth.flow_state f left join auth.oauth_client_states c on c.id = f.oauth_client_state_id and c.provider_type = f.provider_type \
            where f.id = $1 and f.authentication_method = 'oauth'";
        let answer = store::read(&self.database, vec![sql(text, &[Some(&id)])]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first());
        let row = row.ok_or_else(|| invalid("OAuth state not found or expired"))?;
        let text = |column: usize| row.text(column).map(str::to_owned);
        let flow = Flow {
            id,
            provider: text(0).unwrap_or_default(),
            begun: row.text(1).and_then(|text| text.parse().ok()).ok_or(Error::Incomplete)?,
            auth_code: text(2),
            is_used: row.text(3) == Some("t"),
            target: text(4).filter(|target| !target.is_empty()).unwrap_or_else(|| self.settings.site_url.clone()),
            linking: text(5),
            invite: text(6),
            email_optional: row.text(7) == Some("t"),
            client_state: text(8),
            verifier: text(9),
        };
        if now() > flow.begun + pkce::LIFE {
            return Err(invalid("OAuth state has expired"));
        }
        if flow.is_used {
            return Err(Refused::new(400, Code::FlowStateAlreadyUsed, "State has already been used").into());
        }
        Ok(flow)
    }

    async fn arrive(&self, visitor: &Visitor, flow: &Flow, code: &str, user: &str) -> Result<Response<Bytes>, Error> {
        if code.is_empty() {
            let message = "OAuth callback with missing authorization code missing";
            return Err(Refused::new(400, Code::BadOAuthCallback, message).into());
        }
        self.limit(Limit::Token, visitor, None).await?;
        let provider = self.provider(&flow.provider).await?;
        let failed = |what: &str, fault: &Fault| {
            Error::from(Refused::new(500, Code::UnexpectedFailure, format!("{what}: {fault}")))
        };
        let tokens = self.exchange.tokens(&provider, code, flow.verifier.as_deref()).await;
        let tokens = tokens.map_err(|fault| failed("Unable to exchange external code", &fault))?;
        let profile = self.exchange.profile(&provider, &tokens).await;
        let mut profile =
            profile.map_err(|fault| failed("Error getting user profile from external provider", &fault))?;
        // Apple says the name once, and beside the token.
        if let Ok(user) = serde_json::from_str::<Value>(user) {
            let part = |name: &str| user["name"][name].as_str().unwrap_or_default().to_owned();
            let name = format!("{} {}", part("firstName"), part("lastName")).trim().to_owned();
            if !name.is_empty() {
                profile.claims.insert("name".into(), name.clone().into());
                profile.claims.insert("full_name".into(), name.into());
            }
        }
        let arrival = Arrival {
            provider: &provider.name,
            profile: &profile,
            email_optional: flow.email_optional,
            linking: flow.linking.as_deref(),
            invite: flow.invite.as_deref(),
            target: &flow.target,
        };
        if let Some(code) = &flow.auth_code {
            let claim = self.claim(flow, &tokens)?;
            self.come_in(visitor, &arrival, &|user| vec![claim(user)]).await?;
            return Ok(Target::new(&flow.target).query(&[("code", code.clone())]).found());
        }
        let new = self.begin("oauth");
        let user = self
            .come_in(visitor, &arrival, &|user| {
                let mut all = vec![sql(
                    "with gone as (delete from auth.flow_state where id = $1 returning 1) \
                     select ntier.expect(exists (select from gone), 'the flow')",
                    &[Some(&flow.id)],
                )];
                all.push(forget_client_state(flow));
                all.extend(new.statements(user, visitor));
                all
            })
            .await?;
        let session = self.begun(&new, user, None).await?;
        let mut parameters = session_parameters(&session);
        parameters.push(("provider_token", tokens.access));
        parameters.extend(tokens.refresh.map(|token| ("provider_refresh_token", token)));
        Ok(Target::new(&flow.target).fragment(&parameters).found())
    }

    /// What says that the flow belongs to a user now, once.
    fn claim(&self, flow: &Flow, tokens: &Tokens) -> Result<impl Fn(&str) -> Statement, Error> {
        let seal = |text: &str| self.vault.seal(text, &flow.id).map_err(|_| Error::Random);
        let access = seal(&tokens.access)?;
        let refresh = tokens.refresh.as_deref().map(seal).transpose()?;
        let (id, client_state) = (flow.id.clone(), flow.client_state.clone());
        Ok(move |user: &str| {
            sql(
                "with claimed as (update auth.flow_state set user_id = $2, auth_code_issued_at = now(), updated_at = now(), \
                 provider_access_token = $3, provider_refresh_token = $4 where id = $1 and user_id is null returning 1), \
                 gone as (delete from auth.oauth_client_states where id = $5) \
                 select ntier.expect(exists (select from claimed), 'the flow')",
                &[Some(&id), Some(user), Some(&access), refresh.as_deref(), client_state.as_deref()],
            )
        })
    }

    /// `POST /token?grant_type=id_token`: an application has an id token from the provider already.
    pub(crate) async fn by_id_token(&self, visitor: &Visitor, asked: &IdTokenGrant) -> Result<Response<Bytes>, Error> {
        let invalid = |message: &str| Error::from(OAuthError::new("invalid request", message));
        if asked.id_token.is_empty() {
            return Err(invalid("id_token required"));
        }
        if asked.provider.is_empty() && (asked.client_id.is_empty() || asked.issuer.is_empty()) {
            return Err(invalid("provider or client_id and issuer required"));
        }
        self.limit(Limit::Token, visitor, None).await?;
        if asked.link_identity && !self.settings.manual_linking {
            return Err(Refused::new(404, Code::ManualLinkingDisabled, "Manual linking is disabled").into());
        }
        let linking = if asked.link_identity { Some(self.signed_in(visitor).await?.account.user.id) } else { None };
        let provider = self.provider_of_token(asked).await?;
        let Spoken::OpenId { issuer, discovery, custom, mapping } = &provider.spoken else {
            return Err(Refused::invalid(format!("Provider {:?} is not an OIDC provider", provider.name)).into());
        };
        let Provider { name, client_ids, .. } = &provider;
        let place = (issuer.as_str(), discovery.as_str());
        let verified =
            self.exchange.issuers.verify(&self.exchange.outbound, place, &asked.id_token, client_ids, now()).await;
        let claims = verified.map_err(|fault| match fault {
            Fault::Audience(_) | Fault::Claims(_) => invalid(&fault.to_string()),
            fault => invalid(&format!("Bad ID token: {fault}")),
        })?;
        if !provider.skip_nonce_check {
            open_id::check_nonce(&claims, &asked.nonce).map_err(|fault| match fault {
                Fault::Nonce => OAuthError::new("invalid nonce", fault.to_string()).into(),
                fault => invalid(&fault.to_string()),
            })?;
        }
        let profile = Profile::of_claims(&Profile::mapped(&claims, mapping), provider.verified, custom);
        let profile = profile.ok_or_else(|| invalid("Missing sub claim in id_token"))?;
        let arrival = Arrival {
            provider: name,
            profile: &profile,
            email_optional: provider.email_optional,
            linking: linking.as_deref(),
            invite: None,
            target: self.redirect(visitor),
        };
        let new = self.begin("oauth");
        let user = self.come_in(visitor, &arrival, &|user| new.statements(user, visitor)).await?;
        Ok(respond::json(200, &self.begun(&new, user, None).await?))
    }

    /// Whose id token it is: by the provider's name, or by the issuer where that is a provider's.
    async fn provider_of_token(&self, asked: &IdTokenGrant) -> Result<Provider, Error> {
        let callback = format!("{}/callback", self.settings.url);
        let name = asked.provider.to_lowercase();
        if let Some(external) = self.settings.external.iter().find(|external| external.name == name) {
            return Ok(Provider::configured(external, &callback));
        }
        if name.starts_with("custom:") {
            return self.provider(&name).await;
        }
        for external in &self.settings.external {
            let provider = Provider::configured(external, &callback);
            if matches!(&provider.spoken, Spoken::OpenId { issuer, .. } if *issuer == asked.issuer) {
                return Ok(provider);
            }
        }
        if named::find(&name).is_some() {
            let message = format!("Provider (issuer {:?}) is not enabled", asked.issuer);
            return Err(Refused::new(400, Code::ProviderDisabled, message).into());
        }
        Err(Refused::invalid(format!("Custom OIDC provider {:?} not allowed", asked.provider)).into())
    }
}

fn forget_client_state(flow: &Flow) -> Statement {
    sql("delete from auth.oauth_client_states where id = $1", &[flow.client_state.as_deref()])
}
