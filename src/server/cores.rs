//! The cores that serve: the affinity mask, bounded by the CPU limit of the control groups.
//!
//! Chosen at the start, and again by a reload; `spawn.rs` pins threads to them. A mask says which
//! cores are ours, a limit only how many at once: if the limit decides, no thread is pinned, or
//! several such processes would all share the first cores.

use core_affinity::CoreId;

use super::cgroup;
use crate::plan::Cores;

/// A process may grow to this many cores, or to twice those that it begins with.
const ROOM_MIN: usize = 8;

/// The cores to serve on.
#[derive(Debug)]
pub(super) struct Chosen {
    /// In order.
    pub(super) cores: Vec<CoreId>,
    /// Whether they are ours, so that a thread may be pinned to each.
    pub(super) may_pin: bool,
    /// In the form of the configuration.
    pub(super) text: String,
    /// How many there may be in the life of the process.
    pub(super) room: usize,
}

/// The cores to serve on, in order.
///
/// # Errors
/// A sentence for people, if the plan names cores that this process may not use.
pub(super) fn choose(cores: &Cores) -> Result<Chosen, String> {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    if allowed.is_empty() {
        return Err("the kernel does not say which cores this process may use".into());
    }
    let ours = allowed.len();
    let chosen = match cores {
        Cores::Auto => return Ok(by_limit(allowed, cgroup::cpu_limit())),
        Cores::Count(count) => {
            let count = usize::from(*count);
            if count == 0 || count > allowed.len() {
                return Err(format!(
                    "{count} cores requested, but this process may use {} ({})",
                    allowed.len(),
                    names(&allowed)
                ));
            }
            allowed.into_iter().take(count).collect()
        }
        Cores::List(list) => list
            .iter()
            .map(|id| {
                let id = usize::from(*id);
                allowed.iter().copied().find(|core| core.id == id).ok_or_else(|| {
                    format!("this process may not use core {id} ({})", names(&allowed))
                })
            })
            .collect::<Result<_, String>>()?,
    };
    Ok(all(chosen, ours))
}

/// Cores that are all ours.
fn all(cores: Vec<CoreId>, allowed: usize) -> Chosen {
    Chosen { text: names(&cores), room: room(cores.len(), allowed), cores, may_pin: true }
}

/// For how many cores there is room, beginning with so many: what cores share has a place for each,
/// which all of them read.
fn room(count: usize, allowed: usize) -> usize {
    allowed.min(ROOM_MIN.max(count * 2)).max(count)
}

/// As many of these as the limit allows.
fn by_limit(allowed: Vec<CoreId>, limit: Option<usize>) -> Chosen {
    let limit = limit.unwrap_or(usize::MAX).max(1);
    if limit >= allowed.len() {
        let count = allowed.len();
        return all(allowed, count);
    }
    let text = format!("of {}", names(&allowed));
    let room = room(limit, allowed.len());
    Chosen { cores: allowed.into_iter().take(limit).collect(), may_pin: false, text, room }
}

/// Cores in the form of the configuration: `0-3,8`.
fn names(cores: &[CoreId]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core.id => *last = core.id,
            _ => ranges.push((core.id, core.id)),
        }
    }
    let texts: Vec<String> = ranges
        .iter()
        .map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        )
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_how_many_cores_and_not_which() {
        let allowed = [0, 1, 2, 3].map(|id| CoreId { id });
        for (limit, count, may_pin, text) in [
            (None, 4, true, "0-3"),
            (Some(4), 4, true, "0-3"),
            (Some(9), 4, true, "0-3"),
            (Some(2), 2, false, "of 0-3"),
            (Some(0), 1, false, "of 0-3"),
        ] {
            let chosen = by_limit(allowed.to_vec(), limit);
            let seen = (chosen.cores.len(), chosen.may_pin, &*chosen.text);
            assert_eq!(seen, (count, may_pin, text), "{limit:?}");
        }
    }

    #[test]
    fn there_is_room_for_twice_as_many_within_what_is_ours() {
        let cases = [(1, 1, 1), (1, 2, 2), (2, 64, 8), (8, 64, 16), (40, 64, 64), (64, 64, 64)];
        for (count, allowed, expected) in cases {
            assert_eq!(room(count, allowed), expected, "{count} of {allowed}");
        }
    }

    #[test]
    fn names_cores_in_ranges() {
        let cores = [0, 1, 2, 5, 7, 8].map(|id| CoreId { id });
        assert_eq!(names(&cores), "0-2,5,7-8");
    }

    #[test]
    fn refuses_cores_that_are_not_ours() {
        assert!(choose(&Cores::List(vec![60_000])).unwrap_err().contains("60000"));
        assert!(choose(&Cores::Count(0)).is_err());
        assert!(!choose(&Cores::Auto).unwrap().cores.is_empty());
    }
}
