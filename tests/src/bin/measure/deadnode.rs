//! A node that dies: how long until it is noticed, and until its tasks wait again.
//!
//! Four deaths. The agent is killed and its commands end with it, by its setting: its supervisor says
//! so, and they wait again at once. The agent is killed and its commands live on, held by their
//! supervisor: they wait again only once the node's time to come back is over. Every process of the
//! node is killed, as when the host goes: nobody is left to say so, and its silence is all there is. So
//! it takes what the link waits before it gives a connection up, and its tasks the node's time to come
//! back after that; the goal is that of an agent that is gone.
//! The agent is stopped and stays silent, as when it hangs: its connection is there and nothing comes
//! over it.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use gantry_model::{JobId, NodeState};
use gantry_tests::until;
use rustix::process::Signal;

use crate::Size;
use crate::report::{Goal, Row};
use crate::served::{self, Served};
use crate::statistics::median;

const TASKS: u32 = 4;
/// The goals, in seconds.
const GONE_S: f64 = 1.0;
const STALE_S: f64 = 3.0;
const QUEUED_S: f64 = 10.0;

/// How a node dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// The agent is killed, and its commands end.
    Agent,
    /// The agent is killed, and its commands live on.
    AgentAlone,
    /// Every process of the node is killed.
    Host,
    /// The agent is stopped.
    Silent,
}

impl Death {
    const fn words(self) -> &'static str {
        match self {
            Self::Agent => "agent killed with its commands",
            Self::AgentAlone => "agent killed alone",
            Self::Host => "every process of the node killed",
            Self::Silent => "agent silent (SIGSTOP)",
        }
    }

    /// What becomes of commands when their agent ends.
    const fn orphans(self) -> &'static str {
        match self {
            Self::Agent => "end",
            _ => "keep",
        }
    }
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (death, noticed_s, queued_s) in [
        (Death::Agent, GONE_S, GONE_S),
        (Death::AgentAlone, GONE_S, QUEUED_S),
        (Death::Host, GONE_S, GONE_S),
        (Death::Silent, STALE_S, QUEUED_S),
    ] {
        let (mut noticed, mut queued) = (Vec::new(), Vec::new());
        for _ in 0..size.rounds() {
            let (first, second) = round(death, size.count.unwrap_or(TASKS))?;
            noticed.push(first);
            queued.push(second);
        }
        let words = death.words();
        rows.push(
            Row::new(format!("{words} → noticed"), "s", median(&noticed))
                .goal(Goal::AtMost(noticed_s)),
        );
        rows.push(
            Row::new(format!("{words} → its tasks wait again"), "s", median(&queued))
                .goal(Goal::AtMost(queued_s)),
        );
    }
    Ok(rows)
}

/// Seconds until the node was seen as gone, and until its tasks waited.
fn round(death: Death, tasks: u32) -> Result<(f64, f64)> {
    let mut served = Served::start()?;
    let orphans = death.orphans();
    let settings =
        format!("cores = {tasks}\nmemory = \"1G\"\nworkers = 1\norphans = \"{orphans}\"");
    served.cluster.join("cpu-1", &settings)?;
    let job = served.submit(served::array(tasks, served::command(&["sleep", "300"])))?;
    until("the starts", || (running(&served, job).ok()? == tasks).then_some(()))?;
    let start = Instant::now();
    let agent = ["agent", "--exit-with-parent"];
    match death {
        Death::Agent | Death::AgentAlone => served.cluster.kill_agent("cpu-1"),
        Death::Silent => served.signal(&agent, Signal::STOP)?,
        Death::Host => {
            served.signal(&agent, Signal::KILL)?;
            // The supervisor goes on where there is one.
            if !served.processes(&["supervise"])?.is_empty() {
                served.signal(&["supervise"], Signal::KILL)?;
            }
        }
    }
    until("the loss of the node", || (state(&served).ok()? != NodeState::Up).then_some(()))?;
    let noticed = start.elapsed().as_secs_f64();
    until("the requeue", || (served.job(job).ok()?.tasks.wait == tasks).then_some(()))?;
    let queued = start.elapsed().as_secs_f64();
    if matches!(death, Death::Silent) {
        served.signal(&agent, Signal::KILL)?;
    }
    clean(&served)?;
    ensure!(queued >= noticed, "tasks waited again before their node was gone");
    Ok((noticed, queued))
}

/// Tasks whose start was reported.
fn running(served: &Served, job: JobId) -> Result<u32> {
    let row = served.job(job)?;
    Ok(if row.started.is_some() { row.tasks.run } else { 0 })
}

fn state(served: &Served) -> Result<NodeState> {
    match served.nodes()?.first() {
        Some(status) => Ok(status.row.state),
        None => bail!("the node is not known"),
    }
}

/// Ends what a supervisor still holds.
pub(crate) fn clean(served: &Served) -> Result<()> {
    if !served.processes(&["supervise"])?.is_empty() {
        served.signal(&["supervise"], Signal::KILL)?;
    }
    Ok(())
}
