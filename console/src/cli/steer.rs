//! Commands that change jobs: cancel, hold, release, requeue, change.

use clap::Args;
use gantry_model::{Action, IndexSet, JobChange, Millis, things};
use gantry_wire::{Reply, Request};
use serde_json::{Value, json};

use super::chosen::Chosen;
use super::client::{Client, Reach, unexpected};
use super::completions;
use crate::error::{Failure, Outcome};
use crate::output::Format;

/// Asks for each of several jobs or nodes, and prints to how many tasks something was done.
///
/// # Errors
/// Where one is refused; those before it are done, and it says which.
pub(super) fn each(
    subject: &str,
    requests: &[(String, Request)],
    kind: &str,
    say: impl Fn(&str, u32) -> String,
    cluster: Reach,
    format: Format,
) -> Outcome {
    let client = Client::connect(cluster)?;
    let mut done = Vec::with_capacity(requests.len());
    for (place, (name, request)) in requests.iter().enumerate() {
        match client.ask(request) {
            Ok(Reply::Cancelled(tasks) | Reply::Acted(tasks)) => done.push((name.as_str(), tasks)),
            Ok(other) => return Err(halfway(&unexpected(&other), requests, place)),
            Err(failure) => return Err(halfway(&failure, requests, place)),
        }
    }
    let value: Vec<Value> =
        done.iter().map(|(name, tasks)| json!({ subject: name, "tasks": tasks })).collect();
    let lines = |line: &dyn Fn(&str, u32) -> String| {
        done.iter().map(|(name, tasks)| line(name, *tasks)).collect::<Vec<_>>().join("\n")
    };
    format.print(kind, &value, || lines(&say), || lines(&|name, _| name.to_owned()))?;
    Ok(0)
}

/// A refusal of one of several, with what was done before it and what was not tried.
fn halfway(failure: &Failure, requests: &[(String, Request)], place: usize) -> Failure {
    let names = |some: &[(String, Request)]| {
        some.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let mut sentence = failure.sentence.clone();
    for (word, some) in [("done", &requests[..place]), ("not tried", &requests[place + 1..])] {
        if !some.is_empty() {
            sentence = format!("{sentence}; {word}: {}", names(some));
        }
    }
    Failure { sentence, ..failure.clone() }
}

/// `gantry cancel`.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The jobs, or elements as j12.3 or j12.0-99.
    #[arg(required = true, value_name = "JOB", add = completions::jobs())]
    jobs: Vec<Chosen>,
    /// Only these elements of each, as 0-9.
    #[arg(long, value_name = "RANGE")]
    elements: Option<IndexSet>,
}

impl Cancel {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a job is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let requests = limited(&self.jobs, self.elements.as_ref(), |chosen| Request::Cancel {
            job: chosen.job,
            indices: chosen.indices.clone(),
        })?;
        let say = |name: &str, tasks| match tasks {
            0 => format!("{name} had ended already"),
            1 => format!("cancelled {name}"),
            n => format!("cancelled {name}, {}", things(n, "task")),
        };
        each("job", &requests, "cancelled", say, cluster, format)
    }
}

/// One request for each choice, limited to the elements that stand beside all of them.
fn limited(
    jobs: &[Chosen],
    elements: Option<&IndexSet>,
    request: impl Fn(&Chosen) -> Request,
) -> Result<Vec<(String, Request)>, Failure> {
    let one = |chosen: &Chosen| {
        let chosen = chosen.limited_to(elements)?;
        // A single job keeps its plain id, which scripts compare.
        let name = if elements.is_some() { chosen.job.to_string() } else { chosen.to_string() };
        Ok((name, request(&chosen)))
    };
    jobs.iter().map(one).collect()
}

/// The jobs that are held or released.
#[derive(Debug, Args)]
pub struct Jobs {
    /// The jobs, or elements as j12.3 or j12.0-99.
    #[arg(required = true, value_name = "JOB", add = completions::jobs())]
    jobs: Vec<Chosen>,
}

impl Jobs {
    /// Carries out `gantry hold`.
    ///
    /// # Errors
    /// Where a job is unknown or has ended, or the scheduler is not there.
    pub fn hold(&self, cluster: Reach, format: Format) -> Outcome {
        let requests = limited(&self.jobs, None, |chosen| {
            Request::Act(Action::Hold { job: chosen.job, indices: chosen.indices.clone() })
        })?;
        let say = |name: &str, tasks| match tasks {
            0 => format!("nothing more of {name} waits"),
            n => format!("held {name}, {}", things(n, "task")),
        };
        each("job", &requests, "held", say, cluster, format)
    }

    /// Carries out `gantry release`.
    ///
    /// # Errors
    /// Where a job is unknown or has ended, or the scheduler is not there.
    pub fn release(&self, cluster: Reach, format: Format) -> Outcome {
        let requests = limited(&self.jobs, None, |chosen| {
            Request::Act(Action::Release { job: chosen.job, indices: chosen.indices.clone() })
        })?;
        let say = |name: &str, tasks| match tasks {
            0 => format!("nothing of {name} was held"),
            n => format!("released {name}, {}", things(n, "task")),
        };
        each("job", &requests, "released", say, cluster, format)
    }
}

/// `gantry requeue`.
#[derive(Debug, Args)]
pub struct Requeue {
    /// The jobs, or elements as j12.3 or j12.0-99.
    #[arg(required = true, value_name = "JOB", add = completions::jobs())]
    jobs: Vec<Chosen>,
}

impl Requeue {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a job is unknown, or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let requests = limited(&self.jobs, None, |chosen| {
            Request::Act(Action::Requeue { job: chosen.job, indices: chosen.indices.clone() })
        })?;
        let say = |name: &str, tasks| match tasks {
            0 => format!("nothing of {name} runs"),
            n => format!("requeued {name}, {}", things(n, "task")),
        };
        each("job", &requests, "requeued", say, cluster, format)
    }
}

/// `gantry change`.
#[derive(Debug, Args)]
#[command(override_usage = "gantry change [OPTIONS] <JOB>...")]
pub struct Change {
    /// The jobs, or elements as j12.3 or j12.0-99; of elements, --time and --retries can be changed.
    #[arg(required = true, value_name = "JOB", add = completions::jobs())]
    jobs: Vec<Chosen>,
    #[command(flatten)]
    changes: Changes,
}

/// What changes; at least one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// Larger goes first.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    priority: Option<i32>,
    /// The time limit of what starts from now on, as 2h.
    #[arg(long, value_name = "TIME")]
    time: Option<Millis>,
    /// How long a task will take.
    #[arg(long, value_name = "TIME")]
    estimate: Option<Millis>,
    /// How many elements may run at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    at_once: Option<u32>,
    /// How often a failed task is started again.
    #[arg(long, value_name = "N")]
    retries: Option<u8>,
}

impl Change {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a job is unknown or the change is refused, or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let change = JobChange {
            priority: self.changes.priority,
            time_limit: self.changes.time,
            estimate: self.changes.estimate,
            at_once_max: self.changes.at_once,
            retries: self.changes.retries,
        };
        let requests = limited(&self.jobs, None, |chosen| {
            let (job, indices) = (chosen.job, chosen.indices.clone());
            Request::Act(Action::Change { job, indices, change: change.clone() })
        })?;
        let say = |name: &str, tasks| match tasks {
            0 => format!("all of {name} has ended"),
            n => format!("changed {name}, {}", things(n, "task")),
        };
        each("job", &requests, "changed", say, cluster, format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_was_done_before_it() {
        let jobs: Vec<Chosen> = ["j1", "j2", "j3"].iter().map(|job| job.parse().unwrap()).collect();
        let hold = |chosen: &Chosen| {
            Request::Act(Action::Hold { job: chosen.job, indices: chosen.indices.clone() })
        };
        let requests = limited(&jobs, None, hold).unwrap();
        for (place, expected) in [
            (0, "no; not tried: j2 j3"),
            (1, "no; done: j1; not tried: j3"),
            (2, "no; done: j1 j2"),
        ] {
            let failure = halfway(&Failure::usage("no"), &requests, place);
            assert_eq!((failure.code, failure.sentence.as_str()), (2, expected));
        }
        assert_eq!(halfway(&Failure::usage("no"), &requests[..1], 0).sentence, "no");
    }

    #[test]
    fn elements_reach_the_request_and_the_name() {
        let jobs: Vec<Chosen> = vec!["j1".parse().unwrap()];
        let elements: IndexSet = "0-9".parse().unwrap();
        let indices =
            |chosen: &Chosen| Request::Cancel { job: chosen.job, indices: chosen.indices.clone() };
        let requests = limited(&jobs, Some(&elements), indices).unwrap();
        let Request::Cancel { indices: Some(found), .. } = &requests[0].1 else { panic!() };
        assert_eq!((requests[0].0.as_str(), found), ("j1", &elements));
        let part: Vec<Chosen> = vec!["j1.3".parse().unwrap()];
        assert_eq!(limited(&part, None, indices).unwrap()[0].0, "j1.3");
        assert!(limited(&part, Some(&elements), indices).is_err());
    }
}
