//! Control messages to a core or to the health thread: a bounded channel, and a bell that wakes the
//! thread's ring.
//!
//! Only the threads that start, stop and own the plan send here. Messages between cores about
//! requests go another way (`rooms.rs`), so no load can crowd a control message out. A send waits
//! for a bounded time and returns whether it succeeded: the sender must act on that.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Instant};

use crossbeam_channel::{Receiver, Sender};

use super::bell::Rope;

/// Messages that may wait for one thread: they are rare, and a thread reads them within a turn.
const MESSAGES_MAX: usize = 64;

/// A message was not accepted: the thread has ended, or did not read within the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unheard;

/// The sending end.
pub(crate) struct Outbox<T> {
    sender: Sender<T>,
    rope: Rope,
}

/// The thread's own end.
pub(crate) struct Inbox<T> {
    receiver: Receiver<T>,
    rope: Rope,
}

/// A thread's mailbox, both ends.
///
/// # Errors
/// The kernel's, if it gives no descriptor.
pub(crate) fn mailbox<T>() -> io::Result<(Outbox<T>, Inbox<T>)> {
    let rope = Rope::new()?;
    let (sender, receiver) = crossbeam_channel::bounded(MESSAGES_MAX);
    Ok((Outbox { sender, rope: rope.clone() }, Inbox { receiver, rope }))
}

// By hand: a derived one requires `T: Clone`.
impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Outbox<T> {
        Outbox { sender: self.sender.clone(), rope: self.rope.clone() }
    }
}

impl<T> Outbox<T> {
    /// What wakes the thread.
    pub(crate) fn rope(&self) -> &Rope {
        &self.rope
    }

    /// Sends a message and wakes the thread; if the box is full, waits for room until then.
    ///
    /// # Errors
    /// `Unheard` if the message was not accepted.
    pub(crate) fn send(&self, message: T, until: Instant) -> Result<(), Unheard> {
        self.sender.send_deadline(message, until).map_err(|_| Unheard)?;
        self.rope.pull();
        Ok(())
    }
}

impl<T> Inbox<T> {
    /// The next message, if there is one.
    pub(crate) fn next(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// The bell that rings when a message is sent.
    pub(crate) fn bell(&self) -> &Arc<OwnedFd> {
        self.rope.bell()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_send_ends_in_time_and_says_whether_it_was_heard() {
        let (outbox, inbox) = mailbox::<u8>().unwrap();
        let soon = || Instant::now() + Duration::from_millis(20);
        for _ in 0..MESSAGES_MAX {
            assert_eq!(outbox.send(1, soon()), Ok(()));
        }
        let since = Instant::now();
        assert_eq!(outbox.send(2, soon()), Err(Unheard), "nobody looks");
        assert!(since.elapsed() >= Duration::from_millis(20));
        assert_eq!(inbox.next(), Some(1));
        assert_eq!(outbox.send(2, soon()), Ok(()));
        drop(inbox);
        assert_eq!(outbox.send(2, soon()), Err(Unheard), "nobody is there");
    }
}
