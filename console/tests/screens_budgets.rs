//! What screens may cost: bytes to the terminal, time of a frame, memory, with five thousand GPUs and a
//! million tasks known.
//!
//! Bytes are exact. Times are held with room, since tests run beside others and less optimised than a
//! release; `measure screen` takes the real ones.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]
#![allow(clippy::print_stdout, reason = "the figures, for who asks with --nocapture")]

mod screens_support;

use std::time::{Duration, Instant};

use gantry::app::{About, Key, Message};
use gantry::term::Frames;
use gantry::ui::theme::{Colours, Glyphs, Theme};
use gantry_model::{At, JobId, JobState, Machine};
use gantry_telemetry::{Bucket, Quantity};
use gantry_wire::{GpuNode, GpuPage, GpuRow, Holder, Reply, Scope, SeriesRow};
use screens_support::{Console, NOW, gpu_node, job, picture, tasks};

const INDEXED: Theme = Theme { colours: Colours::Indexed, glyphs: Glyphs::Unicode };
const TRUE: Theme = Theme { colours: Colours::True, glyphs: Glyphs::Unicode };
const NODES: usize = 625;

/// How busy a GPU is in a second: it wavers, and no two alike.
fn busy(gpu: usize, second: u64) -> u32 {
    let mixed = (second + gpu as u64 * 7919).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    (700 + mixed % 300) as u32
}

/// Every GPU of the cluster at a second, in pages as a scheduler gives them.
fn look(console: &mut Console, second: u64) {
    for first in (0..NODES).step_by(64) {
        let last = (first + 64).min(NODES);
        let nodes = (first..last).map(|node| GpuNode {
            name: format!("dgx-{node:03}"),
            sampled: Some(At(NOW.0 + second * 1000)),
            gpus: (0..8)
                .map(|index| GpuRow {
                    index,
                    job: Some(JobId(node as u64 / 2)),
                    memory_mib: 81_559,
                    busy_permille: Some(busy(node * 8 + usize::from(index), second)),
                    memory_used_mib: Some(60_000 + u64::from(busy(node, second))),
                    temperature_c: Some(60 + busy(node, second) / 100),
                    power_w: Some(500 + busy(node, second) / 10),
                    ..GpuRow::default()
                })
                .collect(),
            ..GpuNode::default()
        });
        let holders = (first / 2..=last / 2).map(|job| Holder {
            job: JobId(job as u64),
            name: "unet3d-ct".into(),
            user: "ct-lab".into(),
        });
        let page =
            GpuPage { nodes: nodes.collect(), holders: holders.collect(), more: last < NODES };
        let reply = Box::new(Ok(Reply::Gpus(page)));
        // What it asks next is not answered by the small cluster of the other tests.
        let answer = Message::Answer { about: About::Gpus, reply };
        console.app.apply(console.at, answer, &mut Vec::new());
    }
}

fn strips(console: &mut Console, second: u64) {
    let at = At(NOW.0 + second * 1000);
    let cells = console.app.gpus.cells();
    for node in 0..4 {
        let row = |gpu: u16| {
            let cell = |n: u16| {
                let mean = busy(
                    node * 8 + usize::from(gpu),
                    (at.0 / 5000).saturating_sub(u64::from(cells - n)),
                );
                Some(Bucket { min: mean, mean, max: mean })
            };
            let cells = (0..cells).map(cell).collect();
            SeriesRow { quantity: Quantity::GpuBusy, gpu: Some(gpu), cells }
        };
        let reply = Box::new(Ok(Reply::Series { at, rows: (0..8).map(row).collect() }));
        let about = About::Strips(format!("dgx-{node:03}"));
        console.app.apply(console.at, Message::Answer { about, reply }, &mut Vec::new());
    }
}

fn gpus_console() -> Console {
    let mut console = Console::live((120, 36));
    console.press("3");
    look(&mut console, 0);
    strips(&mut console, 0);
    assert_eq!(console.app.gpus.all().len(), NODES * 8);
    console
}

/// Bytes a second over a minute of the GPUs' screen, with a frame a second and all numbers new each
/// time they may be.
fn bytes_a_second(theme: Theme, sweep: bool, numbers_each: u64) -> usize {
    let mut console = gpus_console();
    console.app.gpus.sweep = sweep;
    let mut frames = Frames::new(120, 36);
    let (frame, cursor) = console.screen(theme);
    frames.bytes(&frame, cursor).unwrap();
    let mut sum = 0;
    for second in 1..=60 {
        console.at.0 += 1000;
        if second % numbers_each == 0 {
            look(&mut console, second);
        }
        if second % numbers_each.max(5) == 0 {
            strips(&mut console, second);
        }
        if second == 1 && numbers_each > 10 {
            console.app.apply(console.at, Message::Lean(true), &mut Vec::new());
        }
        let mut update = picture(Scope::Summary);
        update.at.0 += second * 1000;
        let message = Message::Update { scope: Scope::Summary, update: Box::new(update) };
        console.app.apply(console.at, message, &mut Vec::new());
        let (frame, cursor) = console.screen(theme);
        sum += frames.bytes(&frame, cursor).unwrap().len();
    }
    sum / 60
}

#[test]
fn the_gpus_cost_no_more_bytes_than_a_line_has() {
    for (what, theme, sweep, each, most) in [
        ("rich, scrolling", TRUE, false, 1, 16_000),
        ("rich, sweeping", INDEXED, true, 2, 16_000),
        ("lean", INDEXED, true, 15, 1_000),
    ] {
        let found = bytes_a_second(theme, sweep, each);
        println!("{what}: {found} bytes/s");
        assert!(found <= most, "{what}: {found} bytes/s");
    }
}

#[test]
fn the_echo_of_a_key_is_small_on_every_list() {
    for view in ["1", "2", "3", "4", "5", "6"] {
        let mut console = Console::live((120, 36));
        console.press(view);
        let mut frames = Frames::new(120, 36);
        let mut bytes = |console: &Console| {
            let (frame, cursor) = console.screen(INDEXED);
            frames.bytes(&frame, cursor).unwrap().len()
        };
        bytes(&console);
        // Words that no row holds, so that only what is typed changes.
        console.press("/qzq");
        bytes(&console);
        console.press("q");
        let echo = bytes(&console);
        assert!(echo <= 400, "{view}: {echo} bytes");
    }
}

#[test]
fn a_step_down_a_list_is_a_small_echo() {
    // Two rows; what is known of a node follows once no key comes for a moment.
    for view in ['1', '2', '4'] {
        let mut console = Console::live((120, 36));
        // What is asked is not answered yet: a key is echoed before that.
        let tell = |console: &mut Console, message| {
            console.app.apply(console.at, message, &mut Vec::new());
        };
        tell(&mut console, Message::Key(Key::Char(view)));
        let scope = console.app.view.scope();
        let mut update = picture(scope);
        update.nodes = (0..40)
            .map(|n| {
                let gpus: Vec<Option<u32>> = (0..8).map(|gpu| Some(busy(n * 8 + gpu, 1))).collect();
                gpu_node(n as u32, &format!("dgx-{n:03}"), &gpus)
            })
            .collect();
        update.jobs = (0..40)
            .rev()
            .map(|n| job(n, &format!("array-{n}"), "command", JobState::Run, tasks(9, 3, 96, 0)))
            .collect();
        tell(&mut console, Message::Update { scope, update: Box::new(update) });
        let mut frames = Frames::new(120, 36);
        let mut bytes = |console: &Console| {
            let (frame, cursor) = console.screen(INDEXED);
            frames.bytes(&frame, cursor).unwrap().len()
        };
        bytes(&console);
        let mut echo = 0;
        for key in ['j', 'j', 'j', 'k', 'k'] {
            tell(&mut console, Message::Key(Key::Char(key)));
            echo = echo.max(bytes(&console));
        }
        println!("{view}: {echo} bytes");
        assert!(echo <= 400, "{view}: {echo} bytes");
        let chosen = console.app.node.clone();
        tell(&mut console, Message::Tick);
        assert_eq!(console.app.looked_at, chosen);
        assert_eq!(bytes(&console) > 0, view != '4', "{view}");
    }
}

#[test]
fn five_thousand_gpus_and_a_million_tasks_are_drawn_in_time() {
    let begun = Instant::now();
    let mut console = Console::live((200, 50));
    console.screen(TRUE);
    let first = begun.elapsed();
    let mut worst = Duration::ZERO;
    let mut draw = |console: &Console| {
        let begun = Instant::now();
        for _ in 0..20 {
            console.screen(TRUE);
        }
        worst = worst.max(begun.elapsed() / 20);
    };
    console.press("3");
    look(&mut console, 0);
    strips(&mut console, 0);
    for keys in ["", "gu", "gj", "g0", "s", "/sm>80<enter>", "G"] {
        console.press(keys);
        draw(&console);
    }
    let mut update = picture(Scope::Jobs);
    update.jobs =
        (0..100).map(|n| job(n, "job", "train", JobState::Run, tasks(1, 3, 9996, 0))).collect();
    console.press("4");
    console.send(Message::Update { scope: Scope::Jobs, update: Box::new(update) });
    draw(&console);
    println!("first frame {first:?}, worst frame {worst:?}");
    // The budgets are 100 ms and 5 ms.
    assert!(
        first < Duration::from_millis(100) && worst < Duration::from_millis(50),
        "{first:?} {worst:?}"
    );
}

/// Memory of this process, in MiB.
fn resident_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages / 256
}

#[test]
fn an_hour_of_a_large_cluster_takes_bounded_memory() {
    let before = resident_mib();
    let mut console = gpus_console();
    for second in 0..240 {
        console.at.0 += 15_000;
        for (key, scope) in [('1', Scope::Overview), ('3', Scope::Summary)] {
            console.app.apply(console.at, Message::Key(Key::Char(key)), &mut Vec::new());
            let mut update = picture(scope);
            update.at.0 += second * 15_000;
            let nodes: Vec<_> = update.nodes.iter().cycle().take(100).cloned().collect();
            if scope == Scope::Overview {
                update.nodes = nodes;
            }
            let message = Message::Update { scope, update: Box::new(update) };
            console.app.apply(console.at, message, &mut Vec::new());
        }
        look(&mut console, second);
    }
    let grown = resident_mib().saturating_sub(before);
    println!("{grown} MiB");
    assert!(grown <= 60, "{grown} MiB");
}
