//! A client's turn: what it sent up to the end of a transaction's step, run by the engine and answered.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Instant;

use super::Server;
use crate::client::Phase;
use crate::frame::{self, Frame};
use crate::{Error, turn};

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
        let client = &mut self.clients[index];
        client.last_turn = Instant::now();
        let mut status = None;
        for frame in frame::all(&response) {
            match frame.kind {
                b'Z' => status = frame.body.first().copied(),
                b'C' if is_listen(frame.body) => client.has_listened = true,
                _ => {}
            }
        }
        self.owner = if status == Some(b'I') { None } else { Some(id) };
        // What a transaction listens to counts from its end.
        if self.owner.is_none() && std::mem::take(&mut client.has_listened) {
            self.note_channels(index)?;
        }
        self.deliver(index, &response, was_copy);
        Ok(true)
    }

    /// Sends the response to its client, and notifications to all who listen: to the client itself where they stand, before
    /// ReadyForQuery, so that whoever ends after its last answer has got them.
    fn deliver(&mut self, index: usize, response: &[u8], was_copy: bool) {
        let is_extra = |frame: &Frame<'_>| frame.kind == b'A' || (was_copy && frame.kind == b'G');
        if !frame::all(response).any(|frame| is_extra(&frame)) {
            self.clients[index].send(response);
            return;
        }
        let mut kept = Vec::with_capacity(response.len());
        for frame in frame::all(response) {
            if !is_extra(&frame) {
                kept.extend_from_slice(frame.whole);
            } else if let Some(channel) = channel(&frame) {
                for (at, client) in self.clients.iter_mut().enumerate() {
                    match client.channels.contains(channel.as_ref()) {
                        true if at == index => kept.extend_from_slice(frame.whole),
                        true => client.send(frame.whole),
                        false => {}
                    }
                }
            }
        }
        self.clients[index].send(&kept);
    }

    /// After LISTEN or UNLISTEN: whose channels are they, and which must be listened to again.
    fn note_channels(&mut self, index: usize) -> Result<(), Error> {
        let found = self.session.sql("SELECT pg_catalog.pg_listening_channels()")?;
        let now: BTreeSet<String> = frame::rows(&found).into_iter().flatten().flatten().collect();
        let others: BTreeSet<String> = self
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

/// The channel, if it is a NotificationResponse.
fn channel<'a>(frame: &Frame<'a>) -> Option<Cow<'a, str>> {
    let (b'A', [_, _, _, _, rest @ ..]) = (frame.kind, frame.body) else { return None };
    frame::cstr(rest).map(|(name, _)| String::from_utf8_lossy(name))
}

fn is_listen(tag: &[u8]) -> bool {
    matches!(tag, b"LISTEN\0" | b"UNLISTEN\0" | b"DISCARD ALL\0")
}
