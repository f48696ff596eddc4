//! An entry of `postgres_changes` in a join: of which changes a client wants to hear.
//!
//! Sources: realtime's `subscriptions.ex` (`parse_subscription_params`) and `realtime_channel.ex`; realtime-js compares what comes
//! back with what it sent, entry by entry (`RealtimeChannel.ts`, `_updatePostgresBindings`), so entries go back as they came.

use crc::{CRC_32_ISO_HDLC, Crc};
use serde_json::{Map, Value};

use crate::realtime::filter::{self, Filter};
use crate::realtime::inspect;
use crate::realtime::position::{Position, Unreadable};

#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// By which the client knows the entry in what it hears. Not 0: clients test it for truth.
    pub id: u32,
    /// What it wants; why not, in the words for its `system` message. A join with such an entry succeeds all the same.
    pub wanted: Result<Wanted, Fault>,
    /// Our `since`.
    pub since: Option<Result<Position, Unreadable>>,
    /// As it came.
    said: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub event: Event,
    /// A name, or `*`.
    pub schema: String,
    /// A name, or `*`.
    pub table: String,
    pub filters: Vec<Filter>,
    /// Only these columns, and the primary key; nothing is all.
    pub select: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    All,
    Only(Operation),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

impl Operation {
    pub fn text(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }

    pub fn read(text: &str) -> Option<Self> {
        [Self::Insert, Self::Update, Self::Delete].into_iter().find(|it| text.eq_ignore_ascii_case(it.text()))
    }
}

impl Event {
    pub fn text(self) -> &'static str {
        match self {
            Self::All => "*",
            Self::Only(operation) => operation.text(),
        }
    }

    pub fn includes(self, operation: Operation) -> bool {
        self == Self::All || self == Self::Only(operation)
    }
}

/// Why an entry is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {said}")]
    Nothing { said: String },
    #[error("Error parsing `filter` params: {0}")]
    Filter(filter::Fault),
    #[error("Error parsing `select` params: expected a list of column name strings, e.g. select: [\"col1\", \"col2\"]")]
    Select,
    #[error("Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name.")]
    SelectOfAll,
}

/// Why a table cannot be listened to: what `system` says after the join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsubscribed {
    /// No table of the publication is meant.
    #[error(
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: {wanted}"
    )]
    NotPublished { wanted: String },
    /// `why` is as PostgreSQL's error is shown: `ERROR P0001 (raise_exception) …`
    #[error(
        "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: {wanted}. Exception: {why}"
    )]
    Failed { wanted: String, why: String },
}

impl Wanted {
    pub fn not_published(&self) -> Unsubscribed {
        Unsubscribed::NotPublished { wanted: self.described() }
    }

    pub fn unfit(&self, why: &filter::Unfit) -> Unsubscribed {
        Unsubscribed::Failed { wanted: self.described(), why: format!("ERROR P0001 (raise_exception) {why}") }
    }

    /// By an error of PostgreSQL: `code` and the name of its condition, say `22P02` and `invalid_text_representation`.
    pub fn failed(&self, code: &str, condition: &str, message: &str) -> Unsubscribed {
        Unsubscribed::Failed { wanted: self.described(), why: format!("ERROR {code} ({condition}) {message}") }
    }

    fn described(&self) -> String {
        let filters = inspect::list(self.filters.iter().map(Filter::described));
        let select = match &self.select {
            None => "nil".to_owned(),
            Some(columns) => inspect::list(columns.iter().map(|column| inspect::string(column))),
        };
        let Self { event, schema, table, .. } = self;
        format!("[event: {}, schema: {schema}, table: {table}, filters: {filters}, select: {select}]", event.text())
    }
}

impl Binding {
    /// What the reply to the join has for it.
    pub fn echo(&self) -> Value {
        let mut entry = self.said.clone();
        entry.insert("id".to_owned(), self.id.into());
        Value::Object(entry)
    }
}

/// Reads the entries of a join. Entries that are the same have the same id, others have others.
pub fn read(entries: Vec<Map<String, Value>>) -> Vec<Binding> {
    let mut bindings: Vec<Binding> = Vec::with_capacity(entries.len());
    for said in entries {
        let mut id = id(&said);
        while bindings.iter().any(|other| other.id == id && other.said != said) {
            id = id % MOST + 1;
        }
        let since = said.get("since").and_then(since);
        bindings.push(Binding { id, wanted: wanted(&said), since, said });
    }
    bindings
}

/// A join of the old manner has its one entry in the name of the channel: `schema`, `schema:table` or `schema:table:filter`.
pub fn of_name(name: &str) -> Map<String, Value> {
    let keys = ["schema", "table", "filter"];
    keys.into_iter().zip(name.splitn(3, ':')).map(|(key, part)| (key.to_owned(), part.into())).collect()
}

/// Reads a `since`; null is none.
pub fn since(value: &Value) -> Option<Result<Position, Unreadable>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.parse()),
        _ => Some(Err(Unreadable)),
    }
}

/// Ids are as large as realtime's at most.
const MOST: u32 = (1 << 27) - 1;

fn id(said: &Map<String, Value>) -> u32 {
    const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    let mut digest = CRC.digest();
    // `since` may move from join to join; an entry does not become another by it.
    for (key, value) in said.iter().filter(|(key, _)| *key != "since") {
        for part in [key, &value.to_string()] {
            digest.update(part.as_bytes());
            digest.update(b"\0");
        }
    }
    digest.finalize() % MOST + 1
}

fn wanted(said: &Map<String, Value>) -> Result<Wanted, Fault> {
    let event = said.get("event").and_then(Value::as_str).and_then(Operation::read);
    let event = event.map_or(Event::All, Event::Only);
    let select = match said.get("select") {
        Some(Value::String(_)) => return Err(Fault::Select),
        Some(Value::Array(columns)) => {
            let columns: Vec<_> = columns.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            Some(columns).filter(|columns| !columns.is_empty())
        }
        _ => None,
    };
    // A key that is there with something else than a text is neither there nor not.
    let text = |key| said.get(key).map(Value::as_str);
    let (schema, table, filters) = match (text("schema"), text("table"), text("filter")) {
        (Some(Some(schema)), Some(Some(table)), Some(Some(filter))) => (schema, table, filter),
        (Some(Some(schema)), Some(Some(table)), None) => (schema, table, ""),
        (Some(Some(schema)), None, None) => (schema, "*", ""),
        (None, Some(Some(table)), None) => ("public", table, ""),
        _ => return Err(Fault::Nothing { said: shown(said) }),
    };
    let filters = filter::read(filters).map_err(Fault::Filter)?;
    if select.is_some() && (schema == "*" || table == "*") {
        return Err(Fault::SelectOfAll);
    }
    Ok(Wanted { event, schema: schema.to_owned(), table: table.to_owned(), filters, select })
}

fn shown(said: &Map<String, Value>) -> String {
    if ["user_token", "auth_token"].iter().any(|key| said.contains_key(*key)) {
        return "<redacted>".to_owned();
    }
    inspect::value(&Value::Object(said.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bindings(entries: Value) -> Vec<Binding> {
        let Value::Array(entries) = entries else { panic!("a list") };
        let object = |entry| match entry {
            Value::Object(entry) => entry,
            _ => panic!("an object"),
        };
        read(entries.into_iter().map(object).collect())
    }

    /// realtime's own cases, and some at the edges.
    #[test]
    fn entries_say_what_is_wanted() {
        let nothing =
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: ";
        for (entry, expected) in [
            (
                json!({"schema": "public", "table": "messages", "filter": "subject=eq.hey"}),
                r#"[event: *, schema: public, table: messages, filters: [{"subject", "eq", "hey", false}], select: nil]"#.to_owned(),
            ),
            (
                json!({"event": "insert", "schema": "public", "table": "m"}),
                "[event: INSERT, schema: public, table: m, filters: [], select: nil]".to_owned(),
            ),
            (
                json!({"event": "x", "schema": "public"}),
                "[event: *, schema: public, table: *, filters: [], select: nil]".to_owned(),
            ),
            (json!({"event": 1, "table": "m"}), "[event: *, schema: public, table: m, filters: [], select: nil]".to_owned()),
            (
                json!({"schema": "public", "table": "m", "select": ["id", 123, "details", null], "filter": ""}),
                r#"[event: *, schema: public, table: m, filters: [], select: ["id", "details"]]"#.to_owned(),
            ),
            (
                json!({"schema": "public", "table": "m", "select": []}),
                "[event: *, schema: public, table: m, filters: [], select: nil]".to_owned(),
            ),
            (
                json!({"schema": "public", "table": "m", "filter": "wrong"}),
                r#"Error parsing `filter` params: ["wrong"]"#.to_owned(),
            ),
            (json!({}), format!("{nothing}%{{}}")),
            (json!({"event": "*"}), format!(r#"{nothing}%{{"event" => "*"}}"#)),
            (json!({"user_token": "secret"}), format!("{nothing}<redacted>")),
            (
                json!({"schema": "public", "table": "images", "filter": [1, "a"]}),
                format!(r#"{nothing}%{{"filter" => [1, "a"], "schema" => "public", "table" => "images"}}"#),
            ),
            (
                json!({"schema": "public", "table": null}),
                format!(r#"{nothing}%{{"schema" => "public", "table" => nil}}"#),
            ),
            (
                json!({"schema": "public", "filter": "id=eq.1"}),
                format!(r#"{nothing}%{{"filter" => "id=eq.1", "schema" => "public"}}"#),
            ),
            (
                json!({"schema": "public", "table": "m", "select": "id"}),
                r#"Error parsing `select` params: expected a list of column name strings, e.g. select: ["col1", "col2"]"#
                    .to_owned(),
            ),
            (
                json!({"schema": "public", "select": ["id"]}),
                "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name."
                    .to_owned(),
            ),
        ] {
            let binding = bindings(json!([entry])).remove(0);
            let said = binding.wanted.map_or_else(|fault| fault.to_string(), |wanted| wanted.described());
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn entries_go_back_as_they_came_with_their_ids() {
        let entries = json!([
            {"event": "*", "schema": "public", "table": "a", "filter": "id=eq.1", "since": "1.2", "mine": [null]},
            {"event": "*", "schema": "public", "table": "b"},
            {"event": "*", "schema": "public", "table": "b", "since": "3.4", "id": 7},
            {"event": "*", "schema": "public", "table": "b"},
        ]);
        let bindings = bindings(entries.clone());
        for (binding, entry) in bindings.iter().zip(entries.as_array().unwrap()) {
            let mut expected = entry.clone();
            expected["id"] = binding.id.into();
            assert_eq!(binding.echo(), expected);
            assert!((1..=MOST).contains(&binding.id));
        }
        assert_eq!(bindings[1].id, bindings[3].id);
        assert_ne!(bindings[0].id, bindings[1].id);
        assert_ne!(bindings[1].id, bindings[2].id);
        assert_eq!(bindings[0].since, Some(Ok(Position { batch: 1, id: 2 })));
        assert_eq!(bindings[1].since, None);
    }

    #[test]
    fn a_since_is_a_position() {
        for (value, expected) in
            [(json!(null), None), (json!("1.2"), Some(true)), (json!("later"), Some(false)), (json!(12), Some(false))]
        {
            assert_eq!(since(&value).map(|since| since.is_ok()), expected);
        }
    }

    #[test]
    fn a_name_of_the_old_manner_is_an_entry() {
        for (name, expected) in [
            ("public", json!({"schema": "public"})),
            ("public:a", json!({"schema": "public", "table": "a"})),
            ("public:a:id=eq.a:b", json!({"schema": "public", "table": "a", "filter": "id=eq.a:b"})),
        ] {
            assert_eq!(Value::Object(of_name(name)), expected);
        }
    }

    #[test]
    fn why_a_table_is_not_listened_to() {
        let wanted = bindings(json!([{"schema": "public", "table": "test", "filter": "subject=eq.hey"}]))
            .remove(0)
            .wanted
            .unwrap();
        let params =
            r#"[event: *, schema: public, table: test, filters: [{"subject", "eq", "hey", false}], select: nil]"#;
        for (said, expected) in [
            (
                wanted.not_published(),
                format!(
                    "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: {params}"
                ),
            ),
            (
                wanted.unfit(&filter::Unfit::Column("subject".to_owned())),
                format!(
                    "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: {params}. Exception: ERROR P0001 (raise_exception) invalid column for filter subject"
                ),
            ),
            (
                wanted.failed("22P02", "invalid_text_representation", "invalid input syntax for type integer: \"hey\""),
                format!(
                    "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: {params}. Exception: ERROR 22P02 (invalid_text_representation) invalid input syntax for type integer: \"hey\""
                ),
            ),
        ] {
            assert_eq!(said.to_string(), expected);
        }
    }
}
