//! A client arrives: its startup packet, who it is, and the welcome.

use super::Server;
use crate::client::{NODE, Phase};
use crate::{Error, frame, session};

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
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
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
        if user != "postgres" {
            let set = format!("SET SESSION AUTHORIZATION {}", session::quoted(&user, '"'));
            if let Some(message) = frame::error(&self.session.sql(&set)?) {
                self.refuse(index, "28000", &message);
                return Ok(true);
            }
        }
        let parameters = self.parameters.clone();
        let client = &mut self.clients[index];
        client.is_node = is_node && user == "postgres";
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
