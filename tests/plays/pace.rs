//! The pace of the machine, measured beside every play of time.
//!
//! A busy machine is late, or one that stood still, and the proxy is not to blame: a thread that
//! only sleeps notes how much later than asked it wakes. A check of "no later than" allows for what
//! was noted meanwhile. If lateness spoils the play itself, as when a client's next byte comes too
//! late and is rightly timed out, the play is run again, slower.
//!
//! On a machine full of busy threads one that sleeps is still punctual, but one that works takes
//! many times as long: a [`Crowd`] measures how many times.

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// How long the sleeper asks to sleep.
const NAP: Duration = Duration::from_millis(5);

/// Lateness not worth a note: every machine is that late now and then.
const PUNCTUAL: Duration = Duration::from_millis(5);

/// How late a machine must be, in total, to have perhaps spoilt a play at the usual pace.
const SPOILS: Duration = Duration::from_millis(20);

/// The slowest pace: a play that fails at this one has failed.
const SLOWEST: u32 = 16;

/// What the sleeper notes.
struct Notes {
    /// How late it has woken in total.
    late: Duration,
    /// When it should wake next.
    due: Instant,
}

fn notes() -> &'static Mutex<Notes> {
    static NOTES: OnceLock<Mutex<Notes>> = OnceLock::new();
    static SLEEPER: OnceLock<()> = OnceLock::new();
    let noted =
        NOTES.get_or_init(|| Mutex::new(Notes { late: Duration::ZERO, due: Instant::now() + NAP }));
    SLEEPER.get_or_init(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(NAP);
                let mut notes = noted.lock().unwrap();
                let late = notes.due.elapsed();
                notes.late += worth_a_note(late);
                notes.due = Instant::now() + NAP;
            }
        });
    });
    noted
}

fn worth_a_note(late: Duration) -> Duration {
    if late > PUNCTUAL { late } else { Duration::ZERO }
}

/// How late this machine has been in total, up to now.
fn late() -> Duration {
    let notes = notes().lock().unwrap();
    notes.late + worth_a_note(notes.due.elapsed())
}

/// A time measurement in progress.
pub(crate) struct Watch {
    since: Instant,
    late: Duration,
}

impl Watch {
    /// Begins. The event that starts the measured time must come after this.
    pub(crate) fn start() -> Watch {
        Watch { late: late(), since: Instant::now() }
    }

    /// The time so far.
    pub(crate) fn took(&self) -> Took {
        let time = self.since.elapsed();
        Took { time, late: late() - self.late }
    }
}

/// A measured time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Took {
    /// The time.
    pub(crate) time: Duration,
    /// How late the machine was meanwhile.
    pub(crate) late: Duration,
}

impl Took {
    /// Fails if it was longer, not counting the lateness of the machine.
    #[track_caller]
    pub(crate) fn expect_at_most(self, most: Duration) {
        assert!(self.time <= most + self.late, "at most {most:?}, and {self:?}");
    }

    /// Fails if it was shorter.
    #[track_caller]
    pub(crate) fn expect_at_least(self, least: Duration) {
        assert!(self.time >= least, "at least {least:?}, and {self:?}");
    }
}

/// How many times as long as its work a busy thread takes, since it shares the cores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd(f64);

impl Crowd {
    /// Works until `over` is set.
    pub(crate) fn measure(over: &AtomicBool) -> Crowd {
        let (since, worked) = (Instant::now(), worked());
        while !over.load(SeqCst) {
            std::hint::spin_loop();
        }
        let work = self::worked() - worked;
        Crowd((since.elapsed().as_secs_f64() / work.as_secs_f64()).max(1.0))
    }

    /// The time that this much work takes.
    pub(crate) fn time(self, work: Duration) -> Duration {
        work.mul_f64(self.0)
    }
}

/// The time that this thread has had a core.
fn worked() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("a time since the thread began")
}

/// A time in the form of the configuration.
pub(crate) fn ms(time: Duration) -> String {
    format!("\"{}ms\"", time.as_millis())
}

/// Plays at the usual pace. If that fails and the machine was late meanwhile, which may have been
/// the cause, plays again with all times twice as long; `play` gets the factor.
pub(crate) fn at_a_pace(play: impl Fn(u32)) {
    let mut slower = 1;
    loop {
        let watch = Watch::start();
        let Err(why) = catch_unwind(AssertUnwindSafe(|| play(slower))) else { return };
        let late = watch.took().late;
        slower = next(slower, late).unwrap_or_else(|| resume_unwind(why));
        count_replay();
        eprintln!("the machine was {late:?} late: again, with times {slower} times as long");
    }
}

/// Adds a line to the file that `RINGWAY_REPLAYS` names, if set: CI counts them, as a play that
/// fails now and then would otherwise pass for one on a late machine.
fn count_replay() {
    let Some(path) = std::env::var_os("RINGWAY_REPLAYS") else { return };
    let play = std::thread::current().name().unwrap_or("?").to_owned();
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(format!("{play}\n").as_bytes()))
        .expect("a line in the file of RINGWAY_REPLAYS");
}

/// The pace after one that has failed, if the machine may have been the cause.
fn next(slower: u32, late: Duration) -> Option<u32> {
    (late >= SPOILS * slower && slower < SLOWEST).then_some(slower * 2)
}

#[test]
fn a_failure_counts_where_the_machine_was_punctual_and_at_the_slowest_pace() {
    let ms = Duration::from_millis;
    for (slower, late, expected) in [
        (1, ms(0), None),
        (1, ms(19), None),
        (1, ms(20), Some(2)),
        (8, ms(159), None),
        (8, ms(160), Some(16)),
        (16, ms(60_000), None),
    ] {
        assert_eq!(next(slower, late), expected, "{slower} {late:?}");
    }
}

#[test]
fn who_is_late_by_itself_is_not_excused() {
    let watch = Watch::start();
    std::thread::sleep(Duration::from_millis(60));
    let took = watch.took();
    took.expect_at_least(Duration::from_millis(60));
    let late = Took { time: took.time, late: Duration::ZERO };
    assert!(catch_unwind(|| late.expect_at_most(Duration::from_millis(59))).is_err());
}

#[test]
fn a_crowd_makes_work_take_longer() {
    let over = AtomicBool::new(false);
    let cores = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..cores * 4 {
            scope.spawn(|| Crowd::measure(&over));
        }
        let crowd = scope.spawn(|| Crowd::measure(&over));
        std::thread::sleep(Duration::from_millis(200));
        over.store(true, SeqCst);
        let crowd = crowd.join().unwrap();
        assert!(crowd.time(Duration::from_secs(1)) > Duration::from_secs(2), "{crowd:?}");
    });
}
