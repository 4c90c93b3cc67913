//! Signals of the process, received by a separate thread from before the start to the very end.
//!
//! Whatever main is doing, a signal is received: one that ends the process during the start ends it
//! at once, the first afterwards is passed to main, and one more ends it at once. The thread exists
//! before anything else, so that a stop needs nothing that can fail.

use std::{
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use tracing::warn;

use super::{StartError, admin_doors::AdminSockets, stderr};
use crate::admin::Closing;

/// The signals that are handled. XFSZ comes when a log has become as large as a file may be
/// (`ulimit -f`): unhandled it would end the process, and the failed write says enough.
const SIGNALS: [i32; 7] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGXFSZ];

/// Those that end it.
const ENDS: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];

/// Signals that may wait for main. Only one that ends the process gets the last place.
const WAITING_MAX: usize = 16;

/// Two signals this close together are one: `timeout` and some supervisors signal the process and
/// its group at the same moment.
const SAME: Duration = Duration::from_millis(20);

/// Main's end of the signals, and of what the thread that upgrades asks of main.
pub(super) struct Signals {
    from: Receiver<ToMain>,
    to: Sender<ToMain>,
}

/// A message to main.
pub(super) enum ToMain {
    Signal(i32),
    /// Another process has taken over, and this one has finished what it had, or its time is over.
    LetGo {
        finished: bool,
    },
    /// Open or close the admin interface; the answer has the last connections of the closed one.
    Admin {
        is_open: bool,
        answer: Sender<Closing>,
    },
    /// Answer with copies of the sockets of the admin interface.
    AdminSockets(Sender<AdminSockets>),
}

/// The effect of a signal that ends the process.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Main ends what it began.
    ByMain,
    /// The process ends at once, for this reason.
    AtOnce(&'static str),
    /// Nothing: it is a repetition.
    Same,
}

impl Signals {
    /// Receives signals from now on; also returns what to drop when there is something that main
    /// must end.
    ///
    /// # Errors
    /// If the kernel allows no handler or no thread.
    pub(super) fn hear() -> Result<(Signals, Sender<()>), StartError> {
        let refused = || StartError::system("wait for signals");
        let mut signals = signal_hook::iterator::Signals::new(SIGNALS).map_err(refused())?;
        let (to, from) = bounded(WAITING_MAX);
        let (starting, begins) = bounded::<()>(0);
        let tells = to.clone();
        let hear = move || {
            let mut told = None;
            for signal in signals.forever() {
                heard(signal, &mut told, &begins, &tells);
            }
        };
        thread::Builder::new().name("ringway-signals".into()).spawn(hear).map_err(refused())?;
        Ok((Signals { from, to }, starting))
    }

    /// Waits for the next message.
    pub(super) fn next(&self) -> ToMain {
        self.from.recv().unwrap_or(ToMain::Signal(SIGTERM))
    }

    /// How other threads send messages to main.
    pub(super) fn sender(&self) -> Sender<ToMain> {
        self.to.clone()
    }
}

/// Carries out the effect of a signal. `told` is when the first one came that ends the process.
fn heard(signal: i32, told: &mut Option<Instant>, begins: &Receiver<()>, to: &Sender<ToMain>) {
    if !ENDS.contains(&signal) {
        if to.len() + 1 < WAITING_MAX {
            let _ = to.try_send(ToMain::Signal(signal));
        }
        return;
    }
    let is_starting = begins.try_recv() == Err(TryRecvError::Empty);
    match end(told.map(|told| told.elapsed()), is_starting) {
        End::Same => {}
        End::ByMain => {
            *told = Some(Instant::now());
            if to.try_send(ToMain::Signal(signal)).is_err() {
                exit_at_once(0);
            }
        }
        End::AtOnce(why) => {
            warn!("{why}: ending at once");
            exit_at_once(0);
        }
    }
}

/// The effect of a signal that ends the process; `since` is how long ago the first was.
fn end(since: Option<Duration>, is_starting: bool) -> End {
    match since {
        None if is_starting => End::AtOnce("stopped before the start was complete"),
        None => End::ByMain,
        Some(since) if since <= SAME => End::Same,
        Some(_) => End::AtOnce("told twice"),
    }
}

/// Ends the process, whatever its threads are doing.
#[expect(clippy::disallowed_methods, reason = "it waits for nothing that may hang")]
pub(super) fn exit_at_once(code: i32) -> ! {
    stderr::flush();
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_process_by_when_it_was_told() {
        let ms = Duration::from_millis;
        for (since, is_starting, expected) in [
            (None, true, End::AtOnce("stopped before the start was complete")),
            (None, false, End::ByMain),
            (Some(ms(0)), false, End::Same),
            (Some(ms(20)), false, End::Same),
            (Some(ms(21)), false, End::AtOnce("told twice")),
            (Some(ms(21)), true, End::AtOnce("told twice")),
        ] {
            assert_eq!(end(since, is_starting), expected, "{since:?} {is_starting}");
        }
    }

    #[test]
    fn other_signals_never_take_the_place_of_one_that_ends_the_process() {
        let (to, from) = bounded(WAITING_MAX);
        let (starting, begins) = bounded::<()>(0);
        drop(starting);
        let mut told = None;
        for _ in 0..100 {
            heard(SIGHUP, &mut told, &begins, &to);
        }
        heard(SIGTERM, &mut told, &begins, &to);
        let heard: Vec<ToMain> = from.try_iter().collect();
        assert_eq!(heard.len(), WAITING_MAX);
        assert!(matches!(heard.last(), Some(ToMain::Signal(SIGTERM))));
    }
}
