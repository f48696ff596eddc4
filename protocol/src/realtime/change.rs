//! A change of the database as clients hear of it. Sources: realtime's `apply_rls.sql`, `replication_poller.ex` (`generate_record`) and
//! `message_dispatcher.ex`.
//!
//! [`data`] is the same for all who see the same of a row; [`payload`] adds for which entries of its join a client hears it.

use crate::realtime::binding::Operation;
use crate::realtime::message::Json;
use crate::realtime::position::Position;
use crate::realtime::write::string;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'a> {
    pub operation: Operation,
    pub schema: &'a str,
    pub table: &'a str,
    /// Those that may be read, in the order of the table.
    pub columns: &'a [Column<'a>],
    /// An object by columns, as `to_jsonb` makes it; it is not there for a deletion.
    pub record: Option<&'a Json>,
    /// What the replica identity has; it is not there for an insertion.
    pub old_record: Option<&'a Json>,
    /// `2026-08-21T14:03:56.123Z`
    pub commit_timestamp: Option<&'a str>,
    pub errors: &'a [RecordError],
    /// Ours: where the change stands.
    pub position: Option<Position>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    pub name: &'a str,
    /// The name in `pg_type`: `int4`, `_text`.
    pub type_name: &'a str,
}

/// Why a change is not, or not wholly, there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("Error 400: Bad Request, no primary key")]
    NoPrimaryKey,
    /// The role may not read the primary key.
    #[error("Error 401: Unauthorized")]
    Unauthorized,
    /// Larger than [`crate::realtime::limits::Limits::record_bytes`]: large values are left out.
    #[error("Error 413: Payload Too Large")]
    TooLarge,
}

/// `data` of a change. A record that cannot be given is empty.
pub fn data(change: &Change) -> Json {
    let records = change.record.map_or(0, Json::len) + change.old_record.map_or(0, Json::len);
    let mut out = Vec::with_capacity(256 + change.columns.len() * 48 + records);
    out.extend_from_slice(b"{\"type\":");
    string(&mut out, change.operation.text());
    for (key, value) in [(&b",\"schema\":"[..], change.schema), (b",\"table\":", change.table)] {
        out.extend_from_slice(key);
        string(&mut out, value);
    }
    out.extend_from_slice(b",\"commit_timestamp\":");
    match change.commit_timestamp {
        Some(timestamp) => string(&mut out, timestamp),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"columns\":[");
    for (at, column) in change.columns.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"name\":" } else { b",{\"name\":" });
        string(&mut out, column.name);
        out.extend_from_slice(b",\"type\":");
        string(&mut out, column.type_name);
        out.push(b'}');
    }
    out.push(b']');
    let (new, old) = match change.operation {
        Operation::Insert => (true, false),
        Operation::Update => (true, true),
        Operation::Delete => (false, true),
    };
    for (key, there, record) in
        [(&b",\"record\":"[..], new, change.record), (b",\"old_record\":", old, change.old_record)]
    {
        if there {
            out.extend_from_slice(key);
            out.extend_from_slice(record.map_or(b"{}", |record| record.bytes()));
        }
    }
    out.extend_from_slice(b",\"errors\":");
    match change.errors {
        [] => out.extend_from_slice(b"null"),
        errors => {
            for (at, error) in errors.iter().enumerate() {
                out.push(if at == 0 { b'[' } else { b',' });
                string(&mut out, &error.to_string());
            }
            out.push(b']');
        }
    }
    if let Some(position) = change.position {
        out.extend_from_slice(b",\"position\":");
        string(&mut out, &position.to_string());
    }
    out.push(b'}');
    Json::written(out)
}

/// The payload of `postgres_changes`, for the entries of a join that the change is for.
pub fn payload(ids: &[u32], data: &Json) -> Json {
    let mut out = Vec::with_capacity(32 + ids.len() * 10 + data.len());
    out.extend_from_slice(b"{\"ids\":[");
    for (at, id) in ids.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(id.to_string().as_bytes());
    }
    out.extend_from_slice(b"],\"data\":");
    out.extend_from_slice(data.bytes());
    out.push(b'}');
    Json::written(out)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn json(text: &'static str) -> Json {
        Json::read(&Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn said(json: &Json) -> &str {
        std::str::from_utf8(json.bytes()).unwrap()
    }

    #[test]
    fn changes_are_said_as_clients_read_them() {
        let columns = [Column { name: "id", type_name: "int4" }, Column { name: "a\"b", type_name: "_text" }];
        let (record, old) = (json(r#"{"id":1,"a\"b":["x"]}"#), json(r#"{"id": 1}"#));
        let insert = Change {
            operation: Operation::Insert,
            schema: "public",
            table: "todos",
            columns: &columns,
            record: Some(&record),
            old_record: None,
            commit_timestamp: Some("2026-08-21T14:03:56.123Z"),
            errors: &[],
            position: Some(Position { batch: 3, id: 14 }),
        };
        assert_eq!(
            said(&payload(&[7, 8], &data(&insert))),
            r#"{"ids":[7,8],"data":{"type":"INSERT","schema":"public","table":"todos","commit_timestamp":"2026-08-21T14:03:56.123Z","columns":[{"name":"id","type":"int4"},{"name":"a\"b","type":"_text"}],"record":{"id":1,"a\"b":["x"]},"errors":null,"position":"3.14"}}"#
        );
        let update = Change {
            operation: Operation::Update,
            columns: &[],
            old_record: Some(&old),
            errors: &[RecordError::TooLarge],
            position: None,
            ..insert.clone()
        };
        assert_eq!(
            said(&data(&update)),
            r#"{"type":"UPDATE","schema":"public","table":"todos","commit_timestamp":"2026-08-21T14:03:56.123Z","columns":[],"record":{"id":1,"a\"b":["x"]},"old_record":{"id": 1},"errors":["Error 413: Payload Too Large"]}"#
        );
        let delete = Change { operation: Operation::Delete, errors: &[], ..update };
        assert_eq!(
            said(&data(&delete)),
            r#"{"type":"DELETE","schema":"public","table":"todos","commit_timestamp":"2026-08-21T14:03:56.123Z","columns":[],"old_record":{"id": 1},"errors":null}"#
        );
        let refused = Change {
            record: None,
            commit_timestamp: None,
            errors: &[RecordError::Unauthorized, RecordError::NoPrimaryKey],
            columns: &[],
            position: None,
            ..insert
        };
        assert_eq!(
            said(&data(&refused)),
            r#"{"type":"INSERT","schema":"public","table":"todos","commit_timestamp":null,"columns":[],"record":{},"errors":["Error 401: Unauthorized","Error 400: Bad Request, no primary key"]}"#
        );
    }
}
