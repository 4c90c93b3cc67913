//! The old process: starts the new one, lets it prove itself, gives it what it has, and finishes.
//!
//! One thread, `ringway-upgrade`, does one upgrade at a time.

use std::{
    io::{self, ErrorKind},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, set_capabilities,
};

use super::{
    Ask, VARIABLE,
    message::{Connection, Hello, Listening, Message, Program, VERSION},
    owner::{Copied, Leaving, ask},
    taker::program,
    wire::Wire,
};
use crate::admin::{Closing, Refused, Upgraded};
use crate::base::endpoint::Endpoint;
use crate::observe::{event::Event, reports::Reporter};
use crate::server::{
    StartError, admin_doors::AdminSockets, control::Client, service_manager::ServiceManager,
    signals::ToMain,
};
use crate::shared::counters::{Counter, Slab};
use crate::worker::RestingClient;

/// Upgrades that may wait for the one in progress: they will find that it is done.
const WAITING_MAX: usize = 4;

/// How long the new process may take to be ready: it waits for names for some seconds, and for its
/// threads.
const READY_WITHIN: Duration = Duration::from_secs(40);

/// How long it may take to accept connections.
const SERVING_WITHIN: Duration = Duration::from_secs(10);

/// How long a caller waits: longer than both.
const ANSWERED_WITHIN: Duration = Duration::from_secs(55);

/// How often the rest is looked at, and reported if it has not changed.
const LOOK: Duration = Duration::from_millis(20);
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How long main may take to close the admin interface, and its last answers to leave.
const ADMIN_WITHIN: Duration = Duration::from_secs(3);

/// How often the wait for the new process looks whether this one stops, and how long a stop waits
/// for that.
const STOP_LOOK: Duration = Duration::from_millis(50);
const STOPPED_WITHIN: Duration = Duration::from_secs(2);

/// Connections of one message.
const AT_ONCE: usize = 64;

type Outcome = Result<Upgraded, Refused>;

enum Job {
    Upgrade(Order),
    /// The process stops: answer when no process is on its way that would serve in its place.
    Stop(Sender<()>),
}

struct Order {
    /// What asked for it, and from where.
    by: &'static str,
    from: String,
    answer: Option<Sender<Outcome>>,
}

/// A sender of jobs to the thread.
#[derive(Clone)]
pub(in crate::server) struct Upgrades {
    to: Sender<Job>,
}

/// Held by main while the process runs.
pub(in crate::server) struct Running {
    to: Sender<Job>,
    _runs: Sender<()>,
}

impl Running {
    /// Ends an upgrade that is not done: the process stops, and no other may serve in its place.
    pub(in crate::server) fn end(self) {
        let Running { to, _runs } = self;
        drop(_runs);
        let until = Instant::now() + STOPPED_WITHIN;
        let (answer, answered) = bounded(1);
        if to.send_deadline(Job::Stop(answer), until).is_ok() {
            let _ = answered.recv_deadline(until);
        }
    }
}

/// What the thread uses.
pub(in crate::server) struct Means {
    pub(in crate::server) client: Client,
    pub(in crate::server) reporter: Reporter,
    pub(in crate::server) manager: ServiceManager,
    pub(in crate::server) main: Sender<ToMain>,
    /// What all threads count.
    pub(in crate::server) counters: Vec<Arc<Slab>>,
    /// How long it may take to finish what it has.
    pub(in crate::server) drain: Duration,
}

impl Upgrades {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::server) fn start(means: Means) -> Result<(Upgrades, Running), StartError> {
        let (to, jobs) = bounded(WAITING_MAX);
        let (runs, stops) = bounded(0);
        let program = program();
        let mut giver = Giver { means, program, stops, heir: None };
        thread::Builder::new()
            .name("ringway-upgrade".into())
            .spawn(move || giver.run(&jobs))
            .map_err(StartError::system("start the thread that upgrades"))?;
        Ok((Upgrades { to: to.clone() }, Running { to, _runs: runs }))
    }

    /// Begins an upgrade for a signal, without waiting.
    pub(in crate::server) fn begin(&self, by: &'static str) {
        let order = Order { by, from: String::new(), answer: None };
        let _ = self.to.try_send(Job::Upgrade(order));
    }

    /// Upgrades for an admin call, and waits for the verdict.
    pub(in crate::server) fn wait(&self, from: String, by: &'static str) -> Outcome {
        let until = Instant::now() + ANSWERED_WITHIN;
        let (answer, answered) = bounded(1);
        let late = || refused("another upgrade takes too long; nothing is known of this one");
        let order = Job::Upgrade(Order { by, from, answer: Some(answer) });
        self.to.send_deadline(order, until).map_err(|_| late())?;
        answered.recv_deadline(until).unwrap_or_else(|_| Err(late()))
    }
}

fn refused(why: &str) -> Refused {
    Refused { why: why.to_owned(), problems: String::new(), moved_to: None }
}

/// Why a message was not sent; empty if the other end is closed, as then the process has ended.
fn unsent(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => String::new(),
        _ => error.to_string(),
    }
}

/// The new process.
struct Heir {
    wire: Wire,
    child: Child,
    program: Program,
    /// The last connections of the admin interface of this process.
    answers: Closing,
}

struct Giver {
    means: Means,
    /// The path of the program, as it was at the start.
    program: Option<PathBuf>,
    /// Closed when this process stops.
    stops: Receiver<()>,
    /// The process that has taken over.
    heir: Option<Heir>,
}

/// How the rest of the old process went.
enum Rest {
    /// All has finished, or its time is over.
    Over { finished: bool },
    /// The new process has died.
    HeirDied,
}

impl Giver {
    fn run(&mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            let Order { by, from, answer } = match job {
                Job::Upgrade(order) => order,
                Job::Stop(answer) => {
                    let _ = answer.send(());
                    continue;
                }
            };
            let heir = self.upgrade();
            let outcome = match &heir {
                Ok((heir, _)) => Ok(Upgraded {
                    pid: heir.program.pid,
                    version: heir.program.version.clone(),
                    connections: self.connections(),
                    drain: self.means.drain,
                }),
                Err(why) => Err(refused(why)),
            };
            self.report(&outcome, by, from);
            if let Some(answer) = answer {
                // The caller may have stopped waiting.
                let _ = answer.send(outcome);
            }
            if let Ok((heir, leaving)) = heir {
                self.heir = Some(heir);
                self.finish(&leaving, jobs);
            }
        }
    }

    fn report(&self, outcome: &Outcome, by: &'static str, from: String) {
        let from = (!from.is_empty()).then(|| Arc::from(from));
        self.means.reporter.event(match outcome {
            Ok(done) => Event::Upgraded {
                pid: done.pid,
                version: done.version.as_str().into(),
                by: by.into(),
                from,
            },
            Err(refused) => {
                Event::UpgradeRefused { cause: refused.why.as_str().into(), by: by.into(), from }
            }
        });
    }

    /// Lets a new process take over; this one has stopped nothing if that fails.
    fn upgrade(&mut self) -> Result<(Heir, Leaving), String> {
        if std::process::id() == 1 {
            return Err("it is process 1 of its container, which ends with it: start another \
                        container instead"
                .into());
        }
        let handed = ask(&self.means.client, Ask::Hand);
        let handed = handed.and_then(|handed| handed).map_err(|error| error.to_string())?;
        let admin = self.admin_sockets();
        let heir = self.start()?;
        self.prove(heir, |wire| {
            let sockets = handed.sockets.iter().map(|it| it.fd.as_fd());
            let (address, socket) = (admin.address.as_ref(), admin.socket.as_ref());
            let of_admin = address.map(|it| it.1.as_fd()).into_iter();
            let of_admin = of_admin.chain(socket.map(|it| it.1.as_fd()));
            let descriptors: Vec<_> = sockets.chain(of_admin).collect();
            let listening =
                |it: &Copied| Listening { address: it.address, is_shared: it.is_shared };
            let hello = Hello {
                version: VERSION,
                program: Program::own(),
                sockets: handed.sockets.iter().map(listening).collect(),
                admin: address.map(|it| it.0),
                admin_socket: socket.map(|it| it.0.clone()),
                state: handed.state.clone(),
            };
            wire.send(&Message::Hello(Box::new(hello)), &descriptors)
        })
    }

    /// Starts the program again, with the other end of a wire as its standard input.
    fn start(&self) -> Result<Heir, String> {
        let program = self.program.as_ref().ok_or("the path of the program is not known")?;
        let why = |what: &str, error: io::Error| format!("cannot {what}: {error}");
        let pair = UnixStream::pair().and_then(|(own, other)| Ok((Wire::new(own)?, other)));
        let (wire, other) = pair.map_err(|error| why("make a pair of sockets", error))?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new(program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments).env(VARIABLE, "1").stdin(Stdio::from(OwnedFd::from(other)));
        // What the service manager gave is for this process; the new one gets it from this one.
        for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        let child = with_low_ports(|| command.spawn());
        let child = child.map_err(|error| why(&format!("start {}", program.display()), error))?;
        let program = Program { pid: child.id(), version: String::new() };
        Ok(Heir { wire, child, program, answers: Closing::default() })
    }

    /// Gives the new process what it needs, and waits until it serves.
    fn prove(
        &mut self,
        mut heir: Heir,
        hello: impl FnOnce(&Wire) -> io::Result<()>,
    ) -> Result<(Heir, Leaving), String> {
        let said = hello(&heir.wire).map_err(unsent);
        let proved = said.and_then(|()| {
            heir.program = ready(&heir.wire, &self.stops)?;
            heir.wire.send(&Message::Go, &[]).map_err(unsent)?;
            let at = serving(&heir.wire)?;
            let give_away = |answer| Ask::GiveAway(at, answer);
            ask(&self.means.client, give_away).map_err(|error| error.to_string())
        });
        match proved {
            Ok(leaving) => {
                // The next command of the line is meant for the new process.
                heir.answers = self.admin(false);
                self.means.manager.hands_over(heir.program.pid);
                let _ = heir.wire.send(&Message::Yours, &[]);
                Ok((heir, leaving))
            }
            Err(why) => {
                let _ = heir.child.kill();
                let status = heir.child.wait();
                let how = status.map_or_else(|_| "has ended".into(), |it| it.to_string());
                Err(if why.is_empty() {
                    format!("the new process ended before it was ready ({how}); see what it said")
                } else {
                    why
                })
            }
        }
    }

    /// Finishes what this process has, and gives away what comes to rest.
    fn finish(&mut self, leaving: &Leaving, jobs: &Receiver<Job>) {
        let Some(mut heir) = self.heir.take() else { return };
        match self.rest(&heir, leaving, jobs) {
            Rest::Over { finished } => {
                if let Ok(counts) = ask(&self.means.client, Ask::Count) {
                    let _ = heir.wire.send(&Message::Over { counts }, &[]);
                }
                let _ = self.means.main.send(ToMain::LetGo { finished });
            }
            Rest::HeirDied => {
                let _ = heir.child.kill();
                let how = heir.child.wait().map_or_else(|_| String::new(), |it| it.to_string());
                self.means.client.upgrade(Ask::TakeBack);
                self.admin(true);
                let cause = format!("the new process has died ({how}): this one serves again");
                let (cause, by) = (cause.as_str().into(), "upgrade".into());
                self.means.reporter.event(Event::UpgradeRefused { cause, by, from: None });
                // What nobody has got yet stays here.
                let back: Vec<_> = leaving.clients.try_iter().collect();
                self.means.client.upgrade(Ask::Adopt(named(back, leaving)));
            }
        }
    }

    fn rest(&self, heir: &Heir, leaving: &Leaving, jobs: &Receiver<Job>) -> Rest {
        let began = Instant::now();
        let until = began + self.means.drain;
        // Whether this process serves again if the new one dies: not if that is stopped.
        let mut is_watched = true;
        let mut told = (u64::MAX, Instant::now());
        loop {
            // What rests is given away first.
            let some: Vec<_> = leaving.clients.try_iter().take(AT_ONCE).collect();
            if !some.is_empty() {
                match give(&heir.wire, some, leaving) {
                    Err(some) if is_watched => {
                        self.means.client.upgrade(Ask::Adopt(some));
                        return Rest::HeirDied;
                    }
                    // Without anybody to take them they are closed.
                    Ok(()) | Err(_) => continue,
                }
            }
            for job in jobs.try_iter() {
                let why = || format!("process {} has taken over already", heir.program.pid);
                match job {
                    Job::Upgrade(Order { answer: Some(to), .. }) => {
                        let _ = to.send(Err(refused(&why())));
                    }
                    Job::Upgrade(_) => {}
                    Job::Stop(answer) => _ = answer.send(()),
                }
            }
            let connections = self.connections();
            let now = Instant::now();
            if told.0 != connections || now >= told.1 + STATUS_EVERY {
                told = (connections, now);
                let _ = heir.wire.send(&Message::Status { connections }, &[]);
            }
            let has_answered = heir.answers.is_over() || now >= began + ADMIN_WITHIN;
            if (connections == 0 && has_answered) || now >= until {
                return Rest::Over { finished: connections == 0 };
            }
            match heir.wire.receive::<Message>(now + LOOK) {
                Ok((Message::Leaving, _)) => is_watched = false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(_) if is_watched => return Rest::HeirDied,
                // The rest is finished all the same.
                Err(_) => _ = self.stops.recv_timeout(LOOK),
            }
        }
    }

    fn connections(&self) -> u64 {
        let counters = self.means.counters.iter();
        counters.fold(0, |sum, slab| sum.wrapping_add(slab.read(Counter::Connections)))
    }

    /// Opens or closes the admin interface of this process; returns the last connections of the
    /// closed one.
    fn admin(&self, is_open: bool) -> Closing {
        let (answer, answered) = bounded(1);
        let _ = self.means.main.send(ToMain::Admin { is_open, answer });
        answered.recv_timeout(ADMIN_WITHIN).unwrap_or_default()
    }

    fn admin_sockets(&self) -> AdminSockets {
        let (answer, answered) = bounded(1);
        let _ = self.means.main.send(ToMain::AdminSockets(answer));
        answered.recv_timeout(ADMIN_WITHIN).unwrap_or_default()
    }
}

/// Waits until the new process could serve.
fn ready(wire: &Wire, stops: &Receiver<()>) -> Result<Program, String> {
    let until = Instant::now() + READY_WITHIN;
    let mut refusals: Vec<String> = Vec::new();
    loop {
        match wire.receive(until.min(Instant::now() + STOP_LOOK)) {
            Ok((Message::Ready(program), _)) => return Ok(program),
            Ok((Message::Refused { why }, _)) => refusals.push(why),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut && Instant::now() < until => {
                if stops.try_recv() == Err(TryRecvError::Disconnected) {
                    return Err("this process is stopped".into());
                }
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                return Err(format!(
                    "the new process was not ready within {} seconds",
                    READY_WITHIN.as_secs()
                ));
            }
            // It has ended; without a word if this text is empty.
            Err(_) => return Err(refusals.join("\n").trim_end().to_owned()),
        }
    }
}

/// Waits until the new process accepts connections.
fn serving(wire: &Wire) -> Result<Option<Vec<(String, Endpoint)>>, String> {
    let until = Instant::now() + SERVING_WITHIN;
    loop {
        match wire.receive(until) {
            Ok((Message::Serving { at }, _)) => return Ok(at),
            Ok(_) => {}
            Err(error) => return Err(format!("the new process does not serve: {error}")),
        }
    }
}

/// Gives connections away; returns those that nobody took.
fn give(
    wire: &Wire,
    some: Vec<RestingClient>,
    leaving: &Leaving,
) -> Result<(), Vec<(String, bool, OwnedFd)>> {
    let some = named(some, leaving);
    let connection = |(listener, is_idle, _): &(String, bool, OwnedFd)| Connection {
        listener: listener.clone(),
        is_idle: *is_idle,
    };
    let of = some.iter().map(connection).collect();
    let descriptors: Vec<_> = some.iter().map(|(.., fd)| fd.as_fd()).collect();
    wire.send(&Message::Connections { of }, &descriptors).map_err(|_| some)
}

fn named(some: Vec<RestingClient>, leaving: &Leaving) -> Vec<(String, bool, OwnedFd)> {
    let named = |RestingClient { listener, is_idle, fd }: RestingClient| {
        Some((leaving.names.get(&listener)?.clone(), is_idle, fd))
    };
    some.into_iter().filter_map(named).collect()
}

/// Does this so that a process that is started meanwhile may bind ports below 1024, if this one
/// may.
fn with_low_ports<T>(start: impl FnOnce() -> T) -> T {
    let bind = CapabilitySet::NET_BIND_SERVICE;
    let Ok(own) = capabilities(None) else { return start() };
    let lends = !own.inheritable.contains(bind)
        && own.permitted.contains(bind)
        && set_capabilities(None, CapabilitySets { inheritable: own.inheritable | bind, ..own })
            .and_then(|()| configure_capability_in_ambient_set(bind, true))
            .is_ok();
    let started = start();
    if lends {
        let _ = clear_ambient_capability_set();
        let _ = set_capabilities(None, own);
    }
    started
}
