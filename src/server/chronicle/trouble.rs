//! What is wrong now, in sentences, the worst first: for the top of the page and of `ringway top`.

use std::{collections::VecDeque, time::SystemTime};

use serde_json::{Value, json};

use crate::server::{control::View, views::date};

/// A share of failed requests of the last seconds that is worth a sentence, and how many must have
/// failed: of a few requests one is no share.
const FAILED_SHARE: f64 = 0.05;
const FAILED_MIN: f64 = 5.0;
const SECONDS: usize = 10;

/// Days before the end of a certificate that are worth a sentence.
const DAYS: i64 = 7;

/// What was answered with 5xx in the last seconds.
#[derive(Default)]
pub(super) struct Failing {
    /// Failed requests of each second, and all of them.
    seconds: VecDeque<(f64, f64)>,
    /// The share, if it is worth a sentence, and since when it is.
    share: Option<(f64, SystemTime)>,
}

impl Failing {
    /// Adds a second, by its summary.
    pub(super) fn push(&mut self, summary: &Value, now: SystemTime) {
        if self.seconds.len() == SECONDS {
            self.seconds.pop_front();
        }
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        self.seconds.push_back((number(&summary["classes"][5]), number(&summary["requests"])));
        let failed: f64 = self.seconds.iter().map(|(failed, _)| failed).sum();
        let all: f64 = self.seconds.iter().map(|(_, all)| all).sum();
        let since = self.share.map_or(now, |(_, since)| since);
        let is_news = failed >= FAILED_MIN && failed > FAILED_SHARE * all;
        self.share = is_news.then_some((failed / all, since));
    }
}

/// Sentences with `level` (`error`, `warn` or `info`) and, where it is known, `since`.
pub(super) fn of(
    pools: &[Value],
    certificates: &[Value],
    (view, failing): (&View, &Failing),
) -> Value {
    let mut all: Vec<(u8, Value)> = Vec::new();
    let mut say = |weight: u8, text: String, since: &Value| {
        let level = ["error", "warn", "info"].get(usize::from(weight)).copied();
        all.push((weight, json!({ "level": level, "text": text, "since": since })));
    };
    for pool in pools {
        of_pool(pool, &mut say);
    }
    if let Some((share, since)) = failing.share {
        let percent = (share * 100.0).round();
        say(0, format!("{percent} % of all requests are answered with 5xx"), &date(since).into());
    }
    if !view.statistics.config_last_reload_successful {
        let text = "the last reload was refused: the configuration before it is in force";
        say(1, text.to_owned(), &Value::Null);
    }
    for certificate in certificates {
        let file = certificate["file"].as_str().unwrap_or("?");
        match certificate["daysLeft"].as_i64() {
            Some(..0) => say(0, format!("certificate {file} has expired"), &Value::Null),
            Some(days @ 0..=DAYS) => {
                say(1, format!("certificate {file} ends in {days} days"), &Value::Null);
            }
            _ => {}
        }
        if let Some(problem) = certificate["problem"].as_str() {
            say(1, format!("certificate {file} refused: {problem}"), &Value::Null);
        }
    }
    all.sort_by_key(|(weight, _)| *weight);
    all.into_iter().map(|(_, sentence)| sentence).collect()
}

fn of_pool(pool: &Value, say: &mut impl FnMut(u8, String, &Value)) {
    let name = pool["name"].as_str().unwrap_or("?");
    let backends = pool["backends"].as_array().map_or(&[][..], Vec::as_slice);
    if !backends.is_empty() && pool["healthyBackends"] == 0 {
        // Since the last of them went.
        let last = backends.iter().map(|it| &it["since"]).max_by_key(|since| since.as_str());
        say(0, format!("pool {name} has no healthy backend"), last.unwrap_or(&Value::Null));
    }
    let queued = pool["queued"].as_u64().unwrap_or(0);
    if queued > 0 {
        say(1, format!("{queued} requests wait in front of pool {name}"), &Value::Null);
    }
    for backend in backends {
        let (of, since) = (backend["name"].as_str().unwrap_or("?"), &backend["since"]);
        let reason = backend["reason"].as_str().unwrap_or_default();
        let is_stopped = matches!(backend["breaker"].as_str(), Some("open" | "half-open"));
        match backend["state"].as_str().unwrap_or_default() {
            "up" if is_stopped => say(1, format!("{name}/{of}: {reason}"), since),
            "up" => {}
            state @ ("draining" | "maintenance") => {
                say(2, format!("{name}/{of} is in {state}").replace("in dr", "dr"), since);
            }
            state => say(1, format!("{name}/{of} is {state}: {reason}"), since),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_of_failures_is_said_from_when_it_began_and_one_failure_is_none() {
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let mut failing = Failing::default();
        let mut second = |failed: f64, all: f64, now| {
            let summary = json!({ "classes": [0, 0, 0, 0, 0, failed], "requests": all });
            failing.push(&summary, at(now));
            failing.share.map(|(share, since)| ((share * 100.0).round(), since))
        };
        assert_eq!(second(1.0, 18.0, 1), None, "a single one");
        assert_eq!(second(4.0, 1_000.0, 2), None, "few of many");
        for now in 3..12 {
            second(0.0, 10.0, now);
        }
        assert_eq!(second(20.0, 10.0, 20), Some((20.0, at(20))));
        assert_eq!(second(10.0, 10.0, 21), Some((30.0, at(20))));
        for now in 22..31 {
            assert!(second(0.0, 10.0, now).is_some_and(|(_, since)| since == at(20)), "{now}");
        }
        assert_eq!(second(0.0, 10.0, 31), None, "they are over");
    }

    #[test]
    fn the_worst_is_said_first_and_what_is_well_is_not() {
        let backend = |name: &str, state: &str, breaker: Option<&str>| {
            json!({
                "name": name, "state": state, "breaker": breaker, "reason": "refused",
                "since": format!("2026-11-30T10:00:0{}Z", name.len()),
            })
        };
        let mut said = Vec::new();
        let well = json!({
            "name": "well", "healthyBackends": 1, "queued": 0,
            "backends": [backend("a", "up", Some("closed"))],
        });
        of_pool(&well, &mut |weight, text, _| said.push((weight, text)));
        assert_eq!(said, []);
        let ill = json!({
            "name": "ill", "healthyBackends": 0, "queued": 3,
            "backends": [
                backend("a", "down", None), backend("bb", "draining", None),
                backend("c", "up", Some("open")), backend("d", "maintenance", None),
            ],
        });
        let mut since = Vec::new();
        of_pool(&ill, &mut |weight, text, at| {
            said.push((weight, text));
            since.push(at.clone());
        });
        let expected = [
            (0, "pool ill has no healthy backend"),
            (1, "3 requests wait in front of pool ill"),
            (1, "ill/a is down: refused"),
            (2, "ill/bb is draining"),
            (1, "ill/c: refused"),
            (2, "ill/d is in maintenance"),
        ];
        assert_eq!(said, expected.map(|(weight, text)| (weight, text.to_owned())));
        assert_eq!(since[0], "2026-11-30T10:00:02Z");
    }
}
