//! What becomes of commands when their agent or its supervisor is killed.

use std::path::Path;

use gantry_config::{AgentSettings, Orphans};
use gantry_model::{At, Exit, MemoryMib, Millis, Order, TaskWork, TryId};
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon_support::{Bench, Scheduler, command, is_gone};

/// Prints a line, waits for a file, and then does this.
fn waits_for(file: &Path, then: &str) -> TaskWork {
    let script = format!("echo $$; until [ -e {} ]; do sleep 0.02; done; {then}", file.display());
    command(&["sh", "-c", &script])
}

pub(crate) async fn what_runs_outlives_a_killed_agent_and_is_taken_over_once() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let mut agent = bench.process(scheduler.address(), Orphans::Keep);
    let mut session = scheduler.session().await;
    let (early, late) = (bench.folder().join("early"), bench.folder().join("late"));
    session.launch(1, command(&["sh", "-c", "sleep 1000 & echo $$; echo $!; wait"]), None).await;
    session.launch(2, waits_for(&early, "echo ::metric loss 0.25 9; exit 3"), None).await;
    session.launch(3, waits_for(&late, "exit 7"), None).await;
    let of = |lines: Vec<String>| lines.iter().map(|id| id.parse().unwrap()).collect::<Vec<u32>>();
    let first = of(session.lines(1, 2).await);
    let second = of(session.lines(2, 1).await);
    let third = of(session.lines(3, 1).await);
    let supervisor = bench.supervisor().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    // Its supervisor says so at once.
    let all = vec![TryId(1), TryId(2), TryId(3)];
    assert_eq!(scheduler.gone().await, (At(1), all));
    std::fs::write(&early, "").unwrap();
    is_gone(second[0]).await;
    // The next agent holds what runs and what has ended meanwhile, and starts nothing anew.
    let keep = |settings: &mut AgentSettings| settings.orphans = Orphans::Keep;
    let agent = bench.agent(scheduler.address(), keep);
    let mut session = scheduler.session().await;
    let mut holds = session.holds.clone();
    holds.sort();
    assert_eq!(holds, [TryId(1), TryId(2), TryId(3)]);
    assert_eq!(bench.supervisor(), Some(supervisor));
    assert_eq!(session.end(2).await, Exit::Code(3));
    let [(_, name, point)] = &session.metrics[..] else { panic!("{:?}", session.metrics) };
    assert_eq!((name.as_str(), point.step), ("loss", 9));
    session.started(1).await;
    session.started(3).await;
    session.order(Order::Stop { try_id: TryId(1) }).await;
    assert_eq!(session.end(1).await, Exit::Signal(15));
    for id in first {
        is_gone(id).await;
    }
    std::fs::write(&late, "").unwrap();
    assert_eq!(session.end(3).await, Exit::Code(7));
    assert_eq!(of(session.lines(3, 1).await), third, "it was started once");
    agent.stop().await;
    is_gone(supervisor).await;
}

pub(crate) async fn an_end_that_nobody_heard_is_kept_on_disk() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let mut agent = bench.process(scheduler.address(), Orphans::Keep);
    let mut session = scheduler.session().await;
    let go = bench.folder().join("go");
    session.launch(1, waits_for(&go, "exit 3"), None).await;
    session.lines(1, 1).await;
    let supervisor = bench.supervisor().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    std::fs::write(&go, "").unwrap();
    // With nothing left to hold it leaves, and the end is in a file.
    is_gone(supervisor).await;
    assert!(bench.files("tries").contains(&"t1.exit".to_owned()));
    let agent = bench.agent(scheduler.address(), |_| {});
    let mut session = scheduler.session().await;
    assert_eq!(session.holds, [TryId(1)]);
    assert_eq!(session.end(1).await, Exit::Code(3));
    assert!(session.usages[&TryId(1)].memory_peak > MemoryMib(0));
    agent.stop().await;
    assert!(!bench.files("tries").contains(&"t1.exit".to_owned()), "the spool has it now");
    assert_eq!(bench.files("output/j1"), ["index", "pack"]);
}

pub(crate) async fn a_time_limit_goes_on_while_the_agent_is_away() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let mut agent = bench.process(scheduler.address(), Orphans::Keep);
    let mut session = scheduler.session().await;
    let limit = Some(Millis::from_seconds(1));
    session.launch(1, command(&["sh", "-c", "echo up; exec sleep 1000"]), limit).await;
    session.lines(1, 1).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    let agent = bench.agent(scheduler.address(), |_| {});
    let mut session = scheduler.session().await;
    assert_eq!(session.holds, [TryId(1)]);
    assert_eq!(session.end(1).await, Exit::TimeLimit);
    agent.stop().await;
}

pub(crate) async fn commands_end_with_their_agent_where_that_is_set() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let mut agent = bench.process(scheduler.address(), Orphans::End);
    let mut session = scheduler.session().await;
    let script = "trap '' TERM; sleep 1000 & echo $$; echo $!; wait";
    session.launch(1, command(&["sh", "-c", script]), None).await;
    let lines = session.lines(1, 2).await;
    let supervisor = bench.supervisor().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(scheduler.gone().await, (At(1), Vec::new()));
    for id in lines {
        is_gone(id.parse().unwrap()).await;
    }
    is_gone(supervisor).await;
    let agent = bench.agent(scheduler.address(), |_| {});
    let mut session = scheduler.session().await;
    assert_eq!(session.holds, [], "it did not fail: it is queued again");
    session.launch(2, command(&["sh", "-c", script]), None).await;
    let lines = session.lines(2, 2).await;
    agent.stop().await;
    // Once the agent has stopped nothing runs any more.
    for id in lines {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z"), "{stat}");
    }
}

pub(crate) async fn a_killed_supervisor_is_replaced() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let agent = bench.agent(scheduler.address(), |_| {});
    let mut session = scheduler.session().await;
    session.launch(1, command(&["sh", "-c", "sleep 1000 & echo $$; echo $!; wait"]), None).await;
    let lines = session.lines(1, 2).await;
    let supervisor = Pid::from_raw(bench.supervisor().unwrap() as i32).unwrap();
    kill_process(supervisor, Signal::KILL).unwrap();
    assert_eq!(session.end(1).await, Exit::NodeLost, "it is queued again");
    for id in lines {
        is_gone(id.parse().unwrap()).await;
    }
    session.launch(2, command(&["sh", "-c", "exit 5"]), None).await;
    assert_eq!(session.end(2).await, Exit::Code(5));
    agent.stop().await;
}
