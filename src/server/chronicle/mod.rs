//! The chronicle: what happened, and what traffic was like, for those who look later or go on
//! looking.
//!
//! A thread of its own, `ringway-history`, which only a process with an admin interface or a
//! webhook has. Once a second it takes a snapshot of the statistics, keeps a summary of what lies
//! between two of them, and makes a frame with all details while somebody looks; events it keeps,
//! sends on, appends to the timeline on disk, and gives to webhooks. *Invariants:* it asks the
//! control thread and no core; what it keeps is bounded; it waits for no reader, and one that is
//! too slow is let go.

mod availability;
mod frame;
mod history;
mod sparks;
mod timeline;
mod told;
mod trouble;

use std::{
    collections::{HashSet, VecDeque},
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, TrySendError, bounded, unbounded};
use serde_json::{Value, json};

use self::{
    frame::Span,
    sparks::Sparks,
    timeline::Timeline,
    told::{Teller, Told},
    trouble::Failing,
};
use super::{
    control::{Client, View},
    secrets::state_directories,
    state_file, views,
    webhooks::Webhooks,
};
use crate::admin::{self, Feed, HistoryQuery};
use crate::observe::{
    event::Event,
    events::{Events, Happened},
    reports::Reporter,
    statistics::Statistics,
};
use crate::plan::Global;

/// How often traffic is looked at, and how often for the longer history.
const SECOND: Duration = Duration::from_secs(1);
const HALF_MINUTE: u32 = 30;

/// Five minutes of seconds, and six hours of half minutes.
const SECONDS_KEPT: usize = 300;
const HALF_MINUTES_KEPT: usize = 720;

/// Events that are kept for readers that come back, and for the page.
const EVENTS_KEPT: usize = 1_000;
const EVENTS_SHOWN: usize = 200;

/// Requests that failed or were slow.
const REQUESTS_KEPT: usize = 50;

/// What may wait for a reader: everything that is kept, and more.
const WAITING_MAX: usize = 2 * EVENTS_KEPT;

/// What may wait for a reader of frames, and from how much on a further frame is left out: with a
/// thousand backends one is half a megabyte, which all readers share.
const STREAM_WAITING_MAX: usize = 64;
const FRAMES_WAITING_MAX: usize = 4;

/// The bytes of a frame that are written at once: a fifth of a millisecond's work.
const AT_ONCE: usize = 16 << 10;

/// How long traffic is looked at for somebody who has asked for a frame.
const WATCHED: Duration = Duration::from_secs(10);

/// How long an asker waits, and how long the end does.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
const END_WITHIN: Duration = Duration::from_secs(2);

/// What the thread is asked for.
enum Ask {
    /// Send this on from now on, after the event of this id.
    Follow(Feed, Option<String>, Sender<Arc<str>>),
    /// How busy each core was in the last second.
    Busy(Sender<Vec<Option<f64>>>),
    /// The last second.
    Frame(Sender<Option<Arc<str>>>),
    /// The events that are kept.
    Events(Sender<Vec<Arc<str>>>),
    End,
}

/// The thread, for its owner.
pub(super) struct Chronicle {
    reader: Reader,
    ended: Receiver<()>,
}

/// The thread, for those who ask it.
#[derive(Clone)]
pub(super) struct Reader {
    to: Sender<Ask>,
    client: Client,
    /// The file of the timeline; none if there is none.
    path: Option<PathBuf>,
}

/// What the processes that have read these files have left on disk; none if they have left nothing.
pub(crate) fn history_on_disk(
    global: &Global,
    files: &[PathBuf],
    query: &HistoryQuery,
) -> Option<Value> {
    let folders = state_file::directories(global, &state_directories());
    let paths = folders.iter().map(|folder| folder.join(name(files)));
    let events = paths.map(|path| timeline::read(&path)).find(|events| !events.is_empty())?;
    Some(history::of(&events, query, SystemTime::now()))
}

/// The name of the timeline of processes that read these files.
fn name(files: &[PathBuf]) -> String {
    format!("timeline-{}.jsonl", admin::hash_of(files))
}

/// What the thread needs.
pub(super) struct Sources {
    pub(super) client: Client,
    pub(super) events: Events,
    pub(super) reporter: Reporter,
    /// Whether traffic is looked at although nobody watches.
    pub(super) is_watchful: bool,
    /// Folders for the timeline, the best first; none = it is not kept on disk.
    pub(super) folders: Option<Vec<PathBuf>>,
    /// The files of the configuration.
    pub(super) files: Vec<PathBuf>,
}

impl Chronicle {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn start(sources: Sources) -> io::Result<Chronicle> {
        let Sources { client, events, reporter, is_watchful, folders, files } = sources;
        // Without a bound: there is a question for each connection that waits, and no more.
        let (to, asked) = unbounded();
        let timeline = folders.map(|folders| Timeline::open(&folders, &name(&files)));
        let timeline = match timeline {
            None => None,
            Some(Ok(timeline)) => Some(timeline),
            Some(Err(error)) => {
                let cause = error.to_string().into();
                reporter.event(Event::TimelineNotKept { cause });
                None
            }
        };
        let path = timeline.as_ref().map(|timeline| timeline.path().to_path_buf());
        let reader = Reader { to, client: client.clone(), path };
        let (ending, ended) = bounded::<()>(0);
        // Its beginning is on the disk before anybody can ask.
        let mut keeper = Keeper::new(client, reporter, timeline);
        keeper.is_watchful = is_watchful;
        thread::Builder::new().name("ringway-history".into()).spawn(move || {
            keeper.run(&events, &asked);
            drop(ending);
        })?;
        Ok(Chronicle { reader, ended })
    }

    /// The thread, for those who ask it.
    pub(super) fn reader(&self) -> Reader {
        self.reader.clone()
    }
}

impl Drop for Chronicle {
    fn drop(&mut self) {
        // It writes the last events first.
        let _ = self.reader.to.send(Ask::End);
        let _ = self.ended.recv_timeout(END_WITHIN);
    }
}

impl Reader {
    /// What is sent on from now on, after the event of this id.
    pub(super) fn follow(&self, feed: Feed, after: Option<String>) -> Receiver<Arc<str>> {
        let (to, from) = bounded(match feed {
            Feed::Events => WAITING_MAX,
            Feed::Stream => STREAM_WAITING_MAX,
        });
        // If the thread has ended, the stream ends at once.
        let _ = self.to.send(Ask::Follow(feed, after, to));
        from
    }

    /// How busy each core was in the last second.
    pub(super) fn busy(&self) -> Vec<Option<f64>> {
        self.ask(Ask::Busy).unwrap_or_default()
    }

    /// The last second; none if there was none yet.
    pub(super) fn frame(&self) -> Option<Arc<str>> {
        self.ask(Ask::Frame).flatten()
    }

    /// The timeline.
    pub(super) fn history(&self, query: &HistoryQuery) -> Value {
        let mut events = self.path.as_deref().map(timeline::read).unwrap_or_default();
        // What is not on the disk, as that is full or gone, is in memory.
        let kept = self.ask(Ask::Events).unwrap_or_default();
        let kept = kept.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let there: HashSet<_> =
            events.iter().map(|it| it["id"].as_str().unwrap_or("").to_owned()).collect();
        events.extend(kept.filter(|it| !there.contains(it["id"].as_str().unwrap_or(""))));
        history::of(&events, query, SystemTime::now())
    }

    fn ask<T>(&self, ask: impl FnOnce(Sender<T>) -> Ask) -> Option<T> {
        let (answer, answered) = bounded(1);
        self.to.send(ask(answer)).ok()?;
        answered.recv_timeout(ANSWERED_WITHIN).ok()
    }

    /// Adds to statistics what this thread measures.
    pub(super) fn measure(&self, statistics: &mut Statistics) {
        for (core, busy) in statistics.cores.iter_mut().zip(self.busy()) {
            core.busy = busy;
        }
    }

    /// A view with what this thread measures.
    pub(super) fn view(&self) -> Option<View> {
        let mut view = self.client.view()?;
        self.measure(&mut view.statistics);
        Some(view)
    }
}

/// What the thread keeps.
struct Keeper {
    client: Client,
    reporter: Reporter,
    teller: Teller,
    timeline: Option<Timeline>,
    webhooks: Webhooks,
    /// Whether traffic is looked at although nobody watches.
    is_watchful: bool,
    /// Until when it is, as somebody has asked for a frame.
    watched_until: Option<Instant>,
    /// Whether the last line was written.
    is_written: bool,
    events: VecDeque<Told>,
    requests: VecDeque<Arc<str>>,
    seconds: VecDeque<Arc<str>>,
    half_minutes: VecDeque<Arc<str>>,
    sparks: Sparks,
    failing: Failing,
    /// The last two snapshots, and when the last was taken.
    last: [Option<Statistics>; 2],
    measured: Option<Instant>,
    /// The one at the beginning of this half minute, and how many seconds it is ago.
    of_half_minute: (Option<Statistics>, u32),
    busy: Vec<Option<f64>>,
    events_to: Vec<Sender<Arc<str>>>,
    stream_to: Vec<Sender<Arc<str>>>,
}

impl Keeper {
    fn new(client: Client, reporter: Reporter, timeline: Option<Timeline>) -> Keeper {
        let now = SystemTime::now();
        let mut keeper = Keeper {
            client,
            webhooks: Webhooks::new(reporter.clone()),
            reporter,
            teller: Teller::new(now),
            timeline,
            is_watchful: false,
            watched_until: None,
            is_written: true,
            events: VecDeque::new(),
            requests: VecDeque::new(),
            seconds: VecDeque::new(),
            half_minutes: VecDeque::new(),
            sparks: Sparks::default(),
            failing: Failing::default(),
            last: [None, None],
            measured: None,
            of_half_minute: (None, 0),
            busy: Vec::new(),
            events_to: Vec::new(),
            stream_to: Vec::new(),
        };
        keeper.replan();
        let began = keeper.teller.began(now);
        keeper.keep(began);
        keeper
    }

    fn run(&mut self, events: &Events, asked: &Receiver<Ask>) {
        let happened = events.queue();
        let mut next = Instant::now();
        let mut is_over = false;
        while !is_over {
            let mut either = Select::new();
            either.recv(happened);
            either.recv(asked);
            let asked_lately = self.watched_until.is_some_and(|until| until > Instant::now());
            let looks = self.is_watchful || asked_lately || !self.stream_to.is_empty();
            let ready = match looks {
                true => either.ready_deadline(next).is_ok(),
                false => either.ready() < usize::MAX,
            };
            if !ready {
                self.look();
                // A machine that stood still is not made up for.
                next = (next + SECOND).max(Instant::now());
            }
            // The events first: what is asked afterwards knows of them.
            is_over |= self.hear(happened);
            while let Ok(ask) = asked.try_recv() {
                is_over |= self.answer(ask);
            }
        }
        // The hub has ended, or ends now.
        let until = Instant::now() + SECOND;
        while let Ok(last) = happened.recv_deadline(until) {
            self.take(&last);
        }
    }

    /// Takes what has happened; returns whether nothing more will.
    fn hear(&mut self, happened: &Receiver<Arc<Happened>>) -> bool {
        loop {
            match happened.try_recv() {
                Ok(one) => self.take(&one),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn take(&mut self, happened: &Happened) {
        match happened.event {
            Event::RequestNoted(_) => self.note(&Teller::note(happened)),
            // Single attempts are for the log alone.
            Event::AttemptFailed(_) => {}
            _ => {
                let told = self.teller.tell(happened);
                self.keep(told);
                if matches!(happened.event, Event::Reloaded { .. }) {
                    self.replan();
                }
            }
        }
    }

    /// The webhooks of the plan in force.
    fn replan(&mut self) {
        if let Some((_, layers)) = self.client.layers() {
            let global = &layers.base.global;
            self.webhooks.replan(&global.instance, &global.webhooks);
        }
    }

    fn note(&mut self, line: &Arc<str>) {
        if !self.stream_to.is_empty() {
            send(&mut self.stream_to, &format!("event: request\ndata: {line}\n\n").into());
        }
        if self.requests.len() == REQUESTS_KEPT {
            self.requests.pop_front();
        }
        self.requests.push_back(Arc::clone(line));
    }

    fn keep(&mut self, told: Told) {
        send(&mut self.events_to, &told.sent);
        if !self.stream_to.is_empty() {
            let line = &told.line;
            send(&mut self.stream_to, &format!("event: happened\ndata: {line}\n\n").into());
        }
        self.write(&told.line);
        self.webhooks.tell(told.word, &told.id, &told.line);
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(told);
    }

    fn write(&mut self, line: &str) {
        let Some(timeline) = &mut self.timeline else { return };
        let written = timeline.append(line);
        if let (Err(error), true) = (&written, self.is_written) {
            let path = timeline.path().display();
            let cause = format!("{path}: {error}").into();
            self.reporter.event(Event::TimelineNotKept { cause });
        }
        self.is_written = written.is_ok();
    }

    /// Answers; returns whether it was told to end.
    fn answer(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Follow(Feed::Events, after, to) => self.follow_events(after.as_deref(), to),
            Ask::Follow(Feed::Stream, _, to) => self.follow_stream(to),
            Ask::Busy(answer) => drop(answer.try_send(self.busy.clone())),
            Ask::Frame(answer) => {
                self.watched_until = Some(Instant::now() + WATCHED);
                drop(answer.try_send(self.frame()));
            }
            Ask::Events(answer) => {
                let lines = self.events.iter().map(|told| Arc::clone(&told.line));
                let _ = answer.try_send(lines.collect());
            }
            Ask::End => return true,
        }
        false
    }

    /// All events that a reader has missed; one of another process has missed all.
    fn follow_events(&mut self, after: Option<&str>, to: Sender<Arc<str>>) {
        if let Some(id) = after {
            let last = self.teller.number_of(id);
            let first = self.events.iter().map(|told| told.number).find(|number| *number > 0);
            if let (Some(last), Some(first)) = (last, first)
                && last + 1 < first
            {
                let missed = first - last - 1;
                let gap = format!("event: gap\ndata: {{\"missed\":{missed}}}\n\n");
                let _ = to.try_send(gap.into());
            }
            let is_missed = |told: &&Told| last.is_none_or(|last| told.number > last);
            for told in self.events.iter().filter(is_missed) {
                let _ = to.try_send(Arc::clone(&told.sent));
            }
        }
        self.events_to.push(to);
    }

    fn follow_stream(&mut self, to: Sender<Arc<str>>) {
        let list = |lines: &mut dyn Iterator<Item = &Arc<str>>| {
            let lines: Vec<&str> = lines.map(|line| &**line).collect();
            format!("[{}]", lines.join(","))
        };
        let skipped = self.events.len().saturating_sub(EVENTS_SHOWN);
        let history = format!(
            "event: history\ndata: {{\"seconds\":{},\"halfMinutes\":{},\"events\":{},\
             \"requests\":{},\"sparks\":{}}}\n\n",
            list(&mut self.seconds.iter()),
            list(&mut self.half_minutes.iter()),
            list(&mut self.events.iter().skip(skipped).map(|told| &told.line)),
            list(&mut self.requests.iter()),
            self.sparks.json(),
        );
        let _ = to.try_send(history.into());
        if let Some(frame) = self.frame() {
            let _ = to.try_send(as_message(&frame));
        }
        self.stream_to.push(to);
    }

    /// Looks at a second of traffic.
    fn look(&mut self) {
        let Some(now) = self.client.counted() else { return };
        self.measure(&now);
        let [_, before] = std::mem::take(&mut self.last);
        if let Some(before) = &before {
            let span = Span::between(before, &now);
            let summary = span.summary();
            self.failing.push(&summary, SystemTime::now());
            push(&mut self.seconds, SECONDS_KEPT, &summary);
            self.sparks.push(&span);
        }
        let (began, seconds) = &mut self.of_half_minute;
        *seconds += 1;
        if *seconds >= HALF_MINUTE || began.is_none() {
            if let Some(began) = began {
                let summary = Span::between(began, &now).summary();
                push(&mut self.half_minutes, HALF_MINUTES_KEPT, &summary);
                let line = format!("event: halfMinute\ndata: {summary}\n\n");
                send(&mut self.stream_to, &line.into());
            }
            self.of_half_minute = (Some(now.clone()), 0);
        }
        self.last = [before, Some(now)];
        if !self.stream_to.is_empty()
            && let Some(frame) = self.frame()
        {
            send_frame(&mut self.stream_to, &as_message(&frame));
        }
    }

    /// How busy each core has been since the last time.
    fn measure(&mut self, now: &Statistics) {
        let at = Instant::now();
        let passed = self.measured.replace(at).map(|before| at - before);
        let before = self.last[1].as_ref().map(|before| &before.cores);
        let share = |(index, core): (usize, &crate::observe::statistics::Core)| {
            let (cpu, before) = (core.cpu?, before?.get(index)?.cpu?);
            let passed = passed.filter(|passed| !passed.is_zero())?;
            let share = cpu.saturating_sub(before).as_secs_f64() / passed.as_secs_f64();
            Some(share.min(1.0))
        };
        self.busy = now.cores.iter().enumerate().map(share).collect();
    }

    /// Everything about the last second.
    fn frame(&self) -> Option<Arc<str>> {
        let [Some(before), Some(now)] = &self.last else { return None };
        let mut view = self.client.view()?;
        for (core, busy) in view.statistics.cores.iter_mut().zip(&self.busy) {
            core.busy = *busy;
        }
        let span = Span::between(before, now);
        let rows = span.backends();
        let mut pools = views::pools(&view).pools;
        for pool in &mut pools {
            let name = pool["name"].as_str().unwrap_or_default().to_owned();
            let backends = pool["backends"].as_array_mut().into_iter().flatten();
            for (place, backend) in backends.enumerate() {
                views::make_way(place);
                let key = (name.as_str(), backend["name"].as_str().unwrap_or_default());
                let row = rows.get(&key).cloned().unwrap_or_default();
                backend["live"] = row;
            }
        }
        let certificates: Vec<Value> = views::certificates(&self.client);
        let mut frame = span.summary();
        frame["instance"] = view.plan.global.instance.clone().into();
        frame["version"] = env!("CARGO_PKG_VERSION").into();
        frame["generation"] = view.generation.into();
        frame["trouble"] = trouble::of(&pools, &certificates, (&view, &self.failing));
        frame["pools"] = pools.into();
        frame["routes"] = span.routes().into();
        frame["cores"] = span.cores(&self.busy).into();
        frame["flows"] = span.flows(&view.plan).into();
        frame["certificates"] = json!(certificates);
        let mut text = Polite::default();
        serde_json::to_writer(&mut text, &frame).ok()?;
        String::from_utf8(text.bytes).ok().map(Into::into)
    }
}

/// Bytes; whoever writes them lets others have the processor now and then.
#[derive(Default)]
struct Polite {
    bytes: Vec<u8>,
    /// As many were there the last time.
    at: usize,
}

impl io::Write for Polite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() - self.at > AT_ONCE {
            self.at = self.bytes.len();
            thread::yield_now();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn as_message(frame: &str) -> Arc<str> {
    format!("event: frame\ndata: {frame}\n\n").into()
}

fn push(kept: &mut VecDeque<Arc<str>>, max: usize, summary: &Value) {
    if kept.len() == max {
        kept.pop_front();
    }
    kept.push_back(summary.to_string().into());
}

/// Sends to all readers; one that is gone, or too slow, is let go: it comes back by itself, and
/// says which event it had last.
fn send(readers: &mut Vec<Sender<Arc<str>>>, what: &Arc<str>) {
    readers.retain(|to| match to.try_send(Arc::clone(what)) {
        Ok(()) => true,
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
    });
}

/// Sends a frame to all readers; one that is behind does without this one.
fn send_frame(readers: &mut Vec<Sender<Arc<str>>>, what: &Arc<str>) {
    readers.retain(|to| {
        let is_behind = to.len() >= FRAMES_WAITING_MAX;
        is_behind || to.try_send(Arc::clone(what)).is_ok()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_behind_misses_frames_and_no_event() {
        let (to, slow) = bounded(STREAM_WAITING_MAX);
        let (to_gone, gone) = bounded(STREAM_WAITING_MAX);
        let mut readers = vec![to, to_gone];
        drop(gone);
        for number in 0..20 {
            send_frame(&mut readers, &format!("frame {number}").into());
            assert_eq!(readers.len(), 1, "who is gone is let go");
        }
        send(&mut readers, &"event".into());
        let heard: Vec<Arc<str>> = slow.try_iter().collect();
        assert_eq!(
            heard.iter().map(|it| &**it).collect::<Vec<_>>(),
            ["frame 0", "frame 1", "frame 2", "frame 3", "event"]
        );
        send_frame(&mut readers, &"frame 20".into());
        assert_eq!(slow.try_recv().as_deref(), Ok("frame 20"));
        for _ in 0..=STREAM_WAITING_MAX {
            send(&mut readers, &"event".into());
        }
        assert!(readers.is_empty(), "one that hears nothing is let go");
    }
}
