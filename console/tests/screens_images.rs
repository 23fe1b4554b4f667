//! The image viewer and labelling: keys, what is kept, what is shown in every palette, and what a
//! frame costs.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]
#![allow(clippy::print_stdout, reason = "the figures, for who asks with --nocapture")]

mod screens_support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use gantry::app::image::Stage;
use gantry::app::library::{Doing, Kind, Told, Wish};
use gantry::app::{Effect, Message, Mouse, View};
use gantry::term::Frames;
use gantry::term::graphics::Protocol;
use gantry::ui;
use gantry::ui::theme::{Colours, Glyphs, Theme};
use ratatui::style::Color;
use screens_support::Console;

const SAMPLE: &str = "5<tab><tab><enter>";

fn console(size: (u16, u16), keys: &str) -> Console {
    let mut console = Console::live(size);
    console.press(keys);
    console
}

/// What a viewer stands at, in one line.
fn state(console: &Console) -> String {
    let Some(viewer) = console.app.viewer.as_deref() else { return "none".into() };
    let [x, y, z] = viewer.cursor;
    let (at, of) = viewer.slice().unwrap_or((0, 0));
    format!(
        "{} {at}/{of} {x},{y},{z} {} x{} {:?} {}",
        viewer.plane.word(),
        viewer.window_name(),
        1 << viewer.zoom,
        viewer.how(),
        viewer.marks.count()
    )
}

#[test]
fn keys_move_through_the_volume() {
    // 96 × 96 × 24 voxels of 3.5 × 3.5 × 8 mm: 29 cells of height are 58 pixels, 1.66 voxels each.
    for (keys, expected) in [
        ("", "axial 14/24 48,48,13 lung x1 Tolerance(60) 22476"),
        ("j", "axial 15/24 48,48,14 lung x1 Tolerance(60) 22476"),
        ("kk", "axial 12/24 48,48,11 lung x1 Tolerance(60) 22476"),
        ("<c-d>", "axial 24/24 48,48,23 lung x1 Tolerance(60) 22476"),
        ("<c-d><c-d>", "axial 24/24 48,48,23 lung x1 Tolerance(60) 22476"),
        ("G", "axial 24/24 48,48,23 lung x1 Tolerance(60) 22476"),
        ("gg", "axial 1/24 48,48,0 lung x1 Tolerance(60) 22476"),
        ("<left><up>", "axial 14/24 46,46,13 lung x1 Tolerance(60) 22476"),
        ("++<right>", "axial 14/24 49,48,13 lung x4 Tolerance(60) 22476"),
        ("+-", "axial 14/24 48,48,13 lung x1 Tolerance(60) 22476"),
        ("<tab>j", "coronal 50/96 48,49,13 lung x1 Tolerance(60) 22476"),
        // The head is above: up is towards it.
        ("<tab><up>", "coronal 49/96 48,48,14 lung x1 Tolerance(60) 22476"),
        ("<tab><tab>k", "sagittal 48/96 47,48,13 lung x1 Tolerance(60) 22476"),
        ("<tab><tab><tab>", "axial 14/24 48,48,13 lung x1 Tolerance(60) 22476"),
        ("w", "axial 14/24 48,48,13 bone x1 Tolerance(60) 22476"),
        ("W", "axial 14/24 48,48,13 soft tissue x1 Tolerance(60) 22476"),
        ("WW", "axial 14/24 48,48,13 own x1 Tolerance(60) 22476"),
        (".", "axial 14/24 48,48,13 own x1 Tolerance(60) 22476"),
        ("T", "axial 14/24 48,48,13 lung x1 Tolerance(70) 22476"),
        ("ttttttttt", "axial 14/24 48,48,13 lung x1 Tolerance(10) 22476"),
        ("MT", "axial 14/24 48,48,13 lung x1 Confidence(30) 22476"),
    ] {
        let console = console((120, 36), &format!("{SAMPLE}{keys}"));
        let found = state(&console);
        let count = console.app.viewer.as_ref().unwrap().marks.count().to_string();
        assert_eq!(found, expected.replace("22476", &count), "{keys:?}");
    }
}

#[test]
fn regions_grow_are_painted_erased_and_undone() {
    let mut console = console((120, 36), "5<tab><enter>");
    let count = |console: &Console| console.app.viewer.as_ref().unwrap().marks.count();
    assert_eq!(count(&console), 0);
    console.press("b");
    assert_eq!(count(&console), 5);
    console.press("Bb");
    assert_eq!(count(&console), 29);
    console.press("e");
    assert_eq!(count(&console), 0);
    console.press("u");
    assert_eq!(count(&console), 29, "{:?}", console.app.message);
    console.press("uu");
    assert_eq!(count(&console), 0);
    console.press("u");
    assert!(console.app.message.as_ref().unwrap().1.contains("nothing is left to undo"));
    console.press(" ");
    let grown = count(&console);
    assert!(grown > 1000, "{grown}");
    console.press(" ");
    assert_eq!(count(&console), grown, "the same region");
    console.press("u");
    assert_eq!(count(&console), 0);
}

#[test]
fn a_click_puts_the_cursor_there_and_a_second_one_grows() {
    let mut console = console((120, 36), SAMPLE);
    let before = state(&console);
    console.send(Message::Mouse(Mouse::Click, 20, 16));
    let there = state(&console);
    assert_ne!(before, there);
    let theme = Theme { colours: Colours::Indexed, glyphs: Glyphs::Unicode };
    assert_eq!(console.screen(theme).1, (20, 16), "the hardware cursor stands where one is");
    let marked = console.app.viewer.as_ref().unwrap().marks.count();
    console.send(Message::Mouse(Mouse::Click, 20, 16));
    assert!(console.app.viewer.as_ref().unwrap().grown.is_some());
    assert!(console.app.viewer.as_ref().unwrap().marks.count() >= marked);
    console.send(Message::Mouse(Mouse::WheelDown, 20, 16));
    assert!(state(&console).starts_with("axial 15/24"), "{}", state(&console));
    // Beside the picture nothing happens.
    let before = state(&console);
    for (x, y) in [(119, 16), (0, 0), (5, 35)] {
        console.send(Message::Mouse(Mouse::Click, x, y));
        assert_eq!(state(&console), before, "{x} {y}");
    }
}

/// What was confirmed, in words.
fn done(console: &Console) -> Vec<String> {
    let doing = |effect: &Effect| match effect {
        Effect::Library(Wish::Do(doing)) => Some(match &**doing {
            Doing::Accept { subject, label, marks } => {
                let marks = marks.as_ref().map(|marks| marks.count() > 0);
                format!("accept {} {} {label} {marks:?}", subject.kind.word(), subject.id)
            }
            other => format!("{other:?}"),
        }),
        _ => None,
    };
    console.effects.iter().filter_map(doing).collect()
}

#[test]
fn what_is_kept_rejected_and_approved_is_asked_for_once_confirmed() {
    let stage =
        |models: &str, approve| format!("Stage {{ models: [{models}], approve: {approve} }}");
    for (keys, expected) in [
        ("5<tab><tab><enter>a", vec![]),
        ("5<tab><tab><enter>a<esc>", vec![]),
        ("5<tab><tab><enter>a<enter>", vec!["accept sample 5a3b1e000001 lungs None".into()]),
        ("5<tab><tab><enter>ba<enter>", vec!["accept sample 5a3b1e000001 lungs Some(true)".into()]),
        // A series says nothing of what is marked: its name is typed.
        ("5<tab><enter>a<enter>", vec![]),
        ("5<tab><enter> a<enter><enter>", vec![]),
        (
            "5<tab><enter> alungs<enter><enter>",
            vec!["accept series 5e71e5000001 lungs Some(true)".into()],
        ),
        ("5<tab><tab><enter>r<enter>", vec![]),
        (
            "5<tab><tab><enter>rblurred<enter><enter>",
            vec!["Reject { sample: \"5a3b1e000001\", reason: \"blurred\" }".into()],
        ),
        ("5<tab><enter>rblurred<enter><enter>", vec![]),
        ("5<tab><tab><tab>jxa<enter>", vec![stage("\"30de10000002\"", true)]),
        ("5<tab><tab><tab>jxa<esc>", vec![]),
        ("5<tab><tab><tab>  xr<enter>", vec![stage("\"30de10000001\", \"30de10000002\"", false)]),
        ("5a/data/new<enter><enter>", vec!["Add { path: \"/data/new\" }".into()]),
        ("5a<enter>", vec![]),
        ("5v<enter>", vec!["Verify".into()]),
        ("2:verify<enter><enter>", vec!["Verify".into()]),
    ] {
        let expected: Vec<String> = expected;
        assert_eq!(done(&console((120, 36), keys)), expected, "{keys:?}");
    }
}

#[test]
fn a_read_only_console_changes_no_library() {
    for keys in [
        "5<tab><tab><enter>a<enter>",
        "5<tab><tab><enter>rx<enter><enter>",
        "5<tab><tab><tab>xa<enter>",
        "5ax<enter><enter>",
        "5v<enter>",
    ] {
        let mut console = Console::live((120, 36));
        console.app.read_only = true;
        console.press(keys);
        assert!(done(&console).is_empty(), "{keys}");
    }
}

#[test]
fn no_two_keys_change_the_library() {
    let keys: Vec<String> = (' '..='~')
        .map(String::from)
        .chain(["<enter>", "<esc>", "<tab>", "<up>", "<end>"].map(str::to_owned))
        .filter(|key| key != "<")
        .collect();
    for start in ["5", "5<tab><tab><tab>", SAMPLE] {
        let begun = console((80, 24), start);
        for one in &keys {
            for two in &keys {
                // What is confirmed takes a key that opens the question, and Enter.
                if two == "<enter>" {
                    continue;
                }
                let mut console =
                    Console { app: begun.app.clone(), effects: Vec::new(), at: begun.at };
                console.press(one).press(two);
                let found = done(&console);
                assert!(found.is_empty(), "{start} {one} {two} {found:?}");
            }
        }
    }
}

#[test]
fn each_deed_shows_its_command() {
    let theme = Theme { colours: Colours::Mono, glyphs: Glyphs::Ascii };
    for (keys, command) in [
        ("5<tab><tab><enter>a", "gantry label 5e71e5000001 MASK.nii.gz --label lungs"),
        ("5<tab><tab><enter>rtoo dark<enter>", "gantry library reject 5a3b1e000001 --reason"),
        ("5<tab><tab><tab>xa", "gantry models 30de10000001 --approve"),
        ("5a/data/new<enter>", "gantry import --deidentify 113100 /data/new"),
        ("5v", "gantry data verify"),
    ] {
        let text = console((120, 36), keys).text(theme);
        assert!(text.contains(command), "{keys}\n{text}");
    }
}

#[test]
fn what_comes_late_or_of_another_image_is_dropped() {
    let mut console = console((120, 36), SAMPLE);
    let before = state(&console);
    let number = console.app.viewer.as_ref().unwrap().number;
    let old = number - 1;
    console.send(Message::Library(Told::Grown(old, vec![], (0.0, 1.0), 1)));
    console.send(Message::Library(Told::Failed(old, "gone".into())));
    console.send(Message::Library(Told::Coming(old, "reading".into())));
    assert_eq!(state(&console), before);
    console.press("<esc>");
    console.send(Message::Library(Told::Failed(number, "gone".into())));
    assert_eq!((state(&console).as_str(), console.app.view), ("none", View::Data));
}

#[test]
fn the_next_case_is_the_one_that_the_library_names() {
    let mut console = console((120, 36), "5<tab><tab>:label<enter>");
    let subject = console.app.viewer.as_ref().unwrap().subject.clone();
    assert_eq!((subject.kind, subject.id.as_str()), (Kind::Sample, "5a3b1e000004"));
    // Where no mask is there to begin with, the images are opened.
    console.press("n");
    let subject = console.app.viewer.as_ref().unwrap().subject.clone();
    assert_eq!((subject.kind, subject.id.as_str()), (Kind::Series, "5e71e5000005"));
}

#[test]
fn an_image_that_does_not_open_says_why_and_keys_wait() {
    let console = console((120, 36), "5<tab>pjj b");
    let viewer = console.app.viewer.as_ref().unwrap();
    assert!(matches!(&viewer.stage, Stage::Failed(why) if why.contains("0012,0062")));
    assert_eq!(viewer.marks.count(), 0);
}

/// The brightness of a cell's background, or of its text, in one digit.
fn brightness(colour: Option<Color>) -> char {
    let grey = match colour {
        Some(Color::Rgb(red, green, blue)) if red == green && green == blue => {
            u32::from(red) * 10 / 256
        }
        Some(Color::Indexed(16) | Color::Black) => 0,
        Some(Color::Indexed(231) | Color::White) => 9,
        Some(Color::Indexed(step @ 232..)) => u32::from(step - 232) * 10 / 24,
        Some(Color::DarkGray) => 3,
        Some(Color::Gray) => 6,
        Some(Color::Reset) | None => return ' ',
        Some(_) => return 'm',
    };
    char::from_digit(grey, 10).unwrap()
}

#[test]
fn an_image_in_every_palette() {
    let mut text = String::new();
    for glyphs in [Glyphs::Unicode, Glyphs::Ascii] {
        for colours in [Colours::True, Colours::Indexed, Colours::Sixteen, Colours::Mono] {
            let theme = Theme { colours, glyphs };
            let (buffer, cursor) = console((80, 24), SAMPLE).screen(theme);
            writeln!(text, "== {colours:?} {glyphs:?}, cursor {},{}", cursor.0, cursor.1).unwrap();
            let coloured = glyphs == Glyphs::Unicode && colours != Colours::Mono;
            for y in 3..20 {
                let row: String = (0..80)
                    .map(|x| match buffer[(x, y)].style().bg {
                        back if coloured => brightness(back),
                        _ => buffer[(x, y)].symbol().chars().next().unwrap_or(' '),
                    })
                    .collect();
                writeln!(text, "{}", row.trim_end()).unwrap();
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens/image_palettes.txt");
    if std::env::var_os("GANTRY_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(text.lines()).position(|(one, other)| one != other);
    assert!(expected == text, "line {differs:?} differs; GANTRY_BLESS=1 writes it anew");
}

#[test]
fn a_frame_of_an_image_costs_what_a_line_can_carry() {
    // A quarter above what was measured: that it does not grow unseen.
    for (colours, first_max, step_max) in [
        (Colours::True, 96_000, 48_000),
        (Colours::Indexed, 36_000, 14_000),
        (Colours::Sixteen, 60_000, 5_000),
        (Colours::Mono, 20_000, 16_000),
    ] {
        let theme = Theme { colours, glyphs: Glyphs::Unicode };
        let mut console = console((120, 36), SAMPLE);
        let mut frames = Frames::new(120, 36);
        let mut bytes = |console: &Console| {
            let (frame, cursor) = console.screen(theme);
            frames.bytes(&frame, cursor).unwrap().len()
        };
        let first = bytes(&console);
        assert_eq!(bytes(&console), 0, "drawn twice");
        console.press("j");
        let slice = bytes(&console);
        console.app.message = None;
        bytes(&console);
        console.press("B");
        let echo = bytes(&console);
        println!("{colours:?}: first {first}, another slice {slice}, a key {echo} bytes");
        assert!(first <= first_max && slice <= step_max && echo <= 400, "{first} {slice} {echo}");
    }
}

const INDEXED: Theme = Theme { colours: Colours::Indexed, glyphs: Glyphs::Unicode };
const PROTOCOLS: [(Protocol, &str); 3] = [
    (Protocol::Kitty, "\x1b_Ga=T"),
    (Protocol::Sixel, "\x1bP0;1;0q"),
    (Protocol::Iterm, "\x1b]1337;File="),
];

/// A terminal that shows pictures, and what it is sent.
struct Terminal(Frames);

impl Terminal {
    fn new(protocol: Protocol) -> Self {
        Self(Frames::new(120, 36).with_pictures(Some(protocol), Some((10, 20))))
    }

    fn sent(&mut self, console: &Console) -> String {
        let (frame, cursor) = console.screen(INDEXED);
        let bytes = self.0.bytes_with(frame, cursor, ui::rasters(&console.app)).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

/// What is left of a screen once its pictures are taken out of what was sent.
fn cells(sent: &str) -> vt100::Parser {
    let mut text = String::new();
    let mut rest = sent;
    let start =
        |text: &str| ["\x1b_G", "\x1bP", "\x1b]1337"].iter().filter_map(|s| text.find(s)).min();
    while let Some(begin) = start(rest) {
        text.push_str(&rest[..begin]);
        let end = if rest[begin..].starts_with("\x1b]") { "\x07" } else { "\x1b\\" };
        rest = rest[begin..].split_once(end).unwrap().1;
    }
    text.push_str(rest);
    let cells = |n: u16| std::num::NonZeroU16::new(n).unwrap();
    let mut parser = vt100::Parser::new(cells(36), cells(120), 0);
    parser.process(text.as_bytes());
    parser
}

#[test]
fn a_picture_is_sent_once_and_taken_away_when_one_leaves() {
    for (protocol, begin) in PROTOCOLS {
        for leave in ["<esc>", "?", ":", "a", "1"] {
            let mut console = console((120, 36), SAMPLE);
            let mut terminal = Terminal::new(protocol);
            let first = terminal.sent(&console);
            assert_eq!(first.matches(begin).count(), 3, "{protocol:?}: three planes");
            assert!(!cells(&first).screen().contents().contains('▀'), "{protocol:?}");
            assert_eq!(terminal.sent(&console), "", "{protocol:?}: drawn twice");
            // What does not change the picture does not send it.
            console.press("B");
            let echo = terminal.sent(&console);
            assert!(!echo.is_empty() && !echo.contains(begin), "{protocol:?} {echo:?}");
            console.press("j");
            let next = terminal.sent(&console);
            assert!(next.contains(begin), "{protocol:?}: another slice");
            console.press(leave);
            let left = terminal.sent(&console);
            let everything = format!("{first}{echo}{next}{left}");
            assert!(!left.contains(begin), "{protocol:?} {leave}");
            let (buffer, _) = console.screen(INDEXED);
            let shown = cells(&everything).screen().contents();
            let shown: Vec<&str> = shown.lines().collect();
            let expected = ui::lines(&buffer);
            for (y, line) in expected.iter().enumerate() {
                assert_eq!(
                    shown.get(y).unwrap_or(&"").trim_end(),
                    line,
                    "{protocol:?} {leave} {y}"
                );
            }
            if protocol == Protocol::Kitty {
                let shown = everything.matches("a=T").count();
                assert_eq!(everything.matches("a=d,d=I").count(), shown, "{leave}");
                for number in everything.split("a=T").skip(1) {
                    let number = number.split("i=").nth(1).unwrap().split(',').next().unwrap();
                    assert!(everything.contains(&format!("a=d,d=I,i={number},")), "{leave}");
                }
            } else {
                // There what is written over a picture takes it away.
                let written = rows_written(&left);
                assert!((3..31).all(|y| written.contains(&y)), "{leave} {written:?}");
            }
        }
    }
}

/// Rows that the cursor was moved to.
fn rows_written(sent: &str) -> BTreeSet<u16> {
    let moves = sent.split("\x1b[").filter_map(|part| {
        let place = part.split_once('H')?.0;
        let (row, column) = place.split_once(';').unwrap_or((place, "1"));
        column.parse::<u16>().ok()?;
        row.parse().ok()
    });
    moves.map(|row: u16| row - 1).collect()
}

#[test]
fn pixels_are_those_of_the_volume_with_the_mask_over_them() {
    let mut console = console((120, 36), SAMPLE);
    let grey = |rgb: &[u8]| rgb[0] == rgb[1] && rgb[1] == rgb[2];
    let coloured = |console: &Console| {
        let rasters = ui::rasters(&console.app);
        assert_eq!(rasters.len(), 3);
        for raster in &rasters {
            assert_eq!(raster.rgb.len(), 3 * raster.width * raster.height);
            assert!(raster.width * raster.height <= ui::raster::PIXELS_MAX);
        }
        let first = &rasters[0];
        assert!(first.rgb.iter().any(|value| *value > 100), "all is black");
        first.rgb.chunks(3).filter(|rgb| !grey(rgb)).count()
    };
    let with_mask = coloured(&console);
    console.press("o");
    let cross = coloured(&console);
    assert!(with_mask > 1000 && cross == 17, "{with_mask} {cross}");
}

#[test]
fn slow_lines_dialogs_and_other_screens_have_no_pixels() {
    for keys in ["", "2", "4<enter>", "5", "5<tab><tab>", "5<tab>p", "5<tab><tab><enter>?"] {
        let console = console((120, 36), keys);
        assert!(ui::rasters(&console.app).is_empty(), "{keys}");
        // To the byte what a terminal without pictures gets.
        let (frame, cursor) = console.screen(INDEXED);
        let plain = Frames::new(120, 36).bytes(&frame, cursor).unwrap();
        for (protocol, _) in PROTOCOLS {
            assert_eq!(Terminal::new(protocol).sent(&console).as_bytes(), plain, "{keys}");
        }
    }
    let mut console = console((120, 36), SAMPLE);
    console.send(Message::Lean(true));
    assert!(ui::rasters(&console.app).is_empty());
    console.send(Message::Lean(false));
    assert!(!ui::rasters(&console.app).is_empty());
    for size in [(39, 36), (120, 9)] {
        console.send(Message::Resize(size.0, size.1));
        assert!(ui::rasters(&console.app).is_empty(), "{size:?}");
    }
}

#[test]
fn a_resized_terminal_gets_the_picture_anew_and_sixel_wants_the_size_of_a_cell() {
    for (protocol, begin) in PROTOCOLS {
        let mut console = console((120, 36), SAMPLE);
        let mut terminal = Terminal::new(protocol);
        terminal.sent(&console);
        console.send(Message::Resize(80, 24));
        let again = terminal.sent(&console);
        assert_eq!(again.matches(begin).count(), 1, "{protocol:?}");
        let deleted = if protocol == Protocol::Kitty { 3 } else { 0 };
        assert_eq!(again.matches("a=d").count(), deleted);
    }
    let console = console((120, 36), SAMPLE);
    let mut frames = Frames::new(120, 36).with_pictures(Some(Protocol::Sixel), None);
    let (frame, cursor) = console.screen(INDEXED);
    let blocks = Frames::new(120, 36).bytes(&frame, cursor).unwrap();
    assert_eq!(frames.bytes_with(frame, cursor, ui::rasters(&console.app)).unwrap(), blocks);
}

#[test]
fn a_picture_costs_what_a_line_can_carry() {
    for ((protocol, _), (first_max, step_max)) in
        PROTOCOLS.into_iter().zip([(300_000, 300_000), (900_000, 900_000), (300_000, 300_000)])
    {
        let mut console = console((120, 36), SAMPLE);
        let mut terminal = Terminal::new(protocol);
        let first = terminal.sent(&console).len();
        console.press("j");
        let step = terminal.sent(&console).len();
        println!("{protocol:?}: first {first}, another slice {step} bytes");
        assert!(first <= first_max && step <= step_max, "{protocol:?} {first} {step}");
    }
}
