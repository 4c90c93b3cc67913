//! Rescue: a request that waits at a backend which is taken out is asked of another.
//!
//! The health thread publishes what it takes out and rings each core, which calls the tasks that
//! wait there (`net/deadlines/called.rs`). A task then finds out whether its backend is lost,
//! whether the request may be asked again, by the rules of any retry, and whether another backend
//! takes it: only then is the wait ended. What may not be asked again waits on.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use super::{
    Exchange, Tries, Try,
    attempt::host,
    choose::avoids_trials,
    greeting,
    hedge::{Copied, Sent},
    upload::Upload,
};
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
    moment::{Deadline, Tick},
};
use crate::http::{
    fault::{Cause, Fault},
    framing::BodyLength,
    head::{RequestHead, ResponseHead},
};
use crate::net::{
    deadlines::{Ended, Watch},
    leaving::ForClient,
};
use crate::plan::Hedge;
use crate::policy::{
    retry::{self, Attempt, Decision, TryOutcome},
    sticky::Reading,
};
use crate::proto::{Backend, Client};
use crate::worker::{InForce, Pick, PoolView, Scratch, Wanted, Worker};

/// All that is looked at to rescue a request, while its answer is read into its place.
pub(super) struct Rescue<'a> {
    worker: &'a Worker,
    pub(super) in_force: &'a Rc<InForce>,
    pool: PoolId,
    deadline: Deadline,
    last: &'a Try,
    tries: &'a mut Tries,
    request: &'a RequestHead,
    length: BodyLength,
    queued_since: Option<Tick>,
    backend: Option<BackendId>,
    tried: &'a mut BackendSet,
    key: Option<u64>,
    reading: &'a Reading,
}

impl<'a> Rescue<'a> {
    /// For the present try of an exchange; also the place of its answer, and the room of its
    /// request.
    #[inline]
    pub(super) fn of(
        worker: &'a Worker,
        exchange: &'a mut Exchange,
    ) -> (Rescue<'a>, (&'a mut ResponseHead, &'a mut Vec<u8>)) {
        let Exchange {
            in_force, scratch, pool, length, last, tries, queued_since, deadline, ..
        } = exchange;
        let Scratch { request, response, out, tried, key, reading, record, .. } = &mut **scratch;
        let (pool, length, queued_since) = (*pool, *length, *queued_since);
        let (backend, key, deadline) = (record.backend, *key, *deadline);
        let rescue = Rescue {
            worker,
            in_force,
            pool,
            deadline,
            last,
            tries,
            request,
            length,
            queued_since,
            backend,
            tried,
            key,
            reading,
        };
        (rescue, (response, out))
    }

    /// How often this core had learned of lost backends when the try began.
    #[inline]
    pub(super) fn losses(&self) -> u64 {
        self.last.losses
    }

    /// A backend was taken out. If it is this one and another takes the request, ends the wait here
    /// and leaves the pick of the other in `tries.instead`; returns whether it did.
    #[cold]
    pub(super) fn moves(&mut self, backend: &Backend, upload: Option<&Upload>) -> bool {
        // The sign of an answer came.
        if backend.has_begun() {
            return false;
        }
        let body_gone = match upload {
            None => self.tries.body_gone,
            Some(upload) => !upload.can_be_sent_again(),
        };
        let Some(pick) = self.another(body_gone) else { return false };
        self.tries.instead = Some(Box::new(pick));
        backend.waits().end(Ended::Moved);
        true
    }

    fn wanted<'b>(&'b self, tried: &'b BackendSet, now: Tick) -> Wanted<'b> {
        Wanted {
            tried,
            key: self.key,
            pinned: self.reading.pinned(),
            avoids_trials: avoids_trials(self.request, self.length),
            since: self.queued_since,
            now,
        }
    }

    pub(super) fn view(&self) -> &Rc<PoolView> {
        self.in_force.pool(self.pool)
    }

    /// Whether a second copy of the request does no harm.
    pub(super) fn may_be_hedged(&self) -> bool {
        self.request.method.is_idempotent()
            && self.tries.count == 1
            && !self.tries.interim_sent
            && self.reading.pinned().is_none()
    }

    /// Sends a copy of the request to another backend, if there is one and the pool allows it.
    #[cold]
    pub(super) fn send_copy(
        &mut self,
        worker: &Rc<Worker>,
        plan: Hedge,
        client: (&Client, ForClient),
    ) -> Option<Sent> {
        let now = self.worker.clock.renew().tick();
        let tried = *self.tried | self.view().core.silent();
        let pick = self.view().pick(&self.wanted(&tried, now)).ok()?;
        if !self.view().may_hedge(self.in_force.plan.pool(self.pool), plan.max, now) {
            return None;
        }
        self.tried.insert(pick.backend());
        let backend = Some(pick.backend());
        let copied = Copied {
            in_force: Rc::clone(self.in_force),
            pool: self.pool,
            head: self.request.clone(),
            length: self.length,
            host: host(self.in_force, self.pool, backend, self.request).map(<[u8]>::to_vec),
            greeting: greeting(self.in_force.plan.pool(self.pool), client.0),
            deadline: self.deadline,
        };
        Some(Sent::new(worker, copied, client, pick))
    }

    /// Another backend for a request whose backend was taken out, if it may be asked again.
    fn another(&self, body_gone: bool) -> Option<Pick> {
        let (pool, plan) = (self.view(), self.in_force.plan.pool(self.pool));
        if !pool.core.is_lost_since(self.backend?, self.last.losses) {
            return None;
        }
        let attempt = Attempt {
            method: self.request.method,
            outcome: TryOutcome::Fault(Cause::BackendDown.into()),
            tries: self.tries.count,
            stale_before: self.tries.stale_before,
            request_sent: self.last.is_sent,
            body_gone,
            answered: self.tries.interim_sent,
        };
        if retry::again(&plan.retry, &attempt) != Decision::Another {
            return None;
        }
        let now = self.worker.clock.renew().tick();
        // Another that answers nobody may be about to go the same way.
        let tried = &*self.tried;
        let rather_not = *tried | pool.core.silent();
        let pick = pool.pick(&self.wanted(&rather_not, now));
        let pick = pick.or_else(|_| pool.pick(&self.wanted(tried, now)));
        pick.ok().filter(|_| pool.may_ask_again(plan, now))
    }
}

/// Waits for a new connection to a backend; given up if that is taken out and another takes the
/// request.
pub(super) async fn connecting(
    worker: &Worker,
    exchange: &mut Exchange,
    (pool, backend): (PoolId, BackendId),
    opening: impl Future<Output = Result<Backend, Fault>>,
) -> Result<Backend, Fault> {
    let watched = worker.deadlines.watch(-1, Watch::Task);
    watched.is_of(pool, backend);
    let (mut losses, mut opening) = (exchange.last.losses, pin!(opening));
    poll_fn(|cx| {
        let polled = opening.as_mut().poll(cx);
        if polled.is_pending() {
            watched.wakes(cx.waker());
            if losses != worker.core.losses.get() {
                losses = worker.core.losses.get();
                let (rescue, _) = Rescue::of(worker, exchange);
                let body_gone = rescue.tries.body_gone;
                if let Some(pick) = rescue.another(body_gone) {
                    rescue.tries.instead = Some(Box::new(pick));
                    return Poll::Ready(Err(Cause::BackendDown.into()));
                }
            }
        }
        polled
    })
    .await
}
