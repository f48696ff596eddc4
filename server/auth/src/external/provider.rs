//! A provider as it is used: what its name says, what the settings say, what an administrator has added.

use ntier_backing::database::Row;
use ntier_security::Secret;
use ntier_security::vault::Vault;
use serde_json::{Map, Value};

use super::named::{self, Api, Speech};
use super::open_id;
use super::profile::Verified;

/// A provider in the settings (`auth.external.…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    pub name: String,
    /// The first is shown to the provider; id tokens may be for any.
    pub client_ids: Vec<String>,
    pub secret: Secret<String>,
    /// Where it is, if not where everybody has it; for a name that is not known, the issuer of OpenID Connect.
    pub url: Option<String>,
    /// Where the provider sends browsers back; `/callback` of this node if nothing is said.
    pub redirect_uri: Option<String>,
    pub skip_nonce_check: bool,
    /// Whoever comes without an address may come in.
    pub email_optional: bool,
}

impl External {
    /// Why it cannot be used, if so.
    pub fn fault(&self) -> Option<String> {
        let named = named::find(&self.name);
        let has_place = match named.map(|named| &named.speech) {
            Some(Speech::OpenId { issuer, .. }) => issuer.is_some(),
            Some(Speech::OAuth(_)) => true,
            None => false,
        };
        if named::NOT_SERVED.contains(&self.name.as_str()) {
            return Some("it is not served here".into());
        }
        if self.client_ids.is_empty() {
            return Some("it needs a client_id".into());
        }
        if !has_place && self.url.is_none() {
            return Some("it needs a url: the issuer of OpenID Connect".into());
        }
        None
    }
}

/// See the module.
#[derive(Debug)]
pub struct Provider {
    pub name: String,
    pub client_ids: Vec<String>,
    pub secret: Secret<String>,
    pub redirect_uri: String,
    pub scopes: Vec<String>,
    pub parameters: Vec<(String, String)>,
    pub pkce: bool,
    pub skip_nonce_check: bool,
    pub email_optional: bool,
    pub verified: Verified,
    pub spoken: Spoken,
}

/// How it is talked to.
#[derive(Debug)]
pub enum Spoken {
    OpenId { issuer: String, discovery: String, custom: Vec<String>, mapping: Map<String, Value> },
    Named { api: &'static Api, url: Option<String> },
    OAuth { authorize: String, token: String, profile: String, custom: Vec<String>, mapping: Map<String, Value> },
}

impl Provider {
    /// One of the settings; `callback` is this node's own.
    pub fn configured(external: &External, callback: &str) -> Self {
        let named = named::find(&external.name);
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<String>>();
        let url = external.url.clone();
        let spoken = match named.map(|named| &named.speech) {
            Some(Speech::OAuth(api)) => Spoken::Named { api, url },
            Some(Speech::OpenId { issuer, custom }) => {
                // Microsoft's tenants are named without the version.
                let url = url.map(|url| match external.name.as_str() {
                    "azure" if !url.ends_with("/v2.0") => format!("{}/v2.0", url.trim_end_matches('/')),
                    _ => url,
                });
                let issuer = url.or(issuer.map(str::to_owned)).unwrap_or_default();
                let discovery = open_id::discovery(&issuer);
                Spoken::OpenId { issuer, discovery, custom: own(custom), mapping: Map::new() }
            }
            None => {
                let issuer = url.unwrap_or_default();
                let discovery = open_id::discovery(&issuer);
                Spoken::OpenId { issuer, discovery, custom: Vec::new(), mapping: Map::new() }
            }
        };
        Self {
            name: external.name.clone(),
            client_ids: external.client_ids.clone(),
            secret: external.secret.clone(),
            redirect_uri: external.redirect_uri.clone().unwrap_or_else(|| callback.to_owned()),
            scopes: named.map_or_else(|| own(&["openid", "email", "profile"]), |named| own(named.scopes)),
            parameters: named
                .map(|named| named.parameters)
                .unwrap_or_default()
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            pkce: named.is_none_or(|named| named.pkce),
            skip_nonce_check: external.skip_nonce_check,
            email_optional: external.email_optional,
            verified: named.map_or(Verified::Flag("/email_verified"), |named| named.verified),
            spoken,
        }
    }

    /// The columns that [`Provider::added`] reads.
    pub const COLUMNS: &str = "identifier, provider_type, client_id, client_secret, to_jsonb(acceptable_client_ids), \
        to_jsonb(scopes), pkce_enabled, attribute_mapping, authorization_params, email_optional, issuer, discovery_url, \
        skip_nonce_check, authorization_url, token_url, userinfo_url, to_jsonb(custom_claims_allowlist)";

    /// One that an administrator has added; `None` where its secret cannot be opened here.
    pub fn added(row: &Row, vault: &Vault, callback: &str) -> Option<Self> {
        let text = |column: usize| row.text(column).unwrap_or_default().to_owned();
        let list = |column: usize| -> Vec<String> {
            row.text(column).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
        };
        let map = |column: usize| -> Map<String, Value> {
            row.text(column).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
        };
        let (name, custom, mapping) = (text(0), list(16), map(7));
        let is_open_id = text(1) == "oidc";
        let mut scopes = list(5);
        let spoken = if is_open_id {
            if !scopes.iter().any(|scope| scope == "openid") {
                scopes.insert(0, "openid".into());
            }
            let issuer = text(10);
            let discovery = row.text(11).map_or_else(|| open_id::discovery(&issuer), str::to_owned);
            Spoken::OpenId { issuer, discovery, custom, mapping }
        } else {
            Spoken::OAuth { authorize: text(13), token: text(14), profile: text(15), custom, mapping }
        };
        let mut client_ids = vec![text(2)];
        client_ids.extend(list(4));
        let parameters = map(8).into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
        Some(Self {
            secret: Secret::new(vault.open(row.text(3)?, &name)?),
            client_ids,
            redirect_uri: callback.to_owned(),
            scopes,
            parameters: parameters.collect(),
            pkce: row.text(6) == Some("t"),
            skip_nonce_check: row.text(12) == Some("t"),
            email_optional: row.text(9) == Some("t"),
            verified: Verified::Flag("/email_verified"),
            spoken,
            name,
        })
    }
}
