//! A backend that can die and come back, on the same port all its lives.
//!
//! It answers every request with its name, and a probe (`/health`) separately: what it does can be
//! changed at any moment, also for requests that it has already read. Killed, it resets its
//! connections as the kernel does for a killed process; finishing, it serves every client that has
//! come, says `Connection: close` and leaves. Unlike `Backend` it does not check what it receives,
//! and records only how much that was.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    net::{bind, getsockname, listen, sockopt},
};

use crate::{
    stage::eventually,
    wire::{Wire, socket},
};

/// How often an accept checks whether to close the port.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// What a backend makes of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers at once with 200.
    Well,
    /// Answers at once with this status; probes succeed.
    Says(u16),
    /// Answers with this status, probes too.
    Ails(u16),
    /// Accepts and does not answer, nor probes, until its mood changes: a paused process.
    Silent,
    /// Holds requests until its mood changes; probes succeed.
    Holds,
    /// Answers after that long, probes too.
    Slow(Duration),
}

/// What its threads share.
struct Life {
    mood: Mood,
    listening: bool,
    killed: bool,
    finishing: bool,
    requests: usize,
    probes: usize,
    under_way: usize,
    open: BTreeMap<usize, TcpStream>,
    visits: usize,
}

/// A life, and a bell that rings whenever it changes.
struct Shared {
    name: &'static str,
    life: Mutex<Life>,
    changed: Condvar,
}

/// A backend that can die and come back.
pub(crate) struct Mortal {
    address: SocketAddr,
    /// Keeps the port while nothing listens.
    _port: OwnedFd,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<Vec<JoinHandle<()>>>>,
    serving: Vec<JoinHandle<()>>,
}

impl Mortal {
    /// A healthy one, on a free port of loopback.
    pub(crate) fn born(name: &'static str) -> Mortal {
        let port = port(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = SocketAddr::try_from(getsockname(&port).unwrap()).unwrap();
        let life = Life {
            mood: Mood::Well,
            listening: false,
            killed: false,
            finishing: false,
            requests: 0,
            probes: 0,
            under_way: 0,
            open: BTreeMap::new(),
            visits: 0,
        };
        let shared = Shared { name, life: Mutex::new(life), changed: Condvar::new() };
        let mut mortal = Mortal {
            address,
            _port: port,
            shared: Arc::new(shared),
            accepting: None,
            serving: Vec::new(),
        };
        mortal.open_port();
        mortal
    }

    /// Its address, as a configuration has it.
    pub(crate) fn written(&self) -> String {
        self.address.to_string()
    }

    /// Changes what it does with requests.
    pub(crate) fn becomes(&self, mood: Mood) {
        self.shared.change(|life| life.mood = mood);
    }

    /// How many requests have come, without probes.
    pub(crate) fn requests(&self) -> usize {
        self.shared.life().requests
    }

    /// How many probes have come.
    pub(crate) fn probes(&self) -> usize {
        self.shared.life().probes
    }

    /// How many requests it has read and not answered, without probes.
    pub(crate) fn under_way(&self) -> usize {
        self.shared.life().under_way
    }

    /// Opens the port, again or for the first time; it is healthy then.
    pub(crate) fn open_port(&mut self) {
        self.shared.change(|life| {
            (life.listening, life.killed, life.finishing) = (true, false, false);
        });
        let listener = port(self.address);
        listen(&listener, 128).unwrap();
        let (listener, shared) = (TcpListener::from(listener), self.shared.clone());
        self.accepting = Some(std::thread::spawn(move || accept(&listener, &shared)));
    }

    /// Closes the port. Connections waiting there are accepted, and the open ones go on.
    pub(crate) fn close_port(&mut self) {
        self.shared.change(|life| life.listening = false);
        if let Some(accepting) = self.accepting.take() {
            self.serving.extend(accepting.join().unwrap());
        }
    }

    /// Resets every connection and closes the port, as if its process had been killed.
    pub(crate) fn is_killed(&mut self) {
        self.shared.change(|life| {
            life.killed = true;
            for stream in std::mem::take(&mut life.open).into_values() {
                let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
                let _ = stream.shutdown(std::net::Shutdown::Read);
            }
        });
        self.close_port();
        self.is_served();
    }

    /// Ends as a server should: accepts no new client, and answers those that have asked.
    pub(crate) fn finishes(&mut self) {
        self.close_port();
        self.shared.change(|life| {
            life.finishing = true;
            for stream in life.open.values() {
                // What has arrived can still be read; a client that has sent nothing sees the end.
                let _ = stream.shutdown(std::net::Shutdown::Read);
            }
        });
        self.is_served();
    }

    /// Waits until it has no connection any more.
    fn is_served(&mut self) {
        for thread in self.serving.drain(..) {
            thread.join().unwrap();
        }
    }

    /// Waits until that many more requests have come, for each as long as for all.
    #[track_caller]
    pub(crate) fn expect_more_requests(&self, count: usize) {
        let before = self.requests();
        let what = format!("{count} more requests than {before} to {}", self.shared.name);
        for more in 1..=count {
            eventually(&what, || self.requests(), |requests| *requests >= before + more);
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.is_killed();
    }
}

impl Shared {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Life)) {
        change(&mut self.life());
        self.changed.notify_all();
    }

    /// The answer to a request, once its mood allows; none if it has been killed meanwhile.
    fn answer(&self, probe: bool) -> Option<String> {
        let mut life = self.life();
        if probe {
            life.probes += 1;
        } else {
            life.requests += 1;
            life.under_way += 1;
        }
        if let Mood::Slow(wait) = life.mood {
            let slow = |life: &mut Life| !life.killed && matches!(life.mood, Mood::Slow(_));
            life = self.changed.wait_timeout_while(life, wait, slow).unwrap().0;
        }
        let waits = |life: &mut Life| {
            let held = matches!(life.mood, Mood::Silent) || life.mood == Mood::Holds && !probe;
            held && !life.killed
        };
        life = self.changed.wait_while(life, waits).unwrap();
        life.under_way -= usize::from(!probe);
        let status = match life.mood {
            Mood::Says(status) if !probe => status,
            Mood::Ails(status) => status,
            Mood::Well | Mood::Says(_) | Mood::Silent | Mood::Holds | Mood::Slow(_) => 200,
        };
        let last = if life.finishing { "Connection: close\r\n" } else { "" };
        let (name, length) = (self.name, self.name.len());
        let answer =
            format!("HTTP/1.1 {status} So\r\n{last}Content-Length: {length}\r\n\r\n{name}");
        (!life.killed).then_some(answer)
    }
}

/// Serves all clients until the port is to be closed, then those still waiting.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    listener.set_nonblocking(true).unwrap();
    loop {
        let listening = shared.life().listening;
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                let shared = shared.clone();
                threads.push(std::thread::spawn(move || serve(stream, &shared)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && !listening => return threads,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut waiting = [PollFd::new(listener, PollFlags::IN)];
                let _ = poll(&mut waiting, Some(&LOOK));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let number = {
        let mut life = shared.life();
        if life.killed {
            return;
        }
        life.visits += 1;
        let number = life.visits;
        life.open.insert(number, stream.try_clone().unwrap());
        number
    };
    let mut wire = Wire::new(stream);
    while let Ok(head) = wire.head() {
        let Some(answer) = shared.answer(head.start.starts_with("GET /health ")) else { break };
        if wire.try_send(&answer).is_err() || answer.contains("Connection: close") {
            break;
        }
    }
    shared.life().open.remove(&number);
}

/// A socket on that address that shares its port with our others, and with no other process.
fn port(address: SocketAddr) -> OwnedFd {
    let socket = socket();
    sockopt::set_socket_reuseport(&socket, true).unwrap();
    bind(&socket, &address).unwrap();
    socket
}
