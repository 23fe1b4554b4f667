//! The memory of a whole console process with five thousand GPUs, a million tasks and a large library
//! known: this test is alone in its process, so that nothing else is counted.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]
#![allow(clippy::print_stdout, reason = "the figure, for who asks with --nocapture")]

mod screens_support;

use std::sync::Arc;

use gantry::app::library::{ROWS_MAX, Told};
use gantry::app::{About, Message};
use gantry::term::Frames;
use gantry::ui::theme::{Colours, Glyphs, Theme};
use gantry_model::{At, JobId, JobState};
use gantry_wire::{GpuNode, GpuPage, GpuRow, Holder, Reply, Scope};
use screens_support::{Console, NOW, job, library, picture, tasks};

const NODES: u64 = 625;

fn gpus() -> GpuPage {
    let node = |node: u64| GpuNode {
        name: format!("dgx-{node:03}"),
        sampled: Some(NOW),
        gpus: (0..8)
            .map(|index| GpuRow {
                index,
                job: Some(JobId(node / 2)),
                memory_mib: 81_559,
                busy_permille: Some(700),
                memory_used_mib: Some(60_000),
                temperature_c: Some(60),
                power_w: Some(500),
                ..GpuRow::default()
            })
            .collect(),
        ..GpuNode::default()
    };
    let holder = |job| Holder { job: JobId(job), name: "unet3d-ct".into(), user: "ct-lab".into() };
    let holders = (0..NODES.div_ceil(2)).map(holder).collect();
    GpuPage { nodes: (0..NODES).map(node).collect(), holders, more: false }
}

/// Memory of this process, in MiB.
fn resident_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages / 256
}

#[test]
fn the_whole_process_stays_within_its_budget() {
    let theme = Theme { colours: Colours::Indexed, glyphs: Glyphs::Unicode };
    let mut console = Console::live((200, 50));
    let mut frames = Frames::new(200, 50);
    let mut draw = |console: &Console| {
        let (frame, cursor) = console.screen(theme);
        frames.bytes(&frame, cursor).unwrap();
    };
    // Half an hour of pictures, all with the most rows that a scheduler sends.
    for step in 0..120 {
        for (key, scope) in [("1", Scope::Overview), ("3", Scope::Summary), ("4", Scope::Jobs)] {
            console.at = At(NOW.0 + step * 15_000);
            console.press(key);
            let mut update = picture(scope);
            update.at.0 += step * 15_000;
            let row = |n| job(n, "job", "train", JobState::Run, tasks(1, 3, 9996, 0));
            update.jobs = if scope == Scope::Jobs { (0..100).map(row).collect() } else { vec![] };
            if scope == Scope::Overview {
                update.nodes = update.nodes.iter().cycle().take(100).cloned().collect();
            }
            console.send(Message::Update { scope, update: Box::new(update) });
            let reply = Box::new(Ok(Reply::Gpus(gpus())));
            console.send(Message::Answer { about: About::Gpus, reply });
            draw(&console);
        }
    }
    let mut listing = library::listing();
    listing.samples = listing.samples.iter().cycle().take(ROWS_MAX).cloned().collect();
    listing.series = listing.series.iter().cycle().take(ROWS_MAX).cloned().collect();
    for (n, sample) in listing.samples.iter_mut().enumerate() {
        sample.id = format!("{n:020x}");
    }
    console.press("5<tab><tab>");
    console.send(Message::Library(Told::Listing(Arc::new(listing))));
    draw(&console);
    assert_eq!(console.app.shelf.shown().len(), ROWS_MAX);
    let mib = resident_mib();
    println!("{mib} MiB with {} GPUs and a million tasks", NODES * 8);
    assert!(mib <= 60, "{mib} MiB");
}
