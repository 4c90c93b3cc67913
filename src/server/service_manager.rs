//! The service manager, as systemd speaks to it (sd_notify(3)): readiness, reloads, status,
//! watchdog.
//!
//! One thread sends every message, so that nothing else waits for a manager that does not read. The
//! watchdog is fed only while the control thread and every core answer. Without `NOTIFY_SOCKET`
//! there is no thread, and every call does nothing.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use sd_notify::NotifyState;

use super::{
    StartError,
    control::{Client, Look},
};
use crate::shared::counters::{Counter, Slab};

/// Messages that may wait: more than all threads ever send at a time.
const WAITING_MAX: usize = 64;

/// How long a sender waits for room: a manager that does not read holds nothing up.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// How often the status is sent if it has changed, and how often while the process stops.
const STATUS_EVERY: Duration = Duration::from_secs(10);
const STOPPING_EVERY: Duration = Duration::from_secs(1);

/// How many times the watchdog is fed in the time that it allows.
const FEEDS: u32 = 3;

/// What the manager is told.
enum News {
    Ready,
    Reloading,
    /// A reload has ended like this.
    Reloaded(String),
    /// Another process, of this id, is the main one from now on; the answer says that it was sent.
    HandsOver(u32, Sender<()>),
    /// The process stops; the answer says that it was sent.
    Stopping(Sender<()>),
}

/// A sender of news to the service manager, if there is one.
#[derive(Clone, Default)]
pub(super) struct ServiceManager {
    to: Option<Sender<News>>,
}

impl ServiceManager {
    /// Starts the thread if there is a manager to tell. The `counters` are those of all threads.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn find(
        client: Client,
        counters: Vec<Arc<Slab>>,
    ) -> Result<ServiceManager, StartError> {
        if std::env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
            return Ok(ServiceManager::default());
        }
        let (to, news) = bounded(WAITING_MAX);
        let mut told = Told { client, counters, stops: false, verdict: None, status: None };
        thread::Builder::new()
            .name("ringway-manager".into())
            .spawn(move || told.run(&news))
            .map_err(StartError::system("start the thread for the service manager"))?;
        Ok(ServiceManager { to: Some(to) })
    }

    /// The process serves.
    pub(super) fn ready(&self) {
        self.tell(News::Ready);
    }

    /// A reload begins.
    pub(super) fn reloading(&self) {
        self.tell(News::Reloading);
    }

    /// A reload has ended; the verdict is a sentence.
    pub(super) fn reloaded(&self, verdict: String) {
        self.tell(News::Reloaded(verdict));
    }

    /// The process stops; returns when that was sent.
    pub(super) fn stopping(&self) {
        let (sent, is_sent) = bounded(1);
        self.tell(News::Stopping(sent));
        // It fails at once if there is no manager.
        let _ = is_sent.recv_timeout(ROOM_WITHIN);
    }

    /// Another process is the main one of the service from now on; returns when that was sent. This
    /// one tells the manager nothing more, which would not listen.
    pub(super) fn hands_over(&self, pid: u32) {
        let (sent, is_sent) = bounded(1);
        self.tell(News::HandsOver(pid, sent));
        let _ = is_sent.recv_timeout(ROOM_WITHIN);
    }

    fn tell(&self, news: News) {
        if let Some(to) = &self.to {
            // The manager reads nothing: there is nobody to tell.
            let _ = to.send_timeout(news, ROOM_WITHIN);
        }
    }
}

/// What the thread knows.
struct Told {
    client: Client,
    counters: Vec<Arc<Slab>>,
    stops: bool,
    /// How the last reload ended.
    verdict: Option<String>,
    /// The status that the manager has.
    status: Option<String>,
}

impl Told {
    fn run(&mut self, news: &Receiver<News>) {
        let watchdog = sd_notify::watchdog_enabled();
        // Before it is ready there is nothing to say.
        let mut due = None;
        loop {
            let next = match due {
                None => news.recv().map_err(RecvTimeoutError::from),
                Some(due) => news.recv_deadline(due),
            };
            match next {
                Ok(News::Ready) => {
                    self.say(&[NotifyState::Ready]);
                    due = Some(Instant::now());
                }
                Ok(News::Reloading) => {
                    // The time tells systemd which of several reloads has ended.
                    let now = NotifyState::monotonic_usec_now();
                    let now = now.unwrap_or(NotifyState::MonotonicUsec(0));
                    self.say(&[NotifyState::Reloading, now]);
                }
                Ok(News::Reloaded(verdict)) => {
                    self.verdict = Some(verdict);
                    self.say(&[NotifyState::Ready]);
                }
                Ok(News::HandsOver(pid, sent)) => {
                    let _ = sd_notify::notify(&[NotifyState::MainPid(pid)]);
                    drop(sent);
                    return;
                }
                Ok(News::Stopping(sent)) => {
                    self.stops = true;
                    self.say(&[NotifyState::Stopping]);
                    drop(sent);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let look = self.look();
                    // The cores end one by one while the process stops, which has a time of its
                    // own.
                    let is_well = look.as_ref().is_some_and(|it| it.silent_cores.is_empty());
                    let feeds = watchdog.is_some() && (self.stops || is_well);
                    self.send(if feeds { &[NotifyState::Watchdog] } else { &[] }, look);
                    let every = if self.stops { STOPPING_EVERY } else { STATUS_EVERY };
                    let every = watchdog.map_or(every, |time| every.min(time / FEEDS));
                    due = Some(Instant::now() + every);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Sends these, and the status if it has changed.
    fn say(&mut self, states: &[NotifyState<'_>]) {
        let look = self.look();
        self.send(states, look);
    }

    /// The state of the process; none if it stops, or its control thread does not answer.
    fn look(&self) -> Option<Look> {
        if self.stops { None } else { self.client.look() }
    }

    fn send(&mut self, states: &[NotifyState<'_>], look: Option<Look>) {
        let status = self.status(look);
        let mut states = states.to_vec();
        if self.status.as_ref() != Some(&status) {
            states.push(NotifyState::Status(&status));
        }
        // A manager that has gone is told nothing.
        if !states.is_empty() && sd_notify::notify(&states).is_ok() {
            self.status = Some(status);
        }
    }

    /// What goes on, in one line.
    fn status(&self, look: Option<Look>) -> String {
        let total = |counter| -> u64 {
            self.counters.iter().fold(0, |sum, slab| sum.wrapping_add(slab.read(counter)))
        };
        let connections = counted(total(Counter::Connections), "connection");
        if self.stops {
            return format!("stopping: {connections} left");
        }
        let Some(Look { not_ready, backends: (up, all), generation, .. }) = look else {
            return "the control thread does not answer".to_owned();
        };
        let mut status = String::new();
        if let Some(why) = not_ready.first() {
            status.push_str(&format!("not ready: {why}; "));
        }
        let in_flight = counted(total(Counter::InFlight), "request");
        status.push_str(&format!(
            "plan {generation}, {up}/{all} backends up, {connections}, {in_flight} in flight"
        ));
        if let Some(verdict) = &self.verdict {
            status.push_str(&format!("; {verdict}"));
        }
        status
    }
}

fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
