//! Built-in origins: small HTTP/1.1 servers on loopback, for the demo and for tests.
//!
//! One thread with its own runtime serves them all, on the wire of the product: `net` and `proto`.
//! They have no timeouts: their only client is the balancer beside them. They end when `Origins` is
//! dropped: every wait is ended and every task waited for, so no connection outlives them.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Sender, bounded};

use super::{connection::Connection, running::Running};
use crate::base::ids::ListenerId;
use crate::net::{
    deadlines::Watch,
    io::{ending, sleep, task},
    listener::{self, Listener},
    runtime::{Room, Runtime},
    stream::Stream,
    turns::give_way,
    wake::Bell,
};
use crate::plan::Driver;
use crate::proto::{
    h1::Client,
    peer::{Peer, PeerAddress},
};
use crate::shared::bell::Rope;

/// The origins' ring; a connection has at most two operations in flight.
const ROOM: Room = Room { entries: 256, completions: 4_096 };

/// Buffers that are kept warm.
const BUFFERS: usize = 16;

const BACKLOG: u32 = 1_024;

/// How long sent bytes may stay unacknowledged.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause after an accept that failed, most likely for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Running origins; dropping them stops them.
pub(crate) struct Origins {
    addresses: Vec<SocketAddr>,
    /// Wakes the thread, which then ends.
    stop: Rope,
    thread: Option<JoinHandle<()>>,
}

impl Origins {
    /// Starts `count` origins, named `a`, `b`, `c` …, each on a free port of loopback.
    ///
    /// # Errors
    ///
    /// The kernel's, if it gives no thread, ring or socket.
    pub(crate) fn start(count: usize) -> io::Result<Origins> {
        let stop = Rope::new()?;
        let (tell, told) = bounded(1);
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("origins".to_owned())
            .spawn(move || run(count, &stopped, &tell))?;
        let addresses = told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Origins { addresses, stop, thread: Some(thread) })
    }

    /// Where they listen, in the order of their names.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The name of an origin by its place in `addresses`.
    pub(crate) fn name(place: usize) -> String {
        char::from_u32('a' as u32 + place as u32 % 26).map_or_else(String::new, String::from)
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        self.stop.pull();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs the thread; tells the addresses, or why there are none.
fn run(count: usize, stopped: &Rope, tell: &Sender<io::Result<Vec<SocketAddr>>>) {
    // The runtime is built on the thread that runs it: its ring accepts no other.
    let runtime = match Runtime::build(Driver::Auto, ROOM) {
        Ok(runtime) => runtime,
        Err(why) => return drop(tell.send(Err(io::Error::other(why)))),
    };
    runtime.run(async {
        match bind(count).and_then(|bound| Ok((bound, Bell::adopt(stopped.bell())?))) {
            Ok(((listeners, addresses), bell)) => {
                let _ = tell.send(Ok(addresses));
                serve(listeners, &bell).await;
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    });
}

fn bind(count: usize) -> io::Result<(Vec<Listener>, Vec<SocketAddr>)> {
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let first = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), true, PATIENCE)?;
        first.claim(BACKLOG, false)?;
        let bound = first.join(1)?;
        addresses.extend(bound.address.tcp());
        for socket in bound.sockets {
            listeners.push(Listener::adopt(socket)?);
        }
    }
    Ok((listeners, addresses))
}

/// Serves until the bell rings, and until every task has ended.
async fn serve(listeners: Vec<Listener>, bell: &Bell) {
    let running = Rc::new(Running::new(BUFFERS));
    for (place, listener) in listeners.into_iter().enumerate() {
        task(accept(Rc::clone(&running), Rc::from(Origins::name(place)), listener));
    }
    // A bell that is broken ends them too.
    let _ = bell.rung().await;
    running.stop();
    while Rc::strong_count(&running) > 1 || ending() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

async fn accept(running: Rc<Running>, name: Rc<str>, listener: Listener) {
    loop {
        give_way().await;
        let Some(Ok(())) = running.stopping.or(listener.readable()).await else { return };
        match listener.accept() {
            Ok((fd, from)) => {
                let watch = Watch::Client(ListenerId(0));
                let stream = Stream::adopt(fd, |fd| running.deadlines.watch(fd, watch));
                let (Ok(stream), Ok(buffer)) = (stream, running.buffers.take()) else { continue };
                let peer = Peer::new(ListenerId(0), (PeerAddress::of(from), 0), &[], None);
                let client = Client::new(Rc::new(stream), Rc::new(peer), buffer, None);
                task(Connection::new(Rc::clone(&running), Rc::clone(&name), client).serve());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => running.wait(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    /// Sends `request` to the first of two origins and reads until it closes.
    #[track_caller]
    fn ask(request: &str) -> String {
        let origins = Origins::start(2).unwrap();
        let mut stream = TcpStream::connect(origins.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Each piece of `expected`, in this order, in the answer to `request`.
    #[track_caller]
    fn check(request: &str, expected: &[&str]) {
        let answer = ask(request);
        let mut rest = answer.as_str();
        for piece in expected {
            rest = rest.split_once(piece).unwrap_or_else(|| panic!("no {piece:?} in:\n{answer}")).1;
        }
    }

    const LAST: &str = "GET /status/204 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[test]
    fn a_connection_serves_request_after_request() {
        let two = format!("GET /?1 HTTP/1.1\r\nhost: x\r\n\r\n{LAST}");
        check(
            &two,
            &["HTTP/1.1 200 OK\r\n", "x-origin: a\r\n", "\"path\":\"/?1\"", "204 No", "\r\n\r\n"],
        );
        let old = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET /bytes/3 HTTP/1.0\r\n\r\n";
        check(old, &["Connection: keep-alive", "Connection: close", "\r\n\r\nxxx"]);
        check(
            &format!("HEAD /bytes/9 HTTP/1.1\r\nhost: x\r\n\r\n{LAST}"),
            &["Length: 9\r\n\r\nHTTP/1.1 204"],
        );
    }

    #[test]
    fn bodies_are_read_and_sent_back() {
        let chunks = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nt: 1\r\n\r\n";
        let echo = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{chunks}{LAST}");
        check(
            &echo,
            &["Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nt: 1\r\n\r\nHTTP/1.1 204"],
        );
        check(&echo.replace("/echo", "/"), &["\"path\":\"/\"", "\n", "204"]);
        let fixed =
            "PUT /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nok";
        check(&format!("{fixed}{LAST}"), &["100 Continue\r\n\r\n", "Length: 2\r\n\r\nok", "204"]);
    }

    #[test]
    fn what_breaks_a_rule_is_refused_and_closed() {
        check("GET / HTTP/1.1\r\n\r\n", &["HTTP/1.1 400 ", "Connection: close", "bad_request"]);
        let chunk = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nx\r\n";
        check(chunk, &["HTTP/1.1 400 "]);
    }

    #[test]
    fn a_stop_ends_what_is_under_way() {
        let origins = Origins::start(1).unwrap();
        let connect = || TcpStream::connect(origins.addresses()[0]).unwrap();
        let (mut waits, mut reads, mut idles) = (connect(), connect(), connect());
        waits.write_all(b"GET /delay/60000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        reads.write_all(b"GET /bytes/1000000000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        reads.read_exact(&mut [0; 100]).unwrap();
        let address = origins.addresses()[0];
        let started = Instant::now();
        drop(origins);
        assert!(started.elapsed() < Duration::from_secs(60), "no answer is waited for");
        assert!(TcpStream::connect(address).is_err());
        idles.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(matches!(idles.read(&mut [0; 1]), Ok(0) | Err(_)));
        let ended = waits.read(&mut [0; 1]);
        assert!(
            matches!(ended, Ok(0))
                || ended.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset)
        );
    }
}
