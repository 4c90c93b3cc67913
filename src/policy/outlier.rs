//! Outlier ejection: a backend that fails requests in a row is left out for a while.
//!
//! One `Outlier` per backend counts, and knows how long it stays out; whether it may be left out at
//! all depends on the others and is decided in `standing`. A row spans all cores: it ends when an
//! answer begins or ends that is no failure. A failure so late that the backend has answered others
//! since belongs to no row (`blame`). A single trial brings it back.

use std::time::Duration;

use super::{
    backoff,
    standing::{Carried, Pause},
};
use crate::base::{
    moment::{Tick, millis},
    rng::Rng,
    totals::Totals,
};
use crate::plan::Passive;

/// The longest ejection, apart from jitter, and unless the plan asks for more.
const EJECT_MAX: Duration = Duration::from_secs(300);

/// What the answers of one backend say.
#[derive(Clone, Debug)]
pub(crate) struct Outlier {
    state: State,
    /// The totals before the present row of failures.
    before: Option<Totals>,
    /// All failures seen, and when the last was.
    seen: u64,
    failed_at: Option<Tick>,
    /// Recent ejections.
    times: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It takes part.
    Admitted { since: Tick },
    /// It is left out.
    Ejected { until: Tick },
    /// It takes part again if a trial succeeds.
    Returning,
}

/// How many of this many backends may be ejected at once; one always may.
pub(crate) fn ejected_max(passive: &Passive, backends: usize) -> usize {
    let share = u64::from(passive.ejected_max.0) * backends as u64 / 1_000_000;
    usize::try_from(share).unwrap_or(usize::MAX).max(1)
}

impl Outlier {
    /// For a backend that takes part.
    pub(crate) fn new(now: Tick) -> Outlier {
        Outlier {
            state: State::Admitted { since: now },
            before: None,
            seen: 0,
            failed_at: None,
            times: 0,
        }
    }

    /// Writes down what it knows, for the next process.
    pub(super) fn carry(&self, into: &mut Carried, now: Tick) {
        into.ejections = self.times;
        into.ejection = match self.state {
            State::Admitted { .. } => Pause::No,
            State::Ejected { until } => Pause::until(until, now),
            State::Returning => Pause::Trial,
        };
    }

    /// Goes on from what another process knew; its state has lasted since then.
    pub(super) fn resume(&mut self, from: &Carried, since: Tick, now: Tick) {
        self.times = from.ejections;
        self.state = match from.ejection {
            Pause::No => State::Admitted { since },
            Pause::Ms(ms) => State::Ejected { until: now + Duration::from_millis(ms) },
            Pause::Trial => State::Returning,
        };
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When its ejection ends.
    pub(crate) fn due(&self) -> Option<Tick> {
        match self.state {
            State::Ejected { until } => Some(until),
            State::Admitted { .. } | State::Returning => None,
        }
    }

    /// Records failures, if these totals have more than any before. Returns how many have failed in
    /// a row if that is enough to eject it, and is news.
    ///
    /// If successes came with several failures their order is unknown: one of the failures is
    /// assumed to be the last of all.
    pub(crate) fn failed(&mut self, passive: &Passive, totals: Totals, now: Tick) -> Option<u64> {
        if totals.failed <= self.seen {
            return None;
        }
        self.seen = totals.failed;
        let begins = Totals { failed: totals.failed.saturating_sub(1), ..totals };
        let failed_at = self.failed_at.replace(now);
        let goes_on = |before: &Totals| before.ok == totals.ok && totals.answered_at <= failed_at;
        let before = self.before.filter(goes_on).unwrap_or(begins);
        self.before = Some(before);
        let length = totals.failed.saturating_sub(before.failed);
        let max = u64::from(passive.failures_max);
        (max > 0 && length >= max).then_some(length)
    }

    /// Ejects it: twice as long as the last time, less if it did well long enough in between.
    pub(crate) fn eject(&mut self, passive: &Passive, now: Tick, rng: &mut Rng) {
        if let State::Admitted { since } = self.state {
            let healthy = millis(now.since(since)) / millis(passive.eject).max(1);
            self.times = self.times.saturating_sub(u8::try_from(healthy).unwrap_or(u8::MAX));
        }
        let span = backoff::grown(passive.eject, EJECT_MAX, self.times, rng);
        self.times = self.times.saturating_add(1);
        self.state = State::Ejected { until: now + span };
    }

    /// Lets it have a trial, if it is ejected.
    pub(crate) fn end(&mut self) {
        if let State::Ejected { .. } = self.state {
            self.state = State::Returning;
        }
    }

    /// Lets it take part again without a trial.
    pub(crate) fn admit(&mut self, now: Tick) {
        self.state = State::Admitted { since: now };
        // The next failure begins a row, whatever succeeded before.
        self.before = None;
    }

    /// A trial decides whether it takes part again.
    pub(crate) fn tried(&mut self, passive: &Passive, is_ok: bool, now: Tick, rng: &mut Rng) {
        match self.state {
            State::Returning if is_ok => self.admit(now),
            State::Returning => self.eject(passive, now, rng),
            State::Admitted { .. } | State::Ejected { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Share;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    /// The totals after each of these: `x` a failure, `l` a late one, `o` a success, `a` an answer
    /// that begins and `c` one that is cut, reported one by one; `(…)` several before a report. The
    /// number in a row after each failure that is one too many, and `-` after the others.
    #[track_caller]
    fn check(failures_max: u16, requests: &str, expected: &str) {
        let passive = Passive { failures_max, ..Passive::default() };
        let mut outlier = Outlier::new(at(0));
        let (mut totals, mut is_looking, mut said) = (Totals::default(), true, String::new());
        for (now, request) in (1..).zip(requests.chars()) {
            match request {
                'o' => totals.ok += 1,
                'x' | 'c' => totals.failed += 1,
                'a' => totals.answered_at = Some(at(now)),
                'l' => totals.late += 1,
                '(' => is_looking = false,
                _ => is_looking = true,
            }
            if is_looking && !matches!(request, 'o' | 'a') {
                // That its own answer had begun says nothing.
                let answered_at = if request == 'c' { None } else { totals.answered_at };
                let row = outlier.failed(&passive, Totals { answered_at, ..totals }, at(now));
                said += &row.map_or("-".into(), |length| length.to_string());
            }
        }
        assert_eq!(said, expected, "{requests}, at most {failures_max}");
    }

    #[test]
    fn as_many_in_a_row_are_too_many() {
        check(3, "xxx", "--3");
        check(1, "x", "1");
        check(3, "oooxxxx", "--34");
    }

    #[test]
    fn a_success_in_between_begins_anew() {
        check(3, "xxoxxoxxx", "------3");
    }

    #[test]
    fn what_is_late_belongs_to_no_row_and_ends_none() {
        check(3, "llllllllllll", "------------");
        check(3, "xlxlllx", "------3");
        check(3, "(llll)x(ll)xx", "----3");
        check(1, "lllx", "---1");
    }

    #[test]
    fn an_answer_that_begins_ends_a_row_but_not_one_of_answers_that_are_cut() {
        check(3, "xxaxx", "----");
        check(3, "axaxaxaxa", "----");
        check(3, "acacac", "--3");
        check(3, "aaacxc", "--3");
        check(3, "acaocac", "---");
        check(3, "acacax", "---");
    }

    #[test]
    fn nought_is_off() {
        check(0, "xxxx", "----");
    }

    #[test]
    fn failures_that_were_not_told_of_count() {
        check(3, "x(xx)", "-3");
        // Failures that came with a success may have come before it.
        check(3, "x(xxoxx)xx", "---3");
        // Totals without news change nothing.
        check(1, "x(o)", "1-");
    }

    #[test]
    fn totals_that_come_late_are_passed_over() {
        let (passive, mut outlier) = (Passive::default(), Outlier::new(at(0)));
        let mut failed = |ok, failed| {
            outlier.failed(&passive, Totals { ok, failed, ..Totals::default() }, at(0))
        };
        assert_eq!([failed(9, 1), failed(9, 3), failed(8, 2)], [None, Some(3), None]);
        assert_eq!(failed(9, 4), Some(4));
    }

    fn ejected_for(outlier: &Outlier, now: Tick) -> u64 {
        millis(outlier.due().unwrap().since(now))
    }

    #[test]
    fn stays_out_longer_each_time_and_makes_up_for_it_by_doing_well() {
        let passive = Passive::default(); // 10 s
        let (mut rng, mut now) = (Rng::seeded(1), at(0));
        let mut outlier = Outlier::new(now);
        outlier.eject(&passive, now, &mut rng);
        for tens in [1, 2, 4, 8, 16, 30, 30] {
            let out_ms = ejected_for(&outlier, now);
            assert!((9_000 * tens..=11_000 * tens).contains(&out_ms), "{tens}: {out_ms}");
            now = now + Duration::from_millis(out_ms);
            outlier.end();
            assert_eq!(outlier.state(), State::Returning);
            outlier.tried(&passive, false, now, &mut rng);
        }
        // Eight ejections; after 70 s of doing well one is left.
        outlier.end();
        outlier.tried(&passive, true, now, &mut rng);
        now = now + Duration::from_secs(70);
        outlier.eject(&passive, now, &mut rng);
        assert!((18_000..=22_000).contains(&ejected_for(&outlier, now)));
        // Long after, none is.
        outlier.end();
        outlier.tried(&passive, true, now, &mut rng);
        now = now + Duration::from_secs(1_000);
        outlier.eject(&passive, now, &mut rng);
        assert!((9_000..=11_000).contains(&ejected_for(&outlier, now)));
    }

    #[test]
    fn who_returns_begins_a_new_row() {
        let passive = Passive::default();
        let mut outlier = Outlier::new(at(0));
        let totals = |failed| Totals { failed, ..Totals::default() };
        assert_eq!(
            outlier.failed(&passive, totals(3), at(0)),
            None,
            "one row is not known of three"
        );
        assert_eq!(outlier.failed(&passive, totals(5), at(0)), Some(3));
        outlier.eject(&passive, at(0), &mut Rng::seeded(1));
        outlier.end();
        outlier.tried(&passive, true, at(0), &mut Rng::seeded(1));
        assert_eq!(outlier.failed(&passive, totals(6), at(0)), None);
        assert_eq!(outlier.failed(&passive, totals(8), at(0)), Some(3));
    }

    #[test]
    fn one_may_always_be_out_and_never_more_than_the_share() {
        let max = |percent, backends| {
            let passive = Passive { ejected_max: Share::percent(percent), ..Passive::default() };
            ejected_max(&passive, backends)
        };
        let all = [max(50, 1), max(50, 3), max(50, 4), max(0, 10), max(10, 1024), max(100, 3)];
        assert_eq!(all, [1, 1, 2, 1, 102, 3]);
    }
}
