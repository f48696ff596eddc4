//! A node on a clone of the template, and ways to ask it as somebody.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method};
use ntier_security::token::{SigningKey, sign};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ask::{Answer, Ask, Who};
use crate::node::{self, Node, PATIENCE};
use crate::s3::Signer;
use crate::{directory, template};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Embedded,
    Server,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    pub backend: Backend,
    pub node: Node,
    pub keys: Value,
    /// Of the server's database.
    pub database_url: Option<String>,
    pub agent: ureq::Agent,
    command: &'static str,
    flags: Vec<String>,
    /// Of the node, beside ours.
    environment: Vec<(String, String)>,
    folder: TempDir,
    /// Of the data directory in that folder.
    data: &'static str,
}

impl World {
    /// A world on the fixture project.
    pub fn start(backend: Backend) -> Self {
        Self::start_with(backend, &[])
    }

    /// Likewise, with more flags.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_with(backend: Backend, more: &[&str]) -> Self {
        Self::start_command("serve", backend, more)
    }

    /// Likewise of `ntier dev`, which has an inbox.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_dev(backend: Backend, more: &[&str]) -> Self {
        Self::start_command("dev", backend, more)
    }

    fn start_command(command: &'static str, backend: Backend, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database_url = match backend {
            Backend::Embedded => {
                template::clone_embedded(&folder.path().join("data"));
                None
            }
            Backend::Server => Some(template::clone_server()),
        };
        Self::on(command, backend, folder, &directory::project(), database_url, more, &[])
    }

    /// A world on another project, from nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_project(backend: Backend, project: &Path) -> Self {
        Self::start_project_in(backend, project, &[])
    }

    /// Likewise, in this environment beside ours.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_project_in(backend: Backend, project: &Path, environment: &[(&str, &str)]) -> Self {
        let database_url = (backend == Backend::Server).then(template::empty_server);
        Self::on("serve", backend, tempfile::tempdir().unwrap(), project, database_url, &[], environment)
    }

    /// Likewise of `ntier dev`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_dev_project(backend: Backend, project: &Path, more: &[&str]) -> Self {
        let database_url = (backend == Backend::Server).then(template::empty_server);
        Self::on("dev", backend, tempfile::tempdir().unwrap(), project, database_url, more, &[])
    }

    fn on(
        command: &'static str,
        backend: Backend,
        folder: TempDir,
        project: &Path,
        database_url: Option<String>,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let data = folder.path().join("data");
        let mut flags = vec!["--project".to_owned(), project.to_string_lossy().into_owned()];
        if let Some(url) = &database_url {
            flags.extend(["--database-url".to_owned(), url.clone()]);
        }
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        let environment: Vec<_> =
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let node = start(&environment, command, &data, &flags);
        let keys = node::keys(&data);
        Self { backend, node, keys, database_url, agent: agent(), command, flags, environment, folder, data: "data" }
    }

    /// Kills the node and starts it again.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&mut self) {
        self.node.kill();
        self.node = self.another();
    }

    /// One more node on the same database (a server's), or the next one on the same directory.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn another(&self) -> Node {
        start(&self.environment, self.command, &self.data(), &self.flags)
    }

    /// The application was moved to this server's database: its node is stopped, and another starts there, with the same keys.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn moved(&mut self, database_url: Option<String>) {
        self.moved_to(self.data, database_url);
    }

    /// Likewise, to the embedded database in another data directory, a folder of this world.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn moved_home(&mut self, folder: &'static str) {
        self.moved_to(folder, None);
    }

    /// Likewise, to a server's database with another data directory.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn moved_to(&mut self, folder: &'static str, database_url: Option<String>) {
        self.node.stop();
        self.data = folder;
        if let Some(at) = self.flags.iter().position(|flag| flag == "--database-url") {
            self.flags.drain(at..at + 2);
        }
        self.flags.extend(database_url.iter().flat_map(|url| ["--database-url".to_owned(), url.clone()]));
        self.backend = if database_url.is_some() { Backend::Server } else { Backend::Embedded };
        self.database_url = database_url;
        self.node = self.another();
        self.keys = node::keys(&self.data());
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join(self.data)
    }

    /// A folder that goes with the world.
    pub fn scratch(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn key(&self, name: &str) -> &str {
        self.keys[name].as_str().unwrap_or_default()
    }

    /// A token with these claims, as a client of an existing project has it (HS256).
    ///
    /// # Panics
    /// Never.
    pub fn token(&self, claims: &Value) -> String {
        sign(&claims.to_string(), &SigningKey::Hmac(self.key("jwt_secret").as_bytes())).expect("claims are JSON")
    }

    /// `ask(Who::Anon, "GET /films?id=eq.1")`: the path is behind `/rest/v1`, spaces and quotes in it are encoded.
    ///
    /// # Panics
    /// When the line has no method and path.
    pub fn ask(&self, who: &Who, line: &str) -> Ask<'_> {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let url = format!("{}/rest/v1{}", self.node.url, encoded(path));
        let method: Method = method.parse().expect("a method");
        let ask = Ask { agent: &self.agent, method, url, headers: HeaderMap::new(), body: None };
        match who {
            Who::Nobody => ask,
            Who::Anon => ask.header("apikey", self.key("publishable_key")),
            Who::Service => ask.header("apikey", self.key("secret_key")),
            Who::User(id) => {
                let claims = json!({ "sub": id, "role": "authenticated", "aud": "authenticated", "exp": now() + 3600 });
                let bearer = format!("Bearer {}", self.token(&claims));
                ask.header("apikey", self.key("publishable_key")).header("authorization", &bearer)
            }
        }
    }

    /// Likewise of sign-in: `POST /signup`, with the publishable key and this bearer token, if any.
    pub fn auth(&self, bearer: Option<&str>, line: &str) -> Ask<'_> {
        let mut ask = self.ask(&Who::Anon, line);
        ask.url = ask.url.replacen("/rest/v1", "/auth/v1", 1);
        match bearer {
            Some(token) => ask.header("authorization", &format!("Bearer {token}")),
            None => ask,
        }
    }

    /// Likewise of files.
    pub fn files(&self, who: &Who, line: &str) -> Ask<'_> {
        let mut ask = self.ask(who, line);
        ask.url = ask.url.replacen("/rest/v1", "/storage/v1", 1);
        ask
    }

    /// Who signs S3's requests now: the service with the access key, a user with a session token.
    ///
    /// # Panics
    /// For whoever has none.
    pub fn signer(&self, who: &Who) -> Signer {
        let (access_key, secret, session_token) = match who {
            Who::Service => (self.key("s3_access_key_id"), self.key("s3_secret_access_key"), None),
            Who::User(id) => {
                let claims = json!({ "sub": id, "role": "authenticated", "aud": "authenticated", "exp": now() + 3600 });
                ("project", self.key("anon_key"), Some(self.token(&claims)))
            }
            Who::Anon | Who::Nobody => panic!("nobody signs as {who:?}"),
        };
        Signer { access_key: access_key.into(), secret: secret.into(), session_token, at: now(), expires: 60 }
    }

    /// `s3(&signer, "PUT /bucket/key")`: signed for this world's node.
    ///
    /// # Panics
    /// When the line has no method and path.
    pub fn s3(&self, signer: &Signer, line: &str) -> Ask<'_> {
        let host = self.node.url.trim_start_matches("http://");
        let method: Method = line.split(' ').next().and_then(|method| method.parse().ok()).expect("a method");
        let url = format!("{}{}", self.node.url, signer.sign(host, line));
        Ask { agent: &self.agent, method, url, headers: HeaderMap::new(), body: None }
    }

    /// A row of the data API as whoever has this token.
    pub fn ask_as(&self, token: &str, line: &str) -> Ask<'_> {
        self.ask(&Who::Anon, line).header("authorization", &format!("Bearer {token}"))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(&Who::Anon, &format!("GET {path}")).send()
    }

    /// Runs SQL as the owner, with `ntier sql`; rows come as JSON objects.
    ///
    /// # Panics
    /// When it is refused.
    pub fn sql(&self, sql: &str) -> Value {
        let data = self.data().to_string_lossy().into_owned();
        let mut arguments = vec!["sql", "--data", &data];
        if let Some(url) = &self.database_url {
            arguments.extend(["--database-url", url]);
        }
        arguments.extend(["--json", sql]);
        let (code, out, told) = node::run(&arguments);
        assert_eq!(code, Some(0), "{sql}: {told}");
        out.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).expect("rows are JSON"))
    }

    /// Changes a role in this world's database only: roles belong to the server, which other worlds share.
    pub fn set_role(&self, role: &str, change: &str) {
        let statement = format!(
            "execute format('alter role {role} in database %I {}', current_database())",
            change.replace('\'', "''")
        );
        self.sql(&format!("do $$ begin {statement}; end $$"));
    }

    /// Waits until the node knows what was changed before this call: a table made after it is there.
    pub fn reload(&self) {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("marker_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("create table {name} (); notify pgrst, 'reload schema'"));
        // The table is granted to nobody; known is enough.
        crate::until("the schema is reloaded", || {
            self.ask(&Who::Service, &format!("GET /{name}")).send().status != 404
        });
    }
}

fn start(environment: &[(String, String)], command: &str, data: &Path, flags: &[String]) -> Node {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Node::start_program_in(environment, &directory::program(), command, data, &flags)
        .unwrap_or_else(|said| panic!("ntier {command} ended: {said}"))
}

/// Seconds since 1970.
///
/// # Panics
/// When the clock is before that.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A client with connections of its own; statuses are answers, not errors.
pub fn agent() -> ureq::Agent {
    hasty_agent(PATIENCE)
}

/// A client that waits no longer than this.
pub fn hasty_agent(patience: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience));
    config.allow_non_standard_methods(true).max_redirects(0).max_redirects_will_error(false).build().into()
}

fn encoded(path: &str) -> String {
    path.chars()
        .map(|c| match c {
            ' ' => "%20".to_owned(),
            '"' => "%22".to_owned(),
            '{' => "%7B".to_owned(),
            '}' => "%7D".to_owned(),
            '<' => "%3C".to_owned(),
            '>' => "%3E".to_owned(),
            '|' => "%7C".to_owned(),
            '\\' => "%5C".to_owned(),
            '^' => "%5E".to_owned(),
            c => c.to_string(),
        })
        .collect()
}
