//! The plans that are held, and the threads that hold them.
//!
//! A thread holds a plan from its publication until the thread reports that it released it: the
//! last of its requests that began under the plan has ended. Threads release plans in any order,
//! and an early plan perhaps long after a later one.

use std::{collections::VecDeque, sync::Arc};

use crate::plan::Plan;

/// The plan in force and the earlier ones that some thread still holds.
pub(crate) struct Held {
    /// Oldest first; the last is in force.
    plans: VecDeque<Published>,
}

/// A plan that was published.
struct Published {
    generation: u64,
    plan: Arc<Plan>,
    /// The threads that hold it.
    threads: Vec<usize>,
}

impl Held {
    /// Before the first plan: an empty one is in force, which no thread holds.
    pub(crate) fn new() -> Held {
        let plan = Arc::new(Plan::default());
        Held { plans: VecDeque::from([Published { generation: 0, plan, threads: Vec::new() }]) }
    }

    /// The plan in force.
    pub(crate) fn in_force(&self) -> &Arc<Plan> {
        match self.plans.back() {
            Some(last) => &last.plan,
            None => unreachable!("one is always in force"),
        }
    }

    /// The generation of the plan in force; 0 before the first.
    pub(crate) fn generation(&self) -> u64 {
        self.plans.back().map_or(0, |last| last.generation)
    }

    /// Puts this plan in force, held by these threads; returns its generation.
    pub(crate) fn publish(
        &mut self,
        plan: Arc<Plan>,
        threads: impl IntoIterator<Item = usize>,
    ) -> u64 {
        let generation = self.generation() + 1;
        self.plans.push_back(Published {
            generation,
            plan,
            threads: threads.into_iter().collect(),
        });
        generation
    }

    /// One more thread holds the plan in force.
    pub(crate) fn join(&mut self, thread: usize) {
        self.plans.back_mut().into_iter().for_each(|last| last.threads.push(thread));
    }

    /// A thread no longer holds the plan of this generation.
    pub(crate) fn retire(&mut self, generation: u64, thread: usize) {
        let of_generation = |published: &&mut Published| published.generation == generation;
        if let Some(published) = self.plans.iter_mut().find(of_generation) {
            published.threads.retain(|other| *other != thread);
        }
    }

    /// Removes the plans that no thread holds any more, except the one in force.
    pub(crate) fn free(&mut self) -> Vec<Arc<Plan>> {
        let in_force = self.generation();
        let is_held = |it: &Published| it.generation == in_force || !it.threads.is_empty();
        let (held, free): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.plans).into_iter().partition(is_held);
        self.plans = held;
        free.into_iter().map(|published| published.plan).collect()
    }

    /// How many plans are held, including the one in force.
    pub(crate) fn len(&self) -> usize {
        self.plans.len()
    }

    /// The plan in force and all that some thread holds.
    pub(crate) fn plans(&self) -> impl Iterator<Item = &Plan> + Clone {
        let in_force = self.generation();
        let is_held = move |it: &&Published| it.generation == in_force || !it.threads.is_empty();
        self.plans.iter().filter(is_held).map(|published| &*published.plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(instance: &str) -> Arc<Plan> {
        let mut plan = Plan::default();
        plan.global.instance = instance.into();
        Arc::new(plan)
    }

    /// The instances of these plans.
    fn names<'a>(plans: impl Iterator<Item = &'a Plan>) -> Vec<String> {
        plans.map(|plan| plan.global.instance.clone()).collect()
    }

    #[test]
    fn a_plan_is_held_until_every_thread_has_let_go_of_it() {
        let mut held = Held::new();
        assert_eq!((held.generation(), held.in_force().listeners.len()), (0, 0));
        assert_eq!(held.publish(named("a"), 0..2), 1);
        assert_eq!(held.publish(named("b"), 0..2), 2);
        assert_eq!(held.publish(named("c"), 0..3), 3);
        assert_eq!(names(held.plans()), ["a", "b", "c"]);
        assert_eq!(held.free().len(), 1, "the empty one of before the first");
        held.retire(2, 1);
        held.retire(2, 0);
        assert_eq!(names(held.plans()), ["a", "c"], "the later may go before the earlier");
        held.retire(1, 0);
        held.retire(1, 0);
        held.retire(1, 7);
        held.retire(9, 0);
        assert_eq!(names(held.plans()), ["a", "c"], "twice, or of nothing, is nothing");
        held.retire(1, 1);
        assert_eq!(names(held.free().iter().map(|plan| &**plan)), ["a", "b"]);
        assert_eq!(names(held.plans()), ["c"]);
    }

    #[test]
    fn the_plan_in_force_is_never_free() {
        let mut held = Held::new();
        held.publish(named("a"), [0]);
        held.retire(1, 0);
        held.free();
        assert_eq!(names(held.plans()), ["a"]);
        assert_eq!((held.generation(), &*held.in_force().global.instance), (1, "a"));
        held.publish(named("b"), [0]);
        assert_eq!(names(held.plans()), ["b"]);
        assert_eq!(names(held.free().iter().map(|plan| &**plan)), ["a"]);
    }
}
