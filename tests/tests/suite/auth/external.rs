//! Sign-in at other providers: OpenID Connect and GitHub's API, as a stand-in on this machine speaks them.

use ntier_tests::service::{CLIENT, Provider, SECRET};
use ntier_tests::{Answer, Backend, Who, World};
use serde_json::{Value, json};

use super::{PASSWORD, admin, claims, in_fragment, post, refused, sign_in, sign_up, text, user};

/// A node that knows the provider under three names, with more of `[auth]`.
pub fn start(backend: Backend, provider: &Provider, more: &str) -> World {
    let project = tempfile::tempdir().unwrap();
    let url = &provider.url;
    let section = |name: &str| {
        format!(
            "[auth.external.{name}]\nenabled = true\nclient_id = \"{CLIENT}\"\nsecret = \"{SECRET}\"\nurl = \"{url}\"\n"
        )
    };
    let config = format!(
        "[auth]\nsite_url = \"https://app.example.com\"\nadditional_redirect_urls = [\"https://*.example.org/**\"]\n{more}\n{}{}{}",
        section("keycloak"),
        section("github"),
        section("own")
    );
    std::fs::create_dir(project.path().join("supabase")).unwrap();
    std::fs::write(project.path().join("supabase/config.toml"), config).unwrap();
    World::start_project(backend, project.path())
}

/// Opens an address as a browser does, which has no key; gives where it is sent.
fn go(world: &World, address: &str) -> String {
    let mut ask = world.ask(&Who::Nobody, "GET /");
    ask.move_to(&format!("{}/rest/v1/", world.node.url), address);
    let answer = ask.send();
    answer.header("location").unwrap_or_else(|| panic!("{address}: {} {}", answer.status, answer.text())).to_owned()
}

/// From the application to the provider, back, and to the application.
fn through(world: &World, query: &str) -> String {
    let provider = go(world, &format!("{}/auth/v1/authorize?{query}", world.node.url));
    let back = go(world, &provider);
    assert!(back.starts_with(&format!("{}/auth/v1/callback?code=", world.node.url)), "{back}");
    go(world, &back)
}

/// Who has come.
fn whoever(world: &World, location: &str) -> Value {
    let token = in_fragment(location, "access_token").unwrap_or_else(|| panic!("{location}"));
    world.auth(Some(&token), "GET /user").send().json()
}

fn people_come_from_providers(backend: Backend) {
    let provider = Provider::start();
    let world = start(backend, &provider, "");
    provider.next(json!({ "sub": "7", "email": "Ada@Example.com", "email_verified": true, "name": "Ada", "picture": "https://p" }));
    let location =
        through(&world, "provider=keycloak&redirect_to=https://a.example.org/x&scopes=extra&prompt=login&state=evil");
    assert!(location.starts_with("https://a.example.org/x#access_token="), "{location}");
    assert_eq!(in_fragment(&location, "provider_token").as_deref(), Some("an-access-token"));
    assert_eq!(in_fragment(&location, "provider_refresh_token").as_deref(), Some("a-refresh-token"));
    let ada = whoever(&world, &location);
    assert_eq!((text(&ada, "email"), ada["email_confirmed_at"].is_string()), ("ada@example.com", true));
    assert_eq!(ada["app_metadata"], json!({ "provider": "keycloak", "providers": ["keycloak"] }));
    let expected = json!({
        "iss": provider.url, "name": "Ada", "picture": "https://p", "full_name": "Ada", "avatar_url": "https://p", "sub": "7",
        "provider_id": "7", "email": "ada@example.com", "email_verified": true, "phone_verified": false,
    });
    assert_eq!((&ada["user_metadata"], &ada["identities"][0]["identity_data"]), (&expected, &expected));
    let token = in_fragment(&location, "access_token").unwrap();
    assert_eq!(claims(&token)["amr"][0]["method"], "oauth");
    {
        let asked = provider.asked.lock().unwrap();
        let authorize = &asked[0];
        assert_eq!(authorize.field("scope").as_deref(), Some("openid profile email extra"));
        assert_eq!(authorize.field("prompt").as_deref(), Some("login"));
        assert_ne!(authorize.field("state").as_deref(), Some("evil"));
        let exchange = &asked[1];
        let challenge = ntier_security::one_time::challenge(&exchange.field("code_verifier").unwrap());
        assert_eq!(authorize.field("code_challenge"), Some(challenge), "our own proof at the provider");
        assert!(exchange.header("authorization").unwrap().starts_with("Basic "));
    }
    // The same again, with a name that has changed.
    provider.next(
        json!({ "sub": "7", "name": "Ada L.", "userinfo": { "email": "ada@example.com", "email_verified": true } }),
    );
    let again = whoever(&world, &through(&world, "provider=keycloak"));
    assert_eq!((&again["id"], text(&again["user_metadata"], "name")), (&ada["id"], "Ada L."));
    assert_eq!(again["identities"][0]["identity_data"]["email"], "ada@example.com", "from userinfo");
    // The provider of GitHub's kind says so of the same address: one account.
    let emails = json!([{ "email": "ada@example.com", "verified": true, "primary": true }]);
    provider.next(json!({ "id": 99, "login": "ada", "name": "A", "emails": emails }));
    let linked = whoever(&world, &through(&world, "provider=github"));
    assert_eq!((&linked["id"], &linked["app_metadata"]["providers"]), (&ada["id"], &json!(["keycloak", "github"])));
    // A name that nobody knows is an issuer of OpenID Connect.
    provider.next(json!({ "sub": "8", "email": "bob@example.com", "email_verified": true }));
    assert_eq!(text(&whoever(&world, &through(&world, "provider=own")), "email"), "bob@example.com");
    let settings = world.auth(None, "GET /settings").send().json();
    assert_eq!((&settings["external"]["github"], &settings["external"]["google"]), (&json!(true), &json!(false)));
    world.sql("update auth.users set banned_until = now() + interval '1 hour'");
    let banned = through(&world, "provider=own");
    assert!(banned.contains("?error=access_denied&error_code=user_banned"), "{banned}");
}

fn a_browser_ends_the_flow_with_its_proof(backend: Backend) {
    let provider = Provider::start();
    let world = start(backend, &provider, "");
    let (verifier, challenge) =
        ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    provider.next(json!({ "sub": "7", "email": "ada@example.com", "email_verified": true }));
    let query = format!("provider=keycloak&code_challenge={challenge}&code_challenge_method=s256");
    let location = through(&world, &query);
    let code = location.strip_prefix("https://app.example.com?code=").unwrap_or_else(|| panic!("{location}"));
    let grant = |verifier: &str| {
        post(&world, "/token?grant_type=pkce", &json!({ "auth_code": code, "code_verifier": verifier }))
    };
    let kept = world.sql("select provider_access_token from auth.flow_state");
    assert!(!kept.to_string().contains("an-access-token"), "sealed: {kept}");
    assert_eq!(refused(&grant("another")), (400, "bad_code_verifier".into()));
    let session = grant(verifier);
    assert_eq!(
        (session.status, text(&session.json(), "provider_token")),
        (200, "an-access-token"),
        "{}",
        session.text()
    );
    assert_eq!(text(&session.json(), "provider_refresh_token"), "a-refresh-token");
    assert_eq!(refused(&grant(verifier)), (404, "flow_state_not_found".into()), "once");
    assert_eq!(world.sql("select id from auth.oauth_client_states"), json!([]));
}

fn security_a11_states_are_used_once_and_expire(backend: Backend) {
    let provider = Provider::start();
    let world = start(backend, &provider, "");
    provider.next(json!({ "sub": "7", "email": "ada@example.com", "email_verified": true }));
    let begin = || {
        let address = go(&world, &format!("{}/auth/v1/authorize?provider=keycloak", world.node.url));
        go(&world, &address)
    };
    let back = begin();
    assert!(go(&world, &back).contains("#access_token="));
    assert!(go(&world, &back).contains("error_code=bad_oauth_state"), "once");
    let late = begin();
    world.sql("update auth.flow_state set created_at = created_at - interval '310 seconds'");
    assert!(go(&world, &late).contains("OAuth%20state%20has%20expired"));
    let callback = |query: &str| go(&world, &format!("{}/auth/v1/callback?{query}", world.node.url));
    for (query, expected) in [
        ("code=x", "error_code=bad_oauth_callback"),
        ("code=x&state=x", "error_code=bad_oauth_state"),
        ("code=x&state=00000000-0000-4000-8000-000000000000", "error_code=bad_oauth_state"),
    ] {
        let location = callback(query);
        assert!(
            location.starts_with("https://app.example.com?error=") && location.contains(expected),
            "{query}: {location}"
        );
    }
    let state = |back: &str| back.split_once("state=").unwrap().1.to_owned();
    let told = callback(&format!("state={}&error=access_denied&error_description=No%20thanks", state(&begin())));
    assert_eq!(
        told,
        "https://app.example.com?error=access_denied&error_description=No%20thanks#error=access_denied&error_description=No%20thanks&sb="
    );
    let wrong = callback(&format!("state={}&code=wrong", state(&begin())));
    assert!(wrong.contains("error=server_error") && wrong.contains("invalid_grant"), "{wrong}");
    let nowhere = callback(&format!("state={}", state(&begin())));
    assert!(nowhere.contains("error_code=bad_oauth_callback"), "{nowhere}");
    for query in ["provider=google", "provider=nonsense", "", "provider=custom:none"] {
        let mut ask = world.ask(&Who::Nobody, "GET /");
        ask.move_to("/rest/v1/", &format!("/auth/v1/authorize?{query}"));
        assert_eq!(refused(&ask.send()), (400, "validation_failed".into()), "{query}");
    }
}

/// What a provider has not made sure of opens no account but its own.
fn security_a11_unverified_addresses_never_link(backend: Backend) {
    let provider = Provider::start();
    let world = start(backend, &provider, "");
    let victim = sign_up(&world, "ada@example.com");
    provider.next(json!({ "sub": "7", "email": "ada@example.com", "email_verified": false }));
    let location = through(&world, "provider=keycloak");
    assert!(location.contains("error_code=provider_email_needs_verification"), "{location}");
    assert_eq!(user(&world, &victim).json()["identities"].as_array().unwrap().len(), 1);
    // Nobody has made sure of the first account's address either: whoever comes with proof gets it alone.
    provider.next(json!({ "sub": "7", "email": "ada@example.com", "email_verified": true }));
    let owner = whoever(&world, &through(&world, "provider=keycloak"));
    assert_eq!((&owner["id"], owner["identities"].as_array().unwrap().len()), (&victim["user"]["id"], 1));
    assert_eq!(refused(&user(&world, &victim)), (403, "session_not_found".into()));
    assert_eq!(sign_in(&world, "ada@example.com", PASSWORD).status, 400);
    // An administrator's word is proof.
    let body = json!({ "email": "bob@example.com", "password": PASSWORD, "email_confirm": true });
    assert_eq!(admin(&world, "POST /admin/users", Some(&body)).status, 200);
    provider.next(json!({ "sub": "8", "email": "bob@example.com", "email_verified": true }));
    let bob = whoever(&world, &through(&world, "provider=keycloak"));
    assert_eq!(bob["app_metadata"]["providers"], json!(["email", "keycloak"]));
    assert_eq!(sign_in(&world, "bob@example.com", PASSWORD).status, 200);
}

fn identities_are_linked_and_unlinked(backend: Backend) {
    let provider = Provider::start();
    let world = start(backend, &provider, "enable_manual_linking = true\nenable_anonymous_sign_ins = true");
    let ada = sign_up(&world, "ada@example.com");
    let link = |session: &Value| -> String {
        let path = "GET /user/identities/authorize?provider=keycloak&skip_http_redirect=true";
        let answer = world.auth(Some(text(session, "access_token")), path).send();
        let back = go(&world, text(&answer.json(), "url"));
        go(&world, &back)
    };
    provider.next(json!({ "sub": "7", "email": "other@example.com", "email_verified": false }));
    let linked = whoever(&world, &link(&ada));
    assert_eq!((&linked["id"], text(&linked, "email")), (&ada["user"]["id"], "ada@example.com"));
    assert_eq!(linked["app_metadata"]["providers"], json!(["email", "keycloak"]));
    assert!(link(&ada).contains("error_code=identity_already_exists"));
    let nobody = post(&world, "/signup", &json!({}));
    assert!(link(&nobody.json()).contains("already%20linked%20to%20another%20user"));
    provider.next(json!({ "sub": "8", "email": "cyd@example.com", "email_verified": true }));
    let cyd = whoever(&world, &link(&nobody.json()));
    assert_eq!((text(&cyd, "email"), &cyd["is_anonymous"]), ("cyd@example.com", &json!(false)));
    let unlink = |session: &Value, id: &str| -> Answer {
        world.auth(Some(text(session, "access_token")), &format!("DELETE /user/identities/{id}")).send()
    };
    assert_eq!(
        refused(&unlink(&nobody.json(), text(&cyd["identities"][0], "identity_id"))),
        (422, "single_identity_not_deletable".into())
    );
    assert_eq!(refused(&unlink(&ada, text(&cyd["identities"][0], "identity_id"))), (422, "identity_not_found".into()));
    let of = |name: &str| {
        linked["identities"].as_array().unwrap().iter().find(|one| one["provider"] == name).unwrap().clone()
    };
    assert_eq!(unlink(&ada, text(&of("keycloak"), "identity_id")).status, 200);
    let left = user(&world, &ada).json();
    assert_eq!((left["identities"].as_array().unwrap().len(), text(&left, "email")), (1, "ada@example.com"));
    assert_eq!(left["app_metadata"], json!({ "provider": "email", "providers": ["email"] }));
}

fn id_tokens(backend: Backend) {
    let provider = Provider::start();
    let world = start(backend, &provider, "");
    let nonce = ntier_security::one_time::sha256_hex("secret");
    let claims = json!({ "sub": "7", "email": "ada@example.com", "email_verified": true, "nonce": nonce });
    let token = provider.id_token(&claims);
    let grant = |body: &Value| post(&world, "/token?grant_type=id_token", body);
    let with = |token: &str, nonce: &str| json!({ "provider": "keycloak", "id_token": token, "nonce": nonce });
    let session = grant(&with(&token, "secret"));
    assert_eq!(
        (session.status, text(&session.json()["user"], "email")),
        (200, "ada@example.com"),
        "{}",
        session.text()
    );
    let by_issuer = json!({ "issuer": provider.url, "client_id": CLIENT, "id_token": token, "nonce": "secret" });
    assert_eq!(grant(&by_issuer).json()["user"]["id"], session.json()["user"]["id"]);
    let changed = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        provider.id_token(&claims)
    };
    for (token, nonce) in [
        (changed("aud", json!("another")), "secret"),
        (changed("iss", json!("https://evil.com")), "secret"),
        (changed("exp", json!(1)), "secret"),
        (changed("sub", json!("")), "secret"),
        (token.clone(), "wrong"),
        (token.clone(), ""),
        (Provider::start().id_token(&claims), "secret"),
        ("a.b.c".into(), "secret"),
        (String::new(), "secret"),
    ] {
        let answer = grant(&with(&token, nonce));
        assert!(answer.status == 400 && answer.json()["error"].is_string(), "{token} {nonce}: {}", answer.text());
    }
    assert_eq!(refused(&grant(&json!({ "provider": "google", "id_token": token }))), (400, "provider_disabled".into()));
    assert_eq!(
        refused(&grant(&json!({ "provider": "nonsense", "id_token": token }))),
        (400, "validation_failed".into())
    );
}

/// Providers that an administrator adds while the node runs.
fn providers_are_added(backend: Backend) {
    let provider = Provider::start();
    let world = start(backend, &provider, "");
    let make = |body: &Value| admin(&world, "POST /admin/custom-providers", Some(body));
    let body = json!({
        "provider_type": "oidc", "identifier": "custom:shop", "name": "Shop", "client_id": CLIENT, "client_secret": SECRET,
        "issuer": provider.url, "scopes": ["email"], "custom_claims_allowlist": ["team"], "attribute_mapping": { "name": "nick" },
        "authorization_params": { "prompt": "login" },
    });
    let made = make(&body);
    assert_eq!((made.status, made.json().get("client_secret")), (201, None), "{}", made.text());
    assert!(!world.sql("select client_secret from auth.custom_oauth_providers").to_string().contains(SECRET), "sealed");
    assert_eq!(refused(&make(&body)), (400, "conflict".into()));
    provider
        .next(json!({ "sub": "7", "email": "ada@example.com", "email_verified": true, "nick": "ada", "team": "red" }));
    let ada = whoever(&world, &through(&world, "provider=custom%3Ashop"));
    assert_eq!(ada["app_metadata"]["providers"], json!(["custom:shop"]));
    assert_eq!(
        (text(&ada["user_metadata"], "name"), &ada["user_metadata"]["custom_claims"]),
        ("ada", &json!({ "team": "red" }))
    );
    let asked = provider.asked.lock().unwrap()[0].clone();
    assert_eq!(
        (asked.field("scope").as_deref(), asked.field("prompt").as_deref()),
        (Some("openid email"), Some("login"))
    );
    // OAuth 2 with a profile of its own.
    let url = |path: &str| format!("{}{path}", provider.url);
    let body = json!({
        "provider_type": "oauth2", "identifier": "custom:forge", "name": "Forge", "client_id": CLIENT, "client_secret": SECRET,
        "authorization_url": url("/login/oauth/authorize"), "token_url": url("/login/oauth/access_token"), "userinfo_url": url("/api/v3/user"),
        "attribute_mapping": { "sub": "id", "email": "contact.mail", "email_verified": true },
    });
    assert_eq!(make(&body).status, 201);
    provider.next(json!({ "id": 99, "contact": { "mail": "bob@example.com" } }));
    let bob = whoever(&world, &through(&world, "provider=custom:forge"));
    assert_eq!((text(&bob, "email"), text(&bob["identities"][0], "id")), ("bob@example.com", "99"));
    let listed = admin(&world, "GET /admin/custom-providers?type=oidc", None).json();
    assert_eq!(listed["providers"].as_array().unwrap().len(), 1);
    let line = |method: &str| format!("{method} /admin/custom-providers/custom:shop");
    let changed = admin(&world, &line("PUT"), Some(&json!({ "enabled": false }))).json();
    assert_eq!((&changed["enabled"], text(&changed, "name")), (&json!(false), "Shop"));
    let mut ask = world.ask(&Who::Nobody, "GET /");
    ask.move_to("/rest/v1/", "/auth/v1/authorize?provider=custom:shop");
    assert_eq!(refused(&ask.send()), (400, "validation_failed".into()), "switched off");
    assert_eq!(admin(&world, &line("DELETE"), None).status, 204);
    assert_eq!(refused(&admin(&world, &line("GET"), None)), (404, "custom_provider_not_found".into()));
    for (name, value) in [
        ("issuer", "https://127.0.0.1:1"),
        ("issuer", "http://example.com"),
        ("identifier", "shop"),
        ("provider_type", "saml"),
    ] {
        let mut body = json!({
            "provider_type": "oidc", "identifier": "custom:x", "name": "X", "client_id": CLIENT, "client_secret": SECRET, "issuer": provider.url,
        });
        body[name] = value.into();
        assert_eq!(refused(&make(&body)), (400, "validation_failed".into()), "{name}={value}");
    }
}

macro_rules! with_a_provider {
    ($($name:ident),* $(,)?) => {
        mod embedded { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Embedded); })* }
        mod server { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Server); })* }
    };
}
with_a_provider!(
    people_come_from_providers,
    a_browser_ends_the_flow_with_its_proof,
    security_a11_states_are_used_once_and_expire,
    security_a11_unverified_addresses_never_link,
    identities_are_linked_and_unlinked,
    id_tokens,
    providers_are_added,
);
