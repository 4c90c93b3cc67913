//! The overlay: run-time changes of backends on top of a configuration.
//!
//! `compose` makes the plan in force of both, `amend` the next overlay from an order of an
//! operator. An order is refused unless the plan that it makes is one that `check` would take. A
//! later configuration keeps what still fits: every change that does not is named, with the reason,
//! and dropped; so a change never comes back after the configuration has moved on.
//!
//! The addresses that names have are another source of backends: each is one, in place of the entry
//! that has the name (`members`). A change of a member that is not there at the moment is kept
//! while its entry is there, since an address may return.
//!
//! Pure: the owner of the plan publishes the result, or does not.

mod amend;
mod members;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub(crate) use self::amend::{Order, Refused};
use super::lookups::Members;
use crate::base::backend_set::BACKENDS_MAX;
use crate::plan::{
    Address, Amendment, Backend, BackendId, Id as _, Overlay, Plan, Pool, Settings, Subject,
};

/// What the plan in force is made of, from the ground up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    /// The configuration.
    pub(crate) base: Arc<Plan>,
    /// Run-time changes.
    pub(crate) overlay: Overlay,
    /// The addresses of names.
    pub(crate) members: Members,
}

/// A plan made of layers.
pub(crate) struct Composed {
    pub(crate) plan: Plan,
    /// The run-time changes that fit.
    pub(crate) overlay: Overlay,
    /// Those that do not.
    pub(crate) misfits: Vec<Misfit>,
    /// How many addresses of names have no room in a pool, by its name.
    pub(crate) surplus: BTreeMap<String, usize>,
}

/// The names that are looked up: for each the backends of pools that have it, and the shortest
/// `resolve` of these pools.
pub(crate) type Wanted = BTreeMap<Address, Want>;

/// Who wants a name to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) resolve: std::time::Duration,
    /// The names of the pool and of the backend.
    pub(crate) by: Vec<(String, String)>,
}

/// A run-time change that does not fit the configuration any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) subject: Subject,
    pub(crate) why: Why,
}

/// Why it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NoPool,
    NoBackend,
    OtherAddress,
    IsConfigured,
    NameTaken,
    AddressTaken,
    Last,
    Full,
}

impl Misfit {
    /// Why it does not fit, in a few words.
    pub(crate) fn reason(&self) -> String {
        let Subject { address, .. } = &self.subject;
        match self.why {
            Why::NoPool => "the configuration has no such pool".into(),
            Why::NoBackend => "the configuration has no such backend".into(),
            Why::OtherAddress => format!("it is not at {address} any more"),
            Why::IsConfigured => "it was added, and the configuration has it now".into(),
            Why::NameTaken => "the configuration has another of that name".into(),
            Why::AddressTaken => format!("the configuration has another at {address}"),
            Why::Last => "the pool would have no backend without it".into(),
            Why::Full => format!("the pool has {BACKENDS_MAX} backends without it"),
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subject { pool, backend, .. } = &self.subject;
        write!(f, "backend \"{backend}\" of pool \"{pool}\": {}", self.reason())
    }
}

impl Layers {
    /// The plan that they make; its ids are not its seats yet.
    pub(crate) fn compose(&self) -> Composed {
        let mut composed = Composed {
            plan: Plan::clone(&self.base),
            overlay: Overlay::default(),
            misfits: Vec::new(),
            surplus: BTreeMap::new(),
        };
        let mut of_pools: BTreeMap<&str, Vec<(&Subject, Amendment)>> = BTreeMap::new();
        for (subject, amendment) in &self.overlay.changes {
            of_pools.entry(&subject.pool).or_default().push((subject, *amendment));
        }
        for pool in composed.plan.pools.values_mut() {
            let changes = of_pools.remove(&*pool.name).unwrap_or_default();
            if changes.is_empty() && !pool.backends.values().any(|it| it.address.is_looked_up()) {
                continue;
            }
            let mut patch = Patch {
                pool: Arc::make_mut(pool),
                removed: Vec::new(),
                kept: &mut composed.overlay,
                misfits: &mut composed.misfits,
            };
            let surplus = patch.apply(&changes, &self.members);
            if surplus > 0 {
                composed.surplus.insert(pool.name.clone(), surplus);
            }
        }
        let astray = of_pools.into_values().flatten();
        composed.misfits.extend(astray.map(misfit(Why::NoPool)));
        composed
    }

    /// The same as long as no name has an address: an entry is one backend.
    fn entries(&self) -> Composed {
        Layers { members: Members::new(), ..self.clone() }.compose()
    }

    /// The names that are looked up.
    pub(crate) fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::new();
        for pool in self.entries().plan.pools.values() {
            for backend in pool.backends.values().filter(|it| it.address.is_looked_up()) {
                let want = wanted
                    .entry(backend.address.clone())
                    .or_insert_with(|| Want { resolve: pool.resolve, by: Vec::new() });
                want.resolve = want.resolve.min(pool.resolve);
                want.by.push((pool.name.clone(), backend.name.clone()));
            }
        }
        wanted
    }
}

fn misfit(why: Why) -> impl Fn((&Subject, Amendment)) -> Misfit {
    move |(subject, _)| Misfit { subject: subject.clone(), why }
}

/// The changes of one pool.
struct Patch<'a> {
    pool: &'a mut Pool,
    /// Backends of the configuration that are out.
    removed: Vec<(BackendId, Backend)>,
    kept: &'a mut Overlay,
    misfits: &'a mut Vec<Misfit>,
}

impl Patch<'_> {
    /// Applies the changes of this pool: those that fit are kept, the others named. Returns how
    /// many members found no room.
    fn apply(&mut self, changes: &[(&Subject, Amendment)], members: &Members) -> usize {
        let (of_members, changes): (Vec<_>, Vec<_>) =
            changes.iter().copied().partition(|(subject, _)| members::is_of_member(subject));
        self.apply_to_entries(&changes);
        let entries: Vec<Backend> = self.pool.backends.values().cloned().collect();
        let surplus = members::expand(self.pool, members);
        for (subject, amendment) in of_members {
            let is_entry = |it: &Backend| {
                Some(&*it.name) == members::entry_of(&subject.backend) && it.address.is_looked_up()
            };
            let fit = match amendment {
                _ if !entries.iter().any(is_entry) => Err(Why::NoBackend),
                Amendment::Added(_) => Err(Why::NoBackend),
                Amendment::Removed => {
                    if let Ok(id) = self.find(subject) {
                        self.pool.backends.remove(id);
                    }
                    Ok(())
                }
                Amendment::Set(settings) => {
                    let _ = self.set(subject, settings);
                    Ok(())
                }
            };
            self.fits(subject, amendment, fit);
        }
        surplus
    }

    fn apply_to_entries(&mut self, changes: &[(&Subject, Amendment)]) {
        let configured: Vec<Backend> = self.pool.backends.values().cloned().collect();
        let of = |wanted: fn(&Amendment) -> bool| {
            changes.iter().filter(move |(_, amendment)| wanted(amendment))
        };
        // What goes makes room for what comes; whether anything is left is known after that.
        for (subject, _) in of(|it| *it == Amendment::Removed) {
            if let Ok(id) = self.find(subject)
                && let Some(backend) = self.pool.backends.remove(id)
            {
                self.removed.push((id, backend));
            }
        }
        for (subject, amendment) in of(|it| matches!(it, Amendment::Added(_))) {
            let Amendment::Added(settings) = *amendment else { continue };
            let fit = self.add(subject, settings, &configured);
            if let (Err(Why::IsConfigured), Some(duty)) = (fit, settings.duty) {
                // A configuration that has learned of it does not give it traffic again.
                let set = Settings { duty: Some(duty), weight: None };
                let fit = self.set(subject, set);
                self.fits(subject, Amendment::Set(set), fit);
                continue;
            }
            self.fits(subject, *amendment, fit);
        }
        let is_empty = self.pool.backends.is_empty();
        for (subject, amendment) in of(|it| *it == Amendment::Removed) {
            let place = self.removed.iter().position(|(_, it)| is(it, subject));
            let fit = match place.map(|place| self.removed.swap_remove(place)) {
                Some((id, backend)) if is_empty => {
                    self.pool.backends.insert(id, backend);
                    Err(Why::Last)
                }
                Some(_) => Ok(()),
                None => Err(self.find(subject).err().unwrap_or(Why::NoBackend)),
            };
            self.fits(subject, *amendment, fit);
        }
        for (subject, amendment) in of(|it| matches!(it, Amendment::Set(_))) {
            let Amendment::Set(settings) = *amendment else { continue };
            let fit = self.set(subject, settings);
            self.fits(subject, *amendment, fit);
        }
    }

    fn fits(&mut self, subject: &Subject, amendment: Amendment, fit: Result<(), Why>) {
        match fit {
            Ok(()) => drop(self.kept.changes.insert(subject.clone(), amendment)),
            Err(why) => self.misfits.push(Misfit { subject: subject.clone(), why }),
        }
    }

    /// The backend of this name at this address.
    fn find(&self, subject: &Subject) -> Result<BackendId, Why> {
        let mut named = self.pool.backends.iter().filter(|(_, it)| it.name == subject.backend);
        let (id, backend) = named.next().ok_or(Why::NoBackend)?;
        if is(backend, subject) { Ok(id) } else { Err(Why::OtherAddress) }
    }

    fn add(
        &mut self,
        subject: &Subject,
        settings: Settings,
        configured: &[Backend],
    ) -> Result<(), Why> {
        let Subject { backend: name, address, .. } = subject;
        if configured.iter().any(|it| is(it, subject)) {
            return Err(Why::IsConfigured);
        }
        let present = || self.pool.backends.values();
        if present().any(|it| it.name == *name) {
            return Err(Why::NameTaken);
        }
        if present().any(|it| it.address == *address) {
            return Err(Why::AddressTaken);
        }
        if self.pool.backends.len() >= BACKENDS_MAX {
            return Err(Why::Full);
        }
        // Seats are given by name later on: any free id will do.
        let taken = self.removed.iter().map(|(id, _)| id.index() + 1).max().unwrap_or(0);
        let id = BackendId::at(self.pool.backends.span().max(taken)).ok_or(Why::Full)?;
        let mut backend = Backend::new(name.clone(), address.clone());
        settle(&mut backend, settings);
        self.pool.backends.insert(id, backend);
        Ok(())
    }

    fn set(&mut self, subject: &Subject, settings: Settings) -> Result<(), Why> {
        let id = self.find(subject)?;
        if let Some(backend) = self.pool.backends.get_mut(id) {
            settle(backend, settings);
        }
        Ok(())
    }
}

fn is(backend: &Backend, subject: &Subject) -> bool {
    backend.name == subject.backend && backend.address == subject.address
}

fn settle(backend: &mut Backend, Settings { weight, duty }: Settings) {
    backend.weight = weight.unwrap_or(backend.weight);
    backend.duty = duty.unwrap_or(backend.duty);
}
