//! Run-time changes of backends, as data: what was added, removed or set since the configuration
//! was written.
//!
//! A change is about a name and its address together, as a backend is: a configuration that gives
//! the name to another server is not meant by it. `policy/overlay` applies it to a configuration.

use std::collections::BTreeMap;

use super::Address;

/// What a backend is for at the moment, by the decision of an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Duty {
    /// It takes its share.
    #[default]
    Up,
    /// It takes no new traffic, except from clients that stay with it.
    Draining,
    /// It takes no traffic and is not probed. What runs there ends by itself.
    Maintenance,
}

impl Duty {
    /// All of them.
    pub const ALL: [Duty; 3] = [Duty::Up, Duty::Draining, Duty::Maintenance];

    /// The word for the API, the command line and files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Duty::Up => "up",
            Duty::Draining => "draining",
            Duty::Maintenance => "maintenance",
        }
    }

    /// The duty of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Duty> {
        Duty::ALL.into_iter().find(|duty| duty.word() == word)
    }
}

/// What a run-time change is about: a backend of a pool, with the address that it had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The name of its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// Its address.
    pub address: Address,
}

/// A run-time change of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amendment {
    /// The configuration does not have it.
    Added(Settings),
    /// The configuration has it, and it is out.
    Removed,
    /// The configuration has it, with other values.
    Set(Settings),
}

/// Values set at run time; none = that of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Its weight.
    pub weight: Option<u16>,
    /// What it is for.
    pub duty: Option<Duty>,
}

impl Settings {
    /// These, and those of `earlier` that these leave open.
    #[must_use]
    pub fn over(self, earlier: Settings) -> Settings {
        Settings { weight: self.weight.or(earlier.weight), duty: self.duty.or(earlier.duty) }
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Settings::default()
    }
}

/// The run-time changes of all pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// In the order of the names.
    pub changes: BTreeMap<Subject, Amendment>,
}
