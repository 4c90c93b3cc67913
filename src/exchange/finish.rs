//! Scores every try and its answer against the backend; counts and logs every exchange.
//!
//! What the log needs beyond the counters is recorded only if the listener has one: the ranges of
//! the head before it is edited, and a few moments of the precise clock.

use std::rc::Rc;

use super::{Answer, Exchange, Fetched, UnderWay, id_of, tunnel::Told};
use crate::base::moment::{Micros, Moment, Tick};
use crate::http::{
    answer,
    fault::{Cause, Failure, Fault, Side},
    framing::BodyLength,
    grpc,
    headers::Span,
};
use crate::net::{clock::Clock, deadlines::Ended};
use crate::observe::{
    access_log::AccessLine,
    record::{Asked, Record, Term},
    reports::Noted,
    request_id::IdText,
    tries::Tried,
};
use crate::plan::Plan;
use crate::policy::{
    balance::Sample,
    blame::{Verdict, Wait, blame},
    retry::TryOutcome,
};
use crate::proto::{Client, peer::Peer};
use crate::shared::{
    counters::Counter,
    request_times::{Phase, Timed},
    tally::{CUT, Key},
};
use crate::worker::{InForce, Pick, Scratch, Worker};

/// A request that takes this long is reported, if it is one of those that are timed.
const SLOW: Micros = Micros(1_000_000);

/// Counts how a try ended, for its backend and for the health thread.
#[inline]
pub(super) fn tried(
    worker: &Worker,
    exchange: &mut Exchange,
    result: Result<Answer, Fault>,
    pick: Option<&mut Pick>,
) -> TryOutcome {
    let outcome = match result {
        Ok(_) if exchange.pool_plan().retry.on.grpc != 0 => grpc_outcome(exchange),
        Ok(_) => TryOutcome::Status(exchange.scratch.response.status),
        Err(fault) => TryOutcome::Fault(fault),
    };
    if let Err(fault) = result {
        count_failed(worker, exchange, fault);
    }
    let pool = exchange.in_force.pool(exchange.pool);
    let trial = match &mut exchange.fetched {
        Some(fetched) => fetched.pick.take_trial(),
        None => pick.and_then(Pick::take_trial),
    };
    if outcome.calls_for_another() {
        worker.clock.renew();
    }
    let (asked_at, now) = (exchange.last.asked_at, worker.clock.tick());
    // With nothing of a body on its way the client kept no one waiting.
    let alone = exchange.tries.count == 1 && exchange.last.is_sent && !exchange.tries.body_gone;
    let had_all_the_time =
        alone && exchange.tries.kept.is_none() && exchange.queued_since.is_none();
    let wait = Wait { since: asked_at, until: now, body: exchange.last.body, had_all_the_time };
    let verdict = blame(outcome, &exchange.pool_plan().passive.statuses, wait);
    let Some(backend) = exchange.scratch.record.backend else { return outcome };
    let tries = Key::Tries(exchange.pool, backend, outcome.status());
    worker.counters.tally().add(tries, 1);
    if result.is_ok() {
        pool.began(backend, exchange.last.sent_at, &worker.clock);
    }
    let settled = pool.settle(backend, (verdict, outcome), trial, (asked_at, now));
    match (result, &mut exchange.fetched) {
        (Ok(Answer::Fetched), Some(fetched)) if settled == Some(true) => {
            fetched.began_well_at = Some(now);
        }
        // A connection of TCP: what comes through it will tell (`proof.rs`).
        (Ok(Answer::Switched), None) => {}
        (Ok(_), _) if settled == Some(true) => pool.whole(backend),
        (Ok(_) | Err(_), _) => {}
    }
    let needs = pool.needs();
    if let Some(ok) = settled
        && needs.outcomes
    {
        let since = exchange.last.timed_from.filter(|_| needs.times);
        let took = since.map_or(Micros(0), |since| worker.clock.renew().since(since));
        let took = u32::try_from(took.0).unwrap_or(u32::MAX);
        // A 5xx that ejects no backend is a failure here too: 500 at once is not fast.
        let failed = matches!(outcome, TryOutcome::Status(500..) | TryOutcome::Grpc(_));
        let good = ok && !failed;
        let sample = if good { Sample::FirstByte(took) } else { Sample::Failed(took) };
        pool.observe(backend, sample, worker.clock.tick());
    }
    outcome
}

/// The outcome of a try where the pool names statuses of gRPC.
#[cold]
fn grpc_outcome(exchange: &Exchange) -> TryOutcome {
    let Scratch { request, response, .. } = &*exchange.scratch;
    let named = exchange.pool_plan().retry.on.grpc;
    match grpc::status_in(response) {
        Some(status) if named >> status & 1 == 1 && answer::is_grpc(request) => {
            TryOutcome::Grpc(status)
        }
        Some(_) | None => TryOutcome::Status(response.status),
    }
}

/// Counts why a try failed, for its backend.
#[cold]
fn count_failed(worker: &Worker, exchange: &Exchange, fault: Fault) {
    count_refused(worker, fault);
    if let (Some(failure), Some(backend)) = (fault.cause.failure(), exchange.scratch.record.backend)
    {
        worker.counters.tally().add(Key::Failed(exchange.pool, backend, failure as u16), 1);
    }
}

/// Counts an answer that was refused for its form, if that is why the attempt failed.
#[cold]
fn count_refused(worker: &Worker, fault: Fault) {
    if fault.cause.failure() == Some(Failure::NotTaken) {
        worker.count(Counter::BackendAnswersRefused);
    }
}

/// Counts the end of an answer that began well, for its backend.
#[inline]
pub(super) fn answered(worker: &Worker, exchange: &Exchange, result: Result<(), Fault>) {
    if let Err(fault) = result {
        count_refused(worker, fault);
    }
    let Some(fetched) = &exchange.fetched else { return };
    let Some(began_at) = fetched.began_well_at else { return };
    match result {
        Err(fault) if fault.side != Side::Client => {
            cut(worker, exchange, fetched, (fault.cause, began_at));
        }
        Ok(()) | Err(_) => exchange.in_force.pool(exchange.pool).whole(fetched.id),
    }
}

/// The same for one that was cut: by its backend, unless there is another reason.
#[cold]
fn cut(worker: &Worker, exchange: &Exchange, fetched: &Fetched, (cause, began_at): (Cause, Tick)) {
    worker.clock.renew();
    let cause = match (cause, fetched.backend.read_ended()) {
        _ if worker.clock.is_over(exchange.deadline) => Cause::Deadline,
        // A backend that cannot send loses patience.
        (Cause::ResponseIncomplete, _) if fetched.pause.was_long() => Cause::ClientTimeout,
        (Cause::ResponseIncomplete, Some(Ended::Overdue)) => Cause::ResponseTimeout,
        (Cause::ResponseIncomplete, Some(Ended::Closed)) => Cause::ShuttingDown,
        (Cause::ResponseIncomplete, Some(Ended::ClientLeft)) => Cause::ClientAbort,
        (cause, _) => cause,
    };
    let now = worker.clock.tick();
    let wait =
        Wait { since: began_at, until: now, body: exchange.last.body, had_all_the_time: false };
    let statuses = &exchange.pool_plan().passive.statuses;
    let outcome = TryOutcome::Fault(cause.into());
    let verdict = blame(outcome, statuses, wait);
    let pool = exchange.in_force.pool(exchange.pool);
    if verdict == Verdict::Nothing {
        pool.whole(fetched.id);
        return;
    }
    worker.counters.tally().add(Key::Failed(exchange.pool, fetched.id, CUT), 1);
    if pool.cut(fetched.id, (verdict, outcome), (began_at, now)) && pool.needs().outcomes {
        pool.observe(fetched.id, Sample::Failed(0), now);
    }
}

/// Counts an exchange by what its client was answered: when it ends, but for a tunnel, which may
/// outlive the plan that has the names of its listener and its route.
#[inline]
pub(super) fn count(worker: &Worker, client: &Client, record: &Record) {
    let answered = Key::Requests(client.peer().listener, record.route, record.status);
    worker.counters.tally().add(answered, 1);
}

/// Records how an exchange ended.
pub(super) fn record(worker: &Worker, client: &mut Client, exchange: &mut Exchange) {
    let record = &exchange.scratch.record;
    worker.counters.add(Counter::RequestBytes, record.request_bytes);
    worker.counters.add(Counter::ResponseBytes, record.response_bytes);
    if record.status != 101 {
        count(worker, client, record);
    }
    moved(exchange);
    ended(worker, client, exchange);
}

/// Counts the bytes of an exchange for the backend that was asked last.
#[inline]
fn moved(exchange: &Exchange) {
    let record = &exchange.scratch.record;
    // A tunnel may outlive the plan of its pool, and then nobody asks any more.
    if let (Some(pool), Some(backend)) = (record.pool, record.backend)
        && let Some(view) = exchange.in_force.pools.get(pool)
    {
        view.moved(backend, record.request_bytes, record.response_bytes);
    }
}

/// Records how a connection without requests ended.
pub(super) fn passed(
    worker: &Worker,
    client: &mut Client,
    (in_force, under_way): (Rc<InForce>, UnderWay),
    (mut record, told): (Record, Option<Told>),
) {
    // No time of it is one of a request.
    record.sampled = false;
    worker.counters.add(Counter::RequestBytes, record.request_bytes);
    worker.counters.add(Counter::ResponseBytes, record.response_bytes);
    let mut scratch = worker.scratch();
    scratch.record = record;
    if let Some(told) = told {
        let Told { host, tries } = told;
        let bytes = &mut scratch.request.headers.bytes;
        bytes.extend_from_slice(host.as_deref().unwrap_or_default());
        (scratch.asked.host, scratch.tries) = (Span::new(0, bytes.len()), tries);
    }
    let mut exchange = Exchange::made(in_force, scratch, BodyLength::None, under_way);
    moved(&exchange);
    ended(worker, client, &mut exchange);
    worker.recycle(exchange.scratch);
}

/// Counts the way in which it ended, reports it if it failed, and logs it.
#[inline]
fn ended(worker: &Worker, client: &mut Client, exchange: &mut Exchange) {
    let record = &exchange.scratch.record;
    let failed = match record.term {
        Term::Ok => record.status >= 500,
        Term::TunnelClosed | Term::TunnelIdle | Term::TunnelExpired | Term::TunnelDrained => false,
        Term::Fault(Cause::ClientAbort) => {
            worker.count(Counter::ClientAborts);
            false
        }
        Term::Fault(Cause::ClientTimeout) => {
            worker.count(Counter::ClientTimeouts);
            false
        }
        Term::Fault(Cause::ResponseIncomplete) | Term::Cut(_) => {
            worker.count(Counter::Incomplete);
            true
        }
        Term::Fault(_) => {
            worker.count(Counter::Refused);
            true
        }
    };
    let is_timed = exchange.scratch.record.is_timed();
    let logged = if is_timed { time(worker, client, exchange) } else { None };
    if failed {
        note(worker, client, exchange);
    }
    client.end(logged);
}

/// Reports a request that failed or was slow, by the id that its line has.
#[cold]
fn note(worker: &Worker, client: &Client, exchange: &mut Exchange) {
    worker.events.request(worker.clock.tick(), || {
        let is_listed = exchange.scratch.record.attempts > 1;
        if is_listed {
            last_try(exchange, Clock::moment());
        }
        let scratch = &mut *exchange.scratch;
        let request = id_of(worker, client.peer(), scratch);
        let Scratch { record, tries, .. } = scratch;
        Noted {
            request,
            listener: client.peer().listener,
            route: record.route,
            pool: record.pool,
            backend: record.backend,
            status: record.status,
            code: record.term.code(),
            attempts: record.attempts,
            tries: if is_listed { tries.as_slice().into() } else { Box::default() },
            took: (record.times.rest > Micros(0)).then_some(record.times.rest),
        }
    });
}

/// Counts the times of an exchange that ends now and writes its line, if it is one that is sampled
/// or logged; returns when it was logged.
#[cold]
fn time(worker: &Worker, client: &Client, exchange: &mut Exchange) -> Option<Moment> {
    let ended = worker.clock.renew();
    let record = &mut exchange.scratch.record;
    record.times.rest = ended.since(exchange.began);
    let stalled = client.take_stalled();
    record.times.waited += stalled;
    // A tunnel lasts for as long as its ends like.
    if record.sampled && record.status != 101 {
        count_times(worker, record, stalled);
        if record.times.rest >= SLOW && record.status < 500 && record.term == Term::Ok {
            note(worker, client, exchange);
        }
    }
    if !exchange.scratch.record.logged {
        return None;
    }
    note_reset(client, &mut exchange.scratch.record);
    let is_listed = exchange.scratch.record.attempts > 1;
    if is_listed {
        last_try(exchange, ended);
    }
    let Exchange { in_force, scratch, .. } = exchange;
    let id = id_of(worker, client.peer(), scratch);
    let tries = if is_listed { &scratch.tries[..] } else { &[] };
    let asked = (scratch.asked, &scratch.request.headers.bytes[..]);
    let of = (&**client.peer(), id, ended);
    write_line(worker, of, (&scratch.record, tries), asked, &in_force.plan);
    Some(ended)
}

/// Notes which stream of HTTP/2 was reset, if that is how it ended: what a try met that was asked
/// again is no part of that.
#[cold]
fn note_reset(client: &Client, record: &mut Record) {
    record.reset = match record.term {
        Term::Ok => None,
        Term::Fault(_)
        | Term::Cut(_)
        | Term::TunnelClosed
        | Term::TunnelIdle
        | Term::TunnelExpired
        | Term::TunnelDrained => client.stream_reset().or(record.reset),
    };
}

/// Notes the try whose answer was passed on; others were noted when they were judged.
#[cold]
fn last_try(exchange: &mut Exchange, ended: Moment) {
    let record = &exchange.scratch.record;
    if exchange.scratch.tries.len() < usize::from(record.attempts) {
        let fault = match record.term {
            Term::Ok
            | Term::TunnelClosed
            | Term::TunnelIdle
            | Term::TunnelExpired
            | Term::TunnelDrained => None,
            Term::Fault(cause) | Term::Cut(cause) => Some(TryOutcome::Fault(cause.into())),
        };
        let of = (record.backend, record.reused);
        exchange.note_try(of, (Phase::Body, fault), ended);
    }
}

fn count_times(worker: &Worker, record: &Record, stalled: Micros) {
    let (counted, times) = (worker.counters.times(), &record.times);
    counted.record(Timed::Request(record.route), times.rest);
    counted.record(Timed::Own, times.own());
    for (phase, took) in [
        (Phase::Header, Some(times.header)),
        (Phase::Queue, times.queue),
        (Phase::Pool, times.pool),
        (Phase::Connect, times.connect),
        (Phase::FirstByte, times.answer),
        (Phase::Body, times.first_byte.map(|first| times.rest - first)),
        (Phase::Client, Some(stalled).filter(|stalled| *stalled > Micros(0))),
    ] {
        took.into_iter().for_each(|took| counted.record(Timed::Phase(phase), took));
    }
}

/// Writes the line of a connection that was refused before anything was read from it.
#[cold]
pub(crate) fn log_refused(worker: &Worker, peer: &Peer, record: &Record) {
    if worker.logs.is_on(peer.listener) {
        let (ended, nothing) = (worker.clock.renew(), (Asked::default(), &[][..]));
        let id = record.request_id.unwrap_or_else(|| worker.request_id(ended));
        let of = (peer, id.into(), ended);
        write_line(worker, of, (record, &[]), nothing, &worker.in_force().plan);
    }
}

fn write_line(
    worker: &Worker,
    (peer, request_id, ended): (&Peer, IdText, Moment),
    (record, tries): (&Record, &[Tried]),
    (asked, bytes): (Asked, &[u8]),
    plan: &Plan,
) {
    worker.log(&AccessLine {
        ended: worker.clock.unix(ended),
        request_id,
        asker: peer.asker(record.client),
        tls: peer.secure().map(|secure| &*secure.text),
        told: peer.told(),
        record,
        tries,
        asked,
        bytes,
        plan,
    });
}
