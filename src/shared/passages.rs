//! Passages between cores: what one core hands over to another.
//!
//! A bounded queue into each core, and its bell. Nothing that is put in is lost: a passage that is
//! full or closed gives back what it does not take, and of one that closes meanwhile both its core
//! and the one that put something in take out what is there. Its core alone opens and closes it.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::bell::Rope;

/// What may wait for one core: it takes all of it in each turn.
const WAITING_MAX: usize = 256;

struct Passage<T> {
    put: Sender<T>,
    take: Receiver<T>,
    /// Written by its core, read by all that put something in.
    is_open: AtomicBool,
    rope: Rope,
}

/// The passages into all cores.
pub(crate) struct Passages<T>(Arc<[Passage<T>]>);

// By hand: a derived one requires `T: Clone`.
impl<T> Clone for Passages<T> {
    fn clone(&self) -> Passages<T> {
        Passages(Arc::clone(&self.0))
    }
}

impl<T> Passages<T> {
    /// Into cores that are woken by these ropes; all are closed.
    pub(crate) fn new(ropes: impl Iterator<Item = Rope>) -> Passages<T> {
        let passage = |rope| {
            let (put, take) = bounded(WAITING_MAX);
            Passage { put, take, is_open: AtomicBool::new(false), rope }
        };
        Passages(ropes.map(passage).collect())
    }

    /// Hands something over to a core, and wakes it.
    ///
    /// # Errors
    /// With something to be kept: this, or what was put in before.
    pub(crate) fn put(&self, core: usize, what: T) -> Result<(), T> {
        let Some(passage) = self.0.get(core).filter(|it| it.is_open.load(Relaxed)) else {
            return Err(what);
        };
        passage.put.try_send(what).map_err(crossbeam_channel::TrySendError::into_inner)?;
        // Either its core, which looks after it has closed it, sees what was put in, or it is seen
        // here that it is closed.
        fence(SeqCst);
        if !passage.is_open.load(SeqCst)
            && let Ok(back) = passage.take.try_recv()
        {
            return Err(back);
        }
        passage.rope.pull();
        Ok(())
    }

    /// Opens the passage into a core, which is the caller.
    pub(crate) fn open(&self, core: usize) {
        self.set(core, true);
    }

    /// Closes it. The core takes out what is there afterwards.
    pub(crate) fn close(&self, core: usize) {
        self.set(core, false);
        fence(SeqCst);
    }

    fn set(&self, core: usize, is_open: bool) {
        if let Some(passage) = self.0.get(core) {
            passage.is_open.store(is_open, SeqCst);
        }
    }

    /// Takes out what was put in for a core, which is the caller.
    pub(crate) fn take(&self, core: usize) -> Option<T> {
        self.0.get(core)?.take.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passages(cores: usize) -> Passages<Arc<u32>> {
        Passages::new((0..cores).map(|_| Rope::new().unwrap()))
    }

    #[test]
    fn what_is_not_taken_comes_back() {
        let passages = passages(2);
        assert!(passages.put(0, Arc::new(1)).is_err(), "closed");
        assert!(passages.put(7, Arc::new(1)).is_err(), "none such");
        passages.open(0);
        for number in 0..WAITING_MAX {
            assert!(passages.put(0, Arc::new(number as u32)).is_ok());
        }
        assert_eq!(passages.put(0, Arc::new(999)), Err(Arc::new(999)), "full");
        assert_eq!(passages.take(0), Some(Arc::new(0)));
        assert_eq!(passages.take(1), None);
        passages.close(0);
        assert!(passages.put(0, Arc::new(1)).is_err());
        assert_eq!(passages.take(0), Some(Arc::new(1)), "what was there stays until it is taken");
    }

    /// Threads put things in while the core opens and closes: each thing is with somebody.
    #[test]
    fn nothing_is_lost_when_it_closes() {
        let passages = passages(1);
        let thing = Arc::new(0);
        std::thread::scope(|scope| {
            let puts = || {
                let mut back = 0_u32;
                for _ in 0..20_000 {
                    back += u32::from(passages.put(0, Arc::clone(&thing)).is_err());
                }
                back
            };
            let putters = [(); 3].map(|()| scope.spawn(puts));
            let mut taken = 0;
            while putters.iter().any(|it| !it.is_finished()) {
                passages.open(0);
                taken += std::iter::from_fn(|| passages.take(0)).take(50).count() as u32;
                passages.close(0);
                taken += std::iter::from_fn(|| passages.take(0)).count() as u32;
            }
            // It is closed: nobody puts anything in any more.
            taken += std::iter::from_fn(|| passages.take(0)).count() as u32;
            let back: u32 = putters.into_iter().map(|it| it.join().unwrap()).sum();
            assert_eq!(taken + back, 60_000);
        });
        assert_eq!(Arc::strong_count(&thing), 1);
    }
}
