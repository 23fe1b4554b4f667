//! Built-in operations as work like any other: warned, stopped, limited, taken over.

use std::time::Duration;

use gantry_config::{AgentSettings, Orphans};
use gantry_model::{Builtin, Exit, Launch, Millis, Order, TryId, Warning};

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

/// What the only task of a live job has printed: more than one answer of an agent may hold.
fn printed(bench: &Bench, job: u64) -> String {
    let path = bench.folder().join(format!("agent/output/j{job}/0.out"));
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until a job has printed a whole line that holds this, and gives the first such line.
async fn said(bench: &Bench, job: u64, text: &str) -> String {
    loop {
        let output = printed(bench, job);
        let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
        if let Some(line) = whole.lines().find(|line| line.contains(text)) {
            return line.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
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
    let train = || builtin(training(&folder, "long", 10_000));
    let limit = Millis::from_seconds(100_000);
    // Late enough for the process to hear signals by then.
    let warning = Warning { signal: 10, before: Millis(limit.0 - 3000) };
    let launch = Launch { time_limit: Some(limit), warning: Some(warning), ..plan(10, train()) };
    session.order(Order::Launch(Box::new(launch))).await;
    let line = said(&bench, 10, "a checkpoint is kept at step").await;
    let kept = number_after(&line, "at step");
    agent.kill().unwrap();
    agent.wait().unwrap();
    let before = printed(&bench, 10).len();
    let agent = bench.agent(scheduler.address(), |settings: &mut AgentSettings| {
        settings.orphans = Orphans::Keep;
    });
    let mut session = scheduler.session().await;
    assert!(session.holds.contains(&TryId(10)), "{:?}", session.holds);
    while printed(&bench, 10).len() <= before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    session.order(Order::Stop { try_id: TryId(10) }).await;
    let Exit::Failed(sentence) = session.end(10).await else { panic!() };
    assert!(sentence.contains("a checkpoint is kept, the same run goes on"), "{sentence}");
    let stopped = number_after(&sentence, "after step");
    assert!(stopped >= kept, "{stopped} {kept}");
    // A later start of the task goes on from there.
    session.order(Order::Launch(Box::new(Launch { start: 2, ..plan(11, train()) }))).await;
    let line = said(&bench, 11, "::progress").await;
    assert_eq!(number_after(&line, "::progress"), stopped);
    session.order(Order::Stop { try_id: TryId(11) }).await;
    assert!(matches!(session.end(11).await, Exit::Failed(_)));
    agent.stop().await;
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
    said(&bench, 1, "s0").await;
    session.order(Order::Stop { try_id: TryId(1) }).await;
    assert_eq!(session.end(1).await, Exit::Signal(15));
    assert!(!session.output(1, 0).await.contains("s49"));
    assert_eq!(library.samples().unwrap().len(), 0, "nothing is kept of it");
    assert!(matches!(session.end(2).await, Exit::Failed(_)), "the worker goes on");
    agent.stop().await;
}
