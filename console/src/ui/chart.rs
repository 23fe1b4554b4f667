//! Strips of use over time, and curves of metrics: braille where there is Unicode, stars where not.

use gantry_wire::Metric;
use ratatui::style::Style;

use super::sheet::Sheet;
use super::theme::Glyphs;

/// Draws use over time in thousandths, the newest at the right; a gap stays empty.
pub(super) fn strip(sheet: &mut Sheet<'_>, values: &[Option<u16>]) {
    let (columns, rows) = (usize::from(sheet.columns()), usize::from(sheet.rows()));
    if columns == 0 || rows == 0 {
        return;
    }
    for column in 0..columns {
        // The newest values stand at the right; a wider panel than there are values stretches them.
        // A column shows the most of the values it stands for, so that no peak is lost and the
        // newest value is always there.
        let first = column * values.len() / columns;
        let behind = ((column + 1) * values.len() / columns).max(first + 1);
        let here = values.get(first..behind.min(values.len())).unwrap_or_default();
        let Some(value) = here.iter().flatten().max() else { continue };
        let eighths = (usize::from(*value).min(1000) * rows * 8).div_ceil(1000);
        let style = sheet.theme.ramp(u32::from(*value));
        for row in 0..rows {
            let here = eighths.saturating_sub((rows - 1 - row) * 8).min(8);
            if here > 0 {
                let glyph = sheet.theme.block(here).to_string();
                sheet.cell(column as u16, row as u16, 1, &glyph, style);
            }
        }
    }
}

/// Draws one cell for each value in thousandths; a gap is one, and where the write position moves it
/// stands right behind the newest value.
pub(super) fn cells(sheet: &mut Sheet<'_>, values: &[Option<u16>], written: Option<usize>) {
    let theme = sheet.theme;
    for (x, value) in values.iter().enumerate() {
        let place = x as u16;
        if written.is_some_and(|written| x == (written + 1) % values.len().max(1)) {
            sheet.cell(place, 0, 1, theme.write_mark(), theme.dim());
            continue;
        }
        let Some(value) = value else {
            sheet.cell(place, 0, 1, &theme.gap().to_string(), theme.dim());
            continue;
        };
        let eighths = (usize::from(*value).min(1000) * 8).div_ceil(1000).max(1);
        let glyph = theme.block(eighths).to_string();
        sheet.cell(place, 0, 1, &glyph, theme.ramp(u32::from(*value)));
    }
}

/// A curve's points, and how it is drawn.
pub(super) struct Curve<'a> {
    pub(super) metric: &'a Metric,
    pub(super) style: Style,
    /// Its glyph where there are no dots.
    pub(super) star: char,
}

/// What the height of a panel means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero, or what lies lower, to the highest value.
    FromZero,
    /// From 0 to 1.
    Unit,
}

/// Columns of the numbers at the left of curves.
const MARGIN: u16 = 7;

/// Draws curves over one another, with their scale at the left and their steps below. Nothing
/// where there is no point.
pub(super) fn curves(sheet: &mut Sheet<'_>, curves: &[Curve<'_>], scale: Scale) {
    let points = || curves.iter().flat_map(|curve| &curve.metric.points);
    let values = || points().map(gantry_wire::Point::value).filter(|value| value.is_finite());
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let first = points().map(|point| point.step).min().unwrap_or(0);
    let last = points().map(|point| point.step).max().unwrap_or(0);
    if !low.is_finite() || sheet.columns() <= MARGIN + 2 || sheet.rows() < 3 {
        return;
    }
    let (low, high) = match scale {
        Scale::Unit => (0.0, 1.0),
        // A flat curve at zero still has a height to stand in.
        Scale::FromZero => (low.min(0.0), if high > low.min(0.0) { high } else { 1.0 }),
    };
    let (columns, rows, dim) = (sheet.columns(), sheet.rows() - 1, sheet.theme.dim());
    sheet.right(MARGIN - 1, 0, &number(high), dim);
    sheet.right(MARGIN - 1, rows - 1, &number(low), dim);
    let end = format!("step {last}");
    sheet.text(MARGIN, rows, &first.to_string(), dim);
    sheet.right(columns, rows, &end, dim);
    let mut panel = sheet.part(MARGIN, 0, columns - MARGIN, rows);
    for curve in curves {
        let finite = curve.metric.points.iter().filter(|point| point.value().is_finite());
        let placed: Vec<(f64, f64)> = finite
            .map(|point| {
                let along = (point.step - first) as f64 / (last - first).max(1) as f64;
                (along, (point.value() - low) / (high - low))
            })
            .collect();
        draw(&mut panel, &placed, curve);
    }
}

/// A number of the scale in at most six columns.
fn number(value: f64) -> String {
    match value.abs() {
        0.0..100.0 => format!("{value:.2}"),
        100.0..100_000.0 => format!("{value:.0}"),
        _ => format!("{value:.0e}"),
    }
}

/// Draws a line through points whose coordinates are 0 to 1.
fn draw(sheet: &mut Sheet<'_>, points: &[(f64, f64)], curve: &Curve<'_>) {
    let ascii = sheet.theme.glyphs == Glyphs::Ascii;
    let (across, down) = if ascii { (1, 1) } else { (2, 4) };
    let (columns, rows) = (usize::from(sheet.columns()), usize::from(sheet.rows()));
    let (width, height) = (columns * across, rows * down);
    if width == 0 || height == 0 {
        return;
    }
    let mut dots = vec![false; width * height];
    let pixel = |(x, y): (f64, f64)| {
        let x = (x.clamp(0.0, 1.0) * (width - 1) as f64).round() as i64;
        let y = ((1.0 - y.clamp(0.0, 1.0)) * (height - 1) as f64).round() as i64;
        (x, y)
    };
    let pixels: Vec<(i64, i64)> = points.iter().copied().map(pixel).collect();
    for pair in pixels.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let steps = (x1 - x0).abs().max((y1 - y0).abs()).max(1);
        for step in 0..=steps {
            let (x, y) = (x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps);
            dots[y as usize * width + x as usize] = true;
        }
    }
    if let [(x, y)] = pixels[..] {
        dots[y as usize * width + x as usize] = true;
    }
    for row in 0..rows {
        for column in 0..columns {
            let at = |dx: usize, dy: usize| dots[(row * down + dy) * width + column * across + dx];
            let glyph = if ascii { at(0, 0).then_some(curve.star) } else { braille(at) };
            if let Some(glyph) = glyph {
                sheet.cell(column as u16, row as u16, 1, &glyph.to_string(), curve.style);
            }
        }
    }
}

/// The braille pattern of two by four dots.
fn braille(at: impl Fn(usize, usize) -> bool) -> Option<char> {
    const BITS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
    let mut bits = 0;
    for (dx, column) in BITS.iter().enumerate() {
        for (dy, bit) in column.iter().enumerate() {
            bits |= if at(dx, dy) { *bit } else { 0 };
        }
    }
    if bits == 0 { None } else { char::from_u32(0x2800 + bits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_numbers() {
        let all = |_: usize, _: usize| true;
        let first = |dx: usize, dy: usize| dx == 0 && dy == 0;
        assert_eq!((braille(all), braille(first)), (Some('⣿'), Some('⠁')));
        assert_eq!(braille(|_, _| false), None);
        for (value, text) in [(0.5, "0.50"), (-1.0, "-1.00"), (1234.5, "1234"), (1e9, "1e9")] {
            assert_eq!(number(value), text);
        }
    }
}
