//! The admin interface: HTTP for operators and their tools.
//!
//! Floor 9. `bound` has the sockets; `serve` accepts, bounded in connections and time, on threads
//! of its own: a request here costs a serving core nothing. `request` reads with the parser and the
//! framing of the data path; `guard` has the access control; `api` the calls, of which `backends`
//! has those about pools, `explain` that about requests, `scrape` that of scrapers, `feed` streams,
//! `page` the dashboard; `answer` their results. The effect of a call is behind [`Doors`], which
//! the server implements.
//! *Invariants:* GET changes nothing; a write comes from a peer that may write, and never from a
//! browser of another origin.

mod answer;
mod api;
mod backends;
mod bound;
mod explain;
mod feed;
mod guard;
mod page;
mod request;
mod scrape;
mod serve;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use crossbeam_channel::Receiver;
use serde_json::Value;

pub(crate) use self::{
    backends::encoded,
    bound::{Bound, admin_socket, admin_sockets, hash_of, named},
    serve::{Admin, Closing},
};
use crate::observe::statistics::metrics::{Format, Text};
use crate::policy::overlay::{self as order, Order};

/// What the admin interface may do to the process.
pub(crate) trait Doors: Send + Sync + 'static {
    /// The reasons why the process is not ready for traffic; empty if it is.
    fn not_ready(&self) -> Vec<String>;

    /// The number of the plan in force. Each change makes a new one.
    fn generation(&self) -> u64;

    /// Version, uptime, driver, cores, listeners.
    fn status(&self) -> Value;

    /// The certificates in use.
    fn certificates(&self) -> Vec<Value>;

    /// Configuration and state of each pool.
    fn pools(&self) -> Pools;

    /// Everything that is counted, for people: the number of the plan in force, and an object.
    fn stats(&self) -> (u64, Value);

    /// Everything that is counted, for scrapers; none if the process does not answer.
    fn metrics(&self, format: Format) -> Option<Text>;

    /// What is sent on from now on, after the event of this id.
    fn follow(&self, feed: Feed, after: Option<String>) -> Receiver<Arc<str>>;

    /// The last second, as the stream has it; none if there was none yet.
    fn frame(&self) -> Option<Arc<str>>;

    /// What would become of a request.
    ///
    /// # Errors
    /// Why that cannot be said, in a sentence.
    fn explain(&self, asked: &Explain) -> Result<Value, String>;

    /// What has happened, as far as it is asked for.
    fn history(&self, query: &HistoryQuery) -> Value;

    /// Carries out an order about a backend.
    ///
    /// # Errors
    /// Why it is refused; then nothing has changed.
    fn write(&self, write: BackendWrite) -> Result<BackendWritten, WriteDenied>;

    /// Reads the configuration again and serves by it, or only returns what would change.
    ///
    /// # Errors
    /// What is wrong with it; then nothing has changed.
    fn reload(&self, how: Reload) -> Result<Reloaded, Refused>;

    /// Lets a new process of the program take over; the call came from `from`.
    ///
    /// # Errors
    /// Why none does; then this one serves on.
    fn upgrade(&self, from: &str) -> Result<Upgraded, Refused>;
}

/// A stream of server-sent events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// What happens.
    Events,
    /// The same, and once a second a frame of statistics.
    Stream,
}

/// A request that is only asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Explain {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    /// Whom its connection would come from; none = this machine.
    pub(crate) from: Option<IpAddr>,
    /// The listener that it would come to; none = that of its port.
    pub(crate) listener: Option<String>,
}

/// Which part of the timeline is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryQuery {
    pub(crate) pool: Option<String>,
    pub(crate) backend: Option<String>,
    /// How far back.
    pub(crate) since: Duration,
}

/// Pools as the admin interface shows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools {
    /// The number of the plan in force.
    pub(crate) generation: u64,
    /// Each with its `name` and its `backends`, each of which has a `name`.
    pub(crate) pools: Vec<Value>,
}

/// An order about a backend, and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendWrite {
    pub(crate) order: Order,
    /// How long a removal waits until the backend is empty; none = it does not.
    pub(crate) drain: Option<Duration>,
    /// The plans that it is meant for, by their numbers; none = any.
    pub(crate) only_if: Option<Vec<u64>>,
    /// Where the call came from, for the event.
    pub(crate) from: String,
}

/// The result of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendWritten {
    /// The plan in force now.
    pub(crate) generation: u64,
    /// Whether the backend is to be removed, and drains so far.
    pub(crate) is_draining: bool,
    /// Where it is not in force yet, in sentences.
    pub(crate) warnings: Vec<String>,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteDenied {
    /// It makes no plan.
    Order(order::Refused),
    /// The plan of this number is in force, for which it is not meant.
    Moved(u64),
    /// It cannot be kept on disk.
    NotKept(String),
    /// Another reason, in one sentence.
    Failed(String),
}

impl fmt::Display for WriteDenied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteDenied::Order(refused) => refused.fmt(f),
            WriteDenied::Moved(generation) => write!(f, "plan {generation} is in force now"),
            WriteDenied::NotKept(why) | WriteDenied::Failed(why) => f.write_str(why),
        }
    }
}

/// The options of a reload, and its origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reload {
    /// Only return what would change.
    pub(crate) dry_run: bool,
    /// Drop all run-time changes.
    pub(crate) discard: bool,
    /// The plans that it is meant for, by their numbers; none = any.
    pub(crate) only_if: Option<Vec<u64>>,
    /// Where the call came from, for the event.
    pub(crate) from: String,
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// The plan in force now.
    pub(crate) generation: u64,
    /// The changes, one per line, for people.
    pub(crate) lines: Vec<String>,
    /// Keys that changed and cannot change while the process runs.
    pub(crate) kept: Vec<String>,
    /// Warnings about the configuration, and where it is not in force yet.
    pub(crate) warnings: Vec<String>,
    /// Client connections of listeners that are gone.
    pub(crate) closed: u64,
}

/// The process that has taken over, and what this one still has to finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upgraded {
    /// Its id.
    pub(crate) pid: u32,
    /// The version of its program.
    pub(crate) version: String,
    /// Client connections that this process still has.
    pub(crate) connections: u64,
    /// How long it may take to finish them.
    pub(crate) drain: Duration,
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// In one sentence.
    pub(crate) why: String,
    /// All problems, drawn as `check` draws them; empty if it is no problem of the text.
    pub(crate) problems: String,
    /// The plan in force, if the reload was meant for another.
    pub(crate) moved_to: Option<u64>,
}
