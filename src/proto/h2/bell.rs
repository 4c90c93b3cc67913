//! A bell: tasks of one core wait until something has changed, and look for themselves.
//!
//! It is no flag: who comes after it has rung waits for the next time. So a task looks first, and
//! then waits. Nothing is in flight meanwhile, and such a wait may be dropped.

use std::{cell::RefCell, task::Waker};

/// A bell.
#[derive(Default)]
pub(crate) struct Bell(RefCell<Vec<Waker>>);

impl Bell {
    /// Wakes all that wait.
    #[inline]
    pub(crate) fn ring(&self) {
        if !self.0.borrow().is_empty() {
            self.0.take().into_iter().for_each(Waker::wake);
        }
    }

    /// This task is woken the next time.
    pub(crate) fn wakes(&self, task: &Waker) {
        let mut waiting = self.0.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(task)) {
            waiting.push(task.clone());
        }
    }
}
