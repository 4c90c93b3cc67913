//! Chance that nobody can foresee, to begin what is drawn from there on by `base::rng`.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

/// A number by chance. The keys of the standard library's hasher are the process's own, so this
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
