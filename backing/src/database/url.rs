//! Where an external PostgreSQL is: the `postgres://` URL as libpq reads it.
//!
//! Source: PostgreSQL documentation, "Connection URIs" and "Parameter Key Words".

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
}

/// Reads a URL such as `postgres://user:password@host:5432/database?sslmode=verify-full`; a host that
/// is an absolute path (percent-encoded, or in `?host=`) is the directory of a unix socket.
pub fn parse(url: &str) -> Result<Address, Fault> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or(Fault::Scheme)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, hostport) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let (mut user, mut password) = (None, None);
    if let Some(userinfo) = userinfo {
        let (name, secret) = userinfo.split_once(':').map_or((userinfo, None), |(name, secret)| (name, Some(secret)));
        user = Some(decode(name)?).filter(|name| !name.is_empty());
        password = secret.map(decode).transpose()?;
    }
    let (mut host, mut port) = split_port(hostport)?;
    let mut database = Some(decode(database)?).filter(|name| !name.is_empty());
    let (mut tls, mut root_certificate, mut application_name) = (None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value)?;
        match key {
            "host" => host = value,
            "port" => port = Some(parse_port(&value)?),
            "user" => user = Some(value),
            "password" => password = Some(value),
            "dbname" => database = Some(value),
            "sslmode" => tls = Some(ssl_mode(&value)?),
            "sslrootcert" => root_certificate = Some(value),
            "application_name" => application_name = Some(value),
            // What only tunes libpq itself changes nothing here.
            "connect_timeout" | "target_session_attrs" | "channel_binding" | "gssencmode" | "keepalives" => {}
            other => return Err(Fault::Parameter(other.to_owned())),
        }
    }
    let port = port.unwrap_or(5432);
    let host = if host.starts_with('/') {
        Host::Unix(PathBuf::from(host).join(format!(".s.PGSQL.{port}")))
    } else if host.is_empty() {
        Host::Tcp { name: "localhost".into(), port }
    } else {
        Host::Tcp { name: host, port }
    };
    let user = user.unwrap_or_else(|| "postgres".into());
    let system = root_certificate.as_deref() == Some("system");
    let tls = match (tls, &root_certificate) {
        // As libpq: `sslrootcert=system` means verify-full, and `require` with a root verifies the chain.
        (None, Some(_)) if system => SslMode::VerifyFull,
        (Some(SslMode::Require), Some(_)) => SslMode::VerifyCa,
        (tls, _) => tls.unwrap_or(SslMode::Prefer),
    };
    Ok(Address {
        host,
        database: database.unwrap_or_else(|| user.clone()),
        user,
        password,
        tls,
        root_certificate: root_certificate.filter(|_| !system).map(PathBuf::from),
        application_name: application_name.unwrap_or_else(|| "ntier".into()),
    })
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
}
