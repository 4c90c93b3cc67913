//! Uploads: a request's body on its way to a backend, while the answer may already come back.
//!
//! It waits by readiness polls only, so it may be dropped at any moment; after that it is not known
//! where the client's next request begins. A backend that takes no more does not fail the exchange:
//! its answer tells what happened.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    Exchange,
    pace::Pace,
    pass::{Bounds, Stage, Through, pass},
    replay::{Keeping, Kept},
};
use crate::base::{
    ids::{ListenerId, PoolId},
    moment::Deadline,
};
use crate::http::fault::{Cause, Fault};
use crate::net::{clock::Clock, deadlines::Ended};
use crate::policy::blame::Body;
use crate::proto::{Client, Cut, Sink, Source, Waits};
use crate::worker::{InForce, Worker};

/// The bounds of an upload.
struct UploadTerms {
    worker: Rc<Worker>,
    in_force: Rc<InForce>,
    listener: ListenerId,
    pool: PoolId,
    deadline: Deadline,
    /// Whether the client may wait for a 100 before it sends its body.
    expects_continue: bool,
}

/// How an upload ended: the source is returned either way.
struct Uploaded {
    source: Source,
    result: Result<(), Stopped>,
}

/// Why an upload stopped before the body's end.
#[derive(Clone, Copy, Debug)]
enum Stopped {
    /// The client's fault, or its time is over: the exchange ends.
    Client(Fault),
    /// The backend takes no more: it may have answered, or it is gone; its answer will tell.
    Backend,
}

/// A request body on its way to a backend. Boxed, as most requests have none.
pub(crate) struct Upload(Box<OnItsWay>);

struct OnItsWay {
    /// The backend that gets it.
    backend: Waits,
    /// Whether the request may do something there.
    is_unsafe: bool,
    state: State,
    progress: Rc<Progress>,
}

/// The progress of an upload.
struct Progress {
    /// Bytes taken from the client so far, including framing.
    taken: Cell<u64>,
    /// What of it could be sent again; none if that is of no use.
    keeping: Option<Keeping>,
}

/// What is left of an upload that was ended for another try.
struct Recovered {
    /// The source of the client's bytes, if it is known what comes next from it.
    source: Option<Source>,
    /// What was sent, if it can be sent again.
    kept: Option<Kept>,
    /// Bytes taken from the client, including framing.
    bytes: u64,
}

enum State {
    Going(Pin<Box<dyn Future<Output = Uploaded>>>),
    Ended(Uploaded),
}

impl Upload {
    /// Sends what comes from `source`, including what it has buffered, after a head that has been
    /// sent.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        exchange: &mut Exchange,
        listener: ListenerId,
        (source, sink, backend): (Source, Sink, Waits),
    ) -> Upload {
        let (taken, keeping) = (Cell::new(source.received()), Keeping::of(exchange));
        let progress = Rc::new(Progress { taken, keeping });
        let way = UploadTerms {
            worker: Rc::clone(worker),
            in_force: Rc::clone(&exchange.in_force),
            listener,
            pool: exchange.pool,
            deadline: exchange.deadline,
            expects_continue: exchange.scratch.request.expects_continue,
        };
        let uploading = Box::pin(upload(way, source, sink, Rc::clone(&progress)));
        let is_unsafe = !exchange.scratch.request.method.is_safe();
        Upload(Box::new(OnItsWay { backend, is_unsafe, state: State::Going(uploading), progress }))
    }

    /// Runs it until it ends.
    pub(crate) async fn end(&mut self) {
        poll_fn(|cx| {
            self.poll(cx);
            if self.is_going() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Continues it; true when this ended it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let State::Going(future) = &mut self.0.state else { return false };
        let Poll::Ready(ended) = future.as_mut().poll(cx) else { return false };
        if matches!(ended.result, Err(Stopped::Client(_))) {
            // The answer is not needed any more. The wait for it ends and is not blamed on the
            // backend.
            self.0.backend.end(Ended::ClientLeft);
        }
        if ended.result.is_ok() && self.0.is_unsafe {
            self.0.backend.is_entrusted();
        }
        self.0.state = State::Ended(ended);
        true
    }

    /// Whether it has not ended.
    pub(crate) fn is_going(&self) -> bool {
        matches!(self.0.state, State::Going(_))
    }

    /// Whether the head of another request has been read after the body.
    pub(crate) fn has_more(&self) -> bool {
        match &self.0.state {
            State::Ended(Uploaded { source, result: Ok(()) }) => source.has_next(),
            State::Ended(_) | State::Going(_) => false,
        }
    }

    /// The client's fault that stopped it.
    pub(crate) fn fault_of_client(&self) -> Option<Fault> {
        match &self.0.state {
            State::Ended(Uploaded { result: Err(Stopped::Client(fault)), .. }) => Some(*fault),
            State::Ended(_) | State::Going(_) => None,
        }
    }

    /// Whether all of the body was sent.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(&self.0.state, State::Ended(Uploaded { result: Ok(()), .. }))
    }

    /// Whether all that was sent is kept, so that another backend can get it.
    pub(crate) fn can_be_sent_again(&self) -> bool {
        self.0.progress.keeping.as_ref().is_some_and(Keeping::has_all)
    }

    /// How much of the body the backend has got.
    pub(crate) fn with_backend(&self) -> Body {
        match &self.0.state {
            State::Ended(Uploaded { result: Ok(()), .. }) => Body::Whole,
            State::Ended(Uploaded { result: Err(Stopped::Backend), .. }) => Body::Untaken,
            State::Ended(Uploaded { result: Err(Stopped::Client(_)), .. }) | State::Going(_) => {
                Body::Coming
            }
        }
    }

    /// The backend that gets it.
    pub(crate) fn backend(&self) -> &Waits {
        &self.0.backend
    }

    /// Bytes taken from the client so far, including framing.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.progress.taken.get()
    }

    /// Ends it so that another try may follow.
    async fn recover(self) -> Recovered {
        if self.0.progress.keeping.is_none() {
            let (source, bytes) = self.into_source();
            return Recovered { source, kept: None, bytes };
        }
        let OnItsWay { backend, state, progress, .. } = *self.0;
        let Uploaded { source, result } = match state {
            State::Ended(uploaded) => uploaded,
            State::Going(uploading) => {
                progress.keeping.iter().for_each(|keeping| keeping.stop.raise());
                backend.cut();
                uploading.await
            }
        };
        let bytes = progress.taken.get();
        // The upload held the other reference until it ended.
        let kept = Rc::into_inner(progress).and_then(|progress| progress.keeping);
        let kept = kept.and_then(Keeping::into_kept);
        match result {
            Ok(()) | Err(Stopped::Backend) => Recovered { source: Some(source), kept, bytes },
            Err(Stopped::Client(_)) => Recovered { source: None, kept: None, bytes },
        }
    }

    /// The source of the client's bytes, if it is known what comes next from it: the next request,
    /// or the rest of a body that the backend did not take. Also how many bytes were taken from the
    /// client, including framing.
    pub(super) fn into_source(self) -> (Option<Source>, u64) {
        let source = match self.0.state {
            State::Ended(Uploaded { source, result: Ok(()) | Err(Stopped::Backend) }) => {
                Some(source)
            }
            State::Ended(_) | State::Going(_) => None,
        };
        (source, self.0.progress.taken.get())
    }
}

async fn upload(
    way: UploadTerms,
    mut source: Source,
    mut sink: Sink,
    progress: Rc<Progress>,
) -> Uploaded {
    let UploadTerms { worker, in_force, deadline, .. } = &way;
    let keeping = progress.keeping.as_ref();
    let bounds = Bounds::Upload(Uploading {
        clock: &worker.clock,
        deadline: *deadline,
        read: in_force.plan.listener(way.listener).timeouts.client_body,
        write: in_force.plan.pool(way.pool).timeouts.write,
        pace: Pace::begin(&worker.clock, in_force.plan.limits.body_rate_min),
        expects_continue: way.expects_continue,
        taken: &progress.taken,
        keeping,
    });
    let limit = Stage::Limit(in_force.plan.limits.body_bytes_max);
    let result = match keeping {
        None => pass(&mut source, &mut sink, &mut Through::these(&[limit]), &bounds).await,
        Some(keeping) => {
            let stages = [limit, Stage::Keep(keeping)];
            pass(&mut source, &mut sink, &mut Through::these(&stages), &bounds).await
        }
    };
    let result = result.map_err(|cut| match cut {
        Cut::To(_) => Stopped::Backend,
        Cut::From(_) if keeping.is_some_and(|keeping| keeping.stop.is_raised()) => Stopped::Backend,
        Cut::From(_) if worker.clock.is_over(*deadline) => Stopped::Client(Cause::Deadline.into()),
        Cut::From(fault) => Stopped::Client(fault),
    });
    progress.taken.set(match result {
        // Bytes that are left are counted when they are taken.
        Ok(()) | Err(Stopped::Backend) => source.received() - source.rest() as u64,
        Err(Stopped::Client(_)) => source.received(),
    });
    Uploaded { source, result }
}

/// How long each wait of an upload may last. The client's pace is measured.
pub(super) struct Uploading<'a> {
    clock: &'a Clock,
    deadline: Deadline,
    read: Duration,
    write: Duration,
    pace: Pace<'a>,
    expects_continue: bool,
    taken: &'a Cell<u64>,
    pub(super) keeping: Option<&'a Keeping>,
}

impl Uploading<'_> {
    pub(super) fn reads(&self, bytes: u64) -> Deadline {
        let by = self.deadline.earlier(self.clock.after(self.read));
        // A client that waits for a 100 is not slow.
        if self.expects_continue && self.taken.get() == 0 {
            return by;
        }
        self.pace.wait(bytes, by)
    }

    pub(super) fn has_come(&self, received: u64) {
        self.pace.rest();
        self.taken.set(received);
    }

    pub(super) fn writes(&self) -> Deadline {
        self.deadline.earlier(self.clock.after(self.write))
    }
}

/// Recovers an upload for another try: the client's source, and what was sent.
pub(super) async fn recover(client: &mut Client, exchange: &mut Exchange, upload: Option<Upload>) {
    let Some(upload) = upload else { return };
    let Recovered { source, kept, bytes } = upload.recover().await;
    exchange.scratch.record.request_bytes += bytes;
    exchange.tries.body_gone = kept.is_none();
    exchange.tries.kept = kept.map(Box::new);
    client.put_back(source);
}

/// Returns the client's source to it, if the upload has ended.
pub(super) fn put_back(client: &mut Client, exchange: &mut Exchange, upload: Option<Upload>) {
    if let Some(upload) = upload {
        let (source, bytes) = upload.into_source();
        exchange.scratch.record.request_bytes += bytes;
        client.put_back(source);
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
