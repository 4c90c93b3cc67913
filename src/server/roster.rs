//! The roster: the names of the plan in force, and the thread that has them looked up.
//!
//! It belongs to the control thread, which takes from it what the names have become. What cannot be
//! put into force is kept and tried again.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use super::{
    control::{Edit, Owner},
    names::{Means, Names},
};
use crate::observe::{event::Event, reports::Reporter};
use crate::plan::{Amendment, Overlay, Plan};
use crate::policy::{
    lookups::Members,
    overlay::{Layers, Wanted},
};

/// How soon what could not be put into force is tried again: seats become free when requests end.
const AGAIN: Duration = Duration::from_secs(1);

/// The names of the plan in force.
pub(super) struct Roster {
    means: Means,
    posted: Receiver<Members>,
    /// None as long as no plan has had a name.
    names: Option<Names>,
    wanted: Wanted,
    /// What could not be put into force, and when it is tried again.
    delayed: Option<(Members, Instant)>,
    /// How many addresses find no room, as told last.
    surplus: BTreeMap<String, usize>,
}

impl Roster {
    /// Without names.
    pub(super) fn new((means, posted): (Means, Receiver<Members>)) -> Roster {
        let (names, wanted) = (None, Wanted::new());
        Roster { means, posted, names, wanted, delayed: None, surplus: BTreeMap::new() }
    }

    /// Has the names of the first plan looked up, and waits for their addresses, but no longer than
    /// `time`.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn first(&mut self, layers: &mut Layers, time: Duration) -> io::Result<()> {
        self.want(layers.wanted())?;
        if let Some(names) = &self.names {
            names.first(self.wanted.clone(), time);
            layers.members = self.posted.try_iter().last().unwrap_or_default();
        }
        Ok(())
    }

    /// Where the thread posts.
    pub(super) fn posted(&self) -> &Receiver<Members> {
        &self.posted
    }

    /// How long until something is to be tried again; none if nothing is.
    pub(super) fn due(&self) -> Option<Duration> {
        let (_, due) = self.delayed.as_ref()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// From now on these are looked up.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    fn want(&mut self, wanted: Wanted) -> io::Result<()> {
        match &self.names {
            _ if wanted.is_empty() => self.names = None,
            Some(names) => names.want(wanted.clone()),
            None => self.names = Some(Names::begin(&self.means, wanted.clone())?),
        }
        self.wanted = wanted;
        Ok(())
    }

    /// Tells how many addresses find no room, if that is news.
    pub(super) fn note(&mut self, surplus: BTreeMap<String, usize>, reporter: &Reporter) {
        for (pool, unused) in &surplus {
            if self.surplus.get(pool) != Some(unused) {
                let pool = pool.as_str().into();
                reporter.event(Event::NamesSurplus { pool, unused: *unused });
            }
        }
        self.surplus = surplus;
    }

    /// Ends the thread.
    pub(super) fn end(&mut self) {
        self.names = None;
    }

    /// What is to be put into force now.
    fn latest(&mut self) -> Option<Members> {
        let posted = self.posted.try_iter().last();
        let is_due = self.due().is_some_and(|left| left.is_zero());
        let delayed = if posted.is_some() || is_due { self.delayed.take() } else { None };
        posted.or(delayed.map(|(members, _)| members))
    }
}

impl Owner {
    /// Puts into force what the names have become.
    pub(super) fn take_members(&mut self) {
        let was_delayed = self.roster.delayed.is_some();
        let Some(members) = self.roster.latest() else { return };
        let edit = Edit { members: Some(members.clone()), ..Edit::default() };
        if let Err(denied) = self.change(edit) {
            if !was_delayed {
                let cause = denied.to_string().into();
                self.process.reporter.event(Event::NamesDelayed { cause });
            }
            self.roster.delayed = Some((members, Instant::now() + AGAIN));
        }
    }

    /// Looks up the names of the plan in force.
    pub(super) fn want_names(&mut self) {
        if let Err(error) = self.roster.want(self.layers.wanted()) {
            let cause = format!("names cannot be looked up: {error}").into();
            self.process.reporter.event(Event::NamesDelayed { cause });
        }
    }

    /// Begins to look up the names that an edit brings. What is returned closes when all have been
    /// answered; none if there are no new ones.
    pub(super) fn foresee(&mut self, foreseen: Foreseen) -> Option<Receiver<()>> {
        let Foreseen { base, overlay } = foreseen;
        let Layers { base: before, overlay: amended, .. } = self.layers.clone();
        let (base, overlay) = (base.unwrap_or(before), overlay.unwrap_or(amended));
        let mut wanted = Layers { base, overlay, members: Members::new() }.wanted();
        wanted.retain(|address, _| !self.roster.wanted.contains_key(address));
        if wanted.is_empty() {
            return None;
        }
        if self.roster.names.is_none() {
            let names = Names::begin(&self.roster.means, Wanted::new()).ok()?;
            self.roster.names = Some(names);
        }
        Some(self.roster.names.as_ref()?.foresee(wanted))
    }
}

/// The parts of an edit that may bring names.
pub(super) struct Foreseen {
    base: Option<std::sync::Arc<Plan>>,
    overlay: Option<Overlay>,
}

impl Foreseen {
    /// None if the edit brings no names.
    pub(super) fn of(edit: &Edit) -> Option<Foreseen> {
        let adds = |overlay: &Overlay| {
            let mut all = overlay.changes.iter();
            all.any(|(subject, it)| {
                matches!(it, Amendment::Added(_)) && subject.address.is_looked_up()
            })
        };
        let has_names = |plan: &Plan| {
            let mut all = plan.pools.values().flat_map(|pool| pool.backends.values());
            all.any(|backend| backend.address.is_looked_up())
        };
        let brings =
            edit.base.as_deref().is_some_and(has_names) || edit.overlay.as_ref().is_some_and(adds);
        brings.then(|| Foreseen { base: edit.base.clone(), overlay: edit.overlay.clone() })
    }
}
