//! A certificate in use, as operators see it.

use std::{path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use crate::base::moment::UnixSeconds;
use crate::certs::Facts;
use crate::observe::statistics;

/// A certificate in use.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(super) file: PathBuf,
    pub(super) key: PathBuf,
    /// None: it could never be used.
    pub(super) facts: Option<Arc<Facts>>,
    /// In use since then.
    pub(super) since: UnixSeconds,
    /// `listener web`, `pool app`.
    pub(super) used_by: Vec<Arc<str>>,
    /// Why what is in its file now cannot be used.
    pub(super) problem: Option<String>,
}

impl Held {
    /// The same in numbers.
    pub(crate) fn statistics(&self) -> statistics::Certificate {
        let file = Arc::from(self.file.to_string_lossy());
        let not_after = self.facts.as_ref().map(|facts| facts.not_after.0);
        statistics::Certificate { file, not_after, is_refused: self.problem.is_some() }
    }

    /// All of it, for programs.
    pub(crate) fn json(&self, now: UnixSeconds) -> Value {
        let (file, key) = (self.file.display().to_string(), self.key.display().to_string());
        let facts = self.facts.as_ref();
        let names: Vec<&str> =
            facts.iter().flat_map(|it| it.names.iter().map(|it| &**it)).collect();
        let used_by: Vec<&str> = self.used_by.iter().map(|it| &**it).collect();
        json!({
            "names": names,
            "issuer": facts.map(|facts| &*facts.issuer),
            "serial": facts.map(|facts| facts.serial.as_str()),
            "keyType": facts.map(|facts| &*facts.key),
            "notBefore": facts.map(|facts| facts.not_before.0),
            "notAfter": facts.map(|facts| facts.not_after.0),
            "daysLeft": facts.map(|facts| facts.days_left(now)),
            "file": file,
            "key": key,
            "usedBy": used_by,
            "since": self.since.0,
            "problem": &self.problem,
        })
    }
}
