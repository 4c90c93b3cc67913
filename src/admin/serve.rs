//! The threads of the admin interface: one accepts, each connection has one of its own.
//!
//! Blocking calls, since there are few: at most 32 connections, each with a bound on every wait.
//! Further ones are refused with an answer and closed.

use std::{
    io::{self, Read as _, Write as _},
    sync::{Arc, Weak},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rustix::event::{PollFd, PollFlags, poll};

use super::{
    Doors,
    answer::{self, Answer},
    api::Called,
    bound::{Bound, Peer, Socket},
    feed::{self, Messages},
    guard::{From, Guard},
    request::{Came, Reader, Request, Stream},
    scrape::{self, Scrape},
};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;

/// How many more there may be through the Unix socket, which only its owner can open: whoever fills
/// the address of the network does not lock the command line out.
const OWN: usize = 8;

/// How many of them may be streams: the others are for calls.
const STREAMS_MAX: usize = 16;

/// How long a client may take nothing of an answer, and how long it may take to receive it.
const WRITE: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(30);

/// How long a client is read after its last answer, so that it sees the answer and no reset; in
/// this many pieces at most.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READS: usize = 64;

/// How often the accepting thread checks whether to end.
const LOOK: Duration = Duration::from_millis(250);

/// The running admin interface.
pub(crate) struct Admin {
    /// Dropped to accept no more.
    accepts: Option<Sender<()>>,
    /// Dropped to end the connections.
    runs: Sender<()>,
    /// Held by each connection.
    seats: Weak<()>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Listens on these, and requires `token` of those that write, if there is one.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(crate) fn start(
        bound: Vec<Bound>,
        token: Option<String>,
        doors: Arc<impl Doors>,
    ) -> io::Result<Admin> {
        let (runs, over) = bounded(0);
        let (accepts, full) = bounded(0);
        let guard = Arc::new(Guard { token });
        let seats = Arc::new(());
        let held = Arc::downgrade(&seats);
        let thread = Builder::new()
            .name("ringway-admin".into())
            .spawn(move || accept(&bound, &guard, (&doors, &seats), (&full, &over)))?;
        Ok(Admin { accepts: Some(accepts), runs, seats: held, thread: Some(thread) })
    }
}

impl Admin {
    /// Accepts no more, and answers what was asked on the connections that there are.
    pub(crate) fn close(self) -> Closing {
        Closing { seats: Weak::clone(&self.seats), _runs: Some(self.runs.clone()) }
    }
}

/// The last connections of an admin interface. They end when it is dropped.
#[derive(Default)]
pub(crate) struct Closing {
    seats: Weak<()>,
    _runs: Option<Sender<()>>,
}

impl Closing {
    /// Whether all have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.seats.strong_count() == 0
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.accepts = None;
        if let Some(thread) = self.thread.take() {
            // It checks four times a second, and waits for nothing else. A panic has been reported.
            let _ = thread.join();
        }
    }
}

fn is_over(over: &Receiver<()>) -> bool {
    over.try_recv() == Err(TryRecvError::Disconnected)
}

fn accept<D: Doors>(
    bound: &[Bound],
    guard: &Arc<Guard>,
    (doors, seats): (&Arc<D>, &Arc<()>),
    (full, over): (&Receiver<()>, &Receiver<()>),
) {
    let streams = Arc::new(());
    while !is_over(full) {
        let mut ready: Vec<PollFd<'_>> =
            bound.iter().map(|bound| PollFd::from_borrowed_fd(bound.fd(), PollFlags::IN)).collect();
        if !matches!(poll(&mut ready, Some(&LOOK.try_into().unwrap_or_default())), Ok(1..)) {
            continue;
        }
        if is_over(full) {
            return;
        }
        for bound in bound {
            let Ok(mut peer) = bound.accept() else { continue };
            let own = if peer.from == From::Socket { OWN } else { 0 };
            if Arc::strong_count(seats) > CONNECTIONS_MAX + own {
                let full = Answer::error(503, "overloaded", "too many connections are open here");
                let _ = peer.stream.bound_writes(LOOK);
                let _ = peer.stream.write_all(&full.write(true, false));
                continue;
            }
            let (guard, doors) = (Arc::clone(guard), Arc::clone(doors));
            let streams = Arc::downgrade(&streams);
            let (full, over) = (full.clone(), over.clone());
            let seat = Arc::clone(seats);
            // Without a thread the connection is closed: the client sees it at once.
            let _ = Builder::new().name("ringway-admin-c".into()).spawn(move || {
                serve(peer, (&guard, &streams), &*doors, (&full, &over));
                drop(seat);
            });
        }
    }
}

/// Serves one connection to its end.
fn serve(
    peer: Peer,
    (guard, streams): (&Guard, &Weak<()>),
    doors: &impl Doors,
    (full, over): (&Receiver<()>, &Receiver<()>),
) {
    let Peer { stream, from, name } = peer;
    if stream.bound_writes(WRITE).is_err() {
        return;
    }
    let mut reader = Reader::new(stream);
    let ends = || is_over(over);
    loop {
        let (answer, closes, bodiless) = match reader.next(&ends) {
            Came::Nothing => return,
            Came::Refused(answer) => (answer, true, false),
            Came::Request(request) => {
                let bodiless = request.head.method == crate::http::head::Method::Head;
                let closes = !request.head.keep_alive || is_over(full);
                match answer(&request, (guard, streams), doors, (from, &name)) {
                    Reply::Answer(answer) => (answer, closes, bodiless),
                    Reply::Scrape(scrape) => {
                        let closes = closes || !scrape.is_chunked;
                        match scrape.send(&mut reader.stream, closes, bodiless) {
                            Ok(()) if closes => return linger(&mut reader.stream),
                            Ok(()) => continue,
                            Err(_) => return,
                        }
                    }
                    Reply::Stream(messages, _seat) => {
                        let ends = || is_over(full) || is_over(over);
                        // If the client has left it hears nothing more.
                        let _ = feed::send(&mut reader.stream, &messages, bodiless, ends);
                        return linger(&mut reader.stream);
                    }
                }
            }
        };
        let (bytes, until) = (answer.write(closes, bodiless), Instant::now() + WHOLE);
        if answer::give(&mut reader.stream, &bytes, until).is_err() {
            return;
        }
        if closes {
            return linger(&mut reader.stream);
        }
    }
}

/// What a request is answered.
enum Reply {
    Answer(Answer),
    /// All metrics.
    Scrape(Scrape),
    /// What is sent on, and its seat among the streams.
    Stream(Messages, Arc<()>),
}

fn answer(
    request: &Request,
    (guard, streams): (&Guard, &Weak<()>),
    doors: &impl Doors,
    (from, name): (From, &str),
) -> Reply {
    let called = Called::of(request);
    let exempt = called.as_ref().is_ok_and(Called::is_exempt);
    if let Err(refusal) = guard.check(&request.head, from, exempt) {
        return Reply::Answer(refusal.into());
    }
    let called = match called {
        Ok(called) => called,
        Err(refused) => return Reply::Answer(refused),
    };
    if called.is_scrape() {
        return scrape::begin(request, doors).map_or_else(Reply::Answer, Reply::Scrape);
    }
    let Some(feed) = called.feed() else {
        return Reply::Answer(called.answer(request, doors, name));
    };
    // The accepting thread has one, and each stream.
    match streams.upgrade().filter(|_| streams.strong_count() <= STREAMS_MAX + 1) {
        Some(seat) => Reply::Stream(feed::follow(request, doors, feed), seat),
        None => {
            let full = "too many streams are open here";
            Reply::Answer(Answer::error(503, "overloaded", full))
        }
    }
}

/// A close over unread bytes is a reset, which may destroy the answer.
fn linger(stream: &mut Socket) {
    if stream.end_writes().is_err() || stream.bound_reads(LINGER).is_err() {
        return;
    }
    let mut room = [0; 4096];
    for _ in 0..LINGER_READS {
        if !matches!(stream.read(&mut room), Ok(1..)) {
            return;
        }
    }
}
