//! What is said to a provider: the address to which a browser is sent, and the code for which the provider tells who came.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request};
use ntier_backing::outbound::Outbound;
use ntier_security::one_time;
use serde_json::Value;

use super::Fault;
use super::open_id::Issuers;
use super::profile::{Profile, Verified};
use super::provider::{Provider, Spoken};
use crate::now;
use crate::redirect::{escaped, form};

/// What a provider gives for a code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    pub access: String,
    pub refresh: Option<String>,
    id: Option<String>,
}

/// Asks providers, and remembers what their issuers say.
#[derive(Debug, Default)]
pub struct Exchange {
    pub outbound: Outbound,
    pub issuers: Issuers,
}

impl Exchange {
    /// Where the browser goes. `more` are parameters that the application adds.
    pub async fn address(
        &self,
        provider: &Provider,
        state: &str,
        verifier: Option<&str>,
        scopes: &str,
        more: &[(&str, &str)],
    ) -> Result<String, Fault> {
        let authorize = match &provider.spoken {
            Spoken::OpenId { issuer, discovery, .. } => {
                self.issuers.get(&self.outbound, issuer, discovery).await?.authorize.clone()
            }
            Spoken::Named { api, url } => api.authorize.address(url.as_deref()),
            Spoken::OAuth { authorize, .. } => authorize.clone(),
        };
        let mut all: Vec<&str> = provider.scopes.iter().map(String::as_str).collect();
        all.extend(
            scopes
                .split([',', ' '])
                .filter(|scope| !scope.is_empty() && !provider.scopes.iter().any(|own| own == scope)),
        );
        let scope = all.join(" ");
        let challenge = verifier.map(one_time::challenge);
        let mut parameters = vec![
            ("client_id", provider.client_ids.first().map_or("", String::as_str)),
            ("redirect_uri", provider.redirect_uri.as_str()),
            ("response_type", "code"),
            ("scope", scope.as_str()),
            ("state", state),
        ];
        if let Some(challenge) = &challenge {
            parameters.extend([("code_challenge", challenge.as_str()), ("code_challenge_method", "S256")]);
        }
        parameters.extend(provider.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        parameters.extend(more);
        let mark = if authorize.contains('?') { '&' } else { '?' };
        Ok(format!("{authorize}{mark}{}", form(parameters)))
    }

    /// Tokens for a code.
    pub async fn tokens(&self, provider: &Provider, code: &str, verifier: Option<&str>) -> Result<Tokens, Fault> {
        let (address, basic) = match &provider.spoken {
            Spoken::OpenId { issuer, discovery, .. } => {
                let issuer = self.issuers.get(&self.outbound, issuer, discovery).await?;
                (issuer.token.clone(), issuer.basic)
            }
            Spoken::Named { api, url } => (api.token.address(url.as_deref()), api.basic),
            Spoken::OAuth { token, .. } => (token.clone(), false),
        };
        let id = provider.client_ids.first().map_or("", String::as_str);
        let secret = provider.secret.expose();
        let mut parameters =
            vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", &provider.redirect_uri)];
        parameters.extend(verifier.map(|verifier| ("code_verifier", verifier)));
        let mut request = Request::post(&address)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        if basic {
            let credentials = STANDARD.encode(format!("{}:{}", escaped(id), escaped(secret)));
            request = request.header(AUTHORIZATION, format!("Basic {credentials}"));
        } else {
            parameters.extend([("client_id", id), ("client_secret", secret)]);
        }
        let answer = json(&self.outbound, request.body(form(parameters).into())).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(error) = text("error") {
            return Err(Fault::Refused(error.to_owned()));
        }
        Ok(Tokens {
            access: text("access_token").ok_or(Fault::Incomplete("access_token"))?.to_owned(),
            refresh: text("refresh_token").map(str::to_owned),
            id: text("id_token").map(str::to_owned),
        })
    }

    /// Who has come.
    pub async fn profile(&self, provider: &Provider, tokens: &Tokens) -> Result<Profile, Fault> {
        let profile = match &provider.spoken {
            Spoken::OpenId { issuer, discovery, custom, mapping } => {
                let token = tokens.id.as_deref().ok_or(Fault::Incomplete("id_token"))?;
                let place = (issuer.as_str(), discovery.as_str());
                let clients = &provider.client_ids;
                let mut claims = self.issuers.verify(&self.outbound, place, token, clients, now()).await?;
                let issuer = self.issuers.get(&self.outbound, issuer, discovery).await?;
                // Microsoft leaves out of a token what it has not made sure of, and says it here all the same.
                let is_asked = !matches!(provider.verified, Verified::DomainOwner(_));
                if let (None, Some(userinfo), true) = (claims.get("email"), &issuer.userinfo, is_asked) {
                    let more = self.get(userinfo, tokens, &[]).await?;
                    // Of somebody else nothing is taken (OpenID Connect Core 1.0, 5.3.2).
                    if more.get("sub") == claims.get("sub") {
                        for (name, value) in more.as_object().into_iter().flatten() {
                            if claims.get(name).is_none() {
                                claims[name] = value.clone();
                            }
                        }
                    }
                }
                Profile::of_claims(&Profile::mapped(&claims, mapping), provider.verified, custom)
            }
            Spoken::Named { api, url } => {
                let headers: Vec<(&str, String)> = api
                    .headers
                    .iter()
                    .map(|(name, value)| (*name, value.replace("{client_id}", &provider.client_ids[0])))
                    .collect();
                let mut address = api.profile.address(url.as_deref());
                if provider.name == "facebook" {
                    // Required where the application asks for it ("Securing Graph API requests").
                    let proof = one_time::hmac_sha256_hex(provider.secret.expose(), &tokens.access);
                    address.push_str(&format!("&appsecret_proof={proof}"));
                }
                let answer = self.get(&address, tokens, &headers).await?;
                let emails = match &api.emails {
                    Some((place, shape)) => {
                        Some((shape, self.get(&place.address(url.as_deref()), tokens, &headers).await?))
                    }
                    None => None,
                };
                let emails = emails.as_ref().map(|(shape, list)| (*shape, list));
                Profile::of_answer(&api.shape, &origin(&address), &answer, emails)
            }
            Spoken::OAuth { profile, custom, mapping, .. } => {
                let answer = self.get(profile, tokens, &[]).await?;
                Profile::of_claims(&Profile::mapped(&answer, mapping), provider.verified, custom)
            }
        };
        profile.ok_or(Fault::Incomplete("the name of whoever has come"))
    }

    async fn get(&self, address: &str, tokens: &Tokens, headers: &[(&str, String)]) -> Result<Value, Fault> {
        let mut request = Request::get(address)
            .header(AUTHORIZATION, format!("Bearer {}", tokens.access))
            .header(ACCEPT, "application/json");
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                request = request.header(name, value);
            }
        }
        json(&self.outbound, request.body(Bytes::new())).await
    }
}

/// The JSON that answers a request; an OAuth error is an answer too (RFC 6749, 5.2).
pub async fn json(outbound: &Outbound, request: Result<Request<Bytes>, http::Error>) -> Result<Value, Fault> {
    let request = request.map_err(|_| Fault::Address)?;
    let response = outbound.send(request).await?;
    let status = response.status();
    let answer: Option<Value> = serde_json::from_slice(response.body()).ok();
    match answer {
        Some(answer) if status.is_success() || answer.get("error").is_some_and(Value::is_string) => Ok(answer),
        _ => Err(Fault::Status(status.as_u16())),
    }
}

/// Scheme and host.
fn origin(address: &str) -> String {
    let end = address.match_indices('/').nth(2).map_or(address.len(), |(at, _)| at);
    address[..end].to_owned()
}
