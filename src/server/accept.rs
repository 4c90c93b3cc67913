//! The accept loop of one listener on one worker, with its admission.
//!
//! Admitted connections go to `connection.rs`; others get a 503 and a log line. Without descriptors
//! a connection is accepted and closed rather than left in the queue. A drain serves all that the
//! kernel has queued, and accepts no more.

use std::{
    fs::File,
    io,
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use rustix::io::Errno;

use super::{
    connection::{self, Arrival},
    level,
    linger::turn_away,
    proxied, secure,
};
use crate::base::{
    endpoint::Endpoint,
    moment::{Micros, Tick},
};
use crate::exchange::log_refused;
use crate::http::{
    answer::{self, FaultAnswer},
    fault::{Cause, Fault},
};
use crate::net::{
    deadlines::Watch,
    fd,
    io::{FREED, sleep, task},
    listener::Listener,
    stream::Stream,
    turns::{give_way, next_turn},
};
use crate::observe::{
    record::{Record, Term},
    reports::Limit,
};
use crate::plan::Mode;
use crate::proto::peer::PeerAddress;
use crate::shared::{
    counters::Counter,
    request_times::{Phase, Timed},
};
use crate::worker::{Admitted, Listening, RestingClient, Socket, Worker};

/// Connections accepted before other tasks get their turn.
const BATCH: usize = 32;

/// The first and the longest pause when nothing can be accepted: the process has no descriptor
/// left, or the listening socket is broken.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Batches that a drain accepts in one step, or clients that it refuses without descriptors; the
/// others find the end.
const REST: usize = 4_096;

/// How long a drain waits for handshakes in progress.
const HANDSHAKE_STEP: Duration = Duration::from_millis(10);
const HANDSHAKE_STEPS: u32 = 10;

/// Accepts connections at one address of a listener until the worker drains or the address is
/// removed; then those that wait, and no more.
///
/// # Errors
/// If there is no descriptor left for it.
pub(super) fn begin(worker: &Rc<Worker>, socket: Socket) -> io::Result<()> {
    let Socket { listener: id, address, fd, is_shared } = socket;
    let listener = Listener::adopt(fd)?;
    // Known from now on: the next message may end it.
    let at = worker.begin_to_accept((id, address), is_shared);
    task(run(Rc::clone(worker), listener, (at, address)));
    Ok(())
}

async fn run(worker: Rc<Worker>, listener: Listener, (at, address): (Rc<Listening>, Endpoint)) {
    let (ends, port) = (&at.ends, address.port());
    let of = Rc::clone(&at);
    let mut accepting = Accepting::new(worker, listener, of, port);
    loop {
        give_way().await;
        let ready = ends.or(accepting.listener.readable()).await;
        if let Some((backlog, patience)) = at.tune() {
            accepting.listener.tune(backlog, patience);
        }
        let batch = match ready {
            None => break,
            Some(Ok(())) => accepting.batch(),
            Some(Err(_)) => accepting.stuck(),
        };
        if let Batch::NoneFor(pause) | Batch::Stuck(pause) = batch {
            ends.or(sleep(pause)).await;
        }
    }
    // Connections in the queue are served, and those in a handshake, which takes a round trip; the
    // kernel refuses new ones, which are tried elsewhere. If another process has the socket, too,
    // the queue is left to it.
    if !at.is_shared.get() && accepting.listener.refuse_new().is_ok() {
        for _ in 0..HANDSHAKE_STEPS {
            accepting.rest().await;
            sleep(HANDSHAKE_STEP).await;
        }
        accepting.rest().await;
    }
    accepting.worker.end_to_accept(&at);
}

/// Goes on with a connection that another process has given away, if there is room for it.
pub(super) fn adopt(worker: &Rc<Worker>, connection: RestingClient) {
    if !worker.serves(connection.listener) {
        return;
    }
    let Some(admitted) = Admitted::enter(worker, connection.listener) else { return };
    go_on(worker, connection, admitted);
}

/// Goes on with a connection that was let in somewhere else.
pub(super) fn go_on(worker: &Rc<Worker>, connection: RestingClient, admitted: Admitted) {
    let RestingClient { listener, is_idle, fd } = connection;
    let known = TcpStream::from(fd);
    let from = match known.peer_addr() {
        Ok(address) => Some(address),
        // It has left, and nobody can say who it was: it must not pass for one of this machine.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
        // A Unix socket.
        Err(_) => None,
    };
    let port = known.local_addr().map_or(0, |it| it.port());
    let arrival = Arrival { listener, from: PeerAddress::of(from), port, proxied: None };
    let deadlines = &worker.deadlines;
    let stream = Stream::adopt(known.into(), |fd| deadlines.watch(fd, Watch::Client(listener)));
    let Ok(stream) = stream else { return };
    let begin = if is_idle { connection::go_on } else { connection::spawn };
    begin(Rc::clone(worker), stream, arrival, admitted);
}

struct Accepting {
    worker: Rc<Worker>,
    listener: Listener,
    at: Rc<Listening>,
    port: u16,
    /// A descriptor to give up when there is no other: to accept with, and close.
    spare: Option<File>,
    pause: Duration,
    /// When the wait of a connection was last counted.
    timed_at: Option<Tick>,
}

/// The result of a batch.
enum Batch {
    /// There may be more.
    Full,
    /// No connection waits any more.
    Empty,
    /// No descriptor is left: one will be in a moment, or one client was refused. Pause this long
    /// before trying again.
    NoneFor(Duration),
    /// Nothing can be accepted here; pause this long before trying again.
    Stuck(Duration),
}

impl Accepting {
    fn new(worker: Rc<Worker>, listener: Listener, at: Rc<Listening>, port: u16) -> Accepting {
        let (spare, pause, timed_at) = (spare(), PAUSE, None);
        Accepting { worker, listener, at, port, spare, pause, timed_at }
    }

    /// Accepts some of the waiting connections.
    fn batch(&mut self) -> Batch {
        // The time limits of a new connection begin now.
        let now = self.worker.clock.renew().tick();
        for _ in 0..BATCH {
            match self.listener.accept() {
                Ok((fd, address)) => {
                    self.pause = PAUSE;
                    if self.timed_at.replace(now) != Some(now) {
                        self.time(fd.as_fd());
                    }
                    self.admit(fd, PeerAddress::of(address));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Batch::Empty,
                Err(error) if out_of_descriptors(&error) => {
                    if self.worker.frees_descriptors() {
                        return Batch::NoneFor(FREED);
                    }
                    self.turn_one_away();
                    return Batch::NoneFor(self.longer_pause());
                }
                Err(error) if is_lasting(&error) => return self.stuck(),
                // The client was gone before we came (ECONNABORTED and the like).
                Err(_) => {}
            }
        }
        Batch::Full
    }

    fn stuck(&mut self) -> Batch {
        Batch::Stuck(self.longer_pause())
    }

    fn longer_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// Accepts all that wait in a queue to which none are added. A pause would only delay the end
    /// of a process that may be waited for.
    async fn rest(&mut self) {
        for _ in 0..REST {
            match self.batch() {
                Batch::Empty | Batch::Stuck(_) => return,
                Batch::Full | Batch::NoneFor(_) => next_turn().await,
            }
        }
    }

    /// Counts how long a connection has waited for this: the first of each millisecond, which of
    /// those that are accepted together is the one that has waited longest.
    fn time(&self, connection: BorrowedFd<'_>) {
        if let Some(waited) = fd::age_unsent(connection) {
            let waited = Micros(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
            self.worker.counters.times().record(Timed::Phase(Phase::Accept), waited);
        }
    }

    /// Begins to serve a connection, or refuses it for lack of room.
    fn admit(&self, fd: OwnedFd, from: PeerAddress) {
        let (worker, id) = (&self.worker, self.at.listener());
        if !worker.serves(id) {
            // It was in the queue when its listener was removed.
            return;
        }
        let arrival = Arrival { listener: id, from, port: self.port, proxied: None };
        if worker.refuses(from) && !proxied::is_due(worker, &arrival) {
            // Nothing is said: to a crowd of these an answer would cost more than they do.
            worker.count(Counter::RejectedAbuse);
            return fd::reset_on_close(fd.as_fd());
        }
        let Some(admitted) = Admitted::enter(worker, id) else {
            return self.refuse(fd, &arrival);
        };
        let kept = level::hand_over_new(worker, &arrival, fd, admitted);
        let Some((fd, admitted)) = kept else { return };
        let deadlines = &worker.deadlines;
        let stream = Stream::adopt(fd, |fd| deadlines.watch(fd, Watch::Client(id)));
        let Ok(stream) = stream else { return };
        connection::spawn(Rc::clone(worker), stream, arrival, admitted);
    }

    /// Answers 503 without reading the request, and closes; resets a connection of TCP.
    fn refuse(&self, fd: OwnedFd, arrival: &Arrival) {
        let worker = &self.worker;
        let is_http = worker.in_force().plan.listener(arrival.listener).mode == Mode::Http;
        let fault = Fault::from(Cause::Overloaded);
        let request_id = worker.request_id(worker.clock.renew());
        let about = FaultAnswer {
            date: &worker.http_date(),
            request_id: Some(&request_id.text()),
            ..FaultAnswer::default()
        };
        let out = match worker.front(arrival.listener) {
            None if is_http => answer::alone(fault, &about),
            None => Vec::new(),
            // It understands nothing else.
            Some(_) => secure::NO_ROOM.to_vec(),
        };
        if out.is_empty() {
            fd::reset_on_close(fd.as_fd());
            drop(fd);
        } else {
            turn_away(worker, fd, &out);
        }
        let record = Record {
            status: if is_http { fault.status() } else { 0 },
            term: Term::Fault(fault.cause),
            request_id: Some(request_id),
            response_bytes: out.len() as u64,
            ..Record::default()
        };
        log_refused(worker, &connection::greet(worker, arrival, None), &record);
    }

    /// Accepts with the spare descriptor and closes: a clear end is better than a queue that is
    /// never served.
    fn turn_one_away(&mut self) {
        self.worker.count(Counter::RejectedDescriptors);
        self.worker.events.limit(Limit::Descriptors, self.worker.clock.tick());
        self.spare = None;
        drop(self.listener.accept());
        self.spare = spare();
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn out_of_descriptors(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM])
}

/// Whether the error is about the listening socket, so that it will come again.
fn is_lasting(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::FAULT, Errno::OPNOTSUPP])
}

fn is_one_of(error: &io::Error, errors: &[Errno]) -> bool {
    errors.iter().any(|one| error.raw_os_error() == Some(one.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, poll_fn},
        net::SocketAddr,
        pin::pin,
        task::Poll,
    };

    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::*;
    use crate::plan::ListenerId;
    use crate::testkit::on_both_drivers;

    fn worker() -> Rc<Worker> {
        let text = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                    [pool.app]\nbackends = [\"127.0.0.1:9\"]\n";
        Worker::crew(text, 1).remove(0)
    }

    /// A broken listening socket fails for ever.
    #[test]
    fn an_error_that_lasts_is_met_with_a_pause_and_ends_a_drain() {
        on_both_drivers(|| async {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket =
                rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
            let socket = socket.unwrap();
            let any: SocketAddr = ([127, 0, 0, 1], 0).into();
            rustix::net::bind(&socket, &any).unwrap();
            let listener = Listener::adopt(socket).unwrap();
            let worker = worker();
            let at = worker.begin_to_accept((ListenerId(0), any.into()), false);
            let mut accepting = Accepting::new(worker, listener, at, 0);
            for pause in [10, 20, 40] {
                let pause = Duration::from_millis(pause);
                assert!(matches!(accepting.batch(), Batch::Stuck(so_long) if so_long == pause));
            }
            let mut rest = pin!(accepting.rest());
            let ended = poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx))).await;
            assert!(ended.is_ready(), "a drain does not pause");
        });
    }

    #[test]
    fn what_a_connection_has_waited_is_the_kernels_word() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        // What comes meanwhile makes it no younger.
        std::io::Write::write_all(&mut client, b"GET").unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let waited = fd::age_unsent(accepted.as_fd()).unwrap();
        assert!((80..60_000).contains(&waited.as_millis()), "{waited:?}");
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(fd::age_unsent(one.as_fd()), None);
    }
}
