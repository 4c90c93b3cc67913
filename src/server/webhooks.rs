//! Webhooks: events that are sent to where somebody wants them, by POST.
//!
//! Each webhook has a queue and, from its first event on, a thread: one that is slow or dead holds
//! up neither the others nor anything that serves. Its events are sent one after the other, in
//! their order. What is not taken is sent again with growing pauses, so many times, and then given
//! up; what finds the queue full is given up at once. Both are counted and said, in an event that
//! no webhook is told of. The id of an event lets a receiver know one that it gets twice.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use rustls::crypto::aws_lc_rs;
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::base::rng::Rng;
use crate::observe::{event::Event, reports::Reporter};
use crate::plan::Webhook;

/// Events that wait for a receiver: hours of a bad day.
const WAITING_MAX: usize = 256;

/// The first pause before an event is sent again; each is twice as long, up to the last.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long the last events may take when the process ends.
const LAST: Duration = Duration::from_secs(1);

/// An event on its way: its word, its id, and the object.
#[derive(Clone)]
struct Letter {
    word: &'static str,
    id: Arc<str>,
    body: Arc<str>,
}

/// All webhooks of the plan in force.
pub(super) struct Webhooks {
    reporter: Reporter,
    instance: String,
    targets: Vec<Target>,
}

struct Target {
    webhook: Webhook,
    /// None = nothing was sent yet.
    sender: Option<Queue>,
    /// Events that were given up, as the queue was full.
    lost: u64,
}

/// The queue of a thread, which ends soon after this is dropped.
struct Queue {
    to: Sender<Letter>,
    /// Nothing is sent; it closes.
    _ending: Sender<()>,
    ended: Receiver<()>,
}

impl Webhooks {
    pub(super) fn new(reporter: Reporter) -> Webhooks {
        Webhooks { reporter, instance: String::new(), targets: Vec::new() }
    }

    /// These from now on. One that stays the same keeps its queue.
    pub(super) fn replan(&mut self, instance: &str, webhooks: &[Webhook]) {
        instance.clone_into(&mut self.instance);
        let mut before = std::mem::take(&mut self.targets);
        for webhook in webhooks {
            let same = before.iter().position(|target| target.webhook == *webhook);
            self.targets.push(match same {
                Some(place) => before.swap_remove(place),
                None => Target { webhook: webhook.clone(), sender: None, lost: 0 },
            });
        }
    }

    /// Sends an event to those that want it; `line` is its object.
    pub(super) fn tell(&mut self, word: &'static str, id: &str, line: &str) {
        if is_own(word) || !self.targets.iter().any(|target| target.webhook.wants(word)) {
            return;
        }
        let instance = serde_json::Value::from(&*self.instance);
        let fields = line.strip_prefix('{').unwrap_or(line);
        let body = format!("{{\"instance\":{instance},{fields}").into();
        let letter = Letter { word, id: id.into(), body };
        let wants = |target: &&mut Target| target.webhook.wants(word);
        for target in self.targets.iter_mut().filter(wants) {
            target.send(&letter, &self.reporter);
        }
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        let until = Instant::now() + LAST;
        let queues = self.targets.drain(..).filter_map(|target| target.sender);
        // All begin to end before any is waited for.
        let ended: Vec<_> = queues.map(|queue| queue.ended.clone()).collect();
        for ended in ended {
            let _ = ended.recv_deadline(until);
        }
    }
}

/// Whether an event is about webhooks: to tell one of these would have no end.
fn is_own(word: &str) -> bool {
    matches!(word, "webhook_failing" | "webhook_delivers")
}

impl Target {
    fn send(&mut self, letter: &Letter, reporter: &Reporter) {
        if self.sender.is_none() {
            // Where the kernel gives no thread there is nothing to be done but to try again.
            self.sender = Queue::start(&self.webhook, reporter).ok();
        }
        let Some(queue) = &self.sender else { return };
        match queue.to.try_send(letter.clone()) {
            Ok(()) => self.lost = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost += 1;
                if self.lost == 1 {
                    let cause = format!("{WAITING_MAX} events wait already");
                    failing(reporter, &self.webhook, cause);
                }
            }
        }
    }
}

fn failing(reporter: &Reporter, webhook: &Webhook, cause: String) {
    let (address, cause) = (webhook.shown().into(), cause.into());
    reporter.event(Event::WebhookFailing { address, cause });
}

impl Queue {
    fn start(webhook: &Webhook, reporter: &Reporter) -> io::Result<Queue> {
        let (to, letters) = bounded(WAITING_MAX);
        let (ending, is_ending) = bounded(0);
        let (over, ended) = bounded::<()>(0);
        let mut courier = Courier {
            agent: agent(webhook),
            webhook: webhook.clone(),
            reporter: reporter.clone(),
            is_ending,
            until: None,
            is_failing: false,
            lost: 0,
            chance: Rng::seeded(u64::from(std::process::id())),
        };
        thread::Builder::new().name("ringway-webhook".into()).spawn(move || {
            while let Ok(letter) = letters.recv() {
                courier.deliver(&letter);
            }
            drop(over);
        })?;
        Ok(Queue { to, _ending: ending, ended })
    }
}

/// What the thread of a webhook has.
struct Courier {
    webhook: Webhook,
    agent: Agent,
    reporter: Reporter,
    /// Closes when the webhook is no longer wanted, or the process ends.
    is_ending: Receiver<()>,
    /// Until when the last events are sent.
    until: Option<Instant>,
    is_failing: bool,
    /// How many events were given up since it fails.
    lost: u64,
    chance: Rng,
}

/// Why an event was not taken.
enum NotTaken {
    /// It may be, the next time.
    ForNow(String),
    /// It never will be.
    ForGood(String),
}

impl Courier {
    fn deliver(&mut self, letter: &Letter) {
        let mut pause = PAUSE;
        for attempt in 0..=self.webhook.retries {
            let Some(time) = self.time_left() else { return };
            let cause = match self.post(letter, time) {
                Ok(()) => return self.delivered(),
                Err(NotTaken::ForNow(cause)) if attempt < self.webhook.retries => cause,
                Err(NotTaken::ForNow(cause) | NotTaken::ForGood(cause)) => {
                    self.lost += 1;
                    return self.failed(cause);
                }
            };
            // Said as soon as it fails, not when it is given up.
            self.failed(cause);
            let jitter = u64::from(self.chance.below(250));
            if self.is_ending.recv_timeout(pause + Duration::from_millis(jitter))
                != Err(RecvTimeoutError::Timeout)
            {
                // Once more, if there is time.
                pause = Duration::ZERO;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// How long an attempt may take; none = it is over.
    fn time_left(&mut self) -> Option<Duration> {
        let is_ending = self.is_ending.try_recv() != Err(crossbeam_channel::TryRecvError::Empty);
        if is_ending && self.until.is_none() {
            self.until = Some(Instant::now() + LAST);
        }
        let Some(until) = self.until else { return Some(self.webhook.timeout) };
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(self.webhook.timeout))
    }

    fn post(&self, letter: &Letter, time: Duration) -> Result<(), NotTaken> {
        let request = self.agent.post(&self.webhook.url);
        let request = request.config().timeout_global(Some(time)).build();
        let request = request
            .header("content-type", "application/json")
            .header("x-ringway-event", letter.word)
            .header("x-ringway-event-id", &*letter.id);
        let status = match request.send(&*letter.body) {
            Ok(answer) => answer.status().as_u16(),
            Err(error) => return Err(NotTaken::ForNow(error.to_string())),
        };
        match status {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(NotTaken::ForNow(format!("answered {status}"))),
            _ => Err(NotTaken::ForGood(format!("answered {status}"))),
        }
    }

    fn failed(&mut self, cause: String) {
        if !std::mem::replace(&mut self.is_failing, true) {
            failing(&self.reporter, &self.webhook, cause);
        }
    }

    fn delivered(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            let (address, lost) = (self.webhook.shown().into(), std::mem::take(&mut self.lost));
            self.reporter.event(Event::WebhookDelivers { address, lost });
        }
    }
}

/// A client of HTTP: redirects are not followed, and no proxy of the environment is asked.
fn agent(webhook: &Webhook) -> Agent {
    let roots: Vec<Certificate<'static>> = if webhook.url.starts_with("https:") {
        let found = rustls_native_certs::load_native_certs().certs;
        found.iter().map(|root| Certificate::from_der(root).to_owned()).collect()
    } else {
        Vec::new()
    };
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .build();
    let config = Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    config.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::EVENT_WORDS;

    /// The table of `event.rs`, without what is for the log alone.
    #[test]
    fn a_webhook_may_ask_for_every_event_that_is_told() {
        let source = include_str!("../observe/event.rs");
        let rows = source.lines().filter(|line| line.trim_start().starts_with("Event::"));
        let words = rows.filter_map(|row| row.split_once("=> (\"")?.1.split('"').next());
        let mut words: Vec<&str> = words
            .filter(|word| !is_own(word) && !matches!(*word, "request_noted" | "attempt_failed"))
            .chain(["started"])
            .collect();
        words.sort_unstable();
        words.dedup();
        let mut known = EVENT_WORDS.to_vec();
        known.sort_unstable();
        assert_eq!(known, words);
    }
}
