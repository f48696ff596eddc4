//! The bus by LISTEN and NOTIFY, on a connection of its own: users' transactions neither carry it nor wait for it.
//!
//! A NOTIFY is a transaction, and those that have one commit one after the other. So one goes at most each [`PACE`], with all that was
//! said meanwhile. It does not wait for the disk. What is too long for a payload is a row of `ntier.bus` for a minute.
//!
//! Whoever may speak SQL may listen to any channel and notify it, if they know its name; so that is a secret of `ntier.settings`.
//!
//! While it runs: one loop says, one hears, one sweeps rows. Where the connection is lost, `database` makes another and says so by an empty
//! notification: what was said meanwhile was missed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::parcels::{self, Parcel, Payload};
use super::queue::Queue;
use super::{Hear, Heard, NodeId, Reach, Tell};
use crate::database::{Access, Address, Batch, Database, Error, Notification, Options, Session, Statement, Target};

/// From one NOTIFY to the next.
const PACE: Duration = Duration::from_millis(5);
/// Bytes of messages in one transaction.
const AT_ONCE: usize = 4 << 20;
/// How long the database may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Notifications that may wait to be heard.
const UNHEARD: usize = 1024;
/// Rows are swept so often, once they are so old.
const SWEEP: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Postgres {
    database: Database,
    notifications: broadcast::Receiver<Notification>,
    channel: String,
}

impl Postgres {
    pub async fn open(address: Address, settings: &Database) -> Result<Self, Error> {
        let channel = channel(settings).await?;
        let listen = vec![channel.clone()];
        let options = Options { connections: 1, listen, notifications: UNHEARD, ..Options::default() };
        let database = Database::open(Target::External(address), options).await?;
        let notifications = database.notifications();
        Ok(Self { database, notifications, channel })
    }

    /// Until the queue is closed and empty.
    pub async fn run(self, node: NodeId, queue: &Queue, hear: &mut Hear, tell: &mut Tell) {
        let Self { database, notifications, channel } = self;
        tokio::select! {
            () = say(&database, &channel, node, queue, tell) => {}
            () = listen(&database, node, notifications, hear) => {}
            () = sweep(&database) => {}
        }
        database.close().await;
    }
}

/// The project's channel; whoever comes first names it.
async fn channel(settings: &Database) -> Result<String, Error> {
    const NAME: &str = "insert into ntier.settings (name, value) \
        values ('bus', 'ntier_' || replace(gen_random_uuid()::text, '-', '')) on conflict do nothing";
    const READ: &str = "select value from ntier.settings where name = 'bus'";
    let statements = vec![statement(NAME, []), statement(READ, [])];
    let answer = settings.run(Batch { statements, ..Batch::default() }).await?;
    let name = answer.results.get(1).and_then(|read| read.rows.first()?.text(0).map(str::to_owned));
    name.ok_or_else(|| Error::Unavailable("ntier.settings does not keep what is written to it".into()))
}

async fn say(database: &Database, channel: &str, node: NodeId, queue: &Queue, tell: &mut Tell) {
    let mut number = 0;
    let mut reach = Reach::default();
    loop {
        let messages = queue.take(AT_ONCE).await;
        if messages.is_empty() {
            return;
        }
        let begun = Instant::now();
        let batch = batch(channel, node, &mut number, &parcels::pack(&messages));
        match database.run(batch).await {
            Ok(_) => reach.back(queue, tell),
            Err(cause) => {
                queue.lose(messages.len());
                reach.away(&cause, tell);
            }
        }
        tokio::time::sleep(PACE.saturating_sub(begun.elapsed())).await;
    }
}

/// One transaction: the rows of what is too long, then all payloads in their order.
fn batch(channel: &str, node: NodeId, number: &mut i64, parcels: &[Parcel]) -> Batch {
    const ROW: &str = "insert into ntier.bus (node, number, body) values ($1, $2, $3)";
    const NOTIFY: &str =
        "select pg_catalog.pg_notify($1, payload) from pg_catalog.unnest($2::text[]) as said (payload)";
    let mut statements = Vec::new();
    let mut payloads = String::from("{");
    for parcel in parcels {
        *number += 1;
        let is_inline = parcel.is_inline();
        if !is_inline {
            let body = parcels::text(&parcel.content);
            statements.push(statement(ROW, [name(node), number.to_string(), body]));
        }
        let payload = Payload { node, number: *number, content: is_inline.then(|| parcel.content.clone()) };
        // Their letters mean nothing in an array.
        payloads.extend([if payloads.len() > 1 { "," } else { "" }, &payload.text()]);
    }
    payloads.push('}');
    statements.push(statement(NOTIFY, [channel.to_owned(), payloads]));
    let session = Session { settings: vec![("synchronous_commit".into(), "off".to_owned())], isolation: None };
    Batch { session: Some(session), statements, deadline: PATIENCE, ..Batch::default() }
}

async fn listen(
    database: &Database,
    node: NodeId,
    mut notifications: broadcast::Receiver<Notification>,
    hear: &mut Hear,
) {
    // What was said before one came.
    hear(Heard::Gap);
    loop {
        let notification = match notifications.recv().await {
            Ok(notification) => notification,
            Err(RecvError::Lagged(_)) => {
                hear(Heard::Gap);
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let content = match Payload::read(&notification.payload) {
            Some(Payload { node: from, .. }) if from == node => continue,
            Some(Payload { node: from, content: Some(content), .. }) => Some((from, content)),
            Some(Payload { node: from, number, content: None }) => {
                row(database, from, number).await.map(|content| (from, content))
            }
            None => None,
        };
        match content.and_then(|(from, content)| Some((from, parcels::unpack(content)?))) {
            Some((from, messages)) => messages.into_iter().for_each(|message| hear(Heard::Message { from, message })),
            None => hear(Heard::Gap),
        }
    }
}

/// The content of a row, if it is there.
async fn row(database: &Database, node: NodeId, number: i64) -> Option<Bytes> {
    const READ: &str = "select body from ntier.bus where node = $1 and number = $2";
    let statements = vec![statement(READ, [name(node), number.to_string()])];
    let batch = Batch { statements, access: Access::ReadOnly, deadline: PATIENCE, ..Batch::default() };
    let answer = database.run(batch).await.ok()?;
    parcels::bytes(answer.results.first()?.rows.first()?.text(0)?)
}

async fn sweep(database: &Database) {
    const OLD: &str = "delete from ntier.bus where at < now() - interval '1 minute'";
    loop {
        let statements = vec![statement(OLD, [])];
        // What stays now goes the next time.
        let _ = database.run(Batch { statements, deadline: PATIENCE, ..Batch::default() }).await;
        tokio::time::sleep(SWEEP).await;
    }
}

fn name(node: NodeId) -> String {
    format!("{node:016x}")
}

fn statement<const N: usize>(text: &str, parameters: [String; N]) -> Statement {
    Statement { text: text.into(), parameters: parameters.map(|value| Some(value.into())).to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_meanwhile_is_one_transaction() {
        let messages = [Bytes::from_static(b"small"), Bytes::from(vec![1; 50_000]), Bytes::from_static(b"last")];
        let mut number = 4;
        let batch = batch("here", 0xab, &mut number, &parcels::pack(&messages));
        let texts: Vec<&str> = batch.statements.iter().map(|statement| &statement.text[..6]).collect();
        // So many bytes share a row.
        assert_eq!((texts, number), (vec!["insert", "select"], 5));
        let payloads = batch.statements[1].parameters[1].clone().unwrap();
        assert_eq!(payloads, "{100000000000000ab5}");

        let messages = [Bytes::from_static(b"a"), Bytes::from(vec![1; 7000]), Bytes::from_static(b"a")];
        let batch = super::batch("here", 0xab, &mut number, &parcels::pack(&messages));
        let payloads = batch.statements[1].parameters[1].clone().unwrap();
        // PostgreSQL carries one of those that are equal.
        assert_eq!(payloads, "{100000000000000ab6:AAAAAWE,100000000000000ab7,100000000000000ab8:AAAAAWE}");
    }
}
