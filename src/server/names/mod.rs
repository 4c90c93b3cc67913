//! Name resolution: the names of backends are looked up off the cores, and each address that one
//! has becomes a backend of the plan.
//!
//! `thread.rs` has them looked up and posts what they have; the control thread, which owns the
//! plan, puts that into force (`policy/overlay`). `system.rs` asks name servers as the system says.
//! A name without an answer does not prevent a start: nobody asks it until there is one.

mod system;
#[cfg(test)]
mod tests;
mod thread;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

pub(super) use self::system::by_the_system;
use self::thread::{News, Parts, Resolver};
use super::spawn::{self, Death, Thread};
use crate::observe::reports::Reporter;
use crate::plan::Address;
use crate::policy::{lookups::Members, overlay::Wanted, resolve::Answer};

/// How names are looked up: makes what the thread asks.
pub(super) type Lookup = Arc<dyn Fn() -> Ask + Send + Sync>;

/// Looks a name up, and gives the answer from whatever thread. It does not block.
pub(super) type Ask = Box<dyn FnMut(Address, Answered) + Send>;

/// Takes an answer, or why there is none.
pub(super) type Answered = Box<dyn FnOnce(Result<Answer, String>) + Send>;

/// How long a start, and a change that brings names, waits for the first answers.
pub(super) const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// How long an end waits for the thread.
const LAST_MESSAGE: Duration = Duration::from_millis(100);

/// What the thread is made of: the same for each that is started.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) lookup: Lookup,
    pub(super) reporter: Reporter,
    pub(super) death: Death,
    /// Where the addresses of all names are posted when they have changed.
    pub(super) found: Sender<Members>,
}

impl Means {
    /// With servers to ask, none = those of the system, and where addresses are posted.
    pub(super) fn new(
        lookup: Lookup,
        reporter: &Reporter,
        death: &Death,
    ) -> (Means, Receiver<Members>) {
        let (found, posted) = unbounded();
        let (reporter, death) = (reporter.clone(), death.clone());
        (Means { lookup, reporter, death, found }, posted)
    }
}

/// The thread that has names looked up. Dropping it ends the thread; what is asked of name servers
/// at the moment is left behind.
pub(super) struct Names {
    news: Sender<News>,
    thread: Option<Thread>,
}

impl Names {
    /// Begins to look up these names.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn begin(means: &Means, wanted: Wanted) -> io::Result<Names> {
        // Each lookup in progress sends one message when it ends, so there are no more than that.
        let (news, messages) = unbounded();
        let parts = Parts { means: means.clone(), to_self: news.clone(), messages };
        let work = move || Resolver::new(parts).run();
        let (name, what) = ("ringway-names".into(), "the names thread".into());
        let thread = Some(spawn::watched(name, what, &means.death, work)?);
        let names = Names { news, thread };
        names.want(wanted);
        Ok(names)
    }

    /// From now on these names are looked up.
    pub(super) fn want(&self, wanted: Wanted) {
        // If the thread has died that was told.
        let _ = self.news.send(News::Want(wanted));
    }

    /// Looks these up as well, until the next `want`. What is returned closes when each of them has
    /// been answered; what was found has been posted by then.
    pub(super) fn foresee(&self, wanted: Wanted) -> Receiver<()> {
        let (all_answered, closes) = bounded(0);
        let _ = self.news.send(News::Foresee(wanted, all_answered));
        closes
    }

    /// Waits until each of them has been answered, but no longer than `time`; names without an
    /// answer are told then.
    pub(super) fn first(&self, wanted: Wanted, time: Duration) {
        // It is closed, or the time is over.
        let _ = self.foresee(wanted).recv_timeout(time);
        let _ = self.news.send(News::Late(time));
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = self.news.send(News::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.end(Instant::now() + LAST_MESSAGE);
        }
    }
}
