//! The date as HTTP writes it (IMF-fixdate, RFC 9110 §5.6.7), formatted once a second.

use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// The date of the latest look, and when that was.
#[derive(Default)]
pub(crate) struct Date {
    text: Cell<[u8; 29]>,
    until: Cell<u64>,
}

impl Date {
    /// The date; the clock of the wall is read at most once in half a second of `now`.
    pub(crate) fn at(&self, now: u64) -> [u8; 29] {
        if now >= self.until.get() {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.text.set(format(since.as_secs()));
            self.until.set(now + 500);
        }
        self.text.get()
    }
}

/// Seconds since 1970 as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn format(seconds: u64) -> [u8; 29] {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let two = |number: u64| [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
    text[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    text[5..7].copy_from_slice(&two(day));
    text[8..11].copy_from_slice(MONTHS[(month - 1) as usize]);
    text[12..14].copy_from_slice(&two(year / 100));
    text[14..16].copy_from_slice(&two(year % 100));
    text[17..19].copy_from_slice(&two(time / 3600));
    text[20..22].copy_from_slice(&two(time / 60 % 60));
    text[23..25].copy_from_slice(&two(time % 60));
    text
}

/// The civil date of a day since 1970 (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms"): year, month from 1, day from 1.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
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
            assert_eq!(std::str::from_utf8(&format(seconds)).unwrap(), expected);
        }
    }
}
