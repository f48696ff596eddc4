//! Where an external PostgreSQL is: a `postgres://` URL, or keywords and values, as libpq reads them.
//!
//! Source: PostgreSQL documentation, "Connection Strings", "Parameter Key Words" and "Environment Variables".

use std::path::PathBuf;

/// An external PostgreSQL.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub host: Host,
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    pub tls: SslMode,
    /// `sslrootcert`: a PEM file; `None` or `system` for the machine's own roots.
    pub root_certificate: Option<PathBuf>,
    pub application_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Tcp {
        name: String,
        port: u16,
    },
    /// The socket's path.
    Unix(PathBuf),
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// TLS when the server has it (libpq's default; protects against nobody who can change packets).
    Prefer,
    /// TLS or nothing; the certificate is not checked, unless `sslrootcert` names who may sign it.
    Require,
    VerifyCa,
    VerifyFull,
}

/// The password is not part of what can be printed.
impl std::fmt::Debug for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Address")
            .field("host", &self.host)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("a database URL begins with postgres:// or postgresql://")]
    Scheme,
    #[error("the port {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error("invalid percent encoding in {0:?}")]
    Encoding(String),
    #[error("sslmode {0:?} is not one of disable, prefer, require, verify-ca, verify-full")]
    SslMode(String),
    #[error("the parameter {0:?} is not supported")]
    Parameter(String),
    #[error("{0:?} is not like host=localhost user=me")]
    Keywords(String),
}

/// What is said, before the defaults are filled in.
#[derive(Default)]
struct Said {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    tls: Option<SslMode>,
    root_certificate: Option<String>,
    application_name: Option<String>,
}

/// Reads a URL such as `postgres://user:password@host:5432/database?sslmode=verify-full`; a host that
/// is an absolute path (percent-encoded, or in `?host=`) is the directory of a unix socket.
pub fn parse(url: &str) -> Result<Address, Fault> {
    Ok(said_in_url(url)?.address())
}

/// Reads a URL, or keywords and values such as `host=localhost user=me password='a b'`. What they do not say, libpq's variables
/// (`PGHOST`, …) say.
pub fn parse_connection(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Address, Fault> {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let mut said = if is_url { said_in_url(text)? } else { said_in_keywords(text)? };
    let variables = [
        ("PGHOST", "host"),
        ("PGPORT", "port"),
        ("PGUSER", "user"),
        ("PGPASSWORD", "password"),
        ("PGDATABASE", "dbname"),
        ("PGSSLMODE", "sslmode"),
        ("PGSSLROOTCERT", "sslrootcert"),
        ("PGAPPNAME", "application_name"),
        // Without any, libpq takes the name of the user of the system.
        ("USER", "user"),
    ];
    for (variable, key) in variables {
        if let Some(value) = environment(variable).filter(|value| !value.is_empty() && !said.has(key)) {
            said.set(key, value)?;
        }
    }
    Ok(said.address())
}

fn said_in_url(url: &str) -> Result<Said, Fault> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or(Fault::Scheme)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, hostport) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let mut said = Said::default();
    if let Some(userinfo) = userinfo {
        let (name, secret) = userinfo.split_once(':').map_or((userinfo, None), |(name, secret)| (name, Some(secret)));
        said.user = Some(decode(name)?).filter(|name| !name.is_empty());
        said.password = secret.map(decode).transpose()?;
    }
    let (host, port) = split_port(hostport)?;
    said.host = Some(host).filter(|host| !host.is_empty());
    said.port = port;
    said.database = Some(decode(database)?).filter(|name| !name.is_empty());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        said.set(key, decode(value)?)?;
    }
    Ok(said)
}

fn said_in_keywords(text: &str) -> Result<Said, Fault> {
    let mut said = Said::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let bad = || Fault::Keywords(rest.split_whitespace().next().unwrap_or_default().to_owned());
        let (key, after) = rest.split_once('=').ok_or_else(bad)?;
        let (value, after) = keyword_value(after.trim_start()).ok_or_else(bad)?;
        said.set(key.trim_end(), value)?;
        rest = after.trim_start();
    }
    Ok(said)
}

/// A value in single quotes, or up to the next space; a backslash takes the next character as it is.
fn keyword_value(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('\'');
    let text = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted.is_some() => return Some((value, &text[at + 1..])),
            c if quoted.is_none() && c.is_whitespace() => return Some((value, &text[at..])),
            c => value.push(c),
        }
    }
    quoted.is_none().then_some((value, ""))
}

impl Said {
    fn has(&self, key: &str) -> bool {
        match key {
            "host" => self.host.is_some(),
            "port" => self.port.is_some(),
            "user" => self.user.is_some(),
            "password" => self.password.is_some(),
            "dbname" => self.database.is_some(),
            "sslmode" => self.tls.is_some(),
            "sslrootcert" => self.root_certificate.is_some(),
            _ => self.application_name.is_some(),
        }
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), Fault> {
        match key {
            "host" | "hostaddr" => self.host = Some(value),
            "port" => self.port = Some(parse_port(&value)?),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "dbname" => self.database = Some(value),
            "sslmode" => self.tls = Some(ssl_mode(&value)?),
            "sslrootcert" => self.root_certificate = Some(value),
            "application_name" | "fallback_application_name" => self.application_name = Some(value),
            // What only tunes libpq itself changes nothing here.
            "connect_timeout" | "target_session_attrs" | "channel_binding" | "gssencmode" | "keepalives" => {}
            other => return Err(Fault::Parameter(other.to_owned())),
        }
        Ok(())
    }

    fn address(self) -> Address {
        let port = self.port.unwrap_or(5432);
        let host = match self.host {
            Some(path) if path.starts_with('/') => Host::Unix(PathBuf::from(path).join(format!(".s.PGSQL.{port}"))),
            Some(name) if !name.is_empty() => Host::Tcp { name, port },
            _ => Host::Tcp { name: "localhost".into(), port },
        };
        let user = self.user.unwrap_or_else(|| "postgres".into());
        let system = self.root_certificate.as_deref() == Some("system");
        let tls = match (self.tls, &self.root_certificate) {
            // As libpq: `sslrootcert=system` means verify-full, and `require` with a root verifies the chain.
            (None, Some(_)) if system => SslMode::VerifyFull,
            (Some(SslMode::Require), Some(_)) => SslMode::VerifyCa,
            (tls, _) => tls.unwrap_or(SslMode::Prefer),
        };
        Address {
            host,
            database: self.database.unwrap_or_else(|| user.clone()),
            user,
            password: self.password,
            tls,
            root_certificate: self.root_certificate.filter(|_| !system).map(PathBuf::from),
            application_name: self.application_name.unwrap_or_else(|| "ntier".into()),
        }
    }
}

fn split_port(hostport: &str) -> Result<(String, Option<u16>), Fault> {
    if let Some((address, rest)) = hostport.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = rest.strip_prefix(':').filter(|port| !port.is_empty()).map(parse_port).transpose()?;
        return Ok((address.to_owned(), port));
    }
    match hostport.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() => Ok((decode(host)?, Some(parse_port(port)?))),
        Some((host, _)) => Ok((decode(host)?, None)),
        None => Ok((decode(hostport)?, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, Fault> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| Fault::Port(text.to_owned()))
}

fn ssl_mode(text: &str) -> Result<SslMode, Fault> {
    Ok(match text {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        other => return Err(Fault::SslMode(other.to_owned())),
    })
}

fn decode(text: &str) -> Result<String, Fault> {
    let bad = || Fault::Encoding(text.to_owned());
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(bad());
        };
        out.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(out).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        let address = parse("postgres://me:p%40ss@db.example:6432/app?sslmode=verify-full").unwrap();
        assert_eq!(address.host, Host::Tcp { name: "db.example".into(), port: 6432 });
        assert_eq!((address.user.as_str(), address.password.as_deref()), ("me", Some("p@ss")));
        assert_eq!((address.database.as_str(), address.tls), ("app", SslMode::VerifyFull));

        let address = parse("postgresql://postgres@/postgres?host=/run/pg&port=5433").unwrap();
        assert_eq!(address.host, Host::Unix("/run/pg/.s.PGSQL.5433".into()));

        let address = parse("postgres://%2Frun%2Fpg/app").unwrap();
        assert_eq!(address.host, Host::Unix("/run/pg/.s.PGSQL.5432".into()));

        let address = parse("postgres://[::1]:5433/x").unwrap();
        assert_eq!(address.host, Host::Tcp { name: "::1".into(), port: 5433 });
        assert_eq!(parse("postgres://h/x?sslmode=require&sslrootcert=/ca.pem").unwrap().tls, SslMode::VerifyCa);
        assert_eq!(parse("postgres://h/x?sslrootcert=system").unwrap().tls, SslMode::VerifyFull);
    }

    #[test]
    fn keywords_and_variables_are_read_as_libpq_reads_them() {
        let none = |_: &str| None;
        let address = parse_connection(r"host=db port = 5433 user='my user' password=a\ b\'c", &none).unwrap();
        assert_eq!(address.host, Host::Tcp { name: "db".into(), port: 5433 });
        assert_eq!((address.user.as_str(), address.password.as_deref()), ("my user", Some("a b'c")));
        let environment = |name: &str| match name {
            "PGHOST" => Some("/run/pg".to_owned()),
            "PGUSER" | "USER" => Some(name.to_lowercase()),
            _ => None,
        };
        let address = parse_connection("postgresql://", &environment).unwrap();
        assert_eq!((address.host, address.user), (Host::Unix("/run/pg/.s.PGSQL.5432".into()), "pguser".to_owned()));
        let address = parse_connection("postgres://me@h/x", &environment).unwrap();
        assert_eq!((address.host, address.user), (Host::Tcp { name: "h".into(), port: 5432 }, "me".to_owned()));
        for text in ["host", "user='open", "host=a nonsense"] {
            assert!(matches!(parse_connection(text, &none), Err(Fault::Keywords(_))), "{text}");
        }
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(parse("mysql://h"), Err(Fault::Scheme));
        assert_eq!(parse("postgres://h:99999/x"), Err(Fault::Port("99999".into())));
        assert_eq!(parse("postgres://h/x?sslmode=maybe"), Err(Fault::SslMode("maybe".into())));
        assert_eq!(parse("postgres://%zz/x"), Err(Fault::Encoding("%zz".into())));
    }

    #[test]
    fn a_password_is_not_printed() {
        let printed = format!("{:?}", parse("postgres://me:hunter2@h/x").unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_text_is_an_address_or_a_fault(text in r"[a-z:/@%?&=.\[\]'\\ 0-9ä]{0,40}") {
            let _ = parse_connection(&text, &|_| None);
            let _ = parse(&format!("postgres://{text}"));
        }
    }
}
