//! Whether both ends have the same: rows counted and summed by hashes that PostgreSQL computes alike at both ends, in pieces, in any order.

use super::place::{Place, literals};
use super::tables::Unit;
use super::{Error, Event, Observe};

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

/// Compares all tables; both ends compute at the same time.
pub async fn tables(
    source: &mut Place,
    target: &mut Place,
    units: &[Unit],
    theirs: &[Unit],
    observe: Observe<'_>,
) -> Result<Vec<Compared>, Error> {
    let mut there = Vec::with_capacity(units.len());
    for unit in units {
        // What it is made of there may have other names; what is compared has the names of here.
        let other = theirs.iter().find(|other| other.name == unit.name);
        let other = other.ok_or_else(|| Error::Target(format!("the table {} is not there", unit.name)))?;
        there.push(Unit { parts: other.parts.clone(), ..unit.clone() });
    }
    let (source, target) = tokio::join!(sums(source, units, observe), sums(target, &there, &|_| {}));
    let pairs = source?.into_iter().zip(target?);
    let named = units.iter().zip(pairs);
    Ok(named.map(|(unit, (source, target))| Compared { name: unit.name.clone(), source, target }).collect())
}

/// Some pages of a part of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece<'a> {
    unit: usize,
    part: &'a str,
    from: u64,
    to: u64,
}

async fn sums(place: &mut Place, units: &[Unit], observe: Observe<'_>) -> Result<Vec<Sum>, Error> {
    let parts: Vec<(usize, &str)> = units
        .iter()
        .enumerate()
        .flat_map(|(at, unit)| unit.parts.iter().map(move |part| (at, part.as_str())))
        .collect();
    let pages = pages(place, parts.iter().map(|(_, part)| *part)).await?;
    let mut sums = vec![Sum::default(); units.len()];
    for pieces in packed(&parts, &pages) {
        let first = &units[pieces[0].unit].name;
        observe(Event::Comparing { table: first });
        let question = |piece: &Piece<'_>| units[piece.unit].sum(piece.unit, piece.part, piece.from, piece.to);
        let sql: Vec<String> = pieces.iter().map(question).collect();
        let answers = place.run(&format!("comparing {first}"), &sql.join(" union all ")).await?;
        for row in answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default() {
            let Some(sum) = row.text(0).and_then(|at| sums.get_mut(at.parse::<usize>().ok()?)) else { continue };
            sum.rows += row.text(1).and_then(|rows| rows.parse::<u64>().ok()).unwrap_or_default();
            sum.hash += row.text(2).and_then(|hash| hash.parse::<i128>().ok()).unwrap_or_default();
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
