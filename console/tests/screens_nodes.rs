//! The list of nodes of a cluster that is larger than one picture.
#![allow(clippy::unwrap_used, missing_docs)]

mod screens_support;

use gantry::app::{self, About, Effect, Message};
use gantry::ui::theme::{Colours, Glyphs, Theme};
use gantry_model::Machine;
use gantry_wire::{Reply, Request, Scope};
use screens_support::{Console, node, picture};

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
