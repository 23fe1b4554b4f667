//! Slurm beside gantry: pilots in the allocations of a real Slurm, and batch scripts that move over.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_tests::slurm::Slurm;
use gantry_tests::{Cluster, until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// Runs a command of gantry that asks Slurm, and gives the value of its JSON.
fn pilot(cluster: &Cluster, slurm: &Slurm, folder: &Path, more: &[&str]) -> Result<Value> {
    let (folder, address) = (folder.display().to_string(), cluster.address()?.to_string());
    let mut words = vec!["--json", "pilot", "slurm", "--folder", &folder, "--scheduler", &address];
    words.extend(more);
    let mut command = cluster.gantry.command(&words);
    let output = command.env("SLURM_CONF", slurm.conf()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{text}\n{}", slurm.logs());
    Ok(serde_json::from_str::<Value>(&text)?["pilot"].take())
}

fn node_state(cluster: &Cluster, node: &str) -> Option<Value> {
    let nodes = cluster.gantry.json(&["nodes"]).ok()?;
    nodes.as_array()?.iter().find(|row| row["node"] == node).cloned()
}

#[test]
fn a_pilot_joins_from_an_allocation_works_and_leaves_before_its_limit() -> Result<()> {
    let Some(slurm) = Slurm::start("a pilot in Slurm", 2)? else { return Ok(()) };
    let cluster = Cluster::start(PROGRAM)?;
    let gantry = &cluster.gantry;
    let folder = cluster.folder().join("pilots");
    let begun = Instant::now();
    let first = pilot(&cluster, &slurm, &folder, &["--time", "1m", "--label", "fast"])?;
    ensure!(first["nodes"] == serde_json::json!(["slurm-1"]), "{first}");
    let job = first["slurm_job"].as_str().context("no job")?.to_owned();

    // Nothing secret is in the job, nor where others may read.
    let key = std::fs::read_to_string(folder.join("slurm-1/agent.key"))?;
    let secret = key.lines().nth(1).context("no key")?;
    let script = slurm.said("scontrol", &["write", "batch_script", &format!("{job}_1"), "-"])?;
    let shown = slurm.said("scontrol", &["show", "job", "-dd", &job])?;
    for text in [&script, &shown] {
        ensure!(!text.contains(secret) && !text.to_lowercase().contains("token"), "{text}");
    }
    for (path, mode) in [("", 0o700), ("slurm-1", 0o700), ("slurm-1/agent.key", 0o600)] {
        let known = std::fs::metadata(folder.join(path))?.permissions().mode() & 0o777;
        ensure!(known == mode, "{path:?} has mode {known:o}");
    }

    let log = || std::fs::read_to_string(folder.join("slurm-1/agent.log")).unwrap_or_default();
    let up = || (node_state(&cluster, "slurm-1")?["state"] == "up").then_some(());
    until("the pilot's node", up).with_context(|| format!("{}\n{}", log(), slurm.logs()))?;
    eprintln!("submitted → up: {} ms", begun.elapsed().as_millis());
    ensure!(node_state(&cluster, "slurm-1").context("no node")?["cores"] == 1);
    // Work that fits runs there, within the allocation; what does not fit waits, and is told why.
    let submit = |time: &str, script: &str| {
        let words = ["submit", "--label", "fast", "--time", time, "--", "sh", "-c", script];
        let value = gantry.json(&words)?;
        value["job"].as_str().map(str::to_owned).context("no job")
    };
    let fits = submit("5s", "echo in $SLURM_JOB_ID")?;
    ensure!(gantry.run(&["wait", &fits])?.status.success(), "{}", log());
    let printed = gantry.run(&["logs", &fits])?;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    ensure!(printed.split_whitespace().nth(1).is_some(), "it ran outside of Slurm: {printed}");
    let long = submit("10m", "true")?;
    let why = gantry.json(&["why", &long])?.to_string();
    ensure!(why.contains("maintenance window"), "{why}");

    // Another pilot beside it is another node; ended by Slurm's own command it goes at once.
    let second = pilot(&cluster, &slurm, &folder, &["--time", "5m"])?;
    ensure!(second["nodes"] == serde_json::json!(["slurm-2"]), "{second}");
    let other = second["slurm_job"].as_str().context("no job")?;
    let up = || (node_state(&cluster, "slurm-2")?["state"] == "up").then_some(());
    until("the second pilot's node", up).with_context(|| slurm.logs())?;
    slurm.said("scancel", &[other])?;

    let state = |job: &str| -> Option<String> {
        let text = slurm.said("scontrol", &["show", "job", job]).ok()?;
        let word = text.split_whitespace().find_map(|word| word.strip_prefix("JobState="))?;
        Some(word.to_owned())
    };
    let ended = || state(&job).filter(|word| word != "RUNNING" && word != "COMPLETING");
    let word = until("the end of the pilot", ended)?;
    let took = begun.elapsed();
    eprintln!("submitted → left: {:.1} s of a limit of 60 s, as {word}", took.as_secs_f64());
    ensure!(word == "COMPLETED" && took < Duration::from_mins(1), "{word}: {}", log());
    let gone = || (node_state(&cluster, "slurm-1")?["state"] != "up").then_some(());
    until("the node to be away", gone)?;

    // The next one is the same node again.
    let third = pilot(&cluster, &slurm, &folder, &["--time", "1m"])?;
    ensure!(third["nodes"] == serde_json::json!(["slurm-1"]), "{third}");
    let up = || (node_state(&cluster, "slurm-1")?["state"] == "up").then_some(());
    until("the node to be back", up).with_context(|| format!("{}\n{}", log(), slurm.logs()))
}

#[test]
fn a_batch_script_moves_over() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("n1", "cores = 2\nlabels = [\"partition=main\"]")?;
    let gantry = &cluster.gantry;
    let folder = cluster.folder().join("work");
    std::fs::create_dir(&folder)?;
    let script = folder.join("sweep.sh");
    std::fs::write(
        &script,
        "#!/bin/bash\n#SBATCH --job-name=sweep --partition=main\n#SBATCH --array=1-3%2 --time=5\n\
         #SBATCH -o out-%a.txt -e err-%a.txt --mail-type=END\n\
         echo \"$SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT: $1 $OF_USER\"\necho wrong >&2\n",
    )?;
    let script = script.display().to_string();
    let words = ["--quiet", "submit", "--wait", "--slurm", &script, "--", "hello"];
    let output = gantry.command(&words).current_dir(&folder).env("OF_USER", "ada").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}\n{}", cluster.log("n1"));
    ensure!(said.contains("line 4: --mail-type: gantry sends no mail"), "{said}");
    for index in 1..=3 {
        let read = |name: &str| std::fs::read_to_string(folder.join(format!("{name}-{index}.txt")));
        ensure!(read("out")? == format!("{index} of 3: hello ada\n"), "{}", read("out")?);
        ensure!(read("err")? == "wrong\n");
    }
    let job = String::from_utf8(output.stdout)?.trim().to_owned();
    let lines = gantry.run(&["jobs", "--format", "%i|%8j|%T|%C", "--no-header"])?;
    let lines = String::from_utf8_lossy(&lines.stdout).into_owned();
    ensure!(lines.trim() == format!("{job}|sweep   |COMPLETED|1"), "{lines}");

    std::fs::write(&script, "#!/bin/bash\n#SBATCH --qos=high\nsrun -n 4 ./a\n")?;
    let refused = gantry.run(&["submit", "--slurm", &script])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(2), "{said}");
    for part in ["line 2: --qos: gantry has no QOS", "line 3: srun:", "--ignore NAME"] {
        ensure!(said.contains(part), "{said} lacks {part}");
    }
    Ok(())
}

#[test]
fn a_slurm_conf_becomes_settings_that_are_sound() -> Result<()> {
    let cluster = Cluster::start(PROGRAM)?;
    let gantry = &cluster.gantry;
    let (conf, to) = (cluster.folder().join("slurm.conf"), cluster.folder().join("made"));
    std::fs::write(
        &conf,
        "NodeName=gpu[1-2] CPUs=8 RealMemory=16000 Gres=gpu:a100:2 Feature=nvme\nLicenses=idl:3\n\
         PartitionName=gpu Nodes=ALL MaxTime=1-0\n",
    )?;
    let (conf, to_text) = (conf.display().to_string(), to.display().to_string());
    let found = gantry.json(&["config", "import", &conf, "--to", &to_text])?;
    ensure!(found["nodes"][1]["gpus"] == 2 && found["partitions"]["gpu"] == 2, "{found}");
    let agent = std::fs::read_to_string(to.join("agents/gpu2.toml"))?;
    std::fs::write(to.join("agent.toml"), format!("node = \"gpu2\"\n{agent}"))?;
    for daemon in ["scheduler", "agent"] {
        gantry.json(&["config", "check", "--of", daemon, "--dir", &to_text])?;
    }
    ensure!(!gantry.run(&["config", "import", &conf, "--to", &to_text])?.status.success());
    Ok(())
}
