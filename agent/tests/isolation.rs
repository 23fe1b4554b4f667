//! How commands are kept apart, seen from inside: the daemon with real processes.
//!
//! What needs root, a cgroup v2 or a second core says aloud where it is skipped. An agent starts its
//! own program as `supervise`: here that is this test, so it has a main of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[allow(dead_code)]
mod daemon_support;
#[path = "isolation_support/users.rs"]
mod users;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use daemon_support::{Agent, Bench, Scheduler, Session, builtin, command, is_gone, plan};
use gantry_config::{AgentSettings, CgroupPlace, IsolationSettings, Orphans};
use gantry_model::{Builtin, Exit, Launch, MemoryMib, Millis, Order, Resources, TryId};
use rustix::process::{Pid, Signal, geteuid, kill_process};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [role] if role == "worker" => return gantry_agent::worker::run(),
        [role] if role == "supervise" => return gantry_agent::supervise::run(),
        _ => {}
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        println!("without_a_cgroup_processes_have_limits");
        without_a_cgroup_processes_have_limits().await;
        println!("what_leaves_its_group_ends_with_its_try");
        what_leaves_its_group_ends_with_its_try().await;
        println!("a_cgroup_ends_all_of_a_try");
        a_cgroup_ends_all_of_a_try().await;
        println!("a_pinned_command_has_cores_of_its_own");
        a_pinned_command_has_cores_of_its_own().await;
        println!("scripts_run_before_and_after");
        scripts_run_before_and_after().await;
        println!("an_operation_has_what_a_command_has");
        an_operation_has_what_a_command_has().await;
        println!("a_stop_comes_before_the_command");
        a_stop_comes_before_the_command().await;
        println!("a_try_that_is_made_ready_outlives_its_agent");
        a_try_that_is_made_ready_outlives_its_agent().await;
        if geteuid().is_root() {
            println!("commands_run_as_their_submitter");
            users::commands_run_as_their_submitter().await;
            println!("an_operation_has_the_rights_of_its_submitter");
            users::an_operation_has_the_rights_of_its_submitter().await;
            println!("who_has_no_account_is_refused");
            users::who_has_no_account_is_refused().await;
            println!("an_output_file_is_no_way_around_rights");
            users::an_output_file_is_no_way_around_rights().await;
        } else {
            println!("SKIPPED: only root can run commands as their submitter");
        }
    });
    println!("all passed");
    ExitCode::SUCCESS
}

/// An agent with these settings of isolation, and its scheduler.
async fn agent(change: impl FnOnce(&mut IsolationSettings, &Path)) -> (Bench, Agent, Session) {
    let bench = Bench::new();
    // Users other than the agent's come by here.
    fs::set_permissions(bench.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let scheduler = Scheduler::new(&bench, None);
    let folder = bench.folder().to_owned();
    let agent = bench.agent(scheduler.address(), |settings: &mut AgentSettings| {
        settings.checkpoints = Some(folder.join("checkpoints"));
        settings.grace = Millis(200);
        change(&mut settings.isolation, &folder);
    });
    let session = scheduler.session().await;
    (bench, agent, session)
}

/// A shell's script for a user.
fn script(number: u64, user: &str, script: &str) -> Launch {
    Launch { user: user.into(), ..plan(number, command(&["sh", "-c", script])) }
}

async fn start(session: &mut Session, launch: Launch) {
    session.order(Order::Launch(Box::new(launch))).await;
}

/// Runs a script to its end, and gives its lines.
async fn run(session: &mut Session, launch: Launch) -> Vec<String> {
    let number = launch.try_id.0;
    start(session, launch).await;
    let end = session.end(number).await;
    let output = session.output(number, 0).await;
    assert_eq!(end, Exit::Code(0), "{output}");
    output.lines().map(str::to_owned).collect()
}

/// A program of the administrator's.
fn program(path: &Path, text: &str) -> PathBuf {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

fn with_memory(launch: Launch, memory: u64) -> Launch {
    let mut launch = launch;
    launch.lease.resources.memory = MemoryMib(memory);
    launch
}

/// The soft and the hard limit of this name in `/proc/self/limits`.
fn limit<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
    let line = lines.iter().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().take(2).collect()
}

async fn without_a_cgroup_processes_have_limits() {
    let none = |isolation: &mut IsolationSettings, _: &Path| {
        isolation.cgroup = CgroupPlace::Nowhere;
        isolation.pids_max = Some(1000);
    };
    let (_bench, agent, mut session) = agent(none).await;
    assert_eq!(session.facts.isolation, "rlimits: the settings say none");
    session.facts.validate().unwrap();
    let look = "cat /proc/self/limits; grep NoNewPrivs /proc/self/status";
    let lines = run(&mut session, with_memory(script(1, "ada", look), 256)).await;
    assert_eq!(limit(&lines, "Max data size"), ["268435456", "268435456"]);
    assert_eq!(limit(&lines, "Max core file size"), ["0", "0"]);
    assert!(lines.contains(&"NoNewPrivs:\t1".to_owned()), "{lines:?}");
    // Its user is the agent's, whose own processes would be counted.
    let own = limit(&lines, "Max processes")[0] == "1000";
    assert!(!own, "{lines:?}");
    let large = "dd if=/dev/zero of=/dev/null bs=512M count=1";
    start(&mut session, with_memory(script(2, "ada", large), 256)).await;
    assert_eq!(session.end(2).await, Exit::Code(1), "what is not there is not given");
    // Nothing was asked for, or a driver maps more than it uses.
    let lines = run(&mut session, script(3, "ada", look)).await;
    assert_eq!(limit(&lines, "Max data size"), ["unlimited", "unlimited"]);
    let mut with_gpu = with_memory(script(4, "ada", look), 256);
    with_gpu.lease.gpus = vec![0];
    let lines = run(&mut session, with_gpu).await;
    assert_eq!(limit(&lines, "Max data size"), ["unlimited", "unlimited"]);
    agent.stop().await;
}

/// Starts a daemon of the old kind: in a session of its own, its parent gone, its number in a file.
fn daemon(file: &Path, environment: &str) -> String {
    let file = file.display();
    format!(
        "setsid sh -c '({environment} sh -c \"echo \\$\\$ > {file}; exec sleep 1000\" &)'; until [ -s {file} ]; do sleep 0.01; done"
    )
}

fn number_in(file: &Path) -> u32 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

fn lives(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

async fn what_leaves_its_group_ends_with_its_try() {
    let none =
        |isolation: &mut IsolationSettings, _: &Path| isolation.cgroup = CgroupPlace::Nowhere;
    let (bench, agent, mut session) = agent(none).await;
    let file = |name: &str| bench.folder().join(name);
    let waits = |name: &str| format!("until [ -e {} ]; do sleep 0.01; done", file(name).display());
    // Another try goes on meanwhile, with a daemon of its own.
    let (own, cleared) = (daemon(&file("own"), ""), daemon(&file("cleared"), "env -i"));
    start(&mut session, script(1, "ada", &format!("{own}; {}", waits("go")))).await;
    start(&mut session, script(2, "ada", &format!("{}; {cleared}", daemon(&file("left"), ""))))
        .await;
    assert_eq!(session.end(2).await, Exit::Code(0));
    is_gone(number_in(&file("left"))).await;
    let (own, cleared) = (number_in(&file("own")), number_in(&file("cleared")));
    assert!(lives(own), "its try runs");
    assert!(lives(cleared), "it does not say whose it is, and somebody may need it");
    // One that is stopped ends with all it has started.
    start(&mut session, script(3, "ada", &format!("{}; sleep 1000", daemon(&file("third"), ""))))
        .await;
    while fs::read(file("third")).unwrap_or_default().is_empty() {
        tokio::task::yield_now().await;
    }
    session.started(3).await;
    session.order(Order::Stop { try_id: TryId(3) }).await;
    assert_eq!(session.end(3).await, Exit::Signal(15));
    is_gone(number_in(&file("third"))).await;
    fs::write(file("go"), "").unwrap();
    assert_eq!(session.end(1).await, Exit::Code(0));
    is_gone(own).await;
    is_gone(cleared).await;
    agent.stop().await;
}

/// A group of the kernel's for a test, if one can be made.
fn cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let point = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    let path = Path::new(point.split(' ').nth(1)?)
        .join(format!("gantry-isolation-{}", std::process::id()));
    fs::create_dir(&path).ok().map(|()| path)
}

async fn a_cgroup_ends_all_of_a_try() {
    let Some(group) = cgroup() else {
        return println!("SKIPPED: no cgroup v2 can be made here");
    };
    let place = group.clone();
    let at = move |isolation: &mut IsolationSettings, _: &Path| {
        isolation.cgroup = CgroupPlace::At(place);
    };
    let (bench, agent, mut session) = agent(at).await;
    let said = session.facts.isolation.clone();
    assert!(said.starts_with("cgroup: "), "{said}");
    let lines = run(&mut session, script(1, "ada", "grep ^0:: /proc/self/cgroup")).await;
    assert!(lines[0].ends_with("/t1"), "{lines:?}");
    // Whatever it has cleared, it is in the group.
    let file = bench.folder().join("left");
    let both = format!("{}; exit 3", daemon(&file, "env -i"));
    start(&mut session, script(2, "ada", &format!("sleep 1000 & {both}"))).await;
    start(&mut session, script(3, "ada", "echo up; exec sleep 1000")).await;
    assert_eq!(session.end(2).await, Exit::Code(3));
    assert!(!lives(number_in(&file)), "the kernel has ended it before its end was told");
    let tries = fs::read_dir(&group).unwrap().flatten().map(|one| one.path());
    let tries =
        tries.into_iter().find(|path| path.display().to_string().contains("tries-")).unwrap();
    session.lines(3, 1).await;
    assert!(tries.join("t3").exists() && !tries.join("t2").exists() && !tries.join("t1").exists());
    if said.contains("memory") {
        let dd = "dd if=/dev/zero of=/dev/null bs=512M count=1";
        start(&mut session, with_memory(script(4, "ada", dd), 64)).await;
        let end = session.end(4).await;
        assert!(matches!(end, Exit::OutOfMemory { limit: MemoryMib(64), .. }), "{end}");
    } else {
        println!("SKIPPED: the kernel has no memory controller for groups of this hierarchy");
    }
    // The next supervisor removes what this one leaves.
    let supervisor = Pid::from_raw(bench.supervisor().unwrap() as i32).unwrap();
    kill_process(supervisor, Signal::KILL).unwrap();
    assert_eq!(session.end(3).await, Exit::NodeLost);
    run(&mut session, script(5, "ada", "true")).await;
    assert!(!tries.join("t3").exists());
    agent.stop().await;
    fs::remove_dir(tries).unwrap();
    fs::remove_dir(group).unwrap();
}

async fn a_pinned_command_has_cores_of_its_own() {
    let count = std::thread::available_parallelism().unwrap().get();
    if count < 2 {
        return println!("SKIPPED: one core cannot be shared out");
    }
    let (_bench, agent, mut session) = agent(|isolation, _| isolation.pin = true).await;
    let look = "grep Cpus_allowed_list /proc/self/status; read line < /dev/stdin; sleep 1000";
    let look = look.replace("read line < /dev/stdin; ", "");
    let mut seen = Vec::new();
    for number in [1, 2] {
        let mut launch = script(number, "ada", &look);
        launch.lease.resources = Resources { cores: 1, ..Resources::default() };
        start(&mut session, launch).await;
        seen.push(session.lines(number, 1).await[0].clone());
    }
    let cores = |line: &str| line.rsplit('\t').next().unwrap().to_owned();
    assert!(seen.iter().all(|line| cores(line).parse::<u32>().is_ok()), "{seen:?}");
    assert_ne!(seen[0], seen[1], "each has one of its own");
    // What is given back is given again.
    session.order(Order::Stop { try_id: TryId(2) }).await;
    session.end(2).await;
    let mut launch = script(3, "ada", "grep Cpus_allowed_list /proc/self/status");
    launch.lease.resources = Resources { cores: count as u32 - 1, ..Resources::default() };
    let lines = run(&mut session, launch).await;
    assert!(!lines[0].split(['\t', ',', '-']).any(|one| one == cores(&seen[0])), "{lines:?}");
    // More than are free are not given: it runs where there is room.
    let mut launch = script(4, "ada", "grep Cpus_allowed_list /proc/self/status");
    launch.lease.resources = Resources { cores: count as u32, ..Resources::default() };
    assert!(run(&mut session, launch).await[0].contains(['-', ',']));
    agent.stop().await;
}

async fn scripts_run_before_and_after() {
    let scripts = |isolation: &mut IsolationSettings, folder: &Path| {
        let seen = folder.join("seen");
        let text = |what: &str| {
            format!(
                "echo {what} $GANTRY_JOB $GANTRY_TASK $GANTRY_USER $OWN >> {}; echo ready > $GANTRY_SCRATCH/{what}",
                seen.display()
            )
        };
        let refuse = "case $GANTRY_JOB in j2) echo looking; echo no room in the store >&2; exit 3;; \
                      j4) echo no licence; exit 126;; \
                      j3) setsid sleep 1000 & echo $! > $GANTRY_SCRATCH/../slow; wait;; esac";
        isolation.prolog =
            Some(program(&folder.join("prolog"), &format!("{}; {refuse}", text("prolog"))));
        isolation.epilog = Some(program(&folder.join("epilog"), &text("epilog")));
        isolation.scratch_folder = Some(folder.join("scratch"));
        isolation.script_limit = Millis(1500);
    };
    let (bench, agent, mut session) = agent(scripts).await;
    let seen = || fs::read_to_string(bench.folder().join("seen")).unwrap();
    let mut launch = script(
        1,
        "ada",
        "cat $GANTRY_SCRATCH/prolog; echo $TMPDIR; echo $GANTRY_SCRATCH; touch $TMPDIR/x; cat /proc/self/limits > $TMPDIR/y",
    );
    launch.environment = BTreeMap::from([("OWN".to_owned(), "job".to_owned())]);
    let lines = run(&mut session, launch).await;
    assert_eq!((lines[0].as_str(), &lines[1]), ("ready", &lines[2]));
    assert!(!Path::new(&lines[1]).exists(), "it is gone with all that was in it");
    assert_eq!(
        seen(),
        "prolog j1 j1.0 ada\nepilog j1 j1.0 ada\n",
        "and without the job's variables"
    );
    // One that fails keeps the command from its start.
    start(&mut session, script(2, "ada", "echo never")).await;
    let Exit::NotStarted { code, sentence } = session.end(2).await else { panic!() };
    let expected = "the prolog of this node failed: exit 3: no room in the store";
    assert_eq!((code, sentence.as_str()), (125, expected));
    assert_eq!(session.output(2, 0).await, "");
    assert!(seen().ends_with("prolog j2 j2.0 ada\nepilog j2 j2.0 ada\n"), "{}", seen());
    // One that hangs is ended, with what it has started.
    start(&mut session, script(3, "ada", "echo never")).await;
    let Exit::NotStarted { code: 125, sentence } = session.end(3).await else { panic!() };
    assert!(sentence.contains("it took longer than 1.5 s"), "{sentence}");
    is_gone(number_in(&bench.folder().join("scratch/slow"))).await;
    // One that says so is the task's fault.
    start(&mut session, script(4, "ada", "echo never")).await;
    let Exit::NotStarted { code, sentence } = session.end(4).await else { panic!() };
    let expected = "the prolog of this node refuses it: exit 126: no licence";
    assert_eq!((code, sentence.as_str()), (126, expected));
    let left = fs::read_dir(bench.folder().join("scratch")).unwrap().count();
    assert_eq!(left, 1, "beside what the script has left there");
    agent.stop().await;
}

/// An operation that fails with a sentence.
fn operation(number: u64, user: &str, library: &str) -> Launch {
    let series = vec!["0".repeat(16)];
    let work = Builtin::Predict { library: library.into(), model: "run:never".into(), series };
    Launch { user: user.into(), ..plan(number, builtin(work)) }
}

async fn an_operation_has_what_a_command_has() {
    let scripts = |isolation: &mut IsolationSettings, folder: &Path| {
        let text = |what: &str| format!("echo {what} $GANTRY_TASK >> {}/seen", folder.display());
        isolation.prolog = Some(program(&folder.join("prolog"), &text("prolog")));
        isolation.epilog = Some(program(&folder.join("epilog"), &text("epilog")));
        isolation.scratch_folder = Some(folder.join("scratch"));
    };
    let (bench, agent, mut session) = agent(scripts).await;
    start(&mut session, operation(1, "ada", "/nowhere")).await;
    let Exit::Failed(sentence) = session.end(1).await else { panic!() };
    assert!(sentence.contains("there is no library"), "{sentence}");
    assert_eq!(session.output(1, 0).await, format!("failed: {sentence}\n"));
    let seen = fs::read_to_string(bench.folder().join("seen")).unwrap();
    assert_eq!(seen, "prolog j1.0\nepilog j1.0\n");
    assert_eq!(fs::read_dir(bench.folder().join("scratch")).unwrap().count(), 0);
    agent.stop().await;
}

async fn a_stop_comes_before_the_command() {
    let scripts = |isolation: &mut IsolationSettings, folder: &Path| {
        let wait = "touch $GANTRY_AGENT/../../here; sleep 1000";
        isolation.prolog = Some(program(&folder.join("prolog"), wait));
    };
    let (bench, agent, mut session) = agent(scripts).await;
    start(&mut session, script(1, "ada", "echo never")).await;
    while !bench.folder().join("here").exists() {
        tokio::task::yield_now().await;
    }
    // It is told to end, and killed after the grace time.
    session.order(Order::Stop { try_id: TryId(1) }).await;
    let end = session.end(1).await;
    assert!(matches!(end, Exit::Signal(9 | 15)), "{end}");
    assert_eq!(session.output(1, 0).await, "");
    agent.stop().await;
}

async fn a_try_that_is_made_ready_outlives_its_agent() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let folder = bench.folder().to_owned();
    let (here, go) = (folder.join("here"), folder.join("go"));
    let wait = |name: &Path| format!("until [ -e {} ]; do sleep 0.01; done", name.display());
    let text = format!("touch {}; {}", here.display(), wait(&go));
    let prolog = program(&folder.join("prolog"), &text);
    let start_agent = || {
        bench.agent(scheduler.address(), |settings| {
            settings.orphans = Orphans::Keep;
            settings.isolation.prolog = Some(prolog.clone());
            settings.isolation.scratch_folder = Some(folder.join("scratch"));
        })
    };
    let first = start_agent();
    let mut session = scheduler.session().await;
    start(&mut session, script(1, "ada", "echo $GANTRY_SCRATCH; exit 6")).await;
    while !here.exists() {
        tokio::task::yield_now().await;
    }
    let supervisor = bench.supervisor().unwrap();
    first.stop().await;
    let second = start_agent();
    let mut session = scheduler.session().await;
    assert_eq!(session.holds, [TryId(1)], "it is held before its command runs");
    fs::write(&go, "").unwrap();
    assert_eq!(session.end(1).await, Exit::Code(6));
    let scratch = session.output(1, 0).await;
    assert!(!scratch.trim().is_empty() && !Path::new(scratch.trim()).exists(), "{scratch}");
    second.stop().await;
    is_gone(supervisor).await;
}
