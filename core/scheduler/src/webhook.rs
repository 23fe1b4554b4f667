//! The webhook: lines of the event log that matter, sent to an address of the administrator's.
//!
//! Each is one POST of a JSON value with `cluster`, `at_ms`, `level`, `subject` and `sentence`, in
//! the order in which they happened. Whoever adds a line waits for nothing: it goes into a bounded
//! queue, from which a thread of its own takes it. What the address does not take is tried again,
//! ever more slowly, until the line is ten minutes old; then it is given up. What was given up, or
//! gave way in a full queue, is counted, and the next value that is taken says so (`dropped`).
//! A line may arrive twice where the answer to it was lost. Nothing outlives the process.
//!
//! The address may hold a secret: it is never logged.

mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_model::{Level, Note};
use serde::Serialize;

use crate::outgoing::{Client, Counts};
use queue::{Queue, Waiting};

/// How long one try may take in all.
const TRY_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries at first, and at most.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_mins(1);
/// A line that is older is given up.
const GIVE_UP_AFTER: Duration = Duration::from_mins(10);

/// Where lines are sent, and which.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) url: String,
    /// Lines that matter less are not sent.
    pub(crate) least: Level,
}

/// How often a line is tried, and for how long. Tests are in a hurry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    within: Duration,
    first: Duration,
    most: Duration,
    give_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { within: TRY_WITHIN, first: AGAIN_FIRST, most: AGAIN_MAX, give_up: GIVE_UP_AFTER }
    }
}

/// The webhook. Its thread ends when it is dropped, and with it what waits.
pub(crate) struct Webhook {
    queue: Arc<Queue>,
    sent: Arc<AtomicU64>,
}

impl Webhook {
    /// Starts the thread that sends.
    pub(crate) fn start(cluster: String, target: Option<Target>) -> std::io::Result<Self> {
        Self::start_with(cluster, target, Pace::default())
    }

    fn start_with(cluster: String, target: Option<Target>, pace: Pace) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(target));
        let sent = Arc::new(AtomicU64::new(0));
        let sender = Sender { cluster, pace, queue: queue.clone(), sent: sent.clone() };
        std::thread::Builder::new().name("webhook".into()).spawn(move || sender.run())?;
        Ok(Self { queue, sent })
    }

    /// Lines go there from now on; what waits for another address goes there too.
    pub(crate) fn set(&self, target: Option<Target>) {
        self.queue.set(target);
    }

    /// What became of lines so far.
    pub(crate) fn counts(&self) -> Counts {
        let (waiting, dropped) = self.queue.counts();
        Counts { sent: self.sent.load(Ordering::Relaxed), dropped, waiting }
    }

    /// Where lines are handed in.
    pub(crate) fn outbox(&self) -> Outbox {
        Outbox(self.queue.clone())
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Where lines are handed in.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Queue>);

impl Outbox {
    /// Hands a line in, where it matters enough. Never waits.
    pub(crate) fn offer(&self, note: &Note) {
        self.0.offer(note);
    }
}

/// What is sent.
#[derive(Serialize)]
struct Value<'a> {
    cluster: &'a str,
    at_ms: u64,
    level: Level,
    subject: String,
    sentence: &'a str,
    /// Lines before this one that were not taken.
    #[serde(skip_serializing_if = "is_zero")]
    dropped: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The thread's value.
struct Sender {
    cluster: String,
    pace: Pace,
    queue: Arc<Queue>,
    sent: Arc<AtomicU64>,
}

impl Sender {
    fn run(self) {
        let client = Client::new(self.pace.within);
        let mut trouble = false;
        while let Some(waiting) = self.queue.next() {
            match self.deliver(&client, &waiting) {
                Ok(()) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    if std::mem::take(&mut trouble) {
                        tracing::info!("the webhook takes lines again");
                    }
                }
                // Nobody wants it sent any more.
                Err(_) if self.queue.way().is_none() => {}
                Err(why) => {
                    self.queue.lost(&waiting);
                    // One line for one outage, however many lines it costs.
                    if !std::mem::replace(&mut trouble, true) {
                        tracing::warn!(
                            "the webhook did not take a line of the event log: {why}; see that its address answers a POST with 200"
                        );
                    }
                }
            }
        }
    }

    /// Sends a line until it is taken, too old, or nobody wants it sent any more.
    fn deliver(&self, client: &Client, waiting: &Waiting) -> Result<(), String> {
        let mut again = self.pace.first;
        let mut why = "it waited too long behind others".to_owned();
        loop {
            let age = waiting.since.elapsed();
            let Some(way) = self.queue.way().filter(|_| age < self.pace.give_up) else {
                return Err(why);
            };
            why = match self.post(client, &way.url, waiting) {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            let left = self.pace.give_up.saturating_sub(waiting.since.elapsed());
            self.queue.sleep(again.min(left), way.number);
            again = (again * 2).min(self.pace.most);
        }
    }

    /// One try.
    fn post(&self, client: &Client, url: &str, waiting: &Waiting) -> Result<(), String> {
        let note = &waiting.note;
        let value = Value {
            cluster: &self.cluster,
            at_ms: note.at.0,
            level: note.level,
            subject: note.subject.to_string(),
            sentence: &note.sentence,
            dropped: waiting.dropped,
        };
        let body = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
        let answer = client.post(url, "application/json", &body)?;
        if answer.is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status)) }
    }
}

#[cfg(test)]
mod tests;
