//! The effect of an answer for a name: which of its addresses are used from now on.
//!
//! Pure: lookups are done and scheduled elsewhere. What comes is used at once. A lookup that fails
//! or finds nothing changes nothing, as a name server that is down must not take backends down with
//! it. An answer that lacks more than half of the addresses is held: they stay in use until answers
//! have lacked that much for as long as a name is looked up again at the latest. An answer in
//! another order is the same answer: name servers rotate theirs with every question.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// One address of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) at: SocketAddr,
    /// What an SRV record says of it.
    pub(crate) service: Option<Service>,
}

/// An SRV record (RFC 2782), without its port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Service {
    pub(crate) target: String,
    /// The lowest is served first.
    pub(crate) priority: u16,
    pub(crate) weight: u16,
}

/// An answer of name servers, or of the hosts file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) found: Vec<Found>,
    /// How long it may be used; none = it does not say.
    pub(crate) time_to_live: Option<Duration>,
}

/// Of the addresses of a host, those that are used: those of one family, as a host with both is one
/// server and not two. It is the family that can be reached from here and has more addresses, IPv4
/// if both have as many.
pub(crate) fn of_one_family(
    addresses: &[IpAddr],
    can_be_reached: impl Fn(&IpAddr) -> bool,
) -> Vec<IpAddr> {
    let (four, six): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|it| it.is_ipv4());
    if four.is_empty() || six.is_empty() {
        return if four.is_empty() { six } else { four };
    }
    match (four.iter().any(&can_be_reached), six.iter().any(&can_be_reached)) {
        (true, false) => four,
        (false, true) => six,
        (true, true) | (false, false) if six.len() > four.len() => six,
        (true, true) | (false, false) => four,
    }
}

/// What an answer changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing: the answer is the one known.
    Same,
    /// These are the addresses from now on.
    Now {
        addresses: Vec<SocketAddr>,
        /// Addresses that get no new requests.
        gone: Vec<SocketAddr>,
    },
    /// The answer lacks these, which are more than half: they stay in use for now.
    Held { lacking: Vec<SocketAddr> },
    /// No answer: the known addresses stay in use.
    Kept,
    /// No answer, and none before: there is no backend.
    Unknown,
}

/// The addresses of one name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Those in use, in their order.
    found: Vec<Found>,
    held: Option<Held>,
}

/// Answers lack too much to be believed at once.
#[derive(Clone, Debug)]
struct Held {
    /// When the first such lookup began.
    since: Duration,
    /// How many addresses there were.
    of: usize,
    /// Those that they have lacked since.
    lacking: Vec<Found>,
}

impl Known {
    /// Those in use.
    pub(crate) fn found(&self) -> &[Found] {
        &self.found
    }

    /// Since when answers are held, if they are.
    pub(crate) fn held_since(&self) -> Option<Duration> {
        self.held.as_ref().map(|held| held.since)
    }

    /// Takes an answer for a lookup that began at `now`; none = the lookup failed. Returns what it
    /// changes: the second is what is held besides, when that begins.
    pub(crate) fn take(
        &mut self,
        now: Duration,
        patience: Duration,
        answer: Option<&[Found]>,
    ) -> (Change, Option<Change>) {
        let Some(answer) = answer.filter(|answer| !answer.is_empty()) else {
            let is_unknown = self.found.is_empty();
            return (if is_unknown { Change::Unknown } else { Change::Kept }, None);
        };
        let mut next = answer.to_vec();
        next.sort_unstable();
        next.dedup_by(|one, other| one.at == other.at);
        let before = self.held.take();
        let (of, mut lacking, since) = match before {
            Some(Held { since, of, lacking }) => (of, lacking, Some(since)),
            None => (self.found.len(), self.found.clone(), None),
        };
        lacking.retain(|known| !next.iter().any(|found| found.at == known.at));
        let is_too_much = lacking.len() * 2 > of;
        let is_over = since.is_some_and(|since| now.saturating_sub(since) >= patience);
        let mut news = None;
        if is_too_much && !is_over {
            if since.is_none() {
                news = Some(Change::Held { lacking: addresses(&lacking) });
            }
            next.extend(lacking.iter().cloned());
            next.sort_unstable();
            self.held = Some(Held { since: since.unwrap_or(now), of, lacking });
        }
        let before = std::mem::replace(&mut self.found, next);
        if before == self.found {
            return (Change::Same, news);
        }
        let mut gone = addresses(&before);
        gone.retain(|address| !self.found.iter().any(|found| found.at == *address));
        (Change::Now { addresses: addresses(&self.found), gone }, news)
    }
}

fn addresses(found: &[Found]) -> Vec<SocketAddr> {
    found.iter().map(|found| found.at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOLVE: Duration = Duration::from_secs(10);

    /// Addresses by the last number of each.
    fn found(numbers: &[u8]) -> Vec<Found> {
        let found = |number: &u8| Found { at: ([10, 0, 0, *number], 80).into(), service: None };
        numbers.iter().map(found).collect()
    }

    fn numbers(found: impl IntoIterator<Item = SocketAddr>) -> Vec<String> {
        let last = |at: SocketAddr| at.ip().to_string().rsplit('.').next().unwrap().to_owned();
        found.into_iter().map(last).collect()
    }

    /// A change in short: `+1 2 -3` are the addresses and those that went, `!3` what is held.
    fn short(change: Change) -> String {
        match change {
            Change::Same => "same".into(),
            Change::Kept => "kept".into(),
            Change::Unknown => "unknown".into(),
            Change::Held { lacking } => format!("!{}", numbers(lacking).join(" ")),
            Change::Now { addresses, gone } => {
                format!("+{} -{}", numbers(addresses).join(" "), numbers(gone).join(" "))
            }
        }
    }

    /// Answers at these seconds, and what each changes.
    #[track_caller]
    fn check(answers: &[(u64, Option<&[u8]>, &str)]) {
        let mut known = Known::default();
        for (second, answer, expected) in answers {
            let answer = answer.map(found);
            let now = Duration::from_secs(*second);
            let (change, held) = known.take(now, RESOLVE, answer.as_deref());
            let held = held.map(|held| format!(" {}", short(held))).unwrap_or_default();
            assert_eq!(format!("{}{held}", short(change)), *expected, "second {second}");
        }
    }

    #[test]
    fn the_last_good_answer_is_kept_for_as_long_as_there_is_none() {
        check(&[
            (0, None, "unknown"),
            (1, Some(&[]), "unknown"),
            (2, Some(&[1, 2]), "+1 2 -"),
            (3, None, "kept"),
            (4, Some(&[]), "kept"),
            (3_600, Some(&[]), "kept"),
            (3_601, Some(&[1, 2]), "same"),
        ]);
    }

    #[test]
    fn another_order_is_the_same_answer() {
        check(&[
            (0, Some(&[3, 1, 2]), "+1 2 3 -"),
            (1, Some(&[1, 2, 3]), "same"),
            (2, Some(&[2, 2, 3, 1]), "same"),
        ]);
    }

    #[test]
    fn what_comes_is_used_at_once_and_what_goes_goes_if_it_is_no_more_than_half() {
        check(&[
            (0, Some(&[1, 2]), "+1 2 -"),
            (1, Some(&[1, 2, 3, 4, 5]), "+1 2 3 4 5 -"),
            (2, Some(&[1, 2, 3]), "+1 2 3 -4 5"),
            (3, Some(&[2, 3, 7]), "+2 3 7 -1"),
            (4, Some(&[2, 3, 7, 8]), "+2 3 7 8 -"),
            (5, Some(&[7, 8]), "+7 8 -2 3"),
        ]);
    }

    #[test]
    fn an_answer_that_lacks_more_than_half_is_held_until_it_is_repeated_for_long_enough() {
        check(&[
            (0, Some(&[1, 2, 3, 4, 5]), "+1 2 3 4 5 -"),
            (10, Some(&[1, 2]), "same !3 4 5"),
            (15, Some(&[1, 2]), "same"),
            (19, Some(&[2, 1]), "same"),
            (20, Some(&[1, 2]), "+1 2 -3 4 5"),
            (21, Some(&[1, 2]), "same"),
        ]);
    }

    #[test]
    fn what_moves_as_a_whole_is_used_beside_what_was_there() {
        check(&[
            (0, Some(&[1]), "+1 -"),
            (10, Some(&[2]), "+1 2 - !1"),
            (15, Some(&[2]), "same"),
            (20, Some(&[2]), "+2 -1"),
        ]);
    }

    #[test]
    fn what_is_held_is_forgotten_when_it_is_there_again() {
        check(&[
            (0, Some(&[1, 2, 3]), "+1 2 3 -"),
            (10, Some(&[9]), "+1 2 3 9 - !1 2 3"),
            (14, None, "kept"),
            (18, Some(&[1, 2, 3]), "+1 2 3 -9"),
            (20, Some(&[3]), "same !1 2"),
            (25, Some(&[2, 3]), "+2 3 -1"),
            (31, Some(&[3]), "+3 -2"),
        ]);
    }

    #[test]
    fn of_a_host_with_both_families_one_is_used() {
        let addresses = |text: &str| -> Vec<IpAddr> {
            text.split_whitespace().map(|it| it.parse().unwrap()).collect()
        };
        for (all, reached, expected) in [
            ("10.0.0.1 10.0.0.2", "46", "10.0.0.1 10.0.0.2"),
            ("fd00::1", "4", "fd00::1"),
            ("10.0.0.1 fd00::1", "46", "10.0.0.1"),
            ("fd00::1 10.0.0.1", "6", "fd00::1"),
            ("fd00::1 10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1 fd00::1 fd00::2", "46", "fd00::1 fd00::2"),
            ("10.0.0.1 fd00::1 fd00::2", "4", "10.0.0.1"),
            ("", "46", ""),
        ] {
            let reaches = |it: &IpAddr| reached.contains(if it.is_ipv4() { '4' } else { '6' });
            assert_eq!(of_one_family(&addresses(all), reaches), addresses(expected), "{all}");
        }
    }
}
