//! The jobs of a simulated cluster: every kind of request that there is, drawn from the seed.
//!
//! The work of a task is a command whose last argument says how long it takes; `broken` in it fails
//! whenever it runs.

use gantry_model::{
    Array, Dependency, DependencyKind, DependencyScope, Gang, GpuDemand, GpuPart, IndexSet, JobId,
    JobSpec, MemoryMib, Millis, Preemption, Resources, Sharing, Warning, Work,
};

use crate::hardware::{INSTANCES, LABELS};
use crate::process::AGAIN_CODE;
use crate::random::Random;
use crate::site::{LICENCES, groups_of};
use crate::trace::name;

/// Of a thousand jobs so many may be stopped to make room, and so many are urgent.
const PREEMPTIBLE_PERMILLE: u64 = 250;
const URGENT_PERMILLE: u64 = 60;

/// Elements wait for those of so many jobs, the newest.
const NEWEST: usize = 4;

/// Draws a job of a user, which may come after some that are open.
pub(crate) fn job(random: &mut Random, user: &str, open: &[JobId], servers: usize) -> JobSpec {
    let kind = random.below(10);
    let takes = random.duration(Millis::from_seconds(2), Millis::from_seconds(900));
    let word = *random.pick(&["segment", "train", "register", "convert", "predict"]);
    let broken = if random.chance(20) { "broken" } else { "sound" };
    let arguments = [word, broken, &takes.to_string()].map(str::to_owned).to_vec();
    let mut spec = JobSpec::new(word, Work::Command { arguments, folder: None });
    let cores = random.between(1, 8) as u32;
    let memory = MemoryMib(random.between(1, 16) * 1024);
    spec.resources = Resources { cores, memory, ..Resources::default() };
    times(&mut spec, takes, random);
    standing(&mut spec, user, random);
    match kind {
        0..=1 => {}
        2..=4 => array(&mut spec, random),
        5..=7 => gpus(&mut spec, random),
        8 => gang(&mut spec, random),
        _ => {
            array(&mut spec, random);
            after(&mut spec, random, open);
        }
    }
    place(&mut spec, random, servers);
    spec
}

/// Its limit, its warning and its retries.
fn times(spec: &mut JobSpec, takes: Millis, random: &mut Random) {
    spec.retries = random.between(0, 3) as u8;
    if random.chance(150) {
        spec.retry_codes = [AGAIN_CODE].into();
    }
    spec.estimate = random.chance(500).then_some(takes);
    if random.chance(300) {
        let limit = Millis(takes.0 + takes.0 / random.between(1, 8));
        spec.time_limit = Some(limit);
        let before = Millis(limit.0 / 4);
        spec.warning = random.chance(500).then_some(Warning { signal: 10, before });
    }
}

/// How it stands to others: group, priority, and whether it gives way.
fn standing(spec: &mut JobSpec, user: &str, random: &mut Random) {
    spec.priority = random.between(0, 4) as i32 - 2;
    if random.chance(PREEMPTIBLE_PERMILLE) {
        spec.preemption = Preemption::Requeue;
        spec.priority = spec.priority.min(0);
    } else if random.chance(URGENT_PERMILLE) {
        spec.priority = 15;
    }
    if random.chance(150) {
        spec.group = Some((*random.pick(&groups_of(user))).to_owned());
    }
    spec.held = random.chance(15);
    if random.chance(80) {
        let (licence, all) = *random.pick(&LICENCES);
        let count = random.between(1, u64::from(all / 3)) as u32;
        spec.licences = [(licence.to_owned(), count)].into();
    }
}

/// Where it may go.
fn place(spec: &mut JobSpec, random: &mut Random, servers: usize) {
    if random.chance(60) {
        spec.labels = [(*random.pick(&LABELS)).to_owned()].into();
    } else if spec.array.is_none() && random.chance(30) {
        spec.node = Some(name(random.below(servers as u64) as usize));
    }
    if random.chance(60) {
        spec.resources.scratch = MemoryMib(random.between(1, 8) * 65_536);
    }
}

fn array(spec: &mut JobSpec, random: &mut Random) {
    let count = random.between(2, 60) as u32;
    let at_once_max = random.chance(300).then(|| random.between(2, 8) as u32);
    spec.array = Some(Array { indices: IndexSet::first(count), at_once_max });
    if random.chance(30) {
        spec.array = Some(Array { indices: IndexSet::first(3), at_once_max });
        spec.sharing = Sharing::Exclusive;
    }
}

fn gpus(spec: &mut JobSpec, random: &mut Random) {
    spec.resources.gpus = *random.pick(&[1, 1, 1, 2, 4]);
    let one = spec.resources.gpus == 1;
    let part = match random.below(3) {
        0 if one => GpuPart::Share(*random.pick(&[100, 250, 300, 500])),
        1 if one => GpuPart::Mig(random.pick(&INSTANCES).0.to_owned()),
        _ => GpuPart::Whole,
    };
    if let (GpuPart::Mig(profile), true) = (&part, random.chance(200)) {
        // There are two of the smallest.
        spec.resources.gpus = if profile == INSTANCES[3].0 { 2 } else { 1 };
    }
    let model = random.chance(200).then(|| "h100".to_owned());
    let memory = MemoryMib(if random.chance(200) { 10 * 1024 } else { 0 });
    spec.gpu = GpuDemand { part, model, memory };
    if random.chance(400) {
        let indices = IndexSet::first(random.between(2, 8) as u32);
        spec.array = Some(Array { indices, at_once_max: None });
    }
}

fn gang(spec: &mut JobSpec, random: &mut Random) {
    let ranks = *random.pick(&[2, 2, 4, 8]);
    let nodes = random.chance(400).then_some(2);
    spec.gang = Some(Gang { ranks, nodes });
    spec.resources.gpus = *random.pick(&[0, 1, 1, 2]);
    spec.resources.cores = spec.resources.cores.min(4);
}

fn after(spec: &mut JobSpec, random: &mut Random, open: &[JobId]) {
    for _ in 0..random.between(1, 2) {
        if open.is_empty() {
            return;
        }
        let kinds =
            [DependencyKind::Ok, DependencyKind::Ok, DependencyKind::Any, DependencyKind::Fail];
        let kind = *random.pick(&kinds);
        let element = random.chance(600);
        if element {
            // Every element needs one of the same index.
            let indices = IndexSet::first(2);
            spec.array = Some(Array { indices, at_once_max: None });
        }
        let scope = if element { DependencyScope::Element } else { DependencyScope::Job };
        // The newest ones may wait for one another.
        let newest = &open[open.len().saturating_sub(NEWEST)..];
        let job = *random.pick(if element { newest } else { open });
        spec.after.push(Dependency { job, kind, scope });
    }
}
