//! Why a request is refused: facts, without HTTP. `respond` says them.

use crate::plan::cost::Costly;
use ntier_backing::database::{
    self,
    catalog::{Function, Name, Relationship},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request is not understood: {0}")]
    Request(#[from] ntier_protocol::rest::error::Error),
    #[error("table {0} is not in the catalog", table.name)]
    TableNotFound { table: Name, near: Option<String> },
    #[error("column {column} of {table} is not in the catalog")]
    ColumnNotFound { table: String, column: String },
    #[error("no relationship between {origin} and {target}")]
    NoRelationship { origin: String, target: String, hint: Option<String>, schema: String, near: Option<Near> },
    #[error("more than one relationship between {origin} and {target}")]
    AmbiguousRelationship { origin: String, target: String, found: Vec<Relationship> },
    #[error("function {0} is not in the catalog", wanted.function.name)]
    FunctionNotFound { wanted: Box<WantedFunction>, near: Option<String> },
    #[error("more than one function fits")]
    AmbiguousFunction(Vec<Function>),
    #[error("{name} is not embedded")]
    NotEmbedded {
        name: String,
        /// It is, but goes by this alias.
        alias: Option<String>,
    },
    #[error("{origin} has not one {target}")]
    RelatedOrderNotToOne { origin: String, target: String },
    #[error("aggregates are not allowed")]
    AggregatesNotAllowed,
    #[error("not implemented: {0}")]
    NotImplemented(&'static str),
    #[error("no acceptable media type")]
    NotAcceptable(Vec<String>),
    #[error("preferences were not understood")]
    InvalidPreferences(Vec<String>),
    #[error("schema {asked} is not exposed")]
    SchemaNotExposed { asked: String, exposed: Vec<String> },
    #[error("too costly: {what:?} {asked}, at most {limit}")]
    TooCostly { what: Costly, asked: u64, limit: u64 },
    /// An update of many rows needs in each the columns it is found by.
    #[error("the rows of the body have no {0}")]
    ByColumnMissing(String),
    #[error("two rows of the body are for the same row")]
    DuplicateRows,
    #[error("the batch is not understood: {0}")]
    Batch(String),
    #[error("a batch of {0} operations")]
    BatchTooLong(usize),
    #[error("this cannot be part of a batch: {0}")]
    NotInBatch(&'static str),
    /// One operation of a batch; none of them has happened.
    #[error("operation {index}: {error}")]
    Operation { index: usize, error: Box<Error> },
    #[error("the idempotency key is not understood")]
    IdempotencyKey,
    #[error("the idempotency key belongs to another request")]
    IdempotencyMismatch,
    #[error("PUT needs exactly the primary key")]
    InvalidPutFilters,
    #[error("the payload's key is not the URL's")]
    PutMismatch,
    #[error("{0} rows where one was asked for")]
    NotSingular(u64),
    #[error("{0} rows are more than allowed")]
    TooManyAffected(u64),
    #[error("max-affected on a function that returns one row")]
    MaxAffectedOnSingle,
    #[error("the Range header and the limit have nothing in common")]
    EmptyRange,
    #[error("offset {offset} is beyond {total} rows")]
    RangeOutOfBounds { offset: u64, total: u64 },
    #[error("response.headers is not understood")]
    ResponseHeaders,
    #[error("response.status is not understood")]
    ResponseStatus,
    #[error("a body of type {0} cannot be taken here")]
    ContentType(String),
    #[error("the description of the schema is disabled")]
    DescriptionDisabled,
    /// The catalog could not be read yet.
    #[error("the catalog is not known")]
    CatalogUnknown,
    #[error("the role {0} is not for requests")]
    ForbiddenRole(String),
    #[error("the database refused: {0}")]
    Database(#[from] database::Error),
    /// A row that our own statement always gives was not there.
    #[error("the database's answer is incomplete")]
    Incomplete,
}

/// A name that may have been meant instead of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    pub meant: String,
    pub instead_of: String,
}

/// What a call looked for.
#[derive(Debug, Clone)]
pub struct WantedFunction {
    pub function: Name,
    pub arguments: Vec<String>,
    pub body: BodyKind,
}

/// What kind of body a call came with; it decides which functions fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// `GET` and `HEAD`.
    None,
    Json,
    Form,
    Text,
    Xml,
    Binary,
    Other,
}
