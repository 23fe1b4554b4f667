//! The invariants, proved from the state alone.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{JobState, NodeId, Resources, TaskCounts, TaskId, TaskState, TryId};

use crate::accounts::weight;
use crate::cluster::Cluster;
use crate::job::{Job, slot};

/// Live tries, by task.
type Leases = BTreeMap<TaskId, (NodeId, TryId)>;

/// Proves that leases, tasks, counts, quotas and the queue agree with one another.
pub(crate) fn check(cluster: &Cluster) -> Result<(), String> {
    let live = leases(cluster)?;
    waits(cluster)?;
    quotas(cluster)?;
    marks(cluster)?;
    jobs(cluster, &live)?;
    numbers(cluster)
}

/// No node gives more than it has, no GPU beyond a whole, and no task has two tries.
fn leases(cluster: &Cluster) -> Result<Leases, String> {
    let mut live = Leases::new();
    for node in &cluster.nodes {
        let name = node.name();
        for (try_id, held) in &node.live {
            if live.insert(held.task, (node.id, *try_id)).is_some() {
                return Err(format!("{} has two tries", held.task));
            }
        }
        if node.room != node.recount() {
            return Err(format!("{name} calls {:?} free and has {:?}", node.room, node.recount()));
        }
        if node.room.used_permille.iter().any(|used| *used > gantry_model::GPU_WHOLE) {
            return Err(format!("a gpu of {name} is leased beyond a whole"));
        }
        let exclusive =
            node.live.values().filter(|live| live.sharing == gantry_model::Sharing::Exclusive);
        let jobs: BTreeSet<_> = node.live.values().map(|live| live.task.job).collect();
        if exclusive.count() > 0 && jobs.len() > 1 {
            return Err(format!("a task has {name} alone and {jobs:?} run there"));
        }
        if node.strays.iter().any(|try_id| node.live.contains_key(try_id)) {
            return Err(format!("{name} has a try that is live and given up"));
        }
        let stoppable =
            |live: &&crate::node::Live| live.preemption == gantry_model::Preemption::Requeue;
        let stoppable = node.live.values().filter(stoppable).count() as u32;
        if cluster.preemptible.get(&node.id).copied().unwrap_or(0) != stoppable {
            return Err(format!(
                "{name} has {stoppable} tasks that may be stopped, not as counted"
            ));
        }
        let armed = node.armed.is_none_or(|armed| cluster.timers.contains(&(armed, node.id)));
        if !armed {
            return Err(format!("{name} has lost its timer"));
        }
        if !cluster.is_member(node) {
            let fresh = crate::node::Node::new(node.id, node.facts.clone(), node.since);
            let fresh = crate::node::Node { state: node.state, handed: node.handed, ..fresh };
            if *node != fresh || cluster.timers.iter().any(|(_, id)| *id == node.id) {
                return Err(format!("{name} was forgotten, and something of it is left"));
            }
        }
    }
    Ok(live)
}

/// A task waits on a node exactly where its state says so, and its job may be there.
fn waits(cluster: &Cluster) -> Result<(), String> {
    let mut known = Leases::new();
    for node in &cluster.nodes {
        for (job, tries) in &node.ahead {
            if tries.is_empty() || tries.values().any(|ahead| ahead.task.job != *job) {
                return Err(format!("{} has nothing, or others, waiting for {job}", node.name()));
            }
            known.extend(tries.iter().map(|(try_id, ahead)| (ahead.task, (node.id, *try_id))));
        }
    }
    let states = cluster.jobs.values().flat_map(|job| {
        job.tasks.iter().filter_map(|(index, task)| match task.state {
            TaskState::Ahead { node, try_id } => Some((job.id.task(*index), (node, try_id))),
            _ => None,
        })
    });
    let states: Leases = states.collect();
    if states == known { Ok(()) } else { Err(format!("{states:?} wait on nodes, not {known:?}")) }
}

/// What groups and licences count as held is what leases hold.
fn quotas(cluster: &Cluster) -> Result<(), String> {
    let mut groups: BTreeMap<&str, Resources> = BTreeMap::new();
    let mut rates = BTreeMap::new();
    let mut licences: BTreeMap<&str, u32> = BTreeMap::new();
    for live in cluster.nodes.iter().flat_map(|node| node.live.values()) {
        let group = groups.entry(cluster.accounts.group(live.account)).or_default();
        *group = group.plus(&live.lease.resources);
        *rates.entry(live.account).or_insert(0) += weight(&live.lease);
        let job = cluster.jobs.get(&live.task.job).ok_or("a lease belongs to no job")?;
        for (name, count) in &job.spec.licences {
            *licences.entry(name).or_default() += count;
        }
    }
    for (group, held) in cluster.accounts.held() {
        if groups.get(group).copied().unwrap_or_default() != held {
            return Err(format!("group {group} counts {held} as held and holds {groups:?}"));
        }
    }
    for (account, rate) in cluster.accounts.rates() {
        if rates.get(&account).copied().unwrap_or(0) != rate {
            return Err(format!("{account:?} counts a rate of {rate} and has {rates:?}"));
        }
    }
    for (name, held) in &cluster.licences {
        if licences.get(name.as_str()).copied().unwrap_or(0) != *held {
            return Err(format!("{held} of the licence {name} count as held, not {licences:?}"));
        }
    }
    Ok(())
}

/// A GPU is marked exactly where a trouble says so.
fn marks(cluster: &Cluster) -> Result<(), String> {
    for node in &cluster.nodes {
        let mut again = node.clone();
        again.mark();
        if again != *node {
            return Err(format!("the marks of {} are not what its troubles say", node.name()));
        }
    }
    Ok(())
}

/// A task is live exactly where a lease says so, and the counts are the states' sums.
fn jobs(cluster: &Cluster, live: &Leases) -> Result<(), String> {
    let mut seen = 0;
    for (id, job) in &cluster.jobs {
        let done: u32 = job.done.values().map(crate::ranges::Ranges::count).sum();
        let mut counts = TaskCounts {
            wait: job.fresh.count() + job.locked.count() + parked(job)?,
            cancel: job.cancelled.count(),
            done,
            ..TaskCounts::default()
        };
        let mut on: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (index, task) in &job.tasks {
            *slot(&mut counts, &task.state) += 1;
            if task.state.live() != live.get(&id.task(*index)).copied() {
                let held = live.get(&id.task(*index));
                return Err(format!("{id}.{index} is {:?} and its lease is {held:?}", task.state));
            }
            if let Some((node, _)) = task.state.live() {
                *on.entry(node).or_default() += 1;
                seen += 1;
            }
            let soon = job.again.contains(index);
            let later = cluster.backoffs.contains(&(task.ready, id.task(*index)));
            let held = job.parked.contains(*index);
            // What waits on a node and is held there is on its way back.
            let held = held && !matches!(task.state, TaskState::Ahead { .. });
            let queues = [soon, later, held].iter().filter(|here| **here).count();
            if usize::from(task.state == TaskState::Waiting) != queues {
                return Err(format!("{id}.{index} is {:?} and not in one queue", task.state));
            }
        }
        if counts != job.counts || on != job.on {
            return Err(format!("{id} counts {:?} and has {counts:?}", job.counts));
        }
        queued(cluster, job)?;
        gang(job)?;
    }
    if seen == live.len() { Ok(()) } else { Err("a lease belongs to no task".into()) }
}

/// Elements that were never started and wait for a release alone.
fn parked(job: &Job) -> Result<u32, String> {
    if job.parked.iter().any(|index| job.fresh.contains(index)) {
        return Err(format!("{} has an element that is held and may start", job.id));
    }
    let elsewhere = |index: &u32| job.locked.contains(*index) || job.tasks.contains_key(index);
    Ok(job.parked.iter().filter(|index| !elsewhere(index)).count() as u32)
}

fn queued(cluster: &Cluster, job: &Job) -> Result<(), String> {
    let id = job.id;
    let class = cluster.class_of(id).and_then(|class| cluster.queue.classes.get(&class));
    let queued = class.is_some_and(|class| class.jobs.contains(&id));
    if queued != job.wants_placement() || queued != job.queued {
        return Err(format!("{id} is queued: {queued}, and wants to be: {}", !queued));
    }
    if job.tallied != job.state() {
        return Err(format!("{id} is {:?} and counted as {:?}", job.state(), job.tallied));
    }
    Ok(())
}

/// A gang is live as a whole, or not at all, but for what is on its way out.
fn gang(job: &Job) -> Result<(), String> {
    if !job.is_gang() || job.state() != JobState::Run {
        return Ok(());
    }
    let going = job
        .tasks
        .values()
        .any(|task| matches!(task.state, TaskState::Stopping { .. } | TaskState::Failed(_)));
    if job.counts.wait > 0 && !going {
        return Err(format!("{} runs in part", job.id));
    }
    Ok(())
}

/// The summary's numbers and the kinds are what jobs say.
fn numbers(cluster: &Cluster) -> Result<(), String> {
    let mut tally: BTreeMap<JobState, u32> = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    for job in cluster.jobs.values() {
        *tally.entry(job.state()).or_default() += 1;
        if job.ended.is_none() {
            *kinds.entry(job.kind).or_insert(0_u32) += 1;
        }
    }
    for state in [JobState::Run, JobState::Wait, JobState::Fail, JobState::Cancel, JobState::Done] {
        if tally.get(&state).copied().unwrap_or(0) != cluster.tallied(state) {
            return Err(format!("{} jobs count as {}", cluster.tallied(state), state.word()));
        }
    }
    let mut users: BTreeMap<&str, u32> = BTreeMap::new();
    for job in cluster.jobs.values().filter(|job| job.ended.is_none()) {
        *users.entry(&job.user).or_default() += 1;
    }
    for (user, count) in users {
        if cluster.accounts.open_jobs(user) != count {
            return Err(format!("{user} has {count} open jobs, not as counted"));
        }
    }
    if kinds != cluster.kinds.counts() {
        return Err(format!("kinds count {:?} jobs, not {kinds:?}", cluster.kinds.counts()));
    }
    let kept = cluster.reservation.as_ref();
    let waits = kept.is_none_or(|kept| cluster.jobs.get(&kept.job).is_some_and(|job| job.queued));
    if waits { Ok(()) } else { Err("room is kept for a job that does not wait for it".into()) }
}
