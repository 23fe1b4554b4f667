//! The thread that ships spans, and the bounded queue before it.
//!
//! Spans go in batches, each one POST. What a collector does not take for a reason of the moment (no
//! answer; 429, 502, 503 or 504, as OTLP has it) is tried again, ever more slowly or when the collector
//! asks for it; then the batch is given up, as one that is refused is at once. Meanwhile the queue
//! fills, and what comes to a full one is given up too. At the end of the scheduler each batch that is
//! left is tried once.
//!
//! The address may hold a secret: it is never logged.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::otlp;
use super::spans::Span;
use super::watch::Watch;
use crate::error::SchedulerError;
use crate::outgoing::{Client, Counts};

/// Spans that wait: 8 MB at most.
const WAITING_MAX: usize = 8192;
/// Spans of one request: a quarter of a megabyte.
const BATCH_MAX: usize = 512;
/// How long the end of a scheduler waits for what is left.
const LAST_WITHIN: Duration = Duration::from_secs(3);

/// How often a batch is sent and tried. Tests are in a hurry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long a batch waits for further spans.
    pub(super) linger: Duration,
    /// How long one try may take in all.
    pub(super) within: Duration,
    /// Between two tries at first, and at most.
    pub(super) first: Duration,
    pub(super) most: Duration,
    /// A batch that is not taken within so long is given up.
    pub(super) give_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(1),
            within: Duration::from_secs(5),
            first: Duration::from_secs(1),
            most: Duration::from_secs(30),
            give_up: Duration::from_mins(2),
        }
    }
}

/// What became of spans since the start.
#[derive(Debug, Default)]
struct Tally {
    offered: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// Where spans are handed in. The thread ends once the last of these is gone.
pub(super) struct Outbox {
    spans: SyncSender<Span>,
    tally: Arc<Tally>,
    /// Nothing is ever sent on it: that it is gone says that the end has come.
    _alive: mpsc::Sender<Infallible>,
}

impl Outbox {
    /// Hands a span in. Never waits.
    pub(super) fn offer(&self, span: Span) {
        self.tally.offered.fetch_add(1, Ordering::Relaxed);
        if self.spans.try_send(span).is_err() {
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the rest of the daemon knows of the thread.
pub(crate) struct Exporter {
    tally: Arc<Tally>,
    /// Closed once the thread has ended.
    ended: watch::Receiver<()>,
}

impl Exporter {
    /// What became of spans so far.
    pub(crate) fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        // What is offered is counted first and read last.
        let (sent, dropped) = (of(&self.tally.sent), of(&self.tally.dropped));
        let waiting = of(&self.tally.offered).saturating_sub(sent + dropped);
        Counts { sent, dropped, waiting }
    }

    /// Waits for what is left, but not for long, once the thread that hands spans in has ended.
    pub(crate) async fn finished(&self) {
        let mut ended = self.ended.clone();
        // What is still there then is given up with the process.
        let _ = tokio::time::timeout(LAST_WITHIN, ended.changed()).await;
    }
}

/// Starts the thread, where there is a collector.
///
/// # Errors
/// Where the system has no room for a thread.
pub(crate) fn start(
    folder: &Path,
    cluster: &str,
    endpoint: Option<&str>,
) -> Result<Option<(Watch, Exporter)>, SchedulerError> {
    let Some(endpoint) = endpoint else { return Ok(None) };
    let started = start_with(cluster, endpoint, Pace::default());
    let (outbox, exporter) =
        started.map_err(|error| SchedulerError::file("starting the traces of", folder, &error))?;
    Ok(Some((Watch::new(cluster.to_owned(), outbox), exporter)))
}

pub(super) fn start_with(
    cluster: &str,
    endpoint: &str,
    pace: Pace,
) -> std::io::Result<(Outbox, Exporter)> {
    let (outgoing, spans) = mpsc::sync_channel(WAITING_MAX);
    let (alive, lives) = mpsc::channel();
    let (running, ended) = watch::channel(());
    let tally = Arc::new(Tally::default());
    let sender = Sender {
        url: endpoint.to_owned(),
        cluster: cluster.to_owned(),
        pace,
        spans,
        lives,
        tally: tally.clone(),
    };
    std::thread::Builder::new().name("traces".into()).spawn(move || {
        sender.run();
        drop(running);
    })?;
    let outbox = Outbox { spans: outgoing, tally: tally.clone(), _alive: alive };
    Ok((outbox, Exporter { tally, ended }))
}

/// A queue that nobody empties, for tests of what is handed in.
#[cfg(test)]
pub(super) fn queue() -> (Outbox, Receiver<Span>) {
    let (spans, waiting) = mpsc::sync_channel(WAITING_MAX);
    let outbox = Outbox { spans, tally: Arc::default(), _alive: mpsc::channel().0 };
    (outbox, waiting)
}

/// The thread's value.
struct Sender {
    url: String,
    cluster: String,
    pace: Pace,
    spans: Receiver<Span>,
    lives: Receiver<Infallible>,
    tally: Arc<Tally>,
}

impl Sender {
    fn run(self) {
        let client = Client::new(self.pace.within);
        let mut trouble = false;
        while let Some(batch) = self.next() {
            let count = batch.len() as u64;
            match self.deliver(&client, &otlp::request(&self.cluster, batch)) {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.tally.sent.fetch_add(count - rejected, Ordering::Relaxed);
                    self.tally.dropped.fetch_add(rejected, Ordering::Relaxed);
                    if std::mem::take(&mut trouble) {
                        tracing::info!("the collector takes traces again");
                    }
                }
                Err(why) => {
                    self.tally.dropped.fetch_add(count, Ordering::Relaxed);
                    // One line for one outage, however many spans it costs.
                    if !std::mem::replace(&mut trouble, true) {
                        tracing::warn!(
                            "the collector of traces_endpoint did not take spans: {why}; see that it takes OTLP over HTTP there, which is port 4318 and /v1/traces by default"
                        );
                    }
                }
            }
        }
    }

    /// Waits for the next batch; nothing once nobody hands in any more.
    fn next(&self) -> Option<Vec<Span>> {
        let mut batch = vec![self.spans.recv().ok()?];
        let until = Instant::now() + self.pace.linger;
        while batch.len() < BATCH_MAX {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(span) = self.spans.recv_timeout(left) else { break };
            batch.push(span);
        }
        Some(batch)
    }

    /// Sends a batch until it is taken, refused or too old. Gives how many spans were rejected.
    fn deliver(&self, client: &Client, request: &[u8]) -> Result<u64, String> {
        let (begun, mut again) = (Instant::now(), self.pace.first);
        loop {
            let (why, wanted) = match client.post(&self.url, otlp::FORM, request) {
                Ok(answer) if answer.is_success() => return Ok(otlp::rejected(&answer.body)),
                Ok(answer) => {
                    let why = format!("it answered {}", answer.status);
                    if !matches!(answer.status, 429 | 502..=504) {
                        return Err(why);
                    }
                    (why, answer.retry_after)
                }
                Err(why) => (why, None),
            };
            let pause = wanted.unwrap_or(again).min(self.pace.most);
            if begun.elapsed() + pause >= self.pace.give_up || self.sleeps_to_the_end(pause) {
                return Err(why);
            }
            again = (again * 2).min(self.pace.most);
        }
    }

    /// Sleeps, but not through the end; says whether that has come.
    fn sleeps_to_the_end(&self, time: Duration) -> bool {
        if self.lives.try_recv() == Err(TryRecvError::Disconnected) {
            return true;
        }
        self.lives.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }
}

#[cfg(test)]
mod tests;
