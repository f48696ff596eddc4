//! This node as the provider: applications, consent, codes, and what their tokens may do.

use ntier_tests::service::decoded;
use ntier_tests::{Answer, Backend, Who, World};
use serde_json::{Value, json};

use super::{admin, claims, post, refused, sign_up, text, user};

const BACK: &str = "https://their.example.com/callback";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn start(backend: Backend) -> World {
    let project = tempfile::tempdir().unwrap();
    std::fs::create_dir(project.path().join("supabase")).unwrap();
    let config = "[auth]\nsite_url = \"https://app.example.com\"\n[auth.oauth_server]\nenabled = true\n\
        authorization_url_path = \"/oauth/consent\"\nallow_dynamic_registration = true\n";
    std::fs::write(project.path().join("supabase/config.toml"), config).unwrap();
    World::start_project(backend, project.path())
}

/// As a browser or an application, which has no key.
fn outside<'a>(world: &'a World, line: &str) -> ntier_tests::ask::Ask<'a> {
    let mut ask = world.ask(&Who::Nobody, line);
    ask.move_to("/rest/v1", "/auth/v1");
    ask
}

fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn token(world: &World, fields: &[(&str, &str)]) -> Answer {
    outside(world, "POST /oauth/token").body("application/x-www-form-urlencoded", form(fields)).send()
}

/// A new application: its id and its secret.
fn client(world: &World, more: Value) -> (String, String) {
    let mut body = json!({ "client_name": "Theirs", "redirect_uris": [BACK] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = admin(world, "POST /admin/oauth/clients", Some(&body));
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    (text(&made, "client_id").to_owned(), made["client_secret"].as_str().unwrap_or_default().to_owned())
}

/// The id of an authorization that a browser has begun.
fn begin(world: &World, client: &str, scope: &str) -> String {
    let query = form(&[
        ("client_id", client),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("scope", scope),
        ("state", "a%20state"),
        ("nonce", "a-nonce"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]);
    let sent = outside(world, &format!("GET /oauth/authorize?{query}")).send();
    let location = sent.header("location").unwrap_or_else(|| panic!("{} {}", sent.status, sent.text())).to_owned();
    location
        .strip_prefix("https://app.example.com/oauth/consent?authorization_id=")
        .unwrap_or_else(|| panic!("{location}"))
        .to_owned()
}

fn consent(world: &World, session: &Value, id: &str, action: &str) -> Answer {
    let line = format!("POST /oauth/authorizations/{id}/consent");
    world.auth(Some(text(session, "access_token")), &line).json(&json!({ "action": action })).send()
}

fn details(world: &World, session: &Value, id: &str) -> Answer {
    world.auth(Some(text(session, "access_token")), &format!("GET /oauth/authorizations/{id}")).send()
}

fn code_of(url: &str) -> String {
    let code = url.split_once("?code=").unwrap_or_else(|| panic!("{url}")).1;
    code.split('&').next().unwrap().to_owned()
}

fn an_application_signs_users_in(world: &World) {
    let ada = sign_up(world, "ada@example.com");
    let (client, secret) = client(world, json!({ "token_endpoint_auth_method": "client_secret_post" }));
    let id = begin(world, &client, "openid%20email%20profile");
    let asked = details(world, &ada, &id).json();
    assert_eq!((text(&asked["client"], "name"), text(&asked, "scope")), ("Theirs", "openid email profile"), "{asked}");
    let eve = sign_up(world, "eve@example.com");
    assert_eq!(refused(&details(world, &eve, &id)), (404, "oauth_authorization_not_found".into()), "it is Ada's");
    assert_eq!(refused(&consent(world, &eve, &id, "approve")), (404, "oauth_authorization_not_found".into()));
    let url = text(&consent(world, &ada, &id, "approve").json(), "redirect_url").to_owned();
    assert!(url.starts_with(&format!("{BACK}?code=")) && url.ends_with("&state=a%20state"), "{url}");
    let code = code_of(&url);
    assert!(
        !world.sql("select authorization_code from auth.oauth_authorizations").to_string().contains(&code),
        "hashed"
    );
    let exchange = |code: &str, secret: &str, verifier: &str| {
        token(
            world,
            &[
                ("grant_type", "authorization_code"),
                ("client_id", &client),
                ("client_secret", secret),
                ("code", code),
                ("redirect_uri", BACK),
                ("code_verifier", verifier),
            ],
        )
    };
    let stranger = exchange(&code, "wrong", VERIFIER);
    assert_eq!((stranger.status, text(&stranger.json(), "error")), (401, "invalid_client"));
    let session = exchange(&code, &secret, VERIFIER);
    assert_eq!(session.status, 200, "{}", session.text());
    let again = exchange(&code, &secret, VERIFIER);
    assert_eq!((again.status, text(&again.json(), "error")), (400, "invalid_grant"), "once");
    let session = session.json();
    assert!(session.get("user").is_none());
    let id_claims = claims(text(&session, "id_token"));
    assert_eq!(
        (&id_claims["aud"], &id_claims["sub"], &id_claims["nonce"], &id_claims["email"]),
        (&json!(client), &ada["user"]["id"], &json!("a-nonce"), &json!("ada@example.com"))
    );
    assert_eq!(claims(text(&session, "access_token"))["client_id"], json!(client));
    let info = outside(world, "GET /oauth/userinfo")
        .header("authorization", &format!("Bearer {}", text(&session, "access_token")))
        .send();
    assert_eq!(
        (&info.json()["sub"], text(&info.json(), "email")),
        (&ada["user"]["id"], "ada@example.com"),
        "{}",
        info.text()
    );
    // It refreshes as itself only, and nobody else with its tokens.
    let refresh = text(&session, "refresh_token");
    let elsewhere = post(world, "/token?grant_type=refresh_token", &json!({ "refresh_token": refresh }));
    assert_eq!(refused(&elsewhere), (400, "refresh_token_not_found".into()));
    let refreshing = |token_of: &str, id: &str, secret: &str| {
        token(
            world,
            &[
                ("grant_type", "refresh_token"),
                ("refresh_token", token_of),
                ("client_id", id),
                ("client_secret", secret),
            ],
        )
    };
    let (other, other_secret) = self::client(world, json!({ "token_endpoint_auth_method": "client_secret_post" }));
    assert_eq!(text(&refreshing(refresh, &other, &other_secret).json(), "error"), "invalid_grant");
    assert_eq!(text(&refreshing(text(&ada, "refresh_token"), &client, &secret).json(), "error"), "invalid_grant");
    assert_eq!(refreshing(refresh, &client, &secret).status, 200);
    // Agreed once, it is not asked again for as much; for more it is.
    let id = begin(world, &client, "email");
    assert!(text(&details(world, &ada, &id).json(), "redirect_url").starts_with(BACK));
    let id = begin(world, &client, "email%20phone");
    assert_eq!(text(&details(world, &ada, &id).json(), "authorization_id"), id);
    let denied = consent(world, &ada, &id, "deny").json();
    assert_eq!(
        decoded(text(&denied, "redirect_url")),
        format!("{BACK}?error=access_denied&error_description=User denied the request&state=a state")
    );
    assert_eq!(refused(&consent(world, &ada, &id, "approve")), (400, "validation_failed".into()), "decided");
    // The user sees it, and ends it.
    let grants = world.auth(Some(text(&ada, "access_token")), "GET /user/oauth/grants").send().json();
    assert_eq!(
        (text(&grants[0]["client"], "id"), &grants[0]["scopes"]),
        (client.as_str(), &json!(["email", "openid", "profile"])),
        "{grants}"
    );
    let revoke = || {
        world.auth(Some(text(&ada, "access_token")), &format!("DELETE /user/oauth/grants?client_id={client}")).send()
    };
    assert_eq!(revoke().status, 204);
    assert_eq!(refused(&revoke()), (404, "oauth_consent_not_found".into()));
    assert_eq!(refused(&user(world, &session)), (403, "session_not_found".into()));
}

/// An application that a user has let in is not the user.
fn security_t2_an_application_changes_nothing(world: &World) {
    let ada = sign_up(world, "ada@example.com");
    let (client, secret) = client(world, json!({}));
    let id = begin(world, &client, "openid");
    details(world, &ada, &id);
    let code = code_of(text(&consent(world, &ada, &id, "approve").json(), "redirect_url"));
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{client}:{secret}"));
    let asked = form(&[("grant_type", "authorization_code"), ("code", &code), ("code_verifier", VERIFIER)]);
    let session = outside(world, "POST /oauth/token")
        .header("authorization", &format!("Basic {basic}"))
        .body("application/x-www-form-urlencoded", asked)
        .send();
    assert_eq!(session.status, 200, "{}", session.text());
    let session = session.json();
    assert_eq!(user(world, &session).status, 200);
    let as_client = |line: &str, body: &Value| world.auth(Some(text(&session, "access_token")), line).json(body).send();
    for (line, body) in [
        ("PUT /user", json!({ "email": "eve@example.com" })),
        ("POST /factors", json!({ "factor_type": "totp" })),
        ("POST /passkeys/registration/options", json!({})),
        ("DELETE /user/oauth/grants?client_id=x", json!({})),
    ] {
        assert_eq!(refused(&as_client(line, &body)), (403, "no_authorization".into()), "{line}");
    }
    let more = begin(world, &client, "phone");
    assert_eq!(
        as_client(&format!("POST /oauth/authorizations/{more}/consent"), &json!({ "action": "approve" })).status,
        403
    );
    // An id token is for the application to read.
    let by_id = world.auth(Some(text(&session, "id_token")), "GET /user").send();
    assert_eq!(refused(&by_id), (403, "bad_jwt".into()));
    assert_eq!(as_client("POST /logout", &json!({})).status, 204);
    assert_eq!(refused(&user(world, &session)), (403, "session_not_found".into()));
    assert_eq!(user(world, &ada).status, 200, "the user's own session stays");
}

fn security_a11_codes_go_where_they_were_asked_for(world: &World) {
    let ada = sign_up(world, "ada@example.com");
    let (client, _) = client(world, json!({ "client_type": "public" }));
    let authorize = |fields: &[(&str, &str)]| outside(world, &format!("GET /oauth/authorize?{}", form(fields))).send();
    let good = [
        ("client_id", client.as_str()),
        ("redirect_uri", BACK),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    for (name, value, code) in [
        ("client_id", "x", "oauth_client_not_found"),
        ("client_id", "00000000-0000-4000-8000-000000000000", "oauth_client_not_found"),
        ("redirect_uri", "https://evil.com/callback", "validation_failed"),
        ("redirect_uri", "https://their.example.com/callback/..", "validation_failed"),
    ] {
        let fields = good.map(|(key, old)| (key, if key == name { value } else { old }));
        assert_eq!(refused(&authorize(&fields)), (400, code.into()), "{name}={value}");
    }
    for (name, value) in [("code_challenge", "short"), ("code_challenge_method", "plain"), ("code_challenge", "")] {
        let fields = good.map(|(key, old)| (key, if key == name { value } else { old }));
        let location = authorize(&fields).header("location").unwrap().to_owned();
        assert!(location.starts_with(&format!("{BACK}?error=invalid_request")), "{name}={value}: {location}");
    }
    let id = begin(world, &client, "email");
    let from_elsewhere = world
        .auth(Some(text(&ada, "access_token")), &format!("GET /oauth/authorizations/{id}"))
        .header("origin", "https://evil.com")
        .send();
    assert_eq!(refused(&from_elsewhere), (400, "validation_failed".into()));
    details(world, &ada, &id);
    let code = code_of(text(&consent(world, &ada, &id, "approve").json(), "redirect_url"));
    // Whoever shows it with the wrong proof has spent it.
    let exchange = |verifier: &str| {
        token(
            world,
            &[
                ("grant_type", "authorization_code"),
                ("client_id", &client),
                ("code", &code),
                ("code_verifier", verifier),
            ],
        )
    };
    assert_eq!(text(&exchange("wrong").json(), "error"), "invalid_grant");
    assert_eq!(text(&exchange(VERIFIER).json(), "error"), "invalid_grant");
    let id = begin(world, &client, "email");
    let code = code_of(text(&details(world, &ada, &id).json(), "redirect_url"));
    world.sql("update auth.oauth_authorizations set created_at = now() - interval '1 hour', expires_at = now() - interval '1 second'");
    let late = token(
        world,
        &[("grant_type", "authorization_code"), ("client_id", &client), ("code", &code), ("code_verifier", VERIFIER)],
    );
    assert!(late.text().contains("expired"), "{}", late.text());
}

fn clients_are_managed(world: &World) {
    let found = outside(world, "GET /.well-known/openid-configuration").send().json();
    let issuer = format!("{}/auth/v1", world.node.url);
    assert_eq!(
        (text(&found, "issuer"), text(&found, "token_endpoint")),
        (issuer.as_str(), format!("{issuer}/oauth/token").as_str())
    );
    assert_eq!(found["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let registered = outside(world, "POST /oauth/clients/register")
        .json(&json!({ "client_name": "An agent", "redirect_uris": ["http://localhost:1234/cb"], "token_endpoint_auth_method": "none" }))
        .send();
    assert_eq!(
        (registered.status, text(&registered.json(), "registration_type")),
        (201, "dynamic"),
        "{}",
        registered.text()
    );
    assert!(registered.json().get("client_secret").is_none(), "a public one has none");
    let (id, secret) = client(world, json!({}));
    let listed = admin(world, "GET /admin/oauth/clients?per_page=1", None);
    assert_eq!((listed.json()["clients"].as_array().unwrap().len(), listed.header("x-total-count")), (1, Some("2")));
    let line = |method: &str, more: &str| format!("{method} /admin/oauth/clients/{id}{more}");
    let changed = admin(world, &line("PUT", ""), Some(&json!({ "client_name": "Ours now" })));
    assert_eq!((text(&changed.json(), "client_name"), &changed.json()["redirect_uris"]), ("Ours now", &json!([BACK])));
    assert_eq!(refused(&admin(world, &line("PUT", ""), Some(&json!({})))), (400, "validation_failed".into()));
    let to_public = admin(world, &line("PUT", ""), Some(&json!({ "token_endpoint_auth_method": "none" })));
    assert_eq!(refused(&to_public), (400, "validation_failed".into()));
    let anew = admin(world, &line("POST", "/regenerate_secret"), None).json();
    assert_ne!(text(&anew, "client_secret"), secret);
    assert_eq!(admin(world, &line("DELETE", ""), None).status, 204);
    assert_eq!(refused(&admin(world, &line("GET", ""), None)), (404, "oauth_client_not_found".into()));
    let ada = sign_up(world, "ada@example.com");
    let by_user = world.auth(Some(text(&ada, "access_token")), "GET /admin/oauth/clients").send();
    assert_eq!(refused(&by_user), (403, "not_admin".into()));
    for body in [
        json!({}),
        json!({ "redirect_uris": ["javascript:alert(1)"] }),
        json!({ "redirect_uris": [BACK], "grant_types": ["password"] }),
    ] {
        assert_eq!(
            refused(&admin(world, "POST /admin/oauth/clients", Some(&body))),
            (400, "validation_failed".into()),
            "{body}"
        );
    }
}

macro_rules! as_the_provider {
    ($($name:ident),* $(,)?) => {
        mod embedded { $(#[test] fn $name() { super::$name(&super::start(ntier_tests::Backend::Embedded)); })* }
        mod server { $(#[test] fn $name() { super::$name(&super::start(ntier_tests::Backend::Server)); })* }
    };
}
as_the_provider!(
    an_application_signs_users_in,
    security_t2_an_application_changes_nothing,
    security_a11_codes_go_where_they_were_asked_for,
    clients_are_managed,
);

#[test]
fn it_is_off_unless_it_is_switched_on() {
    let world = World::start(Backend::Embedded);
    assert_eq!(refused(&outside(&world, "GET /oauth/authorize?client_id=x").send()), (404, "feature_disabled".into()));
}
