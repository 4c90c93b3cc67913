//! The access logs of one core: its end of each.

use std::cell::RefCell;

use crate::base::{ids::ListenerId, moment::Tick, table::Table};
use crate::observe::{access_log::AccessLine, writer::Outlet};

/// The access logs of one core.
pub(crate) struct Logs {
    /// By listener; none if it has no log.
    outlets: RefCell<Table<ListenerId, Outlet>>,
}

impl Logs {
    pub(crate) fn new(outlets: Table<ListenerId, Outlet>) -> Logs {
        Logs { outlets: RefCell::new(outlets) }
    }

    /// Adds these logs; what is buffered for a log that is dropped is handed over.
    pub(crate) fn change(
        &self,
        outlets: Table<ListenerId, Outlet>,
        is_kept: impl Fn(ListenerId) -> bool,
    ) {
        self.keep(is_kept);
        let mut all = self.outlets.borrow_mut();
        outlets.into_rows().for_each(|(id, outlet)| drop(all.insert(id, outlet)));
    }

    /// Keeps the logs of these listeners alone.
    pub(crate) fn keep(&self, is_kept: impl Fn(ListenerId) -> bool) {
        let mut all = self.outlets.borrow_mut();
        let gone: Vec<ListenerId> = all.ids().filter(|id| !is_kept(*id)).collect();
        gone.into_iter().for_each(|id| drop(all.remove(id)));
    }

    /// Whether requests of a listener are logged.
    #[inline]
    pub(crate) fn is_on(&self, listener: ListenerId) -> bool {
        self.outlets.borrow().get(listener).is_some()
    }

    /// Writes a line at this time; returns how many lines had to be dropped for it.
    pub(crate) fn write(&self, line: &AccessLine<'_>, now: Tick) -> u64 {
        let mut outlets = self.outlets.borrow_mut();
        let Some(outlet) = outlets.get_mut(line.asker.listener) else { return 0 };
        outlet.write(line, now);
        outlet.take_dropped()
    }

    /// Hands over old lines; or all of them, if none may follow for a long time.
    pub(crate) fn turn(&self, now: Tick, all: bool) {
        for outlet in self.outlets.borrow_mut().values_mut() {
            if all {
                outlet.hand_over();
            } else {
                outlet.hand_over_old(now);
            }
        }
    }

    /// Hands over all lines; false if the writer has no room for them.
    pub(crate) fn hand_over(&self) -> bool {
        let mut outlets = self.outlets.borrow_mut();
        outlets.values_mut().filter_map(|outlet| (!outlet.hand_over()).then_some(())).count() == 0
    }

    /// Frees memory that only a peak needed.
    pub(crate) fn give_memory_back(&self) {
        self.outlets.borrow_mut().values_mut().for_each(Outlet::forget_spares);
    }
}
