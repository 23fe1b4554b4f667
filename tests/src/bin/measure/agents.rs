//! Ten thousand agents at a sample a second and a hundred consoles on one scheduler: what it takes
//! of a core and of memory, how old what a console shows is, and how long all need to come back
//! after the scheduler was killed.
//!
//! The agents are a generator in this process ([`fleet`](crate::fleet)): real sessions, each with a
//! certificate of its own, and samples of a node with 64 cores and 8 GPUs. It takes the other core of
//! a machine with two, so that a machine that is busy otherwise shows in the ages.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_link::{Authority, IdentityKind};
use gantry_tests::until;

use crate::Size;
use crate::bare;
use crate::fleet::{Fleet, Member};
use crate::report::{Goal, Row};
use crate::samples::{CORES, GPUS};
use crate::served::Served;
use crate::statistics::{median, memory, quantile};

const AGENTS: u32 = 10_000;
const CONSOLES: u32 = 100;
/// Seconds of a round of the steady state, and before the first one: the first keyframes are
/// acknowledged then.
const SECONDS: u64 = 10;
const SETTLE: Duration = Duration::from_secs(5);
/// Fewer agents than this are a look at whether it works, and are given less time.
const MANY: u32 = 1000;
/// How long ten thousand may take to connect, for the first time and again.
const CONNECTED_WITHIN: Duration = Duration::from_mins(2);
const SCHEDULER: [&str; 2] = ["scheduler", "--exit-with-parent"];
/// The goals.
const PROCESSOR_PERCENT: f64 = 50.0;
const MEMORY_KB: f64 = 60.0;
const AGE_MS: f64 = 250.0;
const BACK_S: f64 = 15.0;

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(AGENTS).max(1);
    let consoles = CONSOLES.min(count);
    let mut served = Served::start()?;
    let access = served.access()?;
    let mut fleet = Fleet::new(access.address);
    fleet.watch(consoles, &access.identity)?;
    let members = members(&served, count)?;
    let before = scheduler(&served)?;
    let start = Instant::now();
    fleet.join(members)?;
    all_back(&fleet, start)?;
    let connected_s = start.elapsed().as_secs_f64();
    let connected = scheduler(&served)?;
    let each = f64::from(count);
    let mut rows = vec![
        Row::new(
            format!("{count} agents connect, {consoles} consoles"),
            "agents/s",
            each / connected_s,
        ),
        Row::new(
            "processor time of the scheduler for an agent that connects",
            "ms",
            (connected.processor_ms - before.processor_ms) / each,
        ),
    ];
    std::thread::sleep(settle(count));
    rows.extend(steady(size, &served, &fleet, count, consoles)?);
    let bytes = scheduler(&served)?.memory.saturating_sub(before.memory);
    rows.push(
        Row::new("memory of the scheduler for an agent", "KB", bytes as f64 / each / 1000.0)
            .goal(Goal::AtMost(MEMORY_KB)),
    );
    rows.extend(restarts(size, &mut served, &fleet, count)?);
    Ok(rows)
}

/// What is waited for before something is measured: an agent's first samples are keyframes, and a
/// session that lasted is not called a storm when it is lost again.
const fn settle(count: u32) -> Duration {
    if count < MANY { Duration::from_secs(2) } else { SETTLE }
}

/// Nodes with the identities that a join would have given them.
pub(crate) fn members(served: &Served, count: u32) -> Result<Vec<Member>> {
    let authority = Authority::load(&served.scheduler_folder())?;
    let member = |number: u32| {
        // The first by name is the one that every console shows.
        let name = format!("node-{number:05}");
        let identity = authority.issue(IdentityKind::Agent, &name)?;
        Ok(Member { identity, facts: bare::facts(name, CORES as u32, GPUS as u32) })
    };
    (0..count).map(member).collect()
}

/// What the kernel counts of the scheduler.
struct Taken {
    processor_ms: f64,
    memory: u64,
}

fn scheduler(served: &Served) -> Result<Taken> {
    let found = served.processes(&SCHEDULER)?;
    let process = found.first().context("the scheduler is gone")?.as_raw_nonzero().to_string();
    let processor_ms = served.processor_ms(&SCHEDULER)?;
    Ok(Taken { processor_ms, memory: memory(&process, "VmRSS")? })
}

/// Waits until every agent has a session that began after a moment; gives the seconds each needed.
fn all_back(fleet: &Fleet, start: Instant) -> Result<Vec<f64>> {
    loop {
        if let Some(since) = fleet.all_since(start) {
            let seconds = |since: &Instant| since.duration_since(start).as_secs_f64();
            return Ok(since.iter().map(seconds).collect());
        }
        ensure!(
            start.elapsed() < CONNECTED_WITHIN,
            "some agents did not connect within {CONNECTED_WITHIN:?}; {} attempts failed",
            fleet.failures()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The steady state: processor time, and the age of what consoles show.
fn steady(
    size: &Size,
    served: &Served,
    fleet: &Fleet,
    count: u32,
    consoles: u32,
) -> Result<Vec<Row>> {
    let (mut percent, mut p50, mut p99, mut pictures) = (vec![], vec![], vec![], vec![]);
    let dropped_before = dropped()?;
    let before_all = Instant::now();
    for _ in 0..size.rounds() {
        let (before, start) = (scheduler(served)?, Instant::now());
        fleet.begin();
        // The length of the round is what is measured over.
        std::thread::sleep(Duration::from_secs(if count < MANY { 2 } else { SECONDS }));
        let (ages, taken) = fleet.end();
        let seconds = start.elapsed().as_secs_f64();
        let after = scheduler(served)?;
        percent.push((after.processor_ms - before.processor_ms) / (seconds * 10.0));
        ensure!(!ages.is_empty(), "no console has shown the marker");
        p50.push(quantile(&ages, 500));
        p99.push(quantile(&ages, 990));
        pictures.push(taken as f64 / seconds / f64::from(consoles));
    }
    let again = fleet.newer_than(before_all) as f64 / f64::from(count) * 100.0;
    let lost = (dropped()? - dropped_before) as f64;
    let sent = f64::from(count) * before_all.elapsed().as_secs_f64();
    Ok(vec![
        Row::new(
            "processor time of the scheduler, 1 sample/s each",
            "% of a core",
            median(&percent),
        )
        .goal(Goal::AtMost(PROCESSOR_PERCENT)),
        Row::new("sample → console, p50", "ms", median(&p50)),
        Row::new("sample → console, p99", "ms", median(&p99)).goal(Goal::AtMost(AGE_MS)),
        Row::new("pictures that a console gets", "1/s", median(&pictures)),
        Row::new("agents that lost their session", "%", again).goal(Goal::AtMost(0.0)),
        Row::new("packets dropped by full buffers", "% of samples", lost * 100.0 / sent),
    ])
}

/// The scheduler is killed and started again.
fn restarts(size: &Size, served: &mut Served, fleet: &Fleet, count: u32) -> Result<Vec<Row>> {
    let each = f64::from(count);
    let (mut most, mut all, mut processor) = (vec![], vec![], vec![]);
    let failures_before = fleet.failures();
    for _ in 0..size.rounds() {
        served.cluster.kill_scheduler();
        let start = Instant::now();
        served.cluster.start_scheduler()?;
        let back = all_back(fleet, start)?;
        most.push(quantile(&back, 900));
        all.push(quantile(&back, 1000));
        processor.push(scheduler(served)?.processor_ms / each);
        served.reconnect()?;
        until("the scheduler to know that all are up", || {
            (fleet.up() as f64 >= each).then_some(())
        })?;
        std::thread::sleep(settle(count));
    }
    let failures = (fleet.failures() - failures_before) as f64 / size.rounds() as f64;
    Ok(vec![
        Row::new("scheduler killed and started → 90 % of the agents back", "s", median(&most)),
        Row::new("scheduler killed and started → all agents back", "s", median(&all))
            .goal(Goal::AtMost(BACK_S)),
        Row::new("of that, processor time of the scheduler for an agent", "ms", median(&processor)),
        Row::new("attempts that failed", "1/agent", failures / each),
    ])
}

/// Datagrams that this host has dropped because a buffer was full.
fn dropped() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/snmp").context("reading /proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let both = names.split(' ').zip(values.split(' '));
    let found = both.filter(|(name, _)| ["RcvbufErrors", "SndbufErrors"].contains(name));
    Ok(found.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
}
