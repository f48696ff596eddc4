//! Sign-in: users, sessions, refreshes, and the admin's users (the checklist's A and T rows).

mod external;
mod hooks;
mod mails;
mod oauth_server;
mod passkeys;
mod smtp;

use ntier_tests::{Answer, Backend, Who, World, on_both};
use serde_json::{Value, json};

on_both!(
    a_user_signs_up_and_sees_rows_of_its_own,
    sign_in_is_refused_with_reasons,
    errors_have_the_form_that_was_asked_for,
    a_user_changes_what_is_its_own,
    an_anonymous_user_becomes_a_permanent_one,
    phones,
    admins,
    settings,
    hostile_bodies,
    second_factors,
    security_a9_second_factors_are_not_gone_around,
    security_a1_a2_weak_passwords_are_refused,
    security_a3_sign_ins_do_not_starve_others,
    security_t1_claims,
    security_t2_a_refresh_token_is_no_access_token,
    security_t3_refresh_tokens,
    security_t3_parallel_refreshes_give_one_token,
    security_t4_signing_out,
    security_t4_the_banned_and_the_deleted_are_out,
    security_t6_sessions_in_cookies,
);

const PASSWORD: &str = "correct horse battery";

fn post(world: &World, path: &str, body: &Value) -> Answer {
    world.auth(None, &format!("POST {path}")).json(body).send()
}

/// A new user's session.
fn sign_up(world: &World, email: &str) -> Value {
    let answer = post(world, "/signup", &json!({ "email": email, "password": PASSWORD }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn sign_in(world: &World, email: &str, password: &str) -> Answer {
    post(world, "/token?grant_type=password", &json!({ "email": email, "password": password }))
}

fn refresh(world: &World, token: &str) -> Answer {
    post(world, "/token?grant_type=refresh_token", &json!({ "refresh_token": token }))
}

fn user(world: &World, session: &Value) -> Answer {
    world.auth(Some(text(session, "access_token")), "GET /user").send()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name}: {value}"))
}

/// As whoever has the secret key.
fn admin(world: &World, line: &str, body: Option<&Value>) -> Answer {
    let key = world.key("service_role_key").to_owned();
    let ask = world.auth(Some(&key), line);
    match body {
        Some(body) => ask.json(body).send(),
        None => ask.send(),
    }
}

fn refused(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error_code"].as_str().unwrap_or_default().to_owned())
}

fn a_user_signs_up_and_sees_rows_of_its_own(world: &mut World) {
    let body = json!({ "email": "Ada@Example.com", "password": PASSWORD, "data": { "nickname": "ada" } });
    let answer = post(world, "/signup", &body);
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{}", answer.text());
    let ada = answer.json();
    assert_eq!((text(&ada, "token_type"), &ada["expires_in"]), ("bearer", &json!(3600)));
    let who = &ada["user"];
    assert_eq!(
        (text(who, "email"), text(who, "role"), text(who, "aud")),
        ("ada@example.com", "authenticated", "authenticated")
    );
    assert_eq!(who["app_metadata"], json!({ "provider": "email", "providers": ["email"] }));
    assert_eq!(who["user_metadata"], json!({ "nickname": "ada", "email_verified": true }));
    assert_eq!(who["identities"][0]["identity_data"]["email"], "ada@example.com");
    assert!(text(who, "email_confirmed_at").ends_with('Z') && who["is_anonymous"] == false, "{who}");
    let bob = sign_up(world, "bob@example.com");
    let (ada, bob) = (text(&ada, "access_token"), text(&bob, "access_token"));
    let written = world.ask_as(ada, "POST /notes").json(&json!({ "body": "Ada's" })).send();
    assert_eq!(written.status, 201, "{}", written.text());
    let notes = |token: &str| world.ask_as(token, "GET /notes?select=body,owner").send().json();
    assert_eq!(notes(ada), json!([{ "body": "Ada's", "owner": who["id"] }]));
    assert_eq!(notes(bob), json!([]));
    let profile = world.ask_as(ada, "GET /profiles?select=nickname").send();
    assert_eq!(profile.json(), json!([{ "nickname": "ada" }]), "the project's trigger has made it");
    let again = sign_in(world, "ADA@example.com", PASSWORD);
    assert_eq!((again.status, &again.json()["user"]["id"]), (200, &who["id"]));
}

fn sign_in_is_refused_with_reasons(world: &mut World) {
    sign_up(world, "ada@example.com");
    let admins = json!({ "email": "new@example.com", "password": PASSWORD });
    assert_eq!(admin(world, "POST /admin/users", Some(&admins)).status, 200);
    for (body, status, code) in [
        (json!({ "email": "ada@example.com", "password": "wrong" }), 400, "invalid_credentials"),
        (json!({ "email": "nobody@example.com", "password": PASSWORD }), 400, "invalid_credentials"),
        (json!({ "email": "new@example.com", "password": PASSWORD }), 400, "email_not_confirmed"),
        (json!({ "email": "x".repeat(300), "password": PASSWORD }), 400, "invalid_credentials"),
        (json!({ "email": "a@b.c", "phone": "1", "password": "x" }), 400, "validation_failed"),
        (json!({ "password": "x" }), 400, "validation_failed"),
        (json!({}), 400, "validation_failed"),
    ] {
        let answer = post(world, "/token?grant_type=password", &body);
        assert_eq!(refused(&answer), (status, code.to_owned()), "{body}");
    }
    for (body, status, code) in [
        (json!({ "email": "ada@example.com", "password": PASSWORD }), 422, "user_already_exists"),
        (json!({ "email": "ADA@example.com", "password": PASSWORD }), 422, "user_already_exists"),
        (json!({ "email": "new@example.com", "password": PASSWORD }), 422, "user_already_exists"),
        (json!({ "email": "no address", "password": PASSWORD }), 400, "validation_failed"),
        (json!({ "email": "eve@example.com" }), 400, "validation_failed"),
        (json!({ "email": "a@b.c", "phone": "4930123", "password": PASSWORD }), 400, "validation_failed"),
    ] {
        assert_eq!(refused(&post(world, "/signup", &body)), (status, code.to_owned()), "{body}");
    }
    assert_eq!(refused(&post(world, "/token?grant_type=magic", &json!({}))), (400, "invalid_credentials".into()));
    let unsigned = world.auth(None, "GET /user").send();
    assert_eq!(refused(&unsigned), (401, "no_authorization".into()));
    assert_eq!(refused(&world.auth(Some("a.b.c"), "GET /user").send()), (403, "bad_jwt".into()));
    let keyless = world.ask(&Who::Nobody, "GET /").send();
    assert_eq!(keyless.status, 401);
}

fn errors_have_the_form_that_was_asked_for(world: &mut World) {
    let ask =
        || world.auth(None, "POST /token?grant_type=password").json(&json!({ "email": "a@b.c", "password": "x" }));
    let message = "Invalid login credentials";
    let old = ask().send();
    assert_eq!(old.json(), json!({ "code": 400, "error_code": "invalid_credentials", "msg": message }));
    assert_eq!(old.header("x-sb-error-code"), Some("invalid_credentials"));
    let new = ask().header("x-supabase-api-version", "2024-01-01").send();
    assert_eq!(new.json(), json!({ "code": "invalid_credentials", "message": message }));
    assert_eq!(new.header("x-supabase-api-version"), Some("2024-01-01"));
    assert_eq!(world.auth(None, "GET /nothing/here").send().status, 404);
}

fn a_user_changes_what_is_its_own(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let token = text(&ada, "access_token");
    let put = |body: &Value| world.auth(Some(token), "PUT /user").json(body).send();
    assert_eq!(put(&json!({ "data": { "a": 1, "b": { "c": [2] } } })).status, 200);
    let changed = put(&json!({ "data": { "a": null, "d": "ä" } }));
    assert_eq!(changed.json()["user_metadata"], json!({ "email_verified": true, "b": { "c": [2] }, "d": "ä" }));
    assert_eq!(refused(&put(&json!({ "app_metadata": { "role": "admin" } }))), (403, "not_admin".into()));
    assert_eq!(refused(&put(&json!({ "password": PASSWORD }))), (422, "same_password".into()));
    assert_eq!(refused(&put(&json!({ "password": "123456" }))), (422, "weak_password".into()));
    sign_up(world, "bob@example.com");
    assert_eq!(refused(&put(&json!({ "email": "bob@example.com" }))), (422, "email_exists".into()));
    let elsewhere = sign_in(world, "ada@example.com", PASSWORD).json();
    assert_eq!(put(&json!({ "password": "another horse battery" })).status, 200);
    assert_eq!(user(world, &ada).status, 200);
    assert_eq!(
        refused(&user(world, &elsewhere)),
        (403, "session_not_found".into()),
        "whoever had the old password is out"
    );
    assert_eq!(sign_in(world, "ada@example.com", PASSWORD).status, 400);
    assert_eq!(sign_in(world, "ada@example.com", "another horse battery").status, 200);
}

fn an_anonymous_user_becomes_a_permanent_one(world: &mut World) {
    let somebody = post(world, "/signup", &json!({ "data": { "nickname": "x" } })).json();
    assert_eq!((&somebody["user"]["is_anonymous"], &somebody["user"]["email"]), (&json!(true), &json!("")));
    let token = text(&somebody, "access_token");
    assert_eq!(world.ask_as(token, "POST /notes").json(&json!({ "body": "before" })).send().status, 201);
    let put = |body: &Value| world.auth(Some(token), "PUT /user").json(body).send();
    assert_eq!(refused(&put(&json!({ "password": PASSWORD }))), (422, "validation_failed".into()));
    let named = put(&json!({ "email": "eve@example.com", "password": PASSWORD }));
    assert_eq!(named.status, 200, "{}", named.text());
    let user = named.json();
    assert_eq!(
        (&user["is_anonymous"], text(&user, "email"), &user["id"]),
        (&json!(false), "eve@example.com", &somebody["user"]["id"])
    );
    assert_eq!(user["app_metadata"], json!({ "provider": "email", "providers": ["email"] }));
    let again = sign_in(world, "eve@example.com", PASSWORD).json();
    let notes = world.ask_as(text(&again, "access_token"), "GET /notes?select=body").send();
    assert_eq!(notes.json(), json!([{ "body": "before" }]));
}

fn phones(world: &mut World) {
    let signed_up = post(world, "/signup", &json!({ "phone": "+49 30 123456", "password": PASSWORD }));
    assert_eq!(
        (signed_up.status, text(&signed_up.json()["user"], "phone")),
        (200, "4930123456"),
        "{}",
        signed_up.text()
    );
    let by_phone = json!({ "phone": "+4930123456", "password": PASSWORD });
    assert_eq!(post(world, "/token?grant_type=password", &by_phone).status, 200);
    assert_eq!(
        refused(&post(world, "/signup", &json!({ "phone": "0", "password": PASSWORD }))),
        (400, "validation_failed".into())
    );
}

fn admins(world: &mut World) {
    let create = |body: &Value| admin(world, "POST /admin/users", Some(body));
    let made = create(&json!({
        "email": "Ada@Example.com", "phone": "+4930123456", "password": PASSWORD, "email_confirm": true,
        "user_metadata": { "a": 1 }, "app_metadata": { "team": "x" }, "id": "11111111-1111-4111-8111-111111111111",
    }));
    assert_eq!(made.status, 200, "{}", made.text());
    let user = made.json();
    assert_eq!((text(&user, "id"), text(&user, "email")), ("11111111-1111-4111-8111-111111111111", "ada@example.com"));
    assert_eq!(user["app_metadata"], json!({ "provider": "email", "providers": ["email", "phone"], "team": "x" }));
    assert_eq!(user["identities"].as_array().unwrap().len(), 2);
    assert!(user["email_confirmed_at"].is_string() && user["phone_confirmed_at"].is_null(), "{user}");
    assert_eq!(refused(&create(&json!({ "email": "ada@example.com" }))), (422, "email_exists".into()));
    assert_eq!(refused(&create(&json!({ "phone": "4930123456" }))), (422, "phone_exists".into()));
    assert_eq!(refused(&create(&json!({}))), (400, "validation_failed".into()));
    assert_eq!(refused(&create(&json!({ "email": "b@b.c", "id": "x" }))), (400, "validation_failed".into()));
    assert_eq!(
        refused(&create(&json!({ "email": "b@b.c", "ban_duration": "1 year" }))),
        (400, "validation_failed".into())
    );
    let hash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
    assert_eq!(create(&json!({ "email": "hash@b.c", "password_hash": hash, "email_confirm": true })).status, 200);
    assert_eq!(create(&json!({ "email": "hash2@b.c", "password_hash": "md5" })).status, 400);

    let id = text(&user, "id");
    let one = format!("/admin/users/{id}");
    let change = |body: &Value| admin(world, &format!("PUT {one}"), Some(body));
    let changed = change(
        &json!({ "email": "lovelace@example.com", "app_metadata": { "team": null, "x": 1 }, "role": "authenticated" }),
    );
    assert_eq!(text(&changed.json(), "email"), "lovelace@example.com", "{}", changed.text());
    assert_eq!(changed.json()["app_metadata"]["x"], 1);
    assert!(changed.json()["app_metadata"].get("team").is_none());
    assert_eq!(refused(&change(&json!({ "email": "hash@b.c" }))), (422, "email_exists".into()));
    assert_eq!(sign_in(world, "lovelace@example.com", PASSWORD).status, 200);
    assert_eq!(admin(world, &format!("GET {one}"), None).json()["email"], "lovelace@example.com");
    assert_eq!(refused(&admin(world, "GET /admin/users/x", None)), (404, "validation_failed".into()));
    let nobody = "/admin/users/99999999-9999-4999-8999-999999999999";
    assert_eq!(refused(&admin(world, &format!("GET {nobody}"), None)), (404, "user_not_found".into()));

    let list = admin(world, "GET /admin/users?page=1&per_page=1", None);
    assert_eq!((list.json()["users"].as_array().unwrap().len(), list.header("x-total-count")), (1, Some("2")));
    let links = r#"</admin/users?page=2&per_page=1>; rel="next", </admin/users?page=2&per_page=1>; rel="last""#;
    assert_eq!(list.header("link"), Some(links));

    // A user is no admin, nor is the publishable key.
    let session = sign_in(world, "lovelace@example.com", PASSWORD).json();
    let by_user = world.auth(Some(text(&session, "access_token")), "GET /admin/users").send();
    assert_eq!(refused(&by_user), (403, "not_admin".into()));
    let key = world.key("publishable_key").to_owned();
    assert_eq!(refused(&world.auth(Some(&key), "GET /admin/users").send()), (403, "not_admin".into()));
    assert_eq!(refused(&world.auth(None, "GET /admin/users").send()), (403, "not_admin".into()));

    assert_eq!(admin(world, &format!("DELETE {one}"), Some(&json!({ "should_soft_delete": true }))).status, 200);
    let kept = admin(world, &format!("GET {one}"), None).json();
    assert!(kept["deleted_at"].is_string() && text(&kept, "email").len() == 64, "{kept}");
    assert_eq!(sign_in(world, "lovelace@example.com", PASSWORD).status, 400);
    assert_eq!(admin(world, &format!("DELETE {one}"), None).status, 200);
    assert_eq!(admin(world, &format!("GET {one}"), None).status, 404);
}

fn settings(world: &mut World) {
    let settings = world.auth(None, "GET /settings").send().json();
    assert_eq!(
        (&settings["mailer_autoconfirm"], &settings["external"]["anonymous_users"]),
        (&json!(true), &json!(true))
    );
    assert_eq!((&settings["external"]["email"], &settings["disable_signup"]), (&json!(true), &json!(false)));
}

fn hostile_bodies(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let token = text(&ada, "access_token");
    let deep = format!(r#"{{"data": {}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    for (bearer, line, body, status) in [
        (None, "POST /signup", "{", 400),
        (None, "POST /signup", "[]", 400),
        (None, "POST /signup", r#"{"email": 7}"#, 400),
        (None, "POST /signup", r#"{"email": "a@b.c", "password": {}}"#, 400),
        (None, "POST /signup", r#"{"email": "a@b.c\u0000", "password": "correct horse"}"#, 400),
        (None, "POST /token?grant_type=password", r#"{"email": "a@b.c\u0000", "password": "x"}"#, 400),
        (
            None,
            "POST /token?grant_type=password",
            r#"{"email": "a'; drop table auth.users; --", "password": "x"}"#,
            400,
        ),
        (None, "POST /token?grant_type=refresh_token", r#"{"refresh_token": "'; --"}"#, 400),
        (Some(token), "PUT /user", deep.as_str(), 400),
        (Some(token), "PUT /user", r#"{"data": {"a": "\u0000"}}"#, 400),
        (Some(token), "PUT /user", r#"{"data": []}"#, 400),
    ] {
        let answer = world.auth(bearer, line).body("application/json", body.as_bytes().to_vec()).send();
        let begin: String = body.chars().take(60).collect();
        assert_eq!(answer.status, status, "{line} {begin}: {}", answer.text());
    }
    let large = json!({ "data": { "a": "x".repeat(2 << 20) } });
    assert_eq!(
        refused(&world.auth(Some(token), "PUT /user").json(&large).send()),
        (413, "request_entity_too_large".into())
    );
    assert_eq!(user(world, &ada).status, 200);
}

fn security_a1_a2_weak_passwords_are_refused(world: &mut World) {
    for (password, reasons) in
        [("k3J!x", json!(["length"])), ("password", json!(["pwned"])), ("12345", json!(["length"]))]
    {
        let answer = post(world, "/signup", &json!({ "email": "ada@example.com", "password": password }));
        assert_eq!(refused(&answer), (422, "weak_password".into()), "{password}");
        assert_eq!(answer.json()["weak_password"]["reasons"], reasons, "{password}");
    }
    let long = post(world, "/signup", &json!({ "email": "ada@example.com", "password": "x".repeat(73) }));
    assert_eq!(refused(&long), (400, "validation_failed".into()));
}

fn security_a3_sign_ins_do_not_starve_others(world: &mut World) {
    let world = &*world;
    std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..40)
            .map(|number| scope.spawn(move || sign_in(world, &format!("nobody{number}@example.com"), "wrong").status))
            .collect();
        // Hashing takes all of them some seconds; whoever needs none is served meanwhile.
        let mut served = 0;
        while !attempts.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            assert_eq!(world.get("/films?select=id&id=eq.1").status, 200);
            served += 1;
        }
        assert!(served > 5, "{served}");
        for attempt in attempts {
            assert!(matches!(attempt.join().unwrap(), 400 | 429));
        }
    });
}

fn security_t1_claims(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let token = text(&ada, "access_token");
    let claims = world.ask_as(token, "GET /rpc/who").send().json();
    let claims = if claims["claims"].is_object() { claims["claims"].clone() } else { claims };
    for name in ["exp", "iat", "iss", "aud", "sub", "role", "session_id", "aal", "amr"] {
        assert!(!claims[name].is_null(), "{name}: {claims}");
    }
    assert_eq!(
        (&claims["sub"], &claims["aal"], &claims["amr"][0]["method"]),
        (&ada["user"]["id"], &json!("aal1"), &json!("password"))
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert!(text(&claims, "iss").ends_with("/auth/v1"));
}

fn security_t2_a_refresh_token_is_no_access_token(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let answer = world.auth(Some(text(&ada, "refresh_token")), "GET /user").send();
    assert_eq!(refused(&answer), (403, "bad_jwt".into()));
    assert_eq!(refused(&refresh(world, text(&ada, "access_token"))), (400, "refresh_token_not_found".into()));
}

fn security_t3_refresh_tokens(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let first = text(&ada, "refresh_token").to_owned();
    let rotated = refresh(world, &first);
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    let second = text(&rotated.json(), "refresh_token").to_owned();
    assert_ne!(first, second);
    // The answer was lost: the parent of the one that counts gives the one that counts.
    assert_eq!(text(&refresh(world, &first).json(), "refresh_token"), second);
    let third = text(&refresh(world, &second).json(), "refresh_token").to_owned();
    // Tabs that wake up together: within ten seconds an older one gives it too.
    assert_eq!(text(&refresh(world, &first).json(), "refresh_token"), third);
    // Nothing in the database is a token.
    let kept = world.sql("select row_to_json(s) from auth.sessions s").to_string();
    assert!(![first.as_str(), &second, &third].iter().any(|token| kept.contains(*token)), "{kept}");
    // A thief comes later: the session is over for both.
    world.sql("update auth.sessions set refreshed_at = refreshed_at - interval '1 minute'");
    assert_eq!(refused(&refresh(world, &first)), (400, "refresh_token_already_used".into()));
    assert_eq!(refused(&refresh(world, &third)), (400, "refresh_token_not_found".into()));
    assert_eq!(refused(&user(world, &ada)), (403, "session_not_found".into()));
    assert_eq!(refused(&refresh(world, "nonsense")), (400, "refresh_token_not_found".into()));
    assert_eq!(refused(&refresh(world, "")), (400, "validation_failed".into()));
}

fn security_t3_parallel_refreshes_give_one_token(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let token = text(&ada, "refresh_token");
    let other = (world.backend == Backend::Server).then(|| world.another());
    let (world, other) = (&*world, &other);
    let given: Vec<String> = std::thread::scope(|scope| {
        let one = |number: usize| {
            let mut ask =
                world.auth(None, "POST /token?grant_type=refresh_token").json(&json!({ "refresh_token": token }));
            if let Some(other) = other.as_ref().filter(|_| number.is_multiple_of(2)) {
                ask.move_to(&world.node.url, &other.url);
            }
            let answer = ask.send();
            assert_eq!(answer.status, 200, "{}", answer.text());
            text(&answer.json(), "refresh_token").to_owned()
        };
        let threads: Vec<_> = (0..16).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(given.iter().all(|next| *next == given[0] && next != token), "{given:?}");
}

/// A page of our own origin keeps no token: no script can read it.
fn security_t6_sessions_in_cookies(world: &mut World) {
    sign_up(world, "ada@example.com");
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    let session = world.auth(None, "POST /token?grant_type=password").header("x-use-cookie", "1").json(&body).send();
    assert_eq!((session.status, text(&session.json(), "access_token")), (200, ""));
    let jar = |answer: &Answer| -> String {
        let cookies = answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        let cookies: Vec<&str> = cookies.map(|cookie| cookie.split(';').next().unwrap()).collect();
        assert_eq!(cookies.len(), 2, "{:?}", answer.headers);
        cookies.join("; ")
    };
    let cookies = jar(&session);
    let own = |line: &str| world.auth(None, line).header("x-use-cookie", "1").header("cookie", &cookies);
    assert_eq!(text(&own("GET /user").send().json(), "email"), "ada@example.com");
    let note = |more: &[(&str, &str)]| {
        let mut ask = world.ask(&Who::Anon, "POST /notes").header("cookie", &cookies).json(&json!({ "body": "Ada's" }));
        for (name, value) in more {
            ask = ask.header(name, value);
        }
        ask.send().status
    };
    assert_eq!(note(&[("x-use-cookie", "1")]), 201);
    assert!(note(&[]) >= 400, "a form of another site");
    assert!(note(&[("x-use-cookie", "1"), ("origin", "https://evil.com")]) >= 400);
    // What is called a token in somebody's data is data.
    let data = world
        .ask(&Who::Anon, "GET /notes?select=access_token:body,refresh_token:body")
        .header("cookie", &cookies)
        .header("x-use-cookie", "1")
        .header("accept", "application/vnd.pgrst.object+json")
        .send();
    assert_eq!((data.json()["access_token"].as_str(), data.headers.get("set-cookie")), (Some("Ada's"), None));
    let refreshed = own("POST /token?grant_type=refresh_token").json(&json!({})).send();
    assert_eq!(refreshed.status, 200, "{}", refreshed.text());
    let out = own("POST /logout").send();
    assert!(
        out.status == 204 && jar(&out).contains("__Host-ntier-access=;")
            || jar(&out).ends_with("__Host-ntier-refresh=")
    );
    assert_eq!(refused(&own("GET /user").send()), (403, "session_not_found".into()));
}

fn security_t4_signing_out(world: &mut World) {
    let one = sign_up(world, "ada@example.com");
    let session = || sign_in(world, "ada@example.com", PASSWORD).json();
    let out = |session: &Value, scope: &str| {
        world.auth(Some(text(session, "access_token")), &format!("POST /logout{scope}")).send()
    };
    let is_in = |session: &Value| user(world, session).status == 200;
    let (two, three) = (session(), session());
    assert_eq!(out(&two, "?scope=local").status, 204);
    assert_eq!((is_in(&one), is_in(&two), is_in(&three)), (true, false, true));
    assert_eq!(out(&three, "?scope=others").status, 204);
    assert_eq!((is_in(&one), is_in(&three)), (false, true));
    let four = session();
    assert_eq!(out(&four, "").status, 204);
    assert_eq!((is_in(&three), is_in(&four)), (false, false));
    assert_eq!(refused(&refresh(world, text(&four, "refresh_token"))), (400, "refresh_token_not_found".into()));
    assert_eq!(refused(&out(&session(), "?scope=everywhere")), (400, "validation_failed".into()));
}

fn security_t4_the_banned_and_the_deleted_are_out(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let one = format!("/admin/users/{}", text(&ada["user"], "id"));
    let banned = admin(world, &format!("PUT {one}"), Some(&json!({ "ban_duration": "24h" })));
    assert!(banned.json()["banned_until"].is_string(), "{}", banned.text());
    assert_eq!(user(world, &ada).status, 403);
    assert_eq!(refresh(world, text(&ada, "refresh_token")).status, 400);
    assert_eq!(refused(&sign_in(world, "ada@example.com", PASSWORD)), (400, "user_banned".into()));
    assert_eq!(refused(&sign_in(world, "ada@example.com", "wrong")), (400, "invalid_credentials".into()));
    assert_eq!(admin(world, &format!("PUT {one}"), Some(&json!({ "ban_duration": "none" }))).status, 200);
    let again = sign_in(world, "ada@example.com", PASSWORD).json();
    assert_eq!(admin(world, &format!("DELETE {one}"), None).status, 200);
    assert_eq!(refused(&user(world, &again)), (403, "user_not_found".into()));
}

/// An authenticator app: the factor's id and its secret.
fn enroll(world: &World, token: &str, name: &str) -> (String, String) {
    let answer =
        world.auth(Some(token), "POST /factors").json(&json!({ "factor_type": "totp", "friendly_name": name })).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let factor = answer.json();
    assert!(
        text(&factor["totp"], "qr_code").contains("<svg")
            && text(&factor["totp"], "uri").starts_with("otpauth://totp/")
    );
    (text(&factor, "id").to_owned(), text(&factor["totp"], "secret").to_owned())
}

fn challenge(world: &World, token: &str, factor: &str) -> String {
    let answer = world.auth(Some(token), &format!("POST /factors/{factor}/challenge")).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    text(&answer.json(), "id").to_owned()
}

fn answer_challenge(world: &World, token: &str, factor: &str, challenge: &str, code: &str) -> Answer {
    let body = json!({ "challenge_id": challenge, "code": code });
    world.auth(Some(token), &format!("POST /factors/{factor}/verify")).json(&body).send()
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn second_factors(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let elsewhere = sign_in(world, "ada@example.com", PASSWORD).json();
    let token = text(&ada, "access_token");
    assert_eq!(claims(token)["aal"], "aal1");
    let (factor, secret) = enroll(world, token, "phone");
    let again = world
        .auth(Some(token), "POST /factors")
        .json(&json!({ "factor_type": "totp", "friendly_name": "phone" }))
        .send();
    assert_eq!(refused(&again), (422, "mfa_factor_name_conflict".into()));
    let kept = world.sql("select secret from auth.mfa_factors").to_string();
    assert!(kept.contains("sealed1.") && !kept.contains(&secret), "A9: sealed at rest: {kept}");
    let first = challenge(world, token, &factor);
    assert_eq!(
        refused(&answer_challenge(world, token, &factor, &first, "000000")),
        (422, "mfa_verification_failed".into())
    );
    let code = ntier_security::totp::code(&secret, ntier_tests::world::now()).unwrap();
    let verified = answer_challenge(world, token, &factor, &first, &code);
    assert_eq!(verified.status, 200, "{}", verified.text());
    let session = verified.json();
    let second = text(&session, "access_token");
    let (claims, factors) = (claims(second), &session["user"]["factors"]);
    let methods: Vec<&str> =
        claims["amr"].as_array().unwrap().iter().map(|way| way["method"].as_str().unwrap()).collect();
    assert_eq!((&claims["aal"], methods), (&json!("aal2"), vec!["totp", "password"]));
    assert_eq!((&factors[0]["status"], &factors[0]["friendly_name"]), (&json!("verified"), &json!("phone")));
    assert_eq!(refused(&user(world, &elsewhere)), (403, "session_not_found".into()), "it has shown one factor only");
    // A refresh keeps what was shown.
    let refreshed = refresh(world, text(&session, "refresh_token")).json();
    assert_eq!(self::claims(text(&refreshed, "access_token"))["aal"], "aal2");
    // A code is taken once, whoever has seen it.
    let other = sign_in(world, "ada@example.com", PASSWORD).json();
    let other = text(&other, "access_token");
    let next = challenge(world, other, &factor);
    assert_eq!(
        refused(&answer_challenge(world, other, &factor, &next, &code)),
        (422, "mfa_verification_failed".into())
    );
    let used_up = answer_challenge(world, token, &factor, &first, &code);
    assert_eq!(refused(&used_up), (422, "mfa_challenge_expired".into()));
    // Begun with the password alone, before there was another or at the same moment: it is not ended so.
    world.sql(
        "insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, created_at, updated_at, secret) \
         select '00000000-0000-4000-8000-000000000001', user_id, 'early', factor_type, 'unverified', now(), now(), secret from auth.mfa_factors",
    );
    let early = "/factors/00000000-0000-4000-8000-000000000001/challenge";
    let ask = |token: &str| world.auth(Some(token), &format!("POST {early}")).json(&json!({})).send();
    assert_eq!(refused(&ask(other)), (403, "insufficient_aal".into()));
    assert_eq!(ask(second).status, 200);
    world.sql("delete from auth.mfa_factors where friendly_name = 'early'");
    let one = text(&ada["user"], "id");
    let listed = admin(world, &format!("GET /admin/users/{one}/factors"), None).json();
    assert_eq!((listed.as_array().unwrap().len(), listed[0]["id"].as_str()), (1, Some(factor.as_str())));
    let gone = world.auth(Some(second), &format!("DELETE /factors/{factor}")).send();
    assert_eq!((gone.status, gone.json()["id"].as_str()), (200, Some(factor.as_str())));
    let after = refresh(world, text(&refreshed, "refresh_token")).json();
    assert_eq!(self::claims(text(&after, "access_token"))["aal"], "aal1");
    assert!(after["user"].get("factors").is_none(), "{after}");
    for (kind, code) in [("phone", "mfa_phone_enroll_not_enabled"), ("x", "validation_failed")] {
        let answer = world.auth(Some(second), "POST /factors").json(&json!({ "factor_type": kind })).send();
        assert_eq!(refused(&answer).1, code, "{kind}");
    }
}

fn security_a9_second_factors_are_not_gone_around(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let token = text(&ada, "access_token");
    let (factor, secret) = enroll(world, token, "phone");
    let id = challenge(world, token, &factor);
    let code = ntier_security::totp::code(&secret, ntier_tests::world::now()).unwrap();
    assert_eq!(answer_challenge(world, token, &factor, &id, &code).status, 200);
    // Whoever has the password alone changes nothing that matters.
    let thief = sign_in(world, "ada@example.com", PASSWORD).json();
    let thief = text(&thief, "access_token");
    let put = |body: &Value| refused(&world.auth(Some(thief), "PUT /user").json(body).send());
    assert_eq!(put(&json!({ "password": "another horse battery" })), (401, "insufficient_aal".into()));
    assert_eq!(put(&json!({ "email": "thief@example.com" })), (401, "insufficient_aal".into()));
    let removed = world.auth(Some(thief), &format!("DELETE /factors/{factor}")).send();
    assert_eq!(refused(&removed), (422, "insufficient_aal".into()));
    let more = world
        .auth(Some(thief), "POST /factors")
        .json(&json!({ "factor_type": "totp", "friendly_name": "mine" }))
        .send();
    assert_eq!(refused(&more), (403, "insufficient_aal".into()));
    // Nor does another user use it.
    let bob = sign_up(world, "bob@example.com");
    let bob = text(&bob, "access_token");
    let theirs = world.auth(Some(bob), &format!("POST /factors/{factor}/challenge")).send();
    assert_eq!(refused(&theirs), (404, "mfa_factor_not_found".into()));
    let nobody = post(world, "/signup", &json!({})).json();
    let anonymous =
        world.auth(Some(text(&nobody, "access_token")), "POST /factors").json(&json!({ "factor_type": "totp" })).send();
    assert_eq!(refused(&anonymous), (403, "no_authorization".into()));
    // A few guesses, and the factor is closed for a while.
    let id = challenge(world, thief, &factor);
    let guess = || answer_challenge(world, thief, &factor, &id, "12345").status;
    assert_eq!(attempts_refused(&guess), 429);
}

/// The e-mails to an address, the last first: what they are about, their link and their code.
fn mail(world: &World, email: &str) -> Vec<(String, String, String)> {
    let get = |path: &str| {
        let mut ask = world.ask(&Who::Nobody, "GET /");
        ask.move_to(&format!("{}/rest/v1/", world.node.url), &format!("{}{path}", world.node.url));
        ask.send().json()
    };
    let messages = get("/inbox/api/v1/messages");
    let messages = messages["messages"].as_array().unwrap().clone();
    let to = messages.iter().filter(|message| message["To"][0]["Address"] == email);
    to.map(|message| {
        let whole = get(&format!("/inbox/api/v1/message/{}", text(message, "ID")));
        let plain = text(&whole, "Text").to_owned();
        let link = plain.lines().find(|line| line.starts_with("http")).unwrap().to_owned();
        let code =
            plain.lines().find_map(|line| line.strip_prefix("Alternatively, enter the code: ")).unwrap().to_owned();
        (text(message, "Subject").to_owned(), link, code)
    })
    .collect()
}

/// Follows a link as a browser does; gives where it leads.
fn follow(world: &World, link: &str) -> String {
    // It has no key to show.
    let mut ask = world.ask(&Who::Nobody, "GET /");
    ask.move_to(&format!("{}/rest/v1/", world.node.url), link);
    let answer = ask.send();
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location").unwrap().to_owned()
}

fn in_fragment(location: &str, name: &str) -> Option<String> {
    let fragment = location.split_once('#')?.1;
    fragment.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")).map(str::to_owned))
}

const CONFIRMING: [&str; 3] = [
    "--auth-email-enable-confirmations",
    "--auth-site-url=https://app.example.com",
    "--auth-additional-redirect-urls=https://*.example.org/**",
];

fn confirmations(backend: Backend) {
    let world = World::start_dev(backend, &CONFIRMING);
    let signed_up = post(
        &world,
        "/signup?redirect_to=https://a.example.org/x",
        &json!({ "email": "ada@example.com", "password": PASSWORD }),
    );
    assert_eq!((signed_up.status, &signed_up.json()["access_token"]), (200, &Value::Null), "{}", signed_up.text());
    assert!(signed_up.json()["confirmation_sent_at"].is_string());
    assert_eq!(refused(&sign_in(&world, "ada@example.com", PASSWORD)), (400, "email_not_confirmed".into()));
    let at_once = post(&world, "/resend", &json!({ "type": "signup", "email": "ada@example.com" }));
    assert_eq!(refused(&at_once), (429, "over_email_send_rate_limit".into()));
    let (subject, link, _) = mail(&world, "ada@example.com").remove(0);
    assert_eq!(subject, "Confirm Your Signup");
    let location = follow(&world, &link);
    assert!(location.starts_with("https://a.example.org/x#access_token="), "{location}");
    let token = in_fragment(&location, "access_token").unwrap();
    assert_eq!(world.auth(Some(&token), "GET /user").send().json()["user_metadata"]["email_verified"], true);
    assert_eq!(sign_in(&world, "ada@example.com", PASSWORD).status, 200);
    let again = follow(&world, &link);
    assert!(again.starts_with("https://a.example.org/x#error=access_denied&error_code=otp_expired"), "once: {again}");
    // Whoever is there already gets the same answer, and no mail.
    world.sql("delete from ntier.rate_limits");
    let repeated = post(&world, "/signup", &json!({ "email": "ada@example.com", "password": "another horse battery" }));
    assert_eq!((repeated.status, repeated.json()["identities"].clone()), (200, json!([])));
    assert_ne!(repeated.json()["id"], signed_up.json()["id"]);
    assert_eq!((mail(&world, "ada@example.com").len(), sign_in(&world, "ada@example.com", PASSWORD).status), (1, 200));
    // A code that is typed.
    post(&world, "/signup?redirect_to=https://evil.com", &json!({ "email": "bob@example.com", "password": PASSWORD }));
    let (_, link, code) = mail(&world, "bob@example.com").remove(0);
    assert!(link.ends_with("redirect_to=https%3A%2F%2Fapp.example.com"), "A11: {link}");
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let verify =
        |code: &str| post(&world, "/verify", &json!({ "type": "signup", "email": "bob@example.com", "token": code }));
    assert_eq!(refused(&verify(wrong)), (403, "otp_expired".into()));
    let session = verify(&code);
    assert_eq!(
        (session.status, text(&session.json()["user"], "email")),
        (200, "bob@example.com"),
        "{}",
        session.text()
    );
    assert_eq!(refused(&verify(&code)), (403, "otp_expired".into()), "once");
}

/// Somebody signs up with another's address and waits for the owner of the mailbox to confirm it.
fn security_a11_nobody_prepares_an_account_for_another(backend: Backend) {
    let world = World::start_dev(backend, &["--auth-email-enable-confirmations", "--api-require-key"]);
    let thief = "the thief's password";
    let prepare = |email: &str| {
        assert_eq!(post(&world, "/signup", &json!({ "email": email, "password": thief })).status, 200);
        world.sql("update auth.users set confirmation_sent_at = confirmation_sent_at - interval '1 hour'");
        world.sql("delete from ntier.rate_limits");
    };
    // The owner signs up too.
    prepare("ada@example.com");
    let (_, old, _) = mail(&world, "ada@example.com").remove(0);
    assert_eq!(post(&world, "/signup", &json!({ "email": "ada@example.com", "password": PASSWORD })).status, 200);
    assert!(follow(&world, &old).contains("error_code=otp_expired"));
    let (_, new, _) = mail(&world, "ada@example.com").remove(0);
    assert!(follow(&world, &new).contains("access_token="));
    assert_eq!(
        (sign_in(&world, "ada@example.com", thief).status, sign_in(&world, "ada@example.com", PASSWORD).status),
        (400, 200)
    );
    // Comes in by a code, by recovery, or is invited.
    for (email, path) in [("bob@example.com", "/otp"), ("cyd@example.com", "/recover")] {
        prepare(email);
        assert_eq!(post(&world, path, &json!({ "email": email })).status, 200, "{path}");
        let (_, link, _) = mail(&world, email).remove(0);
        assert!(follow(&world, &link).contains("access_token="), "{path}");
        assert_eq!(sign_in(&world, email, thief).status, 400, "{path}");
    }
    prepare("dan@example.com");
    assert_eq!(admin(&world, "POST /invite", Some(&json!({ "email": "dan@example.com" }))).status, 200);
    let (_, link, _) = mail(&world, "dan@example.com").remove(0);
    assert!(follow(&world, &link).contains("access_token="));
    assert_eq!(sign_in(&world, "dan@example.com", thief).status, 400);
}

/// Nobody learns who is there: not by an answer, and not by a refusal. `cargo xtask bench auth` shows that the time of an answer does not
/// tell it either.
fn security_a4_nobody_learns_who_is_there(backend: Backend) {
    let config = "[auth.email]\nenable_confirmations = true\n[auth.email.smtp]\nhost = \"127.0.0.1\"\nport = 1\n\
         admin_email = \"no-reply@example.com\"\n";
    let world = project(backend, config, "");
    let signed_up = |password: &str| {
        let answer = post(&world, "/signup", &json!({ "email": "ada@example.com", "password": password }));
        let fields: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
        (answer.status, fields)
    };
    let first = signed_up(PASSWORD);
    assert_eq!(signed_up("another horse battery").0, 429, "it gets an e-mail already");
    let wait = || world.sql("delete from ntier.rate_limits");
    wait();
    world.sql("update auth.users set email_confirmed_at = now(), confirmation_token = ''");
    assert_eq!(signed_up("another horse battery"), first, "as if nobody had that address");
    assert_eq!(signed_up("another horse battery").0, 429, "as if it got an e-mail");
    wait();
    let alike = |path: &str, body: &dyn Fn(&str) -> Value| {
        let [known, unknown] = ["ada@example.com", "nobody@example.com"].map(|email| {
            let answer = post(&world, path, &body(email));
            // But for the seconds that are left.
            (answer.status, answer.text().replace(|letter: char| letter.is_ascii_digit(), ""))
        });
        assert_eq!(known, unknown, "{path}");
        known.0
    };
    let wrong = |email: &str| json!({ "email": email, "password": "a wrong horse battery" });
    assert_eq!(alike("/token?grant_type=password", &wrong), 400);
    // What was asked for a moment ago is refused, also where there was nothing to send.
    let email = |email: &str| json!({ "email": email });
    assert_eq!([alike("/recover", &email), alike("/recover", &email)], [200, 429]);
    for kind in ["signup", "email_change"] {
        let again = |email: &str| json!({ "type": kind, "email": email });
        assert_eq!([alike("/resend", &again), alike("/resend", &again)], [200, 429], "{kind}");
    }
    assert_eq!(world.sql("select id from ntier.mail where recipient like 'nobody%'"), json!([]));
}

/// Sessions end after a while, when nobody uses them, and where a project wants it so, when their user signs in elsewhere.
fn security_t5_sessions_end(backend: Backend) {
    let world = project(
        backend,
        "[auth.sessions]\ntimebox = \"24h\"\ninactivity_timeout = \"8h\"\n",
        "[auth]\nsingle_session = true\n",
    );
    let ada = sign_up(&world, "ada@example.com");
    for (column, before, after) in [("refreshed_at", "7 hours", "9 hours"), ("created_at", "23 hours", "25 hours")] {
        let session = sign_in(&world, "ada@example.com", PASSWORD).json();
        assert_eq!(refused(&user(&world, &ada)), (403, "session_not_found".into()), "one at a time");
        let age = |age: &str| {
            world.sql("update auth.sessions set refreshed_at = now()");
            world.sql(&format!("update auth.sessions set {column} = now() - interval '{age}'"))
        };
        age(before);
        let next = refresh(&world, text(&session, "refresh_token"));
        assert_eq!(next.status, 200, "{column}: {}", next.text());
        age(after);
        let over = refused(&refresh(&world, text(&next.json(), "refresh_token")));
        assert_eq!(over, (400, "session_expired".into()), "{column}");
    }
}

/// A node in a folder with these two files.
fn project(backend: Backend, config: &str, settings: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("supabase")).unwrap();
    std::fs::write(folder.path().join("supabase/config.toml"), config).unwrap();
    std::fs::write(folder.path().join("ntier.toml"), settings).unwrap();
    World::start_project(backend, folder.path())
}

fn recoveries(backend: Backend) {
    let world = World::start_dev(backend, &[]);
    let ada = sign_up(&world, "ada@example.com");
    for email in ["ada@example.com", "nobody@example.com"] {
        let answer = post(&world, "/recover", &json!({ "email": email }));
        assert_eq!((answer.status, answer.json()), (200, json!({})), "{email}");
    }
    assert!(mail(&world, "nobody@example.com").is_empty());
    let (subject, link, code) = mail(&world, "ada@example.com").remove(0);
    assert_eq!(subject, "Reset Your Password");
    let wrong_type = post(&world, "/verify", &json!({ "type": "signup", "email": "ada@example.com", "token": code }));
    assert_eq!(refused(&wrong_type), (403, "otp_expired".into()));
    let location = follow(&world, &link);
    let token = in_fragment(&location, "access_token").unwrap();
    assert_eq!(in_fragment(&location, "type").as_deref(), Some("recovery"));
    let changed = world.auth(Some(&token), "PUT /user").json(&json!({ "password": "another horse battery" })).send();
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(refused(&user(&world, &ada)), (403, "session_not_found".into()));
    assert_eq!(sign_in(&world, "ada@example.com", "another horse battery").status, 200);
    // A magic link for whoever is there, a sign-up for whoever is not.
    assert_eq!(post(&world, "/otp", &json!({ "email": "eve@example.com", "create_user": false })).status, 422);
    assert_eq!(post(&world, "/otp", &json!({ "email": "eve@example.com", "data": { "nickname": "eve" } })).status, 200);
    let (_, _, code) = mail(&world, "eve@example.com").remove(0);
    let session = post(&world, "/verify", &json!({ "type": "email", "email": "eve@example.com", "token": code }));
    assert_eq!(
        (session.status, text(&session.json()["user"]["user_metadata"], "nickname")),
        (200, "eve"),
        "{}",
        session.text()
    );
    assert_eq!(post(&world, "/otp", &json!({ "email": "eve@example.com" })).status, 200);
    let (subject, link, _) = mail(&world, "eve@example.com").remove(0);
    assert_eq!(
        (subject.as_str(), in_fragment(&follow(&world, &link), "type").as_deref()),
        ("Your Magic Link", Some("magiclink"))
    );
}

fn changes_of_addresses(backend: Backend) {
    let world = World::start_dev(backend, &[]);
    let ada = sign_up(&world, "ada@example.com");
    let put = |body: &Value| world.auth(Some(text(&ada, "access_token")), "PUT /user").json(body).send();
    let asked = put(&json!({ "email": "lovelace@example.com" }));
    assert_eq!((asked.status, text(&asked.json(), "new_email")), (200, "lovelace@example.com"), "{}", asked.text());
    assert_eq!(text(&asked.json(), "email"), "ada@example.com", "not before both have confirmed");
    let (_, old, _) = mail(&world, "ada@example.com").remove(0);
    let (_, new, _) = mail(&world, "lovelace@example.com").remove(0);
    assert!(follow(&world, &new).contains("#message=Confirmation%20link%20accepted"));
    assert_eq!(text(&user(&world, &ada).json(), "email"), "ada@example.com");
    assert!(follow(&world, &old).contains("#access_token="));
    let now = user(&world, &ada).json();
    assert_eq!(
        (text(&now, "email"), now["identities"][0]["identity_data"]["email"].as_str()),
        ("lovelace@example.com", Some("lovelace@example.com"))
    );
    assert!(now.get("new_email").is_none(), "{now}");
    assert_eq!(sign_in(&world, "lovelace@example.com", PASSWORD).status, 200);
    assert_eq!(sign_in(&world, "ada@example.com", PASSWORD).status, 400);
}

fn invitations(backend: Backend) {
    let world = World::start_dev(backend, &[]);
    let invited =
        admin(&world, "POST /invite", Some(&json!({ "email": "Bob@example.com", "data": { "nickname": "bob" } })));
    assert!(invited.json()["invited_at"].is_string(), "{}", invited.text());
    let (subject, link, _) = mail(&world, "bob@example.com").remove(0);
    assert_eq!(subject, "You have been invited");
    let token = in_fragment(&follow(&world, &link), "access_token").unwrap();
    let set = world.auth(Some(&token), "PUT /user").json(&json!({ "password": PASSWORD })).send();
    assert_eq!((set.status, sign_in(&world, "bob@example.com", PASSWORD).status), (200, 200));
    assert_eq!(
        refused(&admin(&world, "POST /invite", Some(&json!({ "email": "bob@example.com" })))),
        (422, "email_exists".into())
    );
    // The admin's own e-mail carries the link.
    let made = |body: &Value| admin(&world, "POST /admin/generate_link", Some(body));
    let link = made(&json!({ "type": "recovery", "email": "bob@example.com" })).json();
    assert_eq!(text(&link, "verification_type"), "recovery");
    let by_hash = json!({ "type": "recovery", "token_hash": text(&link, "hashed_token") });
    assert_eq!(post(&world, "/verify", &by_hash).status, 200);
    let link = made(&json!({ "type": "signup", "email": "eve@example.com", "password": PASSWORD })).json();
    let by_code = json!({ "type": "signup", "email": "eve@example.com", "token": text(&link, "email_otp") });
    assert_eq!(post(&world, "/verify", &by_code).status, 200);
    assert_eq!(sign_in(&world, "eve@example.com", PASSWORD).status, 200);
    assert_eq!(
        refused(&made(&json!({ "type": "recovery", "email": "x@example.com" }))),
        (404, "user_not_found".into())
    );
    assert_eq!(
        refused(&made(&json!({ "type": "nonsense", "email": "eve@example.com" }))),
        (400, "validation_failed".into())
    );
    // The secret key alone says who asks.
    let mut by_key = world.ask(&Who::Service, "GET /admin/users");
    by_key.move_to("/rest/v1", "/auth/v1");
    assert_eq!(by_key.send().status, 200);
    let by_user = sign_in(&world, "bob@example.com", PASSWORD).json();
    let by_user =
        world.auth(Some(text(&by_user, "access_token")), "POST /invite").json(&json!({ "email": "a@b.c" })).send();
    assert_eq!(refused(&by_user), (403, "not_admin".into()));
}

/// PKCE: the link gives a code, which only the browser that has begun can use. The pair is that of RFC 7636, appendix B.
fn proofs(backend: Backend) {
    let world = World::start_dev(backend, &["--auth-email-enable-confirmations"]);
    let (verifier, challenge) =
        ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    let with = |body: Value| {
        let mut body = body;
        body["code_challenge"] = challenge.into();
        body["code_challenge_method"] = "s256".into();
        body
    };
    let grant = |code: &str, verifier: &str| {
        post(&world, "/token?grant_type=pkce", &json!({ "auth_code": code, "code_verifier": verifier }))
    };
    let code_of = |location: &str| {
        assert!(!location.contains("access_token"), "{location}");
        location.split_once("?code=").unwrap_or_else(|| panic!("{location}")).1.to_owned()
    };
    let body = with(json!({ "email": "ada@example.com", "password": PASSWORD }));
    assert_eq!(post(&world, "/signup", &body).status, 200);
    let (_, link, _) = mail(&world, "ada@example.com").remove(0);
    let code = code_of(&follow(&world, &link));
    assert_eq!(refused(&grant(&code, "another")), (400, "bad_code_verifier".into()));
    let session = grant(&code, verifier);
    assert_eq!(
        (session.status, text(&session.json()["user"], "email")),
        (200, "ada@example.com"),
        "{}",
        session.text()
    );
    assert_eq!(refused(&grant(&code, verifier)), (404, "flow_state_not_found".into()), "once");
    assert_eq!(refused(&grant("nonsense", verifier)), (404, "flow_state_not_found".into()));
    for path in ["/otp", "/recover"] {
        world.sql("update auth.users set recovery_sent_at = null");
        assert_eq!(post(&world, path, &with(json!({ "email": "ada@example.com" }))).status, 200, "{path}");
        let (_, link, _) = mail(&world, "ada@example.com").remove(0);
        assert_eq!(grant(&code_of(&follow(&world, &link)), verifier).status, 200, "{path}");
    }
    // Typed, the code of the e-mail is proof enough.
    world.sql("update auth.users set recovery_sent_at = null");
    post(&world, "/otp", &with(json!({ "email": "ada@example.com" })));
    let (_, _, typed) = mail(&world, "ada@example.com").remove(0);
    let verified = post(&world, "/verify", &json!({ "type": "email", "email": "ada@example.com", "token": typed }));
    assert!(verified.json()["access_token"].is_string(), "{}", verified.text());
    for (method, challenge) in [("plain", challenge), ("s256", "short"), ("", challenge), ("s256", "")] {
        let body = json!({ "email": "ada@example.com", "code_challenge": challenge, "code_challenge_method": method });
        assert_eq!(refused(&post(&world, "/otp", &body)), (400, "validation_failed".into()), "{method} {challenge}");
    }
}

/// A password is not changed by whoever found an old session.
fn security_a10_reauthentication(backend: Backend) {
    let world = World::start_dev(backend, &["--auth-email-secure-password-change"]);
    let ada = sign_up(&world, "ada@example.com");
    let token = text(&ada, "access_token");
    let put = |body: &Value| world.auth(Some(token), "PUT /user").json(body).send();
    assert_eq!(put(&json!({ "password": "a first horse battery" })).status, 200, "the session is fresh");
    world.sql("update auth.sessions set created_at = created_at - interval '25 hours'");
    let change = |nonce: &str| put(&json!({ "password": "another horse battery", "nonce": nonce }));
    assert_eq!(refused(&change("")), (400, "reauthentication_needed".into()));
    assert_eq!(refused(&change("123456")), (422, "reauthentication_not_valid".into()));
    let asked = world.auth(Some(token), "GET /reauthenticate").send();
    assert_eq!((asked.status, asked.json()), (200, json!({})));
    let mut ask = world.ask(&Who::Nobody, "GET /");
    ask.move_to(&format!("{}/rest/v1/", world.node.url), &format!("{}/inbox/api/v1/messages", world.node.url));
    let messages = ask.send().json();
    let code = text(&messages["messages"][0], "Snippet")
        .lines()
        .find_map(|line| line.strip_prefix("Enter the code: "))
        .unwrap()
        .to_owned();
    assert_eq!(change(&code).status, 200);
    assert_eq!(sign_in(&world, "ada@example.com", "another horse battery").status, 200);
    assert_eq!(
        refused(&put(&json!({ "password": "a third horse battery", "nonce": code }))),
        (422, "reauthentication_not_valid".into()),
        "once"
    );
}

/// Each with a node of its own, on both databases.
macro_rules! with_a_node {
    ($($name:ident),*) => {
        mod mailed_embedded { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Embedded); })* }
        mod mailed_server { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Server); })* }
    };
}
with_a_node!(
    security_a4_nobody_learns_who_is_there,
    security_t5_sessions_end,
    security_a11_nobody_prepares_an_account_for_another,
    security_a10_reauthentication,
    proofs,
    confirmations,
    recoveries,
    changes_of_addresses,
    invitations
);

/// A mail server that is away for a while loses nothing, and nothing stays in the queue.
fn mail_is_delivered(backend: Backend) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let project = tempfile::tempdir().unwrap();
    let config = format!(
        "[auth.email]\nenable_confirmations = true\n[auth.email.smtp]\nhost = \"127.0.0.1\"\nport = {}\n\
         admin_email = \"no-reply@example.com\"\nsender_name = \"The Shop\"\n",
        address.port()
    );
    std::fs::create_dir(project.path().join("supabase")).unwrap();
    std::fs::write(project.path().join("supabase/config.toml"), config).unwrap();
    let world = World::start_project(backend, project.path());
    let signed_up = post(&world, "/signup", &json!({ "email": "ada@example.com", "password": PASSWORD }));
    assert_eq!(signed_up.status, 200, "{}", signed_up.text());
    ntier_tests::until("it was tried in vain", || {
        world
            .sql("select id from ntier.mail where last_error is not null")
            .as_array()
            .is_some_and(|rows| !rows.is_empty())
    });
    let messages = ntier_tests::mail::take_everything(std::net::TcpListener::bind(address).unwrap());
    let message = messages.recv_timeout(ntier_tests::node::PATIENCE).expect("it comes in the end");
    for part in [
        "From: \"The Shop\" <no-reply@example.com>",
        "To: ada@example.com",
        "Subject: Confirm Your Signup",
        "text/plain",
        "text/html",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    ntier_tests::until("the queue is empty", || world.sql("select id from ntier.mail") == json!([]));
    let plain = message.replace("=\n", "").replace("=3D", "=");
    let code =
        plain.lines().find_map(|line| line.strip_prefix("Alternatively, enter the code: ")).unwrap().trim().to_owned();
    let verify = json!({ "type": "signup", "email": "ada@example.com", "token": code });
    assert_eq!(post(&world, "/verify", &verify).status, 200);
}

#[test]
fn mail_is_delivered_embedded() {
    mail_is_delivered(Backend::Embedded);
}

#[test]
fn mail_is_delivered_server() {
    mail_is_delivered(Backend::Server);
}

#[test]
fn the_inbox_is_not_served_otherwise() {
    let world = World::start(Backend::Embedded);
    let mut ask = world.ask(&Who::Nobody, "GET /");
    ask.move_to(&format!("{}/rest/v1/", world.node.url), &format!("{}/inbox/api/v1/messages", world.node.url));
    assert_eq!(ask.send().status, 404);
    let answer = post(&world, "/recover", &json!({ "email": "ada@example.com" }));
    assert_eq!(refused(&answer), (500, "unexpected_failure".into()), "nobody would deliver it");
}

/// A client far away, as a proxy names it. The limits alone, without the bans that follow.
fn limits(backend: Backend) {
    let world = World::start_with(backend, &["--trusted-proxy", "127.0.0.1", "--defence-mode", "off"]);
    let attempt = |forwarded: &str, email: &str| {
        let ask = world.auth(None, "POST /token?grant_type=password").header("x-forwarded-for", forwarded);
        ask.json(&json!({ "email": email, "password": "wrong" })).send().status
    };
    let statuses: Vec<u16> = (0..32).map(|number| attempt("203.0.113.7", &format!("a{number}@b.c"))).collect();
    assert!(statuses[..30].iter().all(|status| *status == 400), "{statuses:?}");
    // Two more may have been given by the time that passed.
    assert_eq!(attempts_refused(&|| attempt("6.6.6.6, 203.0.113.7", "x@b.c")), 429, "a forged address does not help");
    assert_eq!(attempt("203.0.113.8", "x@b.c"), 400, "others are not concerned");
    // Many addresses, one account.
    let one = |number: u32| attempt(&format!("198.51.100.{number}"), "victim@b.c");
    assert_eq!(attempts_refused(&|| one(1)), 429);
    // One in ten seconds is let through.
    let refused = (0..10).filter(|number| one(100 + number) == 429).count();
    assert!(refused >= 8, "the account's bucket is empty for all addresses: {refused}");
}

/// The answer once it is a refusal; hashing takes time, in which the bucket fills a little.
fn attempts_refused(attempt: &dyn Fn() -> u16) -> u16 {
    (0..60).map(|_| attempt()).find(|status| *status == 429).unwrap_or_default()
}

#[test]
fn security_a5_a6_a7_limits_embedded() {
    limits(Backend::Embedded);
}

#[test]
fn security_a5_a6_a7_limits_server() {
    limits(Backend::Server);
}
