//! The running process behind the admin interface: what its calls read and do; and the interface
//! itself, which is opened when the process serves, closed when another one takes over, and opened
//! again if that dies. Nothing here serves HTTP.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use super::{
    Handle, StartError, backend_writes,
    changes::Changes,
    chronicle::{Chronicle, Reader, Sources},
    control::Client,
    explain,
    refusal::cannot_listen,
    upgrade::{Before, Upgrades},
    views,
};
use crate::admin::{
    self, Admin, BackendWrite, BackendWritten, Bound, Closing, Doors, Explain, Feed, HistoryQuery,
    Pools, Refused, Reload, Reloaded, Upgraded, WriteDenied, admin_socket,
};
use crate::net::runtime::DriverInUse;
use crate::observe::statistics::metrics::{self, Format, Text};
use crate::plan;

/// The running process.
struct Running {
    since: Instant,
    driver: DriverInUse,
    client: Client,
    changes: Changes,
    /// None = no new process can take over.
    upgrades: Option<Upgrades>,
    reader: Reader,
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
        let (generation, cores, addresses, before) = look
            .map(|look| (look.generation, look.cores, look.addresses, look.before))
            .unwrap_or_default();
        let draining = before.iter().map(|Before { program, connections }| {
            json!({
                "pid": program.pid, "version": program.version, "connections": connections,
            })
        });
        let overlay = self.client.layers().map(|(_, layers)| layers.overlay).unwrap_or_default();
        let listeners = addresses
            .iter()
            .map(|(name, address)| json!({ "name": name, "address": address.to_string() }));
        let pools = self.pools().pools;
        let pools = pools.iter().map(|pool| {
            json!({
                "name": pool["name"],
                "healthyBackends": pool["healthyBackends"],
                "totalBackends": pool["totalBackends"],
            })
        });
        let certificates = self.certificates();
        let days = certificates.iter().filter_map(|it| it["daysLeft"].as_i64()).min();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "generation": generation,
            "driver": self.driver.to_string(),
            "cores": cores,
            "uptime_seconds": self.since.elapsed().as_secs_f64(),
            "files": self.files,
            "listeners": listeners.collect::<Vec<_>>(),
            "pools": pools.collect::<Vec<_>>(),
            "certificates": certificates.len(),
            "certificate_days_left": days,
            "run_time_changes": backend_writes::lines(&overlay),
            "pid": std::process::id(),
            "draining": draining.collect::<Vec<_>>(),
        })
    }

    fn certificates(&self) -> Vec<Value> {
        views::certificates(&self.client)
    }

    fn pools(&self) -> Pools {
        self.client.view().map_or_else(Pools::default, |view| views::pools(&view))
    }

    fn stats(&self) -> (u64, Value) {
        let view = self.reader.view();
        view.map_or((0, Value::Null), |view| (view.generation, views::stats(&view)))
    }

    fn metrics(&self, format: Format) -> Option<Text> {
        let mut statistics = self.client.statistics()?;
        self.reader.measure(&mut statistics);
        Some(metrics::text(statistics, format))
    }

    fn follow(&self, feed: Feed, after: Option<String>) -> Receiver<Arc<str>> {
        self.reader.follow(feed, after)
    }

    fn frame(&self) -> Option<Arc<str>> {
        self.reader.frame()
    }

    fn explain(&self, asked: &Explain) -> Result<Value, String> {
        explain::explain(&self.client, asked)
    }

    fn history(&self, query: &HistoryQuery) -> Value {
        self.reader.history(query)
    }

    fn write(&self, write: BackendWrite) -> Result<BackendWritten, WriteDenied> {
        self.changes.write(write, "admin")
    }

    fn reload(&self, how: Reload) -> Result<Reloaded, Refused> {
        self.changes.reload(how, "admin")
    }

    fn upgrade(&self, from: &str) -> Result<Upgraded, Refused> {
        match &self.upgrades {
            Some(upgrades) => upgrades.wait(from.to_owned(), "admin"),
            None => Err(Refused {
                why: "no new process can take over from this one".to_owned(),
                problems: String::new(),
                moved_to: None,
            }),
        }
    }
}

/// Sockets of the admin interface that two processes share at an upgrade.
#[derive(Default)]
pub(super) struct AdminSockets {
    pub(super) address: Option<(SocketAddr, OwnedFd)>,
    pub(super) socket: Option<(PathBuf, OwnedFd)>,
}

/// The admin interface of a process.
pub(crate) struct AdminInterface {
    /// Its address, if it has one.
    pub(super) address: Option<SocketAddr>,
    /// Why the default address is not used.
    pub(super) given_up: Option<String>,
    bound: Vec<Bound>,
    /// The path of its Unix socket, to be removed at the end.
    path: Option<PathBuf>,
    token: Option<String>,
    chronicle: Option<Chronicle>,
    doors: Option<Arc<Running>>,
    open: Option<Admin>,
}

impl AdminInterface {
    /// For a process without files, as the demo is: at this address, or at another one of loopback
    /// if that is taken.
    ///
    /// # Errors
    /// Like `bind` and `open`.
    pub(crate) fn beside(
        wanted: &plan::Admin,
        handle: &Handle,
    ) -> Result<AdminInterface, StartError> {
        let mut admin = AdminInterface::bind(wanted, &[], AdminSockets::default())?;
        if admin.given_up.is_some() {
            let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
            let wanted = plan::Admin { bind: Some(anywhere), ..wanted.clone() };
            admin = AdminInterface::bind(&wanted, &[], AdminSockets::default())?;
        }
        admin.open((&[], None), handle, None)?;
        Ok(admin)
    }

    /// Its address, if it has one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Takes its address, and makes the Unix socket if there is a folder for it, unless they are
    /// given.
    ///
    /// # Errors
    /// If a written address cannot be listened on, or the token cannot be read.
    pub(super) fn bind(
        wanted: &plan::Admin,
        files: &[PathBuf],
        given: AdminSockets,
    ) -> Result<AdminInterface, StartError> {
        let token = wanted.token_file.as_deref().map(token).transpose()?;
        let mut bound = Vec::new();
        let mut given_up = None;
        let of_address = given.address.filter(|(address, _)| wanted.bind == Some(*address));
        match (of_address, wanted.bind) {
            (Some((_, socket)), _) => bound.push(Bound::given_tcp(socket)),
            (None, None) => {}
            (None, Some(address)) => match Bound::tcp(address) {
                Ok(listener) => bound.push(listener),
                Err(error) if wanted.is_written => {
                    let address = address.into();
                    return Err(StartError::Listen { address, holder: None, error });
                }
                Err(error) => given_up = Some(cannot_listen(address.into(), &error, None)),
            },
        }
        let address = bound.first().and_then(Bound::address);
        // It fails in a folder without write permission, or if another process reads the same
        // files; then only the address is left.
        let path = admin_socket(files);
        let of_path = given.socket.filter(|(at, _)| path.as_ref() == Some(at));
        let socket = match of_path {
            Some((_, socket)) => Some(Bound::given_socket(socket)),
            None => path.as_ref().and_then(|path| Bound::socket(path).ok()),
        };
        let path = path.filter(|_| socket.is_some());
        bound.extend(socket);
        Ok(AdminInterface {
            address,
            given_up,
            bound,
            path,
            token,
            chronicle: None,
            doors: None,
            open: None,
        })
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn open(
        &mut self,
        (files, folders): (&[PathBuf], Option<Vec<PathBuf>>),
        handle: &Handle,
        upgrades: Option<&Upgrades>,
    ) -> Result<(), StartError> {
        let layers = handle.client().layers();
        let tells = layers.is_some_and(|(_, layers)| !layers.base.global.webhooks.is_empty());
        if self.bound.is_empty() && !tells {
            return Ok(());
        }
        let sources = Sources {
            client: handle.client(),
            events: handle.all_events(),
            reporter: handle.reporter().clone(),
            is_watchful: self.address.is_some(),
            folders: folders.filter(|_| self.address.is_some()),
            files: files.to_vec(),
        };
        let chronicle = Chronicle::start(sources);
        let chronicle = chronicle.map_err(StartError::system("start the thread of the history"))?;
        let reader = chronicle.reader();
        self.chronicle = Some(chronicle);
        self.doors = Some(Arc::new(Running {
            since: Instant::now(),
            driver: handle.driver(),
            client: handle.client(),
            changes: handle.changes().clone(),
            upgrades: upgrades.cloned(),
            reader,
            files: admin::named(files),
        }));
        self.reopen()
    }

    /// Begins to answer again.
    ///
    /// # Errors
    /// Like `open`.
    pub(super) fn reopen(&mut self) -> Result<(), StartError> {
        let refused = || StartError::system("start the admin interface");
        if let (Some(doors), false) = (&self.doors, self.bound.is_empty()) {
            let copies: io::Result<Vec<Bound>> = self.bound.iter().map(Bound::copied).collect();
            let copies = copies.map_err(refused())?;
            let admin = Admin::start(copies, self.token.clone(), Arc::clone(doors));
            self.open = Some(admin.map_err(refused())?);
        }
        Ok(())
    }

    /// Accepts no more, and answers what was asked.
    pub(super) fn close(&mut self) -> Closing {
        self.open.take().map_or_else(Closing::default, Admin::close)
    }

    /// Leaves the Unix socket to another process.
    pub(super) fn leave(&mut self) {
        self.path = None;
    }

    /// The path of its Unix socket.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    /// Owns the Unix socket at this path again.
    pub(super) fn take_back(&mut self, path: Option<PathBuf>) {
        self.path = path;
    }

    /// Copies of its sockets.
    pub(super) fn sockets(&self) -> AdminSockets {
        let mut sockets = AdminSockets::default();
        for bound in &self.bound {
            let Ok(copy) = bound.fd().try_clone_to_owned() else { continue };
            match bound.address() {
                Some(address) => sockets.address = Some((address, copy)),
                None => sockets.socket = self.path.clone().map(|path| (path, copy)),
            }
        }
        sockets
    }
}

impl Drop for AdminInterface {
    fn drop(&mut self) {
        self.open = None;
        self.doors = None;
        // It writes what happened last.
        self.chronicle = None;
        if let Some(path) = &self.path {
            // It may be gone, or its folder may be.
            let _ = std::fs::remove_file(path);
        }
    }
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
