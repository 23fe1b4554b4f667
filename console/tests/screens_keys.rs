//! Keys on the pure console: what was on the screen, what is pressed, what follows.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod screens_support;

use gantry::app::{Action, Effect, Keymap, Message, Overlay, View};
use gantry_model::{JobId, JobState};
use gantry_wire::Scope;
use screens_support::{Console, job, picture, tasks};

const SIZE: (u16, u16) = (120, 36);

/// What can be seen of a console in one line: view, chosen job and node, overlay, message.
fn state(console: &Console) -> String {
    let app = &console.app;
    let view = match app.view {
        View::Job(job) => job.to_string(),
        view => format!("{view:?}").to_lowercase(),
    };
    let job = app.job.map_or_else(|| "-".into(), |job| job.to_string());
    let node = app.node.clone().unwrap_or_else(|| "-".into());
    let overlay = match &app.overlay {
        Overlay::None => String::new(),
        Overlay::Help(line) => format!(" help {line}"),
        Overlay::Filter => format!(" /{}", app.filter),
        Overlay::Cancel { jobs, typed } => {
            let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            format!(" cancel {} [{typed}]", jobs.join(","))
        }
    };
    format!("{view} {job} {node}{overlay}")
}

#[test]
fn keys_lead_where_the_table_says() {
    for (keys, expected) in [
        ("", "overview j14 cpu-1"),
        ("j", "overview j13 cpu-1"),
        ("jjk", "overview j13 cpu-1"),
        ("G", "overview j8 cpu-1"),
        ("Ggg", "overview j14 cpu-1"),
        // A lone prefix does nothing, and the key after it means what it means.
        ("jgx", "overview j13 cpu-1"),
        ("<c-d>", "overview j8 cpu-1"),
        ("2", "nodes j14 cpu-1"),
        ("2jj", "nodes j14 dgx-01"),
        ("2<pgdn>", "nodes j14 gpu-1"),
        ("2j3", "jobs j14 cpu-2"),
        ("2<enter>", "jobs j11 cpu-1"),
        ("4", "data j13 cpu-1"),
        ("3j<enter>", "j13 j13 cpu-1"),
        ("3j<enter>q", "jobs j13 cpu-1"),
        ("4<enter><esc>", "data j13 cpu-1"),
        ("?", "overview j14 cpu-1 help 0"),
        ("?jjk", "overview j14 cpu-1 help 1"),
        ("?x?", "overview j14 cpu-1"),
        ("3/lung", "jobs j13 cpu-1 /lung"),
        ("3/lung<enter>j", "jobs j12 cpu-1"),
        ("3/lung<back><back><back>z<esc>", "jobs j14 cpu-1"),
        ("3/state:fail<enter>", "jobs j10 cpu-1"),
        ("3/nothing<enter>", "jobs - cpu-1"),
        ("3/nothing<enter>x", "jobs - cpu-1"),
        ("3x", "jobs j14 cpu-1 cancel j14 []"),
        ("3x1<back>14", "jobs j14 cpu-1 cancel j14 [14]"),
        ("3x<esc>", "jobs j14 cpu-1"),
        ("3xq", "jobs j14 cpu-1 cancel j14 [q]"),
        ("3Gx", "jobs j8 cpu-1"),
        ("3 j x", "jobs j11 cpu-1 cancel j14,j12 []"),
        ("3  <esc>x", "jobs j12 cpu-1 cancel j12 []"),
        ("3*x", "jobs j14 cpu-1 cancel j14,j13,j12,j11 []"),
        ("3**x", "jobs j14 cpu-1 cancel j14 []"),
        ("3jj<enter>x", "j12 j12 cpu-1 cancel j12 []"),
        ("3s", "jobs j14 cpu-1"),
        ("3sgg", "jobs j12 cpu-1"),
        ("3Sgg", "jobs j8 cpu-1"),
    ] {
        let mut console = Console::live(SIZE);
        console.press(keys);
        assert_eq!(state(&console), expected, "{keys:?}");
    }
}

#[test]
fn keys_have_their_effects() {
    let quit = |keep_frame| Effect::Quit { keep_frame };
    for (keys, expected) in [
        ("", vec![]),
        ("2", vec![Effect::Watch(Scope::Nodes)]),
        ("22", vec![Effect::Watch(Scope::Nodes)]),
        ("j<enter>", vec![Effect::Watch(Scope::Job(JobId(13)))]),
        ("q", vec![quit(false)]),
        ("Q", vec![quit(true)]),
        ("<c-c>", vec![quit(false)]),
        ("?<c-c>", vec![quit(false)]),
        ("?q", vec![]),
        ("<esc>", vec![]),
        ("<c-z>", vec![Effect::Suspend]),
        ("y", vec![Effect::Copy("j14".into())]),
        ("x14<enter>", vec![Effect::Cancel(JobId(14))]),
        ("x<enter>", vec![]),
        ("x13<enter>", vec![]),
        ("xj14<enter>", vec![]),
        ("xy<enter>", vec![]),
        ("x14<c-c>", vec![]),
        (" jx1<enter>", vec![]),
        (" jx14<enter>", vec![Effect::Cancel(JobId(14))]),
        (
            "*x4<enter>",
            [14, 13, 12, 11].into_iter().map(|job| Effect::Cancel(JobId(job))).collect(),
        ),
        ("*x14<enter>", vec![]),
    ] {
        let mut console = Console::live(SIZE);
        console.press(keys);
        assert_eq!(console.effects, expected, "{keys:?}");
    }
}

#[test]
fn no_two_keys_end_work() {
    // Whatever is pressed, a cancel needs x, the word and Enter: three keys at least.
    let keys: Vec<String> = (' '..='~')
        .map(String::from)
        .chain(["<enter>", "<esc>", "<c-c>", "<c-d>", "<home>", "<end>"].map(str::to_owned))
        .filter(|key| key != "<")
        .collect();
    for one in &keys {
        for two in &keys {
            for start in ["3", "3jj<enter>", "4", "1"] {
                let mut console = Console::live(SIZE);
                console.press(start).press(one).press(two);
                let cancels = |effect: &Effect| matches!(effect, Effect::Cancel(_));
                assert!(!console.effects.iter().any(cancels), "{start} {one} {two}");
            }
        }
    }
}

#[test]
fn every_action_is_bound_and_explained() {
    let keymap = Keymap::shipped();
    let bound = |action: Action| keymap.bindings().iter().any(|one| one.action == action);
    for action in [Action::Help, Action::Quit, Action::QuitOrBack, Action::Back, Action::Act] {
        assert!(bound(action), "{action:?}");
    }
    let mut console = Console::live((120, 60));
    console.press("?");
    let theme = gantry::ui::theme::Theme {
        colours: gantry::ui::theme::Colours::Mono,
        glyphs: gantry::ui::theme::Glyphs::Ascii,
    };
    let text = console.text(theme);
    for binding in keymap.bindings() {
        assert!(text.contains(&binding.help), "the help lacks {:?}\n{text}", binding.help);
    }
}

#[test]
fn pasted_text_never_acts() {
    for (keys, expected) in [
        ("3", "jobs j14 cpu-1"),
        ("3x", "jobs j14 cpu-1 cancel j14 []"),
        ("3?", "jobs j14 cpu-1 help 0"),
        ("3/", "jobs - cpu-1 /14q"),
    ] {
        let mut console = Console::live(SIZE);
        console.press(keys);
        console.effects.clear();
        console.send(Message::Paste("14\x1b\r\nq".into()));
        assert_eq!(state(&console), expected, "{keys}");
        assert_eq!(console.effects, [], "{keys}");
    }
}

#[test]
fn a_read_only_console_asks_nothing() {
    let mut console = Console::live(SIZE);
    console.app.read_only = true;
    console.press("3x14<enter>");
    assert!(!console.effects.iter().any(|effect| matches!(effect, Effect::Cancel(_))));
    assert!(console.app.message.as_ref().unwrap().1.contains("read-only"));
}

#[test]
fn the_choice_is_a_job_and_not_a_row() {
    let mut console = Console::live(SIZE);
    console.press("3jj");
    assert_eq!(console.app.job, Some(JobId(12)));
    let mut update = picture(Scope::Jobs);
    update.jobs.insert(0, job(15, "new", "command", JobState::Wait, tasks(1, 0, 0, 0)));
    update.jobs.retain(|row| row.job != JobId(13));
    console.send(Message::Update { scope: Scope::Jobs, update: Box::new(update.clone()) });
    assert_eq!(console.app.job, Some(JobId(12)), "rows moved, the choice stayed");
    update.jobs.retain(|row| row.job != JobId(12));
    console.send(Message::Update { scope: Scope::Jobs, update: Box::new(update) });
    assert_eq!(console.app.job, Some(JobId(15)), "it is gone: the first row");
}

#[test]
fn a_marked_job_that_ends_is_marked_no_more() {
    let mut console = Console::live(SIZE);
    console.press("3*");
    assert_eq!(console.app.marked.len(), 4);
    let mut update = picture(Scope::Jobs);
    for row in &mut update.jobs {
        if row.job == JobId(12) {
            row.state = JobState::Done;
        }
    }
    console.send(Message::Update { scope: Scope::Jobs, update: Box::new(update) });
    assert_eq!(console.app.marked.len(), 3);
}

#[test]
fn a_late_picture_of_another_screen_is_not_shown() {
    let mut console = Console::live(SIZE);
    console.press("3jj<enter>");
    let lines = console.app.update.as_ref().unwrap().metrics.len();
    let update = Box::new(picture(Scope::Jobs));
    console.send(Message::Update { scope: Scope::Jobs, update });
    assert_eq!(console.app.update.as_ref().unwrap().metrics.len(), lines);
    assert_eq!(console.app.pictured, Some(Scope::Job(JobId(12))));
}

#[test]
fn a_frozen_screen_stays_and_a_log_that_is_read_does_too() {
    let mut console = Console::live(SIZE);
    console.press("3jj<enter>kkk");
    assert_eq!(console.app.log_back, 3);
    let scope = console.app.view.scope();
    let mut update = picture(scope);
    let output = update.output.as_mut().unwrap();
    output.bytes.extend(b"one\n::metric loss 1 1\ntwo\n");
    output.next = output.bytes.len() as u64;
    console.send(Message::Update { scope, update: Box::new(update.clone()) });
    assert_eq!(console.app.log_back, 5, "two lines came, one of them for the agent");
    console.press("f");
    assert_eq!(console.app.log_back, 0);
    console.press("z");
    update.output = None;
    console.send(Message::Update { scope, update: Box::new(update) });
    assert!(console.app.update.as_ref().unwrap().output.is_some(), "frozen");
    console.press("gg");
    assert_eq!(console.app.log_back, 34, "to the first line and no farther");
}
