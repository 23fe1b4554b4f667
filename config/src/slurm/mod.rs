//! A batch script of Slurm as a job of gantry.
//!
//! [`translate`] is a function of the script's text and of where it is submitted: it gives the job that
//! does the same and remarks on what is otherwise here, or it refuses and says of every line why and
//! what to do instead. Nothing that changes what a script means is dropped silently: who knows that an
//! option does not matter names it as one to be ignored.
//!
//! The script goes with the job, as with sbatch. It runs once, on one node, with the cores, memory and
//! GPUs of all of its tasks; a script for several nodes is refused, since gantry starts each rank itself
//! (`gantry submit --ranks`) and has no srun.

mod directives;
mod draft;
pub mod hosts;
pub mod import;
mod options;
mod script;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gantry_model::JobSpec;

use draft::Draft;

/// A script and where it is submitted.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The file's name, for the job's name and for messages.
    pub name: String,
    /// Its text.
    pub text: String,
    /// What it is given on its command line.
    pub arguments: Vec<String>,
    /// The folder from which it is submitted, absolute.
    pub folder: String,
    /// Who submits it.
    pub user: String,
    /// On which host.
    pub host: String,
    /// The environment there.
    pub environment: BTreeMap<String, String>,
    /// Options and commands of Slurm that do not matter, as `qos` or `srun`.
    pub ignore: BTreeSet<String>,
}

/// Something to know about a line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The line, from 1; 0 for the whole script.
    pub line: usize,
    /// The option or the command.
    pub what: String,
    /// What is otherwise here, or why it is refused and what to do.
    pub sentence: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: {}", self.what, self.sentence)
    }
}

/// What a script comes to.
#[derive(Clone, Debug)]
pub struct Translated {
    /// The job.
    pub spec: JobSpec,
    /// What is otherwise than under Slurm.
    pub remarks: Vec<Remark>,
    /// Whether the script asks to be waited for.
    pub wait: bool,
}

/// Makes a job of a script.
///
/// # Errors
/// With everything in it that gantry does otherwise or not at all.
pub fn translate(batch: &Batch) -> Result<Translated, Vec<Remark>> {
    let mut draft = Draft::default();
    let (found, late) = directives::read(&batch.text);
    let mut remarks: Vec<Remark> = late
        .into_iter()
        .map(|line| Remark {
            line,
            what: "#SBATCH".into(),
            sentence: "stands behind the first command, where Slurm does not look any more".into(),
        })
        .collect();
    let mut refused = Vec::new();
    for directive in found {
        options::take(&directive, &batch.ignore, &mut draft, &mut remarks, &mut refused);
    }
    let made = draft.job(batch, &mut remarks, &mut refused);
    match made {
        Some(spec) if refused.is_empty() => Ok(Translated { spec, remarks, wait: draft.wait }),
        _ => Err(refused),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
