//! Panic net: the task of one connection, which catches a panic.
//!
//! What is caught here is a bug; it costs one client its connection and no other. What serves a
//! connection is not known here.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use crate::net::io::task;
use crate::shared::counters::Counter;
use crate::worker::Worker;

/// Runs the future that serves one connection as a task of its own.
pub(super) fn catching(worker: Rc<Worker>, serving: impl Future<Output = ()> + 'static) {
    task(Catching { worker, serving: Box::pin(serving) });
}

/// A connection's task with a net: a panic ends this connection and no other, and is counted as the
/// bug it is. A future by hand, because an `async` block would keep what it serves twice.
pub(super) struct Catching {
    worker: Rc<Worker>,
    serving: Pin<Box<dyn Future<Output = ()>>>,
}

impl Future for Catching {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let serving = self.serving.as_mut();
        catch_unwind(AssertUnwindSafe(|| serving.poll(cx))).unwrap_or_else(|_| {
            self.worker.count(Counter::Panics);
            Poll::Ready(())
        })
    }
}
