//! `gantry submit --slurm`: a batch script of Slurm as a job, with what is otherwise here said first.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_config::slurm::{Batch, translate};
use gantry_model::limits::COMMAND_BYTES_MAX;

use super::{Submission, absolute};
use crate::cli::client::Reach;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Submits a script with what it is given on its command line.
pub(super) fn submit(
    script: &Path,
    arguments: &[String],
    ignore: &[String],
    submission: &Submission,
    cluster: Reach,
    format: Format,
) -> Outcome {
    let shown = script.display();
    let fail = |error: std::io::Error| {
        Failure::usage(format!("reading the batch script {shown} failed: {error}"))
    };
    // More could not be submitted.
    let size = std::fs::metadata(script).map_err(fail)?.len();
    if size > COMMAND_BYTES_MAX as u64 {
        return Err(Failure::usage(format!(
            "the batch script {shown} has {size} bytes; at most {COMMAND_BYTES_MAX} go with a job, let it call a program on shared storage"
        )));
    }
    let text = std::fs::read_to_string(script).map_err(fail)?;
    let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let user = ["USER", "LOGNAME"].iter().find_map(|name| environment.get(*name)).cloned();
    let batch = Batch {
        name,
        text,
        arguments: arguments.to_vec(),
        folder: absolute(None)?,
        user: user.unwrap_or_default(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        environment,
        ignore: ignore.iter().map(|name| name.trim_start_matches('-').to_owned()).collect(),
    };
    let translated = translate(&batch).map_err(|refused| {
        let all: Vec<String> = refused.iter().map(ToString::to_string).collect();
        let what = if format == Format::Json {
            all.join("; ")
        } else {
            for one in &all {
                output::complain(one);
            }
            format!("what is wrong stands above ({} in all)", all.len())
        };
        Failure::usage(format!(
            "{shown} would not be the same job here: {what}; what does not matter can be named with --ignore NAME"
        ))
    })?;
    for remark in &translated.remarks {
        output::complain(&remark.to_string());
    }
    let submission = Submission { wait: submission.wait || translated.wait, ..submission.clone() };
    submission.submit(translated.spec, cluster, format)
}
