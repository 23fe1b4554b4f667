//! Keys on the pure console: what was on the screen, what is pressed, what follows.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod screens_support;

use gantry::app::{self, About, App, Effect, Key, Keymap, Link, Message, Mouse, Overlay, View};
use gantry_model::{Action, JobId, JobState, Machine};
use gantry_wire::{Reply, Request, Scope};
use screens_support::{Console, NOW, job, picture, tasks};

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
        Overlay::Filter => format!(" /{}", app.filter()),
        Overlay::Menu { targets, at } => format!(" menu {} {at}", targets.names().join(",")),
        Overlay::Value { choice, typed, .. } => format!(" {}: {typed}", choice.verb),
        Overlay::Confirm { plan, typed } => format!(" {} [{typed}]", plan.command()),
        Overlay::Palette(palette) => format!(" :{}", palette.typed),
        Overlay::Why { job, top } => format!(" why {job} {top}"),
    };
    format!("{view} {job} {node}{overlay}")
}

#[test]
fn keys_lead_where_the_table_says() {
    for (keys, expected) in [
        ("", "overview - cpu-1"),
        ("j", "overview - cpu-2"),
        ("jjk", "overview - cpu-2"),
        ("G", "overview - gpu-1"),
        ("Ggg", "overview - cpu-1"),
        // A lone prefix does nothing, and the key after it means what it means.
        ("jgx", "overview - cpu-2"),
        ("<enter>", "nodes - cpu-1"),
        ("2jj", "nodes - dgx-01"),
        ("2<pgdn>", "nodes - gpu-1"),
        ("2j4", "jobs j14 cpu-2"),
        ("2<enter>", "jobs j11 cpu-1"),
        ("2o", "jobs j11 cpu-1"),
        ("3", "gpus - cpu-1"),
        ("3<enter>", "j12 j12 cpu-1"),
        ("5", "data j13 cpu-1"),
        ("6", "events - cpu-1"),
        ("6<enter>", "nodes - cpu-2"),
        ("6j<enter>", "j10 j10 cpu-1"),
        ("4j<enter>", "j13 j13 cpu-1"),
        ("4jo", "j13 j13 cpu-1"),
        ("4j<enter>q", "jobs j13 cpu-1"),
        ("5<enter><esc>", "data j13 cpu-1"),
        ("4j<enter>-", "jobs j13 cpu-1"),
        ("24-", "nodes j14 cpu-1"),
        ("?", "overview - cpu-1 help 0"),
        ("?jjk", "overview - cpu-1 help 1"),
        ("?x?", "overview - cpu-1"),
        ("4/lung", "jobs j13 cpu-1 /lung"),
        ("4/lung<enter>j", "jobs j12 cpu-1"),
        ("4/lung<back><back><back>z<esc>", "jobs j14 cpu-1"),
        ("4/state:fail<enter>", "jobs j10 cpu-1"),
        ("4/nothing<enter>", "jobs - cpu-1"),
        ("4/nothing<enter>x", "jobs - cpu-1"),
        ("4x", "jobs j14 cpu-1 menu j14 0"),
        ("4xj<enter>", "jobs j14 cpu-1 gantry hold j14 []"),
        ("4xc", "jobs j14 cpu-1 gantry cancel j14 []"),
        ("4xc1<back>14", "jobs j14 cpu-1 gantry cancel j14 [14]"),
        ("4xc<esc>", "jobs j14 cpu-1"),
        ("4xp50<enter>", "jobs j14 cpu-1 gantry change --priority 50 j14 []"),
        ("4xphigh<enter>", "jobs j14 cpu-1 priority: high"),
        ("4Gx", "jobs j8 cpu-1 menu j8 0"),
        ("4 j xc", "jobs j11 cpu-1 gantry cancel j14,j12 []"),
        ("4  <esc>xc", "jobs j12 cpu-1 gantry cancel j12 []"),
        ("4*xh", "jobs j14 cpu-1 gantry hold j14,j13,j12,j11 []"),
        ("4**xc", "jobs j14 cpu-1 gantry cancel j14 []"),
        ("4jj<enter>xc", "j12 j12 cpu-1 gantry cancel j12 []"),
        ("4jjR", "jobs j12 cpu-1 gantry requeue j12 []"),
        (
            "4jjn",
            "jobs j12 cpu-1 gantry submit --name again-j12 --cores 1 --gpus 2 -- python train.py --fold 2 []",
        ),
        ("4E", "jobs j14 cpu-1 why j14 0"),
        ("4EjE", "jobs j14 cpu-1"),
        ("3xc", "gpus - cpu-1 gantry cancel j12 []"),
        ("2xdfan<enter>", "nodes - cpu-1 gantry drain cpu-1 --reason fan []"),
        ("2xd<enter>", "nodes - cpu-1 drain: "),
        ("2 j xu", "nodes - gpu-1 gantry resume cpu-1,dgx-01 []"),
        ("5<tab>", "data j13 cpu-1"),
        ("5<tab><enter>", "image j13 cpu-1"),
        ("5<tab><enter>q", "data j13 cpu-1"),
        ("5<tab><enter><esc>", "data j13 cpu-1"),
        ("5<tab><enter>4-", "data j13 cpu-1"),
        ("4:label<enter>", "data j14 cpu-1"),
        ("4:label<enter>:label<enter>", "image j14 cpu-1"),
        ("4:label<enter>:label<enter>n<esc>", "data j14 cpu-1"),
        ("6x", "events - cpu-1"),
        ("4s", "jobs j14 cpu-1"),
        ("4sgg", "jobs j12 cpu-1"),
        ("4Sgg", "jobs j8 cpu-1"),
        (":canc", "overview - cpu-1 :canc"),
        (":goto cpu-2<enter>", "nodes - cpu-2"),
        (":goto j12<enter>", "j12 j12 cpu-1"),
        (
            ":drain cpu-1 fan broken<enter>",
            "overview - cpu-1 gantry drain cpu-1 --reason 'fan broken' []",
        ),
        (":resume dg<tab>", "overview - cpu-1 :resume dgx-01 "),
        ("4:priority 7 j12<enter>", "jobs j14 cpu-1 gantry change --priority 7 j12 []"),
        ("4:hold<tab><enter>", "jobs j14 cpu-1 gantry hold j14 []"),
        (":jobs<enter>:<c-r>", "jobs j14 cpu-1 :jobs"),
        (":nonsense<enter>", "overview - cpu-1 :nonsense"),
        ("4:filter user:mr<enter>", "jobs j14 cpu-1"),
    ] {
        let mut console = Console::live(SIZE);
        console.press(keys);
        let found = state(&console).replace("j14 j13 j12 j11", "j14,j13,j12,j11");
        let found = found.replace("j14 j12", "j14,j12").replace("cpu-1 dgx-01", "cpu-1,dgx-01");
        assert_eq!(found, expected, "{keys:?}");
    }
}

/// What is asked of the scheduler.
fn deeds(console: &Console) -> Vec<Request> {
    let ask = |effect: &Effect| match effect {
        Effect::Ask(ask) => Some((*ask.request).clone()),
        _ => None,
    };
    console.effects.iter().filter_map(ask).collect()
}

#[test]
fn deeds_are_asked_for_once_they_are_confirmed() {
    let cancel = |job| Request::Cancel { job: JobId(job), indices: None };
    let job = JobId(14);
    for (keys, expected) in [
        ("4xc14<enter>", vec![cancel(14)]),
        ("4xc<enter>", vec![]),
        ("4xc13<enter>", vec![]),
        ("4xc14<esc>", vec![]),
        ("4xc14<c-c>", vec![]),
        ("4 jxc1<enter>", vec![]),
        ("4 jxc14<enter>", vec![cancel(14)]),
        ("4*xc4<enter>", [14, 13, 12, 11].into_iter().map(cancel).collect()),
        ("4xh<enter>", vec![Request::Act(Action::Hold { job, indices: None })]),
        ("4xr<enter>", vec![Request::Act(Action::Release { job, indices: None })]),
        ("4R<enter>", vec![]),
        ("4jjR<enter>", vec![]),
        ("4jjR12<enter>", vec![Request::Act(Action::Requeue { job: JobId(12), indices: None })]),
        ("2jxu<enter>", vec![Request::Act(Action::Resume { node: "cpu-2".into() })]),
        // A node with all the GPUs is a quarter of the cluster and more.
        ("2jjxdfan<enter><enter>", vec![]),
        (
            "2jjxdfan<enter>1<enter>",
            vec![Request::Act(Action::Drain {
                node: "dgx-01".into(),
                reason: "fan".into(),
                deadline: None,
            })],
        ),
    ] {
        let mut console = Console::live(SIZE);
        console.press(keys);
        assert_eq!(deeds(&console), expected, "{keys:?}");
    }
    let mut console = Console::live(SIZE);
    console.press("4jjn<enter>");
    let [Request::Submit { key, spec }] = &deeds(&console)[..] else {
        panic!("{:?}", deeds(&console))
    };
    assert!(!key.is_empty() && spec.name == "again-j12");
}

#[test]
fn keys_have_their_effects() {
    let quit = |keep_frame| Effect::Quit { keep_frame };
    for (keys, expected) in [
        ("", vec![]),
        ("2", vec![Effect::Watch(Scope::Nodes)]),
        ("22", vec![Effect::Watch(Scope::Nodes)]),
        ("3", vec![Effect::Watch(Scope::Summary)]),
        ("36", vec![Effect::Watch(Scope::Summary)]),
        ("q", vec![quit(false)]),
        ("Q", vec![quit(true)]),
        ("<c-c>", vec![quit(false)]),
        ("?<c-c>", vec![quit(false)]),
        ("?q", vec![]),
        ("<esc>", vec![]),
        ("<c-z>", vec![Effect::Suspend]),
        ("<c-l>", vec![Effect::Redraw]),
        ("y", vec![Effect::Copy("cpu-1".into())]),
        ("mm", vec![Effect::Mouse(true), Effect::Mouse(false)]),
        ("e", vec![Effect::Export("gantry-overview".into())]),
        (":qui<enter>", vec![quit(false)]),
    ] {
        let mut console = Console::live(SIZE);
        console.press(keys);
        assert_eq!(console.effects, expected, "{keys:?}");
    }
}

#[test]
fn no_two_keys_end_work() {
    // Whatever is pressed, what ends or stops work needs its key, a word and Enter.
    let keys: Vec<String> = (' '..='~')
        .map(String::from)
        .chain(["<enter>", "<esc>", "<c-c>", "<c-d>", "<home>", "<end>"].map(str::to_owned))
        .filter(|key| key != "<")
        .collect();
    for one in &keys {
        for two in &keys {
            for start in ["4", "4jj<enter>", "2", "3"] {
                let mut console = Console::live(SIZE);
                console.press(start).press(one).press(two);
                let ends = |request: &Request| match request {
                    Request::Cancel { .. } => true,
                    Request::Act(action) => {
                        matches!(action, Action::Requeue { .. } | Action::Drain { .. })
                    }
                    _ => false,
                };
                assert!(!deeds(&console).iter().any(ends), "{start} {one} {two}");
            }
        }
    }
}

#[test]
fn every_action_is_bound_and_explained() {
    let keymap = Keymap::shipped();
    let bound = |action: app::Action| keymap.bindings().iter().any(|one| one.action == action);
    for action in [app::Action::Help, app::Action::Palette, app::Action::Back, app::Action::Act] {
        assert!(bound(action), "{action:?}");
    }
    let mut console = Console::live((120, 80));
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
        ("4", "jobs j14 cpu-1"),
        ("4xc", "jobs j14 cpu-1 gantry cancel j14 []"),
        ("4?", "jobs j14 cpu-1 help 0"),
        ("4/", "jobs - cpu-1 /14q"),
        (":", "overview - cpu-1 :14q"),
        ("4xp", "jobs j14 cpu-1 priority: 14q"),
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
    for keys in
        ["4xc14<enter>", "4R<enter>", "4n<enter>", "2xu<enter>", ":cancel j14<enter>14<enter>"]
    {
        let mut console = Console::live(SIZE);
        console.app.read_only = true;
        console.press(keys);
        assert_eq!(deeds(&console), [], "{keys}");
        assert!(console.app.message.as_ref().unwrap().1.contains("read-only"), "{keys}");
    }
}

#[test]
fn what_is_visible_is_asked_for_and_no_more() {
    let mut console = Console { app: App::new(Keymap::shipped(), SIZE), effects: vec![], at: NOW };
    let mut asked = Vec::new();
    for (message, expected) in [
        (Message::Link(Link::Live), vec![]),
        (Message::Key(Key::Char('3')), vec!["Gpus"]),
        (Message::Tick, vec![]),
        (Message::Key(Key::Char('6')), vec!["Notes"]),
        (Message::Key(Key::Char('1')), vec![]),
    ] {
        let mut effects = Vec::new();
        console.app.apply(NOW, message, &mut effects);
        asked.clear();
        for effect in effects {
            if let Effect::Ask(ask) = effect {
                asked.push(format!("{:?}", ask.about));
            }
        }
        assert_eq!(asked, expected);
    }
    let mut console = Console::live(SIZE);
    console.press("3");
    assert_eq!(console.app.gpus.visible_nodes(0, 30), ["dgx-01"]);
}

#[test]
fn names_are_hidden_where_that_is_wanted() {
    let theme = gantry::ui::theme::Theme {
        colours: gantry::ui::theme::Colours::Mono,
        glyphs: gantry::ui::theme::Glyphs::Unicode,
    };
    for keys in ["", "2jj", "3", "3gu", "4", "4jj<enter>", "4jjxc", "5", "5<tab><tab>"] {
        let mut console = Console::live(SIZE);
        console.press("P").press(keys);
        let text = console.text(theme);
        assert!(!text.contains("ct-lab") && !text.contains("mr-lab"), "{keys}\n{text}");
    }
}

#[test]
fn one_looks_back_and_comes_back() {
    let mut console = Console::live(SIZE);
    for minute in 1..=3 {
        let mut update = picture(Scope::Overview);
        update.at.0 += minute * 60_000;
        console.send(Message::Update { scope: Scope::Overview, update: Box::new(update) });
    }
    let at = |console: &Console| (console.app.update.as_ref().unwrap().at.0 - NOW.0) / 60_000;
    for (keys, minute, frozen) in
        [("[", 2, true), ("[", 1, true), ("[[[", 0, true), ("]", 1, true), ("L", 1, false)]
    {
        console.press(keys);
        assert_eq!((at(&console), console.app.frozen), (minute, frozen), "{keys}");
    }
    console.press("6[");
    assert_eq!(console.app.events.until().unwrap().0 / 3_600_000, NOW.0 / 3_600_000 - 1);
    console.press("L");
    assert_eq!(console.app.events.until(), None);
}

#[test]
fn the_mouse_chooses_and_opens() {
    let mut console = Console::live(SIZE);
    console.press("4");
    let (_, cursor) = console.screen(gantry::ui::theme::Theme {
        colours: gantry::ui::theme::Colours::Mono,
        glyphs: gantry::ui::theme::Glyphs::Unicode,
    });
    console.send(Message::Mouse(Mouse::Click, 9, cursor.1 + 2));
    assert_eq!(state(&console), "jobs j12 cpu-1");
    console.send(Message::Mouse(Mouse::Click, 9, cursor.1 + 2));
    assert_eq!(state(&console), "j12 j12 cpu-1");
}

#[test]
fn the_choice_is_a_job_and_not_a_row() {
    let mut console = Console::live(SIZE);
    console.press("4jj");
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
    console.press("4*");
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
    console.press("4jj<enter>");
    let lines = console.app.update.as_ref().unwrap().metrics.len();
    let update = Box::new(picture(Scope::Jobs));
    console.send(Message::Update { scope: Scope::Jobs, update });
    assert_eq!(console.app.update.as_ref().unwrap().metrics.len(), lines);
    assert_eq!(console.app.pictured, Some(Scope::Job(JobId(12))));
}

#[test]
fn a_frozen_screen_stays_and_a_log_that_is_read_does_too() {
    let mut console = Console::live(SIZE);
    console.press("4jj<enter>kkk");
    assert_eq!(console.app.log.back, 3);
    let scope = console.app.view.scope();
    let mut update = picture(scope);
    let output = update.output.as_mut().unwrap();
    output.bytes.extend(b"one\n::metric loss 1 1\ntwo\n");
    output.next = output.bytes.len() as u64;
    console.send(Message::Update { scope, update: Box::new(update.clone()) });
    assert_eq!(console.app.log.back, 5, "two lines came, one of them for the agent");
    console.press("f");
    assert_eq!(console.app.log.back, 0);
    console.press("z");
    update.output = None;
    console.send(Message::Update { scope, update: Box::new(update) });
    assert!(!console.app.log.is_empty(), "frozen");
    console.press("gg");
    assert_eq!(console.app.log.back, 33, "to the first line and no farther");
}

#[test]
fn older_jobs_come_as_one_goes_down_the_list() {
    let mut console = Console::live(SIZE);
    console.press("4");
    let rows = |console: &Console| console.app.jobs().len();
    assert_eq!(rows(&console), 7);
    let page = |from: u64, count: u64, more| {
        let row = |n| job(from - n, "old", "train", JobState::Done, tasks(0, 0, 1, 0));
        Message::Answer {
            about: About::OlderJobs,
            reply: Box::new(Ok(Reply::Jobs { rows: (0..count).map(row).collect(), more })),
        }
    };
    let asked = |console: &mut Console, key| {
        let mut effects = Vec::new();
        console.at.0 += 20_000;
        console.app.apply(console.at, Message::Key(key), &mut effects);
        let before = |effect: &Effect| match effect {
            Effect::Ask(ask) => match &*ask.request {
                Request::Jobs { before, ended: true } => *before,
                _ => None,
            },
            _ => None,
        };
        effects.iter().find_map(before)
    };
    // In the middle of the list nothing older is asked for, at its end once.
    assert_eq!(asked(&mut console, Key::Char('j')), None);
    assert_eq!(asked(&mut console, Key::Char('G')), Some(JobId(8)));
    console.app.apply(console.at, page(7, 4, true), &mut Vec::new());
    assert_eq!((rows(&console), console.app.job), (11, Some(JobId(8))), "the choice stays");
    assert_eq!(asked(&mut console, Key::Char('G')), Some(JobId(4)));
    // A row that comes twice is one row.
    console.app.apply(console.at, page(4, 4, false), &mut Vec::new());
    assert_eq!(rows(&console), 14);
    assert_eq!(asked(&mut console, Key::Char('G')), None, "there is nothing older");
    console.press("14");
    assert_eq!(rows(&console), 7, "what is old is asked for anew");
}
