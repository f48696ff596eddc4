//! Function calls: which overload fits the arguments, and how they are handed over.

use std::collections::BTreeSet;

use ntier_backing::database::catalog::{Argument, Function, Name, Volatility};
use ntier_protocol::rest::request::{CallMethod, MediaType, Payload};

use super::directives::Scope;
use super::read::is_plain;
use super::{Arguments, Body, Call, Context, Info, Plan, RowLimit, Source, Value, columns, hint, negotiate};
use crate::error::{BodyKind, Error, WantedFunction};

impl Context<'_> {
    pub(super) fn call(&self, name: &str, method: CallMethod) -> Result<Plan, Error> {
        let function = self.function(name, method)?;
        let relation = relation(self, function);
        let source = Source::Result { alias: relation.name.clone() };
        let root = self.tree(source, &relation, Scope::Read)?;
        let head = method == CallMethod::Head;
        let media = negotiate::media(self, &relation, is_plain(&root), head)?;
        self.check_preferences()?;
        if self.max_affected().is_some() && !function.returns.set {
            return Err(Error::MaxAffectedOnSingle);
        }
        let mut returning = columns::needed(&root, &[]);
        if returning != ["*"] && !returning.is_empty() {
            let all: BTreeSet<String> = returning.into_iter().chain(columns::filtered(&root.filters)).collect();
            returning = all.into_iter().collect();
        }
        let limit = match (self.row_limit(&media.media_type), function.returns.set) {
            // One row is all there can be.
            (RowLimit::ExactlyOne, false) => RowLimit::None,
            (limit, _) => limit,
        };
        Ok(Plan::Call(Box::new(Call {
            arguments: self.arguments(function, method),
            read_only: method != CallMethod::Post || function.volatility != Volatility::Volatile,
            function: function.clone(),
            returning,
            root,
            media,
            head,
            window: self.window()?,
            count: self.request.preferences.count,
            max_rows: self.settings.max_rows,
            limit,
        })))
    }

    pub(super) fn function_info(&self, name: &str) -> Result<Plan, Error> {
        let function = self.function(name, CallMethod::Get)?;
        Ok(Plan::Info(Info::Function { read_only: function.volatility != Volatility::Volatile }))
    }

    /// The overload that fits the names of the arguments; failing that, the one that takes the whole body.
    fn function(&self, name: &str, method: CallMethod) -> Result<&Function, Error> {
        let wanted = Name::new(self.schema, name);
        let names = self.argument_names(method);
        let body = self.body_kind(method);
        let overloads = self.catalog.functions.get(&wanted).map(Vec::as_slice).unwrap_or_default();
        let named: Vec<&Function> = overloads.iter().filter(|f| fits(f, &names, body)).collect();
        let whole = || overloads.iter().filter(|f| takes_whole(f, body)).collect::<Vec<_>>();
        let candidates = if named.is_empty() { whole() } else { named };
        match candidates.as_slice() {
            [one] => Ok(one),
            [] => {
                let arguments: Vec<String> = names.into_iter().collect();
                let near = hint::near_function(self.catalog, &wanted, &arguments);
                let wanted = WantedFunction { function: wanted, arguments, body };
                Err(Error::FunctionNotFound { wanted: Box::new(wanted), near })
            }
            many => Err(Error::AmbiguousFunction(many.iter().map(|f| (*f).clone()).collect())),
        }
    }

    fn argument_names(&self, method: CallMethod) -> BTreeSet<String> {
        if method != CallMethod::Post {
            return self.request.query.parameters.iter().map(|(key, _)| key.clone()).collect();
        }
        match &self.request.payload {
            Some(Payload::Json { keys, .. } | Payload::Csv { keys, .. }) => keys.iter().cloned().collect(),
            Some(Payload::Form(pairs)) => pairs.iter().map(|(key, _)| key.clone()).collect(),
            Some(Payload::RawJson(_) | Payload::Raw { .. }) | None => BTreeSet::new(),
        }
    }

    fn body_kind(&self, method: CallMethod) -> BodyKind {
        if method != CallMethod::Post {
            return BodyKind::None;
        }
        match &self.request.payload {
            Some(Payload::Json { .. } | Payload::RawJson(_)) | None => BodyKind::Json,
            Some(Payload::Form(_)) => BodyKind::Form,
            Some(Payload::Raw { media_type: MediaType::Text, .. }) => BodyKind::Text,
            Some(Payload::Raw { media_type: MediaType::Xml, .. }) => BodyKind::Xml,
            Some(Payload::Raw { media_type: MediaType::OctetStream, .. }) => BodyKind::Binary,
            Some(Payload::Csv { .. } | Payload::Raw { .. }) => BodyKind::Other,
        }
    }

    fn arguments(&self, function: &Function, method: CallMethod) -> Arguments {
        if let [argument] = function.arguments.as_slice()
            && argument.name.is_empty()
        {
            return Arguments::Whole { argument: argument.clone(), body: self.whole_body() };
        }
        let names = self.argument_names(method);
        let given: Vec<Argument> =
            function.arguments.iter().filter(|argument| names.contains(&argument.name)).cloned().collect();
        if given.is_empty() {
            return Arguments::None;
        }
        match (&self.request.payload, method) {
            (Some(Payload::Form(pairs)), CallMethod::Post) => Arguments::Direct(values(given, pairs)),
            (_, CallMethod::Get | CallMethod::Head) => Arguments::Direct(values(given, &self.request.query.parameters)),
            (Some(Payload::Json { bytes, is_array, .. }), _) => {
                Arguments::Json { arguments: given, body: Body { json: bytes.clone(), is_array: *is_array } }
            }
            (Some(Payload::Csv { bytes, .. }), _) => {
                Arguments::Json { arguments: given, body: Body { json: bytes.clone(), is_array: true } }
            }
            _ => Arguments::None,
        }
    }

    fn whole_body(&self) -> Vec<u8> {
        match &self.request.payload {
            Some(
                Payload::Json { bytes, .. }
                | Payload::RawJson(bytes)
                | Payload::Raw { bytes, .. }
                | Payload::Csv { bytes, .. },
            ) => bytes.clone(),
            Some(Payload::Form(_)) | None => b"{}".to_vec(),
        }
    }
}

/// The relation whose columns the result has, if it has any: there may be others to embed in it.
fn relation(context: &Context<'_>, function: &Function) -> Name {
    let returns = &function.returns;
    if !returns.composite {
        return function.name.clone();
    }
    if context.catalog.tables.contains_key(&returns.name) {
        return returns.name.clone();
    }
    Name::new(&function.name.schema, &returns.name.name)
}

/// All required arguments are there, and none that the function does not have.
fn fits(function: &Function, names: &BTreeSet<String>, body: BodyKind) -> bool {
    if function.arguments.is_empty() {
        return names.is_empty() && !matches!(body, BodyKind::Text | BodyKind::Xml | BodyKind::Binary);
    }
    let known = |name: &String| function.arguments.iter().any(|argument| argument.name == *name);
    let given = |argument: &Argument| !argument.required || names.contains(&argument.name);
    names.iter().all(known) && function.arguments.iter().all(given)
}

/// The only argument has no name, and the body is of its type.
fn takes_whole(function: &Function, body: BodyKind) -> bool {
    let [argument] = function.arguments.as_slice() else { return false };
    let fits = match body {
        BodyKind::Json => matches!(argument.data_type.as_str(), "json" | "jsonb"),
        BodyKind::Text => argument.data_type == "text",
        BodyKind::Xml => argument.data_type == "xml",
        BodyKind::Binary => argument.data_type == "bytea",
        BodyKind::None | BodyKind::Form | BodyKind::Other => false,
    };
    argument.name.is_empty() && fits
}

/// A repeated argument keeps its last value, unless it is variadic.
fn values(arguments: Vec<Argument>, pairs: &[(String, String)]) -> Vec<(Argument, Value)> {
    let value_of = |argument: Argument| {
        let given: Vec<String> =
            pairs.iter().filter(|(key, _)| *key == argument.name).map(|(_, value)| value.clone()).collect();
        let value = if argument.variadic {
            Value::Many(given)
        } else {
            Value::One(given.into_iter().next_back().unwrap_or_default())
        };
        (argument, value)
    };
    arguments.into_iter().map(value_of).collect()
}
