//! How many requests a second each backend got in the last minute: what the lines beside the
//! backends are drawn of, also on a page that is opened now.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
};

use serde_json::Value;

use super::frame::{Named, Span};

/// Seconds that are kept: as many as a line is wide. With a thousand backends half a megabyte.
const KEPT: usize = 60;

/// The rates of each backend, the oldest first.
#[derive(Default)]
pub(super) struct Sparks(HashMap<Named, VecDeque<f64>>);

impl Sparks {
    /// Adds a second. A backend that is no more is forgotten.
    pub(super) fn push(&mut self, span: &Span<'_>) {
        let mut before = std::mem::take(&mut self.0);
        for (of, rate) in span.rates() {
            let mut rates = before.remove(&of).unwrap_or_default();
            if rates.len() == KEPT {
                rates.pop_front();
            }
            rates.push_back(rate);
            self.0.insert(of, rates);
        }
    }

    /// An object with a list for each backend that was asked, by `pool/backend`.
    pub(super) fn json(&self) -> String {
        let mut out = String::from("{");
        let asked = |rates: &&VecDeque<f64>| rates.iter().any(|rate| *rate > 0.0);
        for ((pool, backend), rates) in &self.0 {
            if !asked(&rates) {
                continue;
            }
            let comma = if out.len() > 1 { "," } else { "" };
            let rates: Vec<f64> = rates.iter().copied().collect();
            let name = Value::from(format!("{pool}/{backend}"));
            let _ = write!(out, "{comma}{name}:{}", Value::from(rates));
        }
        out + "}"
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::base::ids::{BackendId, PoolId};
    use crate::observe::statistics::{Sources, Statistics};
    use crate::shared::{counters::Slab, pool::PoolState, tally::Key};

    fn snapshot(slab: &Arc<Slab>, second: u64) -> Statistics {
        let text = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n[pool.app]\n\
                    backends = [{ name = \"a\", address = \"10.0.0.1:1\" }, \"10.0.0.2:1\"]\n";
        let plan = crate::config::parse("sparks.toml", text).unwrap().plan.into_plan();
        let state = PoolState::new(1, &crate::base::backend_set::BackendSet::first(2), 0);
        state.grow(2);
        let mut sources = Sources::new(vec![Arc::clone(slab)], 1);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        sources.snapshot(at, &plan, |_| Some(&state))
    }

    #[test]
    fn a_minute_of_each_backend_that_was_asked_is_kept() {
        let (slab, mut sparks) = (Slab::new(), Sparks::default());
        let mut before = snapshot(&slab, 0);
        assert_eq!(sparks.json(), "{}");
        for second in 1..=100 {
            slab.tally().add(Key::Tries(PoolId(0), BackendId(0), 200), second);
            let now = snapshot(&slab, second);
            sparks.push(&Span::between(&before, &now));
            before = now;
        }
        let all: Value = serde_json::from_str(&sparks.json()).unwrap();
        let rates: Vec<f64> = (41..=100).map(f64::from).collect();
        assert_eq!(all, serde_json::json!({ "app/a": rates }));
    }
}
