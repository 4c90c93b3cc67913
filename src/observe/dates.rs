//! Dates of log lines, in the two formats that logs have: computed once a second, with the
//! milliseconds filled in afterwards, so that no line needs the calendar. Always UTC.

use crate::base::{
    calendar::{self, MONTHS},
    moment::{UnixMillis, UnixSeconds},
};

/// The last date, formatted.
#[derive(Clone, Debug)]
pub(crate) struct Dates {
    second: UnixSeconds,
    rfc3339: [u8; 24],
    common: [u8; 26],
}

impl Default for Dates {
    fn default() -> Dates {
        let (rfc3339, common) = (*b"1970-01-01T00:00:00.000Z", *b"01/Jan/1970:00:00:00 +0000");
        Dates { second: UnixSeconds(0), rfc3339, common }
    }
}

impl Dates {
    /// In the format of RFC 3339, with milliseconds: `2026-10-05T12:34:56.789Z`.
    #[inline]
    pub(crate) fn rfc3339(&mut self, time: UnixMillis) -> &[u8; 24] {
        self.renew(time.seconds());
        put(&mut self.rfc3339, 20, 3, time.0 % 1000);
        &self.rfc3339
    }

    /// In the common log format: `05/Oct/2026:12:34:56 +0000`.
    #[inline]
    pub(crate) fn common(&mut self, time: UnixMillis) -> &[u8; 26] {
        self.renew(time.seconds());
        &self.common
    }

    #[inline]
    fn renew(&mut self, second: UnixSeconds) {
        if second != self.second {
            self.spell(second);
        }
    }

    #[cold]
    fn spell(&mut self, time: UnixSeconds) {
        self.second = time;
        let UnixSeconds(second) = time;
        let (year, month, day) = calendar::civil(second / 86_400);
        for (place, value) in [(0, year), (5, month as u64), (8, day)] {
            put(&mut self.rfc3339, place, if place == 0 { 4 } else { 2 }, value);
        }
        put(&mut self.common, 0, 2, day);
        put(&mut self.common, 7, 4, year);
        self.common[3..6].copy_from_slice(MONTHS[month - 1]);
        let of_day = [second / 3600 % 24, second / 60 % 60, second % 60];
        for (index, value) in of_day.into_iter().enumerate() {
            put(&mut self.rfc3339, 11 + index * 3, 2, value);
            put(&mut self.common, 12 + index * 3, 2, value);
        }
    }
}

/// Writes the last `digits` digits of a number.
fn put(text: &mut [u8], start: usize, digits: usize, mut value: u64) {
    for place in text[start..start + digits].iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_dates_with_milliseconds() {
        let mut dates = Dates::default();
        // Each checked with `date -u -d @SECONDS`, and in this order, so that each second is new.
        for (unix_ms, rfc3339, common) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z", "29/Feb/2000:00:00:00 +0000"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z", "29/Feb/2000:23:59:59 +0000"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z", "01/Mar/2000:00:00:00 +0000"),
            (1_709_164_800_050, "2024-02-29T00:00:00.050Z", "29/Feb/2024:00:00:00 +0000"),
            (1_791_203_696_789, "2026-10-05T12:34:56.789Z", "05/Oct/2026:12:34:56 +0000"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z", "31/Dec/2026:23:59:59 +0000"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000"),
        ] {
            assert_eq!(str::from_utf8(dates.rfc3339(UnixMillis(unix_ms))), Ok(rfc3339));
            assert_eq!(str::from_utf8(dates.common(UnixMillis(unix_ms))), Ok(common));
            assert_eq!(
                str::from_utf8(dates.rfc3339(UnixMillis(unix_ms))),
                Ok(rfc3339),
                "asked again"
            );
        }
    }
}
