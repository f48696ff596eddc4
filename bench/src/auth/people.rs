//! Who signs in: users with one password, of whom some have sessions, and their requests in numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ntier_security::password;
use ntier_tests::world::agent;
use serde_json::{Value, json};

use crate::load::{self, Answered, CONNECTIONS, Load, Wrk};
use crate::subject::Subject;

pub const PASSWORD: &str = "correct horse battery";
/// So many that no account's own limit is reached: 30 at once, and one in ten seconds.
pub const USERS: usize = 1024;
/// Twice as many as there are connections, and some to spare.
const SESSIONS: usize = 144;
/// Seconds: of those who sign in at once, the last waits for all hashes before.
const PATIENCE: u32 = 20;

pub struct People {
    sessions: Vec<Session>,
}

struct Session {
    /// The user's.
    id: String,
    access: String,
    /// The latest.
    refresh: String,
}

/// The address of a user, by number.
pub fn email(number: usize) -> String {
    format!("user{number}@example.com")
}

/// A request to sign-in, from an address of its own (RFC 2544); gives status and body.
pub fn post(
    agent: &ureq::Agent,
    subject: &Subject,
    bearer: Option<&str>,
    from: usize,
    path: &str,
    body: &str,
) -> Result<(u16, String), String> {
    let fault = |cause: ureq::Error| format!("POST {path} on {}: {cause}", subject.name);
    let (name, key) = &subject.headers[0];
    let mut request = agent.post(format!("{}/auth/v1{path}", subject.node.url)).header(*name, key);
    request = request.header("x-forwarded-for", format!("198.19.{}.{}", from / 256 % 256, from % 256));
    if let Some(bearer) = bearer {
        request = request.header("authorization", bearer);
    }
    let mut answer = request.header("content-type", "application/json").send(body).map_err(fault)?;
    let text = answer.body_mut().read_to_string().map_err(fault)?;
    Ok((answer.status().as_u16(), text))
}

impl People {
    pub fn sign_up(subject: &Subject) -> Result<Self, String> {
        let hash = password::hash(PASSWORD).map_err(|cause| cause.to_string())?;
        let agent = agent();
        let ask = |bearer, number, path: &str, body: Value| {
            let (status, text) = post(&agent, subject, bearer, number, path, &body.to_string())?;
            if status == 200 { Ok(text) } else { Err(format!("POST {path} on {}: {status} {text}", subject.name)) }
        };
        for number in 0..USERS {
            let user = json!({ "email": email(number), "password_hash": hash.expose(), "email_confirm": true });
            ask(Some(&subject.admin), number, "/admin/users", user)?;
        }
        let sessions = (0..SESSIONS).map(|number| {
            let body = json!({ "email": email(number), "password": PASSWORD });
            let text = ask(None, number, "/token?grant_type=password", body)?;
            let session: Value = serde_json::from_str(&text).map_err(|cause| cause.to_string())?;
            let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("a session without tokens");
            Ok(Session {
                id: text(&session["user"]["id"])?,
                access: text(&session["access_token"])?,
                refresh: text(&session["refresh_token"])?,
            })
        });
        Ok(Self { sessions: sessions.collect::<Result<_, String>>()? })
    }

    /// They begin to sign in, for so many seconds.
    pub fn sign_in(subject: &Subject, seconds: u32) -> Result<Wrk, String> {
        let mut people = format!("password = '{PASSWORD}'\npeople = {{\n");
        for number in 0..USERS {
            let _ = writeln!(people, "{{ email = '{}' }},", email(number));
        }
        people.push_str("}\n");
        let script = [&people, include_str!("../../people.lua"), include_str!("../../sign_in.lua")].concat();
        start(subject, &script, "POST", "/auth/v1/token?grant_type=password", seconds)
    }

    /// Each session refreshes with its latest token, which is kept for the next time.
    pub fn refresh(&mut self, subject: &Subject, seconds: u32) -> Result<(Answered, BTreeMap<u16, u64>), String> {
        let script = [&self.table(), include_str!("../../people.lua"), include_str!("../../refresh.lua")].concat();
        let said = start(subject, &script, "POST", "/auth/v1/token?grant_type=refresh_token", seconds)?.end()?;
        for line in said.lines() {
            let Some((id, token)) = line.strip_prefix("TOKEN ").and_then(|line| line.split_once(' ')) else { continue };
            if let Some(session) = self.sessions.iter_mut().find(|session| session.id == id) {
                token.clone_into(&mut session.refresh);
            }
        }
        // Tokens are no part of what is kept.
        let said =
            said.lines().filter(|line| !line.starts_with("TOKEN ")).fold(String::new(), |all, line| all + line + "\n");
        load::counted(said)
    }

    pub fn user(&self, subject: &Subject, seconds: u32) -> Result<Answered, String> {
        let script = [&self.table(), include_str!("../../people.lua"), include_str!("../../user.lua")].concat();
        load::answered(start(subject, &script, "GET", "/auth/v1/user", seconds)?.end()?)
    }

    fn table(&self) -> String {
        let mut people = "people = {\n".to_owned();
        for Session { id, access, refresh } in &self.sessions {
            let _ = writeln!(people, "{{ id = '{id}', access = '{access}', refresh = '{refresh}' }},");
        }
        people + "}\n"
    }
}

fn start(subject: &Subject, script: &str, method: &str, path: &str, seconds: u32) -> Result<Wrk, String> {
    let request = load::request(subject, method, path, "");
    let load = Load {
        script,
        request: &request,
        connections: CONNECTIONS,
        seconds,
        pause: Duration::ZERO,
        patience: PATIENCE,
    };
    Wrk::start(&subject.node.url, &load)
}
