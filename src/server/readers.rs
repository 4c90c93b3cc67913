//! The threads that serve by a plan: the mailboxes of every core and of the health thread.

use crate::health::ToHealth;
use crate::shared::inbox::Outbox;
use crate::worker::ToCore;

/// The mailboxes of the threads that take a plan.
#[derive(Clone)]
pub(super) struct Readers {
    pub(super) cores: Vec<Outbox<ToCore>>,
    pub(super) health: Outbox<ToHealth>,
}
