//! The rules that a launch must keep.

use std::collections::{BTreeMap, BTreeSet};

use gantry_cluster::Cluster;
use gantry_model::{
    At, DependencyKind, DependencyScope, GpuPart, JobId, JobState, Launch, Millis, Resources,
    Sharing, TaskId,
};

use super::nodes::Door;
use super::{Books, Entry, Place};
use crate::trace::name;

/// A task that says nothing of its length does not start so close before a window.
const HORIZON: Millis = Millis::from_seconds(86_400);

impl Books {
    /// Whether a try may be launched on a server, before it holds anything.
    pub(super) fn check_launch(
        &self,
        at: At,
        server: usize,
        launch: &Launch,
        cluster: &Cluster,
    ) -> Result<(), String> {
        let task = launch.task;
        let Some(entry) = self.jobs.get(&task.job) else {
            return Err(format!("{task} is launched and its job is not open"));
        };
        let Some(place) = self.places.get(&server) else {
            return Err(format!("{task} is launched on {}, which nobody knows", name(server)));
        };
        if launch.try_id <= self.newest {
            return Err(format!("{} is launched after {}", launch.try_id, self.newest));
        }
        if self.ahead.values().any(|(_, other)| other.task == task) {
            return Err(format!("{task} is launched and waits on a node"));
        }
        may_start(task, entry)?;
        same_terms(launch, entry)?;
        is_open(at, server, place, launch, entry)?;
        place.is_fit_for(server, launch)?;
        suits(server, place, launch, entry)?;
        self.has_room(server, place, launch, entry)?;
        self.has_quota(launch, entry)?;
        self.comes_after(task, entry, cluster)
    }

    /// Whether a try may wait on a server for a lease of its job.
    pub(super) fn check_ahead(
        &self,
        at: At,
        server: usize,
        launch: &Launch,
        cluster: &Cluster,
    ) -> Result<(), String> {
        let task = launch.task;
        let (Some(entry), Some(place)) = (self.jobs.get(&task.job), self.places.get(&server))
        else {
            return Err(format!("{task} is launched ahead; its job or its node is not known"));
        };
        if launch.try_id <= self.newest {
            return Err(format!("{} is launched after {}", launch.try_id, self.newest));
        }
        let waits = self.ahead.values().find(|(_, other)| other.task == task);
        if let Some((other, _)) = waits {
            return Err(format!("{task} is launched ahead and waits on {}", name(*other)));
        }
        if entry.spec.gang.is_some() || entry.spec.resources.gpus > 0 {
            return Err(format!("{task} is launched ahead and needs more than a node's cores"));
        }
        let runs = self.on(server).any(|lease| lease.task.job == task.job);
        if !runs {
            return Err(format!("{task} waits on {} for a lease that is not there", name(server)));
        }
        may_start(task, entry)?;
        same_terms(launch, entry)?;
        is_open(at, server, place, launch, entry)?;
        suits(server, place, launch, entry)?;
        self.comes_after(task, entry, cluster)
    }

    /// A node never gives more than it has, nor a device twice.
    fn has_room(
        &self,
        server: usize,
        place: &Place,
        launch: &Launch,
        entry: &Entry,
    ) -> Result<(), String> {
        let (task, node) = (launch.task, name(server));
        let mut sum = Resources { gpus: 0, ..launch.lease.resources };
        let uuids = place.uuids(&launch.lease.gpus);
        let mut used: BTreeMap<&str, u32> = BTreeMap::new();
        for uuid in &uuids {
            *used.entry(uuid).or_default() += u32::from(launch.lease.gpu_permille);
        }
        let alone = |job: &JobId| {
            self.jobs.get(job).is_some_and(|other| other.spec.sharing == Sharing::Exclusive)
        };
        for lease in self.on(server) {
            sum = sum.plus(&Resources { gpus: 0, ..lease.amounts });
            for uuid in &lease.gpus {
                *used.entry(uuid).or_default() += u32::from(lease.permille);
            }
            if alone(&lease.task.job) || entry.spec.sharing == Sharing::Exclusive {
                return Err(format!("{task} gets {node} beside {}, one of them alone", lease.task));
            }
        }
        if !place.facts.resources.hold(&sum) {
            let whole = place.facts.resources;
            return Err(format!("{task} gets {node}, which has {whole} and gives {sum}"));
        }
        let twice = uuids.iter().find(|uuid| used.get(uuid.as_str()).is_some_and(|u| *u > 1000));
        match twice {
            None => Ok(()),
            Some(uuid) if uuid.starts_with("MIG") => {
                Err(format!("{task} gets the instance {uuid}, which another try has"))
            }
            Some(uuid) => Err(format!("{task} gets {uuid} beyond a whole: {used:?}")),
        }
    }

    /// No group beyond its limit, and no licence beyond its count.
    fn has_quota(&self, launch: &Launch, entry: &Entry) -> Result<(), String> {
        let (task, group) = (launch.task, &entry.group);
        let held = self.held.get(group).copied().unwrap_or_default();
        let held = held.plus(&launch.lease.resources);
        let limit = self.settings.groups.get(group).and_then(|group| group.limit);
        if let Some(limit) = limit.filter(|limit| exceeds(&held, limit)) {
            return Err(format!("with {task} group {group} holds {held}, beyond its {limit}"));
        }
        for (licence, count) in &entry.spec.licences {
            let all = self.settings.licences.get(licence).copied().unwrap_or(0);
            let held = self.licences.get(licence).copied().unwrap_or(0) + count;
            if held > all {
                return Err(format!("with {task} {held} of the {all} licences {licence} are held"));
            }
        }
        Ok(())
    }

    /// What it comes after has ended as it asks.
    fn comes_after(&self, task: TaskId, entry: &Entry, cluster: &Cluster) -> Result<(), String> {
        for after in &entry.spec.after {
            let over = self.ended.get(&after.job);
            let met = match (after.scope, after.kind) {
                (DependencyScope::Job, DependencyKind::Any) => over.is_some(),
                (DependencyScope::Job, DependencyKind::Ok) => {
                    over.is_some_and(|over| over.state == JobState::Done)
                }
                (DependencyScope::Job, DependencyKind::Fail) => {
                    over.is_some_and(|over| over.state == JobState::Fail)
                }
                (DependencyScope::Element, DependencyKind::Ok) => {
                    let well = over.map(|over| &over.well);
                    let well = well.or_else(|| Some(&self.jobs.get(&after.job)?.well));
                    well.is_some_and(|well| well.contains(&task.index))
                }
                (DependencyScope::Element, kind) => {
                    let rows = cluster.tasks(after.job, task.index, 1);
                    let word = rows.and_then(|(rows, _)| Some(rows.first()?.state.clone()));
                    let word = word.unwrap_or_default();
                    word == "fail"
                        || (kind == DependencyKind::Any && (word == "done" || word == "cancel"))
                }
            };
            if !met {
                return Err(format!("{task} is launched before what it comes after: {after:?}"));
            }
        }
        Ok(())
    }

    /// The launches of one event: a gang starts whole and meets at one place, and an array stays
    /// under its cap.
    pub(super) fn check_together(&self, job: JobId, launches: &[&Launch]) -> Result<(), String> {
        let Some(entry) = self.jobs.get(&job) else { return Ok(()) };
        let cap = entry.spec.array.as_ref().and_then(|array| array.at_once_max);
        if let Some(cap) = cap.filter(|cap| entry.live.len() > *cap as usize) {
            let run = entry.live.len();
            return Err(format!("{run} tasks of {job} run, beyond its cap of {cap}"));
        }
        let Some(gang) = entry.spec.gang else { return Ok(()) };
        let indices: BTreeSet<u32> = launches.iter().map(|launch| launch.task.index).collect();
        if indices.len() != gang.ranks as usize {
            return Err(format!("{} of {} ranks of {job} are launched", indices.len(), gang.ranks));
        }
        let said = |launch: &Launch, key: &str| launch.environment.get(key).cloned();
        let server = |launch: &Launch| self.leases.get(&launch.try_id).map(|lease| lease.server);
        let nodes: BTreeSet<Option<usize>> = launches.iter().map(|l| server(l)).collect();
        if gang.nodes.is_some_and(|count| nodes.len() != count as usize) {
            return Err(format!("{job} is spread over {} nodes", nodes.len()));
        }
        let first = launches.iter().find(|launch| launch.task.index == 0);
        let home = first.and_then(|launch| self.places.get(&server(launch)?));
        let address = home.map(|place| place.facts.address.clone());
        let port = first.and_then(|launch| said(launch, "MASTER_PORT"));
        let mut local: BTreeMap<Option<usize>, BTreeSet<Option<String>>> = BTreeMap::new();
        for launch in launches {
            let rank = launch.task.index.to_string();
            let meets = said(launch, "MASTER_ADDR") == address
                && port.is_some()
                && said(launch, "MASTER_PORT") == port
                && said(launch, "RANK") == Some(rank)
                && said(launch, "WORLD_SIZE") == Some(gang.ranks.to_string());
            if !meets
                || !local.entry(server(launch)).or_default().insert(said(launch, "LOCAL_RANK"))
            {
                return Err(format!(
                    "{} cannot find its gang: {:?}",
                    launch.task, launch.environment
                ));
            }
        }
        let mut ports = BTreeSet::new();
        let others = self.leases.values().filter_map(|lease| Some((lease.server, lease.port?)));
        let twice = others.into_iter().find(|meeting| !ports.insert(*meeting));
        match twice {
            None => Ok(()),
            Some((at, port)) => Err(format!("two gangs meet at port {port} of {}", name(at))),
        }
    }
}

/// Whether an amount is beyond a limit, whose parts that are zero limit nothing.
pub(super) fn exceeds(sum: &Resources, limit: &Resources) -> bool {
    let beyond = |sum: u64, limit: u64| limit > 0 && sum > limit;
    beyond(u64::from(sum.cores), u64::from(limit.cores))
        || beyond(u64::from(sum.gpus), u64::from(limit.gpus))
        || beyond(sum.memory.0, limit.memory.0)
}

/// Nothing keeps the task itself from starting.
fn may_start(task: TaskId, entry: &Entry) -> Result<(), String> {
    if entry.held || entry.parked.contains(&task.index) {
        return Err(format!("{task} is launched and is held"));
    }
    if let Some(other) = entry.live.get(&task.index) {
        return Err(format!("{task} is launched and runs as {other}"));
    }
    if entry.over.contains(&task.index) {
        return Err(format!("{task} is launched; it has failed for good, or was cancelled"));
    }
    if entry.spec.gang.is_none() && entry.well.contains(&task.index) {
        return Err(format!("{task} is launched and has ended well"));
    }
    Ok(())
}

/// The order says what the job does.
fn same_terms(launch: &Launch, entry: &Entry) -> Result<(), String> {
    let task = launch.task;
    let limit = entry.time_limit(task.index);
    if launch.time_limit != limit || launch.warning != entry.spec.warning {
        let (said, warning) = (launch.time_limit, launch.warning);
        return Err(format!("{task} gets the limit {said:?} and {warning:?}, not {limit:?}"));
    }
    let starts = entry.starts.get(&task.index).copied().unwrap_or(0);
    if launch.start != starts + 1 {
        return Err(format!("{task} counts start {} after {starts}", launch.start));
    }
    let whole = launch.lease.resources == entry.spec.resources;
    if !whole || launch.lease.gpus.len() != entry.spec.resources.gpus as usize {
        return Err(format!("{task} gets {:?}, not what it asks for", launch.lease));
    }
    Ok(())
}

/// The node takes work, for as long as the task may take.
fn is_open(
    at: At,
    server: usize,
    place: &Place,
    launch: &Launch,
    entry: &Entry,
) -> Result<(), String> {
    let (task, node) = (launch.task, name(server));
    match place.door {
        Door::Open => {}
        Door::Drained { .. } => {
            return Err(format!("{task} is launched on {node}, a drained node"));
        }
        Door::Quarantined => {
            return Err(format!("{task} is launched on {node}, a node in quarantine"));
        }
    }
    if !place.is_up() {
        return Err(format!("{task} is launched on {node}, whose connection is gone"));
    }
    let takes = launch.time_limit.into_iter().chain(entry.spec.estimate).min().unwrap_or(HORIZON);
    let ends = at.after(takes);
    let window = place.windows.iter().find(|window| window.until > at && window.from < ends);
    match window {
        None => Ok(()),
        Some(window) => Err(format!("{task} is launched on {node} into a window: {window:?}")),
    }
}

/// The node is one that the job asks for, and so are the devices.
fn suits(server: usize, place: &Place, launch: &Launch, entry: &Entry) -> Result<(), String> {
    let (task, spec) = (launch.task, &entry.spec);
    let node = name(server);
    if spec.node.as_ref().is_some_and(|wanted| *wanted != node) {
        return Err(format!("{task} is launched on {node}, not on {:?}", spec.node));
    }
    if !spec.labels.is_subset(&place.facts.labels) {
        return Err(format!("{task} is launched on {node}, which lacks {:?}", spec.labels));
    }
    let mut seen = BTreeSet::new();
    for index in &launch.lease.gpus {
        let Some(gpu) = place.facts.gpus.get(usize::from(*index)) else {
            return Err(format!("{task} gets gpu {index} of {node}, which is not there"));
        };
        let part = match &spec.gpu.part {
            GpuPart::Whole => gpu.mig.is_none() && launch.lease.gpu_permille == 1000,
            GpuPart::Share(share) => gpu.mig.is_none() && launch.lease.gpu_permille == *share,
            GpuPart::Mig(profile) => gpu.mig.as_ref() == Some(profile),
        };
        if !part || gpu.memory < spec.gpu.memory || !seen.insert(index) {
            return Err(format!("{task} gets {gpu:?} and asks for {:?}", spec.gpu));
        }
    }
    Ok(())
}
