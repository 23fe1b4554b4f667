//! Why a job waits: answered by the functions that place it.

use gantry_model::{At, JobId, JobState, Reject, RejectKind, Why};

use crate::cluster::Cluster;
use crate::queue::ClassId;

/// Jobs ahead that are named.
const AHEAD_MAX: usize = 20;
/// Nodes that are named.
const NODES_MAX: usize = 200;

impl Cluster {
    /// Why a job waits: the binding constraint, who is ahead, what each node says, and when it can
    /// start as far as is known.
    ///
    /// # Errors
    /// Where there is no such job, or it does not wait.
    pub fn why(&self, at: At, id: JobId) -> Result<Why, Reject> {
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
        let sentence = aside.or(quota).unwrap_or_else(|| self.search(at, class, id));
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
