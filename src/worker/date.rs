//! The date as HTTP writes it (IMF-fixdate, RFC 9110 §5.6.7), formatted at most twice a second.

use std::{cell::Cell, time::Duration};

use crate::base::{
    calendar::{self, MONTHS},
    moment::{Tick, UnixSeconds},
};
use crate::net::clock::Clock;

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];

/// How old a date may be.
const RENEWED: Duration = Duration::from_millis(500);

/// The latest date, and when it was made.
#[derive(Default)]
pub(crate) struct Date {
    text: Cell<[u8; 29]>,
    until: Cell<Option<Tick>>,
}

impl Date {
    /// The date by the coarse clock.
    pub(crate) fn now(&self, clock: &Clock) -> [u8; 29] {
        let now = clock.tick();
        if self.until.get().is_none_or(|until| now >= until) {
            self.text.set(format(clock.unix(now.moment()).seconds()));
            self.until.set(Some(now + RENEWED));
        }
        self.text.get()
    }
}

/// A time as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn format(UnixSeconds(seconds): UnixSeconds) -> [u8; 29] {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = calendar::civil(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let two = |number: u64| [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
    text[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    text[5..7].copy_from_slice(&two(day));
    text[8..11].copy_from_slice(MONTHS[month - 1]);
    text[12..14].copy_from_slice(&two(year / 100));
    text[14..16].copy_from_slice(&two(year % 100));
    text[17..19].copy_from_slice(&two(time / 3600));
    text[20..22].copy_from_slice(&two(time / 60 % 60));
    text[23..25].copy_from_slice(&two(time % 60));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_date_as_rfc_9110_does() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_826_154, "Tue, 29 Feb 2000 12:09:14 GMT"),
            (1_795_478_400, "Tue, 24 Nov 2026 00:00:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&format(UnixSeconds(seconds))).unwrap(), expected);
        }
    }
}
