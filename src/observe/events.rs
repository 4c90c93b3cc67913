//! Event queues: one for each reader, bounded, and never waited for.
//!
//! A reader that is too slow loses events, which are counted for it; nothing else is affected.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::event::Event;
use crate::plan::LogLevel;
use crate::shared::dropped::Dropped;

/// Events that may wait for their reader: those of more than a thousand backends at once.
const WAITING_MAX: usize = 2048;

/// An event, and when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Happened {
    /// Its number: each event of this process has the next.
    pub id: u64,
    /// When.
    pub at: SystemTime,
    /// What.
    pub event: Event,
}

/// A queue of events, for its reader; `Handle::events` returns one.
///
/// As an iterator it waits for the next event, and ends with the balancer.
#[derive(Debug)]
pub struct Events {
    from: Receiver<Arc<Happened>>,
    dropped: Dropped,
    _read: Arc<()>,
}

/// The other end of such a queue.
pub(crate) struct Subscriber {
    to: Sender<Arc<Happened>>,
    dropped: Dropped,
    /// Gone when the queue is read no more.
    read: Weak<()>,
    /// Less important events are not queued.
    level: LogLevel,
}

/// A queue for events of this level and more important ones.
pub(crate) fn queue(level: LogLevel) -> (Subscriber, Events) {
    let (to, from) = bounded(WAITING_MAX);
    let (dropped, read) = (Dropped::default(), Arc::new(()));
    let subscriber =
        Subscriber { to, dropped: dropped.clone(), read: Arc::downgrade(&read), level };
    (subscriber, Events { from, dropped, _read: read })
}

impl Events {
    /// The next event, if there is one already.
    #[must_use]
    pub fn try_next(&self) -> Option<Arc<Happened>> {
        self.from.try_recv().ok()
    }

    /// Waits for the next event, but no longer than `time`.
    #[must_use]
    pub fn next_within(&self, time: Duration) -> Option<Arc<Happened>> {
        self.from.recv_timeout(time).ok()
    }

    /// The queue itself, to wait for it among others.
    pub(crate) fn queue(&self) -> &Receiver<Arc<Happened>> {
        &self.from
    }

    /// How many events found no room, as this reader was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.read()
    }
}

impl Iterator for Events {
    type Item = Arc<Happened>;

    fn next(&mut self) -> Option<Arc<Happened>> {
        self.from.recv().ok()
    }
}

impl Subscriber {
    /// Whether the queue may still be read.
    pub(crate) fn is_read(&self) -> bool {
        self.read.strong_count() > 0
    }

    /// Hands an event over, if it is important enough.
    pub(crate) fn hand(&self, happened: &Arc<Happened>) {
        if happened.event.level() > self.level {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.to.try_send(Arc::clone(happened)) {
            self.dropped.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_loses_events_that_are_counted_and_one_that_is_gone_is_found_out() {
        let (subscriber, events) = queue(LogLevel::Info);
        let happened = Happened { id: 7, at: SystemTime::UNIX_EPOCH, event: Event::OutgoingLimit };
        let happened = Arc::new(happened);
        for _ in 0..WAITING_MAX + 3 {
            subscriber.hand(&happened);
        }
        assert_eq!(events.dropped(), 3);
        assert_eq!(events.try_next(), Some(Arc::clone(&happened)));
        assert!(subscriber.is_read());
        drop(events);
        assert!(!subscriber.is_read());
        subscriber.hand(&happened);
        let (subscriber, events) = queue(LogLevel::Error);
        subscriber.hand(&happened);
        assert_eq!((events.try_next(), events.dropped()), (None, 0), "of no interest");
    }
}
