//! What a simulation leaves: the summary of a course that held, or the report of a check that
//! failed.

use std::fmt;

use gantry_model::{JobRow, JobState, Millis};

/// A course in numbers. The same settings give the same summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How much time has passed in it.
    pub simulated: Millis,
    /// Events that the cluster took.
    pub events: u64,
    /// Jobs that are done.
    pub jobs_done: u32,
    /// Jobs that failed.
    pub jobs_failed: u32,
    /// Jobs that were cancelled.
    pub jobs_cancelled: u32,
    /// Tasks of ended jobs.
    pub tasks: u64,
    /// Requests that were refused.
    pub refused: u32,
    /// Orders to start a try.
    pub launches: u64,
    /// Faults that struck.
    pub faults: u32,
    /// Times the scheduler was killed.
    pub scheduler_crashes: u32,
    /// Times the cluster called a node lost.
    pub nodes_lost: u32,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Tries that were stopped to make room for others.
    pub preempted: u32,
    /// Of them, those that gave back what their group had borrowed.
    pub reclaimed: u32,
    /// Times a node was quarantined.
    pub quarantined: u32,
    /// Tries that were stopped because their node had to be empty.
    pub cleared: u32,
    /// Times the settings were read again and were others.
    pub reloads: u32,
    /// Tries that were launched ahead.
    pub ahead: u32,
    /// Of them, those that were given a lease on their node.
    pub handed_on: u32,
    /// Of them, those that were called back.
    pub recalled: u32,
    /// Records of spools that a power cut took.
    pub records_torn: u32,
    /// Tries that got their warning before the time limit.
    pub warned: u32,
    /// Tries that were ended by their time limit.
    pub limited: u32,
    /// XIDs that were seen.
    pub xids: u32,
    /// Times something was found that keeps work from a GPU or a node.
    pub sick: u32,
    /// Tests that were ordered.
    pub tests: u32,
    /// Of them, those that found something.
    pub tests_failed: u32,
    /// GPUs and nodes that got work again after a test.
    pub readmitted: u32,
    /// Nodes that were lost and are forgotten.
    pub forgotten: u32,
    /// How long it took until everything had ended once faults and users had stopped.
    pub settled_after: Millis,
    /// A hash of everything that happened, in order.
    pub digest: u64,
}

impl Summary {
    /// Counts a job that has ended.
    pub(crate) fn count(&mut self, row: &JobRow) {
        self.tasks += u64::from(row.tasks.total());
        match row.state {
            JobState::Done => self.jobs_done += 1,
            JobState::Fail => self.jobs_failed += 1,
            _ => self.jobs_cancelled += 1,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} events, {} jobs done, {} failed, {} cancelled, {} tasks, {} launches, {} faults, \
             {} crashes, {} lost nodes, {} preempted, {} reclaimed, {} quarantined, {} cleared, {} reloads, \
             {} ahead, {} handed on, {} recalled, settled after {}",
            self.simulated,
            self.events,
            self.jobs_done,
            self.jobs_failed,
            self.jobs_cancelled,
            self.tasks,
            self.launches,
            self.faults,
            self.scheduler_crashes,
            self.nodes_lost,
            self.preempted,
            self.reclaimed,
            self.quarantined,
            self.cleared,
            self.reloads,
            self.ahead,
            self.handed_on,
            self.recalled,
            self.settled_after
        )
    }
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// The time since the start.
    pub after: Millis,
    /// What was found.
    pub what: String,
    /// The last things that happened, the newest last.
    pub recent: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} fails after {}: {}", self.seed, self.after, self.what)?;
        self.recent.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl std::error::Error for Failure {}
