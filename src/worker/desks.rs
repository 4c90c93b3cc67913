//! Tasks that have served one stream of HTTP/2 and wait for the next.
//!
//! A task and all that a request needs on its way are some kilobytes in two allocations that are
//! too large for what an allocator has at hand: to make them anew for each stream cost one request
//! in twenty, and more where many are under way. So a task that has ended its stream rests here,
//! and the last that came is the first to go, as its memory is still in the caches.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// How many rest at most: as many as streams under way on a core that is busy.
const RESTING_MAX: usize = 512;

/// The tasks of a core that rest; `W` is what they work on.
pub(crate) struct Desks<W> {
    resting: RefCell<Vec<Rc<Desk<W>>>>,
    /// Whether none may rest any more.
    are_closed: Cell<bool>,
}

/// Where one task waits for its next work.
pub(crate) struct Desk<W> {
    next: Cell<Option<W>>,
    is_closed: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl<W> Default for Desks<W> {
    fn default() -> Desks<W> {
        Desks { resting: RefCell::default(), are_closed: Cell::new(false) }
    }
}

impl<W> Default for Desk<W> {
    fn default() -> Desk<W> {
        Desk { next: Cell::new(None), is_closed: Cell::new(false), task: RefCell::default() }
    }
}

impl<W> Desk<W> {
    fn wake(&self) {
        self.task.borrow().iter().for_each(Waker::wake_by_ref);
    }

    fn close(&self) {
        self.is_closed.set(true);
        self.wake();
    }
}

impl<W> Desks<W> {
    /// Hands work to the task that came to rest last.
    ///
    /// # Errors
    /// With the work, if none rests.
    #[inline]
    pub(crate) fn hand(&self, work: W) -> Result<(), W> {
        let Some(desk) = self.resting.borrow_mut().pop() else { return Err(work) };
        desk.next.set(Some(work));
        desk.wake();
        Ok(())
    }

    /// Rests until there is more work; none = the task ends.
    pub(crate) async fn next(&self, desk: &Rc<Desk<W>>) -> Option<W> {
        {
            let mut resting = self.resting.borrow_mut();
            if self.are_closed.get() || resting.len() >= RESTING_MAX || is_played() {
                return None;
            }
            resting.push(Rc::clone(desk));
        }
        poll_fn(|cx| {
            if let Some(work) = desk.next.take() {
                return Poll::Ready(Some(work));
            }
            if desk.is_closed.get() {
                return Poll::Ready(None);
            }
            let mut task = desk.task.borrow_mut();
            if !task.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// So many may go on resting, the others end.
    pub(crate) fn keep(&self, count: usize) {
        let mut resting = self.resting.borrow_mut();
        let spare = resting.len().saturating_sub(count);
        resting.drain(..spare).for_each(|desk| desk.close());
        resting.shrink_to_fit();
    }

    /// All that rest end, and none rests any more.
    pub(crate) fn close(&self) {
        self.are_closed.set(true);
        self.keep(0);
    }
}

/// A scripted play ends with its last task.
fn is_played() -> bool {
    #[cfg(test)]
    return crate::testkit::play::is_on();
    #[cfg(not(test))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{io::task, turns::next_turn};
    use crate::testkit::on_both_drivers;

    /// A core whose tasks write down what they work on, and which of them does.
    #[derive(Default)]
    struct Core {
        desks: Desks<u32>,
        done: RefCell<Vec<(u32, u32)>>,
        ended: Cell<u32>,
    }

    fn begin(core: &Rc<Core>, number: u32, first: u32) {
        let core = Rc::clone(core);
        task(async move {
            let (desk, mut next) = (Rc::default(), Some(first));
            while let Some(work) = next {
                core.done.borrow_mut().push((number, work));
                next = core.desks.next(&desk).await;
            }
            core.ended.set(core.ended.get() + 1);
        });
    }

    #[test]
    fn a_task_that_rests_takes_what_comes_next_and_the_last_that_came_is_the_first() {
        on_both_drivers(|| async {
            let core: Rc<Core> = Rc::default();
            assert_eq!(core.desks.hand(7), Err(7), "none rests");
            for number in 0..3 {
                begin(&core, number, 10 + number);
            }
            next_turn().await;
            assert_eq!(core.done.take(), [(0, 10), (1, 11), (2, 12)]);
            assert!((20..23).all(|work| core.desks.hand(work).is_ok()));
            assert_eq!(core.desks.hand(23), Err(23), "all have work");
            next_turn().await;
            assert_eq!(core.done.take(), [(2, 20), (1, 21), (0, 22)]);
            // After a peak.
            core.desks.keep(1);
            next_turn().await;
            assert_eq!(core.ended.get(), 2);
            assert_eq!(core.desks.hand(30), Ok(()));
            core.desks.close();
            next_turn().await;
            assert_eq!((core.done.take().len(), core.ended.get()), (1, 3), "it rests no more");
        });
    }

    #[test]
    fn no_more_rest_than_are_of_use() {
        on_both_drivers(|| async {
            let core: Rc<Core> = Rc::default();
            let most = u32::try_from(RESTING_MAX).unwrap();
            (0..most + 5).for_each(|number| begin(&core, number, 0));
            next_turn().await;
            assert_eq!(core.ended.get(), 5);
            core.desks.close();
            next_turn().await;
            assert_eq!(core.ended.get(), most + 5);
        });
    }
}
