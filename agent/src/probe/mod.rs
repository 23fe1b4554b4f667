//! What a node is, and how it is doing.
//!
//! Facts are read once, when the agent starts, but for its GPUs, whose changes are news
//! ([`GpuNews`]); a [`Sample`] each second on a thread of its own. What may hang has a thread for
//! itself, so that it delays its own numbers and nothing else: the driver of the GPUs ([`nvml`]) and
//! shared storage ([`storage`]). A reading that cannot be had is absent, with its reason where there
//! is one.

mod disks;
mod host;
mod nvml;
mod process;
mod storage;
mod tasks;
mod topology;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gantry_config::AgentSettings;
use gantry_model::health::{Finding, Sign, Trouble};
use gantry_model::{MemoryMib, NodeFacts, Resources};
use gantry_telemetry::Sample;
use sysinfo::System;
use tokio::sync::{mpsc, watch};

use crate::ingest::Counters;
use crate::shell::Input;
use host::Host;
pub(crate) use nvml::{Found as GpuList, GpuNews};
use nvml::{Found, Gpus};
use storage::Storage;
use tasks::Tasks;

/// Between two samples.
const SAMPLE_EACH: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

/// What a node is, and what asks its GPUs.
pub(crate) struct Probed {
    /// The facts.
    pub(crate) facts: NodeFacts,
    /// What changes of its GPUs beside the samples.
    pub(crate) news: GpuNews,
    /// Its GPUs, for [`sample`].
    pub(crate) gpus: Gpus,
}

/// Reads the facts of this node, whose commands run in the folder `work`.
pub(crate) fn facts(settings: &AgentSettings, work: &Path) -> Probed {
    let memory_mib = System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory() / MIB
    });
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let (gpus, news) = Gpus::start(settings.nvml.as_deref());
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
            scratch: settings.scratch.unwrap_or(MemoryMib(disk(work).0 / MIB)),
        },
        gpus: list,
        gpu_reason,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: boot_id.trim().to_owned(),
        labels: settings.labels.clone(),
        // The scheduler sees it.
        address: settings.address.clone().unwrap_or_default(),
        // Told by who prepares it.
        isolation: String::new(),
    };
    Probed { facts, news, gpus }
}

/// Where samples come from beside the node itself.
pub(crate) struct Sources {
    /// The agent's folder.
    pub(crate) folder: PathBuf,
    /// What tells its commands' processes from those of others, in their variable `GANTRY_AGENT`.
    pub(crate) mark: String,
    /// The library on shared storage.
    pub(crate) library: Option<PathBuf>,
    /// What the DICOM receiver counts.
    pub(crate) ingest: Option<Arc<Counters>>,
    /// Live tries.
    pub(crate) tasks: Arc<AtomicU32>,
}

/// Samples the node until nobody wants samples any more.
pub(crate) fn sample(gpus: Gpus, sources: Sources) -> watch::Receiver<Sample> {
    let (newest, samples) = watch::channel(Sample::default());
    std::thread::spawn(move || {
        let mut sampler = Sampler::new(gpus, sources);
        while !newest.is_closed() {
            let start = Instant::now();
            newest.send_replace(sampler.read());
            std::thread::sleep(SAMPLE_EACH.saturating_sub(start.elapsed()));
        }
    });
    samples
}

/// Says in the log what changes of the GPUs beside the samples.
pub(crate) async fn tell_news(mut news: GpuNews, inputs: mpsc::Sender<Input>) {
    loop {
        tokio::select! {
            changed = news.found.changed() => match changed {
                Ok(()) => {
                    let found = news.found.borrow_and_update().clone();
                    log_found(&found);
                    if inputs.send(Input::Gpus(found)).await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            },
            Some(event) = news.xids.recv() => {
                tracing::warn!(gpu = event.uuid, xid = event.code, "the driver calls out an error");
                let finding = Finding {
                    trouble: Trouble::of_xid(event.code),
                    sign: Sign::Seen,
                    gpu: Some(event.uuid),
                    detail: format!("XID {}", event.code),
                };
                if inputs.send(Input::Found(finding)).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn log_found(found: &Found) {
    match found {
        Ok(gpus) => {
            let gpus: Vec<&str> = gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
            tracing::info!("the GPUs have changed: {}", gpus.join(" "));
        }
        Err(reason) => tracing::info!("the GPUs have changed: {reason}"),
    }
}

/// What a sample is put together from.
struct Sampler {
    gpus: Gpus,
    host: Host,
    storage: Option<Storage>,
    running: Tasks,
    ingest: Option<Arc<Counters>>,
    tasks: Arc<AtomicU32>,
}

impl Sampler {
    fn new(gpus: Gpus, sources: Sources) -> Self {
        Self {
            gpus,
            host: Host::new(sources.folder),
            storage: sources.library.as_deref().map(Storage::watch),
            running: Tasks::new(sources.mark),
            ingest: sources.ingest,
            tasks: sources.tasks,
        }
    }

    fn read(&mut self) -> Sample {
        let mut gpus = self.gpus.samples();
        let running = self.running.read(&mut gpus);
        let (storage, library) = self.storage.as_ref().map(Storage::read).unzip();
        Sample {
            gpus,
            running,
            storage,
            library: library.flatten(),
            driver_silent_s: self.gpus.silent_s(),
            ingest: self.ingest.as_ref().map(Counters::read),
            tasks: self.tasks.load(Ordering::Relaxed),
            ..self.host.read()
        }
    }
}

/// Bytes within a time as KiB per second.
fn per_second(bytes: u64, millis: u64) -> u64 {
    (u128::from(bytes) * 1000 / u128::from(millis.max(1)) / 1024) as u64
}

/// Free space and size of the file system that holds a folder, in bytes.
fn disk(folder: &Path) -> (u64, u64) {
    rustix::fs::statvfs(folder).map_or((0, 0), |facts| {
        (
            facts.f_bavail.saturating_mul(facts.f_frsize),
            facts.f_blocks.saturating_mul(facts.f_frsize),
        )
    })
}
