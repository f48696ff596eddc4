//! The bodies that are XML: which parts make an object, which objects to delete.
//!
//! Read as events, never as a tree, and without what makes XML dangerous: no document type, so no entities but the five, a depth
//! of a few elements, a number of entries that Amazon has too. How long a body may be is [`LONGEST`].

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, Event};

use super::request::{LAST_PART, PAGE};
use super::{Code, Error};

/// Bytes: room for 10,000 parts with their checksums.
pub const LONGEST: usize = 4 * 1024 * 1024;

const DEEPEST: usize = 6;

/// What a client says of a part that it has uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    pub number: u32,
    /// Without quotes.
    pub etag: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    pub keys: Vec<String>,
    /// Only what could not be deleted is told.
    pub quiet: bool,
}

/// Of `CompleteMultipartUpload`: parts with rising numbers. None in an empty body: storage-api takes all that there are.
pub fn complete(bytes: &[u8]) -> Result<Vec<CompletedPart>, Error> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let mut parts: Vec<CompletedPart> = Vec::new();
    let (mut number, mut etag) = (None, None);
    walk(bytes, "CompleteMultipartUpload", |path, text| {
        match path {
            ["Part", "PartNumber"] => {
                number = text.trim().parse().ok().filter(|number| (1..=LAST_PART).contains(number));
            }
            ["Part", "ETag"] => etag = Some(text.trim().trim_matches('"').to_owned()),
            ["Part"] => {
                let (Some(number), Some(etag)) = (number.take(), etag.take()) else {
                    return Err(Code::MalformedXML.into());
                };
                if parts.last().is_some_and(|last| last.number >= number) {
                    return Err(Code::InvalidPartOrder.into());
                }
                parts.push(CompletedPart { number, etag });
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(parts)
}

/// Of `DeleteObjects`.
pub fn delete(bytes: &[u8]) -> Result<Delete, Error> {
    let mut delete = Delete { keys: Vec::new(), quiet: false };
    let (mut key, mut versioned) = (None, false);
    walk(bytes, "Delete", |path, text| {
        match path {
            ["Quiet"] => delete.quiet = text.trim() == "true",
            // Blanks belong to the key.
            ["Object", "Key"] => key = Some(text.to_owned()),
            ["Object", "VersionId"] => versioned = !matches!(text.trim(), "" | "null"),
            ["Object"] => {
                delete.keys.push(key.take().ok_or(Code::MalformedXML)?);
                if versioned {
                    return Err(Error::new(Code::NotImplemented, "versions are not implemented"));
                }
                if delete.keys.len() > PAGE as usize {
                    return Err(Code::MalformedXML.into());
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(delete)
}

/// Calls `end` at the end of each element below the root, with its path and its text.
fn walk(bytes: &[u8], root: &str, mut end: impl FnMut(&[&str], &str) -> Result<(), Error>) -> Result<(), Error> {
    if bytes.len() > LONGEST {
        return Err(Code::EntityTooLarge.into());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Code::MalformedXML)?;
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    reader.config_mut().expand_empty_elements = true;
    let mut path: Vec<String> = Vec::new();
    let mut content = String::new();
    let mut seen = false;
    loop {
        match reader.read_event().map_err(|_| Code::MalformedXML)? {
            Event::Start(start) => {
                let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                let first = path.is_empty();
                if path.len() == DEEPEST || (first && (seen || name != root)) {
                    return Err(Code::MalformedXML.into());
                }
                seen = true;
                path.push(name);
                content.clear();
            }
            Event::End(_) => {
                let below: Vec<&str> = path.iter().skip(1).map(String::as_str).collect();
                if !below.is_empty() {
                    end(&below, &content)?;
                }
                path.pop();
                content.clear();
            }
            Event::Text(text) => {
                let text = text.decode().map_err(|_| Code::MalformedXML)?;
                if path.is_empty() && !text.trim().is_empty() {
                    return Err(Code::MalformedXML.into());
                }
                content.push_str(&text);
            }
            Event::CData(data) => content.push_str(&data.decode().map_err(|_| Code::MalformedXML)?),
            Event::GeneralRef(reference) => content.push(referred(&reference)?),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::Empty(_) => {}
            Event::Eof if seen && path.is_empty() => return Ok(()),
            Event::DocType(_) | Event::Eof => return Err(Code::MalformedXML.into()),
        }
    }
}

/// One of the five entities, or a character by its number. XML's line ends are for its text alone: `&#13;` stays what it is.
fn referred(reference: &BytesRef<'_>) -> Result<char, Error> {
    if let Some(character) = reference.resolve_char_ref().map_err(|_| Code::MalformedXML)? {
        return if character == '\0' { Err(Code::MalformedXML.into()) } else { Ok(character) };
    }
    let name = reference.decode().map_err(|_| Code::MalformedXML)?;
    let character = resolve_xml_entity(&name).and_then(|text| text.chars().next());
    character.ok_or_else(|| Code::MalformedXML.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<impl std::fmt::Debug, Error>, code: Code) {
        assert_eq!(result.unwrap_err().code, code);
    }

    #[test]
    fn parts_are_read() {
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
            <CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Part><PartNumber>1</PartNumber><ETag>"aa"</ETag><ChecksumCRC32>sOO8/Q==</ChecksumCRC32></Part>
              <Part><ETag>&quot;bb&#34;</ETag><PartNumber> 7 </PartNumber></Part>
            </CompleteMultipartUpload>"#;
        let part = |number, etag: &str| CompletedPart { number, etag: etag.to_owned() };
        assert_eq!(complete(body).unwrap(), vec![part(1, "aa"), part(7, "bb")]);
        assert_eq!(complete(b" \n").unwrap(), vec![]);
        assert_eq!(complete(b"<CompleteMultipartUpload/>").unwrap(), vec![]);
    }

    #[test]
    fn parts_that_are_none_are_refused() {
        let of =
            |parts: &str| complete(format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").as_bytes());
        for parts in [
            "<Part><PartNumber>0</PartNumber><ETag>a</ETag></Part>",
            "<Part><PartNumber>10001</PartNumber><ETag>a</ETag></Part>",
            "<Part><PartNumber>1</PartNumber></Part>",
            "<Part><ETag>a</ETag></Part>",
            "<Part>",
            "<a><b><c><d><e><f/></e></d></c></b></a>",
        ] {
            refused(of(parts), Code::MalformedXML);
        }
        let twice = "<Part><PartNumber>2</PartNumber><ETag>a</ETag></Part>".repeat(2);
        refused(of(&twice), Code::InvalidPartOrder);
        refused(complete(b"<Delete/>"), Code::MalformedXML);
        refused(complete(b"<CompleteMultipartUpload/><CompleteMultipartUpload/>"), Code::MalformedXML);
        refused(complete(b"<CompleteMultipartUpload/>text"), Code::MalformedXML);
        refused(complete(b"{}"), Code::MalformedXML);
        refused(complete(b"\xff"), Code::MalformedXML);
    }

    #[test]
    fn keys_to_delete_are_read_as_they_are() {
        let body = "<Delete><Object><Key> a &amp; b\u{e4}&#x2F;&lt;</Key></Object><Quiet>true</Quiet>\
                    <Object><Key>1.0</Key><VersionId>null</VersionId></Object><Object><Key><![CDATA[<x>]]></Key></Object></Delete>";
        let expected = vec![" a & b\u{e4}/<".to_owned(), "1.0".to_owned(), "<x>".to_owned()];
        assert_eq!(delete(body.as_bytes()).unwrap(), Delete { keys: expected, quiet: true });
    }

    #[test]
    fn security_xml_has_no_document_type_and_no_entities_of_its_own() {
        let bomb = "<!DOCTYPE Delete [<!ENTITY a \"aaaa\">]><Delete><Object><Key>&a;</Key></Object></Delete>";
        refused(delete(bomb.as_bytes()), Code::MalformedXML);
        for key in ["&a;", "&#0;", "&#xD800;", "&", "&#x110000;"] {
            refused(
                delete(format!("<Delete><Object><Key>{key}</Key></Object></Delete>").as_bytes()),
                Code::MalformedXML,
            );
        }
        let many = format!("<Delete>{}</Delete>", "<Object><Key>a</Key></Object>".repeat(1001));
        refused(delete(many.as_bytes()), Code::MalformedXML);
        refused(delete(&vec![b' '; LONGEST + 1]), Code::EntityTooLarge);
        refused(
            delete(b"<Delete><Object><Key>a</Key><VersionId>7</VersionId></Object></Delete>"),
            Code::NotImplemented,
        );
    }
}
