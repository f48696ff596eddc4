//! The XML of WebDAV (RFC 4918, 14). Requests are read as events, small and flat, without document types; every text of an answer is
//! escaped.

use std::fmt::Write as _;
use std::time::SystemTime;

use quick_xml::NsReader;
use quick_xml::escape::escape;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;

/// Bytes of a request.
const LARGEST: usize = 64 << 10;
/// Elements within each other.
const DEEPEST: usize = 16;
const MOST: usize = 500;
const DAV: &str = "DAV:";
/// Properties of Windows, which it wants to set and never reads.
const WINDOWS: &str = "urn:schemas-microsoft-com:";

/// It is no XML, or says something else than what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong;

/// A property's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub space: String,
    pub local: String,
}

/// What a PROPFIND wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    All,
    Names,
    These(Vec<Name>),
}

/// What a LOCK asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockInfo {
    pub is_shared: bool,
    /// Whatever the client says of its user: a text, or a link.
    pub owner: String,
}

/// Something that is told of.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub href: String,
    /// In its bucket.
    pub path: String,
    pub name: String,
    pub is_folder: bool,
    pub size_bytes: u64,
    pub media_type: String,
    pub etag: String,
    pub modified: Option<SystemTime>,
    /// As RFC 3339 writes it.
    pub created: String,
    /// As elements.
    pub locks: String,
}

struct Element {
    depth: usize,
    name: Name,
    text: String,
}

impl Element {
    fn is(&self, depth: usize, local: &str) -> bool {
        self.depth == depth && self.name.space == DAV && self.name.local == local
    }
}

/// No body asks for everything.
pub fn propfind(body: &[u8]) -> Result<Asked, Wrong> {
    if body.is_empty() {
        return Ok(Asked::All);
    }
    let elements = read(body)?;
    if !elements.first().is_some_and(|first| first.is(0, "propfind")) {
        return Err(Wrong);
    }
    if elements.iter().any(|element| element.is(1, "prop")) {
        return Ok(Asked::These(elements.into_iter().filter(|element| element.depth == 2).map(|e| e.name).collect()));
    }
    let has = |local: &str| elements.iter().any(|element| element.is(1, local));
    if has("propname") {
        Ok(Asked::Names)
    } else if has("allprop") {
        Ok(Asked::All)
    } else {
        Err(Wrong)
    }
}

/// The properties that a PROPPATCH sets or removes.
pub fn proppatch(body: &[u8]) -> Result<Vec<Name>, Wrong> {
    let elements = read(body)?;
    if !elements.first().is_some_and(|first| first.is(0, "propertyupdate")) {
        return Err(Wrong);
    }
    let names: Vec<Name> = elements.into_iter().filter(|element| element.depth == 3).map(|e| e.name).collect();
    if names.is_empty() { Err(Wrong) } else { Ok(names) }
}

pub fn lockinfo(body: &[u8]) -> Result<LockInfo, Wrong> {
    let elements = read(body)?;
    let has = |depth: usize, local: &str| elements.iter().any(|element| element.is(depth, local));
    if !elements.first().is_some_and(|first| first.is(0, "lockinfo")) || !has(2, "write") {
        return Err(Wrong);
    }
    let is_shared = match (has(2, "exclusive"), has(2, "shared")) {
        (true, false) => false,
        (false, true) => true,
        _ => return Err(Wrong),
    };
    let begin = elements.iter().position(|element| element.is(1, "owner"));
    let owner = begin.map(|at| {
        let within = elements[at + 1..].iter().take_while(|element| element.depth > 1);
        std::iter::once(&elements[at]).chain(within).map(|element| element.text.trim()).collect::<String>()
    });
    Ok(LockInfo { is_shared, owner: owner.unwrap_or_default() })
}

fn read(body: &[u8]) -> Result<Vec<Element>, Wrong> {
    if body.len() > LARGEST {
        return Err(Wrong);
    }
    let text = std::str::from_utf8(body).map_err(|_| Wrong)?;
    let mut reader = NsReader::from_str(text.trim_start_matches('\u{feff}'));
    let mut elements: Vec<Element> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    loop {
        let (space, event) = reader.read_resolved_event().map_err(|_| Wrong)?;
        let text = match event {
            Event::Start(tag) => {
                let element = element(&space, &tag, open.len())?;
                open.push(elements.len());
                elements.push(element);
                String::new()
            }
            Event::Empty(tag) => {
                elements.push(element(&space, &tag, open.len())?);
                String::new()
            }
            Event::End(_) => {
                open.pop().ok_or(Wrong)?;
                String::new()
            }
            Event::Text(text) => text.decode().map_err(|_| Wrong)?.into_owned(),
            Event::CData(text) => text.decode().map_err(|_| Wrong)?.into_owned(),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().map_err(|_| Wrong)? {
                Some(letter) => letter.to_string(),
                None => {
                    let name = reference.decode().map_err(|_| Wrong)?;
                    quick_xml::escape::resolve_predefined_entity(&name).ok_or(Wrong)?.to_owned()
                }
            },
            Event::DocType(_) => return Err(Wrong),
            Event::Eof if open.is_empty() && !elements.is_empty() => return Ok(elements),
            Event::Eof => return Err(Wrong),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => String::new(),
        };
        match open.last().and_then(|at| elements.get_mut(*at)) {
            Some(element) => element.text.push_str(&text),
            None if text.trim().is_empty() => {}
            None => return Err(Wrong),
        }
        if open.len() > DEEPEST || elements.len() > MOST {
            return Err(Wrong);
        }
    }
}

fn element(space: &ResolveResult<'_>, tag: &BytesStart<'_>, depth: usize) -> Result<Element, Wrong> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Wrong);
    let space = match space {
        ResolveResult::Bound(space) => text(space.as_ref())?,
        ResolveResult::Unbound => String::new(),
        ResolveResult::Unknown(_) => return Err(Wrong),
    };
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|_| Wrong)?;
        // A prefix means something (Namespaces in XML 1.0, 5).
        if attribute.key.as_ref().starts_with(b"xmlns:") && attribute.value.is_empty() {
            return Err(Wrong);
        }
    }
    let local = text(tag.local_name().as_ref())?;
    let is_name = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.') || !letter.is_ascii();
    if local.is_empty() || !local.chars().all(is_name) || local.starts_with(|letter: char| letter.is_ascii_digit()) {
        return Err(Wrong);
    }
    Ok(Element { depth, name: Name { space, local }, text: String::new() })
}

/// Properties that every entry has, or every file.
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

/// Tells what was asked of these.
pub fn properties(entries: &[Entry], asked: &Asked) -> String {
    let mut out = String::from(BEGIN);
    for entry in entries {
        let (mut found, mut missing) = (String::new(), String::new());
        match asked {
            Asked::All => {
                for name in LIVE {
                    if let Some(value) = entry.value(name) {
                        let _ = write!(found, "<D:{name}>{value}</D:{name}>");
                    }
                }
            }
            Asked::Names => {
                let names = LIVE.into_iter().filter(|name| entry.value(name).is_some());
                found.extend(names.map(|name| format!("<D:{name}/>")));
            }
            Asked::These(names) => {
                for name in names {
                    match entry.value(&name.local).filter(|_| name.space == DAV) {
                        Some(value) => {
                            let _ = write!(found, "<D:{0}>{value}</D:{0}>", name.local);
                        }
                        None => missing.push_str(&name.empty()),
                    }
                }
            }
        }
        let _ = write!(out, "<D:response><D:href>{}</D:href>", escape(&entry.href));
        if !found.is_empty() || missing.is_empty() {
            out.push_str(&propstat(&found, "200 OK"));
        }
        if !missing.is_empty() {
            out.push_str(&propstat(&missing, "404 Not Found"));
        }
        out.push_str("</D:response>\n");
    }
    out + END
}

/// Answers a PROPPATCH: nothing is kept. Windows' times are said to be set, because it does not write files otherwise; of the others
/// none is, and where one is refused none is done (RFC 4918, 9.2).
pub fn patched(href: &str, names: &[Name]) -> String {
    let is_ours = |name: &&Name| name.space.starts_with(WINDOWS);
    let of = |names: Vec<&Name>| names.into_iter().map(Name::empty).collect::<String>();
    let (taken, refused): (Vec<&Name>, Vec<&Name>) = names.iter().partition(is_ours);
    let mut out = format!("{BEGIN}<D:response><D:href>{}</D:href>", escape(href));
    if !taken.is_empty() {
        out.push_str(&propstat(&of(taken), if refused.is_empty() { "200 OK" } else { "424 Failed Dependency" }));
    }
    if !refused.is_empty() {
        out.push_str(&propstat(&of(refused), "403 Forbidden"));
    }
    out + "</D:response>\n" + END
}

/// Tells what was not done.
pub fn failures(failed: &[(String, u16)]) -> String {
    let mut out = String::from(BEGIN);
    for (href, status) in failed {
        let status = http::StatusCode::from_u16(*status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let _ = writeln!(
            out,
            "<D:response><D:href>{}</D:href><D:status>HTTP/1.1 {status}</D:status></D:response>",
            escape(href)
        );
    }
    out + END
}

/// A condition that does not hold (RFC 4918, 16).
pub fn condition(name: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:error xmlns:D=\"DAV:\"><D:{name}/></D:error>\n")
}

fn propstat(properties: &str, status: &str) -> String {
    format!("<D:propstat><D:prop>{properties}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>")
}

impl Name {
    fn empty(&self) -> String {
        if self.space == DAV {
            format!("<D:{}/>", self.local)
        } else if self.space.is_empty() {
            format!("<{} xmlns=\"\"/>", self.local)
        } else {
            format!("<x:{} xmlns:x=\"{}\"/>", self.local, escape(&self.space))
        }
    }
}

impl Entry {
    /// What stands in the element; `None` where the entry has no such property.
    fn value(&self, name: &str) -> Option<String> {
        let of_file = |text: String| (!self.is_folder).then_some(text);
        match name {
            "displayname" => Some(escape(&self.name).into_owned()),
            "resourcetype" => Some(if self.is_folder { "<D:collection/>" } else { "" }.to_owned()),
            "creationdate" => Some(escape(&self.created).into_owned()).filter(|text| !text.is_empty()),
            "getlastmodified" => self.modified.map(httpdate::fmt_http_date),
            "getcontentlength" => of_file(self.size_bytes.to_string()),
            "getcontenttype" => of_file(escape(&self.media_type).into_owned()),
            "getetag" => of_file(escape(&self.etag).into_owned()),
            "supportedlock" => Some(LOCKS.to_owned()),
            "lockdiscovery" => Some(self.locks.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(space: &str, local: &str) -> Name {
        Name { space: space.into(), local: local.into() }
    }

    #[test]
    fn what_is_asked_is_read() {
        for (body, expected) in [
            ("", Ok(Asked::All)),
            ("<propfind xmlns='DAV:'><allprop/></propfind>", Ok(Asked::All)),
            ("<?xml version='1.0'?><D:propfind xmlns:D='DAV:'>\n<D:propname/></D:propfind>", Ok(Asked::Names)),
            (
                "<a:propfind xmlns:a='DAV:'><a:prop><a:getetag/><b:c xmlns:b='urn:x'/><d/></a:prop></a:propfind>",
                Ok(Asked::These(vec![name("DAV:", "getetag"), name("urn:x", "c"), name("", "d")])),
            ),
            ("<propfind/>", Err(Wrong)),
            ("<D:propfind xmlns:D='DAV:'><D:prop>", Err(Wrong)),
            ("<D:propfind xmlns:D='DAV:'><bar:foo xmlns:bar=''/></D:propfind>", Err(Wrong)),
            ("<propfind xmlns='DAV:'><x:prop/></propfind>", Err(Wrong)),
            ("no XML", Err(Wrong)),
        ] {
            assert_eq!(propfind(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let entity = "<!DOCTYPE a [<!ENTITY x 'y'>]><propfind xmlns='DAV:'><allprop/>&x;</propfind>";
        let deep = format!("<propfind xmlns='DAV:'>{}{}</propfind>", "<a>".repeat(1000), "</a>".repeat(1000));
        let wide = format!("<propfind xmlns='DAV:'><prop>{}</prop></propfind>", "<a/>".repeat(10_000));
        let large = format!("<propfind xmlns='DAV:'><allprop/>{}</propfind>", " ".repeat(LARGEST));
        for body in [entity, &deep, &wide, &large] {
            assert_eq!(propfind(body.as_bytes()), Err(Wrong));
        }
    }

    #[test]
    fn answers_are_escaped() {
        let entry = Entry { href: "/a".into(), name: "a&<b>".into(), ..Entry::default() };
        let said = properties(&[entry], &Asked::These(vec![name("DAV:", "displayname"), name("urn:\"x", "y")]));
        assert!(said.contains("<D:displayname>a&amp;&lt;b&gt;</D:displayname>"), "{said}");
        assert!(said.contains("<x:y xmlns:x=\"urn:&quot;x\"/>"), "{said}");
    }

    #[test]
    fn a_lock_says_its_owner() {
        let body = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype>\
            <owner><href>mailto:a&amp;b</href></owner></lockinfo>";
        assert_eq!(lockinfo(body.as_bytes()), Ok(LockInfo { is_shared: false, owner: "mailto:a&b".into() }));
        assert_eq!(lockinfo(b"<lockinfo xmlns='DAV:'/>"), Err(Wrong));
    }
}
