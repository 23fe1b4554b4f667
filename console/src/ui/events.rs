//! The event log: what happened, newest first, the chosen line in full, and how much came when.

use gantry_model::Level;
use gantry_wire::{NoteRow, Update};
use ratatui::style::Style;

use super::sheet::Sheet;
use super::table::{self, Column, Rows};
use super::theme::Theme;
use super::words::{clock, day, minute};
use super::{chart, now_of};
use crate::app::App;
use crate::app::layout::{ROWS_ROOMY, event_detail};

const COLUMNS: [Column; 4] = [
    Column::text("TIME", 8, 0),
    Column::text("LEVEL", 5, 0),
    Column::text("SUBJECT", 10, 0).up_to(14),
    Column::text("WHAT", 10, 0),
];

pub(super) fn level_style(level: Level, theme: Theme) -> Style {
    match level {
        Level::Fail => theme.fail(),
        Level::Warn => theme.warn(),
        Level::Note => Style::new(),
        Level::Info => theme.dim(),
    }
}

/// The screen of events. Gives the row of the chosen one.
pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let (columns, height, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let shown = app.events.shown(app.filter());
    let rows = Rows {
        count: shown.len(),
        chosen: shown.iter().position(|row| Some(row.number) == app.event),
        top: app.top,
        sideways: 0,
    };
    let list = app.list_rows() as u16 + 1;
    let cell = |row: usize, head: &str, _: u16| {
        let note = &shown[row].note;
        let style = level_style(note.level, theme);
        match head {
            "TIME" => (clock(note.at), theme.dim()),
            "LEVEL" => (note.level.word().to_owned(), style),
            "SUBJECT" => (note.subject.to_string(), style),
            _ => (
                app.hidden(&note.sentence),
                if note.level == Level::Info { Style::new() } else { style },
            ),
        }
    };
    let y = table::draw(&mut sheet.part(0, 0, columns, list), &COLUMNS, &rows, |_| ' ', cell);
    if shown.is_empty() {
        let none = match (app.events.known(), app.filter().is_empty()) {
            (false, _) => "waiting for the event log",
            (true, true) => "nothing happened then",
            (true, false) => "no line fits the filter; Esc clears it",
        };
        sheet.text(2, 1, none, theme.dim());
    }
    let below = event_detail(height);
    if below > 0 {
        let end = (shown.len() as u16 + 2).min(list + u16::from(height >= ROWS_ROOMY));
        let mut panel = sheet.part(0, end, columns, height - end);
        if let Some(row) = rows.chosen.map(|at| shown[at]) {
            detail(app, row, &mut panel);
        }
        let mut panel = sheet.part(0, height - 1, columns, 1);
        per_minute(app, update, &mut panel);
    }
    y
}

/// The chosen line in full.
fn detail(app: &App, row: &NoteRow, sheet: &mut Sheet<'_>) {
    let (theme, note) = (sheet.theme, &row.note);
    let subject = note.subject.to_string();
    let (time, number) =
        (format!("{} {}", day(note.at), clock(note.at)), format!("line {}", row.number));
    let style = level_style(note.level, theme);
    sheet.pieces(
        1,
        0,
        2,
        &[
            (&time, theme.dim()),
            (note.level.word(), style),
            (&subject, theme.heading()),
            (&number, theme.dim()),
        ],
    );
    let room = usize::from(sheet.columns().saturating_sub(4)).max(1);
    let rows = usize::from(sheet.rows().saturating_sub(3));
    for (y, part) in
        super::words::folded(&app.hidden(&note.sentence), room).iter().take(rows).enumerate()
    {
        sheet.text(3, y as u16 + 1, part, Style::new());
    }
}

/// Lines per minute of the last hour.
fn per_minute(app: &App, update: &Update, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let end = app.events.until().unwrap_or_else(|| now_of(app, update));
    let counts = app.events.per_minute(end);
    let most = counts.iter().max().copied().unwrap_or(0).max(1);
    let values: Vec<Option<u16>> =
        counts.iter().map(|count| (*count > 0).then(|| (count * 1000 / most) as u16)).collect();
    let x = sheet.pieces(1, 0, 2, &[("PER MINUTE", theme.heading())]);
    let width = 60.min(sheet.columns().saturating_sub(x + 20));
    if width < 60 {
        return;
    }
    chart::strip(&mut sheet.part(x, 0, width, 1), &values);
    let start = gantry_model::At(end.0.saturating_sub(3_600_000));
    let span = format!("{} .. {}, at most {most}", minute(start), minute(end));
    sheet.text(x + width + 2, 0, &span, theme.dim());
}

/// What is looked at: the line above the keys.
pub(super) fn said(app: &App) -> String {
    let shown = app.events.shown(app.filter()).len();
    let when = match app.events.until() {
        Some(at) => format!("until {} {}; L is now", day(at), clock(at)),
        None => "newest first".to_owned(),
    };
    let filter =
        if app.filter().is_empty() { String::new() } else { format!("/ {}   ", app.filter()) };
    let more = if app.events.more() { ", older ones come below" } else { "" };
    format!("{filter}{shown} of {} lines{more}   {when}", app.events.count())
}
