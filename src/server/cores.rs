//! Which cores serve: the affinity mask, bounded by the cgroup's CPU limit.
//!
//! Chosen once, at the start; pinning to them is the business of `spawn.rs`.

use core_affinity::CoreId;

use crate::plan::Cores;

/// The cores to serve on, in order.
///
/// # Errors
/// A sentence for people, where the plan names cores that this process may not use.
pub(super) fn choose(cores: &Cores) -> Result<Vec<CoreId>, String> {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    if allowed.is_empty() {
        return Err("the kernel does not say which cores this process may use".into());
    }
    match cores {
        Cores::Auto => {
            let limit = cgroup_limit().unwrap_or(usize::MAX).max(1);
            Ok(allowed.into_iter().take(limit).collect())
        }
        Cores::Count(count) => {
            let count = usize::from(*count);
            if count == 0 || count > allowed.len() {
                return Err(format!(
                    "{count} cores are asked for, but this process may use {} ({})",
                    allowed.len(),
                    names(&allowed)
                ));
            }
            Ok(allowed.into_iter().take(count).collect())
        }
        Cores::List(list) => list
            .iter()
            .map(|id| {
                let id = usize::from(*id);
                allowed.iter().copied().find(|core| core.id == id).ok_or_else(|| {
                    format!("core {id} is none that this process may use ({})", names(&allowed))
                })
            })
            .collect(),
    }
}

/// Cores as people write them: `0-3,8`.
pub(super) fn names(cores: &[CoreId]) -> String {
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

/// The CPU limit of this cgroup (v2 `cpu.max`), rounded up to whole cores.
fn cgroup_limit() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?;
    parse_cpu_max(&text)
}

fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<usize>().ok()?, period.parse::<usize>().ok()?);
    (period > 0).then(|| quota.div_ceil(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_the_limit_of_a_cgroup_up() {
        for (text, expected) in [
            ("max 100000\n", None),
            ("150000 100000\n", Some(2)),
            ("50000 100000\n", Some(1)),
            ("garbage", None),
            ("1 0", None),
        ] {
            assert_eq!(parse_cpu_max(text), expected, "{text:?}");
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
        assert!(!choose(&Cores::Auto).unwrap().is_empty());
    }
}
