//! Every screen as text, in every size; hostile names; any keys on any size.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use gantry::app::{Key, Message};
use gantry::ui::theme::{Colours, Glyphs, Theme};
use gantry::ui::{lines, plain, render};
use gantry_model::JobState;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use support::{app, job, send, typed, update};

fn drawn(app: &gantry::app::App, theme: Theme) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, app.size.0, app.size.1));
    let (x, y) = render(app, theme, &mut buffer);
    assert!(x < app.size.0.max(1) && y < app.size.1.max(1), "the cursor is outside");
    buffer
}

const UNICODE: Theme = Theme { colours: Colours::Mono, glyphs: Glyphs::Unicode };

#[test]
fn screens_are_as_they_were_looked_at() {
    let screens = [
        ("overview", ""),
        ("nodes", "2jj"),
        ("jobs", "3jj"),
        ("data", "4"),
        ("job", "3jj<enter>"),
        ("help", "3?"),
        ("filter", "3/unet"),
        ("cancel", "3jjx41"),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens");
    let bless = std::env::var_os("GANTRY_BLESS").is_some();
    for (columns, rows) in [(38, 6), (40, 10), (80, 24), (120, 36), (200, 50)] {
        for glyphs in [Glyphs::Unicode, Glyphs::Ascii] {
            let mut all = String::new();
            for (name, keys) in screens {
                let mut app = app((columns, rows));
                typed(&mut app, keys);
                let text = lines(&drawn(&app, Theme { colours: Colours::Mono, glyphs })).join("\n");
                if glyphs == Glyphs::Ascii {
                    let other = text.chars().find(|c| !c.is_ascii() && *c != '…' && *c != '°');
                    assert_eq!(other, None, "{name} {columns}x{rows} is not ASCII");
                }
                writeln!(all, "==== {name} {columns}x{rows}\n{text}").unwrap();
            }
            let path = folder.join(format!("{columns}x{rows}-{glyphs:?}.txt").to_lowercase());
            if bless {
                std::fs::write(&path, &all).unwrap();
            }
            let expected = std::fs::read_to_string(&path).unwrap();
            for (found, expected) in all.lines().zip(expected.lines()) {
                assert_eq!(found, expected, "in {}", path.display());
            }
            assert_eq!(all.lines().count(), expected.lines().count());
        }
    }
}

#[test]
fn the_same_picture_drawn_again_changes_no_cell() {
    let app = app((120, 36));
    let (first, second) = (drawn(&app, UNICODE), drawn(&app, UNICODE));
    assert!(first.diff(&second).is_empty());
}

#[test]
fn without_colours_the_chosen_row_is_still_seen() {
    let mut app = app((120, 36));
    typed(&mut app, "3jj");
    let buffer = drawn(&app, UNICODE);
    let reversed: Vec<u16> =
        (0..36).filter(|y| buffer[(5, *y)].modifier.contains(Modifier::REVERSED)).collect();
    assert_eq!(reversed.len(), 1);
    assert_eq!(buffer[(0, reversed[0])].symbol(), ">");
    let coloured = buffer.content.iter().any(|cell| cell.fg != ratatui::style::Color::Reset);
    assert!(!coloured, "mono has no colours");
}

#[test]
fn names_cannot_steer_the_terminal_or_break_a_row() {
    let mut picture = update();
    for (n, name) in
        ["\x1b[2J\x1b[1;1Hgone", "胸部CT検査", "\u{202e}desrever", "a\nb\tc", "\x07bell"]
            .iter()
            .enumerate()
    {
        let mut row = job(10 + n as u64, name, "command", JobState::Fail, 0, 1);
        row.reason = Some((*name).to_owned());
        row.user = (*name).to_owned();
        picture.jobs.insert(0, row);
    }
    picture.output.as_mut().unwrap().bytes.extend(b"\x1b]0;title\x07\n\xff\xfe\n");
    picture.nodes[0].row.facts.name = "\x1b[31mred".into();
    for keys in ["", "2", "3", "4", "3<enter>", "3x"] {
        for size in [(40, 10), (80, 24), (120, 36)] {
            let mut app = app(size);
            send(&mut app, vec![Message::Update(Box::new(picture.clone()))]);
            typed(&mut app, keys);
            let buffer = drawn(&app, UNICODE);
            for cell in &buffer.content {
                assert!(
                    !cell.symbol().chars().any(|c| c.is_control() || c == '\u{202e}'),
                    "{keys:?}"
                );
            }
        }
    }
}

#[test]
fn any_keys_on_any_size_keep_the_console_alive() {
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let keys = [
        Key::Enter,
        Key::Esc,
        Key::Tab,
        Key::Backspace,
        Key::Up,
        Key::Down,
        Key::Left,
        Key::PageUp,
        Key::PageDown,
        Key::Home,
        Key::End,
        Key::Ctrl('d'),
        Key::Ctrl('u'),
        Key::Ctrl('l'),
    ];
    for _ in 0..300 {
        let size = (random(210) as u16, random(60) as u16);
        let mut app = app((size.0.max(1), size.1.max(1)));
        for _ in 0..40 {
            let message = match random(20) {
                0 => Message::Resize(random(200) as u16 + 1, random(60) as u16 + 1),
                1 => {
                    let mut picture = update();
                    picture.jobs.truncate(random(8) as usize);
                    picture.nodes.truncate(random(4) as usize);
                    picture.metrics.truncate(random(5) as usize);
                    picture.output = (random(2) == 0).then(Default::default);
                    Message::Update(Box::new(picture))
                }
                2..7 => Message::Key(keys[random(keys.len() as u64) as usize]),
                7 => Message::Paste("paste".into()),
                _ => Message::Key(Key::Char((32 + random(95)) as u8 as char)),
            };
            send(&mut app, vec![message]);
            drawn(&app, UNICODE);
        }
    }
}

#[test]
fn a_frame_with_all_rows_is_drawn_within_its_budget() {
    let mut picture = update();
    picture.jobs = (0..200).map(|n| job(n, "job", "train", JobState::Run, 3, 1_000_000)).collect();
    let mut app = app((200, 50));
    send(&mut app, vec![Message::Update(Box::new(picture))]);
    drawn(&app, UNICODE);
    let start = Instant::now();
    for _ in 0..20 {
        drawn(&app, UNICODE);
    }
    let each = start.elapsed() / 20;
    println!("a frame of 200x50 took {each:?}");
    // The budget is 5 ms in a release build; tests run unoptimised beside others.
    assert!(each.as_millis() < 50, "{each:?}");
}

#[test]
fn one_plain_frame_says_what_matters() {
    let text = plain(&update(), 100);
    for part in ["radiology-a", "cpu-1", "unet2d-ct", "! j4171", "late 9 s"] {
        assert!(text.contains(part), "{text}");
    }
}
