//! The backends of a pool that may be asked, as published to every core.
//!
//! Only the health thread writes it; every worker reads it. An epoch says whether anything changed:
//! a pick costs one load, and copies the words only after a publication. There are two places, and
//! a publication goes to the one that the last did not: a reader always finds the last whole one,
//! however long the next takes. It tries again only if another was completed while it copied.

use super::atomics::{Acquire, AtomicU64, PUBLISHED_WORDS, Relaxed, Release};
use crate::base::backend_set::{BackendSet, WORDS};

/// Completed publications in a row during which a reader goes on trying. They come in milliseconds,
/// and a copy takes nanoseconds.
const TRIES: usize = 4;

/// What is published about a pool. It lives on from plan to plan.
#[repr(align(128))]
pub(crate) struct Published {
    /// The number of the last publication, which is in the place of its parity.
    epoch: AtomicU64,
    places: [Place; 2],
}

/// The words of one publication.
struct Place {
    usable: Words,
    on_trial: Words,
    spare: Words,
    out: Words,
    silent: Words,
}

type Words = [AtomicU64; PUBLISHED_WORDS];

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
        let places = std::array::from_fn(|_| Place::new(usable));
        Published { epoch: AtomicU64::new(2), places }
    }

    /// The last publication, if it is not the one `seen`; 0 = none was.
    #[inline]
    pub(crate) fn after(&self, seen: u64) -> Option<Publication> {
        let epoch = self.epoch.load(Acquire);
        if epoch == seen { None } else { self.copy(epoch) }
    }

    #[cold]
    fn copy(&self, mut epoch: u64) -> Option<Publication> {
        for _ in 0..TRIES {
            let publication = self.place(epoch).load(epoch);
            // Words of a later publication come to this place after the one between was completed.
            let last = self.epoch.load(Relaxed);
            if last == epoch {
                return Some(publication);
            }
            epoch = self.epoch.load(Acquire);
        }
        None
    }

    /// Publishes, if it is news. Only the health thread may call it.
    pub(crate) fn publish(
        &self,
        (usable, on_trial): (BackendSet, BackendSet),
        (spare, out, silent): (BackendSet, BackendSet, BackendSet),
    ) {
        let sets = [usable, on_trial, spare, out, silent];
        let epoch = self.epoch.load(Relaxed);
        if self.place(epoch).is(&sets) {
            return;
        }
        self.place(epoch + 1).store(&sets);
        self.epoch.store(epoch + 1, Release);
    }

    fn place(&self, epoch: u64) -> &Place {
        &self.places[usize::from(!epoch.is_multiple_of(2))]
    }
}

impl Place {
    fn new(usable: &BackendSet) -> Place {
        let words = |set: &BackendSet| std::array::from_fn(|at| AtomicU64::new(set.words()[at]));
        let [on_trial, spare, out, silent] = std::array::from_fn(|_| words(&BackendSet::EMPTY));
        Place { usable: words(usable), on_trial, spare, out, silent }
    }

    fn each(&self) -> [&Words; 5] {
        [&self.usable, &self.on_trial, &self.spare, &self.out, &self.silent]
    }

    fn is(&self, sets: &[BackendSet; 5]) -> bool {
        let is = |(words, set): (&Words, &BackendSet)| {
            words.iter().zip(set.words()).all(|(word, of)| word.load(Relaxed) == *of)
        };
        self.each().into_iter().zip(sets).all(is)
    }

    fn store(&self, sets: &[BackendSet; 5]) {
        for (word, of) in
            self.each().into_iter().zip(sets).flat_map(|(words, set)| words.iter().zip(set.words()))
        {
            if word.load(Relaxed) != *of {
                // Release: ordered after the end of the publication before.
                word.store(*of, Release);
            }
        }
    }

    fn load(&self, epoch: u64) -> Publication {
        let [usable, on_trial, spare, out, silent] = self.each().map(load);
        Publication { epoch, usable, on_trial, spare, out, silent }
    }
}

fn load(cells: &Words) -> BackendSet {
    let mut words = [0; WORDS];
    for (word, cell) in words.iter_mut().zip(cells) {
        // Acquire: a reader that sees a word of a later publication sees that the one before it was
        // completed.
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
    fn a_reader_sees_a_whole_publication_however_many_come_meanwhile_and_at_last_the_last() {
        every_order(|| {
            let published = Arc::new(Published::new(&BackendSet::first(65)));
            let reader = Arc::clone(&published);
            // Two words apart: torn, there would be neither or both.
            let known = [(3, set(&[0])), (4, set(&[1])), (5, set(&[64]))];
            let publish = |(_, usable): (u64, BackendSet)| {
                let none = set(&[]);
                published.publish((usable, none), (none, none, none));
            };
            publish(known[0]);
            let reading = spawn(move || {
                // The first was complete, whatever has become of the others.
                let news = reader.after(2).unwrap();
                assert!(known.contains(&(news.epoch, news.usable)), "{news:?}");
                news.epoch
            });
            publish(known[1]);
            publish(known[2]);
            let seen = reading.join().unwrap();
            match published.after(seen) {
                Some(last) => assert_eq!((last.epoch, last.usable), known[2]),
                None => assert_eq!(seen, 5),
            }
        });
    }
}
