//! A scoped gauge: counts something in progress, and counts it down on drop, however it ended, a
//! panic included.

use std::rc::Rc;

use super::Core;
use crate::shared::counters::Counter;

/// Adds one to a gauge for as long as this lives.
pub(crate) struct Gauge {
    core: Rc<Core>,
    counter: Counter,
}

impl Gauge {
    #[inline]
    pub(crate) fn up(core: &Rc<Core>, counter: Counter) -> Gauge {
        core.counters.add(counter, 1);
        Gauge { core: Rc::clone(core), counter }
    }
}

impl Drop for Gauge {
    #[inline]
    fn drop(&mut self) {
        self.core.counters.sub(self.counter, 1);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::worker::Worker;

    #[test]
    fn what_a_panic_ends_is_counted_down() {
        let text = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                    [pool.app]\nbackends = [\"127.0.0.1:9\"]\n";
        let worker = Worker::crew(text, 1).remove(0);
        let counted = || worker.counters.read(Counter::InFlight);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _under_way = Gauge::up(&worker.core, Counter::InFlight);
            assert_eq!(counted(), 1);
            panic!("a bug");
        }));
        assert!(unwound.is_err());
        assert_eq!(counted(), 0);
    }
}
