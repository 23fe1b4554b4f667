//! A cluster to look at, and a console that looks at it.

#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod library;

use gantry::app::library::Wish;
use gantry::app::{About, App, Ask, Effect, Key, Keymap, Link, Message};
use gantry::ui::{self, theme::Theme};
use gantry_model::{
    At, Exit, Gpu, JobId, JobRow, JobSpec, JobState, Level, Machine, MemoryMib, Millis, NodeFacts,
    NodeId, NodeRow, NodeState, Note, OwnerRow, Resources, Role, Service, Subject, Summary,
    TaskCounts, Why, Work,
};
use gantry_telemetry::{Bucket, GpuSample, IngestCounts, LibraryCounts, Sample};
use gantry_wire::{
    GpuNode, GpuPage, Holder, Metric, NodeStatus, NotePage, NotePlace, NoteRow, Output, Point,
    Reply, Request, Scope, SeriesRow, Update,
};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// The scheduler's clock in every picture: 18:04:10 UTC.
pub(crate) const NOW: At = At(20_000 * 86_400_000 + 65_050_000);

/// So many seconds ago.
pub(crate) fn ago(seconds: u64) -> At {
    At(NOW.0 - seconds * 1000)
}

/// A node of so many cores, that is up and busy.
pub(crate) fn node(number: u32, name: &str, cores: u32, busy: u32) -> NodeStatus {
    let memory = MemoryMib(u64::from(cores) * 8192);
    let resources = Resources { cores, memory, ..Resources::default() };
    let facts = NodeFacts {
        name: name.into(),
        roles: vec![Role::Cpu],
        resources,
        agent_version: "0.1.0".into(),
        boot_id: "b".into(),
        ..NodeFacts::default()
    };
    let used = Resources { cores: cores * busy / 1000, ..Resources::default() };
    let sample = Sample {
        at: NOW,
        cpu_permille: busy,
        memory_used_mib: memory.0 * u64::from(busy) / 1500,
        memory_total_mib: memory.0,
        disk_free_mib: 400 * 1024,
        disk_total_mib: 1000 * 1024,
        network_received_kib: 3_500,
        network_sent_kib: 120,
        tasks: 2,
        ..Sample::default()
    };
    let row = NodeRow {
        node: NodeId(number),
        facts,
        state: NodeState::Up,
        since: ago(3_000),
        used,
        tasks: 2,
        ..NodeRow::default()
    };
    NodeStatus { row, sample: Some(sample), sampled: Some(NOW) }
}

/// A node with GPUs, each as busy as given; an absent one gives no reading.
pub(crate) fn gpu_node(number: u32, name: &str, busy: &[Option<u32>]) -> NodeStatus {
    let mut node = node(number, name, 32, 410);
    let gpus = busy.len() as u32;
    node.row.facts.roles = vec![Role::Gpu];
    node.row.facts.resources.gpus = gpus;
    node.row.used.gpus = gpus / 2;
    for (index, busy) in busy.iter().enumerate() {
        node.row.facts.gpus.push(Gpu {
            uuid: format!("GPU-{index}"),
            name: "NVIDIA H100 80GB HBM3".into(),
            memory: MemoryMib(81_559),
            ..Gpu::default()
        });
        node.row.gpu_jobs.push((index < 2).then_some(JobId(12)));
        if let Some(sample) = &mut node.sample {
            sample.gpus.push(GpuSample {
                busy_permille: *busy,
                memory_used_mib: busy.map(|busy| u64::from(busy) * 75),
                temperature_c: busy.map(|busy| 35 + busy / 28),
                power_mw: busy.map(|busy| 80_000 + busy * 580),
                ..GpuSample::default()
            });
        }
    }
    node
}

/// A job of so many tasks, that has been running for ten minutes.
pub(crate) fn job(
    number: u64,
    name: &str,
    kind: &str,
    state: JobState,
    tasks: TaskCounts,
) -> JobRow {
    let started = (state != JobState::Wait).then(|| ago(600));
    JobRow {
        job: JobId(number),
        name: name.into(),
        user: "ct-lab".into(),
        kind: kind.into(),
        state,
        tasks,
        resources: Resources { cores: 4, memory: MemoryMib(8192), ..Resources::default() },
        nodes: if started.is_some() { vec!["cpu-1".into(), "cpu-2".into()] } else { Vec::new() },
        submitted: ago(660),
        started,
        ended: state.is_ended().then(|| ago(60)),
        time_limit: (state == JobState::Run).then_some(Millis(7_200_000)),
        starts: tasks.total() - tasks.wait,
        exit: (state == JobState::Done).then_some(Exit::Code(0)),
        ..JobRow::default()
    }
}

/// How many tasks stand where.
pub(crate) fn tasks(wait: u32, run: u32, done: u32, fail: u32) -> TaskCounts {
    TaskCounts { wait, run, done, fail, cancel: 0 }
}

fn jobs() -> Vec<JobRow> {
    let mut preprocess = job(11, "lung-samples", "preprocess", JobState::Run, tasks(3, 4, 13, 0));
    preprocess.reason = None;
    let mut predict = job(13, "predict-lung2", "predict", JobState::Wait, tasks(1, 0, 0, 0));
    predict.reason = Some("j12 has not ended".into());
    let mut big = job(14, "nnunet-fold3", "command", JobState::Wait, tasks(1, 0, 0, 0));
    big.user = "mr-lab".into();
    big.resources.gpus = 4;
    big.reason = Some("no node has 4 gpus free; dgx-01 has 2".into());
    let mut failed = job(10, "convert", "command", JobState::Fail, tasks(0, 0, 2, 1));
    failed.reason = Some("exit 1 on cpu-2, try 3 of 3".into());
    failed.starts = 5;
    failed.exit = Some(Exit::Code(1));
    let mut train = job(12, "train-lung", "train", JobState::Run, tasks(0, 1, 0, 0));
    train.nodes = vec!["dgx-01".into()];
    train.resources.gpus = 2;
    vec![
        big,
        predict,
        train,
        preprocess,
        failed,
        job(9, "lung1-import", "command", JobState::Done, tasks(0, 0, 1, 0)),
        job(
            8,
            "resnet-cxr",
            "train",
            JobState::Cancel,
            TaskCounts { cancel: 1, ..tasks(0, 0, 0, 0) },
        ),
    ]
}

fn nodes() -> Vec<NodeStatus> {
    let mut first = node(1, "cpu-1", 16, 742);
    let mut second = node(2, "cpu-2", 16, 91);
    second.row.service = Service::Drain { reason: "new memory on Friday".into(), deadline: None };
    second.row.state = NodeState::Late;
    second.row.since = ago(9);
    second.sampled = Some(ago(10));
    let mut learner = node(4, "gpu-1", 8, 994);
    learner.row.facts.roles = vec![Role::Gpu, Role::Ingest];
    learner.row.facts.gpu_reason = Some("libnvidia-ml.so is not there".into());
    if let Some(sample) = &mut learner.sample {
        sample.ingest = Some(IngestCounts {
            associations: 2,
            associations_total: 31,
            received: 1_440,
            quarantined: 3,
            conflicts: 0,
            refused: 0,
        });
    }
    let library = LibraryCounts {
        series: 24,
        instances: 1_437,
        quarantined: 3,
        samples: 13,
        models: 1,
        predictions: 0,
    };
    if let Some(sample) = &mut first.sample {
        sample.library = Some(library);
    }
    let gpus = [Some(970), Some(984), None, Some(0)];
    vec![first, second, gpu_node(3, "dgx-01", &gpus), learner]
}

fn notes() -> Vec<Note> {
    let note = |seconds, level, subject, sentence: &str| Note {
        at: ago(seconds),
        level,
        subject,
        sentence: sentence.into(),
    };
    vec![
        note(660, Level::Info, Subject::Node("gpu-1".into()), "gpu-1 is up"),
        note(640, Level::Note, Subject::Job(JobId(12)), "submitted by ct-lab"),
        note(600, Level::Info, Subject::Job(JobId(12)), "started on dgx-01"),
        note(120, Level::Fail, Subject::Job(JobId(10)), "exit 1 on cpu-2, try 3 of 3"),
        note(9, Level::Warn, Subject::Node("cpu-2".into()), "cpu-2 does not answer"),
    ]
}

fn metrics() -> Vec<Metric> {
    let curve = |name: &str, each: u64, value: fn(f64) -> f64| Metric {
        name: name.into(),
        points: (0..=240)
            .step_by(each as usize)
            .map(|step| Point::new(step, value(step as f64 / 240.0)))
            .collect(),
    };
    vec![
        curve("images_per_second", 24, |_| 41.25),
        curve("loss", 1, |x| (-4.0 * x).exp() * 1.4 + 0.05 * (x * 90.0).sin().abs()),
        curve("train_loss", 24, |x| (-4.0 * x).exp() * 1.4 + 0.03),
        curve("validation_dice", 24, |x| 0.93 * (1.0 - (-5.0 * x).exp())),
    ]
}

fn output() -> Output {
    let mut text = String::from("training on 13 samples, 4 patients; 2 held out\n");
    for epoch in 1..=30 {
        let loss = 1.0 / f64::from(epoch);
        text += &["epoch ", &epoch.to_string(), " of 60   loss ", &format!("{loss:.4}")].concat();
        text += "\n::metric loss 0.5 1\n";
    }
    text += "! the loader waits 140 ms for a sample\n";
    Output { next: text.len() as u64, bytes: text.into_bytes(), live: true }
}

/// A picture as the scheduler makes it for a scope.
pub(crate) fn picture(scope: Scope) -> Update {
    let busy = |second: u32| match second {
        0..10 | 60..64 => None,
        _ => Some((300 + (second * 37 % 113) * 3 + second * 3).min(1000) as u16),
    };
    let shows_nodes = matches!(scope, Scope::Overview | Scope::Nodes | Scope::Data);
    let detail = matches!(scope, Scope::Job(_));
    let shown = |row: &JobRow| match scope {
        Scope::Job(job) => row.job == job,
        Scope::Nodes => !row.state.is_ended(),
        Scope::Summary => false,
        _ => true,
    };
    Update {
        at: NOW,
        cluster: "radiology-a".into(),
        summary: Summary {
            nodes_up: 3,
            nodes: 4,
            cores_used: 36,
            cores: 72,
            gpus_used: 2,
            gpus: 4,
            jobs_run: 2,
            jobs_wait: 2,
            jobs_fail: 1,
            jobs_ended: 2,
        },
        nodes: if shows_nodes { nodes() } else { Vec::new() },
        busy_permille: (0..120).map(busy).collect(),
        gpu_busy_permille: (0..120).map(|second| busy(second).map(|busy| busy / 2 + 450)).collect(),
        gpu_power_w: (0..120).map(|second| busy(second).map(|busy| u32::from(busy) * 2)).collect(),
        owners: if scope == Scope::Overview { owners() } else { Vec::new() },
        jobs: jobs().into_iter().filter(shown).collect(),
        metrics: if detail { metrics() } else { Vec::new() },
        output: detail.then(output),
        notes: notes(),
    }
}

fn owners() -> Vec<OwnerRow> {
    let owner = |user: &str, gpu_permille, cores, running, waiting, reason: &str| OwnerRow {
        user: user.into(),
        gpu_permille,
        cores,
        running,
        waiting,
        reason: (!reason.is_empty()).then(|| reason.into()),
    };
    vec![
        owner("ct-lab", 2000, 20, 2, 1, "j12 has not ended"),
        owner("mr-lab", 500, 16, 0, 1, "no node has 4 gpus free; dgx-01 has 2"),
    ]
}

/// Answers a question as the scheduler of this cluster would.
pub(crate) fn reply(request: &Request) -> Reply {
    match request {
        Request::Gpus { job, .. } => {
            let nodes = nodes();
            let gpu_nodes = nodes.iter().filter(|node| !node.row.facts.gpus.is_empty());
            let page = gpu_nodes.map(|node| {
                GpuNode::new(&node.row, node.sample.as_ref().map(|sample| (sample, NOW)), *job)
            });
            let holder =
                Holder { job: JobId(12), name: "train-lung".into(), user: "ct-lab".into() };
            Reply::Gpus(GpuPage { nodes: page.collect(), holders: vec![holder], more: false })
        }
        Request::Series { quantities, cells, .. } => {
            let cell = |n: u16, gpu: u16| {
                let mean = u32::from((n * 37 + gpu * 211) % 1000);
                (n > 4).then_some(Bucket { min: mean, mean, max: mean })
            };
            let rows = (0..3).map(|gpu| SeriesRow {
                quantity: quantities[0],
                gpu: Some(gpu),
                cells: (0..*cells).map(|n| cell(n, gpu)).collect(),
            });
            Reply::Series { at: NOW, rows: rows.collect() }
        }
        Request::Notes { query } => {
            let row = |(number, note)| NoteRow { number: number as u64 + 1, note };
            let mut rows: Vec<NoteRow> = notes().into_iter().enumerate().map(row).collect();
            if let Some(subject) = &query.subject {
                rows.retain(|row| row.note.subject == *subject);
            }
            if let NotePlace::Behind(number) = query.place {
                rows.retain(|row| row.number > number);
            }
            if let Some(until) = query.until {
                rows.retain(|row| row.note.at < until);
            }
            Reply::Notes(NotePage { first: 1, last: 5, rows, more: false })
        }
        Request::Why { job, .. } => Reply::Why(Box::new(Why {
            job: *job,
            sentence: "no node has 4 gpus free; dgx-01 has 2".into(),
            ahead: vec![JobId(13)],
            ahead_count: 1,
            nodes: vec![
                ("cpu-1".into(), "has no gpu".into()),
                ("cpu-2".into(), "is drained".into()),
                ("gpu-1".into(), "has no gpu".into()),
                ("dgx-01".into(), "has 2 gpus free, 4 are asked for".into()),
            ],
            start: Some(At(NOW.0 + 2_280_000)),
            reserved: vec!["dgx-01".into()],
        })),
        Request::Jobs { .. } => Reply::Jobs { rows: Vec::new(), more: false },
        Request::Metrics { .. } => Reply::Metrics(metrics()),
        Request::Output { .. } => Reply::Output(output()),
        Request::Spec { job } => {
            let words = ["python", "train.py", "--fold", "2"].map(str::to_owned).to_vec();
            let work = Work::Command { arguments: words, folder: Some("/home/ct".into()) };
            let mut spec = JobSpec::new(format!("again-{job}"), work);
            spec.resources.gpus = 2;
            Reply::Spec(Box::new(spec))
        }
        Request::Tasks { .. } => Reply::Tasks { rows: Vec::new(), more: false },
        Request::Nodes { .. } => Reply::Nodes { rows: Vec::new(), more: false },
        Request::Cancel { .. } => Reply::Cancelled(1),
        Request::Act(_) => Reply::Acted(1),
        Request::Submit { .. } => Reply::Submitted(JobId(99)),
        other => panic!("nothing answers {other:?}"),
    }
}

/// A console with what it wants from the world.
pub(crate) struct Console {
    pub(crate) app: App,
    pub(crate) effects: Vec<Effect>,
    pub(crate) at: At,
}

impl Console {
    /// One that has seen its first picture.
    pub(crate) fn live(size: (u16, u16)) -> Self {
        let mut console = Self { app: App::new(Keymap::shipped(), size), effects: vec![], at: NOW };
        console.send(Message::Link(Link::Live));
        console.look();
        console
    }

    /// Hands it a message and checks it. What it asks to show something is answered at once, what it
    /// asks to do something is kept.
    pub(crate) fn send(&mut self, message: Message) {
        let mut effects = Vec::new();
        self.app.apply(self.at, message, &mut effects);
        if let Err(sentence) = self.app.check() {
            panic!("{sentence}");
        }
        for effect in effects {
            match effect {
                Effect::Ask(Ask { about, request }) if !matches!(about, About::Deed(_)) => {
                    let reply = Box::new(Ok(reply(&request)));
                    self.send(Message::Answer { about, reply });
                }
                // What a person confirmed is kept; what is looked at is told at once.
                Effect::Library(wish) if !matches!(wish, Wish::Do(_)) => {
                    for told in library::told(&wish) {
                        self.send(Message::Library(told));
                    }
                }
                other => self.effects.push(other),
            }
        }
    }

    /// Sends the picture of what is on the screen.
    pub(crate) fn look(&mut self) {
        let scope = self.app.view.scope();
        self.send(Message::Update { scope, update: Box::new(picture(scope)) });
    }

    /// Presses keys as people write them down: characters, and names in angle brackets. What a
    /// new screen shows arrives at once.
    pub(crate) fn press(&mut self, keys: &str) -> &mut Self {
        let mut rest = keys;
        while let Some(c) = rest.chars().next() {
            let named = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'));
            let key = if let Some((name, after)) = named {
                rest = after;
                named_key(name)
            } else {
                rest = &rest[c.len_utf8()..];
                Key::Char(c)
            };
            let before = self.app.view;
            self.send(Message::Key(key));
            if self.app.view != before {
                self.look();
            }
        }
        // Nobody presses a key for a moment.
        self.send(Message::Tick);
        self
    }

    /// What is on the screen, and where the cursor is.
    pub(crate) fn screen(&self, theme: Theme) -> (Buffer, (u16, u16)) {
        let (columns, rows) = self.app.size;
        let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
        let cursor = ui::render(&self.app, theme, &mut buffer);
        (buffer, cursor)
    }

    /// The text on the screen.
    pub(crate) fn text(&self, theme: Theme) -> String {
        ui::lines(&self.screen(theme).0).join("\n")
    }
}

fn named_key(name: &str) -> Key {
    match name {
        "enter" => Key::Enter,
        "esc" => Key::Esc,
        "back" => Key::Backspace,
        "up" => Key::Up,
        "down" => Key::Down,
        "end" => Key::End,
        "home" => Key::Home,
        "pgup" => Key::PageUp,
        "pgdn" => Key::PageDown,
        "tab" => Key::Tab,
        "left" => Key::Left,
        "right" => Key::Right,
        "c-c" => Key::Ctrl('c'),
        "c-l" => Key::Ctrl('l'),
        "c-r" => Key::Ctrl('r'),
        "c-d" => Key::Ctrl('d'),
        "c-u" => Key::Ctrl('u'),
        "c-z" => Key::Ctrl('z'),
        other => panic!("no key {other}"),
    }
}
