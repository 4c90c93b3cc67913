//! The thread `ringway-certs`, which reads certificates and watches their files.
//!
//! It exists from the first plan on that speaks TLS. All its file work may block, which is why it
//! is neither on a core nor on the control thread. What it has read it sends to the control thread,
//! which gives it to the cores; a file that cannot be used changes nothing and is said.

mod held;
mod notices;
mod shelf;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) use self::held::Held;
use self::{notices::Notices, shelf::Shelf};
use super::{
    StartError,
    spawn::{self, Death, Thread},
};
use crate::certs::Files;
use crate::config::{Lookup, Machine};
use crate::observe::{event::Event, reports::Reporter};
use crate::plan::{ClientAuth, ListenerId, ListenerTls, Plan, PoolId, PoolTls, Table};
use crate::shared::{bell::Rope, certs::Certs};

/// How often files are looked at without a notice: file systems of a network give none.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long after a notice they are looked at: a certificate and its key come one after the other.
const SETTLES_WITHIN: Duration = Duration::from_millis(200);

/// How soon they are looked at again if one cannot be used: it may have been in the middle of being
/// written.
const AGAIN_AFTER: Duration = Duration::from_millis(1200);

/// How long a plan waits for its certificates: ten thousand of them take a few seconds.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// How long the thread may take to end: it may be in the middle of reading.
const END_WITHIN: Duration = Duration::from_secs(5);

/// The most events of one look; of thousands of files only a few are named.
const EVENTS_MAX: usize = 32;

/// What a plan wants of certificates.
#[derive(Clone, Default)]
pub(super) struct Wanted {
    listeners: Table<ListenerId, (Arc<str>, ListenerTls)>,
    pools: Table<PoolId, (Arc<str>, PoolTls)>,
}

/// What was read for a plan.
#[derive(Clone, Default)]
pub(super) struct Fresh {
    /// The number of the plan's reading.
    pub(super) number: u64,
    pub(super) certs: Arc<Certs>,
    pub(super) held: Arc<[Held]>,
}

enum Command {
    /// Read what a plan wants.
    Read(Box<Wanted>, u64, Sender<Result<Fresh, String>>),
    /// The plan of this reading is in force: watch its files, and forget all others.
    Keep(u64),
    End,
}

/// The thread, for the owner of the plan.
pub(super) struct Certificates {
    death: Death,
    reporter: Reporter,
    /// What files have become, once a plan is in force.
    to_owner: Sender<Fresh>,
    thread: Option<(Sender<Command>, Rope, Thread)>,
    /// How many readings there were.
    readings: u64,
}

impl Certificates {
    /// Without a thread yet; and where it sends what files have become.
    pub(super) fn new(death: Death, reporter: Reporter) -> (Certificates, Receiver<Fresh>) {
        let (to_owner, fresh) = unbounded();
        (Certificates { death, reporter, to_owner, thread: None, readings: 0 }, fresh)
    }

    /// Reads what a plan wants. It is watched when `keep` is called for it.
    ///
    /// # Errors
    /// What cannot be used.
    pub(super) fn read(&mut self, plan: &Plan) -> Result<Fresh, StartError> {
        let wanted = Wanted::of(plan);
        self.readings += 1;
        if wanted.is_empty() && self.thread.is_none() {
            return Ok(Fresh { number: self.readings, ..Fresh::default() });
        }
        let (answer, answered) = bounded(1);
        let number = self.readings;
        self.send(Command::Read(Box::new(wanted), number, answer))
            .map_err(StartError::system("start the thread of certificates"))?;
        let hangs = |_| StartError::Hung("the thread of certificates".into());
        let read = answered.recv_timeout(READ_WITHIN).map_err(hangs)?;
        read.map_err(StartError::Certificates)
    }

    /// The plan of this reading is in force.
    pub(super) fn keep(&mut self, fresh: &Fresh) {
        if self.thread.is_some() {
            let _ = self.send(Command::Keep(fresh.number));
        }
    }

    /// Ends the thread; returns its name if it does not end.
    pub(super) fn end(&mut self) -> Option<String> {
        let (to, rope, thread) = self.thread.take()?;
        let _ = to.send(Command::End);
        rope.pull();
        thread.end(Instant::now() + END_WITHIN).err()
    }

    fn send(&mut self, command: Command) -> io::Result<()> {
        if self.thread.is_none() {
            self.thread = Some(self.start()?);
        }
        if let Some((to, rope, _)) = &self.thread {
            // If it has died, that was reported, and no answer comes.
            let _ = to.send(command);
            rope.pull();
        }
        Ok(())
    }

    fn start(&self) -> io::Result<(Sender<Command>, Rope, Thread)> {
        let rope = Rope::new()?;
        // Without a bound: its one client waits for each answer.
        let (to, commands) = unbounded();
        let work = Work {
            commands,
            bell: rope.clone(),
            notices: Notices::new().ok(),
            shelf: Shelf::default(),
            candidate: None,
            in_force: None,
            to_owner: self.to_owner.clone(),
            reporter: self.reporter.clone(),
            look_at: Instant::now() + LOOK_EVERY,
            may_watch: true,
        };
        let what = "the thread of certificates".to_owned();
        let thread = spawn::watched("ringway-certs".into(), what, &self.death, move || work.run())?;
        Ok((to, rope, thread))
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Wanted {
    fn of(plan: &Plan) -> Wanted {
        let named = |name: &String| Arc::from(name.as_str());
        let listeners = plan.listeners.iter().filter_map(|(id, listener)| {
            Some((id, (named(&listener.name), listener.tls.clone()?)))
        });
        let pools = plan
            .pools
            .iter()
            .filter_map(|(id, pool)| Some((id, (named(&pool.name), pool.tls.clone()?))));
        Wanted { listeners: listeners.collect(), pools: pools.collect() }
    }

    fn is_empty(&self) -> bool {
        self.listeners.len() + self.pools.len() == 0
    }

    fn folders(&self) -> impl Iterator<Item = &Path> {
        self.listeners.values().filter_map(|(_, tls)| tls.directory.as_deref())
    }

    fn client_auths(&self) -> impl Iterator<Item = &ClientAuth> {
        self.listeners.values().filter_map(|(_, tls)| tls.client_auth.as_ref())
    }

    fn servers(&self) -> impl Iterator<Item = shelf::Servers> + '_ {
        self.pools.values().map(|(_, tls)| shelf::servers_of(tls))
    }
}

/// What the thread works with.
struct Work {
    commands: Receiver<Command>,
    bell: Rope,
    /// None: the kernel gives none.
    notices: Option<Notices>,
    shelf: Shelf,
    /// What was read last, for a plan that may come into force.
    candidate: Option<(u64, Wanted)>,
    in_force: Option<(u64, Wanted)>,
    to_owner: Sender<Fresh>,
    reporter: Reporter,
    /// When the files are looked at next.
    look_at: Instant,
    /// Whether it was not said yet that folders cannot be watched.
    may_watch: bool,
}

impl Work {
    fn run(mut self) {
        loop {
            let noticed = self.wait(self.look_at);
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Read(wanted, number, answer)) => {
                        // The owner may have stopped waiting.
                        let _ = answer.send(self.read(*wanted, number));
                    }
                    Ok(Command::Keep(number)) => self.keep(number),
                    Ok(Command::End) => return,
                    Err(error) if error.is_disconnected() => return,
                    Err(_) => break,
                }
            }
            if noticed {
                self.look_at = self.look_at.min(Instant::now() + SETTLES_WITHIN);
            }
            if Instant::now() >= self.look_at {
                self.look();
            }
        }
    }

    /// Waits for a command, a notice, or this moment; returns whether there was a notice.
    fn wait(&self, until: Instant) -> bool {
        let time = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let time = Timespec::try_from(time).ok();
        let mut watched = vec![PollFd::new(self.bell.bell(), PollFlags::IN)];
        watched.extend(self.notices.as_ref().map(|it| PollFd::new(it, PollFlags::IN)));
        // Interrupted or not, what there is to do is looked up.
        let _ = poll(&mut watched, time.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&**self.bell.bell(), &mut count);
        self.notices.as_ref().is_some_and(Notices::drain)
    }

    fn read(&mut self, wanted: Wanted, number: u64) -> Result<Fresh, String> {
        let now = Machine.now();
        let certs = Arc::new(self.shelf.load(&wanted, &Machine, now)?);
        let held = self.shelf.held(&wanted).into();
        self.candidate = Some((number, wanted));
        Ok(Fresh { number, certs, held })
    }

    fn keep(&mut self, number: u64) {
        let Some(candidate) = self.candidate.take_if(|(read, _)| *read == number) else { return };
        self.shelf.keep_only(&candidate.1);
        self.in_force = Some(candidate);
        self.watch();
        // Between the reading and now they may have changed.
        self.look();
    }

    /// Looks at all files, and sends what they have become.
    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK_EVERY;
        let Some((number, wanted)) = &self.in_force else { return };
        let now = Machine.now();
        let seen = self.shelf.look(wanted, &Machine as &dyn Files, now);
        let said = seen.events.len();
        seen.events.into_iter().take(EVENTS_MAX).for_each(|event| self.reporter.event(event));
        if said > 0 || seen.changed {
            match self.shelf.certs(wanted, now) {
                Ok(certs) => {
                    let held = self.shelf.held(wanted).into();
                    let fresh = Fresh { number: *number, certs: Arc::new(certs), held };
                    // The owner ends after this thread.
                    let _ = self.to_owner.send(fresh);
                }
                Err(why) => {
                    let (file, cause) = (Default::default(), Arc::from(why));
                    self.reporter.event(Event::CertificateRefused { file, cause });
                }
            }
        }
        self.watch();
        if seen.doubtful {
            self.look_at = Instant::now() + AGAIN_AFTER;
        }
    }

    /// Watches the folders of all files. Those that were replaced are watched anew.
    fn watch(&mut self) {
        let (Some(notices), Some((_, wanted))) = (&self.notices, &self.in_force) else { return };
        let folders = self.shelf.folders_of(wanted);
        if let Err(error) = notices.watch(folders.iter().map(|folder| folder.as_path()))
            && self.may_watch
        {
            self.may_watch = false;
            let cause = Arc::from(error.to_string());
            self.reporter.event(Event::CertificatesUnwatched { cause });
        }
    }
}
