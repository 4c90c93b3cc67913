//! What one core has of the access logs: its end of each, the ids of requests, the time of day.
//!
//! Nothing here waits, and nothing is asked while no listener has a log and nothing goes wrong.

use std::{
    cell::{Cell, RefCell},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::base::{ids::ListenerId, rng::Rng, table::Table};
use crate::net::{chance, clock};
use crate::observe::{access_log::Line, request_id::RequestId, writer::Outlet};

/// How long the time of day is reckoned from one look at the clock of the wall, in microseconds:
/// so long a step of that clock may go unseen.
const WALL_MICROS: u64 = 250_000;

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
    /// In microseconds since 1970, when the precise clock began to count.
    beginning: u64,
    /// Until when that is good, by the precise clock.
    until: u64,
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

    /// Milliseconds since 1970 at a moment of the precise clock.
    pub(crate) fn unix_ms(&self, moment: u64) -> u64 {
        let mut wall = self.wall.get();
        if moment >= wall.until {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let micros = u64::try_from(since.as_micros()).unwrap_or_default();
            let precise = clock::precise();
            wall.beginning = micros.saturating_sub(precise);
            wall.until = precise + WALL_MICROS;
            self.wall.set(wall);
        }
        (wall.beginning + moment) / 1000
    }

    /// A new id of a request, made at this moment of the precise clock.
    pub(crate) fn request_id(&self, moment: u64) -> RequestId {
        RequestId::new(self.unix_ms(moment), &mut self.chance.borrow_mut())
    }

    /// Writes a line at this time of the coarse clock; how many lines had to be dropped for it.
    pub(crate) fn write(&self, line: &Line<'_>, now: u64) -> u64 {
        let Some(outlet) = self.outlet(line.asker.listener) else { return 0 };
        let mut outlet = outlet.borrow_mut();
        outlet.write(line, now);
        outlet.take_dropped()
    }

    /// Hands over what is old; or all there is, where nothing may follow for a long time.
    pub(crate) fn turn(&self, now: u64, all: bool) {
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
