//! The pages of `ntier dev`: how a browser finds its key, and a page for the first visitor.

use std::net::SocketAddr;

use bytes::Bytes;
use ntier_node::Page;
use ntier_security::keys::Keys;
use serde_json::json;

use crate::project::{Project, Source};
use crate::settings::Settings;

const HELLO: &str = include_str!("../../pages/hello.html");
const EMPTY: &str = include_str!("../../pages/empty.html");

/// `/ntier.json` has what a page may know: the publishable key, never another.
pub fn dev(settings: &Settings, project: &Project, keys: &Keys, address: SocketAddr) -> Vec<Page> {
    let client = json!({ "url": format!("http://{address}"), "publishable_key": keys.publishable_key });
    let mut pages = vec![Page {
        path: "/ntier.json",
        media_type: "application/json; charset=utf-8",
        body: client.to_string().into(),
    }];
    if settings.public.is_none() {
        let body = if project.source == Source::Sample { HELLO } else { EMPTY };
        pages.push(Page {
            path: "/",
            media_type: "text/html; charset=utf-8",
            body: Bytes::from_static(body.as_bytes()),
        });
    }
    pages
}
