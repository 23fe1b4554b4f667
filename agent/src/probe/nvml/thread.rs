//! The thread that asks NVML.
//!
//! It finds the driver, lists what there is, reads each GPU once a second and lists again each
//! minute, or at once where the number of GPUs has changed. Where the driver is gone it begins
//! anew. Whatever it waits for, nobody waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use gantry_model::Gpu;
use gantry_telemetry::GpuSample;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::events::Listener;
use super::list::Allowed;
use super::list::{self, Known, Listed};
use super::read::Meter;
use super::{Pace, Shared};

/// Runs until nobody wants GPUs any more.
pub(super) fn run(shared: &Arc<Shared>, library: Option<&Path>, pace: Pace) {
    let mut reader = Reader {
        allowed: Allowed::of(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()),
        known: Vec::new(),
        meters: BTreeMap::new(),
        nameless: BTreeMap::new(),
    };
    while !shared.is_over() {
        shared.asked();
        let opened = match library {
            Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
            None => Nvml::init(),
        };
        let error = match opened {
            Ok(nvml) => reader.serve(&Arc::new(nvml), shared, pace).err(),
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            reader.gone(shared, &error);
        }
        std::thread::sleep(pace.retry);
    }
}

/// What outlives an opened NVML.
struct Reader {
    allowed: Allowed,
    known: Vec<Known>,
    /// By UUID, of whole GPUs and instances.
    meters: BTreeMap<String, Meter>,
    /// GPUs that could not be named, as was said in the log.
    nameless: BTreeMap<u32, String>,
}

impl Reader {
    /// Serves until the driver is gone, which is the error, or has no GPU.
    fn serve(
        &mut self,
        nvml: &Arc<Nvml>,
        shared: &Arc<Shared>,
        pace: Pace,
    ) -> Result<(), NvmlError> {
        let mut listener: Option<Listener> = None;
        let mut heard = BTreeSet::new();
        while !shared.is_over() {
            let mut listed = list::list(nvml, &self.allowed, &self.known)?;
            let is_new = listed.known != self.known;
            self.known = std::mem::take(&mut listed.known);
            let known = &self.known;
            self.meters.retain(|uuid, _| {
                known.iter().any(|one| one.whole == *uuid || one.facts.uuid == *uuid)
            });
            self.complain(listed.nameless.clone());
            shared.found(Ok(self.facts()));
            if self.known.is_empty() {
                return Ok(());
            }
            // One that is lost is listened to still, as that is when it calls out; one that is back
            // has to be asked for anew.
            let answering: BTreeSet<String> = listed.wholes.keys().cloned().collect();
            heard.retain(|uuid| answering.contains(uuid));
            if is_new || listener.is_none() || heard != answering {
                heard = answering;
                listener = Some(Listener::start(nvml.clone(), &self.known, shared, pace.event));
            }
            self.read_for_a_while(nvml, &listed, shared, pace)?;
        }
        Ok(())
    }

    /// Reads until it is time to list again.
    fn read_for_a_while(
        &mut self,
        nvml: &Nvml,
        listed: &Listed<'_>,
        shared: &Shared,
        pace: Pace,
    ) -> Result<(), NvmlError> {
        let count = nvml.device_count()?;
        let begun = Instant::now();
        while begun.elapsed() < pace.list && !shared.is_over() {
            let start = Instant::now();
            shared.read(self.read(listed));
            std::thread::sleep(pace.read.saturating_sub(start.elapsed()));
            // An error here is a driver that is gone: one GPU's trouble is not in the count.
            if nvml.device_count()? != count {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One reading of everything known, in its order. A whole GPU is read once for its instances.
    fn read(&mut self, listed: &Listed<'_>) -> Vec<GpuSample> {
        let lost = || GpuSample { lost: true, ..GpuSample::default() };
        let mut wholes = BTreeMap::<&str, GpuSample>::new();
        let mut samples = Vec::with_capacity(self.known.len());
        for (index, one) in self.known.iter().enumerate() {
            let whole = wholes.entry(&one.whole).or_insert_with(|| {
                let Some(gpu) = listed.wholes.get(&one.whole) else { return lost() };
                let meter = self.meters.entry(one.whole.clone());
                meter.or_insert_with(|| Meter::new(index)).read(gpu)
            });
            samples.push(match listed.instances.get(&one.facts.uuid) {
                Some(instance) if !whole.lost => {
                    let meter = self.meters.entry(one.facts.uuid.clone());
                    meter.or_insert_with(|| Meter::new(index)).read_instance(instance, whole)
                }
                _ => whole.clone(),
            });
        }
        samples
    }

    /// The driver is gone or was never there. GPUs that were known are lost, at their places.
    fn gone(&self, shared: &Shared, error: &NvmlError) {
        if self.known.is_empty() {
            shared.found(Err(reason(error)));
        } else {
            shared.gone();
        }
    }

    fn facts(&self) -> Vec<Gpu> {
        self.known.iter().map(|one| one.facts.clone()).collect()
    }

    /// Says which GPUs cannot be named, once.
    fn complain(&mut self, nameless: BTreeMap<u32, String>) {
        if self.nameless != nameless {
            for (index, reason) in &nameless {
                tracing::warn!("GPU {index} cannot be asked for its name: {reason}");
            }
            self.nameless = nameless;
        }
    }
}

/// Why there is no GPU.
fn reason(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) => "no NVIDIA driver (libnvidia-ml is not found)".into(),
        other => format!("NVML failed: {other}"),
    }
}
