//! Signed URLs. The objects are looked for as the caller, so nobody signs what they cannot read.

use http::Response;
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_protocol::storage::request::{self, Sign, SignMany};
use ntier_security::signed_url::{Grant, Refusal, Scope};
use serde_json::{Value, json};

use crate::Storage;
use crate::body::{self, Body};
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::Object;
use crate::visitor::{Visitor, now, place};

impl Storage {
    /// `POST /object/sign/{bucket}/{key}`.
    pub(crate) async fn sign_url(
        &self,
        visitor: &Visitor,
        bucket: &str,
        key: &[String],
        body: Body,
    ) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let wanted: Sign = request::parse(&body::whole(body).await?)?;
        check_seconds(wanted.expires_in)?;
        let transformations = wanted.transform.as_ref().map(transformations).filter(|text| !text.is_empty());
        let caller = visitor.caller()?;
        let work = Work { service: Vec::new(), caller: vec![Object::select(&bucket, &key)] };
        let request = Request::of(visitor, "storage.object.sign");
        let answer = session::as_caller(&self.database, caller, &request, Mode::Read, work).await?;
        Object::found(&answer, 0)?.ok_or_else(Wire::no_such_key)?;
        let kind = if transformations.is_some() { "render/image" } else { "object" };
        let url = format!("{bucket}/{key}");
        let token = self.sign(download(url.clone(), transformations, wanted.expires_in))?;
        Ok(respond::json(&json!({ "signedURL": format!("/{kind}/sign/{url}?token={token}") })))
    }

    /// `POST /object/sign/{bucket}`.
    pub(crate) async fn sign_urls(&self, visitor: &Visitor, bucket: &str, body: Body) -> Result<Response<Body>, Error> {
        let bucket = BucketId::parse(bucket)?;
        let wanted: SignMany = request::parse(&body::whole(body).await?)?;
        check_seconds(wanted.expires_in)?;
        request::check_names("paths", &wanted.paths)?;
        let statement = sql(
            "select o.name from storage.objects o where o.bucket_id = $1 \
             and o.name = any (array(select jsonb_array_elements_text($2::jsonb)))",
            &[Some(bucket.as_str()), Some(&json!(wanted.paths).to_string())],
        );
        let work = Work { service: Vec::new(), caller: vec![statement] };
        let request = Request::of(visitor, "storage.object.sign_many");
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        let there: std::collections::HashSet<&str> = rows.iter().filter_map(|row| row.text(0)).collect();
        let mut list = Vec::with_capacity(wanted.paths.len());
        for path in &wanted.paths {
            list.push(if there.contains(path.as_str()) {
                let url = format!("{bucket}/{path}");
                let token = self.sign(download(url.clone(), None, wanted.expires_in))?;
                json!({ "error": null, "path": path, "signedURL": format!("/object/sign/{url}?token={token}") })
            } else {
                let error = "Either the object does not exist or you do not have access to it";
                json!({ "error": error, "path": path, "signedURL": null })
            });
        }
        Ok(respond::json(&Value::Array(list)))
    }

    pub(crate) fn sign(&self, grant: Grant) -> Result<String, Error> {
        self.signer.sign(&grant).ok_or(Error::Signing)
    }

    /// What the token of the URL allows with this object.
    pub(crate) fn check_signature(
        &self,
        visitor: &Visitor,
        bucket: &BucketId,
        key: &ObjectKey,
        scope: Scope,
    ) -> Result<Grant, Error> {
        let Some(token) = visitor.parameter("token") else {
            let message = "querystring must have required property 'token'";
            return Err(Wire::new(Code::InvalidRequest, message).into());
        };
        self.signer.check(token, &format!("{bucket}/{key}"), scope, now()).map_err(|refusal| {
            match refusal {
                Refusal::Invalid => Wire::new(Code::InvalidJWT, "signature verification failed"),
                Refusal::Expired => Wire::new(Code::InvalidJWT, refusal.to_string()),
                Refusal::Other => Wire::new(Code::InvalidSignature, "Invalid signature"),
            }
            .into()
        })
    }
}

fn download(url: String, transformations: Option<String>, seconds: u32) -> Grant {
    let iat = now();
    let exp = iat.saturating_add(seconds.into());
    Grant { url, scope: Scope::Download, transformations, owner: None, upsert: false, iat, exp }
}

fn check_seconds(seconds: u32) -> Result<(), Error> {
    if seconds == 0 {
        return Err(Wire::new(Code::InvalidRequest, "body/expiresIn must be >= 1").into());
    }
    Ok(())
}

/// What an image is to become, as it stands in the token: names and values in their order.
fn transformations(wanted: &serde_json::Map<String, Value>) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let list: Vec<String> = ["height", "width", "resize", "format", "quality"]
        .iter()
        .filter_map(|name| {
            wanted.get(*name).filter(|value| !value.is_null()).map(|value| format!("{name}:{}", text(value)))
        })
        .collect();
    list.join(",")
}
