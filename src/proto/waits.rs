//! A handle on the waits for one peer, used beside the task that waits: it sets their deadlines and
//! ends them.

use std::{rc::Rc, time::Duration};

use super::h2;
use crate::base::moment::Deadline;
use crate::net::{
    deadlines::{End, Ended, Watched},
    fd::Half,
    leaving::ForClient,
    stream::Stream,
};

/// A handle on the waits for one peer.
#[derive(Clone)]
pub(crate) enum Waits {
    H1(Rc<Stream>),
    H2(Rc<h2::Stream>),
}

impl Waits {
    fn watched(&self) -> &Watched {
        match self {
            Waits::H1(stream) => stream.watched(),
            Waits::H2(stream) => stream.watched(),
        }
    }

    /// Reading must progress by then.
    pub(crate) fn read_by(&self, deadline: Deadline) {
        self.watched().read_by(deadline);
    }

    /// Writing must progress by then.
    pub(crate) fn write_by(&self, deadline: Deadline) {
        self.watched().write_by(deadline);
    }

    /// If reading is on behalf of a client: of this one.
    pub(crate) fn waits_for(&self, client: ForClient) {
        self.watched().waits_for(client);
    }

    /// It has the whole of a request that it may carry out, whoever waits for the answer.
    pub(crate) fn is_entrusted(&self) {
        match self {
            Waits::H1(stream) => stream.watched().entrusts(true),
            // A stream is reset, and never its connection.
            Waits::H2(_) => {}
        }
    }

    /// Ends every wait for this reason.
    pub(crate) fn end(&self, why: Ended) {
        self.watched().end(why);
    }

    /// Ends writing to it. `is_last`: it is closed in a moment.
    pub(crate) fn end_saying(&self, is_last: bool) {
        match self {
            Waits::H1(stream) if is_last && stream.can_splice() => {}
            Waits::H1(stream) => stream.shut_down(Half::Writing),
            // The end of a body is said with its last piece.
            Waits::H2(_) => {}
        }
    }

    /// Ends reading from it; a wait for it ends as if it had closed its half.
    pub(crate) fn end_hearing(&self) {
        match self {
            Waits::H1(stream) => stream.shut_down(Half::Reading),
            Waits::H2(stream) => stream.cut(),
        }
    }

    /// Bytes pass through it: however a wait ends, its peer is told nothing.
    pub(crate) fn tunnels(&self) {
        match self {
            Waits::H1(stream) => stream.watched().is_of_tunnel(),
            // Its frames say whether it is whole.
            Waits::H2(_) => {}
        }
    }

    /// As a client: bytes pass through it no more.
    pub(crate) fn tunnels_no_more(&self) {
        match self {
            Waits::H1(stream) => stream.watched().is_client_again(),
            Waits::H2(_) => {}
        }
    }

    /// Its connection ends with a reset, so that what it was sent cannot look complete.
    pub(crate) fn breaks(&self) {
        match self {
            Waits::H1(stream) => stream.reset_on_close(),
            Waits::H2(stream) => stream.cut(),
        }
    }

    /// Ends writing to it and reading from it; waits end as if it had closed.
    pub(crate) fn cut(&self) {
        match self {
            Waits::H1(stream) => stream.shut_down(Half::Both),
            Waits::H2(stream) => stream.cut(),
        }
    }

    /// Sent data may go this long without an acknowledgement.
    pub(crate) fn outlasts(&self, time: Duration) {
        match self {
            Waits::H1(stream) => stream.outlasts(time),
            Waits::H2(_) => {}
        }
    }

    /// Whether the worker stops, and has ended either half.
    pub(crate) fn is_closed(&self) -> bool {
        let ended = [End::Reading, End::Writing].map(|end| self.watched().ended(end));
        ended.contains(&Some(Ended::Closed))
    }

    /// Whether either half was ended because it was overdue.
    pub(crate) fn is_overdue(&self) -> bool {
        match self {
            Waits::H1(stream) => stream.is_overdue(),
            Waits::H2(stream) => stream.is_overdue(),
        }
    }
}
