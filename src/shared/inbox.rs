//! Messages to a worker: a bounded channel and an eventfd that wakes its ring.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustix::event::{EventfdFlags, eventfd};

use crate::base::ids::{BackendId, PoolId};

/// Messages that may wait for one worker: they are rare, and a worker looks within a turn.
const MESSAGES_MAX: usize = 64;

/// Where a backend that has a name is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) pool: PoolId,
    pub(crate) backend: BackendId,
    /// In the order to try them.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// What a worker can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// These backends have moved.
    Addresses(Arc<Vec<Found>>),
    /// Take no new connections and finish those there are.
    Drain,
    /// Close everything and end.
    Stop,
}

/// The end that others hold.
#[derive(Clone)]
pub(crate) struct Outbox {
    sender: Sender<Message>,
    bell: Arc<OwnedFd>,
}

/// The worker's end.
pub(crate) struct Inbox {
    receiver: Receiver<Message>,
    bell: Arc<OwnedFd>,
}

/// A worker's mailbox, both ends.
///
/// # Errors
/// The kernel's, where it gives no descriptor.
pub(crate) fn mailbox() -> io::Result<(Outbox, Inbox)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = crossbeam_channel::bounded(MESSAGES_MAX);
    Ok((Outbox { sender, bell: Arc::clone(&bell) }, Inbox { receiver, bell }))
}

impl Outbox {
    /// Sends a message and wakes the worker; false where the worker is gone or its box is full.
    pub(crate) fn send(&self, message: Message) -> bool {
        match self.sender.try_send(message) {
            Ok(()) => {
                // A full counter (2^64 - 2 rings unheard) still wakes.
                let _ = rustix::io::write(self.bell.as_fd(), &1_u64.to_ne_bytes());
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

impl Inbox {
    /// The next message, if there is one.
    pub(crate) fn next(&self) -> Option<Message> {
        self.receiver.try_recv().ok()
    }

    /// The bell that rings when a message was sent.
    pub(crate) fn bell(&self) -> &Arc<OwnedFd> {
        &self.bell
    }
}
