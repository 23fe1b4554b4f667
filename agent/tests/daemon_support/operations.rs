//! Built-in operations as work like any other: warned, stopped, limited, taken over.

use gantry_config::{AgentSettings, CgroupPlace, Orphans};
use gantry_model::{
    Builtin, Exit, Launch, Lease, MemoryMib, Millis, Order, Resources, TryId, Warning,
};

use crate::daemon_support::{
    Bench, PIPELINE, Scheduler, Session, builtin, phantoms, plan, series_of, training,
};

/// Preprocesses every series of a library.
async fn samples(session: &mut Session, library: &str, series: &[String]) {
    for (number, one) in series.iter().enumerate() {
        let try_id = number as u64 + 1;
        session.launch(try_id, builtin(preprocess(library, PIPELINE, one)), None).await;
    }
    for try_id in 1..=series.len() as u64 {
        assert_eq!(session.end(try_id).await, Exit::Code(0));
    }
}

fn preprocess(library: &str, pipeline: &str, series: &str) -> Builtin {
    Builtin::Preprocess {
        library: library.into(),
        pipeline: pipeline.into(),
        series: vec![series.into()],
    }
}

/// Waits until a job has printed a line that holds this, and gives the last such line.
async fn said(session: &Session, job: u64, text: &str) -> String {
    loop {
        let output = session.output(job, 0).await;
        if let Some(line) = output.lines().rev().find(|line| line.contains(text)) {
            return line.to_owned();
        }
        tokio::task::yield_now().await;
    }
}

fn number_after(line: &str, word: &str) -> u64 {
    let rest = line.split(word).nth(1).unwrap();
    rest.split(|c: char| !c.is_ascii_digit())
        .find(|part| !part.is_empty())
        .unwrap()
        .parse()
        .unwrap()
}

pub(crate) async fn a_training_is_warned_outlives_its_agent_and_goes_on_after_a_stop() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let (library, folder) = phantoms(&bench, [32, 32, 6]);
    let mut agent = bench.process(scheduler.address(), Orphans::Keep);
    let mut session = scheduler.session().await;
    samples(&mut session, &folder, &series_of(&library)).await;
    // It ends by a stop: there are more epochs than anybody waits for.
    let train = || builtin(training(&folder, "long", 1_000_000));
    let limit = Millis::from_seconds(100_000);
    let warning = Warning { signal: 10, before: Millis(limit.0 - 300) };
    let launch = Launch { time_limit: Some(limit), warning: Some(warning), ..plan(10, train()) };
    session.order(Order::Launch(Box::new(launch))).await;
    let line = said(&session, 10, "a checkpoint is kept at step").await;
    let kept = number_after(&line, "at step");
    agent.kill().unwrap();
    agent.wait().unwrap();
    let before = session_output_length(&bench, 10);
    let agent = bench.agent(scheduler.address(), |settings: &mut AgentSettings| {
        settings.orphans = Orphans::Keep;
    });
    let mut session = scheduler.session().await;
    assert!(session.holds.contains(&TryId(10)), "{:?}", session.holds);
    while session_output_length(&bench, 10) <= before {
        tokio::task::yield_now().await;
    }
    session.order(Order::Stop { try_id: TryId(10) }).await;
    let Exit::Failed(sentence) = session.end(10).await else { panic!() };
    assert!(sentence.contains("a checkpoint is kept, the same run goes on"), "{sentence}");
    let stopped = number_after(&sentence, "after step");
    assert!(stopped >= kept, "{stopped} {kept}");
    // A later start of the task goes on from there.
    session.order(Order::Launch(Box::new(Launch { start: 2, ..plan(11, train()) }))).await;
    let line = said(&session, 11, "::progress").await;
    let output = session.output(11, 0).await;
    let first = output.lines().find(|line| line.contains("::progress")).unwrap_or(&line);
    assert_eq!(number_after(first, "::progress"), stopped);
    session.order(Order::Stop { try_id: TryId(11) }).await;
    assert!(matches!(session.end(11).await, Exit::Failed(_)));
    agent.stop().await;
}

/// Bytes that a live job's only task has printed.
fn session_output_length(bench: &Bench, job: u64) -> u64 {
    let path = bench.folder().join(format!("agent/output/j{job}/0.out"));
    path.metadata().map_or(0, |facts| facts.len())
}

pub(crate) async fn an_operation_that_is_stopped_is_left_between_two_steps() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let (library, folder) = phantoms(&bench, [128, 128, 48]);
    let agent = bench.agent(scheduler.address(), |settings| {
        settings.workers = Some(1);
        // Whatever ends it, it is not a kill.
        settings.grace = Millis::from_seconds(1000);
    });
    let mut session = scheduler.session().await;
    let step = |number: u32| {
        format!("[[steps]]\nname = \"s{number}\"\noperation = \"gaussian\"\nsigma_mm = 20\n")
    };
    let pipeline: String = (0..50).map(step).collect();
    let pipeline = format!(
        "name = \"long\"\nlabel = \"body\"\n{pipeline}[[steps]]\nname = \"body\"\noperation = \"threshold\"\nat_least = -300\n"
    );
    let series = series_of(&library);
    session.launch(1, builtin(preprocess(&folder, &pipeline, &series[0])), None).await;
    session.launch(2, builtin(preprocess("/nowhere", &pipeline, &series[0])), None).await;
    said(&session, 1, "s0").await;
    session.order(Order::Stop { try_id: TryId(1) }).await;
    assert_eq!(session.end(1).await, Exit::Signal(15));
    assert!(!session.output(1, 0).await.contains("s49"));
    assert_eq!(library.samples().unwrap().len(), 0, "nothing is kept of it");
    assert!(matches!(session.end(2).await, Exit::Failed(_)), "the worker goes on");
    agent.stop().await;
}

pub(crate) async fn an_operation_has_no_more_memory_than_its_lease() {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let (library, folder) = phantoms(&bench, [128, 128, 96]);
    let agent = bench.agent(scheduler.address(), |settings| {
        settings.workers = Some(1);
        settings.isolation.cgroup = CgroupPlace::Nowhere;
    });
    let mut session = scheduler.session().await;
    let series = series_of(&library);
    let launch = |number: u64, memory: u64| {
        let resources = Resources { cores: 1, memory: MemoryMib(memory), ..Resources::default() };
        let lease = Lease { resources, ..Lease::default() };
        let work = builtin(preprocess(&folder, PIPELINE, &series[0]));
        Order::Launch(Box::new(Launch { lease, ..plan(number, work) }))
    };
    let (little, enough) = (launch(1, 24), launch(2, 1024));
    session.order(little).await;
    let Exit::Failed(sentence) = session.end(1).await else { panic!() };
    assert!(sentence.contains("24M of memory are not enough; ask for more"), "{sentence}");
    session.order(enough).await;
    let end = session.end(2).await;
    assert_eq!(end, Exit::Code(0), "{}", session.output(2, 0).await);
    agent.stop().await;
}
