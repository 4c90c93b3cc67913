//! Run-time changes of single backends: an order becomes the next overlay, and that the next plan.
//!
//! A removal that is to wait makes its backend drain first; `Leaving` is removed when it is empty
//! or its time is over.

use std::{sync::Arc, time::Instant};

use super::{
    changes::Changer,
    control::{Denied, Edit},
};
use crate::admin::{BackendWrite, BackendWritten, WriteDenied};
use crate::observe::event::{Change, Event};
use crate::plan::{Amendment, Duty, Overlay, Settings, Subject};
use crate::policy::overlay::{Layers, Order};

/// The result of a run-time change.
pub(super) type WriteOutcome = Result<BackendWritten, WriteDenied>;

/// A backend that drains, and is removed when it is empty.
#[derive(Clone)]
pub(super) struct Leaving {
    pool: String,
    backend: String,
    /// Then it is removed, whatever it still does.
    until: Instant,
}

impl Leaving {
    fn is(&self, order: &Order) -> bool {
        order.of() == (&*self.pool, &*self.backend)
    }

    fn removal(&self) -> Order {
        Order::Remove { pool: self.pool.clone(), backend: self.backend.clone() }
    }
}

impl Changer {
    /// Carries out an order.
    pub(super) fn write(&mut self, write: &BackendWrite, by: &'static str) -> WriteOutcome {
        let BackendWrite { order, drain, only_if, from } = write;
        let failed = || WriteDenied::Failed("the control thread does not answer".into());
        let (generation, layers) = self.client.layers().ok_or_else(failed)?;
        if only_if.as_ref().is_some_and(|meant| !meant.contains(&generation)) {
            return Err(WriteDenied::Moved(generation));
        }
        let (pool, backend) = order.of();
        // What is left when all that leave are gone must serve, too.
        let others = self.leaving.iter().filter(|leaving| !leaving.is(order)).cloned();
        let others: Vec<Leaving> = others.collect();
        let last = Layers { overlay: without(layers.clone(), &others), ..layers.clone() };
        last.amend(order).map_err(WriteDenied::Order)?;
        let drain = drain.filter(|time| {
            let is_busy = self.client.in_flight(pool, backend).is_some_and(|count| count > 0);
            matches!(order, Order::Remove { .. }) && is_busy && !time.is_zero()
        });
        let drains = Order::Set {
            pool: pool.to_owned(),
            backend: backend.to_owned(),
            settings: Settings { weight: None, duty: Some(Duty::Draining) },
        };
        let now = if drain.is_some() { &drains } else { order };
        let overlay = layers.amend(now).map_err(WriteDenied::Order)?;
        let mut leaving = self.leaving.clone();
        match (order, drain) {
            (_, Some(time)) => {
                leaving.retain(|leaving| !leaving.is(order));
                let (pool, backend) = (pool.to_owned(), backend.to_owned());
                leaving.push(Leaving { pool, backend, until: Instant::now() + time });
            }
            (Order::Set { settings: Settings { duty: Some(Duty::Up), .. }, .. }, None)
            | (Order::Remove { .. }, None) => leaving.retain(|leaving| !leaving.is(order)),
            (Order::Add { .. } | Order::Set { .. }, None) => {}
        }
        // It is on the disk before anything changes.
        let before = without(layers.clone(), &self.leaving);
        let after = Layers { overlay: overlay.clone(), ..layers };
        self.keep(&without(after, &leaving)).map_err(WriteDenied::NotKept)?;
        let edit = Edit { overlay: Some(overlay), only_if: only_if.clone(), ..Edit::default() };
        let (generation, warnings) = match self.amend(edit) {
            Ok(done) => done,
            Err(denied) => {
                self.keep_or_tell(&before);
                return Err(denied);
            }
        };
        self.leaving = leaving;
        self.tell_of(now, generation, (by, from));
        Ok(BackendWritten { generation, is_draining: drain.is_some(), warnings })
    }

    /// Keeps run-time changes over a restart, if there is a place for them.
    ///
    /// # Errors
    /// Why they cannot be kept.
    pub(super) fn keep(&mut self, overlay: &Overlay) -> Result<(), String> {
        self.state.as_mut().map_or(Ok(()), |state| state.write(overlay))
    }

    /// The same after what cannot be undone.
    pub(super) fn keep_or_tell(&mut self, overlay: &Overlay) {
        if let Err(why) = self.keep(overlay) {
            self.tell(Event::StateNotKept { cause: why.into() });
        }
    }

    /// Serves by an edited overlay; returns the number of its plan, and where that is not in force
    /// yet.
    fn amend(&self, edit: Edit) -> Result<(u64, Vec<String>), WriteDenied> {
        match self.client.change(edit) {
            Ok(changed) => Ok((changed.generation, changed.late)),
            Err(Denied::Moved(generation)) => Err(WriteDenied::Moved(generation)),
            Err(Denied::NotKept(why)) => Err(WriteDenied::NotKept(why)),
            Err(Denied::Plan(error)) => Err(WriteDenied::Failed(error.to_string())),
        }
    }

    /// Removes those that leave and are empty, or whose time is over.
    pub(super) fn look_after_leaving(&mut self) {
        let now = Instant::now();
        for leaving in std::mem::take(&mut self.leaving) {
            let Leaving { pool, backend, until } = &leaving;
            match self.client.in_flight(pool, backend) {
                Some(count) if count > 0 && now < *until => self.leaving.push(leaving),
                Some(_) => {
                    if let Err(why) = self.remove(&leaving) {
                        let why: Arc<str> = why.to_string().into();
                        self.tell(Event::ChangeDropped {
                            pool: pool.as_str().into(),
                            backend: backend.as_str().into(),
                            cause: why,
                        });
                    }
                }
                // A later configuration does not have it.
                None => {}
            }
        }
    }

    fn remove(&mut self, leaving: &Leaving) -> Result<(), WriteDenied> {
        let Some((_, layers)) = self.client.layers() else { return Ok(()) };
        let order = leaving.removal();
        let overlay = layers.amend(&order).map_err(WriteDenied::Order)?;
        let (generation, _) = self.amend(Edit { overlay: Some(overlay), ..Edit::default() })?;
        self.tell_of(&order, generation, ("drain", ""));
        Ok(())
    }

    fn tell_of(&self, order: &Order, generation: u64, (by, from): (&str, &str)) {
        let (pool, backend) = order.of();
        let changes = match order {
            Order::Add { address, weight, .. } => format!("{address}, weight {weight}"),
            Order::Set { settings, .. } => described(*settings),
            Order::Remove { .. } => String::new(),
        };
        let it = Change {
            pool: pool.into(),
            backend: backend.into(),
            changes: changes.into(),
            generation,
            by: by.into(),
            from: (!from.is_empty()).then(|| Arc::from(from)),
        };
        self.tell(match order {
            Order::Add { .. } => Event::BackendAdded(it),
            Order::Set { .. } => Event::BackendSet(it),
            Order::Remove { .. } => Event::BackendRemoved(it),
        });
    }
}

/// `weight 3, draining`.
pub(super) fn described(settings: Settings) -> String {
    let weight = settings.weight.map(|weight| format!("weight {weight}"));
    let duty = settings.duty.map(|duty| duty.word().to_owned());
    weight.into_iter().chain(duty).collect::<Vec<_>>().join(", ")
}

/// The run-time changes in force, a line for each.
pub(super) fn lines(overlay: &Overlay) -> Vec<String> {
    let line = |(subject, amendment): (&Subject, &Amendment)| {
        let Subject { pool, backend, address } = subject;
        let (sign, what) = match amendment {
            Amendment::Added(settings) => ("+", described(*settings)),
            Amendment::Removed => ("-", String::new()),
            Amendment::Set(settings) => ("~", described(*settings)),
        };
        let at = address.to_string();
        let at = if at == *backend { String::new() } else { format!(" at {at}") };
        let what = if what.is_empty() { what } else { format!(": {what}") };
        format!("{sign} backend \"{backend}\" of pool \"{pool}\"{at}{what}")
    };
    overlay.changes.iter().map(line).collect()
}

/// An overlay after all that leave have left: what is kept over a restart, as nothing is in flight
/// after that.
pub(super) fn without(mut layers: Layers, leaving: &[Leaving]) -> Overlay {
    for leaving in leaving {
        if let Ok(overlay) = layers.amend(&leaving.removal()) {
            layers.overlay = overlay;
        }
    }
    layers.overlay
}
