//! How busy a core is, as it tells the other cores, in one word.

/// The load of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CoreLoad {
    /// The share of time in which it was running or waiting for a processor, in thousandths.
    pub(crate) busy: u16,
    /// How many of its clients have asked lately.
    pub(crate) clients: u16,
    /// The mean time from one request of such a client to its next, in units of 2 µs.
    pub(crate) cycle: u16,
    /// Whether it takes connections of other cores.
    pub(crate) takes: bool,
    /// Which plan it serves: the last 15 bits of its number.
    pub(crate) plan: u16,
}

impl CoreLoad {
    /// All of it in a word; that of a core that has told nothing is 0.
    pub(crate) fn to_word(self) -> u64 {
        let plan = self.plan << 1 | u16::from(self.takes);
        let parts = [plan, self.cycle, self.clients, self.busy];
        parts.into_iter().fold(0, |word, part| word << 16 | u64::from(part))
    }

    /// What a word says.
    #[allow(clippy::cast_possible_truncation)] // the parts of the word
    pub(crate) fn from_word(word: u64) -> CoreLoad {
        let part = |place: u32| (word >> (16 * place)) as u16;
        let (busy, clients, cycle) = (part(0), part(1), part(2));
        CoreLoad { busy, clients, cycle, takes: part(3) & 1 != 0, plan: part(3) >> 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_all_of_it() {
        let load = CoreLoad { busy: 1_000, clients: 65_535, cycle: 7, takes: true, plan: 32_767 };
        assert_eq!(CoreLoad::from_word(load.to_word()), load);
        assert_eq!(CoreLoad::from_word(0), CoreLoad::default());
        assert_eq!(CoreLoad::default().to_word(), 0);
    }
}
