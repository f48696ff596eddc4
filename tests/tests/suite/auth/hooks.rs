//! What a project adds to sign-in: functions of its database and services of its own; proof that a person asks.

use std::sync::{Arc, Mutex};

use ntier_security::webhook;
use ntier_tests::service::{self, Asked, Said};
use ntier_tests::{Backend, World};
use serde_json::{Value, json};

use super::{PASSWORD, claims, post, refused, sign_in, sign_up, text, user};

/// `v1,whsec_` and 24 bytes.
const SECRET: &str = "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn start(backend: Backend, config: &str, migration: &str) -> World {
    let project = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(project.path().join("supabase/migrations")).unwrap();
    std::fs::write(project.path().join("supabase/config.toml"), config).unwrap();
    std::fs::write(project.path().join("supabase/migrations/20260101000000_hooks.sql"), migration).unwrap();
    World::start_project(backend, project.path())
}

fn functions_of_the_database(backend: Backend) {
    let hook =
        |name: &str| format!("[auth.hook.{name}]\nenabled = true\nuri = \"pg-functions://postgres/public/{name}\"\n");
    let config = ["custom_access_token", "before_user_created", "password_verification_attempt"].map(hook).concat();
    let migration = "
        create table attempts (user_id uuid, valid boolean);
        create function custom_access_token(event jsonb) returns jsonb language plpgsql as $$
        begin
          if event -> 'claims' -> 'user_metadata' ->> 'broken' = 'yes' then return jsonb_build_object('claims', jsonb_build_object()); end if;
          return jsonb_build_object('claims', event -> 'claims' || jsonb_build_object('tenant', 7, 'by', event ->> 'authentication_method'));
        end $$;
        create function before_user_created(event jsonb) returns jsonb language sql as $$
          select case when event -> 'user' ->> 'email' like '%@example.com' then '{}'::jsonb
            else jsonb_build_object('error', jsonb_build_object('http_code', 403, 'message', 'Only for us: ' || current_user)) end
        $$;
        create function password_verification_attempt(event jsonb) returns jsonb language plpgsql security definer as $$
        begin
          insert into public.attempts values ((event ->> 'user_id')::uuid, (event ->> 'valid')::boolean);
          if (select count(*) from public.attempts where not valid) > 2 then
            return jsonb_build_object('decision', 'reject', 'message', 'Enough', 'should_logout_user', true);
          end if;
          return jsonb_build_object('decision', 'continue');
        end $$;
        grant usage on schema public to supabase_auth_admin;
        revoke execute on all functions in schema public from public, anon, authenticated;
        grant execute on all functions in schema public to supabase_auth_admin;
    ";
    let world = start(backend, &config, migration);
    let ada = sign_up(&world, "ada@example.com");
    let of = |session: &Value| claims(text(session, "access_token"));
    assert_eq!((&of(&ada)["tenant"], &of(&ada)["by"]), (&json!(7), &json!("password")));
    let refreshed =
        post(&world, "/token?grant_type=refresh_token", &json!({ "refresh_token": ada["refresh_token"] })).json();
    assert_eq!((&of(&refreshed)["tenant"], &of(&refreshed)["by"]), (&json!(7), &json!("token_refresh")));
    let stranger = post(&world, "/signup", &json!({ "email": "eve@evil.com", "password": PASSWORD }));
    assert_eq!((stranger.status, text(&stranger.json(), "msg")), (403, "Only for us: supabase_auth_admin"));
    assert_eq!(world.sql("select id from auth.users where email like '%evil%'"), json!([]));
    let broken = post(
        &world,
        "/signup",
        &json!({ "email": "bob@example.com", "password": PASSWORD, "data": { "broken": "yes" } }),
    );
    assert_eq!(refused(&broken), (500, "unexpected_failure".into()));
    assert_eq!(
        world.sql(
            "select id from auth.sessions where user_id <> (select id from auth.users where email = 'ada@example.com')"
        ),
        json!([])
    );
    for _ in 0..2 {
        assert_eq!(refused(&sign_in(&world, "ada@example.com", "wrong")), (400, "invalid_credentials".into()));
    }
    assert_eq!(user(&world, &ada).status, 200);
    let enough = sign_in(&world, "ada@example.com", "wrong");
    assert_eq!((enough.status, text(&enough.json(), "msg")), (400, "Enough"));
    assert_eq!(sign_in(&world, "ada@example.com", PASSWORD).status, 400, "the right one too");
    assert_eq!(refused(&user(&world, &ada)), (403, "session_not_found".into()), "signed out by it");
}

/// Keeps what was asked.
fn listen(answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> (String, Arc<Mutex<Vec<Asked>>>) {
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let sink = asked.clone();
    let url = service::serve(move |_, one| {
        sink.lock().unwrap().push(one.clone());
        answer(one)
    });
    (url, asked)
}

fn services_are_called_with_signatures(backend: Backend) {
    let json_type = || vec![("content-type", "application/json".to_owned())];
    let (url, asked) = listen(move |one| {
        let body: Value = serde_json::from_str(&one.body).unwrap();
        match (one.path.as_str(), body["user"]["email"].as_str()) {
            ("/before", Some("eve@example.com")) => {
                (200, json_type(), json!({ "error": { "http_code": 422, "message": "No" } }).to_string())
            }
            ("/before", Some("teapot@example.com")) => (418, Vec::new(), String::new()),
            ("/before", Some("html@example.com")) => (200, Vec::new(), "<p>".into()),
            _ => (200, json_type(), "{}".into()),
        }
    });
    let hook = |name: &str, path: &str| {
        format!("[auth.hook.{name}]\nenabled = true\nuri = \"{url}{path}\"\nsecrets = \"{SECRET}\"\n")
    };
    let config = format!(
        "[auth]\nsite_url = \"https://app.example.com\"\n{}{}{}[auth.email]\nenable_confirmations = false\ndouble_confirm_changes = true\n[auth.sms]\nenable_signup = true\nenable_confirmations = true\n",
        hook("before_user_created", "/before"),
        hook("send_sms", "/sms"),
        hook("send_email", "/email")
    );
    let world = start(backend, &config, "select 1;");
    sign_up(&world, "ada@example.com");
    let one = asked.lock().unwrap()[0].clone();
    let (id, time) = (one.header("webhook-id").unwrap(), one.header("webhook-timestamp").unwrap().parse().unwrap());
    let expected = webhook::sign(&[webhook::secret(SECRET).unwrap()], id, time, &one.body);
    assert_eq!(one.header("webhook-signature"), Some(expected.as_str()));
    let body: Value = serde_json::from_str(&one.body).unwrap();
    assert_eq!(
        (text(&body["metadata"], "name"), text(&body["user"], "email")),
        ("before-user-created", "ada@example.com")
    );
    for (email, status, code) in [
        ("eve@example.com", 422, "unknown"),
        ("teapot@example.com", 500, "unexpected_failure"),
        ("html@example.com", 400, "hook_payload_invalid_content_type"),
    ] {
        let answer = post(&world, "/signup", &json!({ "email": email, "password": PASSWORD }));
        assert_eq!(refused(&answer), (status, code.into()), "{email}");
    }
    // Messages go the project's own way.
    assert_eq!(post(&world, "/otp", &json!({ "phone": "4930111" })).status, 200);
    let sent = || asked.lock().unwrap().iter().find(|one| one.path == "/sms").cloned();
    ntier_tests::until("the message is sent", || sent().is_some());
    let body: Value = serde_json::from_str(&sent().unwrap().body).unwrap();
    assert_eq!((text(&body["sms"], "phone"), text(&body["user"], "phone")), ("4930111", "4930111"));
    let verify = json!({ "type": "sms", "phone": "4930111", "token": text(&body["sms"], "otp") });
    let as_mail = json!({ "type": "signup", "phone": "4930111", "token": text(&body["sms"], "otp") });
    assert_eq!(refused(&post(&world, "/verify", &as_mail)), (403, "otp_expired".into()), "a phone proves no mailbox");
    assert_eq!(post(&world, "/verify", &verify).status, 200);
    e_mails_go_by_a_service(&world, &asked);
}

fn e_mails_go_by_a_service(world: &World, asked: &Mutex<Vec<Asked>>) {
    let sent = |action: &str| {
        let bodies: Vec<Value> = asked
            .lock()
            .unwrap()
            .iter()
            .filter(|one| one.path == "/email")
            .map(|one| serde_json::from_str(&one.body).unwrap())
            .collect();
        bodies.into_iter().find(|body| body["email_data"]["email_action_type"] == action)
    };
    let wait = |action: &str| {
        ntier_tests::until(action, || sent(action).is_some());
        sent(action).unwrap()
    };
    assert_eq!(post(world, "/recover", &json!({ "email": "ada@example.com" })).status, 200);
    let body = wait("recovery");
    let data = &body["email_data"];
    assert_eq!((text(&body["user"], "email"), text(data, "site_url")), ("ada@example.com", "https://app.example.com"));
    let by_hash = json!({ "type": "recovery", "token_hash": text(data, "token_hash") });
    let session = post(world, "/verify", &by_hash).json();
    let by_code = json!({ "type": "recovery", "email": "ada@example.com", "token": text(data, "token") });
    assert_eq!(refused(&post(world, "/verify", &by_code)), (403, "otp_expired".into()), "it was one token");
    // Both mailboxes confirm; the names of the two tokens are crossed, as GoTrue's are.
    let change = world
        .auth(Some(text(&session, "access_token")), "PUT /user")
        .json(&json!({ "email": "ada@example.org" }))
        .send();
    assert_eq!(change.status, 200, "{}", change.text());
    let body = wait("email_change");
    let data = &body["email_data"];
    assert_eq!((text(&body["user"], "new_email"), text(data, "old_email")), ("ada@example.org", "ada@example.com"));
    let old = json!({ "type": "email_change", "email": "ada@example.com", "token": text(data, "token") });
    assert_eq!(post(world, "/verify", &old).status, 200);
    let new = json!({ "type": "email_change", "token_hash": text(data, "token_hash") });
    assert_eq!(text(&post(world, "/verify", &new).json()["user"], "email"), "ada@example.org");
    assert_eq!(world.sql("select id from ntier.mail where channel = 'email'"), json!([]));
}

fn people_show_that_they_are(backend: Backend) {
    let (url, asked) = listen(|one| {
        let is_good =
            one.field("response").as_deref() == Some("good") && one.field("secret").as_deref() == Some("a secret");
        (200, Vec::new(), json!({ "success": is_good, "error-codes": ["invalid-input-response"] }).to_string())
    });
    let project = tempfile::tempdir().unwrap();
    std::fs::create_dir(project.path().join("supabase")).unwrap();
    let config = "[auth.captcha]\nenabled = true\nprovider = \"turnstile\"\nsecret = \"a secret\"\n";
    std::fs::write(project.path().join("supabase/config.toml"), config).unwrap();
    std::fs::write(
        project.path().join("ntier.toml"),
        format!("[auth]\nsingle_session = true\n[auth.captcha]\nurl = \"{url}\"\n"),
    )
    .unwrap();
    let world = World::start_project(backend, project.path());
    let with = |token: &str| json!({ "email": "ada@example.com", "password": PASSWORD, "gotrue_meta_security": { "captcha_token": token } });
    let bare = post(&world, "/signup", &json!({ "email": "ada@example.com", "password": PASSWORD }));
    assert_eq!(refused(&bare), (400, "captcha_failed".into()));
    let bad = post(&world, "/signup", &with("bad"));
    assert_eq!(refused(&bad), (400, "captcha_failed".into()));
    assert!(bad.text().contains("invalid-input-response"), "{}", bad.text());
    let ada = post(&world, "/signup", &with("good"));
    assert_eq!(ada.status, 200, "{}", ada.text());
    assert_eq!(asked.lock().unwrap().last().unwrap().field("remoteip").as_deref(), Some("127.0.0.1"));
    let refreshed =
        post(&world, "/token?grant_type=refresh_token", &json!({ "refresh_token": ada.json()["refresh_token"] }));
    assert_eq!(refreshed.status, 200, "no person is there");
    // T5: whoever signs in is signed out everywhere else, where the project wants it so.
    let second = post(&world, "/token?grant_type=password", &with("good"));
    assert_eq!(second.status, 200, "{}", second.text());
    assert_eq!(refused(&user(&world, &ada.json())), (403, "session_not_found".into()));
    assert_eq!(user(&world, &second.json()).status, 200);
}

macro_rules! with_additions {
    ($($name:ident),* $(,)?) => {
        mod embedded { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Embedded); })* }
        mod server { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Server); })* }
    };
}
with_additions!(functions_of_the_database, services_are_called_with_signatures, people_show_that_they_are);
