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
        poll_fn(|cx| {
            if self.raised.get() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = wait.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}
