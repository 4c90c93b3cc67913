//! The beginning of a connection that a proxy in front hands on: its PROXY header, within its time.
//!
//! It is read before anything else, a TLS handshake too. Proxies that the listener names must send
//! one, and nobody else may connect: who could choose between the two could also choose an address.
//! A connection without a proper header is reset, and the reasons are said now and then.

use super::connection::Arrival;
use crate::exchange::log_refused;
use crate::http::fault::Cause;
use crate::net::{
    deadlines::{Ended, Rest, Unmet},
    proxy_header::{self, BYTES_MAX, Parsed, ProxyHeader},
    stream::{InVain, Stream},
};
use crate::observe::{
    record::{Record, Term},
    reports::Handshake,
};
use crate::proto::peer::{PeerAddress, Proxied};
use crate::shared::counters::Counter;
use crate::worker::Worker;

const FOREIGN: &str = "the client is none of the proxies that may connect here (`proxy-protocol`)";
const LATE: &str = "its PROXY header has not come in time (`timeouts.proxy-header`)";

/// Whether connections to the listener begin with a header.
pub(super) fn is_due(worker: &Worker, arrival: &Arrival) -> bool {
    worker.in_force().plan.listener(arrival.listener).proxies.is_some()
}

/// Reads the header, and takes over what it says. False: there was none, and the connection ends.
pub(super) async fn introduce(worker: &Worker, stream: &Stream, arrival: &mut Arrival) -> bool {
    let why = if is_proxy(worker, arrival) {
        match header(worker, stream, arrival).await {
            Ok(ProxyHeader { addresses: None, .. }) => return true,
            Ok(ProxyHeader { addresses: Some((from, to)), additions }) => {
                (arrival.from, arrival.port) = (PeerAddress::of(Some(from)), to.port());
                arrival.proxied = Some(Box::new(Proxied { to: Some(to), additions }));
                return true;
            }
            // It left, or made room for others.
            Err(None) => return false,
            Err(Some(why)) => why,
        }
    } else {
        FOREIGN
    };
    worker.count(Counter::RejectedProxyHeader);
    let (listener, client) = (arrival.listener, arrival.from.ip());
    let what = || Handshake { listener, client, why, detail: None };
    worker.events.proxy_header(worker.clock.tick(), what);
    let record = Record { term: Term::Fault(Cause::BadRequest), ..Record::default() };
    log_refused(worker, &super::connection::greet(worker, arrival, None), &record);
    stream.reset_on_close();
    false
}

/// Whether it may connect here.
fn is_proxy(worker: &Worker, arrival: &Arrival) -> bool {
    let in_force = worker.in_force();
    let proxies = in_force.plan.listener(arrival.listener).proxies.as_deref().unwrap_or_default();
    arrival.from.ip().is_none_or(|ip| proxies.iter().any(|network| network.contains(&ip)))
}

async fn header(
    worker: &Worker,
    stream: &Stream,
    arrival: &Arrival,
) -> Result<ProxyHeader, Option<&'static str>> {
    let time = worker.in_force().timeouts(arrival.listener).proxy_header;
    let by = worker.clock.after(time);
    stream.watched().rests(Rest::Silent, worker.clock.tick(), by);
    let (mut bytes, mut in_vain) = (Vec::new(), InVain::default());
    let header = loop {
        match stream.readable().await {
            Ok(()) => {}
            Err(Unmet::Ended(Ended::Overdue)) => break Err(Some(LATE)),
            Err(_) => break Err(None),
        }
        let had = bytes.len();
        bytes.resize(BYTES_MAX, 0);
        // What follows the header stays where it is, for whoever reads it.
        match stream.peek_now(bytes.get_mut(had..).unwrap_or_default()) {
            Ok(0) | Err(Unmet::Ended(_) | Unmet::Broken(_)) => break Err(None),
            Ok(count) => bytes.truncate(had + count),
            Err(Unmet::NotNow) => {
                bytes.truncate(had);
                in_vain.pause().await;
                continue;
            }
        }
        match proxy_header::parse(&bytes) {
            Err(why) => break Err(Some(why)),
            Ok(Parsed::More) => stream.skip_now(bytes.len() - had),
            Ok(Parsed::Done { used, header }) => {
                stream.skip_now(used - had);
                break Ok(header);
            }
        }
    };
    stream.watched().busy();
    header
}
