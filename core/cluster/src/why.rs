//! Why a job waits: answered by the functions that place it.

use std::collections::BTreeMap;

use gantry_model::{
    At, DependencyScope, IndexSet, JobId, JobState, Reject, RejectKind, TaskCounts, TaskState, Why,
};

use crate::cluster::Cluster;
use crate::job::Job;
use crate::queue::ClassId;

/// Jobs ahead that are named.
const AHEAD_MAX: usize = 20;
/// Different reasons of elements in one sentence.
const REASONS_MAX: usize = 8;
/// Nodes that are named.
const NODES_MAX: usize = 200;

impl Cluster {
    /// Why a job waits: the binding constraint, who is ahead, what each node says, and when it can
    /// start as far as is known.
    ///
    /// # Errors
    /// Where there is no such job or element, or it does not wait.
    pub fn why(&self, at: At, id: JobId, indices: Option<&IndexSet>) -> Result<Why, Reject> {
        match indices {
            None => self.why_job(at, id),
            Some(indices) => self.why_elements(at, id, indices),
        }
    }

    /// Why some elements wait: what keeps them aside, or what the whole job waits for.
    fn why_elements(&self, at: At, id: JobId, indices: &IndexSet) -> Result<Why, Reject> {
        let row = self.part(id, indices)?;
        let job = self.known(id)?;
        let (counts, all) = (row.tasks, row.tasks.total());
        if counts.wait == 0 {
            let what = if all == 1 { "it does not wait" } else { "none of them waits" };
            let sentence = format!("{what}: {}", said(&counts));
            return Err(Reject::new(RejectKind::State, sentence));
        }
        let waits =
            indices.iter().filter(|index| job.task_state(*index) == Some(TaskState::Waiting));
        let (mut aside, mut free) = (BTreeMap::<String, u32>::new(), false);
        for index in waits {
            match element_aside(at, job, index) {
                Some(reason) => *aside.entry(reason).or_default() += 1,
                None => free = true,
            }
        }
        let mut why = if free { self.why_job(at, id)? } else { Why { job: id, ..Why::default() } };
        let mut parts: Vec<String> = aside
            .into_iter()
            .map(|(reason, count)| if all == 1 { reason } else { format!("{count}: {reason}") })
            .collect();
        if free {
            parts.push(why.sentence);
        }
        parts.truncate(REASONS_MAX);
        why.sentence = parts.join("; ");
        if all > 1 {
            why.sentence = format!("{}; {}", said(&counts), why.sentence);
        }
        Ok(why)
    }

    fn why_job(&self, at: At, id: JobId) -> Result<Why, Reject> {
        let job = self.known(id)?;
        if job.counts.wait == 0 {
            let state = job.state();
            let reason = job.reason.as_ref().map(|reason| format!(": {reason}"));
            let sentence = match state {
                JobState::Run => format!("{id} does not wait; every task of it runs or has ended"),
                _ => format!("{id} has ended, as {}{}", state.word(), reason.unwrap_or_default()),
            };
            return Err(Reject::new(RejectKind::State, sentence));
        }
        let class = ClassId { kind: job.kind, account: job.account, priority: job.spec.priority };
        let role = self.known_role(job.kind);
        let rules = self.rules(at, class, id, role).into_iter().take(NODES_MAX);
        let nodes = rules
            .map(|(name, rule)| {
                let word = rule.map_or_else(|| "has room".into(), |rule| rule.to_string());
                (name.to_owned(), word)
            })
            .collect();
        let kept = self.reservation.as_ref().filter(|kept| kept.job == id);
        let reserved = kept.into_iter().flat_map(|kept| kept.nodes.keys());
        let planned = || self.plan(at, class, id, role).and_then(|plan| plan.start);
        let aside = job.waits_aside();
        let start =
            if aside.is_some() { None } else { kept.map_or_else(planned, |kept| kept.start) };
        let quota = self.waits_for_quota(class);
        let returning = self.waits_for_nodes(at);
        let sentence = aside.or(returning).or(quota).unwrap_or_else(|| self.search(at, class, id));
        let (ahead, ahead_count) = if job.queued { self.ahead(at, class, id) } else { (vec![], 0) };
        Ok(Why {
            job: id,
            sentence,
            ahead,
            ahead_count,
            nodes,
            start,
            reserved: reserved.map(|node| self.node(*node).name().to_owned()).collect(),
        })
    }

    /// The sentence of the search that failed; made anew, because the nodes may have changed since.
    fn search(&self, at: At, class: ClassId, id: JobId) -> String {
        let role = self.known_role(class.kind);
        if self.kinds.get(class.kind).gang.is_some() {
            return match self.find_for_gang(at, class, id, role) {
                Ok(_) => "it can start now".into(),
                Err(reason) => reason,
            };
        }
        let running = self.jobs.get(&id).filter(|job| !job.wants_placement() && job.counts.run > 0);
        if running.is_some() {
            return "as many of its elements run as may at once".into();
        }
        self.why_not(at, class, id, role)
    }

    /// The jobs that placement looks at before one, the nearest last.
    fn ahead(&self, at: At, class: ClassId, id: JobId) -> (Vec<JobId>, u32) {
        let mine = self.rank(at, class, id);
        let mut ranked = Vec::new();
        let mut count = 0;
        for (other, queued) in &self.queue.classes {
            // Within a class the order is that of submission.
            let before: Vec<JobId> = if *other == class {
                queued.jobs.range(..id).copied().collect()
            } else {
                let first = |job: &&JobId| self.rank(at, *other, **job) < mine;
                queued.jobs.iter().take_while(first).copied().collect()
            };
            count += before.len() as u32;
            let near = before.into_iter().rev().take(AHEAD_MAX);
            ranked.extend(near.map(|job| (self.rank(at, *other, job), job)));
        }
        ranked.sort_unstable();
        let skipped = ranked.len().saturating_sub(AHEAD_MAX);
        (ranked.into_iter().skip(skipped).map(|(_, job)| job).collect(), count)
    }
}

/// Why an element that waits is not among those that may start.
fn element_aside(at: At, job: &Job, index: u32) -> Option<String> {
    if job.parked.contains(index) {
        return Some(format!("held; gantry release {}.{index} lets it go on", job.id));
    }
    if job.locked.contains(index) {
        let after = job.spec.after.iter();
        let mut other = after.filter(|after| after.scope == DependencyScope::Element);
        return other.next().map(|after| format!("after {}.{index}", after.job));
    }
    let ready = job.tasks.get(&index)?.ready;
    let left = ready.since(at);
    (ready > at && !job.again.contains(&index))
        .then(|| format!("waits out the time after a failure, {left} more"))
}

/// Where some tasks stand, in words.
fn said(counts: &TaskCounts) -> String {
    let parts = [
        (counts.wait, "wait"),
        (counts.run, "run"),
        (counts.done, "done"),
        (counts.fail, "failed"),
        (counts.cancel, "cancelled"),
    ];
    let some = parts.iter().filter(|(count, _)| *count > 0);
    some.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}
