//! The one end of every exchange: counters, and the log when it lands.

use super::{Exchange, Reuse};
use crate::http::fault::Cause;
use crate::proto::h1::Client;
use crate::shared::counters::Counter;
use crate::worker::Worker;

/// Records how an exchange ended and recycles its room.
pub(super) fn record(worker: &Worker, client: &Client, exchange: Exchange, reuse: Reuse) -> Reuse {
    let Exchange { scratch, record, .. } = exchange;
    worker.counters.sub(Counter::InFlight, 1);
    worker.counters.add(Counter::ResponseBytes, record.response_bytes);
    if let Some(fault) = record.fault {
        let counter = match fault.cause {
            Cause::ClientAbort => Counter::ClientAborts,
            Cause::ClientTimeout => Counter::ClientTimeouts,
            Cause::ResponseIncomplete => Counter::Incomplete,
            _ => Counter::Refused,
        };
        worker.count(counter);
    }
    worker.recycle(scratch);
    client.head_sent.set(false);
    reuse
}
