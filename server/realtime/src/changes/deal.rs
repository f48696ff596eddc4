//! Who hears of which rows: decided for all of a chunk together, told in the order of the rows.
//!
//! Channels that want the same as the same viewer are one class; PostgreSQL is asked once for each viewer, and what is said is written
//! once for all who hear the same.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use ntier_backing::database::Error;
use ntier_protocol::realtime::binding::{Operation, Wanted};
use ntier_protocol::realtime::change::{self, Change, RecordError};
use ntier_protocol::realtime::filter::verdict::Verdict;
use ntier_protocol::realtime::message::{Content, Json};
use ntier_protocol::realtime::outbound::{self, Meta};
use ntier_protocol::realtime::position::Position;
use ntier_protocol::realtime::topic;
use ntier_protocol::realtime::write::Fanout;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ask::{Asker, Row, Tables};
use super::audience::{Entry, Listener, Viewer};
use super::table::{self, Record, Table};
use crate::hub::Room;

/// Questions that are asked at the same time.
const AT_ONCE: usize = 32;
/// Viewers who are asked for in one of them. PostgreSQL needs some forty microseconds for each, and a few milliseconds for the question.
const TOGETHER: usize = 256;
/// Groups of as many viewers that are decided for at the same time: enough to keep PostgreSQL busy, and so few that the first are told early.
const GROUPS_AT_ONCE: usize = 3;
/// Between two attempts to reach the database.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a question is asked again that takes too long.
const ATTEMPTS: u32 = 3;

/// What is to be said, in its order.
#[derive(Debug)]
pub enum Delivery {
    Change { message: Arc<Fanout>, listeners: Vec<Arc<Listener>> },
    Broadcast { message: Arc<Fanout>, room: Room, position: Position },
}

/// Listeners that are told the same.
struct Class<'a> {
    viewer: Arc<Viewer>,
    topic: &'a Arc<str>,
    is_old: bool,
    entries: Vec<Entry>,
    listeners: Vec<Arc<Listener>>,
}

/// A class and a table that one of its entries is about.
struct Pair<'a> {
    class: usize,
    table: Arc<Table>,
    entries: Vec<&'a Entry>,
}

/// A row of a table, read.
struct Read<'a> {
    row: &'a Row,
    old: Option<Record<'a>>,
    new: Option<Record<'a>>,
}

impl Read<'_> {
    /// What filters look at.
    fn record(&self) -> Option<&Record<'_>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

/// Decides for these rows, and hands over what is to be said as soon as it is known: to each listener in the order of the rows. It waits as
/// long as the database is away, and for whoever says it.
pub async fn deal<S: Future<Output = ()>>(
    asker: &Asker,
    rows: &[Row],
    listeners: &[Arc<Listener>],
    mut say: impl FnMut(Delivery) -> S,
) {
    let classes = classes(rows, listeners);
    let tables = tables(asker, rows, &classes).await;
    let read: Vec<Read> = rows.iter().map(read).collect();
    let dealt = groups(rows, &classes).into_iter().map(|group| decide(asker, &read, &classes, &tables, group));
    let dealt: Vec<_> = dealt.collect();
    let mut dealt = stream::iter(dealt).buffer_unordered(GROUPS_AT_ONCE);
    while let Some(deliveries) = dealt.next().await {
        for delivery in deliveries {
            say(delivery).await;
        }
    }
}

/// Classes by their viewers, so that nobody waits for what all others may see. Whoever hears changes and broadcasts hears them in one order:
/// then they are one group.
fn groups(rows: &[Row], classes: &[Class<'_>]) -> Vec<Vec<usize>> {
    if rows.iter().any(|row| row.operation.is_none()) {
        return vec![(0..classes.len()).collect()];
    }
    let mut by_viewer: HashMap<usize, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, class) in classes.iter().enumerate() {
        let next = by_viewer.len();
        let group = *by_viewer.entry(name(&class.viewer)).or_insert(next) / TOGETHER;
        if groups.len() <= group {
            groups.push(Vec::new());
        }
        groups[group].push(at);
    }
    groups
}

async fn decide(
    asker: &Asker,
    read: &[Read<'_>],
    classes: &[Class<'_>],
    tables: &Tables<Arc<Table>>,
    group: Vec<usize>,
) -> Vec<Delivery> {
    let pairs = pairs(tables, read, classes, &group);
    let seen = seen(asker, read, classes, &pairs).await;
    let mut deliveries = Vec::new();
    for (at, read) in read.iter().enumerate() {
        match read.row.operation {
            None => deliveries.extend(broadcast(read.row)),
            Some(operation) => {
                if let Some(pairs) = pairs.get(&read.row.relation) {
                    tell(&mut deliveries, (at, read, operation), classes, pairs, &seen);
                }
            }
        }
    }
    deliveries
}

fn classes<'a>(rows: &[Row], listeners: &'a [Arc<Listener>]) -> Vec<Class<'a>> {
    let Some(first) = rows.first() else { return Vec::new() };
    let mut classes: Vec<Class> = Vec::new();
    let mut known: HashMap<_, usize> = HashMap::new();
    for listener in listeners {
        let viewer = listener.viewer();
        let begin = listener.begun_after();
        // Where it began tells listeners apart only where it is among these rows.
        let after =
            |entry: &Entry| entry.after.max(begin).max(Position { id: first.position.id - 1, ..first.position });
        let entries: Vec<_> =
            listener.entries.iter().map(|entry| (entry.id, name(&entry.wanted), after(entry))).collect();
        let key = (name(&viewer), &listener.topic, listener.is_old, entries);
        let at = *known.entry(key).or_insert_with(|| {
            classes.push(Class {
                viewer,
                topic: &listener.topic,
                is_old: listener.is_old,
                entries: listener.entries.iter().map(|entry| Entry { after: after(entry), ..entry.clone() }).collect(),
                listeners: Vec::new(),
            });
            classes.len() - 1
        });
        classes[at].listeners.push(listener.clone());
    }
    classes
}

/// The tables of these rows, as the viewers see them.
async fn tables(asker: &Asker, rows: &[Row], classes: &[Class<'_>]) -> Tables<Arc<Table>> {
    let roles: HashSet<&str> = classes.iter().map(|class| &*class.viewer.role).collect();
    let asked: Vec<(u32, String)> = relations(rows.iter())
        .into_iter()
        .flat_map(|relation| roles.iter().map(move |role| (relation, (*role).to_owned())))
        .collect();
    if asked.is_empty() {
        return Tables::new();
    }
    loop {
        match asker.tables(asked.clone()).await {
            Ok(tables) => return tables,
            // Of a role that is gone, or a table: nobody can be told of it, and nothing else is known of the others.
            Err(Error::Refused(_)) => return Tables::new(),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn relations<'a>(rows: impl Iterator<Item = &'a Row>) -> HashSet<u32> {
    rows.filter(|row| row.operation.is_some()).map(|row| row.relation).collect()
}

/// Those of a group, by relation.
fn pairs<'a>(
    tables: &Tables<Arc<Table>>,
    read: &[Read<'_>],
    classes: &'a [Class<'a>],
    group: &[usize],
) -> HashMap<u32, Vec<Pair<'a>>> {
    let mut pairs: HashMap<u32, Vec<Pair>> = HashMap::new();
    for relation in relations(read.iter().map(|read| read.row)) {
        for &class in group {
            let it = &classes[class];
            let Some(table) = tables.get(&(relation, it.viewer.role.to_string())).filter(|table| table.is_readable())
            else {
                continue;
            };
            let is_meant = |wanted: &Wanted| {
                (wanted.schema == "*" || wanted.schema == table.schema)
                    && (wanted.table == "*" || wanted.table == table.name)
            };
            let entries: Vec<_> = it.entries.iter().filter(|entry| is_meant(&entry.wanted)).collect();
            if !entries.is_empty() {
                pairs.entry(relation).or_default().push(Pair { class, table: table.clone(), entries });
            }
        }
    }
    pairs
}

fn read(row: &Row) -> Read<'_> {
    let is_change = row.operation.is_some();
    Read {
        row,
        old: row.old.as_deref().filter(|_| is_change).and_then(table::record),
        new: row.new.as_deref().filter(|_| is_change).and_then(table::record),
    }
}

/// Whether an entry is for such a change, whatever the row.
fn is_asked_for(entry: &Entry, read: &Read, operation: Operation) -> bool {
    entry.after < read.row.position && entry.wanted.event.includes(operation)
}

/// Why a row is left out of what is told, for all who have this role.
fn refusal(operation: Operation, table: &Table) -> Option<RecordError> {
    match operation {
        Operation::Delete => None,
        _ if table.key().next().is_none() => Some(RecordError::NoPrimaryKey),
        _ if !table.key().all(|column| column.readable) => Some(RecordError::Unauthorized),
        _ => None,
    }
}

/// Whether an entry is for a row, but for what only PostgreSQL knows.
fn verdict(entry: &Entry, read: &Read, operation: Operation, table: &Table) -> Verdict {
    if !is_asked_for(entry, read, operation) {
        return Verdict::Fails;
    }
    match read.record() {
        Some(record) if operation == Operation::Delete => {
            table.passes(&entry.wanted.filters, &identity(table, record, table.full))
        }
        Some(record) => table.passes(&entry.wanted.filters, record),
        None => Verdict::Fails,
    }
}

/// What is told of an old row: all of it where the table's replica identity says so and no policy hides rows, else its key.
fn identity<'a>(table: &Table, record: &Record<'a>, is_full: bool) -> Record<'a> {
    let is_whole = is_full && !table.row_security;
    let columns = table.columns.iter().filter(|column| is_whole || column.key);
    columns
        .filter_map(|column| record.get_key_value(column.name.as_str()))
        .map(|(name, raw)| (name.clone(), *raw))
        .collect()
}

/// What PostgreSQL says.
#[derive(Default)]
struct Seen {
    /// Viewers and rows.
    visible: HashSet<(usize, usize)>,
    /// Viewers, rows and entries.
    passed: HashSet<(usize, usize, usize)>,
}

/// What one of several is told apart by, as long as it is there.
fn name<T>(one: &Arc<T>) -> usize {
    Arc::as_ptr(one).addr()
}

struct Question<'a> {
    viewer: &'a Arc<Viewer>,
    table: &'a Arc<Table>,
    /// Numbers of rows, and their keys.
    rows: Vec<(usize, Vec<Option<String>>)>,
    filters: Vec<(usize, &'a Arc<Wanted>)>,
}

async fn seen(asker: &Asker, read: &[Read<'_>], classes: &[Class<'_>], pairs: &HashMap<u32, Vec<Pair<'_>>>) -> Seen {
    let mut questions: HashMap<(u32, usize), Question> = HashMap::new();
    for (at, it) in read.iter().enumerate() {
        let Some(operation) = it.row.operation else { continue };
        for pair in pairs.get(&it.row.relation).into_iter().flatten() {
            // Of what is told without its row nothing is asked.
            if refusal(operation, &pair.table).is_some() {
                continue;
            }
            let class = &classes[pair.class];
            let verdicts = pair.entries.iter().map(|entry| (entry, verdict(entry, it, operation, &pair.table)));
            let (mut wanted, mut asked) = (false, Vec::new());
            for (entry, verdict) in verdicts {
                wanted |= verdict != Verdict::Fails;
                if verdict == Verdict::Ask {
                    asked.push(&entry.wanted);
                }
            }
            let by_policy = wanted && pair.table.filtered && operation != Operation::Delete;
            if !by_policy && asked.is_empty() {
                continue;
            }
            let asked_by = (it.row.relation, name(&class.viewer));
            let question = questions.entry(asked_by).or_insert_with(|| Question {
                viewer: &class.viewer,
                table: &pair.table,
                rows: Vec::new(),
                filters: Vec::new(),
            });
            if by_policy && question.rows.last().is_none_or(|(last, _)| *last != at) {
                let key = pair.table.key().map(|column| {
                    let raw = it.new.as_ref()?.get(column.name.as_str())?;
                    table::text(raw).map(Cow::into_owned)
                });
                question.rows.push((at, key.collect()));
            }
            for wanted in asked {
                if !question.filters.iter().any(|(row, other)| *row == at && Arc::ptr_eq(other, wanted)) {
                    question.filters.push((at, wanted));
                }
            }
        }
    }
    let looks = looks(&mut questions);
    let looks: Vec<_> = looks.iter().map(|look| look_at(asker, look)).collect();
    let filtered = questions.into_values().filter(|question| !question.filters.is_empty());
    let filtered: Vec<_> = filtered.map(|question| pass(asker, question, read)).collect();
    Seen {
        visible: stream::iter(looks).buffer_unordered(AT_ONCE).concat().await.into_iter().collect(),
        passed: stream::iter(filtered).buffer_unordered(AT_ONCE).concat().await.into_iter().collect(),
    }
}

/// Which rows of a table several viewers see, who have the same role.
struct Look<'a> {
    table: &'a Arc<Table>,
    viewers: Vec<&'a Arc<Viewer>>,
    rows: Vec<(usize, Vec<Option<String>>)>,
}

fn looks<'a>(questions: &mut HashMap<(u32, usize), Question<'a>>) -> Vec<Look<'a>> {
    let mut looks: Vec<Look> = Vec::new();
    let mut open: HashMap<(u32, &str, Vec<usize>), usize> = HashMap::new();
    for ((relation, _), question) in questions {
        if question.rows.is_empty() || question.table.key().next().is_none() {
            continue;
        }
        let (viewer, rows) = (question.viewer, std::mem::take(&mut question.rows));
        let alike = (*relation, &*viewer.role, rows.iter().map(|(at, _)| *at).collect());
        let look = open.get(&alike).map(|at| &mut looks[*at]).filter(|look| look.viewers.len() < TOGETHER);
        if let Some(look) = look {
            look.viewers.push(viewer);
            continue;
        }
        open.insert(alike, looks.len());
        looks.push(Look { table: question.table, viewers: vec![viewer], rows });
    }
    looks
}

/// Viewers and rows.
async fn look_at(asker: &Asker, look: &Look<'_>) -> Vec<(usize, usize)> {
    let keys: Vec<_> = look.rows.iter().map(|(_, key)| key.clone()).collect();
    let seen_by = |viewer: &Arc<Viewer>, numbers: Vec<usize>| {
        let by = name(viewer);
        let at = |number: usize| look.rows.get(number.checked_sub(1)?).map(|(at, _)| (by, *at));
        numbers.into_iter().filter_map(at).collect::<Vec<_>>()
    };
    if look.viewers.len() > 1
        && let Some(all) = insist(|| asker.visible_to(&look.viewers, look.table, &keys)).await
    {
        return look.viewers.iter().zip(all).flat_map(|(viewer, numbers)| seen_by(viewer, numbers)).collect();
    }
    // Alone, or one of them is refused and the others need not be.
    let mut seen = Vec::new();
    for viewer in &look.viewers {
        let numbers = insist(|| asker.visible(viewer, look.table, &keys)).await.unwrap_or_default();
        seen.extend(seen_by(viewer, numbers));
    }
    seen
}

/// Viewers, rows and entries.
async fn pass(asker: &Asker, question: Question<'_>, read: &[Read<'_>]) -> Vec<(usize, usize, usize)> {
    let Question { viewer, table, filters, .. } = question;
    let mut passed = Vec::new();
    for (at, wanted) in filters {
        let Some(record) = read[at].record() else { continue };
        let filters: Option<Vec<_>> = wanted
            .filters
            .iter()
            .map(|filter| {
                let column = table.readable(&filter.column)?;
                Some((column, filter, table::text(record.get(filter.column.as_str())?)))
            })
            .collect();
        // One that is certain was seen to pass; only the others are asked.
        let Some(filters) = filters else { continue };
        let uncertain: Option<Vec<_>> = filters
            .iter()
            .filter(|(_, filter, _)| table.passes(std::slice::from_ref(filter), record) == Verdict::Ask)
            .map(|(column, filter, value)| Some((*column, *filter, value.as_deref()?)))
            .collect();
        let Some(uncertain) = uncertain else { continue };
        if insist(|| asker.passes(viewer, &table.schema, &uncertain)).await.unwrap_or(false) {
            passed.push((name(viewer), at, name(wanted)));
        }
    }
    passed
}

/// Asks until there is an answer. Nothing, if PostgreSQL refuses: then a SELECT would show nothing either.
async fn insist<T, F: Future<Output = Result<T, Error>>>(ask: impl Fn() -> F) -> Option<T> {
    let mut attempts = 0;
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(Error::Refused(_)) => return None,
            Err(Error::Deadline) if attempts >= ATTEMPTS => return None,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        attempts += 1;
    }
}

/// Who hears the same of a row: in which topic, of which entries, what is told of it, and whether in the old manner.
type Heard<'a> = (&'a Arc<str>, Vec<u32>, usize, bool);

fn tell(
    deliveries: &mut Vec<Delivery>,
    (at, read, operation): (usize, &Read, Operation),
    classes: &[Class],
    pairs: &[Pair],
    seen: &Seen,
) {
    // What is told of the row depends on what may be read of it and on the columns that were selected.
    let mut told: Vec<(usize, Option<&[String]>, Json)> = Vec::new();
    let mut order: Vec<Heard> = Vec::new();
    let mut groups: HashMap<Heard, Vec<Arc<Listener>>> = HashMap::new();
    for pair in pairs {
        let (class, table) = (&classes[pair.class], &pair.table);
        let viewer = name(&class.viewer);
        // Nothing is said of a row that is left out, not even whether it would be seen.
        let is_left_out = refusal(operation, table).is_some();
        let is_hidden = table.filtered && operation != Operation::Delete && !seen.visible.contains(&(viewer, at));
        if is_hidden && !is_left_out {
            continue;
        }
        let passing = pair.entries.iter().filter(|entry| match verdict(entry, read, operation, table) {
            _ if is_left_out => is_asked_for(entry, read, operation),
            Verdict::Passes => true,
            Verdict::Fails => false,
            Verdict::Ask => seen.passed.contains(&(viewer, at, name(&entry.wanted))),
        });
        let mut by_select: Vec<(Option<&[String]>, Vec<u32>)> = Vec::new();
        for entry in passing {
            let select = entry.wanted.select.as_deref();
            match by_select.iter_mut().find(|(other, _)| *other == select) {
                Some((_, ids)) => ids.push(entry.id),
                None => by_select.push((select, vec![entry.id])),
            }
        }
        for (select, mut ids) in by_select {
            ids.sort_unstable();
            ids.dedup();
            let of = name(table);
            let data = told.iter().position(|(table, other, _)| *table == of && *other == select);
            let data = data.unwrap_or_else(|| {
                told.push((of, select, data_of(read, operation, table, select)));
                told.len() - 1
            });
            let heard = (class.topic, ids, data, class.is_old);
            let group = groups.entry(heard.clone()).or_insert_with(|| {
                order.push(heard);
                Vec::new()
            });
            group.extend(class.listeners.iter().cloned());
        }
    }
    for heard in order {
        let Some(listeners) = groups.remove(&heard) else { continue };
        let (topic, ids, data, is_old) = heard;
        let data = &told[data].2;
        let message =
            if is_old { outbound::changed_old(topic, operation, data) } else { outbound::changed(topic, &ids, data) };
        deliveries.push(Delivery::Change { message: Arc::new(Fanout::new(message)), listeners });
    }
}

fn data_of(read: &Read, operation: Operation, table: &Table, select: Option<&[String]>) -> Json {
    let mut change = Change {
        operation,
        schema: &table.schema,
        table: &table.name,
        columns: &[],
        record: None,
        old_record: None,
        commit_timestamp: None,
        errors: &[],
        position: Some(read.row.position),
    };
    if let Some(refusal) = refusal(operation, table) {
        return change::data(&Change { errors: &[refusal], ..change });
    }
    let columns: Vec<_> = table.told(select).collect();
    let said: Vec<_> =
        columns.iter().map(|column| change::Column { name: &column.name, type_name: &column.type_name }).collect();
    let record = read.new.as_ref().map(|record| table::object(columns.iter().copied(), record));
    // An update that leaves the key as it was has the same in both.
    let old = match (&read.old, &read.new) {
        (Some(old), _) => Some(identity(table, old, table.full)),
        (None, Some(new)) if operation == Operation::Update => Some(identity(table, new, false)),
        (None, _) => None,
    };
    let old = old.map(|record| table::object(columns.iter().copied(), &record));
    change.columns = &said;
    change.record = record.as_ref();
    change.old_record = old.as_ref();
    change.commit_timestamp = Some(&read.row.at);
    if read.row.is_cut {
        change.errors = &[RecordError::TooLarge];
    }
    change::data(&change)
}

/// A row of realtime.messages.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    /// As PostgreSQL writes bytes.
    #[serde(borrow, default)]
    binary_payload: Option<Cow<'a, str>>,
    #[serde(default)]
    private: Option<bool>,
    id: String,
}

fn broadcast(row: &Row) -> Option<Delivery> {
    let stored: Stored = serde_json::from_slice(row.new.as_deref()?).ok()?;
    let content = match &stored.binary_payload {
        Some(hexadecimal) => Content::Binary(unhex(hexadecimal)?.into()),
        None => Content::Json(Json::read(&Bytes::copy_from_slice(stored.payload?.get().as_bytes()))?),
    };
    let meta = Meta { id: Some(stored.id), replayed: false, position: Some(row.position) };
    let room = Room { name: stored.topic.as_ref().into(), is_private: stored.private.unwrap_or(false) };
    let event = stored.event.as_deref().unwrap_or_default();
    let message = outbound::broadcast(&topic::of(&room.name), event, content, Some(&meta));
    Some(Delivery::Broadcast { message: Arc::new(Fanout::new(message)), room, position: row.position })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}
