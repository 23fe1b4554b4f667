//! `gantry submit`: a command as a job.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use gantry_model::{
    Array, Dependency, DependencyKind, JobId, JobSpec, MemoryMib, Millis, Reject, Resources, Work,
};
use gantry_wire::{Reply, Request};
use serde_json::json;

use super::client::{Client, submit_key, unexpected};
use super::jobs::end_code;
use crate::error::{Failure, Outcome};
use crate::output::Format;

/// What a job needs and waits for: the flags that every submitting command shares.
#[derive(Clone, Debug, Args)]
pub struct Needs {
    /// A name for people.
    #[arg(long)]
    pub name: Option<String>,
    /// Cores of each task.
    #[arg(long, default_value_t = 1)]
    pub cores: u32,
    /// Memory of each task, as 512M or 4G.
    #[arg(long, default_value = "0")]
    pub memory: MemoryMib,
    /// GPUs of each task.
    #[arg(long, default_value_t = 0)]
    pub gpus: u32,
    /// Start only after this job: j12 or ok:j12 (done), any:j12 (ended), fail:j12 (failed).
    #[arg(long, value_name = "JOB", value_parser = dependency)]
    pub after: Vec<Dependency>,
    /// How often a failed task is started again.
    #[arg(long, default_value_t = 0)]
    pub retries: u8,
    /// End a task after this long, as 90s, 15m or 2h.
    #[arg(long, value_name = "TIME")]
    pub time: Option<Millis>,
    /// Larger goes first.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    pub priority: i32,
    /// Only on the node of this name.
    #[arg(long)]
    pub node: Option<String>,
    /// Wait until the job has ended and exit as it did.
    #[arg(long, short)]
    pub wait: bool,
    /// The same key submits the same job only once.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

impl Needs {
    /// The job's specification with these needs.
    #[must_use]
    pub fn spec(&self, name: &str, work: Work) -> JobSpec {
        let name = self.name.as_deref().unwrap_or(name);
        JobSpec {
            resources: Resources { cores: self.cores, memory: self.memory, gpus: self.gpus },
            after: self.after.clone(),
            retries: self.retries,
            time_limit: self.time,
            priority: self.priority,
            node: self.node.clone(),
            ..JobSpec::new(name, work)
        }
    }

    /// Submits a job, says its id, and waits for its end where that was asked for.
    ///
    /// # Errors
    /// Where the job is refused or the scheduler is not there.
    pub fn submit(&self, spec: JobSpec, cluster: Option<PathBuf>, format: Format) -> Outcome {
        spec.validate()?;
        let client = Client::connect(cluster)?;
        let key = self.key.clone().unwrap_or_else(submit_key);
        let reply = client.ask(&Request::Submit { key, spec: Box::new(spec) })?;
        let Reply::Submitted(job) = reply else { return Err(unexpected(&reply)) };
        if !self.wait {
            let value = json!({ "job": job.to_string() });
            format.print("submitted", &value, || format!("submitted {job}"), || job.to_string())?;
            return Ok(0);
        }
        end_code(&client, &[job], format)
    }
}

fn dependency(text: &str) -> Result<Dependency, Reject> {
    let (kind, job) = text.split_once(':').unwrap_or(("ok", text));
    let kind = match kind {
        "ok" => DependencyKind::Ok,
        "any" => DependencyKind::Any,
        "fail" => DependencyKind::Fail,
        other => {
            return Err(Reject::invalid(format!(
                "{other:?} is not a kind of dependency; write ok:j12, any:j12 or fail:j12"
            )));
        }
    };
    Ok(Dependency { kind, job: job.parse::<JobId>()? })
}

/// `gantry submit`.
#[derive(Debug, Args)]
pub struct Submit {
    #[command(flatten)]
    needs: Needs,
    /// Elements, as 0-9, or 0-999%50 for at most 50 at once.
    #[arg(long)]
    array: Option<Array>,
    /// The working folder; this one if it is not given.
    #[arg(long, value_name = "DIR")]
    folder: Option<String>,
    /// A variable for the tasks, as NAME=VALUE.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Submit {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the job is refused or the scheduler is not there.
    pub fn run(self, cluster: Option<PathBuf>, format: Format) -> Outcome {
        let program = self.command[0].rsplit('/').next().unwrap_or_default();
        let here = std::env::current_dir().ok().map(|folder| folder.display().to_string());
        let folder = self.folder.or(here);
        let name: String = program.chars().take(64).collect();
        let work = Work::Command { arguments: self.command.clone(), folder };
        let mut spec = self.needs.spec(&name, work);
        spec.array = self.array;
        spec.environment = environment(&self.environment)?;
        self.needs.submit(spec, cluster, format)
    }
}

fn environment(entries: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let split = |entry: &String| {
        let (name, value) = entry.split_once('=').ok_or_else(|| {
            Failure::usage(format!("{entry:?} is not a variable; write --env NAME=VALUE"))
        })?;
        Ok((name.to_owned(), value.to_owned()))
    };
    entries.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_people_type() {
        for (text, kind) in [
            ("j3", DependencyKind::Ok),
            ("ok:3", DependencyKind::Ok),
            ("any:j3", DependencyKind::Any),
            ("fail:j3", DependencyKind::Fail),
        ] {
            assert_eq!(dependency(text).unwrap(), Dependency { kind, job: JobId(3) }, "{text}");
        }
        for text in ["", "x", "done:j3", "ok:"] {
            assert!(dependency(text).is_err(), "{text}");
        }
    }
}
