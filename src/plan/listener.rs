//! Listeners: the addresses that accept connections, and how to talk to what arrives there.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{PoolId, tls::ListenerTls};
use crate::base::endpoint::{Endpoint, UnixPath};

/// One or more addresses that accept connections, and how to talk to what arrives there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// Its name in the configuration.
    pub name: String,
    /// The addresses to bind; port 0 takes a free one.
    pub bind: Vec<Endpoint>,
    /// What is said of the files of Unix sockets among them.
    pub socket_files: Vec<SocketFile>,
    /// What arrives there.
    pub mode: Mode,
    /// The pool for requests that match no route (none: 404), or for all connections of TCP.
    pub pool: Option<PoolId>,
    /// TLS; none = plain HTTP.
    pub tls: Option<ListenerTls>,
    /// The versions of HTTP that clients may speak.
    pub protocols: Protocols,
    /// The proxies in front that say by a PROXY header whom they have accepted: only these may
    /// connect, and must say it. None: nobody does.
    pub proxies: Option<Vec<IpNet>>,
    /// The networks whose X-Forwarded-* and Forwarded fields are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Client connections of this listener, exact for the process; 0 = only the global limit.
    pub connections_max: u32,
    /// Where exchanges are logged, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Whether a client that shuts down its writing half still gets its answer.
    pub half_close: bool,
    /// How long each wait for the client may take.
    pub timeouts: ListenerTimeouts,
    /// Connections the kernel holds for each core until they are accepted. 4,096: a burst of a
    /// tenth of a second at 40,000 connections a second.
    pub backlog: u32,
}

impl Default for Listener {
    fn default() -> Listener {
        Listener {
            name: String::new(),
            bind: Vec::new(),
            socket_files: Vec::new(),
            mode: Mode::Http,
            pool: None,
            tls: None,
            protocols: Protocols::default(),
            proxies: None,
            trusted_proxies: Vec::new(),
            connections_max: 0,
            access_log: None,
            half_close: false,
            timeouts: ListenerTimeouts::default(),
            backlog: 4096,
        }
    }
}

impl Listener {
    /// How long data sent to a client may go without an acknowledgement: as long as we wait for the
    /// client ourselves; zero = for as long as the kernel tries.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let ListenerTimeouts { client_write, tunnel, .. } = self.timeouts;
        // Unlike one of HTTP, a connection of TCP is a tunnel from its first byte on.
        match self.mode {
            Mode::Tcp if tunnel.is_zero() || client_write.is_zero() => Duration::ZERO,
            Mode::Tcp => client_write.max(tunnel),
            Mode::Http => client_write,
        }
    }

    /// Every pool that it refers to.
    pub(crate) fn pools_mut(&mut self) -> impl Iterator<Item = &mut PoolId> {
        self.pool.iter_mut()
    }
}

/// Who may connect to a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketFile {
    /// Its path.
    pub path: UnixPath,
    /// The mode of the file; none = as the umask of the process leaves it.
    pub mode: Option<u32>,
    /// Its owner, as `USER`, `USER:GROUP` or `:GROUP`; none = the user of the process.
    pub owner: Option<String>,
}

/// What arrives at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Requests of HTTP.
    Http,
    /// Connections of which nothing is understood: bytes pass both ways.
    Tcp,
}

/// The versions of HTTP that clients may speak; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Protocols {
    /// HTTP/1.
    pub h1: bool,
    /// HTTP/2: with TLS if both agree on it, without if a client begins with it.
    pub h2: bool,
}

impl Default for Protocols {
    fn default() -> Protocols {
        Protocols { h1: true, h2: true }
    }
}

/// How long each wait for the client may take; zero = no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerTimeouts {
    /// From the first byte of a request (or accept) to the whole head: 408.
    pub client_header: Duration,
    /// Between two pieces of a request body: 408.
    pub client_body: Duration,
    /// For a client to take any of the data sent to it.
    pub client_write: Duration,
    /// For a keep-alive connection without a request.
    pub idle: Duration,
    /// For the TLS handshake.
    pub tls_handshake: Duration,
    /// For the PROXY header, from accept on.
    pub proxy_header: Duration,
    /// Without a byte in either direction of a tunnel.
    pub tunnel: Duration,
    /// Without a byte in a tunnel in which one side has shut down its half.
    pub half_closed: Duration,
    /// For all of a tunnel: then both of its sides are reset.
    pub tunnel_life: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> ListenerTimeouts {
        ListenerTimeouts {
            client_header: Duration::from_secs(10),
            client_body: Duration::from_secs(30),
            client_write: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            tls_handshake: Duration::from_secs(10),
            proxy_header: Duration::from_secs(3),
            tunnel: Duration::from_secs(3600),
            half_closed: Duration::from_secs(30),
            tunnel_life: Duration::ZERO,
        }
    }
}

/// Where exchanges are logged, and in which format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessLog {
    /// The file; none = standard output.
    pub path: Option<PathBuf>,
    /// The format of a line.
    pub format: AccessLogFormat,
}

/// The format of a line of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLogFormat {
    /// One flat JSON object per line.
    #[default]
    Json,
    /// The format of that name in Apache and nginx.
    Combined,
    /// `combined` without referer and user agent.
    Common,
}
