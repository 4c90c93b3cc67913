//! A histogram of durations, from microseconds to two minutes, in 512 bytes.
//!
//! Log-linear: a decade has 17 cells, each a round step wide. So the bounds that people alert on
//! (1, 2, 2.5, 5 ms, ...) are bounds of cells, and counts below them are exact. From 10 us to 120 s
//! the value read back differs from the recorded one by at most `ERROR_MAX` of it, below 10 us by
//! at most 1 us. Times from 120 s on are only counted. DECISIONS 73 says why this size.
//!
//! `cell` says where a time is counted, so a single writer may keep the counts in cells of its own
//! (`shared/durations.rs`): 126 words of 32 bits, which wrap. A `Reading` is their values, modulo
//! 2^32. A `Histogram` grows by the difference of two readings.

use std::time::Duration;

use super::moment::Micros;

/// The cells of a histogram.
pub(crate) const CELLS: usize = 126;

/// The most by which a quantile from 10 us to 120 s may differ from the recorded time, as a share
/// of that time.
#[cfg(test)]
const ERROR_MAX: f64 = 1.0 / 11.0;

/// Where the cells of a decade begin, in tenths of its first value.
const STEPS: [u8; 17] = [10, 12, 14, 16, 18, 20, 22, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90];

/// The cells below 10 us: each is 2 us wide.
const SHORT: usize = 5;

/// The last cell has no upper bound.
const LAST: usize = CELLS - 1;

/// The cell of a decade that the first two digits of a time belong to.
const CELL_OF_DIGITS: [u8; 100] = cells_of_digits();

const fn cells_of_digits() -> [u8; 100] {
    let mut cells = [0; 100];
    let (mut digits, mut cell) = (10, 0_u8);
    while digits < 100 {
        if (cell as usize) + 1 < STEPS.len() && STEPS[cell as usize + 1] as usize == digits {
            cell += 1;
        }
        cells[digits] = cell;
        digits += 1;
    }
    cells
}

/// The cell in which a time is counted, below `CELLS`.
fn cell(time: Duration) -> usize {
    cell_of(Micros(micros(time)))
}

/// The same of a time in microseconds.
#[inline]
pub(crate) fn cell_of(time: Micros) -> usize {
    let micros = u32::try_from(time.0).unwrap_or(u32::MAX);
    if micros < 10 {
        return micros as usize / 2;
    }
    let decade = micros.ilog10() - 1;
    let digits = (micros / 10_u32.pow(decade)) as usize;
    let of_decade = CELL_OF_DIGITS.get(digits).copied().unwrap_or_default();
    (SHORT + decade as usize * STEPS.len() + usize::from(of_decade)).min(LAST)
}

/// The shortest time of a cell, in microseconds: the upper bound of the cell before it.
const fn begin(cell: usize) -> u64 {
    if cell < SHORT {
        return cell as u64 * 2;
    }
    let place = cell - SHORT;
    STEPS[place % STEPS.len()] as u64 * 10_u64.pow((place / STEPS.len()) as u32)
}

/// The value that represents all times of a cell: its relative error is the same at both ends.
fn representative(cell: usize) -> Duration {
    let (from, to) = (begin(cell), begin(cell + 1));
    let micros = match cell {
        LAST => from as f64,
        0..SHORT => from as f64 + 1.0,
        _ => 2.0 * from as f64 * to as f64 / (from + to) as f64,
    };
    Duration::from_secs_f64(micros / 1e6)
}

/// The cells of one writer, or of several added up: counts modulo 2^32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) cells: [u32; CELLS],
    /// The sum of all times, in microseconds.
    pub(crate) micros: u64,
}

impl Default for Reading {
    fn default() -> Reading {
        Reading { cells: [0; CELLS], micros: 0 }
    }
}

impl Reading {
    /// Adds the cells of another writer. The sum wraps as each of them does, so the difference of
    /// two sums is what all of them recorded in between.
    pub(crate) fn merge(&mut self, other: &Reading) {
        for (cell, more) in self.cells.iter_mut().zip(&other.cells) {
            *cell = cell.wrapping_add(*more);
        }
        self.micros = self.micros.wrapping_add(other.micros);
    }
}

/// How many times of each length were recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    cells: [u64; CELLS],
    micros: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { cells: [0; CELLS], micros: 0 }
    }
}

impl Histogram {
    /// Counts a time.
    #[cfg(test)]
    fn record(&mut self, time: Duration) {
        if let Some(count) = self.cells.get_mut(cell(time)) {
            *count += 1;
        }
        self.micros = self.micros.wrapping_add(micros(time));
    }

    /// Adds what was recorded between two readings of the same cells. Exact as long as no cell
    /// counts 2^32 times between them, which takes over an hour at a million a second.
    pub(crate) fn add(&mut self, before: &Reading, now: &Reading) {
        let counts = now.cells.iter().zip(&before.cells);
        for (count, (now, before)) in self.cells.iter_mut().zip(counts) {
            *count += u64::from(now.wrapping_sub(*before));
        }
        self.micros = self.micros.wrapping_add(now.micros.wrapping_sub(before.micros));
    }

    /// What was recorded after `before`, an earlier state of this histogram.
    #[must_use]
    pub(crate) fn since(&self, before: &Histogram) -> Histogram {
        let mut since = self.clone();
        for (count, before) in since.cells.iter_mut().zip(&before.cells) {
            *count = count.saturating_sub(*before);
        }
        since.micros = since.micros.wrapping_sub(before.micros);
        since
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.cells.iter_mut().zip(&other.cells) {
            *count += more;
        }
        self.micros = self.micros.wrapping_add(other.micros);
    }

    /// How many times were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// The sum of all times, exact.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// How many times were shorter than this. Exact if it is a bound of a cell, otherwise the count
    /// of the cells below the one that holds it.
    #[must_use]
    pub fn below(&self, time: Duration) -> u64 {
        self.cells.iter().take(cell(time)).sum()
    }

    /// The time that this share of all times does not exceed (nearest rank); none if nothing was
    /// recorded. A quantile of 120 s or more is given as 120 s.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((share * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut up_to = 0;
        let cell = self.cells.iter().position(|count| {
            up_to += count;
            up_to >= rank
        })?;
        Some(representative(cell))
    }
}

/// Whole microseconds.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// The resolution of a `Duration`, in microseconds.
    const NANO: f64 = 0.001;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn histogram(times: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        times.iter().for_each(|time| histogram.record(us(*time)));
        histogram
    }

    #[test]
    fn each_cell_begins_where_the_one_before_it_ends() {
        for place in 0..CELLS {
            assert_eq!(cell(us(begin(place))), place);
            assert_eq!(cell(us(begin(place + 1) - 1)), place, "the last of its times");
        }
        assert_eq!((begin(0), begin(SHORT), begin(LAST)), (0, 10, 120_000_000));
        for long in [us(120_000_000), us(u64::MAX), Duration::MAX] {
            assert_eq!(cell(long), LAST);
        }
        assert_eq!(cell(Duration::from_nanos(1_999)), 0);
    }

    #[test]
    fn counts_below_the_bounds_that_people_use_are_exact() {
        let bounds: Vec<u64> = (0..=CELLS).map(begin).collect();
        for decade in (1..=7).map(|power| 10_u64.pow(power)) {
            for tenths in [10, 20, 25, 30, 40, 50, 60, 70, 80, 90] {
                let bound = decade * tenths / 10;
                assert!(bounds.contains(&bound), "{bound} us");
                if bound <= begin(LAST) {
                    let histogram = histogram(&[bound - 1, bound, bound + 1]);
                    assert_eq!(histogram.below(us(bound)), 1, "{bound} us");
                }
            }
        }
    }

    /// The error of every length that a cell can hold, at both ends of the cell.
    #[test]
    fn what_is_read_back_is_within_the_bound() {
        for place in SHORT..LAST {
            let read = representative(place).as_secs_f64() * 1e6;
            for time in [begin(place), begin(place + 1) - 1].map(|time| time as f64) {
                let error = (read - time).abs();
                assert!(error <= ERROR_MAX * time + NANO, "{time} us is read as {read}: {error}");
            }
        }
        for short in 0..10 {
            let read = representative(cell(us(short))).as_secs_f64() * 1e6;
            assert!((read - short as f64).abs() <= 1.0, "{short} us is read as {read}");
        }
        assert_eq!(representative(LAST), Duration::from_secs(120));
    }

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        #[rustfmt::skip]
        let rows: [(&[u64], f64, Option<u64>); 9] = [
            (&[], 0.5, None),
            (&[1_000], 0.0, Some(1_000)),
            (&[1_000], 1.0, Some(1_000)),
            (&[100, 1_000, 10_000], 0.5, Some(1_000)),
            (&[100, 1_000, 10_000, 100_000], 0.5, Some(1_000)),
            (&[100, 1_000, 10_000, 100_000], 0.51, Some(10_000)),
            (&[100, 1_000, 10_000, 100_000], 0.99, Some(100_000)),
            (&[100, 100, 100, 100, 2_000_000], 0.8, Some(100)),
            (&[100, 100, 100, 100, 2_000_000], 7.0, Some(2_000_000)),
        ];
        for (times, share, expected) in rows {
            let quantile = histogram(times).quantile(share);
            assert_eq!(quantile, expected.map(|time| representative(cell(us(time)))), "{times:?}");
        }
        assert_eq!(histogram(&[300_000_000]).quantile(0.5), Some(Duration::from_secs(120)));
        assert!(histogram(&[5]).quantile(f64::NAN).is_some());
    }

    #[test]
    fn the_sum_is_exact() {
        let histogram = histogram(&[3, 1_234_567, 200_000_000]);
        assert_eq!(histogram.sum(), us(3 + 1_234_567 + 200_000_000));
        assert_eq!(histogram.count(), 3);
    }

    /// Counts of all cores wrap, some further than others; the difference of two readings is still
    /// right.
    #[test]
    fn counts_that_wrap_between_two_readings_are_right() {
        let at = cell(us(777));
        let mut before = Reading::default();
        before.cells[at] = u32::MAX - 1;
        before.micros = u64::MAX - 3;
        let mut now = before.clone();
        now.cells[at] = now.cells[at].wrapping_add(5);
        now.micros = now.micros.wrapping_add(5 * 777);
        let mut histogram = Histogram::default();
        histogram.add(&before, &now);
        assert_eq!((histogram.count(), histogram.sum()), (5, us(5 * 777)));
        let mut other = Reading::default();
        other.cells[at] = u32::MAX;
        before.merge(&other);
        now.merge(&other);
        histogram.add(&before, &now);
        assert_eq!((histogram.count(), histogram.sum()), (10, us(10 * 777)));
    }

    /// Random times: all quantiles are within the bound of the true ones, however the times are
    /// spread over writers, merged and read in between.
    #[test]
    fn quantiles_of_any_times_are_within_the_bound() {
        for seed in 0..256 {
            let mut rng = Rng::seeded(seed);
            let writers = 1 + rng.below(4) as usize;
            let mut cells = vec![Reading::default(); writers];
            let first = u32::MAX - rng.below(40);
            cells.iter_mut().for_each(|reading| reading.cells = [first; CELLS]);
            let read = |cells: &[Reading]| {
                let mut all = Reading::default();
                cells.iter().for_each(|reading| all.merge(reading));
                all
            };
            let (mut times, mut whole, mut before) = (vec![], Histogram::default(), read(&cells));
            for _ in 0..1 + rng.below(400) {
                // As many of each length as of ten times that length: 10 us to 100 s.
                let time = 10_f64.powf(1.0 + f64::from(rng.below(7_000)) / 1_000.0) as u64;
                let writer = &mut cells[rng.below(writers as u32) as usize];
                writer.cells[cell(us(time))] = writer.cells[cell(us(time))].wrapping_add(1);
                writer.micros += time;
                times.push(time);
                if rng.below(50) == 0 {
                    let now = read(&cells);
                    whole.add(&before, &now);
                    before = now;
                }
            }
            let mut last = Histogram::default();
            last.add(&before, &read(&cells));
            whole.merge(&last);
            assert_eq!(whole, histogram(&times), "seed {seed}");
            times.sort_unstable();
            for percent in 1..=100 {
                let share = f64::from(percent) / 100.0;
                let rank = (share * times.len() as f64).ceil() as usize;
                let (is, said) = (times[rank.max(1) - 1], whole.quantile(share).unwrap());
                let error = (said.as_secs_f64() * 1e6 - is as f64).abs();
                let most = ERROR_MAX * is as f64 + NANO;
                assert!(error <= most, "seed {seed}: {is} us is said to be {said:?}");
            }
        }
    }
}
