//! The header `If` (RFC 4918, 10.4): lists of states of which one has to hold.

/// Lists of one header.
const MOST: usize = 20;

/// It holds where all of its conditions do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The URL of what it speaks of, where that is not what is asked for.
    pub resource: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    is_not: bool,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// A lock's URI.
    Token(String),
    /// With its quotes.
    Etag(String),
}

impl List {
    /// The locks that it mentions.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.conditions.iter().filter_map(|condition| match &condition.state {
            State::Token(token) => Some(token.as_str()),
            State::Etag(_) => None,
        })
    }

    pub fn all(&self, is_lock: impl Fn(&str) -> bool, is_etag: impl Fn(&str) -> bool) -> bool {
        self.conditions.iter().all(|condition| {
            let is_so = match &condition.state {
                State::Token(token) => is_lock(token),
                State::Etag(tag) => is_etag(tag),
            };
            is_so != condition.is_not
        })
    }
}

/// `None` where it is no such header.
pub fn parse(text: &str) -> Option<Vec<List>> {
    let mut rest = text.trim_start();
    let mut resource = None;
    let mut lists = Vec::new();
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('<') {
            let (url, tail) = tail.split_once('>')?;
            resource = Some(url.to_owned());
            rest = tail.trim_start();
        }
        let (conditions, tail) = list(rest.strip_prefix('(')?)?;
        lists.push(List { resource: resource.clone(), conditions });
        rest = tail.trim_start();
        if lists.len() > MOST {
            return None;
        }
    }
    if lists.is_empty() { None } else { Some(lists) }
}

fn list(text: &str) -> Option<(Vec<Condition>, &str)> {
    let mut rest = text.trim_start();
    let mut conditions = Vec::new();
    loop {
        if let Some(tail) = rest.strip_prefix(')') {
            return if conditions.is_empty() { None } else { Some((conditions, tail)) };
        }
        let is_not = rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("not"));
        if is_not {
            rest = rest[3..].trim_start();
        }
        let state = if let Some(tail) = rest.strip_prefix('<') {
            let (token, tail) = tail.split_once('>')?;
            rest = tail;
            State::Token(token.to_owned())
        } else {
            let (tag, tail) = rest.strip_prefix('[')?.split_once(']')?;
            rest = tail;
            State::Etag(tag.to_owned())
        };
        conditions.push(Condition { is_not, state });
        rest = rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_list_has_to_hold() {
        let holds = |text: &str| {
            let lists = parse(text)?;
            Some(lists.iter().any(|list| list.all(|token| token == "urn:a", |tag| tag == "\"e\"")))
        };
        for (text, expected) in [
            ("(<urn:a>)", Some(true)),
            ("(<urn:b>)", Some(false)),
            ("(<urn:b>) (Not <urn:b> [\"e\"])", Some(true)),
            ("(<urn:a> [\"x\"])", Some(false)),
            ("(Not <DAV:no-lock>)", Some(true)),
            ("<http://h/x> (<urn:a>)(<urn:b>)", Some(true)),
            ("", None),
            ("()", None),
            ("(<urn:a>", None),
            ("urn:a", None),
            ("<http://h/x>", None),
        ] {
            assert_eq!(holds(text), expected, "{text}");
        }
        assert!(parse(&"(<urn:a>)".repeat(1000)).is_none());
    }

    fn written(lists: &[List]) -> String {
        let condition = |Condition { is_not, state }: &Condition| match state {
            State::Token(token) => format!("{}<{token}>", if *is_not { "Not " } else { "" }),
            State::Etag(tag) => format!("{}[{tag}]", if *is_not { "Not " } else { "" }),
        };
        let list = |list: &List| {
            let of = list.resource.as_ref().map(|url| format!("<{url}> ")).unwrap_or_default();
            format!("{of}({})", list.conditions.iter().map(condition).collect::<Vec<_>>().join(" "))
        };
        lists.iter().map(list).collect::<Vec<_>>().join(" ")
    }

    fn any_list() -> impl Strategy<Value = List> {
        let state = prop_oneof!["[a-z:/(]{1,8}".prop_map(State::Token), "\"[a-z()<>]{0,8}\"".prop_map(State::Etag)];
        let condition = (any::<bool>(), state).prop_map(|(is_not, state)| Condition { is_not, state });
        // Of what names nothing, none may follow what does: it would be of the same.
        ("[a-z:/]{1,8}", prop::collection::vec(condition, 1..4))
            .prop_map(|(url, conditions)| List { resource: Some(url), conditions })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_as_the_same(lists in prop::collection::vec(any_list(), 1..5)) {
            prop_assert_eq!(parse(&written(&lists)), Some(lists));
        }
    }
}
