//! Functions: arguments, results, errors, and what may be called how.

use ntier_tests::{Who, World, on_both};
use serde_json::{Value, json};

on_both!(calls, results, errors);

fn calls(world: &mut World) {
    let post = |name: &str, body: Value| world.ask(&Who::Anon, &format!("POST /rpc/{name}")).json(&body).send();
    assert_eq!(post("add", json!({"a": 1, "b": 2})).json(), json!(3));
    assert_eq!(post("add", json!({"a": 1})).json(), json!(2), "the default");
    assert_eq!(world.get("/rpc/add?a=20&b=22").json(), json!(42));
    assert_eq!(post("total", json!({"numbers": [1, 2, 3]})).json(), json!(6));
    assert_eq!(world.get("/rpc/total?numbers={1,2,3}").json(), json!(6));
    assert_eq!(world.get("/rpc/sum_of?numbers=1&numbers=2&numbers=39").json(), json!(42));
    assert_eq!(post("echo", json!({"any": ["thing"]})).json(), json!({"any": ["thing"]}));
    let head = world.ask(&Who::Anon, "HEAD /rpc/add?a=1").send();
    assert_eq!((head.status, head.body.len()), (200, 0));
    // What only reads may be asked for by GET, what writes may not.
    let wrote = world.ask(&Who::user(1), "GET /rpc/remember?body=x").send();
    assert_eq!((wrote.status, wrote.code().as_str()), (405, "25006"));
    let wrote = world.ask(&Who::user(1), "POST /rpc/remember").json(&json!({"body": "x"})).send();
    assert_eq!(wrote.status, 200, "{}", wrote.text());
}

fn results(world: &mut World) {
    let films = world.get("/rpc/films_since?since=1979&select=title&order=year.desc&limit=2");
    assert_eq!(films.json(), json!([{"title": "Running \"Wild\", (again)"}, {"title": "Blade Runner"}]));
    let embedded = world.get("/rpc/films_since?since=1982&select=title,directors(name)&directors=not.is.null");
    assert_eq!(embedded.json(), json!([{"title": "Blade Runner", "directors": {"name": "Ridley Scott"}}]));
    let one = world.get("/rpc/the_film?wanted=2&select=title");
    assert_eq!(one.json(), json!({"title": "M"}));
    let counted = world.ask(&Who::Anon, "GET /rpc/films_since?since=1900&limit=2").prefer("count=exact").send();
    assert_eq!((counted.status, counted.header("content-range")), (206, Some("0-1/5")));
    let void = world.ask(&Who::user(1), "POST /rpc/forget").json(&json!({"wanted": 1})).send();
    assert_eq!((void.status, void.text().as_str()), (204, ""));
    let csv = world.ask(&Who::Anon, "GET /rpc/films_since?since=1982&select=id").header("accept", "text/csv").send();
    assert_eq!(csv.text(), "id\n3\n5");
}

fn errors(world: &mut World) {
    let cases = [
        ("GET /rpc/nothing", 404, "PGRST202"),
        ("GET /rpc/add?c=1", 404, "PGRST202"),
        ("GET /rpc/add?a=x", 400, "22P02"),
        ("GET /rpc/add?a=2147483647&b=1", 400, "22003"),
        ("POST /rpc/fail?", 404, "PGRST202"),
        ("GET /rpc/fail?code=P0001", 400, "P0001"),
        ("GET /rpc/fail?code=PT418", 418, "PT418"),
        ("GET /rpc/fail?code=23505", 409, "23505"),
        ("GET /rpc/fail?code=53400", 500, "53400"),
        ("GET /rpc/post?entry=a", 401, "42501"),
        ("PATCH /rpc/add", 405, "PGRST101"),
    ];
    for (line, status, code) in cases {
        let answer = world.ask(&Who::Anon, line).send();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{line}: {}", answer.text());
    }
    let told = world.get("/rpc/fail?code=P0001").json();
    assert_eq!(told, json!({"code": "P0001", "details": "details", "hint": "a hint", "message": "as you wish"}));
    let near = world.get("/rpc/films_sinc?since=1").json();
    assert!(near["hint"].as_str().unwrap().contains("films_since"), "{near}");
}
