//! Cross-thread wake-up: an eventfd of another thread that this runtime polls.
//!
//! monoio's own cross-thread wake-ups (feature `sync`) have a known race; a descriptor works on
//! both drivers. Reading it as a file would fail on epoll (ESPIPE), so it is polled as a stream and
//! read directly.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use monoio::net::UnixStream;

use super::io::at_most;

/// A bell that this thread waits for.
pub(crate) struct Bell {
    polled: UnixStream,
    fd: Arc<OwnedFd>,
}

impl Bell {
    /// Takes an eventfd into the runtime of this thread.
    pub(crate) fn adopt(fd: &Arc<OwnedFd>) -> io::Result<Bell> {
        let copy = fd.as_fd().try_clone_to_owned()?;
        let polled = UnixStream::from_std(std::os::unix::net::UnixStream::from(copy))?;
        Ok(Bell { polled, fd: Arc::clone(fd) })
    }

    /// Until it has rung or the time is over.
    pub(crate) async fn rung_within(&self, time: Duration) -> io::Result<()> {
        at_most(time, self.rung()).await.map(drop)
    }

    /// Until it has rung since the last time; many rings are one.
    pub(crate) async fn rung(&self) -> io::Result<()> {
        let mut count = [0_u8; 8];
        loop {
            match rustix::io::read(self.fd.as_fd(), &mut count) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => self.polled.readable(false).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
