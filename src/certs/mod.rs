//! Certificates: from the bytes of files to what TLS signs with and trusts, or to a sentence why
//! not.
//!
//! Floor 2. Pure: `Files` reads, and the time is a parameter, so the check of a configuration and
//! the thread that looks after certificates say the same of the same files. Nothing here knows
//! listeners or pools.

mod chain;
mod facts;
mod files;
mod folder;
mod pair;
mod pem;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod trust;

use std::fmt;

#[cfg(any(test, feature = "bench"))]
pub(crate) use self::{facts::describe, pair::load};

pub(crate) use self::{
    facts::{Facts, days_in_words},
    files::{FILE_BYTES_MAX, Files, Stamp},
    folder::pairs_in,
    pair::{Pair, Part, read},
    trust::{TrustPart, clients, next_update, servers, unverified},
};

/// Why something in a file cannot be used, or should be looked at, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A part of a sentence that begins with the file: `has no certificate`.
    pub(crate) what: String,
    pub(crate) help: Option<String>,
}

impl Finding {
    pub(crate) fn new(what: impl Into<String>) -> Finding {
        Finding { what: what.into(), help: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Finding {
        Finding { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}
