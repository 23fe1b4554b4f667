//! The daemon on every server: probes, processes, warm workers, the DICOM receiver.
//!
//! It is the shell around the node machine (`gantry-node`): the machine decides what to start, stop
//! and report, the agent does it. Nothing here chooses what runs.
//!
//! Commands and trainings run under a supervisor of their own ([`supervise`]) and outlive the agent,
//! which takes them over when it is back, unless the settings say that they end with it. Short
//! built-in operations run in warm workers ([`worker`]), which end with the agent.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
mod environ;
mod error;
pub mod exchange;
pub mod import;
pub mod ingest;
mod leave;
mod metrics;
mod output;
mod pipe;
mod predictions;
mod probe;
mod runner;
pub mod samples;
mod self_test;
pub mod serve;
mod session;
mod shell;
mod spool;
pub mod supervise;
pub mod worker;

use std::fs::{File, Permissions, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use gantry_config::AgentSettings;
use gantry_library::Library;
use gantry_link::Own;
use gantry_node::{Node, NodeSettings};
use supervise::isolation::Isolation;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

pub use error::AgentError;

/// Events that wait for the shell; whoever brings more waits.
const INPUTS_MAX: usize = 4096;
/// Between two signs of life.
const ALIVE_EACH: Duration = Duration::from_secs(5);
/// Workers where the settings name no number.
const WORKERS_MAX: u32 = 8;

/// What this machine is as a node, looked at without serving it: its resources, its GPUs, or why there
/// are none.
#[must_use]
pub fn look(settings: &AgentSettings, folder: &Path) -> gantry_model::NodeFacts {
    probe::facts(settings, folder).facts
}

/// Serves a node until `stop` is done.
///
/// # Errors
/// Where the node has not joined, its folder cannot be written, or the receiver cannot listen.
pub async fn serve(
    folder: &Path,
    settings: AgentSettings,
    stop: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    serve_alive(folder, settings, None, stop, || {}).await
}

/// The same; `alive` is called once the node is served, and then every few seconds for as long as the
/// agent's thread gets to its work. Whether the scheduler is there has no say in it: an agent that
/// waits for it does its work. With `leave_after` it leaves the cluster after so long, and ends.
///
/// # Errors
/// As [`serve`].
pub async fn serve_alive(
    folder: &Path,
    settings: AgentSettings,
    leave_after: Option<Duration>,
    stop: impl Future<Output = ()>,
    alive: impl Fn() + Send + 'static,
) -> Result<(), AgentError> {
    let leave = leave::Leave::after(leave_after);
    // Before anything is made in its folder.
    let own = Own::load(settings.scheduler, folder, "agent")?;
    let folder =
        folder.canonicalize().map_err(|error| AgentError::file("finding", folder, error))?;
    let program = std::env::current_exe()
        .map_err(|error| AgentError::file("finding the program of", &folder, error))?;
    let program = |role: &str| vec![program.display().to_string(), role.to_owned()];
    let places = runner::Places {
        worker: program("worker"),
        output: folder.join("output"),
        work: folder.join("work"),
        checkpoints: settings.checkpoints.clone().unwrap_or_else(|| folder.join("checkpoints")),
        run_as: settings.isolation.run_as,
        python: settings.python.clone(),
    };
    for place in [&places.output, &places.work, &places.checkpoints] {
        std::fs::create_dir_all(place).map_err(|error| AgentError::file("making", place, error))?;
    }
    // What a task has printed is for its owner and for operators, who ask the scheduler for it.
    std::fs::set_permissions(&places.output, Permissions::from_mode(0o700))
        .map_err(|error| AgentError::file("closing", &places.output, error))?;
    let _lock = lock(&folder)?;
    let (spool, ends) = spool::Spool::open(&folder.join("spool"))?;
    let counters = Arc::new(ingest::Counters::default());
    let receiver = start_receiver(&settings, &counters)?;
    let probed = probe::facts(&settings, &places.work);
    let mut facts = probed.facts;
    let isolation = Isolation::prepare(&settings.isolation, &places.mark());
    facts.isolation = isolation.to_string();
    if let Some(reason) = &facts.gpu_reason {
        tracing::info!(node = facts.name, "no GPU: {reason}; training computes on the processor");
    }
    let tasks = Arc::new(AtomicU32::new(0));
    let sources = probe::Sources {
        folder: folder.clone(),
        mark: places.mark(),
        library: settings.library.clone(),
        ingest: receiver.as_ref().map(|_| counters.clone()),
        tasks: tasks.clone(),
    };
    let samples = probe::sample(probed.gpus, sources);
    let pages = metrics::NodePages {
        node: settings.node.clone(),
        samples: samples.clone(),
        gpus: probed.news.found.clone(),
        ingest: receiver.as_ref().map(|_| counters.clone()),
    };
    let _metrics = metrics::start(settings.metrics, pages).await?;
    let (inputs, received) = mpsc::channel(INPUTS_MAX);
    // Ends with the threads of the GPUs, which end with the samples.
    tokio::spawn(probe::tell_news(probed.news, inputs.clone()));
    let workers = settings.workers.unwrap_or(facts.resources.cores.min(WORKERS_MAX));
    let parts = shell::Parts {
        node: Node::new(NodeSettings { grace: settings.grace }),
        spool,
        pool: worker::pool::Pool::new(
            program("worker"),
            isolation.clone(),
            workers as usize,
            inputs.clone(),
        ),
        plan: supervise::client::Plan {
            program: program("supervise"),
            folder: folder.join("tries"),
            home: folder.clone(),
            scheduler: settings.scheduler,
            orphans: settings.orphans,
            isolation,
            places,
        },
        facts,
        leave,
        output_age: Duration::from_millis(settings.output_age.0),
        tasks,
        gpu_test: settings.gpu_test.clone(),
        samples: samples.clone(),
        inputs: inputs.clone(),
    };
    let mut shell = shell::Shell::new(parts, ends)?;
    let session = session::start(own, inputs, samples)
        .map_err(|error| AgentError::file("starting the session of", &folder, error))?;
    let mut sign = tokio::time::interval(ALIVE_EACH);
    sign.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let signs = async {
        loop {
            sign.tick().await;
            alive();
        }
    };
    let result = tokio::select! {
        () = stop => Ok(()),
        result = shell.run(received) => result,
        never = signs => never,
    };
    // The session ends with the shell that hears it.
    drop(shell);
    session.ended().await;
    result
}

/// Two agents in one folder would take each other's tasks over.
fn lock(folder: &Path) -> Result<File, AgentError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| AgentError::file("making", &path, error))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => AgentError::Running { folder: folder.to_owned() },
        TryLockError::Error(error) => AgentError::file("locking", &path, error),
    })?;
    Ok(file)
}

fn start_receiver(
    settings: &AgentSettings,
    counters: &Arc<ingest::Counters>,
) -> Result<Option<ingest::Receiver>, AgentError> {
    let (Some(ingest), Some(library)) = (&settings.ingest, &settings.library) else {
        return Ok(None);
    };
    let library = Library::open_or_create(library)?.with_free_min_mib(ingest.storage_free_min.0);
    let swept = library.sweep();
    if swept > 0 {
        tracing::info!(swept, "removed what earlier writers left unfinished");
    }
    ingest::start(ingest, library, counters.clone()).map(Some)
}
