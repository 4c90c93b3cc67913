//! A handle on the waits for one peer, used beside the task that waits: it sets their deadlines and
//! ends them.

use std::{rc::Rc, time::Duration};

use crate::base::moment::Deadline;
use crate::net::{deadlines::Ended, fd::Half, leaving::ForClient, stream::Stream};

/// A handle on the waits for one peer.
#[derive(Clone)]
pub(crate) enum Waits {
    H1(Rc<Stream>),
}

impl Waits {
    fn stream(&self) -> &Stream {
        match self {
            Waits::H1(stream) => stream,
        }
    }

    /// Reading must go on by then.
    pub(crate) fn read_by(&self, deadline: Deadline) {
        self.stream().watched().read_by(deadline);
    }

    /// Writing must go on by then.
    pub(crate) fn write_by(&self, deadline: Deadline) {
        self.stream().watched().write_by(deadline);
    }

    /// Where reading is for a client: it is for this one.
    pub(crate) fn waits_for(&self, client: ForClient) {
        self.stream().watched().waits_for(client);
    }

    /// Ends whatever is waited for, and says why.
    pub(crate) fn end(&self, why: Ended) {
        self.stream().watched().end(why);
    }

    /// Nothing more is said to it.
    pub(crate) fn end_saying(&self) {
        self.stream().shut_down(Half::Writing);
    }

    /// Nothing more is said to it or heard of it; waits are over as if it had ended.
    pub(crate) fn cut(&self) {
        self.stream().shut_down(Half::Both);
    }

    /// What is sent may go that long without an acknowledgement.
    pub(crate) fn outlasts(&self, time: Duration) {
        self.stream().outlasts(time);
    }

    /// Whether either half was ended because it was overdue.
    pub(crate) fn is_overdue(&self) -> bool {
        self.stream().is_overdue()
    }
}
