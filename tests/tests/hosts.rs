//! What a network does to real hosts, and what becomes of the work on them: three hosts in network
//! namespaces, the scheduler on the first, agents on the others.
//!
//! Cables are pulled and switches stop forwarding ([`Cut`]); agents fall silent and hosts die. Each
//! test says how long things took. Where this machine has no namespaces, or its kernel cannot lose
//! packets, that part says aloud that it was skipped.
#![allow(clippy::unwrap_used, missing_docs)]

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_tests::hosts::{Cut, Hosts};
use gantry_tests::{Cluster, until};
use rustix::process::Signal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
const SETTINGS: &str = "cores = 4\nmemory = \"1G\"\nworkers = 1";
/// A silent node is late three seconds after its last word, and its tasks wait again six seconds
/// after that; what is beyond is for a machine that does other things too.
const LATE: Duration = Duration::from_millis(3500);
const QUEUED: Duration = Duration::from_secs(10);
/// Tasks of the job that a test looks at.
const TASKS: usize = 2;

/// What each task does: it says on the shared storage that it has started, and once it is let go
/// that it had its effect. One that is told to end takes a while, and does not say that it failed.
const SCRIPT: &str = r"
trap 'sleep 1; exit 0' TERM
echo $GANTRY_INDEX $GANTRY_TRY $$ >> $SHARED/starts
while ! test -e $SHARED/go-$GANTRY_INDEX; do sleep 0.05; done
echo $GANTRY_INDEX $GANTRY_TRY $$ >> $SHARED/effects";

/// A line that a task has left.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    index: usize,
    try_id: String,
    pid: String,
}

impl Mark {
    fn is_alive(&self) -> bool {
        PathBuf::from("/proc").join(&self.pid).exists()
    }
}

/// A cluster on hosts with one job, and what its tasks have left.
struct Site {
    cluster: Cluster,
    job: String,
}

impl Site {
    /// Starts the tasks on `host-2`, then lets `host-3` join; nothing where there are no hosts.
    fn start(test: &str) -> Result<Option<Self>> {
        let Some(hosts) = Hosts::build(test, 3)? else { return Ok(None) };
        let mut cluster = Cluster::start_on(PROGRAM, hosts)?;
        cluster.join("host-2", SETTINGS)?;
        let script = SCRIPT.replace("$SHARED", &cluster.folder().display().to_string());
        let array = format!("0-{}", TASKS - 1);
        let value =
            cluster.gantry.json(&["submit", "--array", &array, "--", "sh", "-c", &script])?;
        let job = value["job"].as_str().context("no job")?.to_owned();
        let mut site = Self { cluster, job };
        site.until_started(TASKS)?;
        until("the reported starts", || (site.row().ok()?["state"] == "run").then_some(()))?;
        site.cluster.join("host-3", SETTINGS)?;
        Ok(Some(site))
    }

    fn marks(&self, file: &str) -> Vec<Mark> {
        let text = std::fs::read_to_string(self.cluster.folder().join(file)).unwrap_or_default();
        let mark = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            let index = words.next()?.parse().ok()?;
            Some(Mark { index, try_id: words.next()?, pid: words.next()? })
        };
        text.lines().filter_map(mark).collect()
    }

    /// Waits until so many tries have begun, and gives them.
    fn until_started(&self, count: usize) -> Result<Vec<Mark>> {
        let started = || Some(self.marks("starts")).filter(|marks| marks.len() >= count);
        until(&format!("the start of {count} tries"), started)
    }

    fn let_go(&self, index: usize) -> Result<()> {
        Ok(std::fs::write(self.cluster.folder().join(format!("go-{index}")), "")?)
    }

    fn row(&self) -> Result<serde_json::Value> {
        self.cluster.gantry.json(&["job", &self.job])
    }

    fn done(&self) -> Option<u64> {
        self.row().ok()?["tasks"]["done"].as_u64()
    }

    fn node_state(&self, node: &str) -> Option<String> {
        let nodes = self.cluster.gantry.json(&["nodes"]).ok()?;
        let row = nodes.as_array()?.iter().find(|row| row["node"] == node)?.clone();
        Some(row["state"].as_str()?.to_owned())
    }

    /// Waits until a node is in a state, and says how long that took.
    fn until_node(&self, node: &str, state: &str) -> Result<Duration> {
        let start = Instant::now();
        let there = || (self.node_state(node)? == state).then_some(());
        until(&format!("{node} to be {state}"), there).with_context(|| self.logs())?;
        Ok(start.elapsed())
    }

    /// Waits until all tasks have ended well; each counts once, however often it was started.
    fn finish(&self) -> Result<()> {
        (0..TASKS).try_for_each(|index| self.let_go(index))?;
        let done = || (self.done()? == TASKS as u64).then_some(());
        until("the end of the job", done).with_context(|| self.logs())?;
        let tasks = &self.row()?["tasks"];
        let all: u64 =
            tasks.as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum();
        ensure!(all == TASKS as u64, "each task counts once: {tasks}");
        Ok(())
    }

    /// What the event log has of lost connections.
    fn losses(&self) -> Result<usize> {
        let lines = self.cluster.gantry.json(&["events", "--limit", "1000"])?;
        let gone = |line: &&serde_json::Value| line.to_string().contains("its connection is gone");
        Ok(lines.as_array().context("no list")?.iter().filter(gone).count())
    }

    fn logs(&self) -> String {
        ["scheduler", "host-2", "host-3"]
            .map(|name| format!("--- {name}\n{}", self.cluster.log(name)))
            .join("\n")
    }
}

/// Says a time beside what it may be at most.
fn within(what: &str, took: Duration, most: Duration) {
    eprintln!("{what}: {} ms (at most {} ms)", took.as_millis(), most.as_millis());
    assert!(took <= most, "{what}: {took:?} is more than {most:?}");
}

#[test]
fn a_short_partition_harms_no_task() -> Result<()> {
    let Some(site) = Site::start("a short partition")? else { return Ok(()) };
    for (index, how) in [Cut::Cable, Cut::Switch].into_iter().enumerate() {
        let before = site.marks("starts");
        let hosts = site.cluster.hosts();
        hosts.cut(2, how)?;
        within(&format!("{how:?} cut → late"), site.until_node("host-2", "late")?, LATE);
        // A task that ends meanwhile is told once the network is whole again.
        site.let_go(index)?;
        until("its effect", || (site.marks("effects").len() == index + 1).then_some(()))?;
        ensure!(site.done() == Some(index as u64), "the cluster knows of an end it cannot know of");
        hosts.heal(2, how)?;
        let back = site.until_node("host-2", "up")?;
        // The longest wait between two attempts, and the attempt.
        within(&format!("{how:?} healed → up"), back, Duration::from_secs(6));
        until("the end that was kept", || (site.done()? == index as u64 + 1).then_some(()))?;
        ensure!(site.marks("starts") == before, "a task was started again");
        for mark in before.iter().filter(|mark| mark.index > index) {
            ensure!(mark.is_alive(), "the process of {mark:?} is gone");
        }
    }
    site.finish()?;
    // Tasks that start at once write in either order; they were let go in order.
    let sorted = |file| {
        let mut marks = site.marks(file);
        marks.sort_by_key(|mark| mark.index);
        marks
    };
    let (starts, effects) = (sorted("starts"), sorted("effects"));
    ensure!(starts == effects, "each try had its effect, once: {starts:?}, {effects:?}");
    Ok(())
}

#[test]
fn a_long_partition_moves_tasks_and_fences_what_it_cut_off() -> Result<()> {
    let Some(site) = Site::start("a long partition")? else { return Ok(()) };
    let hosts = site.cluster.hosts();
    let first = site.marks("starts");
    let cut = Instant::now();
    hosts.cut(2, Cut::Switch)?;
    let all = site.until_started(2 * TASKS)?;
    within("cut → started elsewhere", cut.elapsed(), QUEUED + Duration::from_millis(500));
    let second = &all[TASKS..];
    ensure!(site.node_state("host-2").as_deref() == Some("lost"), "its node is not lost");
    ensure!(first.iter().all(Mark::is_alive), "nobody could tell the cut host");
    // Both tries of one task end well: it counts once, by the try that was not given up.
    site.let_go(1)?;
    until("both effects", || (site.marks("effects").len() == 2).then_some(()))?;
    until("one task to be done", || (site.done()? == 1).then_some(()))?;
    // New work for the cut host alone; it must not run beside what is given up.
    let old = &first.iter().find(|mark| mark.index == 0).context("no first task")?.pid;
    let script = format!("test ! -e /proc/{old}");
    let gantry = &site.cluster.gantry;
    let value = gantry.json(&["submit", "--node", "host-2", "--", "sh", "-c", &script])?;
    let fresh = value["job"].as_str().context("no job")?.to_owned();
    let healed = Instant::now();
    hosts.heal(2, Cut::Switch)?;
    ensure!(
        gantry.run(&["wait", &fresh])?.status.success(),
        "new work ran beside a try that was given up\n{}",
        site.logs()
    );
    // Six seconds to call again, and the one that the try takes to end.
    within("healed → new work has run", healed.elapsed(), Duration::from_secs(8));
    ensure!(!first.iter().any(Mark::is_alive), "a try that was given up still runs");
    ensure!(site.done() == Some(1), "the end of a try that was given up counted");
    site.finish()?;
    let effects = site.marks("effects");
    let of = |index| effects.iter().filter(|mark| mark.index == index).collect::<Vec<_>>();
    ensure!(
        of(0).len() == 1 && second.contains(of(0)[0]),
        "a fenced try had an effect: {effects:?}"
    );
    ensure!(of(1).len() == 2 && of(1)[0].try_id != of(1)[1].try_id, "{effects:?}");
    ensure!(site.marks("starts").len() == 2 * TASKS, "a task was started a third time");
    Ok(())
}

#[test]
fn a_silent_node_is_late_and_then_lost() -> Result<()> {
    let Some(site) = Site::start("a silent node")? else { return Ok(()) };
    let first = site.marks("starts");
    let stopped = Instant::now();
    site.cluster.signal_agent("host-2", Signal::STOP)?;
    within("silent → late", site.until_node("host-2", "late")?, LATE);
    site.until_started(2 * TASKS)?;
    within("silent → started elsewhere", stopped.elapsed(), QUEUED + Duration::from_millis(500));
    site.cluster.signal_agent("host-2", Signal::CONT)?;
    within("woken → up", site.until_node("host-2", "up")?, Duration::from_secs(6));
    until("the end of what was given up", || (!first.iter().any(Mark::is_alive)).then_some(()))?;
    site.finish()?;
    ensure!(site.marks("effects").len() == TASKS, "a fenced try had an effect");
    Ok(())
}

#[test]
fn a_dead_host_is_noticed_however_it_dies() -> Result<()> {
    for power in [None, Some(Cut::Cable)] {
        let Some(site) = Site::start("a dead host")? else { return Ok(()) };
        let words = if power.is_some() { "power lost" } else { "every process killed" };
        let died = Instant::now();
        if let Some(cut) = power {
            site.cluster.hosts().cut(2, cut)?;
        }
        site.cluster.hosts().kill_all(2)?;
        within(&format!("{words} → late"), site.until_node("host-2", "late")?, LATE);
        site.until_started(2 * TASKS)?;
        let most = QUEUED + Duration::from_millis(500);
        within(&format!("{words} → started elsewhere"), died.elapsed(), most);
        site.finish()?;
        ensure!(site.marks("effects").len() == TASKS, "a dead try had an effect");
    }
    Ok(())
}

#[test]
fn a_scheduler_that_is_cut_off_finds_everything_as_it_was() -> Result<()> {
    let Some(site) = Site::start("a scheduler that is cut off")? else { return Ok(()) };
    let before = site.marks("starts");
    site.cluster.hosts().cut(1, Cut::Cable)?;
    let cut = Instant::now();
    for node in ["host-2", "host-3"] {
        site.until_node(node, "late")?;
    }
    site.let_go(0)?;
    // The length of the cut is what is tried, and nothing is waited for by it.
    std::thread::sleep(Duration::from_secs(5).saturating_sub(cut.elapsed()));
    site.cluster.hosts().heal(1, Cut::Cable)?;
    let healed = Instant::now();
    for node in ["host-2", "host-3"] {
        site.until_node(node, "up")?;
    }
    within("scheduler back → all nodes up", healed.elapsed(), Duration::from_secs(6));
    until("the end that was kept", || (site.done()? == 1).then_some(()))?;
    ensure!(before.iter().filter(|mark| mark.index == 1).all(Mark::is_alive), "a task was ended");
    site.finish()?;
    ensure!(site.marks("starts") == before, "a task was started again");
    ensure!(site.marks("effects").len() == TASKS, "a try had its effect twice");
    Ok(())
}

#[test]
fn a_network_that_flaps_or_loses_packets_loses_no_node() -> Result<()> {
    let Some(site) = Site::start("a network that flaps")? else { return Ok(()) };
    let before = site.marks("starts");
    let hosts = site.cluster.hosts();
    for (round, host) in (0..20).zip([2, 3].into_iter().cycle()) {
        let how = if round % 4 < 2 { Cut::Switch } else { Cut::Cable };
        hosts.cut(host, how)?;
        // Both are lengths of what is tried: a flap, and the time between two.
        std::thread::sleep(Duration::from_millis(200));
        hosts.heal(host, how)?;
        std::thread::sleep(Duration::from_millis(500));
        for node in ["host-2", "host-3"] {
            ensure!(site.node_state(node).as_deref() == Some("up"), "{node} after flap {round}");
        }
    }
    ensure!(site.losses()? == 0, "a flap cost a connection\n{}", site.logs());
    eprintln!("20 flaps of 200 ms: no connection lost");
    if hosts.spoil(2, &["loss", "5%", "delay", "20ms", "5ms"])? {
        let spoiled = Instant::now();
        while spoiled.elapsed() < Duration::from_secs(10) {
            ensure!(site.node_state("host-2").as_deref() == Some("up"), "lost at 5 % loss");
        }
        ensure!(site.losses()? == 0, "lost packets cost a connection\n{}", site.logs());
        eprintln!("10 s at 5 % loss in both directions: no connection lost");
    } else {
        eprintln!("SKIPPED: loss and delay of packets need a kernel with netem (sch_netem)");
    }
    site.finish()?;
    ensure!(site.marks("starts") == before, "a task was started again");
    Ok(())
}

#[test]
fn hosts_are_gone_after_a_panic_with_all_that_runs_on_them() -> Result<()> {
    let Some(hosts) = Hosts::build("the end of hosts", 2)? else { return Ok(()) };
    let name = hosts.namespace(1);
    let mut child = Hosts::command(&name, Path::new("sleep")).arg("1000").spawn()?;
    until("the process on the host", || (hosts.processes(1).ok()?.len() == 1).then_some(()))?;
    let failed = std::panic::catch_unwind(AssertUnwindSafe(move || {
        let _hosts = hosts;
        panic!("as a test that fails");
    }));
    ensure!(failed.is_err() && !child.wait()?.success(), "its process was not killed");
    let others = name.strip_suffix(char::is_numeric).context("no number")?;
    for entry in std::fs::read_dir("/run/netns")? {
        let left = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!left.starts_with(others), "{left} is left");
    }
    Ok(())
}
