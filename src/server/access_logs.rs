//! The access logs of a process: opened before anything serves, shared among the cores, ended after
//! the last of them.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use rustix::fs::{Access, access};

use super::StartError;
use crate::observe::{
    reports::Reporter,
    writer::{Outlet, Writer},
};
use crate::plan::{ListenerId, Plan, Table};
use crate::shared::counters::Slab;

/// How long the end waits for a disk that does not take the last lines.
const END_MAX: Duration = Duration::from_secs(5);

/// The thread that writes the access logs, if any listener has one.
#[derive(Default)]
pub(super) struct AccessLogs {
    writer: Option<Writer>,
    /// The slab and the sender of the thread.
    means: Option<(Arc<Slab>, Reporter)>,
}

/// One core's ends of the logs, by listener.
pub(super) type Outlets = Table<ListenerId, Outlet>;

impl AccessLogs {
    /// Without logs yet. The thread counts in `counters`.
    pub(super) fn new(counters: Arc<Slab>, reporter: Reporter) -> AccessLogs {
        AccessLogs { writer: None, means: Some((counters, reporter)) }
    }

    /// Opens the logs that a plan names and the plan before did not; returns each core's ends.
    ///
    /// # Errors
    /// A sentence that names the file that cannot be opened.
    pub(super) fn outlets(
        &mut self,
        plan: &Plan,
        before: Option<&Plan>,
        cores: usize,
    ) -> Result<Vec<Outlets>, StartError> {
        let mut outlets: Vec<Outlets> = (0..cores).map(|_| Table::new()).collect();
        for (id, listener) in &plan.listeners {
            let Some(log) = &listener.access_log else { continue };
            let known = before.and_then(|before| before.listeners.get(id)?.access_log.as_ref());
            if known == Some(log) {
                continue;
            }
            let writer = self.writer()?;
            for of_core in &mut outlets {
                let refused = |error| StartError::AccessLog { file: log.path.clone(), error };
                of_core.insert(id, writer.outlet(log).map_err(refused)?);
            }
        }
        Ok(outlets)
    }

    fn writer(&mut self) -> Result<&mut Writer, StartError> {
        if let (None, Some((counters, reporter))) = (&self.writer, &self.means) {
            let writer = Writer::start(Arc::clone(counters), reporter.clone());
            self.writer = Some(writer.map_err(StartError::system("start the log's thread"))?);
        }
        let ended = || StartError::Hung("the thread of the access logs".into());
        self.writer.as_mut().ok_or_else(ended)
    }

    /// Reopens every file; false if there is none, or the thread is too far behind.
    pub(super) fn reopen(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::reopen)
    }

    /// Ends the thread once it has written all; false if that takes too long.
    pub(super) fn end(&mut self) -> bool {
        self.writer.take().is_none_or(|writer| writer.stop(END_MAX))
    }
}

/// The logs of the plan that cannot be opened, in one sentence each; creates nothing.
pub(super) fn check(plan: &Plan) -> Vec<String> {
    let logs = plan.listeners.values().filter_map(|listener| listener.access_log.as_ref());
    let mut paths: Vec<&Path> = logs.filter_map(|log| log.path.as_deref()).collect();
    paths.sort_unstable();
    paths.dedup();
    let refusal = |path: &Path| {
        let error = could_be_written(path).err()?;
        Some(format!("cannot open the access log {}: {error}", path.display()))
    };
    paths.into_iter().filter_map(refusal).collect()
}

fn could_be_written(path: &Path) -> io::Result<()> {
    let is_there = match fs::metadata(path) {
        Ok(about) if about.is_dir() => return Err(rustix::io::Errno::ISDIR.into()),
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if is_there {
        return Ok(access(path, Access::WRITE_OK)?);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(access(folder.unwrap_or(Path::new(".")), Access::WRITE_OK | Access::EXEC_OK)?)
}
