//! The sheet that panels write on: cells of a buffer, text that never leaves its place.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::theme::{Glyphs, Theme};
use crate::output::{clean, width};

/// A part of the screen.
pub(super) struct Sheet<'a> {
    pub(super) buffer: &'a mut Buffer,
    pub(super) area: Rect,
    pub(super) theme: Theme,
}

impl Sheet<'_> {
    /// Columns.
    pub(super) fn columns(&self) -> u16 {
        self.area.width
    }

    /// Rows.
    pub(super) fn rows(&self) -> u16 {
        self.area.height
    }

    /// The sheet's part from these columns and rows on.
    pub(super) fn part(&mut self, x: u16, y: u16, columns: u16, rows: u16) -> Sheet<'_> {
        let x = x.min(self.area.width);
        let y = y.min(self.area.height);
        let area = Rect {
            x: self.area.x + x,
            y: self.area.y + y,
            width: columns.min(self.area.width - x),
            height: rows.min(self.area.height - y),
        };
        Sheet { buffer: self.buffer, area, theme: self.theme }
    }

    /// Text as it is shown here: control characters visible, and ASCII where no more is wanted.
    pub(super) fn shown(&self, text: &str) -> String {
        let text = clean(text);
        match self.theme.glyphs {
            Glyphs::Unicode => text,
            Glyphs::Ascii => ascii(&text),
        }
    }

    /// Writes text from a place to the end of the row. What does not fit is cut.
    pub(super) fn text(&mut self, x: u16, y: u16, text: &str, style: Style) {
        let room = self.area.width.saturating_sub(x);
        self.cell(x, y, room, text, style);
    }

    /// Writes text into so many columns.
    pub(super) fn cell(&mut self, x: u16, y: u16, columns: u16, text: &str, style: Style) {
        if y >= self.area.height || x >= self.area.width {
            return;
        }
        let room = columns.min(self.area.width - x);
        let text = self.shown(text);
        self.buffer.set_stringn(self.area.x + x, self.area.y + y, text, usize::from(room), style);
    }

    /// Writes pieces one after another with so many blanks between them. Gives where they end.
    pub(super) fn pieces(&mut self, x: u16, y: u16, gap: u16, pieces: &[(&str, Style)]) -> u16 {
        pieces.iter().fold(x, |x, (text, style)| {
            self.text(x, y, text, *style);
            x.saturating_add(width(&self.shown(text)) as u16).saturating_add(gap)
        })
    }

    /// Writes text so that it ends at a column. Gives where it begins.
    pub(super) fn right(&mut self, end: u16, y: u16, text: &str, style: Style) -> u16 {
        let columns = width(&self.shown(text)) as u16;
        let x = end.saturating_sub(columns);
        self.text(x, y, text, style);
        x
    }

    /// Gives a whole row a style.
    pub(super) fn row_style(&mut self, y: u16, style: Style) {
        if y < self.area.height {
            let row = Rect { y: self.area.y + y, height: 1, ..self.area };
            self.buffer.set_style(row, style);
        }
    }

    /// Gives everything a style.
    pub(super) fn style(&mut self, style: Style) {
        self.buffer.set_style(self.area, style);
    }

    /// Empties the sheet.
    pub(super) fn clear(&mut self) {
        for y in self.area.top()..self.area.bottom() {
            for x in self.area.left()..self.area.right() {
                self.buffer[(x, y)].reset();
            }
        }
    }
}

/// Text in ASCII, as near as it gets.
fn ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '…' => plain.push_str("..."),
            '–' | '—' | '−' => plain.push('-'),
            '·' | '•' => plain.push('.'),
            '×' => plain.push('x'),
            c if c.is_ascii() => plain.push(c),
            _ => plain.push('?'),
        }
    }
    plain
}
