//! Listening sockets that another process has opened for this one.
//!
//! systemd hands them over at the start (socket activation, sd_listen_fds(3)), and so does the
//! process before this one at an upgrade. A listener finds its sockets by their address: the
//! configuration alone says what is served, and names of sockets say nothing. Sockets that no
//! listener wants are closed, and named.

use std::os::fd::OwnedFd;

use super::StartError;
use crate::base::endpoint::Endpoint;
use crate::net::{fd, listener};
use crate::observe::event::Event;

/// Sockets that are given and not taken yet.
#[derive(Default)]
pub(super) struct Given {
    /// Each with whether who gave it keeps it, too, and serves what waits there when this process
    /// ends.
    sockets: Vec<(Endpoint, OwnedFd, bool)>,
    /// Descriptors that are no listening stream sockets.
    others: usize,
}

impl Given {
    /// The sockets of the service manager. At most once in a process.
    ///
    /// # Errors
    /// If the manager's environment makes no sense.
    pub(super) fn by_the_manager() -> Result<Given, StartError> {
        let refused = || StartError::system("take the sockets of the service manager");
        let mut given = Given::default();
        for number in sd_notify::listen_fds().map_err(refused())? {
            given.add(fd::inherit(number).map_err(refused())?, true);
        }
        Ok(given)
    }

    /// Adds a socket; `is_shared` says whether another process keeps it, too.
    pub(super) fn add(&mut self, socket: OwnedFd, is_shared: bool) {
        match listener::listens_on(&socket) {
            Some(address) => self.sockets.push((address, socket, is_shared)),
            None => self.others += 1,
        }
    }

    /// The sockets of an address, and whether another process keeps them, too.
    pub(super) fn take(&mut self, address: Endpoint) -> (Vec<OwnedFd>, bool) {
        let taken = self.sockets.extract_if(.., |(at, ..)| *at == address);
        let (sockets, shared): (Vec<_>, Vec<_>) =
            taken.map(|(_, socket, is_shared)| (socket, is_shared)).unzip();
        (sockets, shared.contains(&true))
    }

    /// Closes what nobody has taken; returns a warning for each address.
    pub(super) fn close(self) -> Vec<Event> {
        let mut addresses: Vec<String> =
            self.sockets.iter().map(|(address, ..)| address.to_string()).collect();
        addresses.dedup();
        if self.others > 0 {
            addresses.push("none: it is no listening stream socket".to_owned());
        }
        let event = |address: String| Event::SocketUnused { address: address.into() };
        addresses.into_iter().map(event).collect()
    }
}
