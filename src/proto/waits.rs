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

    /// Reading must progress by then.
    pub(crate) fn read_by(&self, deadline: Deadline) {
        self.stream().watched().read_by(deadline);
    }

    /// Writing must progress by then.
    pub(crate) fn write_by(&self, deadline: Deadline) {
        self.stream().watched().write_by(deadline);
    }

    /// If reading is on behalf of a client: of this one.
    pub(crate) fn waits_for(&self, client: ForClient) {
        self.stream().watched().waits_for(client);
    }

    /// Ends every wait for this reason.
    pub(crate) fn end(&self, why: Ended) {
        self.stream().watched().end(why);
    }

    /// Ends writing to it.
    pub(crate) fn end_saying(&self) {
        self.stream().shut_down(Half::Writing);
    }

    /// Ends writing to it and reading from it; waits end as if it had closed.
    pub(crate) fn cut(&self) {
        self.stream().shut_down(Half::Both);
    }

    /// Sent data may go this long without an acknowledgement.
    pub(crate) fn outlasts(&self, time: Duration) {
        self.stream().outlasts(time);
    }

    /// Whether either half was ended because it was overdue.
    pub(crate) fn is_overdue(&self) -> bool {
        self.stream().is_overdue()
    }
}
