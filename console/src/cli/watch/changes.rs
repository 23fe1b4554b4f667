//! Two pictures of the cluster that follow one another, and the sentences that tell them apart.
//!
//! The first picture gives one sentence: how things stand. A job that is in the one before and not in
//! the next has left the list and nothing more; a picture holds no more rows than a screen shows.

use std::collections::BTreeMap;

use gantry_model::{At, JobId, JobRow, JobState, NodeRow, Service};
use gantry_wire::Update;

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// When it was seen, by the scheduler's clock.
    pub(super) at: At,
    /// What has changed: a node, a job, or the cluster.
    pub(super) subject: String,
    /// A stable word for programs.
    pub(super) kind: &'static str,
    /// The rest of the sentence.
    pub(super) sentence: String,
}

/// What the picture before has shown.
#[derive(Debug, Default)]
pub(super) struct Changes {
    before: Option<(BTreeMap<String, NodeRow>, BTreeMap<JobId, JobRow>)>,
}

impl Changes {
    /// What a picture shows that the one before did not.
    pub(super) fn take(&mut self, update: &Update) -> Vec<Change> {
        let nodes: BTreeMap<String, NodeRow> = update
            .nodes
            .iter()
            .map(|node| (node.row.facts.name.clone(), node.row.clone()))
            .collect();
        let jobs: BTreeMap<JobId, JobRow> =
            update.jobs.iter().map(|row| (row.job, row.clone())).collect();
        let mut found = Vec::new();
        let mut say = |subject: String, kind, sentence| {
            found.push(Change { at: update.at, subject, kind, sentence });
        };
        let Some((nodes_before, jobs_before)) = self.before.replace((nodes, jobs)) else {
            say("cluster".into(), "begin", standing(update));
            return found;
        };
        for node in &update.nodes {
            let name = &node.row.facts.name;
            for (kind, sentence) in of_node(nodes_before.get(name), &node.row) {
                say(name.clone(), kind, sentence);
            }
        }
        // Rows are newest first; what happened is told in the order of the jobs.
        for row in update.jobs.iter().rev() {
            for (kind, sentence) in of_job(jobs_before.get(&row.job), row) {
                say(row.job.to_string(), kind, sentence);
            }
        }
        found
    }
}

/// How things stand, for whoever has seen nothing yet.
fn standing(update: &Update) -> String {
    let sum = &update.summary;
    format!(
        "{}: {} of {} nodes are up, {} jobs run, {} wait, {} failed",
        update.cluster, sum.nodes_up, sum.nodes, sum.jobs_run, sum.jobs_wait, sum.jobs_fail
    )
}

fn of_node(before: Option<&NodeRow>, now: &NodeRow) -> Vec<(&'static str, String)> {
    let Some(before) = before else { return vec![("node-new", "has joined".into())] };
    let mut found = Vec::new();
    if before.state != now.state {
        found.push(("node-state", format!("is {}", now.state.word())));
    }
    if before.service != now.service {
        found.push((
            "node-service",
            match &now.service {
                Service::Open => "gets work again".into(),
                Service::Drain { reason, .. } => format!("gets no new work: {reason}"),
                Service::Quarantine { reason } => format!("is in quarantine: {reason}"),
            },
        ));
    }
    for ailment in &now.ailments {
        let known = |one: &gantry_model::health::Ailment| {
            (one.trouble, &one.gpu) == (ailment.trouble, &ailment.gpu)
        };
        if !before.ailments.iter().any(known) {
            found.push(("node-trouble", format!("has a trouble: {}", ailment.detail)));
        }
    }
    if now.ailments.is_empty() && !before.ailments.is_empty() {
        found.push(("node-well", "has no trouble any more".into()));
    }
    found
}

fn of_job(before: Option<&JobRow>, now: &JobRow) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if before.is_none() {
        found.push(("job-new", format!("{}, {}, of {}", now.name, now.kind, now.user)));
    }
    if before.is_none_or(|before| before.state != now.state) {
        let reason = now.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        found.push((
            "job-state",
            match now.state {
                JobState::Wait => format!("waits{reason}"),
                JobState::Run => format!("runs on {}", now.nodes.join(", ")),
                JobState::Done => "is done".into(),
                JobState::Fail => format!("has failed{reason}"),
                JobState::Cancel => "is cancelled".into(),
            },
        ));
    } else if before.is_some_and(|before| before.tasks.ended() != now.tasks.ended()) {
        let (ended, total) = (now.tasks.ended(), now.tasks.total());
        let failed = match now.tasks.fail {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        found.push(("job-tasks", format!("{ended} of {total} tasks have ended{failed}")));
    }
    if let Some(before) = before
        && before.held != now.held
    {
        let word = if now.held { "is held" } else { "is released" };
        found.push(("job-held", word.into()));
    }
    found
}

#[cfg(test)]
mod tests {
    use gantry_model::{NodeFacts, NodeState, Summary, TaskCounts};
    use gantry_wire::NodeStatus;

    use super::*;

    fn picture(nodes: Vec<NodeRow>, jobs: Vec<JobRow>) -> Update {
        let nodes = nodes.into_iter().map(|row| NodeStatus { row, sample: None, sampled: None });
        Update {
            at: At(7),
            cluster: "a".into(),
            summary: Summary { nodes_up: 1, nodes: 1, ..Summary::default() },
            nodes: nodes.collect(),
            busy_permille: Vec::new(),
            gpu_busy_permille: Vec::new(),
            gpu_power_w: Vec::new(),
            owners: Vec::new(),
            jobs,
            metrics: Vec::new(),
            output: None,
            notes: Vec::new(),
        }
    }

    fn node(state: NodeState, service: Service) -> NodeRow {
        let facts = NodeFacts { name: "cpu-1".into(), ..NodeFacts::default() };
        NodeRow { facts, state, service, ..NodeRow::default() }
    }

    fn job(number: u64, state: JobState, ended: u32, held: bool) -> JobRow {
        JobRow {
            job: JobId(number),
            name: "lungs".into(),
            user: "ada".into(),
            kind: "train".into(),
            state,
            tasks: TaskCounts { done: ended, run: 4 - ended, ..TaskCounts::default() },
            nodes: vec!["cpu-1".into()],
            reason: Some("no core is free".into()),
            held,
            ..JobRow::default()
        }
    }

    #[test]
    fn what_changed_between_two_pictures() {
        let up = || vec![node(NodeState::Up, Service::Open)];
        let drain = Service::Drain { reason: "new fan".into(), deadline: None };
        let wait = || vec![job(1, JobState::Wait, 0, false)];
        let run = |ended| vec![job(1, JobState::Run, ended, false)];
        let held = || vec![job(1, JobState::Wait, 0, true)];
        for (before, now, expected) in [
            (picture(up(), wait()), picture(up(), wait()), &[][..]),
            (
                picture(up(), wait()),
                picture(vec![node(NodeState::Late, drain)], run(0)),
                &["cpu-1 is late", "cpu-1 gets no new work: new fan", "j1 runs on cpu-1"],
            ),
            (picture(up(), run(0)), picture(up(), run(3)), &["j1 3 of 4 tasks have ended"]),
            (
                picture(vec![], vec![]),
                picture(up(), wait()),
                &["cpu-1 has joined", "j1 lungs, train, of ada", "j1 waits: no core is free"],
            ),
            (picture(up(), wait()), picture(up(), held()), &["j1 is held"]),
            (picture(up(), held()), picture(up(), wait()), &["j1 is released"]),
            (picture(up(), wait()), picture(up(), vec![]), &[]),
        ] {
            let mut changes = Changes::default();
            let begin = changes.take(&before);
            assert_eq!(begin.len(), 1);
            assert!(begin[0].sentence.contains("1 of 1 nodes are up"), "{begin:?}");
            let said: Vec<String> = changes
                .take(&now)
                .iter()
                .map(|change| format!("{} {}", change.subject, change.sentence))
                .collect();
            assert_eq!(said, expected);
            assert_eq!(changes.take(&now), [], "a picture that comes again says nothing");
        }
    }
}
