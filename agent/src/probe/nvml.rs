//! The GPUs, by NVML on a thread of its own.
//!
//! A GPU that is divided stands for its MIG instances: it is not listed itself, since nothing can
//! have all of it.
//!
//! A driver that hangs hangs that thread only: the values it gave last are given for a while, and
//! then none. A machine without NVML has a reason instead of GPUs.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use gantry_model::{Gpu, MemoryMib};
use gantry_telemetry::GpuSample;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::topology::{self, Ends};

/// How long NVML may take to say what there is.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two readings.
const READ_EACH: Duration = Duration::from_secs(1);
/// Older readings say nothing: the driver hangs.
const STALE: Duration = Duration::from_secs(5);
/// `NVLinks` of one GPU, as NVML counts them.
const LINKS_MAX: u32 = 18;
const MIB: u64 = 1 << 20;

type Readings = Arc<Mutex<Option<(Instant, Vec<GpuSample>)>>>;

/// The GPUs of this node.
pub(super) struct Gpus {
    found: Result<Vec<Gpu>, String>,
    readings: Readings,
}

impl Gpus {
    /// Asks NVML what there is, and begins to read.
    pub(super) fn start(library: Option<&Path>) -> Self {
        let readings = Readings::default();
        let (say, said) = mpsc::channel();
        let (kept, library) = (readings.clone(), library.map(Path::to_owned));
        std::thread::spawn(move || {
            let nvml = match library {
                Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
                None => Nvml::init(),
            };
            let found = nvml
                .as_ref()
                .map_err(reason)
                .and_then(|nvml| list(nvml).map_err(|error| reason(&error)));
            let any = found.as_ref().is_ok_and(|list| !list.is_empty());
            // Nobody listens only when it took too long.
            let _ = say.send(found);
            let Ok(nvml) = nvml else { return };
            if !any {
                return;
            }
            // Ends with the process: a thread within a hung driver cannot be stopped anyway.
            loop {
                let read = read(&nvml);
                *lock(&kept) = Some((Instant::now(), read));
                std::thread::sleep(READ_EACH);
            }
        });
        let late = || Err(format!("NVML did not answer within {} s", START_TIMEOUT.as_secs()));
        let found = said.recv_timeout(START_TIMEOUT).unwrap_or_else(|_| late());
        Self { found, readings }
    }

    /// What there is, or why there is nothing.
    pub(super) fn found(&self) -> Result<Vec<Gpu>, String> {
        self.found.clone()
    }

    /// The newest readings; of a driver that hangs, one without values for each GPU.
    pub(super) fn samples(&self) -> Vec<GpuSample> {
        let count = self.found.as_ref().map_or(0, Vec::len);
        match &*lock(&self.readings) {
            Some((at, samples)) if at.elapsed() < STALE => samples.clone(),
            _ => vec![GpuSample::default(); count],
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reason(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) => "no NVIDIA driver (libnvidia-ml is not found)".into(),
        other => format!("NVML failed: {other}"),
    }
}

/// The devices that work can be given, each with the GPU it is part of.
fn devices(nvml: &Nvml) -> Result<Vec<(Device<'_>, Device<'_>)>, NvmlError> {
    let mut all = Vec::new();
    for index in 0..nvml.device_count()? {
        let gpu = nvml.device_by_index(index)?;
        // A GPU that knows no MIG says so by an error.
        let divided = gpu.mig_mode().is_ok_and(|mode| mode.current != 0);
        let places = if divided { gpu.mig_device_count()? } else { 0 };
        // A place without an instance is an error.
        let instances = (0..places).filter_map(|place| gpu.mig_device_by_index(place).ok());
        for instance in instances {
            all.push((instance, nvml.device_by_index(index)?));
        }
        if !divided {
            all.push((nvml.device_by_index(index)?, gpu));
        }
    }
    Ok(all)
}

fn list(nvml: &Nvml) -> Result<Vec<Gpu>, NvmlError> {
    let devices = devices(nvml)?;
    let ends: Vec<Ends> = devices.iter().map(|(_, gpu)| ends(gpu)).collect();
    let islands = topology::islands(&ends);
    devices
        .iter()
        .zip(ends)
        .zip(islands)
        .map(|(((device, _), ends), island)| {
            let name = device.name()?;
            Ok(Gpu {
                uuid: device.uuid()?,
                // The name of an instance is the GPU's, the word and the profile.
                mig: name.split_once(" MIG ").map(|(_, profile)| profile.to_owned()),
                name,
                memory: MemoryMib(device.memory_info()?.total / MIB),
                island,
                numa: topology::numa(Path::new(topology::DEVICES), &ends.own),
            })
        })
        .collect()
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

fn read(nvml: &Nvml) -> Vec<GpuSample> {
    let Ok(devices) = devices(nvml) else { return Vec::new() };
    let sample = |(device, gpu): (Device<'_>, Device<'_>)| GpuSample {
        busy_permille: device.utilization_rates().ok().map(|rates| rates.gpu * 10),
        memory_used_mib: device.memory_info().ok().map(|memory| memory.used / MIB),
        temperature_c: gpu.temperature(TemperatureSensor::Gpu).ok(),
        power_mw: gpu.power_usage().ok(),
    };
    devices.into_iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;
    use tempfile::TempDir;

    /// Builds the library of `tests/nvml.c`; nothing where there is no C compiler.
    fn library(folder: &Path, flag: &str) -> Option<PathBuf> {
        let path = folder.join("libnvidia-ml.so.1");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nvml.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Werror", flag, "-o"])
            .arg(&path)
            .arg(source)
            .status();
        match built {
            Ok(status) => {
                assert!(status.success());
                Some(path)
            }
            Err(error) => {
                eprintln!("SKIPPED, NVML is not tested: no C compiler ({error})");
                None
            }
        }
    }

    #[test]
    fn two_gpus_are_found_and_read() {
        let folder = TempDir::new().unwrap();
        let Some(path) = library(folder.path(), "-DPLAIN") else { return };
        let gpus = Gpus::start(Some(&path));
        let gpu = |uuid: &str, island| Gpu {
            uuid: uuid.into(),
            name: "Test 9000".into(),
            memory: MemoryMib(80 * 1024),
            island,
            ..Gpu::default()
        };
        assert_eq!(gpus.found(), Ok(vec![gpu("GPU-a", 0), gpu("GPU-b", 1)]));
        while lock(&gpus.readings).is_none() {
            std::thread::yield_now();
        }
        let expected = [(93, 1, 50, Some(312_000)), (7, 2, 51, None)];
        let expected = expected.map(|(busy, gib, celsius, power_mw)| GpuSample {
            busy_permille: Some(busy * 10),
            memory_used_mib: Some(gib * 1024),
            temperature_c: Some(celsius),
            power_mw,
        });
        assert_eq!(gpus.samples(), expected);
    }

    #[test]
    fn a_divided_gpu_stands_for_its_instances_and_links_make_an_island() {
        let folder = TempDir::new().unwrap();
        let Some(path) = library(folder.path(), "-DDIVIDED") else { return };
        let gpus = Gpus::start(Some(&path));
        let gpu = |uuid: &str, name: &str, gib: u64, mig: Option<&str>| Gpu {
            uuid: uuid.into(),
            name: name.into(),
            memory: MemoryMib(gib * 1024),
            mig: mig.map(Into::into),
            ..Gpu::default()
        };
        let expected = vec![
            gpu("MIG-0", "Test 9000 MIG 1g.10gb", 10, Some("1g.10gb")),
            gpu("MIG-2", "Test 9000 MIG 1g.10gb", 10, Some("1g.10gb")),
            gpu("GPU-b", "Test 9000", 80, None),
        ];
        assert_eq!(gpus.found(), Ok(expected));
        while lock(&gpus.readings).is_none() {
            std::thread::yield_now();
        }
        let samples = gpus.samples();
        let used: Vec<_> =
            samples.iter().map(|one| (one.busy_permille, one.temperature_c)).collect();
        assert_eq!(used, [(None, Some(50)), (None, Some(50)), (Some(70), Some(51))]);
    }

    #[test]
    fn a_driver_that_hangs_is_gpus_without_values() {
        let folder = TempDir::new().unwrap();
        let Some(path) = library(folder.path(), "-DHANG") else { return };
        let gpus = Gpus::start(Some(&path));
        assert_eq!(gpus.found().map(|list| list.len()), Ok(2));
        assert_eq!(gpus.samples(), [GpuSample::default(), GpuSample::default()]);
    }

    #[test]
    fn no_driver_is_a_sentence() {
        let found = Gpus::start(Some(Path::new("/nowhere/libnvidia-ml.so.1"))).found();
        assert_eq!(found, Err("no NVIDIA driver (libnvidia-ml is not found)".into()));
    }
}
