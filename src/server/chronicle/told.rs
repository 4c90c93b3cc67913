//! Events as programs read them: an object each, with an id that no other event has, in this
//! process or another.

use std::{sync::Arc, time::SystemTime};

use serde_json::{Map, Value};

use super::super::views::date;
use crate::base::moment::millis;
use crate::observe::events::Happened;

/// An event that was told.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) number: u64,
    pub(super) word: &'static str,
    pub(super) id: Arc<str>,
    /// The object, on one line.
    pub(super) line: Arc<str>,
    /// As the stream of events has it.
    pub(super) sent: Arc<str>,
}

/// Spells events.
pub(super) struct Teller {
    /// What tells ids of this process from those of others.
    boot: String,
    /// The number of the last event.
    last: u64,
}

impl Teller {
    pub(super) fn new(now: SystemTime) -> Teller {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Teller { boot: format!("{:x}", millis(since)), last: 0 }
    }

    pub(super) fn tell(&mut self, happened: &Happened) -> Told {
        self.last += 1;
        let Happened { at, event, .. } = happened;
        self.spell(self.last, *at, event.word(), event.object())
    }

    /// A request that failed or was slow: no event of the process, so it has no id.
    pub(super) fn note(happened: &Happened) -> Arc<str> {
        let mut object = happened.event.object();
        object.insert("at".into(), date(happened.at).into());
        Value::Object(object).to_string().into()
    }

    /// The beginning of this process, which is no event of it.
    pub(super) fn began(&self, at: SystemTime) -> Told {
        let mut object = Map::new();
        object.insert("event".into(), "started".into());
        object.insert("level".into(), "info".into());
        object.insert("message".into(), "started".into());
        object.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        object.insert("pid".into(), std::process::id().into());
        self.spell(0, at, "started", object)
    }

    fn spell(
        &self,
        number: u64,
        at: SystemTime,
        word: &'static str,
        fields: Map<String, Value>,
    ) -> Told {
        let id = self.id(number);
        let mut object = Map::new();
        object.insert("id".into(), id.clone().into());
        object.insert("at".into(), date(at).into());
        object.extend(fields);
        let line = Value::Object(object).to_string();
        let sent = format!("id: {id}\nevent: {word}\ndata: {line}\n\n");
        Told { number, word, id: id.into(), line: line.into(), sent: sent.into() }
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.boot)
    }

    /// The number of the event of this process that has this id.
    pub(super) fn number_of(&self, id: &str) -> Option<u64> {
        let (boot, number) = id.split_once('-')?;
        (boot == self.boot).then(|| number.parse().ok())?
    }
}
