//! Player of futures without a runtime, sockets or real time: peers are scripted
//! (`net::stream::script`), and time advances only when nothing else can happen.
//!
//! So the result of a test follows from its scripts alone: the order of events, the pieces in which
//! bytes come, and how late they are.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use crate::base::moment::Moment;
use crate::net::stream::script;

thread_local! {
    static NOW: Cell<Option<Moment>> = const { Cell::new(None) };
    /// Tasks beside the play, and what wakes it.
    static TASKS: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
    static WAKER: RefCell<Option<Waker>> = const { RefCell::new(None) };
    static SLEEPING: RefCell<Vec<(Moment, Waker)>> = const { RefCell::new(Vec::new()) };
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// How long a peer pauses at least, and until nothing has happened for that long.
const PAUSE: Duration = Duration::from_millis(100);

/// A play that has not ended by then never will.
const PLAYED_MAX: Moment = Moment::from_micros(24 * 3_600 * 1_000_000);

/// The moment of the play, if one is running.
pub(crate) fn now() -> Option<Moment> {
    NOW.get()
}

/// Whether a play is running.
pub(crate) fn is_on() -> bool {
    NOW.get().is_some()
}

/// Runs a future as a task beside the play.
pub(crate) fn task(future: impl Future<Output = ()> + 'static) {
    TASKS.with_borrow_mut(|all| all.push(Box::pin(future)));
    WAKER.with_borrow(|waker| waker.iter().for_each(Waker::wake_by_ref));
}

/// Until all tasks beside the play have ended.
pub(crate) async fn tasks_end() {
    poll_fn(|_| {
        let none = TASKS.with_borrow(Vec::is_empty);
        if none { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Gives each task a turn.
fn tasks(cx: &mut Context<'_>) {
    let mut all = TASKS.take();
    all.retain_mut(|task| task.as_mut().poll(cx).is_pending());
    let rest = TASKS.with_borrow_mut(|new| {
        all.append(new);
        std::mem::replace(new, all)
    });
    drop(rest);
    if TASKS.with_borrow(Vec::is_empty) {
        // Somebody may wait for that.
        cx.waker().wake_by_ref();
    }
}

/// Sleeps in the time of the play.
pub(crate) async fn sleep(time: Duration) {
    let until = NOW.get().map(|now| after(now, time));
    poll_fn(|cx: &mut Context<'_>| {
        if NOW.get() >= until {
            return Poll::Ready(());
        }
        SLEEPING.with_borrow_mut(|all| all.extend(until.map(|at| (at, cx.waker().clone()))));
        Poll::Pending
    })
    .await;
}

fn after(moment: Moment, time: Duration) -> Moment {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Moment::from_micros(moment.micros().saturating_add(micros))
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Flag>) {
        self.0.store(true, SeqCst);
    }
}

/// Plays it to its end.
#[track_caller]
pub(crate) fn play<T>(future: impl Future<Output = T>) -> T {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            NOW.set(None);
            SLEEPING.take();
            WAKER.take();
            drop(TASKS.take());
            script::forget();
        }
    }
    let _over = Over;
    NOW.set(Some(Moment::from_micros(1_000_000)));
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&flag));
    WAKER.replace(Some(waker.clone()));
    let mut future = pin!(future);
    loop {
        if flag.0.swap(false, SeqCst) {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            if TASKS.with_borrow(|all| !all.is_empty()) {
                tasks(&mut Context::from_waker(&waker));
            }
        } else {
            assert!(goes_on(), "nothing can go on any more");
        }
    }
}

/// When nothing else can happen: the first peer that has paused long enough continues, otherwise
/// the task with the shortest sleep wakes up.
fn goes_on() -> bool {
    let Some(now) = NOW.get() else { return false };
    let next = SLEEPING.with_borrow(|all| all.iter().map(|(until, _)| *until).min());
    let paused = after(now, PAUSE);
    if next.is_none_or(|next| next > paused) && script::go_on() {
        NOW.set(Some(paused));
        return true;
    }
    let Some(next) = next.map(|next| next.max(now)) else { return false };
    NOW.set(Some(next));
    let awake = SLEEPING.with_borrow_mut(|all| {
        all.sort_by_key(|(until, _)| *until);
        all.drain(..all.partition_point(|(until, _)| *until <= next)).collect::<Vec<_>>()
    });
    awake.into_iter().for_each(|(_, waker)| waker.wake());
    next < PLAYED_MAX
}

/// Runs `first` to its end, and `also` concurrently.
pub(crate) async fn beside<T>(first: impl Future<Output = T>, also: impl Future<Output = ()>) -> T {
    let (mut first, mut also) = (pin!(first), pin!(also));
    poll_fn(|cx| {
        let _ = also.as_mut().poll(cx);
        first.as_mut().poll(cx)
    })
    .await
}
