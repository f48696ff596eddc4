//! A client's turn: what it sent up to the end of a transaction's step, run by the engine and answered.

use std::time::Instant;

use super::Server;
use crate::client::Phase;
use crate::{Error, frame, turn};

impl Server {
    pub(super) fn statement(&mut self, index: usize) -> Result<bool, Error> {
        let client = &mut self.clients[index];
        let length = match turn::length(&client.input) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(false),
            Err(frame::TooLong) => {
                self.refuse(index, "08P01", "invalid message length");
                return Ok(true);
            }
        };
        if client.input[0] == b'X' {
            client.gone = true;
            return Ok(true);
        }
        if !client.is_node && turn::is_copy_in(&client.input[..length]) {
            // The engine wants the rows together with the statement, so they are collected first.
            client.send(&[b'G', 0, 0, 0, 7, 0, 0, 0]);
            client.phase = Phase::Copying;
            return Ok(true);
        }
        let mut turn: Vec<u8> = client.input.drain(..length).collect();
        if !client.is_node {
            turn = turn::rewrite(&turn, &format!("c{}_", client.id));
        }
        turn::note(&turn, &mut client.prepared);
        self.run_turn(index, &turn, false)
    }

    pub(super) fn copy(&mut self, index: usize) -> Result<bool, Error> {
        let client = &mut self.clients[index];
        let statement = turn::length(&client.input).ok().flatten().unwrap_or(0);
        match turn::copy_length(&client.input[statement..]) {
            Ok(Some(rows)) => {
                client.phase = Phase::Ready;
                let turn: Vec<u8> = client.input.drain(..statement + rows).collect();
                self.run_turn(index, &turn, true)
            }
            Ok(None) => Ok(false),
            Err(frame::TooLong) => {
                self.refuse(index, "08P01", "invalid message length");
                Ok(true)
            }
        }
    }

    fn run_turn(&mut self, index: usize, turn: &[u8], was_copy: bool) -> Result<bool, Error> {
        let id = self.clients[index].id;
        self.switch(Some(id))?;
        self.running.begin(id);
        let response = self.session.run(turn)?;
        self.running.end();
        self.turns += 1;
        self.clients[index].last_turn = Instant::now();
        let seen = self.deliver(index, &response, was_copy);
        self.owner = match seen.status {
            Some(b'I') => None,
            _ => Some(id),
        };
        if seen.listening {
            self.note_channels(index)?;
        }
        Ok(true)
    }

    /// Sends the response to its client, and notifications to all who listen.
    fn deliver(&mut self, index: usize, response: &[u8], was_copy: bool) -> Seen {
        let mut seen = Seen::default();
        let mut notifications = Vec::new();
        let mut plain = true;
        for frame in frame::all(response) {
            match frame.kind {
                b'Z' => seen.status = frame.body.first().copied(),
                b'A' => {
                    notifications.push(frame.whole);
                    plain = false;
                }
                b'G' if was_copy => plain = false,
                b'C' if is_listen(frame.body) => seen.listening = true,
                _ => {}
            }
        }
        if plain {
            self.clients[index].send(response);
        } else {
            let kept: Vec<u8> = frame::all(response)
                .filter(|frame| frame.kind != b'A' && !(was_copy && frame.kind == b'G'))
                .flat_map(|frame| frame.whole.iter().copied())
                .collect();
            self.clients[index].send(&kept);
        }
        for notification in notifications {
            let channel = frame::cstr(&notification[9..]).map(|(name, _)| String::from_utf8_lossy(name));
            for client in &mut self.clients {
                if channel.as_ref().is_some_and(|channel| client.channels.contains(channel.as_ref())) {
                    client.send(notification);
                }
            }
        }
        seen
    }

    /// After LISTEN or UNLISTEN: whose channels are they, and which must be listened to again.
    fn note_channels(&mut self, index: usize) -> Result<(), Error> {
        let found = self.session.sql("SELECT pg_catalog.pg_listening_channels()")?;
        let now: std::collections::BTreeSet<String> = frame::rows(&found).into_iter().flatten().flatten().collect();
        let others: std::collections::BTreeSet<String> = self
            .clients
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .flat_map(|(_, client)| client.channels.iter().cloned())
            .collect();
        let client = &mut self.clients[index];
        client.channels.retain(|channel| now.contains(channel));
        client.channels.extend(now.difference(&others).cloned());
        for lost in others.difference(&now) {
            self.session.listen(lost)?;
        }
        Ok(())
    }
}

/// What a response told about the session.
#[derive(Default)]
struct Seen {
    status: Option<u8>,
    listening: bool,
}

fn is_listen(tag: &[u8]) -> bool {
    matches!(tag, b"LISTEN\0" | b"UNLISTEN\0" | b"DISCARD ALL\0")
}
