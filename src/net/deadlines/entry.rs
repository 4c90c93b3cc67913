//! What is noted of one watched descriptor, and how what it waits for ends.

use std::{os::fd::RawFd, task::Waker};

use super::{
    ended::{End, Ended},
    resting::Rest,
};
use crate::base::moment::{Deadline, Tick};
use crate::net::{
    fd::{self, Half},
    leaving::ForClient,
};

/// How the sweep ends a wait to read that is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The wait alone, by waking its task: a client is still to be answered.
    Wait,
    /// All of the connection: a backend that is late is of no more use.
    Both,
}

pub(super) struct Entry {
    pub(super) fd: RawFd,
    /// The client that waits for this one, if any, and whether it may have left.
    pub(super) client: Option<ForClient>,
    pub(super) doubtful: bool,
    pub(super) read_by: Deadline,
    pub(super) write_by: Deadline,
    /// Since when it rests, or rested last; before that since it is watched.
    pub(super) since: Tick,
    /// Its place among those that rest alike.
    pub(super) previous: u32,
    pub(super) next: u32,
    /// Which listener it came from: room may be needed at one listener alone.
    pub(super) tag: u16,
    pub(super) ends: Ends,
    /// Why there is no more reading, and no more writing.
    pub(super) reading: Option<Ended>,
    pub(super) writing: Option<Ended>,
    pub(super) rest: Option<Rest>,
    pub(super) used: bool,
    /// Whether its task is to be told when it has been idle for `STAY`.
    pub(super) stays: bool,
    /// The task that waits to read, where that is woken.
    pub(super) task: Option<Waker>,
}

impl Entry {
    pub(super) fn end_reading(&mut self, why: Ended) {
        match self.ends {
            Ends::Both => self.end_both(why),
            Ends::Wait => {
                self.reading = Some(why);
                self.wake();
            }
        }
    }

    /// Ends both halves; one that had its end before keeps its reason.
    pub(super) fn end_both(&mut self, why: Ended) {
        self.reading.get_or_insert(why);
        self.writing.get_or_insert(why);
        fd::shut_down(self.fd, Half::Both);
        self.wake();
    }

    pub(super) fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    pub(super) fn ended(&self, end: End) -> Option<Ended> {
        match end {
            End::Reading => self.reading,
            End::Writing => self.writing,
        }
    }

    /// Notes the task to wake; it is the same one as long as the connection lasts.
    pub(super) fn note(&mut self, task: &Waker) {
        if !self.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            self.task = Some(task.clone());
        }
    }
}
