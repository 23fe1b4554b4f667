//! `gantry scheduler backup` and `restore`: what an administrator has against the loss of the
//! scheduler's disk.

use std::path::Path;
use std::time::{Duration, Instant};

use gantry_model::{At, Summary};
use gantry_scheduler::{BackupReport, SchedulerError};
use gantry_wire::{Reply, Request};
use serde_json::json;

use super::client::{Client, Reach, unexpected};
use super::daemons::hand_over;
use super::time;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Makes a backup of the scheduler whose folder is named as the cluster's; it may run.
///
/// # Errors
/// Where the caller may not, the folder cannot be read, or the backup cannot be written.
pub(super) fn backup(cluster: Reach, to: &Path, format: Format) -> Outcome {
    let (begun, folder) = (Instant::now(), cluster.place());
    output::progress("copying the journal");
    let (taken, paused) = match gantry_scheduler::copy_stopped(&folder) {
        Ok(taken) => (taken, None),
        // It runs, and copies its journal itself.
        Err(SchedulerError::InUse { .. }) => {
            let reply = Client::connect(cluster)?.ask_patiently(&Request::Copy)?;
            let Reply::Copied(copy) = reply else { return Err(unexpected(&reply)) };
            (copy.at, Some(Duration::from_micros(copy.took_us)))
        }
        Err(error) => return Err(Failure::trouble(error)),
    };
    let report = gantry_scheduler::backup(&folder, to, taken, &mut output::progress)
        .map_err(Failure::trouble)?;
    let took = begun.elapsed();
    let mut value = value(&report, to, took);
    value["paused_ms"] = json!(paused.map(milliseconds));
    let people = || {
        let paused = match paused {
            Some(paused) => {
                format!("; the scheduler decided nothing for {} ms", milliseconds(paused))
            }
            None => "; the scheduler does not run".into(),
        };
        format!("{}{paused}", sentence("backed up", &report, to, took))
    };
    format.print("backup", &value, people, || to.display().to_string())?;
    Ok(0)
}

/// Makes a scheduler's folder of a backup.
///
/// # Errors
/// Where the backup is damaged, or the folder is not empty or cannot be written.
pub(super) fn restore(backup: &Path, to: &Path, format: Format) -> Outcome {
    let begun = Instant::now();
    let report =
        gantry_scheduler::restore(backup, to, &mut output::progress).map_err(Failure::trouble)?;
    hand_over(to)?;
    let took = begun.elapsed();
    let mut value = value(&report, to, took);
    value["summary"] = json!(report.summary);
    value["audit"] = json!(report.audit);
    let people = || {
        let Summary { nodes, jobs_wait, jobs_run, .. } = report.summary.unwrap_or_default();
        let shown = to.display();
        let taken = time::clock(report.taken, time::now());
        let audit = report
            .audit
            .as_ref()
            .map(|what| format!("\nthe audit log in it is not as it was written: {what}"));
        format!(
            "{}\nas of {taken}: {nodes} nodes, {jobs_run} jobs run, {jobs_wait} wait{}\nwhat was submitted since then is not known, what has ended since then runs again, and accesses that were taken away since then are to be taken away again\nnext: gantry scheduler --dir {shown}",
            sentence("restored", &report, to, took),
            audit.unwrap_or_default()
        )
    };
    format.print("restored", &value, people, || to.display().to_string())?;
    Ok(0)
}

fn value(report: &BackupReport, folder: &Path, took: Duration) -> serde_json::Value {
    let At(taken_ms) = report.taken;
    json!({
        "cluster": report.cluster,
        "version": report.version,
        "folder": folder,
        "taken_ms": taken_ms,
        "files": report.files,
        "bytes": report.bytes,
        "took_ms": milliseconds(took),
    })
}

fn sentence(what: &str, report: &BackupReport, folder: &Path, took: Duration) -> String {
    format!(
        "{what} cluster {} in {}: {} files, {} KiB, in {} ms",
        report.cluster,
        folder.display(),
        report.files,
        report.bytes.div_ceil(1024),
        milliseconds(took)
    )
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
