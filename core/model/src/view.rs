//! What the cluster shows of itself: the rows of tables on a screen and in JSON.
//!
//! The same rows serve the console, the commands and their `--json`, so that all say the same.

use serde::{Deserialize, Serialize};

use crate::health::Ailment;
use crate::ids::{JobId, NodeId, TaskId};
use crate::node::{NodeFacts, NodeState, Service, Window};
use crate::resources::Resources;
use crate::task::{Exit, JobState};
use crate::units::{At, MemoryMib, Millis};

/// How many tasks of a job stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Not placed yet.
    pub wait: u32,
    /// With a live execution.
    pub run: u32,
    /// Ended well.
    pub done: u32,
    /// Ended badly.
    pub fail: u32,
    /// Cancelled.
    pub cancel: u32,
}

impl TaskCounts {
    /// All tasks.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.wait + self.run + self.done + self.fail + self.cancel
    }

    /// Tasks to which nothing will happen any more.
    #[must_use]
    pub const fn ended(&self) -> u32 {
        self.done + self.fail + self.cancel
    }

    /// Where a job with these tasks stands.
    #[must_use]
    pub const fn state(&self) -> JobState {
        if self.run > 0 {
            JobState::Run
        } else if self.wait > 0 {
            JobState::Wait
        } else if self.fail > 0 {
            JobState::Fail
        } else if self.cancel > 0 {
            JobState::Cancel
        } else {
            JobState::Done
        }
    }
}

/// What the tasks of a job have taken so far, over all executions that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Cores × milliseconds they were leased.
    pub core_ms: u64,
    /// GPUs × milliseconds they were leased; a share counts as its part.
    pub gpu_ms: u64,
    /// Processor milliseconds that were used.
    pub cpu_ms: u64,
    /// The most memory one process had at once.
    pub memory_peak: MemoryMib,
    /// What was read from disks, in KiB.
    pub read_kib: u64,
    /// What was written to disks, in KiB.
    pub written_kib: u64,
}

impl Spent {
    /// The sum of both; of the peaks, the greater one.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            core_ms: self.core_ms.saturating_add(other.core_ms),
            gpu_ms: self.gpu_ms.saturating_add(other.gpu_ms),
            cpu_ms: self.cpu_ms.saturating_add(other.cpu_ms),
            memory_peak: self.memory_peak.max(other.memory_peak),
            read_kib: self.read_kib.saturating_add(other.read_kib),
            written_kib: self.written_kib.saturating_add(other.written_kib),
        }
    }
}

/// One job in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its id.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Who submitted it.
    pub user: String,
    /// `command`, `preprocess`, `train` or `predict`.
    pub kind: String,
    /// Where it stands.
    pub state: JobState,
    /// Where its tasks stand.
    pub tasks: TaskCounts,
    /// What each task needs.
    pub resources: Resources,
    /// The nodes its tasks run on, or ran on last; at most eight names.
    pub nodes: Vec<String>,
    /// When it was submitted.
    pub submitted: At,
    /// When its first task started.
    pub started: Option<At>,
    /// When its last task ended.
    pub ended: Option<At>,
    /// Its time limit.
    pub time_limit: Option<Millis>,
    /// Executions started so far, over all tasks.
    pub starts: u32,
    /// Why it waits, or how it failed: one sentence.
    pub reason: Option<String>,
    /// The exit of the job: the first failed task's, success once all are done.
    pub exit: Option<Exit>,
    /// The group whose quota it uses.
    pub group: Option<String>,
    /// Larger goes first.
    pub priority: i32,
    /// Whether all of it is held.
    pub held: bool,
    /// Tasks of it that are held by themselves.
    pub tasks_held: u32,
    /// What it has taken so far.
    pub spent: Spent,
    /// How far its tasks say they are, in thousandths.
    pub progress_permille: Option<u16>,
}

/// Why a job waits, from the search that placement itself makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The job.
    pub job: JobId,
    /// The binding constraint, in a sentence.
    pub sentence: String,
    /// Jobs that placement looks at earlier, the nearest last; at most twenty.
    pub ahead: Vec<JobId>,
    /// How many those are in all.
    pub ahead_count: u32,
    /// Each node with the first rule that says no, or that it fits; at most two hundred.
    pub nodes: Vec<(String, String)>,
    /// When it can start, as far as time limits and estimates tell.
    pub start: Option<At>,
    /// The nodes that are kept for it.
    pub reserved: Vec<String>,
}

/// What a user's jobs hold and wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRow {
    /// The user.
    pub user: String,
    /// GPUs that are held; of a share, the part counts.
    pub gpu_permille: u64,
    /// Cores that are held.
    pub cores: u64,
    /// Jobs of which something runs.
    pub running: u32,
    /// Jobs that only wait.
    pub waiting: u32,
    /// Why the first of those waits.
    pub reason: Option<String>,
}

/// One task in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// Its id.
    pub task: TaskId,
    /// The word for its state.
    pub state: String,
    /// The node it runs on, or ran on last.
    pub node: Option<String>,
    /// Executions started so far.
    pub starts: u32,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// One node in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its number in the cluster.
    pub node: NodeId,
    /// What its agent said when it connected last.
    pub facts: NodeFacts,
    /// Where it stands.
    pub state: NodeState,
    /// Since when it stands there.
    pub since: At,
    /// What tasks hold of it.
    pub used: Resources,
    /// Tasks with a live execution there.
    pub tasks: u32,
    /// Which job holds each GPU, by index; of several that share it, the oldest.
    pub gpu_jobs: Vec<Option<JobId>>,
    /// Whether it is given work.
    pub service: Service,
    /// Its maintenance windows.
    pub windows: Vec<Window>,
    /// What is wrong with it and its GPUs.
    pub ailments: Vec<Ailment>,
}

/// The numbers of the first line of every screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Nodes that are up.
    pub nodes_up: u32,
    /// Nodes known.
    pub nodes: u32,
    /// Cores held by tasks.
    pub cores_used: u32,
    /// Cores of the nodes that are up.
    pub cores: u32,
    /// GPUs held by tasks.
    pub gpus_used: u32,
    /// GPUs of the nodes that are up.
    pub gpus: u32,
    /// Jobs with a running task.
    pub jobs_run: u32,
    /// Jobs that wait.
    pub jobs_wait: u32,
    /// Jobs that failed.
    pub jobs_fail: u32,
    /// Jobs that are done or cancelled.
    pub jobs_ended: u32,
}
