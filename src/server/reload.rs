//! Reloads of the configuration while it is in use, for a signal or an admin call.
//!
//! A mistake in the files changes nothing; it is reported with the picture that `check` draws.
//! Run-time changes stay where they fit, and those that do not are named and dropped.

use std::{path::PathBuf, sync::Arc};

use super::{
    backend_writes::without,
    changes::Changer,
    control::{Changed, Denied, Edit},
    service_manager::ServiceManager,
};
use crate::admin::{Refused, Reload, Reloaded};
use crate::config::{self, Loaded, Overrides, Problems};
use crate::observe::event::Event;
use crate::plan::{Checked, Overlay, Subject};

/// Where the configuration is read from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) overrides: Overrides,
}

/// The result of a reload.
pub(super) type ReloadOutcome = Result<Reloaded, Refused>;

impl Changer {
    /// Reads the configuration again and serves by it, or only returns what would change.
    pub(super) fn reload(&mut self, how: &Reload, by: &'static str) -> ReloadOutcome {
        let manager = self.manager.as_ref().filter(|_| !how.dry_run).cloned();
        manager.iter().for_each(ServiceManager::reloading);
        let outcome = self.read_again(how);
        manager.iter().for_each(|manager| manager.reloaded(verdict(&outcome)));
        if !how.dry_run {
            self.client.reload_ended(outcome.is_ok());
            self.tell(event(&outcome, by, &how.from));
        }
        outcome
    }

    fn read_again(&mut self, how: &Reload) -> ReloadOutcome {
        let unread = || refused("it was started without a file to read again".into());
        let source = self.source.as_ref().ok_or_else(unread)?;
        let Loaded { plan, warnings, .. } =
            config::load(&source.files, &source.overrides).map_err(of_problems)?;
        let changed = match self.serve_by(plan, how) {
            Ok(changed) => changed,
            Err(Denied::Plan(error)) => return Err(refused(error.to_string())),
            Err(Denied::NotKept(why)) => return Err(refused(why)),
            Err(Denied::Moved(generation)) => {
                let why = "another plan is in force now".to_owned();
                return Err(Refused { moved_to: Some(generation), ..refused(why) });
            }
        };
        let mut said: Vec<String> =
            warnings.iter().map(|problem| problem.title().to_owned()).collect();
        said.extend(changed.misfits.iter().map(|it| format!("run-time change dropped: {it}")));
        said.extend(changed.late);
        Ok(Reloaded {
            generation: changed.generation,
            lines: changed.changes.to_string().lines().map(str::to_owned).collect(),
            kept: changed.kept.into_iter().map(str::to_owned).collect(),
            warnings: said,
            closed: changed.closed,
        })
    }

    /// Serves by this configuration and the run-time changes that fit it, or only compares.
    pub(super) fn serve_by(&mut self, plan: Checked, how: &Reload) -> Result<Changed, Denied> {
        let edit = Edit {
            base: Some(Arc::new(plan.into_plan())),
            overlay: how.discard.then(Overlay::default),
            only_if: how.only_if.clone(),
            members: None,
        };
        if how.dry_run {
            return self.client.compare(edit);
        }
        let before = self.client.layers().map(|(_, layers)| without(layers, &self.leaving));
        if how.discard {
            self.keep(&Overlay::default()).map_err(Denied::NotKept)?;
        }
        let changed = match self.client.change(edit) {
            Ok(changed) => changed,
            Err(denied) => {
                before.filter(|_| how.discard).iter().for_each(|it| self.keep_or_tell(it));
                return Err(denied);
            }
        };
        if how.discard {
            self.leaving.clear();
        }
        if let (Some(log), Some((_, layers))) = (&self.log, self.client.layers()) {
            log.set_level(layers.base.global.log_level);
        }
        if !changed.misfits.is_empty()
            && let Some((_, layers)) = self.client.layers()
        {
            self.keep_or_tell(&without(layers, &self.leaving));
        }
        for misfit in &changed.misfits {
            let Subject { pool, backend, .. } = &misfit.subject;
            self.tell(Event::ChangeDropped {
                pool: pool.as_str().into(),
                backend: backend.as_str().into(),
                cause: misfit.reason().into(),
            });
        }
        Ok(changed)
    }
}

/// Changes that an event and the service manager are told of: of thousands, these show what it was.
const TOLD_MAX: usize = 20;

/// The changes in one line.
fn told(lines: &[String]) -> String {
    let mut told = lines.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("; ");
    if lines.len() > TOLD_MAX {
        told += &format!("; and {} more", lines.len() - TOLD_MAX);
    }
    told
}

/// The outcome in one sentence.
fn verdict(outcome: &ReloadOutcome) -> String {
    match outcome {
        Ok(done) if done.lines.is_empty() => "last reload: nothing changed".to_owned(),
        Ok(done) => format!("last reload: {}", told(&done.lines)),
        Err(refused) => format!("last reload refused: {}", refused.why),
    }
}

/// A refusal that no line of the files is to blame for.
pub(super) fn refused(why: String) -> Refused {
    Refused { why, problems: String::new(), moved_to: None }
}

fn of_problems(problems: Problems) -> Refused {
    let first = problems.iter().next().map_or("", |problem| problem.title());
    let why = match problems.errors() {
        1 => first.to_owned(),
        count => format!("{first}, and {} more", count.saturating_sub(1)),
    };
    Refused { why, problems: problems.render(false), moved_to: None }
}

fn event(outcome: &ReloadOutcome, by: &'static str, from: &str) -> Event {
    let from = (!from.is_empty()).then(|| Arc::from(from));
    match outcome {
        Ok(done) => Event::Reloaded {
            generation: done.generation,
            changes: told(&done.lines).into(),
            kept: done.kept.join(", ").into(),
            by: by.into(),
            from,
        },
        Err(refused) => {
            Event::ReloadRefused { cause: refused.why.as_str().into(), by: by.into(), from }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_changes_an_event_has_the_first_and_how_many_more() {
        let lines =
            |count: usize| (0..count).map(|it| format!("+ route \"{it}\"")).collect::<Vec<_>>();
        assert_eq!(told(&lines(0)), "");
        assert_eq!(told(&lines(2)), "+ route \"0\"; + route \"1\"");
        assert!(told(&lines(20)).ends_with("; + route \"19\""));
        assert!(told(&lines(10_000)).ends_with("; + route \"19\"; and 9980 more"));
    }
}
