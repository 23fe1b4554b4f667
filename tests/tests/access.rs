//! Who may do what on a cluster of real processes: identities for people on other hosts, refusals that
//! are written down, certificates that are renewed under work, and access that is taken away.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use gantry_tests::{Cluster, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
const SETTINGS: &str = "cores = 2\nmemory = \"1G\"\nworkers = 1";

/// Gives a person an identity in a folder of their own, as on another host.
fn enter(cluster: &Cluster, user: &str, role: &str) -> Result<PathBuf> {
    let token = cluster.gantry.json(&["access", "token", user, "--role", role])?;
    let token = token["token"].as_str().context("no token")?.to_owned();
    let folder = cluster.folder().join(format!("home-{user}"));
    let (dir, address) = (folder.display().to_string(), cluster.address()?.to_string());
    cluster.gantry.json(&[
        "join",
        &token,
        "--user",
        user,
        "--scheduler",
        &address,
        "--dir",
        &dir,
    ])?;
    Ok(folder)
}

fn with<'a>(folder: &'a Path, line: &'a str) -> Vec<&'a str> {
    let mut words = vec!["--cluster", folder.to_str().unwrap()];
    words.extend(line.split(' '));
    words
}

#[test]
fn a_viewer_s_cancel_is_refused_with_what_to_do_and_written_down() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", SETTINGS)?;
    let vera = enter(&cluster, "vera", "viewer")?;
    for (file, mode) in [("vera.key", 0o600), ("", 0o700)] {
        let found = std::fs::metadata(vera.join(file))?.permissions().mode() & 0o777;
        ensure!(found == mode, "{file} has mode {found:o}");
    }
    cluster.gantry.json(&["submit", "--name", "DOE^JANE", "--", "sleep", "1000"])?;
    ensure!(cluster.gantry.json(&with(&vera, "queue"))?[0]["job"] == "j1", "a viewer looks");
    let (code, sentence) = cluster.gantry.refusal(&with(&vera, "cancel j1"))?;
    ensure!(code == 125, "{code}");
    for part in
        ["cancel of j1", "operator's", "vera is a viewer", "gantry access grant vera operator"]
    {
        ensure!(sentence.contains(part), "{sentence}");
    }
    let rows = cluster.gantry.json(&["audit", "list", "--user", "vera", "--refused"])?;
    let row = &rows[0];
    for (field, value) in [
        ("role", "viewer"),
        ("what", "cancel"),
        ("whom", "j1"),
        ("answer", "refused"),
        ("why", "forbidden"),
    ] {
        ensure!(row[field] == value, "{row}");
    }
    ensure!(rows.as_array().is_some_and(|rows| rows.len() == 1), "{rows}");
    // The same person with another role, by the same certificate.
    cluster.gantry.json(&["access", "grant", "vera", "operator"])?;
    cluster.gantry.json(&with(&vera, "cancel j1"))?;
    ensure!(cluster.gantry.json(&["audit", "verify"])?["broken"].is_null(), "the log is whole");

    // A copy in which one character is another is told from it, and the name of a job is nowhere.
    let copy = cluster.folder().join("copy");
    std::fs::create_dir(&copy)?;
    for entry in std::fs::read_dir(cluster.folder().join("scheduler"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("audit") {
            let text = std::fs::read_to_string(entry.path())?;
            ensure!(!text.contains("DOE"), "{text}");
            std::fs::write(copy.join(&name), text.replacen("\"vera\"", "\"dora\"", 1))?;
        }
    }
    let copy = copy.display().to_string();
    let output = cluster.gantry.run(&["audit", "verify", &copy])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(1), "{text}");
    ensure!(text.starts_with("line ") && text.contains("is not as it was written"), "{text}");
    Ok(())
}

#[test]
fn certificates_are_renewed_under_work_and_no_connection_ends() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    let file = cluster.folder().join("scheduler/scheduler.toml");
    let settings = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("{settings}certificate_valid = \"6s\"\n"))?;
    cluster.kill_scheduler();
    cluster.start_scheduler()?;
    cluster.join("cpu-1", SETTINGS)?;
    let ada = enter(&cluster, "ada", "user")?;
    let job = cluster.gantry.json(&with(&ada, "submit -- sleep 1000"))?;
    let job = job["job"].as_str().context("no job")?.to_owned();
    let certificate = cluster.folder().join("cpu-1/agent.pem");
    let key = std::fs::read(cluster.folder().join("cpu-1/agent.key"))?;
    let mut seen = std::fs::read(&certificate)?;
    let first = std::fs::read(ada.join("ada.pem"))?;
    for round in 1..=2 {
        seen = until(&format!("renewal {round}"), || {
            std::fs::read(&certificate).ok().filter(|now| *now != seen)
        })
        .with_context(|| cluster.log("cpu-1"))?;
    }
    let log = cluster.log("cpu-1");
    ensure!(!log.contains("is gone"), "a renewal broke the connection\n{log}");
    ensure!(std::fs::read(cluster.folder().join("cpu-1/agent.key"))? == key, "the key stays");
    let row = cluster.gantry.json(&["job", &job])?;
    ensure!(row["state"] == "run" && row["starts"] == 1, "{row}");
    // The person was away for longer than the certificate counted: the next command renews it.
    cluster.gantry.json(&with(&ada, &format!("cancel {job}")))?;
    ensure!(std::fs::read(ada.join("ada.pem"))? != first, "it was renewed");
    // And an agent that was away for longer than that comes back by itself.
    cluster.kill_agent("cpu-1");
    let gone = std::time::Instant::now();
    until("the end of its certificate", || (gone.elapsed().as_secs() >= 7).then_some(()))?;
    cluster.start_agent("cpu-1")
}

#[test]
fn the_authority_is_rotated_under_work_and_nobody_is_locked_out() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    let file = cluster.folder().join("scheduler/scheduler.toml");
    let settings = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("{settings}certificate_valid = \"6s\"\n"))?;
    cluster.kill_scheduler();
    cluster.start_scheduler()?;
    cluster.join("cpu-1", SETTINGS)?;
    let ada = enter(&cluster, "ada", "user")?;
    let grace = enter(&cluster, "grace", "user")?;
    let job = cluster.gantry.json(&with(&ada, "submit -- sleep 1000"))?;
    let job = job["job"].as_str().context("no job")?.to_owned();
    let state = |cluster: &Cluster, step: &str| {
        let words: Vec<&str> =
            ["access", "authority"].into_iter().chain(step.split_whitespace()).collect();
        cluster.gantry.json(&words)
    };
    let first = state(&cluster, "")?;
    ensure!(first["rotating_since_ms"].is_null(), "{first}");

    let begun = state(&cluster, "--rotate")?;
    ensure!(begun["fingerprint"] != first["fingerprint"], "{begun}");
    // The node is connected; a command that has just ended may still count as that.
    let named = |list: &str, who: &str| {
        begun[list].as_array().is_some_and(|all| all.iter().any(|one| one == who))
    };
    ensure!(named("behind", "node cpu-1"), "{begun}");
    for user in ["user ada", "user grace"] {
        ensure!(named("behind", user) != named("unseen", user), "{begun}");
    }
    let (_, sentence) = cluster.gantry.refusal(&["access", "authority", "--finish"])?;
    ensure!(sentence.contains("would lock out") && sentence.contains("user grace"), "{sentence}");
    // A scheduler that is killed in between knows both when it is back.
    cluster.kill_scheduler();
    cluster.start_scheduler()?;
    cluster.gantry.json(&with(&ada, "queue"))?;
    // Who left is not waited for.
    cluster.gantry.json(&["access", "revoke", "grace"])?;
    until("the node's certificate of the new authority", || {
        let now = state(&cluster, "").ok()?;
        (now["behind_count"] == 0 && now["unseen_count"] == 0).then_some(())
    })
    .with_context(|| cluster.log("cpu-1"))?;
    let ended = state(&cluster, "--finish")?;
    ensure!(ended["rotating_since_ms"].is_null(), "{ended}");
    ensure!(ended["fingerprint"] == begun["fingerprint"], "{ended}");

    // What runs was not touched, and all come back to a scheduler that knows the new authority alone.
    cluster.kill_scheduler();
    cluster.start_scheduler()?;
    until("the node after all of it", || {
        let nodes = cluster.gantry.json(&["nodes"]).ok()?;
        (nodes[0]["state"] == "up").then_some(())
    })
    .with_context(|| cluster.log("cpu-1"))?;
    let row = cluster.gantry.json(&with(&ada, &format!("job {job}")))?;
    ensure!(row["state"] == "run" && row["starts"] == 1, "{row}");
    cluster.join("cpu-2", SETTINGS)?;
    // Grace has slept through it.
    let (_, sentence) = cluster.gantry.refusal(&with(&grace, "queue"))?;
    ensure!(sentence.contains("join again with a new token"), "{sentence}");
    let lines = cluster.gantry.json(&["audit", "list"])?;
    let whys: Vec<&str> = lines
        .as_array()
        .into_iter()
        .flatten()
        .filter(|line| line["what"] == "authority")
        .filter_map(|line| line["why"].as_str())
        .collect();
    ensure!(whys.contains(&"rotate") && whys.contains(&"finish"), "{whys:?}");
    Ok(())
}

#[test]
fn a_node_whose_access_is_taken_away_is_gone_until_it_joins_anew() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", SETTINGS)?;
    cluster.gantry.json(&["access", "revoke", "--node", "cpu-1"])?;
    let state = || {
        let nodes = cluster.gantry.json(&["nodes"]).ok()?;
        Some(nodes[0]["state"].as_str()?.to_owned())
    };
    until("the end of the node", || state().filter(|state| state != "up"))?;
    let told = || cluster.log("cpu-1").contains("taken away by operator").then_some(());
    until("the reason at the agent", told).with_context(|| cluster.log("cpu-1"))?;
    let rows = cluster.gantry.json(&["access", "list"])?;
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "cpu-1"));
    let row = row.context("no row")?;
    ensure!(row["role"] == "revoked" && row["connections"] == 0, "{row}");
    // It joins anew in the same folder, where its settings are.
    cluster.kill_agent("cpu-1");
    let token = cluster.gantry.json(&["scheduler", "token", "cpu-1"])?;
    let token = token["token"].as_str().context("no token")?.to_owned();
    let (address, dir) = (cluster.address()?.to_string(), cluster.folder().join("cpu-1"));
    let dir = dir.display().to_string();
    cluster.gantry.json(&[
        "join",
        &token,
        "--node",
        "cpu-1",
        "--scheduler",
        &address,
        "--dir",
        &dir,
    ])?;
    cluster.start_agent("cpu-1")
}
