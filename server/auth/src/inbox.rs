//! The inbox of `ntier dev`: every e-mail that would have been sent, as a page and as JSON in the form of Mailpit's API. Never served
//! otherwise: it has everybody's mail.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use serde_json::{Value, json};

use crate::error::Error;
use crate::mail::escaped;
use crate::store::{self, sql};
use crate::{Auth, respond};

/// E-mails on the page, and in the list.
const SHOWN: &str = "50";

impl Auth {
    /// `path` is what follows `/inbox`.
    pub async fn inbox(&self, method: &Method, path: &str) -> Response<Bytes> {
        let answer = match (method, path.trim_end_matches('/')) {
            (&Method::GET, "") => self.inbox_page().await,
            (&Method::GET, "/api/v1/messages") => self.inbox_list().await,
            (&Method::DELETE, "/api/v1/messages") => self.inbox_empty().await,
            (&Method::GET, path) => match path.strip_prefix("/api/v1/message/").and_then(|id| id.parse::<i64>().ok()) {
                Some(id) => self.inbox_message(id).await,
                None => Ok(respond::not_found()),
            },
            _ => Ok(respond::not_found()),
        };
        answer.unwrap_or_else(|error| respond::error(&error, ntier_protocol::auth::error::Version::Initial))
    }

    async fn messages(&self, condition: &str, parameter: &str) -> Result<Vec<Value>, Error> {
        let text = format!(
            "select json_build_object('ID', id::text, 'To', json_build_array(json_build_object('Address', recipient)), 'Subject', subject, \
             'Created', ntier.utc(created_at), 'Text', plain, 'HTML', html, 'Tags', json_build_array(kind)) from ntier.mail {condition}"
        );
        let answer = store::read(&self.database, vec![sql(&text, &[Some(parameter)])]).await?;
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        let message = |row: &ntier_backing::database::Row| row.text(0).and_then(|json| serde_json::from_str(json).ok());
        rows.iter().map(message).collect::<Option<_>>().ok_or(Error::Incomplete)
    }

    async fn inbox_list(&self) -> Result<Response<Bytes>, Error> {
        let mut messages = self.messages("order by id desc limit $1::bigint", SHOWN).await?;
        for message in &mut messages {
            let snippet: String = message["Text"].as_str().unwrap_or_default().chars().take(200).collect();
            if let Some(message) = message.as_object_mut() {
                message.remove("Text");
                message.remove("HTML");
                message.insert("Snippet".into(), snippet.into());
            }
        }
        Ok(respond::json(200, &json!({ "total": messages.len(), "messages": messages })))
    }

    async fn inbox_message(&self, id: i64) -> Result<Response<Bytes>, Error> {
        let found = self.messages("where id = $1::bigint", &id.to_string()).await?;
        Ok(found.first().map_or_else(respond::not_found, |message| respond::json(200, message)))
    }

    async fn inbox_empty(&self) -> Result<Response<Bytes>, Error> {
        store::write(&self.database, vec![sql("delete from ntier.mail", &[])]).await?;
        Ok(respond::json(200, &json!({})))
    }

    async fn inbox_page(&self) -> Result<Response<Bytes>, Error> {
        let messages = self.messages("order by id desc limit $1::bigint", SHOWN).await?;
        let text = |message: &Value, name: &str| message[name].as_str().unwrap_or_default().to_owned();
        let one = |message: &Value| {
            let to = message["To"][0]["Address"].as_str().unwrap_or_default();
            format!(
                "<article><header><b>{}</b> to {} <time>{}</time></header>{}</article>\n",
                escaped(&text(message, "Subject")),
                escaped(to),
                escaped(&text(message, "Created")),
                // The project's own HTML, in which values are escaped; the page runs no scripts.
                text(message, "HTML"),
            )
        };
        let list: String = messages.iter().map(one).collect();
        let list = if list.is_empty() {
            "<p>No mail yet. Sign-ups, magic links and password resets arrive here.</p>".into()
        } else {
            list
        };
        let page = include_str!("inbox.html").replace("{{messages}}", &list);
        let mut response = Response::new(Bytes::from(page));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        Ok(response)
    }
}
