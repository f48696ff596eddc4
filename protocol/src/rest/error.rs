//! Why a request could not be understood, and how PostgREST says it.
//!
//! Source: PostgREST documentation, "Errors", group 1. Retired codes are never used again: 104, 109, 110, 113, 119.

use super::cursor::Fault;
use crate::nesting;

/// A refusal of the parser: facts, and from them PostgREST's code, status and words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// PGRST100: a parameter's grammar.
    #[error("failed to parse {what} ({text})")]
    Syntax { what: &'static str, text: String, fault: Fault },
    /// PGRST101.
    #[error("method {0} on a function")]
    FunctionMethod(String),
    /// PGRST102.
    #[error("{0}")]
    Body(String),
    /// PGRST103.
    #[error("range not satisfiable")]
    Range(RangeFault),
    /// PGRST114.
    #[error("limit or offset with PUT")]
    PutLimit,
    /// PGRST117.
    #[error("method {0}")]
    Method(String),
    /// PGRST125.
    #[error("no such path")]
    Path,
    /// PGRST100 in our own words: bytes that are not UTF-8 once decoded.
    #[error("invalid encoding in the {0}")]
    Encoding(&'static str),
    /// PGRST100 in our own words: more brackets than PostgreSQL's stack may bear.
    #[error("deep nesting in the query string")]
    Nesting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeFault {
    NegativeLimit,
    LowerAboveUpper,
}

impl Error {
    /// The code in the body.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } | Self::Encoding(_) | Self::Nesting => "PGRST100",
            Self::FunctionMethod(_) => "PGRST101",
            Self::Body(_) => "PGRST102",
            Self::Range(_) => "PGRST103",
            Self::PutLimit => "PGRST114",
            Self::Method(_) => "PGRST117",
            Self::Path => "PGRST125",
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Syntax { .. } | Self::Encoding(_) | Self::Nesting | Self::Body(_) | Self::PutLimit => 400,
            Self::FunctionMethod(_) | Self::Method(_) => 405,
            Self::Range(_) => 416,
            Self::Path => 404,
        }
    }

    pub fn message(&self) -> String {
        match self {
            Self::Syntax { what, text, fault: Fault { line, column, .. } } => {
                format!("\"failed to parse {what} ({text})\" (line {line}, column {column})")
            }
            Self::FunctionMethod(method) => format!("Cannot use the {method} method on RPC"),
            Self::Body(reason) => reason.clone(),
            Self::Range(_) => "Requested range not satisfiable".into(),
            Self::PutLimit => "limit/offset querystring parameters are not allowed for PUT".into(),
            Self::Method(method) => format!("Unsupported HTTP method: {method}"),
            Self::Path => "Invalid path specified in request URL".into(),
            Self::Encoding(place) => format!("Invalid encoding in the {place}"),
            Self::Nesting => format!("The query string is nested deeper than {}", nesting::MOST),
        }
    }

    pub fn details(&self) -> Option<String> {
        match self {
            Self::Syntax { fault, .. } => Some(fault.details.clone()),
            Self::Range(RangeFault::NegativeLimit) => Some("Limit should be greater than or equal to zero.".into()),
            Self::Range(RangeFault::LowerAboveUpper) => {
                Some("The lower boundary must be lower than or equal to the upper boundary in the Range header.".into())
            }
            _ => None,
        }
    }
}
