//! What a job needs: the flags that every submitting command shares, grouped as its help shows
//! them, and the specification they make.
//!
//! The same words are the keys of a job file (`gantry_config::jobs`), and both read them with the
//! same parsers. No flag has a default of its own, so that a command can tell what was given.

use std::collections::BTreeSet;

use clap::Args;
use gantry_config::jobs::{DependencyText, GpuAmount, LicenceText, RetryCodes};
use gantry_model::{
    Dependency, Gang, JobId, JobSpec, MemoryMib, Millis, Preemption, Reject, Resources, Sharing,
    Warning, Work,
};

use super::completions;
use crate::error::Failure;

/// What a job needs and waits for.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Needs {
    /// A name for people.
    #[arg(long)]
    pub name: Option<String>,
    #[command(flatten)]
    resources: ResourceFlags,
    #[command(flatten)]
    order: OrderFlags,
    #[command(flatten)]
    life: LifeFlags,
}

/// What each task asks of its node.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Resources of each task")]
struct ResourceFlags {
    /// Cores; 1 where nothing is said.
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
    /// Memory, as 512M or 4G.
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemoryMib>,
    /// GPUs: whole ones as 2, or a share of one as 0.25.
    #[arg(long, value_name = "N")]
    gpus: Option<GpuAmount>,
    /// Only GPUs whose product name holds this, as H100.
    #[arg(long, value_name = "NAME")]
    gpu_model: Option<String>,
    /// Only GPUs with at least this much memory, as 40G.
    #[arg(long, value_name = "SIZE")]
    gpu_memory: Option<MemoryMib>,
    /// MIG instances of this profile, as 1g.10gb; --gpus says how many.
    #[arg(long, value_name = "PROFILE")]
    mig: Option<String>,
    /// Scratch space on the node's own disk, as 50G.
    #[arg(long, value_name = "SIZE")]
    scratch: Option<MemoryMib>,
    /// A licence of the cluster's counters, as matlab or matlab=2.
    #[arg(long, value_name = "NAME[=N]")]
    licence: Vec<LicenceText>,
    /// No other job beside it on its node.
    #[arg(long)]
    exclusive: bool,
    /// Only on the node of this name.
    #[arg(long, value_name = "NAME", add = completions::nodes())]
    node: Option<String>,
}

/// When it may start.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Order")]
struct OrderFlags {
    /// Start only after this job: j12 or ok:j12 (done), any:j12 (ended), fail:j12 (failed);
    /// elements:j12 for each element after the other's of the same index.
    #[arg(long, value_name = "JOB", value_parser = dependency)]
    after: Vec<Dependency>,
    /// Larger goes first.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    priority: Option<i32>,
    /// Use the quota of this group.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// May be stopped to make room: it writes checkpoints and goes on from the newest.
    #[arg(long)]
    preemptible: bool,
    /// Wait until gantry release.
    #[arg(long)]
    hold: bool,
}

/// How long it runs, and what follows a failure.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Life")]
struct LifeFlags {
    /// End a task after this long, as 90s, 15m or 2h.
    #[arg(long, value_name = "TIME")]
    time: Option<Millis>,
    /// How long a task will take, as far as you know: short work fills gaps.
    #[arg(long, value_name = "TIME")]
    estimate: Option<Millis>,
    /// A signal so long before the time limit, as USR1@60s.
    #[arg(long, value_name = "SIGNAL@TIME")]
    warning: Option<Warning>,
    /// How often a failed task is started again.
    #[arg(long, value_name = "N")]
    retries: Option<u8>,
    /// Start again only after these exit codes, as 1,75.
    #[arg(long, value_name = "CODES")]
    retry_codes: Option<RetryCodes>,
}

/// Labels that a task's node must have, as `gantry submit` names them.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Resources of each task")]
pub struct Labels {
    /// Only nodes with this label, as nvme or site=north; may be repeated.
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
}

/// The same for the built-in operations, where a label is what a network learns.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Resources of each task")]
pub struct NodeLabels {
    /// Only nodes with this label, as nvme or site=north; may be repeated.
    #[arg(long, value_name = "LABEL")]
    node_label: Vec<String>,
}

impl Labels {
    /// The labels.
    #[must_use]
    pub fn set(&self) -> BTreeSet<String> {
        self.label.iter().cloned().collect()
    }
}

impl NodeLabels {
    /// The labels.
    #[must_use]
    pub fn set(&self) -> BTreeSet<String> {
        self.node_label.iter().cloned().collect()
    }
}

/// Ranks that start together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Several tasks")]
pub struct GangFlags {
    /// So many ranks that start together or not at all; each has the resources of a task.
    #[arg(long, value_name = "N")]
    ranks: Option<u32>,
    /// Spread the ranks evenly over so many nodes.
    #[arg(long, value_name = "N", requires = "ranks")]
    nodes: Option<u32>,
}

impl GangFlags {
    /// The gang, where there is one.
    #[must_use]
    pub fn gang(self) -> Option<Gang> {
        self.ranks.map(|ranks| Gang { ranks, nodes: self.nodes })
    }
}

impl Needs {
    /// The job's specification with these needs.
    ///
    /// # Errors
    /// Where two of them contradict one another.
    pub fn spec(&self, name: &str, work: Work) -> Result<JobSpec, Failure> {
        let (asked, order, life) = (&self.resources, &self.order, &self.life);
        let amount = asked.gpus.unwrap_or_default();
        let gpu_memory = asked.gpu_memory.unwrap_or_default();
        let licences = asked.licence.iter().map(|licence| (licence.name.clone(), licence.count));
        Ok(JobSpec {
            resources: Resources {
                cores: asked.cores.unwrap_or(1),
                memory: asked.memory.unwrap_or_default(),
                gpus: amount.count,
                scratch: asked.scratch.unwrap_or_default(),
            },
            gpu: amount.demand(asked.mig.as_deref(), asked.gpu_model.as_deref(), gpu_memory)?,
            sharing: if asked.exclusive { Sharing::Exclusive } else { Sharing::Shared },
            licences: licences.collect(),
            node: asked.node.clone(),
            after: order.after.clone(),
            priority: order.priority.unwrap_or_default(),
            group: order.group.clone(),
            preemption: if order.preemptible { Preemption::Requeue } else { Preemption::Never },
            held: order.hold,
            time_limit: life.time,
            estimate: life.estimate,
            warning: life.warning,
            retries: life.retries.unwrap_or_default(),
            retry_codes: life.retry_codes.clone().unwrap_or_default().0,
            ..JobSpec::new(self.name.as_deref().unwrap_or(name), work)
        })
    }
}

/// A dependency on a job by its id.
fn dependency(text: &str) -> Result<Dependency, Reject> {
    let read: DependencyText = text.parse()?;
    Ok(Dependency { job: read.job.parse::<JobId>()?, kind: read.kind, scope: read.scope })
}

#[cfg(test)]
mod tests {
    use gantry_model::{DependencyKind, DependencyScope};

    use super::*;

    #[test]
    fn dependencies_people_type() {
        use DependencyKind::{Any, Fail, Ok as Done};
        use DependencyScope::{Element, Job};
        for (text, kind, scope) in [
            ("j3", Done, Job),
            ("ok:3", Done, Job),
            ("any:j3", Any, Job),
            ("fail:j3", Fail, Job),
            ("elements:j3", Done, Element),
            ("elements:any:j3", Any, Element),
        ] {
            let expected = Dependency { kind, job: JobId(3), scope };
            assert_eq!(dependency(text).unwrap(), expected, "{text}");
        }
        for text in ["", "x", "done:j3", "ok:", "elements:", "ok:any:j3"] {
            assert!(dependency(text).is_err(), "{text}");
        }
    }
}
