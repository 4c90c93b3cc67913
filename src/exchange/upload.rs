//! A request's body on its way to a backend, while the answer may already come back.
//!
//! Memory is one buffer; who reads waits for who writes, so a slow backend slows its client. It
//! waits by readiness polls alone: it may be dropped at any moment, and then nobody knows where the
//! client's next request begins.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    kept::{Keeping, Kept},
    pace::Pace,
};
use crate::base::{
    ids::{ListenerId, PoolId},
    moment::Deadline,
};
use crate::http::{
    chunks,
    fault::{Cause, Fault},
    headers::Headers,
};
use crate::net::{deadlines::Ended, fd::Half, stream::Stream};
use crate::policy::blame::Body;
use crate::proto::h1::{Client, Framed, Outgoing, Reader};
use crate::worker::{InForce, Worker};

/// Where an upload goes, and what bounds it.
pub(crate) struct Way {
    pub(crate) worker: Rc<Worker>,
    pub(crate) client: Rc<Stream>,
    pub(crate) backend: Rc<Stream>,
    pub(crate) in_force: Rc<InForce>,
    pub(crate) listener: ListenerId,
    pub(crate) pool: PoolId,
    pub(crate) deadline: Deadline,
    /// Whether the client may wait to be told to send its body.
    pub(crate) expects_continue: bool,
}

/// How an upload ended: the reader is given back either way.
struct Uploaded {
    reader: Reader,
    result: Result<(), Stopped>,
}

/// Why an upload stopped before the body's end.
#[derive(Clone, Copy, Debug)]
enum Stopped {
    /// The client's doing, or its time is over: the exchange ends.
    Client(Fault),
    /// The backend takes no more: it may have answered, or it is gone; its answer will tell.
    Backend,
}

type Uploading = Pin<Box<dyn Future<Output = Uploaded>>>;

/// A request body on its way to a backend.
pub(crate) struct Upload {
    backend: Rc<Stream>,
    state: State,
    /// Bytes taken from the client so far, framing too.
    taken: Rc<Cell<u64>>,
    /// What of it could be sent again; none where it is of no use.
    keeping: Option<Rc<Keeping>>,
}

/// What is left of an upload that was ended for another try.
pub(crate) struct Recovered {
    /// The client's, where it is known what comes next from it.
    pub(crate) reader: Option<Reader>,
    /// What was sent, if it can be sent again.
    pub(crate) kept: Option<Kept>,
    /// Bytes taken from the client, framing too.
    pub(crate) bytes: u64,
}

enum State {
    Going(Uploading),
    Ended(Uploaded),
}

impl Upload {
    /// Sends what `reader` holds and then what comes from the client.
    pub(crate) fn begin(
        way: Way,
        reader: Reader,
        outgoing: Outgoing,
        keeping: Option<Keeping>,
    ) -> Upload {
        let backend = Rc::clone(&way.backend);
        let (taken, keeping) = (Rc::new(Cell::new(0)), keeping.map(Rc::new));
        let counted = Rc::clone(&taken);
        let uploading = Box::pin(upload(way, reader, outgoing, counted, keeping.clone()));
        Upload { backend, state: State::Going(uploading), taken, keeping }
    }

    /// Goes on with it until it ends.
    pub(crate) async fn end(&mut self) {
        poll_fn(|cx| {
            self.poll(cx);
            if self.is_going() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Goes on with it; true when this ended it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let State::Going(future) = &mut self.state else { return false };
        let Poll::Ready(ended) = future.as_mut().poll(cx) else { return false };
        if matches!(ended.result, Err(Stopped::Client(_))) {
            // Nobody needs the answer any more: whoever waits for it wakes up, and knows that
            // its end is not the backend's doing.
            self.backend.watched().end(Ended::ClientLeft);
        }
        self.state = State::Ended(ended);
        true
    }

    /// Whether it has not ended.
    pub(crate) fn is_going(&self) -> bool {
        matches!(self.state, State::Going(_))
    }

    /// Whether more has been read than the body: of the next request.
    pub(crate) fn has_more(&self) -> bool {
        match &self.state {
            State::Ended(Uploaded { reader, result: Ok(()) }) => !reader.buffer.is_empty(),
            State::Ended(_) | State::Going(_) => false,
        }
    }

    /// The client's fault that stopped it.
    pub(crate) fn fault_of_client(&self) -> Option<Fault> {
        match &self.state {
            State::Ended(Uploaded { result: Err(Stopped::Client(fault)), .. }) => Some(*fault),
            State::Ended(_) | State::Going(_) => None,
        }
    }

    /// Whether all of the body went over.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(&self.state, State::Ended(Uploaded { result: Ok(()), .. }))
    }

    /// What the backend has got of the body.
    pub(crate) fn with_backend(&self) -> Body {
        match &self.state {
            State::Ended(Uploaded { result: Ok(()), .. }) => Body::Whole,
            State::Ended(Uploaded { result: Err(Stopped::Backend), .. }) => Body::Untaken,
            State::Ended(Uploaded { result: Err(Stopped::Client(_)), .. }) | State::Going(_) => {
                Body::Coming
            }
        }
    }

    /// Where it goes.
    pub(crate) fn backend(&self) -> &Stream {
        &self.backend
    }

    /// Bytes taken from the client so far, framing too.
    pub(crate) fn bytes(&self) -> u64 {
        self.taken.get()
    }

    /// Ends it so that another try may follow.
    pub(crate) async fn recover(self) -> Recovered {
        let Upload { backend, state, taken, keeping } = self;
        let Some(keeping) = keeping else {
            let (reader, bytes) = Upload { backend, state, taken, keeping }.into_reader();
            return Recovered { reader, kept: None, bytes };
        };
        let Uploaded { reader, result } = match state {
            State::Ended(uploaded) => uploaded,
            State::Going(uploading) => {
                keeping.stop.raise();
                backend.shut_down(Half::Both);
                uploading.await
            }
        };
        // The upload held the other end of it until it ended.
        let kept = Rc::into_inner(keeping).and_then(Keeping::into_kept);
        let bytes = taken.get();
        match result {
            Ok(()) | Err(Stopped::Backend) => Recovered { reader: Some(reader), kept, bytes },
            Err(Stopped::Client(_)) => Recovered { reader: None, kept: None, bytes },
        }
    }

    /// The client's reader, where it is known what comes next from it: the next request, or the
    /// rest of a body that the backend did not take. And how many bytes were taken from the
    /// client, framing too.
    pub(crate) fn into_reader(self) -> (Option<Reader>, u64) {
        let reader = match self.state {
            State::Ended(Uploaded { reader, result: Ok(()) | Err(Stopped::Backend) }) => {
                Some(reader)
            }
            State::Ended(_) | State::Going(_) => None,
        };
        (reader, self.taken.get())
    }
}

async fn upload(
    way: Way,
    mut reader: Reader,
    outgoing: Outgoing,
    taken: Rc<Cell<u64>>,
    keeping: Option<Rc<Keeping>>,
) -> Uploaded {
    taken.set(reader.buffer.len() as u64);
    let result = upload_all(&way, &mut reader, outgoing, &taken, keeping.as_deref()).await;
    if !matches!(result, Err(Stopped::Client(_))) {
        // What is left is counted by the one who takes it.
        taken.set(taken.get().saturating_sub(reader.buffer.len() as u64));
    }
    Uploaded { reader, result }
}

async fn upload_all(
    way: &Way,
    reader: &mut Reader,
    outgoing: Outgoing,
    taken: &Cell<u64>,
    keeping: Option<&Keeping>,
) -> Result<(), Stopped> {
    let Way { worker, client, backend, in_force, deadline, .. } = way;
    let listener = in_force.plan.listener(way.listener).timeouts;
    let write = in_force.plan.pool(way.pool).timeouts.write;
    let most = in_force.plan.limits.body_bytes_max;
    let pace = Pace::begin(&worker.clock, in_force.plan.limits.body_rate_min);
    let write_by = || deadline.earlier(worker.clock.after(write));
    let mut bytes = 0;
    let mut trailers = Headers::default();
    loop {
        let piece = reader.body.next(&mut reader.buffer, &mut trailers).map_err(Stopped::Client)?;
        bytes += piece.body as u64;
        if most != 0 && bytes > most {
            return Err(Stopped::Client(Cause::BodyTooLarge.into()));
        }
        if let Some(keeping) = keeping {
            keeping.note(reader.buffer.bytes().get(..piece.body).unwrap_or(&[]));
        }
        let Framed { send, skip, end_apart } = outgoing.frame(&mut reader.buffer, piece, &trailers);
        if let Some(keeping) = keeping.filter(|_| !trailers.fields.is_empty()) {
            keeping.forget();
        }
        let out = reader.buffer.bytes().get(..send).unwrap_or(&[]);
        let sent = backend.send_all(out, end_apart, write_by).await;
        reader.buffer.consume(skip);
        sent.map_err(|_| Stopped::Backend)?;
        if end_apart {
            let mut end = Vec::new();
            chunks::write_trailers(&trailers, &mut end);
            backend.send_all(&end, false, write_by).await.map_err(|_| Stopped::Backend)?;
        }
        if piece.ended {
            return Ok(());
        }
        reader.buffer.rewind();
        let mut by = deadline.earlier(worker.clock.after(listener.client_body));
        // A client that waits to be told to go on is not slow.
        if !way.expects_continue || taken.get() > 0 {
            by = pace.wait(bytes, by);
        }
        let read = client.recv(&mut reader.buffer, by);
        let read = match keeping {
            None => read.await,
            Some(keeping) => keeping.stop.or(read).await.ok_or(Stopped::Backend)?,
        };
        pace.rest();
        match read {
            Ok(count) if count > 0 => taken.set(taken.get() + count as u64),
            Ok(_) | Err(_) if worker.clock.is_over(*deadline) => {
                return Err(Stopped::Client(Cause::Deadline.into()));
            }
            Ok(_) | Err(_) => return Err(Stopped::Client(Client::read_fault(client))),
        }
    }
}

/// Polls `also` (until it has ended) whenever `first` is polled, and ends with `first`.
pub(super) async fn beside<T>(
    first: impl Future<Output = T>,
    mut also: impl FnMut(&mut Context<'_>),
) -> T {
    let mut first = pin!(first);
    poll_fn(|cx| {
        also(cx);
        first.as_mut().poll(cx)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::on_both_drivers;

    #[test]
    fn what_is_beside_is_polled_as_long_as_the_first_is() {
        on_both_drivers(|| async {
            let (mut polled, mut left) = (0, 3);
            let first = poll_fn(|cx| {
                left -= 1;
                cx.waker().wake_by_ref();
                if left == 0 { Poll::Ready("done") } else { Poll::Pending }
            });
            assert_eq!(beside(first, |_| polled += 1).await, "done");
            assert_eq!(polled, 3);
        });
    }
}
