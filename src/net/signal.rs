//! A flag that tasks of one thread can wait for.
//!
//! It is no operation: nothing is in flight while somebody waits for it, so such a wait may always
//! be dropped. Threads tell each other by `shared::bell`.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    task::{Poll, Waker},
};

/// A flag that stays up once it is raised, until somebody lowers it.
#[derive(Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Raises it and wakes whoever waits.
    pub(crate) fn raise(&self) {
        self.raised.set(true);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Takes it down again.
    pub(crate) fn lower(&self) {
        self.raised.set(false);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.get()
    }

    /// Until `wait` is over (its output) or the flag is up (none). `wait` is dropped then, so it
    /// must be a wait that may be dropped at will.
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
