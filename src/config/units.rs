//! Durations, sizes and shares as people write them, and back.
//!
//! A number and a unit, nothing else. A bare number means seconds in one program and milliseconds
//! in the next, and `10m` means 10,000,000 to one and 10 MiB to another, so both are refused with
//! the right way to write them. A share is a number and never per cent, for the same reason.

use std::{ops::RangeInclusive, time::Duration};

use super::written::Scalar;
use crate::plan::Share;

/// Why a value was refused: a title, the text under the caret, and help.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadValue {
    pub(crate) title: String,
    pub(crate) label: String,
    pub(crate) help: Option<String>,
}

impl BadValue {
    pub(crate) fn new(title: impl Into<String>, label: impl Into<String>) -> BadValue {
        BadValue { title: title.into(), label: label.into(), help: None }
    }

    /// For messages that show no line.
    pub(crate) fn in_one_line(self) -> String {
        let BadValue { title, label, help } = self;
        let help = help.map_or_else(String::new, |help| format!("; {help}"));
        format!("{title}: {label}{help}")
    }

    #[must_use]
    pub(crate) fn help(mut self, text: impl Into<String>) -> BadValue {
        self.help = Some(text.into());
        self
    }
}

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Longest duration that can be written: ten years, on which none of our timers overflows.
const DURATION_MS_MAX: u64 = 10 * 365 * 86_400_000;

/// `"500ms"`, `"2s"`, `"1m"`, `"1h"`, `"1d"`.
pub(crate) fn duration(written: &Scalar) -> Result<Duration, BadValue> {
    let text = match written {
        Scalar::Text(text) => text.as_str(),
        Scalar::Whole(number) => return Err(no_duration_unit(&number.to_string())),
        Scalar::Number(number) => return Err(no_duration_unit(&number.to_string())),
        Scalar::Flag(_) => {
            return Err(BadValue::new("wrong kind of value for a duration", "expected a string")
                .help("write a number and a unit, such as \"2s\""));
        }
    };
    let (number, unit) = split(text);
    if unit.is_empty() && !number.is_empty() {
        return Err(no_duration_unit(number));
    }
    let known = DURATIONS.iter().find(|(name, _)| *name == unit && !number.is_empty());
    let Some((_, scale)) = known else {
        return Err(unknown_duration(number, unit));
    };
    let Ok(count) = number.parse::<u64>() else {
        return Err(fraction("duration", number, unit, *scale, DURATIONS));
    };
    match count.checked_mul(*scale) {
        Some(ms) if ms <= DURATION_MS_MAX => Ok(Duration::from_millis(ms)),
        _ => Err(BadValue::new("duration too long", "more than ten years")),
    }
}

/// `"512B"`, `"64KiB"`, `"10MB"`.
pub(crate) fn size(written: &Scalar) -> Result<u64, BadValue> {
    let text = match written {
        Scalar::Text(text) => text.as_str(),
        Scalar::Whole(number) => return Err(no_size_unit(&number.to_string())),
        Scalar::Number(number) => return Err(no_size_unit(&number.to_string())),
        Scalar::Flag(_) => {
            return Err(BadValue::new("wrong kind of value for a size", "expected a string")
                .help("write a number and a unit, such as \"64KiB\""));
        }
    };
    let (number, unit) = split(text);
    if unit.is_empty() && !number.is_empty() {
        return Err(no_size_unit(number));
    }
    let known = SIZES.iter().find(|(name, _)| *name == unit && !number.is_empty());
    let Some((_, scale)) = known else {
        return Err(unknown_size(number, unit));
    };
    let Ok(count) = number.parse::<u64>() else {
        return Err(fraction("size", number, unit, *scale, SIZES));
    };
    count.checked_mul(*scale).ok_or_else(|| BadValue::new("size too large", "too large"))
}

/// `0.5`, `1`, `1.25`, within a range that `expected` gives in words.
pub(crate) fn share(
    written: &Scalar,
    range: &RangeInclusive<Share>,
    expected: &str,
) -> Result<Share, BadValue> {
    let number = match written {
        Scalar::Number(number) => *number,
        #[allow(clippy::cast_precision_loss)] // far out of every range by then
        Scalar::Whole(number) => *number as f64,
        Scalar::Text(text) => return Err(quoted_share(text, range, expected)),
        Scalar::Flag(_) => {
            return Err(BadValue::new("wrong kind of value for a share", expected));
        }
    };
    let in_range = |number: f64| as_share(number).filter(|share| range.contains(share));
    in_range(number).ok_or_else(|| {
        let refusal = BadValue::new("number out of range", expected);
        match in_range(number / 100.0) {
            // 50 for a half, 125 for a quarter more.
            Some(meant) if number >= 2.0 => {
                refusal.help(format!("in per cent? write {}", write_share(meant)))
            }
            _ => refusal,
        }
    })
}

/// The nearest share, if the number is of a plausible size.
fn as_share(number: f64) -> Option<Share> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the range
    (0.0..=4_000.0).contains(&number).then(|| Share((number * 1e6).round() as u32))
}

/// A share in quotes, perhaps in per cent.
fn quoted_share(text: &str, range: &RangeInclusive<Share>, expected: &str) -> BadValue {
    let refusal = BadValue::new("wrong kind of value for a share", expected);
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), 100.0),
        None => (text, 1.0),
    };
    let meant = number.parse::<f64>().ok().and_then(|number| as_share(number / scale));
    match meant.filter(|share| range.contains(share)) {
        Some(share) => refusal.help(format!("write {}, without quotes", write_share(share))),
        None => refusal,
    }
}

/// The shortest way to write a share that `share` reads back the same.
pub(crate) fn write_share(share: Share) -> String {
    // Always with a point, and never with more digits than the millionths it holds.
    format!("{:?}", share.as_f64())
}

/// The shortest way to write a duration that `duration` reads back the same.
pub(crate) fn write_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    // Minutes only from two on: people write "60s", and "1h" rather than "60m".
    let whole = |(_, scale): &&(&str, u64)| ms.is_multiple_of(*scale) && ms >= 2 * *scale;
    let fitting = DURATIONS.iter().rev().find(whole);
    let exact = DURATIONS.iter().rev().find(|(_, scale)| ms == *scale && *scale != 60_000);
    let (unit, scale) = exact.or(fitting).unwrap_or(&("ms", 1));
    format!("{}{unit}", ms / scale)
}

/// The shortest way to write a size that `size` reads back the same.
pub(crate) fn write_size(bytes: u64) -> String {
    let whole = |(_, scale): &&(&str, u64)| bytes.is_multiple_of(*scale) && bytes >= *scale;
    let (unit, scale) = SIZES.iter().rev().find(whole).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// The number in front, and the text after it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

fn no_duration_unit(number: &str) -> BadValue {
    BadValue::new("duration without a unit", format!("write \"{number}s\" or \"{number}ms\""))
}

fn no_size_unit(number: &str) -> BadValue {
    BadValue::new("size without a unit", format!("write \"{number}B\" or \"{number}KiB\""))
}

fn unknown_duration(number: &str, unit: &str) -> BadValue {
    let refusal = BadValue::new("not a duration", "expected a number and ms, s, m, h or d");
    if number.is_empty() {
        return refusal.help("write for example \"500ms\", \"2s\" or \"1m\"");
    }
    let meant = match unit.to_ascii_lowercase().trim_end_matches('s') {
        "sec" | "second" => "s",
        "m" | "min" | "minute" => "m",
        "h" | "hr" | "hour" => "h",
        "day" => "d",
        "msec" | "milli" | "millisecond" => "ms",
        "" if unit == "S" => "s",
        _ => return refusal.help(format!("write for example \"{number}s\"; one number, one unit")),
    };
    refusal.help(format!("write \"{number}{meant}\""))
}

fn unknown_size(number: &str, unit: &str) -> BadValue {
    let expected = "expected a number and B, KB, KiB, MB, MiB, GB or GiB";
    if number.is_empty() {
        return BadValue::new("not a size", expected)
            .help("write for example \"64KiB\" or \"10MB\"");
    }
    match unit.to_ascii_uppercase().as_str() {
        "B" => BadValue::new("not a size", expected).help(format!("write \"{number}B\"")),
        short @ ("K" | "M" | "G") => {
            let (thousands, binary) = match short {
                "K" => ("1,000", "1,024"),
                "M" => ("1,000,000", "1,048,576"),
                _ => ("1,000,000,000", "1,073,741,824"),
            };
            BadValue::new("size with a single letter", "thousands or 1,024s?").help(format!(
                "write \"{number}{short}B\" for units of {thousands} bytes, or \
                 \"{number}{short}iB\" for units of {binary}"
            ))
        }
        long @ ("KB" | "MB" | "GB") => {
            BadValue::new("not a size", expected).help(format!("write \"{number}{long}\""))
        }
        long @ ("KIB" | "MIB" | "GIB") => BadValue::new("not a size", expected)
            .help(format!("write \"{number}{}iB\"", long.get(..1).unwrap_or_default())),
        _ => {
            BadValue::new("not a size", expected).help(format!("write for example \"{number}KiB\""))
        }
    }
}

/// `"1.5s"`: the same in the largest unit that makes it whole, if there is one.
fn fraction(what: &str, number: &str, unit: &str, scale: u64, units: &[(&str, u64)]) -> BadValue {
    let refusal = BadValue::new(format!("{what} that is not a whole number"), "no fractions");
    let Some((whole, part)) = number.split_once('.') else {
        return BadValue::new(format!("{what} too large"), "too large");
    };
    let digits = format!("{whole}{part}").parse::<u64>().ok();
    let tens = u32::try_from(part.len()).ok().and_then(|places| 10_u64.checked_pow(places));
    let exact = digits
        .zip(tens)
        .and_then(|(digits, tens)| Some((digits.checked_mul(scale)?, tens)))
        .filter(|(scaled, tens)| scaled % tens == 0)
        .map(|(scaled, tens)| scaled / tens);
    let smaller = units.iter().rev().find(|(name, size)| {
        *size < scale && *name != unit && exact.is_some_and(|exact| exact.is_multiple_of(*size))
    });
    match (exact, smaller) {
        (Some(exact), Some((name, size))) => {
            refusal.help(format!("write \"{}{name}\"", exact / size))
        }
        _ => refusal.help(format!("write a whole number, or a smaller unit than `{unit}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn reads_durations_with_their_unit() {
        for (written, ms) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("1m", 60_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(&text(written)), Ok(Duration::from_millis(ms)), "{written}");
        }
    }

    #[test]
    fn refuses_durations_with_the_way_to_write_them() {
        #[rustfmt::skip]
        let table = [
            (Scalar::Whole(2), "duration without a unit", "write \"2s\" or \"2ms\"", None),
            (text("2"), "duration without a unit", "write \"2s\" or \"2ms\"", None),
            (text("2 sec"), "not a duration", "expected a number and ms, s, m, h or d", Some("write \"2s\"")),
            (text("5 minutes"), "not a duration", "expected a number and ms, s, m, h or d", Some("write \"5m\"")),
            (text("5M"), "not a duration", "expected a number and ms, s, m, h or d", Some("write \"5m\"")),
            (text("1m30s"), "not a duration", "expected a number and ms, s, m, h or d", Some("write for example \"1s\"; one number, one unit")),
            (text("1.5s"), "duration that is not a whole number", "no fractions", Some("write \"1500ms\"")),
            (text("1.5h"), "duration that is not a whole number", "no fractions", Some("write \"90m\"")),
            (text("-2s"), "not a duration", "expected a number and ms, s, m, h or d", Some("write for example \"500ms\", \"2s\" or \"1m\"")),
            (text("s"), "not a duration", "expected a number and ms, s, m, h or d", Some("write for example \"500ms\", \"2s\" or \"1m\"")),
            (text("9999999999999999999h"), "duration too long", "more than ten years", None),
        ];
        for (written, title, label, help) in table {
            let refusal = duration(&written).unwrap_err();
            assert_eq!(refusal.title, title, "{written:?}");
            assert_eq!(refusal.label, label, "{written:?}");
            assert_eq!(refusal.help.as_deref(), help, "{written:?}");
        }
    }

    #[test]
    fn reads_sizes_with_their_unit() {
        for (written, bytes) in
            [("0B", 0), ("10B", 10), ("64KiB", 65_536), ("10MB", 10_000_000), ("2GiB", 2 << 30)]
        {
            assert_eq!(size(&text(written)), Ok(bytes), "{written}");
        }
    }

    #[test]
    fn refuses_sizes_with_the_way_to_write_them() {
        for (written, title, help) in [
            ("10m", "size with a single letter", "10MB"),
            ("10k", "size with a single letter", "10KiB"),
            ("10kb", "not a size", "write \"10KB\""),
            ("10mib", "not a size", "write \"10MiB\""),
            ("1.5KiB", "size that is not a whole number", "write \"1536B\""),
            ("", "not a size", "64KiB"),
            ("KiB", "not a size", "64KiB"),
        ] {
            let refusal = size(&text(written)).unwrap_err();
            assert_eq!(refusal.title, title, "{written}");
            assert!(refusal.help.as_deref().unwrap_or("").contains(help), "{written} {refusal:?}");
        }
    }

    #[test]
    fn reads_shares() {
        let whole = Share::ZERO..=Share::percent(100);
        let factor = Share(1_000_001)..=Share::percent(10_000);
        let number = Scalar::Number;
        #[rustfmt::skip]
        let table = [
            (number(0.5), &whole, Ok(Share::percent(50))),
            (number(0.000_001), &whole, Ok(Share(1))),
            (Scalar::Whole(1), &whole, Ok(Share::percent(100))),
            (Scalar::Whole(0), &whole, Ok(Share::ZERO)),
            (number(1.25), &factor, Ok(Share::percent(125))),
            (number(1.0), &factor, Err(None)),
            (number(-0.1), &whole, Err(None)),
            (number(f64::NAN), &whole, Err(None)),
            (number(f64::INFINITY), &whole, Err(None)),
            (Scalar::Whole(i64::MAX), &whole, Err(None)),
            (Scalar::Whole(50), &whole, Err(Some("in per cent? write 0.5"))),
            (Scalar::Whole(125), &factor, Err(Some("in per cent? write 1.25"))),
            (text("50%"), &whole, Err(Some("write 0.5, without quotes"))),
            (text("0.5"), &whole, Err(Some("write 0.5, without quotes"))),
            (text("half"), &whole, Err(None)),
            (Scalar::Flag(true), &whole, Err(None)),
        ];
        for (written, range, expected) in table {
            let read = share(&written, range, "what is expected");
            let read = read.map_err(|refusal| refusal.help);
            assert_eq!(read, expected.map_err(|help| help.map(str::to_owned)), "{written:?}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for ms in [0, 1, 500, 1_000, 1_500, 60_000, 90_000, 120_000, 3_600_000, 86_400_000] {
            let length = Duration::from_millis(ms);
            assert_eq!(duration(&text(&write_duration(length))), Ok(length));
        }
        assert_eq!(write_duration(Duration::from_secs(60)), "60s");
        assert_eq!(write_duration(Duration::from_secs(3_600)), "1h");
        for bytes in [0, 1, 999, 1_000, 1_024, 65_536, 1 << 30] {
            assert_eq!(size(&text(&write_size(bytes))), Ok(bytes));
        }
        for millionths in [0, 1, 333_333, 500_000, 1_000_000, 1_250_000] {
            let written = write_share(Share(millionths));
            let read = written.parse().map(Scalar::Number).unwrap();
            assert_eq!(share(&read, &(Share::ZERO..=Share(u32::MAX)), ""), Ok(Share(millionths)));
        }
        assert_eq!(write_share(Share::ZERO), "0.0");
    }
}
