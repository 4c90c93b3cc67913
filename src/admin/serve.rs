//! The threads of the admin listener: one accepts, each connection has one of its own.
//!
//! Blocking calls, since nobody here is many: at most 32 connections, each with a bound on every
//! wait. What comes beyond is told so and closed.

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rustix::event::{PollFd, PollFlags, poll};

use super::{
    Doors,
    answer::Answer,
    api::Call,
    bound::{Bound, Peer, Socket},
    guard::{From, Guard},
    request::{Came, Reader, Request, Stream},
};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;

/// How long a client may take to take an answer.
const WRITE: Duration = Duration::from_secs(10);

/// How long what a client still sends is read after its last answer, so that it sees the answer and
/// no reset; in so many pieces at most.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READS: usize = 64;

/// How often the thread that accepts looks whether it is to end.
const LOOK: Duration = Duration::from_millis(250);

/// The running admin listener.
pub(crate) struct Admin {
    /// Dropped to end it.
    runs: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Listens on these, and asks `token` of those that write, if there is one.
    ///
    /// # Errors
    /// The kernel's, where it gives no thread.
    pub(crate) fn start(
        bound: Vec<Bound>,
        token: Option<String>,
        doors: Arc<impl Doors>,
    ) -> io::Result<Admin> {
        let (runs, over) = bounded(0);
        let guard = Arc::new(Guard { token });
        let thread = Builder::new()
            .name("ringway-admin".into())
            .spawn(move || accept(&bound, &guard, &doors, &over))?;
        Ok(Admin { runs: Some(runs), thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.runs = None;
        if let Some(thread) = self.thread.take() {
            // It looks four times a second, and waits for nothing else. A panic has been told of.
            let _ = thread.join();
        }
    }
}

fn is_over(over: &Receiver<()>) -> bool {
    over.try_recv() == Err(TryRecvError::Disconnected)
}

fn accept<D: Doors>(bound: &[Bound], guard: &Arc<Guard>, doors: &Arc<D>, over: &Receiver<()>) {
    let seats = Arc::new(());
    while !is_over(over) {
        let mut ready: Vec<PollFd<'_>> =
            bound.iter().map(|bound| PollFd::from_borrowed_fd(bound.fd(), PollFlags::IN)).collect();
        if !matches!(poll(&mut ready, Some(&LOOK.try_into().unwrap_or_default())), Ok(1..)) {
            continue;
        }
        for bound in bound {
            let Ok(mut peer) = bound.accept() else { continue };
            if Arc::strong_count(&seats) > CONNECTIONS_MAX {
                let full = Answer::error(503, "overloaded", "too many connections are open here");
                let _ = peer.stream.bound_writes(LOOK);
                let _ = peer.stream.write_all(&full.write(true, false));
                continue;
            }
            let (guard, doors, over) = (Arc::clone(guard), Arc::clone(doors), over.clone());
            let seat = Arc::clone(&seats);
            // Where there is no thread the connection is closed: the client sees it at once.
            let _ = Builder::new().name("ringway-admin-c".into()).spawn(move || {
                serve(peer, &guard, &*doors, &over);
                drop(seat);
            });
        }
    }
}

/// Serves one connection to its end.
fn serve(peer: Peer, guard: &Guard, doors: &impl Doors, over: &Receiver<()>) {
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
                let closes = !request.head.keep_alive || ends();
                (answer(&request, guard, doors, (from, &name)), closes, bodiless)
            }
        };
        if reader.stream.write_all(&answer.write(closes, bodiless)).is_err() {
            return;
        }
        if closes {
            return linger(&mut reader.stream);
        }
    }
}

fn answer(
    request: &Request,
    guard: &Guard,
    doors: &impl Doors,
    (from, name): (From, &str),
) -> Answer {
    let call = Call::of(request);
    let exempt = call.as_ref().is_ok_and(|call| call.is_exempt());
    if let Err(refusal) = guard.check(&request.head, from, exempt) {
        return refusal.into();
    }
    match call {
        Ok(call) => call.answer(request, doors, name),
        Err(refused) => refused,
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
