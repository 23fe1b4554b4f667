//! The loss of the scheduler's disk: a backup while tasks run, a restore into an empty folder, and what
//! becomes of the work.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use gantry_tests::{Cluster, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
const SETTINGS: &str = "cores = 8\nmemory = \"1G\"\nworkers = 1";

/// A task that says its process, waits until it is let go, and says that it had its effect.
const SCRIPT: &str = r"
echo $GANTRY_TASK $$ >> $SHARED/starts
while ! test -e $SHARED/go; do sleep 0.05; done
echo $GANTRY_TASK $$ >> $SHARED/effects";

/// A cluster with a node, and what its tasks have left.
struct Site {
    cluster: Cluster,
    script: String,
}

impl Site {
    fn start() -> Result<Self> {
        let mut cluster = Cluster::start(PROGRAM)?;
        cluster.join("cpu-1", SETTINGS)?;
        let script = SCRIPT.replace("$SHARED", &cluster.folder().display().to_string());
        Ok(Self { cluster, script })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.folder().join(name)
    }

    fn submit(&self, flags: &[&str]) -> Result<String> {
        let mut words = vec!["submit"];
        words.extend(flags);
        words.extend(["--", "sh", "-c", &self.script]);
        let value = self.cluster.gantry.json(&words)?;
        Ok(value["job"].as_str().context("no job")?.to_owned())
    }

    /// The tasks and processes in a file, in order.
    fn marks(&self, file: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.path(file)).unwrap_or_default();
        let mark = |line: &str| line.split_once(' ').map(|(task, pid)| (task.into(), pid.into()));
        let mut marks: Vec<(String, String)> = text.lines().filter_map(mark).collect();
        marks.sort();
        marks
    }

    /// Waits until so many tasks have begun and the scheduler knows, and gives them.
    fn until_started(&self, count: usize) -> Result<Vec<(String, String)>> {
        let all = || Some(self.marks("starts")).filter(|marks| marks.len() == count);
        let marks = until(&format!("the start of {count} tasks"), all)?;
        let told = || {
            let nodes = self.cluster.gantry.json(&["queue"]).ok()?;
            let runs = |row: &serde_json::Value| row["tasks"]["run"].as_u64();
            let sum: u64 = nodes.as_array()?.iter().filter_map(runs).sum();
            (sum == count as u64).then_some(())
        };
        until("the reported starts", told)?;
        Ok(marks)
    }

    fn backup(&self, name: &str) -> Result<serde_json::Value> {
        let to = self.path(name).display().to_string();
        self.cluster.gantry.json(&["scheduler", "backup", &to])
    }

    fn restore(&self, name: &str) -> Result<serde_json::Value> {
        let (from, to) = (self.path(name), self.path("scheduler"));
        let (from, to) = (from.display().to_string(), to.display().to_string());
        self.cluster.gantry.json(&["scheduler", "restore", &from, "--to", &to])
    }

    fn until_up(&self) -> Result<()> {
        let up = || {
            let nodes = self.cluster.gantry.json(&["nodes"]).ok()?;
            (nodes[0]["state"] == "up").then_some(())
        };
        until("the node's return", up).with_context(|| self.cluster.log("cpu-1"))
    }
}

fn number(job: &str) -> u64 {
    job.trim_start_matches('j').parse().unwrap()
}

fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

#[test]
fn a_scheduler_comes_back_from_a_backup_and_its_tasks_run_on() -> Result<()> {
    let mut site = Site::start()?;
    let job = site.submit(&["--array", "0-1"])?;
    let held = site.submit(&["--hold"])?;
    let before = site.until_started(2)?;
    let value = site.backup("kept")?;
    ensure!(value["cluster"] == "test" && value["paused_ms"].is_u64(), "{value}");
    // What comes after the backup is lost with the disk: a job, and that the held one was let go.
    let lost = site.submit(&[])?;
    site.cluster.gantry.json(&["release", &held])?;
    let all = site.until_started(4)?;
    site.cluster.kill_scheduler();
    std::fs::remove_dir_all(site.path("scheduler"))?;

    let value = site.restore("kept")?;
    ensure!(value["summary"]["jobs_run"] == 1 && value["summary"]["nodes"] == 1, "{value}");
    ensure!(value["audit"].is_null(), "{value}");
    site.cluster.start_scheduler()?;
    site.until_up()?;
    // What the backup does not know is ended; what it knows runs on in the same processes.
    let unknown = |mark: &&(String, String)| !before.contains(mark);
    for (task, pid) in all.iter().filter(unknown) {
        until(&format!("the end of {task}"), || (!is_alive(pid)).then_some(()))?;
    }
    ensure!(before.iter().all(|(_, pid)| is_alive(pid)), "a task of the backup was ended");
    let (code, sentence) = site.cluster.gantry.refusal(&["job", &lost])?;
    ensure!(code == 2 && sentence.contains("there is no job"), "{code} {sentence}");
    ensure!(site.cluster.gantry.json(&["job", &held])?["state"] == "wait", "it is held again");

    // No id is given twice.
    std::fs::write(site.path("go"), "")?;
    let next = site.submit(&[])?;
    ensure!(number(&next) > number(&lost) + 100_000_000, "{next} after {lost}");
    for job in [&job, &next] {
        let output = site.cluster.gantry.run(&["wait", job])?;
        ensure!(output.status.code() == Some(0), "{job}: {output:?}");
    }
    let row = site.cluster.gantry.json(&["job", &job])?;
    ensure!(row["starts"] == 2, "its tasks were started once: {row}");
    let effects = site.marks("effects");
    for mark in &before {
        ensure!(effects.contains(mark), "{mark:?} had no effect: {effects:?}");
    }
    ensure!(effects.len() == 3, "{effects:?}");
    let events = site.cluster.gantry.json(&["events", "--level", "warn"])?;
    ensure!(events.to_string().contains("restored from a backup"), "{events}");
    let audit = site.cluster.gantry.json(&["audit", "verify"])?;
    ensure!(audit["broken"].is_null(), "{audit}");
    let lines = site.cluster.gantry.json(&["audit"])?.to_string();
    for word in ["\"backup\"", "\"restore\""] {
        ensure!(lines.contains(word), "no line about {word}: {lines}");
    }
    Ok(())
}

#[test]
fn a_backup_of_a_scheduler_that_does_not_run_and_one_that_is_damaged() -> Result<()> {
    let mut site = Site::start()?;
    let held = site.submit(&["--hold"])?;
    site.cluster.kill_scheduler();
    let value = site.backup("kept")?;
    ensure!(value["paused_ms"].is_null(), "{value}");
    let (_, sentence) = {
        let to = site.path("kept").display().to_string();
        site.cluster.gantry.refusal(&["scheduler", "backup", &to])?
    };
    ensure!(sentence.contains("is there already"), "{sentence}");
    let error = site.restore("kept").unwrap_err().to_string();
    ensure!(error.contains("is not empty"), "{error}");
    std::fs::remove_dir_all(site.path("scheduler"))?;
    let journal = site.path("kept").join("journal.sqlite");
    let sound = std::fs::read(&journal)?;
    let mut bytes = sound.clone();
    *bytes.last_mut().context("an empty journal")? ^= 1;
    std::fs::write(&journal, bytes)?;
    let error = site.restore("kept").unwrap_err().to_string();
    ensure!(error.contains("journal.sqlite of the backup"), "{error}");
    std::fs::write(&journal, sound)?;
    site.restore("kept")?;
    site.cluster.start_scheduler()?;
    ensure!(site.cluster.gantry.json(&["job", &held])?["state"] == "wait", "the job is lost");
    Ok(())
}
