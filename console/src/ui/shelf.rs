//! What the library holds, part by part: series, samples and their labels, models with their curves,
//! predictions with the nearest earlier cases, and what was set aside.

use gantry_model::At;
use ratatui::style::Style;

use super::job;
use super::pixels::{self, Ink, Pixel};
use super::sheet::Sheet;
use super::table::{self, Column, Rows};
use super::theme::Theme;
use super::words::{count, day, folded, minute, things};
use crate::app::layout::{ROWS_ROOMY, shelf_parts};
use crate::app::library::{Case, Listing, THUMBNAIL};
use crate::app::{App, Tab};

const SERIES: [Column; 7] = [
    Column::text("SERIES", 10, 0).up_to(34),
    Column::text("MODALITY", 8, 1),
    Column::number("IMAGES", 7, 0),
    Column::number("CONFLICTS", 9, 3),
    Column::number("SAMPLES", 7, 2),
    Column::text("PATIENT", 10, 4).up_to(34),
    Column::text("NEWEST IMAGE", 16, 5),
];
const SAMPLES: [Column; 9] = [
    Column::text("SAMPLE", 10, 0).up_to(20),
    Column::text("LABEL", 10, 0),
    Column::text("BY", 8, 2).up_to(12),
    Column::text("STATE", 9, 1),
    Column::text("SPLIT", 10, 4),
    Column::number("ML", 9, 2),
    Column::number("SURE", 5, 3),
    Column::text("SIZE", 14, 6),
    Column::text("MADE", 16, 5),
];
const LABELS: [Column; 8] = [
    Column::text("LABEL", 10, 0).up_to(24),
    Column::number("SAMPLES", 7, 0),
    Column::number("BY PEOPLE", 9, 1),
    Column::number("REJECTED", 8, 2),
    Column::number("PATIENTS", 8, 3),
    Column::number("TRAIN", 6, 1),
    Column::number("VALIDATION", 10, 1),
    Column::number("TEST", 6, 4),
];
const MODELS: [Column; 7] = [
    Column::text("MODEL", 10, 0).up_to(20),
    Column::text("NAME", 12, 1).up_to(24),
    Column::text("STAGE", 9, 0),
    Column::number("DICE", 6, 0),
    Column::number("PREDICTIONS", 11, 3),
    Column::text("RUN", 10, 4).up_to(20),
    Column::text("MADE", 16, 2),
];
const PREDICTIONS: [Column; 7] = [
    Column::text("SERIES", 10, 0).up_to(20),
    Column::text("MODEL", 12, 1).up_to(20),
    Column::text("STAGE", 9, 2),
    Column::number("ML", 9, 0),
    Column::number("SURE", 5, 0),
    Column::text("FINDINGS", 12, 4).up_to(30),
    Column::text("MADE", 16, 3),
];
const REASONS: [Column; 2] =
    [Column::text("REASON", 18, 0).up_to(30), Column::number("FILES", 7, 0)];
const ASIDES: [Column; 5] = [
    Column::text("FILE", 10, 0).up_to(14),
    Column::text("REASON", 14, 0).up_to(22),
    Column::number("KB", 7, 3),
    Column::text("CAME", 16, 2),
    Column::text("WHY", 20, 1),
];

/// What stands below every prediction.
const NOTICE: &str = "research use only, never a diagnosis";

/// The parts of the data's screen, the one that is shown in brackets.
pub(super) fn tabs(app: &App, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let mut x = 1;
    for tab in Tab::ALL {
        let here = app.shelf.tab == tab;
        let word = if here { format!("[{}]", tab.word()) } else { format!(" {} ", tab.word()) };
        let style = if here { theme.heading() } else { theme.dim() };
        sheet.text(x, 0, &word, style);
        x += word.len() as u16;
    }
    let columns = sheet.columns();
    if let Some(busy) = &app.shelf.busy {
        sheet.right(columns - 1, 0, busy, theme.warn());
    } else if columns > x + 12 {
        sheet.right(columns - 1, 0, "Tab: next", theme.dim());
    }
}

/// Draws a part. Gives the row on which the chosen one stands.
pub(super) fn draw(app: &App, sheet: &mut Sheet<'_>) -> u16 {
    tabs(app, sheet);
    let (columns, height, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let Some(listing) = app.shelf.listing.as_deref() else {
        let text = app.shelf.absent.as_deref().unwrap_or("reading the library");
        for (n, line) in folded(text, usize::from(columns - 2)).iter().enumerate() {
            sheet.text(1, 2 + n as u16, line, theme.dim());
        }
        return 0;
    };
    let (head, below) = shelf_parts(app, height);
    let roomy = u16::from(height >= ROWS_ROOMY);
    sums(app, listing, &mut sheet.part(0, 1 + roomy, columns, head.saturating_sub(1 + roomy)));
    let y = list(app, listing, &mut sheet.part(0, head, columns, height - head - below)) + head;
    let rows = app.shelf.shown().len() as u16;
    let end = (head + rows + 2).min(height - below);
    let mut panel = sheet.part(0, end, columns, if below > 0 { height - end } else { 0 });
    match app.shelf.tab {
        _ if below == 0 => {}
        Tab::Models => compare(app, &mut panel),
        Tab::Predictions => nearest(app, listing, &mut panel),
        _ => {}
    }
    y
}

/// What a part comes to as a whole.
fn sums(app: &App, listing: &Listing, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    match app.shelf.tab {
        Tab::Samples => {
            let cell = |row: usize, head: &str, _: u16| {
                let one = &listing.labels[row];
                let [samples, people, rejected, patients] = one.counts;
                let number = match head {
                    "LABEL" => return (one.label.clone(), Style::new()),
                    "SAMPLES" => samples,
                    "BY PEOPLE" => people,
                    "REJECTED" => rejected,
                    "PATIENTS" => patients,
                    "TRAIN" => one.sides[0],
                    "VALIDATION" => one.sides[1],
                    _ => one.sides[2],
                };
                (count(number), if number == 0 { theme.dim() } else { Style::new() })
            };
            table::draw(sheet, &LABELS, &Rows::plain(listing.labels.len()), |_| ' ', cell);
        }
        Tab::Rejects => {
            let cell = |row: usize, head: &str, _: u16| {
                let (reason, files) = &listing.reasons[row];
                match head {
                    "REASON" => (reason.clone(), theme.warn()),
                    _ => (count(*files), Style::new()),
                }
            };
            table::draw(sheet, &REASONS, &Rows::plain(listing.reasons.len()), |_| ' ', cell);
        }
        _ => {}
    }
}

fn list(app: &App, listing: &Listing, sheet: &mut Sheet<'_>) -> u16 {
    let theme = sheet.theme;
    let shown = app.shelf.shown();
    let rows =
        Rows { count: shown.len(), chosen: app.shelf.at(), top: app.top, sideways: app.sideways };
    let mark = |row: usize| {
        let marked = app.shelf.tab == Tab::Models
            && app.shelf.id(row).is_some_and(|id| app.shelf.marked.contains(id));
        if marked { '*' } else { ' ' }
    };
    let (columns, none): (&[Column], &str) = match app.shelf.tab {
        Tab::Series | Tab::Work => (&SERIES, "no series; a takes images in"),
        Tab::Samples => (&SAMPLES, "no samples; gantry preprocess makes some of the series"),
        Tab::Models => (&MODELS, "no models; gantry train makes one"),
        Tab::Predictions => (&PREDICTIONS, "no predictions; gantry predict makes some"),
        Tab::Rejects => (&ASIDES, "nothing was set aside"),
    };
    let cell = |row: usize, head: &str, _: u16| match app.shelf.tab {
        Tab::Series | Tab::Work => series(listing, shown[row], head, theme),
        Tab::Samples => sample(app, listing, shown[row], head, theme),
        Tab::Models => model(listing, shown[row], head, theme),
        Tab::Predictions => prediction(listing, shown[row], head, theme),
        Tab::Rejects => aside(listing, shown[row], head, theme),
    };
    let y = table::draw(sheet, columns, &rows, mark, cell);
    if shown.is_empty() {
        let none =
            if app.filter().is_empty() { none } else { "none fits the filter; Esc clears it" };
        sheet.text(2, 1, none, theme.dim());
    }
    y
}

/// A day and a time, UTC.
fn when(at_ms: u64) -> String {
    format!("{} {}", day(At(at_ms)), minute(At(at_ms)))
}

/// A probability in percent.
fn sure(confidence: f32) -> String {
    format!("{:.0} %", confidence * 100.0)
}

/// A stage as a style: what may be served, what may not, what nobody has looked at.
fn stage_style(stage: &str, theme: Theme) -> Style {
    match stage {
        "approved" => theme.good(),
        "retired" => theme.dim(),
        _ => theme.warn(),
    }
}

fn series(listing: &Listing, at: usize, head: &str, theme: Theme) -> (String, Style) {
    let one = &listing.series[at];
    let plain = Style::new();
    match head {
        "SERIES" => (one.id.clone(), plain),
        "MODALITY" => (one.modality.clone(), plain),
        "IMAGES" => (count(one.instances), plain),
        "CONFLICTS" if one.conflicts > 0 => (format!("! {}", count(one.conflicts)), theme.warn()),
        "CONFLICTS" => ("0".into(), theme.dim()),
        "SAMPLES" => (count(u64::from(one.samples)), plain),
        "PATIENT" => (one.patient.clone(), theme.dim()),
        _ => (when(one.at_ms), theme.dim()),
    }
}

fn sample(app: &App, listing: &Listing, at: usize, head: &str, theme: Theme) -> (String, Style) {
    let one = &listing.samples[at];
    let plain = if one.rejected.is_some() { theme.dim() } else { Style::new() };
    match head {
        "SAMPLE" => (one.id.clone(), plain),
        "LABEL" => (one.label.clone(), plain),
        "BY" => match &one.author {
            Some(author) => (app.private(author), theme.good()),
            None => ("auto".into(), theme.dim()),
        },
        "STATE" if one.rejected.is_some() => (one.state.word().into(), theme.fail()),
        "STATE" => (one.state.word().into(), plain),
        "SPLIT" => (one.side.into(), plain),
        "ML" => (format!("{:.1}", one.volume_ml), plain),
        "SURE" => (one.confidence.map_or_else(|| "-".into(), sure), plain),
        "SIZE" => {
            let [x, y, z] = one.size;
            (format!("{x}×{y}×{z}"), theme.dim())
        }
        _ => (when(one.at_ms), theme.dim()),
    }
}

fn model(listing: &Listing, at: usize, head: &str, theme: Theme) -> (String, Style) {
    let one = &listing.models[at];
    let plain = if one.stage == "retired" { theme.dim() } else { Style::new() };
    match head {
        "MODEL" => (one.id.clone(), plain),
        "NAME" => (one.name.clone(), plain),
        "STAGE" => (one.stage.into(), stage_style(one.stage, theme)),
        "DICE" => (one.dice.map_or_else(|| "-".into(), |dice| format!("{dice:.3}")), plain),
        "PREDICTIONS" => (count(u64::from(one.predictions)), plain),
        "RUN" => (one.run.clone(), theme.dim()),
        _ => (when(one.at_ms), theme.dim()),
    }
}

fn prediction(listing: &Listing, at: usize, head: &str, theme: Theme) -> (String, Style) {
    let one = &listing.predictions[at];
    let plain = Style::new();
    match head {
        "SERIES" => (one.series.clone(), plain),
        "MODEL" => (one.name.clone(), plain),
        "STAGE" => (one.stage.into(), stage_style(one.stage, theme)),
        "ML" => (format!("{:.1}", one.volume_ml), plain),
        "SURE" => (sure(one.confidence), plain),
        "FINDINGS" => (one.findings.clone(), theme.dim()),
        _ => (when(one.at_ms), theme.dim()),
    }
}

fn aside(listing: &Listing, at: usize, head: &str, theme: Theme) -> (String, Style) {
    let one = &listing.asides[at];
    let plain = Style::new();
    match head {
        "FILE" => (one.id.clone(), plain),
        "REASON" => (one.reason.clone(), theme.warn()),
        "KB" => (count(one.bytes.div_ceil(1024)), plain),
        "CAME" => (when(one.at_ms), theme.dim()),
        _ => (one.sentence.clone(), theme.dim()),
    }
}

/// The curves of the chosen model and of those that are marked, over one another.
fn compare(app: &App, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let models = app.shelf.compared();
    let runs: Vec<_> =
        models.iter().map(|model| (model.name.clone(), model.curves.as_slice())).collect();
    if runs.iter().all(|(_, curves)| curves.is_empty()) {
        if !models.is_empty() {
            sheet.text(1, 0, "its training has left no curves", theme.dim());
        }
        return;
    }
    let (columns, rows) = (sheet.columns(), sheet.rows());
    job::curves(&runs, &mut sheet.part(0, 0, columns, rows.saturating_sub(1)));
    let hint = "Space marks models to compare; x approves or retires";
    sheet.text(1, rows.saturating_sub(1), hint, theme.dim());
}

/// An id as short as it can be told from others.
fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

/// The chosen prediction, and the earlier cases that are nearest to it.
fn nearest(app: &App, listing: &Listing, sheet: &mut Sheet<'_>) {
    let (theme, columns, rows) = (sheet.theme, sheet.columns(), sheet.rows());
    let Some(one) =
        listing.predictions.iter().find(|one| Some(one.id.as_str()) == app.shelf.chosen())
    else {
        return;
    };
    let what = format!("{} by {} ({})", short(&one.series), one.name, short(&one.model));
    let numbers = format!("{:.1} ml, {} sure", one.volume_ml, sure(one.confidence));
    let end = sheet.pieces(
        1,
        0,
        2,
        &[("PREDICTION", theme.heading()), (&what, Style::new()), (&numbers, Style::new())],
    );
    if usize::from(columns.saturating_sub(end)) > NOTICE.len() {
        sheet.right(columns - 1, 0, NOTICE, theme.warn());
    } else {
        sheet.right(columns - 1, 1, NOTICE, theme.warn());
    }
    sheet.text(1, 1, "NEAREST EARLIER CASES", theme.heading());
    let cases = match &app.shelf.near {
        Some((id, cases)) if *id == one.id => cases,
        _ => return sheet.text(1, 2, "looking for them", theme.dim()),
    };
    if cases.is_empty() {
        sheet.text(1, 2, "no other patient's series has a prediction of this model", theme.dim());
        return;
    }
    // A thumbnail is about square: twice as many columns as rows.
    let room = rows.saturating_sub(5);
    let wide = (columns / cases.len() as u16).min(2 * room + 2).clamp(16, THUMBNAIL as u16 + 2);
    for (n, case) in cases.iter().enumerate() {
        let x = n as u16 * wide;
        if x + wide > columns {
            break;
        }
        let mut panel = sheet.part(x + 1, 2, wide - 2, rows.saturating_sub(2));
        panel.text(0, 0, &format!("{:.3}  {}", case.distance, short(&case.series)), Style::new());
        panel.text(0, 1, &case.findings, theme.dim());
        let mut picture = panel.part(0, 2, wide - 2, room);
        thumbnail(app, case, &mut picture);
    }
}

fn thumbnail(app: &App, case: &Case, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let small = match &case.thumbnail {
        Ok(small) => small,
        Err(why) => {
            for (n, line) in folded(why, usize::from(sheet.columns())).iter().enumerate() {
                sheet.text(0, n as u16, line, theme.dim());
            }
            return;
        }
    };
    let each = pixels::rows_a_cell(theme);
    let (columns, rows) = (usize::from(sheet.columns()), usize::from(sheet.rows()) * each);
    let [width, height] = small.size;
    // As many of its pixels as fit, in both directions alike; a cell alone is two pixels high.
    let step = (width as f64 / columns as f64).max(height as f64 * each as f64 / 2.0 / rows as f64);
    let step = [step, step * 2.0 / each as f64];
    pixels::draw(sheet, app.lean, |x, y| {
        let place = [x, y].map(|n| n as f64 + 0.5);
        let (x, y) = ((place[0] * step[0]) as usize, (place[1] * step[1]) as usize);
        let inside = x < width && y < height;
        let grey = *small.greys.get(y * width + x).filter(|_| inside)?;
        Some(Pixel { grey, ink: Ink::None })
    });
}

/// How many rows there are, for the line above the keys.
pub(super) fn said(app: &App) -> String {
    let shelf = &app.shelf;
    let Some(listing) = &shelf.listing else { return String::new() };
    let mut parts = Vec::new();
    if !app.filter().is_empty() {
        parts.push(format!(
            "/ {}   {} of {}",
            app.filter(),
            shelf.shown().len(),
            shelf.count(shelf.tab)
        ));
    }
    let waiting = shelf.cases_left();
    if shelf.tab == Tab::Samples && waiting > 0 {
        parts.push(format!("{} for a person's look; :label opens the next", waits(waiting)));
    }
    if listing.left_out > 0 {
        parts.push(format!("{} beyond the limit are not listed", things(listing.left_out, "row")));
    }
    parts.extend(listing.trouble.clone());
    parts.join("   ")
}

fn waits(number: u64) -> String {
    if number == 1 { "1 case waits".into() } else { format!("{number} cases wait") }
}
