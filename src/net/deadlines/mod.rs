//! The sweep: one slab of deadlines per worker, looked at every quarter of a second while it holds
//! anything.
//!
//! No operation has a timer object of its own. Who waits for a socket notes until when; the sweep
//! ends an overdue wait by `shutdown(2)`, which completes polls and receives alike, and leaves a
//! mark so that the one who waited knows whose doing it was. It also looks after clients that wait
//! for a slow backend: when one has left, the wait for the backend is ended. Timeouts hold to a
//! quarter of a second. Which clients are idle, longest idle first, stands in `idle.rs`.
//!
//! An entry is taken out before its socket is closed, by a guard: descriptor numbers are reused,
//! and a late entry would shut down a stranger.

mod idle;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    os::fd::RawFd,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use self::idle::{IdleList, NONE};
use super::{
    clock::Clock,
    fd::{self, Half},
    io::sleep,
};

/// How often the sweep looks.
const ROUND: Duration = Duration::from_millis(250);

/// A quarter of the waiting clients is looked at in each round.
const WATCH_ROUNDS: u32 = 4;

/// What the sweep shuts down when a wait for reading is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The reading half: a client is still to be answered.
    Reading,
    /// All of it: a backend that is late is of no more use.
    Both,
}

/// Why a wait was ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was not: whatever the socket says is the peer's doing.
    No,
    /// It was overdue.
    Overdue,
    /// The client that it was for has left.
    ClientLeft,
    /// The worker stops, or needs the room.
    Closed,
}

struct Entry {
    fd: RawFd,
    /// The client's descriptor while it waits for this one; -1 = none.
    client: RawFd,
    read_by: u64,
    write_by: u64,
    idle_since: u64,
    /// Its place among the idle.
    previous: u32,
    next: u32,
    /// Which listener it came from: eviction may be for one listener alone.
    tag: u16,
    ends: Ends,
    ended: Ended,
    idle: bool,
    used: bool,
    /// Whom to tell when it has been idle for `STAY`.
    stays: Option<Waker>,
}

/// For how long an idle client that may go on at once keeps what a burst of requests needs, and at
/// most a round longer.
const STAY: u64 = 250;

/// The tag of descriptors that no listener has.
pub(crate) const NO_TAG: u16 = u16::MAX;

#[derive(Default)]
struct Slab {
    entries: Vec<Entry>,
    free: Vec<u32>,
    idle: IdleList,
    round: u32,
}

/// The deadlines of one worker.
pub(crate) struct Deadlines {
    slab: RefCell<Slab>,
    clock: Rc<Clock>,
    sweeper: Cell<Option<Waker>>,
    awake: Cell<bool>,
}

impl Deadlines {
    pub(crate) fn new(clock: Rc<Clock>) -> Rc<Deadlines> {
        Rc::new(Deadlines {
            slab: RefCell::default(),
            clock,
            sweeper: Cell::new(None),
            awake: Cell::new(false),
        })
    }

    /// Watches a descriptor until the guard is dropped.
    pub(crate) fn watch(self: &Rc<Deadlines>, fd: RawFd, ends: Ends, tag: u16) -> Watched {
        let entry = Entry {
            fd,
            client: -1,
            read_by: 0,
            write_by: 0,
            idle_since: 0,
            previous: NONE,
            next: NONE,
            tag,
            ends,
            ended: Ended::No,
            idle: false,
            used: true,
            stays: None,
        };
        let slab = &mut *self.slab.borrow_mut();
        let index = if let Some(index) = slab.free.pop() {
            slab.entries[index as usize] = entry;
            index
        } else {
            slab.entries.push(entry);
            slab.entries.len() as u32 - 1
        };
        if !self.awake.get() {
            self.clock.renew();
            if let Some(waker) = self.sweeper.take() {
                waker.wake();
            }
        }
        Watched { deadlines: Rc::clone(self), index }
    }

    /// How many descriptors are watched.
    pub(crate) fn len(&self) -> usize {
        let slab = self.slab.borrow();
        slab.entries.len() - slab.free.len()
    }

    /// Whether nothing is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the client connection that has been idle longest, of one listener if `tag` says so;
    /// false where none is idle.
    pub(crate) fn close_longest_idle(&self, tag: Option<u16>) -> bool {
        let slab = &mut *self.slab.borrow_mut();
        let Some(index) = slab.idle.longest(&slab.entries, tag) else { return false };
        slab.idle.remove(&mut slab.entries, index);
        slab.entries[index as usize].end(Ended::Closed);
        true
    }

    /// Closes every client connection that has been idle since `until` or longer.
    pub(crate) fn close_idle_since(&self, until: u64) {
        let slab = &mut *self.slab.borrow_mut();
        while let Some(index) = slab.idle.first() {
            if slab.entries[index as usize].idle_since > until {
                return;
            }
            slab.idle.remove(&mut slab.entries, index);
            slab.entries[index as usize].end(Ended::Closed);
        }
    }

    /// Shuts everything down at once.
    pub(crate) fn close_all(&self) {
        let slab = &mut *self.slab.borrow_mut();
        for entry in slab.entries.iter_mut().filter(|entry| entry.used) {
            entry.ends = Ends::Both;
            entry.end(Ended::Closed);
        }
    }

    /// Sweeps for ever; `each_round` is called after each round.
    pub(crate) async fn sweep(&self, mut each_round: impl FnMut()) {
        loop {
            self.wait_until_needed().await;
            sleep(ROUND).await;
            self.clock.renew();
            self.round();
            each_round();
        }
    }

    async fn wait_until_needed(&self) {
        poll_fn(|cx| {
            self.awake.set(!self.is_empty());
            if self.awake.get() {
                return Poll::Ready(());
            }
            self.sweeper.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// One round: ends what is overdue, and what is done for clients that have left.
    fn round(&self) {
        let now = self.clock.now();
        let slab = &mut *self.slab.borrow_mut();
        slab.round = slab.round.wrapping_add(1);
        let turn = slab.round;
        let overdue = |by: u64| by != 0 && by <= now;
        for (index, entry) in slab.entries.iter_mut().enumerate() {
            if !entry.used || entry.ended != Ended::No {
                continue;
            }
            if entry.idle
                && entry.idle_since + STAY <= now
                && let Some(waker) = entry.stays.take()
            {
                waker.wake();
            }
            if overdue(entry.write_by) {
                entry.ends = Ends::Both;
                entry.end(Ended::Overdue);
            } else if overdue(entry.read_by) {
                entry.end(Ended::Overdue);
            } else if entry.client >= 0
                && (index as u32).wrapping_add(turn).is_multiple_of(WATCH_ROUNDS)
                && fd::has_left(entry.client)
            {
                entry.end(Ended::ClientLeft);
            }
        }
    }
}

impl Entry {
    fn end(&mut self, why: Ended) {
        self.ended = why;
        fd::shut_down(
            self.fd,
            match self.ends {
                Ends::Reading => Half::Reading,
                Ends::Both => Half::Both,
            },
        );
    }
}

/// A watched descriptor. Dropping it ends the watch; drop it before the socket.
pub(crate) struct Watched {
    deadlines: Rc<Deadlines>,
    index: u32,
}

impl Watched {
    #[inline]
    fn with<T>(&self, act: impl FnOnce(&mut Entry) -> T) -> T {
        act(&mut self.deadlines.slab.borrow_mut().entries[self.index as usize])
    }

    /// Reading must go on by then; 0 = no bound.
    #[inline]
    pub(crate) fn read_by(&self, deadline: u64) {
        self.with(|entry| entry.read_by = deadline);
    }

    /// Writing must go on by then; 0 = no bound.
    #[inline]
    pub(crate) fn write_by(&self, deadline: u64) {
        self.with(|entry| entry.write_by = deadline);
    }

    /// Reading must go on by then, and it is for this client: when it leaves, so ends the wait.
    #[inline]
    pub(crate) fn read_for(&self, deadline: u64, client: RawFd) {
        self.with(|entry| {
            entry.read_by = deadline;
            entry.client = client;
        });
    }

    /// Joins the idle, of whom the longest idle goes first when room is needed. Nothing where it is
    /// idle already: nobody becomes less idle by being looked at.
    #[inline]
    pub(crate) fn idle(&self, now: u64, deadline: u64) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        if slab.entries[self.index as usize].idle {
            return;
        }
        slab.idle.push(&mut slab.entries, self.index);
        let entry = &mut slab.entries[self.index as usize];
        entry.idle_since = now;
        entry.read_by = deadline;
    }

    /// Leaves the idle.
    #[inline]
    pub(crate) fn busy(&self) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        slab.idle.remove(&mut slab.entries, self.index);
    }

    /// Whether it was idle so lately that its client may be one who asks again at once.
    #[inline]
    pub(crate) fn was_idle_lately(&self, now: u64) -> bool {
        self.with(|entry| entry.idle_since != 0 && now <= entry.idle_since + STAY)
    }

    /// From now on this task is woken when the connection has been idle for a while.
    #[inline]
    pub(crate) fn stay(&self, waker: &Waker) {
        self.with(|entry| {
            if entry.stays.is_none() {
                entry.stays = Some(waker.clone());
            }
        });
    }

    /// Whether that has not come to pass.
    #[inline]
    pub(crate) fn stays(&self) -> bool {
        self.with(|entry| entry.stays.is_some())
    }

    /// Ends whatever is waited for, and says why.
    pub(crate) fn end(&self, why: Ended) {
        self.with(|entry| {
            entry.ends = Ends::Both;
            entry.end(why);
        });
    }

    /// Whether, and why, we ended the wait.
    #[inline]
    pub(crate) fn ended(&self) -> Ended {
        self.with(|entry| entry.ended)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        slab.idle.remove(&mut slab.entries, self.index);
        let entry = &mut slab.entries[self.index as usize];
        entry.used = false;
        entry.stays = None;
        slab.free.push(self.index);
        // Give the room of a peak back once nobody is watched.
        if slab.free.len() == slab.entries.len() {
            slab.entries.clear();
            slab.free.clear();
            if slab.entries.capacity() > 4096 {
                slab.entries.shrink_to(64);
                slab.free.shrink_to(64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::{fd::AsRawFd, unix::net::UnixStream},
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        task::Wake,
    };

    use super::*;

    /// A watched socket and its peer. Fields are dropped in this order.
    struct Socket {
        watched: Watched,
        ours: UnixStream,
        peer: UnixStream,
    }

    impl Socket {
        fn new(deadlines: &Rc<Deadlines>, ends: Ends, tag: u16) -> Socket {
            let (ours, peer) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            peer.set_nonblocking(true).unwrap();
            let watched = deadlines.watch(ours.as_raw_fd(), ends, tag);
            Socket { watched, ours, peer }
        }

        /// Whether reading it finds an end.
        fn reads_an_end(&self) -> bool {
            matches!((&self.ours).read(&mut [0; 8]), Ok(0))
        }

        /// Whether the peer can still be told something.
        fn writes(&self) -> bool {
            (&self.ours).write(b"x").is_ok()
        }
    }

    fn deadlines() -> Rc<Deadlines> {
        Deadlines::new(Rc::new(Clock::new()))
    }

    #[test]
    fn a_client_that_is_late_can_still_be_answered() {
        let deadlines = deadlines();
        let client = Socket::new(&deadlines, Ends::Reading, 0);
        client.watched.read_by(deadlines.clock.now());
        deadlines.round();
        assert_eq!(client.watched.ended(), Ended::Overdue);
        assert!(client.reads_an_end() && client.writes());
        assert_eq!((&client.peer).read(&mut [0; 8]).unwrap(), 1);
    }

    #[test]
    fn a_backend_that_is_late_is_shut_down_whole() {
        let deadlines = deadlines();
        let backend = Socket::new(&deadlines, Ends::Both, NO_TAG);
        backend.watched.read_by(deadlines.clock.now());
        deadlines.round();
        assert_eq!(backend.watched.ended(), Ended::Overdue);
        assert!(backend.reads_an_end() && !backend.writes());
    }

    #[test]
    fn a_peer_that_takes_nothing_is_shut_down_whole() {
        let deadlines = deadlines();
        let client = Socket::new(&deadlines, Ends::Reading, 0);
        client.watched.write_by(deadlines.clock.now());
        deadlines.round();
        assert_eq!(client.watched.ended(), Ended::Overdue);
        assert!(client.reads_an_end() && !client.writes());
    }

    #[test]
    fn nobody_is_ended_before_the_time_and_without_a_time_never() {
        let deadlines = deadlines();
        let set: [fn(&Watched, u64); 4] = [
            |_, _| {},
            |watched, late| watched.read_by(late),
            |watched, late| watched.write_by(late),
            |watched, late| {
                // What was waited for has come.
                watched.read_by(late - 1);
                watched.write_by(late - 1);
                watched.read_by(0);
                watched.write_by(0);
            },
        ];
        for set in set {
            let socket = Socket::new(&deadlines, Ends::Both, 0);
            // The clock stands still from here on: it is renewed when one more is watched.
            set(&socket.watched, deadlines.clock.now() + 1);
            deadlines.round();
            assert_eq!(socket.watched.ended(), Ended::No);
            assert!(!socket.reads_an_end() && socket.writes());
        }
    }

    #[test]
    fn a_descriptor_that_is_watched_no_more_is_left_alone() {
        let deadlines = deadlines();
        let Socket { watched, ours, peer } = Socket::new(&deadlines, Ends::Both, 0);
        watched.idle(deadlines.clock.now(), deadlines.clock.now());
        drop(watched);
        assert!(deadlines.is_empty() && !deadlines.close_longest_idle(None));
        // The place is used again, by another.
        let next = Socket::new(&deadlines, Ends::Both, 0);
        next.watched.read_by(deadlines.clock.now());
        deadlines.round();
        deadlines.close_all();
        assert!((&ours).write(b"x").is_ok() && (&peer).read(&mut [0; 8]).is_ok());
        assert_eq!(next.watched.ended(), Ended::Closed);
    }

    #[test]
    fn a_wait_ends_when_the_client_it_is_for_has_left() {
        let deadlines = deadlines();
        let client = Socket::new(&deadlines, Ends::Reading, 0);
        let backends: Vec<_> = (0..8)
            .map(|_| {
                let backend = Socket::new(&deadlines, Ends::Both, NO_TAG);
                backend.watched.read_for(0, client.ours.as_raw_fd());
                backend
            })
            .collect();
        let one = &backends[0];
        // The answer that came in time was the last wait for this client.
        let other = &backends[1];
        other.watched.read_for(0, -1);
        client.peer.shutdown(std::net::Shutdown::Write).unwrap();
        (0..WATCH_ROUNDS).for_each(|_| deadlines.round());
        assert_eq!(one.watched.ended(), Ended::No, "a half-close is not leaving");
        drop(client.peer);
        (0..WATCH_ROUNDS).for_each(|_| deadlines.round());
        for backend in backends.iter().filter(|backend| !std::ptr::eq(*backend, other)) {
            assert_eq!(backend.watched.ended(), Ended::ClientLeft);
            assert!(backend.reads_an_end() && !backend.writes());
        }
        assert_eq!(other.watched.ended(), Ended::No);
    }

    #[test]
    fn why_a_wait_was_ended_is_said_once() {
        let deadlines = deadlines();
        let socket = Socket::new(&deadlines, Ends::Reading, 0);
        socket.watched.idle(deadlines.clock.now(), 0);
        assert!(deadlines.close_longest_idle(None));
        socket.watched.read_by(deadlines.clock.now());
        deadlines.round();
        assert_eq!(socket.watched.ended(), Ended::Closed);
    }

    #[test]
    fn room_is_made_by_the_longest_idle_of_those_asked_for() {
        let deadlines = deadlines();
        let tags = [1, 2, 1, 2];
        let sockets: Vec<_> =
            tags.iter().map(|tag| Socket::new(&deadlines, Ends::Reading, *tag)).collect();
        sockets.iter().for_each(|socket| socket.watched.idle(1, 0));
        sockets[0].watched.busy();
        let closed = |index: usize| sockets[index].watched.ended() == Ended::Closed;
        assert!(deadlines.close_longest_idle(Some(1)) && closed(2) && !closed(1));
        assert!(!deadlines.close_longest_idle(Some(1)) && !closed(0));
        assert!(deadlines.close_longest_idle(None) && closed(1) && !closed(3));
        sockets[0].watched.idle(2, 0);
        assert!(deadlines.close_longest_idle(None) && closed(3));
        assert!(deadlines.close_longest_idle(None) && closed(0));
        assert!(!deadlines.close_longest_idle(None));
    }

    #[test]
    fn those_idle_for_long_are_closed_and_the_others_not() {
        let deadlines = deadlines();
        let sockets: Vec<_> = (0..4).map(|_| Socket::new(&deadlines, Ends::Reading, 0)).collect();
        sockets.iter().zip([10, 20, 30]).for_each(|(socket, since)| {
            socket.watched.idle(since, 0);
        });
        deadlines.close_idle_since(20);
        let ended = sockets.iter().map(|socket| socket.watched.ended());
        assert!(ended.eq([Ended::Closed, Ended::Closed, Ended::No, Ended::No]));
    }

    #[test]
    fn who_stays_is_told_once_it_has_been_idle_for_a_while() {
        struct Told(AtomicU32);
        impl Wake for Told {
            fn wake(self: Arc<Told>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let deadlines = deadlines();
        let told = Arc::new(Told(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&told));
        let Socket { watched, .. } = &Socket::new(&deadlines, Ends::Reading, 0);
        let begun = deadlines.clock.now();
        let round_at = |now| {
            deadlines.clock.set(now);
            deadlines.round();
            (watched.stays(), told.0.load(Ordering::Relaxed))
        };
        assert!(!watched.was_idle_lately(begun), "it is new");
        watched.idle(begun, 0);
        assert!(
            watched.was_idle_lately(begun + STAY) && !watched.was_idle_lately(begun + STAY + 1)
        );
        watched.stay(&waker);
        watched.stay(&waker);
        assert_eq!(Arc::strong_count(&told), 3, "one waker is kept");
        assert_eq!(round_at(begun + STAY - 1), (true, 0));
        watched.busy();
        assert_eq!(round_at(begun + 2 * STAY), (true, 0), "it is not idle");
        watched.idle(begun + 2 * STAY, 0);
        assert_eq!(round_at(begun + 3 * STAY), (false, 1));
        assert_eq!(round_at(begun + 4 * STAY), (false, 1));
        assert_eq!(watched.ended(), Ended::No);
    }

    #[test]
    fn everything_can_be_shut_down_at_once() {
        let deadlines = deadlines();
        let sockets = [Ends::Reading, Ends::Both].map(|ends| Socket::new(&deadlines, ends, 0));
        deadlines.close_all();
        for socket in &sockets {
            assert_eq!(socket.watched.ended(), Ended::Closed);
            assert!(socket.reads_an_end() && !socket.writes());
        }
        assert_eq!(deadlines.len(), 2);
        drop(sockets);
        assert!(deadlines.is_empty());
    }
}
