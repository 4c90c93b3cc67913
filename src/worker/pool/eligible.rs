//! The backends of a pool that this core can ask, as sets.
//!
//! Three facts make them: which have an address, which may be asked according to the health thread,
//! and which refused this core a connection a moment ago. The first two are combined when one of
//! them changes, as each set costs every pick; the third is local to this core.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use crate::base::{backend_set::BackendSet, ids::BackendId, moment::Tick};
use crate::shared::standing::Publication;

/// How long a backend that refused a connection is skipped by the core that it refused; then one
/// request finds out whether it is back.
const REFUSED: Duration = Duration::from_secs(1);

/// The backends of a pool that this core can ask.
pub(super) struct Eligible {
    /// Those with an address: a name that does not resolve has none.
    reachable: Cell<BackendSet>,
    /// Those that have one and may be asked.
    usable: Cell<BackendSet>,
    /// Those that have one and may be asked with a permit.
    on_trial: Cell<BackendSet>,
    /// Whether there are any of these, and since when.
    has_trials: Cell<bool>,
    trials_since: Cell<Option<Tick>>,
    /// The last publication of the health thread that this core has seen, and its epoch; 0 = none.
    published: Cell<Option<Publication>>,
    epoch: Cell<u64>,
    /// Those that were taken out, and which requests wait there does not know yet.
    lost: Cell<BackendSet>,
    /// Those that refused this core a connection a moment ago, and until when each is skipped.
    refusing: Cell<BackendSet>,
    refusing_until: RefCell<Vec<Option<Tick>>>,
}

impl Eligible {
    /// No backend has an address yet, and nothing was published.
    pub(super) fn new() -> Eligible {
        Eligible {
            reachable: Cell::new(BackendSet::EMPTY),
            usable: Cell::new(BackendSet::EMPTY),
            on_trial: Cell::new(BackendSet::EMPTY),
            has_trials: Cell::new(false),
            trials_since: Cell::new(None),
            published: Cell::new(None),
            epoch: Cell::new(0),
            lost: Cell::new(BackendSet::EMPTY),
            refusing: Cell::new(BackendSet::EMPTY),
            refusing_until: RefCell::default(),
        }
    }

    /// Those that may be asked.
    #[inline]
    pub(super) fn usable(&self) -> BackendSet {
        self.usable.get()
    }

    /// Whether a backend has an address.
    pub(super) fn has_address(&self, id: BackendId) -> bool {
        self.reachable.get().contains(id)
    }

    /// Those that may be asked with a permit.
    pub(super) fn on_trial(&self) -> BackendSet {
        self.on_trial.get()
    }

    /// Those that may be asked, with or without a permit.
    pub(super) fn can_be_asked(&self) -> BackendSet {
        self.usable() | self.on_trial()
    }

    /// Whether there are any that may be asked with a permit.
    #[inline]
    pub(super) fn has_trials(&self) -> bool {
        self.has_trials.get()
    }

    /// When the last of them went on trial.
    pub(super) fn trials_since(&self) -> Option<Tick> {
        self.trials_since.get()
    }

    /// Those that are left out for their answers alone.
    pub(super) fn spare(&self) -> BackendSet {
        let spare = self.published.get().map_or(BackendSet::EMPTY, |published| published.spare);
        spare & self.reachable.get()
    }

    /// Those that have answered nobody for suspiciously long.
    pub(super) fn silent(&self) -> BackendSet {
        self.published.get().map_or(BackendSet::EMPTY, |published| published.silent)
    }

    /// The epoch of the last publication that this core knows; 0 = none.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// A backend has become reachable at an address, or has none any more.
    pub(super) fn move_to(&self, id: BackendId, is_reachable: bool) {
        let mut reachable = self.reachable.get();
        if is_reachable {
            reachable.insert(id);
        } else {
            reachable.remove(id);
        }
        self.reachable.set(reachable);
        self.combine();
        // The new addresses have refused nothing yet.
        self.passes_over(id, None);
    }

    /// Takes over a publication. Returns the backends that it makes usable again, and those that it
    /// takes out; none if it is the first that this core sees, as then no backend returns.
    pub(super) fn learn(&self, news: Publication, now: Tick) -> Option<(BackendSet, BackendSet)> {
        self.epoch.set(news.epoch);
        let before = self.published.replace(Some(news));
        let were = before.map_or(BackendSet::EMPTY, |before| before.on_trial);
        if !(news.on_trial & !were).is_empty() {
            self.trials_since.set(Some(now));
        }
        self.combine();
        let before = before?;
        let returned = news.usable & !before.usable;
        let lost = news.out & !before.out;
        self.lost.set(self.lost.get() | lost);
        for id in returned.iter() {
            // Although it refused before, it is reported to be back.
            self.passes_over(id, None);
        }
        Some((returned, lost))
    }

    /// Whether any were taken out since `take_lost`.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.get().is_empty()
    }

    /// Those that were taken out since the last call.
    pub(super) fn take_lost(&self) -> BackendSet {
        self.lost.replace(BackendSet::EMPTY)
    }

    fn combine(&self) {
        let reachable = self.reachable.get();
        let published = self.published.get();
        self.usable.set(published.map_or(reachable, |who| reachable & who.usable));
        self.on_trial.set(published.map_or(BackendSet::EMPTY, |who| reachable & who.on_trial));
        self.has_trials.set(!self.on_trial.get().is_empty());
    }

    /// Records that a backend refused a connection.
    pub(super) fn refused(&self, id: BackendId, now: Tick) {
        let mut refusing = self.refusing.get();
        refusing.insert(id);
        self.refusing.set(refusing);
        self.passes_over(id, Some(now + REFUSED));
    }

    fn passes_over(&self, id: BackendId, until: Option<Tick>) {
        let mut all = self.refusing_until.borrow_mut();
        if until.is_some() && all.len() <= id.index() {
            all.resize(id.index() + 1, None);
        }
        if let Some(place) = all.get_mut(id.index()) {
            *place = until;
        }
    }

    /// Without those that are skipped now; all of them if that leaves none that `takes` new
    /// traffic. Other plans have backends among them that this one does not.
    #[inline]
    pub(super) fn without_refusing(
        &self,
        usable: BackendSet,
        takes: &BackendSet,
        now: Tick,
    ) -> BackendSet {
        if self.refusing.get().is_empty() {
            return usable;
        }
        let without_refusing = usable & !self.refusing(now);
        if (without_refusing & *takes).is_empty() { usable } else { without_refusing }
    }

    /// Those that are skipped now.
    fn refusing(&self, now: Tick) -> BackendSet {
        let mut refusing = self.refusing.get();
        let until = self.refusing_until.borrow();
        for id in self.refusing.get().iter() {
            let until = until.get(id.index()).copied().flatten();
            if until.is_none_or(|until| now >= until) {
                refusing.remove(id);
            }
        }
        self.refusing.set(refusing);
        refusing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    /// A letter each: `abc`.
    fn set(letters: &str) -> BackendSet {
        let mut set = BackendSet::EMPTY;
        letters.bytes().for_each(|letter| set.insert(BackendId(u16::from(letter - b'a'))));
        set
    }

    fn id(letter: char) -> BackendId {
        BackendId(letter as u16 - u16::from(b'a'))
    }

    /// Three backends that have an address, of which nothing was published.
    fn three() -> Eligible {
        let eligible = Eligible::new();
        "abc".chars().for_each(|letter| eligible.move_to(id(letter), true));
        eligible
    }

    /// All that are neither usable nor on trial are out.
    fn publication(epoch: u64, usable: &str, on_trial: &str, spare: &str) -> Publication {
        let (usable, on_trial, spare) = (set(usable), set(on_trial), set(spare));
        let (out, silent) = (set("abc") & !(usable | on_trial), set(""));
        Publication { epoch, usable, on_trial, spare, out, silent }
    }

    #[test]
    fn who_has_no_address_is_asked_by_nobody_whatever_is_published() {
        let eligible = Eligible::new();
        assert!(eligible.usable().is_empty());
        eligible.move_to(id('a'), true);
        eligible.move_to(id('c'), true);
        assert_eq!(eligible.usable(), set("ac"));
        assert_eq!(eligible.learn(publication(2, "ab", "c", "bc"), at(5)), None);
        assert_eq!(eligible.usable(), set("a"));
        assert_eq!((eligible.on_trial(), eligible.spare()), (set("c"), set("c")));
        eligible.move_to(id('b'), true);
        eligible.move_to(id('c'), false);
        assert_eq!(eligible.usable(), set("ab"));
        assert_eq!((eligible.on_trial(), eligible.spare()), (set(""), set("b")));
        assert!(!eligible.has_trials());
    }

    #[test]
    fn who_comes_back_is_named_but_not_by_the_first_that_is_heard() {
        let eligible = three();
        assert_eq!(eligible.learn(publication(2, "abc", "", ""), at(1)), None);
        let learn = |epoch, usable, on_trial| {
            eligible.learn(publication(epoch, usable, on_trial, ""), at(epoch))
        };
        assert_eq!(learn(4, "a", ""), Some((set(""), set("bc"))));
        assert_eq!(learn(6, "ab", "c"), Some((set("b"), set(""))));
        assert_eq!(learn(8, "b", "c"), Some((set(""), set("a"))));
        assert_eq!((eligible.take_lost(), eligible.take_lost()), (set("abc"), set("")));
        assert_eq!(eligible.epoch(), 8);
    }

    #[test]
    fn trials_are_counted_from_when_the_last_began() {
        let eligible = three();
        let since = |on_trial, now| {
            eligible.learn(publication(now * 2, "a", on_trial, ""), at(now));
            (eligible.has_trials(), eligible.trials_since().map(Tick::millis))
        };
        assert_eq!(since("", 1), (false, None));
        assert_eq!(since("b", 2), (true, Some(2)));
        assert_eq!(since("b", 3), (true, Some(2)));
        assert_eq!(since("bc", 4), (true, Some(4)));
        assert_eq!(since("c", 5), (true, Some(4)));
        assert_eq!(since("", 6), (false, Some(4)));
    }

    #[test]
    fn who_refused_is_passed_over_for_a_second_unless_there_is_nobody_else() {
        let eligible = three();
        let without = |usable: BackendSet, now| eligible.without_refusing(usable, &set("abc"), now);
        eligible.refused(id('a'), at(10));
        assert_eq!(without(set("abc"), at(10)), set("bc"));
        assert_eq!(without(set("a"), at(10)), set("a"), "there is nobody else");
        let of_plan = eligible.without_refusing(set("abc"), &set("a"), at(10));
        assert_eq!(of_plan, set("abc"), "the others are another plan's");
        assert_eq!(without(set("abc"), at(9) + REFUSED), set("bc"));
        assert_eq!(without(set("abc"), at(10) + REFUSED), set("abc"));
    }

    #[test]
    fn who_is_said_to_be_back_or_has_moved_has_refused_nothing() {
        let eligible = three();
        eligible.learn(publication(2, "ab", "", ""), at(1));
        "abc".chars().for_each(|letter| eligible.refused(id(letter), at(2)));
        eligible.learn(publication(4, "abc", "", ""), at(3));
        eligible.move_to(id('b'), true);
        assert_eq!(eligible.without_refusing(set("abc"), &set("abc"), at(4)), set("bc"));
    }
}
