//! Connection pools: idle connections to one backend, kept by one worker.
//!
//! Floor 6. Last in, first out, so that few stay in use and the others expire; bounded in number
//! and in idle time, honouring the backend's own hint. Every idle connection has a receive posted:
//! one that the backend closed, or wrote to unasked, is noticed before it is used. A connection is
//! reused only once the kernel has tried that receive since it was returned, or was asked to: our
//! own last read says nothing about the bytes after it. This file has the connection pool of one
//! address; `backend_conns.rs` has those of all addresses of a backend. Connections that carry many
//! requests at a time are no idle ones to be taken and returned: they are in `links.rs`.

mod alone;
mod backend_conns;
mod link;
mod links;
mod opening;
mod secured;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

pub(crate) use self::{
    alone::alone,
    backend_conns::BackendConns,
    opening::{open, warm},
};
use crate::base::moment::Tick;
use crate::http::parse::HeadLimits;
use crate::net::{
    buffer::Buffers,
    io::sleep,
    pending::{Mark, Quiet},
    tls::Ends,
};
use crate::plan::Connections;
use crate::proto::h1::Backend;
use crate::shared::counters::{Counter, Slab};

/// A connection this young may carry a request that cannot be sent again.
const YOUNG: Duration = Duration::from_secs(1);

/// Connections returned in one burst may be wanted in the next: this many are kept beyond the limit
/// until a round of the sweep found no use for them. Without this a load of 512 clients opened a
/// connection for every eighth request.
const SURPLUS_MAX: usize = 1_024;
const SURPLUS_TIME: Duration = Duration::from_millis(250);

/// What connections to backends need from their core.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) counters: Arc<Slab>,
    /// What TLS needs.
    pub(crate) tls: RefCell<Arc<Ends>>,
    /// The limits of heads by the plan in force, for what is read beside any exchange.
    pub(crate) head_limits: Cell<HeadLimits>,
}

/// How long a connection rests after the first answer on it. A backend that always sends more than
/// its answer, a moment later, is noticed by then and does no harm; nothing else could tell its
/// surplus from the next answer.
const REST: Duration = Duration::from_millis(10);

/// How soon after an answer unasked bytes count as a part of it, or as a second one. Bytes that
/// come to a connection that is idle for longer, such as a 408, say nothing about answers.
const BEHIND_ANSWER: Duration = Duration::from_secs(1);

/// How long an address that sent more than an answer is suspected. No connection to it is used
/// again meanwhile, so that one whose answers are shifted, which cannot be detected, ends with its
/// next answer.
const SUSPECTED: Duration = Duration::from_secs(60);

struct Idle {
    backend: Backend,
    since: Tick,
    until: Tick,
    /// Until when it rests.
    rests_until: Tick,
    /// When its receive was posted.
    posted: Mark,
}

/// The idle connections to one address of a backend.
struct Conns {
    idle: Vec<Idle>,
    options: Connections,
    /// Until when the address is suspected; none if it never was.
    suspected_until: Option<Tick>,
}

/// Why an idle connection cannot be used any more.
struct Spent {
    why: Counter,
    /// Whether the backend has sent more than its last answer.
    by_surplus: bool,
}

impl Conns {
    fn new(options: Connections) -> Conns {
        Conns { idle: Vec::new(), options, suspected_until: None }
    }

    /// An idle connection, which may have gone bad: of those whose receive was tried and that do
    /// not rest the last one returned; otherwise the last that does not rest, otherwise the one
    /// that has rested longest. If `unrepeatable` (the request may not be sent twice), only one
    /// that was in use a moment ago.
    fn take(&mut self, now: Tick, unrepeatable: bool, means: &Means) -> Option<Idle> {
        let last = self.idle.len().checked_sub(1)?;
        let mut place = last;
        if !self.idle[last].is_at_hand(now) {
            let tried = self.idle.partition_point(|idle| idle.posted.is_past());
            let rested = |idle: &Idle| idle.rests_until <= now;
            let at_hand = self.idle[..tried].iter().rposition(rested);
            place = at_hand.or_else(|| self.idle.iter().rposition(rested)).unwrap_or(0);
        }
        if unrepeatable && now > self.idle[place].since + YOUNG {
            place = last;
            if now > self.idle[place].since + YOUNG {
                return None;
            }
        }
        means.counters.sub(Counter::BackendIdle, 1);
        if place == last { self.idle.pop() } else { Some(self.idle.remove(place)) }
    }

    /// Keeps a connection whose answer was whole, if it may be kept.
    fn give(&mut self, backend: Backend, now: Tick, means: &Means) {
        if self.suspected_until.is_some_and(|until| now < until) {
            means.counters.add(Counter::BackendSuspected, 1);
            return;
        }
        let Connections { idle_max, idle_timeout, requests_max } = self.options;
        let spent = requests_max != 0 && backend.requests >= requests_max;
        if spent || idle_max == 0 || self.idle.len() >= usize::from(idle_max).max(SURPLUS_MAX) {
            return;
        }
        // A second less than it says, so that we close first.
        let hint =
            backend.keeps_idle.map(|seconds| Duration::from_secs(seconds.saturating_sub(1).into()));
        let keep = hint.map_or(idle_timeout, |hint| hint.min(idle_timeout));
        if keep < Duration::from_millis(1) || backend.post_receive(&means.buffers).is_err() {
            return;
        }
        means.counters.add(Counter::BackendIdle, 1);
        self.idle.push(Idle {
            rests_until: if backend.is_reused() { now } else { now + REST },
            backend,
            since: now,
            until: now + keep,
            posted: Mark::now(),
        });
    }

    /// Closes the connections whose time is over and those that have gone bad; and of those beyond
    /// the limit, the ones that a whole round found no use for.
    fn expire(&mut self, now: Tick, means: &Means) {
        let Means { buffers, counters, .. } = means;
        let surplus = self.idle.len().saturating_sub(usize::from(self.options.idle_max));
        let unused = |idle: &Idle| idle.since + SURPLUS_TIME <= now;
        let surplus = self.idle.iter().take(surplus).take_while(|idle| unused(idle)).count();
        counters.sub(Counter::BackendIdle, surplus as u64);
        counters.add(Counter::BackendExpired, surplus as u64);
        self.idle.drain(..surplus);
        let mut by_surplus = false;
        self.idle.retain(|idle| match idle.spent(now, buffers) {
            None => true,
            Some(spent) => {
                counters.sub(Counter::BackendIdle, 1);
                counters.add(spent.why, 1);
                by_surplus |= spent.by_surplus;
                false
            }
        });
        if by_surplus {
            self.suspect(now, means);
        }
    }

    /// Whether the connection returned last is good; closes those that are not.
    #[cold]
    fn is_open(&mut self, now: Tick, means: &Means) -> bool {
        while let Some(idle) = self.idle.last() {
            let Some(spent) = idle.spent(now, &means.buffers) else { return true };
            self.idle.pop();
            means.counters.sub(Counter::BackendIdle, 1);
            means.counters.add(spent.why, 1);
            if spent.by_surplus {
                self.suspect(now, means);
            }
        }
        false
    }

    /// Begins to suspect the address, because it has sent more than an answer: closes what is idle
    /// and keeps nothing for a while.
    #[cold]
    fn suspect(&mut self, now: Tick, means: &Means) {
        self.suspected_until = Some(now + SUSPECTED);
        means.counters.add(Counter::BackendSuspected, self.idle.len() as u64);
        self.clear(means);
    }

    /// Closes those that have been idle since `until` or longer, while there are any `left` to
    /// close.
    fn close_idle_since(&mut self, until: Tick, left: &mut usize, means: &Means) {
        let count = self.idle.partition_point(|idle| idle.since <= until).min(*left);
        *left -= count;
        means.counters.sub(Counter::BackendIdle, count as u64);
        means.counters.add(Counter::BackendEvicted, count as u64);
        self.idle.drain(..count);
    }

    /// Closes them all.
    fn clear(&mut self, means: &Means) {
        means.counters.sub(Counter::BackendIdle, self.idle.len() as u64);
        self.idle.clear();
    }
}

impl Idle {
    /// Whether it is known to be quiet without waiting for anything.
    fn is_at_hand(&self, now: Tick) -> bool {
        self.posted.is_past() && self.rests_until <= now
    }

    /// Like `warm`, for one that is not at hand.
    async fn warm_after_all(self, now: Tick, means: Rc<Means>) -> Result<Backend, Spent> {
        if self.rests_until > now {
            sleep(self.rests_until.since(now)).await;
        }
        let quiet = self.backend.stream.quiet_after_all(&means.buffers).await;
        self.warm(quiet, now, &means)
    }

    /// The connection, if it can be used; `quiet` is the result of its receive.
    fn warm(self, quiet: Quiet, now: Tick, means: &Means) -> Result<Backend, Spent> {
        match self.why_spent(quiet, now) {
            None => Ok(self.backend),
            Some(spent) => {
                means.counters.add(spent.why, 1);
                Err(spent)
            }
        }
    }

    /// Why it cannot be used any more, if so.
    fn spent(&self, now: Tick, buffers: &Buffers) -> Option<Spent> {
        self.why_spent(self.backend.stream.quiet(buffers), now)
    }

    fn why_spent(&self, quiet: Quiet, now: Tick) -> Option<Spent> {
        let why = match quiet {
            Quiet::Closed => Counter::BackendClosedIdle,
            Quiet::Unasked => Counter::BackendUnasked,
            Quiet::Yes if now >= self.until => Counter::BackendExpired,
            Quiet::Yes => return None,
        };
        let by_surplus = quiet == Quiet::Unasked && now <= self.since + BEHIND_ANSWER;
        Some(Spent { why, by_surplus })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, poll_fn},
        io::Write,
        net::TcpStream,
        pin::pin,
        task::Poll,
    };

    use super::*;
    use crate::base::moment::millis;
    use crate::net::{
        clock::Clock,
        deadlines::{Deadlines, Watch},
    };
    use crate::testkit::{eventually, on_both_drivers, pair};

    const OPTIONS: Connections =
        Connections { idle_max: 8, idle_timeout: Duration::from_secs(60), requests_max: 0 };

    /// The idle connections to one backend, and what they need.
    struct Stage {
        conns: Conns,
        means: Means,
        deadlines: Rc<Deadlines>,
    }

    impl Stage {
        fn new(options: Connections) -> Stage {
            Stage {
                conns: Conns::new(options),
                means: Means {
                    buffers: Buffers::new(8),
                    counters: Slab::new(),
                    tls: RefCell::default(),
                    head_limits: Cell::default(),
                },
                deadlines: Deadlines::new(Rc::new(Clock::new())),
            }
        }

        /// A connection that has carried two requests, and its other end.
        fn used(&self) -> (Backend, TcpStream) {
            let (stream, peer) = pair(|fd| self.deadlines.watch(fd, Watch::Backend));
            let mut backend = Backend::new(stream, 0);
            backend.requests = 2;
            (backend, peer)
        }

        /// Returns a connection at this time; gives its number, and its other end.
        fn give(&mut self, now: u64) -> (i32, TcpStream) {
            let (backend, peer) = self.used();
            let number = backend.stream.raw();
            self.conns.give(backend, Tick::from_millis(now), &self.means);
            (number, peer)
        }

        /// Returns a connection that has carried one request at this time.
        fn give_first(&mut self, now: u64) -> (i32, TcpStream) {
            let (mut backend, peer) = self.used();
            backend.requests = 1;
            let number = backend.stream.raw();
            self.conns.give(backend, Tick::from_millis(now), &self.means);
            (number, peer)
        }

        /// Takes a connection at this time, until one is good, and closes it; gives its number.
        async fn take(&mut self, now: u64, unrepeatable: bool) -> Option<i32> {
            let now = Tick::from_millis(now);
            loop {
                let idle = self.conns.take(now, unrepeatable, &self.means)?;
                let means = Rc::new(self.means.clone());
                let warm = if idle.is_at_hand(now) {
                    let quiet = idle.backend.stream.quiet(&means.buffers);
                    idle.warm(quiet, now, &means)
                } else {
                    idle.warm_after_all(now, means).await
                };
                match warm {
                    Ok(backend) => return Some(backend.stream.raw()),
                    Err(spent) if spent.by_surplus => self.conns.suspect(now, &self.means),
                    Err(_) => {}
                }
            }
        }

        /// Lets the kernel try the receives that were posted until now.
        async fn next_turn(&self) {
            let (other, mut its_peer) = pair(|fd| self.deadlines.watch(fd, Watch::Backend));
            let said = std::thread::spawn(move || its_peer.write_all(b"!").map(|()| its_peer));
            other.readable().await.expect("it is open");
            drop(said.join());
        }

        fn expire(&mut self, now: u64) {
            self.conns.expire(Tick::from_millis(now), &self.means);
        }

        /// How many are idle: the counter matches reality.
        fn idle(&self) -> u64 {
            let idle = self.conns.idle.len() as u64;
            assert_eq!(self.count(Counter::BackendIdle), idle);
            idle
        }

        fn count(&self, counter: Counter) -> u64 {
            self.means.counters.read(counter)
        }
    }

    #[test]
    fn the_last_that_came_is_the_first_that_goes() {
        on_both_drivers(|| async {
            let mut stage = Stage::new(OPTIONS);
            let ((first, _a), (second, _b)) = (stage.give(1), stage.give(2));
            assert_eq!(stage.idle(), 2);
            assert_eq!(stage.take(3, false).await, Some(second));
            assert_eq!(stage.take(3, false).await, Some(first));
            assert_eq!((stage.take(3, false).await, stage.idle()), (None, 0));
        });
    }

    #[test]
    fn none_is_kept_that_may_not_be() {
        on_both_drivers(|| async {
            let none = Connections { idle_max: 0, ..OPTIONS };
            let not_long = Connections { idle_timeout: Duration::ZERO, ..OPTIONS };
            let twice = Connections { requests_max: 2, ..OPTIONS };
            let thrice = Connections { requests_max: 3, ..OPTIONS };
            for (options, kept) in [(none, 0), (not_long, 0), (twice, 0), (thrice, 1)] {
                let mut stage = Stage::new(options);
                let _peer = stage.give(1);
                assert_eq!(stage.idle(), kept, "{options:?}");
            }
            let mut stage = Stage::new(OPTIONS);
            for (hint, kept) in [(0, 0), (1, 0), (2, 1)] {
                let (mut backend, _peer) = stage.used();
                backend.keeps_idle = Some(hint);
                stage.conns.give(backend, Tick::from_millis(1), &stage.means);
                assert_eq!(stage.idle(), kept, "timeout={hint}");
            }
        });
    }

    #[test]
    fn a_connection_is_used_until_its_time_is_over() {
        on_both_drivers(|| async {
            let short = Connections { idle_timeout: Duration::from_secs(4), ..OPTIONS };
            // A hint of 5 s is 4 s for us: we close first.
            for (options, hint) in [(short, None), (OPTIONS, Some(5)), (short, Some(60))] {
                let mut stage = Stage::new(options);
                let mut peers = Vec::new();
                for _ in 0..3 {
                    let (mut backend, peer) = stage.used();
                    backend.keeps_idle = hint;
                    stage.conns.give(backend, Tick::from_millis(10), &stage.means);
                    peers.push(peer);
                }
                stage.expire(4_009);
                assert_eq!(stage.idle(), 3);
                assert!(stage.take(4_009, false).await.is_some());
                stage.expire(4_010);
                assert_eq!((stage.idle(), stage.count(Counter::BackendExpired)), (0, 2));
            }
            let mut stage = Stage::new(short);
            let _peer = stage.give(10);
            assert_eq!(stage.take(4_010, false).await, None);
            assert_eq!((stage.idle(), stage.count(Counter::BackendExpired)), (0, 1));
        });
    }

    #[test]
    fn what_comes_back_in_a_burst_stays_for_the_next_and_no_longer() {
        on_both_drivers(|| async {
            let mut stage = Stage::new(Connections { idle_max: 2, ..OPTIONS });
            let given: Vec<_> = (0..5).map(|place| stage.give(100 + place)).collect();
            stage.expire(100 + millis(SURPLUS_TIME) - 1);
            assert_eq!(stage.idle(), 5);
            stage.expire(100 + millis(SURPLUS_TIME));
            assert_eq!(stage.idle(), 4, "the first has been of no use for a round");
            stage.expire(104 + millis(SURPLUS_TIME));
            assert_eq!((stage.idle(), stage.count(Counter::BackendExpired)), (2, 3));
            assert_eq!(stage.take(400, false).await, Some(given[4].0));
        });
    }

    #[test]
    fn what_cannot_be_sent_twice_goes_where_a_request_went_a_moment_ago() {
        on_both_drivers(|| async {
            let mut stage = Stage::new(OPTIONS);
            let (old, _a) = stage.give(100);
            assert_eq!(stage.take(100 + millis(YOUNG) + 1, true).await, None);
            assert_eq!(stage.idle(), 1, "it is kept for others");
            let (young, _b) = stage.give(200);
            assert_eq!(stage.take(200 + millis(YOUNG), true).await, Some(young));
            assert_eq!(stage.take(200 + millis(YOUNG), true).await, None);
            assert_eq!(stage.take(200 + millis(YOUNG), false).await, Some(old));
        });
    }

    #[test]
    fn one_that_the_backend_spoiled_is_found_out_before_it_is_used() {
        on_both_drivers(|| async {
            for counter in [Counter::BackendUnasked, Counter::BackendClosedIdle] {
                let spoil = |peer: TcpStream| {
                    (counter == Counter::BackendUnasked).then(|| {
                        (&peer).write_all(b"unasked").expect("it is open");
                        peer
                    })
                };
                // Noticed by the sweep, too long after the answer for a suspicion.
                let mut stage = Stage::new(OPTIONS);
                let ((_, good), (_, bad)) = (stage.give(1), stage.give(2));
                let bad = spoil(bad);
                eventually(|| {
                    stage.expire(2_000);
                    stage.count(counter) == 1
                })
                .await;
                assert_eq!(stage.idle(), 1);
                // By the next request that wants it; it came after the first byte of the other
                // stream.
                let (good_number, good_too) = stage.give(2_001);
                let (_, bad_too) = stage.give(2_002);
                let bad_too = spoil(bad_too);
                let (sign, mut giver) = pair(|fd| stage.deadlines.watch(fd, Watch::Backend));
                giver.write_all(b"!").expect("it is open");
                sign.readable().await.expect("it is there");
                assert_eq!(stage.take(4_000, false).await, Some(good_number));
                assert_eq!((stage.idle(), stage.count(counter)), (1, 2));
                drop((good, bad, good_too, bad_too));
            }
        });
    }

    /// Later bytes, such as a 408, say nothing about answers.
    #[test]
    fn for_a_while_after_a_surplus_no_connection_is_used_again() {
        on_both_drivers(|| async {
            let suspected = millis(SUSPECTED);
            for (came_at, is_suspected) in [(1_000, true), (1_001, false)] {
                let mut stage = Stage::new(OPTIONS);
                let ((_, mut bad), (_, good)) = (stage.give(0), stage.give(0));
                let (_, later) = stage.give(came_at);
                bad.write_all(b"unasked").expect("it is open");
                eventually(|| {
                    stage.expire(came_at);
                    stage.count(Counter::BackendUnasked) == 1
                })
                .await;
                let (kept, closed) = if is_suspected { (0, 2) } else { (2, 0) };
                assert_eq!(stage.idle(), kept, "{came_at}");
                for (now, is_kept) in [
                    (came_at, !is_suspected),
                    (came_at + suspected - 1, !is_suspected),
                    (came_at + suspected, true),
                ] {
                    let before = stage.idle();
                    let _peer = stage.give(now);
                    assert_eq!(stage.idle() - before, u64::from(is_kept), "{now}");
                }
                let closed = if is_suspected { closed + 2 } else { closed };
                assert_eq!(stage.count(Counter::BackendSuspected), closed);
                drop((good, later));
            }
            // Also noticed when a connection is taken.
            let mut stage = Stage::new(OPTIONS);
            let ((_, good), (_, mut bad)) = (stage.give(1), stage.give(1));
            bad.write_all(b"unasked").expect("it is open");
            stage.next_turn().await;
            assert_eq!(stage.take(2, false).await, None);
            assert_eq!((stage.idle(), stage.count(Counter::BackendSuspected)), (0, 1));
            drop(good);
        });
    }

    /// Bytes in the socket when it is returned are found in the same turn.
    #[test]
    fn one_that_was_spoiled_before_it_was_given_is_not_used_in_the_same_turn() {
        on_both_drivers(|| async {
            for unasked in [&b"unasked"[..], b""] {
                let mut stage = Stage::new(OPTIONS);
                let (bad, mut peer) = stage.used();
                peer.write_all(unasked).expect("it is open");
                peer.shutdown(std::net::Shutdown::Write).expect("it is open");
                let (good_number, good) = stage.give(1);
                stage.conns.give(bad, Tick::from_millis(1), &stage.means);
                assert_eq!(stage.take(2_000, false).await, Some(good_number));
                let closed = stage.count(Counter::BackendClosedIdle);
                let both = [stage.count(Counter::BackendUnasked), closed];
                assert_eq!(both, if unasked.is_empty() { [0, 1] } else { [1, 0] });
                drop(good);
            }
        });
    }

    #[test]
    fn those_whose_receive_was_tried_go_first() {
        on_both_drivers(|| async {
            let mut stage = Stage::new(OPTIONS);
            let ((old, _a), (tried, _b)) = (stage.give(1), stage.give(1));
            assert!(!stage.conns.idle[0].posted.is_past());
            stage.next_turn().await;
            assert!(stage.conns.idle[1].posted.is_past());
            let (new, _c) = stage.give(millis(YOUNG) + 2);
            assert_eq!(
                stage.take(millis(YOUNG) + 2, true).await,
                Some(new),
                "the others are too old"
            );
            let (new, _d) = stage.give(millis(YOUNG) + 2);
            assert_eq!(stage.take(millis(YOUNG) + 2, false).await, Some(tried));
            assert_eq!(stage.take(millis(YOUNG) + 2, false).await, Some(old));
            assert_eq!(stage.take(millis(YOUNG) + 2, false).await, Some(new));
        });
    }

    /// Those that rest are taken last, and are known to be quiet then.
    #[test]
    fn after_its_first_answer_a_connection_rests() {
        on_both_drivers(|| async {
            let mut stage = Stage::new(OPTIONS);
            let (late, mut late_peer) = stage.give_first(10);
            let (other, _a) = stage.give_first(10);
            let (proven, _b) = stage.give(10);
            assert_eq!(stage.take(10, false).await, Some(proven));
            {
                let mut taking = pin!(stage.take(10, false));
                let taken = poll_fn(|cx| Poll::Ready(taking.as_mut().poll(cx))).await;
                assert!(taken.is_pending(), "both rest");
                late_peer.write_all(b"unasked").expect("it is open");
                assert_eq!(taking.await, None, "the other is suspected, too");
            }
            assert_ne!(other, late);
            assert_eq!((stage.idle(), stage.count(Counter::BackendUnasked)), (0, 1));
            assert_eq!(stage.count(Counter::BackendSuspected), 1);
            let mut stage = Stage::new(OPTIONS);
            let (rested, _c) = stage.give_first(20);
            let rested_at = Tick::from_millis(20) + REST;
            assert_eq!(stage.conns.idle[0].rests_until, rested_at);
            stage.next_turn().await;
            assert!(stage.conns.idle[0].is_at_hand(rested_at));
            assert_eq!(stage.take(rested_at.millis(), false).await, Some(rested));
        });
    }

    #[test]
    fn where_descriptors_are_wanted_the_longest_idle_are_closed_and_no_more_than_that() {
        on_both_drivers(|| async {
            let mut stage = Stage::new(OPTIONS);
            let given: Vec<_> = [1, 2, 2, 2, 3].map(|now| stage.give(now)).into();
            for (until, left, closed) in [(0, 9, 0), (2, 2, 2), (2, 0, 0), (2, 9, 2)] {
                let (mut rest, before) = (left, stage.idle());
                stage.conns.close_idle_since(Tick::from_millis(until), &mut rest, &stage.means);
                assert_eq!((left - rest, before - stage.idle()), (closed, closed as u64));
            }
            assert_eq!(stage.count(Counter::BackendEvicted), 4);
            assert_eq!(stage.take(4, false).await, Some(given[4].0));
        });
    }

    #[test]
    fn all_can_be_closed() {
        on_both_drivers(|| async {
            let mut stage = Stage::new(OPTIONS);
            let _peers = (stage.give(1), stage.give(1));
            stage.conns.clear(&stage.means);
            assert_eq!(stage.idle(), 0);
        });
    }
}
