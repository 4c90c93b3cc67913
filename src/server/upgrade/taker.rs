//! The new process: it starts with what the old one gives it, and serves when that says so.
//!
//! If the old one dies meanwhile, the new one serves with what it has got: the sockets, or nothing,
//! and then it binds its addresses as at any start.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FileType, fstat};
use tracing::{info, warn};

use super::{
    Ask, Before, VARIABLE,
    message::{Connection, Hello, Message, Program, State, VERSION},
    wire::Wire,
};
use crate::base::endpoint::Endpoint;
use crate::server::{
    StartError, admin_doors::AdminSockets, control::Client, given::Given,
    service_manager::ServiceManager,
};

/// How long the old process may take to say what it gives, and to say that it lets go. A new
/// process that hears nothing more serves.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
const GO_WITHIN: Duration = Duration::from_secs(10);

/// How often the thread looks whether it is to end.
const LOOK: Duration = Duration::from_secs(3600);

/// The end of the wire in the new process.
pub(in crate::server) struct Taker {
    wire: Wire,
    before: Program,
}

impl Taker {
    /// The old process, if one has started this one, and what it gives; `None` too if it has died.
    ///
    /// # Errors
    /// If this program does not understand it.
    pub(in crate::server) fn find()
    -> Result<Option<(Taker, Given, AdminSockets, State)>, StartError> {
        let Some(wire) = wire_of_input() else { return Ok(None) };
        let (hello, descriptors) = match wire.receive(Instant::now() + HELLO_WITHIN) {
            Ok((Message::Hello(hello), descriptors)) => (*hello, descriptors),
            Ok(_) => return Err(refused("an earlier message than `hello` came")),
            Err(error) => {
                warn!("the process before this one says nothing ({error}): starting without it");
                return Ok(None);
            }
        };
        let Hello { version, program, sockets, admin, admin_socket, state } = hello;
        let taker = Taker { wire, before: program };
        if version != VERSION {
            let why = format!("it speaks version {version} of the hand-over, this one {VERSION}");
            return Err(refused(&why));
        }
        let mut descriptors = descriptors.into_iter();
        let mut given = Given::default();
        for (listening, socket) in sockets.iter().zip(descriptors.by_ref()) {
            given.add(socket, listening.is_shared);
        }
        let admin = AdminSockets {
            address: admin.and_then(|address| Some((address, descriptors.next()?))),
            socket: admin_socket.and_then(|path| Some((path, descriptors.next()?))),
        };
        Ok(Some((taker, given, admin, state)))
    }

    /// Everything is ready; returns when this process is to serve. Standard input is empty from now
    /// on.
    pub(in crate::server) fn is_ready(&self) {
        // Only this end of the wire is left then.
        let _ = File::open("/dev/null").map(|nothing| rustix::stdio::dup2_stdin(&nothing));
        let _ = self.wire.send(&Message::Ready(Program::own()), &[]);
        let until = Instant::now() + GO_WITHIN;
        while let Ok((message, _)) = self.wire.receive::<Message>(until) {
            if matches!(message, Message::Go) {
                return;
            }
        }
        warn!("process {} does not say that it lets go: serving without that", self.before.pid);
    }

    /// This process serves at these addresses: takes what else comes from the old one, in a thread
    /// of its own. Returns how to tell it that this process is stopped.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::server) fn serves(
        self,
        at: Vec<(String, Endpoint)>,
        client: Client,
        manager: ServiceManager,
    ) -> io::Result<Stops> {
        let _ = self.wire.send(&Message::Serving { at: Some(at) }, &[]);
        info!("taking over from process {} (ringway {})", self.before.pid, self.before.version);
        let stops = Stops { wire: self.wire.another()? };
        thread::Builder::new()
            .name("ringway-before".into())
            .spawn(move || self.listen(&client, &manager))?;
        Ok(stops)
    }

    fn listen(self, client: &Client, manager: &ServiceManager) {
        let Taker { wire, before } = self;
        let mut is_ours = false;
        client.upgrade(Ask::Before(Some(Before { program: before.clone(), connections: 0 })));
        loop {
            let (message, descriptors) = match wire.receive(Instant::now() + LOOK) {
                Ok(came) => came,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
                Err(_) => break,
            };
            match message {
                Message::Connections { of } => client.upgrade(Ask::Adopt(named(of, descriptors))),
                Message::Yours => {
                    manager.ready();
                    is_ours = true;
                }
                Message::Status { connections } => {
                    let before = Before { program: before.clone(), connections };
                    client.upgrade(Ask::Before(Some(before)));
                }
                Message::Over { counts } => client.upgrade(Ask::Counts(Box::new(counts))),
                Message::Hello(_)
                | Message::Ready(_)
                | Message::Refused { .. }
                | Message::Go
                | Message::Serving { .. }
                | Message::Leaving
                | Message::Unknown => {}
            }
        }
        client.upgrade(Ask::Before(None));
        if !is_ours {
            manager.ready();
        }
        info!("process {} has ended", before.pid);
    }
}

/// Tells the old process, if there still is one, that this one is stopped.
pub(in crate::server) struct Stops {
    wire: Wire,
}

impl Stops {
    pub(in crate::server) fn tell(&self) {
        let _ = self.wire.send(&Message::Leaving, &[]);
    }
}

fn named(of: Vec<Connection>, descriptors: Vec<OwnedFd>) -> Vec<(String, bool, OwnedFd)> {
    let both = of.into_iter().zip(descriptors);
    both.map(|(Connection { listener, is_idle }, fd)| (listener, is_idle, fd)).collect()
}

fn refused(why: &str) -> StartError {
    StartError::system("take over")(io::Error::other(why))
}

/// The wire, if this process was started with one that it has not given up.
fn wire_of_input() -> Option<Wire> {
    std::env::var_os(VARIABLE)?;
    let input = std::io::stdin();
    let about = fstat(input.as_fd()).ok()?;
    let is_socket = FileType::from_raw_mode(about.st_mode) == FileType::Socket;
    let socket = is_socket.then(|| input.as_fd().try_clone_to_owned().ok()).flatten()?;
    Wire::new(UnixStream::from(socket)).ok()
}

/// Tells the process that has started this one why it does not serve, if one has and still waits.
pub(crate) fn tell_refusal(why: &str) {
    if let Some(wire) = wire_of_input() {
        let _ = wire.send(&Message::Refused { why: why.to_owned() }, &[]);
    }
}

/// Where the program is: as it was called, if that leads to what runs, so that a link is followed
/// anew at each upgrade.
pub(super) fn program() -> Option<PathBuf> {
    let runs = std::env::current_exe().ok()?;
    let called = PathBuf::from(std::env::args_os().next()?);
    let is_it = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == runs);
    let called = match called.components().count() {
        1 => {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&folders).map(|folder| folder.join(&called)).find(is_it)
        }
        _ => std::path::absolute(called).ok().filter(is_it),
    };
    called.or(Some(runs))
}
