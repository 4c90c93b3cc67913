//! Built-in origins: small HTTP/1.1 servers on loopback, for the demo and for tests.
//!
//! One thread with its own runtime serves them all. They are correct, not fast, and have no
//! timeouts: their only client is the balancer beside them. They end when `Origins` is dropped:
//! every operation in flight is cancelled and waited for, so no connection outlives them.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    os::unix::net::UnixStream,
    rc::Rc,
    thread::{self, JoinHandle},
    time::Duration,
};

use monoio::{
    FusionDriver, RuntimeBuilder,
    io::{CancelHandle, Canceller},
    net::TcpListener,
};

use super::connection::Connection;

/// How often a wait checks whether the origins are to end.
const LOOK: Duration = Duration::from_millis(50);

/// Running origins; dropping them stops them.
#[derive(Debug)]
pub(crate) struct Origins {
    addresses: Vec<SocketAddr>,
    /// The thread ends when this is dropped.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Origins {
    /// Starts `count` origins, named `a`, `b`, `c` …, each on a free port of loopback.
    ///
    /// # Errors
    ///
    /// The kernel's, if it gives no thread, ring or socket.
    pub(crate) fn start(count: usize) -> io::Result<Origins> {
        let (stop, stopped) = UnixStream::pair()?;
        let (tell, told) = crossbeam_channel::bounded(1);
        let thread = thread::Builder::new().name("origins".to_owned()).spawn(move || {
            // The runtime is built on the thread that runs it: its ring accepts no other.
            let runtime = RuntimeBuilder::<FusionDriver>::new().enable_timer().build();
            match runtime {
                Ok(mut runtime) => runtime.block_on(async {
                    match bind(count) {
                        Ok((listeners, addresses)) => {
                            let _ = tell.send(Ok(addresses));
                            serve(listeners, stopped).await;
                        }
                        Err(error) => drop(tell.send(Err(error))),
                    }
                }),
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        let addresses = told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Origins { addresses, stop: Some(stop), thread: Some(thread) })
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
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(count: usize) -> io::Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let listeners = (0..count)
        .map(|_| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))
        .collect::<io::Result<Vec<_>>>()?;
    let addresses =
        listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    Ok((listeners, addresses))
}

/// Serves until the other end of `stopped` closes.
async fn serve(listeners: Vec<TcpListener>, stopped: UnixStream) {
    let canceller = Canceller::new();
    let running = Rc::new(Cell::new(true));
    let tasks = Rc::new(());
    let ending = Ending {
        handle: canceller.handle(),
        running: Rc::clone(&running),
        _task: Rc::clone(&tasks),
    };
    for (place, listener) in listeners.into_iter().enumerate() {
        monoio::spawn(accept(Rc::from(Origins::name(place)), listener, ending.clone()));
    }
    drop(ending);
    if stopped.set_nonblocking(true).is_ok()
        && let Ok(stopped) = monoio::net::UnixStream::from_std(stopped)
    {
        let _ = stopped.readable(false).await;
    }
    running.set(false);
    drop(canceller.cancel());
    // Each task holds one; a cancelled operation takes a turn to come back.
    while Rc::strong_count(&tasks) > 1 {
        monoio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn accept(name: Rc<str>, listener: TcpListener, ending: Ending) {
    while ending.running.get() {
        match listener.cancelable_accept(ending.handle()).await {
            Ok((stream, _)) => {
                // Without it, answers in two writes stall for 40 ms.
                let _ = stream.set_nodelay(true);
                let connection = Connection::new(Rc::clone(&name), stream, ending.clone());
                monoio::spawn(connection.serve());
            }
            // Most likely out of descriptors: trying again at once would only spin.
            Err(_) => ending.wait(LOOK).await,
        }
    }
}

/// Held by every task, to learn of the end and to be waited for.
#[derive(Clone)]
pub(super) struct Ending {
    handle: CancelHandle,
    running: Rc<Cell<bool>>,
    _task: Rc<()>,
}

impl Ending {
    /// For an operation that the end cancels.
    pub(super) fn handle(&self) -> CancelHandle {
        self.handle.clone()
    }

    /// Waits this long, or until the end.
    pub(super) async fn wait(&self, mut rest: Duration) {
        while self.running.get() && !rest.is_zero() {
            let slice = rest.min(LOOK);
            monoio::time::sleep(slice).await;
            rest -= slice;
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
        check(old, &["connection: keep-alive", "connection: close", "\r\n\r\nxxx"]);
        check(
            &format!("HEAD /bytes/9 HTTP/1.1\r\nhost: x\r\n\r\n{LAST}"),
            &["Length: 9\r\n\r\nHTTP/1.1 204"],
        );
    }

    #[test]
    fn bodies_are_read_and_sent_back() {
        let chunks = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nt: 1\r\n\r\n";
        let echo = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{chunks}{LAST}");
        check(&echo, &["Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\nHTTP/1.1 204"]);
        check(&echo.replace("/echo", "/"), &["\"path\":\"/\"", "\n", "204"]);
        let fixed =
            "PUT /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nok";
        check(&format!("{fixed}{LAST}"), &["100 Continue\r\n\r\n", "Length: 2\r\n\r\nok", "204"]);
    }

    #[test]
    fn what_breaks_a_rule_is_refused_and_closed() {
        check("GET / HTTP/1.1\r\n\r\n", &["HTTP/1.1 400 ", "connection: close", "bad_request"]);
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
