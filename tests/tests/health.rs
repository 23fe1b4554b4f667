//! A GPU that fails: its work goes on elsewhere, and it comes back once a test has found nothing.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../agent/tests/nvml/fake.rs"]
mod fake;

use std::time::{Duration, Instant};

use anyhow::Result;
use fake::Fake;
use gantry_tests::{Cluster, until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
/// From the driver's call to the task on another node.
const MOVED_WITHIN: Duration = Duration::from_secs(5);

fn node(cluster: &Cluster, name: &str) -> Value {
    let nodes = cluster.gantry.json(&["nodes"]).unwrap();
    let mut rows = nodes.as_array().unwrap().iter();
    rows.find(|row| row["node"] == name).unwrap().clone()
}

fn trouble(cluster: &Cluster, name: &str) -> Option<(String, String)> {
    let row = node(cluster, name);
    let first = row["troubles"].as_array().unwrap().first().cloned()?;
    Some((first["trouble"].as_str()?.to_owned(), first["stage"].as_str()?.to_owned()))
}

/// Where the only task of a job runs.
fn runs_on(cluster: &Cluster, job: &str) -> Option<String> {
    let value = cluster.gantry.json(&["job", job]).unwrap();
    let task = &value["first_tasks"][0];
    (task["state"] == "run").then(|| task["node"].as_str().unwrap_or_default().to_owned())
}

/// Two nodes with two GPUs each, the driver of the first, and a job on that node's first GPU.
fn scene() -> Result<Option<(Cluster, Fake, String)>> {
    let mut cluster = Cluster::start(PROGRAM)?;
    let folder = |name: &str| {
        let folder = cluster.folder().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    let (first, second) = (folder("driver-1"), folder("driver-2"));
    let (Some(first), Some(second)) = (Fake::build(&first), Fake::build(&second)) else {
        return Ok(None);
    };
    second.say("prefix other");
    for (name, driver) in [("gpu-1", &first), ("gpu-2", &second)] {
        let library = driver.library().display().to_string();
        let settings =
            format!("roles = [\"cpu\", \"gpu\"]\ncores = 4\nmemory = \"1G\"\nnvml = {library:?}");
        cluster.join(name, &settings)?;
    }
    until("both nodes have read their GPUs", || {
        let read =
            |name: &str| node(&cluster, name)["sample"]["gpus"].as_array().map_or(0, Vec::len);
        (read("gpu-1") == 2 && read("gpu-2") == 2).then_some(())
    })?;
    let checkpoint = "echo $GANTRY_START >> $GANTRY_CHECKPOINT/seen; sleep 300";
    let value = cluster.gantry.json(&[
        "submit", "--gpus", "1", "--cores", "1", "--node", "gpu-1", "--", "sh", "-c", checkpoint,
    ])?;
    let pinned = value["job"].as_str().unwrap().to_owned();
    until("it runs", || runs_on(&cluster, &pinned))?;
    Ok(Some((cluster, first, pinned)))
}

#[test]
fn an_xid_moves_work_within_five_seconds_and_a_test_brings_the_gpu_back() -> Result<()> {
    let Some((cluster, driver, pinned)) = scene()? else { return Ok(()) };
    cluster.gantry.run(&["cancel", &pinned])?;
    let value = cluster.gantry.json(&["submit", "--gpus", "2", "--", "sleep", "300"])?;
    let job = value["job"].as_str().unwrap().to_owned();
    let before = until("the job runs", || runs_on(&cluster, &job))?;
    // Which of the two nodes it is was the scheduler's to choose; the test steers the first one's
    // driver, so the job must be there.
    if before != "gpu-1" {
        cluster.gantry.run(&["drain", "gpu-2", "--reason", "test"])?;
        cluster.gantry.run(&["requeue", &job])?;
        until("it runs on the first node", || {
            (runs_on(&cluster, &job).as_deref() == Some("gpu-1")).then_some(())
        })?;
        cluster.gantry.run(&["resume", "gpu-2"])?;
    }
    let raised = Instant::now();
    driver.say("xid 0 48");
    until("it runs on the other node", || {
        (runs_on(&cluster, &job).as_deref() == Some("gpu-2")).then_some(())
    })?;
    let took = raised.elapsed();
    eprintln!("from the XID to the task on another node: {:.2} s", took.as_secs_f64());
    assert!(took <= MOVED_WITHIN, "it took {took:?}");
    until("the test has brought the GPU back", || {
        trouble(&cluster, "gpu-1").is_none().then_some(())
    })?;
    let events = cluster.gantry.json(&["events", "--node", "gpu-1"])?;
    let said: Vec<&str> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["sentence"].as_str().unwrap())
        .collect();
    for part in [
        "XID 48 on GPU-a; rule xid-memory: the gpu gets no new work, 1 task",
        "its test found nothing",
    ] {
        assert!(said.iter().any(|one| one.contains(part)), "{said:?} lacks {part:?}");
    }
    Ok(())
}

#[test]
fn a_lost_gpu_keeps_its_node_from_nothing_else_and_a_bus_error_takes_the_node() -> Result<()> {
    let Some((cluster, driver, pinned)) = scene()? else { return Ok(()) };
    driver.say("lost 1");
    until("the GPU is called lost", || {
        (trouble(&cluster, "gpu-1")?.0 == "gpu-lost").then_some(())
    })?;
    assert_eq!(runs_on(&cluster, &pinned).as_deref(), Some("gpu-1"), "the other GPU works on");
    driver.take_back("lost");
    until("it is back by its test", || trouble(&cluster, "gpu-1").is_none().then_some(()))?;
    driver.say("xid 0 79");
    until("the node gets no work", || {
        (trouble(&cluster, "gpu-1")? == ("xid-bus".into(), "person".into())).then_some(())
    })?;
    let why = until("the pinned job waits", || {
        let why = cluster.gantry.json(&["why", &pinned]).ok()?;
        Some(why["sentence"].as_str()?.to_owned())
    })?;
    assert!(why.contains("unfit: XID 79"), "{why}");
    cluster.gantry.run(&["resume", "gpu-1"])?;
    until("it runs again", || runs_on(&cluster, &pinned))?;
    Ok(())
}
