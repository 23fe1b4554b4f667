//! Cells as bytes: moves of the cursor, colours and attributes, and text, as few of each as it takes.

use std::io;

use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Cell;

/// Writes cells to their places.
pub(super) fn write<'a>(
    bytes: &mut Vec<u8>,
    cells: impl Iterator<Item = (u16, u16, &'a Cell)>,
) -> io::Result<()> {
    CrosstermBackend::new(bytes).draw(cells)
}
