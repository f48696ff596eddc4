//! The bodies of PROPFIND, PROPPATCH and LOCK.
//!
//! They are small: a tree of a few elements, read from events without what makes XML dangerous. There are no document types, so no
//! entities but the five.

use quick_xml::NsReader;
use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::{NamespaceResolver, ResolveResult};

use super::{DAV, Name, Property};
use crate::storage::xml::escape;

/// Bytes.
const LARGEST: usize = 64 << 10;
/// Elements within each other.
const DEEPEST: usize = 16;
/// Elements.
const MOST: usize = 500;
/// Attributes of an element, with the namespaces that it declares.
const MOST_ATTRIBUTES: usize = 50;
/// Bytes of what a client says of its user; of more nothing is kept.
const LONGEST_OWNER: usize = 2000;

/// It is no XML, or says something else than what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong;

/// What a PROPFIND wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    All,
    Names,
    These(Vec<Name>),
}

/// What a PROPPATCH wants of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Set(Property),
    Remove(Name),
}

/// What a LOCK asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockInfo {
    pub is_shared: bool,
    /// Whatever the client says of its user, as XML: a text, or a link.
    pub owner: String,
}

impl Change {
    pub fn name(&self) -> &Name {
        match self {
            Self::Set(property) => &property.name,
            Self::Remove(name) => name,
        }
    }
}

/// No body asks for everything.
pub fn propfind(body: &[u8]) -> Result<Asked, Wrong> {
    if body.is_empty() {
        return Ok(Asked::All);
    }
    let root = read(body, "propfind")?;
    if let Some(these) = root.child("prop") {
        return Ok(Asked::These(these.children().map(|element| element.name.clone()).collect()));
    }
    match (root.child("propname"), root.child("allprop")) {
        (Some(_), _) => Ok(Asked::Names),
        (None, Some(_)) => Ok(Asked::All),
        (None, None) => Err(Wrong),
    }
}

/// In the order in which they are to be done.
pub fn proppatch(body: &[u8]) -> Result<Vec<Change>, Wrong> {
    let root = read(body, "propertyupdate")?;
    let mut changes = Vec::new();
    for step in root.children() {
        let properties = step.children().filter(|element| element.is("prop")).flat_map(Element::children);
        if step.is("set") {
            changes.extend(properties.map(|element| Change::Set(element.property())));
        } else if step.is("remove") {
            changes.extend(properties.map(|element| Change::Remove(element.name.clone())));
        }
    }
    if changes.is_empty() { Err(Wrong) } else { Ok(changes) }
}

pub fn lockinfo(body: &[u8]) -> Result<LockInfo, Wrong> {
    let root = read(body, "lockinfo")?;
    root.child("locktype").and_then(|kind| kind.child("write")).ok_or(Wrong)?;
    let scope = root.child("lockscope").ok_or(Wrong)?;
    let is_shared = match (scope.child("exclusive"), scope.child("shared")) {
        (Some(_), None) => false,
        (None, Some(_)) => true,
        _ => return Err(Wrong),
    };
    let mut owner = String::new();
    if let Some(element) = root.child("owner") {
        element.write_content(&mut owner);
    }
    if owner.len() > LONGEST_OWNER {
        owner.clear();
    }
    Ok(LockInfo { is_shared, owner: owner.trim().to_owned() })
}

#[derive(Debug, Clone)]
struct Element {
    name: Name,
    attributes: Vec<(Name, String)>,
    content: Vec<Content>,
}

#[derive(Debug, Clone)]
enum Content {
    Element(Element),
    Text(String),
}

impl Element {
    /// Whether it is WebDAV's of this name.
    fn is(&self, local: &str) -> bool {
        self.name.space == DAV && self.name.local == local
    }

    fn children(&self) -> impl Iterator<Item = &Self> {
        self.content.iter().filter_map(|content| match content {
            Content::Element(element) => Some(element),
            Content::Text(_) => None,
        })
    }

    fn child(&self, local: &str) -> Option<&Self> {
        self.children().find(|element| element.is(local))
    }

    fn property(&self) -> Property {
        let mut element = String::new();
        self.write(&mut element);
        Property { name: self.name.clone(), element }
    }

    /// With the namespaces that it needs, so that it may stand anywhere.
    fn write(&self, out: &mut String) {
        let prefix = if self.name.space.is_empty() { "" } else { "x:" };
        let local = &self.name.local;
        out.push_str(&format!("<{prefix}{local} xmlns{}=\"", if prefix.is_empty() { "" } else { ":x" }));
        escape(&self.name.space, out);
        out.push('"');
        for (number, (name, value)) in self.attributes.iter().enumerate() {
            match name.space.as_str() {
                "" => out.push_str(&format!(" {}=\"", name.local)),
                XML => out.push_str(&format!(" xml:{}=\"", name.local)),
                space => {
                    out.push_str(&format!(" xmlns:a{number}=\""));
                    escape(space, out);
                    out.push_str(&format!("\" a{number}:{}=\"", name.local));
                }
            }
            escape(value, out);
            out.push('"');
        }
        out.push('>');
        self.write_content(out);
        out.push_str(&format!("</{prefix}{local}>"));
    }

    fn write_content(&self, out: &mut String) {
        for content in &self.content {
            match content {
                Content::Element(element) => element.write(out),
                Content::Text(text) => escape(text, out),
            }
        }
    }
}

/// What the prefixes `xml` and `xmlns` stand for, and nothing else may (Namespaces in XML 1.0, 3).
const XML: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

fn read(body: &[u8], root: &str) -> Result<Element, Wrong> {
    if body.len() > LARGEST {
        return Err(Wrong);
    }
    let text = std::str::from_utf8(body).map_err(|_| Wrong)?;
    let mut reader = NsReader::from_str(text.trim_start_matches('\u{feff}'));
    let mut open: Vec<Element> = Vec::new();
    let (mut count, mut done) = (0, None);
    loop {
        let event = reader.read_event().map_err(|_| Wrong)?;
        let (said, is_closed) = match event {
            Event::Start(tag) => {
                open.push(element(reader.resolver(), &tag)?);
                count += 1;
                (String::new(), false)
            }
            Event::Empty(tag) => {
                open.push(element(reader.resolver(), &tag)?);
                count += 1;
                (String::new(), true)
            }
            Event::End(_) => (String::new(), true),
            Event::Text(text) => (text.decode().map_err(|_| Wrong)?.into_owned(), false),
            Event::CData(text) => (text.decode().map_err(|_| Wrong)?.into_owned(), false),
            Event::GeneralRef(reference) => (entity(&reference)?, false),
            Event::DocType(_) => return Err(Wrong),
            Event::Eof => return done.filter(|done: &Element| open.is_empty() && done.is(root)).ok_or(Wrong),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => continue,
        };
        if open.len() > DEEPEST || count > MOST {
            return Err(Wrong);
        }
        if !said.is_empty() {
            match open.last_mut() {
                Some(element) => element.content.push(Content::Text(said)),
                None if said.trim().is_empty() => {}
                None => return Err(Wrong),
            }
        }
        if is_closed {
            let closed = open.pop().ok_or(Wrong)?;
            match open.last_mut() {
                Some(parent) => parent.content.push(Content::Element(closed)),
                None if done.is_none() => done = Some(closed),
                None => return Err(Wrong),
            }
        }
    }
}

fn entity(reference: &BytesRef<'_>) -> Result<String, Wrong> {
    if let Some(letter) = reference.resolve_char_ref().map_err(|_| Wrong)? {
        return Ok(letter.to_string());
    }
    let name = reference.decode().map_err(|_| Wrong)?;
    Ok(quick_xml::escape::resolve_predefined_entity(&name).ok_or(Wrong)?.to_owned())
}

/// What is kept is told to others, and has to be XML for them too: so nothing is taken that could not be said again.
fn element(resolver: &NamespaceResolver, tag: &BytesStart<'_>) -> Result<Element, Wrong> {
    let (space, local) = resolver.resolve_element(tag.name());
    let mut element = Element { name: name(&space, local.as_ref())?, attributes: Vec::new(), content: Vec::new() };
    if element.name.space == XML {
        return Err(Wrong);
    }
    for (number, attribute) in tag.attributes().enumerate() {
        let attribute = attribute.map_err(|_| Wrong)?;
        if number >= MOST_ATTRIBUTES {
            return Err(Wrong);
        }
        if attribute.key.as_namespace_binding().is_none() {
            let (space, local) = resolver.resolve_attribute(attribute.key);
            let name = name(&space, local.as_ref())?;
            if element.attributes.iter().any(|(other, _)| *other == name) {
                return Err(Wrong);
            }
            element.attributes.push((name, value(&attribute)?));
        } else if attribute.key.as_ref().starts_with(b"xmlns:") && attribute.value.is_empty() {
            // A prefix means something (Namespaces in XML 1.0, 5).
            return Err(Wrong);
        }
    }
    Ok(element)
}

fn name(space: &ResolveResult<'_>, local: &[u8]) -> Result<Name, Wrong> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Wrong);
    let space = match space {
        ResolveResult::Bound(space) => {
            quick_xml::escape::unescape(&text(space.as_ref())?).map_err(|_| Wrong)?.into_owned()
        }
        ResolveResult::Unbound => String::new(),
        ResolveResult::Unknown(_) => return Err(Wrong),
    };
    let local = text(local)?;
    if is_name(&local) && space != XMLNS { Ok(Name { space, local }) } else { Err(Wrong) }
}

fn value(attribute: &Attribute<'_>) -> Result<String, Wrong> {
    let text = std::str::from_utf8(&attribute.value).map_err(|_| Wrong)?;
    Ok(quick_xml::escape::unescape(text).map_err(|_| Wrong)?.into_owned())
}

/// It will be told to others as an element: so it has to be a name (XML 1.0, 2.3; Namespaces in XML 1.0, 4).
fn is_name(text: &str) -> bool {
    let begins = |letter: char| {
        matches!(letter,
            'A'..='Z' | 'a'..='z' | '_' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}'
            | '\u{37f}'..='\u{1fff}' | '\u{200c}' | '\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
            | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
    };
    let goes_on = |letter: char| {
        begins(letter)
            || matches!(letter, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}' | '\u{2040}')
    };
    text.starts_with(begins) && text.chars().all(goes_on)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(space: &str, local: &str) -> Name {
        Name { space: space.into(), local: local.into() }
    }

    #[test]
    fn what_is_asked_is_read() {
        for (body, expected) in [
            ("", Ok(Asked::All)),
            ("<propfind xmlns='DAV:'><allprop/></propfind>", Ok(Asked::All)),
            ("<?xml version='1.0'?><D:propfind xmlns:D='DAV:'>\n<D:propname/></D:propfind>\n", Ok(Asked::Names)),
            (
                "<a:propfind xmlns:a='DAV:'><a:prop><a:getetag/><b:c xmlns:b='urn:x&amp;y'/><d/></a:prop></a:propfind>",
                Ok(Asked::These(vec![name("DAV:", "getetag"), name("urn:x&y", "c"), name("", "d")])),
            ),
            ("<propfind/>", Err(Wrong)),
            ("<D:propfind xmlns:D='DAV:'><D:prop>", Err(Wrong)),
            ("<D:propfind xmlns:D='DAV:'><bar:foo xmlns:bar=''/></D:propfind>", Err(Wrong)),
            ("<propfind xmlns='DAV:'><x:prop/></propfind>", Err(Wrong)),
            ("<propfind xmlns='DAV:'><prop><a\u{d7}/></prop></propfind>", Err(Wrong)),
            ("<propfind xmlns='DAV:'><prop><xml:a/></prop></propfind>", Err(Wrong)),
            ("<propfind xmlns='DAV:'><prop><a xmlns='http://www.w3.org/2000/xmlns/'/></prop></propfind>", Err(Wrong)),
            ("<propfind xmlns='DAV:'><prop><a b='' b=''/></prop></propfind>", Err(Wrong)),
            ("<propfind xmlns='DAV:'><prop><a xmlns:b='x' xmlns:c='x' b:d='' c:d=''/></prop></propfind>", Err(Wrong)),
            ("<propfind xmlns='DAV:'><allprop/></propfind><more/>", Err(Wrong)),
            ("no XML", Err(Wrong)),
        ] {
            assert_eq!(propfind(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn security_bombs_do_not_go_off() {
        let entity = "<!DOCTYPE a [<!ENTITY x 'y'>]><propfind xmlns='DAV:'><allprop/>&x;</propfind>";
        let unknown = "<propfind xmlns='DAV:'><allprop/>&x;</propfind>";
        let deep = format!("<propfind xmlns='DAV:'>{}{}</propfind>", "<a>".repeat(1000), "</a>".repeat(1000));
        let wide = format!("<propfind xmlns='DAV:'><prop>{}</prop></propfind>", "<a/>".repeat(10_000));
        let large = format!("<propfind xmlns='DAV:'><allprop/>{}</propfind>", " ".repeat(LARGEST));
        let attributes: Vec<String> = (0..1000).map(|number| format!("a{number}=''")).collect();
        let decked = format!("<propfind xmlns='DAV:'><allprop {}/></propfind>", attributes.join(" "));
        for body in [entity, unknown, &deep, &wide, &large, &decked] {
            assert_eq!(propfind(body.as_bytes()), Err(Wrong));
        }
    }

    #[test]
    fn properties_stand_for_themselves() {
        let body = "<D:propertyupdate xmlns:D='DAV:' xmlns:a='urn:a'><D:set><D:prop><a:one xml:lang='de' b='&lt;' a:c='d'>x &amp; \
            <inner xmlns='urn:\"b'>&#x1F600;<![CDATA[<]]></inner></a:one></D:prop></D:set>\
            <D:remove><D:prop><a:two/><D:three/></D:prop></D:remove></D:propertyupdate>";
        let element = "<x:one xmlns:x=\"urn:a\" xml:lang=\"de\" b=\"&lt;\" xmlns:a2=\"urn:a\" a2:c=\"d\">x &amp; \
            <x:inner xmlns:x=\"urn:&quot;b\">\u{1f600}&lt;</x:inner></x:one>";
        let changes = proppatch(body.as_bytes()).unwrap();
        let expected = [
            Change::Set(Property { name: name("urn:a", "one"), element: element.into() }),
            Change::Remove(name("urn:a", "two")),
            Change::Remove(name("DAV:", "three")),
        ];
        assert_eq!(changes, expected);
        // What was written is read as the same.
        let again = format!("<propertyupdate xmlns='DAV:'><set><prop>{element}</prop></set></propertyupdate>");
        assert_eq!(proppatch(again.as_bytes()).unwrap(), expected[..1]);
        let none = "<propertyupdate xmlns='DAV:'><set><prop><a xmlns=''/></prop></set></propertyupdate>";
        let property = Property { name: name("", "a"), element: "<a xmlns=\"\"></a>".into() };
        assert_eq!(proppatch(none.as_bytes()).unwrap(), [Change::Set(property)]);
        assert_eq!(proppatch(b"<propertyupdate xmlns='DAV:'><set/></propertyupdate>"), Err(Wrong));
        assert_eq!(Name::of_whole(&name("urn:}x", "y").whole()), Some(name("urn:}x", "y")));
    }

    #[test]
    fn a_lock_says_its_owner() {
        let lock = |owner: &str| {
            format!(
                "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>{owner}</owner></lockinfo>"
            )
        };
        let owner = |text: &str| lockinfo(lock(text).as_bytes()).map(|info| info.owner);
        assert_eq!(owner(" Ada &amp; co\n"), Ok("Ada &amp; co".into()));
        assert_eq!(owner("<href>mailto:a</href>"), Ok("<x:href xmlns:x=\"DAV:\">mailto:a</x:href>".into()));
        assert_eq!(owner(&"a".repeat(LONGEST_OWNER + 1)), Ok(String::new()));
        assert_eq!(lockinfo(b"<lockinfo xmlns='DAV:'/>"), Err(Wrong));
    }

    fn any_name() -> impl Strategy<Value = Name> {
        ("[a-z:&\"<' ]{0,6}", "[a-zA-Z_é][a-z0-9._-]{0,4}").prop_map(|(space, local)| Name { space, local })
    }

    fn any_element() -> impl Strategy<Value = Element> {
        let text = "[^\\p{Cc}\\p{Cn}]{1,8}".prop_map(Content::Text);
        let leaf = any_name().prop_map(|name| Element { name, attributes: Vec::new(), content: Vec::new() });
        leaf.prop_recursive(3, 20, 3, move |inner| {
            let content = prop_oneof![text.clone(), inner.prop_map(Content::Element)];
            let attributes = prop::collection::vec((any_name(), "[^\\p{Cc}\\p{Cn}]{0,8}"), 0..2);
            (any_name(), attributes, prop::collection::vec(content, 0..3))
                .prop_map(|(name, attributes, content)| Element { name, attributes, content })
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_as_the_same(element in any_element()) {
            let property = element.property();
            let body = format!("<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop>{}</D:prop></D:set></D:propertyupdate>", property.element);
            prop_assert_eq!(proppatch(body.as_bytes()), Ok(vec![Change::Set(property)]));
        }

        #[test]
        fn nothing_is_too_strange(body in "\\PC{0,200}") {
            let _ = (propfind(body.as_bytes()), proppatch(body.as_bytes()), lockinfo(body.as_bytes()));
        }
    }
}
