//! The thread that looks names up, one after the other, and posts what changes to the cores.
//!
//! A lookup may take as long as the system's resolver likes; nobody waits for it but the names that
//! come after it. At most one message of its own is on its way to each core: what changes meanwhile
//! waits here and goes with the next. So the inboxes have room for those who stop the process, and
//! no core frees what this thread has allocated.

use std::{
    fmt::Write,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use super::{Lookup, Named, Readers, Report, UNTIL_THEN};
use crate::policy::{lookups::Lookups, resolve::Change};
use crate::shared::inbox::Found;

/// How soon what could not be posted is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// What the thread tells the start.
pub(super) struct Answer {
    pub(super) place: usize,
    /// Whether the backend has an address.
    pub(super) is_known: bool,
    pub(super) found: Option<Found>,
    /// What an operator should know.
    pub(super) line: Option<String>,
}

/// What the thread owns.
pub(super) struct Resolver {
    names: Vec<Named>,
    lookups: Lookups,
    lookup: Lookup,
    report: Report,
    readers: Readers,
    /// Takes answers as long as the start waits for them.
    start: Option<Sender<Answer>>,
    /// Closed when this must end.
    stop: Receiver<()>,
    /// Names whose addresses have not been posted since they changed.
    unposted: Vec<usize>,
    /// The last message, until no core holds it.
    posted: Option<Arc<Vec<Found>>>,
    began: Instant,
}

impl Resolver {
    pub(super) fn new(
        names: Vec<Named>,
        lookup: Lookup,
        report: Report,
        readers: Readers,
        start: Sender<Answer>,
        stop: Receiver<()>,
    ) -> Resolver {
        Resolver {
            lookups: Lookups::new(names.iter().map(|name| name.every)),
            names,
            lookup,
            report,
            readers,
            start: Some(start),
            stop,
            unposted: Vec::new(),
            posted: None,
            began: Instant::now(),
        }
    }

    /// Looks names up until told to stop.
    pub(super) fn run(mut self) {
        while let Some((place, due)) = self.lookups.next() {
            if !self.wait(due) {
                return;
            }
            let began = self.began.elapsed();
            let answer = (self.lookup)(&self.names[place].host, self.names[place].port);
            if self.is_over() {
                return;
            }
            self.answered(place, began, answer);
        }
    }

    fn is_over(&self) -> bool {
        self.stop.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits until a lookup is due; false = this must end.
    fn wait(&mut self, due: Duration) -> bool {
        loop {
            self.post();
            let left = due.saturating_sub(self.began.elapsed());
            let wait = if self.unposted.is_empty() { left } else { left.min(AGAIN) };
            match self.stop.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) if wait == left => return true,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Notes an answer and tells who must know.
    fn answered(&mut self, place: usize, began: Duration, answer: io::Result<Vec<SocketAddr>>) {
        let times = (began, self.began.elapsed());
        let change = self.lookups.answered(place, times, answer.as_deref().ok());
        let moved = matches!(change, Some(Change::Now { .. }));
        let is_worse = matches!(change, Some(Change::Kept | Change::Unknown));
        let line = change.map(|change| {
            let why =
                answer.as_ref().err().map_or("it has no address".into(), io::Error::to_string);
            line(&self.names[place].label, &change, &why)
        });
        let told = Answer {
            place,
            is_known: !self.lookups.known(place).is_empty(),
            found: moved.then(|| self.found(place)),
            line,
        };
        let Some(told) = self.tell_start(told) else { return };
        if let Some(line) = told.line {
            (self.report)(is_worse, &line);
        }
        if moved && !self.unposted.contains(&place) {
            self.unposted.push(place);
        }
    }

    /// Hands an answer to the start; gives it back when the start does not wait any more.
    fn tell_start(&mut self, answer: Answer) -> Option<Answer> {
        let Some(start) = &self.start else { return Some(answer) };
        let refused = start.send(answer).err()?;
        self.start = None;
        // A start that was refused wants to hear nothing more.
        (!self.is_over()).then_some(refused.0)
    }

    fn found(&self, place: usize) -> Found {
        let Named { pool, backend, .. } = self.names[place];
        Found { pool, backend, addresses: self.lookups.known(place).to_vec() }
    }

    /// Posts what has changed, unless a core still holds the last message.
    fn post(&mut self) {
        let is_held = self.posted.as_ref().is_some_and(|posted| Arc::strong_count(posted) > 1);
        if is_held || self.unposted.is_empty() {
            return;
        }
        let found = Arc::new(self.unposted.iter().map(|place| self.found(*place)).collect());
        if self.readers.post(&found).is_ok() {
            self.unposted.clear();
        }
        self.posted = Some(found);
    }
}

/// What an operator is told of a change.
fn line(label: &str, change: &Change, why: &str) -> String {
    match change {
        Change::Same => format!("{label} resolves again"),
        Change::Kept => {
            format!("{label} does not resolve any more ({why}); its last addresses stay")
        }
        Change::Unknown => format!("{label} does not resolve ({why}); {UNTIL_THEN}"),
        Change::Now { addresses, gone } => {
            let mut line = format!("{label} is now at {}", list(addresses));
            if !gone.is_empty() {
                let _ = write!(line, ", no longer at {}", list(gone));
            }
            line
        }
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
