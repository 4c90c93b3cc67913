//! The threads of a running balancer, as the handle holds them: messages and bounded joins.
//!
//! Each has a mailbox for control messages and a channel that closes at its end. A thread that
//! accepts no message, or does not end in time, hangs through a bug: it is named and left behind,
//! so that a stop ends whatever the threads do.

use std::time::{Duration, Instant};

use super::{run::Sockets, spawn::Thread};
use crate::observe::{event::Event, reports::Reporter};
use crate::shared::inbox::{Outbox, Unheard};
use crate::worker::ToCore;

/// How long all threads together may take to accept a message: each reads within a turn.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// How long a thread may take to end: it closes everything within two seconds (`run.rs`), and on a
/// busy machine within a few more.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A thread and its mailbox.
pub(super) struct Member<T> {
    outbox: Outbox<T>,
    thread: Thread,
}

/// The threads of all cores.
pub(super) struct Crew {
    cores: Vec<Member<ToCore>>,
    reporter: Reporter,
    /// How long they may take to accept a message, and to end.
    patience: (Duration, Duration),
}

impl<T> Member<T> {
    pub(super) fn new(outbox: Outbox<T>, thread: Thread) -> Member<T> {
        Member { outbox, thread }
    }

    /// Sends it the message that ends it; `end` notices if it does not accept it.
    pub(super) fn send(&self, message: T, until: Instant, reporter: &Reporter) {
        if self.outbox.send(message, until) == Err(Unheard) && !self.thread.has_ended() {
            reporter.event(Event::ThreadHung { thread: self.thread.what().into() });
        }
    }

    /// Waits for its end; returns the name of a thread that has not ended by then, which is left
    /// behind.
    fn end(self, until: Instant) -> Option<String> {
        self.thread.end(until).err()
    }

    /// Tells it to end and waits for it; returns its name if it does not.
    #[must_use]
    pub(super) fn stop(self, message: T, reporter: &Reporter) -> Option<String> {
        let now = Instant::now();
        self.send(message, now + HEARD_WITHIN, reporter);
        self.end(now + END_WITHIN)
    }
}

impl Crew {
    pub(super) fn new(reporter: Reporter) -> Crew {
        Crew { cores: Vec::new(), reporter, patience: (HEARD_WITHIN, END_WITHIN) }
    }

    pub(super) fn add(&mut self, outbox: Outbox<ToCore>, thread: Thread) {
        self.cores.push(Member::new(outbox, thread));
    }

    /// Ends these as well.
    pub(super) fn join(&mut self, others: Vec<Member<ToCore>>) {
        self.cores.extend(others);
    }

    pub(super) fn len(&self) -> usize {
        self.cores.len()
    }

    /// Tells all of them to accept no new connections.
    pub(super) fn drain(&self) {
        self.send(|| ToCore::Drain);
    }

    /// Gives each its sockets, at which it accepts connections from now on.
    pub(super) fn accept(&self, sockets: Vec<Sockets>) {
        let until = Instant::now() + self.patience.0;
        for (core, sockets) in self.cores.iter().zip(sockets) {
            core.send(ToCore::Accept(sockets), until, &self.reporter);
        }
    }

    /// Waits until all have ended, but no longer than this; returns whether they have.
    pub(super) fn wait(&self, until: Instant) -> bool {
        self.cores.iter().all(|core| core.thread.ends_by(until))
    }

    /// Tells all of them to close everything and waits for them; returns the names of those that do
    /// not end, which are left behind.
    #[must_use]
    pub(super) fn stop(&mut self) -> Vec<String> {
        self.send(|| ToCore::Stop);
        let until = Instant::now() + self.patience.1;
        self.cores.drain(..).filter_map(|core| core.end(until)).collect()
    }

    fn send(&self, message: impl Fn() -> ToCore) {
        let until = Instant::now() + self.patience.0;
        self.cores.iter().for_each(|core| core.send(message(), until, &self.reporter));
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::observe::reports;
    use crate::server::spawn::{self, Death};
    use crate::shared::inbox::{Inbox, mailbox};

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(30);

    /// A crew of one thread that does this, which may take this long.
    fn crew(
        within: Duration,
        work: impl FnOnce(Inbox<ToCore>) + Send + 'static,
    ) -> (Crew, Outbox<ToCore>) {
        let (outbox, inbox) = mailbox().unwrap();
        let reporter = reports::channel().0;
        let death = Death::new(false, &reporter);
        let thread = spawn::watched("a-test".into(), "core 7".into(), &death, move || work(inbox));
        let mut crew = Crew { patience: (within, within), ..Crew::new(reporter) };
        crew.add(outbox.clone(), thread.unwrap());
        (crew, outbox)
    }

    /// Reads messages until it is told to stop.
    fn listens(inbox: &Inbox<ToCore>) {
        while !matches!(inbox.next(), Some(ToCore::Stop)) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_stop_is_heard_by_a_core_whose_box_was_full() {
        let (go_on, held) = bounded::<()>(0);
        let (mut crew, outbox) = crew(LONG, move |inbox| {
            let _ = held.recv();
            listens(&inbox);
        });
        while outbox.send(ToCore::Drain, Instant::now()).is_ok() {}
        let soon = std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            drop(go_on);
        });
        assert_eq!(crew.stop(), [""; 0]);
        soon.join().unwrap();
    }

    #[test]
    fn a_core_that_hangs_is_named_and_left_behind() {
        let (go_on, held) = bounded::<()>(0);
        let (mut crew, outbox) = crew(SHORT, move |_inbox| held.recv().unwrap_or(()));
        while outbox.send(ToCore::Drain, Instant::now()).is_ok() {}
        crew.drain();
        assert!(!crew.wait(Instant::now() + Duration::from_millis(20)));
        assert_eq!(crew.stop(), ["core 7"]);
        drop(go_on);
    }

    #[test]
    fn a_thread_that_has_ended_by_itself_is_no_trouble() {
        let (mut crew, _outbox) = crew(LONG, drop);
        assert!(crew.wait(Instant::now() + Duration::from_secs(10)));
        assert_eq!(crew.stop(), [""; 0]);
    }
}
