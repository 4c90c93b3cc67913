//! The names thread: has names looked up beside each other, and posts what they have.
//!
//! It blocks in no lookup: each is asked for, and its end is a message. The bound is on lookups
//! that are not known to be slow, so that silent names delay no other. Whoever owns the plan takes
//! all addresses at once, however many answers have come since it looked last.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{Ask, Means};
use crate::observe::event::{Event, Named};
use crate::plan::Address;
use crate::policy::{
    lookups::Lookups,
    overlay::Wanted,
    resolve::{Answer, Change},
};

/// Lookups in progress at once, besides slow ones: what name servers are asked at one moment.
const QUICK_MAX: usize = 16;

/// A lookup that takes longer is slow, and no longer counts towards that bound.
const SLOW: Duration = Duration::from_millis(250);

/// Lookups in progress at once in all: each is a socket or two.
pub(super) const ALL_MAX: usize = 256;

/// A message to this thread.
pub(super) enum News {
    /// A lookup has ended.
    Ended(Ended),
    /// These names are looked up from now on.
    Want(Wanted),
    /// These as well; the sender is dropped when each has been answered.
    Foresee(Wanted, Sender<()>),
    /// Nobody waits any more for names that have not been answered after this long.
    Late(Duration),
    /// The thread must end.
    Stop,
}

/// How a lookup ended.
pub(super) struct Ended {
    address: Address,
    began: Duration,
    answer: Result<Answer, String>,
}

/// The inputs of the thread.
pub(super) struct Parts {
    pub(super) means: Means,
    pub(super) to_self: Sender<News>,
    pub(super) messages: Receiver<News>,
}

/// The state of the thread.
pub(super) struct Resolver {
    means: Means,
    ask: Ask,
    to_self: Sender<News>,
    messages: Receiver<News>,
    wanted: Wanted,
    lookups: Lookups,
    /// When each lookup in progress began; no two are of one name.
    under_way: Vec<(Address, Duration)>,
    /// Those who wait until each of these names has been answered.
    waiting: Vec<(Vec<Address>, Sender<()>)>,
    began: Instant,
}

impl Resolver {
    pub(super) fn new(Parts { means, to_self, messages }: Parts) -> Resolver {
        Resolver {
            ask: (means.lookup)(),
            means,
            to_self,
            messages,
            wanted: Wanted::new(),
            lookups: Lookups::default(),
            under_way: Vec::new(),
            waiting: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Has names looked up until told to stop.
    pub(super) fn run(mut self) {
        loop {
            let message = match self.begin_due() {
                None => self.messages.recv().map_err(RecvTimeoutError::from),
                Some(due) => self.messages.recv_timeout(due.saturating_sub(self.began.elapsed())),
            };
            match message {
                Ok(News::Ended(ended)) => self.answered(ended),
                Ok(News::Want(wanted)) => self.want(wanted),
                Ok(News::Foresee(wanted, all_answered)) => self.foresee(wanted, all_answered),
                Ok(News::Late(time)) => self.tell_late(time),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            self.answer_waiting();
        }
    }

    fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        let each = self.wanted.iter().map(|(address, want)| (address.clone(), want.resolve));
        self.lookups.want(each);
    }

    fn foresee(&mut self, wanted: Wanted, all_answered: Sender<()>) {
        self.waiting.push((wanted.keys().cloned().collect(), all_answered));
        let mut all = std::mem::take(&mut self.wanted);
        for (address, want) in wanted {
            all.entry(address).or_insert(want);
        }
        self.want(all);
    }

    fn answer_waiting(&mut self) {
        let Resolver { waiting, lookups, .. } = self;
        waiting.retain(|(names, _)| !names.iter().all(|name| lookups.is_answered(name)));
    }

    /// Begins the lookups that are due and have room; returns when to check again, if not at the
    /// next message.
    fn begin_due(&mut self) -> Option<Duration> {
        loop {
            let now = self.began.elapsed();
            let (address, due) = self.lookups.next()?;
            if due > now {
                return Some(due);
            }
            if self.under_way.len() >= ALL_MAX {
                return None;
            }
            let slow_at = self.under_way.iter().map(|(_, began)| *began + SLOW);
            let quick: Vec<Duration> = slow_at.filter(|slow_at| *slow_at > now).collect();
            if quick.len() >= QUICK_MAX {
                return quick.into_iter().min();
            }
            let address = address.clone();
            self.begin(address, now);
        }
    }

    fn begin(&mut self, address: Address, began: Duration) {
        self.lookups.begun(&address);
        self.under_way.push((address.clone(), began));
        let (to_self, of) = (self.to_self.clone(), address.clone());
        let answered = move |answer| {
            // None is needed when this thread has ended.
            let _ = to_self.send(News::Ended(Ended { address: of, began, answer }));
        };
        (self.ask)(address, Box::new(answered));
    }

    /// Records an answer, and posts and tells what it changes.
    fn answered(&mut self, Ended { address, began, answer }: Ended) {
        self.under_way.retain(|(other, _)| *other != address);
        let times = (began, self.began.elapsed());
        let is_first = !self.lookups.is_answered(&address);
        let changes = self.lookups.answered(&address, times, answer.as_ref().ok());
        if changes.iter().any(|change| matches!(change, Change::Now { .. })) {
            // The owner of the plan may have ended.
            let _ = self.means.found.send(self.lookups.members());
        }
        if is_first && answer.is_ok() && !changes.contains(&Change::Unknown) {
            // That a name resolves is no news.
            return;
        }
        let why = answer.err().unwrap_or_else(|| "it has no address".to_owned());
        changes.into_iter().for_each(|change| self.tell(&address, &change, &why));
    }

    fn tell_late(&mut self, time: Duration) {
        let why = format!("no answer after {time:?}");
        let late = self.lookups.give_up();
        late.iter().for_each(|address| self.tell(address, &Change::Unknown, &why));
    }

    /// Tells of a name, once for each backend that has it.
    fn tell(&self, address: &Address, change: &Change, why: &str) {
        let by = self.wanted.get(address).into_iter().flat_map(|want| &want.by);
        for (pool, backend) in by {
            let name = Named::new(pool, backend, &address.to_string());
            let cause = || why.into();
            self.means.reporter.event(match change {
                Change::Same => Event::NameResolved(name),
                Change::Now { addresses, gone } => {
                    let (addresses, gone) = (addresses.clone(), gone.clone());
                    Event::NameMoved { name, addresses, gone }
                }
                Change::Held { lacking } => Event::NameHeld { name, lacking: lacking.clone() },
                Change::Kept => Event::NameStale { name, cause: cause() },
                Change::Unknown => Event::NameUnknown { name, cause: cause() },
            });
        }
    }
}
