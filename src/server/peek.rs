//! The beginning of a TLS connection that is passed on as it is: the name of its host is read
//! first.
//!
//! Only where routes of a TCP listener ask for it, and within the time of a handshake. What has
//! come stays in the buffer of the connection and goes to the backend untouched.

use super::connection::{Arrival, greet};
use crate::exchange::log_refused;
use crate::http::fault::{Cause, Side};
use crate::net::{
    buffer::Buffer,
    client_hello::{self, ClientHello, Parsed},
    deadlines::{Ended, Rest, Unmet},
    stream::{InVain, Stream},
};
use crate::observe::{
    record::{Record, Term},
    reports::Handshake,
};
use crate::plan::ListenerId;
use crate::worker::Worker;

const LATE: &str = "the client has not said in time whom it wants (`timeouts.tls-handshake`)";

/// Whether connections to the listener, whose bytes are not decrypted here, are read for a name.
pub(super) fn is_due(worker: &Worker, listener: ListenerId) -> bool {
    worker.routes_of(&worker.in_force()).has_own(listener)
}

/// Reads what the client asks for; none of it if it does not speak TLS. Returns the buffer with all
/// that has come; none if the connection ends.
pub(super) async fn hello(
    worker: &Worker,
    stream: &Stream,
    arrival: &Arrival,
) -> Option<(Buffer, Option<ClientHello>)> {
    let time = worker.in_force().timeouts(arrival.listener).tls_handshake;
    let by = worker.clock.after(time);
    stream.watched().rests(Rest::Silent, worker.clock.tick(), by);
    let (mut come, mut in_vain) = (Vec::new(), InVain::default());
    loop {
        match stream.readable().await {
            Ok(()) => {}
            Err(Unmet::Ended(Ended::Overdue)) => {
                refuse(worker, stream, arrival);
                return None;
            }
            Err(_) => return None,
        }
        let mut buffer = worker.buffers.take().ok()?;
        restore(&come, &mut buffer);
        let read = stream.recv_now(&mut buffer);
        let hello = match read {
            Ok(1..) => match client_hello::parse(buffer.bytes()) {
                Parsed::More => None,
                Parsed::Hello(hello) => Some(Some(hello)),
                Parsed::Other => Some(None),
            },
            // Its end is for the backend to hear.
            Ok(_) => Some(None),
            Err(Unmet::NotNow) => None,
            Err(Unmet::Ended(_) | Unmet::Broken(_)) => {
                worker.buffers.give(buffer);
                return None;
            }
        };
        if let Some(hello) = hello {
            stream.watched().busy();
            return Some((buffer, hello));
        }
        // A silent client holds what it has said, and no more.
        come.clear();
        come.extend_from_slice(buffer.bytes());
        worker.buffers.give(buffer);
        if matches!(read, Err(Unmet::NotNow)) {
            in_vain.pause().await;
        }
    }
}

/// Puts what has come before where a read goes on behind it. The parser has enough long before
/// there is no room.
fn restore(come: &[u8], buffer: &mut Buffer) {
    if let Some(room) = buffer.room().get_mut(..come.len()) {
        room.copy_from_slice(come);
        buffer.filled(come.len());
    }
}

fn refuse(worker: &Worker, stream: &Stream, arrival: &Arrival) {
    let (listener, client) = (arrival.listener, arrival.from.ip());
    let what = || Handshake { listener, client, why: LATE, detail: None };
    worker.events.handshake(worker.clock.tick(), what);
    let (term, ended_by) = (Term::Fault(Cause::RequestTimeout), Some(Side::Proxy));
    let record = Record { term, ended_by, ..Record::default() };
    log_refused(worker, &greet(worker, arrival, None), &record);
    stream.reset_on_close();
}
