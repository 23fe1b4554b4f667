//! The cluster machine alone, in this process: no journal, no network, no process.
//!
//! What a decision costs is measured here, one event at a time. Tries that were launched are kept
//! in the order of their launch, so that a benchmark can end them as it likes; whatever it does,
//! it is what a scheduler would hear.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use gantry_cluster::{Answer, Cluster, ClusterSettings, Effect, Event};
use gantry_model::{
    At, Exit, Gpu, JobId, JobSpec, Machine, MemoryMib, NodeFacts, Order, Report, Resources, Role,
    TryId, Usage, Work,
};

/// When it all begins: some day in 2026, in milliseconds since 1970.
const BEGIN: u64 = 1_780_000_000_000;

/// A try that runs, and its node.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) node: String,
    pub(crate) try_id: TryId,
}

/// A cluster machine with what it has launched.
pub(crate) struct Bare {
    pub(crate) cluster: Cluster,
    pub(crate) running: VecDeque<Running>,
    at: At,
    effects: Vec<Effect>,
    requests: u64,
}

impl Bare {
    pub(crate) fn new(settings: ClusterSettings) -> Self {
        Self {
            cluster: Cluster::new(settings),
            running: VecDeque::new(),
            at: At(BEGIN),
            effects: Vec::new(),
            requests: 0,
        }
    }

    /// Applies an event a millisecond after the one before. Returns how long it took, and how
    /// many tasks it launched.
    pub(crate) fn apply(&mut self, event: Event) -> (Duration, usize) {
        self.at.0 += 1;
        let start = Instant::now();
        self.cluster.apply(self.at, event, &mut self.effects);
        let took = start.elapsed();
        let before = self.running.len();
        for effect in &self.effects {
            if let Effect::Order { node, order: Order::Launch(launch) } = effect {
                self.running.push_back(Running { node: node.clone(), try_id: launch.try_id });
            }
        }
        (took, self.running.len() - before)
    }

    /// Takes what the last event asked for.
    pub(crate) fn forget(&mut self) {
        self.effects.clear();
    }

    /// A node connects.
    pub(crate) fn node(&mut self, facts: NodeFacts) -> (Duration, usize) {
        let done = self.apply(Event::NodeUp { facts, holds: Vec::new() });
        self.forget();
        done
    }

    /// A user submits.
    pub(crate) fn submit(&mut self, user: &str, spec: JobSpec) -> Result<(JobId, Duration)> {
        self.requests += 1;
        let request = self.requests;
        let (user, key) = (user.to_owned(), request.to_string());
        let (took, _) = self.apply(Event::Submit { request, user, key, spec: Box::new(spec) });
        let answer = self.effects.drain(..).find_map(|effect| match effect {
            Effect::Reply { answer, .. } => Some(answer),
            _ => None,
        });
        match answer {
            Some(Ok(Answer::Submitted(job))) => Ok((job, took)),
            Some(Err(reject)) => Err(anyhow!("a job of a benchmark was refused: {reject}")),
            other => bail!("a submit was answered as {other:?}"),
        }
    }

    /// A try's start is reported.
    pub(crate) fn started(&mut self, running: &Running) -> (Duration, usize) {
        let report = Report::Started { try_id: running.try_id };
        let done = self.apply(Event::Report { node: running.node.clone(), report });
        self.forget();
        done
    }

    /// The starts of the newest tries are reported.
    pub(crate) fn start_newest(&mut self, count: usize) {
        let newest: Vec<Running> = self.running.iter().rev().take(count).cloned().collect();
        for running in &newest {
            self.started(running);
        }
    }

    /// A try's end is reported.
    pub(crate) fn ended(&mut self, running: Running) -> (Duration, usize) {
        let usage = Usage { cpu_ms: 1, memory_peak: MemoryMib(1), ..Usage::default() };
        let report =
            Report::Ended { try_id: running.try_id, exit: Exit::Code(0), usage, heir: None };
        let done = self.apply(Event::Report { node: running.node, report });
        self.forget();
        done
    }
}

/// A job that runs `true` with these resources.
pub(crate) fn job(resources: Resources) -> JobSpec {
    let work = Work::Command { arguments: vec!["true".into()], folder: None };
    JobSpec { resources, ..JobSpec::new("measured", work) }
}

/// A node with so many cores and GPUs, 4 GiB for each core.
pub(crate) fn facts(name: String, cores: u32, gpus: u32) -> NodeFacts {
    let gpu = |index: u32| Gpu {
        uuid: format!("GPU-{index}"),
        name: "measured".into(),
        memory: MemoryMib(80 * 1024),
        // Two islands of NVLink on each node, as on boards without a switch.
        island: (index / 4) as u16,
        ..Gpu::default()
    };
    let memory = MemoryMib(u64::from(cores) * 4096);
    NodeFacts {
        address: format!("{name}:7400"),
        name,
        roles: vec![if gpus > 0 { Role::Gpu } else { Role::Cpu }],
        resources: Resources { cores, memory, gpus, ..Resources::default() },
        gpus: (0..gpus).map(gpu).collect(),
        ..NodeFacts::default()
    }
}
