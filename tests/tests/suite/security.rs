//! Who is let in, and as whom (the checklist's S and Z rows).

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ntier_tests::node::{self, Node};
use ntier_tests::world::{agent, now};
use ntier_tests::{Backend, Who, World, on_both, until};
use serde_json::{Value, json};

on_both!(
    security_s4_a_request_without_a_key_is_refused,
    security_s5_the_secret_key_is_refused_from_browsers,
    tokens,
    jwks,
    signing_keys_are_rotated_while_a_node_runs,
    security_z1_a_new_table_is_not_exposed,
    security_z3_no_role_or_claim_leaks,
    security_z4_a_role_has_its_own_patience,
    security_z6_the_description_needs_the_secret_key,
);

#[test]
fn security_s1_secrets_are_private_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut node = Node::start("dev", &data, &["--project", &ntier_tests::directory::project().to_string_lossy()]);
    let keys = node::keys(&data);
    let mode = |name: &str| std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("keys.json"), 0o600);
    assert_eq!(mode(".s.PGSQL.5432"), 0o600);
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(node.stop().success());
    let said = node.rest();
    for name in ["secret_key", "service_role_key", "jwt_secret"] {
        let secret = keys[name].as_str().unwrap();
        assert!(!said.iter().any(|line| line.contains(secret)), "{name} was printed");
    }
}

#[test]
fn security_s2_published_secrets_are_refused() {
    for secret in ["super-secret-jwt-token-with-at-least-32-characters-long", "too short"] {
        let folder = tempfile::tempdir().unwrap();
        let said = Node::try_start("serve", folder.path(), &["--jwt-secret", secret]).unwrap_err();
        assert!(said.contains("JWT secret"), "{said}");
        assert!(Node::try_start("serve", folder.path(), &["--jwt-secret", secret, "--insecure-dev"]).is_ok());
    }
}

#[test]
fn security_s3_a_public_address_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_string_lossy().into_owned();
    let (code, _, told) = node::run(&["serve", "--data", &data, "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("trusted_proxy"), "{told}");
}

fn security_s4_a_request_without_a_key_is_refused(world: &mut World) {
    let answer = world.ask(&Who::Nobody, "GET /films").send();
    assert_eq!((answer.status, &answer.json()["message"]), (401, &json!("No API key found in request")));
    let answer = world.ask(&Who::Nobody, "GET /films").header("apikey", "sb_publishable_wrong").send();
    assert_eq!((answer.status, &answer.json()["message"]), (401, &json!("Invalid API key")));
    let bearer = format!("Bearer {}", world.token(&json!({"role": "service_role", "exp": now() + 60})));
    let answer = world.ask(&Who::Nobody, "GET /rpc/who").header("authorization", &bearer).send();
    assert_eq!(answer.status, 401, "a token is no key: {}", answer.text());
    for name in ["anon_key", "publishable_key"] {
        let answer = world.ask(&Who::Nobody, "GET /rpc/who").header("apikey", world.key(name)).send();
        assert_eq!(answer.json()["role"], "anon", "{name}");
    }
    for name in ["service_role_key", "secret_key"] {
        let answer = world.ask(&Who::Nobody, "GET /rpc/who").header("apikey", world.key(name)).send();
        assert_eq!(answer.json()["role"], "service_role", "{name}");
    }
}

#[test]
fn a_token_for_another_audience_is_refused() {
    let world = World::start_with(Backend::Server, &["--jwt-audience", "here"]);
    let ask = |claims: Value| {
        let bearer = format!("Bearer {}", world.token(&claims));
        world.ask(&Who::Anon, "GET /rpc/who").header("authorization", &bearer).send()
    };
    assert_eq!(ask(json!({"role": "authenticated", "aud": "here"})).status, 200);
    assert_eq!(ask(json!({"role": "authenticated", "aud": ["there", "here"]})).status, 200);
    assert_eq!(ask(json!({"role": "authenticated"})).status, 200);
    let refused = ask(json!({"role": "authenticated", "aud": "there"}));
    assert_eq!((refused.status, refused.code().as_str()), (401, "PGRST303"), "{}", refused.text());
}

#[test]
fn security_s4_without_the_setting_it_acts_as_anon() {
    let world = World::start_with(Backend::Server, &["--api-require-key=false"]);
    assert_eq!(world.ask(&Who::Nobody, "GET /rpc/who").send().json()["role"], "anon");
    let bearer = format!("Bearer {}", world.token(&json!({"role": "service_role", "exp": now() - 600})));
    let answer = world.ask(&Who::Nobody, "GET /rpc/who").header("authorization", &bearer).send();
    assert_eq!(answer.status, 401, "an expired token is refused, not ignored: {}", answer.text());
}

fn security_s5_the_secret_key_is_refused_from_browsers(world: &mut World) {
    for name in ["secret_key", "service_role_key"] {
        let asked = world.ask(&Who::Nobody, "GET /rpc/who").header("apikey", world.key(name));
        let answer = asked.header("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36").send();
        assert_eq!(answer.status, 401, "{name}: {}", answer.text());
    }
    let answer = world.ask(&Who::Anon, "GET /rpc/who").header("user-agent", "Mozilla/5.0").send();
    assert_eq!(answer.status, 200);
}

fn tokens(world: &mut World) {
    let (id, hour) = ("00000000-0000-4000-8000-000000000009", 3600);
    let ask =
        |token: &str| world.ask(&Who::Anon, "GET /rpc/who").header("authorization", &format!("Bearer {token}")).send();
    let good = json!({"sub": id, "role": "authenticated", "aud": "authenticated", "exp": now() + hour, "more": [1]});
    let answer = ask(&world.token(&good)).json();
    assert_eq!((&answer["role"], &answer["claims"]["more"]), (&json!("authenticated"), &json!([1])));
    // A role that the node may not become, or that is none.
    let stranger = ask(&world.token(&json!({"role": "postgres", "exp": now() + hour})));
    assert!(stranger.status == 401 || stranger.status == 403, "{} {}", stranger.status, stranger.text());
    let unknown = ask(&world.token(&json!({"role": "no\"body", "exp": now() + hour})));
    assert!(unknown.status >= 400 && unknown.status < 500, "{} {}", unknown.status, unknown.text());

    let expired = ask(&world.token(&json!({"sub": id, "role": "authenticated", "exp": now() - hour})));
    assert_eq!((expired.status, expired.code().as_str()), (401, "PGRST303"));
    assert!(expired.header("www-authenticate").unwrap().contains("invalid_token"));
    let early = ask(&world.token(&json!({"role": "authenticated", "nbf": now() + hour, "exp": now() + hour})));
    assert_eq!((early.status, early.code().as_str()), (401, "PGRST303"));

    let token = world.token(&good);
    let (head, rest) = token.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    // {"alg":"none"} and {"alg":"HS512","typ":"JWT"}
    let none = format!("eyJhbGciOiJub25lIn0.{claims}.");
    let other = format!("eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.{claims}.{signature}");
    let forged = format!("{head}.{claims}.{}", signature.chars().rev().collect::<String>());
    let long = format!("{head}.{}.{signature}", "A".repeat(10_000));
    for token in [none.as_str(), &other, &forged, &long, "not.a.token", "nonsense", "..", "é"] {
        if token.is_ascii() {
            let answer = ask(token);
            assert_eq!((answer.status, answer.code().as_str()), (401, "PGRST301"), "{token}: {}", answer.text());
        }
    }
}

/// The public keys, as anybody sees them.
fn published(url: &str) -> Vec<Value> {
    let mut answer = agent().get(&format!("{url}/auth/v1/.well-known/jwks.json")).call().unwrap();
    let keys: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    keys["keys"].as_array().unwrap().clone()
}

/// The id of the key that has signed a token.
fn key_id(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn signing_keys_are_rotated_while_a_node_runs(world: &mut World) {
    let session = |line: &str| {
        let body = json!({ "email": "ada@example.com", "password": "correct horse battery" });
        let answer = world.auth(None, line).json(&body).send();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let is_good = |token: &str| {
        let role = world.ask_as(token, "GET /rpc/who").send().json()["role"].clone();
        let user = world.auth(Some(token), "GET /user").send().status;
        assert_eq!((role, user), (json!("authenticated"), 200));
    };
    let ids = || -> Vec<String> {
        published(&world.node.url).iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let old = session("POST /signup");
    let token = |session: &Value| session["access_token"].as_str().unwrap().to_owned();
    let (first, data) = (ids(), world.data().to_string_lossy().into_owned());
    assert_eq!((first.len(), key_id(&token(&old))), (2, first[0].clone()));
    let mut before = first[0].clone();
    for (algorithm, waiting) in [("es256", Some(&first[1])), ("eddsa", None), ("rs256", None)] {
        let (code, out, told) = node::run(&["keys", "rotate", "--data", &data, "--algorithm", algorithm]);
        assert_eq!(code, Some(0), "{told}");
        until("the keys are taken", || ids()[0] != before);
        let now = ids();
        assert!(out.contains(&now[0]) && out.contains(&before), "{out}");
        assert!(waiting.is_none_or(|waiting| *waiting == now[0]), "the key in waiting signs");
        assert!(now.contains(&before) && now.contains(&first[0]), "{now:?}");
        // Published goes before signing by a moment.
        let new = "POST /token?grant_type=password";
        until("the new key signs", || key_id(&token(&session(new))) == now[0]);
        is_good(&token(&session(new)));
        is_good(&token(&old));
        before.clone_from(&now[0]);
    }
    assert!(published(&world.node.url).iter().all(|key| key.get("d").is_none()), "the private halves stay here");
    let body = json!({ "refresh_token": old["refresh_token"] });
    let fresh = world.auth(None, "POST /token?grant_type=refresh_token").json(&body).send().json();
    assert_eq!(key_id(&token(&fresh)), before, "sessions go on");
    assert_eq!(node::keys(&world.data()), world.keys, "nothing else has changed");
}

#[test]
fn signing_keys_of_a_project_are_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let supabase = folder.path().join("supabase");
    std::fs::create_dir(&supabase).unwrap();
    std::fs::write(supabase.join("config.toml"), "[auth]\nsigning_keys_path = \"./signing_keys.json\"\n").unwrap();
    // RFC 8037, A.1.
    let key = |id: &str| {
        json!({
            "kty": "OKP", "crv": "Ed25519", "kid": id, "alg": "EdDSA", "use": "sig", "key_ops": ["sign", "verify"],
            "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        })
    };
    let write = |keys: Value| std::fs::write(supabase.join("signing_keys.json"), keys.to_string()).unwrap();
    write(json!([key("theirs")]));
    let world = World::start_project(Backend::Server, folder.path());
    let ids = || -> Vec<Value> { published(&world.node.url).iter().map(|key| key["kid"].clone()).collect() };
    assert_eq!(ids(), ["theirs"]);
    assert!(published(&world.node.url)[0].get("d").is_none(), "the private half stays here");
    let body = json!({ "email": "ada@example.com", "password": "correct horse battery" });
    let session = world.auth(None, "POST /signup").json(&body).send().json();
    let token = session["access_token"].as_str().unwrap();
    assert_eq!(key_id(token), "theirs");
    let (project, data) = (folder.path().to_string_lossy(), world.data().to_string_lossy().into_owned());
    let (code, _, told) = node::run(&["keys", "rotate", "--project", &project, "--data", &data]);
    assert_eq!(code, Some(1));
    assert!(told.contains("signing_keys.json"), "{told}");
    write(json!([key("next"), key("theirs")]));
    until("the change is taken", || ids() == ["next", "theirs"]);
    assert_eq!(world.auth(Some(token), "GET /user").send().status, 200);
}

fn jwks(world: &mut World) {
    let key = &published(&world.node.url)[0];
    assert_eq!((&key["alg"], &key["kty"], &key["crv"]), (&json!("ES256"), &json!("EC"), &json!("P-256")));
    assert!(key.get("d").is_none(), "the private half stays here");
}

fn security_z1_a_new_table_is_not_exposed(world: &mut World) {
    world.sql("create table fresh (id int); insert into fresh values (1)");
    world.reload();
    for who in [Who::Anon, Who::user(1), Who::Service] {
        let answer = world.ask(&who, "GET /fresh").send();
        assert_eq!(answer.code(), "42501", "{who:?}: {}", answer.text());
    }
    world.sql("grant select on fresh to anon");
    assert_eq!(world.get("/fresh").json(), json!([{"id": 1}]));
}

/// 10,000 requests of mixed roles over shared connections, some of which fail midway.
fn security_z3_no_role_or_claim_leaks(world: &mut World) {
    const REQUESTS: u32 = 10_000;
    let next = AtomicU32::new(0);
    let world = &*world;
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let agent = agent();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= REQUESTS {
                        return;
                    }
                    let who = match number % 4 {
                        0 => Who::Anon,
                        1 => Who::Service,
                        _ => Who::user(number % 50),
                    };
                    let line = if number.is_multiple_of(7) { "GET /rpc/fail?code=P0001" } else { "GET /rpc/who" };
                    let answer = world.ask(&who, line).through(&agent).unwrap();
                    if number.is_multiple_of(7) {
                        assert_eq!(answer.code(), "P0001");
                        continue;
                    }
                    let told = answer.json();
                    let (role, sub) = match &who {
                        Who::User(id) => ("authenticated", json!(id)),
                        Who::Service => ("service_role", Value::Null),
                        _ => ("anon", Value::Null),
                    };
                    assert_eq!((&told["role"], &told["claims"]["sub"]), (&json!(role), &sub), "{number} {told}");
                }
            });
        }
    });
    // And nothing stays behind on the connections.
    let left: HashSet<String> = (0..20).map(|_| world.get("/rpc/who").json()["role"].to_string()).collect();
    assert_eq!(left, HashSet::from(["\"anon\"".to_owned()]));
}

fn security_z4_a_role_has_its_own_patience(world: &mut World) {
    world.set_role("anon", "set statement_timeout = '700ms'");
    world.reload();
    let answer = world.get("/rpc/forever");
    assert!(answer.status == 500 || answer.status == 504, "{} {}", answer.status, answer.text());
    assert_eq!(answer.code(), "57014");
    assert_eq!(world.get("/films?select=id&id=eq.1").json(), json!([{"id": 1}]), "and life goes on");
}

fn security_z6_the_description_needs_the_secret_key(world: &mut World) {
    let answer = world.get("/");
    assert!(answer.status == 401 || answer.status == 403, "{} {}", answer.status, answer.text());
    let described = world.ask(&Who::Service, "GET /").send().json();
    assert!(described["paths"]["/films"].is_object());
    assert!(!described.to_string().contains("/secrets"), "what is not granted is not described");
}
