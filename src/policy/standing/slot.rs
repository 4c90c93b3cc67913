//! The state of one backend in a standing, and the parts of the plan that it uses.
//!
//! Each respect (probes, answers, breaker, the decision of an operator) is kept by itself; which of
//! them counts is decided for the whole pool.

use super::{Cause, Mode, State};
use crate::base::{
    backend_set::BackendSet,
    moment::{Deadline, Tick},
    totals::Totals,
};
use crate::plan::{self, Duty, Pool, Share};
use crate::policy::{
    breaker::{self, Breaker},
    health::Tracker,
    outlier::{self, Outlier},
};

/// The parts of the plan that a pool's standing uses.
pub(super) struct Plan {
    pub(super) health: Option<plan::Health>,
    pub(super) passive: plan::Passive,
    pub(super) breaker: Option<plan::Breaker>,
    pub(super) panic: Share,
    /// How many may be ejected at once.
    pub(super) ejected_max: usize,
    /// The backends that take new traffic at all: only one of them can be the last.
    pub(super) taking: BackendSet,
    /// The backends that take it only if no regular one can.
    pub(super) backups: BackendSet,
}

impl Plan {
    pub(super) fn of(pool: &Pool) -> Plan {
        let mut taking = BackendSet::EMPTY;
        let mut backups = BackendSet::EMPTY;
        for (id, backend) in &pool.backends {
            if backend.share() > 0 {
                taking.insert(id);
            }
            if backend.backup {
                backups.insert(id);
            }
        }
        Plan {
            health: pool.health.clone(),
            passive: pool.passive.clone(),
            breaker: pool.breaker.clone(),
            panic: pool.panic,
            ejected_max: outlier::ejected_max(&pool.passive, pool.backends.len()),
            taking,
            backups,
        }
    }

    /// Whether breakers may leave no usable backend.
    pub(super) fn allows_empty(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.allow_empty)
    }
}

/// The state of one backend.
pub(super) struct Slot {
    pub(super) has_address: bool,
    /// Whether it is in maintenance: it is not asked, whatever else is known of it.
    is_away: bool,
    /// What an operator has decided, and since when.
    pub(super) duty: (Duty, Tick),
    pub(super) tracker: Tracker,
    pub(super) outlier: Outlier,
    /// Always closed if the plan has no breaker.
    pub(super) breaker: Breaker,
    /// Since when it is in each of its `states`.
    pub(super) since: [Tick; 3],
    /// Why; none = nothing has changed it.
    pub(super) causes: [Option<Cause>; 3],
    /// Permits of its trials; 0 = it is not on trial.
    pub(super) permits: u16,
    /// Failures that are no request's: spans of silence.
    pub(super) unanswered: u64,
}

impl Slot {
    pub(super) fn new(backend: &plan::Backend, now: Tick) -> Slot {
        Slot {
            has_address: !backend.address.known().is_empty(),
            is_away: backend.duty == Duty::Maintenance,
            duty: (backend.duty, now),
            tracker: Tracker::new(true),
            outlier: Outlier::new(now),
            breaker: Breaker::new(now),
            since: [now; 3],
            causes: [None; 3],
            permits: 0,
            unanswered: 0,
        }
    }

    /// A check that a plan no longer has takes no backend out.
    pub(super) fn replan(&mut self, plan: &Plan, now: Tick) {
        if plan.health.is_none() && !self.tracker.is_up() {
            self.tracker = Tracker::new(true);
        }
        if plan.passive.failures_max == 0 && !self.is_admitted() {
            self.outlier.admit(now);
        }
        if plan.breaker.is_none() && !self.is_closed() {
            self.breaker = Breaker::new(now);
        }
    }

    /// Its state by its probes, its answers and its breaker.
    pub(super) fn states(&self) -> [State; 3] {
        [
            if self.tracker.is_up() { State::Up } else { State::Down },
            match self.outlier.state() {
                outlier::State::Admitted { .. } => State::Admitted,
                outlier::State::Ejected { .. } => State::Ejected,
                outlier::State::Returning => State::Returning,
            },
            match self.breaker.state() {
                breaker::State::Closed => State::Closed,
                breaker::State::Open { .. } => State::Open,
                breaker::State::HalfOpen { .. } => State::HalfOpen,
            },
        ]
    }

    /// Whether it was in maintenance and is back: then it is like a new one.
    pub(super) fn returns(&self, backend: &plan::Backend) -> bool {
        self.is_away && backend.duty != Duty::Maintenance
    }

    /// Whether it is in maintenance.
    pub(super) fn is_away(&self) -> bool {
        self.is_away
    }

    /// It is in maintenance from now on.
    pub(super) fn leaves(&mut self) {
        self.is_away = true;
    }

    /// Whether it may be asked at all.
    pub(super) fn is_there(&self) -> bool {
        self.has_address && !self.is_away
    }

    /// Whether it can be reached, as far as probes and names tell.
    pub(super) fn is_available(&self) -> bool {
        self.is_there() && self.tracker.is_up()
    }

    /// Whether its probes, its answers or its breaker keep it out. One that was not probed yet has
    /// not failed.
    pub(super) fn fails(&self) -> bool {
        let is_down = !self.tracker.is_up() && !self.tracker.is_unseen();
        !self.is_away() && (is_down || !self.is_admitted() || !self.is_closed())
    }

    pub(super) fn is_admitted(&self) -> bool {
        matches!(self.outlier.state(), outlier::State::Admitted { .. })
    }

    /// Whether it only waits for a trial.
    pub(super) fn is_returning(&self) -> bool {
        self.outlier.state() == outlier::State::Returning
    }

    /// When it was ejected, if that was its last change by answers.
    pub(super) fn ejected_at(&self) -> Tick {
        self.since[1]
    }

    pub(super) fn is_closed(&self) -> bool {
        self.breaker.state() == breaker::State::Closed
    }

    /// Records totals; returns the reasons to eject it and to open its breaker.
    pub(super) fn failed(
        &mut self,
        plan: &Plan,
        totals: Totals,
        now: Tick,
    ) -> (Option<u64>, Option<Totals>) {
        let failed = totals.failed + self.unanswered;
        let row = self.outlier.failed(&plan.passive, Totals { failed, ..totals }, now);
        let breaker = plan.breaker.as_ref();
        (row, breaker.and_then(|plan| self.breaker.failed(plan, totals, now)))
    }

    /// How many trials it may have at once, if it is not usable; none while it is out.
    pub(super) fn trials(&self, plan: &Plan, mode: Mode) -> u16 {
        let probes = plan.breaker.as_ref().map_or(0, |breaker| breaker.probes);
        match self.states() {
            // In a panic only breakers count.
            [_, _, State::HalfOpen] if mode == Mode::Panic && self.is_there() => probes,
            _ if !self.is_available() => 0,
            [_, State::Returning, State::Closed | State::HalfOpen] => 1,
            [_, State::Admitted, State::HalfOpen] => probes,
            _ => 0,
        }
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, now: Tick) {
        if self.outlier.due().is_some_and(|due| now >= due) {
            self.outlier.end();
        }
        if self.breaker.due().is_some_and(|due| now >= due) {
            self.breaker.end();
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Deadline {
        let due = [self.outlier.due(), self.breaker.due()].map(Deadline::from);
        due[0].earlier(due[1])
    }
}
