//! A flag that tasks of one thread can wait for.
//!
//! Waiting for it is not an operation: nothing is in flight meanwhile, so such a wait may always be
//! dropped. Between threads `shared::bell` does this.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    task::{Poll, Waker},
};

/// A flag that stays up once it is raised, until it is lowered.
#[derive(Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Raises it and wakes the waiting tasks.
    pub(crate) fn raise(&self) {
        self.raised.set(true);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Lowers it again.
    pub(crate) fn lower(&self) {
        self.raised.set(false);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.get()
    }

    /// Until `wait` is over (its output) or the flag is up (none). `wait` is then dropped, so it
    /// must be a wait that may be dropped at any time.
    pub(crate) async fn or<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = pin!(wait);
        let mut place = Place { signal: self, task: None };
        poll_fn(|cx| {
            if self.raised.get() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = wait.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            place.take(cx.waker());
            Poll::Pending
        })
        .await
    }
}

/// The place of a task that waits. It is left when the wait is over, however that ends: a waker
/// that stays keeps the memory of its task.
struct Place<'a> {
    signal: &'a Signal,
    task: Option<Waker>,
}

impl Place<'_> {
    fn take(&mut self, task: &Waker) {
        if !self.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            self.leave();
            self.signal.waiting.borrow_mut().push(task.clone());
            self.task = Some(task.clone());
        }
    }

    fn leave(&mut self) {
        let Some(task) = self.task.take() else { return };
        let mut waiting = self.signal.waiting.borrow_mut();
        if let Some(place) = waiting.iter().position(|other| other.will_wake(&task)) {
            waiting.swap_remove(place);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::on_both_drivers;

    #[test]
    fn whoever_waited_leaves_nothing_behind() {
        on_both_drivers(|| async {
            let signal = Signal::default();
            let mut left = 2;
            let wait = poll_fn(|cx| {
                left -= 1;
                cx.waker().wake_by_ref();
                if left == 0 { Poll::Ready("over") } else { Poll::Pending }
            });
            assert_eq!(signal.or(wait).await, Some("over"));
            assert!(signal.waiting.borrow().is_empty());
            let never = std::future::pending::<()>();
            let mut waits = Box::pin(signal.or(never));
            let mut cx = std::task::Context::from_waker(Waker::noop());
            assert!(waits.as_mut().poll(&mut cx).is_pending());
            assert_eq!(signal.waiting.borrow().len(), 1);
            drop(waits);
            assert!(signal.waiting.borrow().is_empty());
            signal.raise();
            assert_eq!(signal.or(std::future::pending::<()>()).await, None);
        });
    }
}
