//! The invariants, proved from the state alone.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{TaskCounts, TaskId, TaskState, TryId};

use crate::cluster::Cluster;
use crate::job::slot;

/// Proves that leases, tasks, counts and the queue agree with one another.
pub(crate) fn check(cluster: &Cluster) -> Result<(), String> {
    let live = leases(cluster)?;
    tasks(cluster, &live)
}

/// No node gives more than it has, no GPU twice, and no task has two tries.
fn leases(cluster: &Cluster) -> Result<BTreeMap<TaskId, (String, TryId)>, String> {
    let mut live = BTreeMap::new();
    for (name, node) in &cluster.nodes {
        let mut gpus = BTreeSet::new();
        for (try_id, held) in &node.live {
            for gpu in &held.lease.gpus {
                if !gpus.insert(*gpu) || node.free_gpus.contains(gpu) {
                    return Err(format!("gpu {gpu} of {name} is leased twice"));
                }
            }
            if live.insert(held.task, (name.clone(), *try_id)).is_some() {
                return Err(format!("{} has two tries", held.task));
            }
        }
        // A node that came back smaller may hold more than it has now; then nothing of it is free.
        let (whole, held) = (&node.facts.resources, node.held());
        let exact = held.plus(&node.free).cores == whole.cores.max(held.cores)
            && held.plus(&node.free).memory == whole.memory.max(held.memory)
            && node.free.gpus as usize == node.free_gpus.len()
            && node.free_gpus.last().is_none_or(|gpu| usize::from(*gpu) < node.facts.gpus.len());
        if !exact {
            return Err(format!("{name} has {whole}, leased {held} and calls {} free", node.free));
        }
        if node.strays.iter().any(|try_id| node.live.contains_key(try_id)) {
            return Err(format!("{name} has a try that is live and given up"));
        }
    }
    Ok(live)
}

/// A task is live exactly where a lease says so, and the counts are the states' sums.
fn tasks(cluster: &Cluster, live: &BTreeMap<TaskId, (String, TryId)>) -> Result<(), String> {
    let mut seen = 0;
    for (id, job) in &cluster.jobs {
        let fresh: u32 = job.fresh.iter().map(|(first, last)| last - first + 1).sum();
        let mut counts = TaskCounts { wait: fresh, ..TaskCounts::default() };
        for (index, task) in &job.tasks {
            *slot(&mut counts, &task.state) += 1;
            let held = live.get(&id.task(*index));
            let fits = match (task.state.live(), held) {
                (Some((_, mine)), Some((node, theirs))) => {
                    mine == *theirs && task.node.as_ref() == Some(node)
                }
                (None, None) => true,
                _ => false,
            };
            if !fits {
                return Err(format!("{id}.{index} is {:?} and its lease is {held:?}", task.state));
            }
            seen += usize::from(held.is_some());
            let soon = job.again.contains(index);
            let later = cluster.backoffs.contains(&(task.ready, id.task(*index)));
            if (task.state == TaskState::Waiting) != (soon != later) || (soon && later) {
                return Err(format!("{id}.{index} is {:?} and not in one queue", task.state));
            }
        }
        if counts != job.counts {
            return Err(format!("{id} counts {:?} and has {counts:?}", job.counts));
        }
        let class = cluster.queue.get(&job.kind);
        let queued = class.is_some_and(|class| class.jobs.contains(&job.place()));
        if queued != job.wants_placement() {
            return Err(format!("{id} is queued: {queued}, and wants to be: {}", !queued));
        }
    }
    if seen == live.len() { Ok(()) } else { Err("a lease belongs to no task".into()) }
}
