//! The tree of relations that a request selects.

use ntier_backing::database::catalog::{Name, Table};
use ntier_protocol::rest::request::{self, Aggregate, Range, SelectItem};

use super::directives::{Directives, Scope};
use super::field::{order, path_label};
use super::{Context, Field, Logic, Node, Plan, Read, Select, Shape, Source, negotiate};
use crate::error::Error;

/// Where a node stands while it is built.
#[derive(Clone)]
pub(super) struct Place {
    pub source: Source,
    /// The relation whose columns it has.
    pub table: Name,
    /// The name from which relationships are looked for.
    pub origin: String,
    pub depth: usize,
    pub spread: Spread,
    /// Stars are written out because somebody groups by the columns.
    pub expand: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    No,
    One,
    Many,
}

impl Context<'_> {
    pub(super) fn read(&self, target: &str, head: bool) -> Result<Plan, Error> {
        let table = self.table(target)?;
        let source = Source::Table { name: table.name.clone(), alias: None };
        let root = self.tree(source, &table.name, Scope::Read)?;
        let media = negotiate::media(self, &table.name, is_plain(&root), head)?;
        self.check_preferences()?;
        Ok(Plan::Read(Box::new(Read {
            target: table.name.clone(),
            head,
            root,
            media,
            window: self.window()?,
            count: self.request.preferences.count,
            max_rows: self.settings.max_rows,
        })))
    }

    /// The rows that were asked for at the root: by limit and offset, by the Range header, or by both.
    pub(super) fn window(&self) -> Result<Range, Error> {
        let header = self.request.range;
        let Some(query) = self.request.query.ranges.get([].as_slice()).copied() else { return Ok(header) };
        if query.limit == Some(0) {
            return Ok(Range { offset: 0, limit: Some(0) });
        }
        let offset = header.offset.max(query.offset);
        let end = |range: Range| range.limit.map(|limit| range.offset.saturating_add(limit));
        let limit = match end(header).into_iter().chain(end(query)).min() {
            Some(end) if end <= offset => return Err(Error::EmptyRange),
            Some(end) => Some(end - offset),
            None => None,
        };
        Ok(Range { offset, limit })
    }

    /// The whole tree. `target` names the relation that the source's rows have the columns of.
    pub(super) fn tree(&self, source: Source, target: &Name, scope: Scope) -> Result<Node, Error> {
        let star = [SelectItem::Field {
            field: request::Field { name: "*".into(), path: Vec::new() },
            aggregate: None,
            aggregate_cast: None,
            cast: None,
            alias: None,
        }];
        let select = &self.request.query.select;
        let items = if select.is_empty() { &star[..] } else { &select[..] };
        let mut directives = Directives::of(&self.request.query, scope);
        if scope == Scope::Read {
            directives.range = Some(self.window()?);
        }
        directives.check(items, self.settings.legacy_target_names)?;
        let place = Place {
            source,
            table: target.clone(),
            origin: target.name.clone(),
            depth: 0,
            spread: Spread::No,
            expand: false,
        };
        let mut root = self.node(place, items, directives)?;
        if !self.settings.aggregates && uses_aggregates(&root) {
            return Err(Error::AggregatesNotAllowed);
        }
        super::spread::arrange(&mut root)?;
        if scope == Scope::Read {
            restrict(&mut root, self.settings.max_rows);
        }
        Ok(root)
    }

    pub(super) fn node(&self, place: Place, items: &[SelectItem], mut directives: Directives) -> Result<Node, Error> {
        let table = self.catalog.tables.get(&place.table);
        let own: Vec<Select> = items.iter().filter_map(|item| self.select(table, &place, item)).collect();
        let expand = place.expand || place.spread == Spread::Many || own.iter().any(|s| s.aggregate.is_some());
        let mut node = Node {
            select: self.expand_stars(table, &place, expand, own),
            filters: self.filters(table, &directives),
            order: directives.order.iter().flatten().map(|term| order(table, term)).collect(),
            range: directives.range.unwrap_or_default(),
            embeds: Vec::new(),
            source: place.source.clone(),
        };
        for (index, item) in items.iter().enumerate() {
            if matches!(item, SelectItem::Embed { .. } | SelectItem::Spread { .. }) {
                let below = directives.take(items, index);
                node.embeds.push(self.embed(&place, expand, item, below)?);
            }
        }
        resolve_embedded(&mut node);
        resolve_related_order(&mut node, &place.table.name)?;
        Ok(node)
    }

    fn filters(&self, table: Option<&Table>, directives: &Directives) -> Vec<Logic> {
        let logic = directives.logic.iter().map(|tree| self.logic(table, tree));
        logic.chain(directives.filters.iter().map(|filter| self.filter(table, filter))).collect()
    }

    fn select(&self, table: Option<&Table>, place: &Place, item: &SelectItem) -> Option<Select> {
        // Without a name of its own, an aggregate could not be told from others further up.
        let name_of = |aggregate: Aggregate| (place.spread != Spread::No).then(|| label(aggregate).to_owned());
        match item {
            SelectItem::Field { field, aggregate, aggregate_cast, cast, alias } => {
                let resolved = self.output(table, field);
                let implied = match aggregate {
                    Some(aggregate) => name_of(*aggregate),
                    None => path_label(field).or_else(|| resolved.transform.is_some().then(|| field.name.clone())),
                };
                Some(Select {
                    field: resolved,
                    aggregate: *aggregate,
                    aggregate_cast: aggregate_cast.clone(),
                    cast: cast.clone(),
                    alias: alias.clone().or(implied),
                })
            }
            SelectItem::Count { cast, alias } => Some(Select {
                field: Field { whole_row: place.spread != Spread::No, ..Field::plain("*") },
                aggregate: Some(Aggregate::Count),
                aggregate_cast: cast.clone(),
                cast: None,
                alias: alias.clone().or_else(|| name_of(Aggregate::Count)),
            }),
            SelectItem::Embed { .. } | SelectItem::Spread { .. } => None,
        }
    }

    /// `*` is written out where the columns have to be named: to group by them, to make arrays of
    /// them, or because one of them is written in its own way.
    fn expand_stars(&self, table: Option<&Table>, place: &Place, expand: bool, own: Vec<Select>) -> Vec<Select> {
        let Some(table) = table else { return own };
        let represented = |name: &str| self.representation(name, "json");
        let needed = expand || table.columns.iter().any(|column| represented(&column.nominal_type).is_some());
        let has_star = own.iter().any(|select| select.is_star() && select.aggregate.is_none());
        if !needed || !has_star {
            return own;
        }
        let is_spread = place.spread != Spread::No;
        own.into_iter()
            .flat_map(|select| {
                if !select.is_star() || select.aggregate.is_some() {
                    return vec![select];
                }
                let column = |column: &ntier_backing::database::catalog::Column| {
                    let transform = represented(&column.nominal_type);
                    let alias = transform.is_some().then(|| column.name.clone());
                    let field = Field { transform, ..Field::plain(&column.name) };
                    Select { alias: alias.filter(|_| !is_spread || field.transform.is_some()), ..Select::plain(field) }
                };
                table.columns.iter().map(column).collect()
            })
            .collect()
    }
}

/// All columns of the relation and nothing else: what a media type's own renderer may be given.
pub(super) fn is_plain(root: &Node) -> bool {
    let only_star = matches!(root.select.as_slice(), [select] if select.is_star() && select.aggregate.is_none());
    only_star && root.embeds.is_empty()
}

pub(super) fn label(aggregate: Aggregate) -> &'static str {
    match aggregate {
        Aggregate::Sum => "sum",
        Aggregate::Avg => "avg",
        Aggregate::Max => "max",
        Aggregate::Min => "min",
        Aggregate::Count => "count",
    }
}

fn uses_aggregates(node: &Node) -> bool {
    node.select.iter().any(|select| select.aggregate.is_some()) || node.embeds.iter().any(|e| uses_aggregates(&e.node))
}

/// No relation gives more rows than the settings allow.
fn restrict(node: &mut Node, max_rows: Option<u64>) {
    let limits = node.range.limit.into_iter().chain(max_rows);
    node.range.limit = limits.min();
    for embed in &mut node.embeds {
        restrict(&mut embed.node, max_rows);
    }
}

/// `rel=is.null` and `rel=not.is.null` on an embedded relation ask whether it has rows.
fn resolve_embedded(node: &mut Node) {
    let labels: Vec<(String, String)> =
        node.embeds.iter().map(|embed| (embed.label().to_owned(), embed.handle.clone())).collect();
    for logic in &mut node.filters {
        embedded_filter(logic, &labels);
    }
}

fn embedded_filter(logic: &mut Logic, labels: &[(String, String)]) {
    use request::{IsValue, Operation};
    match logic {
        Logic::Branch { children, .. } => children.iter_mut().for_each(|child| embedded_filter(child, labels)),
        Logic::Filter { field, negated, operation: Operation::Is(is @ (IsValue::Null | IsValue::NotNull)) }
            if field.path.is_empty() =>
        {
            if let Some((_, handle)) = labels.iter().find(|(label, _)| *label == field.name) {
                let exists = *negated != (*is == IsValue::NotNull);
                *logic = Logic::Embedded { handle: handle.clone(), exists };
            }
        }
        Logic::Filter { .. } | Logic::Embedded { .. } => {}
    }
}

/// `order=rel(column)`: the relation has to be embedded and has to be one row.
fn resolve_related_order(node: &mut Node, origin: &str) -> Result<(), Error> {
    for order in &mut node.order {
        let Some(wanted) = &order.relation else { continue };
        let embed = node.embeds.iter().find(|embed| embed.label() == wanted);
        let embed = embed.ok_or_else(|| Error::NotEmbedded { name: wanted.clone(), alias: None })?;
        if !embed.relationship.is_to_one() {
            return Err(Error::RelatedOrderNotToOne { origin: origin.to_owned(), target: wanted.clone() });
        }
        order.relation = Some(embed.handle.clone());
    }
    Ok(())
}

/// Whether nothing below is shown either.
pub(super) fn shows_nothing(node: &Node) -> bool {
    node.select.is_empty()
        && node.embeds.iter().all(|e| shows_nothing(&e.node) && matches!(e.shape, Shape::Object | Shape::Array))
}
