//! Many agents in one process, and consoles that watch them: they speak the real protocol over the
//! real link, run nothing, and send a sample a second, each at a moment of its own.
//!
//! One agent is the marker: its samples carry a number that rises, and when each was sent is kept,
//! so that a console can tell how old what it shows is. Agents that lose the scheduler come back
//! as real ones do, by the same waits.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use gantry_link::{Backoff, Caller, Credentials, Identity, LinkError, Session, connect};
use gantry_model::{At, NodeFacts};
use gantry_telemetry::Encoder;
use gantry_wire::{AgentMessage, Peer, Request, SchedulerMessage, Scope, Step, Update};
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use crate::samples;

/// The agent's own: the longest wait between two attempts, and how long a good session lasts.
const WAIT_MAX: Duration = Duration::from_secs(5);
const LASTING: Duration = Duration::from_secs(2);
const SAMPLE_EACH: Duration = Duration::from_secs(1);
/// The marker has another rhythm than whatever makes pictures, so that every distance occurs.
const MARK_EACH: Duration = Duration::from_millis(730);
/// Threads for the agents, as they are many machines and the scheduler is one.
const THREADS: usize = 2;
/// Agents that share a socket: one for each would take 30 GB of buffers.
const TOGETHER: usize = 50;
/// Agents that connect at the same time for the first time.
const RAMP: usize = 64;

/// An agent to be.
pub(crate) struct Member {
    pub(crate) identity: Identity,
    pub(crate) facts: NodeFacts,
}

/// What the threads share.
struct Shared {
    address: SocketAddr,
    /// Since when each agent has its session; nothing while it has none.
    since: Mutex<Vec<Option<Instant>>>,
    /// When each of the marker's numbers was sent.
    marks: Mutex<Vec<Instant>>,
    /// Milliseconds from a sample to a console that shows it.
    ages: Mutex<Vec<f64>>,
    measures: AtomicBool,
    pictures: AtomicU64,
    /// Nodes that are up, by the newest picture.
    up: AtomicU64,
    failures: AtomicU64,
    ramp: Semaphore,
}

/// The agents and the consoles; they end with this value.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// A fleet of nobody.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            address,
            since: Mutex::default(),
            marks: Mutex::default(),
            ages: Mutex::default(),
            measures: AtomicBool::new(false),
            pictures: AtomicU64::new(0),
            up: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ramp: Semaphore::new(RAMP),
        });
        Self { shared, stop: watch::channel(false).0, threads: Vec::new() }
    }

    /// Adds consoles that watch the overview, on a thread of their own.
    pub(crate) fn watch(&mut self, count: u32, identity: &Identity) -> Result<()> {
        let watchers: Vec<_> = (0..count).map(|_| identity.clone()).collect();
        let shared = self.shared.clone();
        self.thread(watchers, move |identity| console(shared.clone(), identity))
    }

    /// Adds agents; the first of them is the marker.
    pub(crate) fn join(&mut self, members: Vec<Member>) -> Result<()> {
        lock(&self.shared.since).resize(members.len(), None);
        let mut parts: Vec<Vec<Group>> = (0..THREADS).map(|_| Vec::new()).collect();
        let mut members = members.into_iter().enumerate();
        for part in (0..THREADS).cycle() {
            let group: Group = members.by_ref().take(TOGETHER).collect();
            if group.is_empty() {
                break;
            }
            parts[part].push(group);
        }
        for part in parts {
            let shared = self.shared.clone();
            self.thread(part, move |group| call_together(shared.clone(), group))?;
        }
        Ok(())
    }

    fn thread<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(
        &mut self,
        of: Vec<T>,
        run: impl Fn(T) -> F + Send + 'static,
    ) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut stopped = self.stop.subscribe();
        self.threads.push(std::thread::spawn(move || {
            runtime.block_on(async {
                for one in of {
                    tokio::spawn(run(one));
                }
                // An error means that the fleet is gone, which is the same.
                let _ = stopped.changed().await;
            });
        }));
        Ok(())
    }

    /// Since when each agent has its session; nothing where some have none that began after a
    /// moment.
    pub(crate) fn all_since(&self, start: Instant) -> Option<Vec<Instant>> {
        let since = lock(&self.shared.since);
        since.iter().map(|since| since.filter(|since| *since > start)).collect()
    }

    /// How many agents have no session, or one that is newer than a moment.
    pub(crate) fn newer_than(&self, moment: Instant) -> usize {
        let since = lock(&self.shared.since);
        since.iter().filter(|since| since.is_none_or(|since| since > moment)).count()
    }

    /// Nodes that are up, as consoles show it.
    pub(crate) fn up(&self) -> u64 {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// Attempts to connect that failed so far.
    pub(crate) fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Begins to look at the age of what consoles show.
    pub(crate) fn begin(&self) {
        lock(&self.shared.ages).clear();
        self.shared.pictures.store(0, Ordering::Relaxed);
        self.shared.measures.store(true, Ordering::Relaxed);
    }

    /// Ends that: the ages in milliseconds, and how many pictures all consoles got.
    pub(crate) fn end(&self) -> (Vec<f64>, u64) {
        self.shared.measures.store(false, Ordering::Relaxed);
        let ages = std::mem::take(&mut *lock(&self.shared.ages));
        (ages, self.shared.pictures.load(Ordering::Relaxed))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // An error means that no thread was started.
        let _ = self.stop.send(true);
        for thread in self.threads.drain(..) {
            // A panic has been told on standard error.
            let _ = thread.join();
        }
    }
}

/// Agents that share a socket, with their numbers.
type Group = Vec<(usize, Member)>;

/// Lets agents call from one socket.
#[expect(clippy::unused_async, reason = "it spawns, and so must run on the runtime")]
async fn call_together(shared: Arc<Shared>, group: Group) {
    match Caller::new(shared.address) {
        Ok(caller) => {
            let caller = Arc::new(caller);
            for (number, member) in group {
                tokio::spawn(agent(shared.clone(), caller.clone(), number, member));
            }
        }
        Err(_) => {
            // They are missed by whoever waits for all.
            shared.failures.fetch_add(group.len() as u64, Ordering::Relaxed);
        }
    }
}

/// One agent: it connects again and again.
async fn agent(shared: Arc<Shared>, caller: Arc<Caller>, number: usize, member: Member) {
    let mut backoff = Backoff::new(WAIT_MAX);
    let Ok(credentials) = Credentials::new(&member.identity) else {
        // It is missed by whoever waits for all.
        shared.failures.fetch_add(1, Ordering::Relaxed);
        return;
    };
    // Closed only with the fleet. It is given back after the first welcome.
    let mut ramp = shared.ramp.acquire().await.ok();
    loop {
        match caller.connect(&credentials, Peer::Agent).await {
            Ok(session) => {
                let begun = Instant::now();
                let facts = member.facts.clone();
                // Its error is that the scheduler is gone.
                let _ = serve(&shared, number, facts, session, &mut || drop(ramp.take())).await;
                lock(&shared.since)[number] = None;
                if begun.elapsed() >= LASTING {
                    backoff.reset();
                }
            }
            Err(_) => {
                shared.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(backoff.next_wait()).await;
    }
}

async fn serve(
    shared: &Shared,
    number: usize,
    facts: NodeFacts,
    session: Session,
    welcomed: &mut impl FnMut(),
) -> Result<(), LinkError> {
    let (mut sender, mut receiver) = (session.sender, session.receiver);
    sender.send(&AgentMessage::Up { facts: Box::new(facts), holds: Vec::new() }).await?;
    lock(&shared.since)[number] = Some(Instant::now());
    welcomed();
    let mut encoder = Encoder::default();
    let each = if number == 0 { MARK_EACH } else { SAMPLE_EACH };
    let mut clock = interval_at(tokio::time::Instant::now() + phase(number), each);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {
                let at = now();
                let mut sample = samples::sample(number as u64, at.0 / 1000, at);
                if number == 0 {
                    let mut marks = lock(&shared.marks);
                    sample.swap_used_mib = marks.len() as u64;
                    marks.push(Instant::now());
                }
                // None of them is beyond the limits.
                let Some(reading) = encoder.encode(&sample) else { continue };
                let message = AgentMessage::Reading(Box::new(reading));
                if !session.connection.send_datagram(&message) {
                    sender.send(&message).await?;
                }
            }
            message = receiver.receive() => match message? {
                Some(SchedulerMessage::Answer(answer)) => encoder.answer(answer),
                Some(SchedulerMessage::Order(_)) => {}
                None => return Ok(()),
            },
        }
    }
}

/// When in a second an agent sends its sample.
fn phase(number: usize) -> Duration {
    Duration::from_millis(((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000)
}

fn now() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}

/// One console: it watches the overview, and connects again where it must.
async fn console(shared: Arc<Shared>, identity: Identity) {
    loop {
        // Its error is that the scheduler is gone.
        let _ = look(&shared, &identity).await;
        sleep(SAMPLE_EACH).await;
    }
}

async fn look(shared: &Shared, identity: &Identity) -> Result<()> {
    let session = connect(shared.address, identity, Peer::Console).await?;
    let (mut sender, mut receiver) = session.connection.open().await?;
    sender.send(&Request::Watch { scope: Scope::Overview }).await?;
    let (mut update, mut shown) = (Update::default(), None);
    loop {
        update.take(receiver.expect::<Step>().await?)?;
        let came = Instant::now();
        shared.pictures.fetch_add(1, Ordering::Relaxed);
        shared.up.store(update.summary.nodes_up.into(), Ordering::Relaxed);
        let marker = update.nodes.first().and_then(|node| node.sample.as_ref());
        let Some(mark) = marker.map(|sample| sample.swap_used_mib as usize) else { continue };
        let before = shown.replace(mark);
        if shared.measures.load(Ordering::Relaxed) {
            // What the first picture shows may have been there for long.
            let fresh = before.map_or(0..0, |before| before + 1..mark + 1);
            let marks = lock(&shared.marks);
            let sent = marks.get(fresh).context("a number that was never sent")?;
            let ages = sent.iter().map(|sent| came.duration_since(*sent).as_secs_f64() * 1000.0);
            lock(&shared.ages).extend(ages);
        }
    }
}
