//! The one table of all commands, and what makes text from users fit to be printed.
//!
//! A name, a reason and a line of output come from people and programs: their control characters
//! are shown and not obeyed, marks that reorder a line are shown too, and a wide character takes two
//! columns. On a terminal a table is never wider than that: the widest columns give way first and a
//! `…` stands where something was left out, so that no row wraps. Everywhere else nothing is cut.

use std::io::{self, IsTerminal};
use std::ops::Range;
use std::sync::OnceLock;

use unicode_width::UnicodeWidthChar;

use crate::term;

/// Between two columns.
const GAP: usize = 2;
/// Below this a column says nothing any more.
const COLUMN_MIN: usize = 8;

/// Columns of the terminal that is printed to; nothing where it is none, or before [`measure`].
static COLUMNS: OnceLock<Option<usize>> = OnceLock::new();

/// Looks once at what standard output is.
pub fn measure() {
    COLUMNS.get_or_init(|| io::stdout().is_terminal().then(|| term::size().0.into()));
}

/// Columns of the terminal that is printed to; nothing where it is none.
#[must_use]
pub fn columns() -> Option<usize> {
    COLUMNS.get().copied().flatten()
}

/// Text with its control characters made visible, so that a name cannot steer a terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
            c if (c as u32) < 0x20 => char::from_u32(0x2400 + c as u32).unwrap_or('?'),
            '\x7f' => '\u{2421}',
            c if c.is_control() => '?',
            // Marks that reorder a line would let a name pretend to be another.
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => '?',
            c => c,
        })
        .collect()
}

/// The columns that `text` takes on a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Text that takes at most so many columns, with a `…` for what is left out.
fn shorten(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut taken = 0;
    let kept = text.chars().take_while(|c| {
        taken += c.width().unwrap_or(0);
        taken < columns
    });
    let mut short: String = kept.collect();
    if columns > 0 {
        short.push('…');
    }
    short
}

/// A table: a heading and rows, columns as wide as their widest cell. The last column is ragged.
#[must_use]
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    lay(heading, rows, 0..0, columns())
}

/// The same with columns of numbers, which stand at the right.
#[must_use]
pub fn aligned(heading: &[&str], rows: &[Vec<String>], numbers: Range<usize>) -> String {
    lay(heading, rows, numbers, columns())
}

fn lay(
    heading: &[&str],
    rows: &[Vec<String>],
    numbers: Range<usize>,
    room: Option<usize>,
) -> String {
    let heading = heading.iter().map(ToString::to_string).collect();
    let clean_row = |row: &Vec<String>| row.iter().map(|cell| clean(cell)).collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(heading).chain(rows.iter().map(clean_row)).collect();
    let mut widths = vec![0; lines[0].len()];
    for line in &lines {
        for (column, cell) in widths.iter_mut().zip(line) {
            *column = width(cell).max(*column);
        }
    }
    if let Some(room) = room {
        let least: Vec<usize> = lines[0].iter().map(|name| width(name).max(COLUMN_MIN)).collect();
        narrow(&mut widths, &least, room);
    }
    let print = |line: &Vec<String>| {
        let mut text = String::new();
        for ((place, cell), column) in line.iter().enumerate().zip(&widths) {
            let cell = shorten(cell, *column);
            let blanks = " ".repeat(column - width(&cell));
            let (before, behind) =
                if numbers.contains(&place) { (&*blanks, "") } else { ("", &*blanks) };
            text.extend([before, &cell, behind, "  "]);
        }
        let text = text.trim_end();
        room.map_or_else(|| text.to_owned(), |room| shorten(text, room))
    };
    lines.iter().map(print).collect::<Vec<_>>().join("\n")
}

/// Takes from the widest columns until all fit into `room`, but from none so much that it says
/// nothing. The first is what one types to name the row: it gives nothing.
fn narrow(widths: &mut [usize], least: &[usize], room: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    loop {
        let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
        let able =
            widths.iter().enumerate().skip(1).filter(|(place, width)| **width > least[*place]);
        let Some((widest, _)) = able.max_by_key(|(place, width)| (**width, *place)) else { return };
        if over == 0 {
            return;
        }
        // Down to the second widest at once, or names of a megabyte would be taken from one by one.
        let others = widths.iter().enumerate().filter(|(place, _)| *place != widest && *place > 0);
        let second = others.map(|(_, width)| *width).filter(|width| *width < widths[widest]).max();
        let floor = second.unwrap_or(0).max(least[widest]);
        widths[widest] -= over.min((widths[widest] - floor).max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as people and attackers choose them.
    fn names() -> Vec<String> {
        vec![
            "plain".into(),
            "胸部CT-検査".into(),
            "evil\x1b[2J\x1b]0;title\x07\nname".into(),
            "csi\u{9b}31m".into(),
            "reversed \u{202e}gpj.exe\u{200f}".into(),
            "e\u{301}clair\u{200b}".into(),
            "🩻🩻".into(),
            "x".repeat(5000),
            String::new(),
        ]
    }

    #[test]
    fn a_table_never_breaks() {
        let rows: Vec<Vec<String>> =
            names().into_iter().map(|name| vec!["j1".into(), name, "run".into()]).collect();
        for room in [None, Some(20), Some(40), Some(80), Some(10_000)] {
            let text = lay(&["JOB", "NAME", "STATE"], &rows, 0..0, room);
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), rows.len() + 1);
            let column = |line: &str, word: &str| width(&line[..line.rfind(word).unwrap()]);
            for line in &lines[1..] {
                assert!(room.is_none_or(|room| width(line) <= room), "{room:?} {line}");
                if room != Some(20) {
                    assert_eq!(column(lines[0], "STATE"), column(line, "run"), "{line}");
                }
            }
        }
    }

    #[test]
    fn what_is_wide_gives_way_and_what_names_a_row_does_not() {
        let rows = vec![vec!["j123456".into(), "a long name of a job".into(), "run".into()]];
        for (room, expected) in [
            (None, "j123456  a long name of a job  run"),
            (Some(34), "j123456  a long name of a …  run"),
            (Some(30), "j123456  a long name o…  run"),
            (Some(20), "j123456  a long …  …"),
            (Some(5), "j123…"),
        ] {
            let text = lay(&["JOB", "NAME", "STATE"], &rows, 0..0, room);
            assert_eq!(text.lines().nth(1).unwrap(), expected, "{room:?}");
        }
        let numbers = lay(&["N", "SIZE"], &[vec!["a".into(), "7".into()]], 1..2, None);
        assert_eq!(numbers, "N  SIZE\na     7");
    }

    #[test]
    fn text_is_cut_at_columns_not_bytes() {
        for (text, columns, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("胸部CT", 4, "胸…"),
            ("胸部CT", 3, "胸…"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(shorten(text, columns), expected, "{text} {columns}");
            assert!(width(&shorten(text, columns)) <= columns);
        }
    }
}
