//! Pictures in pixels, for terminals that show more than cells.
//!
//! A raster lies over cells that hold half blocks until its bytes are known to be sent: whoever sends
//! them makes room first, so that a terminal shows one or the other, and never nothing.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Pixels of one raster: a slice of 512 by 512 voxels, which is as fine as a CT has it.
pub const PIXELS_MAX: usize = 512 * 512;
/// Pixels across one cell, at most: most fonts have no more.
const CELL_MAX: usize = 10;

/// A picture in pixels and the cells that it lies over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raster {
    /// The cells.
    pub area: Rect,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Red, green and blue of each pixel, row by row.
    pub rgb: Vec<u8>,
    /// Cells whose text stands over the picture.
    pub letters: Vec<(u16, u16)>,
}

impl Raster {
    /// Pixels across and down that so many cells get: square ones, of cells twice as high as wide.
    pub(super) fn pixels(columns: u16, rows: u16) -> [usize; 2] {
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        let each = (PIXELS_MAX / (2 * columns * rows).max(1)).isqrt().clamp(1, CELL_MAX);
        [columns * each, 2 * rows * each]
    }

    /// Empties the cells below the picture; letters keep their text, on the picture.
    pub fn make_room(&self, buffer: &mut Buffer) {
        let area = self.area.intersection(*buffer.area());
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                let cell = &mut buffer[(x, y)];
                if self.letters.contains(&(x, y)) {
                    let style = cell.style();
                    let kept = Style { bg: None, underline_color: None, ..style };
                    let symbol = cell.symbol().to_owned();
                    cell.reset();
                    cell.set_symbol(&symbol).set_style(kept);
                } else {
                    cell.reset();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_square_and_bounded() {
        for (columns, rows, expected) in
            [(10, 5, [100, 100]), (66, 29, [528, 464]), (200, 100, [400, 400]), (0, 0, [0, 0])]
        {
            let pixels = Raster::pixels(columns, rows);
            assert_eq!(pixels, expected);
            assert!(pixels[0] * pixels[1] <= PIXELS_MAX);
        }
    }

    #[test]
    fn room_is_made_for_the_picture_alone() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 4, 3));
        let full = Style::new().bg(ratatui::style::Color::Red);
        for y in 0..3 {
            buffer.set_string(0, y, "abcd", full);
        }
        let area = Rect::new(1, 1, 9, 9);
        let raster = Raster { area, width: 0, height: 0, rgb: vec![], letters: vec![(2, 1)] };
        raster.make_room(&mut buffer);
        assert_eq!(super::super::lines(&buffer), ["abcd", "a c", "a"]);
        let back = |x, y| buffer[(x, y)].bg;
        assert_eq!(
            (back(0, 1), back(2, 1)),
            (full.bg.unwrap_or_default(), Style::reset().bg.unwrap_or_default())
        );
    }
}
