//! The event hub: threads report by ids, and named events come out, one queue for each reader.
//!
//! It belongs to one thread (`server/tell`) and waits for nothing: neither for a reader nor for a
//! disk. The last events are kept for later readers.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    digest::Digest,
    event::{self, Event, Transition, Usable},
    events::{Happened, Subscriber},
    reports::{Attempt, Handshake, Limit, Noted, Report},
    tries::Why,
};
use crate::base::moment::Tick;
use crate::plan::{BackendId, LogLevel, Plan, PoolId};
use crate::policy::{
    retry::TryOutcome,
    standing::{Change, Mode, State},
};
use crate::shared::counters::{Counter, Slab};

/// Events that are kept for later readers.
const KEPT: usize = 256;

/// What counts handshakes that failed for a reason that is said.
const FAILED_HANDSHAKES: [Counter; 4] =
    [Counter::TlsRefused, Counter::TlsAlerted, Counter::TlsTimeout, Counter::TlsPlainHttp];

/// Adds names to events and hands them to all readers.
pub(crate) struct Hub {
    plan: Arc<Plan>,
    counters: Vec<Arc<Slab>>,
    digest: Digest,
    readers: Vec<Subscriber>,
    kept: VecDeque<Arc<Happened>>,
    last_id: u64,
}

impl Hub {
    pub(crate) fn new(plan: Arc<Plan>, counters: Vec<Arc<Slab>>) -> Hub {
        let (digest, kept) = (Digest::default(), VecDeque::with_capacity(KEPT));
        Hub { plan, counters, digest, readers: Vec::new(), kept, last_id: 0 }
    }

    /// Puts a plan in force. What was reported of backends that it does not name, or names
    /// differently, is dropped.
    pub(crate) fn replan(&mut self, plan: Arc<Plan>) {
        let before = std::mem::replace(&mut self.plan, plan);
        let plan = &self.plan;
        self.digest.keep(|pool, backend| {
            let named = |plan: &Plan| {
                let pool = plan.pools.get(pool)?;
                Some((pool.name.clone(), pool.backends.get(backend)?.name.clone()))
            };
            named(plan).is_some_and(|now| named(&before) == Some(now))
        });
    }

    /// Adds a reader; it gets the last events first.
    pub(crate) fn subscribe(&mut self, reader: Subscriber) {
        self.readers.retain(Subscriber::is_read);
        self.kept.iter().for_each(|happened| reader.hand(happened));
        self.readers.push(reader);
    }

    /// Takes what a thread reports, at this tick of the hub's own clock.
    pub(crate) fn take(&mut self, what: Report, now: Tick, at: SystemTime) {
        if let Some(what) = self.digest.observe(what, now) {
            self.publish(what, at);
        }
    }

    /// Publishes what has become due since.
    pub(crate) fn due(&mut self, now: Tick, at: SystemTime) {
        let due: Vec<Report> = self.digest.due(now).collect();
        due.into_iter().for_each(|what| self.publish(what, at));
    }

    /// How long until something becomes due, at most; none = nothing will.
    pub(crate) fn waits(&self) -> Option<Duration> {
        self.digest.waits()
    }

    fn publish(&mut self, what: Report, at: SystemTime) {
        let Some(event) = self.event(what) else { return };
        self.last_id += 1;
        let happened = Arc::new(Happened { id: self.last_id, at, event });
        self.readers.retain(Subscriber::is_read);
        self.readers.iter().for_each(|reader| reader.hand(&happened));
        // What only helps to find a fault would leave no room for the rest.
        if happened.event.level() > LogLevel::Info {
            return;
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(happened);
    }

    /// The event; none if its ids are of no plan.
    fn event(&self, what: Report) -> Option<Event> {
        Some(match what {
            Report::Event(event) => *event,
            Report::Unreachable(pool, backend, cause) => {
                let code = cause.row().code;
                Event::BackendUnreachable { backend: self.backend(pool, backend)?, code }
            }
            Report::TlsFailed(pool, backend, why) => {
                Event::BackendTlsFailed { backend: self.backend(pool, backend)?, cause: why.into() }
            }
            Report::Reachable(pool, backend) => {
                Event::BackendReachable(self.backend(pool, backend)?)
            }
            Report::Handshake(it) => self.handshake(*it)?,
            Report::Abuse(it) => self.abuse(&it)?,
            Report::ProxyHeader(it) => self.proxy_header(&it)?,
            Report::Limit(limit) => self.limit(limit),
            Report::Standing(pool, change) => return self.standing(pool, change),
            Report::Suspected(pool, backend, cause) => {
                Event::BackendSuspected { backend: self.backend(pool, backend)?, cause }
            }
            Report::ProbesLate(pool, late) => Event::ProbesLate { pool: self.pool(pool)?, late },
            Report::Attempt(attempt) => return self.attempt(&attempt),
            Report::Request(noted) => return self.request(&noted),
        })
    }

    fn pool(&self, pool: PoolId) -> Option<Arc<str>> {
        Some(Arc::from(&*self.plan.pools.get(pool)?.name))
    }

    fn backend(&self, pool: PoolId, backend: BackendId) -> Option<event::Backend> {
        let of = self.plan.pools.get(pool)?;
        let backend = Arc::from(&*of.backends.get(backend)?.name);
        Some(event::Backend { pool: Arc::from(&*of.name), backend })
    }

    fn handshake(&self, Handshake { listener, client, why, detail }: Handshake) -> Option<Event> {
        Some(Event::HandshakeFailed {
            listener: Arc::from(&*self.plan.listeners.get(listener)?.name),
            client,
            cause: match detail {
                Some(detail) => format!("{why} ({detail})").into(),
                None => Arc::from(why),
            },
            failed: FAILED_HANDSHAKES.into_iter().map(|counter| self.sum(counter)).sum(),
        })
    }

    fn abuse(&self, it: &Handshake) -> Option<Event> {
        Some(Event::Http2Abuse {
            listener: Arc::from(&*self.plan.listeners.get(it.listener)?.name),
            client: it.client,
            cause: Arc::from(it.why),
        })
    }

    fn proxy_header(&self, it: &Handshake) -> Option<Event> {
        Some(Event::ProxyHeaderRefused {
            listener: Arc::from(&*self.plan.listeners.get(it.listener)?.name),
            client: it.client,
            cause: Arc::from(it.why),
            refused: self.sum(Counter::RejectedProxyHeader),
        })
    }

    fn limit(&self, limit: Limit) -> Event {
        match limit {
            Limit::Connections => Event::ConnectionLimit {
                open: self.sum(Counter::Connections),
                idle_closed: self.sum(Counter::IdleEvicted),
                refused: self.sum(Counter::RejectedOverloaded),
            },
            Limit::Descriptors => {
                Event::DescriptorLimit { refused: self.sum(Counter::RejectedDescriptors) }
            }
            Limit::LogLines => {
                Event::AccessLogBehind { dropped: self.sum(Counter::AccessLogDropped) }
            }
            Limit::Outgoing => Event::OutgoingLimit,
        }
    }

    fn sum(&self, counter: Counter) -> u64 {
        self.counters.iter().fold(0, |sum, slab| sum.wrapping_add(slab.read(counter)))
    }

    fn standing(&self, pool: PoolId, change: Change) -> Option<Event> {
        Some(match change {
            Change::Backend { backend, to, cause, lasted, .. } => {
                let event::Backend { pool, backend } = self.backend(pool, backend)?;
                let it = Transition { pool, backend, cause, lasted };
                match to {
                    State::Up => Event::BackendUp(it),
                    State::Down => Event::BackendDown(it),
                    State::Ejected => Event::BackendEjected(it),
                    State::Returning => Event::BackendReturning(it),
                    State::Admitted => Event::BackendReadmitted(it),
                    State::Open => Event::BreakerOpen(it),
                    State::HalfOpen => Event::BreakerHalfOpen(it),
                    State::Closed => Event::BreakerClosed(it),
                }
            }
            Change::Pool { from, to, sound, of } => {
                let it = Usable { pool: self.pool(pool)?, healthy: sound, of };
                match (from, to) {
                    (_, Mode::Panic) => Event::PanicOn(it),
                    (_, Mode::Lenient) => Event::LenientOn(it),
                    (Mode::Panic, Mode::Strict) => Event::PanicOff(it),
                    (Mode::Lenient | Mode::Strict, Mode::Strict) => Event::LenientOff(it),
                }
            }
        })
    }

    fn request(&self, noted: &Noted) -> Option<Event> {
        let Noted { request, listener, route, pool, backend, .. } = noted;
        let named = |name: &str| Arc::from(name);
        let plan = &self.plan;
        let of = pool.and_then(|pool| plan.pools.get(pool));
        let backend = backend.and_then(|id| of?.backends.get(id));
        let tries = noted.tries.iter().filter_map(|tried| {
            Some(event::Try {
                backend: named(&of?.backends.get(tried.backend)?.name),
                reused: tried.reused,
                phase: tried.phase.word(),
                fault: tried.fault(),
                took: Duration::from_micros(tried.took.0),
                why: tried.why.map(Why::word),
            })
        });
        Some(Event::RequestNoted(event::Request {
            request_id: named(request.str()),
            listener: named(&plan.listeners.get(*listener)?.name),
            route: route.and_then(|id| Some(named(&plan.routes.get(id)?.name))),
            pool: of.map(|pool| named(&pool.name)),
            backend: backend.map(|backend| named(&backend.name)),
            status: noted.status,
            code: noted.code,
            attempts: noted.attempts,
            tries: tries.collect(),
            took: noted.took.map(|took| Duration::from_micros(took.0)),
        }))
    }

    fn attempt(&self, attempt: &Attempt) -> Option<Event> {
        let event::Backend { pool, backend } = self.backend(attempt.pool, attempt.backend)?;
        let (code, status) = match attempt.outcome {
            TryOutcome::Status(_) | TryOutcome::Grpc(_) => ("ok", attempt.outcome.status()),
            TryOutcome::Fault(fault) => (fault.cause.row().code, 0),
        };
        Some(Event::AttemptFailed(event::Attempt {
            request_id: Arc::from(attempt.request.str()),
            pool,
            backend,
            connected: attempt.connected,
            code,
            status,
            took: Duration::from_micros(attempt.took.0),
            refusal: attempt.refusal.map(|refusal| refusal.code()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fault::Cause;
    use crate::observe::events::{Events, queue};
    use crate::plan::LogLevel;

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    fn hub() -> Hub {
        let text = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                    [pool.app]\nbackends = [{ address = \"a.test:80\", name = \"a\" }]\n";
        Hub::new(
            Arc::new(crate::config::parse("hub.toml", text).unwrap().plan.into_plan()),
            Vec::new(),
        )
    }

    fn words(events: &Events) -> Vec<(u64, &'static str)> {
        let next = || events.try_next();
        std::iter::from_fn(next).map(|happened| (happened.id, happened.event.word())).collect()
    }

    #[test]
    fn all_readers_are_given_what_matters_to_them_and_late_ones_the_last() {
        let mut hub = hub();
        let (log, debug) = queue(LogLevel::Debug);
        hub.subscribe(log);
        let (other, warns) = queue(LogLevel::Warn);
        hub.subscribe(other);
        hub.take(Report::Limit(Limit::Outgoing), at(0), AT);
        hub.take(Report::Unreachable(PoolId(0), BackendId(0), Cause::ConnectFailed), at(0), AT);
        hub.take(Report::Reachable(PoolId(0), BackendId(0)), at(1), AT);
        hub.due(at(3_000), AT);
        hub.due(at(4_000), AT);
        let all = [(1, "outgoing_limit"), (2, "backend_unreachable"), (3, "backend_reachable")];
        assert_eq!(words(&debug), all);
        assert_eq!(words(&warns), all[..2]);
        let (late, late_ones) = queue(LogLevel::Info);
        hub.subscribe(late);
        assert_eq!(words(&late_ones), all);
        drop((debug, warns, late_ones));
        for number in 0..1_000 {
            hub.take(Report::Limit(Limit::Outgoing), at(10_000 + 1_000 * number), AT);
        }
        assert_eq!((hub.readers.len(), hub.kept.len()), (0, KEPT));
    }

    #[test]
    fn names_stand_in_place_of_ids_and_ids_of_no_plan_give_nothing() {
        let mut hub = hub();
        let (reader, events) = queue(LogLevel::Info);
        hub.subscribe(reader);
        hub.take(Report::TlsFailed(PoolId(7), BackendId(0), "no such host".into()), at(0), AT);
        hub.take(
            Report::Standing(
                PoolId(0),
                Change::Pool { from: Mode::Strict, to: Mode::Panic, sound: 1, of: 3 },
            ),
            at(0),
            AT,
        );
        hub.take(Report::TlsFailed(PoolId(0), BackendId(0), "no such host".into()), at(0), AT);
        let (panic, failed) = (events.try_next().unwrap(), events.try_next().unwrap());
        let fields = panic.event.fields();
        assert_eq!((fields.pool, fields.healthy, fields.of), (Some("app"), Some(1), Some(3)));
        let fields = failed.event.fields();
        assert_eq!((fields.pool, fields.backend), (Some("app"), Some("a")));
        assert_eq!(&*fields.cause.unwrap(), "no such host");
        assert_eq!(events.try_next(), None);
    }
}
