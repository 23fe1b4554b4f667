//! Kinds of request: tasks that are alike to placement.
//!
//! A kind is kept once and named by a number, so that the queue and the search handle numbers, and
//! a hundred thousand jobs of a hundred kinds cost a hundred searches.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{Builtin, Gang, GpuDemand, JobSpec, Millis, Resources, Role, Sharing, Work};
use serde::{Deserialize, Serialize};

/// A kind's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct KindId(u32);

/// All that placement asks of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Kind {
    pub(crate) resources: Resources,
    pub(crate) gpu: GpuDemand,
    pub(crate) labels: BTreeSet<String>,
    pub(crate) sharing: Sharing,
    pub(crate) licences: BTreeMap<String, u32>,
    pub(crate) gang: Option<Gang>,
    pub(crate) node: Option<String>,
    pub(crate) role: Option<Role>,
    /// How long a try takes at most, where its owner said so.
    pub(crate) duration: Option<Millis>,
}

impl Kind {
    pub(crate) fn of(spec: &JobSpec) -> Self {
        let role = match &spec.work {
            Work::Builtin(Builtin::Train { .. }) => Some(Role::Gpu),
            Work::Builtin(Builtin::Preprocess { .. } | Builtin::Predict { .. }) => Some(Role::Cpu),
            Work::Command { .. } => None,
        };
        Self {
            resources: spec.resources,
            gpu: spec.gpu.clone(),
            labels: spec.labels.clone(),
            sharing: spec.sharing,
            licences: spec.licences.clone(),
            gang: spec.gang,
            node: spec.node.clone(),
            role,
            duration: spec.estimate.into_iter().chain(spec.time_limit).min(),
        }
    }

    /// The tasks that start together.
    pub(crate) fn together(&self) -> u32 {
        self.gang.map_or(1, |gang| gang.ranks)
    }
}

/// The role that is asked for, if one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked(pub(crate) Option<Role>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    kind: Kind,
    /// Jobs of it that have not ended.
    jobs: u32,
    /// The role that is asked for, as of a generation of the nodes.
    role: Option<(u64, Asked)>,
}

/// Every kind of which a job has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kinds {
    ids: BTreeMap<Kind, KindId>,
    entries: BTreeMap<KindId, Entry>,
    made: u32,
}

impl Kinds {
    /// The number of a kind, for one more job of it.
    pub(crate) fn enter(&mut self, kind: Kind) -> KindId {
        let id = *self.ids.entry(kind.clone()).or_insert_with(|| {
            self.made += 1;
            KindId(self.made)
        });
        let entry = self.entries.entry(id).or_insert(Entry { kind, jobs: 0, role: None });
        entry.jobs += 1;
        id
    }

    /// One job of a kind less.
    pub(crate) fn leave(&mut self, id: KindId) {
        let Some(entry) = self.entries.get_mut(&id) else { unreachable!("a kind left twice") };
        entry.jobs -= 1;
        if entry.jobs == 0
            && let Some(entry) = self.entries.remove(&id)
        {
            self.ids.remove(&entry.kind);
        }
    }

    pub(crate) fn get(&self, id: KindId) -> &Kind {
        let Some(entry) = self.entries.get(&id) else { unreachable!("a kind with jobs is kept") };
        &entry.kind
    }

    /// The role that is asked for, where it was worked out in this generation of the nodes.
    pub(crate) fn role(&self, id: KindId, generation: u64) -> Option<Asked> {
        let (known, role) = self.entries.get(&id)?.role?;
        (known == generation).then_some(role)
    }

    pub(crate) fn keep_role(&mut self, id: KindId, generation: u64, role: Option<Role>) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.role = Some((generation, Asked(role)));
        }
    }

    /// How many jobs each kind has.
    pub(crate) fn counts(&self) -> BTreeMap<KindId, u32> {
        self.entries.iter().map(|(id, entry)| (*id, entry.jobs)).collect()
    }
}
