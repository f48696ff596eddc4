//! What the database has to offer: tables, relationships and functions of the exposed schemas.
//!
//! Read from `pg_catalog` in one batch and kept until somebody says that the schema changed. Everything
//! a plan asks is a lookup here; nothing is asked of the database while a request is planned.

mod queries;
mod read;
mod relationships;
mod views;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;

pub use read::{Error, Exposure, configuration, load};

/// A schema and the name of something in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Deserialize)]
pub struct Name {
    pub schema: String,
    pub name: String,
}

impl Name {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

/// The whole of it.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    pub tables: HashMap<Name, Table>,
    /// By the table they start from and the schema in which the other side is looked for.
    pub relationships: HashMap<(Name, String), Vec<Relationship>>,
    /// Overloads share an entry, those with fewer arguments first.
    pub functions: HashMap<Name, Vec<Function>>,
    /// The function that converts from the first type to the second where a domain declares one.
    pub representations: HashMap<(String, String), String>,
    /// Functions that render a table (or anything, where the target is `None`) as a media type.
    pub media_handlers: HashMap<(Option<Name>, String), MediaHandler>,
    /// What `ALTER ROLE … SET` says of the roles that the connection may become.
    pub role_settings: HashMap<String, Vec<(String, String)>>,
    /// Something in the database may set the status or the headers of a response.
    pub sets_response: bool,
    /// The roles that a request may act as; `None` where PostgreSQL alone decides.
    pub roles: Option<HashSet<String>>,
}

/// A table or a view (or a materialised view, a foreign or a partitioned table).
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, as PostgreSQL says them")]
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Table {
    #[serde(flatten)]
    pub name: Name,
    pub description: Option<String>,
    pub is_view: bool,
    pub insertable: bool,
    pub updatable: bool,
    pub deletable: bool,
    /// Of a view: the columns through which the primary key of a table below is seen.
    pub primary_key: Vec<String>,
    pub columns: Vec<Column>,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Column {
    pub name: String,
    pub description: Option<String>,
    pub nullable: bool,
    /// The type, without a domain's name and without modifiers.
    pub base_type: String,
    /// The type as it was declared.
    pub nominal_type: String,
    pub max_length: Option<i32>,
    /// The default as SQL.
    pub default: Option<String>,
    #[serde(default)]
    pub enum_values: Vec<String>,
}

/// A way from one table to another. The order is that of error messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relationship {
    pub table: Name,
    pub foreign: Name,
    pub is_self: bool,
    pub link: Link,
    pub table_is_view: bool,
    pub foreign_is_view: bool,
}

impl Relationship {
    /// Whether a row here has at most one row there.
    pub fn is_to_one(&self) -> bool {
        match &self.link {
            Link::ManyToOne { .. } | Link::OneToOne { .. } => true,
            Link::OneToMany { .. } | Link::ManyToMany(_) => false,
            Link::Computed { to_one, .. } => *to_one,
        }
    }
}

/// Pairs of columns: here, there.
pub type Columns = Vec<(String, String)>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    OneToMany {
        constraint: String,
        columns: Columns,
    },
    ManyToOne {
        constraint: String,
        columns: Columns,
    },
    /// `is_parent`: the foreign key is on the other side.
    OneToOne {
        constraint: String,
        columns: Columns,
        is_parent: bool,
    },
    ManyToMany(Junction),
    /// A function from a row here to rows there.
    Computed {
        function: Name,
        to_one: bool,
    },
}

/// The table between two others, with its columns second in each pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Junction {
    pub table: Name,
    pub source_constraint: String,
    pub target_constraint: String,
    pub source: Columns,
    pub target: Columns,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Function {
    pub oid: i64,
    #[serde(flatten)]
    pub name: Name,
    pub description: Option<String>,
    pub arguments: Vec<Argument>,
    pub returns: Returns,
    pub volatility: Volatility,
    /// Settings of the function that have to be made before it is called, such as `statement_timeout`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Argument {
    /// Empty when it has none.
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: String,
    pub required: bool,
    pub variadic: bool,
}

impl Argument {
    /// The type to cast to: `bit` and `character` without a length mean a length of one, which would
    /// cut values.
    pub fn cast_type(&self) -> &str {
        match self.data_type.as_str() {
            "bit" => "bit varying",
            "bit[]" => "bit varying[]",
            "character" => "character varying",
            "character[]" => "character varying[]",
            other => other,
        }
    }
}

/// What a function gives back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Returns {
    pub set: bool,
    pub composite: bool,
    /// A domain over a composite type.
    pub composite_alias: bool,
    #[serde(flatten)]
    pub name: Name,
}

impl Returns {
    pub fn is_scalar(&self) -> bool {
        !self.set && !self.composite
    }

    pub fn is_set_of_scalar(&self) -> bool {
        self.set && !self.composite
    }

    pub fn is_single_composite(&self) -> bool {
        !self.set && self.composite
    }

    pub fn is_void(&self) -> bool {
        self.is_scalar() && self.name.schema == "pg_catalog" && self.name.name == "void"
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Volatility {
    #[serde(rename = "i")]
    Immutable,
    #[serde(rename = "s")]
    Stable,
    #[serde(rename = "v")]
    Volatile,
}

/// A function (over a scalar) or an aggregate (over rows) that renders a media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaHandler {
    pub function: Name,
    /// What `*/*` turns into, otherwise the media type itself.
    pub media_type: String,
    /// It gives `bytea`, not text.
    pub is_binary: bool,
}
