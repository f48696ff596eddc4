//! What is known of the tables at both ends: a sum for each bucket of their rows, and which buckets are open: to be looked at, or again.
//!
//! A row is in the bucket that the hash of its key says, the same at both ends. So most of both ends is compared while the source is
//! written to: whatever is noted from then on opens its bucket again, and so does a difference. When nobody writes any more, only the
//! buckets that are open are read. Nothing of this is kept: who was killed looks at everything once more.

use super::Error;
use super::compare::{Compared, Sum};
use super::place::Place;
use super::tables::{Key, Unit};

/// A bucket for so many pages: where one row has changed, its bucket is read again.
const BUCKET_PAGES: u64 = 8;
/// For so many there is room in memory, and in the answers.
const MOST_BUCKETS: u64 = 1 << 16;

/// What is known of all tables, in their order.
#[derive(Debug, Default)]
pub struct Looks(pub Vec<Look>);

/// A table as it is now at both ends, of which something may be known.
#[derive(Debug)]
pub struct Table {
    pub here: Unit,
    /// The same, but for the tables that it is made of.
    pub there: Unit,
    /// That its changes are noted for certain, and of which making it is (`follow::marks`).
    pub mark: Option<String>,
    /// How long it is at the source.
    pub pages: u64,
}

/// What is known of a table.
#[derive(Debug)]
pub struct Look {
    pub here: Unit,
    pub there: Unit,
    mark: Option<String>,
    buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    source: Sum,
    target: Sum,
    /// Not known, or not any more, or not equal.
    is_open: bool,
}

const UNKNOWN: Bucket = Bucket { source: Sum { rows: 0, hash: 0 }, target: Sum { rows: 0, hash: 0 }, is_open: true };

impl Looks {
    /// Goes on with these tables. What is known of one stays so if it is made as it was, and if its changes were noted all the time.
    pub fn renew(&mut self, tables: Vec<Table>) {
        let mut known = std::mem::take(&mut self.0);
        self.0 =
            tables.into_iter().map(|table| taken(&mut known, &table).unwrap_or_else(|| Look::new(table))).collect();
    }

    /// Opens the buckets of these keys, which were noted.
    pub async fn noted(&mut self, target: &mut Place, unit: &Unit, keys: &[Key]) -> Result<(), Error> {
        let Some(look) = self.0.iter_mut().find(|look| look.here.name == unit.name) else { return Ok(()) };
        if look.buckets.len() == 1 || look.here.key != unit.key {
            look.open_all();
            return Ok(());
        }
        let sql = unit.buckets_of(keys, look.buckets.len());
        let answers = target.run(&format!("looking for what has changed in {}", unit.name), &sql).await?;
        for row in answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default() {
            match row.text(0).and_then(|bucket| look.buckets.get_mut(bucket.parse::<usize>().ok()?)) {
                Some(bucket) => bucket.is_open = true,
                None => look.open_all(),
            }
        }
        Ok(())
    }

    /// Nothing is known of a table any more.
    pub fn forget(&mut self, name: &str) {
        self.0.retain(|look| look.here.name != name);
    }

    /// Whether nothing is open.
    pub fn are_closed(&self) -> bool {
        self.0.iter().all(|look| look.open().is_empty())
    }

    pub fn compared(&self) -> Vec<Compared> {
        self.0.iter().map(Look::compared).collect()
    }
}

/// What is known of this table, if that is still good.
fn taken(known: &mut Vec<Look>, table: &Table) -> Option<Look> {
    let is_it = |look: &Look| {
        table.mark.is_some() && (&look.here, &look.there, &look.mark) == (&table.here, &table.there, &table.mark)
    };
    known.iter().position(is_it).map(|at| known.swap_remove(at))
}

impl Look {
    fn new(table: Table) -> Self {
        let Table { here, there, mark, pages } = table;
        // Of a table whose changes are not noted nothing is kept.
        let count = if mark.is_some() { count(pages) } else { 1 };
        Self { here, there, mark, buckets: vec![UNKNOWN; count] }
    }

    /// How many buckets there are: a power of two.
    pub fn count(&self) -> usize {
        self.buckets.len()
    }

    /// The buckets that are open. Where that is most of them, all are: then they need not be told apart first.
    pub fn open(&self) -> Vec<usize> {
        let all = 0..self.buckets.len();
        let open: Vec<usize> = all.clone().filter(|&at| self.buckets[at].is_open).collect();
        if open.len() * 2 > all.len() { all.collect() } else { open }
    }

    /// Notes what the buckets come to that were open. Those that differ stay so.
    pub fn settle(&mut self, source: &[Sum], target: &[Sum]) {
        for at in self.open() {
            let (source, target) = (source[at], target[at]);
            self.buckets[at] = Bucket { source, target, is_open: source != target };
        }
    }

    fn open_all(&mut self) {
        self.buckets.iter_mut().for_each(|bucket| bucket.is_open = true);
    }

    fn compared(&self) -> Compared {
        let total = |of: fn(&Bucket) -> Sum| self.buckets.iter().map(of).fold(Sum::default(), Sum::with);
        Compared {
            name: self.here.name.clone(),
            source: total(|bucket| bucket.source),
            target: total(|bucket| bucket.target),
        }
    }
}

/// How many buckets a table of so many pages has.
fn count(pages: u64) -> usize {
    usize::try_from((pages / BUCKET_PAGES).next_power_of_two().min(MOST_BUCKETS)).unwrap_or(1)
}

/// A set of buckets as PostgreSQL's `get_bit` reads it, in hexadecimal digits.
pub fn bits(buckets: &[usize], count: usize) -> String {
    let mut bytes = vec![0_u8; count.div_ceil(8)];
    for at in buckets {
        bytes[at / 8] |= 1 << (at % 8);
    }
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(mark: Option<&str>, pages: u64) -> Table {
        let unit = Unit {
            name: "public.t".into(),
            parts: vec!["public.t".into()],
            columns: vec!["id".into()],
            compared: vec!["id".into()],
            key: vec![("id".into(), "integer".into())],
            is_partitioned: false,
        };
        Table { here: unit.clone(), there: unit, mark: mark.map(str::to_owned), pages }
    }

    fn sums(hashes: &[i128]) -> Vec<Sum> {
        hashes.iter().map(|&hash| Sum { rows: 1, hash }).collect()
    }

    /// Of eight buckets the third differs.
    fn looked() -> Looks {
        let mut looks = Looks::default();
        looks.renew(vec![table(Some("made"), 64)]);
        looks.0[0].settle(&sums(&[1, 2, 3, 4, 5, 6, 7, 8]), &sums(&[1, 2, 0, 4, 5, 6, 7, 8]));
        looks
    }

    #[test]
    fn a_bucket_has_a_few_pages() {
        for (pages, expected) in [(0, 1), (15, 1), (16, 2), (17, 2), (24, 4), (6250, 1024), (u64::MAX / 4, 1 << 16)] {
            assert_eq!(count(pages), expected, "{pages}");
        }
    }

    #[test]
    fn what_differs_or_has_changed_is_looked_at_again() {
        let mut looks = looked();
        assert_eq!(looks.0[0].open(), [2]);
        looks.0[0].buckets[5].is_open = true;
        assert_eq!(looks.0[0].open(), [2, 5]);
        // Only these are read again: whatever is said of others does not count.
        looks.0[0].settle(&sums(&[0, 0, 3, 0, 0, 60, 0, 0]), &sums(&[9, 9, 3, 9, 9, 60, 9, 9]));
        assert!(looks.are_closed());
        let sum = Sum { rows: 8, hash: 90 };
        assert_eq!(looks.compared(), [Compared { name: "public.t".into(), source: sum, target: sum }]);
    }

    #[test]
    fn what_differs_until_the_end_is_told() {
        let mut looks = looked();
        looks.0[0].settle(&sums(&[0, 0, 3, 0, 0, 0, 0, 0]), &sums(&[0; 8]));
        let compared = &looks.compared()[0];
        assert_eq!((compared.source.hash, compared.target.hash, compared.is_equal()), (36, 33, false));
    }

    #[test]
    fn most_are_all() {
        let mut looks = looked();
        looks.0[0].buckets[..4].iter_mut().for_each(|bucket| bucket.is_open = true);
        assert_eq!(looks.0[0].open(), [0, 1, 2, 3]);
        looks.0[0].buckets[4].is_open = true;
        assert_eq!(looks.0[0].open(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn what_is_known_is_good_as_long_as_changes_are_noted() {
        let open_after = |table: Table| {
            let mut looks = looked();
            looks.renew(vec![table]);
            looks.0[0].open().len()
        };
        assert_eq!(open_after(table(Some("made"), 99)), 1, "as it was, but longer");
        assert_eq!(open_after(table(Some("made anew"), 64)), 8);
        assert_eq!(open_after(table(None, 64)), 1, "all of it, in one bucket");
        let mut other = table(Some("made"), 64);
        other.here.compared.push("more".into());
        assert_eq!(open_after(other), 8);
        let mut looks = looked();
        looks.renew(Vec::new());
        assert_eq!(looks.compared(), []);
        let mut looks = looked();
        looks.forget("public.t");
        looks.renew(vec![table(Some("made"), 64)]);
        assert_eq!(looks.0[0].open().len(), 8);
        let mut looks = Looks::default();
        looks.renew(vec![table(None, 64)]);
        looks.0[0].settle(&sums(&[1]), &sums(&[1]));
        looks.renew(vec![table(None, 64)]);
        assert_eq!(looks.0[0].open(), [0], "of what is not noted nothing is kept");
    }

    #[test]
    fn a_set_is_written_as_bits() {
        assert_eq!(bits(&[0, 9, 15], 16), "0182");
        assert_eq!(bits(&[1], 2), "02");
    }
}
