//! What is known of a backend, as it is handed to the process that takes over. Times are spans, as
//! each process has a clock of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Present, Standing};
use crate::base::{
    ids::BackendId,
    moment::{Tick, millis},
};

/// What is known of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Carried {
    pub(in crate::policy) is_down: bool,
    pub(in crate::policy) is_probed: bool,
    /// Results in a row that speak against its state.
    pub(in crate::policy) against: u16,
    pub(in crate::policy) ejection: Pause,
    /// Recent ejections.
    pub(in crate::policy) ejections: u8,
    pub(in crate::policy) breaker: Pause,
    /// Recent openings of the breaker.
    pub(in crate::policy) openings: u8,
    /// Requests in its window: those that did well, and those that failed.
    pub(in crate::policy) window: [u64; 2],
    /// How long it has been up or down, admitted or ejected, and its breaker closed or open.
    lasted_ms: [u64; 3],
}

/// Whether something is out, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::policy) enum Pause {
    #[default]
    No,
    /// For so many milliseconds more.
    Ms(u64),
    /// Until a trial succeeds.
    Trial,
}

impl Pause {
    /// Until then.
    pub(in crate::policy) fn until(until: Tick, now: Tick) -> Pause {
        Pause::Ms(millis(until.since(now)))
    }
}

impl Standing {
    /// What is known of each backend.
    pub(crate) fn carried(&self, now: Tick) -> Vec<(BackendId, Carried)> {
        let of_slot = |(id, slot): (BackendId, &super::Slot)| {
            let mut carried = Carried::default();
            slot.tracker.carry(&mut carried);
            slot.outlier.carry(&mut carried, now);
            slot.breaker.carry(self.plan.breaker.as_ref(), &mut carried, now);
            carried.lasted_ms = slot.since.map(|since| millis(now.since(since)));
            (id, carried)
        };
        self.slots.iter().map(of_slot).collect()
    }

    /// Goes on from what an earlier process knew of a backend, as far as the plan still asks for
    /// it; returns its present state. That is no change to report.
    pub(crate) fn resume(&mut self, id: BackendId, carried: &Carried, now: Tick) -> Present {
        let Some(slot) = self.slots.get_mut(id) else { return Present::default() };
        let since = carried.lasted_ms.map(|ms| now.before(Duration::from_millis(ms)));
        slot.tracker.resume(carried);
        slot.outlier.resume(carried, since[1], now);
        slot.breaker.resume(self.plan.breaker.as_ref(), carried, now);
        slot.since = since;
        slot.replan(&self.plan, now);
        let states = slot.states();
        self.is_stale = true;
        self.due = self.next_due();
        self.refresh();
        self.changes.clear();
        states.into_iter().fold(Present::default(), Present::after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{self, Pool};
    use crate::policy::{health::ProbeFault, standing::State};

    fn at(ms: u64) -> Tick {
        Tick::from_millis(ms)
    }

    fn pool() -> Pool {
        let text = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n[pool.app]\n\
                    backends = [\"10.0.0.1:80\", \"10.0.0.2:80\", \"10.0.0.3:80\"]\n\
                    health = { rise = 2, fall = 2 }\nbreaker = { min-requests = 1 }\n";
        let plan = crate::config::parse("carried.toml", text).unwrap().plan.into_plan();
        Pool::clone(plan.pools.values().next().unwrap())
    }

    #[test]
    fn the_next_process_goes_on_where_this_one_was() {
        let pool = pool();
        let mut old = Standing::new(&pool, 7, at(0));
        let [down, stopped, third] = [BackendId(0), BackendId(1), BackendId(2)];
        old.probed(down, Err(ProbeFault::Refused), at(100_000));
        // One success of the two that it takes.
        old.probed(down, Ok(()), at(101_000));
        let totals = crate::base::totals::Totals { failed: 1, ..Default::default() };
        old.failed(stopped, (totals, None), at(102_000));
        let before = [down, stopped, third].map(|id| old.states(id).unwrap());
        assert_eq!(old.usable().iter().collect::<Vec<_>>(), [third], "{before:?}");
        let carried: Vec<_> = old.carried(at(103_000));
        let again = |(id, carried): &(BackendId, Carried)| {
            let text = serde_json::to_string(carried).unwrap();
            (*id, serde_json::from_str(&text).unwrap())
        };
        let carried: Vec<(BackendId, Carried)> = carried.iter().map(again).collect();
        let mut new = Standing::new(&pool, 8, at(10));
        for (id, carried) in &carried {
            let present = new.resume(*id, carried, at(10));
            assert_eq!(present != Present::default(), *id != third);
        }
        assert_eq!([down, stopped, third].map(|id| new.states(id).unwrap()), before);
        assert_eq!(new.usable(), old.usable());
        assert_eq!(new.changes().count(), 0, "nothing has changed");
        // Its second success in a row brings it back.
        new.probed(down, Ok(()), at(20));
        assert!(new.usable().contains(down));
        // The breaker opens for trials when it would have done so there.
        let left = |carried: &Carried| match carried.breaker {
            Pause::Ms(ms) => ms,
            other => panic!("{other:?}"),
        };
        let left = left(&carried[1].1);
        assert!((2_000..=6_000).contains(&left), "{left}");
        new.turn(at(10 + left));
        assert_eq!(new.states(stopped).unwrap()[2], State::HalfOpen);
    }

    #[test]
    fn what_the_plan_does_not_ask_for_any_more_is_left() {
        let mut pool = pool();
        let carried = Carried {
            is_down: true,
            is_probed: true,
            ejection: Pause::Ms(9),
            ..Carried::default()
        };
        pool.health = None;
        pool.passive = plan::Passive { failures_max: 0, ..plan::Passive::default() };
        let mut new = Standing::new(&pool, 8, at(10));
        assert_eq!(new.resume(BackendId(0), &carried, at(10)), Present::default());
        assert!(new.usable().contains(BackendId(0)));
    }
}
