//! The beginning of a connection to a listener that speaks TLS: its handshake, within its time.
//!
//! Whoever speaks plain HTTP there is told so, in plain HTTP; all others that do not get through
//! are told by an alert. Each is counted, and the reasons are said now and then.

use std::rc::Rc;

use super::{
    connection::{self, Arrival},
    linger::{Until, linger},
};
use crate::base::base64url;
use crate::exchange::log_refused;
use crate::http::{
    answer::{self, BodyKind, FaultAnswer},
    fault::{Cause, Fault},
};
use crate::net::{
    deadlines::{Ended, Rest, Unmet},
    stream::Stream,
    tls::{self, Agreed, Failed, Front, NoTls, Why},
};
use crate::observe::{
    record::{Record, Term},
    reports::Handshake,
};
use crate::plan::ListenerId;
use crate::proto::peer::Secure;
use crate::shared::{
    certs::ACME_TLS,
    counters::Counter,
    request_times::{Phase, Timed},
};
use crate::worker::Worker;

/// Shakes hands with a client. None: it did not get through, and has been told so.
pub(super) async fn shake_hands(
    worker: &Rc<Worker>,
    stream: &mut Stream,
    arrival: &Arrival,
    front: &Front,
) -> Option<Box<Secure>> {
    let timeouts = worker.in_force().timeouts(arrival.listener);
    let by = worker.clock.after(timeouts.tls_handshake);
    stream.watched().rests(Rest::Silent, worker.clock.tick(), by);
    let means = tls::Means { buffers: &worker.buffers, gate: &worker.gate };
    let began = worker.clock.renew();
    let shaken = tls::accept(stream, &front.config, means, || by).await;
    stream.watched().busy();
    match shaken {
        // It has seen the certificate, which is all that it came for (RFC 8737 §3).
        Ok(agreed) if agreed.alpn.as_deref() == Some(ACME_TLS) => None,
        Ok(agreed) => {
            worker.count(completed(&agreed));
            let took = worker.clock.renew().since(began);
            worker.counters.times().record(Timed::Phase(Phase::Tls), took);
            Some(Box::new(secure(worker, arrival.listener, agreed)))
        }
        Err(NoTls::PlainHttp) => {
            worker.count(Counter::TlsPlainHttp);
            tell(worker, arrival, Why::plain("the client speaks plain HTTP"));
            answer_plainly(worker, stream, arrival).await;
            None
        }
        Err(no_tls) => {
            worker.count(failed(&no_tls));
            match no_tls {
                NoTls::Failed(failed) => {
                    tell(worker, arrival, failed.of_client());
                    // So that it sees the alert.
                    linger(worker, stream, Until::Told).await;
                }
                NoTls::Ended(Unmet::Ended(Ended::Overdue)) => tell(worker, arrival, LATE),
                NoTls::Ended(_) | NoTls::Left | NoTls::PlainHttp => {}
            }
            None
        }
    }
}

const LATE: Why = Why {
    sentence: "the client has not done its part in time (`timeouts.tls-handshake`)",
    detail: None,
};

fn tell(worker: &Worker, arrival: &Arrival, Why { sentence: why, detail }: Why) {
    let (listener, client) = (arrival.listener, arrival.from.ip());
    let what = || Handshake { listener, client, why, detail };
    worker.events.handshake(worker.clock.tick(), what);
}

fn completed(agreed: &Agreed) -> Counter {
    match (agreed.is_tls13, agreed.is_resumed) {
        (true, false) => Counter::TlsNew13,
        (true, true) => Counter::TlsResumed13,
        (false, false) => Counter::TlsNew12,
        (false, true) => Counter::TlsResumed12,
    }
}

fn failed(no_tls: &NoTls) -> Counter {
    match no_tls {
        NoTls::Ended(Unmet::Ended(Ended::Overdue)) => Counter::TlsTimeout,
        NoTls::Ended(_) | NoTls::Left => Counter::TlsLeft,
        NoTls::PlainHttp => Counter::TlsPlainHttp,
        NoTls::Failed(Failed::Told(_)) => Counter::TlsAlerted,
        NoTls::Failed(Failed::UnknownName(_) | Failed::Because(_)) => Counter::TlsRefused,
    }
}

/// What a connection keeps of it.
fn secure(worker: &Worker, listener: ListenerId, agreed: Agreed) -> Secure {
    let is_told = worker.logs.is_on(listener) || worker.in_force().introduces;
    let text = if is_told { text(&agreed) } else { String::new() };
    let is_certified = !agreed.certificates.is_empty();
    let is_wanted = || worker.in_force().plan.pools.values().any(|pool| pool.client_cert);
    let certificate = match agreed.certificates.split_first() {
        Some((own, chain)) if is_wanted() => Some(Box::new(fields(own, chain))),
        Some(_) | None => None,
    };
    let is_h2 = agreed.alpn.as_deref() == Some(b"h2");
    Secure { name: agreed.name, is_h2, text: text.into(), is_certified, certificate }
}

/// A certificate and the chain behind it, as fields (RFC 9440 §2).
fn fields(own: &[u8], chain: &[impl AsRef<[u8]>]) -> (Vec<u8>, Vec<u8>) {
    let (mut cert, mut behind) = (Vec::new(), Vec::new());
    base64url::encode_for_field(own, &mut cert);
    for (place, one) in chain.iter().enumerate() {
        if place > 0 {
            behind.extend_from_slice(b", ");
        }
        base64url::encode_for_field(one.as_ref(), &mut behind);
    }
    (cert, behind)
}

/// Version, suite, protocol, whether it was resumed, name; `-` for what there is not.
fn text(agreed: &Agreed) -> String {
    let version = if agreed.is_tls13 { "TLSv1.3" } else { "TLSv1.2" };
    let alpn = agreed.alpn.as_deref().map_or("-".into(), String::from_utf8_lossy);
    let resumed = if agreed.is_resumed { "resumed" } else { "new" };
    let name = agreed.name.as_deref().unwrap_or("-");
    // rustls has a name of its own for the suites of TLS 1.3.
    let suite = agreed.suite.replacen("TLS13_", "TLS_", 1);
    format!("{version} {suite} {alpn} {resumed} {name}")
}

/// Answers a client that speaks plain HTTP.
async fn answer_plainly(worker: &Rc<Worker>, stream: &Stream, arrival: &Arrival) {
    let fault = Fault::from(Cause::PlainHttp);
    let request_id = worker.request_id(worker.clock.renew());
    let about = FaultAnswer {
        kind: BodyKind::Text,
        date: &worker.http_date(),
        request_id: Some(&request_id.text()),
        ..FaultAnswer::default()
    };
    let out = answer::alone(fault, &about);
    // A new connection takes it at once.
    let sent = stream.send_now(&out, false).unwrap_or(0);
    let record = Record {
        status: fault.status(),
        term: Term::Fault(fault.cause),
        request_id: Some(request_id),
        response_bytes: sent as u64,
        ..Record::default()
    };
    log_refused(worker, &connection::greet(worker, arrival, None), &record);
    linger(worker, stream, Until::Ended).await;
}

/// What a client that is not let in gets instead of an answer: `internal_error`, before any
/// handshake (RFC 8446 §6).
pub(super) const NO_ROOM: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
