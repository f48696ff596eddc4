//! The answers that are XML. Every text is escaped; what a client has set as a property stands for itself already.

use std::fmt::{Display, Write as _};
use std::time::SystemTime;

use super::body::Asked;
use super::{DAV, Name, Property};
use crate::storage::xml::escape;

/// Bytes of an answer: who asks for long names of many files gets no more.
const LARGEST: usize = 16 << 20;

/// Something that is told of.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub href: String,
    pub name: String,
    pub is_folder: bool,
    pub size_bytes: u64,
    pub media_type: String,
    pub etag: String,
    pub modified: Option<SystemTime>,
    /// As RFC 3339 writes it.
    pub created: String,
    pub locks: Vec<ActiveLock>,
    /// Those that clients have set.
    pub properties: Vec<Property>,
}

/// A lock that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveLock {
    /// Its URI.
    pub token: String,
    /// The href of what it was taken on.
    pub root: String,
    pub is_deep: bool,
    pub is_shared: bool,
    /// What its client says of its user, as XML.
    pub owner: String,
    pub seconds: u64,
}

/// Properties that every entry has, or every file. Nobody sets them.
const LIVE: [&str; 9] = [
    "displayname",
    "resourcetype",
    "creationdate",
    "getlastmodified",
    "getcontentlength",
    "getcontenttype",
    "getetag",
    "supportedlock",
    "lockdiscovery",
];

const BEGIN: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n";
const END: &str = "</D:multistatus>\n";
const LOCKS: &str = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>\
    <D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>";

/// Whether the property is ours to say.
pub fn is_live(name: &Name) -> bool {
    name.space == DAV && LIVE.contains(&name.local.as_str())
}

/// Tells what was asked of these; `None` where that is too much.
pub fn properties(entries: &[Entry], asked: &Asked) -> Option<String> {
    let mut out = String::from(BEGIN);
    for entry in entries {
        let (mut found, mut missing) = (String::new(), String::new());
        match asked {
            Asked::All => {
                found.extend(LIVE.into_iter().filter_map(|name| entry.live(name)));
                found.extend(entry.properties.iter().map(|property| property.element.as_str()));
            }
            Asked::Names => {
                let has = LIVE.into_iter().filter(|name| entry.live(name).is_some());
                found.extend(has.map(|name| format!("<D:{name}/>")));
                found.extend(entry.properties.iter().map(|property| empty(&property.name)));
            }
            Asked::These(names) => {
                for name in names {
                    let kept = || entry.properties.iter().find(|property| property.name == *name);
                    let live = if is_live(name) { entry.live(&name.local) } else { None };
                    match live.or_else(|| Some(kept()?.element.clone())) {
                        Some(element) => found.push_str(&element),
                        None => missing.push_str(&empty(name)),
                    }
                }
            }
        }
        let _ = write!(out, "<D:response><D:href>{}</D:href>", escaped(&entry.href));
        if !found.is_empty() || missing.is_empty() {
            propstat(&found, "200 OK", &mut out);
        }
        if !missing.is_empty() {
            propstat(&missing, "404 Not Found", &mut out);
        }
        out.push_str("</D:response>\n");
        if out.len() > LARGEST {
            return None;
        }
    }
    Some(out + END)
}

/// Answers a PROPPATCH: all of it was done, or nothing where some names were refused (RFC 4918, 9.2).
pub fn patched(href: &str, names: &[&Name]) -> String {
    let (refused, others): (Vec<&Name>, Vec<&Name>) = names.iter().partition(|name| is_live(name));
    let all = |names: Vec<&Name>| names.into_iter().map(empty).collect::<String>();
    let mut out = format!("{BEGIN}<D:response><D:href>{}</D:href>", escaped(href));
    if !others.is_empty() {
        propstat(&all(others), if refused.is_empty() { "200 OK" } else { "424 Failed Dependency" }, &mut out);
    }
    if !refused.is_empty() {
        propstat(&all(refused), "403 Forbidden", &mut out);
    }
    out + "</D:response>\n" + END
}

/// Answers a LOCK.
pub fn locked(lock: &ActiveLock) -> String {
    let mut out =
        String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>");
    lock.write(&mut out);
    out + "</D:lockdiscovery></D:prop>\n"
}

/// Tells what was not done: hrefs and statuses.
pub fn failures(failed: &[(String, impl Display)]) -> String {
    let mut out = String::from(BEGIN);
    for (href, status) in failed {
        let href = escaped(href);
        let _ = writeln!(out, "<D:response><D:href>{href}</D:href><D:status>HTTP/1.1 {status}</D:status></D:response>");
    }
    out + END
}

/// A condition that does not hold (RFC 4918, 16).
pub fn condition(name: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:error xmlns:D=\"DAV:\"><D:{name}/></D:error>\n")
}

fn propstat(properties: &str, status: &str, out: &mut String) {
    let _ = write!(out, "<D:propstat><D:prop>{properties}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>");
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    escape(text, &mut out);
    out
}

/// An element of this name that says nothing.
fn empty(Name { space, local }: &Name) -> String {
    match space.as_str() {
        DAV => format!("<D:{local}/>"),
        "" => format!("<{local} xmlns=\"\"/>"),
        space => format!("<x:{local} xmlns:x=\"{}\"/>", escaped(space)),
    }
}

impl Entry {
    /// One of [`LIVE`] as an element, if the entry has it.
    fn live(&self, name: &str) -> Option<String> {
        let of_file = |text: String| (!self.is_folder).then_some(text);
        let value = match name {
            "displayname" => Some(escaped(&self.name)),
            "resourcetype" => Some(if self.is_folder { "<D:collection/>" } else { "" }.to_owned()),
            "creationdate" => Some(escaped(&self.created)).filter(|text| !text.is_empty()),
            "getlastmodified" => self.modified.map(httpdate::fmt_http_date),
            "getcontentlength" => of_file(self.size_bytes.to_string()),
            "getcontenttype" => of_file(escaped(&self.media_type)),
            "getetag" => of_file(escaped(&self.etag)),
            "supportedlock" => Some(LOCKS.to_owned()),
            "lockdiscovery" => {
                let mut text = String::new();
                self.locks.iter().for_each(|lock| lock.write(&mut text));
                Some(text)
            }
            _ => None,
        };
        value.map(|value| format!("<D:{name}>{value}</D:{name}>"))
    }
}

impl ActiveLock {
    fn write(&self, out: &mut String) {
        let scope = if self.is_shared { "shared" } else { "exclusive" };
        let depth = if self.is_deep { "infinity" } else { "0" };
        let _ = write!(
            out,
            "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope><D:depth>{depth}</D:depth>"
        );
        if !self.owner.is_empty() {
            let _ = write!(out, "<D:owner>{}</D:owner>", self.owner);
        }
        let _ = write!(
            out,
            "<D:timeout>Second-{}</D:timeout><D:locktoken><D:href>{}</D:href></D:locktoken>\
             <D:lockroot><D:href>{}</D:href></D:lockroot></D:activelock>",
            self.seconds,
            escaped(&self.token),
            escaped(&self.root)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(space: &str, local: &str) -> Name {
        Name { space: space.into(), local: local.into() }
    }

    fn entry() -> Entry {
        let property = Property { name: name("urn:a", "b"), element: "<x:b xmlns:x=\"urn:a\">c</x:b>".into() };
        Entry { href: "/a".into(), name: "a&<b>".into(), properties: vec![property], ..Entry::default() }
    }

    #[test]
    fn what_is_asked_is_told_and_escaped() {
        let asked = [name("DAV:", "displayname"), name("urn:\"x", "y"), name("urn:a", "b"), name("", "z")];
        let said = properties(&[entry()], &Asked::These(asked.to_vec())).unwrap();
        let (found, missing) = said.split_once("200 OK").unwrap();
        assert!(
            found.contains("<D:displayname>a&amp;&lt;b&gt;</D:displayname><x:b xmlns:x=\"urn:a\">c</x:b>"),
            "{said}"
        );
        assert!(missing.contains("<x:y xmlns:x=\"urn:&quot;x\"/><z xmlns=\"\"/>"), "{said}");
        let said = properties(&[entry()], &Asked::Names).unwrap();
        assert!(said.contains("<D:resourcetype/>") && said.contains("<x:b xmlns:x=\"urn:a\"/>"), "{said}");
        assert!(!said.contains("getlastmodified"), "it has none: {said}");
    }

    #[test]
    fn security_an_answer_is_not_larger_than_a_node_can_hold() {
        let asked = Asked::These(vec![name("urn:x", &"y".repeat(60_000))]);
        assert!(properties(&vec![entry(); 1000], &asked).is_none());
    }

    #[test]
    fn where_one_is_refused_none_is_done() {
        let (own, live) = (name("urn:a", "b"), name("DAV:", "getetag"));
        let said = patched("/a", &[&own, &live]);
        assert!(said.contains("<x:b xmlns:x=\"urn:a\"/></D:prop><D:status>HTTP/1.1 424"), "{said}");
        assert!(said.contains("<D:getetag/></D:prop><D:status>HTTP/1.1 403"), "{said}");
        assert!(patched("/a", &[&own]).contains("200 OK"));
    }
}
