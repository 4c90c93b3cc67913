//! The messages between the old process and the new one, version 1.
//!
//! In order: the old one sends `Hello` with all listening sockets; the new one answers `Ready` when
//! it could serve, or `Refused`; the old one says `Go`; the new one accepts connections and says
//! `Serving`; the old one accepts no more (what waits where the new one does not serve, it serves
//! first), gives its resting connections away, makes the new one the main process of the service
//! manager and says `Yours`; then `Status` while it finishes what it has, and `Over` at its end.
//! The new one says `Leaving` if it is stopped meanwhile.
//!
//! Either side may be of another version of the program. What a reader does not know it ignores,
//! and what it misses has a default; so a field may be added. Where that does not do, `VERSION`
//! grows, and the new process, which is asked first, refuses what it cannot read.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::endpoint::Endpoint;
use crate::observe::carried::Counts;
use crate::policy::{balance::CarriedTimes, standing::Carried};

/// The version of these messages.
pub(super) const VERSION: u32 = 1;

/// What one process tells the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub(super) enum Message {
    Hello(Box<Hello>),
    Ready(Program),
    /// The new process cannot serve; `problems` is a picture of what is wrong.
    Refused {
        why: String,
    },
    Go,
    /// It accepts connections for these listeners, at these addresses; none = at all that it was
    /// given.
    Serving {
        #[serde(default)]
        at: Option<Vec<(String, Endpoint)>>,
    },
    Connections {
        of: Vec<Connection>,
    },
    Yours,
    Status {
        connections: u64,
    },
    Over {
        counts: Counts,
    },
    Leaving,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Program {
    pub(crate) pid: u32,
    pub(crate) version: String,
}

impl Program {
    /// This one.
    pub(super) fn own() -> Program {
        Program { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// What the new process gets: its descriptors are `sockets`, then those of the admin interface.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) program: Program,
    pub(super) sockets: Vec<Listening>,
    /// The address of the admin interface, and the path of its Unix socket.
    pub(super) admin: Option<SocketAddr>,
    pub(super) admin_socket: Option<PathBuf>,
    pub(super) state: State,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Listening {
    pub(super) address: Endpoint,
    /// The service manager has it, too.
    pub(super) is_shared: bool,
}

/// The state that lives on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// What `Via` calls the process.
    pub(crate) pseudonym: Option<String>,
    /// The secret of sticky cookies, if it is in no file.
    pub(crate) secret: Option<String>,
    /// The same of session tickets.
    pub(crate) ticket_secret: Option<String>,
    pub(crate) counts: Counts,
    /// What is known of each backend, by pool and name.
    pub(crate) backends: Vec<(String, String, Carried)>,
    /// How long each takes, and how often it fails, for the algorithms that ask for it.
    pub(crate) times: Vec<(String, String, CarriedTimes)>,
}

/// A client connection on which nothing is in flight.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Connection {
    pub(super) listener: String,
    /// It has had an answer, and awaits its next request.
    pub(super) is_idle: bool,
}
