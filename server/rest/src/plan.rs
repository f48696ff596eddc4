//! What a request means here: names are resolved against the catalog, once, and later stages trust them.

mod call;
mod columns;
pub mod cost;
mod directives;
mod embed;
mod field;
mod hint;
mod mutate;
mod negotiate;
mod read;
mod spread;
#[cfg(test)]
mod tests;

use ntier_backing::database::catalog::{Argument, Catalog, Function, Name, Relationship, Table};
use ntier_protocol::rest::request::{
    Action, Aggregate, CallMethod, Connective, Count, Direction, Handling, Join, JsonStep, MediaType, Nulls, Operation,
    Range, Request, TransactionEnd,
};

use crate::error::Error;
use crate::settings::Settings;
use directives::{Directives, Scope};

/// The name under which a mutation's or a call's rows are read.
pub const SOURCE: &str = "pgrst_source";

#[derive(Debug, Clone)]
pub enum Plan {
    Read(Box<Read>),
    Mutate(Box<Mutate>),
    Call(Box<Call>),
    Info(Info),
    /// The description of the schema.
    Describe {
        head: bool,
    },
}

/// What `OPTIONS` answers, without asking the database.
#[derive(Debug, Clone)]
pub enum Info {
    Relation { table: Box<Table> },
    Function { read_only: bool },
    Root,
}

/// Rows of a table or a view.
#[derive(Debug, Clone)]
pub struct Read {
    pub target: Name,
    pub head: bool,
    pub root: Node,
    pub media: Media,
    /// The window that was asked for, before the limit of the settings.
    pub window: Range,
    pub count: Option<Count>,
    pub max_rows: Option<u64>,
}

/// A change, and how its rows are read back.
#[derive(Debug, Clone)]
pub struct Mutate {
    pub target: Name,
    pub change: Change,
    /// The columns that reading back needs; empty when nothing is read back.
    pub returning: Vec<String>,
    pub root: Node,
    pub media: Media,
    pub limit: RowLimit,
    pub has_key: bool,
    /// It touches a row or a few, found by the primary key: it takes no longer than others like it.
    pub is_brief: bool,
    /// Answer an insert with the `Location` of its row, made of these columns.
    pub location: Option<Vec<String>>,
}

/// How many rows a change may touch; otherwise the whole transaction is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowLimit {
    None,
    /// A single object was asked for.
    ExactlyOne,
    /// `PUT`: the row in the payload is not the one in the URL.
    MatchingKey,
    AtMost(u64),
    /// A single object, and at most so many rows.
    ExactlyOneAndAtMost(u64),
}

#[derive(Debug, Clone)]
pub enum Change {
    Insert {
        columns: Vec<Target>,
        body: Body,
        defaults: bool,
        conflict: Option<Conflict>,
        /// `PUT`: the row has to be the one that the URL names.
        key: Vec<Logic>,
        /// Whether the answer distinguishes inserted rows from updated ones.
        count_inserted: bool,
    },
    Update {
        columns: Vec<Target>,
        body: Body,
        defaults: bool,
        filters: Vec<Logic>,
        /// Columns in which each row of the body finds its row of the table; empty where one object is for all.
        by: Vec<String>,
    },
    Delete {
        filters: Vec<Logic>,
    },
}

#[derive(Debug, Clone)]
pub struct Conflict {
    pub columns: Vec<String>,
    pub merge: bool,
}

/// JSON as it came.
#[derive(Debug, Clone)]
pub struct Body {
    pub json: Vec<u8>,
    pub is_array: bool,
}

/// A column that is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub name: String,
    /// The type in which its value is taken from the JSON.
    pub data_type: String,
    pub transform: Option<String>,
    pub default: Option<String>,
}

/// A function call, and how its rows are read.
#[derive(Debug, Clone)]
pub struct Call {
    pub function: Function,
    pub arguments: Arguments,
    /// The columns that reading the result needs.
    pub returning: Vec<String>,
    pub root: Node,
    pub media: Media,
    pub head: bool,
    pub read_only: bool,
    pub window: Range,
    pub count: Option<Count>,
    pub max_rows: Option<u64>,
    pub limit: RowLimit,
}

#[derive(Debug, Clone)]
pub enum Arguments {
    None,
    /// One unnamed argument takes the whole body.
    Whole {
        argument: Argument,
        body: Vec<u8>,
    },
    /// Values by name, from the URL or a form.
    Direct(Vec<(Argument, Value)>),
    /// Values by name, from a JSON object (or the first of an array).
    Json {
        arguments: Vec<Argument>,
        body: Body,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    One(String),
    /// A repeated variadic argument.
    Many(Vec<String>),
}

impl Media {
    /// The body comes as bytes, not as text.
    pub fn is_binary(&self) -> bool {
        matches!(self.render, Render::Custom { is_binary: true, .. })
    }
}

/// How the rows become a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    pub render: Render,
    pub media_type: MediaType,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Render {
    /// No body is asked for.
    Nothing,
    Array {
        nulls_stripped: bool,
    },
    Object {
        nulls_stripped: bool,
    },
    Csv,
    GeoJson,
    /// A function of the database, over any rows or over those of a certain type.
    Custom {
        function: Name,
        row_type: Option<Name>,
        is_binary: bool,
    },
}

/// A query over one relation, with those embedded in it.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub source: Source,
    pub select: Vec<Select>,
    pub filters: Vec<Logic>,
    pub order: Vec<Order>,
    pub range: Range,
    pub embeds: Vec<Embed>,
}

/// What a node reads from.
#[derive(Debug, Clone)]
pub enum Source {
    Table {
        name: Name,
        alias: Option<String>,
    },
    /// The rows of the mutation or the call.
    Result {
        alias: String,
    },
    /// The rows that a function gives for the parent's row.
    Computed {
        function: Name,
        alias: String,
        parent: Name,
        parent_type: Name,
    },
    /// The far side of a many-to-many relationship, beside its junction.
    Junction {
        name: Name,
        alias: String,
        junction: Name,
        junction_alias: String,
    },
}

impl Default for Source {
    fn default() -> Self {
        Self::Result { alias: String::new() }
    }
}

impl Source {
    /// What its columns are qualified with.
    pub fn qualifier(&self) -> Name {
        match self {
            Self::Table { name, alias: None } => name.clone(),
            Self::Table { alias: Some(alias), .. }
            | Self::Result { alias }
            | Self::Computed { alias, .. }
            | Self::Junction { alias, .. } => Name::new("", alias),
        }
    }
}

/// A relation inside another.
#[derive(Debug, Clone)]
pub struct Embed {
    /// As it is called in the request.
    pub name: String,
    pub alias: Option<String>,
    pub relationship: Relationship,
    pub join: Option<Join>,
    /// The name of its subquery.
    pub handle: String,
    pub shape: Shape,
    /// Pairs of columns that have to be equal.
    pub conditions: Vec<(ColumnRef, ColumnRef)>,
    /// Nothing of it is shown; it is there for filters.
    pub hidden: bool,
    pub node: Node,
}

impl Embed {
    /// The name under which it appears and is referred to.
    pub fn label(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }

    pub fn is_inner(&self) -> bool {
        self.join == Some(Join::Inner)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ColumnRef {
    pub qualifier: Name,
    pub column: String,
}

#[derive(Debug, Clone)]
pub enum Shape {
    Object,
    Array,
    /// The columns of the one row become the parent's.
    SpreadOne {
        select: Vec<SpreadSelect>,
    },
    /// The columns of the rows become arrays in the parent, in the order of extra columns.
    SpreadMany {
        select: Vec<SpreadSelect>,
        extra: Vec<(Option<String>, Select)>,
        order: Vec<Order>,
    },
}

impl Shape {
    pub fn spread(&self) -> Option<&Vec<SpreadSelect>> {
        match self {
            Self::SpreadOne { select } | Self::SpreadMany { select, .. } => Some(select),
            Self::Object | Self::Array => None,
        }
    }

    pub fn spread_mut(&mut self) -> Option<&mut Vec<SpreadSelect>> {
        match self {
            Self::SpreadOne { select } | Self::SpreadMany { select, .. } => Some(select),
            Self::Object | Self::Array => None,
        }
    }
}

/// A column of a spread relation, as its parent shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpreadSelect {
    pub name: String,
    pub aggregate: Option<Aggregate>,
    pub aggregate_cast: Option<String>,
    pub alias: Option<String>,
}

/// A column, resolved.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Field {
    pub name: String,
    pub path: Vec<JsonStep>,
    /// The column is not JSON: it is converted before the path is followed.
    pub to_json: bool,
    /// Full-text search on a column that is not a `tsvector`: converted, perhaps with a language.
    pub to_tsvector: Option<Option<String>>,
    /// The function that a domain declares for its values' way in or out.
    pub transform: Option<String>,
    /// Not a column but the row.
    pub whole_row: bool,
}

impl Field {
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    pub field: Field,
    pub aggregate: Option<Aggregate>,
    pub aggregate_cast: Option<String>,
    pub cast: Option<String>,
    pub alias: Option<String>,
}

impl Select {
    pub fn plain(field: Field) -> Self {
        Self { field, aggregate: None, aggregate_cast: None, cast: None, alias: None }
    }

    pub fn is_star(&self) -> bool {
        self.field.name == "*" && self.field.path.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Logic {
    Branch {
        negated: bool,
        connective: Connective,
        children: Vec<Logic>,
    },
    Filter {
        field: Field,
        negated: bool,
        operation: Operation,
    },
    /// Whether an embedded relation has rows.
    Embedded {
        handle: String,
        exists: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    pub field: Field,
    /// The embedded relation the column belongs to, if it is not the node's own.
    pub relation: Option<String>,
    pub direction: Option<Direction>,
    pub nulls: Option<Nulls>,
}

/// Resolves a request. `schema` is the one that it speaks to.
pub fn request(request: &Request, schema: &str, catalog: &Catalog, settings: &Settings) -> Result<Plan, Error> {
    cost::check(&request.query, settings.limits)?;
    let context = Context { request, schema, catalog, settings };
    match &request.action {
        Action::Read { target, head } => context.read(target, *head),
        Action::Insert { target }
        | Action::SingleUpsert { target }
        | Action::Update { target }
        | Action::Delete { target } => context.mutate(target),
        Action::Call { function, method } => context.call(function, *method),
        Action::RelationInfo { target } => {
            Ok(Plan::Info(Info::Relation { table: Box::new(context.table(target)?.clone()) }))
        }
        Action::FunctionInfo { function } => context.function_info(function),
        Action::Root { head } => {
            if let Some(function) = &settings.root {
                let (schema, name) = function.split_once('.').unwrap_or((schema, function));
                let method = if *head { CallMethod::Head } else { CallMethod::Get };
                return Context { schema, ..context }.call(name, method);
            }
            let describable =
                |media: &MediaType| matches!(media, MediaType::OpenApi | MediaType::Json | MediaType::Any);
            if request.accept.iter().any(describable) {
                return Ok(Plan::Describe { head: *head });
            }
            Err(Error::NotAcceptable(request.accept.iter().map(crate::media::essence).collect()))
        }
        Action::RootInfo => Ok(Plan::Info(Info::Root)),
    }
}

/// Embedded relations that filters, orders and ranges call by their own name although they have an alias.
pub fn legacy_names(request: &Request, settings: &Settings) -> Vec<LegacyName> {
    let query = &request.query;
    let nested = query.filters.iter().any(|(path, _)| !path.is_empty())
        || query.logic.iter().any(|(path, _)| !path.is_empty())
        || query.order.iter().any(|(path, _)| !path.is_empty())
        || query.ranges.keys().any(|path| !path.is_empty());
    if !nested || !settings.legacy_target_names {
        return Vec::new();
    }
    Directives::of(query, Scope::Read).legacy_names(&query.select)
}

/// A name that works only as long as the settings say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyName {
    pub name: String,
    pub alias: String,
}

/// What planning looks at; nothing else is in reach.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub request: &'a Request,
    pub schema: &'a str,
    pub catalog: &'a Catalog,
    pub settings: &'a Settings,
}

impl Context<'_> {
    fn table(&self, name: &str) -> Result<&Table, Error> {
        let qualified = Name::new(self.schema, name);
        self.catalog
            .tables
            .get(&qualified)
            .ok_or_else(|| Error::TableNotFound { near: hint::near_table(self.catalog, &qualified), table: qualified })
    }

    /// `handling=strict` refuses what was not understood.
    fn check_preferences(&self) -> Result<(), Error> {
        let preferences = &self.request.preferences;
        if self.is_strict() && !preferences.invalid.is_empty() {
            return Err(Error::InvalidPreferences(preferences.invalid.clone()));
        }
        Ok(())
    }

    fn is_strict(&self) -> bool {
        self.request.preferences.handling == Some(Handling::Strict)
    }

    /// `max-affected` counts only when it is said strictly.
    fn max_affected(&self) -> Option<u64> {
        self.request.preferences.max_affected.filter(|_| self.is_strict())
    }
}

impl Plan {
    /// Whether the transaction is kept, by what was preferred and what the settings allow.
    pub fn transaction_end(preferred: Option<TransactionEnd>, settings: &Settings) -> TransactionEnd {
        let allowed = preferred.filter(|_| settings.transaction_end.overridable);
        allowed.unwrap_or(settings.transaction_end.default)
    }
}
