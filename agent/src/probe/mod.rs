//! What a node is, and how it is doing.
//!
//! Facts are read once, when the agent starts; a [`Sample`] each second on a thread of its own, so
//! that a slow disk or driver delays numbers and nothing else. A reading that cannot be had is
//! absent, with its reason where there is one.

mod nvml;
mod topology;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use gantry_config::AgentSettings;
use gantry_library::Library;
use gantry_model::{At, MemoryMib, NodeFacts, Resources};
use gantry_telemetry::{LibraryCounts, Sample};
use sysinfo::{Networks, System};
use tokio::sync::watch;

use crate::ingest::Counters;

/// Between two samples.
const SAMPLE_EACH: Duration = Duration::from_secs(1);
/// Samples between two looks at the library, which lists folders on shared storage.
const LIBRARY_EACH: u64 = 3;
const MIB: u64 = 1 << 20;

/// What a node is, and the thread that asks its GPUs.
pub(crate) struct Probed {
    /// The facts.
    pub(crate) facts: NodeFacts,
    gpus: nvml::Gpus,
}

/// Reads the facts of this node, whose commands run in the folder `work`.
pub(crate) fn facts(settings: &AgentSettings, work: &Path) -> Probed {
    let memory_mib = System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory() / MIB
    });
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let gpus = nvml::Gpus::start(settings.nvml.as_deref());
    let found = gpus.found();
    let (list, gpu_reason) = match found {
        Ok(list) => (list, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let facts = NodeFacts {
        name: settings.node.clone(),
        roles: settings.roles.clone(),
        resources: Resources {
            cores: settings.cores.unwrap_or(cores),
            memory: settings.memory.unwrap_or(MemoryMib(memory_mib)),
            gpus: list.len() as u32,
            scratch: settings.scratch.unwrap_or(MemoryMib(disk(work).0)),
        },
        gpus: list,
        gpu_reason,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: boot_id.trim().to_owned(),
        labels: settings.labels.clone(),
        // The scheduler sees it.
        address: settings.address.clone().unwrap_or_default(),
    };
    Probed { facts, gpus }
}

/// Samples the node until nobody wants samples any more.
pub(crate) fn sample(
    probed: Probed,
    folder: PathBuf,
    library: Option<PathBuf>,
    ingest: Option<Arc<Counters>>,
    tasks: Arc<AtomicU32>,
) -> watch::Receiver<Sample> {
    let (newest, samples) = watch::channel(Sample::default());
    std::thread::spawn(move || {
        let mut sampler = Sampler::new(folder, library);
        while !newest.is_closed() {
            let start = Instant::now();
            let mut sample = sampler.read();
            sample.gpus = probed.gpus.samples();
            sample.ingest = ingest.as_ref().map(Counters::read);
            sample.tasks = tasks.load(Ordering::Relaxed);
            newest.send_replace(sample);
            std::thread::sleep(SAMPLE_EACH.saturating_sub(start.elapsed()));
        }
    });
    samples
}

struct Sampler {
    /// Absent where the kernel does not say what is read through them.
    system: Option<System>,
    networks: Option<Networks>,
    folder: PathBuf,
    library: Option<PathBuf>,
    counts: Option<LibraryCounts>,
    read: u64,
    last: Instant,
}

impl Sampler {
    fn new(folder: PathBuf, library: Option<PathBuf>) -> Self {
        let system = System::new().ok();
        let networks = Networks::new_with_refreshed_list().ok();
        let last = Instant::now();
        Self { system, networks, folder, library, counts: None, read: 0, last }
    }

    fn read(&mut self) -> Sample {
        let millis = (self.last.elapsed().as_millis() as u64).max(1);
        self.last = Instant::now();
        let (received, sent) = self.traffic();
        let (cpu_permille, used, total) = self.system.as_mut().map_or((0, 0, 0), |system| {
            system.refresh_cpu_usage();
            system.refresh_memory();
            let busy = (system.global_cpu_usage() * 10.0).round() as u32;
            (busy, system.used_memory() / MIB, system.total_memory() / MIB)
        });
        if self.read.is_multiple_of(LIBRARY_EACH) {
            self.counts = self.library.as_deref().and_then(library_counts);
        }
        self.read += 1;
        let (disk_free_mib, disk_total_mib) = disk(&self.folder);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Sample {
            at: At(since.as_millis() as u64),
            cpu_permille,
            memory_used_mib: used,
            memory_total_mib: total,
            disk_free_mib,
            disk_total_mib,
            network_received_kib: received * 1000 / millis / 1024,
            network_sent_kib: sent * 1000 / millis / 1024,
            library: self.counts,
            ..Sample::default()
        }
    }
}

impl Sampler {
    /// Bytes received and sent since the last reading, over all networks but the loopback.
    fn traffic(&mut self) -> (u64, u64) {
        let Some(networks) = &mut self.networks else { return (0, 0) };
        networks.refresh(true);
        let outside = networks.iter().filter(|(name, _)| name.to_str() != Some("lo"));
        outside.fold((0, 0), |(received, sent), (_, network)| {
            (received + network.received(), sent + network.transmitted())
        })
    }
}

fn library_counts(root: &Path) -> Option<LibraryCounts> {
    let counts = Library::open(root).and_then(|library| library.counts()).ok()?;
    Some(LibraryCounts {
        series: counts.series,
        instances: counts.instances,
        quarantined: counts.quarantined,
        samples: counts.samples,
        models: counts.models,
        predictions: counts.predictions,
    })
}

/// Free space and size of the disk that holds a folder, in MiB.
fn disk(folder: &Path) -> (u64, u64) {
    rustix::fs::statvfs(folder).map_or((0, 0), |facts| {
        let mib = |blocks: u64| {
            (u128::from(blocks) * u128::from(facts.f_frsize) / u128::from(MIB)) as u64
        };
        (mib(facts.f_bavail), mib(facts.f_blocks))
    })
}
