//! Reports of threads to the hub: small values with ids over a bounded channel, never waited for.
//!
//! A serving thread neither formats nor writes. Reports go to the hub (`hub.rs`), which adds names
//! and decides, for all threads together, what becomes an event.

use std::{cell::Cell, net::IpAddr, sync::Arc, time::Duration};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{event::Event, events::Subscriber, request_id::IdText, tries::Tried};
use crate::base::moment::{Micros, Tick};
use crate::http::fault::Cause;
use crate::plan::{BackendId, ListenerId, LogLevel, Plan, PoolId, RouteId};
use crate::policy::{
    retry::{RetryRefusal, TryOutcome},
    standing::Change,
    suspicion::Silence,
};
use crate::shared::{dropped::Dropped, unreachable::Unreachable};

/// Reports that may wait for the hub, which waits for nothing: all backends of a large pool at
/// once.
const WAITING_MAX: usize = 1024;

/// The shortest time between two events about the same thing.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// A report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// No connection to a backend can be made.
    Unreachable(PoolId, BackendId, Cause),
    /// TLS to a backend failed, for this reason.
    TlsFailed(PoolId, BackendId, Box<str>),
    /// Connections can be made again.
    Reachable(PoolId, BackendId),
    /// A client did not get through its handshake.
    Handshake(Box<Handshake>),
    /// A client does something on a connection of HTTP/2 too often.
    Abuse(Box<Handshake>),
    /// A connection does not begin with a proper PROXY header.
    ProxyHeader(Box<Handshake>),
    Limit(Limit),
    /// The health thread has decided.
    Standing(PoolId, Change),
    /// A backend answers nobody.
    Suspected(PoolId, BackendId, Silence),
    /// A probe of this pool began this long after it was due; the health thread reports it rarely.
    ProbesLate(PoolId, Duration),
    /// An attempt gave no answer that was used.
    Attempt(Box<Attempt>),
    /// A request that failed or was slow.
    Request(Box<Noted>),
    /// An event that has its names already.
    Event(Box<Event>),
}

/// An attempt that gave no answer that was used; reported only at that log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) request: IdText,
    pub(crate) pool: PoolId,
    pub(crate) backend: BackendId,
    /// Whether a connection was made.
    pub(crate) connected: bool,
    /// The outcome instead.
    pub(crate) outcome: TryOutcome,
    /// How long it took.
    pub(crate) took: Micros,
    /// Why the request was not retried; none = it was.
    pub(crate) refusal: Option<RetryRefusal>,
}

/// A handshake of a client that failed, or another reason to end its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    pub(crate) listener: ListenerId,
    /// None: a client on this machine, over a Unix socket.
    pub(crate) client: Option<IpAddr>,
    /// Why, one of a few sentences, and what differs from one time to another.
    pub(crate) why: &'static str,
    pub(crate) detail: Option<Box<str>>,
}

/// A request that is worth a look: it failed, or was slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) request: IdText,
    pub(crate) listener: ListenerId,
    pub(crate) route: Option<RouteId>,
    pub(crate) pool: Option<PoolId>,
    /// The backend asked last.
    pub(crate) backend: Option<BackendId>,
    pub(crate) status: u16,
    /// How it ended, by the code of the access log.
    pub(crate) code: &'static str,
    pub(crate) attempts: u8,
    /// Each of its tries, if there was more than one.
    pub(crate) tries: Box<[Tried]>,
    /// How long it took, if it was timed.
    pub(crate) took: Option<Micros>,
}

/// How many of them a core reports in a second: enough to see what they have in common.
const NOTED_MAX: u8 = 10;

/// What ran short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Client connections.
    Connections,
    /// Descriptors of the process.
    Descriptors,
    /// Room for lines of access logs.
    LogLines,
    /// Descriptors, ports or memory for a connection to a backend.
    Outgoing,
}

pub(super) const LIMITS: usize = 4;

/// Failed handshakes that a core reports in a second: scanners come in crowds, and the hub says
/// each reason once a minute anyway.
const HANDSHAKES_MAX: u8 = 20;

/// A message to the hub.
pub(crate) enum ToHub {
    Report(Report),
    /// The plan in force from now on.
    Plan(Arc<Plan>),
    /// Adds a reader; the channel closes when it has got the last events.
    Subscribe(Subscriber, Sender<()>),
    /// There are no more reports.
    End,
}

/// A thread's end of the channel.
#[derive(Clone)]
pub(crate) struct Reporter {
    to: Sender<ToHub>,
    dropped: Dropped,
}

/// The channel to the hub.
pub(crate) fn channel() -> (Reporter, Receiver<ToHub>) {
    channel_of(WAITING_MAX)
}

/// The same with this much room.
pub(crate) fn channel_of(room: usize) -> (Reporter, Receiver<ToHub>) {
    let (to, from) = bounded(room);
    (Reporter { to, dropped: Dropped::default() }, from)
}

impl Reporter {
    /// Reports, unless there is no room, which is counted; returns whether it was reported.
    pub(crate) fn tell(&self, what: Report) -> bool {
        let told = self.to.try_send(ToHub::Report(what)).is_ok();
        if !told {
            self.dropped.add(1);
        }
        told
    }

    /// Reports an event that has its names already.
    pub(crate) fn event(&self, event: Event) {
        self.tell(Report::Event(Box::new(event)));
    }

    /// Reports, or returns what finds no room.
    ///
    /// # Errors
    /// The report.
    pub(crate) fn try_tell(&self, what: Report) -> Result<(), Report> {
        match self.to.try_send(ToHub::Report(what)) {
            Err(TrySendError::Full(ToHub::Report(what))) => Err(what),
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// How many were not reported.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.read()
    }

    /// The channel itself, for commands to the hub.
    pub(crate) fn to_hub(&self) -> &Sender<ToHub> {
        &self.to
    }
}

/// A core's end.
pub(crate) struct CoreReporter {
    reporter: Reporter,
    /// Whether single attempts are reported.
    tells_attempts: Cell<bool>,
    /// The second in which requests were noted last, and how many.
    noted: Cell<(u64, u8)>,
    /// When each limit was reported last, if ever.
    limits: [Cell<Option<Tick>>; LIMITS],
    /// Since when failed handshakes are counted, and how many were reported since.
    handshakes: Cell<Option<(Tick, u8)>>,
}

impl CoreReporter {
    pub(crate) fn new(reporter: Reporter, level: LogLevel) -> CoreReporter {
        let tells_attempts = Cell::new(level >= LogLevel::Debug);
        let (limits, handshakes) = (Default::default(), Cell::new(None));
        let noted = Cell::default();
        CoreReporter { reporter, tells_attempts, noted, limits, handshakes }
    }

    /// Sets the level of the log.
    pub(crate) fn set_level(&self, level: LogLevel) {
        self.tells_attempts.set(level >= LogLevel::Debug);
    }

    /// Whether single attempts are reported.
    #[inline]
    pub(crate) fn tells_attempts(&self) -> bool {
        self.tells_attempts.get()
    }

    /// An attempt gave no answer that was used.
    pub(crate) fn attempt(&self, attempt: Attempt) {
        self.reporter.tell(Report::Attempt(Box::new(attempt)));
    }

    /// A request failed or was slow; of many in a second a few are reported.
    #[cold]
    pub(crate) fn request(&self, now: Tick, noted: impl FnOnce() -> Noted) {
        let second = now.millis() / 1_000;
        let (of, count) = self.noted.get();
        let count = if of == second { count } else { 0 };
        if count < NOTED_MAX {
            self.noted.set((second, count + 1));
            self.reporter.tell(Report::Request(Box::new(noted())));
        }
    }

    /// A limit is hit. It is hit again with each connection, so it is reported once a second.
    pub(crate) fn limit(&self, limit: Limit, now: Tick) {
        let last = &self.limits[limit as usize];
        if last.get().is_none_or(|last| now >= last + PERIOD) {
            last.set(Some(now));
            self.reporter.tell(Report::Limit(limit));
        }
    }

    /// A client did not get through its handshake.
    #[cold]
    pub(crate) fn handshake(&self, now: Tick, what: impl FnOnce() -> Handshake) {
        if self.may_tell_of_client(now) {
            self.reporter.tell(Report::Handshake(Box::new(what())));
        }
    }

    /// A client does something on a connection of HTTP/2 too often.
    #[cold]
    pub(crate) fn abuse(&self, now: Tick, what: impl FnOnce() -> Handshake) {
        if self.may_tell_of_client(now) {
            self.reporter.tell(Report::Abuse(Box::new(what())));
        }
    }

    /// A connection does not begin with a proper PROXY header.
    #[cold]
    pub(crate) fn proxy_header(&self, now: Tick, what: impl FnOnce() -> Handshake) {
        if self.may_tell_of_client(now) {
            self.reporter.tell(Report::ProxyHeader(Box::new(what())));
        }
    }

    /// Whether one more report about a single client may be made in this second.
    fn may_tell_of_client(&self, now: Tick) -> bool {
        let counted = self.handshakes.get().filter(|(since, _)| now < *since + PERIOD);
        let (since, count) = counted.unwrap_or((now, 0));
        let may = count < HANDSHAKES_MAX;
        if may {
            self.handshakes.set(Some((since, count + 1)));
        }
        may
    }

    /// A connection to a backend could not be made. Of all cores the first one reports it.
    #[cold]
    pub(crate) fn unreachable(
        &self,
        (pool, backend): (PoolId, BackendId),
        (cause, why): (Cause, Option<String>),
        known: &Unreachable,
    ) {
        let tell = || {
            let told = self.reporter.tell(Report::Unreachable(pool, backend, cause));
            if let Some(why) = why.filter(|_| told) {
                self.reporter.tell(Report::TlsFailed(pool, backend, why.into()));
            }
            told
        };
        known.note(backend, true, tell);
    }

    /// A connection to a backend was made.
    pub(crate) fn reachable(&self, (pool, backend): (PoolId, BackendId), known: &Unreachable) {
        known.note(backend, false, || self.reporter.tell(Report::Reachable(pool, backend)));
    }
}

#[cfg(test)]
impl ToHub {
    /// The report, if it is one.
    pub(crate) fn told(self) -> Option<Report> {
        match self {
            ToHub::Report(what) => Some(what),
            ToHub::Plan(_) | ToHub::Subscribe(..) | ToHub::End => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: (PoolId, BackendId) = (PoolId(0), BackendId(1));
    const DOWN: Report = Report::Unreachable(PoolId(0), BackendId(1), Cause::ConnectFailed);
    const UP: Report = Report::Reachable(PoolId(0), BackendId(1));

    #[test]
    fn what_all_cores_see_is_told_once_and_again_where_there_was_no_room() {
        let (reporter, from) = channel_of(1);
        let known = Unreachable::new();
        known.grow(2);
        let [core, other] = [(); 2].map(|()| CoreReporter::new(reporter.clone(), LogLevel::Info));
        let told = || from.try_iter().filter_map(ToHub::told).collect::<Vec<_>>();
        for core in [&core, &other, &core] {
            core.unreachable(ID, (Cause::ConnectFailed, None), &known);
        }
        assert_eq!(told(), [DOWN]);
        core.limit(Limit::LogLines, Tick::from_millis(1));
        other.reachable(ID, &known);
        assert_eq!((told(), reporter.dropped()), (vec![Report::Limit(Limit::LogLines)], 1));
        for core in [&other, &core] {
            core.reachable(ID, &known);
        }
        assert_eq!(told(), [UP]);
        for now in [2, 1_000, 1_001] {
            core.limit(Limit::LogLines, Tick::from_millis(now));
        }
        assert_eq!(told().len(), 1);
    }
}
