//! Whether both ends have the same: rows counted and summed by hashes that PostgreSQL computes alike at both ends, in pieces, in any order.
//! What is known of them meanwhile is `look`'s.

use super::look::{Look, Looks, Table, bits};
use super::place::{Place, literals};
use super::tables::{self, Unit};
use super::{Error, Event, Observe, follow};

/// 4 MB of files: the embedded database answers nobody else meanwhile.
const PAGES: u64 = 512;
/// Of one statement.
const PIECES: usize = 64;

/// What a table comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    pub rows: u64,
    /// Of the hashes of all rows (64 bits each), by addition.
    pub hash: i128,
}

impl Sum {
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, hash: self.hash + other.hash }
    }
}

/// A table, or something else that has a sum at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    pub name: String,
    pub source: Sum,
    pub target: Sum,
}

impl Compared {
    pub fn is_equal(&self) -> bool {
        self.source == self.target
    }
}

/// Reads at both ends what is not known of these tables; both compute at the same time. `frozen`: nothing changes any more, so this is
/// all of them; else those whose changes are noted.
pub async fn look(
    source: &mut Place,
    target: &mut Place,
    units: &[Unit],
    looks: &mut Looks,
    frozen: bool,
    observe: Observe<'_>,
) -> Result<(), Error> {
    // Before anything is read: what is made anew from then on has another mark at the next look.
    let marks = follow::marks(source, units).await?;
    let theirs = tables::units(target).await?;
    let mut lengths = pages(source, units.iter().flat_map(|unit| &unit.parts).map(String::as_str)).await?.into_iter();
    let mut found = Vec::with_capacity(units.len());
    for (unit, mark) in units.iter().zip(marks) {
        let pages = lengths.by_ref().take(unit.parts.len()).sum();
        let there = match theirs.iter().find(|other| other.name == unit.name) {
            Some(other) if frozen || (mark.is_some() && other.compared == unit.compared) => other,
            None if frozen => return Err(Error::Target(format!("the table {} is not there", unit.name))),
            _ => continue,
        };
        // What it is made of there may have other names; what is compared has the names of here.
        let there = Unit { parts: there.parts.clone(), ..unit.clone() };
        found.push(Table { here: unit.clone(), there, mark, pages });
    }
    looks.renew(found);
    let open: Vec<Open> = looks.0.iter().map(Open::of).collect();
    let list = |end: fn(&Look) -> &Unit| looks.0.iter().map(end).zip(&open).collect::<Vec<_>>();
    let tell = |table: &str| observe(if frozen { Event::Comparing { table } } else { Event::Looking { table } });
    let (here, there) = (list(|look| &look.here), list(|look| &look.there));
    let (here, there) = tokio::join!(sums(source, &here, &tell), sums(target, &there, &|_| {}));
    for (look, (here, there)) in looks.0.iter_mut().zip(here?.iter().zip(&there?)) {
        look.settle(here, there);
    }
    Ok(())
}

/// Which buckets of a table are read.
#[derive(Debug)]
struct Open {
    buckets: usize,
    is_none: bool,
    /// As bits; all of them where it says nothing.
    only: Option<String>,
}

impl Open {
    fn of(look: &Look) -> Self {
        let (buckets, open) = (look.count(), look.open());
        let only = (open.len() < buckets).then(|| bits(&open, buckets));
        Self { buckets, is_none: open.is_empty(), only }
    }
}

/// Some pages of a part of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    pub unit: usize,
    pub part: &'a str,
    pub from: u64,
    pub to: u64,
}

/// The sums of all buckets, of which those that are not open are nothing.
async fn sums(
    place: &mut Place,
    units: &[(&Unit, &Open)],
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Vec<Sum>>, Error> {
    let mut sums: Vec<Vec<Sum>> = units.iter().map(|(_, open)| vec![Sum::default(); open.buckets]).collect();
    let asked = units.iter().enumerate().filter(|(_, (_, open))| !open.is_none);
    let parts: Vec<(usize, &str)> =
        asked.flat_map(|(at, (unit, _))| unit.parts.iter().map(move |part| (at, part.as_str()))).collect();
    let pages = pages(place, parts.iter().map(|(_, part)| *part)).await?;
    for pieces in packed(&parts, &pages) {
        let first = &units[pieces[0].unit].0.name;
        tell(first);
        let question = |piece: &Piece<'_>| {
            let (unit, open) = units[piece.unit];
            unit.sums(piece, open.buckets, open.only.as_deref())
        };
        let sql: Vec<String> = pieces.iter().map(question).collect();
        let answers = place.run(&format!("comparing {first}"), &sql.join(" union all ")).await?;
        for row in answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default() {
            let number = |column: usize| row.text(column).and_then(|number| number.parse::<i128>().ok());
            let at = |column: usize| number(column).and_then(|at| usize::try_from(at).ok());
            let sum = at(0).zip(at(1)).and_then(|(unit, bucket)| sums.get_mut(unit)?.get_mut(bucket));
            if let Some(sum) = sum {
                let rows = number(2).and_then(|rows| u64::try_from(rows).ok()).unwrap_or_default();
                *sum = sum.with(Sum { rows, hash: number(3).unwrap_or_default() });
            }
        }
    }
    Ok(sums)
}

/// The pages of all parts, a statement's worth at a time.
fn packed<'a>(parts: &[(usize, &'a str)], pages: &[u64]) -> Vec<Vec<Piece<'a>>> {
    let mut packs: Vec<Vec<Piece<'a>>> = Vec::new();
    let mut room = 0;
    for (&(unit, part), &pages) in parts.iter().zip(pages) {
        let mut from = 0;
        while from < pages {
            if room == 0 || packs.last().is_none_or(|pack| pack.len() == PIECES) {
                packs.push(Vec::new());
                room = PAGES;
            }
            let to = pages.min(from + room);
            room -= to - from;
            packs.last_mut().expect("one was pushed").push(Piece { unit, part, from, to });
            from = to;
        }
    }
    packs
}

/// How long the files of these tables are.
pub async fn pages(place: &mut Place, parts: impl IntoIterator<Item = &str>) -> Result<Vec<u64>, Error> {
    let sql = format!(
        "select pg_relation_size(part::regclass) / current_setting('block_size')::int \
         from unnest({}) with ordinality list (part, place) order by place",
        literals(parts)
    );
    let answers = place.run("measuring tables", &sql).await?;
    let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().map(|row| row.text(0).and_then(|pages| pages.parse().ok()).unwrap_or_default()).collect())
}

/// Where the sequences of a database are: name, last value, and whether it was given out.
pub async fn sequences(place: &mut Place) -> Result<Vec<(String, String, bool)>, Error> {
    let what = "reading sequences";
    let list = "select string_agg(format('select %L as name, last_value::text, is_called from %I.%I', format('%I.%I', n.nspname, c.relname), \
          n.nspname, c.relname), ' union all ' order by n.nspname, c.relname) || ' order by name' \
        from pg_class c join pg_namespace n on n.oid = c.relnamespace \
        where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'ntier_move') \
          and (n.nspname, c.relname) <> ('ntier', 'changes_id_seq')";
    let Some(sql) = place.ask(what, list).await? else { return Ok(Vec::new()) };
    let answers = place.run(what, &sql).await?;
    let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
    let row = |row: &ntier_backing::database::Row| {
        Some((row.text(0)?.to_owned(), row.text(1)?.to_owned(), row.text(2)? == "t"))
    };
    Ok(rows.iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_so_many_pages_and_pieces() {
        let shape = |pages: &[u64]| -> Vec<Vec<(usize, u64, u64)>> {
            let parts: Vec<(usize, &str)> = (0..pages.len()).map(|at| (at, "t")).collect();
            let piece = |piece: &Piece<'_>| (piece.unit, piece.from, piece.to);
            packed(&parts, pages).iter().map(|pack| pack.iter().map(piece).collect()).collect()
        };
        assert_eq!(shape(&[0, 0]), Vec::<Vec<_>>::new());
        assert_eq!(shape(&[1, 0, 2]), [vec![(0, 0, 1), (2, 0, 2)]]);
        assert_eq!(
            shape(&[500, 1100]),
            [vec![(0, 0, 500), (1, 0, 12)], vec![(1, 12, 524)], vec![(1, 524, 1036)], vec![(1, 1036, 1100)]]
        );
        assert_eq!(shape(&[1; 65]).iter().map(Vec::len).collect::<Vec<_>>(), [64, 1]);
    }
}
