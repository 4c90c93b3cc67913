//! A scripted backend: a listener on loopback, a thread and a script for each connection.
//!
//! A script is a function over one `Visit`, the connection that the proxy made; `scripts.rs` has
//! those that plays share. Every byte that arrives is noted, every whole request is recorded, and a
//! request that is not canonical is a complaint that fails the play when its stage is struck. All
//! threads end when the backend is dropped.

use std::{
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    net::{bind, getsockname, listen},
};

use crate::wire::{Broken, Fields, Framing, Head, Heard, PATIENCE, Wire, socket};

/// What a backend does with each connection.
#[derive(Clone)]
pub(crate) enum Script {
    /// Accepts and runs this part.
    Plays(Arc<Part>),
    /// Holds the port and refuses every connection.
    Refuses,
    /// Never finishes a handshake: its backlog is full.
    Unreachable,
}

/// What happens on one connection, until it returns.
pub(crate) type Part = dyn Fn(&mut Visit) -> Result<(), Broken> + Send + Sync;

/// A script from a function over one connection.
pub(crate) fn plays(
    part: impl Fn(&mut Visit) -> Result<(), Broken> + Send + Sync + 'static,
) -> Script {
    Script::Plays(Arc::new(part))
}

/// A request as a backend received it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Request line and fields.
    pub(crate) head: Head,
    /// How its body was framed.
    pub(crate) framing: Framing,
    /// The body without framing.
    pub(crate) body: Vec<u8>,
    /// What followed the last chunk.
    pub(crate) trailers: Fields,
}

impl Request {
    /// Its method.
    pub(crate) fn method(&self) -> &str {
        self.head.start.split(' ').next().unwrap_or_default()
    }

    /// Its target.
    pub(crate) fn target(&self) -> &str {
        self.head.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of the only field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }
}

/// What the threads of one backend share with the play.
#[derive(Default)]
struct Notes {
    heads: Mutex<Vec<Head>>,
    requests: Mutex<Vec<Request>>,
    heard: Mutex<Vec<Heard>>,
    complaints: Mutex<Vec<String>>,
    open: Mutex<Vec<(usize, TcpStream)>>,
    closing: AtomicBool,
}

/// A scripted backend.
pub(crate) struct Backend {
    address: SocketAddr,
    notes: Arc<Notes>,
    accepting: Option<JoinHandle<()>>,
    /// Sockets that only have to stay open: a port held, a backlog filled.
    _held: Vec<OwnedFd>,
}

impl Backend {
    /// Opens a backend on a free port of loopback.
    pub(crate) fn open(script: Script) -> Backend {
        Backend::open_on(Ipv4Addr::LOCALHOST.into(), script)
    }

    /// Opens a backend on a free port of this address, if its script accepts.
    pub(crate) fn open_on(address: IpAddr, script: Script) -> Backend {
        Backend::open_at(SocketAddr::new(address, 0), script)
    }

    /// Opens a backend at exactly this address, if its script accepts.
    pub(crate) fn open_at(address: SocketAddr, script: Script) -> Backend {
        let notes = Arc::new(Notes::default());
        let part = match script {
            Script::Plays(part) => part,
            Script::Refuses => return Backend::without_accepting(notes, bound()),
            Script::Unreachable => return Backend::without_accepting(notes, full()),
        };
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = std::thread::spawn({
            let notes = notes.clone();
            move || accept(&listener, &notes, &part)
        });
        Backend { address, notes, accepting: Some(accepting), _held: Vec::new() }
    }

    fn without_accepting(notes: Arc<Notes>, held: Vec<OwnedFd>) -> Backend {
        let address = address(&held[0]);
        Backend { address, notes, accepting: None, _held: held }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests that arrived whole, in the order in which they ended.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.notes.requests.lock().unwrap().clone()
    }

    /// The request heads that arrived, whether or not a whole body followed.
    pub(crate) fn heads(&self) -> Vec<Head> {
        self.notes.heads.lock().unwrap().clone()
    }

    /// How many connections were made.
    pub(crate) fn visits(&self) -> usize {
        self.notes.heard.lock().unwrap().len()
    }

    /// How many connections are still held.
    pub(crate) fn open_visits(&self) -> usize {
        self.notes.open.lock().unwrap().len()
    }

    /// Every byte that arrived, connection after connection.
    pub(crate) fn heard(&self) -> String {
        let heard = self.notes.heard.lock().unwrap();
        let visits = heard.iter().map(|visit| visit.lock().unwrap().clone());
        String::from_utf8_lossy(&visits.flatten().collect::<Vec<u8>>()).into_owned()
    }

    /// What the proxy sent that a proxy must not; the play fails unless it is empty.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.notes.complaints.lock().unwrap().clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.notes.closing.store(true, Ordering::SeqCst);
        if let Some(accepting) = self.accepting.take() {
            // Only a connection wakes an accept; the loop then sees that it is over and ends.
            let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
            let _ = accepting.join();
        }
    }
}

/// Accepts until the backend is dropped, then ends and awaits every connection's thread.
fn accept(listener: &TcpListener, notes: &Arc<Notes>, part: &Arc<Part>) {
    let mut threads = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        if notes.closing.load(Ordering::SeqCst) {
            break;
        }
        let heard = Heard::default();
        let number = {
            let mut visits = notes.heard.lock().unwrap();
            visits.push(heard.clone());
            visits.len() - 1
        };
        notes.open.lock().unwrap().push((number, stream.try_clone().unwrap()));
        let (notes, part) = (notes.clone(), part.clone());
        threads.push(std::thread::spawn(move || {
            let wire = Wire::new(stream).noting(heard);
            let mut visit = Visit { wire: Some(wire), number, served: 0, notes };
            if let Err(Broken::Wrong(what)) = part(&mut visit) {
                visit.notes.complaints.lock().unwrap().push(what);
            }
            visit.forget();
        }));
    }
    for (_, stream) in notes.open.lock().unwrap().iter() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// A bound socket that does not listen: the port is ours, and connections to it are refused.
fn bound() -> Vec<OwnedFd> {
    let held = socket();
    bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    vec![held]
}

/// A listener whose backlog is full, and the sockets that fill it: the kernel drops a further SYN.
fn full() -> Vec<OwnedFd> {
    let mut held = bound();
    listen(&held[0], 0).unwrap();
    let address = address(&held[0]);
    for _ in 0..4 {
        let filler = socket();
        rustix::io::ioctl_fionbio(&filler, true).unwrap();
        let _ = rustix::net::connect(&filler, &address);
        held.push(filler);
    }
    held
}

fn address(socket: &OwnedFd) -> SocketAddr {
    SocketAddr::try_from(getsockname(socket).unwrap()).unwrap()
}

/// One connection that the proxy made to a backend.
pub(crate) struct Visit {
    wire: Option<Wire>,
    number: usize,
    served: usize,
    notes: Arc<Notes>,
}

impl Visit {
    /// The wire below.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().expect("this visit has been reset")
    }

    /// Which connection of this backend it is, from 0.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// How many whole requests this connection has brought.
    pub(crate) fn served(&self) -> usize {
        self.served
    }

    /// Reads a request head and leaves its body unread.
    pub(crate) fn head(&mut self) -> Result<(Head, Framing), Broken> {
        let head = self.wire().head()?;
        self.notes.heads.lock().unwrap().push(head.clone());
        let framing = head.framing()?.unwrap_or(Framing::Nothing);
        let line: Vec<&str> = head.start.split(' ').collect();
        let well_formed = matches!(line.as_slice(), [_, _, "HTTP/1.1"]);
        if !well_formed || head.all("host").len() != 1 {
            return Err(Broken::Wrong(format!("not a request to forward:\n{}", head.raw)));
        }
        Ok((head, framing))
    }

    /// Reads a whole request and records it.
    pub(crate) fn request(&mut self) -> Result<Request, Broken> {
        let (head, framing) = self.head()?;
        self.rest_of(head, framing)
    }

    /// Reads the body that belongs to a head and records the request.
    pub(crate) fn rest_of(&mut self, head: Head, framing: Framing) -> Result<Request, Broken> {
        let (body, trailers) = self.wire().body(framing)?;
        let request = Request { head, framing, body, trailers };
        self.notes.requests.lock().unwrap().push(request.clone());
        self.served += 1;
        Ok(request)
    }

    /// Sends these bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Broken> {
        self.wire().try_send(bytes).map_err(|_| Broken::Reset)
    }

    /// Sends one byte of urgent data.
    pub(crate) fn urgent(&mut self, byte: u8) {
        let _ = rustix::net::send(self.wire().stream(), &[byte], rustix::net::SendFlags::OOB);
    }

    /// Reads and drops whatever comes, until the proxy closes.
    pub(crate) fn drain(&mut self) -> Result<(), Broken> {
        while !self.wire().some()?.is_empty() {}
        Ok(())
    }

    /// Does nothing for that long, or until the backend is dropped.
    pub(crate) fn pause(&self, wait: Duration) -> Result<(), Broken> {
        let end = Instant::now() + wait;
        while Instant::now() < end {
            self.unless_closing()?;
            std::thread::sleep(Duration::from_millis(5).min(end - Instant::now().min(end)));
        }
        Ok(())
    }

    /// Waits until the play gives this cue.
    pub(crate) fn wait_for(&self, cue: &Cue) -> Result<(), Broken> {
        while !cue.given() {
            self.unless_closing()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(&mut self) {
        self.forget();
        self.wire.take().expect("this visit has been reset").reset();
    }

    /// Closes the other descriptor of this socket, which would keep it open.
    fn forget(&self) {
        self.notes.open.lock().unwrap().retain(|(number, _)| *number != self.number);
    }

    fn unless_closing(&self) -> Result<(), Broken> {
        let closing = self.notes.closing.load(Ordering::SeqCst);
        if closing { Err(Broken::Ended) } else { Ok(()) }
    }
}

/// A signal from the play to a script: now.
#[derive(Clone, Default)]
pub(crate) struct Cue(Arc<AtomicBool>);

impl Cue {
    /// Says: now.
    pub(crate) fn give(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was given.
    pub(crate) fn given(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
