//! What a user submits: a job, the work of its tasks, and what it waits for.
//!
//! [`JobSpec::validate`] is the one check of a job. A command runs it before anything is sent and
//! the scheduler runs it again, so both say the same sentence.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::array::{Array, IndexSet};
use crate::conditions::{Dependency, Gang, Preemption, Warning};
use crate::ids::TaskId;
use crate::limits;
use crate::reject::Reject;
use crate::resources::{GPU_WHOLE, GpuDemand, GpuPart, Resources, Sharing};
use crate::units::Millis;
use crate::work::{Builtin, Work};

/// A job as submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// A short name for people.
    pub name: String,
    /// What each task does.
    pub work: Work,
    /// What each task needs.
    pub resources: Resources,
    /// Which GPUs.
    pub gpu: GpuDemand,
    /// Labels that its node must have.
    pub labels: BTreeSet<String>,
    /// Whether others may run beside it on its node.
    pub sharing: Sharing,
    /// Licences that each task takes of the cluster's counters.
    pub licences: BTreeMap<String, u32>,
    /// Ranks that start together; then the job has no array.
    pub gang: Option<Gang>,
    /// The elements, if the job is an array.
    pub array: Option<Array>,
    /// What must end first.
    pub after: Vec<Dependency>,
    /// How often a failed task is started again. A lost node does not count.
    pub retries: u8,
    /// Exit codes that a further start may mend; every failure where empty.
    pub retry_codes: BTreeSet<u8>,
    /// After how long a try is ended.
    pub time_limit: Option<Millis>,
    /// How long a try will take, as its owner says; placement plans with it.
    pub estimate: Option<Millis>,
    /// A signal before the time limit.
    pub warning: Option<Warning>,
    /// Larger goes first.
    pub priority: i32,
    /// The group whose quota it uses; the user's own where absent.
    pub group: Option<String>,
    /// Whether it may be stopped to make room.
    pub preemption: Preemption,
    /// Whether it waits for a release.
    pub held: bool,
    /// Only on the node of this name.
    pub node: Option<String>,
    /// Where a task's output goes instead of the node's own folder: an absolute path, in which `%j`
    /// is the job, `%i` the array index or rank, `%n` the job's name and `%%` a percent sign.
    pub output: Option<String>,
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
            gpu: GpuDemand::default(),
            labels: BTreeSet::new(),
            sharing: Sharing::Shared,
            licences: BTreeMap::new(),
            gang: None,
            array: None,
            after: Vec::new(),
            retries: 0,
            retry_codes: BTreeSet::new(),
            time_limit: None,
            estimate: None,
            warning: None,
            priority: 0,
            group: None,
            preemption: Preemption::Never,
            held: false,
            node: None,
            output: None,
            environment: BTreeMap::new(),
        }
    }

    /// The array indices of the job's tasks.
    #[must_use]
    pub fn indices(&self) -> IndexSet {
        match (&self.gang, &self.array) {
            (Some(gang), _) => IndexSet::first(gang.ranks),
            (None, Some(array)) => array.indices.clone(),
            (None, None) => IndexSet::first(1),
        }
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
        self.check_demand()?;
        self.check_gang()?;
        self.check_times()?;
        self.check_output()?;
        self.check_environment()?;
        match &self.work {
            Work::Command { arguments, folder } => check_command(arguments, folder.as_deref()),
            Work::Builtin(builtin) => self.check_builtin(builtin),
        }
    }

    /// What it asks for beside amounts.
    fn check_demand(&self) -> Result<(), Reject> {
        match &self.gpu.part {
            GpuPart::Whole => {}
            GpuPart::Share(permille) => {
                if *permille == 0 || *permille >= GPU_WHOLE || self.resources.gpus != 1 {
                    return Err(Reject::invalid(
                        "a share of a gpu is more than 0 and less than 1, and of one gpu; ask for --gpus 0.25, or for whole ones",
                    ));
                }
            }
            GpuPart::Mig(profile) => check_name("MIG profile", profile)?,
        }
        if self.resources.gpus == 0 && self.gpu != GpuDemand::default() {
            return Err(Reject::invalid(
                "the job says which gpu it needs and asks for none; add --gpus 1",
            ));
        }
        if self.labels.len() > limits::LABELS_MAX || self.licences.len() > limits::LICENCES_MAX {
            return Err(Reject::invalid(format!(
                "the job asks for {} labels and {} licences; at most {} and {} are allowed",
                self.labels.len(),
                self.licences.len(),
                limits::LABELS_MAX,
                limits::LICENCES_MAX
            )));
        }
        for label in &self.labels {
            check_name("label", label)?;
        }
        for (name, count) in &self.licences {
            check_name("licence", name)?;
            if *count == 0 {
                return Err(Reject::invalid(format!(
                    "0 of the licence {name:?} were asked for; leave it out"
                )));
            }
        }
        self.group.as_ref().map_or(Ok(()), |group| check_name("group", group))
    }

    fn check_gang(&self) -> Result<(), Reject> {
        let Some(gang) = self.gang else { return Ok(()) };
        if gang.ranks == 0 || gang.ranks > limits::RANKS_MAX {
            return Err(Reject::invalid(format!(
                "a gang has 1 to {} ranks, not {}",
                limits::RANKS_MAX,
                gang.ranks
            )));
        }
        if gang.nodes.is_some_and(|nodes| nodes == 0 || gang.ranks % nodes != 0) {
            return Err(Reject::invalid(format!(
                "{} ranks cannot be spread evenly over {} nodes",
                gang.ranks,
                gang.nodes.unwrap_or_default()
            )));
        }
        if self.array.is_some() {
            return Err(Reject::invalid("a gang has no array; submit one job for each gang"));
        }
        Ok(())
    }

    fn check_output(&self) -> Result<(), Reject> {
        let Some(pattern) = &self.output else { return Ok(()) };
        let wrong =
            |why: String| Err(Reject::invalid(format!("the output file {pattern:?} {why}")));
        if pattern.len() > limits::OUTPUT_BYTES_MAX || pattern.chars().any(char::is_control) {
            let most = limits::OUTPUT_BYTES_MAX;
            return wrong(format!("is longer than {most} bytes, or holds a control character"));
        }
        if !pattern.starts_with('/') || pattern.ends_with('/') {
            return wrong("is no absolute path of a file; begin it with /".into());
        }
        let mut letters = pattern.chars();
        let mut by_index = false;
        while let Some(letter) = letters.next() {
            match (letter, if letter == '%' { letters.next() } else { None }) {
                ('%', Some('i')) => by_index = true,
                ('%', Some('j' | 'n' | '%')) => {}
                ('%', _) => {
                    return wrong("has a % that means nothing; %j, %i, %n and %% do".into());
                }
                _ => {}
            }
        }
        let count = self.indices().count();
        if count > 1 && !by_index {
            return wrong(format!("is one file for {count} tasks; put %i into its name"));
        }
        Ok(())
    }

    /// The output file of a task, where the job names a pattern.
    #[must_use]
    pub fn output_of(&self, task: TaskId) -> Option<String> {
        let mut path = String::new();
        let mut letters = self.output.as_ref()?.chars();
        while let Some(letter) = letters.next() {
            match (letter, if letter == '%' { letters.next() } else { None }) {
                ('%', Some('j')) => path.push_str(&task.job.to_string()),
                ('%', Some('i')) => path.push_str(&task.index.to_string()),
                // A name may hold anything that can be read; a file's name no slash.
                ('%', Some('n')) => path.push_str(&self.name.replace('/', "_")),
                ('%', _) => path.push('%'),
                _ => path.push(letter),
            }
        }
        Some(path)
    }

    fn check_times(&self) -> Result<(), Reject> {
        if self.retry_codes.len() > limits::RETRY_CODES_MAX {
            return Err(Reject::invalid(format!(
                "retries for {} exit codes were asked for; at most {} may be named",
                self.retry_codes.len(),
                limits::RETRY_CODES_MAX
            )));
        }
        match (self.warning, self.time_limit) {
            (Some(_), None) => Err(Reject::invalid(
                "a warning comes before a time limit, and the job has none; add --time",
            )),
            (Some(warning), Some(limit)) if warning.before >= limit => {
                Err(Reject::invalid(format!(
                    "the warning {warning} would come before the start of a task with a limit of {limit}"
                )))
            }
            _ => Ok(()),
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
    use crate::units::MemoryMib;

    fn command(arguments: &[&str]) -> JobSpec {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        JobSpec::new("job", Work::Command { arguments, folder: None })
    }

    #[test]
    fn an_output_file_is_named_by_its_pattern() {
        let task = crate::ids::JobId(12).task(3);
        for (pattern, path) in [
            ("/out/%j/%i.txt", "/out/j12/3.txt"),
            ("/out/%n-100%%-%i", "/out/a_b-100%-3"),
            ("/out/plain", "/out/plain"),
        ] {
            let output = Some(pattern.to_owned());
            let spec = JobSpec { name: "a/b".into(), output, ..command(&["x"]) };
            assert_eq!(spec.validate(), Ok(()), "{pattern}");
            assert_eq!(spec.output_of(task).unwrap(), path);
        }
        assert_eq!(command(&["x"]).output_of(task), None);
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
        let share = |permille| GpuDemand { part: GpuPart::Share(permille), ..GpuDemand::default() };
        let gang = |ranks, nodes| Some(Gang { ranks, nodes });
        let warning = Some("USR1@60s".parse().unwrap());
        let output = |pattern: &str| Some(pattern.to_owned());
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
            (JobSpec { gpu: share(250), ..command(&["x"]) }, "a share of a gpu"),
            (
                JobSpec {
                    gpu: GpuDemand { memory: MemoryMib(1), ..GpuDemand::default() },
                    ..command(&["x"])
                },
                "asks for none",
            ),
            (JobSpec { gang: gang(0, None), ..command(&["x"]) }, "1 to 4096 ranks"),
            (JobSpec { gang: gang(5, Some(2)), ..command(&["x"]) }, "evenly over 2 nodes"),
            (JobSpec { gang: gang(2, None), array: array("0-1"), ..command(&["x"]) }, "no array"),
            (JobSpec { output: output("out"), ..command(&["x"]) }, "no absolute path"),
            (JobSpec { output: output("/a/%x"), ..command(&["x"]) }, "means nothing"),
            (JobSpec { output: output("/a/100%"), ..command(&["x"]) }, "means nothing"),
            (
                JobSpec { output: output("/a/%j"), array: array("0-1"), ..command(&["x"]) },
                "put %i into",
            ),
            (JobSpec { warning, ..command(&["x"]) }, "has none"),
            (JobSpec { warning, time_limit: Some(Millis(1000)), ..command(&["x"]) }, "USR1@1m"),
            (JobSpec { licences: [("m".to_owned(), 0)].into(), ..command(&["x"]) }, "leave it out"),
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
