//! The image viewer: one slice as large as it goes, the two other planes beside it where there is
//! room, and lines that say where one is, what stands there and what is marked.
//!
//! What is drawn is a function of the volume, the cursor, the window and the place that there is.

use gantry_imaging::Image;
use ratatui::layout::Rect;

use super::pixels::{self, Ink, Pixel};
use super::raster::Raster;
use super::sheet::Sheet;
use super::words::folded;
use crate::app::image::{CELL_ASPECT, Cut, Marks, Picture, Plane, Stage, Viewer, Window};
use crate::app::layout::{IMAGE_TOP, image_cells};
use crate::app::{App, Overlay, View};

/// From so many columns on the sides of a picture are named.
const COLUMNS_WITH_SIDES: u16 = 30;
/// Pixels of an arm of the cursor's cross.
const CROSS_ARM: usize = 4;
/// The two other planes need so many columns.
const BESIDE_MIN: u16 = 30;

/// Draws the viewer. Gives the place of the cursor, in the sheet.
pub(super) fn draw(app: &App, sheet: &mut Sheet<'_>) -> (u16, u16) {
    let (columns, rows, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    debug_assert_eq!(app.view, View::Image, "only where an image is looked at");
    let Some(viewer) = app.viewer.as_deref() else {
        sheet.text(1, 0, "no image is open; 5 leads to those there are", theme.dim());
        return (0, 0);
    };
    head(viewer, sheet);
    let said = match &viewer.stage {
        Stage::Open => None,
        Stage::Coming(how) => Some((how, theme.dim())),
        Stage::Failed(why) => Some((why, theme.warn())),
    };
    if let Some((text, style)) = said {
        for (n, line) in folded(text, usize::from(columns - 2)).iter().enumerate() {
            sheet.text(1, 2 + n as u16, line, style);
        }
        return (0, 0);
    }
    let mut cursor = None;
    for (n, (shown, place)) in panels(viewer, (columns, rows)).into_iter().enumerate() {
        let mut panel = sheet.part(place.x, place.y, place.width, place.height);
        if n == 0 {
            cursor = plane(app, viewer, shown, viewer.zoom, &mut panel);
        } else {
            plane(app, viewer, shown, 0, &mut panel);
            sheet.text(place.x, place.y - 1, shown.word(), theme.dim());
        }
    }
    where_one_is(viewer, rows, sheet);
    let (x, y) = cursor.unwrap_or((0, 0));
    (x, y + IMAGE_TOP - 2)
}

/// The planes that are shown and their places in a sheet of so many columns and rows: the one that is
/// looked at, and the others beside it where there is room.
fn panels(viewer: &Viewer, (columns, rows): (u16, u16)) -> Vec<(Plane, Rect)> {
    let (wide, high) = image_cells((columns, rows + 4));
    let mut panels = vec![(viewer.plane, Rect::new(0, 1, wide.min(columns), high))];
    let left = columns.saturating_sub(wide + 1);
    if left >= BESIDE_MIN && high >= 12 {
        let each = high / 2;
        let others = Plane::ALL.into_iter().filter(|plane| *plane != viewer.plane);
        let place = |n: u16| Rect::new(wide + 1, 2 + n * each, left, each - 1);
        panels.extend(others.zip(0..).map(|(plane, n)| (plane, place(n))));
    }
    panels
}

/// The same planes in pixels, with their places on the screen. None while something lies over them,
/// and none where the line to the terminal is slow: half blocks cost less.
pub(super) fn rasters(app: &App) -> Vec<Raster> {
    let viewer = app.viewer.as_deref().filter(|viewer| viewer.stage == Stage::Open);
    let seen = app.view == View::Image && app.overlay == Overlay::None && !app.lean;
    let (Some(viewer), true) = (viewer, seen) else { return Vec::new() };
    let size = (app.size.0, app.size.1.saturating_sub(4));
    let panels = panels(viewer, size).into_iter().enumerate();
    let raster = |(n, (plane, place)): (usize, (Plane, Rect))| {
        let zoom = if n == 0 { viewer.zoom } else { 0 };
        raster(viewer, plane, zoom, Rect { y: place.y + 2, ..place })
    };
    panels.filter(|(_, (_, place))| !place.is_empty()).filter_map(raster).collect()
}

fn raster(viewer: &Viewer, plane: Plane, zoom: u8, area: Rect) -> Option<Raster> {
    let opened = viewer.opened.as_deref()?;
    let pixels = Raster::pixels(area.width, area.height);
    let cut = Cut::of(plane, &opened.image.geometry);
    let picture = Picture::new(cut, &opened.image.geometry, pixels, 1.0, zoom, viewer.cursor);
    let marks = viewer.overlay.then_some(&viewer.marks);
    let slice = Slice::of(&opened.image, marks, &picture, viewer.cursor);
    let [width, height] = pixels;
    let mut rgb = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let mut pixel = slice.pixel(x, y, viewer.window);
            if let (Some(pixel), true) = (&mut pixel, slice.on_cross(x, y)) {
                pixel.ink = Ink::Cursor;
            }
            rgb.extend(pixels::rgb(pixel));
        }
    }
    let letters = sides(plane, area.width, area.height);
    let letters = letters.into_iter().map(|(_, (x, y))| (area.x + x, area.y + y)).collect();
    Some(Raster { area, width, height, rgb, letters })
}

/// What is looked at, and how.
fn head(viewer: &Viewer, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let what = format!("{} {}", viewer.subject.kind.word(), viewer.subject.id);
    let Some(opened) = &viewer.opened else {
        sheet.text(1, 0, &what, theme.heading());
        return;
    };
    let (at, of) = viewer.slice().unwrap_or((0, 0));
    let Window { level, width } = viewer.window;
    let slice = format!("{} {at:>3}/{of}", viewer.plane.word());
    let window = format!("W {width:.0} L {level:.0} {}", viewer.window_name());
    let zoom = if viewer.zoom > 0 { format!("×{}", 1_u32 << viewer.zoom) } else { String::new() };
    let geometry = &opened.image.geometry;
    let ([x, y, z], [pitch_x, pitch_y, pitch_z]) = (geometry.size, geometry.spacing_mm);
    let grid =
        format!("{} {x}×{y}×{z}  {pitch_x:.2}×{pitch_y:.2}×{pitch_z:.2} mm", opened.modality);
    let style = ratatui::style::Style::new();
    // On a narrow screen what changes with keys stays, and the id gives way.
    let pieces: &[(&str, ratatui::style::Style)] = match sheet.columns() {
        ..60 => &[(&slice, theme.heading()), (&window, style), (&zoom, style)],
        60..100 => {
            &[(&slice, theme.heading()), (&window, style), (&zoom, style), (&what, theme.dim())]
        }
        _ => &[
            (&slice, theme.heading()),
            (&window, style),
            (&zoom, style),
            (&what, theme.dim()),
            (&grid, theme.dim()),
        ],
    };
    sheet.pieces(1, 0, 3, pieces);
}

/// The cursor in voxels and millimetres, the value there, what is marked; how regions are grown.
fn where_one_is(viewer: &Viewer, rows: u16, sheet: &mut Sheet<'_>) {
    let (theme, columns) = (sheet.theme, sheet.columns());
    let (Some(opened), Some(value)) = (&viewer.opened, viewer.value()) else { return };
    let [x, y, z] = viewer.cursor;
    let place = opened.image.geometry.to_patient_mm(viewer.cursor.map(|n| n as f64));
    let named = [('R', 'L'), ('A', 'P'), ('F', 'H')];
    let mm: Vec<String> = place
        .iter()
        .zip(named)
        .map(|(at, (low, high))| {
            format!("{} {:>5.1}", if *at < 0.0 { low } else { high }, at.abs())
        })
        .collect();
    let voxel = format!("x {x:>3} y {y:>3} z {z:>3}");
    let value = format!("{value:>6.0} {}", viewer.unit());
    let label = if viewer.label().is_empty() { "marked" } else { viewer.label() };
    let marked = format!("{label} {:.1} ml", viewer.marked_ml());
    let mm = format!("{} mm", mm.join(" "));
    let style = ratatui::style::Style::new();
    let mut pieces = vec![(value.as_str(), theme.heading()), (&voxel, style)];
    if columns >= 80 {
        pieces.push((&mm, style));
    }
    pieces.push((&marked, theme.curve(0)));
    sheet.pieces(1, rows - 2, 3, &pieces);
    let how = viewer.how_words();
    let brush = format!("brush {}", 2 * crate::app::image::BRUSHES[viewer.brush] + 1);
    let state = match (viewer.grows, viewer.touched) {
        (true, _) => "growing",
        (false, true) => "changed; a keeps it",
        (false, false) => "",
    };
    let line = [(how.as_str(), theme.dim()), (&brush, theme.dim()), (state, theme.warn())];
    let end = sheet.pieces(1, rows - 1, 3, &line);
    let note = "research use only, never a diagnosis";
    if usize::from(columns.saturating_sub(end)) > note.len() + 1 {
        sheet.right(columns - 1, rows - 1, note, theme.dim());
    }
}

/// Draws a plane through the cursor. Gives where the cursor stands.
fn plane(
    app: &App,
    viewer: &Viewer,
    plane: Plane,
    zoom: u8,
    panel: &mut Sheet<'_>,
) -> Option<(u16, u16)> {
    let opened = viewer.opened.as_deref()?;
    let theme = panel.theme;
    let each = pixels::rows_a_cell(theme);
    let size = [usize::from(panel.columns()), usize::from(panel.rows()) * each];
    let aspect = CELL_ASPECT / each as f64;
    let cut = Cut::of(plane, &opened.image.geometry);
    let picture = Picture::new(cut, &opened.image.geometry, size, aspect, zoom, viewer.cursor);
    let marks = viewer.overlay.then_some(&viewer.marks);
    let slice = Slice::of(&opened.image, marks, &picture, viewer.cursor);
    let cursor = slice.cursor;
    pixels::draw(panel, app.lean, |x, y| slice.pixel(x, y, viewer.window));
    for (side, (x, y)) in sides(plane, panel.columns(), panel.rows()) {
        panel.text(x, y, &side.to_string(), theme.warn());
    }
    cursor.map(|(x, y)| (x as u16, (y / each) as u16))
}

/// The letters that name the sides of a picture of so many cells, where it is large enough for them.
fn sides(plane: Plane, columns: u16, rows: u16) -> Vec<(char, (u16, u16))> {
    if columns < COLUMNS_WITH_SIDES || rows < 6 {
        return Vec::new();
    }
    let (right, bottom) = (columns - 1, rows - 1);
    let (middle, centre) = (bottom / 2, right / 2);
    let places = [(0, middle), (right, middle), (centre, 0), (centre, bottom)];
    plane.sides().into_iter().zip(places).collect()
}

/// A slice laid on pixels.
struct Slice {
    width: usize,
    /// Mean value and whether anything is marked; nothing beside the volume.
    pixels: Vec<Option<(f32, bool)>>,
    cursor: Option<(usize, usize)>,
}

impl Slice {
    fn of(image: &Image, marks: Option<&Marks>, picture: &Picture, at: [usize; 3]) -> Self {
        let (cut, size) = (picture.cut, image.geometry.size);
        let stride = [1, size[0], size[0] * size[1]];
        let base = at[cut.through.voxel] * stride[cut.through.voxel];
        let [width, height] = picture.pixels;
        let side = |n: usize, count: usize| -> Vec<Option<std::ops::Range<usize>>> {
            (0..count).map(|pixel| picture.shown(n, pixel)).collect()
        };
        let (across, down) = (side(0, width), side(1, height));
        let mut pixels = vec![None; width * height];
        for (y, rows) in down.iter().enumerate() {
            for (x, columns) in across.iter().enumerate() {
                let (Some(rows), Some(columns)) = (rows, columns) else { continue };
                let (mut sum, mut marked) = (0.0, false);
                for row in rows.clone() {
                    let line = base + cut.down.of(row, size) * stride[cut.down.voxel];
                    for column in columns.clone() {
                        let voxel = line + cut.across.of(column, size) * stride[cut.across.voxel];
                        sum += image.voxels[voxel];
                        // What is thinner than a pixel must not disappear.
                        marked |= marks.is_some_and(|marks| marks.holds(voxel));
                    }
                }
                pixels[y * width + x] = Some((sum / (rows.len() * columns.len()) as f32, marked));
            }
        }
        let place = |axis: crate::app::image::Axis| axis.of(at[axis.voxel], size);
        let cursor = picture.pixel(0, place(cut.across)).zip(picture.pixel(1, place(cut.down)));
        Self { width, pixels, cursor }
    }

    fn marked(&self, x: usize, y: usize) -> bool {
        let at = (x < self.width).then(|| self.pixels.get(y * self.width + x)).flatten();
        at.is_some_and(|pixel| pixel.is_some_and(|(_, marked)| marked))
    }

    /// Whether a pixel lies on the arms of the cross through the cursor: one pixel alone is not seen.
    fn on_cross(&self, x: usize, y: usize) -> bool {
        self.cursor.is_some_and(|(at_x, at_y)| {
            let (across, down) = (x.abs_diff(at_x), y.abs_diff(at_y));
            across.min(down) == 0 && across.max(down) <= CROSS_ARM
        })
    }

    fn pixel(&self, x: usize, y: usize, window: Window) -> Option<Pixel> {
        let at = (x < self.width).then_some(y * self.width + x)?;
        let (value, marked) = (*self.pixels.get(at)?)?;
        let around = || {
            x > 0
                && y > 0
                && self.marked(x - 1, y)
                && self.marked(x + 1, y)
                && self.marked(x, y - 1)
                && self.marked(x, y + 1)
        };
        let ink = match marked {
            _ if self.cursor == Some((x, y)) => Ink::Cursor,
            true if around() => Ink::Inside,
            true => Ink::Edge,
            false => Ink::None,
        };
        Some(Pixel { grey: window.grey(value), ink })
    }
}

#[cfg(test)]
mod tests {
    use gantry_imaging::Geometry;

    use super::*;
    use crate::app::image::Run;

    #[test]
    fn pixels_are_means_and_what_is_marked_keeps_its_outline() {
        let geometry = Geometry::unit([8, 8, 1]);
        let mut image = Image::filled(geometry, 0.0);
        // The left half is 100.
        for (n, voxel) in image.voxels.iter_mut().enumerate() {
            *voxel = if n % 8 < 4 { 100.0 } else { 0.0 };
        }
        let mut marks = Marks::none(64);
        let rows: Vec<Run> = (2..7).map(|y| Run { start: y * 8 + 1, length: 5 }).collect();
        marks.fill(&rows, true);
        let cut = Cut::of(Plane::Axial, &geometry);
        let picture = Picture::new(cut, &geometry, [8, 8], 1.0, 0, [0; 3]);
        let slice = Slice::of(&image, Some(&marks), &picture, [7, 7, 0]);
        let window = Window { level: 50.0, width: 100.0 };
        let ink = |x, y| slice.pixel(x, y, window).map(|pixel| pixel.ink);
        assert_eq!(
            (ink(1, 2), ink(3, 4), ink(0, 0)),
            (Some(Ink::Edge), Some(Ink::Inside), Some(Ink::None))
        );
        assert_eq!((ink(7, 7), ink(8, 0)), (Some(Ink::Cursor), None));
        let coarse = Picture::new(cut, &geometry, [3, 3], 1.0, 0, [0; 3]);
        let slice = Slice::of(&image, None, &coarse, [0; 3]);
        let greys: Vec<u8> =
            (0..3).filter_map(|x| slice.pixel(x, 1, window).map(|pixel| pixel.grey)).collect();
        assert!(greys[0] == 255 && greys[2] == 0 && (64..192).contains(&greys[1]), "{greys:?}");
    }
}
