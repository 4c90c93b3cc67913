//! Suspicion: a backend that has answered nobody for far longer than usual is looked at at once.
//!
//! A stopped process or a cut link closes nothing: only silence tells. Silence alone decides
//! nothing, since a long poll is silent, too. Where there are probes, one is sent at once with
//! little time, and what it finds is the verdict. Without probes each further span of silence
//! counts as one failure, of as many requests as wait, and ejection decides as ever. A pool that is
//! silent as a whole is not suspected.
//!
//! Pure: the health thread reads the counts of all cores and the clock. Requests that wait when a
//! silence begins are followed by number: each that ends unanswered may have been one of them.

use std::{cmp::Reverse, fmt, time::Duration};

use crate::base::{
    backend_set::BackendSet,
    ids::BackendId,
    moment::{Tick, millis},
    totals::Tries,
};
use crate::plan::Table;

/// The least silence that may be suspicious: a pause of a garbage collector is none.
pub(crate) const SPAN_MIN: Duration = Duration::from_millis(250);

/// How many times its usual time a backend may be silent.
const TIMES_USUAL: u32 = 8;

/// A silence as people are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Silence {
    /// How long nobody has been answered.
    pub lasted: Duration,
    /// How many requests wait.
    pub waiting: u32,
    /// Nineteen of twenty answers usually begin within this time.
    pub usual: Duration,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lasted, usual) = (millis(self.lasted), self.usual.as_secs_f64() * 1e3);
        write!(f, "no answer for {lasted} ms, usually {usual:.1} ms; {} wait", self.waiting)
    }
}

/// What follows from a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The backend is suspected: it is probed at once, if it is probed at all.
    Suspect(BackendId, Silence),
    /// One more failure counts against it.
    Fail(BackendId),
}

/// What a pool allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Whether probes find out.
    pub(crate) probes: bool,
    /// How many may be suspected at once.
    pub(crate) suspects_max: usize,
}

/// What is known of the silence of one backend.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    last: Tries,
    /// When the present silence was noticed, and the counts of that moment.
    since: Option<(Tick, Tries)>,
    /// Its usual time, as of this silence.
    usual: Option<Duration>,
    is_suspected: bool,
    /// The silence at which it is suspected next; zero = its span.
    next: Duration,
    /// Failures counted for this silence.
    failures: u32,
}

/// The silences of a pool's backends.
#[derive(Default)]
pub(crate) struct Suspicions {
    all: Table<BackendId, Seen>,
    /// Those that have been silent for their span.
    silent: BackendSet,
}

impl Suspicions {
    /// Takes the counts of one backend; returns whether they have changed.
    pub(crate) fn read(&mut self, id: BackendId, tries: Tries, now: Tick) -> bool {
        let Some(seen) = self.all.get_mut(id) else {
            self.all.insert(id, Seen { last: tries, ..Seen::default() });
            return true;
        };
        let is_news = seen.last != tries;
        seen.last = tries;
        if seen.still() == 0 {
            let waits = tries.waiting() > 0;
            *seen = Seen { last: tries, since: waits.then_some((now, tries)), ..Seen::default() };
        }
        is_news
    }

    /// What follows now, of those that take part. `usual` = how long answers of a backend usually
    /// take to begin, if that is known.
    pub(crate) fn decide(
        &mut self,
        sound: &BackendSet,
        bounds: Bounds,
        mut usual: impl FnMut(BackendId) -> Option<Duration>,
        now: Tick,
    ) -> Vec<Deed> {
        self.silent = BackendSet::EMPTY;
        let mut silences = Vec::new();
        for id in sound.iter() {
            let Some(seen) = self.all.get_mut(id) else { continue };
            let Some(lasted) = seen.lasted(now).filter(|lasted| *lasted >= SPAN_MIN) else {
                continue;
            };
            if seen.usual.is_none() {
                seen.usual = usual(id);
            }
            if seen.span().is_some_and(|span| lasted >= span) {
                self.silent.insert(id);
                silences.push((Reverse(lasted), id));
            }
        }
        let most = if bounds.probes { sound.len().saturating_sub(1) } else { bounds.suspects_max };
        if silences.is_empty() || silences.len() > most || silences.len() == sound.len() {
            self.silent = BackendSet::EMPTY;
            return Vec::new();
        }
        silences.sort_unstable();
        let silent = self.silent;
        let is_suspect =
            |(id, seen): &(BackendId, &Seen)| seen.is_suspected && silent.contains(*id);
        let mut suspects = self.all.iter().filter(is_suspect).count();
        let mut deeds = Vec::new();
        for (Reverse(lasted), id) in silences {
            let Some(seen) = self.all.get_mut(id) else { continue };
            let (Some(usual), Some(span)) = (seen.usual, seen.span()) else { continue };
            if !seen.is_suspected && lasted >= seen.next && suspects < bounds.suspects_max {
                seen.is_suspected = true;
                suspects += 1;
                let waiting = seen.last.waiting();
                deeds.push(Deed::Suspect(id, Silence { lasted, waiting, usual }));
            }
            if !bounds.probes && seen.fails(lasted, span) {
                seen.failures += 1;
                deeds.push(Deed::Fail(id));
            }
        }
        deeds
    }

    /// Whether a backend is suspected.
    pub(crate) fn is_suspected(&self, id: BackendId) -> bool {
        self.all.get(id).is_some_and(|seen| seen.is_suspected)
    }

    /// A probe has found it well: it is suspected again when its silence is twice as long.
    pub(crate) fn clear(&mut self, id: BackendId, now: Tick) {
        if let Some(seen) = self.all.get_mut(id)
            && std::mem::take(&mut seen.is_suspected)
        {
            seen.next = seen.lasted(now).unwrap_or_default() * 2;
        }
    }

    /// Those that are silent while others answer.
    pub(crate) fn silent(&self) -> BackendSet {
        self.silent
    }

    /// Whether anything waits for an answer.
    pub(crate) fn waits(&self) -> bool {
        self.all.values().any(|seen| seen.last.waiting() > 0)
    }

    /// A backend is gone.
    pub(crate) fn forget(&mut self, id: BackendId) {
        self.all.remove(id);
        self.silent.remove(id);
    }
}

impl Seen {
    /// How many of the requests that waited when its silence began wait still, at least.
    fn still(&self) -> u32 {
        let Some((_, first)) = self.since else { return 0 };
        if self.last.answers != first.answers {
            return 0;
        }
        first.waiting().saturating_sub(self.last.left.wrapping_sub(first.left))
    }

    fn lasted(&self, now: Tick) -> Option<Duration> {
        self.since.map(|(since, _)| now.since(since))
    }

    /// The silence that is suspicious.
    fn span(&self) -> Option<Duration> {
        self.usual.map(|usual| SPAN_MIN.max(usual * TIMES_USUAL))
    }

    /// Whether one more failure counts: one for each further span, and for each request that waits.
    fn fails(&self, lasted: Duration, span: Duration) -> bool {
        self.failures < self.still() && lasted >= span * (self.failures + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 25;
    const PROBED: Bounds = Bounds { probes: true, suspects_max: 1 };
    const UNPROBED: Bounds = Bounds { probes: false, suspects_max: 1 };

    /// A pool whose backends all usually answer within this time, in steps of the clock.
    struct Scene {
        suspicions: Suspicions,
        tries: Vec<Tries>,
        usual: Option<Duration>,
        bounds: Bounds,
        now: u64,
    }

    impl Scene {
        fn new(backends: usize, usual_ms: u64, bounds: Bounds) -> Scene {
            let usual = Some(Duration::from_millis(usual_ms));
            let (suspicions, tries) = (Suspicions::default(), vec![Tries::default(); backends]);
            Scene { suspicions, tries, usual, bounds, now: 0 }
        }

        /// The millisecond of each deed until `until`, with the backend: negative for a failure.
        fn play(&mut self, until: u64, each: impl Fn(&mut [Tries])) -> Vec<(u64, i32)> {
            let sound: BackendSet = (0..self.tries.len() as u16).map(BackendId).collect();
            let mut all = Vec::new();
            while self.now < until {
                self.now += STEP;
                each(&mut self.tries);
                let now = Tick::from_millis(self.now);
                for (id, tries) in (0..).map(BackendId).zip(&self.tries) {
                    self.suspicions.read(id, *tries, now);
                }
                for deed in self.suspicions.decide(&sound, self.bounds, |_| self.usual, now) {
                    all.push((
                        self.now,
                        match deed {
                            Deed::Suspect(id, _) => i32::from(id.0),
                            Deed::Fail(id) => -i32::from(id.0),
                        },
                    ));
                }
            }
            all
        }
    }

    /// A backend answers whoever it was asked by.
    fn serves(tries: &mut Tries) {
        tries.asked += 1;
        tries.answers += 1;
    }

    #[test]
    fn who_answers_nobody_for_a_span_is_suspected_once_and_again_at_twice_that() {
        for (usual, span) in [(1, 250), (100, 800)] {
            let mut scene = Scene::new(3, usual, PROBED);
            let mut told = Vec::new();
            while scene.now < 4 * span + 500 {
                let deeds = scene.play(scene.now + STEP, |tries| {
                    tries[0].asked += 1;
                    tries[1..].iter_mut().for_each(serves);
                });
                // A probe finds it well at once.
                scene.suspicions.clear(BackendId(0), Tick::from_millis(scene.now));
                told.extend(deeds);
            }
            // It is noticed in the second step.
            let due = [span, 2 * span, 4 * span].map(|lasted| (lasted + 2 * STEP, 0));
            assert_eq!(told, due);
        }
    }

    #[test]
    fn who_answers_anybody_is_not_suspected_whoever_waits() {
        let mut scene = Scene::new(3, 1, PROBED);
        scene.tries[0].asked = 7;
        assert_eq!(scene.play(5_000, |tries| tries.iter_mut().for_each(serves)), []);
    }

    #[test]
    fn who_is_asked_nothing_is_not_silent() {
        let mut scene = Scene::new(3, 1, PROBED);
        assert_eq!(scene.play(5_000, |tries| serves(&mut tries[1])), []);
        assert!(scene.suspicions.silent().is_empty());
    }

    /// Each that leaves may be one of those that waited when the silence began.
    #[test]
    fn those_that_leave_unanswered_were_perhaps_the_ones_that_waited() {
        let mut scene = Scene::new(3, 1, PROBED);
        let told = scene.play(5_000, |tries| {
            tries[0].asked += 1;
            tries[0].left = tries[0].asked - 1;
            serves(&mut tries[1]);
        });
        assert_eq!(told, []);
    }

    #[test]
    fn what_is_usual_must_be_known() {
        let mut scene = Scene::new(3, 1, PROBED);
        scene.usual = None;
        assert_eq!(scene.play(5_000, |tries| tries[0].asked += 1), []);
    }

    #[test]
    fn a_pool_that_is_silent_as_a_whole_is_not_suspected() {
        for (silent, bounds, is_suspected) in [
            (3, PROBED, false),
            // With probes, which find out, one after the other.
            (2, PROBED, true),
            (2, UNPROBED, false),
            (1, UNPROBED, true),
        ] {
            let mut scene = Scene::new(3, 1, bounds);
            let told = scene.play(260 + STEP, |tries| {
                tries[..silent].iter_mut().for_each(|tries| tries.asked += 1);
                tries[silent..].iter_mut().for_each(serves);
            });
            assert_eq!(!told.is_empty(), is_suspected, "{silent} {bounds:?}");
            assert!(told.len() <= 1, "one at a time: {told:?}");
        }
    }

    #[test]
    fn without_probes_each_further_span_is_a_failure_of_one_that_waits() {
        for (waiting, failures) in [(1, 1), (2, 2), (9, 9)] {
            let mut scene = Scene::new(3, 1, UNPROBED);
            scene.tries[1].asked = waiting;
            let told = scene.play(5_000, |tries| serves(&mut tries[0]));
            assert_eq!(told[0].1, 1, "suspected first");
            let failed: Vec<u64> =
                told.iter().filter(|(_, who)| *who == -1).map(|(at, _)| *at).collect();
            assert_eq!(failed.len(), failures, "{told:?}");
            assert!(failed.iter().zip(2..).all(|(at, span)| *at >= span * 250), "{told:?}");
        }
    }

    #[test]
    fn an_answer_ends_a_silence() {
        let mut scene = Scene::new(2, 1, UNPROBED);
        scene.tries[0].asked = 5;
        assert_eq!(scene.play(600, |tries| serves(&mut tries[1])).len(), 2);
        scene.tries[0].answers += 1;
        assert_eq!(scene.play(800, |tries| serves(&mut tries[1])), []);
        assert!(!scene.suspicions.is_suspected(BackendId(0)));
        assert_eq!(scene.play(950, |tries| serves(&mut tries[1])).len(), 1, "another begins");
    }
}
