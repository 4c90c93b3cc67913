//! Tests of standing: played step by step, and at random with every invariant checked.
//!
//! A play is a few words (`Stage::play`), its result a letter for each backend. No clock and no
//! thread: time passes from one due event to the next, as the health thread sleeps.

use std::time::Duration;

use super::*;
use crate::plan::{self, Address, Backend, Breaker, Health, Passive, Share};

/// A pool's standing, its totals and the time.
struct Stage {
    standing: Standing,
    totals: Vec<Totals>,
    now: u64,
}

/// Backends `a`, `b`, …, this many; `shape` changes the rest of the pool.
fn stage(backends: u16, shape: impl Fn(&mut Pool)) -> Stage {
    let address = Address::Socket(([127, 0, 0, 1], 3000).into());
    let mut pool = Pool {
        backends: (0..backends).map(|id| Backend::new(id.to_string(), address.clone())).collect(),
        health: Some(Health::default()),
        ..Pool::default()
    };
    shape(&mut pool);
    let totals = vec![Totals::default(); usize::from(backends)];
    Stage { standing: Standing::new(&pool, 1, at(0)), totals, now: 0 }
}

fn at(millis: u64) -> Tick {
    Tick::from_millis(millis)
}

fn id(letter: char) -> BackendId {
    BackendId(u16::from(u8::try_from(letter).unwrap() - b'a'))
}

impl Stage {
    /// Plays words: `a:xxo` requests of `a` that fail or succeed, reported one by one, `l` one that
    /// fails late; `a:+-` probes; `a:tf` trials that succeed or fail; `a:!?` its name loses its
    /// addresses, and gets one again; `5s` or `5ms` passes.
    fn play(&mut self, words: &str) -> &mut Stage {
        for word in words.split_whitespace() {
            match word.split_once(':') {
                Some((backend, steps)) => {
                    let backend = id(backend.chars().next().unwrap());
                    steps.chars().for_each(|step| self.step(backend, step));
                }
                None => {
                    let unit = word.trim_start_matches(|letter: char| letter.is_ascii_digit());
                    let number: u64 = word[..word.len() - unit.len()].parse().unwrap();
                    self.pass(number * if unit == "s" { 1_000 } else { 1 });
                }
            }
        }
        self
    }

    fn step(&mut self, backend: BackendId, step: char) {
        let totals = &mut self.totals[backend.index()];
        match step {
            'o' => totals.ok += 1,
            'x' => totals.failed += 1,
            'l' => totals.late += 1,
            '+' => self.standing.probed(backend, Ok(()), at(self.now)),
            '-' => self.standing.probed(backend, Err(ProbeFault::Timeout), at(self.now)),
            't' => self.standing.tried(backend, true, at(self.now)),
            'f' => self.standing.tried(backend, false, at(self.now)),
            '!' | '?' => self.standing.addressed(backend, step == '?'),
            _ => panic!("{step}"),
        }
        if matches!(step, 'x' | 'l') {
            self.standing.failed(backend, (*totals, None), at(self.now));
        }
        self.standing.check_invariants();
    }

    /// Time passes, from one due event to the next.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        let due = |tick: Option<Tick>| tick.map(Tick::millis).filter(|due| *due <= end);
        while let Some(due) = due(self.standing.turn(at(self.now)).tick()) {
            assert!(due > self.now, "something stays due: the thread would never sleep");
            self.now = due;
        }
        self.now = end;
        self.standing.check_invariants();
    }

    /// For each backend: `u`sable, on `t`rial (or `s` and a `T` if it is also spare), `s`pare or
    /// out.
    #[track_caller]
    fn sees(&mut self, expected: &str) -> &mut Stage {
        let letter = |id: BackendId| match () {
            () if self.standing.usable().contains(id) => 'u',
            () if self.standing.on_trial().contains(id) => 't',
            () if self.standing.spare().contains(id) => 's',
            () => '-',
        };
        let seen: String = self.standing.ids().map(letter).collect();
        assert_eq!(seen, expected, "at {} ms, {:?}", self.now, self.standing.changes);
        self
    }

    /// What was reported since the last time.
    #[track_caller]
    fn told(&mut self, expected: &[&str]) -> &mut Stage {
        let told: Vec<String> = self.standing.changes().map(|change| said(&change)).collect();
        assert_eq!(told, expected);
        self
    }

    #[track_caller]
    fn periods(&mut self, expected: &[Period]) -> &mut Stage {
        assert_eq!(self.standing.periods().collect::<Vec<_>>(), expected);
        self
    }
}

fn said(change: &Change) -> String {
    match change {
        Change::Backend { backend: BackendId(place), from, to, cause, lasted } => {
            let letter = char::from(b'a' + u8::try_from(*place).unwrap());
            format!("{letter} {from:?}-{to:?} by {cause:?} after {}", lasted.as_millis())
        }
        Change::Pool { from, to, sound, of } => format!("{from:?}-{to:?}, {sound} of {of}"),
    }
}

fn breaker(pool: &mut Pool) {
    pool.passive.failures_max = 0;
    pool.breaker = Some(Breaker { requests_min: 4, ..Breaker::default() });
}

#[test]
fn probes_take_out_and_bring_back() {
    stage(2, |_| ())
        .play("a:+ b:+ 5s a:--")
        .sees("uu")
        .play("a:-")
        .sees("-u")
        .told(&["a Up-Down by Probe(Timeout) after 5000"])
        .play("5s a:+")
        .sees("-u")
        .play("1s a:+")
        .sees("uu")
        .told(&["a Down-Up by Probes after 6000"]);
}

#[test]
fn who_never_worked_is_out_after_one_probe_even_if_nobody_is_left() {
    stage(2, |_| ()).play("a:-").sees("-u").play("b:-").sees("--").play("b:++").sees("-u");
}

#[test]
fn a_backend_that_flaps_changes_no_more_often_than_rise_and_fall_allow() {
    let mut stage = stage(2, |_| ());
    stage.play("a:+ b:+ a:-+--+--+-+-+").sees("uu").told(&[]);
    stage.play("a:--- a:+-+-+-").sees("-u");
    assert_eq!(stage.standing.changes().count(), 1);
}

#[test]
fn three_failures_in_a_row_eject_and_one_trial_brings_back() {
    let begins = Period::Begins(BackendId(0), 1);
    stage(2, |_| ())
        .play("a:ooxxoxx")
        .sees("uu")
        .play("a:x")
        .sees("su")
        .told(&["a Admitted-Ejected by Failures(3, None) after 0"])
        .periods(&[])
        .play("8999ms")
        .sees("su")
        .play("2001ms")
        .sees("tu")
        .periods(&[begins])
        .play("a:t")
        .sees("uu")
        .periods(&[Period::Ends(BackendId(0))]);
}

#[test]
fn a_trial_that_fails_ejects_for_longer_and_one_that_nobody_decides_does_nothing() {
    stage(2, |_| ())
        .play("a:xxx 11s")
        .sees("tu")
        .play("1000s")
        .sees("tu")
        .play("a:f")
        .sees("su")
        .play("17s")
        .sees("su")
        .play("5s")
        .sees("tu")
        // A trial of an earlier period, had it come through, would find no backend on trial.
        .play("a:f b:t b:f a:f")
        .sees("su");
}

#[test]
fn nobody_is_ejected_where_that_is_off() {
    stage(2, |pool| pool.passive.failures_max = 0).play("a:xxxxxxxxx").sees("uu");
}

#[test]
fn the_last_usable_backend_stays() {
    stage(1, |_| ()).play("a:xxxxxx").sees("u");
    let half = |pool: &mut Pool| pool.passive.ejected_max = Share::percent(100);
    stage(3, half).play("a:xxx b:xxx c:xxxxxx").sees("ssu");
    // A backend without weight takes no new traffic: it does not count as another.
    let weightless = |pool: &mut Pool| pool.backends.get_mut(BackendId(1)).unwrap().weight = 0;
    stage(2, weightless).play("a:xxxxxx").sees("uu").play("b:xxx").sees("us");
    // Nor does one without an address, or down.
    stage(2, |_| ()).play("b:! a:xxxx").sees("u-").play("b:? a:x").sees("su");
    stage(2, |_| ()).play("b:- a:xxxx").sees("u-");
}

#[test]
fn no_more_than_their_share_are_ejected_at_once() {
    stage(3, |_| ()).play("a:xxx b:xxxx").sees("suu").play("11s a:t b:x").sees("usu");
    stage(4, |_| ()).play("a:xxx b:xxx c:xxxx").sees("ssuu").play("11s").sees("ttuu");
}

#[test]
fn where_nobody_else_is_left_ejection_does_not_count() {
    stage(2, |_| ())
        .play("a:+xxx b:+")
        .sees("su")
        .play("b:---")
        .sees("u-")
        .play("b:++")
        .sees("su")
        .told(&[
            "a Admitted-Ejected by Failures(3, None) after 0",
            "b Up-Down by Probe(Timeout) after 0",
            "Strict-Lenient, 0 of 2",
            "b Down-Up by Probes after 0",
            "Lenient-Strict, 1 of 2",
        ]);
    // Also while it waits for its trial: then there is none until there is another backend.
    stage(2, |_| ()).play("a:xxx 11s").sees("tu").play("b:-").sees("u-").play("b:++").sees("tu");
}

#[test]
fn where_the_last_fails_too_the_ejected_are_tried() {
    stage(2, |_| ())
        .play("a:xxx 999ms b:xxx")
        .sees("su")
        .play("1ms b:x")
        .sees("tu")
        .play("a:t b:x")
        .sees("us")
        .told(&[
            "a Admitted-Ejected by Failures(3, None) after 0",
            "a Ejected-Returning by NobodyElse after 1000",
            "a Returning-Admitted by TrialOk after 0",
            "b Admitted-Ejected by Failures(5, None) after 1000",
        ]);
    // If all are dead that goes on once a second, however much fails.
    stage(2, |_| ()).play("a:xxx 1s b:xxxx a:f b:xxxx").sees("su").play("1s b:x").sees("tu");
}

#[test]
fn who_falls_and_rises_while_it_is_ejected_may_try_at_once() {
    stage(2, |_| ())
        .play("a:+xxx")
        .sees("su")
        .play("a:++")
        .sees("su")
        .play("a:---")
        .sees("-u")
        .play("a:++")
        .sees("tu")
        .play("a:t")
        .sees("uu");
}

#[test]
fn an_ejected_backend_is_no_spare_while_it_is_down() {
    stage(2, |_| ()).play("a:+xxx a:--- 20s").sees("-u").play("b:!").sees("--");
}

#[test]
fn a_breaker_opens_lets_trials_through_and_closes() {
    stage(2, breaker)
        .play("a:oxx")
        .sees("uu")
        .play("a:x")
        .sees("-u")
        .told(&["a Closed-Open by Ratio { failed: 3, requests: 4 } after 0"])
        .play("6s")
        .sees("tu")
        .periods(&[Period::Begins(BackendId(0), 1)])
        .play("a:t")
        .sees("tu")
        .periods(&[])
        .play("a:t")
        .sees("uu")
        .periods(&[Period::Ends(BackendId(0))])
        .play("a:xxx")
        .sees("uu");
}

#[test]
fn half_open_a_failure_opens_again_and_there_are_as_many_permits_as_probes() {
    let probes = |pool: &mut Pool| {
        breaker(pool);
        pool.breaker.as_mut().unwrap().probes = 3;
    };
    let period = [Period::Begins(BackendId(0), 3), Period::Ends(BackendId(0))];
    stage(2, probes).play("a:xxxx 6s a:tf").sees("-u").periods(&period).play("8s").sees("-u");
}

#[test]
fn the_last_is_not_stopped_unless_the_plan_allows_it() {
    stage(1, breaker).play("a:xxxxxxxx").sees("u");
    stage(2, breaker).play("a:xxxx b:xxxxxx").sees("-u").play("b:-").sees("u-");
    let empty = |pool: &mut Pool| {
        breaker(pool);
        pool.breaker.as_mut().unwrap().allow_empty = true;
    };
    stage(1, empty).play("a:xxxx").sees("-").play("6s").sees("t").play("a:tt").sees("u");
}

#[test]
fn ejection_gives_way_before_a_breaker_does() {
    let both = |pool: &mut Pool| {
        breaker(pool);
        pool.passive = Passive::default();
    };
    stage(3, both).play("a:xxx b:xoxx").sees("s-u").play("c:-").sees("u--").play("a:!").sees("-u-");
}

#[test]
fn who_falls_and_rises_while_its_breaker_is_open_may_try_at_once() {
    stage(2, breaker).play("a:+xxxx a:---").sees("-u").play("a:++").sees("tu");
}

#[test]
fn an_ejected_one_with_an_open_breaker_passes_both() {
    let both = |pool: &mut Pool| {
        breaker(pool);
        pool.breaker.as_mut().unwrap().probes = 2;
        pool.passive = Passive { failures_max: 4, ..Passive::default() };
    };
    let (a, one, two) = (BackendId(0), 1, 2);
    stage(2, both)
        .play("a:xxxx 6s")
        .sees("-u")
        .play("6s")
        .sees("tu")
        .periods(&[Period::Begins(a, one)])
        .play("a:t")
        .sees("tu")
        .periods(&[Period::Begins(a, two)])
        .play("a:t")
        .sees("uu")
        .periods(&[Period::Ends(a)]);
}

#[test]
fn below_its_share_all_are_used_and_probes_go_on() {
    let panic = |pool: &mut Pool| pool.panic = Share::percent(50);
    stage(3, panic)
        .play("a:+--- b:+ c:+")
        .sees("-uu")
        .play("b:---")
        .sees("uuu")
        .play("b:+")
        .sees("uuu")
        .play("b:+")
        .sees("-uu")
        .told(&[
            "a Up-Down by Probe(Timeout) after 0",
            "b Up-Down by Probe(Timeout) after 0",
            "Strict-Panic, 1 of 3",
            "b Down-Up by Probes after 0",
            "Panic-Strict, 2 of 3",
        ]);
    // An ejected backend is used, one without an address or with an open breaker is not.
    let both = |pool: &mut Pool| {
        breaker(pool);
        panic(pool);
    };
    stage(4, both).play("a:xxxx b:!").sees("--uu").play("c:-").sees("--uu").play("6s").sees("t-uu");
}

#[test]
fn a_backup_that_can_answer_comes_before_a_panic() {
    let with_backup = |pool: &mut Pool| {
        pool.panic = Share::percent(60);
        pool.backends.get_mut(BackendId(3)).unwrap().backup = true;
    };
    // One primary of three is left: all are asked. None is: the backup is, and without it all.
    let mut stage = stage(4, with_backup);
    stage.play("a:- b:-").sees("uuuu").play("c:-").sees("---u").play("d:-").sees("uuuu");
    stage.play("d:++").sees("---u").play("c:++").sees("uuuu");
}

#[test]
fn names_give_and_take_addresses() {
    let named = |pool: &mut Pool| {
        pool.backends.get_mut(BackendId(0)).unwrap().address =
            Address::Name { host: "app".into(), port: 80 };
    };
    stage(2, named).sees("-u").play("a:?").sees("uu").play("a:!").sees("-u").told(&[]);
}

#[test]
fn an_unknown_backend_changes_nothing() {
    let mut stage = stage(1, |_| ());
    let unknown = BackendId(1);
    stage.standing.probed(unknown, Err(ProbeFault::Reset), at(1));
    let totals = Totals { failed: 9, ..Totals::default() };
    stage.standing.failed(unknown, (totals, None), at(1));
    stage.standing.tried(unknown, false, at(1));
    stage.standing.addressed(unknown, false);
    assert_eq!(stage.standing.interval(unknown), Duration::MAX);
    stage.sees("u").told(&[]);
}

/// Pools of all shapes, with any events in any order; `RINGWAY_SEEDS` sets the number of seeds.
#[test]
fn whatever_happens_the_invariants_hold() {
    let seeds = std::env::var("RINGWAY_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(256) {
        println!("seed {seed}");
        happens(&mut Rng::seeded(seed));
    }
}

fn happens(rng: &mut Rng) {
    let backends = [1, 2, 3, 4, 70][rng.below(5) as usize];
    let shape = [rng.below(3), rng.below(4), rng.below(3), rng.below(2)];
    let mut stage = stage(backends, |pool| {
        pool.passive.failures_max = u16::try_from(shape[0]).unwrap();
        pool.panic = Share::percent([0, 0, 30, 100][shape[1] as usize]);
        pool.passive.ejected_max = Share::percent([0, 50, 100][shape[2] as usize]);
        pool.breaker = (shape[1] > 0).then(|| plan::Breaker {
            requests_min: 3,
            probes: 2,
            allow_empty: shape[3] > 0,
            ..Breaker::default()
        });
        pool.backends.get_mut(BackendId(0)).unwrap().weight = u16::try_from(shape[3]).unwrap();
        pool.backends.get_mut(BackendId(backends / 2)).unwrap().backup = shape[2] == 1;
    });
    let mut states: Vec<[State; 3]> =
        stage.standing.slots.values().map(|slot| slot.states()).collect();
    let mut on_trial = BackendSet::EMPTY;
    for _ in 0..400 {
        if rng.below(6) == 0 {
            stage.pass(u64::from(rng.below(8_000)));
        } else {
            let backend = BackendId(u16::try_from(rng.below(backends.into())).unwrap());
            let step = b"ooxxx++---tf!??"[rng.below(15) as usize];
            stage.step(backend, step.into());
        }
        follow(&mut stage, &mut states, &mut on_trial);
    }
}

/// The reported changes lead from the old state to the new.
fn follow(stage: &mut Stage, states: &mut [[State; 3]], on_trial: &mut BackendSet) {
    for change in stage.standing.changes() {
        if let Change::Backend { backend, from, to, .. } = change {
            let way = states[backend.index()].iter_mut().find(|state| **state == from);
            *way.unwrap_or_else(|| panic!("it was not {from:?}")) = to;
        }
    }
    for (known, slot) in states.iter().zip(stage.standing.slots.values()) {
        assert_eq!(*known, slot.states());
    }
    for period in stage.standing.periods() {
        match period {
            Period::Begins(id, permits) => {
                assert!(permits > 0);
                on_trial.insert(id);
            }
            Period::Ends(id) => {
                assert!(on_trial.contains(id), "{id:?} ends what never began");
                on_trial.remove(id);
            }
        }
    }
    assert_eq!(*on_trial, stage.standing.on_trial());
}

/// A core counts the results of its trials in its row, like those of every request.
#[test]
fn trials_that_failed_do_not_count_once_a_breaker_is_closed() {
    let mut stage = stage(3, |pool| {
        pool.passive.failures_max = 0;
        pool.breaker = Some(Breaker { requests_min: 4, ..Breaker::default() });
    });
    stage.play("a:xxxx").sees("-uu");
    for _ in 0..4 {
        stage.play("70s").sees("tuu");
        stage.totals[0].failed += 1;
        stage.play("a:f").sees("-uu");
    }
    stage.play("70s a:tt").sees("uuu");
    stage.totals[0].ok += 2;
    stage.play("a:x").sees("uuu");
}

#[test]
fn a_backup_that_nobody_asks_returns_by_itself_and_keeps_nobody_from_being_ejected() {
    let mut stage = stage(3, |pool| pool.backends.get_mut(BackendId(2)).unwrap().backup = true);
    stage.play("c:xxx").sees("uus");
    stage.play("600s").sees("uuu");
    stage.play("a:xxx").sees("suu");
}

#[test]
fn a_seat_without_a_backend_is_never_asked() {
    let mut stage = stage(4, |pool| drop(pool.backends.remove(BackendId(1))));
    stage.sees("u-uu").play("b:xxx b:++-- b:?").sees("u-uu");
    stage
        .play("a:xxx c:xxx")
        .sees("s-uu")
        .told(&["a Admitted-Ejected by Failures(3, None) after 0"]);
}

/// The pool of `stage`, with backends of these letters.
fn with(letters: &str, shape: impl Fn(&mut Pool)) -> Pool {
    let address = Address::Socket(([127, 0, 0, 1], 3000).into());
    let backend = |letter: char| (id(letter), Backend::new(letter.into(), address.clone()));
    let mut pool = Pool {
        backends: letters.chars().map(backend).collect(),
        health: Some(Health::default()),
        ..Pool::default()
    };
    shape(&mut pool);
    pool
}

impl Stage {
    fn replan(&mut self, pool: &Pool) -> &mut Stage {
        self.standing.replan(pool, at(self.now));
        self.totals.resize(8, Totals::default());
        self
    }
}

#[test]
fn what_is_known_of_those_that_stay_is_known_under_the_next_plan() {
    let mut stage = stage(3, |_| {});
    stage.play("a:xxx b:+---").sees("s-u").told(&[
        "a Admitted-Ejected by Failures(3, None) after 0",
        "b Up-Down by Probe(Timeout) after 0",
    ]);
    stage.replan(&with("abc", |_| {})).sees("s-u").told(&[]).periods(&[]);
    // The row that ejects continues as well.
    stage.play("c:xx").replan(&with("abc", |pool| pool.queue.size = 9)).sees("s-u");
    stage.play("11s").sees("t-u").replan(&with("abc", |_| {})).sees("t-u").play("a:t").sees("u-u");
}

#[test]
fn one_that_comes_is_probed_before_it_is_asked_where_others_serve() {
    let mut stage = stage(2, |_| {});
    stage.replan(&with("abc", |_| {})).sees("uu-").play("c:+").sees("uuu");
    stage.told(&["c Down-Up by Probes after 0"]);
    stage.replan(&with("abcd", |_| {})).play("d:-").sees("uuu-").play("d:+").sees("uuu-");
    stage.play("d:+").sees("uuuu");
    let unprobed = |pool: &mut Pool| pool.health = None;
    stage.replan(&with("abcde", unprobed)).sees("uuuuu");
}

#[test]
fn those_that_come_all_together_are_asked_at_once() {
    let mut stage = stage(2, |_| {});
    stage.replan(&with("cd", |_| {})).sees("uuuu");
}

#[test]
fn many_that_come_are_no_reason_for_panic() {
    let mut stage = stage(2, |pool| pool.panic = Share::percent(50));
    let panics = |pool: &mut Pool| pool.panic = Share::percent(50);
    stage.replan(&with("abcdefg", panics)).sees("uu-----").told(&[]);
}

/// Requests that began under the plan before may still ask it.
#[test]
fn one_that_went_is_known_until_it_is_forgotten() {
    let mut stage = stage(3, |_| {});
    stage.play("a:xxx 12s").sees("tuu").periods(&[Period::Begins(id('a'), 1)]);
    stage.replan(&with("bc", |_| {})).sees("tuu").play("a:t").sees("uuu");
    stage.periods(&[Period::Ends(id('a'))]).play("b:xxx").sees("usu");
    stage.standing.forget(id('a'));
    stage.sees("-su").play("a:xxx a:++").sees("-su");
    // It is not among those that could be asked instead.
    stage.play("2s c:xxx").sees("-tu");
}

#[test]
fn a_trial_that_nobody_may_make_any_more_is_over() {
    let mut stage = stage(2, |_| {});
    stage.play("a:xxx 12s").sees("tu").periods(&[Period::Begins(id('a'), 1)]);
    stage.replan(&with("b", |_| {}));
    stage.standing.forget(id('a'));
    stage.sees("-u").periods(&[Period::Ends(id('a'))]);
}

#[test]
fn what_the_plan_does_not_ask_for_any_more_takes_nobody_out() {
    let shaped = |pool: &mut Pool| {
        pool.breaker = Some(Breaker { requests_min: 4, ..Breaker::default() });
        pool.passive.failures_max = 3;
    };
    let mut stage = stage(4, shaped);
    stage.play("a:xxx b:- c:oxlllll").sees("s--u");
    stage.standing.changes.clear();
    stage.replan(&with("abcd", |pool| {
        pool.health = None;
        pool.passive.failures_max = 0;
    }));
    stage.sees("uuuu").told(&[
        "a Ejected-Admitted by Plan after 0",
        "b Down-Up by Plan after 0",
        "c Open-Closed by Plan after 0",
    ]);
}

#[test]
fn as_many_may_be_out_as_were_when_the_plan_allows_fewer() {
    let mut stage = stage(4, |pool| pool.passive.ejected_max = Share::percent(75));
    stage.play("a:xxx b:xxx c:xxx").sees("sssu");
    let fewer = |pool: &mut Pool| pool.passive.ejected_max = Share::percent(25);
    stage.replan(&with("abcd", fewer)).sees("sssu").play("11s a:t").sees("uttu");
    stage.play("a:xxx").sees("uttu").play("b:t c:t a:xxx").sees("suuu");
}

#[test]
fn maintenance_takes_one_out_and_ends_like_a_start() {
    let away = |pool: &mut Pool| pool.backends.get_mut(id('b')).unwrap().duty = Duty::Maintenance;
    let mut stage = stage(3, |_| {});
    stage.play("b:x").replan(&with("abc", away)).sees("u-u").play("b:+-----").sees("u-u");
    stage.play("a:-  c:-").sees("---").play("a:++ c:++").sees("u-u");
    stage.replan(&with("abc", |_| {})).sees("u-u").play("b:+").sees("uuu");
    // Nobody else serves: it may be asked at once.
    stage.replan(&with("abc", away)).play("a:--- c:---").sees("---");
    stage.replan(&with("abc", |_| {})).sees("-u-");
    // One that drains is asked by those that stay with it.
    let drains = |pool: &mut Pool| pool.backends.get_mut(id('b')).unwrap().duty = Duty::Draining;
    stage.replan(&with("abc", drains)).sees("-u-");
}

/// Random plans, with random events between them.
#[test]
fn nothing_is_lost_whatever_plans_come() {
    for seed in 0..200 {
        let mut rng = Rng::seeded(seed);
        let mut stage = stage(2, |_| {});
        let (mut now, mut held) = (BackendSet::first(2), BackendSet::first(2));
        for _ in 0..120 {
            let letter = (b'a' + rng.below(8) as u8) as char;
            match rng.below(12) {
                0 => {
                    if now.contains(id(letter)) && now.len() > 1 {
                        now.remove(id(letter));
                    } else {
                        now.insert(id(letter));
                    }
                    held = held | now;
                    let letters: String =
                        now.iter().map(|id| (b'a' + id.0 as u8) as char).collect();
                    let odds = [rng.below(2) == 0, rng.below(2) == 0, rng.below(2) == 0];
                    let duty = |_| Duty::ALL[rng.below(5).saturating_sub(2) as usize];
                    let duties: Vec<Duty> = (0..8).map(duty).collect();
                    let shape = |pool: &mut Pool| {
                        pool.health = odds[0].then(Health::default);
                        pool.breaker =
                            odds[1].then(|| Breaker { requests_min: 4, ..Breaker::default() });
                        pool.passive.failures_max = if odds[2] { 3 } else { 0 };
                        for (backend, duty) in pool.backends.values_mut().zip(&duties) {
                            backend.duty = *duty;
                        }
                    };
                    stage.replan(&with(&letters, shape));
                    stage.standing.check_invariants();
                }
                1 => {
                    for gone in (held & !now).iter() {
                        stage.standing.forget(gone);
                    }
                    held = now;
                }
                2 => drop(stage.play(["1s", "20s", "5ms"][rng.below(3) as usize])),
                _ => {
                    stage.totals.resize(8, Totals::default());
                    let step = ["o", "x", "xxx", "+", "-", "t", "f", "l"][rng.below(8) as usize];
                    stage.play(&format!("{letter}:{step}"));
                }
            }
            let known = stage.standing.slots.ids().collect::<BackendSet>();
            assert_eq!(known, held, "seed {seed}");
        }
    }
}
