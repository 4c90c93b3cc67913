//! `retry` of a pool.

use std::time::Duration;

use super::{Check, both, section};
use crate::config::{
    file::{self, DurationText},
    problem::Problem,
    written::{Scalar, WordOr, Written},
};
use crate::http::grpc;
use crate::plan::{Hedge, HedgeAfter, Retry, RetryBudget, RetryOn, Share};

/// A failure that may be retried: the word, and its switch.
pub(crate) type RetrySwitch = fn(&mut RetryOn) -> &mut bool;

pub(crate) const RETRY_ON: &[(&str, RetrySwitch)] = &[
    ("connect-failure", |on| &mut on.connect_failure),
    ("reset-before-response", |on| &mut on.reset_before_response),
    ("backend-down", |on| &mut on.backend_down),
    ("timeout", |on| &mut on.timeout),
    ("502", |on| &mut on.status_502),
    ("503", |on| &mut on.status_503),
    ("504", |on| &mut on.status_504),
];

/// Most bytes of a body that may be kept: each request in flight may cost as much memory.
const BODY_BYTES_MAX: u64 = 16 << 20;

impl Check<'_> {
    pub(super) fn retry(&mut self, written: Option<&Written<file::Retry>>, into: &mut Retry) {
        let Some(written) = section(written) else { return };
        self.whole_number(written.attempts.as_ref(), 1..=16, &mut into.attempts);
        self.duration(written.per_try.as_ref(), &mut into.per_try);
        if let Some(bytes) = self.size(written.body.as_ref(), 0..=BODY_BYTES_MAX) {
            into.body_bytes_max = u32::try_from(bytes).unwrap_or(into.body_bytes_max);
        }
        self.budget(written.budget.as_ref(), &mut into.budget);
        self.hedge(written.hedge.as_ref(), &mut into.hedge);
        let Some(on) = &written.on else { return };
        into.on = RetryOn::default();
        for (place, word) in on.0.iter().filter_map(|item| both(Some(item))) {
            if word.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("grpc:")) {
                let status = self.choose("status of gRPC", place, word, &grpc::STATUSES);
                into.on.grpc |= status.map_or(0, |status| 1 << status);
            } else if let Some(switch) = self.choose("reason to retry", place, word, RETRY_ON) {
                *switch(&mut into.on) = true;
            }
        }
    }

    fn hedge(&mut self, key: Option<&Written<WordOr<file::Hedge>>>, into: &mut Option<Hedge>) {
        let Some((place, written)) = both(key) else { return };
        match written {
            WordOr::Word(word) => {
                if self.choose("hedging", place, word, &[("off", ())]).is_some() {
                    *into = None;
                }
            }
            WordOr::Table(table) => {
                let mut hedge = Hedge::default();
                self.hedge_after(table.after.as_ref(), &mut hedge.after);
                let range = Share(1)..=Share::percent(100);
                let expected = "expected more than 0, at most 1";
                self.share(table.max.as_ref(), range, expected, &mut hedge.max);
                *into = Some(hedge);
            }
        }
    }

    fn hedge_after(&mut self, key: Option<&Written<DurationText>>, into: &mut HedgeAfter) {
        let Some((place, DurationText(written))) = both(key) else { return };
        if let Scalar::Text(text) = written
            && let Some(percent) = text.strip_prefix('p')
        {
            match percent.parse() {
                Ok(percent @ 1..=99) => *into = HedgeAfter::Quantile(percent),
                Ok(_) | Err(_) => self.note(
                    Problem::error(format!("no such quantile: \"{text}\""))
                        .at(place, "expected \"p1\" to \"p99\", or a duration"),
                ),
            }
            return;
        }
        let mut time = Duration::ZERO;
        if self.duration_above_zero(key, &mut time) {
            *into = HedgeAfter::Time(time);
        }
    }

    fn budget(
        &mut self,
        key: Option<&Written<WordOr<file::Budget>>>,
        into: &mut Option<RetryBudget>,
    ) {
        let Some((place, written)) = both(key) else { return };
        match written {
            WordOr::Word(word) => {
                if self.choose("budget", place, word, &[("off", ())]).is_some() {
                    *into = None;
                }
            }
            WordOr::Table(table) => {
                let mut budget = RetryBudget::default();
                let range = Share::ZERO..=Share::percent(100);
                self.share(table.ratio.as_ref(), range, "expected 0 to 1", &mut budget.ratio);
                let per_second = table.per_second.as_ref();
                self.whole_number(per_second, 0..=1_000_000, &mut budget.per_second);
                *into = Some(budget);
            }
        }
    }
}
