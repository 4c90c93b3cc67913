//! The running process behind the admin interface: what its calls read and do.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    Handle, StartError, backend_writes, changes::Changes, control::Client, refusal::cannot_listen,
    views,
};
use crate::admin::{
    self, Admin, BackendWrite, BackendWritten, Bound, Doors, Pools, Refused, Reload, Reloaded,
    WriteDenied, admin_socket,
};
use crate::config::{Lookup, Machine};
use crate::net::runtime::DriverInUse;
use crate::plan;

/// The running process.
struct Running {
    since: Instant,
    driver: DriverInUse,
    cores: usize,
    client: Client,
    changes: Changes,
    /// The files of its configuration.
    files: Vec<String>,
}

impl Doors for Running {
    fn not_ready(&self) -> Vec<String> {
        let hangs = || vec!["the control thread does not answer".to_owned()];
        self.client.look().map_or_else(hangs, |look| look.not_ready)
    }

    fn generation(&self) -> u64 {
        self.client.layers().map_or(0, |(generation, _)| generation)
    }

    fn status(&self) -> Value {
        let look = self.client.look();
        let (generation, addresses) =
            look.map(|look| (look.generation, look.addresses)).unwrap_or_default();
        let overlay = self.client.layers().map(|(_, layers)| layers.overlay).unwrap_or_default();
        let listeners = addresses
            .iter()
            .map(|(name, address)| json!({ "name": name, "address": address.to_string() }));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "generation": generation,
            "driver": self.driver.to_string(),
            "cores": self.cores,
            "uptime_seconds": self.since.elapsed().as_secs_f64(),
            "files": self.files,
            "listeners": listeners.collect::<Vec<_>>(),
            "certificates": self.client.certificates().len(),
            "run_time_changes": backend_writes::lines(&overlay),
        })
    }

    fn certificates(&self) -> Vec<Value> {
        let now = Machine.now();
        self.client.certificates().iter().map(|held| held.json(now)).collect()
    }

    fn pools(&self) -> Pools {
        self.client.view().map_or_else(Pools::default, |view| views::pools(&view))
    }

    fn write(&self, write: BackendWrite) -> Result<BackendWritten, WriteDenied> {
        self.changes.write(write, "admin")
    }

    fn reload(&self, how: Reload) -> Result<Reloaded, Refused> {
        self.changes.reload(how, "admin")
    }
}

/// The admin interface, and its address if it has one.
pub(super) struct Opened {
    pub(super) address: Option<SocketAddr>,
    /// Why the default address is not used.
    pub(super) given_up: Option<String>,
    _admin: Option<Admin>,
}

/// Opens the admin interface of a running process: its address, and the Unix socket if there is a
/// folder for it.
///
/// # Errors
/// If a written address cannot be listened on, or the token cannot be read.
pub(super) fn open(
    wanted: &plan::Admin,
    files: &[PathBuf],
    handle: &Handle,
) -> Result<Opened, StartError> {
    let token = wanted.token_file.as_deref().map(token).transpose()?;
    let mut bound = Vec::new();
    let mut given_up = None;
    match wanted.bind.map(|address| (address, Bound::tcp(address))) {
        None => {}
        Some((_, Ok(listener))) => bound.push(listener),
        Some((address, Err(error))) if wanted.is_written => {
            return Err(StartError::Listen { address, holder: None, error });
        }
        Some((address, Err(error))) => given_up = Some(cannot_listen(address, &error, None)),
    }
    let address = bound.first().and_then(Bound::address);
    // It fails in a folder without write permission, or if another process reads the same files;
    // then only the address is left.
    bound.extend(admin_socket(files).and_then(|path| Bound::socket(&path).ok()));
    if bound.is_empty() {
        return Ok(Opened { address, given_up, _admin: None });
    }
    let doors = Running {
        since: Instant::now(),
        driver: handle.driver(),
        cores: handle.core_count(),
        client: handle.client(),
        changes: handle.changes().clone(),
        files: admin::named(files),
    };
    let admin = Admin::start(bound, token, Arc::new(doors))
        .map_err(StartError::system("start the admin interface"))?;
    Ok(Opened { address, given_up, _admin: Some(admin) })
}

/// The token in a file, without white space around it.
pub(crate) fn token(path: &Path) -> Result<String, StartError> {
    let refused = |error: io::Error| StartError::Token { file: PathBuf::from(path), error };
    let text = std::fs::read_to_string(path).map_err(refused)?;
    match text.trim() {
        "" => Err(refused(io::Error::other("it is empty"))),
        token => Ok(token.to_owned()),
    }
}
