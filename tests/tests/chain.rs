//! One job file with every kind of job, from scans to predictions, on a cluster of real processes
//! whose scheduler and agent are killed in the middle of the training.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_library::Library;
use gantry_tests::{Cluster, until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
const PATIENTS: u32 = 4;
/// A name that nothing but the storage may hold.
const PLANTED: &str = "SECRETNAME";

const PIPELINE: &str = r#"
name = "body"
label = "body"
[[steps]]
name = "body"
operation = "threshold"
at_least = -300
"#;

/// Each element of `look` looks at the scan of its patient, whose series is prepared after it alone.
fn job_file(folder: &Path, series: &[String]) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    let list: Vec<String> = series.iter().map(|id| format!("{id:?}")).collect();
    format!(
        r#"
[defaults]
library = {library:?}
retries = 1

[[job]]
name = "look"
array = "0-{last}%2"
command = ["sh", "-c", "ls $GANTRY_INDEX | wc -l >> $GANTRY_INDEX.slices"]
folder = {scans:?}

[[job]]
name = "samples"
kind = "preprocess"
pipeline = {pipeline:?}
series = [{series}]
after = "elements:look"

[[job]]
name = "training"
kind = "train"
after = "samples"
label = "body"
epochs = 40
batch = 4

[[job]]
name = "predictions"
kind = "predict"
model = "training"
series = "all"
"#,
        library = at("library"),
        scans = at("scans"),
        pipeline = at("body.toml"),
        last = PATIENTS - 1,
        series = list.join(", "),
    )
}

/// Scans of phantoms, one folder each, and the library that they were imported into. Gives the series
/// in the order of the patients.
fn scans(cluster: &Cluster) -> Result<Vec<String>> {
    let settings = PhantomSettings {
        size: [32, 32, 6],
        spacing_mm: [10.5, 10.5, 32.0],
        ..PhantomSettings::default()
    };
    let folder = cluster.folder();
    let library = folder.join("library").display().to_string();
    let mut known: Vec<String> = Vec::new();
    for number in 0..PATIENTS {
        let scan = folder.join(format!("scans/{number}"));
        std::fs::create_dir_all(&scan)?;
        let subject = Subject::new(format!("{PLANTED} {number}"));
        let files = ct_series(&patient(number + 1, &settings).image, &subject)?;
        for (slice, bytes) in files.iter().enumerate() {
            std::fs::write(scan.join(format!("{slice}.dcm")), bytes)?;
        }
        let scan = scan.display().to_string();
        cluster.gantry.json(&["import", &scan, "--library", &library])?;
        let all = Library::open(library.as_ref())?.series()?;
        let ids = all.iter().map(|record| record.id.to_string());
        let new: Vec<String> = ids.filter(|id| !known.contains(id)).collect();
        ensure!(new.len() == 1, "{new:?}");
        known.extend(new);
    }
    Ok(known)
}

fn output(cluster: &Cluster, job: &str) -> Result<String> {
    let output = cluster.gantry.run(&["logs", job])?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_job_file_of_every_kind_runs_to_its_end_though_its_daemons_are_killed() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("node-1", "cores = 2\nmemory = \"4G\"\nworkers = 2\norphans = \"keep\"")?;
    let series = scans(&cluster)?;
    let folder = cluster.folder().to_owned();
    std::fs::write(folder.join("body.toml"), PIPELINE)?;
    let file = folder.join("jobs.toml");
    std::fs::write(&file, job_file(&folder, &series))?;
    let submitted = cluster.gantry.json(&["submit", &file.display().to_string()])?;
    let jobs: Vec<String> = submitted
        .as_array()
        .context("a list of jobs")?
        .iter()
        .filter_map(|job| job["job"].as_str().map(str::to_owned))
        .collect();
    let [look, samples, training, predictions] = &jobs[..] else { panic!("{submitted}") };

    until("a checkpoint of the training", || {
        let runs = std::fs::read_dir(folder.join("library/runs")).ok()?;
        runs.flatten().find(|run| std::fs::read_dir(run.path()).is_ok_and(|all| all.count() > 0))
    })?;
    cluster.kill_agent("node-1");
    cluster.kill_scheduler();
    cluster.start_scheduler()?;
    cluster.start_agent("node-1")?;
    for job in &jobs {
        let waited = cluster.gantry.run(&["wait", job])?;
        ensure!(waited.status.success(), "{job}: {}", output(&cluster, job)?);
    }

    for number in 0..PATIENTS {
        let slices = std::fs::read_to_string(folder.join(format!("scans/{number}.slices")))?;
        ensure!(slices.trim() == "6", "{look}.{number} ran once: {slices:?}");
    }
    let library = Library::open(&folder.join("library"))?;
    let (made, models) = (library.samples()?, library.models()?);
    ensure!(made.len() == series.len() && models.len() == 1, "{} {}", made.len(), models.len());
    let said = output(&cluster, training)?;
    ensure!(said.matches("library: 4 samples of").count() == 1, "it was started once:\n{said}");
    ensure!(said.contains(&format!("model {}", models[0].id)), "{said}");
    let predicted = library.predictions()?;
    ensure!(predicted.len() == series.len(), "{}", predicted.len());
    for one in &predicted {
        ensure!(one.model == models[0].id && series.contains(&one.series.to_string()));
    }
    let said = output(&cluster, predictions)?;
    ensure!(said.matches("no diagnosis").count() == series.len(), "{said}");
    ensure!(output(&cluster, samples)?.matches("body, ").count() == series.len());
    used(&cluster, training)?;
    nobody_is_named(&folder)
}

/// The history has what the training has used.
fn used(cluster: &Cluster, training: &str) -> Result<()> {
    let history = cluster.gantry.json(&["history"])?;
    let row = history.as_array().context("a list")?.iter().find(|row| row["job"] == training);
    let cpu = row.and_then(|row: &Value| row["spent"]["cpu_ms"].as_u64());
    ensure!(cpu.is_some_and(|cpu| cpu > 0), "{history}");
    Ok(())
}

/// Journal, logs, outputs and settings are searched for the planted name.
fn nobody_is_named(folder: &Path) -> Result<()> {
    let found = |place: &str| -> Result<bool> {
        let grep = Command::new("grep").args(["-rqa", PLANTED]).arg(folder.join(place)).status()?;
        Ok(grep.success())
    };
    ensure!(found("library/objects")?, "the search finds nothing at all");
    for place in ["scheduler", "node-1", "scheduler.log", "node-1.log"] {
        ensure!(!found(place)?, "a patient's name is in {place}");
    }
    Ok(())
}
