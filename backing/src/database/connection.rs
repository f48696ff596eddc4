//! One connection, many requests: batches are pipelined in order, answered in order.
//!
//! A batch is `set_config` for role and claims, its statements, and one Sync. PostgreSQL runs what stands before a
//! Sync as one implicit transaction ("Pipelining" in the documentation): it commits at the Sync, an error
//! skips to it and rolls everything back, and ReadyForQuery comes after the commit. So there is no BEGIN, no COMMIT and
//! one round trip, and an answer given after ReadyForQuery is an answer given after the commit.
//!
//! Reads that may share a transaction do so when there is a crowd: while two transactions are on the way, they are held back, and
//! those of one session then go as one transaction with one preamble, those that ask the very same as one statement, which begins
//! after all of them asked. Nobody waits for company: an idle connection sends at once.
//! What fails in such a group is told to its own caller; those behind it have not run and go again, alone.
//!
//! The embedded engine commits one transaction after the other, so each would wait for the disk alone. In a crowd, brief writes are
//! held back likewise, commit without waiting for the disk, and are followed by one flush of the log for all; their answers are given
//! when that is through, and an error where it is not.
//!
//! The life of a connection is [`Connection::run`]: it takes work from its queue while there is room, writes what
//! has gathered in one write, reads answers, and watches the deadline of the batch at the head, the only one that can
//! be running. It returns when the stream ends, with the batches that were under way.

use std::collections::VecDeque;
use std::fmt::Write;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::handshake::{Key, Ready};
use super::progress::Progress;
use super::referee::{Overdue, Referee};
use super::statements::{Columns, Statements};
use super::stream::Stream;
use super::{
    Access, Answer, Batch, Column, Company, End, Error, Isolation, Notification, Refusal, Rows, Session, Statement,
    wire,
};

/// Batches on the way at once; more wait in the queue, where they can still go elsewhere.
const DEPTH: usize = 128;
/// Transactions on the way before reads are held back.
const CROWD: usize = 2;
/// Reads in one transaction, or writes before one flush, at most.
const GROUP: usize = 32;
/// And no more than run in about this time, because the last waits for the first.
const GROUP_TIME: Duration = Duration::from_millis(4);
/// How many of those that are held back are looked at for company.
const SEARCH: usize = 64;
/// Writes the log to the disk up to here, and with it all commits before.
const FLUSH: &str = "SELECT pg_catalog.pg_logical_emit_message(false, 'ntier', '', true)";
/// How often the head's deadline is looked at.
const TICK: Duration = Duration::from_millis(20);
/// A connection that is to end has nothing more to say when it has said nothing for so long.
const SILENCE: Duration = Duration::from_millis(200);

/// Something to run, and where its answer goes.
#[derive(Debug)]
pub struct Work {
    pub task: Task,
    pub deadline: Duration,
    pub reply: oneshot::Sender<Result<Answer, Error>>,
    /// Those who asked the very same meanwhile, and are answered by the same execution.
    pub others: Vec<oneshot::Sender<Result<Answer, Error>>>,
    /// How often it was begun on a connection that then failed, or with a statement that had gone.
    pub attempts: u8,
}

#[derive(Debug)]
pub enum Task {
    Batch(Batch),
    /// The simple protocol: several statements in one text.
    Script(String),
}

impl Work {
    /// Running it twice is the same as running it once.
    pub fn is_repeatable(&self) -> bool {
        matches!(&self.task, Task::Batch(batch) if batch.access == Access::ReadOnly || batch.end == End::Rollback)
    }

    /// What it may share, unless it has failed in company.
    fn company(&self) -> Company {
        match &self.task {
            Task::Batch(batch) if self.attempts == 0 => batch.company,
            _ => Company::None,
        }
    }

    fn session(&self) -> Option<&Session> {
        match &self.task {
            Task::Batch(batch) => batch.session.as_ref(),
            Task::Script(_) => None,
        }
    }

    /// Whether one execution answers both; their sessions are known to be the same.
    fn is_same(&self, other: &Self) -> bool {
        match (&self.task, &other.task) {
            (Task::Batch(one), Task::Batch(other)) => one.statements == other.statements,
            _ => false,
        }
    }

    fn join(&mut self, other: Self) {
        self.others.push(other.reply);
        self.others.extend(other.others);
    }

    pub fn answer(self, answer: Result<Answer, Error>) {
        // A caller may have gone; then nobody wants to know.
        for other in self.others {
            let _ = other.send(answer.clone());
        }
        let _ = self.reply.send(answer);
    }
}

/// Work that was written to the connection.
#[derive(Debug)]
pub struct Begun {
    pub work: Work,
    /// When it came to the head of the line.
    since: Option<Instant>,
    /// Results that are not its caller's: of what makes the transaction the caller's.
    leading: usize,
    /// Its Sync ends the transaction; those without share that of the next that has one.
    is_last: bool,
    disk: Disk,
    /// Statements whose Parse was sent with it, in order, and where their columns are kept.
    parsed: Vec<(Arc<str>, Columns)>,
    confirmed: usize,
    /// Of its statements, in order.
    columns: Vec<Columns>,
    results: Vec<Rows>,
    rows: Rows,
    refusal: Option<Refusal>,
    cancelled: bool,
    /// The one before was to be cancelled, and was not.
    is_after_cancelled: bool,
}

/// When what a transaction wrote is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// Before its commit is answered.
    AtCommit,
    /// When the next flush is answered.
    AtFlush,
    /// This is the flush.
    Flush,
}

/// Why a connection ended, and what was on it: the first may have been running, the others had not begun
/// where the server answers strictly in order and the stream was read to its end.
#[derive(Debug)]
pub struct Ended {
    pub reason: Reason,
    pub begun: VecDeque<Begun>,
    /// A part of the first one's answer has come.
    pub is_head_answered: bool,
    /// What has committed, and perhaps not to the disk.
    pub unflushed: Vec<Work>,
    /// What was never written.
    pub held: VecDeque<Work>,
}

#[derive(Debug)]
pub enum Reason {
    /// Nobody will send work any more.
    Closed,
    Lost(String),
    /// The head ran over its deadline and could not be cancelled otherwise.
    Deadline,
}

/// How a connection goes about its work.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    pub prepared_statements: bool,
    /// Brief writes go to the disk together: where one session does everything, and PostgreSQL cannot do it itself.
    pub groups_commits: bool,
}

pub struct Connection {
    stream: Stream,
    input: BytesMut,
    output: BytesMut,
    pub key: Key,
    statements: Statements,
    begun: VecDeque<Begun>,
    /// What has committed and waits for the flush, with its answer.
    unflushed: Vec<(Work, Answer)>,
    /// What waits for a transaction to end, so that it may find company.
    held: VecDeque<Work>,
    /// Brief writes go to the disk together.
    groups_commits: bool,
    /// Transactions on the way; writes with one flush count as one.
    transactions: usize,
    /// A read of a group has failed; the rest of the group will not be answered.
    skipping: bool,
    /// What one batch takes, lately.
    pace: Duration,
    /// Everything that was written has left.
    flushed: bool,
    progress: Arc<Progress>,
    notifications: broadcast::Sender<Notification>,
}

impl Connection {
    pub fn new(
        ready: Ready,
        notifications: broadcast::Sender<Notification>,
        progress: Arc<Progress>,
        Ways { prepared_statements, groups_commits }: Ways,
    ) -> Self {
        let prefix = || format!("n{}_", ready.key.process);
        Self {
            statements: if prepared_statements { Statements::new(prefix()) } else { Statements::unnamed() },
            stream: ready.stream,
            input: ready.buffer,
            output: BytesMut::with_capacity(16 << 10),
            key: ready.key,
            begun: VecDeque::new(),
            unflushed: Vec::new(),
            held: VecDeque::new(),
            groups_commits,
            transactions: 0,
            skipping: false,
            pace: Duration::ZERO,
            flushed: true,
            progress,
            notifications,
        }
    }

    /// Listens on channels; their notifications go to the sender given at the start.
    pub fn listen(&mut self, channels: &[String]) {
        for channel in channels {
            let (reply, _) = oneshot::channel();
            let task = Task::Script(format!("LISTEN \"{}\"", channel.replace('"', "\"\"")));
            self.begin(Work { task, deadline: Duration::from_secs(10), reply, others: Vec::new(), attempts: 0 });
        }
    }

    /// Serves the queue until it closes or the connection ends. The referee is asked when the head is over its deadline.
    pub async fn run(mut self, queue: &mut mpsc::UnboundedReceiver<Work>, referee: &mut Referee) -> Ended {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let reason = loop {
            let room = self.begun.len() + self.held.len() < DEPTH;
            let busy = !self.begun.is_empty();
            tokio::select! {
                biased;
                // First, so that what waits goes out in one write.
                work = queue.recv(), if room => {
                    let Some(work) = work else {
                        self.release();
                        if self.begun.is_empty() { break Reason::Closed }
                        match self.finish().await {
                            Ok(()) => break Reason::Closed,
                            Err(reason) => break reason,
                        }
                    };
                    self.accept(work);
                    while self.begun.len() + self.held.len() < DEPTH && let Ok(work) = queue.try_recv() {
                        self.accept(work);
                    }
                    if self.transactions < CROWD {
                        self.release();
                    }
                }
                received = self.exchange() => {
                    match received {
                        Ok(0) => break Reason::Lost("the database closed the connection".into()),
                        Ok(_) => if let Err(wire::Broken) = self.receive() {
                            break Reason::Lost("the stream is broken".into());
                        },
                        Err(cause) => {
                            // What was answered before the end is still in the socket.
                            referee.end().await;
                            let _ = self.drain(SILENCE).await;
                            break Reason::Lost(cause.to_string());
                        }
                    }
                }
                _ = tick.tick(), if busy => {
                    if let Some(reason) = self.look_at_head(referee).await {
                        // An engine is killed before the rest is read: what it did in between would not be known.
                        referee.end().await;
                        let _ = self.drain(SILENCE).await;
                        break reason;
                    }
                }
            }
        };
        self.progress.idle();
        let is_head_answered = !self.input.is_empty() || self.begun.front().is_some_and(Begun::has_answers);
        let begun = self.begun.into_iter().filter(|begun| begun.disk != Disk::Flush).collect();
        let unflushed = self.unflushed.into_iter().map(|(work, _)| work).collect();
        Ended { reason, begun, is_head_answered, unflushed, held: self.held }
    }

    /// Writes what is to be written, and returns when something was read.
    fn exchange(&mut self) -> impl Future<Output = std::io::Result<usize>> {
        poll_fn(|context| {
            while !self.output.is_empty() {
                match poll_write_buf(Pin::new(&mut self.stream), context, &mut self.output) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(_)) => self.flushed = false,
                    Poll::Ready(Err(cause)) => return Poll::Ready(Err(cause)),
                    Poll::Pending => break,
                }
            }
            // TLS keeps a record until it is flushed.
            if !self.flushed && self.output.is_empty() {
                match Pin::new(&mut self.stream).poll_flush(context) {
                    Poll::Ready(Ok(())) => self.flushed = true,
                    Poll::Ready(Err(cause)) => return Poll::Ready(Err(cause)),
                    Poll::Pending => {}
                }
            }
            poll_read_buf(Pin::new(&mut self.stream), context, &mut self.input)
        })
    }

    /// The last answers after the queue has closed, then a polite end.
    async fn finish(&mut self) -> Result<(), Reason> {
        wire::terminate(&mut self.output);
        let lost = |cause: std::io::Error| Reason::Lost(cause.to_string());
        self.stream.write_all(&self.output).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        // What is under way has the time that it was given.
        let patience = self.begun.iter().map(|begun| begun.work.deadline).max().unwrap_or_default();
        self.drain(patience.max(SILENCE)).await.map_err(lost)
    }

    /// Reads to the end of the stream, or until nothing has come for so long.
    async fn drain(&mut self, silence: Duration) -> std::io::Result<()> {
        while tokio::time::timeout(silence, self.stream.read_buf(&mut self.input)).await?? > 0 {
            if self.receive().is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn look_at_head(&mut self, referee: &mut Referee) -> Option<Reason> {
        let head = self.begun.front_mut()?;
        let since = *head.since.get_or_insert_with(Instant::now);
        // A cancel request gets as long again, at most two seconds, to take effect.
        let patience = if head.cancelled { head.work.deadline + Duration::from_secs(2) } else { head.work.deadline };
        if since.elapsed() < patience {
            return None;
        }
        if head.cancelled {
            return Some(Reason::Deadline);
        }
        match referee.overdue(self.key, head.work.deadline).await {
            Overdue::Wait => head.since = Some(Instant::now()),
            Overdue::Cancelled => head.cancelled = true,
            Overdue::End => return Some(Reason::Deadline),
        }
        None
    }

    /// Begins what must be on its own; the rest may find company.
    fn accept(&mut self, work: Work) {
        match work.company() {
            Company::Transaction => self.held.push_back(work),
            Company::Flush if self.groups_commits => self.held.push_back(work),
            Company::Flush | Company::None => self.begin(work),
        }
    }

    /// Begins what was held back: reads of one session together, and brief writes.
    fn release(&mut self) {
        let pace = self.pace.max(Duration::from_micros(1));
        let most = usize::try_from(GROUP_TIME.as_micros() / pace.as_micros()).unwrap_or(GROUP).clamp(1, GROUP);
        while let Some(first) = self.held.pop_front() {
            if first.company() == Company::Flush {
                self.release_writes(first, most);
                continue;
            }
            let mut group = vec![first];
            let mut at = 0;
            while group.len() < most && at < self.held.len().min(SEARCH) {
                if self.held[at].company() == Company::Flush || self.held[at].session() != group[0].session() {
                    at += 1;
                    continue;
                }
                let Some(work) = self.held.remove(at) else { break };
                match group.iter_mut().find(|member| member.is_same(&work)) {
                    Some(member) => member.join(work),
                    None => group.push(work),
                }
            }
            let last = group.len() - 1;
            for (index, work) in group.into_iter().enumerate() {
                self.write(work, Part { is_first: index == 0, is_last: index == last, disk: Disk::AtCommit });
            }
        }
    }

    /// Begins this write and others that wait, each in its own transaction, with one flush behind them.
    fn release_writes(&mut self, first: Work, most: usize) {
        let mut group = vec![first];
        let mut at = 0;
        while group.len() < most && at < self.held.len() {
            if self.held[at].company() == Company::Flush {
                group.extend(self.held.remove(at));
            } else {
                at += 1;
            }
        }
        if group.len() == 1 {
            return group.into_iter().for_each(|work| self.begin(work));
        }
        for work in group {
            self.write(work, Part { disk: Disk::AtFlush, ..Part::ALONE });
        }
        let flush =
            Batch { statements: vec![Statement { text: FLUSH.into(), parameters: Vec::new() }], ..Batch::default() };
        let (reply, _) = oneshot::channel();
        let deadline = flush.deadline;
        let work = Work { task: Task::Batch(flush), deadline, reply, others: Vec::new(), attempts: 0 };
        self.write(work, Part { disk: Disk::Flush, ..Part::ALONE });
    }

    /// Begins a transaction for this work alone.
    pub fn begin(&mut self, work: Work) {
        self.write(work, Part::ALONE);
    }

    /// Writes the work's messages to the output; the first of a transaction with what makes it the caller's, the last with its Sync.
    fn write(&mut self, work: Work, part: Part) {
        let (mut parsed, mut columns) = (Vec::new(), Vec::new());
        let mut leading = 0;
        match &work.task {
            Task::Script(text) => wire::query(&mut self.output, text),
            Task::Batch(batch) => {
                leading = encode(batch, part, &mut self.statements, &mut self.output, |statement| {
                    if statement.parse {
                        parsed.push((statement.text.clone(), statement.columns.clone()));
                    }
                    columns.push(statement.columns);
                });
            }
        }
        let since = self.begun.is_empty().then(|| self.progress.head());
        self.transactions += usize::from(part.is_last && part.disk != Disk::AtFlush);
        self.begun.push_back(Begun {
            work,
            since,
            leading,
            is_last: part.is_last,
            disk: part.disk,
            parsed,
            confirmed: 0,
            columns,
            results: Vec::new(),
            rows: Rows::default(),
            refusal: None,
            cancelled: false,
            is_after_cancelled: false,
        });
    }

    /// Takes in all whole messages that were read.
    fn receive(&mut self) -> Result<(), wire::Broken> {
        while let Some(message) = wire::next(&mut self.input)? {
            match message.kind {
                b'A' => {
                    if let Some((channel, payload)) = wire::notification(&message.body) {
                        let _ = self.notifications.send(Notification { channel, payload });
                    }
                }
                b'G' => wire::copy_fail(&mut self.output),
                b'Z' => self.ready()?,
                // Nothing more of a group that has failed, but perhaps a notice.
                _ if self.skipping => {}
                _ => {
                    // Before any work the server may send ParameterStatus and notices.
                    let Some(head) = self.begun.front_mut() else { continue };
                    head.take(message)?;
                    if !head.is_last && (head.refusal.is_some() || head.is_answered()) {
                        self.skipping = head.refusal.is_some();
                        self.complete()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// ReadyForQuery: the head's transaction has ended.
    fn ready(&mut self) -> Result<(), wire::Broken> {
        if self.begun.front().is_some_and(|head| head.disk == Disk::AtFlush) {
            return self.complete();
        }
        self.transactions = self.transactions.saturating_sub(1);
        if std::mem::take(&mut self.skipping) {
            self.begin_again()?;
        } else {
            self.complete()?;
        }
        self.release();
        Ok(())
    }

    /// Those behind a read that failed have not run.
    fn begin_again(&mut self) -> Result<(), wire::Broken> {
        loop {
            let mut skipped = self.take_head()?;
            skipped.work.attempts = skipped.work.attempts.max(1);
            self.begin(skipped.work);
            if skipped.is_last {
                return Ok(());
            }
        }
    }

    /// The head leaves the line, and the next is running.
    fn take_head(&mut self) -> Result<Begun, wire::Broken> {
        let head = self.begun.pop_front().ok_or(wire::Broken)?;
        if let Some(since) = head.since {
            self.pace = (self.pace * 7 + since.elapsed()) / 8;
        }
        match self.begun.front_mut() {
            Some(next) => {
                next.since = Some(self.progress.head());
                // A request to cancel may have been meant for one that was through already, and come late.
                next.cancelled = head.cancelled && !head.is_last;
                let was_hit = head.refusal.as_ref().is_some_and(|refusal| refusal.code == "57014");
                next.is_after_cancelled = head.is_last && !was_hit && (head.cancelled || head.is_after_cancelled);
            }
            None => self.progress.idle(),
        }
        for (text, _) in &head.parsed[head.confirmed.min(head.parsed.len())..] {
            self.statements.forget(text);
        }
        Ok(head)
    }

    /// The head has its answer.
    fn complete(&mut self) -> Result<(), wire::Broken> {
        let mut head = self.take_head()?;
        let Some(refusal) = head.refusal.take() else {
            let answer = head.answer();
            match head.disk {
                Disk::AtCommit => head.work.answer(Ok(answer)),
                Disk::AtFlush => self.unflushed.push((head.work, answer)),
                Disk::Flush => self.unflushed.drain(..).for_each(|(work, answer)| work.answer(Ok(answer))),
            }
            return Ok(());
        };
        let may_go_again = head.work.attempts < 2 && matches!(head.work.task, Task::Batch(_));
        if may_go_again && is_stale(&refusal) {
            // Somebody deallocated our statements, or a table's type changed under a plan. The transaction was rolled
            // back whole, so beginning again is safe.
            if let Task::Batch(batch) = &head.work.task {
                for text in texts(batch) {
                    self.statements.forget(&text);
                }
            }
            head.work.attempts += 1;
            let disk = if head.disk == Disk::Flush { Disk::Flush } else { Disk::AtCommit };
            self.write(head.work, Part { disk, ..Part::ALONE });
        } else if head.disk == Disk::Flush {
            let lost = Error::Lost(format!("it had not reached the disk: {}", refusal.message));
            self.unflushed.drain(..).for_each(|(work, _)| work.answer(Err(lost.clone())));
        } else if may_go_again && head.is_after_cancelled && refusal.code == "57014" {
            // The request to cancel was meant for the one before, which was through already.
            head.work.attempts += 1;
            self.begin(head.work);
        } else if head.cancelled && refusal.code == "57014" {
            head.work.answer(Err(Error::Deadline));
        } else {
            head.work.answer(Err(Error::Refused(Box::new(refusal))));
        }
        Ok(())
    }
}

impl Begun {
    fn take(&mut self, message: wire::Message) -> Result<(), wire::Broken> {
        match message.kind {
            b'1' => self.confirmed += 1,
            b'T' => self.described(wire::columns(&message.body).ok_or(wire::Broken)?.into()),
            b'D' => self.rows.rows.push(wire::row(message.body).ok_or(wire::Broken)?),
            b'C' => {
                self.rows.tag = wire::text(&message.body);
                if let Some(columns) = self.columns.get(self.results.len()).and_then(|columns| columns.get()) {
                    self.rows.columns = columns.clone();
                }
                self.results.push(std::mem::take(&mut self.rows));
            }
            b'I' => self.results.push(std::mem::take(&mut self.rows)),
            b'E' => {
                let after = self.results.len().saturating_sub(self.leading);
                self.refusal = Some(Refusal { after, ..wire::refusal(&message.body) });
            }
            _ => {}
        }
        Ok(())
    }

    /// Columns of the statement that was parsed last, or of a script's next result.
    fn described(&mut self, columns: Arc<[Column]>) {
        let parsed = self.confirmed.checked_sub(1).and_then(|last| self.parsed.get(last));
        match parsed {
            // They never change: another description would be another statement.
            Some((_, kept)) => _ = kept.set(columns),
            None => self.rows.columns = columns,
        }
    }

    fn has_answers(&self) -> bool {
        !self.results.is_empty() || !self.rows.rows.is_empty() || self.refusal.is_some()
    }

    /// Whether all its results are there.
    fn is_answered(&self) -> bool {
        match &self.work.task {
            Task::Batch(batch) => self.results.len() >= self.leading + batch.statements.len(),
            Task::Script(_) => false,
        }
    }

    /// The results of the batch's own statements.
    fn answer(&mut self) -> Answer {
        let mut results = std::mem::take(&mut self.results);
        if let Task::Batch(batch) = &self.work.task {
            results.drain(..self.leading.min(results.len()));
            results.truncate(batch.statements.len());
        }
        Answer { results }
    }
}

const ROLLBACK: &str = "ROLLBACK";

/// A prepared statement that is no longer what we took it for.
fn is_stale(refusal: &Refusal) -> bool {
    refusal.code == "26000" || (refusal.code == "0A000" && refusal.message.contains("cached plan"))
}

/// A statement as it was written to the output.
struct Written<'a> {
    text: &'a Arc<str>,
    columns: Columns,
    parse: bool,
}

/// A batch's place in a transaction.
#[derive(Debug, Clone, Copy)]
struct Part {
    is_first: bool,
    is_last: bool,
    disk: Disk,
}

impl Part {
    const ALONE: Self = Self { is_first: true, is_last: true, disk: Disk::AtCommit };
}

/// Writes the messages, and gives the number of results that come before those of the batch's own statements.
fn encode(
    batch: &Batch,
    Part { is_first, is_last, disk }: Part,
    statements: &mut Statements,
    out: &mut BytesMut,
    mut written: impl FnMut(Written<'_>),
) -> usize {
    let mut one = |text: &Arc<str>, parameters: &mut dyn ExactSizeIterator<Item = Option<&[u8]>>| {
        let prepared = statements.need(text);
        if let Some(name) = prepared.close {
            wire::close(out, &name);
        }
        if prepared.parse {
            wire::parse(out, &prepared.name, text);
            wire::describe(out, &prepared.name);
        }
        wire::bind(out, &prepared.name, parameters);
        wire::execute(out);
        written(Written { text, columns: prepared.columns, parse: prepared.parse });
    };
    let mut leading = 0;
    if is_first && let Some(text) = isolation(batch) {
        one(&text, &mut std::iter::empty());
        leading += 1;
    }
    if is_first && let Some((text, values)) = preamble(batch, disk) {
        one(&text, &mut values.iter().map(|value| Some(value.as_bytes())));
        leading += 1;
    }
    for statement in &batch.statements {
        one(&statement.text, &mut statement.parameters.iter().map(Option::as_deref));
    }
    if batch.end == End::Rollback {
        // Inside the implicit transaction it warns and aborts it, which is what is wanted.
        one(&Arc::from(ROLLBACK), &mut std::iter::empty());
    }
    if is_last {
        wire::sync(out);
    }
    leading
}

fn texts(batch: &Batch) -> Vec<Arc<str>> {
    let preambles = [Disk::AtCommit, Disk::AtFlush].map(|disk| preamble(batch, disk).map(|(text, _)| text));
    isolation(batch)
        .into_iter()
        .chain(preambles.into_iter().flatten())
        .chain(batch.statements.iter().map(|statement| statement.text.clone()))
        .chain([ROLLBACK.into()])
        .collect()
}

/// The statement that has to come before any other.
fn isolation(batch: &Batch) -> Option<Arc<str>> {
    let level = match batch.session.as_ref()?.isolation? {
        Isolation::ReadCommitted => "READ COMMITTED",
        Isolation::RepeatableRead => "REPEATABLE READ",
        Isolation::Serializable => "SERIALIZABLE",
    };
    Some(format!("SET TRANSACTION ISOLATION LEVEL {level}").into())
}

/// The statement that makes the transaction the caller's, and its parameters.
fn preamble(batch: &Batch, disk: Disk) -> Option<(Arc<str>, Vec<&str>)> {
    let mut text = String::with_capacity(256);
    let mut values = Vec::new();
    let mut set = |name: &str, value: &str| {
        let before = if text.is_empty() { "SELECT " } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{before}pg_catalog.set_config('{}',{value},true)", name.replace('\'', "''"));
    };
    for (name, value) in batch.session.iter().flat_map(|session| &session.settings) {
        values.push(value.as_str());
        set(name, &format!("${}", values.len()));
    }
    if batch.access == Access::ReadOnly {
        set("transaction_read_only", "'on'");
    }
    if disk == Disk::AtFlush {
        set("synchronous_commit", "'off'");
    }
    (!text.is_empty()).then(|| (text.into(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(access: Access, session: Option<Session>) -> Batch {
        Batch { session, access, deadline: Duration::from_secs(1), ..Batch::default() }
    }

    #[test]
    fn the_preamble_binds_every_value() {
        let settings = [("role", "anon'; drop"), ("request.jwt.claims", "{\"a\":1}")];
        let settings = settings.map(|(name, value)| (name.into(), value.into())).to_vec();
        let session = Session { settings, isolation: None };
        let batch = batch(Access::ReadOnly, Some(session));
        let (text, values) = preamble(&batch, Disk::AtCommit).unwrap();
        assert_eq!(
            &*text,
            "SELECT pg_catalog.set_config('role',$1,true),pg_catalog.set_config('request.jwt.claims',$2,true),\
             pg_catalog.set_config('transaction_read_only','on',true)"
        );
        assert_eq!(values, ["anon'; drop", "{\"a\":1}"]);
    }

    #[test]
    fn the_owners_writes_have_no_preamble() {
        assert!(preamble(&batch(Access::ReadWrite, None), Disk::AtCommit).is_none());
    }
}
