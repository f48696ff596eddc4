//! What is measured: a node, a user's token, and the headers of that user's requests.

use std::path::{Path, PathBuf};

use ntier_security::token::{SigningKey, sign};
use ntier_tests::node::Node;
use ntier_tests::world::{agent, now};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::case::Case;

/// A node of the build that is measured.
pub struct Subject {
    pub name: &'static str,
    pub node: Node,
    /// `apikey` and `authorization`.
    pub headers: [(&'static str, String); 2],
    /// `authorization` of whoever may do everything.
    pub admin: String,
    /// Where its database is, for other programs.
    pub database_url: String,
    secret: String,
    binary: PathBuf,
    flags: Vec<String>,
    folder: TempDir,
}

impl Subject {
    pub fn start(name: &'static str, binary: &Path, database_url: Option<String>) -> Result<Self, String> {
        Self::start_project(name, binary, database_url, &project(), &[])
    }

    /// Likewise on another project, with more flags.
    pub fn start_project(
        name: &'static str,
        binary: &Path,
        database_url: Option<String>,
        project: &Path,
        more: &[&str],
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|cause| cause.to_string())?;
        let embedded = || format!("postgres://postgres@/postgres?host={}&port=5432", folder.path().display());
        let url = database_url.clone().unwrap_or_else(embedded);
        let mut flags = vec!["--project".to_owned(), project.to_string_lossy().into_owned()];
        flags.extend(database_url.into_iter().flat_map(|url| ["--database-url".to_owned(), url]));
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        let node = start(binary, folder.path(), &flags)?;
        let keys = std::fs::read(folder.path().join("keys.json")).map_err(|cause| cause.to_string())?;
        let keys: Value = serde_json::from_slice(&keys).map_err(|cause| cause.to_string())?;
        let text = |name: &str| keys[name].as_str().unwrap_or_default();
        let claims = json!({
            "sub": "00000000-0000-4000-8000-000000000001", "role": "authenticated", "aud": "authenticated",
            "exp": now() + 86_400,
        });
        let secret = text("jwt_secret").to_owned();
        let bearer = |claims: &Value| signed(&secret, claims).map(|token| format!("Bearer {token}"));
        let admin = bearer(&json!({ "role": "service_role", "exp": now() + 86_400 }))?;
        let headers = [("apikey", text("publishable_key").to_owned()), ("authorization", bearer(&claims)?)];
        Ok(Self { name, node, headers, admin, database_url: url, secret, binary: binary.to_owned(), flags, folder })
    }

    /// A token that says this.
    pub fn token(&self, claims: &Value) -> Result<String, String> {
        signed(&self.secret, claims)
    }

    /// Asks once, and looks at the answer.
    pub fn ask(&self, case: &Case, id: &str) -> Result<(), String> {
        let url = format!("{}/rest/v1{}", self.node.url, case.path.replace("{id}", id));
        let agent = agent();
        let answer = if case.body.is_empty() {
            let mut request = agent.get(&url);
            for (name, value) in &self.headers {
                request = request.header(*name, value);
            }
            request.call()
        } else {
            let mut request = agent.post(&url).header("content-type", "application/json");
            for (name, value) in &self.headers {
                request = request.header(*name, value);
            }
            request.send(case.body)
        };
        let mut answer = answer.map_err(|cause| format!("{} on {}: {cause}", case.name, self.name))?;
        let body = answer.body_mut().read_to_string();
        let body = body.map_err(|cause| format!("{} on {}: {cause}", case.name, self.name))?;
        case.check(answer.status().as_u16(), &body)
    }

    /// What other nodes of its database need.
    pub fn vault(&self) -> Result<String, String> {
        let key = std::fs::read_to_string(self.folder.path().join("vault.key"));
        key.map(|key| key.trim().to_owned()).map_err(|cause| cause.to_string())
    }

    /// The folder of its files.
    pub fn blobs(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Starts it once more on what is there.
    pub fn restart(&mut self) -> Result<(), String> {
        self.node.stop();
        self.node = start(&self.binary, self.folder.path(), &self.flags)?;
        Ok(())
    }
}

fn signed(secret: &str, claims: &Value) -> Result<String, String> {
    sign(&claims.to_string(), &SigningKey::Hmac(secret.as_bytes())).map_err(|cause| cause.to_string())
}

/// The tables that are asked for.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("project")
}

fn start(binary: &Path, data: &Path, flags: &[String]) -> Result<Node, String> {
    let node = Node::start_program(binary, "serve", data, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    node.map_err(|said| format!("{} serve ended: {said}", binary.display()))
}
