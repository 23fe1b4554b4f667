//! A training over the ranks of a gang, on a cluster of real processes: `PyTorch` with Gloo on two
//! nodes, of which one rank's process is killed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_tests::{Cluster, python, torch, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
const PATIENTS: u32 = 3;
const NODE: &str = "cores = 2\nmemory = \"4G\"\nworkers = 1";

const PIPELINE: &str = r#"
name = "body"
label = "body"
[[steps]]
name = "body"
operation = "threshold"
at_least = -300
"#;

/// Phantoms in a library, with a sample of each.
fn samples(cluster: &Cluster) -> Result<String> {
    let settings = PhantomSettings {
        size: [32, 32, 6],
        spacing_mm: [10.5, 10.5, 32.0],
        ..PhantomSettings::default()
    };
    let folder = cluster.folder();
    let library = folder.join("library").display().to_string();
    for number in 0..PATIENTS {
        let scan = folder.join(format!("scans/{number}"));
        std::fs::create_dir_all(&scan)?;
        let subject = Subject::new(format!("patient {number}"));
        for (slice, bytes) in
            ct_series(&patient(number + 1, &settings).image, &subject)?.iter().enumerate()
        {
            std::fs::write(scan.join(format!("{slice}.dcm")), bytes)?;
        }
        cluster.gantry.json(&["import", &scan.display().to_string(), "--library", &library])?;
    }
    let pipeline = folder.join("body.toml");
    std::fs::write(&pipeline, PIPELINE)?;
    let pipeline = pipeline.display().to_string();
    let made = cluster.gantry.run(&[
        "preprocess",
        "--all",
        "--wait",
        "--library",
        &library,
        "--pipeline",
        &pipeline,
    ])?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(library)
}

fn submit(cluster: &Cluster, library: &str, run: &str, more: &[&str]) -> Result<String> {
    let usual = [
        "train",
        "--library",
        library,
        "--label",
        "body",
        "--epochs",
        "30",
        "--batch",
        "4",
        "--engine",
        "torch",
        "--run",
        run,
    ];
    let value = cluster.gantry.json(&[&usual[..], more].concat())?;
    Ok(value["job"].as_str().context("no job")?.to_owned())
}

fn output(cluster: &Cluster, task: &str) -> Result<String> {
    Ok(String::from_utf8(cluster.gantry.run(&["logs", task])?.stdout)?)
}

/// The losses in an output: step and value, each step as it was told last.
fn losses(output: &str) -> Vec<(u64, f64)> {
    let mut all: Vec<(u64, f64)> = Vec::new();
    for line in output.lines() {
        let Some(point) = line.strip_prefix("::metric loss ") else { continue };
        let Some((value, step)) = point.split_once(' ') else { continue };
        let point = (step.parse().unwrap(), value.parse().unwrap());
        all.retain(|(step, _)| *step < point.0);
        all.push(point);
    }
    all
}

/// The process of `PyTorch` that is a rank of a job.
fn process(job: &str, rank: &str) -> Option<Pid> {
    let wanted = [format!("GANTRY_JOB={job}"), format!("RANK={rank}")];
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        let id = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(path.join("cmdline")).ok()?;
        let environment = std::fs::read(path.join("environ")).ok()?;
        let has = |one: &String| environment.split(|byte| *byte == 0).any(|v| v == one.as_bytes());
        let is = String::from_utf8_lossy(&line).contains("engine.py") && wanted.iter().all(has);
        is.then(|| Pid::from_raw(id)).flatten()
    })
}

fn has_checkpoint(library: &str, run: &str) -> bool {
    let folder = Path::new(library).join("runs").join(run);
    std::fs::read_dir(folder).is_ok_and(|files| {
        files.flatten().any(|file| file.file_name().to_string_lossy().ends_with("safetensors"))
    })
}

/// A program of one's own on the exported samples: it is started anew in the middle, and its curve
/// goes on.
fn own_program(cluster: &Cluster, python: &Path, program: &str, samples: &str) -> Result<()> {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/files/examples").join(program);
    let python = python.display().to_string();
    let script = script.display().to_string();
    let epochs = 2000;
    let set = format!("EPOCHS={epochs}");
    let command = ["submit", "--cores", "2", "--env", &set, "--", &python, &script, samples];
    let value = cluster.gantry.json(&command)?;
    let job = value["job"].as_str().context("no job")?.to_owned();
    until("some epochs", || (losses(&output(cluster, &job).ok()?).len() > 20).then_some(()))?;
    let row: Value = cluster.gantry.json(&["job", &job])?;
    ensure!(row["first_tasks"][0]["state"] == "run", "it ended too early: {row}");
    cluster.gantry.json(&["requeue", &job])?;
    let waited = cluster.gantry.run(&["wait", &job])?;
    let said = output(cluster, &job)?;
    ensure!(waited.status.success(), "{said}");
    ensure!(said.contains("goes on after epoch "), "{said}");
    let curve = losses(&said);
    let steps: Vec<u64> = curve.iter().map(|(step, _)| *step).collect();
    ensure!(steps.last() == Some(&epochs), "{steps:?}");
    ensure!(
        curve.last().unwrap().1 < curve[0].1 / 2.0,
        "{} to {}",
        curve[0].1,
        curve.last().unwrap().1
    );
    let metrics: Value = cluster.gantry.json(&["job", &job])?;
    ensure!(metrics["tasks"]["done"] == 1, "{metrics}");
    Ok(())
}

#[test]
fn programs_of_other_frameworks_have_checkpoints_and_curves() -> Result<()> {
    let torch = torch("a program of PyTorch's");
    let jax = python(&["jax", "numpy"], "a program of JAX's");
    if torch.is_none() && jax.is_none() {
        return Ok(());
    }
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("node-1", NODE)?;
    let library = samples(&cluster)?;
    let to = cluster.folder().join("exported").display().to_string();
    cluster.gantry.json(&["library", "export", "npz", &to, "--library", &library])?;
    if let Some(python) = torch {
        own_program(&cluster, &python, "torch_slices.py", &to).context("PyTorch")?;
    }
    if let Some(python) = jax {
        own_program(&cluster, &python, "jax_slices.py", &to).context("JAX")?;
    }
    Ok(())
}

#[test]
fn a_gang_whose_rank_is_killed_goes_on_from_its_checkpoint_and_learns_what_one_task_learns()
-> Result<()> {
    let Some(python) = torch("a gang under PyTorch") else { return Ok(()) };
    let mut cluster = Cluster::start(PROGRAM)?;
    let settings = format!("{NODE}\npython = {:?}", python.display().to_string());
    cluster.join("node-1", &settings)?;
    cluster.join("node-2", &settings)?;
    let library = samples(&cluster)?;

    let alone = submit(&cluster, &library, "alone", &[])?;
    let waited = cluster.gantry.run(&["wait", &alone])?;
    let said = output(&cluster, &alone)?;
    ensure!(waited.status.success(), "{said}");
    let straight = losses(&said);
    ensure!(!straight.is_empty(), "no loss was told");

    let more = ["--ranks", "2", "--nodes", "2", "--retries", "2"];
    let gang = submit(&cluster, &library, "gang", &more)?;
    until("a checkpoint of the gang", || has_checkpoint(&library, "gang").then_some(()))?;
    let victim = until("the second rank's process", || process(&gang, "1"))?;
    kill_process(victim, Signal::KILL)?;
    let waited = cluster.gantry.run(&["wait", &gang])?;
    let (first, second) =
        (output(&cluster, &format!("{gang}.0"))?, output(&cluster, &format!("{gang}.1"))?);
    ensure!(waited.status.success(), "{first}\n---\n{second}");
    let row: Value = cluster.gantry.json(&["job", &gang])?;
    ensure!(row["tasks"]["done"] == 2, "{row}");
    ensure!(first.contains("ranks 0 to 0 of 2"), "{first}");
    ensure!(second.contains("the first rank leaves the model"), "{second}");

    let curve = losses(&first);
    ensure!(curve.last().map(|one| one.0) == straight.last().map(|one| one.0), "{curve:?}");
    // An output is cut between two starts of a task: what is there begins at the checkpoint.
    for (step, loss) in &curve {
        let (_, alone) =
            straight.iter().find(|(other, _)| other == step).context("no such step")?;
        ensure!((loss - alone).abs() < 0.05, "step {step}: {loss} and {alone}");
    }
    let models = cluster.gantry.json(&["data", "models", "--library", &library])?;
    ensure!(models.as_array().is_some_and(|all| all.len() == 2), "{models}");
    Ok(())
}
