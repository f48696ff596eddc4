//! Services of others that a node asks: an HTTP server as simple as one can be, and an identity provider made of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use ntier_security::keys::Keys;
use serde_json::{Value, json};

use crate::world::now;

/// What was asked.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A field of the form that was sent, or of the query.
    pub fn field(&self, name: &str) -> Option<String> {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        let pairs = self.body.split('&').chain(query.split('&'));
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
    }
}

/// Without its percent signs.
///
/// # Panics
/// When it is no UTF-8.
pub fn decoded(text: &str) -> String {
    let bytes = text.replace('+', " ").into_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).expect("UTF-8")
}

/// An answer: status, further headers, body.
pub type Said = (u16, Vec<(&'static str, String)>, String);

/// Serves until the process ends; gives the address.
///
/// # Panics
/// When there is no port.
pub fn serve(answer: impl Fn(&str, &Asked) -> Said + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (own, answer) = (url.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (own, answer) = (own.clone(), answer.clone());
            std::thread::spawn(move || one(&stream, &|asked| answer(&own, asked)));
        }
    });
    url
}

fn one(stream: &TcpStream, answer: &dyn Fn(&Asked) -> Said) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0).map(|_| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let mut asked = Asked { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Asked::default() };
    while let Some(header) = line().filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(':')?;
        asked.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    asked.body = String::from_utf8_lossy(&body).into_owned();
    let (status, headers, body) = answer(&asked);
    let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).ok()
}

/// An identity provider: OpenID Connect, and GitHub's API beside it. Whoever is next comes in without being asked.
#[derive(Debug, Clone)]
pub struct Provider {
    pub url: String,
    next: Arc<Mutex<Value>>,
    /// What was asked, but for what everybody may know.
    pub asked: Arc<Mutex<Vec<Asked>>>,
    keys: Arc<Keys>,
}

/// The client that the provider knows.
pub const CLIENT: &str = "client-of-ntier";
pub const SECRET: &str = "secret of ntier";

impl Provider {
    /// # Panics
    /// When there is no port.
    pub fn start() -> Self {
        let keys = Arc::new(Keys::generate(now()).expect("keys"));
        let next = Arc::new(Mutex::new(Value::Null));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let provider = Self { url: String::new(), next, asked, keys };
        let answering = provider.clone();
        let url = serve(move |own, asked| Self { url: own.to_owned(), ..answering.clone() }.answer(asked));
        Self { url, ..provider }
    }

    /// Who comes next: claims with `sub`; GitHub's with `id`, and its list of addresses in `emails`.
    ///
    /// # Panics
    /// Never.
    pub fn next(&self, who: Value) {
        *self.next.lock().unwrap() = who;
    }

    /// An id token with these claims.
    ///
    /// # Panics
    /// Never.
    pub fn id_token(&self, claims: &Value) -> String {
        let mut all = json!({ "iss": self.url, "aud": CLIENT, "exp": now() + 300, "iat": now() });
        for (name, value) in claims.as_object().expect("claims") {
            all[name] = value.clone();
        }
        self.keys.sign(&all.to_string()).expect("signed")
    }

    fn answer(&self, asked: &Asked) -> Said {
        let json = |status: u16, body: Value| {
            (status, vec![("content-type", "application/json".to_owned())], body.to_string())
        };
        let at = |path: &str| format!("{}{path}", self.url);
        let who = self.next.lock().unwrap().clone();
        let path = asked.path.split('?').next().unwrap_or_default();
        if !path.starts_with("/.well-known") && path != "/jwks" {
            self.asked.lock().unwrap().push(asked.clone());
        }
        match path {
            "/.well-known/openid-configuration" => json(
                200,
                json!({
                    "issuer": self.url, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
                    "userinfo_endpoint": at("/userinfo"), "jwks_uri": at("/jwks"),
                    "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                }),
            ),
            "/jwks" => json(200, self.keys.jwks().expect("keys")),
            "/authorize" | "/login/oauth/authorize" => {
                let field = |name: &str| asked.field(name).unwrap_or_default();
                let back = format!("{}?code=a-code&state={}", field("redirect_uri"), field("state"));
                (302, vec![("location", back)], String::new())
            }
            "/token" if asked.field("code").as_deref() != Some("a-code") => {
                json(400, json!({ "error": "invalid_grant" }))
            }
            "/token" => {
                let mut claims = who.clone();
                // Whoever asks for it at userinfo gets more.
                claims.as_object_mut().map(|claims| claims.remove("userinfo"));
                let id_token = self.id_token(&claims);
                json(
                    200,
                    json!({ "access_token": "an-access-token", "refresh_token": "a-refresh-token", "id_token": id_token }),
                )
            }
            "/userinfo" => {
                let mut claims = who["userinfo"].clone();
                claims["sub"] = who["sub"].clone();
                json(200, claims)
            }
            "/login/oauth/access_token" => json(200, json!({ "access_token": "an-access-token" })),
            "/api/v3/user" => json(200, who),
            "/api/v3/user/emails" => json(200, who["emails"].clone()),
            _ => json(404, Value::Null),
        }
    }
}
