//! The descriptor limit: whether it suffices for the connections that are allowed.
//!
//! The soft limit is raised to the hard one first. A default that does not fit is lowered with one
//! note; a configured number that does not fit keeps the process from starting. Idle connections to
//! backends have no descriptors reserved (`worker/descriptors.rs`).
//!
//! The kernel's table of descriptors is made large enough before any are needed. It doubles when it
//! is full, and in a process of several threads the one that opens the next waits for all
//! processors (`synchronize_rcu` in `expand_fdtable`): a core slept for 10 to 20 ms when the
//! process had 64, 256, 512 and so on.

use rustix::{
    event::{EventfdFlags, eventfd},
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::observe::event::Event;
use crate::plan::Limits;

/// Descriptors that are not for connections: those of the process, and of each core (ring,
/// listeners, bell, pipes).
const PROCESS: u64 = 64;
const CORE: u64 = 64;
const EACH: u64 = Limits::DESCRIPTORS_EACH;

/// Makes the limit fit; returns an event if it was lowered.
///
/// # Errors
/// One sentence, if the configured number does not fit.
pub(super) fn fit(
    limits: &mut Limits,
    cores: usize,
    may_raise: bool,
) -> Result<Option<Event>, String> {
    judge(limits, descriptors(may_raise), cores)
}

/// Whether the limit will fit, once it is raised as far as possible.
///
/// # Errors
/// Like `fit`.
pub(super) fn check(limits: &Limits, cores: usize) -> Result<(), String> {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    judge(&mut limits.clone(), hard, cores).map(|_| ())
}

/// The soft limit, raised as far as possible if that is allowed.
fn descriptors(may_raise: bool) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if may_raise {
        // If it is refused the old limit still holds.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current.or(current).unwrap_or(u64::MAX)
}

/// Has the kernel's table hold what the limits need, as far as the process may have so many. It
/// stays that large.
pub(super) fn make_room(limits: &Limits, cores: usize) {
    let most = needed(limits.connections, cores).min(descriptors(false));
    let last = i32::try_from(most.saturating_sub(1)).unwrap_or(i32::MAX);
    // Where it is refused the table grows as it fills.
    let _ = eventfd(0, EventfdFlags::CLOEXEC).and_then(|any| fcntl_dupfd_cloexec(&any, last));
}

/// Descriptors that are not for connections.
fn others(cores: usize) -> u64 {
    PROCESS + CORE * cores as u64
}

fn needed(connections: u32, cores: usize) -> u64 {
    u64::from(connections) * EACH + others(cores)
}

fn judge(limits: &mut Limits, descriptors: u64, cores: usize) -> Result<Option<Event>, String> {
    let others = others(cores);
    let room = descriptors.saturating_sub(others) / EACH;
    let wanted = limits.connections;
    if u64::from(wanted) <= room {
        return Ok(None);
    }
    let needed = needed(wanted, cores);
    if room == 0 {
        let least = EACH + others;
        return Err(format!(
            "{descriptors} descriptors leave none for connections: allow at least {least}, or \
             {needed} for {wanted} connections (LimitNOFILE={needed} in the systemd unit, \
             `ulimit -n {needed}` in a shell)"
        ));
    }
    if limits.connections_written {
        return Err(format!(
            "{wanted} connections do not fit into {descriptors} descriptors: write \
             connections = {room} or less in [global.limits], or allow {needed} descriptors \
             (LimitNOFILE={needed} in the systemd unit, `ulimit -n {needed}` in a shell)"
        ));
    }
    limits.connections = u32::try_from(room).unwrap_or(wanted);
    let connections = limits.connections;
    Ok(Some(Event::ConnectionsLowered { connections, wanted, descriptors, needed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit in force and whether there is a note, or the end of the refusal's first clause.
    fn check(wanted: u32, written: bool, descriptors: u64, expected: Result<(u32, bool), &str>) {
        let mut limits =
            Limits { connections: wanted, connections_written: written, ..Limits::default() };
        match (judge(&mut limits, descriptors, 2), expected) {
            (Ok(note), Ok(expected)) => {
                assert_eq!((limits.connections, note.is_some()), expected, "{note:?}");
            }
            (Err(refusal), Err(part)) => assert!(refusal.contains(part), "{refusal}"),
            (judged, _) => panic!("{judged:?}"),
        }
    }

    #[test]
    fn a_default_is_lowered_and_a_written_number_refused() {
        check(100_000, false, u64::MAX, Ok((100_000, false)));
        check(100_000, false, 200_192, Ok((100_000, false)));
        check(100_000, false, 200_191, Ok((99_999, true)));
        check(100_000, false, 1_024, Ok((416, true)));
        check(100_000, true, 1_024, Err("connections = 416 or less"));
        check(416, true, 1_024, Ok((416, false)));
        check(100_000, true, 1_024, Err("or allow 200192 descriptors"));
        check(100_000, false, 194, Ok((1, true)));
        check(100_000, false, 193, Err("allow at least 194, or 200192 for 100000 connections"));
        check(5, true, 100, Err("100 descriptors leave none for connections"));
    }

    #[test]
    fn the_soft_limit_goes_up_to_the_hard_one() {
        let raised = descriptors(true);
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(raised, hard);
    }
}
