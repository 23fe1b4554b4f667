//! Colours by meaning, in as many as the terminal has; and the glyphs of strips and bars.

use ratatui::style::{Color, Modifier, Style};

use super::palette::{Palette, Shade};

/// How many colours the terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// 24 bits.
    True,
    /// The 256 of xterm.
    Indexed,
    /// The terminal's own 16.
    Sixteen,
    /// None: attributes only.
    Mono,
}

/// Which glyphs may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// Blocks and braille.
    Unicode,
    /// ASCII only.
    Ascii,
}

/// How everything looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// The colours.
    pub colours: Colours,
    /// The glyphs.
    pub glyphs: Glyphs,
}

/// Eight heights of a cell, the empty one first.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII_BLOCKS: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '#', '@'];
/// Eight widths of a cell, the empty one first.
const EIGHTHS: [char; 9] = ['·', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

impl Theme {
    fn colour(self, shade: Shade) -> Style {
        let (red, green, blue) = shade.rgb;
        match self.colours {
            Colours::True => Style::new().fg(Color::Rgb(red, green, blue)),
            Colours::Indexed => Style::new().fg(Color::Indexed(shade.indexed)),
            Colours::Sixteen => Style::new().fg(shade.sixteen),
            Colours::Mono => Style::new(),
        }
    }

    /// What needs a look.
    #[must_use]
    pub fn warn(self) -> Style {
        self.colour(Palette::current().warn).add_modifier(Modifier::BOLD)
    }

    /// What needs a human.
    #[must_use]
    pub fn fail(self) -> Style {
        self.colour(Palette::current().fail).add_modifier(Modifier::BOLD)
    }

    /// What runs well.
    #[must_use]
    pub fn good(self) -> Style {
        self.colour(Palette::current().good)
    }

    /// What is old, or beside the point.
    #[must_use]
    pub fn dim(self) -> Style {
        match self.colours {
            Colours::Mono => Style::new().add_modifier(Modifier::DIM),
            _ => self.colour(Palette::current().dim),
        }
    }

    /// Headings.
    #[must_use]
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The chosen row.
    #[must_use]
    pub fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A use in thousandths: one hue, lighter as it rises.
    #[must_use]
    pub fn ramp(self, permille: u32) -> Style {
        let steps = &Palette::current().ramp;
        let place = permille.min(999) as usize * (steps.len() - 1);
        let (step, part) = (place / 999, (place % 999) as u32);
        let (low, high) = (steps[step], steps[(step + 1).min(steps.len() - 1)]);
        // Between two steps the colour is mixed; where there are few colours the nearer one stands.
        let mix = |low: u8, high: u8| {
            ((u32::from(low) * (999 - part) + u32::from(high) * part) / 999) as u8
        };
        let rgb =
            (mix(low.rgb.0, high.rgb.0), mix(low.rgb.1, high.rgb.1), mix(low.rgb.2, high.rgb.2));
        let nearer = if part < 500 { low } else { high };
        self.colour(Shade { rgb, ..nearer })
    }

    /// A height of 0 to 8 eighths.
    #[must_use]
    pub fn block(self, eighths: usize) -> char {
        let set = if self.glyphs == Glyphs::Ascii { ASCII_BLOCKS } else { BLOCKS };
        set[eighths.min(8)]
    }

    /// A bar of so many cells, filled to a part in thousandths.
    #[must_use]
    pub fn bar(self, permille: u32, cells: usize) -> String {
        let eighths = permille.min(1000) as usize * cells * 8 / 1000;
        (0..cells)
            .map(|cell| {
                let here = eighths.saturating_sub(cell * 8).min(8);
                match self.glyphs {
                    Glyphs::Ascii if here >= 4 => '#',
                    Glyphs::Ascii => '.',
                    Glyphs::Unicode => EIGHTHS[here],
                }
            })
            .collect()
    }

    /// What stands where there is no reading.
    #[must_use]
    pub fn gap(self) -> char {
        if self.glyphs == Glyphs::Ascii { '.' } else { '·' }
    }

    /// What stands where the next value of a strip will be written.
    #[must_use]
    pub fn write_mark(self) -> &'static str {
        if self.glyphs == Glyphs::Ascii { "|" } else { "▏" }
    }

    /// The style of the nth curve of a panel.
    #[must_use]
    pub fn curve(self, nth: usize) -> Style {
        let curves = &Palette::current().curves;
        self.colour(curves[nth % curves.len()])
    }

    /// The glyph of the nth curve where there are no dots.
    #[must_use]
    pub fn star(self, nth: usize) -> char {
        ['.', '*', '+'][nth.min(2)]
    }

    /// What stands before a curve's name: its glyph, or a line of its colour.
    #[must_use]
    pub fn key(self, star: char) -> char {
        if self.glyphs == Glyphs::Ascii { star } else { '─' }
    }

    /// The lines of a box: across, down, and the corners from the upper left one on.
    #[must_use]
    pub fn lines(self) -> [char; 6] {
        match self.glyphs {
            Glyphs::Ascii => ['-', '|', '+', '+', '+', '+'],
            Glyphs::Unicode => ['─', '│', '┌', '┐', '└', '┘'],
        }
    }
}
