//! What all tasks of the origins' thread hold, so that they can be ended and waited for.

use std::{rc::Rc, time::Duration};

use crate::net::{buffer::Buffers, clock::Clock, deadlines::Deadlines, io::sleep, signal::Signal};

/// Held by each task until it ends.
pub(super) struct Running {
    pub(super) buffers: Rc<Buffers>,
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) stopping: Signal,
}

impl Running {
    /// Keeps at most so many unused buffers.
    pub(super) fn new(buffers: usize) -> Running {
        let deadlines = Deadlines::new(Rc::new(Clock::new()));
        Running { buffers: Buffers::new(buffers), deadlines, stopping: Signal::default() }
    }

    /// Ends every wait.
    pub(super) fn stop(&self) {
        self.stopping.raise();
        self.deadlines.close_all();
    }

    /// Waits this long, or until the end.
    pub(super) async fn wait(&self, time: Duration) {
        if !time.is_zero() {
            self.stopping.or(sleep(time)).await;
        }
    }
}
