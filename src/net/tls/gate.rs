//! Gate of a core for handshakes: so much of their arithmetic in each turn, and no more.
//!
//! A handshake takes 100 to 1,000 µs of a core at once, a request 10. Where many clients connect
//! together, those that are connected would wait for all of them. So handshakes pass one by one, in
//! the order in which they have come this far, and the next passes in the same turn only while
//! those of this turn have taken less than a given time. Only what has come whole waits here: a
//! client that sends nothing, or a part, keeps nobody waiting.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    task::{Poll, Waker},
};

use crate::base::moment::{Micros, Moment};
use crate::net::{clock::Clock, turns::next_turn};

/// The time after which the next handshake waits for another turn: one signature of RSA (1 ms) or
/// four of ECDSA. So a request in the middle of a rush waits for a millisecond at most, and the
/// rush has nearly all of a core that has nothing else to do.
const TURN: Micros = Micros(500);

/// The gate of one core.
#[derive(Default)]
pub(crate) struct Gate {
    /// Whether somebody passes, or is about to.
    is_taken: Cell<bool>,
    waiting: RefCell<VecDeque<Waiting>>,
    /// How many have waited so far; each has a number.
    numbers: Cell<u64>,
    /// The one that is about to pass.
    called: Cell<Option<u64>>,
    /// How long it took those that passed since the last turn that was waited for.
    spent: Cell<Micros>,
}

struct Waiting {
    number: u64,
    waker: Option<Waker>,
}

/// One that passes; the next does when this is dropped.
pub(crate) struct Passing<'a> {
    gate: &'a Gate,
    began: Moment,
}

/// A place in the queue; given up when it is dropped.
struct Place<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Gate {
    /// Waits until it may pass. The wait may be dropped.
    pub(crate) async fn pass(&self) -> Passing<'_> {
        if self.is_taken.replace(true) {
            Place::last(self).call().await;
        }
        let mut passing = Passing { gate: self, began: Clock::moment() };
        if self.spent.get() >= TURN {
            next_turn().await;
            self.spent.set(Micros::default());
            passing.began = Clock::moment();
        }
        passing
    }

    fn call_next(&self) {
        match self.waiting.borrow_mut().pop_front() {
            None => self.is_taken.set(false),
            Some(Waiting { number, waker }) => {
                self.called.set(Some(number));
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let took = Clock::moment().since(self.began);
        self.gate.spent.set(self.gate.spent.get() + took);
        self.gate.call_next();
    }
}

impl<'a> Place<'a> {
    fn last(gate: &'a Gate) -> Place<'a> {
        let number = gate.numbers.get();
        gate.numbers.set(number.wrapping_add(1));
        gate.waiting.borrow_mut().push_back(Waiting { number, waker: None });
        Place { gate, number }
    }

    async fn call(self) {
        poll_fn(|cx| {
            if self.gate.called.get() == Some(self.number) {
                self.gate.called.set(None);
                return Poll::Ready(());
            }
            let mut waiting = self.gate.waiting.borrow_mut();
            if let Some(own) = waiting.iter_mut().find(|it| it.number == self.number) {
                own.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.gate.called.get() == Some(self.number) {
            self.gate.called.set(None);
            self.gate.call_next();
        } else {
            self.gate.waiting.borrow_mut().retain(|it| it.number != self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::net::io::task;
    use crate::testkit::{eventually, on_both_drivers};

    #[test]
    fn handshakes_pass_one_by_one_in_order_and_who_left_keeps_nobody_waiting() {
        on_both_drivers(|| async {
            let (gate, order) = (Rc::new(Gate::default()), Rc::new(RefCell::new(Vec::new())));
            let first = gate.pass().await;
            for number in 0..3 {
                let (gate, order) = (Rc::clone(&gate), Rc::clone(&order));
                task(async move {
                    let passing = gate.pass().await;
                    order.borrow_mut().push(number);
                    next_turn().await;
                    order.borrow_mut().push(number);
                    drop(passing);
                });
            }
            next_turn().await;
            {
                // One that gives up its place while it waits.
                let mut left = std::pin::pin!(gate.pass());
                let polled = poll_fn(|cx| Poll::Ready(left.as_mut().poll(cx).is_pending()));
                assert!(polled.await);
            }
            assert!(order.borrow().is_empty());
            drop(first);
            eventually(|| order.borrow().len() == 6).await;
            assert_eq!(*order.borrow(), [0, 0, 1, 1, 2, 2]);
            drop(gate.pass().await);
            assert!(!gate.is_taken.get() && gate.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn beyond_its_time_the_next_waits_for_another_turn() {
        on_both_drivers(|| async {
            let gate = Gate::default();
            gate.spent.set(TURN);
            let mut passes = std::pin::pin!(gate.pass());
            let polled = poll_fn(|cx| Poll::Ready(passes.as_mut().poll(cx).is_pending()));
            assert!(polled.await, "in the same turn");
            drop(passes.await);
            assert!(gate.spent.get() < TURN);
        });
    }
}
