//! The daemon over real QUIC, with agents and consoles played by the test.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use gantry_config::SchedulerSettings;
use gantry_link::{Identity, Receiver, Sender, Session, connect, join};
use gantry_model::{
    Exit, JobId, JobState, Launch, Millis, NodeFacts, NodeState, Order, Report, TryId, Usage,
};
use gantry_telemetry::{Encoder, Sample};
use gantry_wire::{
    AgentMessage, NodeReply, NodeRequest, Output, Peer, Point, Reply, Request, SchedulerMessage,
    Scope, Step, Update,
};
use support::{Daemon, agent, ask, cluster, console, joined, settings, start, submit};
use tempfile::TempDir;
use tokio::task::JoinSet;

async fn launch(session: &mut Session) -> Launch {
    loop {
        let message = session.receiver.expect().await.unwrap();
        if let SchedulerMessage::Order(Order::Launch(launch)) = message {
            return *launch;
        }
    }
}

async fn report(session: &mut Session, report: Report) {
    session.sender.send(&AgentMessage::Report(report)).await.unwrap();
}

#[tokio::test]
async fn a_job_goes_to_an_agent_and_its_end_to_whoever_waits() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    let identity = joined(&console, daemon.address, "cpu-1").await;
    let mut agent = agent(&daemon, &identity, &[]).await;
    assert_eq!(ask(&console, submit("k")).await, Reply::Submitted(JobId(1)));
    assert_eq!(ask(&console, submit("k")).await, Reply::Submitted(JobId(1)), "the same key");
    let launched = launch(&mut agent).await;
    assert_eq!((launched.task, launched.user.as_str()), (JobId(1).task(0), "operator"));
    let try_id = launched.try_id;
    report(&mut agent, Report::Started { try_id }).await;
    report(
        &mut agent,
        Report::Ended { try_id, exit: Exit::Code(7), usage: Usage::default(), heir: None },
    )
    .await;
    let Reply::Job(row) = ask(&console, Request::Wait { job: JobId(1), indices: None }).await
    else {
        panic!()
    };
    assert_eq!((row.state, row.exit), (JobState::Fail, Some(Exit::Code(7))));
    let message = agent.receiver.expect().await.unwrap();
    let SchedulerMessage::Order(order) = message else { panic!("{message:?}") };
    assert_eq!(order, Order::Acknowledge { try_id });
    let Reply::Refused(reject) = ask(&console, Request::Job { job: JobId(9) }).await else {
        panic!()
    };
    assert!(reject.sentence.contains("j9"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_restart_forgets_nothing_and_takes_back_what_nodes_hold() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    let identity = joined(&first, daemon.address, "cpu-1").await;
    let mut session = agent(&daemon, &identity, &[]).await;
    for key in ["a", "b", "c"] {
        ask(&first, submit(key)).await;
    }
    let try_id = launch(&mut session).await.try_id;
    report(&mut session, Report::Started { try_id }).await;
    daemon.stop().await;

    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    assert_eq!(ask(&console, submit("b")).await, Reply::Submitted(JobId(2)), "keys are known");
    let mut session = agent(&daemon, &identity, &[try_id.0]).await;
    report(
        &mut session,
        Report::Ended { try_id, exit: Exit::Code(0), usage: Usage::default(), heir: None },
    )
    .await;
    let Reply::Job(row) = ask(&console, Request::Wait { job: JobId(1), indices: None }).await
    else {
        panic!()
    };
    assert_eq!((row.state, row.starts), (JobState::Done, 1), "it was not run again");
    assert_eq!(launch(&mut session).await.task, JobId(2).task(0));
    daemon.stop().await;
}

#[tokio::test]
async fn tokens_and_certificates_are_good_for_what_they_were_made_for() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    let Reply::Token(token) = ask(&console, Request::Token { node: "cpu-1".into() }).await else {
        panic!()
    };
    let error = join(daemon.address, &token, "cpu-2").await.unwrap_err().to_string();
    assert!(error.contains("another node"), "{error}");
    let mut attempts = JoinSet::new();
    for _ in 0..16 {
        let (address, token) = (daemon.address, token.clone());
        attempts.spawn(async move { join(address, &token, "cpu-1").await });
    }
    let (redeemed, refused): (Vec<_>, Vec<_>) =
        attempts.join_all().await.into_iter().partition(Result::is_ok);
    let redeemed: Vec<Identity> = redeemed.into_iter().flatten().collect();
    assert_eq!(redeemed.len(), 1, "a token is used once");
    for error in refused.into_iter().filter_map(Result::err) {
        assert!(error.to_string().contains("used already"), "{error}");
    }
    let refused = connect(daemon.address, &redeemed[0], Peer::Console).await.unwrap_err();
    assert!(refused.to_string().contains("operator"), "{refused}");
    let operator = Identity::load(folder.path(), "operator").unwrap();
    let refused = connect(daemon.address, &operator, Peer::Agent).await.unwrap_err();
    assert!(refused.to_string().contains("agent"), "{refused}");
    // An agent that speaks for another node is turned away.
    let mut session = connect(daemon.address, &redeemed[0], Peer::Agent).await.unwrap();
    let facts = NodeFacts { name: "cpu-9".into(), ..NodeFacts::default() };
    session
        .sender
        .send(&AgentMessage::Up { facts: Box::new(facts), holds: Vec::new() })
        .await
        .unwrap();
    let reason = session.connection.closed().await;
    assert!(reason.contains("own node"), "{reason}");
    let Reply::Nodes { rows: nodes, .. } = ask(&console, Request::Nodes { after: None }).await
    else {
        panic!()
    };
    assert!(nodes.is_empty());
    daemon.stop().await;

    let expired = SchedulerSettings { token_valid: Millis(0), ..settings() };
    let daemon = start(folder.path(), expired).await;
    let console = self::console(folder.path(), &daemon).await;
    let Reply::Token(token) = ask(&console, Request::Token { node: "cpu-3".into() }).await else {
        panic!()
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    let error = join(daemon.address, &token, "cpu-3").await.unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
    daemon.stop().await;
}

#[tokio::test]
async fn an_agent_that_asks_like_a_console_is_not_heard() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    let identity = joined(&console, daemon.address, "cpu-1").await;
    let mut session = agent(&daemon, &identity, &[]).await;
    let (mut sender, _receiver) = session.connection.open().await.unwrap();
    sender.send(&submit("forged")).await.unwrap();
    // Whatever the agent sent before this job's launch has been looked at when it is launched.
    assert_eq!(ask(&console, submit("k")).await, Reply::Submitted(JobId(1)));
    launch(&mut session).await;
    let Reply::Jobs { rows, .. } = ask(&console, Request::Jobs { before: None, ended: true }).await
    else {
        panic!()
    };
    assert_eq!(rows.len(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn of_two_agents_of_one_node_the_newest_wins() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    let identity = joined(&console, daemon.address, "cpu-1").await;
    let mut sessions = vec![agent(&daemon, &identity, &[]).await];
    for n in 0..20 {
        // The one before has been given work, which the newer one does not hold.
        if n == 10 {
            ask(&console, submit("k")).await;
            launch(sessions.last_mut().unwrap()).await;
        }
        let newer = agent(&daemon, &identity, &[]).await;
        let reason = sessions.last().unwrap().connection.closed().await;
        assert!(reason.contains("another agent"), "{reason}");
        sessions.push(newer);
    }
    let mut newest = sessions.pop().unwrap();
    let try_id = launch(&mut newest).await.try_id;
    let Reply::Nodes { rows: nodes, .. } = ask(&console, Request::Nodes { after: None }).await
    else {
        panic!()
    };
    assert_eq!((nodes.len(), nodes[0].row.state, nodes[0].row.tasks), (1, NodeState::Up, 1));
    report(
        &mut newest,
        Report::Ended { try_id, exit: Exit::Code(0), usage: Usage::default(), heir: None },
    )
    .await;
    let Reply::Job(row) = ask(&console, Request::Wait { job: JobId(1), indices: None }).await
    else {
        panic!()
    };
    assert_eq!(row.state, JobState::Done);
    daemon.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_files_of_a_crash_at_that_moment() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let before = console(folder.path(), &daemon).await;
    let mut crashes = Vec::new();
    for n in 1..=12 {
        assert_eq!(ask(&before, submit(&format!("k{n}"))).await, Reply::Submitted(JobId(n)));
        // What a process that is killed now leaves behind: its files as they are.
        let crashed = TempDir::new().unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), crashed.path().join(file.file_name())).unwrap();
        }
        crashes.push((n, crashed));
    }
    daemon.stop().await;
    for (n, crashed) in crashes {
        let daemon = start(crashed.path(), settings()).await;
        let console = console(crashed.path(), &daemon).await;
        let Reply::Job(row) = ask(&console, Request::Job { job: JobId(n) }).await else {
            panic!("j{n} is lost")
        };
        assert_eq!(row.state, JobState::Wait);
        assert_eq!(ask(&console, submit(&format!("k{n}"))).await, Reply::Submitted(JobId(n)));
        daemon.stop().await;
    }
}

#[tokio::test]
async fn output_comes_from_the_node_and_curves_only_from_the_one_that_runs_the_task() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    let first = joined(&console, daemon.address, "cpu-1").await;
    let second = joined(&console, daemon.address, "cpu-2").await;
    let mut session = agent(&daemon, &first, &[]).await;
    ask(&console, submit("k")).await;
    let task = launch(&mut session).await.task;
    let mut other = agent(&daemon, &second, &[]).await;
    let points = |value| vec![("loss".to_owned(), Point::new(1, value))];
    other.sender.send(&AgentMessage::Metrics { task, points: points(9.0) }).await.unwrap();
    // Heard in order: the other's points have been looked at once its next report is answered.
    let unknown = TryId(999);
    report(
        &mut other,
        Report::Ended {
            try_id: unknown,
            exit: Exit::NodeLost,
            usage: Usage::default(),
            heir: None,
        },
    )
    .await;
    let message = other.receiver.expect().await.unwrap();
    assert!(matches!(message, SchedulerMessage::Order(_)), "{message:?}");
    session.sender.send(&AgentMessage::Metrics { task, points: points(0.5) }).await.unwrap();
    report(
        &mut session,
        Report::Ended {
            try_id: unknown,
            exit: Exit::NodeLost,
            usage: Usage::default(),
            heir: None,
        },
    )
    .await;
    let message = session.receiver.expect().await.unwrap();
    assert!(matches!(message, SchedulerMessage::Order(_)), "{message:?}");
    let Reply::Metrics(metrics) = ask(&console, Request::Metrics { job: JobId(1) }).await else {
        panic!()
    };
    assert_eq!(metrics.len(), 1);
    assert_eq!(metrics[0].points, [Point::new(1, 0.5)]);

    let connection = session.connection.clone();
    let served = tokio::spawn(async move {
        let (mut sender, mut receiver) = connection.accept().await.unwrap();
        let NodeRequest::Output { offset, .. } = receiver.expect().await.unwrap() else { panic!() };
        let output = Output { bytes: b"hello".to_vec(), next: offset + 5, live: true };
        sender.send(&NodeReply::Output(output)).await.unwrap();
        sender.delivered().await;
    });
    let Reply::Output(output) = ask(&console, Request::Output { task, offset: 7 }).await else {
        panic!()
    };
    assert_eq!((output.bytes.as_slice(), output.next), (&b"hello"[..], 12));
    served.await.unwrap();
    session.connection.close("test");
    // The answer is a sentence, whether the scheduler has heard of the end yet or not.
    let Reply::Refused(reject) = ask(&console, Request::Output { task, offset: 0 }).await else {
        panic!()
    };
    assert!(reject.sentence.contains("cpu-1"), "{reject}");
    daemon.stop().await;
}

async fn watch(session: &Session, scope: Scope) -> (Sender, Receiver) {
    let (mut sender, receiver) = session.connection.open().await.unwrap();
    sender.send(&Request::Watch { scope }).await.unwrap();
    (sender, receiver)
}

#[tokio::test]
async fn a_console_gets_pictures_when_something_has_changed() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let watcher = console(folder.path(), &daemon).await;
    let (_kept, mut receiver) = watch(&watcher, Scope::Overview).await;
    let first: Step = receiver.expect().await.unwrap();
    assert!(matches!(first, Step::Whole(_)));
    let mut shown = Update::default();
    shown.take(first).unwrap();
    assert_eq!((shown.cluster.as_str(), shown.summary.nodes), ("test", 0));
    let (first, next) = (shown.at, receiver.expect::<Step>().await.unwrap());
    assert!(matches!(next, Step::Changes(_)));
    shown.take(next).unwrap();
    assert!(shown.at.since(first) >= Millis::from_seconds(4), "nothing changed in between");
    let identity = joined(&watcher, daemon.address, "cpu-1").await;
    let agent = agent(&daemon, &identity, &[]).await;
    // What no screen shows of all nodes does not come.
    let sample = Sample { cpu_permille: 500, ..Sample::default() };
    let whole = Sample { cores_permille: vec![500], ..sample.clone() };
    let (start, mut encoder) = (Instant::now(), Encoder::default());
    loop {
        let reading = encoder.encode(&whole).unwrap();
        let sent = AgentMessage::Reading(Box::new(reading));
        assert!(agent.connection.send_datagram(&sent), "a small sample fits a datagram");
        shown.take(receiver.expect().await.unwrap()).unwrap();
        if let [node] = shown.nodes.as_slice()
            && node.sample.as_ref() == Some(&sample)
        {
            assert!(shown.at.since(node.sampled.unwrap()) < Millis::from_seconds(3));
            assert!(shown.busy_permille.contains(&Some(500)));
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_console_that_does_not_read_harms_nobody() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let busy = console(folder.path(), &daemon).await;
    for n in 0..200 {
        let mut request = submit(&format!("k{n}"));
        if let Request::Submit { spec, .. } = &mut request {
            spec.name = "n".repeat(64);
        }
        ask(&busy, request).await;
    }
    // Sixty answers of 200 rows each are more than the connection's window of 1 MiB.
    let stuck = console(folder.path(), &daemon).await;
    let mut streams = Vec::new();
    for n in 0..60 {
        streams.push(if n % 2 == 0 {
            watch(&stuck, Scope::Jobs).await
        } else {
            let (mut sender, receiver) = stuck.connection.open().await.unwrap();
            sender.send(&Request::Jobs { before: None, ended: true }).await.unwrap();
            (sender, receiver)
        });
    }
    let (_kept, mut pictures) = watch(&busy, Scope::Overview).await;
    let (mut slowest, mut shown) = (Duration::ZERO, Update::default());
    for n in 0..4 {
        let start = Instant::now();
        assert!(matches!(ask(&busy, submit(&format!("late{n}"))).await, Reply::Submitted(_)));
        slowest = slowest.max(start.elapsed());
        shown.take(pictures.expect().await.unwrap()).unwrap();
        assert!(!shown.jobs.is_empty());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    drop(streams);
    daemon.stop().await;
}

#[tokio::test]
async fn a_second_scheduler_and_a_folder_without_a_cluster_are_sentences() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let error = gantry_scheduler::serve(folder.path(), settings(), std::future::pending()).await;
    assert!(error.unwrap_err().to_string().contains("another scheduler"));
    daemon.stop().await;
    let empty = TempDir::new().unwrap();
    let error = gantry_scheduler::serve(empty.path(), settings(), std::future::pending()).await;
    assert!(error.unwrap_err().to_string().contains("init"));
    let error = gantry_scheduler::init(folder.path(), "again").unwrap_err().to_string();
    assert!(error.contains("already holds one"), "{error}");
}

/// Comes back with a try that has ended; says whether its end was acknowledged.
async fn repeats(daemon: &Daemon, identity: &Identity, try_id: TryId) -> bool {
    let mut session = agent(daemon, identity, &[try_id.0]).await;
    let end = AgentMessage::Report(Report::Ended {
        try_id,
        exit: Exit::Code(0),
        usage: Usage::default(),
        heir: None,
    });
    if session.sender.send(&end).await.is_err() {
        return false;
    }
    while let Ok(SchedulerMessage::Order(order)) = session.receiver.expect().await {
        if order == (Order::Acknowledge { try_id }) {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_loses_nothing() {
    let mount = TempDir::new().unwrap();
    let path = mount.path().display().to_string();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs", &path])
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("skipped: a full disk needs the right to mount a small tmpfs");
        return;
    }
    let folder = mount.path().join("scheduler");
    gantry_scheduler::init(&folder, "test").unwrap();
    let daemon = start(&folder, settings()).await;
    let console = console(&folder, &daemon).await;
    let identity = joined(&console, daemon.address, "cpu-1").await;
    let mut node = agent(&daemon, &identity, &[]).await;
    ask(&console, submit("first")).await;
    let try_id = launch(&mut node).await.try_id;
    let filler = mount.path().join("filler");
    std::fs::write(&filler, vec![0; 1 << 20]).unwrap();
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for n in 0..400 {
        let mut request = submit(&format!("k{n}"));
        if let Request::Submit { spec, .. } = &mut request {
            spec.environment.insert("PAD".into(), "x".repeat(10_000));
        }
        match ask(&console, request).await {
            Reply::Submitted(job) => acknowledged.push(job),
            Reply::Refused(reject) => {
                assert!(reject.sentence.contains("disk is full"), "{reject}");
                refused += 1;
                if refused == 3 {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 3, "the disk was never full");
    // The agent was disconnected. It comes back and repeats its report until that is acknowledged,
    // which may need room on the disk.
    let reason = node.connection.closed().await;
    assert!(reason.contains("disk is full"), "{reason}");
    let first = repeats(&daemon, &identity, try_id).await;
    std::fs::remove_file(&filler).unwrap();
    assert!(first || repeats(&daemon, &identity, try_id).await, "there is room again");
    let Reply::Job(row) = ask(&console, Request::Wait { job: JobId(1), indices: None }).await
    else {
        panic!()
    };
    assert_eq!((row.state, row.starts), (JobState::Done, 1));
    assert!(matches!(ask(&console, submit("later")).await, Reply::Submitted(_)), "it goes on");
    daemon.stop().await;
    let daemon = start(&folder, settings()).await;
    let console = self::console(&folder, &daemon).await;
    for job in acknowledged {
        assert!(
            matches!(ask(&console, Request::Job { job }).await, Reply::Job(_)),
            "{job} is lost"
        );
    }
    daemon.stop().await;
    Command::new("umount").args(["-l", &path]).output().unwrap();
}
