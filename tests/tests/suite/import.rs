//! Users of a Supabase project go on here: their dump is restored, as docs/how-to/supabase-users.md says.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ntier_tests::{Answer, World, directory, on_both, world};
use serde_json::{Value, json};

on_both!(
    users_keep_what_they_have,
    passwords_are_kept_as_ours_from_the_first_sign_in_on,
    second_factors_go_on,
    sessions_go_on,
    security_t3_old_refresh_tokens,
    security_t3_signed_refresh_tokens,
    security_t3_parallel_exchanges_give_one_token,
);

const USERS: [(&str, &str); 4] = [
    ("ada@example.com", "correct horse battery"),
    ("bob@example.com", "correct horse staple"),
    ("carol@example.com", "password"),
    ("dave@example.com", "mytestpassword"),
];

/// Restores the dump.
fn restore(world: &World) {
    let mut psql = Command::new("psql");
    match &world.database_url {
        Some(url) => psql.args(["-d", url]),
        None => psql.arg("-h").arg(world.data()).args(["-U", "postgres", "-d", "postgres"]),
    };
    psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-1", "-c", "set session_replication_role = replica", "-f"]);
    let output = psql.arg(directory::repository().join("tests/fixtures/supabase_users.sql")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn post(world: &World, path: &str, body: &Value) -> Answer {
    world.auth(None, &format!("POST {path}")).json(body).send()
}

fn sign_in(world: &World, email: &str, password: &str) -> Answer {
    post(world, "/token?grant_type=password", &json!({ "email": email, "password": password }))
}

fn refresh(world: &World, token: &str) -> Answer {
    post(world, "/token?grant_type=refresh_token", &json!({ "refresh_token": token }))
}

fn refused(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error_code"].as_str().unwrap_or_default().to_owned())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name}: {value}"))
}

fn claims(session: &Value) -> Value {
    let part = text(session, "access_token").split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// A refresh token as GoTrue's newer kind is: session, number, signature, checksum.
fn signed(session: &str, counter: u8, key: &[u8]) -> String {
    use aws_lc_rs::{digest, hmac};
    let id = session.replace('-', "");
    let id = (0..16).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap());
    let mut bytes: Vec<u8> = std::iter::once(0).chain(id).chain([counter]).collect();
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &bytes);
    bytes.extend(&signature.as_ref()[..16]);
    let checksum = digest::digest(&digest::SHA256, &bytes);
    bytes.extend(&checksum.as_ref()[..4]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// They go on under the rules of ours: the number that counts, the one before it, and no other.
fn security_t3_signed_refresh_tokens(world: &mut World) {
    restore(world);
    let (id, key) = ("5d000000-0000-4000-8000-00000000000d", [7; 32]);
    let encoded = URL_SAFE_NO_PAD.encode(key);
    world.sql(&format!(
        "update auth.sessions set refresh_token_hmac_key = '{encoded}', refresh_token_counter = 3 where id = '{id}'"
    ));
    assert_eq!(
        refused(&refresh(world, &signed(id, 3, &[8; 32]))),
        (400, "refresh_token_not_found".into()),
        "another key"
    );
    let first = session(&refresh(world, &signed(id, 3, &key)));
    assert_eq!(claims(&first)["session_id"], json!(id));
    let second = session(&refresh(world, text(&first, "refresh_token")));
    a_minute_passes(world);
    assert_eq!(refused(&refresh(world, &signed(id, 3, &key))), (400, "refresh_token_already_used".into()), "theft");
    assert_eq!(refresh(world, text(&second, "refresh_token")).status, 400, "the session has ended");
}

/// Whoever signs in with it.
fn session(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn a_minute_passes(world: &World) {
    world.sql(
        "update auth.refresh_tokens set updated_at = updated_at - interval '1 minute'; \
         update auth.sessions set refreshed_at = refreshed_at - interval '1 minute'",
    );
}

fn users_keep_what_they_have(world: &mut World) {
    restore(world);
    let ada = session(&sign_in(world, "ada@example.com", "correct horse battery"));
    let user = world.auth(Some(text(&ada, "access_token")), "GET /user").send().json();
    assert_eq!((text(&user, "id"), text(&user, "role")), ("a0000000-0000-4000-8000-00000000000a", "authenticated"));
    assert_eq!(user["app_metadata"], json!({ "provider": "email", "providers": ["email", "github"] }));
    assert_eq!((text(&user["user_metadata"], "nickname"), text(&user, "email")), ("ada", "ada@example.com"));
    assert_eq!(text(&user, "email_confirmed_at"), "2026-03-02T09:15:11.204117Z");
    assert_eq!(text(&user, "created_at"), "2026-03-02T09:14:30.114214Z");
    let providers: Vec<&str> =
        user["identities"].as_array().unwrap().iter().map(|identity| text(identity, "provider")).collect();
    assert_eq!(providers, ["email", "github"]);
    let by_phone = json!({ "phone": "+49 30 123456", "password": "mytestpassword" });
    let dave = session(&post(world, "/token?grant_type=password", &by_phone));
    assert_eq!(text(&dave["user"], "email"), "dave@example.com");
    // The rows that a trigger made for each user come with the project's own data.
    assert_eq!(world.sql("select id from profiles"), json!([]));
    // New tokens do not meet the old ones' numbers.
    assert_eq!(world.sql("select last_value::int from auth.refresh_tokens_id_seq"), json!([{ "last_value": 106 }]));
}

fn passwords_are_kept_as_ours_from_the_first_sign_in_on(world: &mut World) {
    restore(world);
    let kept = |email: &str| {
        let rows = world.sql(&format!("select encrypted_password from auth.users where email = '{email}'"));
        text(&rows[0], "encrypted_password").to_owned()
    };
    for (email, password) in USERS {
        let before = kept(email);
        assert_eq!(
            refused(&sign_in(world, email, &format!("{password}!"))),
            (400, "invalid_credentials".into()),
            "{email}"
        );
        assert_eq!(kept(email), before, "{email}");
        session(&sign_in(world, email, password));
        let after = kept(email);
        // Ada's was of full strength.
        let is_ours = if before.starts_with("$2a$10$") { after == before } else { after.starts_with("$2b$10$") };
        assert!(is_ours, "{email}: {before} became {after}");
        session(&sign_in(world, email, password));
        assert_eq!(kept(email), after, "{email}");
        assert_eq!(sign_in(world, email, &format!("{password}!")).status, 400, "{email}");
    }
}

fn second_factors_go_on(world: &mut World) {
    restore(world);
    let bob = session(&sign_in(world, "bob@example.com", "correct horse staple"));
    let factor = &bob["user"]["factors"][0];
    assert_eq!((text(factor, "status"), text(factor, "friendly_name")), ("verified", "phone"));
    let (token, factor) = (text(&bob, "access_token"), text(factor, "id"));
    assert_eq!(claims(&bob)["aal"], "aal1");
    let challenge = session(&world.auth(Some(token), &format!("POST /factors/{factor}/challenge")).send());
    let code = ntier_security::totp::code("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", world::now()).unwrap();
    let body = json!({ "challenge_id": challenge["id"], "code": code });
    let second = session(&world.auth(Some(token), &format!("POST /factors/{factor}/verify")).json(&body).send());
    assert_eq!(claims(&second)["aal"], "aal2");
}

fn sessions_go_on(world: &mut World) {
    restore(world);
    let first = session(&refresh(world, "adalive7m2pz"));
    let said = claims(&first);
    assert_eq!(
        (text(&said, "session_id"), text(&said, "sub"), &said["amr"][0]["method"]),
        ("5a000000-0000-4000-8000-00000000000a", "a0000000-0000-4000-8000-00000000000a", &json!("password"))
    );
    let user = world.auth(Some(text(&first, "access_token")), "GET /user").send();
    assert_eq!((user.status, text(&user.json(), "email")), (200, "ada@example.com"));
    let second = session(&refresh(world, text(&first, "refresh_token")));
    assert_ne!(text(&first, "refresh_token"), text(&second, "refresh_token"));
    // A session that was never refreshed.
    assert_eq!(text(&claims(&session(&refresh(world, "davelive8nqw"))), "aal"), "aal1");
}

fn security_t3_old_refresh_tokens(world: &mut World) {
    restore(world);
    let first = session(&refresh(world, "adalive7m2pz"));
    let first = text(&first, "refresh_token");
    // The answer was lost: whoever has not used the new one gets it again.
    assert_eq!(text(&session(&refresh(world, "adalive7m2pz")), "refresh_token"), first);
    a_minute_passes(world);
    assert_eq!(text(&session(&refresh(world, "adalive7m2pz")), "refresh_token"), first);
    let second = session(&refresh(world, first));
    // A thief comes later: the session is over for both.
    assert_eq!(refused(&refresh(world, "adalive7m2pz")), (400, "refresh_token_already_used".into()));
    assert_eq!(refused(&refresh(world, text(&second, "refresh_token"))), (400, "refresh_token_not_found".into()));
    assert_eq!(refused(&refresh(world, "adalive7m2pz")), (400, "refresh_token_not_found".into()));

    // The answer was lost before the move: the parent of the live one is good, and the live one is the same.
    let carol = session(&refresh(world, "carolnext5yb"));
    let carol = text(&carol, "refresh_token");
    assert_eq!(text(&session(&refresh(world, "carollive6zc")), "refresh_token"), carol);
    assert_eq!(text(&session(&refresh(world, "carolnext5yb")), "refresh_token"), carol);
    assert_eq!(refused(&refresh(world, "carolfirst4x")), (400, "refresh_token_already_used".into()));
    assert_eq!(refused(&refresh(world, carol)), (400, "refresh_token_not_found".into()));

    // Others are no better than before.
    assert_eq!(refused(&refresh(world, "davelive8nqv")), (400, "refresh_token_not_found".into()));
    world.sql("update auth.users set banned_until = now() + interval '1 day' where email = 'dave@example.com'");
    assert_eq!(refused(&refresh(world, "davelive8nqw")), (400, "user_banned".into()));
    world.sql(
        "update auth.users set banned_until = null; update auth.sessions set not_after = now() - interval '1 minute'",
    );
    assert_eq!(refused(&refresh(world, "davelive8nqw")), (400, "session_expired".into()));
    world.sql("update auth.refresh_tokens set session_id = null");
    assert_eq!(refused(&refresh(world, "davelive8nqw")), (400, "session_not_found".into()));
}

fn security_t3_parallel_exchanges_give_one_token(world: &mut World) {
    restore(world);
    let world = &*world;
    for (token, what) in [("adalive7m2pz", "a live one"), ("carolnext5yb", "the parent of a live one")] {
        let given: Vec<String> = std::thread::scope(|scope| {
            let one = || text(&session(&refresh(world, token)), "refresh_token").to_owned();
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(given.iter().all(|token| *token == given[0]), "{what}: {given:?}");
    }
    let live = world.sql("select token from auth.refresh_tokens where not revoked");
    assert_eq!(live, json!([{ "token": "davelive8nqw" }]));
}
