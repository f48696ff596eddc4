//! What holds for every request, whoever wrote it.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::parse::{Parts, request};
use super::request::{LogicTree, Operation, Payload, SelectItem};

/// Pieces of the grammar between anything else: what comes of them goes deeper into the parser than letters do.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => proptest::sample::select(vec![
            "(", ")", ",", ".", ":", "::", "!", "...", "->", "->>", "*", "&", "=", "\"", "\\", "{", "}", "%", "%2", "%22", "%zz", "+", "-",
            "0", "99999999999999999999", "eq", "in", "not", "is", "null", "fts", "any", "like", "and", "or", "select", "order", "limit",
            "offset", "columns", "on_conflict", "by", "inner", "left", "count()", "sum()", "asc", "nullsfirst", "rel", "%00", "%ff", "ä",
        ])
        .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn headers() -> impl Strategy<Value = (&'static str, String)> {
    let names = vec!["accept", "prefer", "range", "range-unit", "content-type", "content-profile", "accept-profile"];
    let values = prop_oneof![
        pieces(),
        "[a-z=,;/+*. \"0-9-]{0,60}",
        proptest::sample::select(vec![
            "application/vnd.pgrst.plan+json; for=\"text/csv\"; options=analyze|verbose",
            "application/json;q=0.1,*/*;q=x",
            "return=representation, count=exact,tx=rollback",
            "max-affected=-1, timezone=Mars/Base, handling=strict",
            "0-18446744073709551615",
            "5-2",
            "text/csv",
            "application/x-www-form-urlencoded",
        ])
        .prop_map(str::to_owned),
    ];
    (proptest::sample::select(names), values)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn get(query: &str) -> super::request::Request {
    request(Parts { method: "GET", path: "/t", query, headers: &[], body: Vec::new() }).expect(query)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_read_or_refused_with_a_reason(
        method in proptest::sample::select(vec!["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"]),
        path in prop_oneof![Just("/t".to_owned()), Just("/rpc/f".to_owned()), Just("/".to_owned()), pieces()],
        query in pieces(),
        headers in proptest::collection::vec(headers(), 0..4),
        body in prop_oneof![pieces().prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..100)],
    ) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if let Err(error) = request(Parts { method, path: &path, query: &query, headers: &headers, body }) {
            prop_assert!(error.code().starts_with("PGRST") && (400..=499).contains(&error.status()), "{error:?}");
            prop_assert!(!error.message().is_empty());
        }
    }

    #[test]
    fn a_value_arrives_as_it_was_sent(value in any::<String>()) {
        let request = get(&format!("a=eq.{}", encoded(&value)));
        let (_, filter) = &request.query.filters[0];
        prop_assert!(matches!(&filter.operation, Operation::Compare { value: found, .. } if *found == value), "{filter:?}");
    }

    #[test]
    fn a_list_in_quotes_arrives_as_it_was_sent(values in proptest::collection::vec(any::<String>(), 1..5)) {
        let quoted: Vec<_> =
            values.iter().map(|value| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))).collect();
        let request = get(&format!("a=in.({})", encoded(&quoted.join(","))));
        let (_, filter) = &request.query.filters[0];
        prop_assert!(matches!(&filter.operation, Operation::In(found) if *found == values), "{filter:?}");
    }

    #[test]
    fn a_name_in_quotes_arrives_as_it_was_sent(name in "[^\u{0}]{1,20}") {
        let quoted = encoded(&format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")));
        let request = get(&format!("select={quoted}&and=({quoted}.eq.1)"));
        let SelectItem::Field { field, .. } = &request.query.select[0] else { panic!("{request:?}") };
        prop_assert_eq!(&field.name, &name);
        let (_, LogicTree::Branch { children, .. }) = &request.query.logic[0] else { panic!("{request:?}") };
        prop_assert!(matches!(&children[0], LogicTree::Filter(filter) if filter.field.name == name), "{children:?}");
    }

    #[test]
    fn nesting_has_an_end(depth in 1_usize..3000, open in proptest::sample::select(vec!["a(", "and(", "...a(", "not.or("])) {
        let (nested, closed) = (open.repeat(depth), ")".repeat(depth));
        for query in [format!("select={nested}id{closed}"), format!("or=({nested}id.eq.1{closed})")] {
            let _ = request(Parts { method: "GET", path: "/t", query: &query, headers: &[], body: Vec::new() });
        }
    }

    /// Whatever the shape of the body, its bytes are the client's own.
    #[test]
    fn a_json_body_is_kept_as_it_is(text in "[^\u{0}]{0,30}", blank in "[ \n\t]{0,3}") {
        let body = format!("{blank}{}", serde_json::json!({ "a": text }));
        let parts = Parts { method: "POST", path: "/t", query: "", headers: &[], body: body.clone().into_bytes() };
        let payload = request(parts).unwrap().payload;
        prop_assert!(matches!(&payload, Some(Payload::Json { bytes, .. }) if bytes[..] == *body.as_bytes()), "{payload:?}");
    }
}
