//! E-mail leaves through a mail server that asks for TLS and a password: aiosmtpd, as a process of its own.
//!
//! This very machine may be spoken to in the clear, under the names by which it is known; `LOCALHOST` is none of them and leads here too,
//! so it stands for a mail server elsewhere.

use ntier_tests::mail::{MailServer, certificate};
use ntier_tests::{Backend, World};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PASSWORD, post};

const ELSEWHERE: &str = "LOCALHOST";
/// All names under which the server is reached here.
const NAMES: &str = "DNS:localhost,IP:127.0.0.1,IP:127.46.5.1,IP:127.46.5.2";

/// A mail server, and a node that sends through it.
struct Mailing {
    server: MailServer,
    world: World,
    _folder: TempDir,
}

/// What the node believes of the server's certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Yes,
    No,
}

impl Mailing {
    /// The node calls the server by this name; further options are the server's.
    fn start(backend: Backend, host: &str, trust: Trust, more: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = certificate(folder.path(), NAMES);
        let mut options = json!({ "certificate": certificate, "key": key, "user": "ntier", "password": "a secret" });
        for (name, value) in more.as_object().unwrap() {
            options[name] = value.clone();
        }
        let server = MailServer::start(&options);
        Self { world: world(backend, host, server.port, &folder, trust), server, _folder: folder }
    }

    fn sign_up(&self, name: &str) {
        let body = json!({ "email": format!("{name}@example.com"), "password": PASSWORD });
        let answer = post(&self.world, "/signup", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Waits until this many e-mails were tried in vain, and gives why; they are tried again at once.
    fn in_vain(&self, count: usize) -> Vec<Value> {
        let mut faults = Vec::new();
        ntier_tests::until("they were tried in vain", || {
            let rows = self.world.sql("select last_error from ntier.mail where last_error is not null");
            faults = rows.as_array().cloned().unwrap_or_default();
            faults.len() == count
        });
        self.world.sql("update ntier.mail set next_attempt_at = now(), last_error = null");
        faults
    }

    /// Waits until nothing is in the queue, and ends the server.
    fn end(self) -> Heard {
        ntier_tests::until("the queue is empty", || self.world.sql("select id from ntier.mail") == json!([]));
        Heard(self.server.end())
    }
}

fn world(backend: Backend, host: &str, port: u16, folder: &TempDir, trust: Trust) -> World {
    let project = folder.path().join("project");
    let config = format!(
        "[auth.email]\nenable_confirmations = true\n[auth.email.smtp]\nhost = \"{host}\"\nport = {port}\nuser = \"ntier\"\n\
         pass = \"a secret\"\nadmin_email = \"no-reply@example.com\"\nsender_name = \"The Shop\"\n"
    );
    std::fs::create_dir_all(project.join("supabase")).unwrap();
    std::fs::write(project.join("supabase/config.toml"), config).unwrap();
    let trusted = match trust {
        Trust::Yes => folder.path().to_owned(),
        // Somebody else's.
        Trust::No => {
            let other = folder.path().join("other");
            std::fs::create_dir(&other).unwrap();
            certificate(&other, NAMES);
            other
        }
    };
    let roots = trusted.join("certificate.pem");
    World::start_project_in(backend, &project, &[("SSL_CERT_FILE", &roots.to_string_lossy())])
}

/// What the server heard.
struct Heard(Vec<Value>);

impl Heard {
    fn all(&self, name: &str) -> Vec<&Value> {
        self.0.iter().filter_map(|event| event.get(name)).collect()
    }

    /// The commands that went in the clear.
    fn clear(&self) -> Vec<&str> {
        let lines = self.all("clear").into_iter().flat_map(|text| text.as_str().unwrap_or_default().lines());
        lines.map(|line| line.split(' ').next().unwrap_or_default()).collect()
    }

    /// To whom there were messages, in order of names.
    fn recipients(&self) -> Vec<String> {
        let all = self.all("message").into_iter().map(|message| message["to"].to_string());
        let mut all: Vec<_> = all.map(|to| to.replace(['[', ']', '"'], "").replace("@example.com", "")).collect();
        all.sort();
        all
    }

    /// There is one message, and it came by TLS from whoever has the password.
    fn is_one(&self) {
        let messages = self.all("message");
        let [message] = messages.as_slice() else { panic!("{:?}", self.0) };
        assert_eq!(
            (&message["tls"], &message["user"], &message["from"], &message["to"]),
            (&json!("TLSv1.3"), &json!("ntier"), &json!("no-reply@example.com"), &json!(["ada@example.com"]))
        );
        let text = message["text"].as_str().unwrap();
        assert!(text.contains("Subject: Confirm Your Signup") && text.contains("enter the code"), "{text}");
        let id = text.lines().find_map(|line| line.strip_prefix("Message-ID: <")).unwrap();
        assert!(id.ends_with("@example.com>"), "{id}");
    }
}

fn begins_tls_and_says_who_it_is(backend: Backend) {
    // On this machine a certificate that signs itself will do, such as Debian's mail servers have.
    for (host, mechanism, trust) in [(ELSEWHERE, "PLAIN", Trust::Yes), ("127.0.0.1", "LOGIN", Trust::No)] {
        let mut mailing = Mailing::start(backend, host, trust, json!({ "mechanism": mechanism }));
        mailing.server.up();
        mailing.sign_up("ada");
        let heard = mailing.end();
        heard.is_one();
        assert_eq!(
            (heard.clear(), heard.all("mechanism")),
            (vec!["EHLO", "STARTTLS"], vec![&json!(mechanism)]),
            "{host}"
        );
    }
}

/// TLS from the beginning is for one port only, where root alone may listen; each database has an address of its own.
fn begins_with_tls_on_port_465(backend: Backend) {
    let host = if backend == Backend::Embedded { "127.46.5.1" } else { "127.46.5.2" };
    if let Err(cause) = std::net::TcpListener::bind((host, 465)) {
        eprintln!("not tested here: {host}:465: {cause}");
        return;
    }
    let more = json!({ "host": host, "port": 465, "implicit": true });
    let mut mailing = Mailing::start(backend, host, Trust::Yes, more);
    mailing.server.up();
    mailing.sign_up("ada");
    let heard = mailing.end();
    heard.is_one();
    assert!(heard.clear().is_empty(), "{:?}", heard.0);
}

/// Connections that are kept end with it too.
fn loses_nothing_while_the_server_is_away(backend: Backend) {
    let mut mailing = Mailing::start(backend, ELSEWHERE, Trust::Yes, json!({}));
    mailing.server.up();
    mailing.sign_up("ada");
    mailing.server.hears("message");
    mailing.server.down();
    for name in ["bob", "cyd", "dan"] {
        mailing.sign_up(name);
    }
    mailing.in_vain(3);
    mailing.server.up();
    mailing.sign_up("eve");
    assert_eq!(mailing.end().recipients(), ["ada", "bob", "cyd", "dan", "eve"]);
}

/// Before the message, and when it is there but not taken.
fn tries_again_when_the_server_hangs_up(backend: Backend) {
    let more = json!({ "hang_ups": ["before", "after"] });
    let mut mailing = Mailing::start(backend, ELSEWHERE, Trust::Yes, more);
    mailing.server.up();
    mailing.sign_up("ada");
    let heard = mailing.end();
    heard.is_one();
    assert_eq!(heard.all("hung_up"), [&json!("before"), &json!("after")]);
}

/// Neither to a server whose certificate nobody vouches for, nor to one that has no TLS: somebody may have taken it out on the way.
fn security_says_nothing_in_the_clear(backend: Backend) {
    let without = json!({ "certificate": null, "user": null });
    for (more, fault, clear) in
        [(json!({}), "UnknownIssuer", vec!["EHLO", "STARTTLS"]), (without, "STARTTLS", vec!["EHLO", "QUIT"])]
    {
        let mut mailing = Mailing::start(backend, ELSEWHERE, Trust::No, more);
        mailing.server.up();
        mailing.sign_up("ada");
        for _ in 0..2 {
            let faults = mailing.in_vain(1);
            assert!(faults[0].to_string().contains(fault), "{faults:?}");
        }
        let heard = Heard(mailing.server.end());
        assert!(heard.recipients().is_empty() && heard.all("authenticated").is_empty(), "{:?}", heard.0);
        let said = heard.clear();
        assert!(!said.is_empty() && said.iter().all(|word| clear.contains(word)), "{said:?}");
    }
}

/// Each on both databases.
macro_rules! on_each {
    ($($name:ident),* $(,)?) => {
        mod embedded { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Embedded); })* }
        mod server { $(#[test] fn $name() { super::$name(ntier_tests::Backend::Server); })* }
    };
}
on_each!(
    begins_tls_and_says_who_it_is,
    begins_with_tls_on_port_465,
    loses_nothing_while_the_server_is_away,
    tries_again_when_the_server_hangs_up,
    security_says_nothing_in_the_clear,
);
