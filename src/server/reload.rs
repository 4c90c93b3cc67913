//! Reloads of the configuration while it is in use, for a signal or an admin call.
//!
//! One thread carries them out in order, so that the files read last are in force. A mistake in the
//! files changes nothing; it is reported with the picture that `check` draws.

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{StartError, control::Client, service_manager::ServiceManager};
use crate::admin::{Refused, Reload, Reloaded};
use crate::config::{self, Loaded, Overrides, Problems};
use crate::observe::{event::Event, reports::Reporter};

/// Reloads that may wait for the one in progress. A signal that finds the queue full is dropped:
/// the waiting ones read the files after it.
const WAITING_MAX: usize = 8;

/// How long a caller waits: longer than the control thread may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Where the configuration is read from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) overrides: Overrides,
}

type Outcome = Result<Reloaded, Refused>;

struct ReloadJob {
    how: Reload,
    /// What asked for the reload.
    by: &'static str,
    answer: Option<Sender<Outcome>>,
}

/// A sender of jobs to the reload thread.
#[derive(Clone)]
pub(super) struct Reloads {
    to: Sender<ReloadJob>,
}

impl Reloads {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn start(
        source: Option<Source>,
        client: Client,
        (reporter, manager): (Reporter, ServiceManager),
    ) -> Result<Reloads, StartError> {
        let (to, jobs) = bounded(WAITING_MAX);
        let run = move || run(source.as_ref(), &client, (&reporter, &manager), &jobs);
        thread::Builder::new()
            .name("ringway-reload".into())
            .spawn(run)
            .map_err(StartError::system("start the thread that reloads"))?;
        Ok(Reloads { to })
    }

    /// Begins a reload for a signal, without waiting.
    pub(super) fn begin(&self, by: &'static str) {
        let how = Reload { dry_run: false, from: String::new() };
        let _ = self.to.try_send(ReloadJob { how, by, answer: None });
    }

    /// Reloads for an admin call, and waits for the result.
    pub(super) fn wait(&self, how: Reload, by: &'static str) -> Outcome {
        let until = Instant::now() + ANSWERED_WITHIN;
        let (answer, answered) = bounded(1);
        let late = || refused("another reload takes too long; nothing is known of this one".into());
        self.to
            .send_deadline(ReloadJob { how, by, answer: Some(answer) }, until)
            .map_err(|_| late())?;
        answered.recv_deadline(until).unwrap_or_else(|_| Err(late()))
    }
}

fn run(
    source: Option<&Source>,
    client: &Client,
    (reporter, manager): (&Reporter, &ServiceManager),
    jobs: &Receiver<ReloadJob>,
) {
    for ReloadJob { how, by, answer } in jobs {
        if !how.dry_run {
            manager.reloading();
        }
        let outcome = reload(source, client, how.dry_run);
        if !how.dry_run {
            manager.reloaded(verdict(&outcome));
            reporter.event(event(&outcome, by, &how.from));
        }
        if let Some(answer) = answer {
            // The caller may have stopped waiting.
            let _ = answer.send(outcome);
        }
    }
}

fn reload(source: Option<&Source>, client: &Client, dry_run: bool) -> Outcome {
    let source =
        source.ok_or_else(|| refused("it was started without a file to read again".into()))?;
    let Loaded { plan, warnings, .. } =
        config::load(&source.files, &source.overrides).map_err(of_problems)?;
    let changed = if dry_run { client.compare(plan) } else { client.change(plan) };
    let changed = changed.map_err(|error| refused(error.to_string()))?;
    Ok(Reloaded {
        generation: changed.generation,
        lines: changed.changes.to_string().lines().map(str::to_owned).collect(),
        kept: changed.kept.into_iter().map(str::to_owned).collect(),
        warnings: warnings.iter().map(|problem| problem.title().to_owned()).collect(),
    })
}

/// The outcome in one sentence.
fn verdict(outcome: &Outcome) -> String {
    match outcome {
        Ok(done) if done.lines.is_empty() => "last reload: nothing changed".to_owned(),
        Ok(done) => format!("last reload: {}", done.lines.join("; ")),
        Err(refused) => format!("last reload refused: {}", refused.why),
    }
}

fn refused(why: String) -> Refused {
    Refused { why, problems: String::new() }
}

fn of_problems(problems: Problems) -> Refused {
    let first = problems.iter().next().map_or("", |problem| problem.title());
    let why = match problems.errors() {
        1 => first.to_owned(),
        count => format!("{first}, and {} more", count.saturating_sub(1)),
    };
    Refused { why, problems: problems.render(false) }
}

fn event(outcome: &Outcome, by: &'static str, from: &str) -> Event {
    let from = (!from.is_empty()).then(|| Arc::from(from));
    match outcome {
        Ok(done) => Event::Reloaded {
            generation: done.generation,
            changes: done.lines.join("; ").into(),
            kept: done.kept.join(", ").into(),
            by: by.into(),
            from,
        },
        Err(refused) => {
            Event::ReloadRefused { cause: refused.why.as_str().into(), by: by.into(), from }
        }
    }
}
