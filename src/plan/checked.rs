//! A plan that has been checked, as a type: what can be started.

use std::ops::Deref;

use super::Plan;

/// A plan that has been checked.
///
/// Only what checks a plan makes one, so what is started needs no check on a core: every id leads
/// somewhere, every expression compiles, every number is in its range. A plan made by hand cannot
/// be started:
///
/// ```compile_fail,E0308
/// ringway::start(ringway::plan::Plan::default());
/// ```
///
/// nor can one be declared good:
///
/// ```compile_fail,E0423
/// ringway::plan::Checked(ringway::plan::Plan::default());
/// ```
#[derive(Clone, Debug)]
pub struct Checked(Plan);

impl Checked {
    /// For what has checked it.
    pub(crate) fn new(plan: Plan) -> Checked {
        Checked(plan)
    }

    /// The plan itself, to be looked at or changed; from then on nobody vouches for it.
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
