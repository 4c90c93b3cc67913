//! The order in which the addresses of one backend are tried, and how long each may take.
//!
//! Pure. The addresses are servers that can stand in for each other, so new connections begin with
//! each in turn, but only among those of the first one's family: an answer with both IPv4 and IPv6
//! has the better family first (RFC 6724), and the other is the fallback. The same goes for
//! `localhost`, whose two addresses may belong to two different servers.

use std::time::Duration;

use crate::base::endpoint::Endpoint;

/// After a failed connection an address is tried last for this long.
pub(crate) const AVOIDED: Duration = Duration::from_secs(10);

/// Without a configured time, how long an address is tried while others are left.
const PATIENCE: Duration = Duration::from_secs(3);

/// The indexes of `addresses` in the order to try them, each with whether it failed recently.
pub(crate) fn order(addresses: &[(Endpoint, bool)], turn: usize) -> Vec<usize> {
    let Some((first, _)) = addresses.first() else { return Vec::new() };
    let (mut order, others): (Vec<usize>, Vec<usize>) = (0..addresses.len()).partition(|place| {
        addresses.get(*place).is_some_and(|(address, _)| address.is_ipv4() == first.is_ipv4())
    });
    let begin = turn % order.len().max(1);
    order.rotate_left(begin);
    order.extend(others);
    order.sort_by_key(|place| addresses.get(*place).is_some_and(|(_, failed)| *failed));
    order
}

/// How long the next address may take of the `time` for all, if `spent` has passed and `left`
/// addresses are left, including that one; zero = no bound.
pub(crate) fn share(time: Duration, spent: Duration, left: usize) -> Duration {
    let left = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    match (time.is_zero(), left) {
        (true, 1) => Duration::ZERO,
        (true, _) => PATIENCE,
        // Zero would mean no bound.
        (false, _) => (time.saturating_sub(spent) / left).max(Duration::from_millis(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(last: u8) -> Endpoint {
        Endpoint::Tcp(([10, 0, 0, last], 80).into())
    }

    fn six(last: u16) -> Endpoint {
        Endpoint::Tcp(([0, 0, 0, 0, 0, 0, 0, last], 80).into())
    }

    /// Digits are IPv4 addresses, letters IPv6; `!` after one: it failed recently.
    #[track_caller]
    fn check(addresses: &str, turn: usize, expected: &str) {
        let mut parsed: Vec<(Endpoint, bool)> = Vec::new();
        let mut names = Vec::new();
        for letter in addresses.chars() {
            match letter {
                '!' => parsed.last_mut().unwrap().1 = true,
                '0'..='9' => parsed.push((four(letter as u8), false)),
                _ => parsed.push((six(letter as u16), false)),
            }
            if letter != '!' {
                names.push(letter);
            }
        }
        let order: String = order(&parsed, turn).into_iter().map(|place| names[place]).collect();
        assert_eq!(order, expected, "{addresses}, turn {turn}");
    }

    #[test]
    fn each_address_begins_in_turn() {
        check("", 3, "");
        check("1", 7, "1");
        for (turn, expected) in ["123", "231", "312", "123"].into_iter().enumerate() {
            check("123", turn, expected);
        }
    }

    #[test]
    fn the_other_family_is_what_remains() {
        check("1a", 0, "1a");
        check("1a", 1, "1a");
        check("a1b2", 1, "ba12");
    }

    #[test]
    fn who_failed_lately_is_tried_last() {
        check("1!23", 0, "231");
        check("1!2!3", 1, "321");
        check("1!a", 0, "a1");
        check("1!a!", 0, "1a");
    }

    #[test]
    fn no_address_takes_the_time_of_the_others() {
        for (time, spent, left, expected) in [
            (3_000, 0, 1, 3_000),
            (3_000, 0, 3, 1_000),
            (3_000, 0, 2, 1_500), // what the first did not need is left to the others
            (3_000, 1_000, 2, 1_000),
            (3_000, 4_000, 2, 1),
            (0, 0, 1, 0),
            (0, 0, 2, 3_000),
        ] {
            let of = Duration::from_millis;
            assert_eq!(share(of(time), of(spent), left), of(expected), "{time} {spent} {left}");
        }
    }
}
