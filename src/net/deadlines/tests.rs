//! Tests of the sweep: each half of a connection ends when it should, for one reason, once.
//!
//! The clock stands still or is set; sockets are pairs of the kernel, so that a shutdown is seen
//! from both ends. `stream/mod.rs` tests how tasks react.

use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Wake,
    time::Duration,
};

use super::{entry::packed, sweep::WATCH_ROUNDS, watched::STAY, *};
use crate::base::{
    ids::{BackendId, ListenerId, PoolId},
    moment::{Deadline, Tick},
};
use crate::net::leaving::{ForClient, Leaves};

const MS: Duration = Duration::from_millis(1);

/// A watched socket and its peer. Fields are dropped in this order.
struct Socket {
    watched: Watched,
    ours: UnixStream,
    peer: UnixStream,
}

impl Socket {
    fn new(deadlines: &Rc<Deadlines>, watch: Watch) -> Socket {
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        let watched = deadlines.watch(ours.as_raw_fd(), watch);
        Socket { watched, ours, peer }
    }

    /// Whether reading it finds an end.
    fn reads_an_end(&self) -> bool {
        matches!((&self.ours).read(&mut [0; 8]), Ok(0))
    }

    /// Whether the peer can still be sent something.
    fn writes(&self) -> bool {
        (&self.ours).write(b"x").is_ok()
    }

    fn ended(&self) -> (Option<Ended>, Option<Ended>) {
        (self.watched.ended(End::Reading), self.watched.ended(End::Writing))
    }
}

/// A task that counts how often it is woken.
#[derive(Default)]
struct Task(AtomicU32);

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn new() -> (Arc<Task>, Waker) {
        let task = Arc::new(Task::default());
        (Arc::clone(&task), Waker::from(task))
    }

    fn woken(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

fn of(client: &Socket) -> ForClient {
    client.watched.waits(client.ours.as_raw_fd(), Leaves::Reset)
}

fn deadlines() -> Rc<Deadlines> {
    Deadlines::new(Rc::new(Clock::new()))
}

impl Deadlines {
    /// One round, without turns of other tasks.
    fn look(&self) {
        self.slab.borrow_mut().begin_round(self.clock.tick());
        let mut from = Some(0);
        while let Some(slice) = from {
            from = self.slice(slice);
        }
    }
}

#[test]
fn a_client_that_is_late_is_woken_and_can_still_be_read_and_answered() {
    let deadlines = deadlines();
    let client = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
    let (task, waker) = Task::new();
    assert_eq!(client.watched.ended_or_wakes(End::Reading, &waker), None);
    client.watched.read_by(Deadline::at(deadlines.clock.tick()));
    deadlines.look();
    assert_eq!(client.watched.ended_or_wakes(End::Reading, &waker), Some(Ended::Overdue));
    assert_eq!((client.ended(), task.woken()), ((Some(Ended::Overdue), None), 1));
    (&client.peer).write_all(b"late").unwrap();
    assert_eq!((&client.ours).read(&mut [0; 8]).unwrap(), 4);
    assert!(client.writes());
    assert_eq!((&client.peer).read(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn a_backend_that_is_late_is_shut_down_whole() {
    let deadlines = deadlines();
    let backend = Socket::new(&deadlines, Watch::Backend);
    backend.watched.read_by(Deadline::at(deadlines.clock.tick()));
    deadlines.look();
    assert_eq!(backend.ended(), (Some(Ended::Overdue), Some(Ended::Overdue)));
    assert!(backend.reads_an_end() && !backend.writes());
}

#[test]
fn a_tunnel_is_ended_without_a_word_to_either_peer() {
    let deadlines = deadlines();
    let backend = Socket::new(&deadlines, Watch::Backend);
    backend.watched.is_of_tunnel();
    let (task, waker) = Task::new();
    assert_eq!(backend.watched.ended_or_wakes(End::Writing, &waker), None);
    backend.watched.read_by(Deadline::at(deadlines.clock.tick()));
    deadlines.look();
    assert_eq!((backend.ended(), task.woken()), ((Some(Ended::Overdue), None), 1));
    deadlines.close_all();
    assert_eq!(backend.ended(), (Some(Ended::Overdue), Some(Ended::Closed)));
    assert!(task.woken() == 2 && backend.writes() && !backend.reads_an_end());
}

#[test]
fn a_task_that_awaits_a_backend_and_has_something_to_look_after_is_woken_once() {
    let deadlines = deadlines();
    let client = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
    let backend = Socket::new(&deadlines, Watch::Backend);
    let (task, waker) = Task::new();
    assert_eq!(client.watched.ended_or_wakes(End::Reading, &waker), None);
    let mut woken = 0;
    for (looks_after, answered) in [(false, false), (true, false), (true, true), (true, false)] {
        backend.watched.awaits(Deadline::NEVER, Some(of(&client)), looks_after);
        if answered {
            backend.watched.awaits_no_more();
        }
        woken += u32::from(looks_after && !answered);
        deadlines.look();
        deadlines.look();
        assert_eq!(task.woken(), woken, "looks after: {looks_after}, answered: {answered}");
    }
    assert_eq!((client.ended(), backend.ended()), ((None, None), (None, None)));
}

#[test]
fn a_task_without_a_descriptor_is_woken_by_either_deadline_and_no_socket_is_touched() {
    let deadlines = deadlines();
    type Set = fn(&Watched, Deadline);
    let set: [(Set, End); 2] = [
        (|watched, late| watched.read_by(late), End::Reading),
        (|watched, late| watched.write_by(late), End::Writing),
    ];
    for (set, end) in set {
        // The number of a real socket, of which the entry must not know.
        let other = Socket::new(&deadlines, Watch::Backend);
        let watched = deadlines.watch(other.ours.as_raw_fd(), Watch::Task);
        let (task, waker) = Task::new();
        watched.rests(Rest::Idle, deadlines.clock.tick(), Deadline::NEVER);
        assert!(!deadlines.make_room(None), "it does not rest");
        assert_eq!(watched.ended_or_wakes(end, &waker), None);
        set(&watched, Deadline::at(deadlines.clock.tick()));
        deadlines.look();
        assert_eq!(watched.ended_or_wakes(end, &waker), Some(Ended::Overdue));
        assert_eq!(task.woken(), 1);
        other.peer.set_nonblocking(true).unwrap();
        let read = (&other.peer).read(&mut [0; 8]).unwrap_err();
        assert_eq!(read.kind(), std::io::ErrorKind::WouldBlock, "it is open");
    }
}

#[test]
fn a_peer_that_takes_nothing_is_shut_down_whole() {
    let deadlines = deadlines();
    let client = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
    client.watched.write_by(Deadline::at(deadlines.clock.tick()));
    deadlines.look();
    assert_eq!(client.ended(), (Some(Ended::Overdue), Some(Ended::Overdue)));
    assert!(client.reads_an_end() && !client.writes());
}

/// Whatever ended a client's reading, its writing has its deadline all the same.
#[test]
fn writing_is_late_although_reading_ended_before() {
    type EndReading = fn(&Deadlines, &Socket);
    let reading_ends: [(EndReading, Ended); 2] = [
        (
            |deadlines, client| client.watched.read_by(Deadline::at(deadlines.clock.tick())),
            Ended::Overdue,
        ),
        (
            |_, client| {
                client.watched.read_for(Deadline::NEVER, Some(of(client)));
                client.peer.shutdown(std::net::Shutdown::Both).unwrap();
            },
            Ended::ClientLeft,
        ),
    ];
    for (end_reading, why) in reading_ends {
        let deadlines = deadlines();
        let client = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
        end_reading(&deadlines, &client);
        (0..WATCH_ROUNDS).for_each(|_| deadlines.look());
        assert_eq!(client.ended(), (Some(why), None));
        client.watched.write_by(Deadline::at(deadlines.clock.tick() + MS));
        deadlines.look();
        assert_eq!(client.ended(), (Some(why), None), "it has time");
        client.watched.write_by(Deadline::at(deadlines.clock.tick()));
        deadlines.look();
        assert_eq!(client.ended(), (Some(why), Some(Ended::Overdue)));
        assert!(!client.writes());
    }
}

#[test]
fn nobody_is_ended_before_the_time_and_without_a_time_never() {
    let deadlines = deadlines();
    let set: [fn(&Watched, Tick); 4] = [
        |_, _| {},
        |watched, late| watched.read_by(Deadline::at(late)),
        |watched, late| watched.write_by(Deadline::at(late)),
        |watched, late| {
            // What was waited for has come.
            watched.read_by(Deadline::at(Tick::from_millis(late.millis() - 1)));
            watched.write_by(Deadline::at(Tick::from_millis(late.millis() - 1)));
            watched.read_by(Deadline::NEVER);
            watched.write_by(Deadline::NEVER);
        },
    ];
    for set in set {
        let socket = Socket::new(&deadlines, Watch::Backend);
        // The clock stands still from here on: it is updated when one more is watched.
        set(&socket.watched, deadlines.clock.tick() + MS);
        deadlines.look();
        assert_eq!(socket.ended(), (None, None));
        assert!(!socket.reads_an_end() && socket.writes());
    }
}

#[test]
fn a_descriptor_that_is_watched_no_more_is_left_alone() {
    let deadlines = deadlines();
    let Socket { watched, ours, peer } = Socket::new(&deadlines, Watch::Backend);
    watched.rests(Rest::Idle, deadlines.clock.tick(), Deadline::at(deadlines.clock.tick()));
    drop(watched);
    assert!(deadlines.is_empty() && !deadlines.make_room(None));
    // The slot is used again, by another.
    let next = Socket::new(&deadlines, Watch::Backend);
    next.watched.read_by(Deadline::at(deadlines.clock.tick()));
    deadlines.look();
    deadlines.close_all();
    assert!((&ours).write(b"x").is_ok() && (&peer).read(&mut [0; 8]).is_ok());
    assert_eq!(next.watched.reading(), Some(Ended::Overdue), "why is said once");
}

#[test]
fn a_wait_ends_when_the_client_it_is_for_has_left() {
    let deadlines = deadlines();
    let client = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
    let backends: Vec<_> = (0..8)
        .map(|_| {
            let backend = Socket::new(&deadlines, Watch::Backend);
            backend.watched.read_for(Deadline::NEVER, Some(of(&client)));
            backend
        })
        .collect();
    let one = &backends[0];
    // The answer that came in time was the last wait for this client.
    let other = &backends[1];
    other.watched.read_for(Deadline::NEVER, None);
    client.peer.shutdown(std::net::Shutdown::Write).unwrap();
    (0..WATCH_ROUNDS).for_each(|_| deadlines.look());
    assert_eq!(one.watched.reading(), None, "a half-close is not leaving");
    drop(client.peer);
    (0..WATCH_ROUNDS).for_each(|_| deadlines.look());
    for backend in backends.iter().filter(|backend| !std::ptr::eq(*backend, other)) {
        assert_eq!(backend.ended(), (Some(Ended::ClientLeft), Some(Ended::ClientLeft)));
        assert!(backend.reads_an_end() && !backend.writes());
    }
    assert_eq!(other.watched.reading(), None);
}

#[test]
fn a_call_wakes_whoever_waits_for_those_backends_and_nobody_else() {
    let deadlines = deadlines();
    let asks = |backend: u16| {
        let client = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
        let (task, waker) = Task::new();
        assert_eq!(client.watched.ended_or_wakes(End::Reading, &waker), None);
        let asked = Socket::new(&deadlines, Watch::Backend);
        asked.watched.is_of(PoolId(1), BackendId(backend));
        asked.watched.read_for(Deadline::NEVER, Some(of(&client)));
        (client, asked, task)
    };
    let connects = |backend: u16| {
        let (task, waker) = Task::new();
        let watched = deadlines.watch(-1, Watch::Task);
        watched.is_of(PoolId(1), BackendId(backend));
        watched.wakes(&waker);
        (watched, task)
    };
    let (asking, connecting) = ([1, 2, 3].map(asks), [1, 2, 3].map(connects));
    let gone = asks(3);
    // Its place is free, and its backend's entry names it still.
    drop(gone.0);
    let called = [3, 1].map(|backend| packed(PoolId(1), BackendId(backend)));
    let mut called = called.to_vec();
    called.sort_unstable();
    assert_eq!(deadlines.call_slice(&called, 0), None);
    assert_eq!(asking.each_ref().map(|(_, _, task)| task.woken()), [1, 0, 1]);
    assert_eq!(connecting.each_ref().map(|(_, task)| task.woken()), [1, 0, 1]);
    assert_eq!(asking[0].1.ended(), (None, None), "the task decides");
    let other_pool = [packed(PoolId(2), BackendId(2))];
    assert_eq!(deadlines.call_slice(&other_pool, 0), None);
    assert_eq!(asking.each_ref().map(|(_, _, task)| task.woken()), [1, 0, 1]);
}

#[test]
fn who_makes_room_is_told_to_close_and_says_the_end_itself() {
    let deadlines = deadlines();
    let client = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
    let (task, waker) = Task::new();
    assert_eq!(client.watched.ended_or_wakes(End::Reading, &waker), None);
    client.watched.rests(Rest::Idle, deadlines.clock.tick(), Deadline::NEVER);
    assert!(deadlines.make_room(None));
    client.watched.read_by(Deadline::at(deadlines.clock.tick()));
    deadlines.look();
    assert_eq!((client.ended(), task.woken()), ((Some(Ended::Closed), Some(Ended::Closed)), 1));
    // With TLS there is something to say before the end.
    let seen = (&client.peer).read(&mut [0; 8]).unwrap_err();
    assert_eq!(seen.kind(), std::io::ErrorKind::WouldBlock);
    // Nothing revives it.
    client.watched.lingers(Tick::from_millis(1), Deadline::NEVER);
    assert_eq!(client.watched.reading(), Some(Ended::Closed));
}

#[test]
fn who_has_asked_already_does_not_make_room() {
    let deadlines = deadlines();
    let asks = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
    asks.watched.rests(Rest::Silent, Tick::from_millis(1), Deadline::NEVER);
    (&asks.peer).write_all(b"G").unwrap();
    assert!(!deadlines.make_room(None));
    deadlines.close_resting_since(Tick::from_millis(1));
    let idle = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
    idle.watched.rests(Rest::Idle, Tick::from_millis(2), Deadline::NEVER);
    assert!(deadlines.make_room(None));
    let ended = [asks.watched.reading(), idle.watched.reading()];
    assert_eq!(ended, [None, Some(Ended::Closed)]);
}

#[test]
fn those_answered_for_the_last_time_go_first_then_the_silent_then_the_idle() {
    let deadlines = deadlines();
    let rests = |kind, tag| {
        let socket = Socket::new(&deadlines, Watch::Client(ListenerId(tag)));
        socket.watched.rests(kind, Tick::from_millis(1), Deadline::NEVER);
        socket
    };
    let sockets = [
        rests(Rest::Idle, 1),
        rests(Rest::Silent, 1),
        rests(Rest::Lingering, 1),
        rests(Rest::Silent, 2),
        rests(Rest::Idle, 2),
    ];
    let closed = |index: usize| sockets[index].watched.reading() == Some(Ended::Closed);
    assert!(deadlines.make_room(Some(ListenerId(2))) && closed(3));
    assert!(deadlines.make_room(None) && closed(2));
    assert!(deadlines.make_room(None) && closed(1));
    assert!(deadlines.make_room(Some(ListenerId(2))) && closed(4) && !closed(0));
    sockets[0].watched.busy();
    assert!(!deadlines.make_room(None));
    sockets[0].watched.rests(Rest::Idle, Tick::from_millis(2), Deadline::NEVER);
    assert!(deadlines.make_room(None) && closed(0));
    assert!(!deadlines.make_room(None));
}

#[test]
fn those_resting_for_long_are_closed_and_the_others_not() {
    let deadlines = deadlines();
    let kinds = [Rest::Idle, Rest::Silent, Rest::Idle, Rest::Silent, Rest::Lingering];
    let sockets: Vec<_> = kinds
        .iter()
        .zip([10, 20, 30, 30, 5])
        .map(|(kind, since)| {
            let socket = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
            socket.watched.rests(*kind, Tick::from_millis(since), Deadline::NEVER);
            socket
        })
        .collect();
    deadlines.close_resting_since(Tick::from_millis(20));
    let closed: Vec<bool> =
        sockets.iter().map(|socket| socket.watched.reading().is_some()).collect();
    assert_eq!(closed, [true, true, false, false, false]);
}

#[test]
fn who_lingers_reads_again_until_its_time_is_over() {
    let deadlines = deadlines();
    let client = Socket::new(&deadlines, Watch::Client(ListenerId(0)));
    client.watched.read_by(Deadline::at(deadlines.clock.tick()));
    deadlines.look();
    assert_eq!(client.watched.reading(), Some(Ended::Overdue));
    client.watched.lingers(deadlines.clock.tick(), Deadline::at(deadlines.clock.tick() + MS));
    deadlines.look();
    assert_eq!(client.watched.reading(), None);
    deadlines.clock.set(deadlines.clock.tick() + MS);
    deadlines.look();
    assert_eq!(client.watched.reading(), Some(Ended::Overdue));
}

#[test]
fn who_stays_is_told_once_it_has_been_idle_for_a_while() {
    let deadlines = deadlines();
    let (task, waker) = Task::new();
    let Socket { watched, .. } = &Socket::new(&deadlines, Watch::Client(ListenerId(0)));
    let begun = deadlines.clock.tick();
    let round_at = |now| {
        deadlines.clock.set(now);
        deadlines.look();
        (watched.stays(), task.woken())
    };
    watched.rests(Rest::Silent, begun, Deadline::NEVER);
    assert!(!watched.is_idle_lately(begun), "it is new");
    watched.busy();
    watched.rests(Rest::Idle, begun, Deadline::NEVER);
    assert!(watched.is_idle_lately(begun + STAY) && !watched.is_idle_lately(begun + STAY + MS));
    watched.stay(&waker);
    watched.stay(&waker);
    assert_eq!(Arc::strong_count(&task), 3, "one waker is kept");
    assert_eq!(round_at(begun + (STAY - MS)), (true, 0));
    watched.busy();
    assert_eq!(round_at(begun + 2 * STAY), (true, 0), "it is not idle");
    watched.rests(Rest::Idle, begun + 2 * STAY, Deadline::NEVER);
    assert_eq!(round_at(begun + 3 * STAY), (false, 1));
    assert_eq!(round_at(begun + 4 * STAY), (false, 1));
    assert_eq!(watched.reading(), None);
}

#[test]
fn everything_can_be_shut_down_at_once() {
    let deadlines = deadlines();
    let sockets =
        [Watch::Client(ListenerId(0)), Watch::Backend].map(|watch| Socket::new(&deadlines, watch));
    deadlines.close_all();
    for socket in &sockets {
        assert_eq!(socket.ended(), (Some(Ended::Closed), Some(Ended::Closed)));
        assert!(socket.reads_an_end() && !socket.writes());
    }
    assert_eq!(deadlines.len(), 2);
    drop(sockets);
    assert!(deadlines.is_empty());
}

/// A round checks all, however many slices they are.
#[test]
fn a_round_looks_at_all_slices() {
    let deadlines = deadlines();
    let (ours, _peer) = UnixStream::pair().unwrap();
    let many: Vec<_> = (0..2 * SLICE + 1)
        .map(|_| deadlines.watch(ours.as_raw_fd(), Watch::Client(ListenerId(0))))
        .collect();
    many.iter().for_each(|watched| watched.read_by(Deadline::at(deadlines.clock.tick())));
    deadlines.look();
    assert!(many.iter().all(|watched| watched.reading() == Some(Ended::Overdue)));
}
