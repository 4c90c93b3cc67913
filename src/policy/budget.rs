//! The retry budget of a pool: retries in proportion to requests, so that a failing pool does not
//! get several times its traffic.
//!
//! Each request earns a share of a retry and each second some more. Credit expires over ten
//! seconds, so a pool never has more than the last ten seconds have earned. All of it is one
//! number, which the cores share (`shared/budget.rs`); pure.

use crate::base::moment::Tick;
use crate::plan::RetryBudget;

/// How many steps credit lasts.
const WINDOW_STEPS: u64 = 100;
/// The length of a step: how often requests are counted, however many retries there are.
const STEP_MS: u64 = 100;

/// The number: the step at which it was made, and the credit then, in thousandths of a retry.
#[derive(Clone, Copy)]
struct Left {
    step: u64,
    parts: u64,
}

const PARTS: u64 = 1_000;

impl Left {
    fn unpack(left: u64) -> Left {
        Left { step: left >> 32, parts: left & u64::from(u32::MAX) }
    }

    fn pack(self) -> u64 {
        self.step << 32 | self.parts.min(u64::from(u32::MAX))
    }
}

/// The credit at the start: as after ten quiet seconds.
pub(crate) fn full(budget: &RetryBudget) -> u64 {
    Left { step: 0, parts: earned(budget, 0, WINDOW_STEPS) }.pack()
}

/// Whether requests must be counted, as they have earned credit since.
pub(crate) fn is_due(left: u64, now: Tick) -> bool {
    now.millis() / STEP_MS > Left::unpack(left).step
}

/// The credit after a retry is requested, and whether the retry is allowed. `fresh` are requests
/// that have not been counted yet.
pub(crate) fn take(budget: &RetryBudget, left: u64, fresh: u64, now: Tick) -> (u64, bool) {
    let Left { step, parts } = Left::unpack(left);
    let steps = (now.millis() / STEP_MS).saturating_sub(step);
    let earned = earned(budget, fresh, steps);
    let has = if steps < WINDOW_STEPS {
        parts - parts * steps / WINDOW_STEPS + earned
    } else {
        earned * WINDOW_STEPS / steps
    };
    let is_granted = has >= PARTS;
    let parts = if is_granted { has - PARTS } else { has };
    (Left { step: step + steps, parts }.pack(), is_granted)
}

/// What so many requests and steps earn, in parts.
fn earned(budget: &RetryBudget, requests: u64, steps: u64) -> u64 {
    let by_requests = u128::from(requests) * u128::from(PARTS * u64::from(budget.ratio.0));
    let by_time = u128::from(steps) * u128::from(PARTS * u64::from(budget.per_second));
    let earned = by_requests / 1_000_000 + by_time * u128::from(STEP_MS) / 1000;
    u64::try_from(earned).unwrap_or(u64::MAX).min(u64::MAX / WINDOW_STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Share;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    /// Requests so many retries at a time, after so many requests since the last; returns how many
    /// are allowed.
    fn ask(budget: &RetryBudget, left: &mut u64, now: u64, requests: u64, times: u64) -> u64 {
        let granted = (0..times).filter(|nth| {
            let (after, is_granted) =
                take(budget, *left, if *nth == 0 { requests } else { 0 }, at(now));
            *left = after;
            is_granted
        });
        granted.count() as u64
    }

    /// For each time, requests since the last and retries wanted: how many are allowed.
    #[track_caller]
    fn check(percent: u32, per_second: u32, asked: &[(u64, u64, u64)], expected: &[u64]) {
        let budget = RetryBudget { ratio: Share::percent(percent), per_second };
        let mut left = full(&budget);
        let granted: Vec<u64> = asked
            .iter()
            .map(|(now, requests, times)| ask(&budget, &mut left, *now, *requests, *times))
            .collect();
        assert_eq!(granted, expected, "{percent} % and {per_second}/s, {asked:?}");
    }

    #[test]
    fn begins_as_after_ten_quiet_seconds() {
        check(20, 10, &[(0, 0, 200)], &[100]);
        check(20, 10, &[(500_000, 0, 200)], &[100]);
        check(20, 0, &[(0, 0, 5)], &[0]);
    }

    #[test]
    fn requests_earn_their_share_and_seconds_theirs() {
        check(20, 0, &[(0, 10, 5), (50, 4, 1), (60, 1, 1)], &[2, 0, 1]);
        check(0, 10, &[(0, 0, 100), (100, 0, 5), (1100, 0, 50)], &[100, 1, 10]);
        check(20, 10, &[(0, 0, 100), (1000, 100, 50)], &[100, 30]);
        check(0, 0, &[(0, 1_000_000, 3), (10_000, 1_000_000, 3)], &[0, 0]);
        check(100, 0, &[(0, u64::MAX, 3)], &[3]);
        check(100, u32::MAX, &[(u64::from(u32::MAX) * 50, u64::MAX, 3)], &[3]);
    }

    #[test]
    fn what_was_earned_is_gone_after_ten_seconds() {
        // 1,000 requests earn 200; half of that expires after 5 s, all after 10 s.
        let spend_one = (0, 1000, 1);
        check(20, 0, &[spend_one, (5_000, 0, 300)], &[1, 99]);
        check(20, 0, &[spend_one, (10_000, 0, 300)], &[1, 0]);
        // Of the credit of a minute only that of its last ten seconds is left.
        check(20, 0, &[(60_000, 6_000, 500)], &[200]);
    }

    #[test]
    fn in_the_long_run_there_are_as_many_as_was_earned() {
        // 100 requests a second for 100 s, a retry wanted for each: 20 % and 10 a second, and the
        // 100 of the start.
        let budget = RetryBudget { ratio: Share::percent(20), per_second: 10 };
        let mut left = full(&budget);
        let granted: u64 = (1..=1000).map(|step| ask(&budget, &mut left, step * 100, 10, 10)).sum();
        assert!((3_000..=3_100).contains(&granted), "{granted}");
    }

    #[test]
    fn requests_are_looked_up_once_in_a_tick() {
        let budget = RetryBudget::default();
        let left = full(&budget);
        assert!(!is_due(left, at(99)) && is_due(left, at(100)));
        let (left, _) = take(&budget, left, 0, at(199));
        assert!(!is_due(left, at(199)) && is_due(left, at(200)));
        // A clock that goes back changes nothing.
        let (after, _) = take(&budget, left, 0, at(50));
        assert!(after < left && !is_due(after, at(199)));
    }
}
