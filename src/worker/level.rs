//! A core that is busier than the others hands connections over to them.
//!
//! Four times a second each core reads how long it was running, or waiting for a processor, tells
//! that to the others, and decides by what all have told (`policy/level`). Mostly that is all. If
//! it has too much, it notes to which cores connections go: new ones as they are accepted, and idle
//! ones that have asked lately, which wake for that. Nothing of this is on the path of a request.
//! *Invariant:* a core that drains, rests or gives all away takes nothing from others, and hands
//! nothing over here.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use super::{Moved, Worker};
use crate::base::{core_load::CoreLoad, moment::Micros};
use crate::net::{clock::Clock, fd};
use crate::plan::ListenerId;
use crate::policy::level::{Leveller, Meter, Reading};
use crate::shared::counters::Counter;

/// An idle client that has asked within this time is worth moving.
const LATELY: Duration = Duration::from_millis(500);

/// What a core knows of its own level.
#[derive(Default)]
pub(super) struct Level {
    meter: RefCell<Meter>,
    leveller: RefCell<Leveller>,
    /// Whether this core takes connections of others.
    takes: Cell<bool>,
    /// Whether the kernel counts how long its thread waits for a processor.
    counts_waits: Cell<bool>,
    /// Which plan it serves, as it tells others.
    plan: Cell<u16>,
    /// The cores that get one connection each.
    wishes: RefCell<Vec<usize>>,
    /// Those whose connection has been chosen, and wakes.
    chosen: RefCell<Vec<usize>>,
}

impl Worker {
    /// From now on it takes connections of cores that are busier.
    pub(crate) fn takes_from_others(&self) {
        self.level.takes.set(true);
        self.core.process.passages.open(self.core.index);
    }

    /// It takes none any more, and keeps its own; what was on its way is still there to be taken.
    pub(crate) fn keeps_its_own(&self) {
        self.level.takes.set(false);
        self.core.process.passages.close(self.core.index);
        self.core.process.levels.tell(self.core.index, CoreLoad::default());
        self.level.wishes.borrow_mut().clear();
    }

    /// It serves the plan of this number from now on: others that do not may not know its
    /// listeners.
    pub(super) fn levels_by(&self, generation: u64) {
        #[allow(clippy::cast_possible_truncation)] // its last bits
        self.level.plan.set(generation as u16 & 0x7FFF);
        self.level.wishes.borrow_mut().clear();
    }

    /// A connection that another core has handed over.
    pub(crate) fn next_moved(&self) -> Option<Moved> {
        self.core.process.passages.take(self.core.index)
    }

    /// Tells how busy this core is, and decides whether it hands connections over.
    pub(super) fn keep_level(&self) {
        let Level { meter, leveller, takes, wishes, plan, .. } = &self.level;
        let plan = plan.get();
        if !takes.get() || self.core.cores.get() < 2 {
            wishes.borrow_mut().clear();
            return;
        }
        let (own, levels) = (self.core.index, &self.core.process.levels);
        if self.deadlines.is_empty() || self.counters.read(Counter::Connections) == 0 {
            // It may rest, with the sweep: the next reading is long after this one.
            meter.borrow_mut().forget();
            wishes.borrow_mut().clear();
            self.tell_load(0);
            return levels.tell(own, CoreLoad { takes: true, plan, ..CoreLoad::default() });
        }
        let Some(worked) = self.worked() else { return };
        let reading = Reading {
            at: Clock::moment(),
            worked,
            requests: self.counters.read(Counter::Requests),
            clients: self.deadlines.asked(),
        };
        let load = meter.borrow_mut().read(reading);
        let Some(load) = load else {
            // Nobody knows yet: it takes nothing until then.
            return levels.tell(own, CoreLoad::default());
        };
        levels.tell(own, CoreLoad { takes: true, plan, ..load });
        self.tell_load(load.busy);
        let mut loads = levels.all();
        loads.iter_mut().for_each(|load| load.takes &= load.plan == plan);
        if let Some(decided) = leveller.borrow_mut().next(own, &loads) {
            wishes.replace(decided);
        }
    }

    /// How long its thread has been running or waiting for a processor: one that others keep from
    /// running is not idle. None: it cannot be read now.
    fn worked(&self) -> Option<Micros> {
        match fd::time_wanted() {
            Some(time) => {
                self.level.counts_waits.set(true);
                Some(Micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
            }
            None if self.level.counts_waits.get() => None,
            None => Some(Clock::worked()),
        }
    }

    /// Notes the load as it is shown.
    fn tell_load(&self, busy: u16) {
        let before = self.counters.read(Counter::Load);
        self.counters.add(Counter::Load, u64::from(busy).wrapping_sub(before));
    }

    /// Whether it has connections to hand over.
    pub(crate) fn has_too_much(&self) -> bool {
        !self.level.wishes.borrow().is_empty()
    }

    /// Chooses idle clients that have asked lately, as many as are to go, and wakes their tasks.
    /// Connections with a session of TLS, behind a PROXY header or with streams stay.
    pub(crate) fn choose_to_move(&self) {
        let wanted = self.level.wishes.borrow().len();
        if wanted == 0 {
            return;
        }
        let in_force = self.in_force();
        let tls = self.core.means.tls.borrow();
        let may_go = |id: ListenerId| {
            let listener = in_force.plan.listeners.get(id);
            tls.fronts.get(id).is_none() && listener.is_some_and(|it| it.proxies.is_none())
        };
        let since = self.clock.renew().tick().before(LATELY);
        let count = self.deadlines.give_away_latest(wanted, since, may_go);
        let mut wishes = self.level.wishes.borrow_mut();
        let rest = wishes.len().saturating_sub(count);
        self.level.chosen.borrow_mut().extend(wishes.drain(rest..));
    }

    /// Hands over a connection whose task was woken for that.
    ///
    /// # Errors
    /// With one to be kept here.
    pub(crate) fn hand_over_chosen(&self, moved: Moved) -> Result<(), Moved> {
        let to = self.level.chosen.borrow_mut().pop();
        self.hand_over_to(to, moved, Counter::MovedIdle)
    }

    /// Hands over a connection that was just accepted.
    ///
    /// # Errors
    /// With one to be served here.
    pub(crate) fn hand_over_new(&self, moved: Moved) -> Result<(), Moved> {
        let to = self.level.wishes.borrow_mut().pop();
        self.hand_over_to(to, moved, Counter::MovedNew)
    }

    fn hand_over_to(&self, to: Option<usize>, moved: Moved, counts: Counter) -> Result<(), Moved> {
        let Some(to) = to else { return Err(moved) };
        self.core.process.passages.put(to, moved)?;
        self.count(counts);
        Ok(())
    }

    /// Whether connections that are given away go to one that takes all.
    pub(crate) fn has_heir(&self) -> bool {
        self.heir.borrow().is_some()
    }
}
