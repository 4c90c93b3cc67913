//! Messages to a worker or to the health thread: a bounded channel and a bell that wakes its ring.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::bell::Rope;
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
    /// There may be room again in front of this pool, or at this backend: call who waits.
    Room(PoolId, Option<BackendId>),
    /// Take no new connections and finish those there are; only workers have any.
    Drain,
    /// Close everything and end.
    Stop,
}

/// The end that others hold.
#[derive(Clone)]
pub(crate) struct Outbox {
    sender: Sender<Message>,
    rope: Rope,
}

/// The worker's end.
pub(crate) struct Inbox {
    receiver: Receiver<Message>,
    rope: Rope,
}

/// A worker's mailbox, both ends.
///
/// # Errors
/// The kernel's, where it gives no descriptor.
pub(crate) fn mailbox() -> io::Result<(Outbox, Inbox)> {
    let rope = Rope::new()?;
    let (sender, receiver) = crossbeam_channel::bounded(MESSAGES_MAX);
    Ok((Outbox { sender, rope: rope.clone() }, Inbox { receiver, rope }))
}

impl Outbox {
    /// What wakes the worker.
    pub(crate) fn rope(&self) -> &Rope {
        &self.rope
    }

    /// Sends a message and wakes the worker; false where the worker is gone or its box is full.
    pub(crate) fn send(&self, message: Message) -> bool {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.rope.pull();
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
        self.rope.bell()
    }
}
