//! Where in the HTML a value stands, and how it is escaped there. Source: Go, `html/template`, which does the same in more places.

use std::borrow::Cow;

use super::Cause;
use crate::mail::escaped;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    None,
    /// As text, or in an attribute between quotation marks.
    Html,
    /// As a part of an address in an attribute.
    Url(Part),
    /// As a value in a style.
    Style,
}

/// Which part of an address comes next. The later asks for more where branches meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Path,
    Start,
    /// After a value at the start, which may have begun a scheme.
    Joined,
    Query,
}

/// A place in the HTML of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Text,
    /// After `<`.
    Open,
    Comment,
    /// `<!DOCTYPE …>`, `<![endif]-->` and the like: up to `>`.
    Declaration,
    /// Between the attributes of a tag.
    Tag(Content),
    /// After an attribute's `=`.
    Equals(Content, Attribute),
    Quoted(Content, Attribute, char),
    Unquoted(Content),
    Raw(Content),
}

/// What follows a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Html,
    Style,
    Script,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    Text,
    Url(Part),
    Style,
    /// A script, or one whose name is not known.
    Closed,
}

impl Place {
    /// Where it is after more of the template's own text.
    pub fn after(self, text: &str) -> Self {
        let (mut place, mut rest) = (self, text);
        while !rest.is_empty() {
            (place, rest) = place.step(rest);
        }
        place
    }

    fn step(self, rest: &str) -> (Self, &str) {
        let skip = |count: usize| &rest[count..];
        match self {
            Self::Text => rest.find('<').map_or((Self::Text, ""), |at| (Self::Open, skip(at + 1))),
            Self::Open => open(rest),
            Self::Comment => rest.find("-->").map_or((Self::Comment, ""), |at| (Self::Text, skip(at + 3))),
            Self::Declaration => rest.find('>').map_or((Self::Declaration, ""), |at| (Self::Text, skip(at + 1))),
            Self::Tag(content) => in_tag(content, rest),
            Self::Equals(content, attribute) => {
                let rest = rest.trim_start();
                match rest.chars().next() {
                    None => (Self::Equals(content, attribute), ""),
                    Some(quote @ ('"' | '\'')) => (Self::Quoted(content, attribute, quote), &rest[1..]),
                    Some('>') => (Self::Tag(content), rest),
                    Some(_) => (Self::Unquoted(content), rest),
                }
            }
            Self::Quoted(content, attribute, quote) => match rest.find(quote) {
                Some(at) => (Self::Tag(content), skip(at + 1)),
                None => (Self::Quoted(content, attribute.after(rest), quote), ""),
            },
            Self::Unquoted(content) => {
                let end = rest.find(|character: char| character.is_whitespace() || character == '>');
                end.map_or((Self::Unquoted(content), ""), |at| (Self::Tag(content), skip(at)))
            }
            Self::Raw(content) => {
                let name = if content == Content::Style { "style" } else { "script" };
                let is_end = |at: &usize| {
                    rest.as_bytes()
                        .get(at + 2..at + 2 + name.len())
                        .is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes()))
                };
                let end = rest.match_indices("</").map(|(at, _)| at).find(is_end);
                end.map_or((Self::Raw(content), ""), |at| (Self::Tag(Content::Html), skip(at + 2 + name.len())))
            }
        }
    }

    /// How a value is escaped here, if it may stand here.
    pub fn escape(&self) -> Result<Escape, Cause> {
        match self {
            Self::Text | Self::Comment | Self::Quoted(_, Attribute::Text, _) => Ok(Escape::Html),
            Self::Quoted(_, Attribute::Url(part), _) => Ok(Escape::Url(*part)),
            Self::Quoted(_, Attribute::Style, _) | Self::Raw(Content::Style) => Ok(Escape::Style),
            Self::Quoted(_, Attribute::Closed, _) | Self::Raw(Content::Script | Content::Html) => Err(Cause::InScript),
            Self::Equals(..) | Self::Unquoted(_) => Err(Cause::NoQuotationMarks),
            Self::Open | Self::Declaration | Self::Tag(_) => Err(Cause::InTag),
        }
    }

    /// A value was written here.
    pub fn value(&mut self) {
        if let Self::Quoted(_, Attribute::Url(part @ Part::Start), _) = self {
            *part = Part::Joined;
        }
    }

    /// What follows may be written several times.
    pub fn repeat(&mut self) {
        self.value();
    }

    /// Where it is after one of two branches; `None` where nobody can say.
    pub fn join(self, other: Self) -> Option<Self> {
        match (self, other) {
            (left, right) if left == right => Some(left),
            (
                Self::Quoted(content, Attribute::Url(left), quote),
                Self::Quoted(same_content, Attribute::Url(right), same_quote),
            ) if content == same_content && quote == same_quote => {
                Some(Self::Quoted(content, Attribute::Url(left.max(right)), quote))
            }
            _ => None,
        }
    }
}

/// After `<`.
fn open(rest: &str) -> (Place, &str) {
    let named = |rest: &str| rest.starts_with(|character: char| character.is_ascii_alphabetic());
    let name = |rest: &str| {
        rest.find(|character: char| character.is_whitespace() || matches!(character, '/' | '>')).unwrap_or(rest.len())
    };
    if let Some(comment) = rest.strip_prefix("!--") {
        // Outlook reads what is in a conditional comment, so it counts as HTML.
        let is_conditional = comment.starts_with("[if");
        let closed = comment.strip_prefix('>').or_else(|| comment.strip_prefix("->"));
        return match closed {
            Some(rest) => (Place::Text, rest),
            None if is_conditional => (Place::Declaration, comment),
            None => (Place::Comment, comment),
        };
    }
    if rest.starts_with(['!', '?']) {
        return (Place::Declaration, &rest[1..]);
    }
    if let Some(end) = rest.strip_prefix('/') {
        return match end {
            "" => (Place::Open, ""),
            end if named(end) => (Place::Tag(Content::Html), &end[name(end)..]),
            end => (Place::Declaration, end),
        };
    }
    if !named(rest) {
        return (Place::Text, rest);
    }
    let end = name(rest);
    let content = match rest[..end].to_ascii_lowercase().as_str() {
        "style" => Content::Style,
        "script" => Content::Script,
        _ => Content::Html,
    };
    (Place::Tag(content), &rest[end..])
}

/// Between attributes.
fn in_tag(content: Content, rest: &str) -> (Place, &str) {
    let rest = rest.trim_start_matches(|character: char| character.is_whitespace() || character == '/');
    if let Some(rest) = rest.strip_prefix('>') {
        return (if content == Content::Html { Place::Text } else { Place::Raw(content) }, rest);
    }
    let end = rest.find(|character: char| character.is_whitespace() || matches!(character, '/' | '>' | '='));
    let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
    match rest.trim_start().strip_prefix('=') {
        Some(rest) => (Place::Equals(content, Attribute::named(name)), rest),
        None => (Place::Tag(content), rest),
    }
}

impl Attribute {
    fn named(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let name = name.rsplit(':').next().unwrap_or_default();
        match name {
            "" | "srcdoc" => Self::Closed,
            script if script.starts_with("on") => Self::Closed,
            "style" => Self::Style,
            "action" | "archive" | "background" | "cite" | "classid" | "codebase" | "data" | "formaction" | "href"
            | "icon" | "longdesc" | "manifest" | "ping" | "poster" | "profile" | "src" | "srcset" | "usemap" => {
                Self::Url(Part::Start)
            }
            _ => Self::Text,
        }
    }

    fn after(self, text: &str) -> Self {
        match self {
            Self::Url(_) if text.contains(['?', '#']) => Self::Url(Part::Query),
            Self::Url(Part::Start | Part::Joined) if !text.trim().is_empty() => Self::Url(Part::Path),
            other => other,
        }
    }
}

impl Escape {
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::None => Cow::Borrowed(text),
            Self::Html => Cow::Owned(escaped(text)),
            Self::Url(part) => Cow::Owned(escaped(&url(text, part))),
            Self::Style if is_style(text) => Cow::Borrowed(text),
            Self::Style => Cow::Borrowed(""),
        }
    }
}

/// A value as a part of an address.
fn url(text: &str, part: Part) -> String {
    let scheme = scheme(text);
    let is_evil = match part {
        // The site's own links may open an application.
        Part::Start => scheme.as_deref().is_some_and(|scheme| EVIL.contains(&scheme)),
        Part::Joined => scheme.is_some(),
        Part::Path | Part::Query => false,
    };
    if is_evil {
        return "#".to_owned();
    }
    let bytes = text.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_kept = |at: usize, byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => true,
        b'%' => part != Part::Query && is_hex(at + 1) && is_hex(at + 2),
        b'!' | b'#' | b'$' | b'&' | b'*' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'?' | b'@' | b'[' | b']' => {
            part != Part::Query
        }
        byte => byte.is_ascii_alphanumeric(),
    };
    let mut out = String::with_capacity(text.len());
    for (at, &byte) in bytes.iter().enumerate() {
        if is_kept(at, byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Schemes that run or show what a stranger has written.
const EVIL: &[&str] = &["javascript", "vbscript", "data", "file", "blob"];

/// As a browser sees it, which leaves out blanks; empty where there is nothing before the colon.
fn scheme(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|character| !character.is_whitespace() && !character.is_control()).collect();
    let end = text.find([':', '/', '?', '#'])?;
    text[end..].starts_with(':').then(|| text[..end].to_ascii_lowercase())
}

/// Nothing that ends a value or calls a function.
fn is_style(text: &str) -> bool {
    let is_fine = |character: char| character.is_alphanumeric() || " #%.,-_/:?=~+".contains(character);
    text.chars().all(is_fine) && !scheme(text).is_some_and(|scheme| EVIL.contains(&scheme.as_str()))
}
