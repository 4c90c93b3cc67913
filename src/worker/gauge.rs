//! Something under way that a gauge counts: counted down when it is dropped, whichever way it
//! ended, a panic included.

use std::rc::Rc;

use super::InForce;
use crate::shared::counters::Counter;

/// One more of what a gauge counts, for as long as this lives.
pub(crate) struct Gauge {
    in_force: Rc<InForce>,
    counter: Counter,
}

impl Gauge {
    #[inline]
    pub(crate) fn up(in_force: &Rc<InForce>, counter: Counter) -> Gauge {
        in_force.counters.add(counter, 1);
        Gauge { in_force: Rc::clone(in_force), counter }
    }
}

impl Drop for Gauge {
    #[inline]
    fn drop(&mut self) {
        self.in_force.counters.sub(self.counter, 1);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::{Common, Own, Worker};
    use super::*;
    use crate::shared::counters::Slab;

    #[test]
    fn what_a_panic_ends_is_counted_down() {
        let text = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                    [pool.app]\nbackends = [\"127.0.0.1:9\"]\n";
        let common = Common::of_text(text, 1);
        let own = Own { core_index: 0, counters: Slab::new(), outlets: Default::default() };
        let worker = Worker::new(common, own);
        let counted = || worker.counters.read(Counter::InFlight);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _under_way = Gauge::up(&worker.in_force(), Counter::InFlight);
            assert_eq!(counted(), 1);
            panic!("a bug");
        }));
        assert!(unwound.is_err());
        assert_eq!(counted(), 0);
    }
}
