//! Why a balancer was not started.

use std::{error::Error, fmt, io, path::PathBuf};

use super::refusal::cannot_listen;
use crate::base::endpoint::Endpoint;

/// Why nothing was started; nothing is left running then.
///
/// As text it is one sentence for people, which says what to do if that is known.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The requested cores are not available to this process.
    Cores(String),
    /// The requested connections do not fit into the descriptors of the process.
    Descriptors(String),
    /// The required driver is not available.
    Driver(String),
    /// An address cannot be listened on.
    #[non_exhaustive]
    Listen {
        /// The address.
        address: Endpoint,
        /// What has it already, if known.
        holder: Option<Holder>,
        /// The kernel's error.
        error: io::Error,
    },
    /// An access log cannot be opened.
    #[non_exhaustive]
    AccessLog {
        /// The file; none = standard output.
        file: Option<PathBuf>,
        /// The kernel's error.
        error: io::Error,
    },
    /// The file with the secret of a pool's sticky cookies cannot be used.
    #[non_exhaustive]
    Secret {
        /// The pool.
        pool: String,
        /// The file.
        file: PathBuf,
        /// Why.
        cause: String,
    },
    /// A certificate, a key or an authority cannot be used.
    Certificates(String),
    /// The file with the token of the admin interface cannot be used.
    #[non_exhaustive]
    Token {
        /// The file.
        file: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The process cannot become the user that the plan names.
    #[non_exhaustive]
    User {
        /// The user.
        user: String,
        /// Why.
        cause: String,
    },
    /// The kernel gives no thread, no ring or no descriptor.
    #[non_exhaustive]
    System {
        /// What cannot be done: `start core 3`.
        what: String,
        /// The kernel's error.
        error: io::Error,
    },
    /// A thread hangs at its start, or has ended: a bug in Ringway.
    Hung(String),
    /// The plan contradicts itself: a bug in what checked it.
    Plan(String),
}

/// A process that listens on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

impl StartError {
    /// For something that the kernel does not allow.
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
        let what = what.into();
        |error| StartError::System { what, error }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Cores(why)
            | StartError::Descriptors(why)
            | StartError::Driver(why)
            | StartError::Certificates(why)
            | StartError::Plan(why) => f.write_str(why),
            StartError::Listen { address, holder, error } => {
                f.write_str(&cannot_listen(*address, error, holder.as_ref()))
            }
            StartError::AccessLog { file: Some(file), error } => {
                write!(f, "cannot open the access log {}: {error}", file.display())
            }
            StartError::AccessLog { file: None, error } => {
                write!(f, "cannot open the access log on standard output: {error}")
            }
            StartError::Secret { pool, file, cause } => {
                write!(f, "pool \"{pool}\": the secret file {} {cause}", file.display())
            }
            StartError::Token { file, error } => {
                write!(f, "the `token-file` {} cannot be used: {error}", file.display())
            }
            StartError::User { user, cause } => {
                write!(f, "`user` in [global], \"{user}\": {cause}")
            }
            StartError::System { what, error } => write!(f, "cannot {what}: {error}"),
            StartError::Hung(thread) => write!(f, "{thread} hangs at its start, or has ended"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::Listen { error, .. }
            | StartError::AccessLog { error, .. }
            | StartError::Token { error, .. }
            | StartError::System { error, .. } => Some(error),
            StartError::Cores(_)
            | StartError::Descriptors(_)
            | StartError::Driver(_)
            | StartError::Certificates(_)
            | StartError::Secret { .. }
            | StartError::User { .. }
            | StartError::Hung(_)
            | StartError::Plan(_) => None,
        }
    }
}
