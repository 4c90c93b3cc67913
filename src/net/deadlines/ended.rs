//! Why a wait for a peer ended: returned to the waiting task, which cannot overlook it.
//!
//! Reading and writing end separately. A client whose request is late can still be answered, and if
//! it does not take its answer it is late again.

use std::{fmt, io};

/// Which half of a connection a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reading,
    Writing,
}

/// Why we ended one half of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was overdue.
    Overdue,
    /// The client that the wait was for has left.
    ClientLeft,
    /// What was waited for is asked of another backend.
    Moved,
    /// The worker stops, or needs the slot.
    Closed,
    /// Another process serves it from now on.
    GivenAway,
}

/// The result of a wait, or of a call that does not wait, that did not get what it was for.
#[derive(Debug)]
pub(crate) enum Unmet {
    /// We ended it: nothing is read or written any more, whatever the socket has.
    Ended(Ended),
    /// Nothing can be read or written now; only from calls that do not wait.
    NotNow,
    /// The peer or the network broke the connection.
    Broken(io::Error),
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unmet::Ended(why) => write!(f, "ended by us: {why:?}"),
            Unmet::NotNow => f.write_str("not now"),
            Unmet::Broken(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unmet {}
