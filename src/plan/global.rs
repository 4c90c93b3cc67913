//! Process-wide settings: cores, driver, log, shutdown.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::webhook::Webhook;

/// Process-wide settings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Global {
    /// Which cores serve.
    pub cores: Cores,
    /// Whether each serving thread is pinned to its core.
    pub pin: bool,
    /// What the threads wait on.
    pub driver: Driver,
    /// The name of this process in logs, metrics and status; never sent to a peer.
    pub instance: String,
    /// How the process shuts down.
    pub shutdown: Shutdown,
    /// How much the operational log says.
    pub log_level: LogLevel,
    /// How the operational log is written.
    pub log_format: LogFormat,
    /// The admin interface.
    pub admin: Admin,
    /// The folder that keeps state over a restart; none = the default ones.
    pub state_dir: Option<PathBuf>,
    /// The user that the process becomes if root starts it.
    pub user: Option<String>,
    /// Where chosen events are sent.
    pub webhooks: Vec<Webhook>,
}

impl Default for Global {
    fn default() -> Global {
        Global {
            cores: Cores::Auto,
            pin: true,
            driver: Driver::Auto,
            instance: String::new(),
            shutdown: Shutdown::default(),
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            admin: Admin::default(),
            state_dir: None,
            user: None,
            webhooks: Vec::new(),
        }
    }
}

/// Settings of the admin interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admin {
    /// The address to listen on; none = off.
    pub bind: Option<SocketAddr>,
    /// Whether the address is written down. The default is given up if another process has its
    /// port.
    pub is_written: bool,
    /// The file with the token that a write must show; none = writes are accepted only from this
    /// machine.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Admin {
        let bind = Some(SocketAddr::from(([127, 0, 0, 1], 9900)));
        Admin { bind, is_written: false, token_file: None }
    }
}

/// Which cores serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cores {
    /// Every core of the affinity mask, bounded by the cgroup's CPU limit.
    #[default]
    Auto,
    /// That many cores of the affinity mask.
    Count(u16),
    /// Exactly these cores.
    List(Vec<u16>),
}

/// What a serving thread waits on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll.
    #[default]
    Auto,
    /// io_uring or refuse to start.
    IoUring,
    /// epoll.
    Epoll,
}

/// How the process shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// How long readiness reports no while traffic is still served, before the drain.
    pub lameduck: Duration,
    /// How long exchanges in flight may take to finish.
    pub drain: Duration,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { lameduck: Duration::ZERO, drain: Duration::from_secs(30) }
    }
}

/// How much the operational log says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// Also what may need one.
    Warn,
    /// Also what changed.
    #[default]
    Info,
    /// Also why.
    Debug,
    /// Everything.
    Trace,
}

/// How the operational log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
