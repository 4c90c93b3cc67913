//! Turns of a core: a task that loops yields, and all other tasks run before it does.
//!
//! In a turn each task that is ready runs once; then the kernel is polled for completions, and the
//! timers are. monoio does the last only when no task is ready. So a task that yields may not be
//! ready either: it waits for a bell that rings with the next completion of the kernel, and
//! whatever is due by time runs in each turn, however busy the core is. One bell serves all waiting
//! tasks.
//!
//! The rule: between two turns a task serves one request, or moves one buffer (64 KiB, or a pipe's
//! content), or takes one batch of connections or messages, whatever its peers send. A wait for a
//! socket is a turn on io_uring; on epoll it may end at once, and then `Stream` yields.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

use monoio::net::UnixStream;
use rustix::event::EventfdFlags;

use super::{fd, io::resident};

thread_local! {
    static TURNS: RefCell<Option<Rc<Turns>>> = const { RefCell::new(None) };
    /// Whether an operation that can end at once does so without a wait: epoll. Read with each
    /// send, so it is separate.
    static EAGER: Cell<bool> = const { Cell::new(false) };
}

/// The turns of this thread's runtime.
struct Turns {
    /// Turns in which a task waited for the next.
    number: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    /// The task that rings, while no other waits.
    ringer: Cell<Option<Waker>>,
}

/// Begins the turns of the runtime that runs this thread. `eager`: it is epoll.
///
/// # Errors
/// If there is no descriptor for the bell.
pub(crate) fn begin(eager: bool) -> io::Result<()> {
    let bell = Bell::new(eager)?;
    let turns = Rc::new(Turns {
        number: Cell::new(0),
        waiting: RefCell::default(),
        ringer: Cell::new(None),
    });
    TURNS.set(Some(Rc::clone(&turns)));
    EAGER.set(eager);
    resident(async move { turns.run(&bell).await });
    Ok(())
}

/// The runtime ends: no task gets another turn.
pub(crate) fn end() {
    TURNS.set(None);
    EAGER.set(false);
}

fn current() -> Option<Rc<Turns>> {
    TURNS.with_borrow(Option::clone)
}

/// Whether waits of this thread end at once if they can: epoll.
#[inline]
pub(crate) fn are_eager() -> bool {
    EAGER.get()
}

/// The number of this thread's present turn; none = it has no turns. Those in which no task waited
/// for the next have no number of their own.
pub(crate) fn number() -> Option<u64> {
    TURNS.with_borrow(|turns| turns.as_ref().map(|turns| turns.number.get()))
}

/// Gives all other tasks a turn.
pub(crate) async fn next_turn() {
    let Some(turns) = current() else { return };
    let (begun, mut waits) = (turns.number.get(), false);
    poll_fn(|cx| {
        if turns.number.get() != begun {
            return Poll::Ready(());
        }
        if !waits {
            waits = true;
            turns.waiting.borrow_mut().push(cx.waker().clone());
            if let Some(ringer) = turns.ringer.take() {
                ringer.wake();
            }
        }
        Poll::Pending
    })
    .await;
}

/// Like `next_turn`, before an operation that is a turn by itself on the ring.
#[inline]
pub(crate) async fn give_way() {
    if are_eager() {
        next_turn().await;
    }
}

impl Turns {
    /// Rings, for as long as the runtime runs.
    async fn run(&self, bell: &Bell) {
        loop {
            self.until_somebody_waits().await;
            if bell.rung().await.is_err() {
                // It is ours alone and open: this does not happen. But no task may wait for ever.
                return end();
            }
            self.number.set(self.number.get().wrapping_add(1));
            let mut woken = self.waiting.take();
            woken.drain(..).for_each(Waker::wake);
            let mut waiting = self.waiting.borrow_mut();
            if waiting.is_empty() {
                // The allocation is reused.
                *waiting = woken;
            }
        }
    }

    async fn until_somebody_waits(&self) {
        poll_fn(|cx| {
            if !self.waiting.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.ringer.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// An eventfd. On the ring it is always readable, and a poll completes with the next batch; on
/// epoll, which reports only changes, it is written and read again.
struct Bell {
    polled: UnixStream,
    fd: RawFd,
    eager: bool,
}

impl Bell {
    fn new(eager: bool) -> io::Result<Bell> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd: OwnedFd = rustix::event::eventfd(u32::from(!eager), flags)?;
        let raw = fd.as_fd().as_raw_fd();
        let polled = UnixStream::from_std(std::os::unix::net::UnixStream::from(fd))?;
        Ok(Bell { polled, fd: raw, eager })
    }

    /// Until the kernel has been polled.
    async fn rung(&self) -> io::Result<()> {
        if !self.eager {
            return self.polled.readable(false).await;
        }
        {
            let mut readable = pin!(self.polled.readable(false));
            let mut rung = false;
            poll_fn(|cx| {
                let polled = readable.as_mut().poll(cx);
                if polled.is_pending() && !rung {
                    rung = true;
                    self.write()?;
                }
                polled
            })
            .await?;
        }
        self.read()
    }

    fn write(&self) -> io::Result<()> {
        let one = 1_u64.to_ne_bytes();
        Ok(fd::with_borrowed(self.fd, |fd| rustix::io::write(fd, &one)).map(drop)?)
    }

    fn read(&self) -> io::Result<()> {
        let mut count = [0_u8; 8];
        Ok(fd::with_borrowed(self.fd, |fd| rustix::io::read(fd, &mut count)).map(drop)?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::io::{sleep, task};
    use crate::testkit::on_both_drivers;

    /// Eight tasks loop for ever; a timer fires all the same, and each has had about as many turns
    /// as any other.
    #[test]
    fn timers_fire_and_turns_are_even_beside_tasks_that_go_round() {
        on_both_drivers(|| async {
            let turns: Vec<_> = (0..8).map(|_| Rc::new(Cell::new(0_u32))).collect();
            let over = Rc::new(Cell::new(false));
            for counted in &turns {
                let (counted, over) = (Rc::clone(counted), Rc::clone(&over));
                task(async move {
                    while !over.get() {
                        counted.set(counted.get() + 1);
                        next_turn().await;
                    }
                });
            }
            for _ in 0..5 {
                sleep(Duration::from_millis(20)).await;
            }
            over.set(true);
            let counts: Vec<u32> = turns.iter().map(|counted| counted.get()).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*least > 5 && most - least <= 1, "{counts:?}");
            next_turn().await;
        });
    }

    #[test]
    fn who_gave_up_waiting_for_its_turn_is_not_missed() {
        on_both_drivers(|| async {
            {
                let mut turn = pin!(next_turn());
                let polled = poll_fn(|cx| Poll::Ready(turn.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
            }
            next_turn().await;
            next_turn().await;
        });
    }
}
