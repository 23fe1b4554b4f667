//! The bytes of every message, as version 1 of the protocol has them for ever.
//!
//! A difference here means that two versions of gantry no longer understand one another: add a
//! message beside the old one instead.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use gantry_model::access::Role as PersonRole;
use gantry_model::health::{Ailment, Finding, Sign, Stage, Trouble};
use gantry_model::{
    Action, At, Builtin, Dependency, DependencyKind, DependencyScope, Exit, Gang, Gpu, GpuDemand,
    GpuPart, JobChange, JobId, JobRow, JobSpec, JobState, Launch, Lease, Level, MemoryMib, Millis,
    NodeFacts, NodeId, NodeRow, NodeState, Note, Order, OwnerRow, Preemption, Principal, Reject,
    Report, Resources, Role, Service, Sharing, Spent, Subject, Summary, TaskCounts, TaskRow,
    TaskWork, TryId, Usage, Warning, Why, Window, Work,
};
use gantry_telemetry::{
    Answer, Bucket, Encoder, GpuSample, IngestCounts, LibraryCounts, Quantity, Reading, Sample,
    Sequence,
};
use gantry_wire::frame::{self, KINDS, Message};
use gantry_wire::message::{NodeStatus, Output};
use gantry_wire::{
    AccessRow, AgentMessage, AuditPage, AuditQuery, AuditReport, AuditRow, AuthorityState,
    AuthorityStep, Found, GpuNode, GpuPage, GpuRow, Greeting, HistoryQuery, Holder, Invitation,
    JoinReply, JoinRequest, JournalCopy, JournalUse, Metric, NodeReply, NodeRequest, NotePage,
    NotePlace, NoteQuery, NoteRow, Peer, Point, RenewRequest, Reply, Request, SchedulerMessage,
    SchedulerStatus, Scope, SeriesRow, Step, Update, UseBy, UseRow, Verdict,
};

fn facts() -> NodeFacts {
    NodeFacts {
        name: "gpu-1".into(),
        roles: vec![Role::Cpu, Role::Gpu, Role::Ingest],
        resources: Resources {
            cores: 64,
            memory: MemoryMib(1 << 20),
            gpus: 1,
            scratch: MemoryMib(9),
        },
        gpus: vec![Gpu {
            uuid: "GPU-1".into(),
            name: "H100".into(),
            memory: MemoryMib(81_920),
            mig: Some("1g.10gb".into()),
            island: 2,
            numa: Some(1),
            unfit: None,
        }],
        gpu_reason: Some("none".into()),
        agent_version: "0.1.0".into(),
        boot_id: "b".into(),
        labels: ["nvme".into()].into(),
        address: "10.0.0.1".into(),
        isolation: "cgroup: memory".into(),
    }
}

fn spec() -> JobSpec {
    let builtin = Builtin::Preprocess {
        library: "/l".into(),
        pipeline: "p".into(),
        series: vec!["s".into()],
    };
    JobSpec {
        array: Some("0-9%2".parse().unwrap()),
        after: vec![Dependency {
            job: JobId(1),
            kind: DependencyKind::Fail,
            scope: DependencyScope::Element,
        }],
        gpu: GpuDemand {
            part: GpuPart::Share(250),
            model: Some("h100".into()),
            memory: MemoryMib(7),
        },
        labels: ["nvme".into()].into(),
        sharing: Sharing::Exclusive,
        licences: BTreeMap::from([("m".into(), 2)]),
        gang: Some(Gang { ranks: 4, nodes: Some(2) }),
        retry_codes: [75].into(),
        estimate: Some(Millis(4)),
        warning: Some(Warning { signal: 10, before: Millis(3) }),
        group: Some("lab".into()),
        preemption: Preemption::Requeue,
        held: true,
        output: Some("/o/%i".into()),
        time_limit: Some(Millis(5)),
        node: Some("n".into()),
        environment: BTreeMap::from([("A".into(), "b".into())]),
        ..JobSpec::new("job", Work::Builtin(builtin))
    }
}

fn launch() -> Launch {
    Launch {
        try_id: TryId(7),
        task: JobId(1).task(2),
        name: "job".into(),
        user: "ada".into(),
        work: TaskWork::Command { arguments: vec!["true".into()], folder: Some("/".into()) },
        lease: Lease {
            resources: Resources { cores: 1, memory: MemoryMib(2), gpus: 1, scratch: MemoryMib(0) },
            gpus: vec![3],
            gpu_permille: 250,
        },
        time_limit: Some(Millis(5)),
        output: Some("/o".into()),
        warning: Some(Warning { signal: 10, before: Millis(3) }),
        environment: BTreeMap::new(),
        start: 2,
        inherits: None,
    }
}

fn spent() -> Spent {
    Spent {
        core_ms: 1,
        gpu_ms: 2,
        cpu_ms: 3,
        memory_peak: MemoryMib(4),
        read_kib: 5,
        written_kib: 6,
    }
}

fn ended() -> Report {
    let usage = Usage { cpu_ms: 5, memory_peak: MemoryMib(6), read_kib: 7, written_kib: 8 };
    Report::Ended { try_id: TryId(7), exit: Exit::TimeLimit, usage, heir: None }
}

fn keyframe() -> Reading {
    Encoder::default().encode(&sample()).unwrap()
}

fn delta() -> Reading {
    let mut encoder = Encoder::default();
    let keyframe = encoder.encode(&sample()).unwrap().sequence();
    encoder.answer(Answer::Acknowledged(keyframe));
    let next = Sample { at: At(1001), cpu_permille: 510, ..sample() };
    encoder.encode(&next).unwrap()
}

fn series() -> SeriesRow {
    let cells = vec![None, Some(Bucket { min: 1, mean: 2, max: 3 })];
    SeriesRow { quantity: Quantity::GpuBusy, gpu: Some(1), cells }
}

fn finding() -> Finding {
    let (trouble, sign, gpu) = (Trouble::XidBus, Sign::Begun, Some("GPU-1".into()));
    Finding { trouble, sign, gpu, detail: "XID 79".into() }
}

fn ailment() -> Ailment {
    let Finding { trouble, gpu, detail, .. } = finding();
    let stage = Stage::Testing { number: 3 };
    Ailment { trouble, gpu, detail, since: At(1), policy: trouble.policy(), stage }
}

fn window() -> Window {
    Window { from: At(1), until: At(2), reason: "disks".into() }
}

fn job_row() -> JobRow {
    JobRow {
        job: JobId(1),
        name: "job".into(),
        user: "ada".into(),
        kind: "train".into(),
        state: JobState::Fail,
        tasks: TaskCounts { wait: 1, run: 2, done: 3, fail: 4, cancel: 5 },
        resources: Resources::default(),
        nodes: vec!["n".into()],
        submitted: At(1),
        started: Some(At(2)),
        ended: None,
        time_limit: None,
        starts: 6,
        reason: Some("why".into()),
        exit: Some(Exit::NotStarted { code: 127, sentence: "no".into() }),
        group: Some("lab".into()),
        priority: -1,
        held: true,
        tasks_held: 2,
        spent: spent(),
        progress_permille: Some(500),
    }
}

fn sample() -> Sample {
    Sample {
        at: At(1),
        cpu_permille: 500,
        gpus: vec![GpuSample { busy_permille: Some(1), ..GpuSample::default() }],
        library: Some(LibraryCounts { series: 1, ..LibraryCounts::default() }),
        ingest: Some(IngestCounts { received: 9, ..IngestCounts::default() }),
        ..Sample::default()
    }
}

fn node() -> NodeStatus {
    NodeStatus {
        row: NodeRow {
            node: NodeId(1),
            facts: facts(),
            state: NodeState::Late,
            since: At(3),
            used: Resources::default(),
            tasks: 1,
            gpu_jobs: vec![Some(JobId(1))],
            service: Service::Drain { reason: "why".into(), deadline: Some(At(9)) },
            windows: vec![window()],
            ailments: vec![ailment()],
        },
        sample: Some(sample()),
        sampled: Some(At(4)),
    }
}

fn note() -> Note {
    Note {
        at: At(1),
        level: Level::Warn,
        subject: Subject::Task(JobId(1).task(2)),
        sentence: "so".into(),
    }
}

fn note_query() -> NoteQuery {
    NoteQuery {
        from: Some(At(1)),
        until: Some(At(2)),
        least: Some(Level::Warn),
        subject: Some(Subject::Job(JobId(3))),
        text: Some("disk".into()),
        place: NotePlace::Behind(300),
    }
}

fn note_page() -> NotePage {
    NotePage {
        rows: vec![NoteRow { number: 301, note: note() }],
        first: 301,
        last: 302,
        more: true,
    }
}

fn update() -> Update {
    Update {
        at: At(1),
        cluster: "c".into(),
        summary: Summary { nodes: 1, ..Summary::default() },
        nodes: vec![node()],
        busy_permille: vec![None, Some(7)],
        gpu_busy_permille: vec![Some(8)],
        gpu_power_w: vec![Some(9)],
        owners: vec![owner()],
        jobs: vec![job_row()],
        metrics: vec![metric()],
        output: Some(Output { bytes: vec![1], next: 2, live: true }),
        notes: vec![note()],
    }
}

fn status() -> SchedulerStatus {
    SchedulerStatus {
        at: At(9),
        version: "0.1.0".into(),
        summary: Summary { nodes_up: 1, ..Summary::default() },
        journal: JournalUse {
            events: 5,
            bytes: 600,
            syncs: 3,
            syncing_us: 4000,
            snapshot: Some(At(7)),
        },
    }
}

fn owner() -> OwnerRow {
    OwnerRow {
        user: "ada".into(),
        gpu_permille: 1500,
        cores: 2,
        running: 3,
        waiting: 4,
        reason: Some("why".into()),
    }
}

fn gpu_page() -> GpuPage {
    let gpu = GpuRow {
        index: 1,
        job: Some(JobId(2)),
        unfit: true,
        memory_mib: 3,
        busy_permille: Some(4),
        memory_used_mib: Some(5),
        temperature_c: Some(6),
        power_w: Some(7),
    };
    let (name, user) = ("train".into(), "ada".into());
    GpuPage {
        nodes: vec![GpuNode {
            name: "n".into(),
            sampled: Some(At(1)),
            gpus: vec![gpu],
            ..GpuNode::default()
        }],
        holders: vec![Holder { job: JobId(2), name, user }],
        more: true,
    }
}

fn metric() -> Metric {
    Metric { name: "loss".into(), points: vec![Point::new(1, 0.5)] }
}

fn line<T: Message + std::fmt::Debug + PartialEq>(table: &mut String, name: &str, message: &T) {
    let bytes = frame::write(message).unwrap();
    assert_eq!(frame::read::<T>(&bytes).unwrap(), *message, "{name}");
    let (_, kind) = KINDS.iter().find(|(kind, _)| *kind == T::KIND).unwrap();
    write!(table, "{kind} {name} ").unwrap();
    for byte in bytes {
        write!(table, "{byte:02x}").unwrap();
    }
    table.push('\n');
}

fn actions() -> [(&'static str, Action); 9] {
    let (job, node, reason) = (JobId(1), "n".to_owned(), "why".to_owned());
    let change = JobChange {
        priority: Some(1),
        time_limit: Some(Millis(2)),
        estimate: Some(Millis(3)),
        at_once_max: Some(4),
        retries: Some(5),
    };
    [
        ("hold", Action::Hold { job, indices: None }),
        ("release", Action::Release { job, indices: None }),
        ("requeue", Action::Requeue { job, indices: Some("0-3".parse().unwrap()) }),
        ("change", Action::Change { job, indices: None, change }),
        ("drain", Action::Drain { node: node.clone(), reason, deadline: Some(At(9)) }),
        ("resume", Action::Resume { node: node.clone() }),
        ("add-window", Action::AddWindow { node: node.clone(), window: window() }),
        ("drop-windows", Action::DropWindows { node: node.clone() }),
        ("forget", Action::Forget { node }),
    ]
}

fn history() -> HistoryQuery {
    HistoryQuery {
        user: Some("ada".into()),
        group: Some("lab".into()),
        from: Some(At(1)),
        until: Some(At(2)),
        before: Some(JobId(3)),
    }
}

fn why() -> Why {
    Why {
        job: JobId(1),
        sentence: "so".into(),
        ahead: vec![JobId(2)],
        ahead_count: 3,
        nodes: vec![("n".into(), "is full".into())],
        start: Some(At(4)),
        reserved: vec!["n".into()],
    }
}

fn use_row() -> UseRow {
    UseRow { name: "ada".into(), jobs: 1, failed: 2, tasks: 3, spent: spent() }
}

fn found() -> Found {
    Found { task: JobId(1).task(2), line: 3, text: "loss".into() }
}

fn requests(table: &mut String) {
    for (name, request) in [
        ("submit", Request::Submit { key: "k".into(), spec: Box::new(spec()) }),
        ("cancel", Request::Cancel { job: JobId(1), indices: Some("1,3-4".parse().unwrap()) }),
        ("why", Request::Why { job: JobId(1), indices: None }),
        ("history", Request::History { query: history() }),
        ("use", Request::Use { by: UseBy::Group, from: At(1), until: At(2) }),
        ("search", Request::Search { job: JobId(1), text: "loss".into() }),
        ("reload", Request::Reload),
        ("jobs", Request::Jobs { before: Some(JobId(9)), ended: true }),
        ("job", Request::Job { job: JobId(1) }),
        ("tasks", Request::Tasks { job: JobId(1), from: 2 }),
        ("wait", Request::Wait { job: JobId(1), indices: None }),
        ("nodes", Request::Nodes { after: Some("n".into()) }),
        (
            "series",
            Request::Series {
                node: "n".into(),
                quantities: vec![Quantity::Cpu],
                span: Millis(60_000),
                cells: 30,
            },
        ),
        ("output", Request::Output { task: JobId(1).task(2), offset: 3 }),
        ("metrics", Request::Metrics { job: JobId(1) }),
        ("notes", Request::Notes { query: note_query() }),
        ("notes", Request::Notes { query: NoteQuery::default() }),
        ("token", Request::Token { node: "n".into() }),
        ("watch", Request::Watch { scope: Scope::Job(JobId(1)) }),
        ("watch", Request::Watch { scope: Scope::Summary }),
        ("gpus", Request::Gpus { after: Some("n".into()), job: Some(JobId(1)) }),
        ("spec", Request::Spec { job: JobId(1) }),
        ("status", Request::Status),
    ] {
        line(table, name, &request);
    }
    for (name, action) in actions() {
        line(table, name, &Request::Act(action));
    }
    let reject = Reject::not_found("no");
    let task = TaskRow {
        task: JobId(1).task(2),
        state: "run".into(),
        node: None,
        starts: 1,
        exit: Some(Exit::Signal(9)),
    };
    for (name, reply) in [
        ("refused", Reply::Refused(reject)),
        ("submitted", Reply::Submitted(JobId(1))),
        ("cancelled", Reply::Cancelled(2)),
        ("acted", Reply::Acted(2)),
        ("why", Reply::Why(Box::new(why()))),
        ("use", Reply::Use(vec![use_row()])),
        ("found", Reply::Found { lines: vec![found()], more: true }),
        ("reloaded", Reply::Reloaded(vec!["listen".into()])),
        ("jobs", Reply::Jobs { rows: vec![job_row()], more: true }),
        ("job", Reply::Job(Box::new(job_row()))),
        ("tasks", Reply::Tasks { rows: vec![task], more: false }),
        ("nodes", Reply::Nodes { rows: vec![node()], more: true }),
        ("series", Reply::Series { at: At(1), rows: vec![series()] }),
        ("output", Reply::Output(Output { bytes: vec![1, 2], next: 3, live: false })),
        ("metrics", Reply::Metrics(vec![metric()])),
        ("notes", Reply::Notes(note_page())),
        ("token", Reply::Token("t".into())),
        ("gpus", Reply::Gpus(gpu_page())),
        ("spec", Reply::Spec(Box::new(spec()))),
        ("status", Reply::Status(Box::new(status()))),
    ] {
        line(table, name, &reply);
    }
}

fn audit_query() -> AuditQuery {
    AuditQuery {
        who: Some("ada".into()),
        from: Some(At(1)),
        until: Some(At(2)),
        refused: true,
        before: Some(300),
    }
}

fn audit_row() -> AuditRow {
    AuditRow {
        number: 299,
        at: At(1),
        who: "ada".into(),
        role: "viewer".into(),
        from: "10.0.0.1".into(),
        what: "cancel".into(),
        whom: "j12".into(),
        refused: true,
        why: "forbidden".into(),
    }
}

fn access_row() -> AccessRow {
    AccessRow {
        principal: Principal::User("ada".into()),
        role: Some(PersonRole::Operator),
        revoked: false,
        since: At(1),
        by: "operator".into(),
        connections: 2,
    }
}

/// What came with roles and renewal.
fn trust(table: &mut String) {
    for peer in [Peer::JoiningUser, Peer::Renewing] {
        let greeting = Greeting { peer, version_min: 1, version_max: 2, software: "0".into() };
        line(table, "greeting", &greeting);
    }
    line(table, "renew", &RenewRequest { request_der: vec![1] });
    let given = Invitation::Given {
        name: "ada".into(),
        role: PersonRole::User,
        address: "127.0.0.1:7400".into(),
        token: "t".into(),
    };
    line(table, "invitation", &given);
    line(table, "invitation", &Invitation::Refused(Reject::invalid("no")));
    let (user, role) = ("ada".to_owned(), PersonRole::Viewer);
    for (name, request) in [
        ("access", Request::Access { after: Some(Principal::User("ada".into())) }),
        ("grant", Request::Grant { user: user.clone(), role: PersonRole::Administrator }),
        ("revoke", Request::Revoke { principal: Principal::Node("n".into()) }),
        ("user-token", Request::UserToken { user, role }),
        ("audit", Request::Audit { query: audit_query() }),
        ("verify-audit", Request::VerifyAudit),
        ("copy", Request::Copy),
        ("authority", Request::Authority { step: None }),
        ("authority", Request::Authority { step: Some(AuthorityStep::FinishAnyway) }),
    ] {
        line(table, name, &request);
    }
    let state = AuthorityState {
        fingerprint: "ab".into(),
        since: Some(At(7)),
        behind: vec![Principal::Node("n".into())],
        behind_count: 1,
        unseen: vec![Principal::User("ada".into())],
        unseen_count: 300,
    };
    let report = AuditReport {
        first: 1,
        last: 9,
        head: "ab".into(),
        broken: Some((3, "was changed".into())),
    };
    for (name, reply) in [
        ("access", Reply::Access { rows: vec![access_row()], more: true }),
        ("audit", Reply::Audit(AuditPage { rows: vec![audit_row()], first: 299, more: true })),
        ("verified", Reply::Verified(report)),
        ("copied", Reply::Copied(JournalCopy { at: At(1), bytes: 2, took_us: 3 })),
        ("authority", Reply::Authority(Box::new(state))),
    ] {
        line(table, name, &reply);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads and writes its golden file")]
fn messages_have_the_bytes_of_version_1() {
    let mut table = String::new();
    let greeting =
        Greeting { peer: Peer::Joining, version_min: 1, version_max: 2, software: "0".into() };
    line(&mut table, "greeting", &greeting);
    line(&mut table, "welcome", &Verdict::Welcome { version: 1, cluster: "c".into(), at: At(5) });
    line(&mut table, "refused", &Verdict::Refused(Reject::invalid("no")));
    for (name, message) in [
        ("up", AgentMessage::Up { facts: Box::new(facts()), holds: vec![TryId(300)] }),
        ("started", AgentMessage::Report(Report::Started { try_id: TryId(7) })),
        ("ended", AgentMessage::Report(ended())),
        ("keyframe", AgentMessage::Reading(Box::new(keyframe()))),
        ("delta", AgentMessage::Reading(Box::new(delta()))),
        ("found", AgentMessage::Found(finding())),
        ("tested", AgentMessage::Tested { number: 7, wrong: Some("no".into()) }),
        ("progress", AgentMessage::Progress { task: JobId(1).task(2), permille: 500 }),
        ("gone", AgentMessage::Gone { welcomed: At(5), holds: vec![TryId(300)] }),
        ("leaves", AgentMessage::Leaves { after: Millis(300) }),
        (
            "metrics",
            AgentMessage::Metrics {
                task: JobId(1).task(2),
                points: vec![("loss".into(), Point::new(1, 0.5))],
            },
        ),
    ] {
        line(&mut table, name, &message);
    }
    for (name, order) in [
        ("launch", Order::Launch(Box::new(launch()))),
        ("stop", Order::Stop { try_id: TryId(7) }),
        ("acknowledge", Order::Acknowledge { try_id: TryId(7) }),
        ("test", Order::Test { number: 7, gpu: Some("GPU-1".into()) }),
    ] {
        line(&mut table, name, &SchedulerMessage::Order(order));
    }
    for (name, answer) in [
        ("acknowledged", Answer::Acknowledged(Sequence(7))),
        ("missing", Answer::Missing(Sequence(7))),
    ] {
        line(&mut table, name, &SchedulerMessage::Answer(answer));
    }
    requests(&mut table);
    line(&mut table, "whole", &Step::Whole(Box::new(update())));
    let before = Update { busy_permille: vec![None, None], notes: Vec::new(), ..update() };
    let changes = Step::Changes(Box::new(before.changes(&update())));
    line(&mut table, "changes", &changes);
    line(&mut table, "output", &NodeRequest::Output { task: JobId(1).task(2), offset: u64::MAX });
    line(&mut table, "output", &NodeReply::Output(Output::default()));
    let search = NodeRequest::Search { job: JobId(1), text: "loss".into() };
    line(&mut table, "search", &search);
    line(&mut table, "found", &NodeReply::Found { lines: vec![found()], more: false });
    let join = JoinRequest { token: "t".into(), node: "n".into(), request_der: vec![1] };
    line(&mut table, "join", &join);
    let joined = JoinReply::Joined {
        node: Some(NodeId(1)),
        certificate_der: vec![1],
        authority_der: vec![2],
    };
    line(&mut table, "joined", &joined);
    trust(&mut table);

    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/version-1.txt");
    if std::env::var_os("GANTRY_BLESS").is_some() {
        std::fs::write(&golden, &table).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    for (found, expected) in table.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(table.lines().count(), expected.lines().count());
    for (_, kind) in KINDS {
        assert!(
            table.lines().any(|line| line.starts_with(&format!("{kind} "))),
            "no {kind} is golden"
        );
    }
}
