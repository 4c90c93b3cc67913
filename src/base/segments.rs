//! An append-only list that never moves its rows, so other threads may read while it grows.
//!
//! It is made of segments of 1, 1, 2, 4, … 512 rows. Each is allocated once and kept: a short list
//! is small, and an index leads to its row in a few instructions. Whether a row can change is up to
//! its own type.

use std::sync::OnceLock;

/// The segments of a full list.
const SEGMENTS: usize = 11;

/// The rows of a full list.
pub(crate) const ROWS_MAX: usize = 1 << (SEGMENTS - 1);

/// An append-only list.
pub(crate) struct Segments<T>([OnceLock<Box<[T]>>; SEGMENTS]);

impl<T> Segments<T> {
    /// A list without rows.
    pub(crate) const fn new() -> Segments<T> {
        Segments([const { OnceLock::new() }; SEGMENTS])
    }

    /// Grows to at least `count` rows, but not beyond `ROWS_MAX`; `row` makes each new one.
    pub(crate) fn grow(&self, count: usize, row: impl Fn() -> T) {
        let Some(last) = count.min(ROWS_MAX).checked_sub(1) else { return };
        for (segment, rows) in self.0.iter().enumerate().take(place(last).0 + 1) {
            rows.get_or_init(|| (0..size(segment)).map(|_| row()).collect());
        }
    }

    /// The row at an index, if the list has grown that far.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let (segment, offset) = place(index);
        self.0.get(segment)?.get()?.get(offset)
    }

    /// All rows in order; there may be more than were asked for.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map_while(OnceLock::get).flatten()
    }
}

/// The segment of an index, and the offset in it.
#[inline]
fn place(index: usize) -> (usize, usize) {
    let segment = (usize::BITS - index.leading_zeros()) as usize;
    (segment, index - first(segment))
}

/// The index of a segment's first row.
#[inline]
fn first(segment: usize) -> usize {
    // The shift is below the width of the type, as an index has no more bits.
    (1_usize.wrapping_shl(segment as u32)) >> 1
}

/// How many rows a segment has.
fn size(segment: usize) -> usize {
    first(segment).max(1)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn rows_stay_where_they_are_while_the_list_grows() {
        let (list, made) = (Segments::new(), Cell::new(0));
        let row = || made.replace(made.get() + 1);
        let mut seen: Vec<*const i32> = Vec::new();
        let mut most = 0;
        for count in (0..=ROWS_MAX).step_by(3).chain([ROWS_MAX, ROWS_MAX + 1, 5]) {
            list.grow(count, row);
            most = most.max(count);
            for (index, before) in seen.iter().enumerate() {
                assert!(std::ptr::eq(list.get(index).unwrap(), *before), "{index} has moved");
            }
            seen = list.iter().map(std::ptr::from_ref).collect();
            assert!(seen.len() >= count.min(ROWS_MAX) && seen.len() < 2 * most.max(1));
            assert!(list.get(seen.len()).is_none());
        }
        assert_eq!((seen.len(), made.get()), (ROWS_MAX, 1024));
        assert!(list.iter().copied().eq(0..1024));
        assert!((0..ROWS_MAX).all(|index| list.get(index) == Some(&(index as i32))));
        for beyond in [ROWS_MAX, usize::MAX / 2, usize::MAX] {
            assert!(list.get(beyond).is_none());
        }
    }

    #[test]
    fn a_list_without_rows_has_none() {
        let list = Segments::new();
        list.grow(0, || 1);
        assert!(list.get(0).is_none() && list.iter().next().is_none());
    }
}
