//! Sets of statuses: `200`, `"200-399"`, `["200", "204-299"]`, and back.
//!
//! A set has one form however it was written: sorted, with adjacent ranges joined.

use std::ops::RangeInclusive;

use super::{Check, both, spelled};
use crate::config::{
    file::StatusText,
    units::BadValue,
    written::{List, Scalar},
};
use crate::plan::Statuses;

impl Check<'_> {
    /// A set of statuses, if the key is present; problems of single elements are noted.
    pub(super) fn statuses(&mut self, key: Option<&List<StatusText>>, into: &mut Statuses) {
        let Some(list) = key else { return };
        let mut ranges = Vec::new();
        for (place, StatusText(written)) in list.0.iter().filter_map(|item| both(Some(item))) {
            match range(written) {
                Ok(range) => ranges.push(range),
                Err(refusal) => self.refuse(place, refusal),
            }
        }
        *into = joined(ranges);
    }
}

/// All statuses that a backend may answer with: those above 599 mean nothing to the standard, occur
/// all the same, and count as 5xx (RFC 9110 §15).
const STATUSES: RangeInclusive<u16> = 100..=999;

/// `200`, `"200"`, `"200-399"`.
fn range(written: &Scalar) -> Result<RangeInclusive<u16>, BadValue> {
    let text = spelled(written);
    let expected = "expected a status such as 200, or a range such as \"200-399\"";
    let refusal = || BadValue::new(format!("`{text}` is not a status"), expected);
    if let Some((first, rest)) = text.split_once(',') {
        let quoted = |part: &str| format!("\"{}\"", part.trim());
        let all: Vec<String> = std::iter::once(first).chain(rest.split(',')).map(quoted).collect();
        return Err(refusal().help(format!("write a list: [{}]", all.join(", "))));
    }
    let class = text.to_ascii_lowercase();
    if let Some(digit) =
        class.strip_suffix("xx").filter(|digit| matches!(digit.as_bytes(), [b'1'..=b'9']))
    {
        return Err(refusal().help(format!("write \"{digit}00-{digit}99\"")));
    }
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let bounds = first.trim().parse::<u16>().ok().zip(last.trim().parse::<u16>().ok());
    let (first, last) = bounds.ok_or_else(refusal)?;
    if !STATUSES.contains(&first) || !STATUSES.contains(&last) {
        return Err(BadValue::new(format!("`{text}` is not a status"), "expected 100 to 999"));
    }
    if first > last {
        return Err(BadValue::new("empty range of statuses", "ends before it begins")
            .help(format!("write \"{last}-{first}\"")));
    }
    Ok(first..=last)
}

/// The ranges sorted, with adjacent ones joined.
fn joined(mut ranges: Vec<RangeInclusive<u16>>) -> Statuses {
    ranges.sort_by_key(|range| *range.start());
    let mut joined: Vec<RangeInclusive<u16>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if *range.start() <= last.end() + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => joined.push(range),
        }
    }
    Statuses(joined)
}

/// The words for this set.
pub(crate) fn words(statuses: &Statuses) -> impl Iterator<Item = String> {
    statuses.0.iter().map(|range| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn reads_statuses_and_ranges() {
        for (written, expected) in [
            (Scalar::Whole(200), 200..=200),
            (text("200"), 200..=200),
            (text("200-399"), 200..=399),
            (text("200 - 399"), 200..=399),
            (text("100-599"), 100..=599),
            (text("600"), 600..=600),
            (text("500-999"), 500..=999),
        ] {
            assert_eq!(range(&written), Ok(expected), "{written:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_status() {
        let range_of = "empty range of statuses";
        for (written, title, help) in [
            (Scalar::Whole(99), "`99` is not a status", None),
            (Scalar::Whole(1000), "`1000` is not a status", None),
            (text("500-1000"), "`500-1000` is not a status", None),
            (text("099"), "`099` is not a status", None),
            (Scalar::Whole(-200), "`-200` is not a status", None),
            (Scalar::Flag(true), "`true` is not a status", None),
            (text("ok"), "`ok` is not a status", None),
            (text(""), "`` is not a status", None),
            (text("5xx"), "`5xx` is not a status", Some("write \"500-599\"")),
            (text("9XX"), "`9XX` is not a status", Some("write \"900-999\"")),
            (text("0xx"), "`0xx` is not a status", None),
            (
                text("200,204"),
                "`200,204` is not a status",
                Some("write a list: [\"200\", \"204\"]"),
            ),
            (text("399-200"), range_of, Some("write \"200-399\"")),
        ] {
            let refusal = range(&written).unwrap_err();
            assert_eq!((refusal.title.as_str(), refusal.help.as_deref()), (title, help));
        }
    }

    #[test]
    fn one_set_is_kept_in_one_way() {
        for (ranges, expected) in [
            (vec![502..=502, 503..=503, 504..=504], vec!["502-504"]),
            (vec![503..=503, 200..=299, 204..=204], vec!["200-299", "503"]),
            (vec![200..=250, 240..=299, 599..=599], vec!["200-299", "599"]),
            (vec![], vec![]),
        ] {
            assert_eq!(words(&joined(ranges)).collect::<Vec<_>>(), expected);
        }
    }
}
