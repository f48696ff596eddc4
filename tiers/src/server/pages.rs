//! The pages of `ntier dev`: how a browser finds its key, and a page for the first visitor.

use bytes::Bytes;
use ntier_node::Page;
use ntier_security::keys::Keys;
use serde_json::json;

use crate::project::{Project, Source};
use crate::settings::Settings;

/// The example is also the built-in sample, so that it needs no network.
const HELLO: &str = include_str!("../../../examples/hello/public/index.html");
const CLIENT: &str = include_str!("../../../examples/hello/public/supabase.js");
/// Copies of the client carry its licence.
const CLIENT_LICENCE: &str = include_str!("../../../examples/hello/public/supabase.js.LICENSE");
const EMPTY: &str = include_str!("../../pages/empty.html");

/// `/ntier.json` has what a page may know: the publishable key, never another.
pub fn dev(settings: &Settings, project: &Project, keys: &Keys, url: &str) -> Vec<Page> {
    let client = json!({ "url": url, "publishable_key": keys.publishable_key });
    let mut pages = vec![page("/ntier.json", "application/json; charset=utf-8", client.to_string())];
    if settings.public.is_none() && project.source == Source::Sample {
        pages.push(page("/", HTML, HELLO));
        pages.push(page("/supabase.js", "text/javascript; charset=utf-8", CLIENT));
        pages.push(page("/supabase.js.LICENSE", "text/plain; charset=utf-8", CLIENT_LICENCE));
    } else if settings.public.is_none() {
        pages.push(page("/", HTML, EMPTY));
    }
    pages
}

const HTML: &str = "text/html; charset=utf-8";

fn page(path: &'static str, media_type: &'static str, body: impl Into<Bytes>) -> Page {
    Page { path, media_type, body: body.into() }
}
