//! Keys on the console's machine: what is before, what is typed, what is after.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry::app::{Effect, Message, Overlay, View};
use gantry_model::{JobId, JobState};
use gantry_wire::Scope;
use support::{app, job, send, typed, update};

#[test]
fn keys_move_and_open() {
    for (keys, view, job) in [
        ("", View::Overview, 4190),
        ("j", View::Overview, 4189),
        ("jk", View::Overview, 4190),
        ("k", View::Overview, 4190),
        ("3G", View::Jobs, 4160),
        ("3Ggg", View::Jobs, 4190),
        ("3jj<enter>", View::Job(JobId(4182)), 4182),
        ("3jjo<esc>", View::Jobs, 4182),
        ("jj<enter>q", View::Overview, 4182),
        ("4j", View::Data, 4182),
        ("2", View::Nodes, 4190),
        ("3<C-d>", View::Jobs, 4160),
        ("3/unet<enter>", View::Jobs, 4189),
        ("3/!unet fail<esc>", View::Jobs, 4190),
    ] {
        let mut app = app((120, 36));
        typed(&mut app, keys);
        assert_eq!((app.view, app.job), (view, Some(JobId(job))), "{keys}");
    }
}

#[test]
fn a_view_watches_what_it_shows() {
    let mut app = app((80, 24));
    assert_eq!(typed(&mut app, "2"), [Effect::Watch(Scope::Nodes)]);
    assert_eq!(typed(&mut app, "2"), []);
    assert_eq!(
        typed(&mut app, "3<enter>"),
        [Effect::Watch(Scope::Jobs), Effect::Watch(Scope::Job(JobId(4190)))]
    );
}

#[test]
fn a_choice_is_a_job_and_not_a_row() {
    let mut app = app((120, 36));
    typed(&mut app, "3jj");
    let mut later = update();
    later.jobs.insert(0, job(4191, "new", "command", JobState::Run, 0, 1));
    send(&mut app, vec![Message::Update(Box::new(later))]);
    assert_eq!(app.job, Some(JobId(4182)));
}

#[test]
fn what_ends_work_asks_and_says_what_will_happen() {
    let mut app = app((120, 36));
    assert_eq!(typed(&mut app, "3jjx"), [Effect::Watch(Scope::Jobs)]);
    assert!(matches!(app.overlay, Overlay::Cancel { job: JobId(4182), .. }));
    assert_eq!(typed(&mut app, "<enter>"), [], "nothing was typed");
    assert_eq!(typed(&mut app, "418<enter>"), [], "another number was typed");
    assert_eq!(typed(&mut app, "2<enter>"), [Effect::Cancel(JobId(4182))]);
    assert_eq!(app.overlay, Overlay::None);
    typed(&mut app, "x<esc>");
    assert_eq!(app.message.as_ref().unwrap().1, "kept");
    typed(&mut app, "G");
    assert_eq!(typed(&mut app, "x"), []);
    assert!(app.message.as_ref().unwrap().1.contains("has ended"));
    app.read_only = true;
    typed(&mut app, "ggx");
    assert_eq!(app.overlay, Overlay::None);
}

#[test]
fn pasted_text_never_acts() {
    let mut app = app((120, 36));
    let effects = send(&mut app, vec![Message::Paste("x4190\nq".into())]);
    assert_eq!((effects, app.overlay.clone()), (vec![], Overlay::None));
    typed(&mut app, "/");
    send(&mut app, vec![Message::Paste("tra\x1b[31min".into())]);
    assert_eq!(app.filter, "tra[31min");
}

#[test]
fn frozen_is_frozen_and_leaving_leaves() {
    let mut app = app((120, 36));
    typed(&mut app, "z");
    let mut later = update();
    later.jobs.clear();
    send(&mut app, vec![Message::Update(Box::new(later.clone()))]);
    assert_eq!(app.jobs().len(), 7);
    typed(&mut app, "z");
    send(&mut app, vec![Message::Update(Box::new(later))]);
    assert!(app.jobs().is_empty() && app.job.is_none());
    assert_eq!(typed(&mut app, "q"), [Effect::Quit { keep_frame: false }]);
    assert_eq!(typed(&mut app, "Q"), [Effect::Quit { keep_frame: true }]);
    assert_eq!(typed(&mut app, "<C-c>"), [Effect::Quit { keep_frame: false }]);
    assert_eq!(typed(&mut app, "<C-z>"), [Effect::Suspend]);
}
