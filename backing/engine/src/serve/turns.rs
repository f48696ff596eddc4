//! A client's turn: what it sent up to the end of a transaction's step, run by the engine and answered.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Instant;

use super::Server;
use crate::client::Phase;
use crate::frame::{self, Frame};
use crate::turn::{Fault, Next};
use crate::{Error, turn};

impl Server {
    pub(super) fn statement(&mut self, index: usize) -> Result<bool, Error> {
        let Some(length) = self.cut(index) else { return Ok(self.clients[index].gone) };
        let client = &mut self.clients[index];
        if !client.is_node
            && let Some(format) = turn::copies_in(&client.input[..length])
        {
            // The engine wants the rows together with the statement, so they are collected first.
            client.send(&[b'G', 0, 0, 0, 7, format, 0, 0]);
            client.phase = Phase::Copying;
            return Ok(true);
        }
        let mut turn: Vec<u8> = client.input.drain(..length).collect();
        if !client.is_node {
            client.named.note(&turn);
            turn = turn::rewrite(&turn, &format!("c{}_", client.id), &client.prepared);
        } else if turn[0] == b'Q' {
            turn::fail_copy(&mut turn);
        }
        self.run_turn(index, &turn, false)
    }

    pub(super) fn copy(&mut self, index: usize) -> Result<bool, Error> {
        let Some(length) = self.cut(index) else { return Ok(self.clients[index].gone) };
        let client = &mut self.clients[index];
        client.phase = Phase::Ready;
        let mut turn: Vec<u8> = client.input.drain(..length).collect();
        turn::fail_copy(&mut turn);
        self.run_turn(index, &turn, true)
    }

    /// The length of a turn that is there; sends away who does what no client may.
    fn cut(&mut self, index: usize) -> Option<usize> {
        match self.clients[index].next() {
            Ok(Next::Turn(length)) => return Some(length),
            Ok(Next::Part) => {}
            Ok(Next::Leave) => self.clients[index].gone = true,
            Err(Fault::Length) => self.refuse(index, "08P01", "invalid message length"),
            Err(Fault::Kind(kind)) => self.refuse(index, "08P01", &format!("invalid frontend message type {kind}")),
        }
        None
    }

    fn run_turn(&mut self, index: usize, turn: &[u8], was_copy: bool) -> Result<bool, Error> {
        let id = self.clients[index].id;
        self.switch(Some(id))?;
        let was_owner = self.owner == Some(id);
        let client = &mut self.clients[index];
        if !client.is_node && !self.session.is_last(id) && turn::needs_unnamed(turn) {
            self.session.prepare_unnamed(&client.prepared)?;
        }
        turn::note(turn, &mut client.prepared, client.is_node);
        self.running.begin(id);
        let response = self.session.run(turn)?;
        self.running.end();
        self.turns += 1;
        client.last_turn = Instant::now();
        // Of the transaction; there is none where it ended with a Flush.
        let mut status = None;
        let mut has_failed = false;
        for frame in frame::all(&response) {
            match frame.kind {
                b'Z' => status = frame.body.first().copied(),
                b'E' => has_failed = true,
                b'C' => {
                    client.has_listened |= is_listen(frame.body);
                    if is_deallocate_all(frame.body) {
                        client.prepared.clear();
                        self.are_deallocated = true;
                    }
                }
                _ => {}
            }
        }
        if status.is_none() && !was_owner && !has_failed && turn::only_prepares(turn) {
            // It ends with a Flush. Whoever prepares now and runs later is not waited for.
            self.session.synchronise(Vec::new())?;
            status = Some(b'I');
        }
        self.session.ran(id);
        self.owner = if status == Some(b'I') { None } else { Some(id) };
        // What a transaction listens to counts from its end.
        if self.owner.is_none() && std::mem::take(&mut client.has_listened) {
            self.note_channels(index)?;
        }
        if self.owner.is_none() && std::mem::take(&mut self.are_deallocated) {
            self.prepare_again(Some(id))?;
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
        let lost: Vec<String> = others.difference(&now).cloned().collect();
        let client = &mut self.clients[index];
        // One that another has listened to already is no news to the session, but its name was in this client's SQL.
        let is_own = |channel: &String| {
            client.channels.contains(channel) || client.named.channels.contains(channel) || !others.contains(channel)
        };
        let channels = now.iter().filter(|channel| is_own(channel)).cloned().collect();
        client.named.channels.retain(|channel| now.contains(channel));
        client.channels = channels;
        for lost in lost {
            self.session.listen(&lost)?;
        }
        Ok(())
    }
}

/// The channel, if it is a NotificationResponse.
fn channel<'a>(frame: &Frame<'a>) -> Option<Cow<'a, str>> {
    let (b'A', [_, _, _, _, rest @ ..]) = (frame.kind, frame.body) else { return None };
    frame::cstr(rest).map(|(name, _)| String::from_utf8_lossy(name))
}

fn is_deallocate_all(tag: &[u8]) -> bool {
    matches!(tag, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0")
}

fn is_listen(tag: &[u8]) -> bool {
    matches!(tag, b"LISTEN\0" | b"UNLISTEN\0" | b"DISCARD ALL\0")
}
