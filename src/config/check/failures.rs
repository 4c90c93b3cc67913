//! `passive` and `breaker` of a pool: how its own requests judge a backend.

use super::{Check, both};
use crate::config::{file, problem::Problem, units::write_duration, written::Written};
use crate::plan::{Breaker, Passive, Share};

/// Every share.
const ANY: std::ops::RangeInclusive<Share> = Share::ZERO..=Share::percent(100);

/// Every share but 0: a ratio of 0 would open on success.
const SOME: std::ops::RangeInclusive<Share> = Share(1)..=Share::percent(100);

impl Check<'_> {
    pub(super) fn passive(&mut self, written: Option<&file::Passive>, into: &mut Passive) {
        let Some(written) = written else { return };
        self.whole_number(written.max_failures.as_ref(), 0..=65_535, &mut into.failures_max);
        self.statuses(written.statuses.as_ref(), &mut into.statuses);
        self.duration_above_zero(written.eject.as_ref(), &mut into.eject);
        self.share(written.max_ejected.as_ref(), ANY, "expected 0 to 1", &mut into.ejected_max);
        self.duration(written.min_life.as_ref(), &mut into.life_min);
    }

    /// The circuit breaker, if the key is present.
    pub(super) fn breaker(&mut self, key: Option<&Written<file::Breaker>>) -> Option<Breaker> {
        let written = key?.value.as_ref()?;
        let mut breaker = Breaker::default();
        let into = &mut breaker;
        let some = "expected more than 0 and at most 1";
        self.share(written.error_ratio.as_ref(), SOME, some, &mut into.error_ratio);
        let most = i64::from(u32::MAX);
        self.whole_number(written.min_requests.as_ref(), 1..=most, &mut into.requests_min);
        self.duration_above_zero(written.window.as_ref(), &mut into.window);
        self.duration_above_zero(written.open.as_ref(), &mut into.open);
        self.whole_number(written.probes.as_ref(), 1..=65_535, &mut into.probes);
        self.whole_number(written.successes.as_ref(), 1..=65_535, &mut into.successes);
        if let Some((_, allow_empty)) = both(written.allow_empty.as_ref()) {
            into.allow_empty = *allow_empty;
        }
        self.longest_open(written, into);
        Some(breaker)
    }

    fn longest_open(&mut self, written: &file::Breaker, into: &mut Breaker) {
        let Some(key) = &written.max_open else {
            // The default is raised without a complaint, as no person wrote it.
            into.open_max = into.open_max.max(into.open);
            return;
        };
        let right = self.duration_above_zero(Some(key), &mut into.open_max);
        if right && into.open_max < into.open {
            let open = write_duration(into.open);
            let mut problem = Problem::error("`max-open` shorter than `open`")
                .at(key.place, format!("expected \"{open}\" or more"));
            match &written.open {
                Some(key) => problem = problem.at(key.place, "as long as the first time"),
                None => problem = problem.help(format!("`open` is \"{open}\" by default")),
            }
            self.note(problem);
        }
    }
}
