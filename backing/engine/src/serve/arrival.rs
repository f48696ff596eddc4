//! A client arrives: its startup packet, who it is, and the welcome.

use super::Server;
use crate::client::{NODE, Phase};
use crate::session::{self, Session};
use crate::{Error, frame};

impl Server {
    /// Answers the startup packet: no password, because the socket's directory is private.
    pub(super) fn startup(&mut self, index: usize) -> Result<bool, Error> {
        let client = &mut self.clients[index];
        let Some((length, rest)) = client.input.split_first_chunk::<4>() else {
            return Ok(false);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if !(8..=10_000).contains(&length) {
            client.gone = true;
            return Ok(true);
        }
        if rest.len() + 4 < length {
            return Ok(false);
        }
        let packet: Vec<u8> = client.input.drain(..length).skip(4).collect();
        match u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]) {
            // SSLRequest and GSSENCRequest: not here.
            80_877_103 | 80_877_104 => client.send(b"N"),
            196_608..=196_610 => return self.welcome(index, &packet[4..]),
            // CancelRequest and anything else.
            _ => client.gone = true,
        }
        Ok(true)
    }

    fn welcome(&mut self, index: usize, packet: &[u8]) -> Result<bool, Error> {
        let fields = startup_fields(packet);
        let field = |name: &str| fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let user = field("user").unwrap_or("postgres").to_owned();
        let database = field("database").unwrap_or(&user).to_owned();
        let is_node = field("application_name") == Some(NODE);
        if database != "postgres" {
            let message = format!("database \"{database}\" does not exist; the embedded database is \"postgres\"");
            self.refuse(index, "3D000", &message);
            return Ok(true);
        }
        let id = self.clients[index].id;
        self.switch(Some(id))?;
        let is_node = is_node && user == "postgres";
        let given = self.session.given_to(&user)?;
        self.session.give(&given)?;
        if user != "postgres" {
            let set = format!("SET SESSION AUTHORIZATION {}", session::quoted(&user, '"'));
            if let Some(message) = frame::error(&self.session.sql(&set)?) {
                self.refuse(index, "28000", &message);
                return Ok(true);
            }
        }
        if is_node {
            self.clients[index].saved = given;
        } else {
            self.clients[index].named.settings.extend(given.names());
            for (name, value) in settings(&fields) {
                let answer = self.session.set(&name, &value)?;
                if let (Some(code), Some(message)) = (frame::error_field(&answer, b'C'), frame::error(&answer)) {
                    self.refuse(index, &code, &message);
                    return Ok(true);
                }
                self.clients[index].named.settings.extend(name.contains('.').then_some(name));
            }
        }
        let parameters = parameters(&mut self.session)?;
        let client = &mut self.clients[index];
        client.is_node = is_node;
        client.phase = Phase::Ready;
        let mut out = Vec::new();
        frame::push(&mut out, b'R', &0_u32.to_be_bytes());
        out.extend_from_slice(&parameters);
        frame::push(&mut out, b'K', &[id.to_be_bytes(), [0; 4]].concat());
        frame::push(&mut out, b'Z', b"I");
        client.send(&out);
        Ok(true)
    }

    pub(super) fn refuse(&mut self, index: usize, code: &str, message: &str) {
        let mut out = Vec::new();
        frame::push_error(&mut out, "FATAL", code, message);
        let client = &mut self.clients[index];
        client.send(&out);
        client.gone = true;
    }
}

fn startup_fields(mut packet: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some((key, rest)) = frame::cstr(packet) {
        if key.is_empty() {
            break;
        }
        let Some((value, rest)) = frame::cstr(rest) else {
            break;
        };
        fields.push((String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned()));
        packet = rest;
    }
    fields
}

/// What a startup packet sets for the session.
fn settings(fields: &[(String, String)]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, value) in fields {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => found.extend(options(value)),
            // Those of the protocol itself.
            name if name.starts_with("_pq_.") => {}
            name => found.push((name.to_owned(), value.clone())),
        }
    }
    found
}

/// `-c name=value` and `--name=value`, as the command line of PostgreSQL takes them; a backslash keeps a blank.
fn options(text: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            (' ' | '\t' | '\n', Some(word)) if word.is_empty() => {}
            (' ' | '\t' | '\n', _) => words.push(String::new()),
            ('\\', Some(word)) => word.extend(characters.next()),
            (_, Some(word)) => word.push(character),
            (_, None) => {}
        }
    }
    let mut words = words.into_iter();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.as_str() {
            "-c" => words.next(),
            _ => word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).map(str::to_owned),
        };
        let Some(setting) = setting else { continue };
        if let Some((name, value)) = setting.split_once('=') {
            // Only names of a command line are written with hyphens.
            found.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    found
}

/// The ParameterStatus messages that a client gets at its start.
fn parameters(session: &mut Session) -> Result<Vec<u8>, Error> {
    let found = session.sql(
        "SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.unnest('{server_version, server_encoding, client_encoding, \
         application_name, DateStyle, IntervalStyle, TimeZone, integer_datetimes, standard_conforming_strings, is_superuser, \
         session_authorization, default_transaction_read_only, in_hot_standby, scram_iterations, search_path}'::text[]) AS name",
    )?;
    let mut out = Vec::new();
    for (name, value) in session::pairs(&found) {
        frame::push(&mut out, b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_on_a_command_line() {
        for (text, expected) in [
            (
                "-c search_path=a,b  --default-transaction-read-only=on",
                vec![("search_path", "a,b"), ("default_transaction_read_only", "on")],
            ),
            (r"-capp.name=two\ words", vec![("app.name", "two words")]),
            (" -c", vec![]),
            ("-x y", vec![]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(options(text), expected, "{text}");
        }
    }
}
