//! The access logs as one core has them: its end of each.
//!
//! Nothing here waits.

use std::cell::RefCell;

use crate::base::{ids::ListenerId, moment::Tick, table::Table};
use crate::observe::{access_log::Line, writer::Outlet};

/// What one core has of the access logs.
pub(crate) struct Logs {
    /// By listener; none where it has no log.
    outlets: Table<ListenerId, RefCell<Outlet>>,
}

impl Logs {
    pub(crate) fn new(outlets: Table<ListenerId, Outlet>) -> Logs {
        Logs {
            outlets: outlets.into_rows().map(|(id, outlet)| (id, RefCell::new(outlet))).collect(),
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
