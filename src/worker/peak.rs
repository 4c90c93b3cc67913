//! Peak detection: whether a peak of requests is over, so that memory that only it needed can be
//! freed.

use std::cell::Cell;

/// Quiet rounds of the sweep after which a peak is over: a second.
const QUIET_ROUNDS: u32 = 4;

/// The busiest round since memory was last freed, and the quiet ones since.
#[derive(Default)]
pub(super) struct Peak {
    /// All requests as of the last round.
    seen: Cell<u64>,
    /// The most requests that came in one round.
    most: Cell<u64>,
    quiet_rounds: Cell<u32>,
}

impl Peak {
    /// Records all `requests` so far, once per round; true once for each peak, when for a second
    /// less than a tenth of its requests came.
    pub(super) fn is_over(&self, requests: u64) -> bool {
        let came = requests - self.seen.replace(requests);
        self.most.set(self.most.get().max(came));
        if came > self.most.get() / 10 {
            self.quiet_rounds.set(0);
            return false;
        }
        self.quiet_rounds.set(self.quiet_rounds.get() + 1);
        let is_over = self.quiet_rounds.get() == QUIET_ROUNDS;
        if is_over {
            self.most.set(0);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests come in each round, and in which rounds (from 0) a peak is found over.
    #[track_caller]
    fn check(rounds: &[u64], expected: &[usize]) {
        let (peak, mut requests) = (Peak::default(), 0);
        let over: Vec<usize> = rounds
            .iter()
            .enumerate()
            .filter_map(|(place, came)| {
                requests += came;
                peak.is_over(requests).then_some(place)
            })
            .collect();
        assert_eq!(over, expected, "{rounds:?}");
    }

    #[test]
    fn a_peak_is_over_after_four_rounds_of_little() {
        check(&[100, 10, 0, 5, 10], &[4]);
        check(&[100, 100, 100, 100, 100, 100], &[]);
        check(&[100, 11, 11, 11, 11, 11], &[]);
    }

    #[test]
    fn a_busy_round_begins_anew() {
        check(&[100, 0, 0, 0, 50, 0, 0, 0, 0], &[8]);
    }

    #[test]
    fn it_is_over_once_until_the_next() {
        check(&[100, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[4]);
        check(&[100, 0, 0, 0, 0, 7, 0, 0, 0, 0], &[4, 9]);
    }
}
