//! Upgrade of the binary: a new process takes over while this one serves, and this one ends when it
//! has finished what it has.
//!
//! `giver` is the thread of the old process, `taker` the new one; `message` has what they say,
//! `wire` how; `owner` is the control thread's part. The new process is started from the path of
//! the program, which may be another file by now, with the same arguments; its standard input is
//! the wire. It gets the listening sockets and those of the admin interface, and what is known of
//! backends; it starts completely, and accepts its first connection when the old one says so.
//! *Invariants:* until the new process says that it serves, the old one has stopped nothing, and
//! serves on if anything fails or takes too long; from then on both have the sockets, so that
//! whichever is killed, the other serves.

mod giver;
mod message;
mod owner;
mod taker;
mod wire;

pub(crate) use self::taker::tell_refusal;
pub(super) use self::{
    giver::{Means, Upgrades},
    message::State,
    owner::{Ask, Before, Kept, known, tell_times},
    taker::Taker,
};

/// Set for the new process: its standard input is the wire.
const VARIABLE: &str = "RINGWAY_UPGRADE";
