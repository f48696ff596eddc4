//! Writing: insert, upsert, update, delete, and what comes back.

use ntier_tests::{Answer, Who, World, on_both};
use serde_json::{Value, json};

on_both!(insert, upsert, update, delete, policies, preferences, bodies, both_ways_of_an_insert_agree);

fn insert(world: &mut World) {
    let user = Who::user(1);
    let one = world.ask(&user, "POST /films").json(&json!({"title": "Solaris", "year": 1972})).send();
    assert_eq!((one.status, one.text().as_str()), (201, ""));
    let returned = world
        .ask(&user, "POST /films?select=title,tags")
        .prefer("return=representation")
        .json(&json!({"title": "Stalker", "year": 1979, "tags": ["zone"], "details": {"a": [1, {"b": null}]}}))
        .send();
    assert_eq!((returned.status, returned.json()), (201, json!([{"title": "Stalker", "tags": ["zone"]}])));
    let headers = world
        .ask(&user, "POST /films")
        .prefer("return=headers-only")
        .json(&json!({"id": 500, "title": "Mirror", "year": 1975}))
        .send();
    assert_eq!((headers.status, headers.header("location")), (201, Some("/films?id=eq.500")));
    let many = json!([{"title": "A", "year": 2000}, {"title": "B", "year": 2001}]);
    let many = world.ask(&user, "POST /films?select=title").prefer("return=representation").json(&many).send();
    assert_eq!(many.json(), json!([{"title": "A"}, {"title": "B"}]));
    let chosen = world
        .ask(&user, "POST /films?columns=title,year&select=title,rating")
        .prefer("return=representation")
        .json(&json!([{"title": "C", "year": 1999, "rating": 9.9, "nonsense": 1}]))
        .send();
    assert_eq!(chosen.json(), json!([{"title": "C", "rating": null}]));
    let missing = world
        .ask(&user, "POST /notes?columns=body,position&select=body,position")
        .prefer("return=representation, missing=default")
        .json(&json!([{"body": "with"}, {"body": "without", "position": 1}]))
        .send();
    assert_eq!(missing.json(), json!([{"body": "with", "position": 7}, {"body": "without", "position": 1}]));
    let embedded = world
        .ask(&user, "POST /films?select=title,directors(name)")
        .prefer("return=representation")
        .json(&json!({"title": "Spies", "year": 1928, "director_id": 1}))
        .send();
    assert_eq!(embedded.json(), json!([{"title": "Spies", "directors": {"name": "Fritz Lang"}}]));
}

fn upsert(world: &mut World) {
    let user = Who::user(1);
    let put = |prefer: &str, path: &str, body: Value| world.ask(&user, path).prefer(prefer).json(&body).send();
    let merged = put(
        "resolution=merge-duplicates, return=representation",
        "POST /films?select=id,title,year",
        json!([{"id": 1, "title": "Metropolis (restored)", "year": 1927}, {"id": 900, "title": "New", "year": 2020}]),
    );
    assert_eq!(merged.status, 201, "{}", merged.text());
    assert_eq!(merged.json().as_array().unwrap().len(), 2);
    let ignored = put(
        "resolution=ignore-duplicates, return=representation",
        "POST /actors?on_conflict=name&select=name",
        json!([{"name": "Peter Lorre"}, {"name": "Klaus Kinski"}]),
    );
    assert_eq!(ignored.json(), json!([{"name": "Klaus Kinski"}]));
    let conflict = put("return=minimal", "POST /actors", json!({"name": "Peter Lorre"}));
    assert_eq!((conflict.status, conflict.code().as_str()), (409, "23505"));
    let single = world
        .ask(&user, "PUT /films?id=eq.4")
        .prefer("return=representation")
        .json(&json!({"id": 4, "title": "Alien (cut)", "year": 2003}))
        .send();
    assert_eq!((single.status, &single.json()[0]["title"]), (200, &json!("Alien (cut)")));
}

fn update(world: &mut World) {
    let user = Who::user(1);
    let patch = |path: &str, body: Value| world.ask(&user, path).prefer("return=representation").json(&body).send();
    let changed = patch("PATCH /films?id=eq.2&select=title,rating", json!({"rating": 9}));
    assert_eq!((changed.status, changed.json()), (200, json!([{"title": "M", "rating": 9.0}])));
    assert_eq!(patch("PATCH /films?id=eq.77777", json!({"rating": 1})).json(), json!([]));
    let minimal = world.ask(&user, "PATCH /films?id=eq.2").json(&json!({"rating": 8})).send();
    assert_eq!((minimal.status, minimal.text().as_str()), (204, ""));
    let wrong = patch("PATCH /films?id=eq.2", json!({"rating": "high"}));
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "22P02"));
    let broken = patch("PATCH /films?id=eq.2", json!({"year": 5}));
    assert_eq!((broken.status, broken.code().as_str()), (400, "23514"));
    let unknown = patch("PATCH /films?id=eq.2", json!({"nope": 5}));
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "PGRST204"));
}

fn delete(world: &mut World) {
    let user = Who::user(1);
    let gone = world.ask(&user, "DELETE /films?id=eq.5&select=id").prefer("return=representation").send();
    assert_eq!((gone.status, gone.json()), (200, json!([{"id": 5}])));
    let counted = world.ask(&user, "DELETE /films?id=eq.5").prefer("count=exact").send();
    assert_eq!((counted.status, counted.header("content-range")), (204, Some("*/0")));
    let forbidden = world.ask(&Who::Anon, "DELETE /films?id=eq.1").send();
    assert_eq!((forbidden.status, forbidden.code().as_str()), (401, "42501"));
    assert_eq!(world.get("/films?id=eq.1&select=id").json(), json!([{"id": 1}]));
}

fn policies(world: &mut World) {
    let (one, other) = (Who::user(1), Who::user(2));
    for who in [&one, &other] {
        let written = world.ask(who, "POST /notes").json(&json!({"body": "mine"})).send();
        assert_eq!(written.status, 201, "{}", written.text());
    }
    let bodies = |who: &Who| world.ask(who, "GET /notes?select=owner").send().json();
    assert_eq!(bodies(&one), json!([{"owner": "00000000-0000-4000-8000-000000000001"}]));
    assert_eq!(bodies(&other), json!([{"owner": "00000000-0000-4000-8000-000000000002"}]));
    assert_eq!(world.ask(&Who::Service, "GET /notes?select=id").send().json().as_array().unwrap().len(), 2);
    assert_eq!(world.get("/notes").status, 401);
    let stolen = world
        .ask(&one, "POST /notes")
        .json(&json!({"body": "theirs", "owner": "00000000-0000-4000-8000-000000000002"}))
        .send();
    assert_eq!((stolen.status, stolen.code().as_str()), (403, "42501"));
    let changed = world.ask(&one, "PATCH /notes?id=gt.0&select=owner").prefer("return=representation");
    assert_eq!(changed.json(&json!({"body": "changed"})).send().json().as_array().unwrap().len(), 1);
    assert_eq!(world.ask(&one, "DELETE /notes").prefer("count=exact").send().header("content-range"), Some("*/1"));
    assert_eq!(bodies(&other).as_array().unwrap().len(), 1);
}

fn preferences(world: &mut World) {
    let user = Who::user(1);
    let ask = |prefer: &str| -> Answer {
        world.ask(&user, "PATCH /films?id=lt.4").prefer(prefer).json(&json!({"rating": 1})).send()
    };
    let strict = ask("handling=strict, nonsense=1");
    assert_eq!((strict.status, strict.code().as_str()), (400, "PGRST122"));
    assert_eq!(ask("nonsense=1").status, 204);
    let limited = ask("handling=strict, max-affected=2");
    assert_eq!((limited.status, limited.code().as_str()), (400, "PGRST124"));
    assert_eq!(world.get("/films?rating=eq.1&select=count").json(), json!([{"count": 3}]), "the one before it");
    assert_eq!(ask("handling=strict, max-affected=3").status, 204);
    let applied = ask("return=minimal, count=exact, whatever=no");
    assert_eq!(applied.header("preference-applied"), Some("return=minimal, count=exact"));
}

fn bodies(world: &mut World) {
    let post = |media_type: &str, body: &str| world.ask(&Who::user(1), "POST /actors").body(media_type, body).send();
    for (media_type, body, status, code) in [
        ("application/json", "{\"name\": \"One\"}", 201, ""),
        ("application/json; charset=utf-8", "[{\"name\": \"Two\"}]", 201, ""),
        ("text/csv", "name\nThree\n\"Four, five\"\n", 201, ""),
        ("application/x-www-form-urlencoded", "name=Six+and%20seven", 201, ""),
        ("application/json", "{\"name\": ", 400, "PGRST102"),
        ("application/json", "\"text\"", 201, ""),
        ("application/json", "[]", 201, ""),
        ("application/json", "[{\"name\": \"Eight\"}, {\"id\": 1}]", 400, "PGRST102"),
        ("application/json", "{\"name\": \"nul \\u0000\"}", 400, "22P05"),
        ("application/json", "", 400, "PGRST102"),
        ("application/xml", "<name/>", 400, "PGRST102"),
    ] {
        let answer = post(media_type, body);
        let said = if answer.body.is_empty() { String::new() } else { answer.code() };
        assert_eq!((answer.status, said.as_str()), (status, code), "{media_type} {body}: {}", answer.text());
    }
    let names = world.get("/actors?id=gt.100&select=name&order=id").json();
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["One", "Two", "Three", "Four, five", "Six and seven"]);
}

/// Where nothing is read back, the values of a plain object go to PostgreSQL as parameters; otherwise PostgreSQL takes the JSON apart.
fn both_ways_of_an_insert_agree(world: &mut World) {
    let user = Who::user(1);
    for body in [
        r#"{"title": "a\u00e4\"\n", "year": 1999}"#,
        r#"[{"title": 12.50, "year": "1999", "rating": 9.96}]"#,
        r#"{"title": true, "year": 1999.0}"#,
        r#"{"title": "x", "year": 1e400}"#,
        r#"{"title": "x", "year": 1800}"#,
        r#"{"title": null, "year": 1999}"#,
        r#"{"title": "x"}"#,
        r#"{"title": "x", "year": 1999, "details": {"b": 1, "a": [1, 2.0, null, "\u00e4"]}}"#,
        r#"{"title": "x", "year": 1999, "details": "text"}"#,
        r#"{"title": "x", "year": 1999, "details": null}"#,
        r#"{"title": "x", "year": 1999, "tags": "{a,b}"}"#,
        r#"{"title": "x", "year": 1999, "tags": ["a", "b,c"]}"#,
        r#"{"title": "x", "year": 1999, "tags": 7}"#,
        r#"{"title": ["x"], "year": 1999}"#,
        r#"{"title": "x", "title": "y", "year": 1999}"#,
        r#"{"title": "x", "year": 1999, "released": "2026-11-21", "shown": "[1,5)"}"#,
        r#"{"title": "x", "year": 1999, "released": "soon"}"#,
        r#"{"title": "x", "year": 1999, "search": "y"}"#,
        r#"{"title": "x", "year": 1999, "nonsense": 1}"#,
        r#"{"title": "nul \u0000", "year": 1999}"#,
        r#"{"title": "half \ud800", "year": 1999}"#,
    ] {
        let insert = |prefer: &str| {
            let answer = world
                .ask(&user, "POST /films")
                .prefer(prefer)
                .body("application/json", body.as_bytes().to_vec())
                .send();
            let rows = world.get("/films?id=gt.100&select=title,year,tags,details,rating,released,shown").json();
            world.sql("delete from films where id > 100");
            // The row that a check refuses is shown with its number, which is another one each time.
            let said = if answer.body.is_empty() { Value::Null } else { answer.json() };
            (answer.status, said["code"].clone(), said["message"].clone(), said["hint"].clone(), rows)
        };
        assert_eq!(insert("return=minimal"), insert("return=headers-only"), "{body}");
    }
}
