//! What a user submits: a job, the work of its tasks, and what it waits for.
//!
//! [`JobSpec::validate`] is the one check of a job. A command runs it before anything is sent and
//! the scheduler runs it again, so both say the same sentence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::array::{Array, IndexSet};
use crate::ids::JobId;
use crate::limits;
use crate::reject::Reject;
use crate::resources::Resources;
use crate::units::Millis;

/// What each task of a job does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// A command, run in its own process group.
    Command {
        /// The program and its arguments; at least one.
        arguments: Vec<String>,
        /// The working folder; the agent's work folder where it is absent.
        folder: Option<String>,
    },
    /// An operation that a warm worker on the node carries out without a process of its own.
    Builtin(Builtin),
}

/// The operations built into gantry. Each names the library it works on by its folder on the
/// shared storage, and series, models and runs by the library's own opaque ids: no patient data
/// ever travels in a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Builtin {
    /// One task per series: run a pipeline and add the sample to the library.
    Preprocess {
        /// Folder of the library.
        library: String,
        /// The pipeline file's text.
        pipeline: String,
        /// Series, one for each array index.
        series: Vec<String>,
    },
    /// Train a network on the samples of a library and publish the model.
    Train {
        /// Folder of the library.
        library: String,
        /// Training settings as JSON.
        settings: String,
        /// The run: the folder of its checkpoints within the library. A later try resumes it.
        run: String,
    },
    /// One task per series: predict, keep mask and DICOM SEG, add the case.
    Predict {
        /// Folder of the library.
        library: String,
        /// The model's id, or the run whose model it is (`run:NAME`).
        model: String,
        /// Series, one for each array index.
        series: Vec<String>,
    },
}

impl Builtin {
    /// The operation's name, as in `gantry preprocess`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Preprocess { .. } => "preprocess",
            Self::Train { .. } => "train",
            Self::Predict { .. } => "predict",
        }
    }
}

/// When a dependency counts as met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DependencyKind {
    /// Every task of the other job is done.
    Ok,
    /// The other job has ended in any way.
    Any,
    /// The other job has failed.
    Fail,
}

/// A job that must end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The other job.
    pub job: JobId,
    /// When it counts as met.
    pub kind: DependencyKind,
}

/// A job as submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// A short name for people.
    pub name: String,
    /// What each task does.
    pub work: Work,
    /// What each task needs.
    pub resources: Resources,
    /// The elements, if the job is an array.
    pub array: Option<Array>,
    /// What must end first.
    pub after: Vec<Dependency>,
    /// How often a failed task is started again. A lost node does not count.
    pub retries: u8,
    /// After how long a try is ended.
    pub time_limit: Option<Millis>,
    /// Larger goes first.
    pub priority: i32,
    /// Only on the node of this name.
    pub node: Option<String>,
    /// Variables set for the tasks beside the `GANTRY_*` ones.
    pub environment: BTreeMap<String, String>,
}

impl JobSpec {
    /// A job of one task with one core, to be filled in.
    #[must_use]
    pub fn new(name: impl Into<String>, work: Work) -> Self {
        Self {
            name: name.into(),
            work,
            resources: Resources { cores: 1, ..Resources::default() },
            array: None,
            after: Vec::new(),
            retries: 0,
            time_limit: None,
            priority: 0,
            node: None,
            environment: BTreeMap::new(),
        }
    }

    /// The array indices of the job's tasks.
    #[must_use]
    pub fn indices(&self) -> IndexSet {
        self.array.as_ref().map_or_else(|| IndexSet::first(1), |array| array.indices.clone())
    }

    /// Checks everything that can be known of a job without knowing the cluster.
    pub fn validate(&self) -> Result<(), Reject> {
        check_name("job", &self.name)?;
        if self.resources.cores == 0 {
            return Err(Reject::invalid(
                "a task needs at least one core; ask for --cores 1 or more",
            ));
        }
        if self.resources.gpus as usize > limits::GPUS_MAX {
            return Err(Reject::invalid(format!(
                "{} gpus on one node were asked for; at most {} are allowed",
                self.resources.gpus,
                limits::GPUS_MAX
            )));
        }
        if self.retries > limits::RETRIES_MAX {
            return Err(Reject::invalid(format!(
                "at most {} retries are allowed",
                limits::RETRIES_MAX
            )));
        }
        if self.after.len() > limits::DEPENDENCIES_MAX {
            return Err(Reject::invalid(format!(
                "the job depends on {} jobs; at most {} are allowed",
                self.after.len(),
                limits::DEPENDENCIES_MAX
            )));
        }
        if self.time_limit == Some(Millis(0)) {
            return Err(Reject::invalid(
                "a time limit of 0s would end every task at once; leave it out or raise it",
            ));
        }
        self.check_environment()?;
        match &self.work {
            Work::Command { arguments, folder } => check_command(arguments, folder.as_deref()),
            Work::Builtin(builtin) => self.check_builtin(builtin),
        }
    }

    fn check_environment(&self) -> Result<(), Reject> {
        if self.environment.len() > limits::ENVIRONMENT_MAX {
            return Err(Reject::invalid(format!(
                "the environment has {} entries; at most {} are allowed",
                self.environment.len(),
                limits::ENVIRONMENT_MAX
            )));
        }
        let bytes: usize =
            self.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > limits::ENVIRONMENT_BYTES_MAX {
            return Err(Reject::invalid(format!(
                "the environment has {bytes} bytes; at most {} are allowed, put it into a file",
                limits::ENVIRONMENT_BYTES_MAX
            )));
        }
        let bad = |name: &&String| name.is_empty() || name.contains('=') || name.contains('\0');
        if let Some(name) = self.environment.keys().find(bad) {
            return Err(Reject::invalid(format!(
                "{name:?} is not the name of an environment variable"
            )));
        }
        Ok(())
    }

    fn check_builtin(&self, builtin: &Builtin) -> Result<(), Reject> {
        let (bytes, series) = match builtin {
            Builtin::Preprocess { library, pipeline, series } => {
                (library.len() + pipeline.len(), Some(series))
            }
            Builtin::Train { library, settings, run } => {
                (library.len() + settings.len() + run.len(), None)
            }
            Builtin::Predict { library, model, series } => {
                (library.len() + model.len(), Some(series))
            }
        };
        let bytes = bytes + series.map_or(0, |all| all.iter().map(String::len).sum());
        if bytes > limits::BUILTIN_BYTES_MAX {
            return Err(Reject::invalid(format!(
                "the settings of {} are {bytes} bytes long; at most {} are allowed, submit it in parts",
                builtin.name(),
                limits::BUILTIN_BYTES_MAX
            )));
        }
        let Some(series) = series else { return Ok(()) };
        if series.is_empty() {
            return Err(Reject::invalid(format!("{} was given no series", builtin.name())));
        }
        if self.indices() != IndexSet::first(series.len() as u32) {
            return Err(Reject::invalid(format!(
                "{} of {} series needs an array of as many tasks, 0-{}",
                builtin.name(),
                series.len(),
                series.len() - 1
            )));
        }
        Ok(())
    }
}

fn check_command(arguments: &[String], folder: Option<&str>) -> Result<(), Reject> {
    if arguments.first().is_none_or(String::is_empty) {
        return Err(Reject::invalid(
            "no command was given; write it after --, as in: gantry submit -- CMD",
        ));
    }
    let bytes: usize =
        arguments.iter().map(String::len).sum::<usize>() + folder.map_or(0, str::len);
    if arguments.len() > limits::ARGUMENTS_MAX || bytes > limits::COMMAND_BYTES_MAX {
        return Err(Reject::invalid(format!(
            "the command has {} arguments and {bytes} bytes; at most {} and {} are allowed, put it into a script",
            arguments.len(),
            limits::ARGUMENTS_MAX,
            limits::COMMAND_BYTES_MAX
        )));
    }
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(Reject::invalid("an argument of the command contains a zero byte"));
    }
    Ok(())
}

/// Checks a name that people will read on a screen and type in a shell.
pub fn check_name(what: &str, name: &str) -> Result<(), Reject> {
    let length = name.chars().count();
    if length == 0 || length > limits::NAME_CHARACTERS_MAX {
        return Err(Reject::invalid(format!(
            "the {what} name {name:?} has {length} characters; 1 to {} are allowed",
            limits::NAME_CHARACTERS_MAX
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Reject::invalid(format!(
            "the {what} name {name:?} contains a control character"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(arguments: &[&str]) -> JobSpec {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        JobSpec::new("job", Work::Command { arguments, folder: None })
    }

    #[test]
    fn a_wrong_job_is_refused_with_what_to_do() {
        let array = |text: &str| Some(text.parse::<Array>().unwrap());
        let predict = |series: &[&str]| {
            Work::Builtin(Builtin::Predict {
                library: "/data".into(),
                model: "m".into(),
                series: series.iter().map(ToString::to_string).collect(),
            })
        };
        let cases: Vec<(JobSpec, &str)> = vec![
            (command(&[]), "no command"),
            (command(&["x\0"]), "zero byte"),
            (command(&["x"; 300]), "300 arguments"),
            (JobSpec { name: String::new(), ..command(&["x"]) }, "0 characters"),
            (JobSpec { name: "a\x1b[31m".into(), ..command(&["x"]) }, "control character"),
            (JobSpec { resources: Resources::default(), ..command(&["x"]) }, "at least one core"),
            (JobSpec { retries: 101, ..command(&["x"]) }, "at most 100 retries"),
            (JobSpec { time_limit: Some(Millis(0)), ..command(&["x"]) }, "time limit of 0s"),
            (JobSpec::new("p", predict(&[])), "no series"),
            (JobSpec { array: array("0-2"), ..JobSpec::new("p", predict(&["a", "b"])) }, "array"),
        ];
        for (spec, part) in cases {
            let reject = spec.validate().unwrap_err();
            assert!(reject.sentence.contains(part), "{:?} lacks {part:?}", reject.sentence);
        }
        assert_eq!(command(&["true"]).validate(), Ok(()));
        let two = JobSpec { array: array("0-1"), ..JobSpec::new("p", predict(&["a", "b"])) };
        assert_eq!(two.validate(), Ok(()));
    }
}
