//! Sending an answer, or refusing with a fault.
//!
//! The record notes what the client was sent and how it ended. Our own answers are a head and a
//! body like those of backends and are written the same way.

use std::{cell::Cell, pin::pin, rc::Rc};

use super::{
    Answer, Exchange, Fetched, Reuse, download, early, finish, id_of, sticky, tunnel,
    upload::{self, Upload, beside},
};
use crate::base::ids::BackendId;
use crate::http::{
    answer::{self, BodyKind, FaultAnswer},
    fault::{Cause, Fault, Side},
    forward::{self, ToClient},
    framing::BodyLength,
    head::Method,
    names::Name,
};
use crate::net::leaving::Leaves;
use crate::observe::record::Term;
use crate::policy::blame::Body;
use crate::proto::{Client, Source};
use crate::shared::counters::Counter;
use crate::worker::{Scratch, Worker};

/// Sends an answer, or refuses with a fault, and says what happens to the client's connection. Once
/// the head of an answer has gone out a fault cannot be answered any more: the connection is cut.
pub(super) async fn send(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    answered: Result<Answer, Fault>,
) -> Reuse {
    let result = match answered {
        Ok(Answer::Fetched) => send_fetched(worker, client, exchange).await,
        Ok(Answer::Own(length)) => Box::pin(send_own(worker, client, exchange, length)).await,
        Ok(Answer::Switched) => return Box::pin(tunnel::run(worker, client, exchange)).await,
        Err(fault) => Err(fault),
    };
    match result {
        Ok(()) => after(client, exchange),
        Err(fault) if client.has_answered() => cut(client, exchange, fault),
        Err(fault) => Box::pin(refuse(worker, client, exchange, fault)).await,
    }
}

/// What happens to the client's connection after a complete answer.
fn after(client: &mut Client, exchange: &mut Exchange) -> Reuse {
    if !skip_body(client, exchange) {
        Reuse::Linger
    } else if client.keeps() {
        Reuse::Keep
    } else {
        Reuse::Close
    }
}

/// The same after an answer that was cut.
fn cut(client: &mut Client, exchange: &mut Exchange, fault: Fault) -> Reuse {
    exchange.scratch.record.term = match (fault.side, fault.cause) {
        (Side::Client, cause) => Term::Fault(cause),
        (_, cause @ (Cause::ResponseRefused | Cause::ResponseHeadTooLarge)) => Term::Cut(cause),
        (Side::Proxy | Side::Backend, _) => Term::Cut(Cause::ResponseIncomplete),
    };
    skip_body(client, exchange);
    // A body that ends with the connection must not look complete.
    if client.ends_by_close() { Reuse::Reset } else { Reuse::Close }
}

/// Skips the buffered part of the request's body. True if the whole request has been read now.
pub(super) fn skip_body(client: &mut Client, exchange: &mut Exchange) -> bool {
    let (is_whole, bytes) = client.skip_body();
    exchange.scratch.record.request_bytes += bytes;
    is_whole
}

/// Sends an answer of our own, whose head and body are in the scratch.
async fn send_own(
    worker: &Worker,
    client: &mut Client,
    exchange: &mut Exchange,
    length: BodyLength,
) -> Result<(), Fault> {
    let timeouts = &exchange.in_force.plan.listener(client.peer().listener).timeouts;
    let Scratch { request, response, out, body, record, .. } = &mut *exchange.scratch;
    record.status = response.status;
    let mut source = Source::own(body, &worker.buffers)?;
    let mut piece = source.first()?;
    let mut sink = client.answer(response, length, request.version, std::mem::take(out));
    let sent = sink.write(&mut piece, |_| worker.clock.after(timeouts.client_write)).await;
    source.done(piece);
    source.end(&worker.buffers);
    record.response_bytes += sink.sent();
    *out = sink.into_room();
    sent
}

/// Edits a backend's response for its client. The lines about the connection and the body's length
/// are added when it is written.
pub(super) fn head(
    worker: &Worker,
    exchange: &mut Exchange,
    (length, backend): (BodyLength, BackendId),
) -> Result<(), Fault> {
    let Scratch { request, response, .. } = &mut *exchange.scratch;
    let to = ToClient { method: request.method, version: request.version };
    forward::response(response, length, to, || worker.http_date())?;
    sticky::answer(worker, exchange, backend);
    Ok(())
}

/// Sends a backend's answer while the rest of the request goes on. Keeps the connection to the
/// backend if both are complete.
async fn send_fetched(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Result<(), Fault> {
    if worker.is_draining() || !early::may_promise(client, exchange) {
        client.will_close();
    }
    let mut upload = exchange.fetched.as_mut().and_then(|fetched| fetched.upload.take());
    let by_end = exchange.for_client(client, Leaves::LastingEnd);
    let by_reset = client.waiting(Leaves::Reset);
    // While the upload reads from the client, it notices the end of the stream itself.
    let sends = upload.as_ref().is_some_and(|upload| upload.is_going() || upload.has_more());
    let for_client = Cell::new(if sends { by_reset } else { by_end });
    let result = {
        // Pinned here: a function that takes a future by value reserves room for it twice.
        let sending = download::send(worker, client, exchange, &for_client);
        let mut sending = pin!(sending);
        match &mut upload {
            None => sending.await,
            Some(upload) => {
                beside(sending.as_mut(), |cx| {
                    if upload.poll(cx) && !upload.has_more() {
                        for_client.set(by_end);
                        upload.backend().waits_for(by_end);
                    }
                })
                .await
            }
        }
    };
    // A fault that stopped the upload has stopped the answer too.
    let fault = upload.as_ref().and_then(Upload::fault_of_client);
    let result = result.map_err(|cut| fault.unwrap_or(cut));
    exchange.last.body = upload.as_ref().map_or(Body::Whole, Upload::with_backend);
    finish::answered(worker, exchange, result);
    if let (Ok(()), Some(upload)) = (result, &mut upload) {
        Box::pin(early::go_on(client, exchange, upload)).await;
    }
    let whole = upload.as_ref().is_none_or(Upload::is_whole);
    upload::put_back(client, exchange, upload);
    if let Some(fetched) = exchange.fetched.take() {
        if result.is_err() {
            exchange.scratch.record.reset = fetched.backend.stream_reset();
        }
        end(worker, fetched, result.is_ok() && whole);
    }
    if result.is_ok() && !whole && client.keeps() {
        Box::pin(early::drain(worker, client, exchange)).await;
    }
    result
}

/// An answer is over; if it is complete and so is its request, the connection to the backend is
/// kept.
fn end(worker: &Worker, fetched: Fetched, is_complete: bool) {
    let Fetched { backend, mut source, pick, .. } = fetched;
    // Whether the backend has sent more than its answer.
    let unasked = source.end(&worker.buffers);
    if unasked {
        worker.count(Counter::BackendUnasked);
        pick.conns().borrow_mut().suspect(&backend, worker.clock.tick());
    }
    if is_complete {
        backend.is_done();
    }
    if is_complete && backend.keeps() && !unasked {
        if !backend.is_reused() {
            // Its rest starts now.
            worker.clock.renew();
        }
        let now = worker.clock.tick();
        pick.conns().borrow_mut().give(backend, now);
    } else {
        drop(backend);
    }
}

/// Answers with a fault, if the fault has a status.
async fn refuse(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    fault: Fault,
) -> Reuse {
    let record = &mut exchange.scratch.record;
    record.fail(fault);
    record.status = fault.status();
    if fault.status() == 0 {
        // A client that half-closes in the middle of a request may still be reading earlier
        // answers.
        return if fault.cause == Cause::ClientAbort { Reuse::Close } else { Reuse::Reset };
    }
    let request_id = id_of(worker, client.peer(), &mut exchange.scratch);
    let is_sound = skip_body(client, exchange) && fault.leaves_framing_sound();
    if !is_sound || worker.is_draining() {
        client.will_close();
    }
    let retry_after = retry_after(exchange, fault);
    let Scratch { request, response, body, .. } = &mut *exchange.scratch;
    let about = FaultAnswer {
        kind: if answer::is_grpc(request) {
            BodyKind::Grpc
        } else {
            answer::body_kind(request.headers.first(Name::Accept))
        },
        method: request.method,
        date: &worker.http_date(),
        request_id: Some(request_id.bytes()),
        retry_after,
    };
    let length = answer::fault(fault, &about, response, body);
    match send_own(worker, client, exchange, length).await {
        Err(fault) => {
            exchange.scratch.record.fail(fault);
            Reuse::Reset
        }
        Ok(()) if !is_sound => Reuse::Linger,
        Ok(()) if client.keeps() => Reuse::Keep,
        Ok(()) => Reuse::Close,
    }
}

/// Seconds until a retry makes sense. If the pool was full: when all requests that are waiting now
/// have been answered or refused.
fn retry_after(exchange: &Exchange, fault: Fault) -> Option<u32> {
    if !matches!(fault.cause, Cause::QueueFull | Cause::QueueTimeout) {
        return None;
    }
    let wait = exchange.pool_plan().queue.timeout;
    Some(u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1))
}

/// The answer to an OPTIONS whose Max-Forwards has run out (RFC 9110 §7.6.2, §9.3.7).
#[cold]
pub(super) fn options(worker: &Worker, client: &mut Client, exchange: &mut Exchange) -> Answer {
    if !skip_body(client, exchange) {
        // The rest of the body is not waited for.
        client.will_close();
    }
    let response = &mut exchange.scratch.response;
    Answer::Own(answer::options(&worker.http_date(), response))
}

/// The answer that an authority looks for to see whether a name is ours: before any route.
#[cold]
pub(super) fn challenge(
    worker: &Worker,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Option<Answer> {
    let challenges = worker.challenges()?;
    let request = &exchange.scratch.request;
    if !matches!(request.method, Method::Get | Method::Head) {
        return None;
    }
    let answer = challenges.answer(request.bytes(request.path))?;
    if !skip_body(client, exchange) {
        client.will_close();
    }
    let Scratch { request, response, body, .. } = &mut *exchange.scratch;
    let sent = if request.method == Method::Head { &[][..] } else { answer };
    body.clear();
    body.extend_from_slice(sent);
    Some(Answer::Own(answer::plain(answer.len(), &worker.http_date(), response)))
}
