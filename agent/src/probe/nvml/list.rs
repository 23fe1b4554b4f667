//! Which GPUs there are.
//!
//! A GPU that is divided stands for its MIG instances: it is not listed itself, since nothing can
//! have all of it. One that was listed and can no longer be asked stays where it was, so that those
//! behind it keep their places and somebody sees that it is lost; an instance goes with its GPU or,
//! where that was divided anew, is no more.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_model::{Gpu, MemoryMib};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::MIB;
use crate::probe::topology::{self, Ends};

/// `NVLinks` of one GPU, as NVML counts them.
const LINKS_MAX: u32 = 18;

/// Which GPUs an agent may give to work: those that its environment names, as an allocation of Slurm or
/// a container does, all of them where it names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed(Option<Vec<String>>);

impl Allowed {
    /// Reads the value of `CUDA_VISIBLE_DEVICES`: indexes, or beginnings of UUIDs.
    pub(super) fn of(variable: Option<&str>) -> Self {
        let names = |text: &str| {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        };
        Self(variable.map(names))
    }

    fn has(&self, index: u32, uuid: &str) -> bool {
        let named = |names: &Vec<String>| names.iter().any(|name| name.parse() == Ok(index));
        self.0.as_ref().is_none_or(named) || self.has_uuid(uuid)
    }

    fn has_uuid(&self, uuid: &str) -> bool {
        let begins =
            |name: &String| name.parse::<u32>().is_err() && uuid.starts_with(name.as_str());
        self.0.as_ref().is_none_or(|names| names.iter().any(begins))
    }
}

/// What is known of one that work can be given, whether or not it can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// What the cluster is told.
    pub(super) facts: Gpu,
    /// The GPU that it is, or is part of, by UUID.
    pub(super) whole: String,
    ends: Ends,
}

/// What there is now.
pub(super) struct Listed<'nvml> {
    /// The GPUs that answer, by UUID.
    pub(super) wholes: BTreeMap<String, Device<'nvml>>,
    /// The MIG instances that answer, by UUID.
    pub(super) instances: BTreeMap<String, Device<'nvml>>,
    /// What work can be given, in the order of the cluster's indexes.
    pub(super) known: Vec<Known>,
    /// Those that could not even be named, by NVML's index, with the reason.
    pub(super) nameless: BTreeMap<u32, String>,
}

/// Asks what there is, and keeps what was known before and does not answer.
///
/// # Errors
/// Where there are GPUs and none of them, nor of those known before, can be named.
pub(super) fn list<'nvml>(
    nvml: &'nvml Nvml,
    allowed: &Allowed,
    before: &[Known],
) -> Result<Listed<'nvml>, NvmlError> {
    let mut listed = Listed {
        wholes: BTreeMap::new(),
        instances: BTreeMap::new(),
        known: Vec::new(),
        nameless: BTreeMap::new(),
    };
    let mut fresh = Vec::new();
    let mut failed = None;
    for index in 0..nvml.device_count()? {
        match add(nvml, allowed, index, &mut listed, &mut fresh) {
            Ok(()) => {}
            Err(error) => {
                listed.nameless.insert(index, error.to_string());
                failed = Some(error);
            }
        }
    }
    if let Some(error) = failed
        && fresh.is_empty()
        && before.is_empty()
    {
        return Err(error);
    }
    listed.known = merge(before, fresh, |uuid| listed.wholes.contains_key(uuid));
    let ends: Vec<Ends> = listed.known.iter().map(|one| one.ends.clone()).collect();
    for (one, island) in listed.known.iter_mut().zip(topology::islands(&ends)) {
        one.facts.island = island;
    }
    Ok(listed)
}

/// Adds the GPU with an index, or the instances of one that is divided.
fn add<'nvml>(
    nvml: &'nvml Nvml,
    allowed: &Allowed,
    index: u32,
    listed: &mut Listed<'nvml>,
    fresh: &mut Vec<Known>,
) -> Result<(), NvmlError> {
    let gpu = nvml.device_by_index(index)?;
    let whole = gpu.uuid()?;
    let all_of_it = allowed.has(index, &whole);
    let ends = ends(&gpu);
    // A GPU that knows no MIG says so by an error.
    let divided = gpu.mig_mode().is_ok_and(|mode| mode.current != 0);
    if divided {
        for place in 0..gpu.mig_device_count()? {
            // A place without an instance is an error.
            let Ok(instance) = gpu.mig_device_by_index(place) else { continue };
            let facts = facts(&instance, &ends)?;
            if !all_of_it && !allowed.has_uuid(&facts.uuid) {
                continue;
            }
            listed.instances.insert(facts.uuid.clone(), instance);
            fresh.push(Known { facts, whole: whole.clone(), ends: ends.clone() });
        }
    } else if all_of_it {
        fresh.push(Known { facts: facts(&gpu, &ends)?, whole: whole.clone(), ends });
    }
    listed.wholes.insert(whole, gpu);
    Ok(())
}

/// What was known, at its place and with what is said of it now, then what is new.
fn merge(before: &[Known], fresh: Vec<Known>, answers: impl Fn(&str) -> bool) -> Vec<Known> {
    let mut fresh: Vec<Option<Known>> = fresh.into_iter().map(Some).collect();
    let mut known = Vec::new();
    for old in before {
        let mut same = fresh.iter_mut();
        let same =
            same.find(|one| one.as_ref().is_some_and(|one| one.facts.uuid == old.facts.uuid));
        match same.and_then(Option::take) {
            Some(new) => known.push(new),
            // It was divided otherwise, or is divided now.
            None if answers(&old.whole) => {}
            None => known.push(old.clone()),
        }
    }
    known.extend(fresh.into_iter().flatten());
    known
}

fn facts(device: &Device<'_>, ends: &Ends) -> Result<Gpu, NvmlError> {
    let name = device.name()?;
    Ok(Gpu {
        uuid: device.uuid()?,
        // The name of an instance is the GPU's, the word and the profile.
        mig: name.split_once(" MIG ").map(|(_, profile)| profile.to_owned()),
        name,
        memory: MemoryMib(device.memory_info()?.total / MIB),
        // Follows once all are there.
        island: 0,
        numa: topology::numa(Path::new(topology::DEVICES), &ends.own),
        unfit: None,
    })
}

/// A GPU's address and those its active links lead to. What NVML does not say is no link; a link
/// whose other end it does not say leads into the fabric that all of a machine's GPUs share.
fn ends(gpu: &Device<'_>) -> Ends {
    // Without an address it is alone: no uuid is an address.
    let own = gpu.pci_info().map(|pci| pci.bus_id).or_else(|_| gpu.uuid()).unwrap_or_default();
    let mut others = Vec::new();
    for link in 0..LINKS_MAX {
        let link = gpu.link_wrapper_for(link);
        if link.is_active().is_ok_and(|active| active) {
            let other = link.remote_pci_info().map(|pci| pci.bus_id);
            others.push(other.unwrap_or_else(|_| "fabric".to_owned()));
        }
    }
    Ends { own, others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_the_gpus_that_its_environment_names() {
        for (variable, named) in [
            (None, [true, true]),
            (Some(""), [false, false]),
            (Some("0"), [true, false]),
            (Some("1,7"), [false, true]),
            (Some("GPU-0"), [true, false]),
            (Some("GPU-1b, GPU-0a"), [true, true]),
        ] {
            let allowed = Allowed::of(variable);
            let found = [(0, "GPU-0a"), (1, "GPU-1b")].map(|(at, uuid)| allowed.has(at, uuid));
            assert_eq!(found, named, "{variable:?}");
        }
    }

    #[test]
    fn what_is_lost_keeps_its_place_and_what_is_divided_does_not() {
        let known = |text: &str| -> Vec<Known> {
            let one = |word: &str| {
                let (uuid, whole) = word.split_once('/').unwrap_or((word, word));
                let facts = Gpu { uuid: uuid.into(), ..Gpu::default() };
                Known { facts, whole: whole.into(), ends: Ends::default() }
            };
            text.split_whitespace().map(one).collect()
        };
        for (what, before, fresh, answering, expected) in [
            ("the first look", "", "a b", "a b", "a b"),
            ("one is lost", "a b c", "a c", "a c", "a b c"),
            ("and comes back", "a b c", "b a c", "a b c", "a b c"),
            ("one is new", "b", "a b", "a b", "b a"),
            ("one is divided", "a b", "m/a n/a b", "a b", "b m/a n/a"),
            ("it is divided anew", "m/a n/a b", "n/a b", "a b", "n/a b"),
            ("one that is divided is lost", "m/a n/a b", "b", "b", "m/a n/a b"),
            ("it is whole again", "m/a n/a b", "a b", "a b", "b a"),
            ("all are lost", "a b", "", "", "a b"),
        ] {
            let answers = |uuid: &str| answering.split_whitespace().any(|one| one == uuid);
            assert_eq!(merge(&known(before), known(fresh), answers), known(expected), "{what}");
        }
    }
}
