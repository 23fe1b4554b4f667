//! Jobs on a cluster of real processes: what users do, and what breaks under them.
#![allow(clippy::unwrap_used, missing_docs)]

use anyhow::Result;
use gantry_tests::{Cluster, Gantry, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
const TWO_CORES: &str = "cores = 2\nmemory = \"1G\"\nworkers = 1";

fn code(cluster: &Cluster, arguments: &[&str]) -> i32 {
    cluster.gantry.run(arguments).unwrap().status.code().unwrap()
}

fn submit(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut all = vec!["submit"];
    all.extend(arguments);
    let value = cluster.gantry.json(&all).unwrap();
    value["job"].as_str().unwrap().to_owned()
}

fn state(cluster: &Cluster, job: &str) -> String {
    let row = cluster.gantry.json(&["job", job]).unwrap();
    row["state"].as_str().unwrap().to_owned()
}

/// The state of a node, where it is known.
fn node_state(cluster: &Cluster, node: &str) -> Option<String> {
    let nodes = cluster.gantry.json(&["nodes"]).ok()?;
    let row = nodes.as_array()?.iter().find(|row| row["node"] == node)?.clone();
    Some(row["state"].as_str()?.to_owned())
}

#[test]
fn a_command_exits_as_its_job_did() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", TWO_CORES)?;
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 128 + 15),
        ("test \"$GANTRY_INDEX\" = 0 && test -n \"$GANTRY_JOB\" && test -z \"$GANTRY_RESUME\"", 0),
    ] {
        let found = code(&cluster, &["submit", "--wait", "--", "sh", "-c", script]);
        assert_eq!(found, expected, "{script}");
    }
    assert_eq!(code(&cluster, &["submit", "--wait", "--", "/nowhere/at-all"]), 127);
    assert_eq!(code(&cluster, &["submit", "--wait", "--", "/etc/passwd"]), 126);
    let job = submit(&cluster, &["--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(code(&cluster, &["wait", &job]), 0);
    let output = cluster.gantry.run(&["logs", &job])?;
    assert_eq!(String::from_utf8(output.stdout)?, "out\nerr\n");
    Ok(())
}

#[test]
fn arrays_dependencies_retries_and_cancel() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", TWO_CORES)?;
    let folder = cluster.folder().join("out");
    std::fs::create_dir(&folder)?;
    let folder = folder.display().to_string();

    let array = submit(
        &cluster,
        &["--array", "0-9%2", "--folder", &folder, "--", "sh", "-c", "touch $GANTRY_INDEX"],
    );
    let count = "test $(ls | wc -l) = 10";
    let after =
        submit(&cluster, &["--after", &array, "--folder", &folder, "--", "sh", "-c", count]);
    assert_eq!(code(&cluster, &["wait", &array, &after]), 0);

    let script = "test \"$GANTRY_RESUME\" = 1";
    assert_eq!(
        code(&cluster, &["submit", "--retries", "1", "--wait", "--", "sh", "-c", script]),
        0
    );

    let fails = submit(&cluster, &["--", "false"]);
    let never = submit(&cluster, &["--after", &fails, "--", "true"]);
    let always = submit(&cluster, &["--after", &format!("fail:{fails}"), "--", "true"]);
    assert_eq!(code(&cluster, &["wait", &fails]), 1);
    assert_eq!(code(&cluster, &["wait", &never]), 128 + 15, "it can never start");
    assert_eq!(code(&cluster, &["wait", &always]), 0);

    let sleeps = submit(&cluster, &["--", "sleep", "1000"]);
    until("the start", || (state(&cluster, &sleeps) == "run").then_some(()))?;
    assert_eq!(code(&cluster, &["cancel", &sleeps]), 0);
    assert_eq!(code(&cluster, &["wait", &sleeps]), 128 + 15);
    assert_eq!(code(&cluster, &["submit", "--time", "1s", "--wait", "--", "sleep", "1000"]), 124);
    Ok(())
}

#[test]
fn a_scheduler_killed_under_work_loses_nothing_and_doubles_nothing() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", TWO_CORES)?;
    cluster.join("cpu-2", TWO_CORES)?;
    let count = cluster.folder().join("count");
    let line = format!("echo $GANTRY_INDEX >> {}", count.display());
    let job = submit(&cluster, &["--array", "0-199", "--", "sh", "-c", &line]);
    for _ in 0..3 {
        until("progress", || {
            let row = cluster.gantry.json(&["job", &job]).ok()?;
            (row["tasks"]["done"].as_u64()? > 0).then_some(())
        })?;
        cluster.kill_scheduler();
        cluster.start_scheduler()?;
    }
    assert_eq!(code(&cluster, &["wait", &job]), 0);
    let mut ran: Vec<u32> =
        std::fs::read_to_string(&count)?.lines().map(|line| line.parse().unwrap()).collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..200).collect::<Vec<_>>(), "each element ran once");
    Ok(())
}

#[test]
fn a_killed_agent_costs_no_try_and_leaves_no_process() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", TWO_CORES)?;
    let pids = cluster.folder().join("pids");
    let line = format!("echo $$ >> {}; test -n \"$GANTRY_RESUME\" || sleep 1000", pids.display());
    let job = submit(&cluster, &["--", "sh", "-c", &line]);
    let first =
        until("the start", || std::fs::read_to_string(&pids).ok()?.lines().next()?.parse().ok());
    let first: i32 = first?;
    until("the reported start", || (state(&cluster, &job) == "run").then_some(()))?;
    cluster.kill_agent("cpu-1");
    let proc = format!("/proc/{first}");
    until("the end of the process", || (!std::path::Path::new(&proc).exists()).then_some(()))?;
    cluster.start_agent("cpu-1")?;
    assert_eq!(code(&cluster, &["wait", &job]), 0, "{}", cluster.log("cpu-1"));
    Ok(())
}

/// The node's time to come back is an hour, so that only the supervisor's word can be what is acted on.
#[test]
fn what_ends_with_a_killed_agent_waits_at_once_and_what_lives_on_does_not() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    let file = cluster.folder().join("scheduler/scheduler.toml");
    let before = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("{before}node_timeout = \"1h\"\n"))?;
    cluster.gantry.json(&["scheduler", "reload"])?;
    for (node, orphans, after) in [("ends", "end", "wait"), ("keeps", "keep", "run")] {
        cluster.join(node, &format!("{TWO_CORES}\norphans = \"{orphans}\""))?;
        let job = submit(&cluster, &["--node", node, "--", "sleep", "1000"]);
        until("the start", || (state(&cluster, &job) == "run").then_some(()))?;
        cluster.kill_agent(node);
        until("the loss", || (node_state(&cluster, node)? == "late").then_some(()))?;
        until("what follows", || (state(&cluster, &job) == after).then_some(()))?;
        cluster.start_agent(node)?;
        until("its return", || (node_state(&cluster, node)? == "up").then_some(()))?;
        until("the same or the next try", || (state(&cluster, &job) == "run").then_some(()))?;
        let tries = if after == "wait" { 2 } else { 1 };
        let row = cluster.gantry.json(&["job", &job])?;
        assert_eq!(row["first_tasks"][0]["starts"], tries, "{row}");
        cluster.gantry.json(&["cancel", &job])?;
        until("the end", || (state(&cluster, &job) == "cancel").then_some(()))?;
    }
    Ok(())
}

#[test]
fn a_killed_agent_s_task_goes_on_and_is_taken_over() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", &format!("{TWO_CORES}\norphans = \"keep\""))?;
    let (pids, go) = (cluster.folder().join("pids"), cluster.folder().join("go"));
    let line = format!(
        "echo $$ >> {}; while ! test -e {}; do sleep 0.05; done; exit 7",
        pids.display(),
        go.display()
    );
    let job = submit(&cluster, &["--", "sh", "-c", &line]);
    until("the reported start", || (state(&cluster, &job) == "run").then_some(()))?;
    let first = until("the start", || {
        std::fs::read_to_string(&pids).ok()?.lines().next().map(String::from)
    })?;
    cluster.kill_agent("cpu-1");
    cluster.start_agent("cpu-1")?;
    assert!(std::path::Path::new(&format!("/proc/{first}")).exists(), "it did not notice");
    assert_eq!(state(&cluster, &job), "run");
    // And once more: it ends while no agent is there, and that is told too.
    cluster.kill_agent("cpu-1");
    std::fs::write(&go, "")?;
    let gone = format!("/proc/{first}");
    until("its end", || (!std::path::Path::new(&gone).exists()).then_some(()))?;
    cluster.start_agent("cpu-1")?;
    assert_eq!(code(&cluster, &["wait", &job]), 7, "{}", cluster.log("cpu-1"));
    assert_eq!(std::fs::read_to_string(&pids)?.lines().count(), 1, "it ran once");
    Ok(())
}

#[test]
fn settings_are_read_again_while_the_scheduler_runs() -> Result<()> {
    let cluster = Cluster::start(PROGRAM)?;
    let file = cluster.folder().join("scheduler/scheduler.toml");
    let before = std::fs::read_to_string(&file)?;
    let licensed = ["submit", "--licence", "m=2", "--", "true"];
    let (code, sentence) = cluster.gantry.refusal(&licensed)?;
    assert!(code == 2 && sentence.contains("the settings give 0"), "{code}: {sentence}");
    // A wrong file changes nothing, and says where it is wrong.
    std::fs::write(&file, format!("{before}licence = 3\n"))?;
    let (_, sentence) = cluster.gantry.refusal(&["scheduler", "reload"])?;
    assert!(sentence.contains(":2:1") && sentence.contains("\"licences\""), "{sentence}");
    std::fs::write(
        &file,
        format!("{before}token_valid = \"1h\"\nlocal_role = \"none\"\n[licences]\nm = 2\n"),
    )?;
    let value = cluster.gantry.json(&["scheduler", "reload"])?;
    assert_eq!(
        value["restart"],
        serde_json::json!(["local_role", "token_valid"]),
        "it waits for a restart"
    );
    assert_eq!(cluster.gantry.json(&licensed)?["job"], "j1");
    Ok(())
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", TWO_CORES)?;
    for (arguments, expected, part) in [
        (&["job", "j99"][..], 2, "j99"),
        (&["cancel", "j99"], 2, "j99"),
        (&["wait", "j99"], 2, "j99"),
        (&["job", "seven"], 2, "j12"),
        (&["submit", "--gpus", "3", "--", "true"], 2, "gpus"),
        (&["submit", "--cores", "99", "--", "true"], 2, "cores"),
        (&["submit", "--node", "cpu-7", "--", "true"], 2, "cpu-7"),
        (&["submit", "--after", "j99", "--", "true"], 2, "j99"),
        (&["submit", "--array", "9-0", "--", "true"], 2, "9-0"),
        (&["submit", "--time", "soon", "--", "true"], 2, "soon"),
        (&["sumbit", "--", "true"], 2, "sumbit"),
    ] {
        let (found, sentence) = cluster.gantry.refusal(arguments)?;
        assert_eq!(found, expected, "{arguments:?}: {sentence}");
        assert!(sentence.contains(part), "{arguments:?}: {sentence}");
    }
    // A used token, a scheduler that is gone, a cluster that never was.
    let token = cluster.gantry.json(&["scheduler", "token", "cpu-9"])?;
    let token = token["token"].as_str().unwrap();
    let address = std::fs::read_to_string(cluster.folder().join("scheduler/address"))?;
    let dir = cluster.folder().join("cpu-9").display().to_string();
    let join = ["join", token, "--node", "cpu-9", "--scheduler", address.trim(), "--dir", &dir];
    cluster.gantry.json(&join)?;
    let (_, sentence) = cluster.gantry.refusal(&join)?;
    assert!(sentence.contains("token"), "{sentence}");
    cluster.kill_scheduler();
    let (found, sentence) = cluster.gantry.refusal(&["queue"])?;
    assert_eq!(found, 125);
    assert!(sentence.contains("check that it runs"), "{sentence}");
    let (found, sentence) = Gantry::new(PROGRAM).refusal(&["--cluster", "/nowhere", "queue"])?;
    assert_eq!(found, 2);
    assert!(sentence.contains("--cluster"), "{sentence}");
    // Settings with a mistake are refused with its place.
    let settings = cluster.folder().join("scheduler/scheduler.toml");
    std::fs::write(&settings, "lissten = \"127.0.0.1:0\"\n")?;
    let dir = cluster.folder().join("scheduler").display().to_string();
    let (found, sentence) = cluster.gantry.refusal(&["scheduler", "--dir", &dir])?;
    assert_eq!(found, 2);
    assert!(sentence.contains("lissten") && sentence.contains("listen"), "{sentence}");
    Ok(())
}
