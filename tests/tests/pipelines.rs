//! Pipelines by hand and as jobs: mistakes with their place, plans, runs that go on from what is
//! cached, and the memory that a plan predicts as the request of its job.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_library::Library;
use gantry_tests::{Cluster, Gantry};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

const PIPELINE: &str = r#"
name = "body"
label = "body"
[[steps]]
operation = "median"
[[steps]]
operation = "curvature_flow"
[[steps]]
name = "body"
operation = "threshold"
at_least = -300
"#;

/// A library with one phantom of this size, and the id of its series.
fn library(folder: &Path, gantry: &Gantry, size: [usize; 3]) -> Result<(String, String)> {
    let settings = PhantomSettings { size, spacing_mm: [4.0, 4.0, 8.0], ..Default::default() };
    let scan = folder.join("scan");
    std::fs::create_dir_all(&scan)?;
    let files = ct_series(&patient(1, &settings).image, &Subject::new("pipelines"))?;
    for (slice, bytes) in files.iter().enumerate() {
        std::fs::write(scan.join(format!("{slice}.dcm")), bytes)?;
    }
    let library = folder.join("library").display().to_string();
    gantry.json(&["import", &scan.display().to_string(), "--library", &library])?;
    let series = Library::open(library.as_ref())?.series()?;
    Ok((library, series[0].id.to_string()))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

fn cached(steps: &Value) -> Vec<bool> {
    steps.as_array().into_iter().flatten().map(|step| step["cached"] == true).collect()
}

#[test]
fn mistakes_are_told_with_their_place_and_what_was_meant() -> Result<()> {
    let folder = TempDir::new()?;
    let gantry = Gantry::new(PROGRAM);
    let sound = write(folder.path(), "sound.toml", PIPELINE)?;
    let step = write(folder.path(), "step.toml", &PIPELINE.replace("\"median\"", "\"medain\""))?;
    let parameter =
        write(folder.path(), "parameter.toml", &PIPELINE.replace("at_least", "at_laest"))?;
    let output = gantry.run(&["pipeline", "check", &sound, &step, &parameter, "chest-ct"])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(2), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.len() == 4 && lines[0].contains("is sound, 3 steps"), "{text}");
    ensure!(lines[1].contains("step.toml:5:13: ") && lines[1].contains("did you mean \"median\""));
    ensure!(lines[2].contains("parameter.toml:11:1: "), "{text}");
    ensure!(lines[2].contains("did you mean \"at_least\""), "{text}");
    let (code, sentence) = gantry.refusal(&["pipeline", "plan", &step])?;
    ensure!(code == 2 && sentence.contains(":5:13: "), "{sentence}");
    let names = gantry.run(&["--quiet", "pipelines", "list"])?;
    ensure!(String::from_utf8(names.stdout)?.contains("chest-ct"));
    Ok(())
}

#[test]
fn a_run_goes_on_from_what_is_cached_and_a_plan_knows_it() -> Result<()> {
    let folder = TempDir::new()?;
    let gantry = Gantry::new(PROGRAM);
    let (library, series) = library(folder.path(), &gantry, [48, 48, 8])?;
    let file = write(folder.path(), "body.toml", PIPELINE)?;
    let plan =
        |file: &str| gantry.json(&["pipeline", "plan", file, &series, "--library", &library]);
    let before = plan(&file)?;
    ensure!(before["size"] == serde_json::json!([48, 48, 8]), "{before}");
    ensure!(cached(&before["steps"]) == [false; 3] && before["predicted_ms"].is_null());
    let run = ["pipeline", "run", &file, &series, "--library", &library];
    let first = gantry.json(&run)?;
    ensure!(cached(&first["steps"]) == [false; 3] && first["hash"] == before["hash"], "{first}");
    ensure!(first["sample"].is_null() && Library::open(library.as_ref())?.samples()?.is_empty());
    let after = plan(&file)?;
    ensure!(cached(&after["steps"]) == [true; 3] && after["predicted_ms"] == 0, "{after}");
    let last = write(folder.path(), "last.toml", &PIPELINE.replace("-300", "-200"))?;
    let changed = plan(&last)?;
    ensure!(cached(&changed["steps"]) == [true, true, false], "{changed}");
    let out = folder.path().join("out").display().to_string();
    let second = gantry.json(&[&run[..], &["--keep", "--output", &out]].concat())?;
    ensure!(cached(&second["steps"]) == [true; 3], "{second}");
    for field in ["mask_voxels", "volume_ml"] {
        ensure!(second[field] == first[field], "{field}: {first} {second}");
    }
    let samples = Library::open(library.as_ref())?.samples()?;
    ensure!(samples.len() == 1 && second["sample"] == samples[0].id.as_str(), "{second}");
    ensure!(std::fs::read_dir(&out)?.count() == 2);
    let (code, sentence) = gantry.refusal(&[&run[..], &["--output", &out]].concat())?;
    ensure!(code == 2 && sentence.contains("name another folder"), "{sentence}");
    let report = gantry.json(&["library", "--library", &library, "verify"])?;
    ensure!(report["damage"].as_array().is_some_and(Vec::is_empty), "{report}");
    Ok(())
}

#[test]
fn a_job_asks_for_the_memory_of_its_plan_and_says_when_it_is_not_enough() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("node-1", "cores = 2\nmemory = \"4G\"\nworkers = 1")?;
    let folder = cluster.folder().to_owned();
    let gantry = &cluster.gantry;
    let (library, series) = library(&folder, gantry, [256, 256, 96])?;
    let file = write(&folder, "body.toml", PIPELINE)?;
    let plan = gantry.json(&["pipeline", "plan", &file, &series, "--library", &library])?;
    let submit = |more: &[&str]| -> Result<Value> {
        let base = ["--quiet", "preprocess", "--library", &library, "--pipeline", &file, &series];
        let output = gantry.run(&[&base[..], more].concat())?;
        let id = String::from_utf8(output.stdout)?.trim().to_owned();
        gantry.run(&["wait", &id])?;
        gantry.json(&["job", &id])
    };
    let job = submit(&[])?;
    ensure!(job["memory_mib"] == plan["request_mib"], "{job} {plan}");
    ensure!(job["state"] == "done", "{job}");
    let peak = job["spent"]["memory_peak_mib"].as_u64().context("no peak")?;
    ensure!(peak <= plan["peak_mib"].as_u64().context("no plan")?, "{peak} MiB of {plan}");
    let out = String::from_utf8(gantry.run(&["logs", job["job"].as_str().unwrap()])?.stdout)?;
    ensure!(out.contains("of memory"), "{out}");

    let failed = submit(&["--memory", "110M"])?;
    ensure!(failed["memory_mib"] == 110 && failed["state"] == "fail", "{failed}");
    let exit = failed["first_tasks"][0]["exit"].as_str().context("no exit")?;
    ensure!(exit.contains("110M") && exit.contains("ask for more"), "{exit}");
    eprintln!("{peak} MiB were used, {} predicted; with 110M: {exit}", plan["peak_mib"]);

    let text = format!(
        "[[job]]\nname = \"samples\"\nkind = \"preprocess\"\nlibrary = {library:?}\npipeline = {file:?}\nseries = \"all\"\n"
    );
    let jobs = write(&folder, "jobs.toml", &text)?;
    let shown = gantry.json(&["submit", "--dry-run", &jobs])?;
    ensure!(shown.to_string().contains(&plan["request_mib"].to_string()), "{shown}");
    Ok(())
}

#[test]
fn a_worker_goes_on_from_what_another_has_cached_and_caches_what_took_long() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("node-1", "cores = 1\nworkers = 1")?;
    cluster.join("node-2", "cores = 1\nworkers = 1")?;
    let folder = cluster.folder().to_owned();
    let gantry = &cluster.gantry;
    let (library, series) = library(&folder, gantry, [64, 64, 16])?;
    let flow = "operation = \"curvature_flow\"\niterations = 400";
    let text = PIPELINE.replace("operation = \"curvature_flow\"", flow);
    let file = write(&folder, "slow.toml", &text)?;
    let run = |node: &str, file: &str| -> Result<String> {
        let base = ["--quiet", "preprocess", "--library", &library, "--pipeline", file];
        let output = gantry.run(&[&base[..], &["--node", node, &series]].concat())?;
        let id = String::from_utf8(output.stdout)?.trim().to_owned();
        gantry.run(&["wait", &id])?;
        let job = gantry.json(&["job", &id])?;
        ensure!(job["state"] == "done", "{job}");
        Ok(String::from_utf8(gantry.run(&["logs", &id])?.stdout)?)
    };
    let cached = |out: &str, step: &str| {
        out.lines().find(|line| line.contains(step)).map(|line| line.ends_with("cached"))
    };
    let first = run("node-1", &file)?;
    ensure!(cached(&first, "curvature_flow") == Some(false), "{first}");
    let last = write(&folder, "last.toml", &text.replace("-300", "-200"))?;
    let second = run("node-2", &last)?;
    ensure!(cached(&second, "curvature_flow") == Some(true), "{second}");
    ensure!(cached(&second, "body") == Some(false), "its threshold is another: {second}");
    // A damaged result is made anew, and says nothing wrong.
    for entry in std::fs::read_dir(Path::new(&library).join("cache"))? {
        let path = entry?.path();
        let bytes: Vec<u8> = std::fs::read(&path)?.iter().map(|byte| byte ^ 0x55).collect();
        std::fs::write(&path, bytes)?;
    }
    let third = run("node-1", &file)?;
    ensure!(cached(&third, "curvature_flow") == Some(false), "{third}");
    ensure!(Library::open(library.as_ref())?.samples()?.len() == 2, "the same sample again");
    Ok(())
}
