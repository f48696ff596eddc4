//! Passkeys, and the second factors that are not apps: security keys and messages to a phone.

use ntier_tests::authenticator::Authenticator;
use ntier_tests::{Answer, Backend, World};
use serde_json::{Value, json};

use super::{PASSWORD, admin, post, refused, sign_in, sign_up, text, user};

const ORIGIN: &str = "http://localhost:5173";

fn ask(world: &World, session: Option<&Value>, line: &str, body: &Value) -> Answer {
    world.auth(session.map(|session| text(session, "access_token")), line).json(body).send()
}

/// A passkey of whoever has this session.
fn register(world: &World, session: &Value, authenticator: &mut Authenticator) -> Answer {
    let options = ask(world, Some(session), "POST /passkeys/registration/options", &json!({})).json();
    let credential = authenticator.create(&options["options"]);
    let body = json!({ "challenge_id": options["challenge_id"], "credential": credential });
    ask(world, Some(session), "POST /passkeys/registration/verify", &body)
}

/// The challenge and the answer of a sign-in.
fn answered(world: &World, authenticator: &mut Authenticator) -> Value {
    let options = post(world, "/passkeys/authentication/options", &json!({})).json();
    json!({ "challenge_id": options["challenge_id"], "credential": authenticator.get(&options["options"]) })
}

fn passkeys(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let options = ask(world, Some(&ada), "POST /passkeys/registration/options", &json!({})).json();
    assert_eq!(options["options"]["rp"]["id"], "localhost", "credentials are bound to names");
    assert_eq!(options["options"]["authenticatorSelection"]["residentKey"], "required");
    let mut key = Authenticator::new(ORIGIN);
    let made = register(world, &ada, &mut key);
    assert_eq!((made.status, text(&made.json(), "friendly_name")), (200, "Passkey"), "{}", made.text());
    assert_eq!(refused(&register(world, &ada, &mut key)), (422, "webauthn_credential_exists".into()));
    let body = answered(world, &mut key);
    let session = post(world, "/passkeys/authentication/verify", &body);
    assert_eq!((session.status, &session.json()["user"]["id"]), (200, &ada["user"]["id"]), "{}", session.text());
    let again = post(world, "/passkeys/authentication/verify", &body);
    assert_eq!(refused(&again), (400, "webauthn_challenge_not_found".into()), "once");
    let listed = world.auth(Some(text(&ada, "access_token")), "GET /passkeys").send().json();
    assert!(listed[0]["last_used_at"].is_string() && listed[0]["id"] == made.json()["id"], "{listed}");
    let id = text(&made.json(), "id").to_owned();
    let renamed = ask(world, Some(&ada), &format!("PATCH /passkeys/{id}"), &json!({ "friendly_name": "the blue one" }));
    assert_eq!((renamed.status, text(&renamed.json(), "friendly_name")), (200, "the blue one"));
    // Nobody else has anything to do with it.
    let eve = sign_up(world, "eve@example.com");
    for line in [format!("PATCH /passkeys/{id}"), format!("DELETE /passkeys/{id}")] {
        assert_eq!(ask(world, Some(&eve), &line, &json!({ "friendly_name": "mine" })).status, 404, "{line}");
    }
    let mut foreign = Authenticator::new(ORIGIN);
    let offered = ask(world, Some(&ada), "POST /passkeys/registration/options", &json!({})).json();
    foreign.create(&offered["options"]);
    let unknown = post(world, "/passkeys/authentication/verify", &answered(world, &mut foreign));
    assert_eq!(refused(&unknown), (400, "webauthn_verification_failed".into()));
    key.origin = "https://evil.com".into();
    let elsewhere = post(world, "/passkeys/authentication/verify", &answered(world, &mut key));
    assert_eq!(refused(&elsewhere), (400, "webauthn_verification_failed".into()));
    key.origin = ORIGIN.into();
    // A challenge is for whoever has asked for it.
    let options = ask(world, Some(&ada), "POST /passkeys/registration/options", &json!({})).json();
    let body = json!({ "challenge_id": options["challenge_id"], "credential": foreign.create(&options["options"]) });
    let stolen = ask(world, Some(&eve), "POST /passkeys/registration/verify", &body);
    assert_eq!(refused(&stolen), (400, "webauthn_challenge_not_found".into()));
    let body = answered(world, &mut key);
    world.sql("update auth.webauthn_challenges set expires_at = now() - interval '1 second'");
    let late = post(world, "/passkeys/authentication/verify", &body);
    assert_eq!(refused(&late), (400, "webauthn_challenge_expired".into()));
    // A copy of the credential counts on by itself, and is told by that.
    world.sql("update auth.webauthn_credentials set sign_count = 1000");
    let copy = post(world, "/passkeys/authentication/verify", &answered(world, &mut key));
    assert_eq!(refused(&copy), (400, "webauthn_verification_failed".into()));
    world.sql("update auth.webauthn_credentials set sign_count = 0");
    assert_eq!(post(world, "/passkeys/authentication/verify", &answered(world, &mut key)).status, 200);
    let owner = text(&ada["user"], "id");
    let of_ada = admin(world, &format!("GET /admin/users/{owner}/passkeys"), None).json();
    assert_eq!(text(&of_ada[0], "id"), id);
    assert_eq!(admin(world, &format!("DELETE /admin/users/{owner}/passkeys/{id}"), None).status, 204);
    let removed = post(world, "/passkeys/authentication/verify", &answered(world, &mut key));
    assert_eq!(refused(&removed), (400, "webauthn_verification_failed".into()));
    for (body, code) in [
        (json!({}), "validation_failed"),
        (json!({ "challenge_id": "x", "credential": {} }), "validation_failed"),
        (json!({ "challenge_id": "x" }), "validation_failed"),
    ] {
        assert_eq!(refused(&post(world, "/passkeys/authentication/verify", &body)), (400, code.into()), "{body}");
    }
    assert_eq!(post(world, "/passkeys/registration/options", &json!({})).status, 401);
}

/// A security key as the second factor; whoever has one shows it before passkeys change.
fn security_keys(world: &mut World) {
    let ada = sign_up(world, "ada@example.com");
    let enrolled =
        ask(world, Some(&ada), "POST /factors", &json!({ "factor_type": "webauthn", "friendly_name": "key" }));
    assert_eq!((enrolled.status, text(&enrolled.json(), "type")), (200, "webauthn"), "{}", enrolled.text());
    let factor = text(&enrolled.json(), "id").to_owned();
    let mut key = Authenticator::new(ORIGIN);
    let challenge =
        |session: &Value| ask(world, Some(session), &format!("POST /factors/{factor}/challenge"), &json!({})).json();
    let verify = |session: &Value, challenge: &Value, kind: &str, credential: Value| {
        let body =
            json!({ "challenge_id": challenge["id"], "webauthn": { "type": kind, "credential_response": credential } });
        ask(world, Some(session), &format!("POST /factors/{factor}/verify"), &body)
    };
    let asked = challenge(&ada);
    assert_eq!(asked["webauthn"]["type"], "create", "{asked}");
    let options = &asked["webauthn"]["credential_options"]["publicKey"];
    let credential = key.create(options);
    assert_eq!(refused(&verify(&ada, &asked, "request", credential.clone())), (400, "validation_failed".into()));
    let session = verify(&ada, &asked, "create", credential);
    assert_eq!(session.status, 200, "{}", session.text());
    // Another session begins with the password alone.
    let first = sign_in(world, "ada@example.com", PASSWORD).json();
    let options = ask(world, Some(&first), "POST /passkeys/registration/options", &json!({}));
    assert_eq!(refused(&options), (403, "insufficient_aal".into()));
    let asked = challenge(&first);
    let options = &asked["webauthn"]["credential_options"]["publicKey"];
    assert_eq!(
        (&asked["webauthn"]["type"], options["allowCredentials"].as_array().unwrap().len()),
        (&json!("request"), 1)
    );
    let mut another = Authenticator::new(ORIGIN);
    assert_eq!(
        refused(&verify(&first, &asked, "request", another.get(options))),
        (422, "mfa_verification_failed".into())
    );
    let second = verify(&first, &asked, "request", key.get(options));
    assert_eq!(second.status, 200, "{}", second.text());
    assert_eq!(ask(world, Some(&second.json()), "POST /passkeys/registration/options", &json!({})).status, 200);
    assert_eq!(user(world, &second.json()).json()["factors"][0]["factor_type"], "webauthn");
}

ntier_tests::on_both!(passkeys, security_keys);

/// Messages to phones, in the inbox of `ntier dev`.
fn phones(backend: Backend) {
    let project = tempfile::tempdir().unwrap();
    std::fs::create_dir(project.path().join("supabase")).unwrap();
    let config = "[auth.sms]\nenable_signup = true\nenable_confirmations = true\nmax_frequency = \"1s\"\ntemplate = \"Yours: {{ .Code }}\"\n\
        [auth.sms.test_otp]\n4930999 = \"123456\"\n[auth.mfa.phone]\nenroll_enabled = true\nverify_enabled = true\n";
    std::fs::write(project.path().join("supabase/config.toml"), config).unwrap();
    let world = World::start_dev_project(backend, project.path(), &["--auth-sms-inbox"]);
    let code = |phone: &str| -> String {
        let rows = world.sql(&format!(
            "select plain from ntier.mail where recipient = '{phone}' and channel = 'sms' order by id desc limit 1"
        ));
        text(&rows[0], "plain").strip_prefix("Yours: ").unwrap().to_owned()
    };
    let verify = |kind: &str, phone: &str, code: &str| {
        post(&world, "/verify", &json!({ "type": kind, "phone": phone, "token": code }))
    };
    let wrong = |code: &str| if code == "000000" { "000001" } else { "000000" };
    let wait = || {
        world.sql("update auth.users set confirmation_sent_at = null, phone_change_sent_at = null, reauthentication_sent_at = null")
    };
    // Sign-up, confirmed by a code.
    let body = json!({ "phone": "+49 30 111", "password": PASSWORD });
    let signed_up = post(&world, "/signup", &body);
    assert_eq!((signed_up.status, &signed_up.json()["access_token"]), (200, &Value::Null), "{}", signed_up.text());
    let password = json!({ "phone": "4930111", "password": PASSWORD });
    assert_eq!(refused(&post(&world, "/token?grant_type=password", &password)), (400, "phone_not_confirmed".into()));
    let first = code("4930111");
    assert_eq!(refused(&verify("sms", "+4930111", wrong(&first))), (403, "otp_expired".into()));
    wait();
    assert_eq!(post(&world, "/resend", &json!({ "type": "sms", "phone": "4930111" })).status, 200);
    assert_eq!(refused(&verify("sms", "+4930111", &first)), (403, "otp_expired".into()), "the last code counts");
    let ada = verify("sms", "+4930111", &code("4930111"));
    assert_eq!((ada.status, text(&ada.json()["user"], "phone")), (200, "4930111"), "{}", ada.text());
    let ada = ada.json();
    assert_eq!(post(&world, "/token?grant_type=password", &password).status, 200);
    // Sign-in by a code alone; a number whose code is known gets no message.
    wait();
    assert_eq!(post(&world, "/otp", &json!({ "phone": "4930111" })).status, 200);
    let again = post(&world, "/otp", &json!({ "phone": "4930111" }));
    assert_eq!(refused(&again), (429, "over_sms_send_rate_limit".into()));
    assert_eq!(verify("sms", "4930111", &code("4930111")).status, 200);
    assert_eq!(post(&world, "/otp", &json!({ "phone": "4930222", "create_user": false })).status, 422);
    assert_eq!(post(&world, "/otp", &json!({ "phone": "4930999" })).status, 200);
    assert_eq!(verify("sms", "4930999", "123456").status, 200);
    assert_eq!(post(&world, "/otp", &json!({ "phone": "4930222", "channel": "pigeon" })).status, 400);
    // The number changes once the new one has answered.
    let put = |body: &Value| ask(&world, Some(&ada), "PUT /user", body);
    let changing = put(&json!({ "phone": "+4930333" }));
    assert_eq!((text(&changing.json(), "phone"), text(&changing.json(), "new_phone")), ("4930111", "4930333"));
    let changed = verify("phone_change", "+4930333", &code("4930333"));
    assert_eq!((changed.status, text(&changed.json()["user"], "phone")), (200, "4930333"), "{}", changed.text());
    assert!(changed.json()["user"].get("new_phone").is_none());
    // A second factor.
    let enroll = |phone: &str| {
        ask(
            &world,
            Some(&ada),
            "POST /factors",
            &json!({ "factor_type": "phone", "friendly_name": phone, "phone": phone }),
        )
    };
    let factor = enroll("+4930444").json();
    assert_eq!(text(&factor, "phone"), "+4930444");
    let id = text(&factor, "id");
    let challenge =
        ask(&world, Some(&ada), &format!("POST /factors/{id}/challenge"), &json!({ "channel": "sms" })).json();
    let prove = |code: &str| {
        ask(
            &world,
            Some(&ada),
            &format!("POST /factors/{id}/verify"),
            &json!({ "challenge_id": challenge["id"], "code": code }),
        )
    };
    let right = code("4930444");
    assert_eq!(refused(&prove(wrong(&right))), (422, "mfa_verification_failed".into()));
    let second = prove(&right);
    assert_eq!(second.status, 200, "{}", second.text());
    assert_eq!(refused(&prove(&right)), (422, "mfa_challenge_expired".into()), "once");
    let kept = world.sql("select otp_code from auth.mfa_challenges");
    assert!(!kept.to_string().contains(&right), "hashed: {kept}");
    let twice =
        ask(&world, Some(&second.json()), "POST /factors", &json!({ "factor_type": "phone", "phone": "+4930444" }));
    assert_eq!(refused(&twice), (422, "mfa_verified_factor_exists".into()));
}

#[test]
fn phones_embedded() {
    phones(Backend::Embedded);
}

#[test]
fn phones_server() {
    phones(Backend::Server);
}

/// A service that speaks Twilio's HTTP takes the messages; away, it loses none.
fn messages_are_delivered(backend: Backend) {
    use std::sync::atomic::{AtomicU16, Ordering};
    use std::sync::{Arc, Mutex};
    let taken = Arc::new(Mutex::new(Vec::new()));
    let status = Arc::new(AtomicU16::new(503));
    let (sink, answer) = (taken.clone(), status.clone());
    let url = ntier_tests::service::serve(move |_, asked| {
        sink.lock().unwrap().push(asked.clone());
        (answer.load(Ordering::Relaxed), Vec::new(), "{\"status\": \"queued\"}".to_owned())
    });
    let project = tempfile::tempdir().unwrap();
    std::fs::create_dir(project.path().join("supabase")).unwrap();
    let config = "[auth.sms]\nenable_signup = true\nenable_confirmations = true\n[auth.sms.twilio]\nenabled = true\naccount_sid = \"AC1\"\n\
        message_service_sid = \"MG1\"\nauth_token = \"a token\"\n";
    std::fs::write(project.path().join("supabase/config.toml"), config).unwrap();
    std::fs::write(project.path().join("ntier.toml"), format!("[auth.sms]\nurl = \"{url}\"\n")).unwrap();
    let world = World::start_project(backend, project.path());
    assert_eq!(post(&world, "/otp", &json!({ "phone": "4930111" })).status, 200);
    ntier_tests::until("it was tried in vain", || !taken.lock().unwrap().is_empty());
    status.store(201, Ordering::Relaxed);
    ntier_tests::until("the queue is empty", || world.sql("select id from ntier.mail") == json!([]));
    let last = taken.lock().unwrap().last().unwrap().clone();
    assert_eq!(last.path, "/2010-04-01/Accounts/AC1/Messages.json");
    assert_eq!(last.header("authorization"), Some("Basic QUMxOmEgdG9rZW4="));
    assert_eq!(
        (last.field("To").as_deref(), last.field("MessagingServiceSid").as_deref()),
        (Some("+4930111"), Some("MG1"))
    );
    let body = last.field("Body").unwrap();
    let code = body.strip_prefix("Your code is ").unwrap();
    assert_eq!(post(&world, "/verify", &json!({ "type": "sms", "phone": "4930111", "token": code })).status, 200);
}

#[test]
fn messages_are_delivered_embedded() {
    messages_are_delivered(Backend::Embedded);
}

#[test]
fn messages_are_delivered_server() {
    messages_are_delivered(Backend::Server);
}
