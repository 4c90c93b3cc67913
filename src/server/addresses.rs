//! The addresses that the process listens on: all of them taken before anything slow, or none.
//!
//! From this moment on they are ours: a second process that starts at the same moment is refused.
//! Clients that come before all is ready wait in the kernel's queue.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{StartError, given::Given, refusal::holder, run::Sockets, user};
use crate::base::endpoint::Endpoint;
use crate::net::{
    listener::{self, Bound, First},
    socket_file::{Rights, SocketFile},
};
use crate::plan::{Listener, ListenerId, Plan};
use crate::worker::Socket;

/// How long to retry an address that is in use although no process has it: the kernel closes the
/// sockets of a killed process that had a ring some time after its end (up to 34 ms seen).
const RELEASED_WITHIN: Duration = Duration::from_secs(3);

/// How long, if this process has it: a core serves for a tenth of a second what waits at an address
/// that is removed.
const OWN_WITHIN: Duration = Duration::from_secs(1);

/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(5);

/// The tries after which the holder of the address is looked up.
const ASKED_AT: [u32; 5] = [0, 1, 4, 16, 64];

/// The sockets of every address of every listener.
pub(super) struct Addresses(Vec<Taken>);

/// An address that is taken: its listener, and the address as written.
type Taken = (ListenerId, Endpoint, Bound);

/// An address of a listener, as it should be taken.
struct Wanted {
    listener: ListenerId,
    address: Endpoint,
    /// Who may connect to a Unix socket.
    rights: Rights,
    v6_only: bool,
    backlog: u32,
    /// How long its connections wait for an acknowledgement.
    patience: Duration,
    /// Another address of ours takes its connections if this one is not bound.
    is_within: bool,
}

impl Addresses {
    /// Takes every address except those `known`, which are taken already, for this many cores: the
    /// sockets that are `given`, and new ones.
    ///
    /// # Errors
    /// A sentence about the first that cannot be taken, with the process that uses it.
    pub(super) fn take(
        plan: &Plan,
        cores: usize,
        known: &[(ListenerId, Endpoint)],
        given: &mut Given,
    ) -> Result<Addresses, StartError> {
        let mut wanted = wanted(plan).map_err(|(address, error)| StartError::Listen {
            address,
            holder: None,
            error,
        })?;
        wanted.retain(|wanted| !known.contains(&(wanted.listener, wanted.address)));
        let adopted = adopt(&mut wanted, cores, given)?;
        let began = Instant::now();
        let (mut until, mut tries) = (began + RELEASED_WITHIN, 0);
        loop {
            let (address, error) = match take(&wanted, cores) {
                Ok(taken) => return Ok(Addresses::all(adopted, taken)),
                Err(refused) => refused,
            };
            let refusal = |holder, error| StartError::Listen { address, holder, error };
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(refusal(None, error));
            }
            // Looked up ever more rarely, as it scans every process: of two that start at the same
            // moment the refused one may look before the other listens.
            if ASKED_AT.contains(&tries)
                && let Some(holder) = holder(address)
            {
                if holder.pid != std::process::id() {
                    return Err(refusal(Some(holder), error));
                }
                // A core still serves what waits at an address that it had before.
                until = until.min(began + OWN_WITHIN);
            }
            if Instant::now() >= until {
                return Err(refusal(holder(address), error));
            }
            // Nothing is ever sent here.
            let _ = crossbeam_channel::never::<()>().recv_timeout(AGAIN);
            tries += 1;
        }
    }

    /// Those as well that are bound already, for this many cores: from copies of their sockets, and
    /// new ones beside them where there are fewer. None of them is closed.
    ///
    /// # Errors
    /// A sentence about the first address that there is no socket for.
    pub(super) fn share_again(
        self,
        plan: &Plan,
        cores: usize,
        (stays, mut sockets): (
            &[(ListenerId, Endpoint, Endpoint)],
            impl FnMut(Endpoint) -> io::Result<(Vec<OwnedFd>, bool)>,
        ),
    ) -> Result<Addresses, StartError> {
        let known = wanted(plan).unwrap_or_default();
        let mut again = Vec::new();
        for (listener, written, address) in stays.iter().copied() {
            let it = known.iter().find(|it| it.listener == listener && it.address == written);
            let how = it.map_or((false, Duration::ZERO), |it| (it.v6_only, it.patience));
            let adopted = sockets(address).and_then(|(copies, is_shared)| {
                listener::adopt((address, copies), how, (cores, is_shared))
            });
            let refused = |error| StartError::Listen { address, holder: None, error };
            again.push((listener, written, adopted.map_err(refused)?));
        }
        Ok(Addresses::all(self.0, again))
    }

    /// All of them, in the order of the listeners.
    fn all(mut some: Vec<Taken>, others: Vec<Taken>) -> Addresses {
        some.extend(others);
        some.sort_by_key(|(listener, ..)| *listener);
        Addresses(some)
    }

    /// The addresses that were taken, by the name of their listener.
    pub(super) fn named(&self, plan: &Plan) -> Vec<(String, Endpoint)> {
        let name = |id: ListenerId| plan.listener(id).name.clone();
        self.0.iter().map(|(id, _, bound)| (name(*id), bound.address)).collect()
    }

    /// The listener of each, the address as written, and as taken.
    pub(super) fn bound(&self) -> Vec<(ListenerId, Endpoint, Endpoint)> {
        self.0.iter().map(|(id, written, bound)| (*id, *written, bound.address)).collect()
    }

    /// Gives the files of addresses that stay the rights that this plan says.
    ///
    /// # Errors
    /// A sentence about the first that cannot have them.
    pub(super) fn allow_again(
        plan: &Plan,
        stays: &[(ListenerId, Endpoint, Endpoint)],
    ) -> Result<(), StartError> {
        for (listener, address, _) in stays.iter().copied() {
            let Some(path) = address.unix() else { continue };
            let rights = rights(plan.listener(listener), address);
            let allowed = rights.and_then(|rights| SocketFile::allow_again(path, rights));
            allowed.map_err(|error| StartError::Listen { address, holder: None, error })?;
        }
        Ok(())
    }

    /// The files of Unix sockets, which are removed with what is returned.
    pub(super) fn files(&mut self) -> Vec<SocketFile> {
        self.0.iter_mut().filter_map(|(.., bound)| bound.file.take()).collect()
    }

    /// Listens for all cores.
    ///
    /// # Errors
    /// A sentence about the first address that fails.
    pub(super) fn listen(&self, plan: &Plan) -> Result<(), StartError> {
        for (id, _, bound) in &self.0 {
            let (address, holder) = (bound.address, None);
            listener::listen(bound, plan.listener(*id).backlog)
                .map_err(|error| StartError::Listen { address, holder, error })?;
        }
        Ok(())
    }

    /// Each core's own sockets; of an address with more sockets than cores a core has several.
    pub(super) fn share_out(self, cores: usize) -> Vec<Sockets> {
        let mut shares: Vec<Sockets> = (0..cores).map(|_| Vec::new()).collect();
        for (listener, _, Bound { address, sockets, shared, .. }) in self.0 {
            for (number, fd) in sockets.into_iter().enumerate() {
                let is_shared = number < shared;
                shares[number % cores].push(Socket { listener, address, fd, is_shared });
            }
        }
        shares
    }
}

/// Takes the sockets that are given for wanted addresses, which are then not wanted any more.
fn adopt(
    wanted: &mut Vec<Wanted>,
    cores: usize,
    given: &mut Given,
) -> Result<Vec<Taken>, StartError> {
    let mut taken = Vec::new();
    let mut refused = Ok(());
    wanted.retain(|it| {
        let (sockets, is_shared) = given.take(it.address);
        if sockets.is_empty() || refused.is_err() {
            return true;
        }
        let how = (it.v6_only, it.patience);
        match listener::adopt((it.address, sockets), how, (cores, is_shared)) {
            Ok(mut bound) => {
                // One of the service manager stays its own.
                bound.file = bound.address.unix().filter(|_| !is_shared).and_then(SocketFile::of);
                taken.push((it.listener, it.address, bound));
            }
            Err(error) => {
                let address = it.address;
                refused = Err(StartError::Listen { address, holder: None, error });
            }
        }
        false
    });
    refused.map(|()| taken)
}

/// Every address of a plan; wildcard addresses come first, as others are within them.
///
/// # Errors
/// If the owner of a socket file is unknown here.
fn wanted(plan: &Plan) -> Result<Vec<Wanted>, (Endpoint, io::Error)> {
    let all: Vec<SocketAddr> =
        plan.listeners.values().flat_map(|l| l.bind.iter().filter_map(Endpoint::tcp)).collect();
    let mut wanted = Vec::new();
    for (listener, of) in &plan.listeners {
        for address in of.bind.iter().copied() {
            let tcp = address.tcp();
            let rights = rights(of, address).map_err(|error| (address, error))?;
            wanted.push(Wanted {
                listener,
                address,
                rights,
                v6_only: tcp.is_some_and(|address| is_v6_only(address, &all)),
                backlog: of.backlog,
                patience: of.patience(),
                is_within: tcp
                    .is_some_and(|at| all.iter().any(|other| is_within(at, *other, &all))),
            });
        }
    }
    wanted.sort_by_key(|wanted| wanted.is_within);
    Ok(wanted)
}

/// Who may connect to an address of a listener.
fn rights(of: &Listener, address: Endpoint) -> io::Result<Rights> {
    let said = of.socket_files.iter().find(|it| Endpoint::Unix(it.path) == address);
    let Some(said) = said else { return Ok(Rights::default()) };
    let (user, group) = said.owner.as_deref().map_or(Ok((None, None)), user::ids)?;
    Ok(Rights { mode: said.mode, user, group })
}

/// `[::]` takes IPv4 too, unless `0.0.0.0` of the same port is bound separately.
fn is_v6_only(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let any_v4 = |other: &SocketAddr| other.is_ipv4() && other.ip().is_unspecified();
    !address.ip().is_unspecified()
        || all.iter().any(|other| any_v4(other) && other.port() == address.port())
}

/// Whether an address is one of those that another takes.
fn is_within(address: SocketAddr, other: SocketAddr, all: &[SocketAddr]) -> bool {
    let same_port = address.port() == other.port() && address.port() != 0;
    let is_taken = match other.ip() {
        IpAddr::V4(any) => any.is_unspecified() && address.is_ipv4(),
        IpAddr::V6(any) => any.is_unspecified() && (address.is_ipv6() || !is_v6_only(other, all)),
    };
    address != other && same_port && is_taken
}

/// Takes all of them, or none.
fn take(wanted: &[Wanted], cores: usize) -> Result<Vec<Taken>, (Endpoint, io::Error)> {
    let mut firsts: Vec<(&Wanted, First)> = Vec::new();
    for wanted in wanted {
        let first = match wanted.address {
            Endpoint::Tcp(address) => listener::bind(address, wanted.v6_only, wanted.patience),
            Endpoint::Unix(path) => listener::bind_unix(path, wanted.rights, wanted.backlog),
        };
        firsts.push((wanted, first.map_err(|error| (wanted.address, error))?));
    }
    for (wanted, first) in &firsts {
        let claimed = first.claim(wanted.backlog, wanted.is_within);
        claimed.map_err(|error| (first.address, error))?;
    }
    let join = |(wanted, first): (&Wanted, First)| {
        let address = first.address;
        let bound = first.join(cores).map_err(|error| (address, error))?;
        Ok((wanted.listener, wanted.address, bound))
    };
    firsts.into_iter().map(join).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::config;

    fn plan(binds: &[String]) -> Plan {
        let mut text = String::from("[pool.app]\nbackends = [\"127.0.0.1:9\"]\n");
        for (place, bind) in binds.iter().enumerate() {
            text += &format!("[listener.l{place}]\nbind = \"{bind}\"\npool = \"app\"\n");
        }
        config::parse("addresses.toml", &text)
            .unwrap_or_else(|wrong| panic!("{wrong}"))
            .plan
            .into_plan()
    }

    /// A port that is free on all addresses.
    fn port() -> u16 {
        TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
    }

    /// The listener that takes a connection to this address; none = it is refused.
    fn taker(addresses: &Addresses, to: &str) -> Option<u16> {
        let mut client = TcpStream::connect(to).ok()?;
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for (id, _, bound) in &addresses.0 {
            for socket in &bound.sockets {
                let listener = TcpListener::from(socket.try_clone().unwrap());
                if let Ok((stream, _)) = listener.accept() {
                    drop(stream);
                    assert_eq!(client.read(&mut [0]).unwrap(), 0);
                    return Some(id.0);
                }
            }
        }
        panic!("nobody takes it");
    }

    #[test]
    fn each_address_is_served_by_the_listener_that_names_it_best() {
        for (binds, asked) in [
            (&["[::]", "127.0.0.2"][..], &[("127.0.0.1", Some(0)), ("127.0.0.2", Some(1))][..]),
            (&["127.0.0.2", "[::]"], &[("127.0.0.1", Some(1)), ("127.0.0.2", Some(0))]),
            (&["[::]", "127.0.0.2"], &[("[::1]", Some(0))]),
            (&["[::]", "0.0.0.0"], &[("[::1]", Some(0)), ("127.0.0.2", Some(1))]),
            (&["0.0.0.0", "127.0.0.3"], &[("127.0.0.3", Some(1)), ("127.0.0.4", Some(0))]),
            (&["[::]", "[::1]"], &[("[::1]", Some(1)), ("127.0.0.1", Some(0))]),
            (&["127.0.0.2", "127.0.0.3"], &[("127.0.0.3", Some(1)), ("127.0.0.4", None)]),
        ] {
            let port = port();
            let binds: Vec<String> = binds.iter().map(|host| format!("{host}:{port}")).collect();
            let plan = plan(&binds);
            let addresses = Addresses::take(&plan, 2, &[], &mut Given::default())
                .unwrap_or_else(|why| panic!("{why}"));
            addresses.listen(&plan).unwrap();
            for (host, expected) in asked {
                for _ in 0..4 {
                    let taker = taker(&addresses, &format!("{host}:{port}"));
                    assert_eq!(taker, *expected, "{binds:?} {host}");
                }
            }
        }
    }

    #[test]
    fn what_another_has_is_refused_whichever_address_it_lies_within() {
        for (held, wanted) in [
            ("127.0.0.1", &["127.0.0.1"][..]),
            ("127.0.0.1", &["0.0.0.0"]),
            ("0.0.0.0", &["127.0.0.1"]),
            ("127.0.0.2", &["[::]"]),
            ("127.0.0.2", &["[::]", "127.0.0.2"]),
            ("127.0.0.2", &["0.0.0.0", "127.0.0.2"]),
            ("[::1]", &["127.0.0.1", "[::]"]),
        ] {
            let port = port();
            let at = |host: &&str| format!("{host}:{port}");
            let held = Addresses::take(&plan(&[at(&held)]), 1, &[], &mut Given::default())
                .unwrap_or_else(|why| panic!("{why}"));
            let wanted: Vec<String> = wanted.iter().map(at).collect();
            let refused = Addresses::take(&plan(&wanted), 2, &[], &mut Given::default()).err();
            let refused = refused.unwrap_or_else(|| panic!("{wanted:?} was taken twice"));
            assert!(
                refused.to_string().contains("in use") || refused.to_string().contains("already")
            );
            drop(held);
        }
    }

    #[test]
    fn of_many_who_take_an_address_at_once_one_has_it() {
        for _ in 0..20 {
            let port = port();
            let plan = &plan(&[format!("127.0.0.1:{port}")]);
            let taken: Vec<bool> = std::thread::scope(|scope| {
                let take = || scope.spawn(|| Addresses::take(plan, 2, &[], &mut Given::default()));
                let all = [take(), take(), take(), take()].map(|thread| thread.join().unwrap());
                all.iter().map(Result::is_ok).collect()
            });
            assert_eq!(taken.iter().filter(|taken| **taken).count(), 1, "{taken:?}");
        }
    }
}
