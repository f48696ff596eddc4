//! What was asked, once parsed: plain data that later stages trust.
//!
//! Names follow PostgREST's documentation. Nothing here knows a table or a type; whether a name
//! exists is the plan's question.

use std::collections::BTreeMap;

/// A parsed request to the data API.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub action: Action,
    /// The schema chosen by `Accept-Profile` / `Content-Profile`; `None` for the default one.
    pub profile: Option<String>,
    pub query: Query,
    pub preferences: Preferences,
    /// Acceptable media types in order of preference; never empty (`*/*` when absent).
    pub accept: Vec<MediaType>,
    /// `Range: 0-9` with `Range-Unit: items`; merged into `query.ranges` only for reads.
    pub range: Range,
    pub payload: Option<Payload>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `GET` or `HEAD` on a table or view.
    Read { target: String, head: bool },
    /// `POST` (insert or upsert).
    Insert { target: String },
    /// `PUT` on a row named by its whole primary key.
    SingleUpsert { target: String },
    /// `PATCH`.
    Update { target: String },
    /// `DELETE`.
    Delete { target: String },
    /// `/rpc/name`.
    Call { function: String, method: CallMethod },
    /// `OPTIONS` on a table or view.
    RelationInfo { target: String },
    /// `OPTIONS` on a function.
    FunctionInfo { function: String },
    /// `GET` or `HEAD` on the root: the OpenAPI description.
    Root { head: bool },
    /// `OPTIONS` on the root.
    RootInfo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallMethod {
    Get,
    Head,
    Post,
}

/// The query string.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// `select=`; empty when absent, which means `*`.
    pub select: Vec<SelectItem>,
    /// `col=op.value` and `rel.col=op.value`, in order. For `Call` by GET, see `parameters`.
    pub filters: Vec<(EmbedPath, Filter)>,
    /// `and=(…)`, `or=(…)`, `rel.not.or=(…)`.
    pub logic: Vec<(EmbedPath, LogicTree)>,
    /// `order=` and `rel.order=`.
    pub order: Vec<(EmbedPath, Vec<OrderTerm>)>,
    /// `limit=`, `offset=`, `rel.limit=`, `rel.offset=`.
    pub ranges: BTreeMap<EmbedPath, Range>,
    /// `columns=`.
    pub columns: Option<Vec<String>>,
    /// `on_conflict=`.
    pub on_conflict: Option<Vec<String>>,
    /// `by=` of an update with many rows: the columns in which a row of the body finds its row of the table. Not PostgREST's.
    pub by: Option<Vec<String>>,
    /// Every key without an operator-shaped value, as it came: a function's named arguments for `GET /rpc/f?a=1`.
    /// Repeated keys are kept in order (variadic arguments).
    pub parameters: Vec<(String, String)>,
    /// The query string in canonical form (parameters sorted), for `Content-Location`/`Location`.
    pub canonical: String,
}

/// The names of the embeds from the root to where something applies; empty for the root.
pub type EmbedPath = Vec<String>;

#[derive(Debug, Clone, PartialEq)]
pub enum SelectItem {
    /// `alias:col->json->>path::cast`, `col.agg()`, or `*`.
    Field {
        field: Field,
        aggregate: Option<Aggregate>,
        /// The cast on the aggregate's result: `col.sum()::text`.
        aggregate_cast: Option<String>,
        cast: Option<String>,
        alias: Option<String>,
    },
    /// `count()` without a column.
    Count { cast: Option<String>, alias: Option<String> },
    /// `alias:rel!hint!inner(…)`.
    Embed { relation: String, alias: Option<String>, hint: Option<String>, join: Option<Join>, select: Vec<SelectItem> },
    /// `...rel!hint!inner(…)`.
    Spread { relation: String, hint: Option<String>, join: Option<Join>, select: Vec<SelectItem> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    Inner,
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    Sum,
    Avg,
    Max,
    Min,
    Count,
}

/// A column, perhaps with a path into its JSON. The name `*` selects all columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub path: Vec<JsonStep>,
}

/// `->key`, `->0`, `->>key`, `->>0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonStep {
    pub operand: JsonOperand,
    /// `->>`: the result is text.
    pub as_text: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonOperand {
    Key(String),
    /// Digits with an optional sign, kept as text because PostgREST does not bound it.
    Index(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    pub field: Field,
    pub negated: bool,
    pub operation: Operation,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// `eq gt gte lt lte neq like ilike match imatch` perhaps quantified, and
    /// `cs cd ov sl sr nxl nxr adj` which never are.
    Compare { operator: Operator, quantifier: Option<Quantifier>, value: String },
    /// `in.(a,"b,c")`.
    In(Vec<String>),
    /// `is.null`, `is.not_null`, `is.true`, `is.false`, `is.unknown`.
    Is(IsValue),
    /// `isdistinct.value`.
    IsDistinctFrom(String),
    /// `fts(english).value`, `plfts`, `phfts`, `wfts`.
    FullText { kind: FullText, language: Option<String>, value: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Like,
    ILike,
    Match,
    IMatch,
    Contains,
    Contained,
    Overlaps,
    StrictlyLeft,
    StrictlyRight,
    NotExtendsRight,
    NotExtendsLeft,
    Adjacent,
}

/// `eq(any).{1,2}`: the value is then an array literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantifier {
    Any,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsValue {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullText {
    /// `fts`: `to_tsquery`.
    Plain,
    /// `plfts`: `plainto_tsquery`.
    PlainTo,
    /// `phfts`: `phraseto_tsquery`.
    Phrase,
    /// `wfts`: `websearch_to_tsquery`.
    WebSearch,
}

#[derive(Debug, Clone, PartialEq)]
pub enum LogicTree {
    Branch { negated: bool, connective: Connective, children: Vec<LogicTree> },
    Filter(Filter),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connective {
    And,
    Or,
}

#[derive(Debug, Clone, PartialEq)]
pub struct OrderTerm {
    /// `rel(col)`: order the parent by a column of a to-one embed.
    pub relation: Option<String>,
    pub field: Field,
    pub direction: Option<Direction>,
    pub nulls: Option<Nulls>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Asc,
    Desc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    First,
    Last,
}

/// A window of rows. The default is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    pub offset: u64,
    pub limit: Option<u64>,
}

/// The `Prefer` header(s). `None` where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preferences {
    pub resolution: Option<Resolution>,
    pub representation: Option<Return>,
    pub count: Option<Count>,
    pub transaction: Option<TransactionEnd>,
    pub missing: Option<Missing>,
    pub handling: Option<Handling>,
    pub timezone: Option<String>,
    pub max_affected: Option<u64>,
    /// What could not be understood; an error (PGRST122) when `handling=strict`.
    pub invalid: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    MergeDuplicates,
    IgnoreDuplicates,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    Representation,
    HeadersOnly,
    Minimal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Exact,
    Planned,
    Estimated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionEnd {
    Commit,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Default,
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    Strict,
    Lenient,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaType {
    Any,
    Json,
    /// `application/vnd.pgrst.array+json`, with or without `nulls=stripped`.
    Array {
        nulls_stripped: bool,
    },
    /// `application/vnd.pgrst.object+json`, with or without `nulls=stripped`.
    Object {
        nulls_stripped: bool,
    },
    Csv,
    GeoJson,
    OpenApi,
    Text,
    Xml,
    OctetStream,
    UrlEncoded,
    /// `application/vnd.pgrst.plan+json` or `+text`, with its `for=` and `options=`.
    Plan {
        json: bool,
        of: Box<MediaType>,
        options: Vec<PlanOption>,
    },
    /// Anything else, as it was written (`type/subtype`, lower case, parameters dropped).
    Other(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanOption {
    Analyze,
    Verbose,
    Settings,
    Buffers,
    Wal,
}

/// The request's body.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// A JSON object or array of objects, its bytes untouched. `keys` are the keys of the first
    /// object; the parser has checked that every object has the same ones, unless `columns=` is given
    /// (then `keys` are those columns and the body was not read).
    Json { bytes: Vec<u8>, keys: Vec<String>, is_array: bool },
    /// A JSON value that is neither (a number, a string): only for functions with one unnamed argument.
    RawJson(Vec<u8>),
    /// `application/x-www-form-urlencoded`: one row.
    Form(Vec<(String, String)>),
    /// `text/csv`, turned into a JSON array of objects of strings and nulls.
    Csv { bytes: Vec<u8>, keys: Vec<String> },
    /// `text/plain`, `text/xml`, `application/octet-stream`: only for functions with one unnamed argument.
    Raw { media_type: MediaType, bytes: Vec<u8> },
}
