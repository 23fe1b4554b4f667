//! The demonstration: the whole chain, once quietly and once with its scheduler killed.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gantry_tests::{Gantry, until};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// What must not depend on timing, on restarts or on the folder.
fn outcome(demo: &Value) -> Value {
    let strip = |list: &Value, keys: &[&str]| -> Value {
        let rows = list.as_array().unwrap().iter();
        rows.map(|row| keys.iter().map(|key| row[*key].clone()).collect::<Value>()).collect()
    };
    serde_json::json!({
        "instances": demo["instances_received"],
        "series": demo["series"],
        "quarantined": strip(&demo["quarantined"], &["reason"]),
        "samples": demo["samples"],
        "epochs": strip(&demo["training"]["epochs"], &["epoch", "loss", "validation_dice"]),
        "dice": demo["held_out"]["dice"],
        "volume_ml": strip(&demo["predictions"], &["volume_ml"]),
    })
}

fn quiet(folder: &TempDir) -> Result<Value> {
    let folder = folder.path().display().to_string();
    Gantry::new(PROGRAM).json(&["demo", "--no-screen", "--folder", &folder])
}

#[test]
fn the_whole_chain_gives_one_value_and_the_same_again_when_its_scheduler_is_killed() -> Result<()> {
    let start = Instant::now();
    let folder = TempDir::new()?;
    let demo = quiet(&folder)?;
    println!("the demonstration took {:?}", start.elapsed());
    ensure!(demo["instances_received"].as_u64().unwrap() > 50, "{demo}");
    ensure!(demo["quarantined"].as_array().unwrap().len() == 1, "the damaged file: {demo}");
    ensure!(demo["held_out"]["dice"].as_f64().unwrap() > 0.85, "{demo}");
    ensure!(!demo["nearest"].as_array().unwrap().is_empty(), "{demo}");
    ensure!(demo["scheduler_restarts"] == 0, "{demo}");

    let folder = TempDir::new()?;
    let path = folder.path().display().to_string();
    let child = Gantry::new(PROGRAM)
        .command(&["--json", "demo", "--no-screen", "--folder", &path])
        .stdout(Stdio::piped())
        .spawn()?;
    // In the middle: the training has begun to write checkpoints.
    until("training", || {
        let runs = std::fs::read_dir(folder.path().join("library/runs")).ok()?;
        runs.flatten()
            .find(|run| std::fs::read_dir(run.path()).is_ok_and(|files| files.count() > 0))
    })?;
    ensure!(kill_scheduler(child.id())?, "no scheduler was found to kill");
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{text}");
    let mut again: Value = serde_json::from_str(&text)?;
    let again = again["demo"].take();
    ensure!(again["scheduler_restarts"].as_u64().unwrap() >= 1, "{again}");
    assert_eq!(outcome(&demo), outcome(&again));
    Ok(())
}

#[test]
fn a_stage_that_fails_is_named_and_the_exit_code_is_1() -> Result<()> {
    let demo = ["demo", "--no-screen", "--data", "/nowhere"];
    let (code, sentence) = Gantry::new(PROGRAM).refusal(&demo)?;
    assert_eq!(code, 1, "{sentence}");
    ensure!(sentence.starts_with("stage scan: "), "{sentence}");
    ensure!(sentence.contains("tests/fetch_data.sh"), "{sentence}");
    Ok(())
}

/// Kills, as kill -9 does, the scheduler among the children of a process.
fn kill_scheduler(parent: u32) -> Result<bool> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let after = stat.rsplit(')').next().unwrap_or_default();
        let of_parent = after.split_whitespace().nth(1) == Some(parent.to_string().as_str());
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if of_parent && line.split('\0').nth(1) == Some("scheduler") {
            let pid = entry.file_name().to_string_lossy().parse().context("a process id")?;
            let pid = rustix::process::Pid::from_raw(pid).context("a process id")?;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            return Ok(true);
        }
    }
    Ok(false)
}
