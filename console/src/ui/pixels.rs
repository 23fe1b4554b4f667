//! Greys as cells: half blocks where there are colours, shades where there are none, characters where
//! there is only ASCII. What is marked keeps its outline in all of them.

use ratatui::style::{Color, Modifier, Style};

use super::palette::{Palette, Shade};
use super::sheet::Sheet;
use super::theme::{Colours, Glyphs, Theme};

/// Shades of a cell, the darkest first.
const SHADES: [&str; 5] = [" ", "░", "▒", "▓", "█"];
const ASCII_SHADES: [&str; 10] = [" ", ".", ":", "-", "=", "+", "*", "#", "%", "@"];
/// The greys of sixteen colours, the darkest first.
const SIXTEEN: [Color; 4] = [Color::Black, Color::DarkGray, Color::Gray, Color::White];
/// Ordered thresholds (Bayer 1973) in sixteenths: few greys look like more.
const BAYER: [[u16; 4]; 4] = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]];
/// Greys where the line to the terminal is slow, and where it is not.
const LEAN_BITS: u8 = 3;
const RICH_BITS: u8 = 6;

/// What lies over a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// Nothing.
    None,
    /// It is marked.
    Inside,
    /// It is marked, and one beside it is not.
    Edge,
    /// The cursor.
    Cursor,
}

/// A pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pixel {
    pub(super) grey: u8,
    pub(super) ink: Ink,
}

/// Pixels that stand in one cell, one above the other.
pub(super) fn rows_a_cell(theme: Theme) -> usize {
    if theme.glyphs == Glyphs::Unicode && theme.colours != Colours::Mono { 2 } else { 1 }
}

/// Draws pixels from the upper left corner on; `at` gives those beside the picture as nothing.
pub(super) fn draw(sheet: &mut Sheet<'_>, lean: bool, at: impl Fn(usize, usize) -> Option<Pixel>) {
    let theme = sheet.theme;
    let bits = if lean { LEAN_BITS } else { RICH_BITS };
    for y in 0..usize::from(sheet.rows()) {
        for x in 0..usize::from(sheet.columns()) {
            if rows_a_cell(theme) == 1 {
                if let Some(pixel) = at(x, y) {
                    let (glyph, style) = shade(theme, pixel, x, y);
                    sheet.cell(x as u16, y as u16, 1, glyph, style);
                }
                continue;
            }
            let colour = |y: usize| at(x, y).map(|pixel| colour(theme, pixel, x, y, bits));
            let (glyph, style) = match (colour(2 * y), colour(2 * y + 1)) {
                (None, None) => continue,
                (Some(upper), Some(lower)) if upper == lower => (" ", Style::new().bg(upper)),
                (Some(upper), Some(lower)) => ("▀", Style::new().fg(upper).bg(lower)),
                (Some(upper), None) => ("▀", Style::new().fg(upper)),
                (None, Some(lower)) => ("▄", Style::new().fg(lower)),
            };
            sheet.cell(x as u16, y as u16, 1, glyph, style);
        }
    }
}

/// A pixel in red, green and blue; black beside the picture.
pub(super) fn rgb(pixel: Option<Pixel>) -> [u8; 3] {
    let Some(pixel) = pixel else { return [0; 3] };
    let solid = matches!(pixel.ink, Ink::Edge | Ink::Cursor);
    let (red, green, blue) = ink(pixel)
        .map_or((pixel.grey, pixel.grey, pixel.grey), |ink| mixed(pixel.grey, ink, solid));
    [red, green, blue]
}

/// The colour of what is marked, and that of the cursor.
fn ink(pixel: Pixel) -> Option<Shade> {
    let palette = Palette::current();
    match pixel.ink {
        Ink::None => None,
        Ink::Inside | Ink::Edge => Some(palette.curves[0]),
        Ink::Cursor => Some(palette.warn),
    }
}

fn colour(theme: Theme, pixel: Pixel, x: usize, y: usize, bits: u8) -> Color {
    let lost = 8 - bits;
    // As bright at its end as with all bits.
    let grey = (u16::from(pixel.grey >> lost) * 255 / ((1 << bits) - 1)) as u8;
    let ink = ink(pixel);
    let solid = matches!(pixel.ink, Ink::Edge | Ink::Cursor);
    match (theme.colours, ink) {
        (Colours::True, None) => Color::Rgb(grey, grey, grey),
        (Colours::True, Some(shade)) => {
            let (red, green, blue) = mixed(grey, shade, solid);
            Color::Rgb(red, green, blue)
        }
        (Colours::Indexed, None) => indexed_grey(grey),
        (Colours::Indexed, Some(shade)) if solid => Color::Indexed(shade.indexed),
        (Colours::Indexed, Some(shade)) => indexed(mixed(grey, shade, false)),
        (_, Some(shade)) if solid || (x + y).is_multiple_of(2) => shade.sixteen,
        _ => SIXTEEN[dithered(pixel.grey, x, y, SIXTEEN.len())],
    }
}

/// A grey with a third of a colour in it, or that colour.
fn mixed(grey: u8, shade: Shade, solid: bool) -> (u8, u8, u8) {
    let (red, green, blue) = shade.rgb;
    let mix = |one: u8| {
        if solid { one } else { ((u16::from(grey) * 2 + u16::from(one)) / 3) as u8 }
    };
    (mix(red), mix(green), mix(blue))
}

/// The nearest of xterm's greys: 24 steps from 8 on, with black and white at its ends.
fn indexed_grey(grey: u8) -> Color {
    Color::Indexed(match grey {
        0..4 => 16,
        247.. => 231,
        _ => 232 + ((grey.saturating_sub(3)) / 10).min(23),
    })
}

/// The nearest of xterm's cube of six by six by six colours.
fn indexed((red, green, blue): (u8, u8, u8)) -> Color {
    let step = |value: u8| match value {
        0..48 => 0,
        48..115 => 1,
        _ => (value - 35) / 40,
    };
    Color::Indexed(16 + 36 * step(red) + 6 * step(green) + step(blue))
}

/// Which of so many steps a grey is at this place.
fn dithered(grey: u8, x: usize, y: usize, steps: usize) -> usize {
    let threshold = BAYER[y % 4][x % 4];
    let scaled = u16::from(grey) * (steps as u16 - 1) * 16 / 255;
    usize::from((scaled + threshold) / 16).min(steps - 1)
}

/// A pixel as a glyph, where colours do not carry it.
fn shade(theme: Theme, pixel: Pixel, x: usize, y: usize) -> (&'static str, Style) {
    let style = |shade: Option<Shade>| match (theme.colours, shade) {
        (Colours::Mono, _) | (_, None) => Style::new(),
        (Colours::True, Some(Shade { rgb: (red, green, blue), .. })) => {
            Style::new().fg(Color::Rgb(red, green, blue))
        }
        (Colours::Indexed, Some(shade)) => Style::new().fg(Color::Indexed(shade.indexed)),
        (Colours::Sixteen, Some(shade)) => Style::new().fg(shade.sixteen),
    };
    let ink = style(ink(pixel));
    match (pixel.ink, theme.glyphs) {
        (Ink::Cursor, _) => ("+", ink.add_modifier(Modifier::BOLD | Modifier::REVERSED)),
        (Ink::Edge, _) => ("o", ink.add_modifier(Modifier::BOLD)),
        (_, Glyphs::Ascii) => {
            (ASCII_SHADES[usize::from(pixel.grey) * ASCII_SHADES.len() / 256], ink)
        }
        (_, Glyphs::Unicode) => (SHADES[dithered(pixel.grey, x, y, SHADES.len())], ink),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;

    use super::*;

    fn drawn(theme: Theme, pixel: Pixel) -> (String, Style) {
        let area = Rect::new(0, 0, 4, 2);
        let mut buffer = Buffer::empty(area);
        draw(&mut Sheet { buffer: &mut buffer, area, theme }, false, |_, _| Some(pixel));
        (buffer[(0, 0)].symbol().to_owned(), buffer[(0, 0)].style())
    }

    #[test]
    fn a_grey_is_as_bright_as_the_terminal_has_it() {
        let grey = |grey| Pixel { grey, ink: Ink::None };
        let theme = |colours, glyphs| Theme { colours, glyphs };
        for (colours, value, background) in [
            (Colours::True, 255, Color::Rgb(255, 255, 255)),
            (Colours::True, 0, Color::Rgb(0, 0, 0)),
            (Colours::Indexed, 0, Color::Indexed(16)),
            (Colours::Indexed, 128, Color::Indexed(244)),
            (Colours::Indexed, 255, Color::Indexed(231)),
            (Colours::Sixteen, 255, Color::White),
            (Colours::Sixteen, 0, Color::Black),
        ] {
            let (glyph, style) = drawn(theme(colours, Glyphs::Unicode), grey(value));
            assert_eq!((glyph.as_str(), style.bg), (" ", Some(background)), "{colours:?} {value}");
        }
        for (glyphs, value, glyph) in [
            (Glyphs::Unicode, 255, "█"),
            (Glyphs::Unicode, 0, " "),
            (Glyphs::Ascii, 255, "@"),
            (Glyphs::Ascii, 128, "+"),
        ] {
            let (found, style) = drawn(theme(Colours::Mono, glyphs), grey(value));
            assert_eq!((found.as_str(), style.fg), (glyph, Some(Color::Reset)), "{value}");
        }
    }

    #[test]
    fn greys_rise_in_every_palette() {
        let level = |colour: Color| match colour {
            Color::Rgb(grey, ..) => u32::from(grey),
            Color::Indexed(16) => 0,
            Color::Indexed(231) => 300,
            Color::Indexed(step) => u32::from(step),
            other => SIXTEEN.iter().position(|one| *one == other).unwrap() as u32,
        };
        for colours in [Colours::True, Colours::Indexed, Colours::Sixteen] {
            let theme = Theme { colours, glyphs: Glyphs::Unicode };
            let levels: Vec<u32> = (0..=255)
                .map(|grey| level(colour(theme, Pixel { grey, ink: Ink::None }, 1, 1, RICH_BITS)))
                .collect();
            assert!(levels.is_sorted() && levels[0] == 0, "{colours:?} {levels:?}");
        }
    }

    #[test]
    fn an_outline_is_seen_without_colours() {
        for glyphs in [Glyphs::Unicode, Glyphs::Ascii] {
            let theme = Theme { colours: Colours::Mono, glyphs };
            let (glyph, style) = drawn(theme, Pixel { grey: 200, ink: Ink::Edge });
            assert!(glyph == "o" && style.add_modifier.contains(Modifier::BOLD));
        }
    }
}
