//! A table whose rows are found by id: the listeners, routes, pools and backends of a plan.
//!
//! A row is a seat. Its id stays the same while other rows come and go, so a table may have holes:
//! `len` counts the rows, `span` is the length of a list with an entry for every id. There is no
//! `Index`: an id of another plan finds nothing and never panics.

use std::{fmt, iter::FusedIterator, marker::PhantomData, slice};

use super::ids::Id;

/// Rows by id.
#[derive(Clone, PartialEq, Eq)]
pub struct Table<I, T> {
    /// By the index of the id. The last is never a hole, so equal tables have equal lists.
    rows: Vec<Option<T>>,
    used: usize,
    ids: PhantomData<I>,
}

impl<I: Id, T> Table<I, T> {
    /// A table without rows.
    #[must_use]
    pub const fn new() -> Table<I, T> {
        Table { rows: Vec::new(), used: 0, ids: PhantomData }
    }

    /// The row of an id, if there is one.
    #[inline]
    #[must_use]
    pub fn get(&self, id: I) -> Option<&T> {
        self.rows.get(id.index())?.as_ref()
    }

    /// Like `get`, mutable.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.rows.get_mut(id.index())?.as_mut()
    }

    /// Puts a row at an id; returns the row that was there before, if any.
    pub fn insert(&mut self, id: I, row: T) -> Option<T> {
        let index = id.index();
        if index >= self.rows.len() {
            self.rows.resize_with(index + 1, || None);
        }
        let former = self.rows.get_mut(index).and_then(|place| place.replace(row));
        self.used += usize::from(former.is_none());
        former
    }

    /// Takes a row out and leaves a hole.
    pub fn remove(&mut self, id: I) -> Option<T> {
        let row = self.rows.get_mut(id.index())?.take()?;
        self.used -= 1;
        while let Some(None) = self.rows.last() {
            self.rows.pop();
        }
        Some(row)
    }

    /// The rows with their ids, lowest first.
    pub fn iter(&self) -> Iter<'_, I, T> {
        Iter { rows: self.rows.iter().enumerate(), left: self.used, ids: PhantomData }
    }

    /// Like `iter`, mutable.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (I, &mut T)> {
        let rows = self.rows.iter_mut().enumerate();
        rows.filter_map(|(index, row)| Some((I::at(index)?, row.as_mut()?)))
    }

    /// The rows by value with their ids.
    pub fn into_rows(self) -> impl Iterator<Item = (I, T)> {
        let rows = self.rows.into_iter().enumerate();
        rows.filter_map(|(index, row)| Some((I::at(index)?, row?)))
    }

    /// Moves each row to the seat that `seats` has for its id; drops rows that have none.
    #[must_use]
    pub fn moved(self, seats: &Table<I, I>) -> Table<I, T> {
        self.into_rows().filter_map(|(id, row)| Some((*seats.get(id)?, row))).collect()
    }

    /// The ids of the rows, lowest first.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = I> + FusedIterator {
        self.iter().map(|(id, _)| id)
    }

    /// The rows without their ids, in the same order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &T> + FusedIterator + Clone {
        self.iter().map(|(_, row)| row)
    }

    /// Like `values`, mutable.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.rows.iter_mut().flatten()
    }

    /// Every seat up to the last row, including holes: a list of `span` entries.
    pub fn seats(&self) -> impl ExactSizeIterator<Item = Option<&T>> + FusedIterator + Clone {
        self.rows.iter().map(Option::as_ref)
    }

    /// How many rows there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// One more than the index of the last row: the length of a list with an entry for every id.
    #[inline]
    #[must_use]
    pub fn span(&self) -> usize {
        self.rows.len()
    }
}

/// The rows of a table with their ids, lowest first.
pub struct Iter<'a, I, T> {
    rows: std::iter::Enumerate<slice::Iter<'a, Option<T>>>,
    left: usize,
    ids: PhantomData<I>,
}

impl<'a, I: Id, T> Iterator for Iter<'a, I, T> {
    type Item = (I, &'a T);

    fn next(&mut self) -> Option<(I, &'a T)> {
        let next = self.rows.find_map(|(index, row)| Some((I::at(index)?, row.as_ref()?)));
        self.left -= usize::from(next.is_some());
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Id, T> ExactSizeIterator for Iter<'_, I, T> {}
impl<I: Id, T> FusedIterator for Iter<'_, I, T> {}

impl<'a, I: Id, T> IntoIterator for &'a Table<I, T> {
    type Item = (I, &'a T);
    type IntoIter = Iter<'a, I, T>;

    fn into_iter(self) -> Iter<'a, I, T> {
        self.iter()
    }
}

// By hand: a derived one requires `T: Clone`.
impl<I, T> Clone for Iter<'_, I, T> {
    fn clone(&self) -> Self {
        Iter { rows: self.rows.clone(), left: self.left, ids: PhantomData }
    }
}

// By hand: a derived one requires `I: Default`.
impl<I: Id, T> Default for Table<I, T> {
    fn default() -> Table<I, T> {
        Table::new()
    }
}

impl<I: Id + fmt::Debug, T: fmt::Debug> fmt::Debug for Table<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// A dense table: the rows in order, from the first id on. Rows beyond the last id are dropped;
/// what is read from a file is counted before.
impl<I: Id, T> FromIterator<T> for Table<I, T> {
    fn from_iter<R: IntoIterator<Item = T>>(rows: R) -> Table<I, T> {
        let rows: Vec<_> = rows.into_iter().take(I::COUNT).map(Some).collect();
        Table { used: rows.len(), rows, ids: PhantomData }
    }
}

/// Like `from_iter` over rows.
impl<I: Id, T> From<Vec<T>> for Table<I, T> {
    fn from(rows: Vec<T>) -> Table<I, T> {
        rows.into_iter().collect()
    }
}

/// Rows at their ids; of two with the same id the last one stays.
impl<I: Id, T> FromIterator<(I, T)> for Table<I, T> {
    fn from_iter<R: IntoIterator<Item = (I, T)>>(rows: R) -> Table<I, T> {
        let mut table = Table::new();
        rows.into_iter().for_each(|(id, row)| drop(table.insert(id, row)));
        table
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::{ids::PoolId, rng::Rng};

    type Names = Table<PoolId, &'static str>;

    /// Checks the table after rows are inserted at these indexes, in this order.
    #[track_caller]
    fn check(rows: &[(u16, &'static str)], expected: &str, (len, span): (usize, usize)) {
        let table: Names = rows.iter().map(|(id, name)| (PoolId(*id), *name)).collect();
        let said: Vec<_> = table.iter().map(|(id, name)| format!("{}{name}", id.0)).collect();
        assert_eq!(said.join(" "), expected);
        assert_eq!((table.len(), table.span()), (len, span));
        assert_eq!(table.is_empty(), len == 0);
    }

    #[test]
    fn rows_come_in_the_order_of_their_ids_whatever_the_order_they_were_put_in() {
        check(&[], "", (0, 0));
        check(&[(0, "a")], "0a", (1, 1));
        check(&[(0, "a"), (1, "b"), (2, "c")], "0a 1b 2c", (3, 3));
        check(&[(5, "f"), (2, "c")], "2c 5f", (2, 6));
        check(&[(1, "b"), (1, "B")], "1B", (1, 2));
        check(&[(u16::MAX, "z")], "65535z", (1, 65_536));
    }

    #[test]
    fn a_dense_table_is_made_of_rows_alone() {
        let table = Names::from(vec!["a", "b", "c"]);
        assert_eq!((table.len(), table.span()), (3, 3));
        assert_eq!(table.ids().collect::<Vec<_>>(), [PoolId(0), PoolId(1), PoolId(2)]);
        assert_eq!(table.values().copied().collect::<Vec<_>>(), ["a", "b", "c"]);
        let full: Table<PoolId, u32> = (0..70_000).collect();
        assert_eq!((full.len(), full.span()), (65_536, 65_536));
        assert_eq!(full.get(PoolId(u16::MAX)), Some(&65_535));
    }

    #[test]
    fn an_id_without_a_row_finds_nothing() {
        let mut table: Names = [(PoolId(1), "b")].into_iter().collect();
        for id in [0, 2, u16::MAX].map(PoolId) {
            assert!(table.get(id).is_none() && table.get_mut(id).is_none());
            assert_eq!(table.remove(id), None);
        }
        assert_eq!((table.len(), table.span()), (1, 2));
    }

    #[test]
    fn a_row_that_is_taken_out_leaves_a_hole_but_none_at_the_end() {
        let mut table: Names = ["a", "b", "c", "d"].into_iter().collect();
        let dense = table.clone();
        assert_eq!(table.remove(PoolId(2)), Some("c"));
        assert_eq!((table.len(), table.span()), (3, 4));
        assert_eq!(table.seats().collect::<Vec<_>>(), [Some(&"a"), Some(&"b"), None, Some(&"d")]);
        assert_eq!(table.remove(PoolId(3)), Some("d"));
        assert_eq!((table.len(), table.span()), (2, 2), "the hole before it went with it");
        assert_eq!(table.insert(PoolId(1), "B"), Some("b"));
        assert_eq!(table.insert(PoolId(2), "c"), None);
        *table.get_mut(PoolId(1)).unwrap() = "b";
        assert_ne!(table, dense);
        assert_eq!(table.seats().collect::<Vec<_>>(), [Some(&"a"), Some(&"b"), Some(&"c")]);
        table.insert(PoolId(3), "d");
        assert_eq!(table, dense);
        assert_eq!(
            format!("{table:?}"),
            r#"{PoolId(0): "a", PoolId(1): "b", PoolId(2): "c", PoolId(3): "d"}"#
        );
    }

    #[test]
    fn all_rows_can_be_changed_and_taken() {
        let mut table: Table<PoolId, u32> = [(PoolId(1), 1), (PoolId(3), 3)].into_iter().collect();
        table.values_mut().for_each(|row| *row *= 10);
        table.iter_mut().for_each(|(id, row)| *row += u32::from(id.0));
        assert_eq!(table.into_rows().collect::<Vec<_>>(), [(PoolId(1), 11), (PoolId(3), 33)]);
    }

    #[test]
    fn rows_are_moved_to_their_seats() {
        let seats = Table::from(vec![PoolId(7), PoolId(0), PoolId(2)]);
        let moved = Names::from(vec!["a", "b", "c", "d"]).moved(&seats);
        assert_eq!(format!("{moved:?}"), r#"{PoolId(0): "b", PoolId(2): "c", PoolId(7): "a"}"#);
    }

    /// Random operations: the table does what a sorted map does, and its count of rows stays right.
    #[test]
    fn a_table_is_a_map_of_ids() {
        for seed in 0..256 {
            let mut rng = Rng::seeded(seed);
            let (mut table, mut map) = (Table::new(), BTreeMap::new());
            for step in 0..200 {
                let id = PoolId(rng.below(12) as u16);
                if rng.below(2) == 0 {
                    assert_eq!(table.insert(id, step), map.insert(id, step));
                } else {
                    assert_eq!(table.remove(id), map.remove(&id));
                }
                let rows = table.iter();
                assert_eq!(rows.len(), map.len(), "seed {seed}");
                assert!(rows.eq(map.iter().map(|(id, row)| (*id, row))), "seed {seed}");
                let span = map.last_key_value().map_or(0, |(id, _)| id.index() + 1);
                assert_eq!((table.len(), table.span()), (map.len(), span), "seed {seed}");
            }
        }
    }
}
