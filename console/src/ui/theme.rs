//! Colours by meaning, in as many as the terminal has; and the glyphs of strips and bars.

use ratatui::style::{Color, Modifier, Style};

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
    fn colour(self, true_colour: (u8, u8, u8), indexed: u8, sixteen: Color) -> Style {
        let (red, green, blue) = true_colour;
        match self.colours {
            Colours::True => Style::new().fg(Color::Rgb(red, green, blue)),
            Colours::Indexed => Style::new().fg(Color::Indexed(indexed)),
            Colours::Sixteen => Style::new().fg(sixteen),
            Colours::Mono => Style::new(),
        }
    }

    /// What needs a look.
    #[must_use]
    pub fn warn(self) -> Style {
        self.colour((214, 170, 50), 178, Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// What needs a human.
    #[must_use]
    pub fn fail(self) -> Style {
        self.colour((224, 92, 80), 167, Color::Red).add_modifier(Modifier::BOLD)
    }

    /// What runs well.
    #[must_use]
    pub fn good(self) -> Style {
        self.colour((110, 180, 120), 108, Color::Green)
    }

    /// What is old, or beside the point.
    #[must_use]
    pub fn dim(self) -> Style {
        match self.colours {
            Colours::Mono => Style::new().add_modifier(Modifier::DIM),
            _ => self.colour((128, 132, 140), 245, Color::DarkGray),
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
        let part = permille.min(1000);
        let (red, green, blue) =
            (40 + part * 60 / 1000, 90 + part * 130 / 1000, 120 + part * 125 / 1000);
        let indexed = [24, 31, 38, 45, 51][(part / 201).min(4) as usize];
        self.colour((red as u8, green as u8, blue as u8), indexed, Color::Cyan)
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

    /// The style of the nth curve of a panel.
    #[must_use]
    pub fn curve(self, nth: usize) -> Style {
        match nth {
            0 => self.ramp(500),
            1 => self.colour((214, 170, 50), 178, Color::Yellow),
            _ => self.good(),
        }
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
