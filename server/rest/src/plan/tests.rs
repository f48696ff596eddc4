//! Plans and statements as tables: a request on a small catalog, and what becomes of it.

use expect_test::{Expect, expect};
use ntier_backing::database::Statement;
use ntier_backing::database::catalog::{Catalog, Column, Link, Name, Relationship, Table};
use ntier_protocol::rest::parse;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Plan, RowLimit, request};
use crate::query;
use crate::settings::Settings;

fn catalog() -> Catalog {
    let column = |name: &str, kind: &str| Column {
        name: name.into(),
        base_type: kind.into(),
        nominal_type: kind.into(),
        nullable: true,
        ..Column::default()
    };
    let table = |name: &str, columns: Vec<Column>| Table {
        name: Name::new("public", name),
        insertable: true,
        updatable: true,
        deletable: true,
        primary_key: vec!["id".into()],
        columns,
        ..Table::default()
    };
    let films = vec![
        column("id", "bigint"),
        column("title", "text"),
        column("details", "jsonb"),
        column("director_id", "bigint"),
    ];
    let films = table("films", films);
    let directors = table("directors", vec![column("id", "bigint"), column("name", "text")]);
    let link = |link, one: &Table, other: &Table| Relationship {
        table: one.name.clone(),
        foreign: other.name.clone(),
        is_self: false,
        link,
        table_is_view: false,
        foreign_is_view: false,
    };
    let pair = |one: &str, other: &str| vec![(one.to_owned(), other.to_owned())];
    let to_one = Link::ManyToOne { constraint: "fk".into(), columns: pair("director_id", "id") };
    let to_many = Link::OneToMany { constraint: "fk".into(), columns: pair("id", "director_id") };
    let mut catalog = Catalog::default();
    for (one, other, kind) in [(&films, &directors, to_one), (&directors, &films, to_many)] {
        catalog.relationships.insert((one.name.clone(), "public".into()), vec![link(kind, one, other)]);
    }
    for table in [films, directors] {
        catalog.tables.insert(table.name.clone(), table);
    }
    catalog
}

fn statement(method: &str, path: &str, query: &str, body: &str) -> Option<Statement> {
    let parts = parse::Parts { method, path, query, headers: &[], body: body.into() };
    let asked = parse::request(parts).ok()?;
    Some(match request(&asked, "public", &catalog(), &Settings::default()).ok()? {
        Plan::Read(plan) => query::read(&plan, RowLimit::None, false),
        Plan::Mutate(plan) => query::mutate(&plan, false),
        Plan::Call(plan) => query::call(&plan, false),
        Plan::Info(_) | Plan::Describe { .. } => return None,
    })
}

fn check(query: &str, expected: &Expect) {
    expected.assert_eq(&statement("GET", "/films", query, "").expect("it is right").text);
}

#[test]
fn statements_of_reads() {
    check(
        "select=id&title=eq.M&limit=3",
        &expect![[
            r#"WITH pgrst_source AS (SELECT "public"."films"."id" FROM "public"."films" WHERE "public"."films"."title" = $1 LIMIT 3) SELECT null::bigint, pg_catalog.count(*), coalesce(json_agg(_postgrest_t), '[]'), nullif(current_setting('response.headers', true), ''), nullif(current_setting('response.status', true), '') FROM pgrst_source AS _postgrest_t"#
        ]],
    );
    check(
        "select=title,directors(name)&directors.name=like.F*",
        &expect![[
            r#"WITH pgrst_source AS (SELECT "public"."films"."title", row_to_json("films_directors_1".*)::jsonb AS "directors" FROM "public"."films" LEFT JOIN LATERAL (SELECT "directors_1"."name" FROM "public"."directors" AS "directors_1" WHERE "directors_1"."name" LIKE $1 AND "directors_1"."id" = "public"."films"."director_id" LIMIT 1000) AS "films_directors_1" ON TRUE LIMIT 1000) SELECT null::bigint, pg_catalog.count(*), coalesce(json_agg(_postgrest_t), '[]'), nullif(current_setting('response.headers', true), ''), nullif(current_setting('response.status', true), '') FROM pgrst_source AS _postgrest_t"#
        ]],
    );
}

const MARK: &str = "zq";

/// Requests with the mark, and with quotes of every kind around it, wherever a caller's text can stand.
fn queries() -> impl Strategy<Value = String> {
    let operator = select(vec![
        "eq",
        "neq",
        "gt",
        "like",
        "ilike",
        "match",
        "cs",
        "ov",
        "fts",
        "fts(zq)",
        "not.eq",
        "eq(any)",
        "isdistinct",
    ]);
    let column =
        select(vec!["id", "title", "details-%3Ea", "details-%3E%3Ezq%27", "directors.name", "director_id", "zq%22"]);
    let value = select(vec!["zq%27%22%3B--", "(zq%27,%22zq%27%22)", "{zq%27}", "{%22zq%5C%22%27%22}", "", "%25zq%27"]);
    let list = select(vec![
        "*",
        "id,x%22zq%27:title",
        "%22zq%27%22:id",
        "title,directors(name)",
        "...directors(name)",
        "zq%27:directors(%22zq%27%22:name)",
        "details-%3Ezq%27-%3E%3E0",
        "id::text",
        "id::zq",
        "title.max()",
    ]);
    let order = select(vec![
        "",
        "&order=title.desc.nullslast",
        "&order=details-%3E%3Ezq%27",
        "&directors.order=name",
        "&order=directors(name)",
    ]);
    let range = select(vec!["", "&limit=3", "&offset=7", "&directors.limit=1&limit=5"]);
    let logic = select(vec![
        "",
        "&or=(id.eq.1,title.eq.zq%27)",
        "&and=(title.in.(zq%27,b),not.or(id.is.null,title.fts(english).zq%27))",
        "&directors.or=(name.eq.zq%27,name.like.%22zq%27%22)",
    ]);
    (operator, column, value, list, order, range, logic).prop_map(
        |(operator, column, value, list, order, range, logic)| {
            format!("select={list}&{column}={operator}.{value}{order}{range}{logic}")
        },
    )
}

fn writes() -> impl Strategy<Value = (&'static str, &'static str)> {
    select(vec![
        ("GET", ""),
        ("GET", ""),
        ("DELETE", ""),
        ("PATCH", r#"{"title":"zq'"}"#),
        ("POST", r#"[{"title":"zq'"}]"#),
        ("PUT", r#"{"id":1,"title":"zq'"}"#),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a caller writes is a parameter, or a name between quotes.
    #[test]
    fn security_z5_no_text_of_a_caller_gets_into_a_statement(query in queries(), (method, body) in writes()) {
        let statement = statement(method, "/films", &query, body);
        prop_assume!(statement.is_some());
        let text = outside_of_names(&statement.unwrap().text);
        prop_assert!(!text.contains(MARK), "{method} {query}: {text}");
    }
}

/// The text without what stands between double quotes.
fn outside_of_names(text: &str) -> String {
    let mut inside = false;
    let outside = |&character: &char| {
        inside ^= character == '"';
        !inside && character != '"'
    };
    text.chars().filter(outside).collect()
}
