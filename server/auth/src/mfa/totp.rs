//! Authenticator apps.

use ntier_backing::database::Statement;
use ntier_protocol::auth::user::User;
use ntier_security::totp;
use qrcode::QrCode;
use qrcode::render::svg;
use serde_json::json;

use super::{Enrolled, Facts, Kind, wrong};
use crate::error::Error;
use crate::store::sql;
use crate::{Auth, now};

impl Auth {
    pub(super) fn enroll_totp(&self, user: &User, id: &str, issuer: &str) -> Result<Enrolled, Error> {
        let secret = totp::secret().map_err(|_| Error::Random)?;
        let issuer = if issuer.is_empty() { host(&self.settings.site_url) } else { issuer };
        let uri = totp::uri(issuer, if user.email.is_empty() { &user.phone } else { &user.email }, &secret);
        let picture = QrCode::new(&uri).map_err(|_| Error::Incomplete)?;
        // Clients make `data:image/svg+xml;utf-8,…` of it as it is, in which a `#` would begin a fragment.
        let (dark, light) = (svg::Color("black"), svg::Color("white"));
        let picture = picture.render().min_dimensions(200, 200).dark_color(dark).light_color(light).build();
        Ok(Enrolled {
            secret: Some(self.vault.seal(&secret, id).map_err(|_| Error::Random)?),
            phone: None,
            told: json!({ "totp": { "qr_code": picture, "secret": secret, "uri": uri } }),
        })
    }

    /// What says that the code was taken.
    pub(super) fn prove_totp(&self, facts: &Facts, code: &str) -> Result<Statement, Error> {
        let secret = self.vault.open(facts.secret.as_deref().unwrap_or_default(), &facts.factor);
        let step = totp::step(&secret.ok_or(Error::Incomplete)?, code, now(), facts.last_used_step);
        let step = step.ok_or_else(|| wrong(Kind::Totp))?.to_string();
        Ok(sql(
            "with used as (update auth.mfa_factors set status = 'verified', updated_at = now(), last_used_step = $2 \
             where id = $1 and coalesce(last_used_step, 0) < $2 returning 1) \
             select ntier.expect(exists (select from used), 'the code')",
            &[Some(&facts.factor), Some(&step)],
        ))
    }
}

fn host(url: &str) -> &str {
    let behind = url.split_once("://").map_or(url, |(_, behind)| behind);
    behind.split(['/', '?', '#']).next().unwrap_or_default()
}
