//! The backends of a pool that may be asked, as published to every core.
//!
//! Only the health thread writes it; every worker reads it. An epoch says whether anything changed:
//! a pick costs one load, and copies the words only after a publication. No reader waits: one that
//! meets a publication in progress keeps what it has, and finds the epoch changed at its next pick,
//! so the last publication is never lost and two are never mixed.

use super::atomics::{Acquire, AtomicU64, PUBLISHED_WORDS, Relaxed, Release};
use crate::base::backend_set::{BackendSet, WORDS};

/// What is published about a pool. It lives on from plan to plan.
#[repr(align(128))]
pub(crate) struct Published {
    /// Even; odd while a publication is in progress.
    epoch: AtomicU64,
    usable: [AtomicU64; PUBLISHED_WORDS],
    on_trial: [AtomicU64; PUBLISHED_WORDS],
    spare: [AtomicU64; PUBLISHED_WORDS],
    out: [AtomicU64; PUBLISHED_WORDS],
    silent: [AtomicU64; PUBLISHED_WORDS],
}

/// One publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) epoch: u64,
    /// The backends that may be asked.
    pub(crate) usable: BackendSet,
    /// The backends that may be asked with a permit only (`trials`); none of them is usable.
    pub(crate) on_trial: BackendSet,
    /// The last resort of a request with no other backend left: out for their answers alone.
    pub(crate) spare: BackendSet,
    /// Those that were taken out because they fail: what waits there is asked of others.
    pub(crate) out: BackendSet,
    /// Those that have answered nobody for suspiciously long: what is asked again avoids them.
    pub(crate) silent: BackendSet,
}

impl Published {
    /// For a pool whose backends are these at first.
    pub(crate) fn new(usable: &BackendSet) -> Published {
        let cells =
            |set: &BackendSet| std::array::from_fn(|place| AtomicU64::new(set.words()[place]));
        Published {
            epoch: AtomicU64::new(2),
            usable: cells(usable),
            on_trial: cells(&BackendSet::EMPTY),
            spare: cells(&BackendSet::EMPTY),
            out: cells(&BackendSet::EMPTY),
            silent: cells(&BackendSet::EMPTY),
        }
    }

    /// The last publication, if it is not the one `seen`; 0 = none was.
    #[inline]
    pub(crate) fn after(&self, seen: u64) -> Option<Publication> {
        let epoch = self.epoch.load(Acquire);
        if epoch == seen { None } else { self.copy(epoch) }
    }

    #[cold]
    fn copy(&self, epoch: u64) -> Option<Publication> {
        let Published { usable, on_trial, spare, out, silent, .. } = self;
        let (usable, on_trial, spare) = (load(usable), load(on_trial), load(spare));
        let (out, silent) = (load(out), load(silent));
        let is_whole = epoch.is_multiple_of(2) && self.epoch.load(Relaxed) == epoch;
        is_whole.then_some(Publication { epoch, usable, on_trial, spare, out, silent })
    }

    /// Publishes, if it is news. Only the health thread may call it.
    pub(crate) fn publish(
        &self,
        (usable, on_trial): (BackendSet, BackendSet),
        (spare, out, silent): (BackendSet, BackendSet, BackendSet),
    ) {
        let Published { epoch, .. } = self;
        let pairs: [(&[AtomicU64], BackendSet); 5] = [
            (&self.usable, usable),
            (&self.on_trial, on_trial),
            (&self.spare, spare),
            (&self.out, out),
            (&self.silent, silent),
        ];
        if pairs.iter().all(|(cells, set)| is(cells, set)) {
            return;
        }
        let begun = epoch.load(Relaxed) + 1;
        epoch.store(begun, Relaxed);
        for (cells, set) in pairs {
            store(cells, &set);
        }
        epoch.store(begun + 1, Release);
    }
}

fn is(cells: &[AtomicU64], set: &BackendSet) -> bool {
    cells.iter().zip(set.words()).all(|(cell, word)| cell.load(Relaxed) == *word)
}

fn store(cells: &[AtomicU64], set: &BackendSet) {
    for (cell, word) in cells.iter().zip(set.words()) {
        if cell.load(Relaxed) != *word {
            // Release: ordered after the beginning of the epoch.
            cell.store(*word, Release);
        }
    }
}

fn load(cells: &[AtomicU64]) -> BackendSet {
    let mut words = [0; WORDS];
    for (word, cell) in words.iter_mut().zip(cells) {
        // Acquire: a reader that sees a word of a later publication sees that its epoch has begun.
        *word = cell.load(Acquire);
    }
    BackendSet::from_words(words)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::atomics::{every_order, spawn};
    use super::*;
    use crate::base::ids::BackendId;

    fn set(ids: &[u16]) -> BackendSet {
        let mut set = BackendSet::EMPTY;
        ids.iter().for_each(|id| set.insert(BackendId(*id)));
        set
    }

    #[test]
    fn at_first_everybody_is_usable() {
        every_order(|| {
            for backends in [0, 1, 64, 65] {
                let all = BackendSet::first(backends);
                let first = Published::new(&all).after(0).unwrap();
                assert_eq!(first.usable, all);
                assert!(first.on_trial.is_empty() && first.spare.is_empty());
            }
        });
    }

    #[test]
    fn only_news_is_published_and_only_news_is_copied() {
        every_order(|| {
            let published = Published::new(&BackendSet::first(3));
            let first = published.after(0).unwrap();
            assert_eq!(published.after(first.epoch), None);
            let publish = |usable: &[u16], on_trial: &[u16], spare: &[u16], out: &[u16]| {
                let (spare, out) = (set(spare), set(out));
                published.publish((set(usable), set(on_trial)), (spare, out, out));
            };
            publish(&[0, 1, 2], &[], &[], &[]);
            assert_eq!(published.after(first.epoch), None);
            publish(&[0], &[1], &[1, 2], &[2]);
            let second = published.after(first.epoch).unwrap();
            assert_eq!(second.usable, set(&[0]));
            assert_eq!((second.on_trial, second.spare), (set(&[1]), set(&[1, 2])));
            assert_eq!((first.out, second.out), (set(&[]), set(&[2])));
            assert_eq!((first.silent, second.silent), (set(&[]), set(&[2])));
            assert!(second.epoch > first.epoch);
        });
    }

    #[test]
    fn a_reader_sees_whole_publications_and_at_last_the_last() {
        every_order(|| {
            let published = Arc::new(Published::new(&BackendSet::first(65)));
            let reader = Arc::clone(&published);
            // Two words apart: torn, there would be neither or both.
            let known = [(2, set(&[0, 64])), (4, set(&[0])), (6, set(&[64]))];
            let (_, one, other) = (known[0], known[1].1, known[2].1);
            let none = set(&[]);
            published.publish((one, none), (none, none, none));
            let reading = spawn(move || {
                let Some(news) = reader.after(2) else { return 2 };
                assert!(known.contains(&(news.epoch, news.usable)), "{news:?}");
                news.epoch
            });
            published.publish((other, none), (none, none, none));
            let seen = reading.join().unwrap();
            match published.after(seen) {
                Some(last) => assert_eq!((last.epoch, last.usable), (6, other)),
                None => assert_eq!(seen, 6),
            }
        });
    }
}
