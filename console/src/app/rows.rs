//! Which rows a screen lists, and in which order: those of the picture that fit the filter.

use std::cmp::Ordering;

use gantry_model::{JobRow, JobState, NodeState, Service};
use gantry_wire::NodeStatus;

use super::filter::Filter;
use super::{App, View};

/// By what jobs are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The newest first.
    Id,
    /// What runs first, then what waits, then what failed.
    State,
    /// By name.
    Name,
    /// By user.
    User,
    /// The one that has been running longest first.
    Time,
}

impl Sort {
    /// The next one, round and round.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Id => Self::State,
            Self::State => Self::Name,
            Self::Name => Self::User,
            Self::User => Self::Time,
            Self::Time => Self::Id,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::State => "state",
            Self::Name => "name",
            Self::User => "user",
            Self::Time => "time",
        }
    }

    fn compare(self, a: &JobRow, b: &JobRow) -> Ordering {
        let order = match self {
            Self::Id => Ordering::Equal,
            Self::State => rank(a.state).cmp(&rank(b.state)),
            Self::Name => a.name.cmp(&b.name),
            Self::User => a.user.cmp(&b.user),
            Self::Time => {
                let began = |row: &JobRow| row.started.unwrap_or(row.submitted);
                began(a).cmp(&began(b))
            }
        };
        order.then(b.job.cmp(&a.job))
    }
}

const fn rank(state: JobState) -> u8 {
    match state {
        JobState::Run => 0,
        JobState::Wait => 1,
        JobState::Fail => 2,
        JobState::Done => 3,
        JobState::Cancel => 4,
    }
}

/// The jobs that the screen lists, in its order.
#[must_use]
pub fn job_rows(app: &App) -> Vec<&JobRow> {
    let Some(update) = &app.update else { return Vec::new() };
    let filter = Filter::parse(app.filter());
    let here = |row: &&JobRow| match app.view {
        View::Job(job) => row.job == job,
        View::Data => row.kind != "command",
        _ => true,
    };
    let fits = |row: &&JobRow| matches!(app.view, View::Job(_)) || job_holds(&filter, row);
    // What is in the picture is newer than the same job on an older page.
    let oldest = update.jobs.iter().map(|row| row.job).min();
    let older = app.older.rows().iter().filter(|row| oldest.is_none_or(|oldest| row.job < oldest));
    let older = older.filter(|_| app.view == View::Jobs);
    let all = update.jobs.iter().chain(older);
    let mut rows: Vec<&JobRow> = all.filter(here).filter(fits).collect();
    rows.sort_by(|a, b| app.sort.compare(a, b));
    if app.reverse {
        rows.reverse();
    }
    rows
}

fn job_holds(filter: &Filter, row: &JobRow) -> bool {
    filter.holds(|field| {
        Some(match field {
            "" => {
                let (job, state, nodes) =
                    (row.job.to_string(), row.state.word(), row.nodes.join(" "));
                [&job, &row.name, &row.user, &row.kind, state, &nodes].join(" ")
            }
            "job" => row.job.to_string(),
            "name" => row.name.clone(),
            "user" => row.user.clone(),
            "group" => row.group.clone().unwrap_or_default(),
            "kind" => row.kind.clone(),
            "state" if row.held => "hold".to_owned(),
            "state" => row.state.word().to_owned(),
            "node" => row.nodes.join(" "),
            "gpu" => row.resources.gpus.to_string(),
            "tasks" => row.tasks.total().to_string(),
            "priority" => row.priority.to_string(),
            _ => return None,
        })
    })
}

/// The nodes that the screen lists.
#[must_use]
pub fn node_rows(app: &App) -> Vec<&NodeStatus> {
    let Some(update) = &app.update else { return Vec::new() };
    let filter = Filter::parse(app.filter());
    let fits = |node: &&NodeStatus| app.view != View::Nodes || node_holds(&filter, node);
    let mut rows: Vec<&NodeStatus> = update.nodes.iter().filter(fits).collect();
    if app.view == View::Nodes {
        rows.sort_by(|a, b| app.node_sort.compare(a, b));
        if app.reverse {
            rows.reverse();
        }
    }
    rows
}

fn node_holds(filter: &Filter, node: &NodeStatus) -> bool {
    let facts = &node.row.facts;
    filter.holds(|field| {
        Some(match field {
            "" => [facts.name.as_str(), node_word(node), &roles(node), &labels(node)].join(" "),
            "node" => facts.name.clone(),
            "state" => node_word(node).to_owned(),
            "role" => roles(node),
            "label" => labels(node),
            "gpu" => facts.gpus.len().to_string(),
            "jobs" | "tasks" => node.row.tasks.to_string(),
            "cpu" => (node.sample.as_ref()?.cpu_permille / 10).to_string(),
            "sm" => (gpu_busy(node)? / 10).to_string(),
            _ => return None,
        })
    })
}

fn roles(node: &NodeStatus) -> String {
    let roles = node.row.facts.roles.iter().map(|role| format!("{role:?}").to_lowercase());
    roles.collect::<Vec<_>>().join(" ")
}

fn labels(node: &NodeStatus) -> String {
    node.row.facts.labels.iter().cloned().collect::<Vec<_>>().join(" ")
}

/// The word for how a node stands, with what was decided about it.
#[must_use]
pub fn node_word(node: &NodeStatus) -> &'static str {
    match (node.row.state, &node.row.service) {
        (NodeState::Up, Service::Drain { .. }) => "drain",
        (NodeState::Up, Service::Quarantine { .. }) => "quarant.",
        (state, _) => state.word(),
    }
}

/// How busy the GPUs of a node are together, in thousandths.
#[must_use]
pub fn gpu_busy(node: &NodeStatus) -> Option<u32> {
    let samples = node.sample.iter().flat_map(|sample| &sample.gpus);
    let busy: Vec<u32> = samples.filter_map(|gpu| gpu.busy_permille).collect();
    busy.iter().sum::<u32>().checked_div(busy.len() as u32)
}

/// By what nodes are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeSort {
    /// By name.
    Name,
    /// Those that are not there first, then those that get no work.
    State,
    /// The busiest first: of the GPUs where there are some, else of the cores.
    Busy,
    /// Those with most tasks first.
    Jobs,
}

impl NodeSort {
    /// The next one, round and round.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Name => Self::State,
            Self::State => Self::Busy,
            Self::Busy => Self::Jobs,
            Self::Jobs => Self::Name,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Busy => "use",
            Self::Jobs => "jobs",
        }
    }

    fn compare(self, a: &NodeStatus, b: &NodeStatus) -> Ordering {
        let busy = |node: &NodeStatus| {
            gpu_busy(node).or(node.sample.as_ref().map(|sample| sample.cpu_permille))
        };
        let trouble = |node: &NodeStatus| (node.row.state, node.row.service != Service::Open);
        let order = match self {
            Self::Name => Ordering::Equal,
            Self::State => trouble(b).cmp(&trouble(a)),
            Self::Busy => busy(b).cmp(&busy(a)),
            Self::Jobs => b.row.tasks.cmp(&a.row.tasks),
        };
        order.then_with(|| a.row.facts.name.cmp(&b.row.facts.name))
    }
}

/// The lines of a log that a person reads: without those that tell metrics and progress to the
/// agent, and of a line that was written over and over only what stood there last.
#[must_use]
pub fn log_lines(bytes: &[u8]) -> Vec<&[u8]> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let last = |line: &'_ [u8]| -> usize {
        let end = line.len() - usize::from(line.ends_with(b"\r"));
        line[..end].iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1)
    };
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| {
        let line = &line[last(line)..];
        line.strip_suffix(b"\r").unwrap_or(line)
    });
    lines.filter(|line| !line.starts_with(b"::")).collect()
}

#[cfg(test)]
mod tests {
    use super::log_lines;

    #[test]
    fn a_log_without_what_only_the_agent_reads() {
        for (text, expected) in [
            ("", vec![]),
            ("one\ntwo", vec!["one", "two"]),
            ("one\n\ntwo\n", vec!["one", "", "two"]),
            ("one\r\n::metric loss 1 2\ntwo\r\n", vec!["one", "two"]),
            ("10 %\r20 %\r30 %\ndone", vec!["30 %", "done"]),
        ] {
            let lines: Vec<_> = log_lines(text.as_bytes())
                .iter()
                .map(|line| String::from_utf8_lossy(line))
                .collect();
            assert_eq!(lines, expected, "{text:?}");
        }
    }
}
