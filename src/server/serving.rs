//! The cores that serve: as many as the plan in force says, among those that were started.
//!
//! A core that is to serve besides the others is started under the plan in force, before anybody is
//! told of the next one, and accepts nothing yet. One that is to serve no more rests: it accepts no
//! more connections, gives those to the others that come to rest, and goes on with the rest of what
//! it has, tunnels above all, until it is needed again; its thread sleeps meanwhile. *Invariant:*
//! listening sockets are shared out anew, and none of them is closed, so nothing that waits in a
//! queue is lost. *Absent:* the end of the threads, which is the handle's.

use std::{sync::Arc, time::Instant};

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{
    StartError,
    access_logs::Outlets,
    control::{HEARD_WITHIN, Owner},
    cores,
    crew::Member,
    run::Sockets,
    spawn::{self, CoreJob, READY_WITHIN},
};
use crate::plan::Plan;
use crate::shared::{
    counters::Slab,
    inbox::{Inbox, Outbox},
};
use crate::worker::{Heir, RestingClient, ToCore, WorkerSeed};

/// The key that keeps its value if there is no room for the cores that it asks for.
const KEY: &str = "cores";

/// Resting connections that are given to other cores at once.
const AT_ONCE: usize = 1_024;

/// What a core gets that is started later.
pub(super) struct Spare {
    pub(super) outbox: Outbox<ToCore>,
    pub(super) inbox: Inbox<ToCore>,
    pub(super) counters: Arc<Slab>,
}

/// The cores of a process.
pub(super) struct Serving {
    /// To which core each thread is pinned, by its number; none = to no core.
    started: Vec<Option<CoreId>>,
    /// The numbers of those that serve.
    now: Vec<usize>,
    is_pinned: bool,
    spares: Vec<Spare>,
    /// Those that were started by a reload.
    later: Vec<Member<ToCore>>,
    /// Held by each of these while it runs; none = none is started any more.
    alive: Option<Sender<()>>,
    /// The way of resting connections from one core to the others.
    resting: (Sender<RestingClient>, Receiver<RestingClient>),
}

impl Serving {
    /// The cores of the start, all of which serve, and what others get. Also returns what closes
    /// when those that are started later have ended.
    pub(super) fn new(
        (cores, is_pinned): (&[CoreId], bool),
        spares: Vec<Spare>,
    ) -> (Serving, Receiver<()>) {
        let (alive, ended) = bounded(0);
        let serving = Serving {
            started: cores.iter().map(|core| is_pinned.then_some(*core)).collect(),
            now: (0..cores.len()).collect(),
            is_pinned,
            spares,
            later: Vec::new(),
            alive: Some(alive),
            resting: unbounded(),
        };
        (serving, ended)
    }

    /// The numbers of the cores that serve.
    pub(super) fn now(&self) -> &[usize] {
        &self.now
    }

    /// Connections that come to rest on cores that serve no more.
    pub(super) fn resting(&self) -> &Receiver<RestingClient> {
        &self.resting.1
    }

    /// No core is started any more: the process drains.
    pub(super) fn release(&mut self) -> &[Member<ToCore>] {
        self.alive = None;
        &self.later
    }

    /// The cores that were started later, to be ended.
    pub(super) fn end(&mut self) -> Vec<Member<ToCore>> {
        std::mem::take(&mut self.later)
    }

    /// The numbers of the cores to serve on, and those that must be started first, which get the
    /// next numbers; none if there is no room for them.
    fn choose(&self, wanted: &[CoreId]) -> Option<(Vec<usize>, Vec<Option<CoreId>>)> {
        let mut missing = Vec::new();
        let mut number = |(place, core): (usize, &CoreId)| {
            let is_it = |started: &Option<CoreId>| *started == Some(*core);
            let known = match self.is_pinned {
                true => self.started.iter().position(is_it),
                false => (place < self.started.len()).then_some(place),
            };
            known.unwrap_or_else(|| {
                missing.push(self.is_pinned.then_some(*core));
                self.started.len() + missing.len() - 1
            })
        };
        let numbers: Vec<usize> = wanted.iter().enumerate().map(&mut number).collect();
        let room = if self.alive.is_some() { self.spares.len() } else { 0 };
        (missing.len() <= room).then_some((numbers, missing))
    }
}

impl Owner {
    /// The numbers of the cores that serve by a plan that was read; starts those that are missing.
    /// If there is no room for them the key keeps its value, and is added to those that do.
    ///
    /// # Errors
    /// If the plan names cores that are not ours, or one cannot be started.
    pub(super) fn cores_of(
        &mut self,
        plan: &mut Plan,
        kept: &mut Vec<&'static str>,
    ) -> Result<Vec<usize>, StartError> {
        let (numbers, missing) = self.chosen(plan, kept)?;
        for core in missing {
            self.start_core(core)?;
        }
        Ok(numbers)
    }

    /// The same without starting any.
    ///
    /// # Errors
    /// If the plan names cores that are not ours.
    pub(super) fn chosen(
        &self,
        plan: &mut Plan,
        kept: &mut Vec<&'static str>,
    ) -> Result<(Vec<usize>, Vec<Option<CoreId>>), StartError> {
        let wanted = cores::choose(&plan.global.cores).map_err(StartError::Cores)?;
        Ok(self.serving.choose(&wanted.cores).unwrap_or_else(|| {
            plan.global.cores.clone_from(&self.next.plan.global.cores);
            kept.insert(0, KEY);
            (self.serving.now.clone(), Vec::new())
        }))
    }

    /// Starts one more core, under the plan in force; it accepts nothing yet.
    fn start_core(&mut self, core: Option<CoreId>) -> Result<(), StartError> {
        let core_index = self.serving.started.len();
        let what = format!("start core {core_index}");
        let no_room = || StartError::Cores("there is no room for one more core".into());
        let alive = self.serving.alive.clone().ok_or_else(no_room)?;
        let next = Arc::clone(&self.next);
        let mut outlets = self.access_logs.outlets(&next.plan, None, 1)?;
        let Spare { outbox, inbox, counters } = self.serving.spares.pop().ok_or_else(no_room)?;
        let outlets: Outlets = outlets.pop().unwrap_or_default();
        let (ready, readiness) = bounded(1);
        let job = CoreJob {
            process: self.process.clone(),
            own: WorkerSeed { core_index, counters, outlets },
            core,
            driver: next.plan.global.driver,
            next,
            sockets: Sockets::new(),
            inbox,
            ready,
            alive: Some(alive),
        };
        let thread = spawn::spawn(job, &self.death).map_err(StartError::system(what))?;
        let ready = readiness.recv_timeout(READY_WITHIN);
        ready.map_err(|_| StartError::Hung("a core".into()))??;
        self.serving.later.push(Member::new(outbox.clone(), thread));
        self.serving.started.push(core);
        self.readers.cores.push(outbox);
        self.ledger.join(core_index);
        self.sources.join();
        Ok(())
    }

    /// Serves on these cores from now on, each at its sockets; the others rest.
    pub(super) fn serve_on(&mut self, numbers: Vec<usize>, shares: Vec<Sockets>) {
        let until = Instant::now() + HEARD_WITHIN;
        for (number, sockets) in numbers.iter().zip(shares) {
            if let Some(core) = self.readers.cores.get(*number) {
                // A core that hangs is found by all who wait for it.
                let _ = core.send(ToCore::Serve(sockets), until);
            }
        }
        self.serving.now = numbers;
        self.rest();
    }

    /// Tells the cores that do not serve to rest.
    pub(super) fn rest(&self) {
        let until = Instant::now() + HEARD_WITHIN;
        let Serving { now, resting: (to, _), .. } = &self.serving;
        let heir = Heir { to: to.clone(), unknown: Vec::new() };
        for (number, core) in self.readers.cores.iter().enumerate() {
            if !now.contains(&number) {
                let _ = core.send(ToCore::Rest(heir.clone()), until);
            }
        }
    }

    /// Gives connections that rest to the cores that serve.
    pub(super) fn move_resting(&self) {
        let some: Vec<_> = self.serving.resting().try_iter().take(AT_ONCE).collect();
        self.share_out(some);
    }

    /// Shares connections out among the cores that serve.
    pub(super) fn share_out(&self, connections: Vec<RestingClient>) {
        let numbers = self.serving.now();
        let mut shares: Vec<Vec<RestingClient>> = numbers.iter().map(|_| Vec::new()).collect();
        for (place, one) in connections.into_iter().enumerate() {
            shares[place % numbers.len()].push(one);
        }
        let until = Instant::now() + HEARD_WITHIN;
        for (number, share) in numbers.iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
            if let Some(core) = self.readers.cores.get(*number) {
                let _ = core.send(ToCore::Adopt(share), until);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::inbox::mailbox;

    fn spare() -> Spare {
        let (outbox, inbox) = mailbox().unwrap();
        Spare { outbox, inbox, counters: Slab::new() }
    }

    fn ids(cores: &[usize]) -> Vec<CoreId> {
        cores.iter().map(|id| CoreId { id: *id }).collect()
    }

    /// What a process that was started on these cores, with room for so many more, makes of a wish.
    #[track_caller]
    fn check(
        (started, is_pinned, room): (&[usize], bool, usize),
        wanted: &[usize],
        expected: Option<(&[usize], &[usize])>,
    ) {
        let spares = (0..room).map(|_| spare()).collect();
        let (serving, _ended) = Serving::new((&ids(started), is_pinned), spares);
        let chosen = serving.choose(&ids(wanted));
        let chosen = chosen.map(|(numbers, missing)| {
            let missing: Vec<usize> = missing.iter().map(|it| it.map_or(99, |it| it.id)).collect();
            (numbers, missing)
        });
        let expected = expected.map(|(numbers, missing)| (numbers.to_vec(), missing.to_vec()));
        assert_eq!(chosen, expected);
    }

    #[test]
    fn cores_that_are_pinned_are_known_by_where_they_are() {
        let of = (&[0, 1, 4][..], true, 2);
        check(of, &[0, 1, 4], Some((&[0, 1, 2], &[])));
        check(of, &[4], Some((&[2], &[])));
        check(of, &[1, 7], Some((&[1, 3], &[7])));
        check(of, &[6, 0, 7], Some((&[3, 0, 4], &[6, 7])));
        check(of, &[5, 6, 7], None);
    }

    #[test]
    fn cores_that_are_not_pinned_are_counted() {
        let of = (&[0, 1][..], false, 1);
        check(of, &[0], Some((&[0], &[])));
        check(of, &[0, 1], Some((&[0, 1], &[])));
        check(of, &[0, 1, 2], Some((&[0, 1, 2], &[99])));
        check(of, &[0, 1, 2, 3], None);
    }

    #[test]
    fn nothing_is_started_when_the_process_drains() {
        let (mut serving, ended) = Serving::new((&ids(&[0]), false), vec![spare()]);
        assert!(serving.choose(&ids(&[0, 1])).is_some());
        assert!(serving.release().is_empty());
        assert!(serving.choose(&ids(&[0, 1])).is_none());
        assert!(ended.recv().is_err(), "nobody is left");
    }
}
