//! The list of nodes of a cluster that is larger than one picture.
#![allow(clippy::unwrap_used, missing_docs)]

mod screens_support;

use gantry::app::{self, About, Effect, Message, View};
use gantry::ui::theme::{Colours, Glyphs, Theme};
use gantry_model::{Exit, Machine, TaskRow};
use gantry_wire::{Reply, Request, Scope};
use screens_support::{Console, node, picture, tasks};

const SIZE: (u16, u16) = (120, 36);

#[test]
fn nodes_that_no_picture_holds_are_asked_for_and_listed() {
    let mut console = Console::live(SIZE);
    console.press("2");
    let more = |console: &mut Console, scope_nodes: u32| {
        let mut update = picture(Scope::Nodes);
        update.summary.nodes = scope_nodes;
        let mut effects = Vec::new();
        console.at.0 += 6_000;
        let message = Message::Update { scope: Scope::Nodes, update: Box::new(update) };
        console.app.apply(console.at, message, &mut effects);
        effects.extend(ticked(console));
        after_of(&effects)
    };
    assert_eq!(more(&mut console, 4), None, "the picture has them all");
    let last = picture(Scope::Nodes).nodes.last().unwrap().row.facts.name.clone();
    assert_eq!(more(&mut console, 7), Some(last));
    // A page, and at once the next one.
    let page = |names: &[&str], more| Message::Answer {
        about: About::FurtherNodes,
        reply: Box::new(Ok(Reply::Nodes {
            rows: names.iter().map(|name| node(9, name, 8, 300)).collect(),
            more,
        })),
    };
    let mut effects = Vec::new();
    console.app.apply(console.at, page(&["x-1", "x-2"], true), &mut effects);
    assert_eq!(after_of(&effects).as_deref(), Some("x-2"));
    console.app.apply(console.at, page(&["x-3"], false), &mut Vec::new());
    assert_eq!(app::node_rows(&console.app).len(), 4, "they come with the next picture");
    more(&mut console, 7);
    let names: Vec<&str> =
        app::node_rows(&console.app).iter().map(|node| node.row.facts.name.as_str()).collect();
    assert_eq!(names.len(), 7, "{names:?}");
    console.press("G");
    assert_eq!(console.app.node.as_deref(), Some("x-3"));
    // What is drained counts them.
    console.press("xd");
    assert!(
        console.text(Theme { colours: Colours::Mono, glyphs: Glyphs::Unicode }).contains("x-3")
    );
    // A node that has gone is gone from the list once all pages have come anew.
    console.press("<esc><esc>");
    console.app.apply(console.at, page(&["x-1"], false), &mut Vec::new());
    more(&mut console, 5);
    assert_eq!(app::node_rows(&console.app).len(), 5);
}

#[test]
fn the_overview_says_how_many_nodes_it_does_not_show() {
    let theme = Theme { colours: Colours::Mono, glyphs: Glyphs::Unicode };
    for size in [(80, 24), (120, 36), (200, 50)] {
        for (nodes, said) in [
            (4, None),
            (5, Some("and 1 further node; 2 lists all")),
            (625, Some("and 621 further")),
        ] {
            let mut console = Console::live(size);
            let mut update = picture(Scope::Overview);
            update.summary.nodes = nodes;
            let message = Message::Update { scope: Scope::Overview, update: Box::new(update) };
            console.app.apply(console.at, message, &mut Vec::new());
            let text = console.text(theme);
            assert_eq!(text.contains("further node"), said.is_some(), "{size:?} {nodes}\n{text}");
            assert!(said.is_none_or(|said| text.contains(said)), "{size:?} {nodes}\n{text}");
        }
    }
}

#[test]
fn the_tasks_of_an_array_come_in_pages() {
    let mut console = Console::live((120, 36));
    console.press("4<enter>");
    let View::Job(job) = console.app.view else { panic!("{:?}", console.app.view) };
    let mut update = picture(Scope::Job(job));
    update.jobs[0].tasks = tasks(0, 0, 450, 2);
    let message = Message::Update { scope: Scope::Job(job), update: Box::new(update) };
    console.app.apply(console.at, message, &mut Vec::new());
    let from_asked = |console: &mut Console| {
        console.at.0 += 40_000;
        ticked(console).iter().find_map(|effect| match effect {
            Effect::Ask(ask) => match *ask.request {
                Request::Tasks { from, .. } => Some(from),
                _ => None,
            },
            _ => None,
        })
    };
    let row = |index: u32| TaskRow {
        task: job.task(index),
        state: if index % 300 == 7 { "failed" } else { "done" }.into(),
        node: Some("cpu-1".into()),
        starts: 1,
        exit: Some(Exit::Code(3)),
    };
    let page = |rows: std::ops::Range<u32>, more| Message::Answer {
        about: About::Tasks(job),
        reply: Box::new(Ok(Reply::Tasks { rows: rows.map(row).collect(), more })),
    };
    let theme = Theme { colours: Colours::Mono, glyphs: Glyphs::Unicode };
    assert_eq!(from_asked(&mut console), Some(0));
    let mut effects = Vec::new();
    console.app.apply(console.at, page(0..200, true), &mut effects);
    let next = |effects: &[Effect]| {
        effects.iter().any(|effect| match effect {
            Effect::Ask(ask) => matches!(*ask.request, Request::Tasks { from: 200, .. }),
            _ => false,
        })
    };
    assert!(next(&effects), "the next page is asked for at once");
    let text = console.text(theme);
    assert!(text.contains("1 of 200 of 452 failed or started twice:"), "{text}");
    console.app.apply(console.at, page(200..452, false), &mut Vec::new());
    let text = console.text(theme);
    assert!(
        text.contains(&format!("{} failed on cpu-1, exit 3, 1 starts", job.task(307))),
        "{text}"
    );
    assert_eq!(from_asked(&mut console), Some(0), "and looked at again");
}

/// What the console asks when a second is over.
fn ticked(console: &mut Console) -> Vec<Effect> {
    let mut effects = Vec::new();
    console.at.0 += 1_000;
    console.app.apply(console.at, Message::Tick, &mut effects);
    effects
}

/// Behind which node it asks for others.
fn after_of(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|effect| match effect {
        Effect::Ask(ask) => match &*ask.request {
            Request::Nodes { after } => after.clone(),
            _ => None,
        },
        _ => None,
    })
}
