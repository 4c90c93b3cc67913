//! The admin interface: HTTP for operators and their tools.
//!
//! Floor 9. `bound` has the sockets; `serve` accepts, bounded in connections and time, on threads
//! of its own: a request here costs a serving core nothing. `request` reads with the parser and the
//! framing of the data path; `guard` has the access control; `api` the calls; `answer` their
//! results. The effect of a call is behind [`Doors`], which the server implements. *Invariants:*
//! GET changes nothing; a write comes from a peer that may write, and never from a browser of
//! another origin.

mod answer;
mod api;
mod bound;
mod guard;
mod request;
mod serve;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub(crate) use self::{
    bound::{Bound, admin_socket, admin_sockets, named},
    serve::Admin,
};

/// What the admin interface may do to the process.
pub(crate) trait Doors: Send + Sync + 'static {
    /// The reasons why the process is not ready for traffic; empty if it is.
    fn not_ready(&self) -> Vec<String>;

    /// The number of the plan in force. Each change makes a new one.
    fn generation(&self) -> u64;

    /// Version, uptime, driver, cores, listeners.
    fn status(&self) -> Value;

    /// Reads the configuration again and serves by it, or only returns what would change.
    ///
    /// # Errors
    /// What is wrong with it; then nothing has changed.
    fn reload(&self, how: Reload) -> Result<Reloaded, Refused>;
}

/// The options of a reload, and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reload {
    /// Only return what would change.
    pub(crate) dry_run: bool,
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
    /// Warnings about the configuration.
    pub(crate) warnings: Vec<String>,
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// In one sentence.
    pub(crate) why: String,
    /// All problems, drawn as `check` draws them; empty if it is no problem of the text.
    pub(crate) problems: String,
}
