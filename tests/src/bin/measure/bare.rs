//! The cluster machine alone, in this process: no journal, no network, no process.
//!
//! What a decision costs is measured here, one event at a time. Tries that were launched are kept
//! in the order of their launch, so that a benchmark can end them as it likes; whatever it does,
//! it is what a scheduler would hear. Those that were launched ahead wait on their node, and the
//! next of them has the lease of one of its job that has ended there, as a node does it.

use std::collections::{BTreeMap, VecDeque};
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
    pub(crate) job: JobId,
    pub(crate) try_id: TryId,
}

/// A cluster machine with what it has launched.
pub(crate) struct Bare {
    pub(crate) cluster: Cluster,
    pub(crate) running: VecDeque<Running>,
    /// What waits for a lease, by node and job.
    ahead: BTreeMap<(String, JobId), VecDeque<TryId>>,
    at: At,
    effects: Vec<Effect>,
    requests: u64,
}

impl Bare {
    pub(crate) fn new(settings: ClusterSettings) -> Self {
        Self {
            cluster: Cluster::new(settings),
            running: VecDeque::new(),
            ahead: BTreeMap::new(),
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
        self.carry_out();
        (took, self.running.len() - before)
    }

    /// Does on the nodes what the effects so far order, and reports what they return, which may lead
    /// to further orders.
    fn carry_out(&mut self) {
        let mut done = 0;
        while let Some(effect) = self.effects.get(done).cloned() {
            done += 1;
            let Effect::Order { node, order } = effect else { continue };
            match order {
                Order::Launch(launch) => {
                    let (job, try_id) = (launch.task.job, launch.try_id);
                    self.running.push_back(Running { node, job, try_id });
                }
                Order::Ahead(launch) => {
                    let waiting = self.ahead.entry((node, launch.task.job)).or_default();
                    waiting.push_back(launch.try_id);
                }
                Order::Recall { try_id } if self.recall(&node, try_id) => {
                    self.at.0 += 1;
                    let returned = Event::Report { node, report: Report::Returned { try_id } };
                    self.cluster.apply(self.at, returned, &mut self.effects);
                }
                _ => {}
            }
        }
    }

    /// Takes back what waits on a node; says whether it waited there.
    fn recall(&mut self, node: &str, try_id: TryId) -> bool {
        let mut here = self.ahead.iter_mut().filter(|((on, _), _)| on == node);
        here.any(|(_, waiting)| {
            let place = waiting.iter().position(|one| *one == try_id);
            place.and_then(|place| waiting.remove(place)).is_some()
        })
    }

    /// Takes what the last event asked for.
    pub(crate) fn forget(&mut self) {
        self.effects.clear();
    }

    /// A node connects.
    pub(crate) fn node(&mut self, facts: NodeFacts) -> (Duration, usize) {
        let done = self.apply(Event::NodeUp { facts: Box::new(facts), holds: Vec::new() });
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
        let Running { node, job, try_id } = running;
        let heir = self.ahead.get_mut(&(node.clone(), job)).and_then(VecDeque::pop_front);
        if let Some(heir) = heir {
            self.running.push_back(Running { node: node.clone(), job, try_id: heir });
        }
        let report = Report::Ended { try_id, exit: Exit::Code(0), usage, heir };
        let done = self.apply(Event::Report { node, report });
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
