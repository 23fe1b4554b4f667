//! Cells as bytes: moves of the cursor, colours and attributes, and text, as few of each as it takes.
//!
//! A key's echo is mostly these. A blank has no colour of its own, a short gap is cheaper written again
//! than skipped, and codes that change together are sent together. Where a character may be as wide as
//! the terminal likes, the next place is told in full.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr;

/// Attributes with the codes that turn them on and off. Some share the latter.
const ATTRIBUTES: [(Modifier, u8, u8); 9] = [
    (Modifier::BOLD, 1, 22),
    (Modifier::DIM, 2, 22),
    (Modifier::ITALIC, 3, 23),
    (Modifier::UNDERLINED, 4, 24),
    (Modifier::SLOW_BLINK, 5, 25),
    (Modifier::RAPID_BLINK, 6, 25),
    (Modifier::REVERSED, 7, 27),
    (Modifier::HIDDEN, 8, 28),
    (Modifier::CROSSED_OUT, 9, 29),
];
/// What shows the colour of a blank's text.
const SEEN_ON_BLANKS: Modifier =
    Modifier::REVERSED.union(Modifier::UNDERLINED).union(Modifier::CROSSED_OUT);

/// How text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pen {
    text: Color,
    back: Color,
    attributes: Modifier,
}

/// What a terminal starts with, and is left with.
const PLAIN: Pen = Pen { text: Color::Reset, back: Color::Reset, attributes: Modifier::empty() };

impl Pen {
    /// The pen for a cell after this one: what is not seen there stays as it is.
    fn for_cell(self, cell: &Cell) -> Self {
        let wanted = Self { text: cell.fg, back: cell.bg, attributes: cell.modifier };
        let either = wanted.attributes | self.attributes;
        if cell.symbol() == " " && !either.intersects(SEEN_ON_BLANKS) {
            return Self { back: cell.bg, ..self };
        }
        wanted
    }

    /// The codes that turn this pen into another: from what it is, or from the plain one.
    fn codes(self, next: Self) -> String {
        let (change, fresh) = (self.change(next), PLAIN.change(next));
        // No code at all is the plain pen.
        let anew = if fresh.is_empty() { fresh } else { format!("0;{fresh}") };
        if anew.len() < change.len() { anew } else { change }
    }

    fn change(self, next: Self) -> String {
        let mut codes = String::new();
        let mut kept = self.attributes;
        for (attribute, _, off) in ATTRIBUTES {
            if (kept - next.attributes).contains(attribute) {
                push(&mut codes, format_args!("{off}"));
                // What is turned off with it may have to be turned on again.
                for (other, _, too) in ATTRIBUTES {
                    kept.set(other, kept.contains(other) && too != off);
                }
            }
        }
        for (attribute, on, _) in ATTRIBUTES {
            if (next.attributes - kept).contains(attribute) {
                push(&mut codes, format_args!("{on}"));
            }
        }
        for (from, to, base) in [(self.text, next.text, 30), (self.back, next.back, 40)] {
            if from != to {
                colour(&mut codes, to, base);
            }
        }
        codes
    }
}

fn push(codes: &mut String, code: std::fmt::Arguments<'_>) {
    if !codes.is_empty() {
        codes.push(';');
    }
    // Writing to a string cannot fail.
    let _ = codes.write_fmt(code);
}

/// A colour of text (from 30 on) or of what lies behind it (from 40 on).
fn colour(codes: &mut String, colour: Color, base: u8) {
    let nth = match colour {
        Color::Reset => return push(codes, format_args!("{}", base + 9)),
        Color::Rgb(red, green, blue) => {
            return push(codes, format_args!("{};2;{red};{green};{blue}", base + 8));
        }
        Color::Indexed(index) => return push(codes, format_args!("{};5;{index}", base + 8)),
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 60,
        Color::LightRed => 61,
        Color::LightGreen => 62,
        Color::LightYellow => 63,
        Color::LightBlue => 64,
        Color::LightMagenta => 65,
        Color::LightCyan => 66,
        Color::White => 67,
    };
    push(codes, format_args!("{}", base + nth));
}

/// What is written, and where and how it stands.
struct Writer<'a> {
    text: String,
    frame: &'a Buffer,
    /// Where the cursor stands, where that is sure.
    at: Option<(u16, u16)>,
    pen: Pen,
}

impl Writer<'_> {
    fn go(&mut self, x: u16, y: u16) {
        if self.at == Some((x, y)) {
            return;
        }
        let _ = match self.at {
            Some((from, row)) if row == y && from < x => {
                if let Some(between) = self.between(from, x, y) {
                    self.text.push_str(&between);
                    Ok(())
                } else if x - from == 1 {
                    write!(self.text, "\x1b[C")
                } else {
                    write!(self.text, "\x1b[{}C", x - from)
                }
            }
            _ if x == 0 => write!(self.text, "\x1b[{}H", y + 1),
            _ => write!(self.text, "\x1b[{};{}H", y + 1, x + 1),
        };
        self.at = Some((x, y));
    }

    /// The text between two places of a row, where writing it again is no longer than a move.
    fn between(&self, from: u16, to: u16, y: u16) -> Option<String> {
        let longest = if to - from == 1 { 3 } else { 4 };
        let mut text = String::new();
        for x in from..to {
            let cell = self.frame.cell((x, y))?;
            text.push_str(cell.symbol());
            if self.pen.for_cell(cell) != self.pen
                || text.len() > longest
                || cell.symbol().width() != 1
            {
                return None;
            }
        }
        Some(text)
    }

    fn put(&mut self, x: u16, y: u16, cell: &Cell) {
        self.go(x, y);
        self.turn(self.pen.for_cell(cell));
        self.text.push_str(cell.symbol());
        // Behind the last column terminals differ, and in how wide a wide character is.
        let sure = cell.symbol().width() == 1 && x + 1 < self.frame.area().width;
        self.at = sure.then_some((x + 1, y));
    }

    fn turn(&mut self, pen: Pen) {
        if pen != self.pen {
            let codes = self.pen.codes(pen);
            let _ = write!(self.text, "\x1b[{codes}m");
            self.pen = pen;
        }
    }
}

/// The cells in which a frame differs from what is shown, in the order of a page; with them what stands
/// behind a character that was wide and is not any more: a terminal blanks its second half in the style
/// of what is written over the first.
pub(super) fn changes<'a>(shown: &Buffer, frame: &'a Buffer) -> Vec<(u16, u16, &'a Cell)> {
    let mut changes = shown.diff(frame);
    let was_wide = |x, y| shown.cell((x, y)).is_some_and(|cell| cell.symbol().width() == 2);
    let freed = changes.iter().filter(|(x, y, cell)| cell.symbol().width() < 2 && was_wide(*x, *y));
    let behind: Vec<_> =
        freed.filter_map(|(x, y, _)| Some((x + 1, *y, frame.cell((x + 1, *y))?))).collect();
    if !behind.is_empty() {
        changes.extend(behind);
        changes.sort_by_key(|(x, y, _)| (*y, *x));
        changes.dedup_by_key(|(x, y, _)| (*y, *x));
    }
    changes
}

/// What writes these cells of a frame, and leaves the cursor at a place and the pen plain.
pub(super) fn written<'a>(
    frame: &Buffer,
    cells: impl Iterator<Item = (u16, u16, &'a Cell)>,
    cursor: (u16, u16),
) -> Vec<u8> {
    let mut writer = Writer { text: String::new(), frame, at: None, pen: PLAIN };
    for (x, y, cell) in cells {
        writer.put(x, y, cell);
    }
    writer.turn(PLAIN);
    writer.go(cursor.0, cursor.1);
    writer.text.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    const COLUMNS: u16 = 24;
    const ROWS: u16 = 6;

    /// Numbers that are the same in each run.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % end
        }
    }

    fn style(chance: &mut Chance) -> Style {
        let colours = [
            Color::Reset,
            Color::Reset,
            Color::Red,
            Color::LightCyan,
            Color::DarkGray,
            Color::Indexed(200),
            Color::Rgb(1, 20, 255),
        ];
        let attributes = [
            Modifier::BOLD,
            Modifier::DIM,
            Modifier::ITALIC,
            Modifier::UNDERLINED,
            Modifier::REVERSED,
        ];
        let mut style = Style::new().fg(colours[chance.below(7)]).bg(colours[chance.below(7)]);
        for attribute in attributes {
            if chance.below(3) == 0 {
                style = style.add_modifier(attribute);
            }
        }
        style
    }

    /// What is seen of a cell: blanks have no colour of their own.
    fn seen(cell: &vt100::Cell) -> (String, [vt100::Color; 2], [bool; 5]) {
        let text = if cell.has_contents() { cell.contents().to_owned() } else { " ".into() };
        let lit = cell.inverse() || cell.underline();
        let hides = text == " " && !lit;
        let front = if hides { vt100::Color::Default } else { cell.fgcolor() };
        let attributes =
            [cell.bold(), cell.dim(), cell.italic()].map(|attribute| attribute && !hides);
        let [bold, dim, italic] = attributes;
        let all = [bold, dim, italic, cell.underline(), cell.inverse()];
        (text, [front, cell.bgcolor()], all)
    }

    fn terminal() -> vt100::Parser {
        let cells = |n: u16| NonZeroU16::new(n).unwrap();
        vt100::Parser::new(cells(ROWS), cells(COLUMNS), 0)
    }

    /// A frame written cell by cell, each place and style in full.
    fn expected(frame: &Buffer) -> vt100::Parser {
        let mut parser = terminal();
        for y in 0..ROWS {
            for x in 0..COLUMNS {
                let cell = &frame[(x, y)];
                let after_wide = x > 0 && frame[(x - 1, y)].symbol().width() == 2;
                if after_wide {
                    continue;
                }
                let pen = Pen { text: cell.fg, back: cell.bg, attributes: cell.modifier };
                let codes = PLAIN.change(pen);
                let text = format!("\x1b[m\x1b[{codes}m\x1b[{};{}H{}", y + 1, x + 1, cell.symbol());
                parser.process(text.as_bytes());
            }
        }
        parser
    }

    #[test]
    fn a_terminal_shows_any_frame_after_any_other() {
        let area = Rect::new(0, 0, COLUMNS, ROWS);
        let mut chance = Chance(11);
        let mut shown = terminal();
        let mut last = Buffer::empty(area);
        for round in 0..400 {
            let mut frame = if round % 3 == 0 { Buffer::empty(area) } else { last.clone() };
            for _ in 0..chance.below(12) {
                let (x, y) = (chance.below(24) as u16, chance.below(6) as u16);
                let text =
                    ["    ", "a b", "▇▇ ▁", "漢字", " x", "-", "0123456789"][chance.below(7)];
                frame.set_string(x, y, text, style(&mut chance));
            }
            let row = Rect::new(0, chance.below(6) as u16, COLUMNS, 1);
            frame.set_style(row, style(&mut chance));
            for cell in &mut frame.content {
                // The terminal of this test cannot be bold and dim at once.
                if cell.modifier.contains(Modifier::BOLD) {
                    cell.modifier.remove(Modifier::DIM);
                }
            }
            // What stands behind a wide character belongs to it.
            for y in 0..ROWS {
                for x in 1..COLUMNS {
                    let before = frame[(x - 1, y)].clone();
                    if before.symbol().width() == 2 {
                        frame[(x, y)] = before;
                        frame[(x, y)].set_symbol(" ");
                    }
                }
            }
            let cursor = (chance.below(24) as u16, chance.below(6) as u16);
            let bytes = written(&frame, changes(&last, &frame).into_iter(), cursor);
            shown.process(&bytes);
            let expected = expected(&frame);
            for y in 0..ROWS {
                for x in 0..COLUMNS {
                    let cell = |parser: &vt100::Parser| seen(parser.screen().cell(y, x).unwrap());
                    assert_eq!(cell(&shown), cell(&expected), "round {round}, {x} {y}");
                }
            }
            assert_eq!(shown.screen().cursor_position(), (cursor.1, cursor.0), "round {round}");
            last = frame;
        }
    }

    #[test]
    fn only_what_changes_is_sent() {
        let area = Rect::new(0, 0, COLUMNS, ROWS);
        let red = Style::new().fg(Color::Indexed(9));
        let plain = Style::new();
        for (before, after, bytes) in [
            // Nothing but the cursor.
            (vec![("same", plain)], vec![("same", plain)], "\x1b[3;4H"),
            // A gap of two is written again, a wide one skipped.
            (vec![("a..b", plain)], vec![("c..d", plain)], "\x1b[1Hc..d\x1b[3;4H"),
            (vec![("a......b", plain)], vec![("c......d", plain)], "\x1b[1Hc\x1b[6Cd\x1b[3;4H"),
            // A colour lasts over blanks, and ends once.
            (vec![], vec![("x  y", red)], "\x1b[1H\x1b[38;5;9mx  y\x1b[m\x1b[3;4H"),
            (
                vec![("x", red.add_modifier(Modifier::BOLD))],
                vec![("x", red)],
                "\x1b[1H\x1b[38;5;9mx\x1b[m\x1b[3;4H",
            ),
            (
                vec![],
                vec![("x", red.add_modifier(Modifier::BOLD | Modifier::REVERSED))],
                "\x1b[1H\x1b[1;7;38;5;9mx\x1b[m\x1b[3;4H",
            ),
        ] {
            let frame = |texts: &[(&str, Style)]| {
                let mut frame = Buffer::empty(area);
                for (text, style) in texts {
                    frame.set_string(0, 0, text, *style);
                }
                frame
            };
            let (before, after) = (frame(&before), frame(&after));
            let found = written(&after, changes(&before, &after).into_iter(), (3, 2));
            assert_eq!(String::from_utf8(found).unwrap(), bytes);
        }
    }
}
