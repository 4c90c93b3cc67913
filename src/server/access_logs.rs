//! The access logs of a process: opened before anything serves, shared out to the cores, ended
//! after the last of them.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use rustix::fs::{Access, access};

use super::StartError;
use crate::observe::{
    told::Teller,
    writer::{Outlet, Writer},
};
use crate::plan::{ListenerId, Plan, Table};
use crate::shared::counters::Slab;

/// How long the end waits for a disk that does not take the last lines.
const END_MAX: Duration = Duration::from_secs(5);

/// The thread that writes the access logs, if any listener has one.
pub(super) struct AccessLogs {
    writer: Option<Writer>,
}

/// One core's ends of the logs, by listener.
pub(super) type Outlets = Table<ListenerId, Outlet>;

impl AccessLogs {
    /// Opens what the plan names; also each core's ends. `counters` has a slab for each core, and
    /// gets that of the thread.
    ///
    /// # Errors
    /// A sentence that names the file that cannot be opened.
    pub(super) fn open(
        plan: &Plan,
        counters: &mut Vec<Arc<Slab>>,
        teller: &Teller,
    ) -> Result<(AccessLogs, Vec<Outlets>), StartError> {
        let cores = counters.len();
        if plan.listeners.values().all(|listener| listener.access_log.is_none()) {
            return Ok((AccessLogs { writer: None }, (0..cores).map(|_| Table::new()).collect()));
        }
        counters.push(Slab::new());
        let mut writer = Writer::start(Arc::clone(&counters[cores]), teller.clone())
            .map_err(StartError::system("start the log's thread"))?;
        let mut outlets = Vec::new();
        for _ in 0..cores {
            let logs =
                plan.listeners.iter().filter_map(|(id, it)| Some((id, it.access_log.as_ref()?)));
            let mut own = Table::new();
            for (id, log) in logs {
                let refused = |error| StartError::AccessLog { file: log.path.clone(), error };
                own.insert(id, writer.outlet(log).map_err(refused)?);
            }
            outlets.push(own);
        }
        Ok((AccessLogs { writer: Some(writer) }, outlets))
    }

    /// Opens every file anew; false where there is none, or the thread is too far behind.
    pub(super) fn reopen(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::reopen)
    }

    /// Ends the thread once it has written all; false where that takes it too long.
    pub(super) fn end(&mut self) -> bool {
        self.writer.take().is_none_or(|writer| writer.stop(END_MAX))
    }
}

/// What the plan names and cannot be opened, in one sentence each; nothing is made.
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
