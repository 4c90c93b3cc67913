//! How busy each core is, as it last told: one word of each core, on a line of its own.
//!
//! Only that core writes it, four times a second while it has anything to do, and the others read
//! it as often: the path of a request touches none of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::base::core_load::CoreLoad;

/// Two cache lines: processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// The loads of all cores.
#[derive(Clone)]
pub(crate) struct Levels(Arc<[Line]>);

impl Levels {
    /// Of this many cores, none of which has told anything.
    pub(crate) fn new(cores: usize) -> Levels {
        Levels((0..cores).map(|_| Line::default()).collect())
    }

    /// Tells the load of a core. Only that core may call it.
    pub(crate) fn tell(&self, core: usize, load: CoreLoad) {
        if let Some(line) = self.0.get(core) {
            line.0.store(load.to_word(), Relaxed);
        }
    }

    /// The loads of all cores, as each last told.
    pub(crate) fn all(&self) -> Vec<CoreLoad> {
        self.0.iter().map(|line| CoreLoad::from_word(line.0.load(Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_tells_its_own_on_a_line_of_its_own() {
        let levels = Levels::new(3);
        let load = CoreLoad { busy: 7, clients: 2, cycle: 3, takes: true, plan: 4 };
        levels.tell(1, load);
        levels.tell(9, load);
        assert_eq!(levels.all(), [CoreLoad::default(), load, CoreLoad::default()]);
        assert_eq!(size_of::<Line>(), 128);
    }
}
