//! Commands about nodes and the cluster as a whole.

use std::io::{self, IsTerminal};

use clap::Args;
use gantry_model::health::{Ailment, Stage};
use gantry_model::{At, NodeRow, Role, Service};
use gantry_wire::{NodeStatus, Scope, Update};
use serde_json::{Value, json};

use super::client::{Access, Client, Reach};
use super::jobs::job_value;
use super::{completions, time};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};
use crate::term::graphics::Wanted;
use crate::ui::theme::Glyphs;
use crate::{live, ui};

/// How the full-screen console looks, and what it may do.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Look {
    /// Draw the console with ASCII only.
    #[arg(long)]
    ascii: bool,
    /// Draw images in pixels by a protocol of the terminal, or with half blocks.
    ///
    /// auto goes by the environment and takes half blocks within tmux and screen, and where colours or
    /// Unicode are missing. Where the line is slow, half blocks are drawn.
    #[arg(long, env = "GANTRY_IMAGE", value_name = "HOW", value_enum, default_value_t = Wanted::Auto)]
    image: Wanted,
    /// Change nothing from the console.
    #[arg(long)]
    read_only: bool,
}

impl Look {
    /// The console's options.
    #[must_use]
    pub fn options(self) -> live::ConsoleOptions {
        let glyphs = if self.ascii { Glyphs::Ascii } else { Glyphs::Unicode };
        let reader = crate::librarian::Reader::of_environment();
        let (image, read_only) = (self.image, self.read_only);
        live::ConsoleOptions { glyphs, image, read_only, reader, ..Default::default() }
    }
}

/// Opens the full-screen console.
///
/// # Errors
/// Where there is no cluster or no terminal.
pub fn console(cluster: Reach, look: Look) -> Outcome {
    let access = Access::find(cluster)?;
    live::run_console(access.own, look.options())
        .map_err(|error| Failure::trouble(format!("{error:#}")))?;
    Ok(0)
}

/// `gantry nodes`.
///
/// # Errors
/// Where the scheduler is not there.
pub fn list(cluster: Reach, format: Format) -> Outcome {
    let client = Client::connect(cluster)?;
    let nodes = client.nodes()?;
    let value: Vec<Value> = nodes.iter().map(node_value).collect();
    let names = || nodes.iter().map(|node| node.row.facts.name.clone()).collect::<Vec<_>>();
    format.print("nodes", &value, || node_table(&nodes), || names().join("\n"))?;
    Ok(0)
}

/// The node of a name.
///
/// # Errors
/// Where there is none, with the one that was probably meant.
pub(super) fn find<'a>(nodes: &'a [NodeStatus], name: &str) -> Result<&'a NodeStatus, Failure> {
    let known = || nodes.iter().map(|node| node.row.facts.name.as_str());
    nodes.iter().find(|node| node.row.facts.name == name).ok_or_else(|| {
        let near = gantry_config::nearest(name, known());
        let hint = near.map_or_else(
            || "gantry nodes lists them".to_owned(),
            |near| format!("did you mean {near}"),
        );
        let sentence = format!("there is no node {name:?}; {hint}");
        Failure { kind: "not-found", ..Failure::usage(sentence) }
    })
}

/// `gantry node`.
#[derive(Debug, Args)]
pub struct Show {
    /// The node.
    #[arg(add = completions::nodes())]
    node: String,
}

impl Show {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the node is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let nodes = Client::connect(cluster)?.nodes()?;
        let node = find(&nodes, &self.node)?;
        let people = || {
            format!("{}\n\n{}", node_table(std::slice::from_ref(node)), details(node, time::now()))
        };
        format.print("node", &node_value(node), people, || self.node.clone())?;
        Ok(0)
    }
}

/// What a node's row has no column for.
fn details(node: &NodeStatus, now: At) -> String {
    let (row, facts) = (&node.row, &node.row.facts);
    let role = |role: &Role| match role {
        Role::Cpu => "cpu",
        Role::Gpu => "gpu",
        Role::Ingest => "ingest",
    };
    let roles: Vec<&str> = facts.roles.iter().map(role).collect();
    let mut lines = vec![
        ("since", time::clock(row.since, now)),
        ("roles", roles.join(", ")),
        ("isolation", facts.isolation.clone()),
        ("address", facts.address.clone()),
    ];
    if !facts.labels.is_empty() {
        lines.push(("labels", facts.labels.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    if facts.resources.scratch.0 > 0 {
        lines.push(("scratch", format!("{}/{}", row.used.scratch, facts.resources.scratch)));
    }
    if let Some(at) = node.sampled {
        lines.push(("last word", time::clock(at, now)));
    }
    for gpu in &facts.gpus {
        let unfit = gpu.unfit.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        lines.push(("gpu", format!("{} {} {}{unfit}", gpu.uuid, gpu.name, gpu.memory)));
    }
    let lines = lines.iter().map(|(word, text)| format!("{word:<9} {}", output::clean(text)));
    lines.collect::<Vec<_>>().join("\n")
}

fn node_value(node: &NodeStatus) -> Value {
    let row = &node.row;
    json!({
        "node": row.facts.name,
        "state": row.state.word(),
        "since_ms": row.since.0,
        "roles": row.facts.roles,
        "cores": row.facts.resources.cores,
        "cores_used": row.used.cores,
        "memory_mib": row.facts.resources.memory.0,
        "memory_used_mib": row.used.memory.0,
        "gpus": row.facts.gpus,
        "gpu_reason": row.facts.gpu_reason,
        "tasks": row.tasks,
        "labels": row.facts.labels,
        "isolation": row.facts.isolation,
        "service": service_value(&row.service),
        "windows": row.windows.iter().map(|window| json!({
            "from_ms": window.from.0,
            "until_ms": window.until.0,
            "reason": window.reason,
        })).collect::<Vec<_>>(),
        "troubles": row.ailments.iter().map(trouble_value).collect::<Vec<_>>(),
        "agent_version": row.facts.agent_version,
        "sample": node.sample,
        "sampled_ms": node.sampled.map(|at: At| at.0),
    })
}

fn trouble_value(ailment: &Ailment) -> Value {
    json!({
        "trouble": ailment.trouble,
        "gpu": ailment.gpu,
        "detail": ailment.detail,
        "since_ms": ailment.since.0,
        "measure": ailment.policy.measure,
        "back": ailment.policy.back,
        "stage": match ailment.stage {
            Stage::Active => "active",
            Stage::Emptying => "emptying",
            Stage::Testing { .. } => "testing",
            Stage::Person => "person",
        },
    })
}

/// A trouble in a few words, and what it waits for.
fn trouble(ailment: &Ailment) -> String {
    let gpu = ailment.gpu.as_ref().map_or(String::new(), |gpu| format!(" on {gpu}"));
    let waits = match ailment.stage {
        Stage::Active => "",
        Stage::Emptying => ", to be tested once empty",
        Stage::Testing { .. } => ", being tested",
        Stage::Person => ", until gantry resume",
    };
    format!("{}{gpu} ({}{waits})", ailment.detail, ailment.trouble)
}

fn service_value(service: &Service) -> Value {
    let (reason, deadline) = match service {
        Service::Open => (None, None),
        Service::Drain { reason, deadline } => (Some(reason), deadline.map(|at| at.0)),
        Service::Quarantine { reason } => (Some(reason), None),
    };
    json!({ "state": service.word(), "reason": reason, "deadline_ms": deadline })
}

/// What a person must know of a node beside its numbers: why it gets no work, when it will get
/// none, why it has no GPU.
fn note(row: &NodeRow, now: At) -> String {
    let mut parts = Vec::new();
    match &row.service {
        Service::Open => {}
        Service::Drain { reason, deadline: None } | Service::Quarantine { reason } => {
            parts.push(reason.clone());
        }
        Service::Drain { reason, deadline: Some(at) } => {
            parts.push(format!("{reason} (until {})", time::clock(*at, now)));
        }
    }
    parts.extend(row.windows.iter().filter(|window| window.until > now).map(|window| {
        let (from, until) = (time::clock(window.from, now), time::clock(window.until, now));
        format!("maintenance {from} to {until}: {}", window.reason)
    }));
    parts.extend(row.ailments.iter().map(trouble));
    parts.extend(row.facts.gpu_reason.clone());
    parts.join("; ")
}

fn node_table(nodes: &[NodeStatus]) -> String {
    if nodes.is_empty() {
        return "no nodes; make a token with gantry scheduler token NODE and join one".into();
    }
    let now = time::now();
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let (row, facts) = (&node.row, &node.row.facts);
            let busy = node.sample.as_ref().map(|sample| sample.cpu_permille / 10);
            vec![
                facts.name.clone(),
                row.state.word().into(),
                row.service.word().into(),
                busy.map_or_else(String::new, |percent| format!("{percent} %")),
                format!("{}/{}", row.used.cores, facts.resources.cores),
                format!("{}/{}", row.used.memory, facts.resources.memory),
                format!("{}/{}", row.used.gpus, facts.resources.gpus),
                row.tasks.to_string(),
                facts.agent_version.clone(),
                note(row, now),
            ]
        })
        .collect();
    output::table(
        &["NODE", "STATE", "SERVICE", "CPU", "CORES", "MEMORY", "GPUS", "TASKS", "AGENT", "NOTE"],
        &rows,
    )
}

/// Columns of a frame that goes to a file or a pipe.
const FRAME_COLUMNS: u16 = 100;

/// What a frame shows, as JSON.
fn overview(update: &Update) -> Value {
    json!({
        "at_ms": update.at.0,
        "cluster": update.cluster,
        "summary": update.summary,
        "busy_permille": update.busy_permille,
        "nodes": update.nodes.iter().map(node_value).collect::<Vec<_>>(),
        "jobs": update.jobs.iter().map(job_value).collect::<Vec<_>>(),
        "notes": update.notes,
    })
}

/// `gantry top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Print one plain frame and exit.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    look: Look,
}

impl Top {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        if !self.once && format == Format::Table && io::stdout().is_terminal() {
            return console(cluster, self.look);
        }
        let client = Client::connect(cluster)?;
        let update = client.watch_once(Scope::Overview)?;
        let columns = output::columns().map_or(FRAME_COLUMNS, |columns| columns as u16);
        let names = || update.nodes.iter().map(|node| node.row.facts.name.as_str());
        let quiet = || names().collect::<Vec<_>>().join("\n");
        format.print("overview", &overview(&update), || ui::plain(&update, columns), quiet)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{NodeFacts, Window};

    use super::*;

    #[test]
    fn a_note_says_why_a_node_gets_no_work() {
        let drain = |deadline| Service::Drain { reason: "new disk".into(), deadline };
        let facts = NodeFacts { gpu_reason: Some("no driver".into()), ..NodeFacts::default() };
        let window = |until| Window { from: At(0), until: At(until), reason: "update".into() };
        for (service, windows, parts, count) in [
            (Service::Open, vec![], &["no driver"][..], 1),
            (drain(None), vec![], &["new disk; ", "no driver"], 2),
            (drain(Some(At(99))), vec![], &["new disk (until ", "); no driver"], 2),
            (Service::Quarantine { reason: "5 failed".into() }, vec![], &["5 failed"], 2),
            (Service::Open, vec![window(50), window(60)], &["maintenance ", ": update"], 2),
        ] {
            let facts = facts.clone();
            let row = NodeRow { service, windows, facts, ..NodeRow::default() };
            let shown = note(&row, At(50));
            assert!(parts.iter().all(|part| shown.contains(part)), "{shown:?} lacks {parts:?}");
            assert_eq!(shown.split("; ").count(), count, "{shown}");
        }
        let value = service_value(&drain(Some(At(99))));
        assert_eq!(value, json!({ "state": "drain", "reason": "new disk", "deadline_ms": 99 }));
    }
}
