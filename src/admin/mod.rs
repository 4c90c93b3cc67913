//! The admin listener: what operators and their tools ask of a running process, over HTTP.
//!
//! Floor 9. `bound` is where it listens; `serve` accepts, bounded in connections and time, on
//! threads of its own: a request here costs a serving core nothing. `request` reads with the parser
//! and the framing of the data path; `guard` says who may ask; `api` has the calls; `answer` is
//! what they give. What a call does is behind [`Doors`], which the server opens. *Invariants:* GET
//! changes nothing; a write comes from a peer that may write, and never from a browser of another
//! origin.

mod answer;
mod api;
mod bound;
mod guard;
mod request;
mod serve;
#[cfg(test)]
mod tests;

use serde_json::Value;

#[cfg_attr(not(test), expect(unused_imports, reason = "reloads open it"))]
pub(crate) use self::{bound::Bound, serve::Admin};

/// What the admin listener may ask of the process.
pub(crate) trait Doors: Send + Sync + 'static {
    /// Why the process is not ready to be sent traffic; nothing where it is.
    fn not_ready(&self) -> Vec<String>;

    /// The number of the plan in force. Each change makes a new one.
    fn generation(&self) -> u64;

    /// Version, uptime, driver, cores, listeners.
    fn status(&self) -> Value;

    /// Reads the configuration again and serves by it, or only says what would change.
    ///
    /// # Errors
    /// What is wrong with it; then nothing has changed.
    fn reload(&self, how: Reload) -> Result<Reloaded, Refused>;
}

/// How to reload, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reload {
    /// Only say what would change.
    pub(crate) dry_run: bool,
    /// Where the call came from, for the event.
    pub(crate) from: String,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// The plan in force now.
    pub(crate) generation: u64,
    /// What changed, a line each, as people read it.
    pub(crate) lines: Vec<String>,
    /// Keys that changed and cannot change while the process runs.
    pub(crate) kept: Vec<String>,
    /// Warnings about the configuration.
    pub(crate) warnings: Vec<String>,
}

/// Why a configuration was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// In one sentence.
    pub(crate) why: String,
    /// All problems, drawn as `check` draws them; empty where it is no problem of the text.
    pub(crate) problems: String,
}
