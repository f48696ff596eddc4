//! Requests as somebody, and their answers.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use serde_json::Value;

/// Who asks.
#[derive(Debug, Clone)]
pub enum Who {
    /// With the publishable key.
    Anon,
    /// With the publishable key and the token of a user, whose id this is.
    User(String),
    /// With the secret key.
    Service,
    /// Without any key.
    Nobody,
}

impl Who {
    /// A user, told apart by a number.
    pub fn user(number: u32) -> Self {
        Self::User(format!("00000000-0000-4000-8000-{number:012}"))
    }
}

/// A request that is being written.
#[derive(Debug)]
pub struct Ask<'a> {
    pub(crate) agent: &'a ureq::Agent,
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Vec<u8>>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl<'a> Ask<'a> {
    /// Sends it through this client's connections.
    pub fn through(mut self, agent: &'a ureq::Agent) -> Result<Answer, ureq::Error> {
        self.agent = agent;
        self.try_send()
    }

    /// Asks another node instead.
    pub fn move_to(&mut self, from: &str, to: &str) {
        self.url = self.url.replacen(from, to, 1);
    }

    /// Sets a header.
    ///
    /// # Panics
    /// When it cannot be one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header's name");
        self.headers.insert(name, HeaderValue::from_str(value).expect("a header's value"));
        self
    }

    #[must_use]
    pub fn prefer(self, value: &str) -> Self {
        self.header("prefer", value)
    }

    /// A JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    #[must_use]
    pub fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("content-type", media_type)
    }

    /// Sends it.
    ///
    /// # Panics
    /// When nothing comes back.
    pub fn send(self) -> Answer {
        let shown = format!("{} {}", self.method, self.url);
        self.try_send().unwrap_or_else(|cause| panic!("{shown}: {cause}"))
    }

    /// Sends it to a server that may be gone.
    pub fn try_send(self) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(self.method).uri(&self.url);
        if let Some(headers) = request.headers_mut() {
            *headers = self.headers;
        }
        let response = match self.body {
            Some(body) => self.agent.run(request.body(body)?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let (head, mut body) = response.into_parts();
        let body = body.with_config().limit(64 << 20).read_to_vec()?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|cause| panic!("{cause}: {} {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The error's code.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
