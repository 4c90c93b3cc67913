//! The health thread, as its owner holds it.

use std::{cell::Cell, io, rc::Rc};

use crossbeam_channel::bounded;

use super::{
    StartError,
    crew::Member,
    spawn::{self, Death},
};
use crate::health::{HealthJob, ToHealth};
use crate::observe::reports::Reporter;
use crate::shared::inbox::Outbox;

/// The thread. Dropping it leaves it running: `end` ends it.
pub(super) struct HealthThread {
    member: Option<Member<ToHealth>>,
}

impl HealthThread {
    /// Starts the thread and waits until it watches.
    ///
    /// # Errors
    /// If there can be no more threads, or no runtime for it.
    pub(super) fn start(
        outbox: Outbox<ToHealth>,
        job: HealthJob,
        death: &Death,
    ) -> Result<HealthThread, StartError> {
        let (ready, readiness) = bounded(1);
        let work = move || {
            let has_begun = Rc::new(Cell::new(false));
            let (begins, begun) = (Rc::clone(&has_begun), ready.clone());
            let watched = job.run(move || {
                begins.set(true);
                drop(begun.send(Ok(())));
            });
            if let Err(why) = watched {
                // Backends would stay up or down for ever: the process ends with the thread.
                assert!(!has_begun.get(), "the health thread cannot go on: {why}");
                drop(ready.send(Err(why)));
            }
        };
        let refused = || StartError::system("start the health thread");
        let thread =
            spawn::watched("ringway-health".into(), "the health thread".into(), death, work)
                .map_err(refused())?;
        match readiness.recv_timeout(spawn::READY_WITHIN) {
            Ok(Ok(())) => Ok(HealthThread { member: Some(Member::new(outbox, thread)) }),
            Ok(Err(why)) => Err(refused()(io::Error::other(why))),
            Err(_) => Err(StartError::Hung("the health thread".into())),
        }
    }

    /// Ends the thread and waits for it; returns its name if it does not end.
    #[must_use]
    pub(super) fn end(&mut self, reporter: &Reporter) -> Option<String> {
        self.member.take()?.stop(ToHealth::Stop, reporter)
    }
}
