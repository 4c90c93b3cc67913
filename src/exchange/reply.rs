//! Sending an answer, and refusing with a fault.
//!
//! Whatever is sent, the record says what the client was answered and how it ended. No fault is
//! answered with once the head of an answer has gone out: then the connection is cut.

use std::{cell::Cell, pin::pin, rc::Rc};

use super::{
    Answer, Exchange, Fetched, Reuse, attempt, download, early, finish, sticky, tunnel,
    upload::{Upload, beside},
};
use crate::http::{
    answer::{self, FaultAnswer},
    fault::{Cause, Fault, Side},
    forward::{self, Reply, ToClient},
    framing::BodyLength,
    head::Version,
    names::Name,
    write,
};
use crate::net::leaving::Leaves;
use crate::policy::blame::Body;
use crate::proto::h1::{Client, Outgoing};
use crate::shared::counters::Counter;
use crate::worker::{Scratch, Worker};

/// Sends an answer; what becomes of the client's connection then.
pub(super) async fn send(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    answer: Answer,
) -> Reuse {
    let result = match answer {
        Answer::Own { status } => {
            exchange.scratch.record.status = status;
            Box::pin(send_own(worker, client, exchange)).await
        }
        Answer::Fetched(fetched) => send_fetched(worker, client, exchange, fetched).await,
        Answer::Switched(fetched) => {
            exchange.scratch.record.status = 101;
            return Box::pin(tunnel::run(worker, client, exchange, fetched)).await;
        }
    };
    match result {
        Ok(()) => after(client, exchange),
        Err(fault) if !client.head_sent.get() => {
            Box::pin(refuse(worker, client, exchange, fault)).await
        }
        Err(fault) => {
            let fault = match fault.side {
                Side::Client => fault,
                Side::Proxy | Side::Backend => Cause::ResponseIncomplete.into(),
            };
            exchange.scratch.record.fail(fault);
            skip_body(client, exchange);
            // A body that only ends with the connection must not end like a whole one.
            if exchange.ends_by_close { Reuse::Reset } else { Reuse::Close }
        }
    }
}

/// What becomes of the client's connection after a whole answer.
fn after(client: &mut Client, exchange: &mut Exchange) -> Reuse {
    if !skip_body(client, exchange) {
        Reuse::Linger
    } else if exchange.keep_alive {
        Reuse::Keep
    } else {
        Reuse::Close
    }
}

/// Skips what is buffered of the request's body; whether the whole request has been read now.
pub(super) fn skip_body(client: &mut Client, exchange: &mut Exchange) -> bool {
    let before = client.buffered();
    let whole = client.skip_buffered_body();
    exchange.scratch.record.request_bytes += before - client.buffered();
    whole
}

/// Sends what stands in the scratch.
async fn send_own(worker: &Worker, client: &Client, exchange: &mut Exchange) -> Result<(), Fault> {
    let in_force = &exchange.in_force;
    let wait = in_force.plan.listener(client.peer.listener).timeouts.client_write;
    let Scratch { out, record, .. } = &mut *exchange.scratch;
    client.head_sent.set(true);
    client.send(out, false, || worker.clock.after(wait)).await?;
    record.response_bytes += out.len() as u64;
    Ok(())
}

/// Sends a backend's answer while the rest of the request goes on, and keeps the connection to
/// the backend if both are whole.
async fn send_fetched(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    mut fetched: Box<Fetched>,
) -> Result<(), Fault> {
    let kept = fetched.backend_keeps(exchange);
    exchange.keep_alive &= early::may_promise(client, exchange, &fetched, kept);
    let outgoing = compose(worker, exchange, &fetched)?;
    let mut upload = fetched.upload.take();
    let by_end = exchange.for_client(client, Leaves::LastingEnd);
    let by_reset = exchange.for_client(client, Leaves::Reset);
    // While it sends, the upload sees its end.
    let sends = upload.as_ref().is_some_and(|upload| upload.is_going() || upload.has_more());
    let for_client = Cell::new(if sends { by_reset } else { by_end });
    let result = {
        let how = (outgoing, &for_client);
        // Pinned here: a function that it is handed to by value keeps room for it twice.
        let mut sending = pin!(download::send(worker, client, exchange, &mut fetched, how));
        match &mut upload {
            None => sending.await,
            Some(upload) => {
                beside(sending.as_mut(), |cx| {
                    if upload.poll(cx) && !upload.has_more() {
                        for_client.set(by_end);
                        upload.backend().watched().waits_for(by_end);
                    }
                })
                .await
            }
        }
    };
    // What stopped the upload has stopped the answer.
    let fault = upload.as_ref().and_then(Upload::fault_of_client);
    let result = result.map_err(|cut| fault.unwrap_or(cut));
    exchange.body = upload.as_ref().map_or(Body::Whole, Upload::with_backend);
    finish::answered(worker, exchange, &fetched, result);
    let unasked = fetched.has_unasked();
    if let Some(buffer) = fetched.buffer.take() {
        worker.buffers.give(buffer);
    }
    if unasked {
        worker.count(Counter::BackendUnasked);
    }
    if let (Ok(()), Some(upload)) = (result, &mut upload) {
        Box::pin(early::go_on(client, exchange, upload)).await;
    }
    let whole = upload.as_ref().is_none_or(Upload::is_whole);
    attempt::restore(client, exchange, upload);
    let Fetched { backend, pick, .. } = *fetched;
    if result.is_ok() && kept && whole && !unasked {
        if !backend.is_reused() {
            // It rests from now on.
            worker.clock.renew();
        }
        let now = worker.clock.tick();
        pick.conns().borrow_mut().give(backend, now);
    } else {
        drop(backend);
    }
    drop(pick);
    if result.is_ok() && !whole && exchange.keep_alive {
        Box::pin(early::drain(worker, client, exchange)).await;
    }
    result
}

/// Writes the head of a backend's answer as the client gets it.
fn compose(worker: &Worker, exchange: &mut Exchange, fetched: &Fetched) -> Result<Outgoing, Fault> {
    let scratch = &mut *exchange.scratch;
    let date = worker.http_date();
    let to = ToClient {
        method: scratch.request.method,
        version: scratch.request.version,
        keep_alive: exchange.keep_alive && !worker.is_draining(),
        date: &date,
    };
    let Reply { body, keep_alive } = forward::response(&mut scratch.response, fetched.length, &to)?;
    exchange.keep_alive = keep_alive;
    exchange.ends_by_close = body == BodyLength::UntilClose;
    scratch.record.status = scratch.response.status;
    sticky::answer(worker, exchange, fetched.id);
    let scratch = &mut *exchange.scratch;
    scratch.out.clear();
    write::response(&scratch.response, body, &mut scratch.out);
    Ok(if body == BodyLength::Chunked { Outgoing::Chunked } else { Outgoing::Plain })
}

/// Answers with a fault, if anything can be answered any more.
pub(super) async fn refuse(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    fault: Fault,
) -> Reuse {
    let record = &mut exchange.scratch.record;
    record.fail(fault);
    record.status = fault.status();
    if fault.status() == 0 {
        // Who half-closes in the middle of a request may still be reading the answers before it.
        return if fault.cause == Cause::ClientAbort { Reuse::Close } else { Reuse::Reset };
    }
    let request_id =
        *record.request_id.get_or_insert_with(|| worker.request_id(worker.clock.renew()));
    let read_whole = skip_body(client, exchange);
    let keep_alive =
        exchange.keep_alive && read_whole && fault.leaves_framing_sound() && !worker.is_draining();
    let retry_after = retry_after(exchange, fault);
    let scratch = &mut *exchange.scratch;
    let date = worker.http_date();
    let about = FaultAnswer {
        kind: answer::body_kind(scratch.request.headers.first(Name::Accept)),
        method: scratch.request.method,
        version: scratch.request.version,
        keep_alive,
        date: &date,
        request_id: Some(&request_id.text()),
        retry_after,
    };
    scratch.out.clear();
    answer::write_fault(fault, &about, &mut scratch.out);
    match send_own(worker, client, exchange).await {
        Err(fault) => {
            exchange.scratch.record.fail(fault);
            Reuse::Reset
        }
        Ok(()) if keep_alive => Reuse::Keep,
        Ok(()) if read_whole && fault.leaves_framing_sound() => Reuse::Close,
        Ok(()) => Reuse::Linger,
    }
}

/// When it is worth while to come back, in seconds: where the pool was full, when those who waited
/// then have been answered or refused.
fn retry_after(exchange: &Exchange, fault: Fault) -> Option<u32> {
    if !matches!(fault.cause, Cause::QueueFull | Cause::QueueTimeout) {
        return None;
    }
    let wait = exchange.pool_plan().queue.timeout;
    Some(u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1))
}

/// The answer to an OPTIONS that has come far enough (RFC 9110 §7.6.2, §9.3.7).
#[cold]
pub(super) fn options(worker: &Worker, client: &mut Client, exchange: &mut Exchange) -> Answer {
    // Of a body that is still to come nobody waits for the end.
    exchange.keep_alive &= skip_body(client, exchange);
    let Scratch { request, out, .. } = &mut *exchange.scratch;
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 204 No Content\r\n");
    out.extend_from_slice(b"allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\ndate: ");
    out.extend_from_slice(&worker.http_date());
    out.extend_from_slice(match (exchange.keep_alive, request.version) {
        (false, _) => b"\r\nConnection: close\r\n\r\n",
        (true, Version::Http10) => b"\r\nConnection: keep-alive\r\n\r\n",
        (true, Version::Http11) => b"\r\n\r\n",
    });
    Answer::Own { status: 204 }
}

impl Fetched {
    /// Whether the backend has sent more than its answer.
    fn has_unasked(&self) -> bool {
        self.body.has_ended() && self.buffer.as_ref().is_some_and(|rest| !rest.is_empty())
    }

    /// Whether the backend lets its connection be used again after this answer, and the answer
    /// shows where it ends. Who sends 408 is about to close, whatever else it says (RFC 9110
    /// §15.5.9).
    fn backend_keeps(&self, exchange: &Exchange) -> bool {
        let head = &exchange.scratch.response;
        head.keep_alive
            && head.status != 408
            && self.length != BodyLength::UntilClose
            && !self.refused
            && !self.backend.is_used_up()
    }
}
