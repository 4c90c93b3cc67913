//! What one core has of the access logs: its end of each, the ids of requests, the time of day.
//!
//! Nothing here waits, and nothing is asked while no listener has a log and nothing goes wrong.

use std::{
    cell::{Cell, RefCell},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::base::{
    ids::ListenerId,
    moment::{Micros, Moment, Tick, UnixMillis},
    rng::Rng,
    table::Table,
};
use crate::net::{chance, clock::Clock};
use crate::observe::{access_log::Line, request_id::RequestId, writer::Outlet};

/// How long the time of day is reckoned from one look at the clock of the wall:
/// so long a step of that clock may go unseen.
const WALL: Micros = Micros(250_000);

/// What one core has of the access logs.
pub(crate) struct Logs {
    /// By listener; none where it has no log.
    outlets: Table<ListenerId, RefCell<Outlet>>,
    chance: RefCell<Rng>,
    wall: Cell<Wall>,
}

/// What the clock of the wall said.
#[derive(Clone, Copy, Default)]
struct Wall {
    /// From 1970 to when the precise clock began to count.
    beginning: Micros,
    /// When it said so, if it was ever asked.
    read_at: Option<Moment>,
}

impl Logs {
    pub(crate) fn new(outlets: Table<ListenerId, Outlet>) -> Logs {
        Logs {
            outlets: outlets.into_rows().map(|(id, outlet)| (id, RefCell::new(outlet))).collect(),
            chance: RefCell::new(Rng::seeded(chance::drawn())),
            wall: Cell::default(),
        }
    }

    /// Whether what comes in at a listener is logged.
    #[inline]
    pub(crate) fn is_on(&self, listener: ListenerId) -> bool {
        self.outlet(listener).is_some()
    }

    #[inline]
    fn outlet(&self, listener: ListenerId) -> Option<&RefCell<Outlet>> {
        self.outlets.get(listener)
    }

    /// Wall time at this moment.
    pub(crate) fn unix_millis(&self, moment: Moment) -> UnixMillis {
        let mut wall = self.wall.get();
        if wall.read_at.is_none_or(|read_at| moment.since(read_at) >= WALL) {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now = Clock::moment();
            let micros = u64::try_from(since.as_micros()).unwrap_or_default();
            wall = Wall { beginning: Micros(micros) - Micros(now.micros()), read_at: Some(now) };
            self.wall.set(wall);
        }
        UnixMillis((wall.beginning.0 + moment.micros()) / 1000)
    }

    /// A new id of a request, made at this moment.
    pub(crate) fn request_id(&self, moment: Moment) -> RequestId {
        RequestId::new(self.unix_millis(moment), &mut self.chance.borrow_mut())
    }

    /// Writes a line at this time; how many lines had to be dropped for it.
    pub(crate) fn write(&self, line: &Line<'_>, now: Tick) -> u64 {
        let Some(outlet) = self.outlet(line.asker.listener) else { return 0 };
        let mut outlet = outlet.borrow_mut();
        outlet.write(line, now);
        outlet.take_dropped()
    }

    /// Hands over what is old; or all there is, where nothing may follow for a long time.
    pub(crate) fn turn(&self, now: Tick, all: bool) {
        for outlet in self.outlets.values() {
            let mut outlet = outlet.borrow_mut();
            if all {
                outlet.hand_over();
            } else {
                outlet.hand_over_old(now);
            }
        }
    }

    /// Hands over all there is; false where the writer has no room for it.
    pub(crate) fn hand_over(&self) -> bool {
        let outlets = self.outlets.values();
        outlets.filter(|outlet| !outlet.borrow_mut().hand_over()).count() == 0
    }

    /// Gives memory back that only a peak needed.
    pub(crate) fn give_memory_back(&self) {
        for outlet in self.outlets.values() {
            outlet.borrow_mut().forget_spares();
        }
    }
}
