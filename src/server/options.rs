//! Options: what a balancer may do to the process that it runs in.

use std::{net::SocketAddr, path::PathBuf};

use super::secrets::state_directories;

/// What a balancer may do to the process that it runs in. By default nothing: it uses only its own
/// threads, sockets, and the files that the plan names.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Folders for state that must outlive it, the best first: the key of sticky cookies whose pool
    /// names no `secret-file`. Without any the cookies end with the balancer.
    pub state_directories: Vec<PathBuf>,
    /// The name servers that are asked for the addresses of backends; none = those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// Whether it may raise the descriptor limit of the process, as far as the kernel allows.
    pub raise_descriptor_limit: bool,
    /// Whether it returns free memory to the kernel after a peak, by `malloc_trim(3)`, which
    /// affects all that the process has allocated.
    pub trim_memory: bool,
    /// Whether the process exits with 1 when a thread of the balancer dies through a bug. Otherwise
    /// that is an event (`ThreadDied`), and the other threads go on: a core that has died has
    /// closed its connections and no longer listens.
    pub exit_on_death: bool,
}

impl Options {
    /// All of it, if the process is ours alone.
    pub(crate) fn of_the_process() -> Options {
        Options {
            state_directories: state_directories(),
            name_servers: Vec::new(),
            raise_descriptor_limit: true,
            trim_memory: true,
            exit_on_death: true,
        }
    }
}
