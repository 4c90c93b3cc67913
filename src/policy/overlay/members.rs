//! Members: the backends that a name stands for, in place of the one that is configured.
//!
//! Each address that the name has at the moment is a backend called `ENTRY#ADDRESS`, with the keys
//! of the entry. A name without an address stays as it is, and is asked by nobody. A server that a
//! pool has already is not in it twice.

use std::collections::HashSet;

use crate::base::{backend_set::BACKENDS_MAX, endpoint::Endpoint};
use crate::plan::{Address, Backend, Member, Pool, Subject};
use crate::policy::{
    lookups::Members,
    resolve::{Found, Service},
};

/// The highest weight, as in a configuration.
const WEIGHT_MAX: u64 = 256;

/// What stands between the name of an entry and the address. No configured name has it.
const SIGN: char = '#';

/// Whether a run-time change is about a member.
pub(super) fn is_of_member(subject: &Subject) -> bool {
    subject.backend.contains(SIGN)
}

/// The name of the entry that the backend of this name is a member of.
pub(super) fn entry_of(name: &str) -> Option<&str> {
    name.split_once(SIGN).map(|(entry, _)| entry)
}

/// Puts the members in place of the names that have any. Returns how many found no room in the
/// pool.
pub(super) fn expand(pool: &mut Pool, members: &Members) -> usize {
    let found = |backend: &Backend| members.get(&backend.address);
    if !pool.backends.values().any(|backend| found(backend).is_some()) {
        return 0;
    }
    let configured = pool.backends.values().filter(|backend| found(backend).is_none());
    let mut left = BACKENDS_MAX.saturating_sub(configured.clone().count());
    let mut taken: HashSet<Endpoint> =
        configured.flat_map(|backend| backend.address.known()).collect();
    let (mut all, mut surplus) = (Vec::new(), 0);
    for backend in pool.backends.values() {
        let Some(found) = found(backend) else {
            all.push(backend.clone());
            continue;
        };
        let shares = Shares::of(found, backend.weight);
        for one in found.iter().filter(|one| taken.insert(one.at.into())) {
            if left == 0 {
                surplus += 1;
                continue;
            }
            left -= 1;
            all.push(member(backend, one, &shares));
        }
    }
    pool.backends = all.into_iter().collect();
    surplus
}

/// One backend of an entry.
fn member(entry: &Backend, found: &Found, shares: &Shares) -> Backend {
    let Found { at, service } = found;
    let (place, host, is_spare) = match service {
        // Each has a port of its own.
        Some(Service { target, priority, .. }) => {
            let host = Address::Name { host: target.clone(), port: at.port() };
            (at.to_string(), host, *priority > shares.first)
        }
        None => (at.ip().to_string(), entry.address.clone(), false),
    };
    Backend {
        name: format!("{}{SIGN}{place}", entry.name),
        address: Address::Socket(*at),
        weight: shares.weight(service.as_ref()),
        backup: entry.backup || is_spare,
        member: Some(Member { entry: entry.name.clone(), host }),
        ..entry.clone()
    }
}

/// What SRV records make of the weight of their entry.
struct Shares {
    entry: u64,
    /// The lowest priority: all others are for when it cannot serve.
    first: u16,
    /// The weight that counts as that of the entry: the records' greatest common divisor.
    unit: u64,
    /// The highest weight that comes of that.
    most: u64,
}

impl Shares {
    fn of(found: &[Found], entry: u16) -> Shares {
        let services = || found.iter().filter_map(|found| found.service.as_ref());
        let unit = services().map(weight).fold(0, divisor).max(1);
        let first = services().map(|service| service.priority).min().unwrap_or_default();
        let most = services().map(|service| weight(service) / unit).max().unwrap_or(1);
        Shares { entry: entry.into(), first, unit, most: most * u64::from(entry) }
    }

    /// In proportion, and at least 1 where the entry has any.
    fn weight(&self, service: Option<&Service>) -> u16 {
        let own = service.map_or(1, |service| weight(service) / self.unit) * self.entry;
        let own = if self.most > WEIGHT_MAX { own * WEIGHT_MAX / self.most } else { own };
        u16::try_from(own.max(self.entry.min(1))).unwrap_or(u16::MAX)
    }
}

/// A weight of 0 means a very small one (RFC 2782).
fn weight(service: &Service) -> u64 {
    u64::from(service.weight.max(1))
}

fn divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The members of an entry of this weight by its SRV records, as priority and weight: the
    /// weight of each, and `b` for a backup.
    #[track_caller]
    fn check(weight: u16, records: &[(u16, u16)], expected: &str) {
        let address = Address::Srv { name: "_http._tcp.a.test".into() };
        let mut entry = Backend::new("srv:_http._tcp.a.test".into(), address.clone());
        entry.weight = weight;
        let mut pool = Pool { backends: [entry].into_iter().collect(), ..Pool::default() };
        let found: Arc<[Found]> = (0..)
            .zip(records)
            .map(|(port, (priority, weight))| {
                let (priority, weight) = (*priority, *weight);
                let service = Service { target: "h.test".into(), priority, weight };
                Found { at: ([10, 0, 0, 1], 8000 + port).into(), service: Some(service) }
            })
            .collect();
        assert_eq!(expand(&mut pool, &Members::from([(address, found)])), 0);
        let said = |it: &Backend| format!("{}{}", it.weight, if it.backup { "b" } else { "" });
        let all: Vec<String> = pool.backends.values().map(said).collect();
        assert_eq!(all.join(" "), expected, "{records:?}");
        let first = pool.backends.values().next().unwrap();
        assert_eq!(first.name, "srv:_http._tcp.a.test#10.0.0.1:8000");
        assert_eq!((&*first.authority(), &*first.host()), ("h.test:8000", "h.test"));
    }

    #[test]
    fn weights_of_records_are_in_proportion_to_that_of_the_entry() {
        check(1, &[(0, 33), (0, 33), (0, 33)], "1 1 1");
        check(2, &[(0, 10), (0, 20)], "2 4");
        check(1, &[(0, 0), (0, 0)], "1 1");
        check(1, &[(0, 0), (0, 100)], "1 100");
        check(1, &[(0, 65_535), (0, 1)], "256 1");
        check(256, &[(0, 2), (0, 3)], "170 256");
        check(0, &[(0, 2), (0, 3)], "0 0");
    }

    #[test]
    fn records_behind_the_first_priority_are_backups() {
        check(1, &[(10, 5), (20, 5), (10, 5), (30, 10)], "1 1b 1 2b");
    }
}
