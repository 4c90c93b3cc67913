//! Admission of client connections: the limit of the process and that of the listener.
//!
//! At a limit the connection that has been idle longest on this core makes room. The new one takes
//! over its permit at once, although the old one takes a moment to close: that debt is kept here,
//! so that the limits stay exact.

use std::rc::Rc;

use super::{Worker, in_force::ListenerView};
use crate::base::ids::ListenerId;
use crate::observe::reports::Limit;
use crate::shared::{
    counters::Counter,
    permits::{Permit, Permits},
    tally::Key,
};

/// A client connection that was let in; returns its permits when it is dropped.
pub(crate) struct Admitted {
    worker: Rc<Worker>,
    process: Permit,
    own: Permit,
    id: ListenerId,
    listener: Rc<ListenerView>,
}

impl Admitted {
    /// Lets a connection in, if there is room or an idle one can make room.
    pub(crate) fn enter(worker: &Rc<Worker>, listener: ListenerId) -> Option<Admitted> {
        let in_force = worker.in_force();
        let view = in_force.listeners.get(listener)?;
        let evict = |of| {
            let evicted = worker.deadlines.make_room(of);
            let what = if evicted { Counter::IdleEvicted } else { Counter::RejectedOverloaded };
            // An event of the limit reads the counts.
            worker.count(what);
            worker.events.limit(Limit::Connections, worker.clock.tick());
            evicted
        };
        let (own, owes_own) = take(&view.connections, || evict(Some(listener)))?;
        let (process, owes) = if owes_own {
            // One that makes room at the listener makes it in the process too.
            (in_force.connections.take_over(), true)
        } else {
            take(&in_force.connections, || evict(None))?
        };
        if owes {
            worker.owed.set(worker.owed.get() + 1);
        }
        if owes_own {
            view.owed.set(view.owed.get() + 1);
        }
        worker.count(Counter::Accepted);
        Some(Admitted::with(worker, (listener, view), [process, own]))
    }

    /// Goes on with the permits of a connection that another core has let in.
    pub(crate) fn go_on(
        worker: &Rc<Worker>,
        listener: ListenerId,
        permits: [Permit; 2],
    ) -> Option<Admitted> {
        let in_force = worker.in_force();
        let view = in_force.listeners.get(listener)?;
        Some(Admitted::with(worker, (listener, view), permits))
    }

    fn with(
        worker: &Rc<Worker>,
        (id, view): (ListenerId, &Rc<ListenerView>),
        [process, own]: [Permit; 2],
    ) -> Admitted {
        worker.open.set(worker.open.get() + 1);
        worker.counters.add(Counter::Connections, 1);
        worker.counters.tally().add(Key::Connections(id), 1);
        let (worker, listener) = (Rc::clone(worker), Rc::clone(view));
        Admitted { worker, process, own, id, listener }
    }

    /// Its permits, which go to another core with the connection.
    pub(crate) fn take_permits(&mut self) -> [Permit; 2] {
        [&mut self.process, &mut self.own].map(|it| std::mem::replace(it, Permit::NONE))
    }
}

/// A permit; or that of a connection that closes to make room, which is owed then.
fn take(permits: &Permits, evict: impl FnOnce() -> bool) -> Option<(Permit, bool)> {
    match permits.take() {
        Some(permit) => Some((permit, false)),
        None => evict().then(|| (permits.take_over(), true)),
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let worker = &self.worker;
        let owed = [&worker.owed, &*self.listener.owed];
        for (permit, owed) in [&mut self.process, &mut self.own].into_iter().zip(owed) {
            // One that another has taken over is not returned. (One that was let in without a limit
            // has nothing to hand over to one that came under a later plan.)
            if owed.get() > 0 && permit.is_of_a_limit() {
                owed.set(owed.get() - 1);
                permit.hand_over();
            }
        }
        worker.counters.sub(Counter::Connections, 1);
        worker.counters.tally().sub(Key::Connections(self.id), 1);
        worker.open.set(worker.open.get() - 1);
        worker.look_whether_drained();
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsRawFd, unix::net::UnixStream};

    use super::*;
    use crate::base::{
        moment::{Deadline, Tick},
        rng::Rng,
    };
    use crate::net::deadlines::{Ended, Rest, Watch, Watched};

    /// A worker with a limit for the process and one for each listener; 0 = none.
    fn worker(process: u32, listeners: &[u32]) -> Rc<Worker> {
        let mut text = String::from("[pool.app]\nbackends = [\"127.0.0.1:9\"]\n");
        for (place, max) in listeners.iter().enumerate() {
            let listener = format!("[listener.l{place}]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n");
            text.push_str(&format!("{listener}max-connections = {max}\n"));
        }
        let mut plan = crate::config::parse("worker.toml", &text).unwrap().plan.into_plan();
        plan.limits.connections = process;
        Worker::crew_of(plan, 1).remove(0)
    }

    /// A client connection as `server` keeps it. Fields are dropped in this order.
    struct Open {
        watched: Watched,
        listener: u16,
        _socket: UnixStream,
        _admitted: Admitted,
    }

    impl Open {
        /// Whether it has been closed to make room, and only takes a moment to end.
        fn is_closing(&self) -> bool {
            self.watched.reading() == Some(Ended::Closed)
        }

        fn rests(&self) {
            self.watched.rests(Rest::Idle, Tick::from_millis(1), Deadline::NEVER);
        }
    }

    fn enter(worker: &Rc<Worker>, listener: u16) -> Option<Open> {
        let admitted = Admitted::enter(worker, ListenerId(listener))?;
        let (socket, _) = UnixStream::pair().unwrap();
        let watched =
            worker.deadlines.watch(socket.as_raw_fd(), Watch::Client(ListenerId(listener)));
        Some(Open { watched, listener, _socket: socket, _admitted: admitted })
    }

    #[test]
    fn as_many_are_let_in_as_there_is_room_for() {
        let worker = worker(2, &[0]);
        let (one, _two) = (enter(&worker, 0).unwrap(), enter(&worker, 0).unwrap());
        assert!(enter(&worker, 0).is_none());
        drop(one);
        let _three = enter(&worker, 0).unwrap();
        assert!(enter(&worker, 0).is_none());
        assert_eq!(worker.counters.read(Counter::Connections), 2);
        assert_eq!(worker.counters.read(Counter::IdleEvicted), 0);
    }

    #[test]
    fn the_longest_idle_makes_room_and_its_place_is_given_once() {
        let worker = worker(2, &[0]);
        let (one, two) = (enter(&worker, 0).unwrap(), enter(&worker, 0).unwrap());
        two.rests();
        one.rests();
        let three = enter(&worker, 0).unwrap();
        assert!(two.is_closing() && !one.is_closing());
        let four = enter(&worker, 0).unwrap();
        assert!(one.is_closing());
        assert!(enter(&worker, 0).is_none(), "two are served");
        drop((one, two));
        assert!(enter(&worker, 0).is_none(), "two are still served");
        drop(three);
        let _five = enter(&worker, 0).unwrap();
        assert!(enter(&worker, 0).is_none());
        drop(four);
    }

    #[test]
    fn a_full_listener_takes_room_from_its_own_alone() {
        let worker = worker(0, &[1, 0]);
        let other = enter(&worker, 1).unwrap();
        other.rests();
        let own = enter(&worker, 0).unwrap();
        assert!(enter(&worker, 0).is_none() && !other.is_closing());
        own.rests();
        let _next = enter(&worker, 0).unwrap();
        assert!(own.is_closing() && !other.is_closing());
    }

    #[test]
    fn who_is_refused_by_the_listener_costs_nobody_else_the_connection() {
        let worker = worker(2, &[1, 0]);
        let (_own, other) = (enter(&worker, 0).unwrap(), enter(&worker, 1).unwrap());
        other.rests();
        assert!(enter(&worker, 0).is_none());
        assert!(!other.is_closing());
        drop(other);
        let _next = enter(&worker, 1).unwrap();
        assert!(enter(&worker, 1).is_none(), "two are served");
    }

    #[test]
    fn one_that_closes_makes_room_for_both_limits() {
        let worker = worker(2, &[1, 0]);
        let (own, other) = (enter(&worker, 0).unwrap(), enter(&worker, 1).unwrap());
        other.rests();
        own.rests();
        let _next = enter(&worker, 0).unwrap();
        assert!(own.is_closing() && !other.is_closing());
    }

    /// Random events: however connections come, rest, make room and end, no limit is ever exceeded,
    /// and no room is lost.
    #[test]
    fn limits_are_exact_whatever_happens() {
        for seed in 0..128 {
            let mut rng = Rng::seeded(seed);
            let limits = [1 + rng.below(6), rng.below(5), rng.below(5)];
            let worker = worker(limits[0], &limits[1..]);
            let mut open: Vec<Open> = Vec::new();
            for step in 0..300 {
                let at = rng.below(open.len() as u32) as usize;
                match (rng.below(5), open.get(at)) {
                    (0..3, _) | (_, None) => open.extend(enter(&worker, rng.below(2) as u16)),
                    (3, Some(one)) if !one.is_closing() => one.rests(),
                    _ => drop(open.swap_remove(at)),
                }
                let served = |of: &dyn Fn(&Open) -> bool| {
                    open.iter().filter(|one| !one.is_closing() && of(one)).count() as u32
                };
                let counts = [
                    served(&|_| true),
                    served(&|one| one.listener == 0),
                    served(&|one| one.listener == 1),
                ];
                for (count, limit) in counts.into_iter().zip(limits) {
                    let fits = limit == 0 || count <= limit;
                    assert!(fits, "seed {seed}, step {step}: {counts:?} of {limits:?}");
                }
            }
            drop(open);
            let mut filled: Vec<Open> = Vec::new();
            for listener in 0..2 {
                let own = limits[usize::from(listener) + 1];
                let room = limits[0] - filled.len() as u32;
                let expected = if own == 0 { room } else { room.min(own) };
                let before = filled.len();
                filled.extend(std::iter::from_fn(|| enter(&worker, listener)).take(99));
                assert_eq!((filled.len() - before) as u32, expected, "seed {seed}: {limits:?}");
            }
        }
    }
}
