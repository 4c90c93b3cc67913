//! Thread wake-up: an eventfd that other threads write to and the thread's runtime polls.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::event::{EventfdFlags, eventfd};

/// The writing end of a thread's bell (`net::wake`).
#[derive(Clone)]
pub(crate) struct Rope(Arc<OwnedFd>);

impl Rope {
    /// Makes a new bell.
    ///
    /// # Errors
    /// The kernel's, if it gives no descriptor.
    pub(crate) fn new() -> io::Result<Rope> {
        Ok(Rope(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Wakes the thread.
    pub(crate) fn pull(&self) {
        // A full counter (2^64 - 2 unread rings) still wakes.
        let _ = rustix::io::write(self.0.as_fd(), &1_u64.to_ne_bytes());
    }

    /// The bell itself, for the thread that polls it.
    pub(crate) fn bell(&self) -> &Arc<OwnedFd> {
        &self.0
    }
}
