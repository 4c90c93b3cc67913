//! Clients that are not let in for some seconds, because of what their connections were ended for.
//!
//! What ends a connection does not end its client: it comes back, and does on each connection again
//! what one may do at once. So what clients do for nothing is added up, and seeps away with time;
//! who has too much of it is refused for a while.
//!
//! Behind one address may be many (NAT), and one of them costs the others those seconds. So the
//! bound is out of reach for what pages and apps do by mistake: it takes eight connections that
//! each did more than one may, or a thousand requests that were begun and left, within a few
//! seconds. It is over by itself, and connections that are open stay.

use std::time::Duration;

use crate::base::{moment::Tick, subscriber::Subscriber};

/// What a connection that is ended for abuse counts; a request that was begun and left counts one.
pub(crate) const ABUSE: u32 = 125;

/// Who has this much is refused.
const MOST: u64 = 1_000;

/// What seeps away in a second.
const SEEPS: u64 = 100;

/// How long a client is refused.
const REFUSED: Duration = Duration::from_secs(10);

/// What it has left then: two more such connections, and it is refused again.
const REMAINS: u64 = 750;

/// Clients that are remembered: of more than these at once, those that did most.
const CLIENTS_MAX: usize = 256;

/// What clients have done for nothing.
#[derive(Default)]
pub(crate) struct Penalties {
    rows: Vec<Row>,
    /// Until then somebody is refused; none = nobody was.
    until: Option<Tick>,
}

/// What one client has done.
struct Row {
    client: Subscriber,
    /// In thousandths.
    amount: u64,
    /// When it was as much; while it is refused, when that ends.
    at: Tick,
    refused_until: Option<Tick>,
}

impl Row {
    /// What has not seeped away.
    fn rest(&self, now: Tick) -> u64 {
        let millis = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.amount.saturating_sub(millis.saturating_mul(SEEPS))
    }

    fn is_refused(&self, now: Tick) -> bool {
        self.refused_until.is_some_and(|until| now < until)
    }
}

impl Penalties {
    /// A client has done this much for nothing; whether it is refused for that from now on.
    pub(crate) fn add(&mut self, client: Subscriber, amount: u32, now: Tick) -> bool {
        let Some(row) = self.row(client, now).filter(|row| !row.is_refused(now)) else {
            return false;
        };
        row.amount = row.rest(now).saturating_add(u64::from(amount) * 1_000);
        row.at = now;
        if row.amount < MOST * 1_000 {
            return false;
        }
        let until = now + REFUSED;
        (row.amount, row.at, row.refused_until) = (REMAINS * 1_000, until, Some(until));
        self.until = self.until.max(Some(until));
        true
    }

    /// Whether anybody is refused.
    #[inline]
    pub(crate) fn is_in_use(&self, now: Tick) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether a client is refused.
    pub(crate) fn refuses(&self, client: Subscriber, now: Tick) -> bool {
        self.rows.iter().any(|row| row.client == client && row.is_refused(now))
    }

    /// The row of a client; if it has none, that of one that has nothing left, or a new one, or
    /// that of the one that did least.
    fn row(&mut self, client: Subscriber, now: Tick) -> Option<&mut Row> {
        let new = Row { client, amount: 0, at: now, refused_until: None };
        let known = self.rows.iter().position(|row| row.client == client);
        let place = known.or_else(|| {
            let weight = |row: &Row| (row.is_refused(now), row.rest(now));
            let least = self.rows.iter().enumerate().min_by_key(|(_, row)| weight(row));
            let free = least
                .filter(|(_, row)| weight(row) == (false, 0) || self.rows.len() >= CLIENTS_MAX);
            free.map(|(place, _)| place)
        });
        match (known, place) {
            (Some(_), _) => {}
            (None, Some(place)) => *self.rows.get_mut(place)? = new,
            (None, None) => self.rows.push(new),
        }
        match place {
            Some(place) => self.rows.get_mut(place),
            None => self.rows.last_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    fn client(number: u32) -> Subscriber {
        Subscriber::of(IpAddr::V4(number.into()))
    }

    #[test]
    fn repeated_abuse_is_refused_for_seconds_and_sooner_the_next_time() {
        let mut penalties = Penalties::default();
        let (bad, good) = (client(1), client(2));
        for _ in 0..7 {
            assert!(!penalties.add(bad, ABUSE, at(5)) && !penalties.is_in_use(at(5)));
        }
        assert!(penalties.add(bad, ABUSE, at(5)));
        assert!(penalties.is_in_use(at(10_004)));
        assert!(penalties.refuses(bad, at(5)) && penalties.refuses(bad, at(10_004)));
        assert!(!penalties.refuses(good, at(5)));
        // What it does on connections that are open makes it no longer.
        assert!(!penalties.add(bad, 100_000, at(9_000)));
        assert!(!penalties.refuses(bad, at(10_005)) && !penalties.is_in_use(at(10_005)));
        assert!(!penalties.add(bad, ABUSE, at(10_005)));
        assert!(penalties.add(bad, ABUSE, at(10_005)) && penalties.refuses(bad, at(20_004)));
        assert!(!penalties.refuses(bad, at(20_005)));
    }

    /// One such connection every other second, or a hundred requests left each second.
    #[test]
    fn what_happens_now_and_then_is_never_refused() {
        for (amount, each) in [(ABUSE, 2_000), (100, 1_000), (999, 10_000)] {
            let mut penalties = Penalties::default();
            for time in 0..3_600 {
                assert!(!penalties.add(client(1), amount, at(time * each)));
            }
        }
    }

    #[test]
    fn a_crowd_takes_no_more_room_and_displaces_those_that_did_least() {
        let mut penalties = Penalties::default();
        let (worst, bad) = (client(1), client(2));
        assert!(penalties.add(worst, 1_000, at(1)));
        assert!(!penalties.add(bad, 900, at(1)));
        for number in 10..10_000 {
            penalties.add(client(number), 1 + number % 7, at(1));
        }
        assert_eq!(penalties.rows.len(), CLIENTS_MAX);
        assert!(penalties.refuses(worst, at(2)));
        assert!(penalties.add(bad, 101, at(2)));
        // A row is used again before there are more.
        let mut penalties = Penalties::default();
        for number in 0..1_000 {
            penalties.add(client(number), 1, at(u64::from(number) * 1_000));
        }
        assert_eq!(penalties.rows.len(), 1);
    }
}
