//! A screen as a picture: the cells of a buffer as SVG, whose text can be selected and searched.
//!
//! No terminal takes part. Blocks are drawn as rectangles, since fonts leave gaps between their
//! lines; everything else is text in whatever monospaced font there is. Colours are those of the
//! cells; what a cell leaves to the terminal gets the ones below.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr;

/// A cell in pixels: the advance of common monospaced fonts at [`FONT_PX`], and a line.
const CELL_PX: (f64, f64) = (8.43, 17.0);
const FONT_PX: f64 = 14.0;
/// From a line's top to its text's.
const BASELINE_PX: f64 = 13.0;
const MARGIN_PX: f64 = 10.0;
/// The terminal's own colours.
const FOREGROUND: (u8, u8, u8) = (0xd4, 0xd6, 0xda);
const BACKGROUND: (u8, u8, u8) = (0x16, 0x18, 0x1d);
/// The sixteen colours of a terminal.
const SIXTEEN: [(u8, u8, u8); 16] = [
    (0x1d, 0x1f, 0x21),
    (0xcc, 0x66, 0x66),
    (0x8c, 0xb3, 0x69),
    (0xde, 0xa8, 0x4a),
    (0x6a, 0x9b, 0xd1),
    (0xb2, 0x94, 0xbb),
    (0x5f, 0xb3, 0xb3),
    (0xc5, 0xc8, 0xc6),
    (0x80, 0x84, 0x8c),
    (0xe0, 0x5c, 0x50),
    (0xa6, 0xd1, 0x89),
    (0xf0, 0xc6, 0x74),
    (0x8a, 0xb4, 0xf8),
    (0xc9, 0xa6, 0xd8),
    (0x8a, 0xd0, 0xd0),
    (0xff, 0xff, 0xff),
];

/// How a cell is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Look {
    fore: (u8, u8, u8),
    back: (u8, u8, u8),
    bold: bool,
    dim: bool,
    underlined: bool,
}

/// The cells of a buffer as an SVG document; `title` tells who cannot see it what it shows.
#[must_use]
pub fn svg(buffer: &Buffer, title: &str) -> String {
    let area = buffer.area();
    let width = f64::from(area.width) * CELL_PX.0 + 2.0 * MARGIN_PX;
    let height = f64::from(area.height) * CELL_PX.1 + 2.0 * MARGIN_PX;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.1} {height:.1}\" width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"'DejaVu Sans Mono','Menlo','Consolas','Liberation Mono',monospace\" font-size=\"{FONT_PX}\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{}\"/>\n",
        escaped(title),
        hex(BACKGROUND)
    );
    for y in area.top()..area.bottom() {
        row(buffer, y, &mut text);
    }
    text.push_str("</svg>\n");
    text
}

/// One line: backgrounds and blocks first, then its text in runs of one look.
fn row(buffer: &Buffer, y: u16, text: &mut String) {
    let area = buffer.area();
    let top = MARGIN_PX + f64::from(y - area.top()) * CELL_PX.1;
    let mut runs: Vec<(u16, Look, String)> = Vec::new();
    let mut x = area.left();
    while x < area.right() {
        let cell = &buffer[(x, y)];
        let look = look(cell);
        let cells = cell.symbol().width().max(1) as u16;
        let left = MARGIN_PX + f64::from(x - area.left()) * CELL_PX.0;
        if look.back != BACKGROUND {
            let whole = [0.0, 0.0, f64::from(cells), 1.0];
            rectangle(text, (left, top), whole, &look_of(look.back, false));
        }
        if let Some(part) = block(cell.symbol()) {
            rectangle(text, (left, top), part, &look_of(look.fore, look.dim));
            runs.push((x, look, String::new()));
        } else {
            // A wide character ends a run, so that whatever stands behind it is at its place.
            let goes_on = runs.last().is_some_and(|(from, known, run)| {
                *known == look && cells == 1 && usize::from(x - from) == run.chars().count()
            });
            if !goes_on {
                runs.push((x, look, String::new()));
            }
            if let Some((_, _, run)) = runs.last_mut() {
                run.push_str(cell.symbol());
            }
        }
        x += cells;
    }
    for (x, look, run) in runs.iter().filter(|(_, _, run)| !run.trim().is_empty()) {
        let left = MARGIN_PX + f64::from(x - area.left()) * CELL_PX.0;
        let weight = if look.bold { " font-weight=\"bold\"" } else { "" };
        let line = if look.underlined { " text-decoration=\"underline\"" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "<text x=\"{left:.2}\" y=\"{:.1}\" xml:space=\"preserve\"{}{weight}{line}>{}</text>",
            top + BASELINE_PX,
            look_of(look.fore, look.dim),
            escaped(run.trim_end())
        );
    }
}

/// A rectangle of parts of a cell: left, top, right, bottom.
fn rectangle(text: &mut String, (left, top): (f64, f64), part: [f64; 4], fill: &str) {
    let [x0, y0, x1, y1] = part;
    let _ = writeln!(
        text,
        "<rect x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{:.2}\"{fill}/>",
        left + x0 * CELL_PX.0,
        top + y0 * CELL_PX.1,
        (x1 - x0) * CELL_PX.0,
        (y1 - y0) * CELL_PX.1
    );
}

/// What of its cell a block fills.
fn block(symbol: &str) -> Option<[f64; 4]> {
    let mut chars = symbol.chars();
    let (c, None) = (chars.next()?, chars.next()) else { return None };
    let eighths = |of: u32| f64::from(of) / 8.0;
    Some(match c {
        '▀' => [0.0, 0.0, 1.0, 0.5],
        '▁'..='█' => [0.0, 1.0 - eighths(c as u32 - 0x2580), 1.0, 1.0],
        '▉'..='▏' => [0.0, 0.0, eighths(0x2590 - c as u32), 1.0],
        '▐' => [0.5, 0.0, 1.0, 1.0],
        _ => return None,
    })
}

fn look(cell: &Cell) -> Look {
    let has = |modifier| cell.modifier.contains(modifier);
    let (fore, back) = (rgb(cell.fg, FOREGROUND), rgb(cell.bg, BACKGROUND));
    let (fore, back) = if has(Modifier::REVERSED) { (back, fore) } else { (fore, back) };
    Look {
        fore,
        back,
        bold: has(Modifier::BOLD),
        dim: has(Modifier::DIM),
        underlined: has(Modifier::UNDERLINED),
    }
}

fn look_of(colour: (u8, u8, u8), dim: bool) -> String {
    let dim = if dim { " opacity=\"0.6\"" } else { "" };
    format!(" fill=\"{}\"{dim}", hex(colour))
}

fn hex((red, green, blue): (u8, u8, u8)) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn rgb(colour: Color, own: (u8, u8, u8)) -> (u8, u8, u8) {
    let index = match colour {
        Color::Reset => return own,
        Color::Rgb(red, green, blue) => return (red, green, blue),
        Color::Indexed(index) => index,
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 8,
        Color::LightRed => 9,
        Color::LightGreen => 10,
        Color::LightYellow => 11,
        Color::LightBlue => 12,
        Color::LightMagenta => 13,
        Color::LightCyan => 14,
        Color::White => 15,
    };
    indexed(index)
}

/// The 256 colours of xterm.
fn indexed(index: u8) -> (u8, u8, u8) {
    match index {
        0..16 => SIXTEEN[usize::from(index)],
        16..232 => {
            let cube = index - 16;
            let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
            (level(cube / 36), level(cube / 6 % 6), level(cube % 6))
        }
        232..=255 => {
            let grey = 8 + 10 * (index - 232);
            (grey, grey, grey)
        }
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() => safe.push('?'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn cells_become_text_blocks_and_colours() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 20, 2));
        buffer.set_string(0, 0, "a<b&c", Style::new().fg(Color::Rgb(1, 2, 3)));
        buffer.set_string(6, 0, "▄▌", Style::new().fg(Color::Indexed(196)));
        buffer.set_string(0, 1, "胸部 x", Style::new().add_modifier(Modifier::REVERSED));
        let text = svg(&buffer, "a \"title\"");
        for part in [
            "<title>a &quot;title&quot;</title>",
            "fill=\"#010203\">a&lt;b&amp;c</text>",
            // The lower half of the seventh cell, the left half of the eighth.
            "<rect x=\"60.58\" y=\"18.50\" width=\"8.43\" height=\"8.50\" fill=\"#ff0000\"/>",
            "<rect x=\"69.01\" y=\"10.00\" width=\"4.21\" height=\"17.00\" fill=\"#ff0000\"/>",
            // A wide character takes two cells, and each its own place.
            "<text x=\"10.00\" y=\"40.0\" xml:space=\"preserve\" fill=\"#16181d\">胸</text>",
            "<text x=\"26.86\" y=\"40.0\" xml:space=\"preserve\" fill=\"#16181d\">部</text>",
            "<rect x=\"10.00\" y=\"27.00\" width=\"16.86\" height=\"17.00\" fill=\"#d4d6da\"/>",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains('▄'), "blocks are drawn, not written");
    }

    #[test]
    fn the_colours_of_xterm() {
        for (index, expected) in [
            (16, (0, 0, 0)),
            (196, (255, 0, 0)),
            (231, (255, 255, 255)),
            (232, (8, 8, 8)),
            (255, (238, 238, 238)),
        ] {
            assert_eq!(indexed(index), expected);
        }
    }
}
