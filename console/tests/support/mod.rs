//! A small cluster as a picture, for screens under test.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

use gantry::app::{App, Key, Keymap, Link, Message};
use gantry_model::{
    At, Exit, Gpu, JobId, JobRow, JobState, Level, Machine, MemoryMib, NodeFacts, NodeId, NodeRow,
    NodeState, Note, Resources, Role, Subject, Summary, TaskCounts,
};
use gantry_telemetry::{GpuSample, IngestCounts, LibraryCounts, Sample};
use gantry_wire::message::NodeStatus;
use gantry_wire::{Metric, Output, Point, Update};

/// 2026-11-24 03:00:00 UTC.
pub const NOW: At = At(1_795_489_200_000);

pub fn job(id: u64, name: &str, kind: &str, state: JobState, done: u32, total: u32) -> JobRow {
    let run = u32::from(state == JobState::Run);
    let fail = u32::from(state == JobState::Fail);
    let cancel = if state == JobState::Cancel { total - done } else { 0 };
    JobRow {
        job: JobId(id),
        name: name.into(),
        user: "ct-lab".into(),
        kind: kind.into(),
        state,
        tasks: TaskCounts { wait: total - done - run - fail - cancel, run, done, fail, cancel },
        resources: Resources { cores: 4, memory: MemoryMib(8192), gpus: 1 },
        nodes: if state == JobState::Wait { vec![] } else { vec!["gpu-1".into(), "cpu-2".into()] },
        submitted: At(NOW.0 - 4_000_000),
        started: (state != JobState::Wait).then_some(At(NOW.0 - 3_700_000)),
        ended: state.is_ended().then_some(At(NOW.0 - 60_000)),
        time_limit: id.is_multiple_of(2).then_some(gantry_model::Millis::from_seconds(43_200)),
        starts: done + run + fail,
        reason: match state {
            JobState::Wait => {
                Some("needs 4 gpus on one node; the most free is 1, of 3 nodes".into())
            }
            JobState::Fail => Some("exit 1".into()),
            _ => None,
        },
        exit: (state == JobState::Fail).then_some(Exit::Code(1)),
    }
}

pub fn node(name: &str, state: NodeState, busy: u32, gpus: u32) -> NodeStatus {
    let gpu =
        |n| Gpu { uuid: format!("GPU-{n}"), name: "H100 80G".into(), memory: MemoryMib(81_920) };
    let sample = Sample {
        at: NOW,
        cpu_permille: busy,
        memory_used_mib: 12_000,
        memory_total_mib: 65_536,
        disk_free_mib: 900_000,
        disk_total_mib: 2_000_000,
        network_received_kib: 12_345,
        network_sent_kib: 99,
        tasks: 2,
        gpus: (0..gpus)
            .map(|n| GpuSample {
                busy_permille: (n > 0).then_some(970),
                memory_used_mib: Some(70_000),
                temperature_c: Some(71),
                power_mw: Some(655_000),
            })
            .collect(),
        library: (name == "cpu-1").then_some(LibraryCounts {
            series: 41_220,
            instances: 12_004_000,
            quarantined: 31,
            samples: 7380,
            models: 3,
            predictions: 212,
        }),
        ingest: (name == "cpu-1").then_some(IngestCounts {
            associations: 2,
            associations_total: 900,
            received: 12_004_000,
            quarantined: 31,
            refused: 0,
        }),
    };
    NodeStatus {
        row: NodeRow {
            node: NodeId(1),
            facts: NodeFacts {
                name: name.into(),
                roles: vec![if gpus > 0 { Role::Gpu } else { Role::Cpu }],
                resources: Resources { cores: 64, memory: MemoryMib(65_536), gpus },
                gpus: (0..gpus).map(gpu).collect(),
                gpu_reason: (gpus == 0)
                    .then(|| "no NVIDIA driver (libnvidia-ml is not found)".into()),
                agent_version: "0.1.0".into(),
                boot_id: String::new(),
            },
            state,
            since: At(NOW.0 - 9000),
            used: Resources { cores: 40, memory: MemoryMib(30_000), gpus: gpus.min(1) },
            tasks: 2,
            gpu_jobs: (0..gpus).map(|n| (n > 0).then_some(JobId(4182))).collect(),
        },
        sample: (state == NodeState::Up).then_some(sample),
        sampled: Some(NOW),
    }
}

pub fn update() -> Update {
    let curve = |name: &str, from: f64, to: f64| Metric {
        name: name.into(),
        points: (0..60)
            .map(|n| Point::new(n * 10, to + (from - to) * (-(n as f64) / 12.0).exp()))
            .collect(),
    };
    Update {
        at: NOW,
        cluster: "radiology-a".into(),
        summary: Summary {
            nodes_up: 2,
            nodes: 3,
            cores_used: 80,
            cores: 128,
            gpus_used: 1,
            gpus: 2,
            jobs_run: 2,
            jobs_wait: 1,
            jobs_fail: 1,
            jobs_ended: 2,
        },
        nodes: vec![
            node("cpu-1", NodeState::Up, 634, 0),
            node("cpu-2", NodeState::Late, 0, 0),
            node("gpu-1", NodeState::Up, 91, 2),
        ],
        busy_permille: (0..120).map(|n| (n % 17 != 3).then_some((n * 8) as u16)).collect(),
        jobs: vec![
            job(4190, "predict", "predict", JobState::Wait, 0, 5),
            job(4189, "nnunet-fold3", "command", JobState::Wait, 0, 1),
            job(4182, "unet2d-ct", "train", JobState::Run, 0, 1),
            job(4181, "lungs", "preprocess", JobState::Run, 61, 100),
            job(4171, "unet2d-xr", "command", JobState::Fail, 0, 1),
            job(4166, "eval", "command", JobState::Done, 1, 1),
            job(4160, "resnet-cxr", "command", JobState::Cancel, 0, 1),
        ],
        metrics: vec![
            curve("images_per_second", 40.0, 52.0),
            curve("loss", 1.2, 0.15),
            curve("train_loss", 1.1, 0.14),
            curve("validation_dice", 0.2, 0.98),
        ],
        output: Some(Output {
            bytes: b"library: 5 samples of 5 patients\n::metric loss 0.5 1\nepoch   1  loss 0.8\n! slow storage\nepoch   2  loss 0.6\n".to_vec(),
            next: 90,
            live: true,
        }),
        notes: vec![
            Note { at: At(NOW.0 - 120_000), level: Level::Info, subject: Subject::Job(JobId(4182)), sentence: "started on gpu-1".into() },
            Note { at: At(NOW.0 - 9000), level: Level::Warn, subject: Subject::Node("cpu-2".into()), sentence: "its connection is gone".into() },
        ],
    }
}

pub fn app(size: (u16, u16)) -> App {
    let mut app = App::new(Keymap::shipped(), size);
    send(&mut app, vec![Message::Link(Link::Live), Message::Update(Box::new(update()))]);
    app
}

pub fn send(app: &mut App, messages: Vec<Message>) -> Vec<gantry::app::Effect> {
    let mut effects = Vec::new();
    for message in messages {
        app.apply(NOW, message, &mut effects);
        app.check().unwrap();
    }
    effects
}

/// Types keys: characters, or names in angle brackets.
pub fn typed(app: &mut App, keys: &str) -> Vec<gantry::app::Effect> {
    let mut messages = Vec::new();
    let mut rest = keys;
    while let Some(c) = rest.chars().next() {
        let (key, length) = match rest.split_once('>') {
            Some((name, _)) if c == '<' => {
                let key = match &name[1..] {
                    "enter" => Key::Enter,
                    "esc" => Key::Esc,
                    "down" => Key::Down,
                    "up" => Key::Up,
                    "backspace" => Key::Backspace,
                    "C-c" => Key::Ctrl('c'),
                    "C-d" => Key::Ctrl('d'),
                    "C-z" => Key::Ctrl('z'),
                    other => panic!("no key {other}"),
                };
                (key, name.len() + 1)
            }
            _ => (Key::Char(c), c.len_utf8()),
        };
        messages.push(Message::Key(key));
        rest = &rest[length..];
    }
    send(app, messages)
}
