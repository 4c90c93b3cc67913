//! The type of a checked plan: only such a plan can be started.

use std::ops::Deref;

use super::Plan;

/// A plan that has been checked.
///
/// Only a check makes one, so a core need not check it again: every id leads somewhere, every
/// expression compiles, every number is in its range. A plan made by hand cannot be started:
///
/// ```compile_fail,E0308
/// ringway::start(ringway::plan::Plan::default());
/// ```
///
/// nor can it be declared good:
///
/// ```compile_fail,E0423
/// ringway::plan::Checked(ringway::plan::Plan::default());
/// ```
#[derive(Clone, Debug)]
pub struct Checked(Plan);

impl Checked {
    /// For the code that has checked it.
    pub(crate) fn new(plan: Plan) -> Checked {
        Checked(plan)
    }

    /// The plan itself, to be read or changed; from then on it counts as unchecked.
    #[must_use]
    pub fn into_plan(self) -> Plan {
        self.0
    }
}

impl Deref for Checked {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}
