//! E-mails in a project's own words, and those that tell users what was done with their accounts.

use std::path::Path;

use ntier_tests::node::run_in;
use ntier_tests::{Backend, Who, World};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    PASSWORD, admin, answer_challenge, challenge, enroll, follow, in_fragment, post, refused, sign_in, sign_up, text,
    user,
};

/// A project with this `config.toml` and these templates.
fn project(config: &str, templates: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("supabase/templates")).unwrap();
    std::fs::write(folder.path().join("supabase/config.toml"), config).unwrap();
    for (name, html) in templates {
        std::fs::write(folder.path().join("supabase/templates").join(name), html).unwrap();
    }
    folder
}

/// The e-mails to an address, the last first, as the inbox has them.
fn inbox(world: &World, email: &str) -> Vec<Value> {
    let get = |path: &str| {
        let mut ask = world.ask(&Who::Nobody, "GET /");
        ask.move_to(&format!("{}/rest/v1/", world.node.url), &format!("{}{path}", world.node.url));
        ask.send().json()
    };
    let messages = get("/inbox/api/v1/messages")["messages"].as_array().unwrap().clone();
    let to = messages.iter().filter(|message| message["To"][0]["Address"] == email);
    to.map(|message| get(&format!("/inbox/api/v1/message/{}", text(message, "ID")))).collect()
}

fn subjects(world: &World, email: &str) -> Vec<String> {
    inbox(world, email).iter().map(|message| text(message, "Subject").to_owned()).collect()
}

const CONFIRMATION: &str = "<style>p { color: red }</style>\n{{- /* for everybody */ -}}\n<h1 title=\"{{ .Data.name }}\">Hello {{ .Data.name }}</h1>\n\
    {{ if eq .Data.plan \"pro\" }}<p>Pro</p>{{ else if .Data.plan }}<p>Other</p>{{ else }}<p>No plan</p>{{ end }}\n\
    <ul>{{ range .Data.tags }}<li>{{ . }}</li>{{ end }}</ul>\n\
    <p><a href=\"{{ .ConfirmationURL }}\">Confirm</a> <a href=\"{{ .SiteURL }}/confirm?hash={{ .TokenHash }}&next={{ .RedirectTo }}\">Here</a></p>\n\
    <p>{{ .Token }} for {{ .Email }}, {{ .Data.deep.er }}{{ .NewEmail }}</p>";

fn a_project_has_its_own_words(backend: Backend) {
    let config = "[auth]\nsite_url = \"https://app.example.com\"\nadditional_redirect_urls = [\"https://app.example.com/**\"]\n\
        [auth.email]\nenable_confirmations = true\nmax_frequency = \"0s\"\n\
        [auth.email.template.confirmation]\nsubject = \"For {{ .Data.name }}\"\ncontent_path = \"./supabase/templates/confirmation.html\"\n\
        [auth.email.template.invite]\ncontent_path = \"./templates/invite.html\"\n\
        [auth.email.template.recovery]\nsubject = \"{{ .Token }}\"\n\
        [auth.email.template.email_change]\ncontent = \"\"\"\n<p>{{ .Email }} {{ .NewEmail }} {{ .SendingTo }}</p>\"\"\"\n\
        [auth.email.template.reauthentication]\ncontent = \"<b>{{ .Token }}</b>{{ .ConfirmationURL }}\"\n";
    let templates = [("confirmation.html", CONFIRMATION), ("invite.html", "<p>{{ .Data.name }} {{ .Token }}</p>")];
    let project = project(config, &templates);
    let world = World::start_dev_project(backend, project.path(), &[]);
    let data = json!({ "name": "Ada", "plan": "pro", "tags": ["a", "b"], "deep": { "er": 7 } });
    let path = "/signup?redirect_to=https://app.example.com/a?b=c%26d=e";
    let signed_up = post(&world, path, &json!({ "email": "ada@example.com", "password": PASSWORD, "data": data }));
    assert_eq!(signed_up.status, 200, "{}", signed_up.text());
    let mail = inbox(&world, "ada@example.com").remove(0);
    let (plain, html) = (text(&mail, "Text"), text(&mail, "HTML"));
    assert_eq!(text(&mail, "Subject"), "For Ada");
    for part in [
        "<h1 title=\"Ada\">Hello Ada</h1>",
        "<p>Pro</p>",
        "<ul><li>a</li><li>b</li></ul>",
        &format!("<a href=\"{}/auth/v1/verify?token=", world.node.url),
        "&amp;type=signup&amp;redirect_to=https%3A%2F%2Fapp.example.com%2Fa%3Fb%3Dc%26d%3De\">Confirm</a>",
        "<a href=\"https://app.example.com/confirm?hash=",
        "&next=https%3A%2F%2Fapp.example.com%2Fa%3Fb%3Dc%26d%3De\">Here</a>",
        " for ada@example.com, 7</p>",
    ] {
        assert!(html.contains(part), "{part} is missing in\n{html}");
    }
    assert!(plain.starts_with("Hello Ada\n\nPro\n\n- a\n- b\n\nConfirm (http://"), "{plain}");
    let link = plain.split_once("Confirm (").unwrap().1.split_once(") Here (").unwrap().0;
    assert!(in_fragment(&follow(&world, link), "access_token").is_some());
    // What is not said is ours.
    assert_eq!(post(&world, "/recover", &json!({ "email": "ada@example.com" })).status, 200);
    let mail = inbox(&world, "ada@example.com").remove(0);
    assert!(text(&mail, "Text").contains(&format!("enter the code: {}\n", text(&mail, "Subject"))), "{mail}");
    let invitation = json!({ "email": "bob@example.com", "data": { "name": "Bob" } });
    assert_eq!(admin(&world, "POST /invite", Some(&invitation)).status, 200);
    let mail = inbox(&world, "bob@example.com").remove(0);
    assert!(text(&mail, "Text").starts_with("Bob ") && text(&mail, "Subject") == "You have been invited", "{mail}");
    // Both mailboxes.
    let ada = sign_in(&world, "ada@example.com", PASSWORD).json();
    let token = text(&ada, "access_token");
    let asked = world.auth(Some(token), "PUT /user").json(&json!({ "email": "lovelace@example.com" })).send();
    assert_eq!(asked.status, 200, "{}", asked.text());
    for mailbox in ["ada@example.com", "lovelace@example.com"] {
        let mail = inbox(&world, mailbox).remove(0);
        assert_eq!(text(&mail, "Text"), format!("ada@example.com lovelace@example.com {mailbox}"));
    }
    assert_eq!(world.auth(Some(token), "GET /reauthenticate").send().status, 200);
    let mail = inbox(&world, "ada@example.com").remove(0);
    let code = text(&mail, "Text");
    assert!(code.len() == 6 && text(&mail, "HTML") == format!("<b>{code}</b>"), "{mail}");
}

fn hostile_data_is_escaped(backend: Backend) {
    let config = "[auth.email]\nenable_confirmations = true\n[auth.email.template.confirmation]\nsubject = \"For {{ .Data.name }}\"\n\
        content = '''<p title=\"{{ .Data.name }}\">{{ .Data.name }}</p><a href=\"{{ .Data.url }}\">{{ range .Data.list }}{{ . }}{{ end }}</a>'''\n";
    let project = project(config, &[]);
    let world = World::start_dev_project(backend, project.path(), &[]);
    let sign_up = |email: &str, data: &Value| {
        let answer = post(&world, "/signup", &json!({ "email": email, "password": PASSWORD, "data": data }));
        assert_eq!(answer.status, 200, "{}", answer.text());
        inbox(&world, email).remove(0)
    };
    let name = "\"><script>alert(1)</script>'\r\nBcc: eve@example.com";
    let mail = sign_up("ada@example.com", &json!({ "name": name, "url": "java\nscript:alert(1)", "list": "no list" }));
    let escaped = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;\r\nBcc: eve@example.com";
    let expected = format!("<p title=\"{escaped}\">{escaped}</p><a href=\"#\"></a>");
    assert_eq!(text(&mail, "HTML"), expected);
    let subject = "For \"><script>alert(1)</script>' Bcc: eve@example.com";
    assert_eq!(text(&mail, "Subject"), subject);
    // The page of the inbox has no script either.
    let mut ask = world.ask(&Who::Nobody, "GET /");
    ask.move_to(&format!("{}/rest/v1/", world.node.url), &format!("{}/inbox", world.node.url));
    let page = ask.send().text();
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
    // What is of another kind, or too much, is no reason to refuse.
    let mail = sign_up("bob@example.com", &json!({ "name": { "a": ["<b>"] }, "url": [], "list": { "x": 1 } }));
    assert!(text(&mail, "HTML").contains("{&quot;a&quot;:[&quot;&lt;b&gt;&quot;]}</p>"), "{mail}");
    let mail = sign_up("cyd@example.com", &json!({ "name": "C", "list": vec![0; 20_000] }));
    assert!(text(&mail, "HTML").contains("Confirm your mail"), "ours instead: {mail}");
}

fn users_are_told_what_was_done(backend: Backend) {
    let config = "[auth.email]\nmax_frequency = \"0s\"\n[auth.email.notification.mfa_factor_enrolled]\nenabled = true\n\
        subject = \"New: {{ .FactorType }}\"\n[auth.email.notification.mfa_factor_unenrolled]\nenabled = true\n\
        [auth.email.notification.email_changed]\ncontent_path = \"./templates/changed.html\"\n[auth.sms]\nenable_signup = true\n\
        enable_confirmations = false\n[auth.email.notification.phone_changed]\nenabled = true\n";
    let project = project(config, &[("changed.html", "<p>{{ .OldEmail }} is {{ .Email }}, {{ .Data.name }}</p>")]);
    let world = World::start_dev_project(backend, project.path(), &[]);
    let ada = sign_up(&world, "ada@example.com");
    let token = text(&ada, "access_token");
    let put = |body: &Value| world.auth(Some(token), "PUT /user").json(body).send();
    assert_eq!(refused(&put(&json!({ "password": PASSWORD }))), (422, "same_password".into()));
    assert_eq!(subjects(&world, "ada@example.com"), [""; 0], "nothing has happened");
    assert_eq!(put(&json!({ "password": "another horse battery", "data": { "name": "A" } })).status, 200);
    let mail = inbox(&world, "ada@example.com").remove(0);
    assert_eq!(text(&mail, "Subject"), "Your password has been changed");
    assert!(
        text(&mail, "Text").contains("account ada@example.com") && mail["Tags"] == json!(["password_changed"]),
        "{mail}"
    );
    // A number that is the first one was not another before.
    assert_eq!(put(&json!({ "phone": "+4930111" })).status, 200);
    assert_eq!(subjects(&world, "ada@example.com").len(), 1);
    assert_eq!(put(&json!({ "phone": "+4930222" })).status, 200);
    assert!(text(&inbox(&world, "ada@example.com")[0], "Text").contains("was 4930111 and is 4930222"));
    // A second factor comes and goes.
    let (factor, secret) = enroll(&world, token, "phone");
    assert_eq!(subjects(&world, "ada@example.com").len(), 2, "not before it counts");
    let asked = challenge(&world, token, &factor);
    let code = ntier_security::totp::code(&secret, ntier_tests::world::now()).unwrap();
    let second = answer_challenge(&world, token, &factor, &asked, &code).json();
    let token = text(&second, "access_token");
    assert_eq!(subjects(&world, "ada@example.com")[0], "New: totp");
    assert_eq!(world.auth(Some(token), &format!("DELETE /factors/{factor}")).send().status, 200);
    assert_eq!(subjects(&world, "ada@example.com")[0], "A second factor was removed");
    // The address: the old one is told, once both have confirmed.
    let put = |body: &Value| world.auth(Some(token), "PUT /user").json(body).send();
    assert_eq!(put(&json!({ "email": "lovelace@example.com" })).status, 200);
    let link = |mailbox: &str| {
        let mail = inbox(&world, mailbox).remove(0);
        text(&mail, "Text").lines().find(|line| line.starts_with("http")).unwrap().to_owned()
    };
    let (old, new) = (link("ada@example.com"), link("lovelace@example.com"));
    let before = subjects(&world, "ada@example.com").len();
    follow(&world, &new);
    assert_eq!(subjects(&world, "ada@example.com").len(), before, "one half is nothing");
    follow(&world, &old);
    let told = inbox(&world, "ada@example.com");
    assert_eq!((told.len(), text(&told[0], "Text")), (before + 1, "ada@example.com is lovelace@example.com, A"));
    assert_eq!(text(&user(&world, &second).json(), "email"), "lovelace@example.com");
    assert_eq!(subjects(&world, "lovelace@example.com"), ["Confirm Email Change"]);
}

/// A project that wants no notices, and a node that can send none.
fn nobody_is_told_who_need_not_be(backend: Backend) {
    let project =
        project("[auth.email.notification.password_changed]\nenabled = false\nsubject = \"{{ broken\"\n", &[]);
    let change = |world: &World| {
        let ada = sign_up(world, "ada@example.com");
        let put = world
            .auth(Some(text(&ada, "access_token")), "PUT /user")
            .json(&json!({ "password": "another horse battery" }));
        assert_eq!(put.send().status, 200);
        assert_eq!(world.sql("select id from ntier.mail"), json!([]));
    };
    change(&World::start_dev_project(backend, project.path(), &[]));
    change(&World::start_with(backend, &[]));
}

macro_rules! on_each {
    ($($name:ident),*) => {
        mod embedded { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Embedded); })* }
        mod server { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Server); })* }
    };
}
on_each!(
    a_project_has_its_own_words,
    hostile_data_is_escaped,
    users_are_told_what_was_done,
    nobody_is_told_who_need_not_be
);

#[test]
fn a_broken_template_is_told_at_the_start() {
    let config = "[auth.email.template.invite]\nsubject = \"{{ .Nothing }}\"\ncontent_path = \"./supabase/templates/invite.html\"\n\
        [auth.email.template.recovery]\ncontent_path = \"./nowhere.html\"\n\
        [auth.email.notification.password_changed]\ncontent = \"\"\"\n<p>\n{{ if .Data }}\n</p>\n\"\"\"\n";
    let project = project(config, &[("invite.html", "<p>\n<a href={{ .ConfirmationURL }}>come</a></p>")]);
    for command in ["serve", "dev"] {
        let (code, _, told) = run_in(Path::new(project.path()), &[command, "--listen", "127.0.0.1:0"]);
        assert_eq!(code, Some(1), "{told}");
        for fault in [
            "config.toml:2: the subject of the e-mail invite: there is no variable .Nothing; there are .ConfirmationURL,",
            "templates/invite.html:2: the content of the e-mail invite: a value of an attribute needs quotation marks",
            "config.toml:5: there is no file ",
            "config.toml:9: the content of the e-mail password_changed: {{ if }} has no {{ end }}",
        ] {
            assert!(told.contains(fault), "{command}: {fault} is missing in\n{told}");
        }
    }
    assert!(!project.path().join(".ntier").exists(), "nothing was begun");
}
