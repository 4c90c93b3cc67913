//! How much of a time each backend could be asked, by the timeline.
//!
//! A backend is out while its probes fail, it is ejected, or its circuit breaker is open. What an
//! operator decides is no failure. Each process begins with all backends in.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Moments, in milliseconds since 1970.
pub(super) type Millis = u64;

#[derive(Default)]
struct Backend<'a> {
    /// The process that told of it last.
    process: &'a str,
    /// Which respects keep it out: probes, answers, breaker.
    out: [bool; 3],
    since: Millis,
    lost: Millis,
    outages: u64,
}

impl Backend<'_> {
    fn set(&mut self, respect: usize, out: bool, now: Millis) {
        let was_out = self.is_out();
        if let Some(flag) = self.out.get_mut(respect) {
            *flag = out;
        }
        match (was_out, self.is_out()) {
            (false, true) => (self.since, self.outages) = (now, self.outages + 1),
            (true, false) => self.lost += now.saturating_sub(self.since),
            _ => {}
        }
    }

    fn is_out(&self) -> bool {
        self.out.contains(&true)
    }

    fn back(&mut self, now: Millis) {
        (0..3).for_each(|respect| self.set(respect, false, now));
    }
}

/// Of each backend that an event is about, between the first event after `from` and `until`.
/// `events` are moments and objects, the oldest first.
pub(super) fn of(events: &[(Millis, &Value)], from: Millis, until: Millis) -> Vec<Value> {
    let first = events.first().map_or(until, |(at, _)| *at);
    let from = first.clamp(from, until);
    let mut backends: BTreeMap<(&str, &str), Backend<'_>> = BTreeMap::new();
    for (at, event) in events {
        let at = (*at).clamp(from, until);
        let process = event["id"].as_str().and_then(|id| id.split_once('-'));
        let process = process.map_or("", |(process, _)| process);
        let (respect, out) = match event["event"].as_str().unwrap_or_default() {
            "started" => {
                // Its first probes may have failed a moment before.
                let others = backends.values_mut().filter(|it| it.process != process);
                others.for_each(|backend| backend.back(at));
                continue;
            }
            "backend_down" => (0, true),
            "backend_up" => (0, false),
            "backend_ejected" => (1, true),
            "backend_readmitted" => (1, false),
            "breaker_open" => (2, true),
            "breaker_closed" => (2, false),
            _ => continue,
        };
        let (Some(pool), Some(name)) = (event["pool"].as_str(), event["backend"].as_str()) else {
            continue;
        };
        let backend = backends.entry((pool, name)).or_default();
        if backend.process != process {
            backend.back(at);
            backend.process = process;
        }
        backend.set(respect, out, at);
    }
    let whole = until.saturating_sub(from);
    let row = |((pool, backend), mut it): ((&str, &str), Backend<'_>)| {
        let is_out = it.is_out();
        it.back(until);
        let share = if whole == 0 { 1.0 } else { 1.0 - it.lost as f64 / whole as f64 };
        json!({
            "pool": pool,
            "backend": backend,
            "percent": (share * 100_000.0).round() / 1_000.0,
            "outSeconds": it.lost as f64 / 1_000.0,
            "outages": it.outages,
            "isOut": is_out,
        })
    };
    backends.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(process: usize, word: &str) -> Value {
        json!({ "id": format!("{process}-7"), "event": word, "pool": "app", "backend": "a" })
    }

    #[track_caller]
    fn check(events: &[(Millis, &str)], from: Millis, expected: (f64, f64, u64, bool)) {
        let mut process = 0;
        let events = events.iter().map(|(at, word)| {
            process += usize::from(*word == "started");
            (*at, event(process, word))
        });
        check_told(&events.collect::<Vec<_>>(), from, expected);
    }

    #[track_caller]
    fn check_told(events: &[(Millis, Value)], from: Millis, expected: (f64, f64, u64, bool)) {
        let events: Vec<_> = events.iter().map(|(at, event)| (*at, event)).collect();
        let of = of(&events, from, 100_000);
        let (percent, seconds, outages, is_out) = expected;
        assert_eq!(
            of,
            [json!({
                "pool": "app", "backend": "a", "percent": percent, "outSeconds": seconds,
                "outages": outages, "isOut": is_out,
            })]
        );
    }

    #[test]
    fn time_out_is_counted_once_whatever_keeps_it_out() {
        check(&[(0, "started"), (50_000, "backend_down")], 0, (50.0, 50.0, 1, true));
        check(
            &[(0, "started"), (10_000, "backend_down"), (20_000, "backend_up")],
            0,
            (90.0, 10.0, 1, false),
        );
        check(
            &[
                (0, "started"),
                (10_000, "backend_ejected"),
                (15_000, "backend_down"),
                (20_000, "backend_readmitted"),
                (30_000, "backend_up"),
                (40_000, "breaker_open"),
                (45_000, "breaker_half_open"),
                (50_000, "breaker_closed"),
            ],
            0,
            (70.0, 30.0, 2, false),
        );
    }

    #[test]
    fn only_the_time_that_is_asked_for_counts() {
        let before = [(0, "started"), (10_000, "backend_down"), (60_000, "backend_up")];
        check(&before, 50_000, (80.0, 10.0, 1, false));
        check(&[(90_000, "backend_down"), (95_000, "backend_up")], 0, (50.0, 5.0, 1, false));
    }

    #[test]
    fn another_process_begins_with_all_in() {
        let events = [(0, "started"), (50_000, "backend_down"), (60_000, "started")];
        check(&events, 0, (90.0, 10.0, 1, false));
        assert_eq!(of(&[], 0, 7), Vec::<Value>::new());
    }

    #[test]
    fn what_a_process_has_found_out_before_it_is_said_to_have_started_stays() {
        let events = [
            (0, event(1, "started")),
            (50_000, event(1, "backend_down")),
            (80_000, event(2, "backend_down")),
            (80_003, event(2, "started")),
        ];
        check_told(&events, 0, (50.0, 50.0, 2, true));
    }
}
