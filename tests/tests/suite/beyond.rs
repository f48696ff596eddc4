//! What PostgREST has not: batches, updates of many rows with different values, and writes that may be sent again.

use std::sync::Barrier;

use ntier_tests::{Answer, Ask, Who, World, on_both};
use serde_json::{Value, json};

on_both!(
    update_by_key,
    batch,
    batch_is_all_or_nothing,
    batch_has_limits,
    a_key_has_one_effect,
    a_key_is_its_callers,
    many_send_the_same_key,
    a_batch_with_a_key,
);

const BATCH: &str = "application/vnd.ntier.batch+json";

fn update_by_key(world: &mut World) {
    let user = Who::user(1);
    let patch = |path: &str, prefer: &str, body: Value| world.ask(&user, path).prefer(prefer).json(&body).send();
    let rows = json!([{ "id": 1, "rating": 1.5 }, { "id": 2, "rating": 2.5 }, { "id": 99999, "rating": 3 }]);
    let changed = patch("PATCH /films?by=id&select=id,rating&order=id", "return=representation", rows.clone());
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(changed.json(), json!([{ "id": 1, "rating": 1.5 }, { "id": 2, "rating": 2.5 }]));
    // Filters choose among the rows, and limits count them.
    let filtered = patch("PATCH /films?by=id&id=gt.1&select=id", "return=representation", rows.clone());
    assert_eq!(filtered.json(), json!([{ "id": 2 }]));
    let limited = patch("PATCH /films?by=id", "handling=strict, max-affected=1", rows);
    assert_eq!((limited.status, limited.code().as_str()), (400, "PGRST124"));
    let twice =
        patch("PATCH /films?by=id", "return=minimal", json!([{ "id": 1, "rating": 1 }, { "id": 1, "rating": 2 }]));
    assert_eq!((twice.status, twice.code().as_str()), (400, "NTIER102"));
    let without = patch("PATCH /films?by=id", "return=minimal", json!([{ "rating": 1 }]));
    assert_eq!((without.status, without.code().as_str()), (400, "NTIER101"));
    let unknown = patch("PATCH /films?by=nothing", "return=minimal", json!([{ "nothing": 1 }]));
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "PGRST204"));
    let nothing = patch("PATCH /films?by=id&select=id", "return=representation", json!([{ "id": 1 }]));
    assert_eq!((nothing.status, nothing.json()), (200, json!([])), "there is nothing to set");
    // Only an update has it, and a filter on a column of that name is a filter.
    assert_eq!(world.get("/films?by=id").code(), "PGRST100");
    assert_eq!(patch("PATCH /films?by=eq.1", "return=minimal", json!({ "rating": 1 })).code(), "42703");
    // Policies decide as ever.
    let note = |who: &Who, body: &str| {
        let sent = world
            .ask(who, "POST /notes?select=id")
            .prefer("return=representation")
            .json(&json!({ "body": body }))
            .send();
        sent.json()[0]["id"].clone()
    };
    let (mine, other) = (note(&user, "mine"), note(&Who::user(2), "other"));
    let rows = json!([{ "id": mine, "body": "a" }, { "id": other, "body": "b" }]);
    assert_eq!(patch("PATCH /notes?by=id&select=body", "return=representation", rows).json(), json!([{ "body": "a" }]));
}

fn send(world: &World, who: &Who, operations: &Value) -> Answer {
    ask(world, who, operations).send()
}

fn ask<'a>(world: &'a World, who: &Who, operations: &Value) -> Ask<'a> {
    world.ask(who, "POST /").body(BATCH, json!({ "operations": operations }).to_string())
}

fn batch(world: &mut World) {
    let represent = json!({ "Prefer": "return=representation" });
    let answer = send(
        world,
        &Who::user(1),
        &json!([
            { "method": "POST", "path": "/films?select=id,title", "headers": represent,
              "body": { "id": 700, "title": "Batch", "year": 2001 } },
            { "method": "POST", "path": "/films?on_conflict=id", "headers": { "Prefer": "resolution=merge-duplicates" },
              "body": { "id": 700, "title": "Batch 2", "year": 2002 } },
            { "method": "GET", "path": "/films?id=eq.700&select=title,year" },
            { "method": "PATCH", "path": "/films?id=eq.700", "body": { "rating": 5 } },
            { "method": "GET", "path": "/films?id=eq.700&select=title,rating",
              "headers": { "Accept": "application/vnd.pgrst.object+json" } },
            { "method": "POST", "path": "/rpc/add", "body": { "a": 1, "b": 2 } },
            { "method": "GET", "path": "/films?id=eq.700&select=title", "headers": { "Accept": "text/csv" } },
            { "method": "DELETE", "path": "/films?id=eq.700", "headers": { "Prefer": "count=exact" } },
            { "method": "HEAD", "path": "/films?id=eq.700" },
        ]),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results = answer.json()["results"].clone();
    let said = |index: usize| (results[index]["status"].as_u64().unwrap(), results[index]["body"].clone());
    assert_eq!(said(0), (201, json!([{ "id": 700, "title": "Batch" }])));
    assert_eq!(said(1), (200, Value::Null), "it was there already");
    assert_eq!(said(2), (200, json!([{ "title": "Batch 2", "year": 2002 }])));
    assert_eq!(said(3), (204, Value::Null));
    assert_eq!(said(4), (200, json!({ "title": "Batch 2", "rating": 5.0 })));
    assert_eq!(said(5), (200, json!(3)));
    assert_eq!(said(6), (200, json!("title\n\"Batch 2\"")));
    assert_eq!(said(7), (204, Value::Null));
    assert_eq!(results[7]["headers"]["content-range"], "*/1");
    assert_eq!(said(8), (200, Value::Null));
    // The caller of the batch is the caller of each.
    let who = send(world, &Who::user(3), &json!([{ "method": "GET", "path": "/rpc/who" }])).json();
    assert_eq!(who["results"][0]["body"]["role"], "authenticated");
    assert_eq!(send(world, &Who::Anon, &json!([])).json(), json!({ "results": [] }));
}

fn batch_is_all_or_nothing(world: &mut World) {
    let user = Who::user(1);
    let insert = json!({ "method": "POST", "path": "/films", "body": { "id": 701, "title": "Gone", "year": 2001 } });
    let object = json!({ "Accept": "application/vnd.pgrst.object+json" });
    for (failing, status, code) in [
        (json!({ "method": "POST", "path": "/films", "body": { "title": "Old", "year": 1 } }), 400, "23514"),
        (json!({ "method": "GET", "path": "/films?id=gt.0", "headers": object }), 406, "PGRST116"),
        (json!({ "method": "GET", "path": "/nothing" }), 404, "PGRST205"),
        (json!({ "method": "GET", "path": "/films?year=nope.1" }), 400, "PGRST100"),
        (json!({ "method": "POST", "path": "/rpc/fail", "body": { "code": "PT418" } }), 418, "PT418"),
        (json!({ "method": "POST", "path": "/directors", "body": { "name": "x" } }), 403, "42501"),
    ] {
        let answer = send(world, &user, &json!([insert, failing, insert]));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{failing}");
        assert_eq!(answer.json()["operation"], 1, "{failing}");
        assert_eq!(world.get("/films?id=eq.701").json(), json!([]), "{failing}");
    }
}

fn batch_has_limits(world: &mut World) {
    let one = json!({ "method": "GET", "path": "/films?id=eq.1&select=id" });
    let many = send(world, &Who::Anon, &json!(vec![one.clone(); 100]));
    assert_eq!((many.status, many.json()["results"].as_array().unwrap().len()), (200, 100));
    let more = send(world, &Who::Anon, &json!(vec![one; 101]));
    assert_eq!((more.status, more.code().as_str()), (413, "NTIER106"));
    for body in
        ["", "{", "[]", r#"{"operations":1}"#, r#"{"operations":[{"method":"GET"}]}"#, r#"{"operations":[],"x":1}"#]
    {
        let answer = world.ask(&Who::Anon, "POST /").body(BATCH, body).send();
        assert_eq!((answer.status, answer.code().as_str()), (400, "NTIER105"), "{body}");
    }
    for operation in [
        json!({ "method": "GET", "path": "films" }),
        json!({ "method": "GET", "path": "//films@x/" }),
        json!({ "method": "G ET", "path": "/films" }),
        json!({ "method": "GET", "path": "/films", "headers": { "a\n": "b" } }),
    ] {
        let answer = send(world, &Who::Anon, &json!([operation]));
        assert!((400..500).contains(&answer.status), "{operation}: {}", answer.text());
    }
    for operation in [json!({ "method": "OPTIONS", "path": "/films" }), json!({ "method": "GET", "path": "/" })] {
        assert_eq!(send(world, &Who::Anon, &json!([operation])).code(), "NTIER107", "{operation}");
    }
    // Without the media type the root is what it was.
    assert_eq!(world.ask(&Who::Anon, "POST /").json(&json!({})).send().status, 405);
}

fn a_key_has_one_effect(world: &mut World) {
    let user = Who::user(1);
    let insert = |key: &str, body: &str| {
        world
            .ask(&user, "POST /notes?select=id,body")
            .header("idempotency-key", key)
            .prefer("return=representation")
            .json(&json!({ "body": body }))
            .send()
    };
    let (first, second) = (insert("\"k1\"", "once"), insert("\"k1\"", "once"));
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{}", first.text());
    assert_eq!((second.status, second.header("idempotency-replayed")), (201, Some("true")), "{}", second.text());
    assert_eq!(first.text(), second.text());
    assert_eq!(first.header("content-range"), second.header("content-range"));
    let count =
        |body: &str| world.ask(&user, &format!("GET /notes?body=eq.{body}")).send().json().as_array().unwrap().len();
    assert_eq!(count("once"), 1);
    let other = insert("\"k1\"", "something else");
    assert_eq!((other.status, other.code().as_str()), (422, "NTIER104"));
    assert_eq!(insert("", "x").code(), "NTIER103");
    // What failed may be tried again.
    let fails = |id: &str| {
        world
            .ask(&user, &format!("POST /films?id=eq.{id}"))
            .header("idempotency-key", "k2")
            .json(&json!({ "year": 3 }))
            .send()
    };
    assert_eq!((fails("1").status, fails("1").status), (400, 400));
    // Functions, updates, deletes, and an answer of headers.
    let call =
        || world.ask(&user, "POST /rpc/remember").header("idempotency-key", "k3").json(&json!({ "body": "r" })).send();
    assert_eq!(call().text(), call().text());
    assert_eq!(count("r"), 1);
    let located = || {
        let asked = world.ask(&user, "POST /films").header("idempotency-key", "k4").prefer("return=headers-only");
        asked.json(&json!({ "title": "Located", "year": 2000 })).send()
    };
    let (first, second) = (located(), located());
    assert_eq!((second.status, second.header("idempotency-replayed")), (201, Some("true")));
    assert!(first.header("location").is_some());
    assert_eq!(first.header("location"), second.header("location"));
    let delete =
        || world.ask(&user, "DELETE /notes?body=eq.r").header("idempotency-key", "k5").prefer("count=exact").send();
    let (first, second) = (delete(), delete());
    assert_eq!((first.header("content-range"), second.header("content-range")), (Some("*/1"), Some("*/1")));
}

fn a_key_is_its_callers(world: &mut World) {
    let insert = |who: &Who, body: &str| {
        world.ask(who, "POST /notes").header("idempotency-key", "mine").json(&json!({ "body": body })).send()
    };
    assert_eq!(insert(&Who::user(1), "a").status, 201);
    let other = insert(&Who::user(2), "b");
    assert_eq!((other.status, other.header("idempotency-replayed")), (201, None));
    // Nobody reads what is kept.
    assert_eq!(world.ask(&Who::Service, "GET /idempotency_keys").send().status, 404);
}

fn many_send_the_same_key(world: &mut World) {
    let world = &*world;
    let barrier = Barrier::new(8);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let send = || {
            barrier.wait();
            let asked = world.ask(&Who::user(1), "POST /notes?select=id").header("idempotency-key", "same");
            asked.prefer("return=representation").json(&json!({ "body": "many" })).send()
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(send)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.text() == answers[0].text()));
    let new = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_none()).count();
    assert_eq!(new, 1);
}

fn a_batch_with_a_key(world: &mut World) {
    let operations = json!([
        { "method": "POST", "path": "/notes?select=id,body", "headers": { "Prefer": "return=representation" },
          "body": { "body": "kept" } },
        { "method": "GET", "path": "/notes?body=eq.kept&select=body" },
        { "method": "POST", "path": "/rpc/add", "body": { "a": 4 } },
    ]);
    let send = || ask(world, &Who::user(5), &operations).header("idempotency-key", "batch").send();
    let (first, second) = (send(), send());
    assert_eq!((first.status, first.text()), (200, second.text()));
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    let results = first.json()["results"].clone();
    assert_eq!((&results[1]["body"], &results[2]["body"]), (&json!([{ "body": "kept" }]), &json!(5)));
    let failing = json!([operations[0], { "method": "GET", "path": "/films?id=gt.0",
        "headers": { "Accept": "application/vnd.pgrst.object+json" } }]);
    let failed = ask(world, &Who::user(5), &failing).header("idempotency-key", "other").send();
    assert_eq!((failed.status, &failed.json()["operation"]), (406, &json!(1)));
}
