//! Scripted peers for tests: what they send and in which pieces, what they wait for first, where
//! they stop. No socket, no kernel, no runtime: the result follows from the script alone.
//!
//! A peer does its steps one after the other, each as soon as it can, and is written to meanwhile.
//! What it sends waits as it would in a socket, one piece for each read. `Pauses` is over when
//! nothing in the whole play has happened for a while (`testkit::play`).

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io,
    os::fd::RawFd,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use super::{Stream, Wire};
use crate::net::{
    buffer::Buffer,
    deadlines::Watched,
    fd::{Half, Receiving, Sending},
};

/// The next step of a scripted peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Sends this, in one piece.
    Says(Vec<u8>),
    /// Waits until it has received this many bytes in all.
    Hears(usize),
    /// Waits until it has received these bytes somewhere.
    HearsOf(&'static str),
    /// The same in two places.
    HearsTwice(&'static str),
    /// Takes no more than this many bytes from now on.
    Takes(usize),
    /// Waits until nothing has happened for a while.
    Pauses,
    /// Closes its half.
    Ends,
    /// Breaks the connection. What it has sent before can still be read.
    Resets,
}

/// A step that sends something.
pub(crate) fn says(what: impl AsRef<[u8]>) -> Step {
    Step::Says(what.as_ref().to_vec())
}

/// A scripted peer, and what it has received.
pub(crate) struct Script {
    number: RawFd,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    steps: VecDeque<Step>,
    /// What it sent and we have not read.
    said: VecDeque<Vec<u8>>,
    has_ended: bool,
    has_reset: bool,
    heard: Vec<u8>,
    /// How long each of our writes was.
    writes: Vec<usize>,
    /// Bytes that it still takes, if that is bounded.
    takes: Option<usize>,
    /// What we have ended.
    closed: Closed,
    /// Whether we have closed it.
    is_gone: bool,
    waiting: Vec<Waker>,
}

/// What we have ended of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closed {
    #[default]
    No,
    /// Our half.
    Half,
    /// All of it, while the stream was still in use.
    Both,
    /// Its close is a reset.
    Reset,
}

thread_local! {
    static SCRIPTS: RefCell<Vec<Weak<Script>>> = const { RefCell::new(Vec::new()) };
    static ANSWERS: RefCell<Option<VecDeque<Answers>>> = const { RefCell::new(None) };
}

/// What a connect finds: a peer, or an error.
pub(crate) type Answers = Result<Rc<Script>, io::ErrorKind>;

/// The next connects meet these, one after the other; further connects are refused.
pub(crate) fn answers(all: impl IntoIterator<Item = Answers>) {
    ANSWERS.set(Some(all.into_iter().collect()));
}

/// What the next connect meets, if scripts are played.
pub(crate) fn dial() -> Option<Answers> {
    ANSWERS.with_borrow_mut(|all| {
        let next = all.as_mut()?.pop_front();
        Some(next.unwrap_or(Err(io::ErrorKind::ConnectionRefused)))
    })
}

/// Lets the first peer that pauses continue; false if none does.
pub(crate) fn go_on() -> bool {
    let paused = |script: &Rc<Script>| script.state.borrow().steps.front() == Some(&Step::Pauses);
    let Some(script) = all().into_iter().find(paused) else { return false };
    script.state.borrow_mut().steps.pop_front();
    script.play();
    true
}

/// Ends the peers and the connects of this thread.
pub(crate) fn forget() {
    SCRIPTS.take();
    ANSWERS.take();
}

fn all() -> Vec<Rc<Script>> {
    SCRIPTS.with_borrow(|all| all.iter().filter_map(Weak::upgrade).collect())
}

/// The peer behind a descriptor's number, if it is a scripted one.
pub(crate) fn of(number: RawFd) -> Option<Rc<Script>> {
    let index = usize::try_from(FIRST.checked_sub(number)?).ok()?;
    SCRIPTS.with_borrow(|all| all.get(index)?.upgrade())
}

/// Numbers that no descriptor has, downwards.
const FIRST: RawFd = -2;

impl Script {
    /// A peer that does these steps.
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Rc<Script> {
        SCRIPTS.with_borrow_mut(|all| {
            let number = FIRST - all.len() as RawFd;
            let state = State { steps: steps.into_iter().collect(), ..State::default() };
            let script = Rc::new(Script { number, state: RefCell::new(state) });
            all.push(Rc::downgrade(&script));
            script
        })
    }

    /// Our end of the connection to it.
    pub(crate) fn stream(self: &Rc<Script>, watch: impl FnOnce(RawFd) -> Watched) -> Stream {
        self.play();
        Stream::over(Wire::Script(Rc::clone(self)), watch)
    }

    /// All that it has received.
    pub(crate) fn heard(&self) -> Vec<u8> {
        self.state.borrow().heard.clone()
    }

    /// How long each of our writes was.
    pub(crate) fn writes(&self) -> Vec<usize> {
        self.state.borrow().writes.clone()
    }

    /// What we have ended of the connection.
    pub(crate) fn closed(&self) -> Closed {
        self.state.borrow().closed
    }

    /// Whether we have closed it.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.borrow().is_gone
    }

    pub(super) fn number(&self) -> RawFd {
        self.number
    }

    /// Does what it can do now.
    fn play(&self) {
        let state = &mut *self.state.borrow_mut();
        while let Some(step) = state.steps.pop_front() {
            match step {
                Step::Says(what) => state.said.extend(Some(what).filter(|what| !what.is_empty())),
                Step::Takes(count) => state.takes = Some(count),
                Step::Ends => state.has_ended = true,
                Step::Resets => state.has_reset = true,
                Step::Hears(count) if state.heard.len() >= count => {}
                Step::HearsOf(what) if places(&state.heard, what) > 0 => {}
                Step::HearsTwice(what) if places(&state.heard, what) > 1 => {}
                Step::Hears(_) | Step::HearsOf(_) | Step::HearsTwice(_) | Step::Pauses => {
                    state.steps.push_front(step);
                    break;
                }
            }
        }
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Ends one half, or both, as shutdown(2) does.
    pub(crate) fn shut_down(&self, half: Half) {
        self.ended(match half {
            Half::Reading => {
                self.state.borrow_mut().has_ended = true;
                Closed::No
            }
            Half::Writing => Closed::Half,
            Half::Both => Closed::Both,
        });
    }

    /// Ends it with a reset.
    pub(crate) fn abort(&self) {
        self.ended(Closed::Reset);
    }

    fn ended(&self, closed: Closed) {
        let state = &mut *self.state.borrow_mut();
        state.closed = state.closed.max(closed);
        state.waiting.drain(..).for_each(Waker::wake);
    }

    pub(super) fn reset_on_close(&self) {
        self.ended(Closed::Reset);
    }

    pub(super) fn close(&self) {
        self.state.borrow_mut().is_gone = true;
    }

    /// Whether it has closed its half, or has left.
    pub(crate) fn has_closed(&self) -> bool {
        let state = self.state.borrow();
        state.has_ended || state.has_reset
    }

    /// Whether it has left for good.
    pub(crate) fn has_left(&self) -> bool {
        let state = self.state.borrow();
        state.has_reset || (state.has_ended && state.closed > Closed::No)
    }

    pub(super) fn recv(&self, buffer: &mut Buffer) -> io::Result<usize> {
        let count = self.read(buffer.room())?;
        buffer.filled(count);
        Ok(count)
    }

    /// Reads what fits of its next piece.
    pub(super) fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        let Some(piece) = state.said.front_mut() else { return state.nothing() };
        let count = piece.len().min(room.len());
        room[..count].copy_from_slice(&piece[..count]);
        piece.drain(..count);
        if piece.is_empty() {
            state.said.pop_front();
        }
        Ok(count)
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.state.borrow().said.is_empty()
    }

    pub(super) fn peek(&self) -> io::Result<usize> {
        let state = self.state.borrow();
        if state.said.is_empty() { state.nothing() } else { Ok(1) }
    }

    /// Writes what it takes.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.state.borrow_mut().takes(bytes)?;
        self.play();
        Ok(count)
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.until(|state| !state.is_silent()).await
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.until(|state| state.takes != Some(0) || state.is_broken()).await
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) -> io::Result<()> {
        poll_fn(|cx: &mut Context<'_>| {
            let state = &mut *self.state.borrow_mut();
            if is_so(state) {
                return Poll::Ready(Ok(()));
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The receives of a ring.
    pub(super) fn receiving(script: &Rc<Script>) -> Receiving {
        let script = Rc::clone(script);
        Receiving::new(async move |mut buffer| {
            let ready = script.readable().await;
            (ready.and_then(|()| script.recv(&mut buffer)), buffer)
        })
    }

    /// The sends of a ring, which end when all is sent.
    pub(super) fn sending(script: &Rc<Script>) -> Sending {
        let script = Rc::clone(script);
        Sending::new(async move |bytes: Vec<u8>| {
            let mut sent = 0;
            while sent < bytes.len() {
                sent += match script.write(&bytes[sent..]) {
                    Ok(count) => count,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        return (Err(error), bytes);
                    }
                    Err(_) => script.writable().await.map_or(0, |()| 0),
                };
            }
            (Ok(sent), bytes)
        })
    }
}

impl State {
    fn is_broken(&self) -> bool {
        self.has_reset || self.closed >= Closed::Both
    }

    fn is_silent(&self) -> bool {
        self.said.is_empty() && !self.has_ended && !self.is_broken()
    }

    /// The result of a read without bytes.
    fn nothing(&self) -> io::Result<usize> {
        if self.closed >= Closed::Both {
            Ok(0)
        } else if self.has_reset {
            Err(io::ErrorKind::ConnectionReset.into())
        } else if self.has_ended {
            Ok(0)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    fn takes(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken() || self.closed >= Closed::Half {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(self.takes.unwrap_or(usize::MAX));
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.takes = self.takes.map(|left| left - count);
        self.heard.extend_from_slice(&bytes[..count]);
        if count > 0 {
            self.writes.push(count);
        }
        Ok(count)
    }
}

fn places(heard: &[u8], what: &str) -> usize {
    heard.windows(what.len()).filter(|window| *window == what.as_bytes()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{
        buffer::Buffers,
        clock::Clock,
        deadlines::{Deadlines, Ended, Unmet, Watch},
    };
    use crate::testkit::play;

    #[test]
    fn a_scripted_peer_says_hears_and_ends_as_it_is_told() {
        play(async {
            let clock = Rc::new(Clock::new());
            let deadlines = Deadlines::new(Rc::clone(&clock));
            let peer = Script::new([
                says("one"),
                says("two"),
                Step::Hears(3),
                says("three"),
                Step::Takes(2),
                Step::Pauses,
                Step::Takes(9),
                Step::Ends,
            ]);
            let ours = peer.stream(|fd| deadlines.watch(fd, Watch::Backend));
            let mut buffer = Buffers::new(1).take().unwrap();
            let never = clock.after(std::time::Duration::ZERO);
            for piece in [&b"one"[..], b"two"] {
                assert_eq!(ours.recv(&mut buffer, never).await.unwrap(), piece.len());
                assert_eq!(buffer.bytes(), piece);
                buffer.clear();
            }
            assert!(matches!(ours.recv_now(&mut buffer), Err(Unmet::NotNow)));
            ours.send_all(b"abc", false, || never).await.unwrap();
            assert_eq!(ours.recv(&mut buffer, never).await.unwrap(), 5);
            // Two bytes fit; the others do when nothing else can happen.
            ours.send_all(b"defg", false, || never).await.unwrap();
            assert_eq!(ours.recv(&mut buffer, never).await.unwrap(), 0);
            assert_eq!((peer.heard(), peer.writes()), (b"abcdefg".to_vec(), vec![3, 2, 2]));
            drop(ours);
            assert!(peer.is_gone());
        });
    }

    #[test]
    fn a_deadline_ends_a_wait_for_a_scripted_peer() {
        play(async {
            let clock = Rc::new(Clock::new());
            let deadlines = Deadlines::new(Rc::clone(&clock));
            let peer = Script::new([]);
            let ours = peer.stream(|fd| deadlines.watch(fd, Watch::Backend));
            let sweeping = Rc::clone(&deadlines);
            let buffers = Buffers::new(1);
            crate::testkit::beside(
                async {
                    let before = clock.tick();
                    let by = clock.after(std::time::Duration::from_secs(60));
                    let mut buffer = buffers.take().unwrap();
                    let read = ours.recv(&mut buffer, by).await;
                    assert!(matches!(read, Err(Unmet::Ended(Ended::Overdue))), "{read:?}");
                    let took = clock.tick().since(before).as_millis();
                    assert!((60_000..60_500).contains(&took), "{took} ms of played time");
                    assert_eq!(peer.closed(), Closed::Reset);
                },
                sweeping.sweep(|| {}),
            )
            .await;
        });
    }
}
