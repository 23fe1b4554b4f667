//! What is handed in of what a real cluster decides.

use std::sync::mpsc::Receiver;

use gantry_cluster::{ClusterSettings, Event};
use gantry_model::{
    Exit, JobSpec, Machine, Millis, NodeFacts, Preemption, Report, Resources, TryId, Usage, Work,
};

use super::super::sender::queue;
use super::super::spans::{Span, Status, Value};
use super::*;

/// A cluster with a node of one core, and what watches it.
struct Env {
    cluster: Cluster,
    at: At,
    watch: Watch,
    spans: Receiver<Span>,
    launches: Vec<Launch>,
}

impl Env {
    fn new() -> Self {
        let (outbox, spans) = queue();
        let watch = Watch::new("test".into(), outbox);
        let settings = ClusterSettings { ahead: Millis(0), ..ClusterSettings::default() };
        let cluster = Cluster::new(settings);
        let mut env = Self { cluster, at: At(1000), watch, spans, launches: Vec::new() };
        let resources = Resources { cores: 1, ..Resources::default() };
        let facts = NodeFacts { name: "a".into(), resources, ..NodeFacts::default() };
        env.apply(Event::NodeUp { facts: Box::new(facts), holds: Vec::new() });
        env
    }

    fn apply(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.cluster.apply(self.at, event, &mut effects);
        for mut effect in effects {
            self.watch.see(self.at, &self.cluster, &mut effect);
            if let Effect::Order { order: Order::Launch(launch), .. } = effect {
                self.launches.push(*launch);
            }
        }
    }

    fn submit(&mut self, spec: JobSpec) {
        let key = format!("{}", self.at.0);
        self.apply(Event::Submit { request: 1, user: "ada".into(), key, spec: Box::new(spec) });
    }

    fn pass(&mut self, millis: u64) {
        self.at = self.at.after(Millis(millis));
        self.apply(Event::Tick);
    }

    fn ended(&mut self, try_id: u64, exit: Exit) {
        let (try_id, usage, heir) = (TryId(try_id), Usage::default(), None);
        let report = Report::Ended { try_id, exit, usage, heir };
        self.apply(Event::Report { node: "a".into(), report });
    }

    /// The daemon is another one: the journal has given it the cluster, and nothing else.
    fn restart(&mut self) {
        let (outbox, spans) = queue();
        self.watch = Watch::new("test".into(), outbox);
        self.spans = spans;
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.try_iter().collect()
    }
}

fn spec(cores: u32) -> JobSpec {
    let work = Work::Command { arguments: vec!["/data/secret".into()], folder: None };
    let resources = Resources { cores, ..Resources::default() };
    let environment = [("SECRET".to_owned(), "secret".to_owned())].into();
    JobSpec { resources, environment, ..JobSpec::new("secret", work) }
}

/// Names and times since the first, in milliseconds.
fn times(spans: &[Span]) -> Vec<(&str, u64, u64)> {
    let since = |at: At| at.0 - 1000;
    spans.iter().map(|span| (span.name.as_str(), since(span.start), since(span.end))).collect()
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    span.attributes.iter().find_map(|(name, value)| match value {
        Value::Text(text) if *name == key => Some(text.as_str()),
        _ => None,
    })
}

#[test]
fn a_job_with_a_retry_is_a_trace_of_waits_and_executions() {
    let mut env = Env::new();
    env.submit(JobSpec { retries: 1, ..spec(1) });
    env.at = env.at.after(Millis(500));
    env.ended(1, Exit::Code(3));
    env.pass(1000);
    env.at = env.at.after(Millis(200));
    env.ended(2, Exit::Code(0));
    let spans = env.spans();
    assert_eq!(
        times(&spans),
        [
            ("wait", 0, 0),
            ("try", 0, 500),
            ("wait", 500, 1500),
            ("try", 1500, 1700),
            ("job command", 0, 1700),
        ]
    );
    let statuses: Vec<&Status> = spans.iter().map(|span| &span.status).collect();
    let ill = Status::Ill("exit 3".into());
    let expected = [&Status::Unset, &ill, &Status::Unset, &Status::Well, &Status::Well];
    assert_eq!(statuses, expected);
    let root = spans.last().unwrap();
    for span in &spans {
        assert_eq!(span.trace, root.trace);
        assert_eq!(span.parent, (span.id != root.id).then_some(root.id));
    }
    // Each execution was told the span that its program's own are below.
    for (launch, span) in env.launches.iter().zip([&spans[1], &spans[3]]) {
        let (trace, id) = (u128::from_be_bytes(span.trace), u64::from_be_bytes(span.id));
        let parent = format!("00-{trace:032x}-{id:016x}-01");
        assert_eq!(launch.environment["TRACEPARENT"], parent);
    }
    let seen = format!("{spans:?}");
    assert!(!seen.contains("secret") && !seen.contains("/data"), "{seen}");
}

#[test]
fn a_restart_continues_a_trace_and_does_not_guess() {
    let mut env = Env::new();
    env.submit(JobSpec { retries: 1, ..spec(1) });
    env.at = env.at.after(Millis(500));
    env.ended(1, Exit::Code(3));
    let before = env.spans();
    env.restart();
    env.pass(1000);
    env.ended(2, Exit::Code(0));
    let after = env.spans();
    // Since when it waited was known to the daemon before alone.
    assert_eq!(times(&after), [("try", 1500, 1500), ("job command", 0, 1500)]);
    assert!(after.iter().all(|span| span.trace == before[0].trace));
    assert_eq!(before[0].parent, Some(after[1].id));
}

#[test]
fn whoever_made_room_says_for_whom() {
    let mut env = Env::new();
    env.submit(JobSpec { preemption: Preemption::Requeue, priority: -5, ..spec(1) });
    env.pass(10);
    env.submit(JobSpec { priority: 5, ..spec(1) });
    env.pass(10);
    env.ended(1, Exit::Signal(15));
    let spans = env.spans();
    let outcome = |span| (text(span, "gantry.try.outcome"), text(span, "gantry.try.preempted_by"));
    assert_eq!(outcome(&spans[1]), (Some("preempted"), Some("j2")));
    env.pass(10);
    env.ended(2, Exit::Code(0));
    env.pass(10);
    env.ended(3, Exit::Code(0));
    let spans = env.spans();
    let second: Vec<_> =
        spans.iter().filter(|span| text(span, "gantry.job.id") == Some("j1")).cloned().collect();
    assert_eq!(times(&second), [("wait", 20, 30), ("try", 30, 40), ("job command", 0, 40)]);
    assert_eq!(outcome(&second[1]), (Some("done"), None));
}

#[test]
fn an_array_has_spans_up_to_a_number_and_says_how_many_are_missing() {
    let mut env = Env::new();
    let elements = TRIES_MAX + 30;
    let array = format!("1-{elements}").parse().unwrap();
    env.submit(JobSpec { array: Some(array), ..spec(1) });
    for element in 1..=elements {
        // The last ones fail, and are not hidden by those that did not.
        let exit = Exit::Code(u8::from(element > elements - 10));
        env.ended(u64::from(element), exit);
    }
    let spans = env.spans();
    let count = |name: &str| spans.iter().filter(|span| span.name == name).count() as u32;
    assert_eq!((count("try"), count("wait")), (TRIES_MAX + 10, TRIES_MAX + 10));
    let root = spans.last().unwrap();
    assert!(
        root.attributes.contains(&("gantry.job.tries.left_out", Value::Number(20))),
        "{root:?}"
    );
    assert!(env.watch.told.is_empty() && env.watch.waits.is_empty());
}

#[test]
fn a_context_that_a_user_has_set_stays() {
    let mut env = Env::new();
    let environment = [("TRACEPARENT".to_owned(), "mine".to_owned())].into();
    env.submit(JobSpec { environment, ..spec(1) });
    assert_eq!(env.launches[0].environment["TRACEPARENT"], "mine");
}
