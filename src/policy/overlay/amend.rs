//! Orders of an operator: what each makes of the overlay, and why one is refused.
//!
//! An order is taken only if a check would take the plan that it makes. What is set to the value of
//! the configuration is no change, so that the overlay says only what differs.

use std::fmt;

use super::{Layers, is, members::entry_of};
use crate::base::backend_set::BACKENDS_MAX;
use crate::plan::{Address, Amendment, Backend, Overlay, Plan, Pool, Settings, Subject};

/// A change of one backend, as it is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Add it, with this weight.
    Add { pool: String, backend: String, address: Address, weight: u16 },
    /// Set these values.
    Set { pool: String, backend: String, settings: Settings },
    /// Remove it.
    Remove { pool: String, backend: String },
}

/// Why an order is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NoPool { pool: String },
    NoBackend { pool: String, backend: String },
    NotAName { backend: String },
    NotAnAddress { address: Address },
    Weight,
    NameTaken { pool: String, backend: String },
    AddressTaken { pool: String, address: Address, backend: String },
    Last { pool: String, backend: String },
    Full { pool: String },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoPool { pool } => write!(f, "there is no pool \"{pool}\""),
            Refused::NoBackend { pool, backend } => {
                write!(f, "pool \"{pool}\" has no backend \"{backend}\"")
            }
            Refused::NotAName { backend } => write!(
                f,
                "\"{backend}\" cannot be the name of a backend: expected 1 to 64 letters, digits \
                 and signs of {}",
                Backend::SIGNS
            ),
            Refused::NotAnAddress { address } => {
                write!(f, "{address} is not the address of a backend: it needs a port")
            }
            Refused::Weight => write!(f, "a weight is 0 to {WEIGHT_MAX}"),
            Refused::NameTaken { pool, backend } => {
                write!(f, "pool \"{pool}\" has a backend \"{backend}\" already")
            }
            Refused::AddressTaken { pool, address, backend } => {
                write!(f, "pool \"{pool}\" has {address} already, as backend \"{backend}\"")
            }
            Refused::Last { pool, backend } => write!(
                f,
                "\"{backend}\" is the last backend of pool \"{pool}\": add another first, or put \
                 this one into maintenance"
            ),
            Refused::Full { pool } => {
                write!(f, "pool \"{pool}\" has {BACKENDS_MAX} backends, which is the most")
            }
        }
    }
}

/// The highest weight, as in a configuration.
const WEIGHT_MAX: u16 = 256;

impl Order {
    /// The pool and the name of the backend.
    pub(crate) fn of(&self) -> (&str, &str) {
        match self {
            Order::Add { pool, backend, .. }
            | Order::Set { pool, backend, .. }
            | Order::Remove { pool, backend } => (pool, backend),
        }
    }
}

impl Layers {
    /// The overlay after an order.
    ///
    /// # Errors
    /// If the plan would not pass a check, or the order is about nothing that there is.
    pub(crate) fn amend(&self, order: &Order) -> Result<Overlay, Refused> {
        let (composed, entries) = (self.compose(), self.entries().plan);
        let (pool, name) = order.of();
        let of = |plan: &Plan| plan.pools.values().find(|it| it.name == pool).cloned();
        let no_pool = || Refused::NoPool { pool: pool.to_owned() };
        // An order may be about one address of a name, or about all of them by the entry.
        let (members, entries) = of(&composed.plan).zip(of(&entries)).ok_or_else(no_pool)?;
        let named =
            || named(&members, name).or_else(|error| self::named(&entries, name).or(Err(error)));
        let mut overlay = composed.overlay;
        match order {
            Order::Add { address, weight, .. } => {
                let subject = subject(&members, name, address);
                check_new(&members, &entries, &subject, *weight)?;
                let known = self.without(&subject);
                let change = match known {
                    // It was removed, and is put back.
                    Some(known) => Amendment::Set(Settings {
                        weight: (*weight != known.weight).then_some(*weight),
                        duty: None,
                    }),
                    None => Amendment::Added(Settings { weight: Some(*weight), duty: None }),
                };
                put(&mut overlay, subject, change);
            }
            Order::Set { settings, .. } => {
                if settings.weight.is_some_and(|weight| weight > WEIGHT_MAX) {
                    return Err(Refused::Weight);
                }
                let subject = subject(&members, name, &named()?.address);
                let known = self.without(&subject);
                let change = match overlay.changes.get(&subject) {
                    Some(Amendment::Added(before)) => Amendment::Added(settings.over(*before)),
                    Some(Amendment::Set(before)) => Amendment::Set(settings.over(*before)),
                    Some(Amendment::Removed) | None => Amendment::Set(*settings),
                };
                put(&mut overlay, subject, without_what_is(change, known.as_ref()));
            }
            Order::Remove { .. } => {
                let backend = named()?;
                let is_entry = backend.member.is_none();
                if (is_entry && entries.backends.len() == 1) || members.backends.len() == 1 {
                    let (pool, backend) = (members.name.clone(), name.to_owned());
                    return Err(Refused::Last { pool, backend });
                }
                let subject = subject(&members, name, &backend.address);
                // With a name go the changes of its addresses.
                overlay.changes.retain(|other, _| {
                    other.pool != subject.pool || entry_of(&other.backend) != Some(name)
                });
                match overlay.changes.get(&subject) {
                    Some(Amendment::Added(_)) => drop(overlay.changes.remove(&subject)),
                    Some(Amendment::Set(_) | Amendment::Removed) | None => {
                        overlay.changes.insert(subject, Amendment::Removed);
                    }
                }
            }
        }
        Ok(overlay)
    }

    /// What a subject would be without its change.
    fn without(&self, subject: &Subject) -> Option<Backend> {
        let mut bare = self.clone();
        bare.overlay.changes.remove(subject);
        [bare.compose(), bare.entries()].iter().find_map(|composed| {
            let pool = composed.plan.pools.values().find(|it| it.name == subject.pool)?;
            backend_of(pool, subject).cloned()
        })
    }
}

/// Whether a pool can have one more backend like this. `entries` are its backends while no name has
/// an address.
fn check_new(pool: &Pool, entries: &Pool, subject: &Subject, weight: u16) -> Result<(), Refused> {
    let Subject { backend: name, address, .. } = subject;
    // One without a name is named after its address.
    if !Backend::is_name(name) && *name != address.to_string() {
        return Err(Refused::NotAName { backend: name.to_owned() });
    }
    let has_port = match address {
        Address::Socket(address) => address.port() != 0,
        Address::Name { port, .. } => *port != 0,
        Address::Srv { .. } | Address::Unix(_) => true,
    };
    if !has_port {
        return Err(Refused::NotAnAddress { address: address.clone() });
    }
    if weight > WEIGHT_MAX {
        return Err(Refused::Weight);
    }
    let of = || pool.name.clone();
    let mut all = pool.backends.values().chain(entries.backends.values());
    if all.clone().any(|it| it.name == *name) {
        return Err(Refused::NameTaken { pool: of(), backend: name.to_owned() });
    }
    if let Some(other) = all.find(|it| it.address == *address) {
        let (address, backend) = (address.clone(), other.name.clone());
        return Err(Refused::AddressTaken { pool: of(), address, backend });
    }
    if pool.backends.len() >= BACKENDS_MAX {
        return Err(Refused::Full { pool: of() });
    }
    Ok(())
}

fn named<'a>(pool: &'a Pool, name: &str) -> Result<&'a Backend, Refused> {
    let found = pool.backends.values().find(|it| it.name == name);
    let none = || Refused::NoBackend { pool: pool.name.clone(), backend: name.to_owned() };
    found.ok_or_else(none)
}

fn subject(pool: &Pool, name: &str, address: &Address) -> Subject {
    let (pool, backend) = (pool.name.clone(), name.to_owned());
    Subject { pool, backend, address: address.clone() }
}

fn backend_of<'a>(pool: &'a Pool, subject: &Subject) -> Option<&'a Backend> {
    pool.backends.values().find(|it| is(it, subject))
}

/// A change without the values that it has anyway.
fn without_what_is(change: Amendment, known: Option<&Backend>) -> Amendment {
    let (Amendment::Set(settings), Some(known)) = (change, known) else { return change };
    Amendment::Set(Settings {
        weight: settings.weight.filter(|weight| *weight != known.weight),
        duty: settings.duty.filter(|duty| *duty != known.duty),
    })
}

/// Keeps a change, unless it changes nothing.
fn put(overlay: &mut Overlay, subject: Subject, change: Amendment) {
    match change {
        Amendment::Set(settings) if settings.is_empty() => {
            overlay.changes.remove(&subject);
        }
        _ => drop(overlay.changes.insert(subject, change)),
    }
}
