//! `gantry config import`: what a `slurm.conf` says of nodes, partitions and licences, as settings.

use std::path::{Path, PathBuf};

use clap::Args;
use gantry_config::slurm::import::{CONF_BYTES_MAX, Imported, import};
use serde_json::{Value, json};

use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// `gantry config import`.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The slurm.conf.
    file: PathBuf,
    /// A new folder: scheduler.toml, and the settings of each node under agents, to be looked through.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

impl Import {
    pub(super) fn run(&self, format: Format) -> Outcome {
        let shown = self.file.display();
        let fail =
            |error: std::io::Error| Failure::usage(format!("reading {shown} failed: {error}"));
        let bytes = std::fs::metadata(&self.file).map_err(fail)?.len();
        if bytes > CONF_BYTES_MAX as u64 {
            return Err(Failure::usage(format!(
                "{shown} has {bytes} bytes, which is no slurm.conf"
            )));
        }
        let found = import(&std::fs::read_to_string(&self.file).map_err(fail)?);
        if found.nodes.is_empty() {
            return Err(Failure::usage(format!(
                "{shown} names no nodes (NodeName=); is it a slurm.conf, and not one that includes others?"
            )));
        }
        if let Some(to) = &self.to {
            write(&found, to)?;
        }
        for remark in &found.remarks {
            output::complain(&remark.to_string());
        }
        format.print(
            "imported",
            &value(&found),
            || text(&found, self.to.as_deref()),
            || found.nodes.keys().cloned().collect::<Vec<_>>().join("\n"),
        )?;
        Ok(0)
    }
}

fn write(found: &Imported, to: &Path) -> Result<(), Failure> {
    let agents = to.join("agents");
    let fail = |path: &Path, error: std::io::Error| {
        Failure::trouble(format!("writing {} failed: {error}", path.display()))
    };
    if to.exists() {
        let shown = to.display();
        return Err(Failure::usage(format!("{shown} is there already; name a new folder")));
    }
    std::fs::create_dir_all(&agents).map_err(|error| fail(&agents, error))?;
    let put =
        |path: PathBuf, text: &str| std::fs::write(&path, text).map_err(|error| fail(&path, error));
    put(to.join("scheduler.toml"), &found.scheduler_file())?;
    for name in found.nodes.keys() {
        // A name is a file's name here.
        if name.contains('/') || name.starts_with('.') {
            return Err(Failure::usage(format!("{name:?} cannot be the name of a node")));
        }
        put(agents.join(format!("{name}.toml")), &found.agent_file(name).unwrap_or_default())?;
    }
    Ok(())
}

fn value(found: &Imported) -> Value {
    let node = |(name, node): (&String, &gantry_config::slurm::import::Node)| {
        json!({
            "node": name,
            "cores": node.cores,
            "memory_mib": node.memory.map(|memory| memory.0),
            "gpus": node.gpus,
            "labels": node.labels,
        })
    };
    let remark = |one: &gantry_config::slurm::Remark| json!({ "line": one.line, "what": one.what, "sentence": one.sentence });
    json!({
        "nodes": found.nodes.iter().map(node).collect::<Vec<_>>(),
        "partitions": found.partitions,
        "groups": found.groups,
        "licences": found.licences,
        "remarks": found.remarks.iter().map(remark).collect::<Vec<_>>(),
    })
}

fn text(found: &Imported, to: Option<&Path>) -> String {
    let rows: Vec<Vec<String>> = found
        .nodes
        .iter()
        .map(|(name, node)| {
            vec![
                name.clone(),
                node.cores.map_or_else(|| "all".into(), |cores| cores.to_string()),
                node.memory.map_or_else(|| "all".into(), |memory| memory.to_string()),
                node.gpus.to_string(),
                node.labels.iter().cloned().collect::<Vec<_>>().join(" "),
            ]
        })
        .collect();
    let table = output::table(&["NODE", "CORES", "MEMORY", "GPUS", "LABELS"], &rows);
    let next = match to {
        Some(to) => format!(
            "settings are in {}; look them through, and give each node its own after gantry join",
            to.display()
        ),
        None => format!(
            "the scheduler's settings:\n\n{}\n--to DIR writes these and those of each node",
            found.scheduler_file()
        ),
    };
    format!("{table}\n\n{next}")
}
