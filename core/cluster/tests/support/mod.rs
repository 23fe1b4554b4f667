//! A cluster under test: events in short words, effects remembered, invariants proved after each.
#![allow(clippy::unwrap_used, missing_docs, dead_code, unreachable_pub)]

use gantry_cluster::{Answer, Cluster, ClusterSettings, Effect, Event};
use gantry_model::{
    Action, At, Exit, Gpu, JobId, JobSpec, JobState, Launch, Machine, MemoryMib, Millis, NodeFacts,
    Order, Reject, Report, Resources, Role, TryId, Usage, Work,
};

pub fn spec(cores: u32) -> JobSpec {
    let work = Work::Command { arguments: vec!["true".into()], folder: None };
    let resources = Resources { cores, ..Resources::default() };
    JobSpec { resources, ..JobSpec::new("job", work) }
}

pub fn array(cores: u32, array: &str) -> JobSpec {
    JobSpec { array: Some(array.parse().unwrap()), ..spec(cores) }
}

pub fn facts(name: &str, cores: u32, gpus: u32) -> NodeFacts {
    let gpu = |n| Gpu {
        uuid: format!("GPU-{n}"),
        name: "fake".into(),
        memory: MemoryMib(1024),
        ..Gpu::default()
    };
    NodeFacts {
        name: name.into(),
        roles: vec![if gpus > 0 { Role::Gpu } else { Role::Cpu }],
        resources: Resources { cores, memory: MemoryMib(4096), gpus, ..Resources::default() },
        gpus: (0..gpus).map(gpu).collect(),
        address: format!("10.0.0.{name}"),
        ..NodeFacts::default()
    }
}

#[derive(Default)]
pub struct Env {
    pub cluster: Cluster,
    pub at: u64,
    pub events: Vec<(At, Event)>,
    pub effects: Vec<Effect>,
    requests: u64,
}

impl Env {
    /// A cluster whose nodes are given nothing ahead, so that tests need not say what they do with it.
    pub fn new() -> Self {
        Self::ahead(Millis(0))
    }

    pub fn ahead(ahead: Millis) -> Self {
        let node_timeout = Millis::from_seconds(10);
        Self::with(ClusterSettings { ahead, node_timeout, ..ClusterSettings::default() })
    }

    pub fn with(settings: ClusterSettings) -> Self {
        Self { cluster: Cluster::new(settings), ..Self::default() }
    }

    pub fn node(mut self, name: &str, cores: u32, gpus: u32) -> Self {
        self.up(name, cores, gpus, &[]);
        self
    }

    /// Applies an event and gives its effects.
    pub fn apply(&mut self, event: Event) -> Vec<Effect> {
        let at = At(self.at);
        let mut effects = Vec::new();
        self.events.push((at, event.clone()));
        self.cluster.apply(at, event, &mut effects);
        self.cluster.check().unwrap();
        self.effects.extend(effects.iter().cloned());
        effects
    }

    pub fn up(&mut self, name: &str, cores: u32, gpus: u32, holds: &[u64]) -> Vec<Effect> {
        let holds = holds.iter().map(|id| TryId(*id)).collect();
        self.apply(Event::NodeUp { facts: Box::new(facts(name, cores, gpus)), holds })
    }

    pub fn down(&mut self, name: &str) -> Vec<Effect> {
        self.apply(Event::NodeDown { node: name.into() })
    }

    pub fn gone(&mut self, name: &str, holds: &[u64]) -> Vec<Effect> {
        let holds = holds.iter().map(|id| TryId(*id)).collect();
        self.apply(Event::NodeGone { node: name.into(), holds })
    }

    pub fn submit(&mut self, spec: JobSpec) -> Result<JobId, Reject> {
        let key = format!("key-{}", self.requests);
        self.submit_key(spec, &key)
    }

    pub fn submit_key(&mut self, spec: JobSpec, key: &str) -> Result<JobId, Reject> {
        self.submit_as("ada", spec, key)
    }

    pub fn submit_as(&mut self, user: &str, spec: JobSpec, key: &str) -> Result<JobId, Reject> {
        self.requests += 1;
        let request = self.requests;
        let (user, key, spec) = (user.into(), key.into(), Box::new(spec));
        let effects = self.apply(Event::Submit { request, user, key, spec });
        let answer = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { request: of, answer } if of == request => Some(answer),
            _ => None,
        });
        match answer.unwrap()? {
            Answer::Submitted(job) => Ok(job),
            other => panic!("a submit was answered as {other:?}"),
        }
    }

    pub fn cancel(&mut self, job: JobId) -> Vec<Effect> {
        self.requests += 1;
        let (request, user) = (self.requests, "ada".into());
        self.apply(Event::Cancel { request, user, job, indices: None })
    }

    /// Asks for a change, as the user ada.
    pub fn act(&mut self, action: Action) -> Result<u32, Reject> {
        self.requests += 1;
        let (request, user) = (self.requests, "ada".into());
        let effects = self.apply(Event::Act { request, user, action });
        let answer = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { answer, .. } => Some(answer),
            _ => None,
        });
        match answer.unwrap()? {
            Answer::Acted(count) => Ok(count),
            other => panic!("a change was answered as {other:?}"),
        }
    }

    pub fn started(&mut self, node: &str, try_id: u64) -> Vec<Effect> {
        let report = Report::Started { try_id: TryId(try_id) };
        self.apply(Event::Report { node: node.into(), report })
    }

    pub fn ended(&mut self, node: &str, try_id: u64, exit: Exit) -> Vec<Effect> {
        let usage = Usage { cpu_ms: 10, memory_peak: MemoryMib(5), ..Usage::default() };
        let report = Report::Ended { try_id: TryId(try_id), exit, usage, heir: None };
        self.apply(Event::Report { node: node.into(), report })
    }

    /// A task has ended well, and its lease was handed on.
    pub fn handed_on(&mut self, node: &str, try_id: u64, heir: u64) -> Vec<Effect> {
        let (try_id, heir, usage) = (TryId(try_id), Some(TryId(heir)), Usage::default());
        let report = Report::Ended { try_id, exit: Exit::Code(0), usage, heir };
        self.apply(Event::Report { node: node.into(), report })
    }

    pub fn returned(&mut self, node: &str, try_id: u64) -> Vec<Effect> {
        let report = Report::Returned { try_id: TryId(try_id) };
        self.apply(Event::Report { node: node.into(), report })
    }

    pub fn pass(&mut self, millis: u64) -> Vec<Effect> {
        self.at += millis;
        self.apply(Event::Tick)
    }

    pub fn state(&self, job: JobId) -> JobState {
        self.cluster.job(job).unwrap().state
    }

    pub fn reason(&self, job: JobId) -> String {
        self.cluster.job(job).unwrap().reason.unwrap_or_default()
    }
}

/// The launches among effects, as (node, try, task).
pub fn launches(effects: &[Effect]) -> Vec<(String, u64, String)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Order { node, order: Order::Launch(launch) } => {
                Some((node.clone(), launch.try_id.0, launch.task.to_string()))
            }
            _ => None,
        })
        .collect()
}

pub fn all_launches(effects: &[Effect]) -> Vec<(String, Launch)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Order { node, order: Order::Launch(launch) } => {
                Some((node.clone(), (**launch).clone()))
            }
            _ => None,
        })
        .collect()
}

/// The tries that are told to stop on a node.
pub fn stops(effects: &[Effect]) -> Vec<(String, u64)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Order { node, order: Order::Stop { try_id } } => Some((node.clone(), try_id.0)),
            _ => None,
        })
        .collect()
}

/// The tries that are launched ahead.
pub fn ahead(effects: &[Effect]) -> Vec<u64> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Order { order: Order::Ahead(launch), .. } => Some(launch.try_id.0),
            _ => None,
        })
        .collect()
}

/// The tries that are called back.
pub fn recalls(effects: &[Effect]) -> Vec<u64> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Order { order: Order::Recall { try_id }, .. } => Some(try_id.0),
            _ => None,
        })
        .collect()
}
