//! Commands about nodes and the cluster as a whole.

use std::path::PathBuf;

use clap::Args;
use gantry_model::{At, Note};
use gantry_wire::{NodeStatus, Reply, Request, Scope};
use serde_json::{Value, json};

use super::client::{Access, Client, unexpected};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};
use crate::ui::theme::Glyphs;
use crate::{live, ui};

/// How the full-screen console looks, and what it may do.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Look {
    /// Draw the console with ASCII only.
    #[arg(long)]
    ascii: bool,
    /// Change nothing from the console.
    #[arg(long)]
    read_only: bool,
}

impl Look {
    /// The console's options.
    #[must_use]
    pub fn options(self) -> live::ConsoleOptions {
        let glyphs = if self.ascii { Glyphs::Ascii } else { Glyphs::Unicode };
        live::ConsoleOptions { glyphs, read_only: self.read_only, ..Default::default() }
    }
}

/// Opens the full-screen console.
///
/// # Errors
/// Where there is no cluster or no terminal.
pub fn console(cluster: Option<PathBuf>, look: Look) -> Outcome {
    let access = Access::find(cluster)?;
    live::run_console(access.address, access.identity, look.options())
        .map_err(|error| Failure::trouble(format!("{error:#}")))?;
    Ok(0)
}

/// `gantry nodes`.
///
/// # Errors
/// Where the scheduler is not there.
pub fn list(cluster: Option<PathBuf>, format: Format) -> Outcome {
    let client = Client::connect(cluster)?;
    let reply = client.ask(&Request::Nodes)?;
    let Reply::Nodes(nodes) = reply else { return Err(unexpected(&reply)) };
    let value: Vec<Value> = nodes.iter().map(node_value).collect();
    let names = || nodes.iter().map(|node| node.row.facts.name.clone()).collect::<Vec<_>>();
    format.print("nodes", &value, || node_table(&nodes), || names().join("\n"))?;
    Ok(0)
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
        "agent_version": row.facts.agent_version,
        "sample": node.sample,
        "sampled_ms": node.sampled.map(|at: At| at.0),
    })
}

fn node_table(nodes: &[NodeStatus]) -> String {
    if nodes.is_empty() {
        return "no nodes; make a token with gantry scheduler token NODE and join one".into();
    }
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let (row, facts) = (&node.row, &node.row.facts);
            let busy = node.sample.as_ref().map(|sample| sample.cpu_permille / 10);
            vec![
                facts.name.clone(),
                row.state.word().into(),
                busy.map_or_else(String::new, |percent| format!("{percent} %")),
                format!("{}/{}", row.used.cores, facts.resources.cores),
                format!("{}/{}", row.used.memory, facts.resources.memory),
                format!("{}/{}", row.used.gpus, facts.resources.gpus),
                row.tasks.to_string(),
                facts.agent_version.clone(),
                facts.gpu_reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(
        &["NODE", "STATE", "CPU", "CORES", "MEMORY", "GPUS", "TASKS", "AGENT", "NOTE"],
        &rows,
    )
}

/// `gantry events`.
///
/// # Errors
/// Where the scheduler is not there.
pub fn events(cluster: Option<PathBuf>, format: Format) -> Outcome {
    let client = Client::connect(cluster)?;
    let reply = client.ask(&Request::Notes)?;
    let Reply::Notes(notes) = reply else { return Err(unexpected(&reply)) };
    let value: Vec<Value> = notes.iter().map(note_value).collect();
    let people = || {
        let row = |note: &Note| {
            vec![
                ui::clock(note.at),
                note.level.word().into(),
                note.subject.to_string(),
                note.sentence.clone(),
            ]
        };
        output::table(
            &["TIME", "LEVEL", "SUBJECT", "WHAT"],
            &notes.iter().map(row).collect::<Vec<_>>(),
        )
    };
    format.print("events", &value, people, String::new)?;
    Ok(0)
}

fn note_value(note: &Note) -> Value {
    json!({
        "at_ms": note.at.0,
        "level": note.level,
        "subject": note.subject.to_string(),
        "sentence": note.sentence,
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
    pub fn run(&self, cluster: Option<PathBuf>) -> Outcome {
        if !self.once {
            return console(cluster, self.look);
        }
        let client = Client::connect(cluster)?;
        let update = client.watch_once(Scope::Overview)?;
        output::text(&ui::plain(&update, 100))?;
        Ok(0)
    }
}
