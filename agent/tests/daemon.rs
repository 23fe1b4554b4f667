//! The daemon with real processes and real workers; the test plays the scheduler over real QUIC.
//!
//! An agent starts its own program as `worker` and as `supervise`: here that is this test, so it
//! has a main of its own that is what it is called.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod daemon_support;
#[path = "daemon_support/operations.rs"]
mod operations;
#[path = "daemon_support/restarts.rs"]
mod restarts;

use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;

use daemon_support::{
    Bench, PIPELINE, Scheduler, builtin, command, is_gone, phantoms, plan, series_of, settings,
    training, worker,
};
use gantry_config::{AgentSettings, Orphans};
use gantry_model::{Builtin, Exit, Launch, MemoryMib, Millis, Order, TryId, Warning};
use rustix::process::{Signal, kill_process};

fn main() -> ExitCode {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [role] if role == "worker" => return gantry_agent::worker::run(),
        [role] if role == "supervise" => return gantry_agent::supervise::run(),
        [role, folder, scheduler] if role.starts_with("agent") => {
            let orphans = if role == "agent-keep" { Orphans::Keep } else { Orphans::End };
            let settings = AgentSettings { orphans, ..settings(scheduler.parse().unwrap()) };
            runtime().block_on(gantry_agent::serve(folder.as_ref(), settings, pending())).unwrap();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let runtime = runtime();
    runtime.block_on(async {
        println!("commands_end_and_their_output_is_read");
        commands_end_and_their_output_is_read().await;
        println!("an_end_is_told_until_it_is_acknowledged");
        an_end_is_told_until_it_is_acknowledged().await;
        println!("no_scheduler_is_waited_for");
        no_scheduler_is_waited_for().await;
        println!("one_agent_to_a_folder");
        one_agent_to_a_folder().await;
        println!("stop_limit_and_flood_end_a_task");
        stop_limit_and_flood_end_a_task().await;
        println!("images_become_samples_a_model_and_predictions");
        images_become_samples_a_model_and_predictions().await;
        println!("a_training_is_warned_outlives_its_agent_and_goes_on_after_a_stop");
        operations::a_training_is_warned_outlives_its_agent_and_goes_on_after_a_stop().await;
        println!("an_operation_that_is_stopped_is_left_between_two_steps");
        operations::an_operation_that_is_stopped_is_left_between_two_steps().await;
        println!("what_runs_outlives_a_killed_agent_and_is_taken_over_once");
        restarts::what_runs_outlives_a_killed_agent_and_is_taken_over_once().await;
        println!("an_end_that_nobody_heard_is_kept_on_disk");
        restarts::an_end_that_nobody_heard_is_kept_on_disk().await;
        println!("a_time_limit_goes_on_while_the_agent_is_away");
        restarts::a_time_limit_goes_on_while_the_agent_is_away().await;
        println!("commands_end_with_their_agent_where_that_is_set");
        restarts::commands_end_with_their_agent_where_that_is_set().await;
        println!("a_killed_supervisor_is_replaced");
        restarts::a_killed_supervisor_is_replaced().await;
        println!("a_stuck_worker_is_replaced");
        a_stuck_worker_is_replaced().await;
    });
    println!("all passed");
    ExitCode::SUCCESS
}

async fn commands_end_and_their_output_is_read() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let agent = bench.agent(scheduler.address(), |_| {});
    let mut session = scheduler.session().await;
    assert_eq!((session.facts.name.as_str(), session.holds.len()), ("n1", 0));
    assert!(session.facts.resources.cores > 0 && session.facts.gpu_reason.is_some());
    assert!(session.facts.resources.scratch > MemoryMib(0));
    assert!(session.facts.labels.contains("nvme") && session.facts.address.is_empty());
    let script = "echo out; echo ::metric loss 0.5 3; echo ::progress 3/4; echo err >&2; exit 4";
    session.launch(1, command(&["sh", "-c", script]), None).await;
    session.launch(2, command(&["gantry-no-such-program"]), None).await;
    assert_eq!(session.end(1).await, Exit::Code(4));
    assert!(matches!(session.end(2).await, Exit::NotStarted { code: 127, .. }));
    // Where start and end came in one moment the end says both.
    assert!(session.started.len() <= 1 && !session.started.contains(&TryId(2)));
    let [(task, name, point)] = &session.metrics[..] else { panic!("{:?}", session.metrics) };
    assert_eq!((task.job.0, name.as_str(), point.step, point.value()), (1, "loss", 3, 0.5));
    assert_eq!(session.progress, [(*task, 750)]);
    assert!(session.usages[&TryId(1)].memory_peak > MemoryMib(0));
    let rest = "::metric loss 0.5 3\n::progress 3/4\nerr\n";
    assert_eq!(session.output(1, 0).await, format!("out\n{rest}"));
    assert_eq!(session.output(1, 4).await, rest);
    assert_eq!(bench.files("output/j1"), ["index", "pack"], "a small output is packed");
    let found = session.search(1, "err").await;
    assert_eq!(
        (found.len(), found[0].task, found[0].line, found[0].text.as_str()),
        (1, *task, 4, "err")
    );
    assert!(session.search(1, "nowhere").await.is_empty());
    assert_eq!(session.output(99, 0).await, "", "a task that never ran has no output");
    let sample = session.sample().await;
    assert!(sample.memory_total_mib > 0 && sample.disk_total_mib > 0 && sample.at.0 > 0);
    agent.stop().await;
}

async fn an_end_is_told_until_it_is_acknowledged() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let keep = |settings: &mut AgentSettings| settings.orphans = Orphans::Keep;
    let agent = bench.agent(scheduler.address(), keep);
    let mut session = scheduler.session().await;
    session.launch(1, command(&["sh", "-c", "exit 3"]), None).await;
    session.launch(2, command(&["sleep", "1000"]), None).await;
    assert_eq!(session.end(1).await, Exit::Code(3));
    session.started(2).await;
    session.connection.close("the test wants it");
    // The connection is lost, then the agent: the end is told again each time.
    let mut session = scheduler.session().await;
    assert_eq!(session.holds, [TryId(2), TryId(1)]);
    assert_eq!(session.end(1).await, Exit::Code(3));
    agent.stop().await;
    let agent = bench.agent(scheduler.address(), keep);
    let mut session = scheduler.session().await;
    assert_eq!(session.holds, [TryId(2), TryId(1)], "what runs outlives its agent");
    assert_eq!(session.end(1).await, Exit::Code(3));
    session.order(Order::Acknowledge { try_id: TryId(1) }).await;
    session.order(Order::Stop { try_id: TryId(2) }).await;
    assert_eq!(session.end(2).await, Exit::Signal(15), "what was taken over can be stopped");
    session.order(Order::Acknowledge { try_id: TryId(2) }).await;
    // Orders are taken in turn: once this has ended, the one before is done.
    session.launch(3, command(&["true"]), None).await;
    assert_eq!(session.end(3).await, Exit::Code(0));
    session.connection.close("the test wants it");
    assert_eq!(scheduler.session().await.holds, [TryId(3)]);
    let supervisor = bench.supervisor().unwrap();
    agent.stop().await;
    is_gone(supervisor).await;
}

async fn no_scheduler_is_waited_for() {
    let bench = Bench::new();
    // A port that was free a moment ago.
    let address = Scheduler::new(&bench, None).address();
    let agent = bench.agent(address, |_| {});
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!agent.has_ended());
    let scheduler = Scheduler::new(&bench, Some(address));
    assert_eq!(scheduler.session().await.facts.name, "n1");
    agent.stop().await;
}

async fn one_agent_to_a_folder() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let agent = bench.agent(scheduler.address(), |_| {});
    scheduler.session().await;
    let second = bench.agent(scheduler.address(), |_| {}).end().await.unwrap_err().to_string();
    assert!(second.contains("another agent runs in"), "{second}");
    agent.stop().await;
}

async fn stop_limit_and_flood_end_a_task() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let agent = bench.agent(scheduler.address(), |settings| settings.grace = Millis(200));
    let mut session = scheduler.session().await;
    let deaf = "trap '' TERM; echo deaf; while :; do sleep 0.1; done";
    session.launch(1, command(&["sleep", "1000"]), None).await;
    session.launch(2, command(&["sh", "-c", deaf]), None).await;
    session.launch(3, command(&["sleep", "1000"]), Some(Millis(100))).await;
    // A hole in the file: long, and no bytes on the disk.
    let flood = "truncate -s 5G /proc/self/fd/1; sleep 1000";
    session.launch(4, command(&["sh", "-c", flood]), None).await;
    // A signal well before the limit, to the whole group, and the limit does not come any more.
    let warned = "trap 'echo warned; exit 6' USR1; while :; do sleep 0.02; done";
    let launch = Launch {
        time_limit: Some(Millis::from_seconds(1000)),
        warning: Some(Warning { signal: 10, before: Millis(999_500) }),
        ..plan(5, command(&["sh", "-c", warned]))
    };
    session.order(Order::Launch(Box::new(launch))).await;
    // A process that has started may not have reached its `trap` yet.
    while session.output(2, 0).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for try_id in [1, 2] {
        session.started(try_id).await;
        session.order(Order::Stop { try_id: TryId(try_id) }).await;
    }
    assert_eq!(session.end(1).await, Exit::Signal(15));
    assert_eq!(session.end(2).await, Exit::Signal(9));
    assert_eq!(session.end(3).await, Exit::TimeLimit);
    assert_eq!(session.end(5).await, Exit::Code(6));
    assert!(session.output(5, 0).await.ends_with("warned\n"));
    let Exit::Failed(sentence) = session.end(4).await else { panic!() };
    assert!(sentence.starts_with("it wrote more than the 4 GiB"), "{sentence}");
    agent.stop().await;
}

async fn images_become_samples_a_model_and_predictions() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let (library, library_text) = phantoms(&bench, [32, 32, 6]);
    let series = series_of(&library);
    let agent = bench.agent(scheduler.address(), |settings| settings.workers = Some(1));
    let mut session = scheduler.session().await;
    for (number, one) in series.iter().enumerate() {
        let preprocess = Builtin::Preprocess {
            library: library_text.clone(),
            pipeline: PIPELINE.into(),
            series: vec![one.clone()],
        };
        session.launch(number as u64 + 1, builtin(preprocess), None).await;
    }
    for try_id in 1..=4 {
        let end = session.end(try_id).await;
        assert_eq!(end, Exit::Code(0), "{}", session.output(try_id, 0).await);
    }
    assert_eq!(library.samples().unwrap().len(), 4);
    session.launch(10, builtin(training(&library_text, "quick", 2)), None).await;
    let end = session.end(10).await;
    assert_eq!(end, Exit::Code(0), "{}", session.output(10, 0).await);
    assert!(session.metrics.iter().any(|(task, name, _)| task.job.0 == 10 && name == "loss"));
    for (try_id, one) in [(11, &series[0]), (12, &series[1])] {
        let predict = Builtin::Predict {
            library: library_text.clone(),
            model: "run:quick".into(),
            series: vec![one.clone()],
        };
        session.launch(try_id, builtin(predict), None).await;
        let end = session.end(try_id).await;
        assert_eq!(end, Exit::Code(0), "{}", session.output(try_id, 0).await);
    }
    assert_eq!(library.predictions().unwrap().len(), 2);
    let output = session.output(12, 0).await;
    assert!(output.contains("near: series"), "{output}");
    assert!(output.contains("no diagnosis"), "{output}");
    let said = (1..=12).filter(|number| !(5..10).contains(number));
    for number in said {
        let output = session.output(number, 0).await;
        assert!(!output.contains("patient ") && !output.contains("2.25."), "{output}");
    }
    refusals(&mut session, &library_text).await;
    agent.stop().await;
}

/// What cannot be done ends with a sentence, on the same warm worker.
async fn refusals(session: &mut daemon_support::Session, library: &str) {
    let preprocess = |library: &str, pipeline: &str, series: &str| Builtin::Preprocess {
        library: library.into(),
        pipeline: pipeline.into(),
        series: vec![series.into()],
    };
    let nobody = "0".repeat(16);
    let train = |settings: &str| Builtin::Train {
        library: library.into(),
        settings: settings.into(),
        run: "wrong".into(),
    };
    let predict = |model: &str| Builtin::Predict {
        library: library.into(),
        model: model.into(),
        series: vec![nobody.clone()],
    };
    let before = worker();
    for (number, (work, expected)) in [
        (preprocess("/nowhere", PIPELINE, &nobody), "there is no library"),
        (preprocess(library, PIPELINE, "no id"), "no id"),
        (preprocess(library, PIPELINE, &nobody), "has no series"),
        (preprocess(library, "name = 1", &nobody), "pipeline"),
        (train("{"), "settings"),
        (train(r#"{"label":"nothing"}"#), "nothing"),
        (predict("run:never"), "never"),
    ]
    .into_iter()
    .enumerate()
    {
        let try_id = number as u64 + 20;
        session.launch(try_id, builtin(work), None).await;
        let Exit::Failed(sentence) = session.end(try_id).await else { panic!("{expected}") };
        assert!(sentence.contains(expected), "{expected}: {sentence}");
        assert!(session.output(try_id, 0).await.contains(&sentence));
    }
    assert_eq!(worker(), before, "one process did it all");
}

async fn a_stuck_worker_is_replaced() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let agent = bench.agent(scheduler.address(), |settings| {
        settings.workers = Some(1);
        settings.grace = Millis(100);
    });
    let mut session = scheduler.session().await;
    let work = || {
        builtin(Builtin::Predict {
            library: "/nowhere".into(),
            model: "m".into(),
            series: vec!["s".into()],
        })
    };
    session.launch(1, work(), None).await;
    assert!(matches!(session.end(1).await, Exit::Failed(_)));
    let stuck = worker().unwrap();
    kill_process(stuck, Signal::STOP).unwrap();
    session.launch(2, work(), None).await;
    session.launch(3, work(), None).await;
    session.started(2).await;
    session.order(Order::Stop { try_id: TryId(2) }).await;
    assert_eq!(session.end(2).await, Exit::Signal(9));
    assert!(matches!(session.end(3).await, Exit::Failed(_)), "the next has a new worker");
    let next = worker().unwrap();
    assert_ne!(next, stuck);
    kill_process(next, Signal::KILL).unwrap();
    session.launch(4, work(), None).await;
    // Either it was given to the dead worker, or to the next: never is it lost.
    assert!(matches!(session.end(4).await, Exit::Failed(_) | Exit::Signal(9)));
    session.launch(5, work(), None).await;
    assert!(matches!(session.end(5).await, Exit::Failed(_)));
    agent.stop().await;
    assert_eq!(worker(), None, "workers end with their agent");
}
