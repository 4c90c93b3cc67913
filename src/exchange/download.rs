//! Downloads: an answer's body on its way to the client, after its head.
//!
//! Bytes that arrived with the head leave with it in one write; the rest is passed on as it comes.
//! A piece that is being sent belongs to the ring, so this future is not dropped before it has
//! ended; its deadlines end it.

use std::{cell::Cell, time::Duration};

use super::{
    Exchange, Fetched,
    pace::Pace,
    pass::{Bounds, Through, pass},
    reply,
};
use crate::base::moment::{Deadline, Tick};
use crate::http::fault::{Cause, Fault};
use crate::net::{clock::Clock, leaving::ForClient};
use crate::observe::record::Record;
use crate::proto::{Client, Cut, Sink, Source};
use crate::worker::{Scratch, Worker};

/// Sends a backend's answer: its head with the first piece of its body, and then the rest.
pub(super) async fn send(
    worker: &Worker,
    client: &mut Client,
    exchange: &mut Exchange,
    for_client: &Cell<ForClient>,
) -> Result<(), Fault> {
    let Some(fetched) = &mut exchange.fetched else { return Err(Cause::Internal.into()) };
    let (mut first, of) = (fetched.source.first()?, (fetched.length, fetched.id));
    reply::head(worker, exchange, of)?;
    let Exchange { fetched: Some(fetched), scratch, in_force, .. } = exchange else {
        return Err(Cause::Internal.into());
    };
    let Fetched { source, length, pause, .. } = fetched;
    let Scratch { request, response, out, record, .. } = &mut **scratch;
    record.status = response.status;
    let mut sink = client.answer(response, *length, request.version, std::mem::take(out));
    let down = Downloading {
        worker,
        for_client,
        deadline: exchange.deadline,
        read: &in_force.plan.pool(exchange.pool).timeouts.body,
        write: &in_force.plan.listener(client.peer().listener).timeouts.client_write,
        pace: Pace::begin(&worker.clock, in_force.plan.limits.body_rate_min),
        pause,
    };
    let mut sent = sink.write(&mut first, |_| down.first_by()).await;
    let ended = first.ends();
    source.done(first);
    if sent.is_ok() && !ended {
        sent = Box::pin(rest(source, &mut sink, down, record)).await;
    }
    record.response_bytes += sink.sent();
    *out = sink.into_room();
    sent
}

/// Sends what follows the first piece. The peers set the pace of a long body, so the record counts
/// all of this time as waiting.
async fn rest(
    source: &mut Source,
    sink: &mut Sink,
    down: Downloading<'_>,
    record: &mut Record,
) -> Result<(), Fault> {
    let since = record.is_timed().then(Clock::moment);
    if since.is_some() {
        record.times.waited += sink.take_stalled();
    }
    let rest = pass(source, sink, &mut Through::these(&[]), &Bounds::Download(down)).await;
    if let Some(since) = since {
        record.times.waited += Clock::moment().since(since);
        sink.take_stalled();
    }
    rest.map_err(|(Cut::From(fault) | Cut::To(fault))| fault)
}

/// How long each wait of a download may last. The client's pace is measured.
pub(super) struct Downloading<'a> {
    pub(super) worker: &'a Worker,
    pub(super) for_client: &'a Cell<ForClient>,
    deadline: Deadline,
    read: &'a Duration,
    write: &'a Duration,
    pace: Pace<'a>,
    pause: &'a Pause,
}

/// How long a client keeps its answer waiting.
#[derive(Default)]
pub(crate) struct Pause {
    /// Since when, if it does.
    since: Cell<Option<Tick>>,
    /// Whether it was long once.
    was_long: Cell<bool>,
}

/// After a pause of this length a backend may run out of patience; few servers wait less for room
/// to send. The coarse clock may be one round of the sweep behind.
const PAUSE_LONG: Duration = Duration::from_millis(500);

impl Pause {
    fn begins(&self, now: Tick) {
        if self.since.get().is_none() {
            self.since.set(Some(now));
        }
    }

    fn ends(&self, now: Tick) {
        if self.since.take().is_some_and(|since| now >= since + PAUSE_LONG) {
            self.was_long.set(true);
        }
    }

    /// Whether the client took nothing for long.
    pub(super) fn was_long(&self) -> bool {
        self.was_long.get()
    }
}

impl Downloading<'_> {
    /// The deadline of a wait for the backend that begins now.
    pub(super) fn reads(&self) -> Deadline {
        self.pace.rest();
        self.pause.ends(self.worker.clock.tick());
        self.deadline.earlier(self.worker.clock.after(*self.read))
    }

    /// The deadline of a wait for the client that begins now.
    pub(super) fn writes(&self, sent: u64) -> Deadline {
        self.pace.wait(sent, self.first_by())
    }

    /// The deadline of the client for the first piece of an answer.
    fn first_by(&self) -> Deadline {
        self.pause.begins(self.worker.clock.tick());
        self.deadline.earlier(self.worker.clock.after(*self.write))
    }
}
