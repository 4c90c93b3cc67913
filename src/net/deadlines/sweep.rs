//! The rounds of the sweep: they end overdue waits, and waits on behalf of clients that have left.

use std::{future::poll_fn, task::Poll, time::Duration};

use super::{
    Deadlines, SLICE, Slab,
    ended::Ended,
    entry::{Entry, Kind, OnBehalf},
    resting::Rest,
    watched::STAY,
};
use crate::base::moment::{Micros, Tick};
use crate::net::{
    clock::Clock,
    io::sleep,
    leaving::{ForClient, Leaves, Look, OF_STREAM},
    turns::next_turn,
};

/// The interval of the sweep.
const ROUND: Duration = Duration::from_millis(250);

/// A quarter of the waiting clients is checked in each round.
pub(super) const WATCH_ROUNDS: u32 = 4;

/// If more than this passed between two rounds the process stood still. Bytes in the sockets came
/// in time, for all we know: they are read first, and the next round checks again.
const STOOD_STILL: Micros = Micros(2 * 250_000);

impl Deadlines {
    /// Sweeps for ever; `each_round` is called after each round, and when nothing is watched any
    /// more.
    pub(crate) async fn sweep(&self, mut each_round: impl FnMut()) {
        let mut stood_still = false;
        loop {
            if self.is_empty() {
                each_round();
            }
            self.wait_until_needed().await;
            let before = Clock::moment();
            sleep(ROUND).await;
            let slept = self.clock.renew().since(before);
            // Never twice in a row: a core that is always late has deadlines all the same.
            stood_still = slept > STOOD_STILL && !stood_still;
            if !stood_still {
                self.round().await;
            }
            each_round();
        }
    }

    async fn wait_until_needed(&self) {
        poll_fn(|cx| {
            self.awake.set(!self.is_empty());
            if self.awake.get() {
                return Poll::Ready(());
            }
            self.sweeper.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// One round: ends overdue waits, and waits on behalf of clients that have left.
    async fn round(&self) {
        let before = self.slab.borrow_mut().begin_round(self.clock.tick());
        let (mut from, mut asked) = (0, 0);
        loop {
            asked += self.asked_since(before, from);
            let Some(next) = self.slice(from) else { break };
            next_turn().await;
            from = next;
        }
        self.slab.borrow_mut().asked = asked;
    }

    /// How many clients in a slice have asked since then: they have begun to rest.
    fn asked_since(&self, since: Option<Tick>, from: usize) -> u32 {
        let slab = self.slab.borrow();
        let slice = slab.entries.iter().skip(from).take(SLICE);
        let is_one = |it: &&Entry| {
            matches!(it.kind, Kind::Client | Kind::Multiplexed)
                && it.rest != Some(Rest::Silent)
                && since.is_none_or(|since| it.since >= since)
        };
        slice.filter(is_one).map(|_| 1).sum()
    }

    /// Checks a slice of the entries; returns where the next begins, if there is one.
    pub(super) fn slice(&self, from: usize) -> Option<usize> {
        let now = self.clock.tick();
        let slab = &mut *self.slab.borrow_mut();
        let until = (from + SLICE).min(slab.entries.len());
        let turn = slab.round;
        for index in from..until {
            if slab.is_for_none(index) {
                slab.entries.get_mut(index)?.end_reading(Ended::ClientLeft);
            }
            let entry = slab.entries.get_mut(index)?;
            if entry.kind != Kind::Free {
                let watches = (index as u32).wrapping_add(turn).is_multiple_of(WATCH_ROUNDS);
                entry.look(now, watches);
            }
            if entry.is_backend() && std::mem::take(&mut entry.stays) {
                let client = entry.next as usize;
                slab.entries.get(client).into_iter().for_each(Entry::wake);
            }
        }
        (until < slab.entries.len()).then_some(until)
    }
}

impl Slab {
    /// Whether a wait is on behalf of a stream that is over. Mostly it has ended by then
    /// (`Watched::leave`), unless two wait for one stream.
    fn is_for_none(&self, index: usize) -> bool {
        let on_behalf = |entry: &&Entry| {
            entry.on_behalf != OnBehalf::Nobody
                && entry.client_fd == OF_STREAM
                && (entry.is_backend() || entry.kind == Kind::Asked)
                && entry.reading.is_none()
        };
        let client = self.entries.get(index).filter(on_behalf).map(|entry| entry.next as usize);
        let client = client.and_then(|client| self.entries.get(client));
        client.is_some_and(|client| client.reading == Some(Ended::ClientLeft))
    }

    /// Returns when the last round began.
    pub(super) fn begin_round(&mut self, now: Tick) -> Option<Tick> {
        self.round = self.round.wrapping_add(1);
        self.begun.replace(now)
    }
}

impl Entry {
    /// Ends what is overdue. Reading and writing are late separately, and neither says anything
    /// about the other.
    fn look(&mut self, now: Tick, watches: bool) {
        if self.stays && self.rest == Some(Rest::Idle) && self.since + STAY <= now {
            self.stays = false;
            self.wake();
        }
        if self.writing.is_none() && self.write_by.is_over(now) {
            self.end_both(Ended::Overdue);
        } else if self.reading.is_some() {
            // There is no reader any more.
        } else if self.read_by.is_over(now) {
            self.end_reading(Ended::Overdue);
        } else if watches && self.client_has_left() {
            self.end_reading(Ended::ClientLeft);
        }
    }

    /// Whether the client has left on whose behalf this is waited for.
    fn client_has_left(&mut self) -> bool {
        let (leaves, doubtful) = match self.on_behalf {
            OnBehalf::Nobody => return false,
            OnBehalf::Client(leaves) => (leaves, false),
            OnBehalf::Doubtful => (Leaves::LastingEnd, true),
        };
        match ForClient::new((self.client_fd, self.next), leaves).look() {
            Look::There => false,
            Look::Doubtful => {
                self.on_behalf = OnBehalf::Doubtful;
                doubtful
            }
            Look::Left => true,
        }
    }
}
