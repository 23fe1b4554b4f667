//! What a node has free, and what of it a task would get.
//!
//! [`Room`] is a value: placement asks the real one, and backfill asks what it would be like once
//! some leases have ended. Both answers come from the same functions.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use gantry_model::{
    GPU_WHOLE, Gpu, GpuDemand, GpuPart, Lease, MemoryMib, NodeFacts, Resources, Sharing,
};
use serde::{Deserialize, Serialize};

use crate::kind::Kind;

/// The free part of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Room {
    /// Free cores, memory and scratch, and devices of which nothing is leased.
    pub(crate) free: Resources,
    /// How much of each device is leased, in thousandths.
    pub(crate) used_permille: Vec<u16>,
    /// Leases that are held.
    pub(crate) leases: u32,
    /// Leases that bear no other job beside them.
    pub(crate) exclusive: u32,
}

impl Room {
    pub(crate) fn whole(facts: &NodeFacts) -> Self {
        Self {
            free: facts.resources,
            used_permille: vec![0; facts.gpus.len()],
            leases: 0,
            exclusive: 0,
        }
    }

    /// How many tasks of a kind have room at once.
    pub(crate) fn capacity(&self, gpus: &[Gpu], kind: &Kind) -> u32 {
        let alone = kind.sharing == Sharing::Exclusive;
        if self.exclusive > 0 || (alone && self.leases > 0) {
            return 0;
        }
        let asked = &kind.resources;
        let parts = |free: u64, asked: u64| free.checked_div(asked).unwrap_or(u64::MAX);
        let count = parts(u64::from(self.free.cores), u64::from(asked.cores))
            .min(parts(self.free.memory.0, asked.memory.0))
            .min(parts(self.free.scratch.0, asked.scratch.0));
        let devices = if asked.gpus == 0 { u64::MAX } else { self.slots(gpus, kind) };
        u32::try_from(count.min(devices)).unwrap_or(u32::MAX)
    }

    /// For how many tasks there are devices.
    fn slots(&self, gpus: &[Gpu], kind: &Kind) -> u64 {
        let devices = self.used_permille.iter().zip(gpus).filter(|(_, gpu)| suits(gpu, &kind.gpu));
        if let GpuPart::Share(share) = kind.gpu.part {
            let each = |used: &u16| u64::from((GPU_WHOLE - used) / share.max(1));
            return devices.map(|(used, _)| each(used)).sum();
        }
        let free = devices.filter(|(used, _)| **used == 0).count() as u64;
        free / u64::from(kind.resources.gpus)
    }

    /// The lease that a task of a kind would get, if it has room.
    pub(crate) fn choose(&self, gpus: &[Gpu], kind: &Kind) -> Option<Lease> {
        if self.capacity(gpus, kind) == 0 {
            return None;
        }
        let count = kind.resources.gpus as usize;
        let (gpus, gpu_permille) = match kind.gpu.part {
            _ if count == 0 => (Vec::new(), GPU_WHOLE),
            GpuPart::Share(share) => (vec![self.fullest(gpus, &kind.gpu, share)?], share),
            GpuPart::Whole | GpuPart::Mig(_) => (self.together(gpus, &kind.gpu, count)?, GPU_WHOLE),
        };
        Some(Lease { resources: kind.resources, gpus, gpu_permille })
    }

    /// The device that has just room for a share: full ones leave whole ones for others.
    fn fullest(&self, gpus: &[Gpu], demand: &GpuDemand, share: u16) -> Option<u16> {
        let fits = |index: &usize| {
            suits(&gpus[*index], demand) && self.used_permille[*index] + share <= GPU_WHOLE
        };
        let all = (0..self.used_permille.len().min(gpus.len())).filter(fits);
        let best = all.max_by_key(|index| (self.used_permille[*index], Reverse(*index)))?;
        Some(best as u16)
    }

    /// Free devices of one `NVLink` island and one NUMA node where one has enough: the smallest such,
    /// so that larger ones stay whole. Otherwise of as few islands as do it.
    fn together(&self, gpus: &[Gpu], demand: &GpuDemand, count: usize) -> Option<Vec<u16>> {
        let mut places: BTreeMap<(u16, Option<u16>), Vec<u16>> = BTreeMap::new();
        let mut islands: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
        for (index, gpu) in gpus.iter().enumerate().take(self.used_permille.len()) {
            if self.used_permille[index] == 0 && suits(gpu, demand) {
                places.entry((gpu.island, gpu.numa)).or_default().push(index as u16);
                islands.entry(gpu.island).or_default().push(index as u16);
            }
        }
        let smallest = |sets: Vec<&Vec<u16>>| {
            let enough = sets.into_iter().filter(|set| set.len() >= count);
            enough.min_by_key(|set| set.len()).cloned()
        };
        let one =
            smallest(places.values().collect()).or_else(|| smallest(islands.values().collect()));
        let mut chosen = one.unwrap_or_else(|| {
            let mut sets: Vec<Vec<u16>> = islands.into_values().collect();
            sets.sort_by_key(|set| Reverse(set.len()));
            sets.concat()
        });
        chosen.truncate(count);
        chosen.sort_unstable();
        (chosen.len() == count).then_some(chosen)
    }

    /// Takes a lease.
    ///
    /// # Panics
    /// Where less is free than it holds.
    pub(crate) fn take(&mut self, lease: &Lease, sharing: Sharing) {
        let gpus = self.free.gpus;
        let amounts = Resources { gpus: 0, ..lease.resources };
        self.free = self.free.minus(&amounts);
        for index in &lease.gpus {
            let used = &mut self.used_permille[usize::from(*index)];
            *used += lease.gpu_permille;
            assert!(*used <= GPU_WHOLE, "gpu {index} is leased beyond a whole");
        }
        self.free.gpus = self.whole_free();
        assert!(self.free.gpus <= gpus, "a lease made gpus free");
        self.leases += 1;
        self.exclusive += u32::from(sharing == Sharing::Exclusive);
    }

    /// Gives a lease back to a node that has all it had.
    pub(crate) fn give_back(&mut self, lease: &Lease, sharing: Sharing) {
        self.free = self.free.plus(&Resources { gpus: 0, ..lease.resources });
        for index in &lease.gpus {
            self.used_permille[usize::from(*index)] -= lease.gpu_permille;
        }
        self.free.gpus = self.whole_free();
        self.leases -= 1;
        self.exclusive -= u32::from(sharing == Sharing::Exclusive);
    }

    fn whole_free(&self) -> u32 {
        self.used_permille.iter().filter(|used| **used == 0).count() as u32
    }

    /// Whether leases hold more than a node with these facts has.
    pub(crate) fn is_over<'a>(facts: &NodeFacts, held: impl Iterator<Item = &'a Lease>) -> bool {
        let mut sum = Resources::default();
        let mut gone = false;
        for lease in held {
            sum = sum.plus(&Resources { gpus: 0, ..lease.resources });
            gone |= lease.gpus.iter().any(|index| usize::from(*index) >= facts.gpus.len());
        }
        gone || !facts.resources.hold(&sum)
    }

    /// What a node with these facts has free while these leases are held. One that came back
    /// smaller than its leases has nothing free until enough of them have ended.
    pub(crate) fn left<'a>(
        facts: &NodeFacts,
        held: impl Iterator<Item = (&'a Lease, Sharing)>,
    ) -> Self {
        let mut room = Self::whole(facts);
        let mut sum = Resources::default();
        for (lease, sharing) in held {
            sum = sum.plus(&lease.resources);
            for index in &lease.gpus {
                if let Some(used) = room.used_permille.get_mut(usize::from(*index)) {
                    *used = used.saturating_add(lease.gpu_permille);
                }
            }
            room.leases += 1;
            room.exclusive += u32::from(sharing == Sharing::Exclusive);
        }
        // Of what is marked nothing is free.
        for (used, gpu) in room.used_permille.iter_mut().zip(&facts.gpus) {
            if gpu.unfit.is_some() {
                *used = (*used).max(GPU_WHOLE);
            }
        }
        let less = |whole: MemoryMib, held: MemoryMib| MemoryMib(whole.0.saturating_sub(held.0));
        room.free = Resources {
            cores: facts.resources.cores.saturating_sub(sum.cores),
            memory: less(facts.resources.memory, sum.memory),
            gpus: room.whole_free(),
            scratch: less(facts.resources.scratch, sum.scratch),
        };
        room
    }
}

/// Whether a device is what a demand asks for.
pub(crate) fn suits(gpu: &Gpu, demand: &GpuDemand) -> bool {
    let part = match &demand.part {
        GpuPart::Whole | GpuPart::Share(_) => gpu.mig.is_none(),
        GpuPart::Mig(profile) => gpu.mig.as_ref() == Some(profile),
    };
    let named = |model: &String| gpu.name.to_lowercase().contains(&model.to_lowercase());
    part && gpu.memory >= demand.memory && demand.model.as_ref().is_none_or(named)
}
