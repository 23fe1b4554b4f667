//! A table on a sheet: columns that give way by rank, rows that scroll with the chosen one.
//!
//! A table says what its columns are once, with a rank each. On a narrow screen those of the
//! highest rank go first, so that id, state and one number remain; what is left over widens the
//! column that may grow, and the last one takes the rest.

use ratatui::style::Style;

use super::sheet::Sheet;

/// Between two columns.
const GAP: u16 = 2;
/// Before the first column: the mark of the chosen row.
const MARGIN: u16 = 1;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its heading.
    pub(super) head: &'static str,
    /// Its width, at least.
    pub(super) width: u16,
    /// Its width, at most; the last column takes what is left.
    pub(super) width_max: u16,
    /// Whether its texts end at its right side, as numbers do.
    pub(super) right: bool,
    /// The higher, the sooner it gives way; 0 never does.
    pub(super) rank: u8,
}

impl Column {
    /// A column of text.
    pub(super) const fn text(head: &'static str, width: u16, rank: u8) -> Self {
        Self { head, width, width_max: width, right: false, rank }
    }

    /// A column of numbers.
    pub(super) const fn number(head: &'static str, width: u16, rank: u8) -> Self {
        Self { head, width, width_max: width, right: true, rank }
    }

    /// The same column, but wider where there is room.
    pub(super) const fn up_to(mut self, width_max: u16) -> Self {
        self.width_max = width_max;
        self
    }
}

/// A column that fits: which one, where it begins, how wide it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    column: usize,
    x: u16,
    width: u16,
}

/// Which of the columns fit into so many cells, and where.
fn places(columns: &[Column], room: u16) -> Vec<Place> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| {
        let widths: u16 = kept.iter().map(|index| columns[*index].width).sum();
        MARGIN + widths + GAP * kept.len().saturating_sub(1) as u16
    };
    while needed(&kept) > room {
        let Some(weakest) = (0..kept.len()).max_by_key(|at| columns[kept[*at]].rank) else { break };
        if columns[kept[weakest]].rank == 0 {
            break;
        }
        kept.remove(weakest);
    }
    let mut left = room.saturating_sub(needed(&kept));
    let last = kept.last().copied();
    let mut x = MARGIN;
    let mut places = Vec::new();
    for index in kept {
        let column = columns[index];
        let more = if Some(index) == last && !column.right {
            left
        } else {
            (column.width_max - column.width).min(left / 3)
        };
        left -= more;
        let width = column.width + more;
        places.push(Place { column: index, x, width });
        x += width + GAP;
    }
    places
}

/// How the rows of a table are drawn.
pub(super) struct Rows {
    /// How many there are.
    pub(super) count: usize,
    /// The one that is chosen.
    pub(super) chosen: Option<usize>,
    /// The first that is shown.
    pub(super) top: usize,
    /// Columns that may give way and are skipped, from the left.
    pub(super) sideways: u16,
}

impl Rows {
    /// Rows among which nothing is chosen.
    pub(super) const fn plain(count: usize) -> Self {
        Self { count, chosen: None, top: 0, sideways: 0 }
    }
}

/// The columns that are left when some are skipped: those that never give way stay.
fn moved(columns: &[Column], sideways: u16) -> Vec<Column> {
    let mut skip = sideways;
    let left = columns.iter().filter(|column| {
        let skipped = skip > 0 && column.rank > 0;
        skip -= u16::from(skipped);
        !skipped
    });
    left.copied().collect()
}

/// Draws a heading and as many rows as fit from the first on. Gives the row of the sheet on which
/// the chosen one stands.
pub(super) fn draw(
    sheet: &mut Sheet<'_>,
    columns: &[Column],
    rows: &Rows,
    mark: impl Fn(usize) -> char,
    cell: impl Fn(usize, &str, u16) -> (String, Style),
) -> u16 {
    let columns = moved(columns, rows.sideways);
    let places = places(&columns, sheet.columns());
    let heading = sheet.theme.heading();
    for place in &places {
        let column = columns[place.column];
        put(sheet, 0, *place, column.right, column.head, heading);
    }
    let page = usize::from(sheet.rows().saturating_sub(1));
    let chosen = rows.chosen.unwrap_or(rows.top);
    // The app keeps the choice visible; a panel smaller than it thinks does so too.
    let first = rows.top.max((chosen + 1).saturating_sub(page)).min(chosen);
    for row in (first..rows.count).take(page) {
        let y = (row - first + 1) as u16;
        for place in &places {
            let column = columns[place.column];
            let (text, style) = cell(row, column.head, place.width);
            put(sheet, y, *place, column.right, &text, style);
        }
        let mark = mark(row);
        if rows.chosen == Some(row) {
            sheet.row_style(y, sheet.theme.chosen());
            sheet.text(0, y, ">", sheet.theme.chosen());
        } else if mark != ' ' {
            sheet.text(0, y, &mark.to_string(), heading);
        }
    }
    (chosen.saturating_sub(first) + 1) as u16
}

fn put(sheet: &mut Sheet<'_>, y: u16, place: Place, right: bool, text: &str, style: Style) {
    if right {
        let text = sheet.shown(text);
        let columns = crate::output::width(&text).min(usize::from(place.width)) as u16;
        sheet.cell(place.x + place.width - columns, y, columns, &text, style);
    } else {
        sheet.cell(place.x, y, place.width, text, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_give_way_by_rank_and_the_last_takes_the_rest() {
        let columns = [
            Column::text("ID", 4, 0),
            Column::text("NAME", 6, 1).up_to(10),
            Column::number("CORES", 5, 3),
            Column::text("NOTE", 8, 2),
        ];
        for (room, expected) in [
            (60, vec![(0, 1, 4), (1, 7, 10), (2, 19, 5), (3, 26, 34)]),
            (30, vec![(0, 1, 4), (1, 7, 6), (2, 15, 5), (3, 22, 8)]),
            (29, vec![(0, 1, 4), (1, 7, 8), (3, 17, 12)]),
            (13, vec![(0, 1, 4), (1, 7, 6)]),
            (6, vec![(0, 1, 5)]),
            (0, vec![(0, 1, 4)]),
        ] {
            let found: Vec<(usize, u16, u16)> = places(&columns, room)
                .into_iter()
                .map(|place| (place.column, place.x, place.width))
                .collect();
            assert_eq!(found, expected, "{room}");
        }
    }
}
