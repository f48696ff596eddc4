//! The grammar as tables: a query string, and what was understood.

use super::error::Error;
use super::parse::{Parts, request};
use super::request::{
    Action, Aggregate, Filter, Join, JsonOperand, LogicTree, MediaType, Operation, Operator, Payload, Quantifier,
    Range, Request, SelectItem,
};

fn get(path: &str, query: &str) -> Result<Request, Error> {
    request(Parts { method: "GET", path, query, headers: &[], body: Vec::new() })
}

fn post(path: &str, query: &str, headers: &[(&str, &str)], body: &str) -> Result<Request, Error> {
    request(Parts { method: "POST", path, query, headers, body: body.as_bytes().to_vec() })
}

fn filters(query: &str) -> Vec<(String, Filter)> {
    let request = get("/t", query).unwrap();
    request.query.filters.into_iter().map(|(path, filter)| (path.join("."), filter)).collect()
}

fn compare(operator: Operator, value: &str) -> Operation {
    Operation::Compare { operator, quantifier: None, value: value.into() }
}

#[test]
fn select_lists_nest() {
    let request =
        get("/films", "select=title,year::text,who:directors!fk!inner(name),...meta(a->>b),*,count()").unwrap();
    let [title, year, who, spread, star, count] = request.query.select.as_slice() else { panic!("{request:?}") };
    assert!(matches!(title, SelectItem::Field { field, .. } if field.name == "title"));
    assert!(matches!(year, SelectItem::Field { cast: Some(cast), .. } if cast == "text"));
    let SelectItem::Embed { relation, alias, hint, join, select } = who else { panic!("{who:?}") };
    assert_eq!((relation.as_str(), alias.as_deref(), hint.as_deref()), ("directors", Some("who"), Some("fk")));
    assert_eq!((*join, select.len()), (Some(Join::Inner), 1));
    let SelectItem::Spread { select, .. } = spread else { panic!("{spread:?}") };
    let SelectItem::Field { field, .. } = &select[0] else { panic!("{select:?}") };
    assert_eq!(field.path[0].operand, JsonOperand::Key("b".into()));
    assert!(field.path[0].as_text);
    assert!(matches!(star, SelectItem::Field { field, .. } if field.name == "*"));
    assert!(matches!(count, SelectItem::Count { .. }));
}

#[test]
fn a_field_has_alias_path_casts_and_aggregate() {
    let request = get("/t", "select=total:data->-1->x::int.sum()::text").unwrap();
    let SelectItem::Field { field, aggregate, aggregate_cast, cast, alias } = &request.query.select[0] else {
        panic!()
    };
    assert_eq!(field.path[0].operand, JsonOperand::Index("-1".into()));
    assert_eq!((*aggregate, aggregate_cast.as_deref()), (Some(Aggregate::Sum), Some("text")));
    assert_eq!((cast.as_deref(), alias.as_deref()), (Some("int"), Some("total")));
}

#[test]
fn filters_have_operators_and_values() {
    let cases = [
        ("a=eq.1", "", false, compare(Operator::Eq, "1")),
        ("a=not.neq.x.y", "", true, compare(Operator::Neq, "x.y")),
        ("rel.a=gte.2", "rel", false, compare(Operator::Gte, "2")),
        ("a=in.(1,\"b,c\",d%20e)", "", false, Operation::In(vec!["1".into(), "b,c".into(), "d e".into()])),
        ("a=in.()", "", false, Operation::In(vec![String::new()])),
        ("a=cs.{1,2}", "", false, compare(Operator::Contains, "{1,2}")),
        ("a=isdistinct.5", "", false, Operation::IsDistinctFrom("5".into())),
    ];
    for (query, path, negated, operation) in cases {
        let found = filters(query);
        assert_eq!(found[0].0, path, "{query}");
        assert_eq!((found[0].1.negated, &found[0].1.operation), (negated, &operation), "{query}");
    }
    let quantified = &filters("a=like(any).{a*,b*}")[0].1.operation;
    assert!(matches!(quantified, Operation::Compare { quantifier: Some(Quantifier::Any), .. }));
    let text = &filters("a=not.wfts(english).fat%20cat")[0].1.operation;
    assert!(matches!(text, Operation::FullText { language: Some(language), .. } if language == "english"));
}

#[test]
fn logic_trees_nest_and_quote() {
    let request = get("/t", "or=(a.eq.1,not.and(b.in.(1,2),c.eq.\"x,y\"))&rel.not.and=(d.is.null)").unwrap();
    let LogicTree::Branch { children, .. } = &request.query.logic[0].1 else { panic!() };
    let LogicTree::Branch { negated: true, children, .. } = &children[1] else { panic!("{children:?}") };
    assert!(matches!(&children[1], LogicTree::Filter(filter) if filter.operation == compare(Operator::Eq, "x,y")));
    assert_eq!(request.query.logic[1].0, ["rel"]);
    assert!(matches!(request.query.logic[1].1, LogicTree::Branch { negated: true, .. }));
}

#[test]
fn ranges_come_from_parameters_and_header() {
    let request = get("/t", "limit=5&offset=10&rel.limit=1").unwrap();
    assert_eq!(request.query.ranges[[].as_slice()], Range { offset: 10, limit: Some(5) });
    assert_eq!(request.query.ranges[["rel".to_owned()].as_slice()], Range { offset: 0, limit: Some(1) });
    let headers = [("range", "5-9")];
    let parts = |method| Parts { method, path: "/t", query: "", headers: &headers, body: Vec::new() };
    assert_eq!(request_range(parts("GET")), Range { offset: 5, limit: Some(5) });
    assert_eq!(request_range(parts("HEAD")), Range::default());
    assert_eq!(get("/t", "limit=-1").unwrap_err().code(), "PGRST103");
}

fn request_range(parts: Parts<'_>) -> Range {
    request(parts).unwrap().range
}

#[test]
fn a_call_takes_what_is_no_filter_as_argument() {
    let request = get("/rpc/f", "a=1&b=eq.2&c=x.y").unwrap();
    assert_eq!(request.query.parameters, [("a".into(), "1".into()), ("c".into(), "x.y".into())]);
    assert_eq!(request.query.filters.len(), 1);
}

#[test]
fn bodies_tell_their_keys() {
    let keys = |body: &str| match post("/t", "", &[], body).unwrap().payload {
        Some(Payload::Json { keys, is_array, .. }) => (keys, is_array),
        other => panic!("{other:?}"),
    };
    assert_eq!(keys("{\"b\":1,\"a\":[{}]}"), (vec!["a".into(), "b".into()], false));
    assert_eq!(keys("[{\"a\":1},{\"a\":2}]"), (vec!["a".into()], true));
    assert_eq!(keys("[]"), (vec![], true));
    let refused = |body: &str| post("/t", "", &[], body).unwrap_err().message();
    assert_eq!(refused("[{\"a\":1},{\"b\":2}]"), "All object keys must match");
    assert_eq!(refused("{bad"), "Empty or invalid json");
    assert_eq!(refused(""), "Empty or invalid json");
}

#[test]
fn csv_becomes_rows() {
    let body = "a,b\r\n1,\"x \"\"y\"\"\"\r\nNULL,\n";
    let request = post("/t", "", &[("content-type", "text/csv")], body).unwrap();
    let Some(Payload::Csv { bytes, keys }) = request.payload else { panic!() };
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(String::from_utf8(bytes).unwrap(), r#"[{"a":"1","b":"x \"y\""},{"a":null,"b":""}]"#);
    let uneven = post("/t", "", &[("content-type", "text/csv")], "a,b\n1\n").unwrap_err();
    assert_eq!(uneven.message(), "All lines must have same number of fields");
}

#[test]
fn errors_say_where() {
    let error = get("/t", "a=noop.0").unwrap_err();
    assert_eq!(error.message(), "\"failed to parse filter (noop.0)\" (line 1, column 1)");
    assert_eq!(error.details().unwrap(), "unexpected \"o\" expecting \"not\" or operator (eq, gt, ...)");
    assert_eq!(get("/a/b", "").unwrap_err(), Error::Path);
    let patch = request(Parts { method: "PATCH", path: "/rpc/f", query: "", headers: &[], body: Vec::new() });
    assert_eq!(patch.unwrap_err().code(), "PGRST101");
    assert_eq!(get("/t", "a=eq.%ff").unwrap_err(), Error::Encoding("query string"));
    assert_eq!(get("/t", "a=eq.%00").unwrap_err(), Error::Encoding("query string"));
}

/// Each from the comments of the reference's own parser, but for the first of `is`.
#[test]
fn messages_are_those_of_the_reference() {
    const AFTER_NAME: &str = r#"letter, digit, "-", "->>", "->", "::", ".", ")", "," or end of input"#;
    for (query, column, details) in [
        ("columns=:", 1, "unexpected \":\" expecting field name (* or [a..z0..9_$])".to_owned()),
        ("select=name!hint", 5, format!("unexpected '!' expecting {AFTER_NAME}")),
        ("select=name::", 7, "unexpected end of input expecting letter or digit".into()),
        ("select=id,clients(name[])", 16, format!("unexpected '[' expecting {AFTER_NAME}")),
        ("select=data->>-78xy", 11, r#"unexpected 'x' expecting digit, "->", "::", ".", "," or end of input"#.into()),
        ("select=data->>--34", 9, "unexpected \"-\" expecting digit".into()),
        (
            "order=clients(name,id)",
            8,
            r#"unexpected '(' expecting letter, digit, "-", "->>", "->", delimiter (.), "," or end of input"#.into(),
        ),
        ("order=id.ac", 4, r#"unexpected "c" expecting "asc", "desc", "nullsfirst" or "nullslast""#.into()),
        ("order=id.descc", 8, r#"unexpected 'c' expecting delimiter (.), "," or end of input"#.into()),
        ("order=id.nullslasttt", 13, r#"unexpected 't' expecting "," or end of input"#.into()),
        ("order=id.asc.nlsfst", 8, r#"unexpected "l" expecting "nullsfirst" or "nullslast""#.into()),
        ("id=fts().value", 5, "unexpected \")\" expecting operator (eq, gt, ...)".into()),
        ("id=eq().value", 4, "unexpected \")\" expecting operator (eq, gt, ...)".into()),
        ("id=is().value", 3, "unexpected \"(\" expecting operator (eq, gt, ...)".into()),
        ("id=is.nope", 6, "unexpected \"p\" expecting isVal: (null, not_null, true, false, unknown)".into()),
        (
            "or=()",
            4,
            "unexpected \")\" expecting field name (* or [a..z0..9_$]), negation operator (not) or logic operator \
             (and, or)"
                .into(),
        ),
        ("or=(id.in.1,2,id.eq.3)", 10, "unexpected \"1\" expecting \"(\"".into()),
        ("or=)(", 3, "unexpected \")\" expecting \"(\"".into()),
        ("and=(ord(id.eq.1,id.eq.1),id.eq.2)", 7, "unexpected \"d\" expecting \"(\"".into()),
        ("or=(id.eq.1,not.xor(id.eq.2,id.eq.3))", 16, "unexpected \"x\" expecting logic operator (and, or)".into()),
    ] {
        let error = get("/t", query).unwrap_err();
        let Error::Syntax { fault, .. } = &error else { panic!("{query}: {error:?}") };
        assert_eq!((fault.column, fault.details.as_str()), (column, details.as_str()), "{query}");
    }
}

/// What follows a whole value is not looked at, and a list that does not begin is empty, as in the reference.
#[test]
fn endings_are_not_looked_at() {
    for query in ["select=id,rel(a))", "select=rel(a)'", "select=:", "id=in.(1,2)x", "id=is.nullx", "or=(a.eq.1)x"] {
        assert!(get("/t", query).is_ok(), "{query}");
    }
}

#[test]
fn hostile_depth_is_refused_without_a_stack_overflow() {
    let deep = format!("select={}a{}", "r(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(get("/t", &deep).unwrap_err().code(), "PGRST100");
    let deep = format!("or={}a.eq.1{}", "(and".repeat(100_000), ")".repeat(100_000));
    assert_eq!(get("/t", &deep).unwrap_err().code(), "PGRST100");
    let deep = "[".repeat(1_000_000);
    assert_eq!(post("/t", "", &[], &deep).unwrap_err().code(), "PGRST102");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(post("/rpc/f", "", &form, &format!("a={deep}")).unwrap_err(), Error::Nesting);
}

#[test]
fn profiles_and_media_types_come_from_headers() {
    let request = post("/t", "", &[("content-profile", "api"), ("accept", "text/csv")], "{}").unwrap();
    assert_eq!(request.profile.as_deref(), Some("api"));
    assert_eq!(request.accept, [MediaType::Csv]);
    assert_eq!(request.action, Action::Insert { target: "t".into() });
}

/// The same pieces in the same order every time, so that a failure can be repeated.
struct Pieces(u64);

impl Pieces {
    fn next(&mut self, below: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }

    fn text(&mut self, pieces: &[&str], most: usize) -> String {
        (0..=self.next(most)).map(|_| pieces[self.next(pieces.len())]).collect()
    }
}

#[test]
fn whatever_comes_is_understood_or_refused() {
    const QUERY: &[&str] = &[
        "select=",
        "order=",
        "limit=",
        "offset=",
        "columns=",
        "on_conflict=",
        "or=",
        "and=",
        "not.or=",
        "&",
        "=",
        ",",
        ".",
        ":",
        "::",
        "(",
        ")",
        "*",
        "->",
        "->>",
        "!inner",
        "!",
        "...",
        "a",
        "b.c",
        "id",
        "eq.",
        "in.(",
        "not.",
        "is.null",
        "like(any).{",
        "fts(en).",
        "{",
        "}",
        "\"",
        "\\",
        "%22",
        "%00",
        "%ff",
        "%",
        "+",
        " ",
        "é",
        "1",
        "-1",
        "99999999999999999999",
        "count()",
        "asc",
        "nullslast",
        "desc.",
    ];
    const HEADERS: &[&str] = &[
        "count=exact",
        "return=",
        "handling=strict",
        ",",
        ";",
        "=",
        "\"",
        "max-affected=",
        "tx=rollback",
        "application/json",
        "text/csv",
        "*/*",
        "/",
        "; q=0.5",
        "application/vnd.pgrst.plan+json; for=\"",
        "0-9",
        "-",
        "1",
        " ",
        "é",
        "nulls=stripped",
        "timezone=x",
    ];
    const BODY: &[&str] =
        &["{", "}", "[", "]", "\"a\"", ":", ",", "1", "null", "a,b\n", "\"\"", "\\", "\0", "é", "a=1&", "%41"];
    let mut pieces = Pieces(0x9E37_79B9_7F4A_7C15);
    for _ in 0..100_000 {
        let query = pieces.text(QUERY, 12);
        let values: Vec<String> = (0..4).map(|_| pieces.text(HEADERS, 4)).collect();
        let types = ["application/json", "text/csv", "application/x-www-form-urlencoded", "text/plain", &values[3]];
        let headers = [
            ("prefer", values[0].as_str()),
            ("accept", values[1].as_str()),
            ("range", values[2].as_str()),
            ("content-type", types[pieces.next(types.len())]),
        ];
        let method = ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "X"][pieces.next(8)];
        let path = ["/t", "/rpc/f", "/", "/rpc/", "/a/b", "/%ff", ""][pieces.next(7)];
        let body = pieces.text(BODY, 8).into_bytes();
        let parts = Parts { method, path, query: &query, headers: &headers[..pieces.next(5)], body };
        if let Err(refused) = request(parts) {
            assert!((400..500).contains(&refused.status()), "{query}: {refused:?}");
        }
    }
}
