//! The answer to "what happened": the timeline, as far as it is asked for, and how much of the time
//! each backend could be asked.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{
    HistoryQuery,
    availability::{self, Millis},
};
use crate::base::{
    calendar,
    moment::{UnixSeconds, millis},
};
use crate::server::views::date;

/// The events of an answer: the last ones.
const EVENTS_MAX: usize = 5_000;

/// What this asks for of these events, the oldest first.
pub(super) fn of(events: &[Value], query: &HistoryQuery, now: SystemTime) -> Value {
    let until = millis(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let from = until.saturating_sub(millis(query.since));
    let dated = events.iter().filter_map(|event| Some((moment(event["at"].as_str()?)?, event)));
    let mut dated: Vec<(Millis, &Value)> = dated.collect();
    // Two processes write at an upgrade.
    dated.sort_by_key(|(at, _)| *at);
    let is_asked = |event: &Value| {
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| event[name] == wanted.as_str())
        };
        is(&query.pool, "pool") && is(&query.backend, "backend")
    };
    let available = availability::of(&dated, from, until);
    let available: Vec<Value> = available.into_iter().filter(is_asked).collect();
    let asked = dated.iter().filter(|(at, event)| *at >= from && is_asked(event));
    let asked: Vec<&Value> = asked.map(|(_, event)| *event).collect();
    let skipped = asked.len().saturating_sub(EVENTS_MAX);
    let since = now.checked_sub(query.since).unwrap_or(SystemTime::UNIX_EPOCH);
    json!({
        "since": date(since),
        "until": date(now),
        "events": asked.get(skipped..).unwrap_or_default(),
        "availability": available,
    })
}

/// The moment of a date as logs have it.
fn moment(date: &str) -> Option<Millis> {
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)? as usize, number(8, 10)?);
    // A day is looked for where it must be: years are no longer than 366 days.
    let about = year.checked_sub(1970)? * 365;
    let days = (about..about + 1_000).find(|days| calendar::civil(*days) == (year, month, day))?;
    let UnixSeconds(seconds) = UnixSeconds(
        days * 86_400 + number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?,
    );
    Some(seconds * 1_000 + number(20, 23)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn query(since: u64, pool: Option<&str>, backend: Option<&str>) -> HistoryQuery {
        let named = |name: Option<&str>| name.map(str::to_owned);
        let since = Duration::from_secs(since);
        HistoryQuery { pool: named(pool), backend: named(backend), since }
    }

    #[test]
    fn dates_are_read_as_they_are_written() {
        for (text, at) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2026-11-30T10:17:08.042Z", 1_796_033_828_042),
            ("2032-02-29T23:59:59.999Z", 1_961_711_999_999_u64),
        ] {
            assert_eq!(moment(text), Some(at));
            assert_eq!(date(SystemTime::UNIX_EPOCH + Duration::from_millis(at)), text);
        }
        for wrong in ["", "2026", "2026-13-01T00:00:00.000Z", "x026-01-01T00:00:00.000Z", "é"] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_asked_for_is_what_is_shown() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let event = |ago: u64, word: &str, pool: &str, backend: &str| {
            let at = date(now - Duration::from_secs(ago));
            json!({ "at": at, "event": word, "pool": pool, "backend": backend })
        };
        let events = [
            event(500, "backend_down", "app", "a"),
            event(100, "backend_down", "app", "b"),
            json!({ "event": "no date" }),
            event(50, "backend_up", "app", "b"),
            event(40, "backend_down", "other", "b"),
        ];
        let shown = |query| of(&events, &query, now);
        let count = |of: &Value| of["events"].as_array().unwrap().len();
        assert_eq!(count(&shown(query(1_000, None, None))), 4);
        assert_eq!(count(&shown(query(200, None, None))), 3);
        assert_eq!(count(&shown(query(200, Some("app"), None))), 2);
        let of_b = shown(query(200, Some("app"), Some("b")));
        assert_eq!(count(&of_b), 2);
        let available = of_b["availability"].as_array().unwrap();
        assert_eq!(available.len(), 1);
        assert_eq!(
            (&available[0]["outSeconds"], &available[0]["percent"]),
            (&50.0.into(), &75.0.into())
        );
    }
}
