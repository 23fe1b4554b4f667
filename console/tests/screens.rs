//! Every screen at every size as golden text, its styles in few colours, and what must hold for
//! any cluster: no panic, nothing steered by a name, the same picture twice.
//!
//! `GANTRY_BLESS=1 cargo test -p gantry --test screens` writes the golden files anew; look at them
//! before they are committed.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod screens_support;

use std::fmt::Write as _;
use std::path::Path;

use gantry::app::{Link, Message};
use gantry::ui::theme::{Colours, Glyphs, Theme};
use gantry_model::JobState;
use ratatui::style::{Color, Modifier};
use screens_support::{Console, job, picture, tasks};

const SIZES: [(u16, u16); 5] = [(38, 6), (40, 10), (80, 24), (120, 36), (200, 50)];
const UNICODE: Theme = Theme { colours: Colours::True, glyphs: Glyphs::Unicode };
const ASCII: Theme = Theme { colours: Colours::Mono, glyphs: Glyphs::Ascii };

/// The screens, each with the keys that lead there from the start.
const SCREENS: [(&str, &str); 30] = [
    ("overview", ""),
    ("nodes", "2jj"),
    ("nodes_without_gpu", "2G"),
    ("gpus", "3"),
    ("gpus_by_user", "3guw"),
    ("jobs", "4"),
    ("jobs_filtered", "4/state:wait|fail<enter>"),
    ("job", "4jj<enter>"),
    ("job_waiting", "4<enter>"),
    ("job_errors", "4jj<enter>e"),
    ("data", "5"),
    ("series", "5<tab>j"),
    ("samples", "5<tab><tab>"),
    ("models", "5<tab><tab><tab> j"),
    ("predictions", "5<tab><tab><tab><tab>"),
    ("rejects", "5r"),
    ("image", "5<tab><tab><enter>"),
    ("image_coronal", "5<tab><tab><enter><tab>+o"),
    ("image_grown", "5<tab><enter>w<left><left><left><left><left><left> "),
    ("image_refused", "5<tab>p"),
    ("accept", "5<tab><tab><enter>a"),
    ("approve", "5<tab><tab><tab>jxa"),
    ("events", "6j"),
    ("help", "4?"),
    ("menu", "4jjx"),
    ("why", "4E"),
    ("cancel", "4jjxc1"),
    ("cancel_several", "4* xc"),
    ("drain", "2xdnew fan<enter>"),
    ("palette", "2:drain cpu-*"),
];

fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/screens/{name}.txt"));
    if std::env::var_os("GANTRY_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(found.lines()).position(|(one, other)| one != other);
    if let Some(line) = differs.or((expected != found).then(|| expected.lines().count())) {
        panic!(
            "{name}.txt:{}: expected\n{}\nfound\n{}\nGANTRY_BLESS=1 writes it anew",
            line + 1,
            expected.lines().nth(line).unwrap_or_default(),
            found.lines().nth(line).unwrap_or_default()
        );
    }
}

#[test]
fn every_screen_at_every_size() {
    for (name, keys) in SCREENS {
        let mut text = String::new();
        for (columns, rows) in SIZES {
            for theme in [UNICODE, ASCII] {
                let mut console = Console::live((columns, rows));
                console.press(keys);
                let glyphs = format!("{:?}", theme.glyphs).to_lowercase();
                writeln!(text, "== {columns}x{rows} {glyphs}").unwrap();
                let screen = console.text(theme);
                assert!(theme == UNICODE || screen.is_ascii(), "{name} {columns}x{rows}\n{screen}");
                text.push_str(&screen);
                text.push('\n');
            }
        }
        compare(name, &text);
    }
}

#[test]
fn every_style_in_few_colours() {
    for colours in [Colours::Sixteen, Colours::Mono] {
        let mut text = String::new();
        for (name, keys) in [("overview", ""), ("cancel", "4jjxc"), ("gpus", "3")] {
            let mut console = Console::live((80, 24));
            console.press(keys);
            let (buffer, cursor) = console.screen(Theme { colours, glyphs: Glyphs::Unicode });
            writeln!(text, "== {name}, cursor {},{}", cursor.0, cursor.1).unwrap();
            for y in 0..24 {
                let row: String = (0..80).map(|x| style_glyph(buffer[(x, y)].style())).collect();
                writeln!(text, "{}", row.trim_end()).unwrap();
            }
        }
        compare(&format!("styles_{colours:?}").to_lowercase(), &text);
    }
}

/// A cell's style in one character; upper case where it is bold.
fn style_glyph(style: ratatui::style::Style) -> char {
    let has = |modifier| style.add_modifier.contains(modifier);
    let glyph = match style.fg {
        _ if has(Modifier::REVERSED) => 'v',
        _ if has(Modifier::DIM) => 'd',
        Some(Color::Red) => 'r',
        Some(Color::Yellow) => 'y',
        Some(Color::Green) => 'g',
        Some(Color::Cyan) => 'c',
        Some(Color::DarkGray) => 'd',
        _ if has(Modifier::BOLD) => return 'B',
        _ => return ' ',
    };
    if has(Modifier::BOLD) { glyph.to_ascii_uppercase() } else { glyph }
}

#[test]
fn what_is_old_says_so_and_is_dimmed() {
    let mut console = Console::live((120, 36));
    let dimmed = |console: &Console| {
        let (buffer, _) = console.screen(UNICODE);
        buffer[(1, 4)].style().add_modifier.contains(Modifier::DIM)
    };
    assert!(!dimmed(&console));
    for (seconds, link, word, dim) in [
        (5, Link::Live, "live", false),
        (9, Link::Live, "9 s late", true),
        (30, Link::Reconnecting("no answer from head:7400".into()), "reconnecting, 30 s old", true),
    ] {
        console.at.0 = screens_support::NOW.0 + seconds * 1000;
        console.send(Message::Link(link));
        let text = console.text(UNICODE);
        let second = text.lines().nth(1).unwrap();
        assert!(second.ends_with(word), "{second}");
        assert_eq!(dimmed(&console), dim, "{word}");
    }
    assert!(console.text(UNICODE).contains("no answer from head:7400"));
    console.send(Message::Link(Link::Live));
    console.look();
    console.press("z");
    assert!(console.text(UNICODE).contains("frozen 18:04:10"));
}

#[test]
fn before_the_first_picture_it_says_what_it_waits_for() {
    for (link, word) in [
        (Link::Connecting, "connecting to the scheduler"),
        (Link::Reconnecting("connection refused".into()), "connection refused"),
        (Link::Live, "waiting for the first picture"),
    ] {
        for (columns, rows) in SIZES.into_iter().skip(1) {
            let mut app = gantry::app::App::new(gantry::app::Keymap::shipped(), (columns, rows));
            app.link = link.clone();
            let console = Console { app, effects: vec![], at: screens_support::NOW };
            assert!(console.text(ASCII).contains(word), "{columns}x{rows}");
        }
    }
}

/// Names that try to steer a terminal or to look like something else.
const HOSTILE: [&str; 8] = [
    "\x1b[2J\x1b[31mowned",
    "a\u{202e}txt.exe",
    "line\nbreak\r\ttab",
    "\x07\x08\x7f\u{9b}31m",
    "胸部CT検査の名前がとても長い場合",
    "e\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}",
    "👩‍👩‍👧‍👦 family",
    "\u{200b}\u{feff}\u{200d}",
];

#[test]
fn no_name_steers_the_terminal() {
    for hostile in HOSTILE {
        for (columns, rows) in SIZES {
            for keys in ["", "2", "2x", "3", "4", "4xc", "4<enter>", "5", "5r", "6", ":c "] {
                let mut console = Console::live((columns, rows));
                console.press(keys);
                let scope = console.app.view.scope();
                let mut update = picture(scope);
                update.cluster = hostile.into();
                for row in &mut update.jobs {
                    row.name = hostile.into();
                    row.user = hostile.into();
                    row.reason = Some(hostile.into());
                    row.nodes = vec![hostile.into(); 3];
                }
                for node in &mut update.nodes {
                    node.row.facts.name = hostile.into();
                    node.row.facts.gpu_reason = Some(hostile.into());
                }
                for note in &mut update.notes {
                    note.sentence = hostile.into();
                }
                for owner in &mut update.owners {
                    owner.user = hostile.into();
                    owner.reason = Some(hostile.into());
                }
                if let Some(output) = &mut update.output {
                    output.bytes = [hostile.as_bytes(), b"\n\xff\xfe\x1b]0;title\x07\n"].concat();
                }
                console.send(Message::Update { scope, update: Box::new(update) });
                let (buffer, _) = console.screen(UNICODE);
                for cell in buffer.content() {
                    let steers = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
                    assert!(!cell.symbol().chars().any(steers), "{hostile:?} {:?}", cell.symbol());
                }
            }
        }
    }
}

/// Numbers that look random, the same on every run (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A picture of anything: rows come and go, numbers are extreme, words are hostile.
fn any_picture(scope: gantry_wire::Scope, dice: &mut Dice) -> gantry_wire::Update {
    let mut update = picture(scope);
    let states = [JobState::Run, JobState::Wait, JobState::Fail, JobState::Done, JobState::Cancel];
    let extremes = [0, 1, 7, 1000, u32::MAX / 8];
    for number in 0..dice.below(60) as u64 {
        let counts = tasks(
            dice.one_of(&extremes),
            dice.one_of(&extremes),
            dice.one_of(&extremes),
            dice.one_of(&extremes),
        );
        let mut row =
            job(number + 20, dice.one_of(&HOSTILE), "train", dice.one_of(&states), counts);
        row.resources.cores = dice.one_of(&extremes);
        row.resources.gpus = dice.one_of(&extremes);
        row.starts = dice.one_of(&extremes);
        row.started = dice.one_of(&[None, Some(gantry_model::At(u64::MAX))]);
        update.jobs.insert(0, row);
    }
    if dice.below(4) == 0 {
        update.jobs.clear();
    }
    if dice.below(4) == 0 {
        update.nodes.clear();
    }
    for node in &mut update.nodes {
        if let Some(sample) = &mut node.sample {
            sample.cpu_permille = dice.one_of(&extremes);
            sample.memory_used_mib = u64::from(dice.one_of(&extremes)) << 20;
            sample.disk_total_mib = u64::from(dice.one_of(&extremes));
        }
        if dice.below(3) == 0 {
            node.sample = None;
        }
    }
    let values = [0.0, -1.0, 1e300, f64::NAN, f64::INFINITY, 0.5];
    for metric in &mut update.metrics {
        metric.points.truncate(dice.below(4));
        for point in &mut metric.points {
            *point =
                gantry_wire::Point::new(u64::from(dice.one_of(&extremes)), dice.one_of(&values));
        }
    }
    update.busy_permille.truncate(dice.below(130));
    if dice.below(3) == 0 {
        update.output = None;
    }
    update
}

#[test]
fn any_size_any_cluster_any_keys() {
    let keys = [
        "j",
        "k",
        "h",
        "l",
        "g",
        "G",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "-",
        "+",
        "<enter>",
        "<esc>",
        "x",
        "?",
        "/",
        ":",
        "s",
        "S",
        "z",
        "[",
        "]",
        "L",
        "P",
        "m",
        "w",
        "v",
        "t",
        "e",
        "f",
        "n",
        "N",
        "R",
        "E",
        "o",
        " ",
        "*",
        "y",
        "<c-d>",
        "<c-u>",
        "<back>",
        "<c-c>",
        "<c-r>",
        "<tab>",
        "state:run",
        "drain ",
        "1",
        "<up>",
        "<down>",
        "<pgdn>",
        "<left>",
        "5<tab>",
        "5<tab><tab><enter>",
        "p",
        "r",
        "a",
        "b",
        "B",
        "u",
        "W",
        "M",
        "T",
        ">",
        ".",
    ];
    let mut dice = Dice(0x6761_6e74_7279);
    for round in 0..150 {
        let mut console = Console::live((80, 24));
        for _ in 0..40 {
            match dice.below(5) {
                0 => {
                    let size = (dice.below(260) as u16 + 1, dice.below(80) as u16 + 1);
                    console.send(Message::Resize(size.0, size.1));
                }
                1 => {
                    let scope = console.app.view.scope();
                    let update = Box::new(any_picture(scope, &mut dice));
                    console.send(Message::Update { scope, update });
                }
                2 => {
                    console.at.0 += 700;
                    console.send(Message::Tick);
                }
                _ => {
                    console.press(dice.one_of(&keys));
                }
            }
            let theme = dice.one_of(&[UNICODE, ASCII]);
            let (buffer, cursor) = console.screen(theme);
            let (columns, rows) = console.app.size;
            assert!(cursor.0 < columns && cursor.1 < rows, "round {round}: cursor {cursor:?}");
            assert_eq!(buffer, console.screen(theme).0, "round {round}: drawn twice");
        }
    }
}

#[test]
fn without_colours_the_chosen_row_is_still_seen() {
    let mut console = Console::live((120, 36));
    console.press("4jj");
    let theme = Theme { colours: Colours::Mono, glyphs: Glyphs::Unicode };
    let (buffer, cursor) = console.screen(theme);
    let reversed = |y: &u16| buffer[(5, *y)].modifier.contains(Modifier::REVERSED);
    assert_eq!((0..36).filter(reversed).collect::<Vec<u16>>(), [cursor.1]);
    assert_eq!(buffer[(0, cursor.1)].symbol(), ">");
    assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset), "mono has no colours");
}

#[test]
fn one_plain_frame_for_scripts() {
    compare("plain", &gantry::ui::plain(&picture(gantry_wire::Scope::Overview), 100));
}

#[test]
fn a_frame_with_all_rows_is_drawn_within_its_budget() {
    let mut console = Console::live((200, 50));
    let mut update = picture(gantry_wire::Scope::Overview);
    update.jobs =
        (0..100).map(|n| job(n, "job", "train", JobState::Run, tasks(1, 3, 900_000, 0))).collect();
    let scope = console.app.view.scope();
    console.send(Message::Update { scope, update: Box::new(update) });
    let start = std::time::Instant::now();
    for _ in 0..20 {
        console.screen(UNICODE);
    }
    let each = start.elapsed() / 20;
    // The budget is 5 ms in a release build; tests run less optimised, and beside others.
    assert!(each.as_millis() < 50, "{each:?}");
}

#[test]
fn a_frame_costs_few_bytes_and_an_idle_one_none() {
    for (columns, rows) in [(80, 24), (120, 36)] {
        let mut console = Console::live((columns, rows));
        let mut frames = gantry::term::Frames::new(columns, rows);
        let mut bytes = |console: &Console, colours| {
            let (frame, cursor) = console.screen(Theme { colours, glyphs: Glyphs::Unicode });
            frames.bytes(&frame, cursor).unwrap()
        };
        let colours = Colours::Indexed;
        let first = bytes(&console, colours);
        assert!(first.len() < 16_000, "the first frame took {} bytes", first.len());
        assert!(!first.contains(&b'\n'), "a line feed would cut the write in two");
        assert_eq!(bytes(&console, colours), b"", "drawn twice");
        for second in 1..=5 {
            console.at.0 += 1000;
            console.send(Message::Tick);
            let idle = bytes(&console, colours);
            // Two jobs run, and their time is told to the second.
            assert!(idle.len() <= 400, "second {second} took {} bytes", idle.len());
        }
        console.press("/a");
        bytes(&console, colours);
        console.press("b");
        let echo = bytes(&console, colours).len();
        assert!(echo <= 400, "the echo of a key took {echo} bytes");
    }
}

#[test]
fn an_idle_cluster_sends_nothing_for_a_minute() {
    let mut console = Console::live((120, 36));
    let mut update = picture(gantry_wire::Scope::Overview);
    update.jobs.retain(|row| row.state.is_ended());
    update.nodes.retain(|node| node.row.state == gantry_model::NodeState::Up);
    update.at = gantry_model::At(screens_support::NOW.0 - 10_000);
    let mut frames = gantry::term::Frames::new(120, 36);
    for second in 0..55 {
        console.at.0 += 1000;
        update.at.0 += 1000;
        if second % 5 == 0 {
            let scope = console.app.view.scope();
            console.send(Message::Update { scope, update: Box::new(update.clone()) });
        }
        console.send(Message::Tick);
        let (frame, cursor) = console.screen(UNICODE);
        let bytes = frames.bytes(&frame, cursor).unwrap();
        assert!(second == 0 || bytes.is_empty(), "second {second} took {} bytes", bytes.len());
    }
}
