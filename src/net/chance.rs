//! Unpredictable seeds for `base::rng`.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

/// A random number. The keys of the standard library's hasher are unique to the process, so this
/// needs no system call of ours.
pub(crate) fn drawn() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_not_the_same() {
        assert_ne!(drawn(), drawn());
    }
}
