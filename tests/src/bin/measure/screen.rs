//! What the console costs: bytes and writes to its terminal, the echo of a key, frames, memory.
//!
//! The app, its frames and the bytes that turn one into the next are measured in this process, with
//! pictures of the largest cluster that is known: 5,000 GPUs on 625 nodes, and an array of a million
//! tasks. Each second every reading is another. A write is a frame that is not empty, since a frame
//! is one write.

use std::time::Instant;

use anyhow::{Result, ensure};
use gantry::app::{App, Key, Keymap, Link, Message};
use gantry::term::Frames;
use gantry::ui;
use gantry::ui::theme::{Colours, Glyphs, Theme};
use gantry_model::{
    At, Gpu, JobId, JobRow, JobState, Machine, MemoryMib, NodeFacts, NodeId, NodeRow, NodeState,
    Resources, Role, Summary, TaskCounts,
};
use gantry_telemetry::{GpuSample, Sample};
use gantry_wire::{NodeStatus, Update};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::Size;
use crate::report::{Goal, Row};
use crate::statistics::{median, memory, milliseconds, quantile};

/// GPUs that are known.
const GPUS: u32 = 5_000;
const GPUS_PER_NODE: u32 = 8;
/// Tasks of the array.
const TASKS: u32 = 1_000_000;
/// Jobs of a picture.
const JOBS: u64 = 100;
const SECONDS: u64 = 60;
/// The design size.
const SCREEN: (u16, u16) = (120, 36);
const BEGIN: At = At(1_795_534_200_000);

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let nodes = size.nodes.unwrap_or(GPUS / GPUS_PER_NODE);
    let mut rows = Vec::new();
    for (name, keys) in [("overview", ""), ("nodes", "2"), ("jobs", "4")] {
        let seen = watch(keys, nodes, Colours::Indexed)?;
        rows.push(
            Row::new(format!("{name}, all readings change"), "bytes/s", seen.bytes_a_second)
                .goal(Goal::AtMost(16_000.0)),
        );
        rows.push(Row::new(format!("{name}, writes"), "writes/s", seen.writes_a_second));
        rows.push(
            Row::new(format!("{name}, idle"), "bytes/s", seen.idle_bytes).goal(Goal::AtMost(0.0)),
        );
        rows.push(
            Row::new(format!("{name}, echo of a key, most"), "bytes", seen.echo_bytes)
                .goal(Goal::AtMost(400.0)),
        );
        rows.push(
            Row::new(format!("{name}, a frame, p99"), "ms", quantile(&seen.frames_ms, 990))
                .goal(Goal::AtMost(5.0)),
        );
    }
    let before = memory("self", "VmRSS")?;
    let (firsts, kept) = first_frames(size.rounds(), nodes)?;
    let after = memory("self", "VmRSS")?;
    rows.push(
        Row::new("from the first picture to its frame", "ms", median(&firsts))
            .goal(Goal::AtMost(100.0)),
    );
    let each = after.saturating_sub(before) as f64 / kept.len() as f64 / f64::from(1 << 20);
    rows.push(Row::new("memory of an app and its picture", "MiB", each).goal(Goal::AtMost(60.0)));
    Ok(rows)
}

/// What a terminal has seen of a screen.
struct Seen {
    bytes_a_second: f64,
    writes_a_second: f64,
    idle_bytes: f64,
    echo_bytes: f64,
    frames_ms: Vec<f64>,
}

/// An app and its terminal.
struct Seat {
    app: App,
    frames: Frames,
    theme: Theme,
}

impl Seat {
    fn take(colours: Colours) -> Self {
        let mut app = App::new(Keymap::shipped(), SCREEN);
        app.apply(BEGIN, Message::Link(Link::Live), &mut Vec::new());
        let theme = Theme { colours, glyphs: Glyphs::Unicode };
        Self { app, frames: Frames::new(SCREEN.0, SCREEN.1), theme }
    }

    fn tell(&mut self, at: At, message: Message) {
        self.app.apply(at, message, &mut Vec::new());
    }

    fn see(&mut self, second: u64, nodes: u32) {
        let scope = self.app.view.scope();
        let update = Box::new(picture(second, nodes));
        self.tell(At(BEGIN.0 + second * 1000), Message::Update { scope, update });
    }

    /// Draws; gives the bytes for the terminal.
    fn draw(&mut self) -> Result<usize> {
        let mut buffer = Buffer::empty(Rect::new(0, 0, SCREEN.0, SCREEN.1));
        let cursor = ui::render(&self.app, self.theme, &mut buffer);
        Ok(self.frames.bytes(&buffer, cursor)?.len())
    }
}

fn watch(keys: &str, nodes: u32, colours: Colours) -> Result<Seen> {
    let mut seat = Seat::take(colours);
    seat.see(0, nodes);
    for key in keys.chars() {
        seat.tell(BEGIN, Message::Key(Key::Char(key)));
        seat.see(0, nodes);
    }
    ensure!(seat.draw()? > 0, "the first frame is empty");
    let (mut bytes, mut writes, mut frames_ms) = (0, 0, Vec::new());
    for second in 1..=SECONDS {
        seat.see(second, nodes);
        let start = Instant::now();
        let count = seat.draw()?;
        frames_ms.push(milliseconds(start.elapsed()));
        bytes += count;
        writes += u32::from(count > 0);
    }
    let mut idle = 0;
    for _ in 0..SECONDS {
        seat.tell(At(BEGIN.0 + SECONDS * 1000), Message::Tick);
        idle += seat.draw()?;
    }
    let mut echo = 0;
    for key in "jjjkkk".chars() {
        seat.tell(At(BEGIN.0 + SECONDS * 1000), Message::Key(Key::Char(key)));
        echo = echo.max(seat.draw()?);
    }
    let a_second = |count: f64| count / SECONDS as f64;
    Ok(Seen {
        bytes_a_second: a_second(bytes as f64),
        writes_a_second: a_second(f64::from(writes)),
        idle_bytes: a_second(idle as f64),
        echo_bytes: echo as f64,
        frames_ms,
    })
}

/// Milliseconds from a first picture to its bytes, and what was made for it.
fn first_frames(rounds: usize, nodes: u32) -> Result<(Vec<f64>, Vec<Seat>)> {
    let (mut took, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let update = Box::new(picture(0, nodes));
        let start = Instant::now();
        let mut seat = Seat::take(Colours::True);
        let scope = seat.app.view.scope();
        seat.tell(BEGIN, Message::Update { scope, update });
        ensure!(seat.draw()? > 0, "the first frame is empty");
        took.push(milliseconds(start.elapsed()));
        kept.push(seat);
    }
    Ok((took, kept))
}

/// The largest cluster that is known, so many seconds on.
fn picture(second: u64, nodes: u32) -> Update {
    let at = At(BEGIN.0 + second * 1000);
    let gpus = nodes * GPUS_PER_NODE;
    Update {
        at,
        cluster: "measured".into(),
        summary: Summary {
            nodes_up: nodes,
            nodes,
            cores_used: nodes * 64,
            cores: nodes * 128,
            gpus_used: gpus / 2,
            gpus,
            jobs_run: JOBS as u32,
            ..Summary::default()
        },
        nodes: (0..nodes).map(|number| node(number, at, second)).collect(),
        busy_permille: (0..120).map(|cell| Some(busy(cell, second) as u16)).collect(),
        gpu_busy_permille: Vec::new(),
        gpu_power_w: Vec::new(),
        owners: Vec::new(),
        jobs: (0..JOBS).rev().map(|number| job(number, at, second)).collect(),
        metrics: Vec::new(),
        output: None,
        notes: Vec::new(),
    }
}

/// A reading that is another each second, and the same in each run.
fn busy(number: u64, second: u64) -> u32 {
    ((number * 7919 + second * 104_729) % 1000) as u32
}

fn node(number: u32, at: At, second: u64) -> NodeStatus {
    let gpu = |index: u32| Gpu {
        uuid: format!("GPU-{number}-{index}"),
        name: "NVIDIA H100 80GB HBM3".into(),
        memory: MemoryMib(81_559),
        ..Gpu::default()
    };
    let resources = Resources {
        cores: 128,
        memory: MemoryMib(2 << 20),
        gpus: GPUS_PER_NODE,
        ..Resources::default()
    };
    let facts = NodeFacts {
        name: format!("dgx-{number:03}"),
        roles: vec![Role::Gpu],
        resources,
        gpus: (0..GPUS_PER_NODE).map(gpu).collect(),
        agent_version: "0.1.0".into(),
        ..NodeFacts::default()
    };
    let read = |index: u32| {
        let busy = busy(u64::from(number * GPUS_PER_NODE + index), second);
        GpuSample {
            busy_permille: Some(busy),
            memory_used_mib: Some(u64::from(busy) * 75),
            temperature_c: Some(35 + busy / 28),
            power_mw: Some(80_000 + busy * 580),
            ..GpuSample::default()
        }
    };
    let sample = Sample {
        at,
        cpu_permille: busy(u64::from(number), second),
        memory_used_mib: 1 << 20,
        memory_total_mib: 2 << 20,
        gpus: (0..GPUS_PER_NODE).map(read).collect(),
        ..Sample::default()
    };
    let row = NodeRow {
        node: NodeId(number),
        facts,
        state: NodeState::Up,
        since: BEGIN,
        used: Resources { cores: 64, ..Resources::default() },
        gpu_jobs: vec![Some(JobId(1)); GPUS_PER_NODE as usize],
        tasks: 2,
        ..NodeRow::default()
    };
    NodeStatus { row, sample: Some(sample), sampled: Some(at) }
}

fn job(number: u64, at: At, second: u64) -> JobRow {
    let ended = (TASKS / 100 + second as u32 * 37).min(TASKS);
    JobRow {
        job: JobId(number),
        name: format!("array-{number}"),
        user: "ct-lab".into(),
        kind: "command".into(),
        state: JobState::Run,
        tasks: TaskCounts { wait: TASKS - ended, done: ended, ..TaskCounts::default() },
        nodes: vec!["dgx-001".into()],
        submitted: BEGIN,
        started: Some(at),
        ..JobRow::default()
    }
}
