//! Early answers: those that come before the end of their request.
//!
//! RFC 9112 §9.3: a server that answers early reads the request to its end or closes. As long as
//! both peers take part the upload goes on after the answer, and both connections are kept. Bytes
//! that the backend does not take any more are read and dropped, within bounds. If it is not
//! certain that the next request will be served, the head of the answer says so (§9.6): a client
//! that was not told of a close would lose that request.

use std::time::Duration;

use super::{
    Exchange, Fetched,
    pass::{Bounds, Through, pass},
    reply::skip_body,
    upload::Upload,
};
use crate::base::moment::Deadline;
use crate::http::framing::BodyLength;
use crate::net::clock::Clock;
use crate::proto::{Client, Sink};
use crate::worker::Worker;

/// For how long an unwanted body is read and dropped: between two pieces, and in all. The bounds of
/// a lingering close (nginx: `lingering_timeout`, `lingering_time`).
const DROPS_BETWEEN: Duration = Duration::from_secs(5);
const DROPS_IN_ALL: Duration = Duration::from_secs(30);

/// The state of an upload when the head of its answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    is_going: bool,
    /// Whether the client waits for a 100 that it has not been sent.
    waits: bool,
    /// Whether the backend keeps its connection.
    backend_keeps: bool,
    /// Whether the exchange must be over at a certain time.
    has_deadline: bool,
    /// Whether the body may turn out to be longer than is allowed.
    may_outgrow: bool,
}

impl Rest {
    fn of(exchange: &Exchange, upload: &Upload, backend_keeps: bool) -> Rest {
        let limited = exchange.in_force.plan.limits.body_bytes_max != 0;
        Rest {
            is_going: upload.is_going(),
            waits: waits(exchange),
            backend_keeps,
            has_deadline: !exchange.deadline.is_never(),
            may_outgrow: limited && exchange.length == BodyLength::Chunked,
        }
    }

    /// Whether all of the body will be read, unless the client is at fault.
    fn will_be_read(self) -> bool {
        let Rest { is_going, waits, backend_keeps, has_deadline, may_outgrow } = self;
        is_going && !waits && backend_keeps && !has_deadline && !may_outgrow
    }
}

/// A client that waits for a 100 which will not come learns that its body is not wanted, and need
/// not send it (RFC 9110 §10.1.1).
fn waits(exchange: &Exchange) -> bool {
    exchange.scratch.request.expects_continue && !exchange.tries.interim_sent
}

/// Whether the head of an answer may promise that the client's next request is served.
pub(super) fn may_promise(client: &Client, exchange: &Exchange) -> bool {
    let Some(Fetched { backend, upload, .. }) = &exchange.fetched else { return false };
    match upload {
        None => !backend.has_refused() || client.held_body().is_some(),
        Some(upload) if upload.is_whole() => true,
        Some(upload) => Rest::of(exchange, upload, backend.keeps()).will_be_read(),
    }
}

/// Continues an upload whose answer is complete.
pub(super) async fn go_on(client: &Client, exchange: &Exchange, upload: &mut Upload) {
    if waits(exchange) && upload.bytes() == 0 {
        return;
    }
    if upload.is_going() && !client.keeps() {
        // A client that was told of the close may wait for it before it does anything else, and the
        // answer may end with it.
        client.waits().end_saying(false);
    }
    upload.end().await;
}

/// Reads and drops what is left of a body that the backend does not take any more, so that the next
/// request is served as promised.
pub(super) async fn drain(worker: &Worker, client: &mut Client, exchange: &mut Exchange) {
    if skip_body(client, exchange) {
        return;
    }
    let Some(mut source) = client.body() else { return };
    worker.clock.renew();
    let end = worker.clock.after(DROPS_IN_ALL);
    let bounds = Bounds::Drop(Dropping { clock: &worker.clock, end });
    // However it ends: the source knows whether all of it was read.
    let _ = pass(&mut source, &mut Sink::Nowhere, &mut Through::these(&[]), &bounds).await;
    exchange.scratch.record.request_bytes += source.received() - source.rest() as u64;
    client.put_back(Some(source));
}

/// How long each wait for an unwanted body may last.
pub(super) struct Dropping<'a> {
    clock: &'a Clock,
    end: Deadline,
}

impl Dropping<'_> {
    pub(super) fn reads(&self) -> Deadline {
        self.end.earlier(self.clock.after(DROPS_BETWEEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_request_is_promised_only_where_the_body_will_be_read() {
        let rest = Rest {
            is_going: true,
            waits: false,
            backend_keeps: true,
            has_deadline: false,
            may_outgrow: false,
        };
        assert!(rest.will_be_read());
        for doubtful in [
            Rest { is_going: false, ..rest },
            Rest { waits: true, ..rest },
            Rest { backend_keeps: false, ..rest },
            Rest { has_deadline: true, ..rest },
            Rest { may_outgrow: true, ..rest },
        ] {
            assert!(!doubtful.will_be_read(), "{doubtful:?}");
        }
    }
}
