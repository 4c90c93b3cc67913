//! The resolver thread: has names looked up concurrently, and posts changes to the cores.
//!
//! A lookup may take as long as the system's resolver likes, so each runs on a thread of its own
//! and delays no other: the bound is on those that are not known to be slow. At most one message is
//! in flight to each core: later changes wait here and go with the next. So the inboxes have room
//! for a stop, and no core frees what this thread has allocated.

use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::Builder,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::{Lookup, Named, Readers};
use crate::observe::reports::{Report, Reporter};
use crate::policy::{lookups::Lookups, resolve::Change};
use crate::shared::inbox::MovedBackend;

/// How soon what could not be posted is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Lookups in progress at once, besides slow ones: what a resolver is asked at one moment.
const QUICK_MAX: usize = 16;

/// A lookup that takes longer is slow, and no longer counts towards that bound.
const SLOW: Duration = Duration::from_millis(250);

/// Lookups in progress at once in all: each is a thread that sleeps.
pub(super) const ALL_MAX: usize = 256;

/// A message to the start.
pub(super) struct Answer {
    pub(super) place: usize,
    /// Whether the backend has an address.
    pub(super) is_known: bool,
    pub(super) found: Option<MovedBackend>,
    /// The event to report about it.
    pub(super) what: Option<Report>,
}

/// A message to this thread.
pub(super) enum News {
    /// A lookup has ended.
    Ended(Ended),
    /// The thread must end.
    Stop,
}

/// How a lookup ended.
pub(super) struct Ended {
    place: usize,
    began: Duration,
    answer: io::Result<Vec<SocketAddr>>,
}

/// A channel of messages: each lookup in progress has room for its end, and so has the stop.
pub(super) fn news() -> (Sender<News>, Receiver<News>) {
    bounded(ALL_MAX + 1)
}

/// The inputs of the thread.
pub(super) struct Parts {
    pub(super) names: Vec<Named>,
    pub(super) lookup: Lookup,
    pub(super) reporter: Reporter,
    pub(super) readers: Readers,
    /// Receives answers as long as the start waits for them.
    pub(super) start: Sender<Answer>,
    /// Both ends of its own channel: lookups hold copies of the first.
    pub(super) news: (Sender<News>, Receiver<News>),
    /// Closed when no more answers are wanted.
    pub(super) over: Receiver<()>,
}

/// The state of the thread.
pub(super) struct Resolver {
    names: Vec<Named>,
    lookup: Lookup,
    reporter: Reporter,
    readers: Readers,
    start: Option<Sender<Answer>>,
    to_self: Sender<News>,
    news: Receiver<News>,
    over: Receiver<()>,
    lookups: Lookups,
    /// When each lookup in progress began; no two are of one name.
    under_way: Vec<(usize, Duration)>,
    /// Names whose addresses have not been posted since they changed.
    unposted: Vec<usize>,
    /// The last message, until no core holds it.
    posted: Option<Arc<Vec<MovedBackend>>>,
    began: Instant,
}

impl Resolver {
    pub(super) fn new(given: Parts) -> Resolver {
        let Parts { names, lookup, reporter, readers, start, news: (to_self, news), over } = given;
        Resolver {
            lookups: Lookups::new(names.iter().map(|name| name.every)),
            names,
            lookup,
            reporter,
            readers,
            start: Some(start),
            to_self,
            news,
            over,
            under_way: Vec::new(),
            unposted: Vec::new(),
            posted: None,
            began: Instant::now(),
        }
    }

    /// Has names looked up until told to stop.
    pub(super) fn run(mut self) {
        loop {
            self.post();
            let news = match self.begin_due() {
                None => self.news.recv().map_err(RecvTimeoutError::from),
                Some(due) => self.news.recv_timeout(due.saturating_sub(self.began.elapsed())),
            };
            match news {
                Ok(News::Ended(_)) if self.is_over() => return,
                Ok(News::Ended(ended)) => self.answered(ended),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Begins the lookups that are due and have room; returns when to check again, if not at the
    /// next message.
    fn begin_due(&mut self) -> Option<Duration> {
        let again = loop {
            let now = self.began.elapsed();
            let Some((place, due)) = self.lookups.next() else { break None };
            if due > now {
                break Some(due);
            }
            if self.under_way.len() >= ALL_MAX {
                break None;
            }
            let slow_at = self.under_way.iter().map(|(_, began)| *began + SLOW);
            let quick: Vec<Duration> = slow_at.filter(|slow_at| *slow_at > now).collect();
            if quick.len() >= QUICK_MAX {
                break quick.into_iter().min();
            }
            self.begin(place, now);
        };
        let unposted = (!self.unposted.is_empty()).then(|| self.began.elapsed() + AGAIN);
        [again, unposted].into_iter().flatten().min()
    }

    /// Begins a lookup, on a thread of its own; without one, on this thread.
    fn begin(&mut self, place: usize, began: Duration) {
        self.lookups.begun(place);
        self.under_way.push((place, began));
        let name = &self.names[place];
        let look_up = |lookup: Lookup, host: String, port: u16, tell: Sender<News>| {
            move || {
                let answer = catch_unwind(AssertUnwindSafe(|| lookup(&host, port)));
                let answer = answer.unwrap_or_else(|_| Err(io::Error::other("a bug in Ringway")));
                drop(lookup);
                // There is room for the end of each lookup; none is needed when this has ended.
                let _ = tell.try_send(News::Ended(Ended { place, began, answer }));
            }
        };
        let tell = || self.to_self.clone();
        let made = || look_up(self.lookup.clone(), name.host.clone(), name.port, tell());
        if Builder::new().name("ringway-lookup".into()).spawn(made()).is_err() {
            made()();
        }
    }

    /// Records an answer and passes it on.
    fn answered(&mut self, Ended { place, began, answer }: Ended) {
        self.under_way.retain(|(other, _)| *other != place);
        let times = (began, self.began.elapsed());
        let change = self.lookups.answered(place, times, answer.as_deref().ok());
        let moved = matches!(change, Some(Change::Now { .. }));
        let Named { pool, backend, .. } = self.names[place];
        let what = change.map(|change| {
            let why =
                answer.as_ref().err().map_or("it has no address".into(), io::Error::to_string);
            Report::Name(pool, backend, Box::new((change, why)))
        });
        let told = Answer {
            place,
            is_known: !self.lookups.known(place).is_empty(),
            found: moved.then(|| self.found(place)),
            what,
        };
        let Some(told) = self.tell_start(told) else { return };
        if let Some(what) = told.what {
            self.reporter.tell(what);
        }
        if moved && !self.unposted.contains(&place) {
            self.unposted.push(place);
        }
    }

    /// Gives an answer to the start; returns it when the start does not wait any more.
    fn tell_start(&mut self, answer: Answer) -> Option<Answer> {
        let Some(start) = &self.start else { return Some(answer) };
        let refused = start.send(answer).err()?;
        self.start = None;
        // A start that was refused wants no more answers.
        (!self.is_over()).then_some(refused.0)
    }

    fn found(&self, place: usize) -> MovedBackend {
        let Named { pool, backend, .. } = self.names[place];
        MovedBackend { pool, backend, addresses: self.lookups.known(place).to_vec() }
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
