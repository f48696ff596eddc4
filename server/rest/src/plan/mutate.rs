//! Inserts, updates and deletes.

use std::collections::BTreeSet;

use ntier_backing::database::catalog::Table;
use ntier_protocol::rest::request::{
    Action, Filter, MediaType, Missing, Operation, Operator, Payload, Resolution, Return,
};

use super::directives::Scope;
use super::read::is_plain;
use super::{Body, Change, Conflict, Context, Logic, Mutate, Plan, RowLimit, Source, Target, columns, negotiate};
use crate::error::Error;

/// Bytes of a body that is written in a moment.
const BRIEF_BODY: usize = 16 << 10;

impl Context<'_> {
    pub(super) fn mutate(&self, target: &str) -> Result<Plan, Error> {
        let table = self.table(target)?;
        let source = Source::Result { alias: table.name.name.clone() };
        let root = self.tree(source, &table.name, Scope::Mutation)?;
        let change = self.change(table)?;
        self.check_preferences()?;
        let media = negotiate::media(self, &table.name, is_plain(&root), false)?;
        let representation = self.request.preferences.representation;
        let returning = match representation {
            None | Some(Return::Minimal) => Vec::new(),
            Some(Return::Representation | Return::HeadersOnly) => columns::needed(&root, &table.primary_key),
        };
        let is_insert = matches!(self.request.action, Action::Insert { .. });
        let located = is_insert && representation == Some(Return::HeadersOnly);
        Ok(Plan::Mutate(Box::new(Mutate {
            target: table.name.clone(),
            limit: self.row_limit(&media.media_type),
            has_key: !table.primary_key.is_empty(),
            is_brief: self.is_brief(table),
            location: located.then(|| table.primary_key.clone()),
            change,
            returning,
            root,
            media,
        })))
    }

    fn is_brief(&self, table: &Table) -> bool {
        let small = match &self.request.payload {
            Some(Payload::Json { bytes, .. } | Payload::Csv { bytes, .. }) => bytes.len() <= BRIEF_BODY,
            _ => true,
        };
        let filters = &self.request.query.filters;
        let names = |key: &String| {
            let mut here = filters.iter().filter(|(path, filter)| path.is_empty() && filter.field.name == *key);
            here.any(|(_, filter)| is_equality(filter))
        };
        let is_insert = matches!(self.request.action, Action::Insert { .. } | Action::SingleUpsert { .. });
        let by_key = !table.primary_key.is_empty() && table.primary_key.iter().all(names);
        small && !table.is_view && (is_insert || by_key)
    }

    pub(super) fn row_limit(&self, media: &MediaType) -> RowLimit {
        let counted = !matches!(self.request.action, Action::Insert { .. });
        let most = self.max_affected().filter(|_| counted);
        match (&self.request.action, media, most) {
            (Action::SingleUpsert { .. }, _, _) => RowLimit::MatchingKey,
            (_, MediaType::Object { .. }, None) => RowLimit::ExactlyOne,
            (_, MediaType::Object { .. }, Some(most)) => RowLimit::ExactlyOneAndAtMost(most),
            (_, _, Some(most)) => RowLimit::AtMost(most),
            (_, _, None) => RowLimit::None,
        }
    }

    fn change(&self, table: &Table) -> Result<Change, Error> {
        let preferences = &self.request.preferences;
        let defaults = preferences.missing == Some(Missing::Default);
        let filters = || self.root_filters(table);
        Ok(match &self.request.action {
            Action::Delete { .. } => Change::Delete { filters: filters() },
            Action::Update { .. } => {
                let (columns, body) = self.payload(table)?;
                let by = self.request.query.by.clone().unwrap_or_default();
                for name in &by {
                    self.target(table, name.clone())?;
                    if !columns.iter().any(|column| column.name == *name) {
                        return Err(Error::ByColumnMissing(name.clone()));
                    }
                }
                Change::Update { columns, body, defaults, filters: filters(), by }
            }
            Action::SingleUpsert { .. } => {
                self.check_put(table)?;
                let (columns, body) = self.payload(table)?;
                let conflict = Conflict { columns: table.primary_key.clone(), merge: true };
                Change::Insert {
                    columns,
                    body,
                    defaults: false,
                    conflict: Some(conflict),
                    key: filters(),
                    count_inserted: true,
                }
            }
            _ => {
                let (columns, body) = self.payload(table)?;
                let on = self.request.query.on_conflict.as_ref().unwrap_or(&table.primary_key);
                let merge = preferences.resolution == Some(Resolution::MergeDuplicates);
                let conflict = preferences.resolution.map(|_| Conflict { columns: on.clone(), merge });
                Change::Insert { columns, body, defaults, conflict, key: Vec::new(), count_inserted: merge }
            }
        })
    }

    /// The filters that choose the rows to change.
    fn root_filters(&self, table: &Table) -> Vec<Logic> {
        let query = &self.request.query;
        let filters = query.filters.iter().filter(|(path, _)| path.is_empty());
        let logic = query.logic.iter().filter(|(path, _)| path.is_empty());
        filters
            .map(|(_, filter)| self.filter(Some(table), filter))
            .chain(logic.map(|(_, tree)| self.logic(Some(table), tree)))
            .collect()
    }

    /// `PUT` names its row by all columns of the primary key, and by nothing else.
    fn check_put(&self, table: &Table) -> Result<(), Error> {
        let query = &self.request.query;
        let root: Vec<&Filter> =
            query.filters.iter().filter(|(path, _)| path.is_empty()).map(|(_, filter)| filter).collect();
        let named: BTreeSet<&String> = root.iter().map(|filter| &filter.field.name).collect();
        let key: BTreeSet<&String> = table.primary_key.iter().collect();
        let fits =
            query.logic.is_empty() && !key.is_empty() && named == key && root.iter().all(|filter| is_equality(filter));
        if fits { Ok(()) } else { Err(Error::InvalidPutFilters) }
    }

    /// The body and the columns in it, by name: the order of a JSON object's keys means nothing.
    fn payload(&self, table: &Table) -> Result<(Vec<Target>, Body), Error> {
        let nothing = || (Vec::new(), Body { json: b"[]".to_vec(), is_array: true });
        let (keys, body) = match &self.request.payload {
            Some(Payload::Json { bytes, keys, is_array }) => {
                (keys.clone(), Body { json: bytes.clone(), is_array: *is_array })
            }
            Some(Payload::Csv { bytes, keys }) => (keys.clone(), Body { json: bytes.clone(), is_array: true }),
            Some(Payload::Form(pairs)) => {
                (pairs.iter().map(|(key, _)| key.clone()).collect(), Body { json: object(pairs), is_array: false })
            }
            Some(Payload::Raw { media_type, .. }) => {
                return Err(Error::ContentType(crate::media::essence(media_type)));
            }
            // A JSON value that is no object has no rows.
            Some(Payload::RawJson(_)) | None => nothing(),
        };
        let keys: BTreeSet<String> = keys.into_iter().collect();
        let targets = keys.into_iter().map(|key| self.target(table, key)).collect::<Result<_, _>>()?;
        Ok((targets, body))
    }

    fn target(&self, table: &Table, name: String) -> Result<Target, Error> {
        let Some(column) = table.column(&name) else {
            return Err(Error::ColumnNotFound { table: table.name.name.clone(), column: name });
        };
        let transform = self.representation("json", &column.nominal_type);
        let data_type = if transform.is_some() { "json".to_owned() } else { column.nominal_type.clone() };
        Ok(Target { name, data_type, transform, default: column.default.clone() })
    }
}

fn is_equality(filter: &Filter) -> bool {
    let plain = matches!(filter.operation, Operation::Compare { operator: Operator::Eq, quantifier: None, .. });
    plain && !filter.negated && filter.field.path.is_empty()
}

/// Of repeated fields the last counts.
fn object(pairs: &[(String, String)]) -> Vec<u8> {
    let map: serde_json::Map<String, serde_json::Value> =
        pairs.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    serde_json::Value::Object(map).to_string().into_bytes()
}
