//! The main loop of the health thread.

use std::time::Duration;

use super::{
    HealthJob, ToHealth,
    prober::{Late, Prober},
    verdicts::Verdicts,
};
use crate::base::{
    moment::{Deadline, Tick},
    rng::Rng,
};
use crate::net::{chance, clock::Clock, io::sleep, wake::Bell};
use crate::observe::reports::Report;

/// How long the end waits for probes to notice it, in steps.
const END_STEP: Duration = Duration::from_millis(5);
const END_STEPS: u32 = 200;

/// Runs until told to end.
pub(super) async fn run(job: HealthJob, ready: impl FnOnce()) -> Result<(), String> {
    let HealthJob { next, inbox, posted, reporter, counters, rooms, ropes, carried } = job;
    let bell = Bell::adopt(inbox.bell()).map_err(|error| error.to_string())?;
    let clock = Clock::new();
    let mut chance = Rng::seeded(chance::drawn());
    let (tells, calls) = ((reporter, counters), (rooms, ropes));
    let mut verdicts = Verdicts::new(&next, tells, calls, &mut chance, clock.tick());
    verdicts.resume(carried, clock.tick());
    let mut prober = Prober::new(&next, chance.next(), clock.tick())?;
    let news = prober.news();
    ready();
    loop {
        clock.renew();
        let now = clock.tick();
        while let Some(message) = inbox.next() {
            match message {
                ToHealth::Plan(next, answer) => {
                    let taken = prober.replan(&next, now);
                    if taken.is_ok() {
                        verdicts.replan(&next, &mut chance, now);
                    }
                    // If the sender does not wait any more, the plan is in force all the same.
                    let _ = answer.try_send(taken);
                }
                // The asker may have stopped waiting.
                ToHealth::Carry(answer) => drop(answer.try_send(verdicts.carried(now))),
                ToHealth::Show(answer) => drop(answer.try_send(verdicts.seen(now))),
                ToHealth::Tls(ends) => prober.set_tls(ends),
                ToHealth::Forget(gone) => verdicts.forget(&gone, now),
                ToHealth::Stop => return end(prober, now).await,
            }
        }
        verdicts.hear(&posted, now);
        for ended in prober.ended() {
            let (pool, backend) = (ended.pool, ended.backend);
            if let Some(result) = ended.result.filter(|_| prober.knows(&ended)) {
                verdicts.note_probe((pool, backend), (result, ended.took), now);
                verdicts.probed((pool, backend), result, now);
            }
            prober.rest(&ended, verdicts.interval(pool, backend), now);
        }
        let watch_due = verdicts.watch(now);
        for suspect in verdicts.suspects() {
            prober.hurry(suspect, now);
        }
        let probes_due = prober.begin(now);
        for Late { pool, late } in prober.late() {
            verdicts.say(Report::ProbesLate(pool, late));
        }
        if watch_due == Deadline::NEVER {
            posted.sleeps();
        }
        let rung = match verdicts.turn(now).earlier(probes_due).earlier(watch_due).tick() {
            Some(due) => news.come.or(bell.rung_within(due.since(now))).await,
            None => news.come.or(bell.rung()).await,
        };
        rung.unwrap_or(Ok(())).map_err(|error| error.to_string())?;
    }
}

/// Ends the probes in flight and waits for them, as operations on a ring must not be lost.
async fn end(mut prober: Prober, now: Tick) -> Result<(), String> {
    for _ in 0..END_STEPS {
        if prober.end(now) {
            break;
        }
        sleep(END_STEP).await;
    }
    Ok(())
}
