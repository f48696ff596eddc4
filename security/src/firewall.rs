//! Rules about requests that nobody need look at: networks, methods, paths, sizes. They are checked before anything is read or asked, and
//! allocate nothing for an ordinary path.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Uri};

use crate::networks::Networks;

/// See the module. The default lets everything through.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// What is said of networks; the smallest that holds an address counts.
    pub networks: Networks<Access>,
    /// Those of whom nothing is said are kept out.
    pub is_closed: bool,
    /// Others are refused; empty for all.
    pub methods: Vec<String>,
    /// Nobody gets there.
    pub denied_paths: Vec<Pattern>,
    pub most_headers: Option<usize>,
    /// Names and values together.
    pub most_header_bytes: Option<usize>,
    pub most_body_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Allow,
    Deny,
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's.
    pub address: IpAddr,
    pub method: &'a str,
    /// As it was sent, without the query.
    pub path: &'a str,
    pub headers: usize,
    pub header_bytes: usize,
    /// As far as it was announced.
    pub body_bytes: Option<u64>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Network,
    Method,
    Path,
    Headers,
    Body,
}

impl<'a> Facts<'a> {
    pub fn new(address: IpAddr, method: &'a Method, uri: &'a Uri, headers: &HeaderMap) -> Self {
        Self {
            address,
            method: method.as_str(),
            path: uri.path(),
            headers: headers.len(),
            header_bytes: headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum(),
            body_bytes: headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()),
        }
    }
}

impl Rules {
    /// `None` to let it through.
    pub fn decide(&self, facts: &Facts<'_>) -> Option<Reason> {
        match self.networks.get(facts.address) {
            Some(Access::Deny) => return Some(Reason::Network),
            None if self.is_closed => return Some(Reason::Network),
            Some(Access::Allow) | None => {}
        }
        if !self.methods.is_empty() && !self.methods.iter().any(|method| method == facts.method) {
            return Some(Reason::Method);
        }
        if self.most_headers.is_some_and(|most| facts.headers > most)
            || self.most_header_bytes.is_some_and(|most| facts.header_bytes > most)
        {
            return Some(Reason::Headers);
        }
        if self.most_body_bytes.is_some_and(|most| facts.body_bytes.is_some_and(|bytes| bytes > most)) {
            return Some(Reason::Body);
        }
        if !self.denied_paths.is_empty() {
            let path = plain(facts.path);
            if self.denied_paths.iter().any(|pattern| pattern.matches(&path)) {
                return Some(Reason::Path);
            }
        }
        None
    }
}

/// Paths: `*` stands for anything within a step, `**` for anything at all, and `/admin/**` for `/admin` too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl std::str::FromStr for Pattern {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.starts_with('/') && text.len() <= 1024 { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl Pattern {
    /// `path` is plain.
    pub fn matches(&self, path: &str) -> bool {
        self.0.strip_suffix("/**").is_some_and(|own| !own.contains('*') && own == path)
            || matches(self.0.as_bytes(), path.as_bytes())
    }
}

/// A `**` takes back what a `*` before it has tried, so the work is at most the pattern's length times the path's, for each kind of star.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where to go on after the last star of each kind, and how much it has taken.
    let mut star: Option<(usize, usize)> = None;
    let mut stars: Option<(usize, usize)> = None;
    while read < path.len() {
        if pattern[at..].starts_with(b"**") {
            (stars, star) = (Some((at + 2, read)), None);
            at += 2;
        } else if pattern.get(at) == Some(&b'*') {
            star = Some((at + 1, read));
            at += 1;
        } else if pattern.get(at) == Some(&path[read]) {
            (at, read) = (at + 1, read + 1);
        } else if let Some((after, taken)) = star.filter(|(_, taken)| path[*taken] != b'/') {
            star = Some((after, taken + 1));
            (at, read) = (after, taken + 1);
        } else if let Some((after, taken)) = stars {
            (stars, star) = (Some((after, taken + 1)), None);
            (at, read) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// The path as those who serve it may understand it: what was encoded decoded, without doubled slashes and steps that lead nowhere. Nothing is
/// allocated where it is so already.
pub fn plain(path: &str) -> Cow<'_, str> {
    let path = if path.contains('%') {
        percent_encoding::percent_decode_str(path).decode_utf8_lossy()
    } else {
        Cow::Borrowed(path)
    };
    if !path.contains("//") && !path.contains("/.") && !path.contains('\\') {
        return path;
    }
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split(['/', '\\']) {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    let end = if path.ends_with('/') && !steps.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{end}", steps.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FACTS: Facts<'static> = Facts {
        address: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)),
        method: "GET",
        path: "/rest/v1/films",
        headers: 10,
        header_bytes: 500,
        body_bytes: None,
    };

    fn networks(named: &[(&str, Access)]) -> Networks<Access> {
        Networks::new(named.iter().map(|(network, access)| (network.parse().unwrap(), *access)))
    }

    #[test]
    fn rules_are_heeded() {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Pattern>>();
        let none = Rules::default;
        let denied = || Rules {
            networks: networks(&[("203.0.113.0/24", Access::Deny), ("203.0.113.7", Access::Allow)]),
            ..none()
        };
        let closed = || Rules { networks: networks(&[("10.0.0.0/8", Access::Allow)]), is_closed: true, ..none() };
        let of = |address: &str| Facts { address: address.parse().unwrap(), ..FACTS };
        for (rules, facts, expected) in [
            (none(), FACTS, None),
            (denied(), FACTS, None),
            (denied(), of("203.0.113.8"), Some(Reason::Network)),
            (denied(), of("203.0.114.8"), None),
            (closed(), FACTS, Some(Reason::Network)),
            (closed(), of("10.1.2.3"), None),
            (Rules { methods: vec!["GET".into()], ..none() }, FACTS, None),
            (Rules { methods: vec!["POST".into()], ..none() }, FACTS, Some(Reason::Method)),
            (Rules { denied_paths: patterns(&["/auth/v1/admin/**"]), ..none() }, FACTS, None),
            (
                Rules { denied_paths: patterns(&["/auth/v1/admin/**"]), ..none() },
                Facts { path: "/auth//v1/%61dmin/users", ..FACTS },
                Some(Reason::Path),
            ),
            (Rules { most_headers: Some(9), ..none() }, FACTS, Some(Reason::Headers)),
            (Rules { most_header_bytes: Some(499), ..none() }, FACTS, Some(Reason::Headers)),
            (Rules { most_body_bytes: Some(5), ..none() }, FACTS, None),
            (Rules { most_body_bytes: Some(5), ..none() }, Facts { body_bytes: Some(6), ..FACTS }, Some(Reason::Body)),
        ] {
            assert_eq!(rules.decide(&facts), expected, "{rules:?} {facts:?}");
        }
    }

    #[test]
    fn patterns_match_paths() {
        for (pattern, path, expected) in [
            ("/admin", "/admin", true),
            ("/admin", "/admins", false),
            ("/admin", "/admin/", false),
            ("/admin/**", "/admin", true),
            ("/admin/**", "/admin/a/b", true),
            ("/admin/**", "/administrator", false),
            ("/*.php", "/index.php", true),
            ("/*.php", "/a/index.php", false),
            ("/**.php", "/a/index.php", true),
            ("/**/.git/**", "/a/b/.git/config", true),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
            ("/a*c*e", "/abcde", true),
            ("/a*c*e", "/abcd", false),
            ("/a**c*e/f", "/a/x/c/y/cye/f", true),
            ("/**", "/", true),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(path), expected, "{pattern} {path}");
        }
        assert!("admin".parse::<Pattern>().is_err());
    }

    #[test]
    fn paths_are_made_plain() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("/a/./b/", "/a/b/"),
            ("/a/../../b", "/b"),
            ("/%2e%2e/%61", "/a"),
            ("/a\\b", "/a/b"),
            ("//", "/"),
            ("/.env", "/.env"),
        ] {
            assert_eq!(plain(path), expected, "{path}");
        }
        assert!(matches!(plain("/rest/v1/films"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn a_path_is_a_pattern_of_itself(path in "/[a-c/]{0,12}", more in "[a-c/]{0,5}") {
            prop_assert!(path.parse::<Pattern>().unwrap().matches(&path));
            let under = format!("{path}**").parse::<Pattern>().unwrap();
            let longer = format!("{path}{more}");
            prop_assert!(under.matches(&longer));
        }

        #[test]
        fn stars_end(pattern in "/[a*]{0,20}", path in "/a{0,200}/?") {
            let _ = pattern.parse::<Pattern>().unwrap().matches(&path);
        }
    }
}
