//! `gantry submit`: a command as a job, every job of a file, or a batch script of Slurm.

mod slurm;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_config::jobs::{FILE_BYTES_MAX, JobFile};
use gantry_model::{Array, JobSpec, Work};
use gantry_wire::{Reply, Request};
use serde_json::json;

use super::batch;
use super::client::{Client, Reach, submit_key, unexpected};
use super::jobs::end_code;
use super::needs::{GangFlags, Labels, Needs};
use crate::error::{Failure, Outcome};
use crate::output::Format;

/// How a submit goes, whatever is submitted.
#[derive(Clone, Debug, Args)]
pub struct Submission {
    /// Wait until the job has ended and exit as it did.
    #[arg(long, short)]
    pub wait: bool,
    /// The same key submits the same job only once.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Say what would be submitted, and submit nothing.
    #[arg(long)]
    pub dry_run: bool,
}

impl Submission {
    /// Submits a job, says its id, and waits for its end where that was asked for.
    ///
    /// # Errors
    /// Where the job is refused or the scheduler is not there.
    pub fn submit(&self, spec: JobSpec, cluster: Reach, format: Format) -> Outcome {
        spec.validate()?;
        if self.dry_run {
            return batch::show(&[(spec, Vec::new())], format);
        }
        let client = Client::connect(cluster)?;
        let key = self.key.clone().unwrap_or_else(submit_key);
        let reply = client.ask(&Request::Submit { key, spec: Box::new(spec) })?;
        let Reply::Submitted(job) = reply else { return Err(unexpected(&reply)) };
        if !self.wait {
            let value = json!({ "job": job.to_string() });
            format.print("submitted", &value, || format!("submitted {job}"), || job.to_string())?;
            return Ok(0);
        }
        end_code(&client, &[job.into()], format)
    }
}

/// `gantry submit`.
#[derive(Debug, Args)]
#[command(
    override_usage = "gantry submit [OPTIONS] -- CMD [ARGS]\n       gantry submit FILE.toml\n       gantry submit --slurm SCRIPT [-- ARGS]",
    after_help = "A job file holds [[job]] tables with these flags as keys (and name, command or script, \
                  environment); [defaults] holds what they share. Jobs wait for one another by name: \
                  after = [\"prepare\"]. Nothing of a file starts before all of it is accepted."
)]
pub struct Submit {
    /// A job file, ending in .toml; - reads it from standard input.
    #[arg(value_name = "FILE", conflicts_with = "command")]
    file: Option<PathBuf>,
    /// A batch script of Slurm, whose #SBATCH lines say what it needs; what follows -- is given to it.
    #[arg(long, value_name = "SCRIPT", conflicts_with = "file")]
    slurm: Option<PathBuf>,
    /// With --slurm: an option of sbatch, or a command of Slurm, that does not matter, as qos; may be
    /// repeated.
    #[arg(long, value_name = "NAME", requires = "slurm")]
    ignore: Vec<String>,
    /// The command and its arguments, after --.
    #[arg(last = true, required_unless_present_any = ["file", "slurm"], value_name = "CMD")]
    command: Vec<String>,
    #[command(flatten)]
    submission: Submission,
    // Last: what follows a group of flags would stand under its heading.
    #[command(flatten)]
    flags: JobFlags,
}

/// Everything that describes a job, and so stands in the file where there is one.
#[derive(Debug, Default, PartialEq, Args)]
struct JobFlags {
    /// The working folder; this one where it is not given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where the output goes, on storage that every node sees: %j is the job, %i the element, %n the
    /// name; the node's own folder where it is not given.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A variable for the tasks; may be repeated.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    #[command(flatten)]
    needs: Needs,
    #[command(flatten)]
    labels: Labels,
    /// Elements, as 0-9, or 0-999%50 for at most 50 at once.
    #[arg(long, value_name = "RANGE", conflicts_with = "ranks", help_heading = "Several tasks")]
    array: Option<Array>,
    #[command(flatten)]
    gang: GangFlags,
}

impl Submit {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the file is wrong, a job is refused or the scheduler is not there.
    pub fn run(self, cluster: Reach, format: Format) -> Outcome {
        if let Some(script) = &self.slurm {
            if self.flags != JobFlags::default() {
                return Err(Failure::usage(
                    "a batch script says itself what it needs, in its #SBATCH lines; of the flags only --ignore, --wait, --key and --dry-run go with it",
                ));
            }
            let (arguments, ignore) = (&self.command, &self.ignore);
            return slurm::submit(script, arguments, ignore, &self.submission, cluster, format);
        }
        let Some(file) = &self.file else {
            return self.submission.submit(self.flags.spec(&self.command)?, cluster, format);
        };
        if self.flags != JobFlags::default() {
            return Err(Failure::usage(
                "a job file says itself what its jobs need, under [defaults] or [[job]]; of the flags only --wait, --key and --dry-run go with a file",
            ));
        }
        let text = read(file)?;
        let name = file.display().to_string();
        let mut parsed = JobFile::parse(&name, &text).map_err(Failure::usage_of)?;
        for job in &mut parsed.jobs {
            if let Work::Command { folder, .. } = &mut job.spec.work {
                *folder = Some(absolute(folder.as_deref().map(Path::new))?);
            }
            if let Some(output) = &mut job.spec.output {
                *output = absolute(Some(Path::new(output)))?;
            }
        }
        batch::submit(&parsed, &self.submission, cluster, format)
    }
}

impl JobFlags {
    fn spec(&self, command: &[String]) -> Result<JobSpec, Failure> {
        let program =
            command.first().map_or("", |program| program.rsplit('/').next().unwrap_or_default());
        let name: String = program.chars().take(64).collect();
        let folder = Some(absolute(self.folder.as_deref())?);
        let work = Work::Command { arguments: command.to_vec(), folder };
        Ok(JobSpec {
            labels: self.labels.set(),
            array: self.array.clone(),
            gang: self.gang.gang(),
            output: self.output.as_deref().map(|file| absolute(Some(file))).transpose()?,
            environment: environment(&self.environment)?,
            ..self.needs.spec(&name, work)?
        })
    }
}

/// The text of a job file.
fn read(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let fail = |error: std::io::Error| {
        Failure::usage(format!("reading the job file {shown} failed: {error}"))
    };
    let from: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else if file.extension().is_some_and(|extension| extension == "toml") {
        Box::new(std::fs::File::open(file).map_err(fail)?)
    } else {
        return Err(Failure::usage(format!(
            "{shown} is no job file, whose name ends in .toml; a command stands after --, as in: gantry submit -- {shown}"
        )));
    };
    let mut text = String::new();
    // One byte more than is allowed, so that the parser sees that it is too long.
    from.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(fail)?;
    Ok(text)
}

/// A working folder as a task on another machine finds it: absolute, this one where none is named.
fn absolute(folder: Option<&Path>) -> Result<String, Failure> {
    let folder = std::path::absolute(folder.unwrap_or(Path::new("."))).map_err(|error| {
        Failure::usage(format!(
            "finding the working folder failed: {error}; name one with --folder"
        ))
    })?;
    Ok(folder.display().to_string())
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
    use clap::Parser;
    use gantry_model::{
        DependencyKind, DependencyScope, Gang, GpuPart, JobId, MemoryMib, Millis, Preemption,
        Sharing,
    };

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        submit: Submit,
    }

    fn line(arguments: &[&str]) -> Result<Submit, clap::Error> {
        let all = ["submit"].iter().chain(arguments);
        Line::try_parse_from(all).map(|line| line.submit)
    }

    type Check = fn(&JobSpec) -> bool;

    /// The job that these flags make of the command `x y`.
    fn spec(flags: &[&str]) -> JobSpec {
        let all: Vec<&str> = flags.iter().copied().chain(["--", "x", "y"]).collect();
        let submit = line(&all).unwrap();
        let spec = submit.flags.spec(&submit.command).unwrap();
        spec.validate().unwrap();
        spec
    }

    #[test]
    fn every_flag_reaches_the_job() {
        let plain = spec(&[]);
        assert_eq!((plain.name.as_str(), plain.resources.cores), ("x", 1));
        let Work::Command { arguments, folder: Some(folder) } = &plain.work else { panic!() };
        assert_eq!(arguments, &["x", "y"]);
        assert!(folder.starts_with('/') && !folder.ends_with("/."), "{folder}");
        let changed: [(&[&str], Check); 24] = [
            (&["--name", "n"], |job| job.name == "n"),
            (&["--cores", "4"], |job| job.resources.cores == 4),
            (&["--memory", "4G"], |job| job.resources.memory == MemoryMib(4096)),
            (&["--gpus", "2"], |job| job.resources.gpus == 2),
            (&["--gpus", "0.25"], |job| {
                job.resources.gpus == 1 && job.gpu.part == GpuPart::Share(250)
            }),
            (&["--gpus", "1", "--gpu-model", "H100"], |job| job.gpu.model.is_some()),
            (&["--gpus", "1", "--gpu-memory", "40G"], |job| job.gpu.memory == MemoryMib(40_960)),
            (&["--gpus", "1", "--mig", "1g.10gb"], |job| {
                job.gpu.part == GpuPart::Mig("1g.10gb".into())
            }),
            (&["--scratch", "1G"], |job| job.resources.scratch == MemoryMib(1024)),
            (&["--label", "a", "--label", "b=c"], |job| job.labels.len() == 2),
            (&["--exclusive"], |job| job.sharing == Sharing::Exclusive),
            (&["--licence", "m", "--licence", "n=3"], |job| {
                job.licences == [("m".into(), 1), ("n".into(), 3)].into()
            }),
            (&["--ranks", "8", "--nodes", "2"], |job| {
                job.gang == Some(Gang { ranks: 8, nodes: Some(2) })
            }),
            (&["--array", "0-9%2"], |job| job.array.is_some()),
            (&["--after", "elements:any:j3"], |job| {
                job.after.first().is_some_and(|one| {
                    (one.job, one.kind) == (JobId(3), DependencyKind::Any)
                        && one.scope == DependencyScope::Element
                })
            }),
            (&["--priority", "-5"], |job| job.priority == -5),
            (&["--group", "g"], |job| job.group.is_some()),
            (&["--preemptible"], |job| job.preemption == Preemption::Requeue),
            (&["--hold"], |job| job.held),
            (&["--time", "2h", "--warning", "USR1@60s"], |job| job.warning.is_some()),
            (&["--estimate", "90m"], |job| job.estimate == Some(Millis::from_seconds(5400))),
            (&["--retries", "2", "--retry-codes", "1,75"], |job| job.retry_codes.len() == 2),
            (&["--node", "cpu-1"], |job| job.node.is_some()),
            (&["--env", "A=b=c"], |job| job.environment == [("A".into(), "b=c".into())].into()),
        ];
        for (flags, check) in changed {
            assert!(check(&spec(flags)) && !check(&plain), "{flags:?}");
        }
    }

    #[test]
    fn a_wrong_line_is_refused() {
        for arguments in [
            &[][..],
            &["jobs.toml", "--", "x"],
            &["--gpus", "1.5", "--", "x"],
            &["--nodes", "2", "--", "x"],
            &["--ranks", "2", "--array", "0-1", "--", "x"],
            &["--warning", "soon", "--", "x"],
            &["--retry-codes", "0", "--", "x"],
            &["python", "train.py"],
            &["--slurm", "a.sh", "jobs.toml"],
            &["--ignore", "qos", "--", "x"],
        ] {
            assert!(line(arguments).is_err(), "{arguments:?}");
        }
        for (arguments, part) in [
            (&["run.sh"][..], "gantry submit -- run.sh"),
            (&["nowhere.toml"], "reading the job file nowhere.toml failed"),
            (&["jobs.toml", "--cores", "2"], "under [defaults] or [[job]]"),
            (&["--slurm", "nowhere.sh"], "reading the batch script nowhere.sh failed"),
            (&["--slurm", "a.sh", "--cores", "2"], "in its #SBATCH lines"),
            (&["--env", "A", "--", "x"], "write --env NAME=VALUE"),
            (&["--gpus", "0.5", "--mig", "1g", "--", "x"], "ask for one of the two"),
            (&["--mig", "1g", "--", "x"], "add --gpus 1"),
        ] {
            let failure =
                line(arguments).unwrap().run(Reach::default(), Format::Quiet).unwrap_err();
            assert!(failure.sentence.contains(part), "{} lacks {part}", failure.sentence);
            assert_eq!(failure.code, crate::error::USAGE);
        }
    }
}
