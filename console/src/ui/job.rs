//! One job: what it is, its curves and the end of its log.

use gantry_model::{JobId, JobRow};
use gantry_wire::{Metric, Point, Update};
use ratatui::style::Style;

use super::chart::{self, Curve, Scale};
use super::jobs::{state_style, state_word, summary};
use super::sheet::Sheet;
use super::words::time_of;
use crate::app::{App, log_lines};

/// The screen of one job. Gives the row of its title: there is nothing to choose.
pub(super) fn draw(app: &App, update: &Update, job: JobId, sheet: &mut Sheet<'_>) -> u16 {
    let theme = sheet.theme;
    let Some(row) = update.jobs.iter().find(|row| row.job == job) else {
        let text = if app.pictured == Some(app.view.scope()) {
            format!("{job} is not known here any more; Esc goes back")
        } else {
            format!("waiting for {job}")
        };
        sheet.text(1, 1, &text, theme.dim());
        return 1;
    };
    let (columns, height) = (sheet.columns(), sheet.rows());
    let mut y = head(app, update, row, sheet);
    if !update.metrics.is_empty() && height >= 12 {
        let rows = (height / 3).clamp(5, 14);
        let mut panel = sheet.part(0, y, columns, rows);
        curves(&update.metrics, &mut panel);
        y += rows + 1;
        let numbers = numbers(&update.metrics);
        if !numbers.is_empty() {
            sheet.text(1, y, &numbers, Style::new());
            y += 2;
        }
    }
    let mut panel = sheet.part(0, y, columns, height.saturating_sub(y));
    log(app, update, &mut panel);
    0
}

/// What the job is, as much as there is room for. Gives the first free row.
fn head(app: &App, update: &Update, row: &JobRow, sheet: &mut Sheet<'_>) -> u16 {
    let theme = sheet.theme;
    if sheet.rows() >= 20 {
        let columns = sheet.columns();
        let mut panel = sheet.part(0, 0, columns, 4);
        summary(row, &mut panel);
        let time = time_of(row, super::now_of(app, update));
        sheet.right(columns - 1, 0, &time, theme.heading());
        return if row.reason.is_some() { 5 } else { 4 };
    }
    let done = format!("{}/{}", row.tasks.ended(), row.tasks.total());
    let time = time_of(row, super::now_of(app, update));
    sheet.pieces(
        1,
        0,
        2,
        &[
            (&row.job.to_string(), theme.heading()),
            (state_word(row.state), state_style(row.state, theme)),
            (&time, Style::new()),
            (&done, Style::new()),
            (&row.name, Style::new()),
            (&row.nodes.join(","), theme.dim()),
            (row.reason.as_deref().unwrap_or_default(), theme.warn()),
        ],
    );
    if sheet.rows() >= 12 { 2 } else { 1 }
}

fn is_loss(metric: &Metric) -> bool {
    metric.name.contains("loss")
}

/// What lies between 0 and 1, whatever the training.
fn is_measure(metric: &Metric) -> bool {
    metric.name.contains("dice") || metric.name.contains("auc")
}

fn last(metric: &Metric) -> f64 {
    metric.points.last().map_or(0.0, Point::value)
}

/// Loss at the left, measures between 0 and 1 at the right, the newest values above both.
fn curves(metrics: &[Metric], sheet: &mut Sheet<'_>) {
    let (columns, rows, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let sides = [
        ("LOSS", Scale::FromZero, metrics.iter().filter(|one| is_loss(one)).collect::<Vec<_>>()),
        ("DICE", Scale::Unit, metrics.iter().filter(|one| is_measure(one)).collect()),
    ];
    let shown: Vec<_> = sides.iter().filter(|(_, _, some)| !some.is_empty()).collect();
    let each = columns / shown.len().max(1) as u16;
    for (n, (word, scale, some)) in shown.iter().enumerate() {
        let mut panel = sheet.part(n as u16 * each, 0, each.saturating_sub(1), rows);
        // The coarse curve lies over the fine one, so it stands last.
        let mut some = some.clone();
        some.sort_by_key(|metric| std::cmp::Reverse(metric.points.len()));
        let drawn: Vec<Curve<'_>> = some
            .iter()
            .enumerate()
            .map(|(n, metric)| Curve { metric, style: theme.curve(n), star: theme.star(n) })
            .collect();
        let (gap, digits) = if columns >= 100 { (2, 4) } else { (1, 3) };
        let mut x = panel.pieces(1, 0, gap, &[(word, theme.heading())]);
        for curve in &drawn {
            let text = format!(
                "{} {} {:.digits$}",
                theme.key(curve.star),
                curve.metric.name,
                last(curve.metric)
            );
            x = panel.pieces(x, 0, gap, &[(&text, curve.style)]);
        }
        let (width, height) = (panel.columns(), panel.rows());
        let mut plot = panel.part(0, 1, width, height - 1);
        chart::curves(&mut plot, &drawn, *scale);
    }
}

/// The newest values of what has no curve.
fn numbers(metrics: &[Metric]) -> String {
    let others = metrics.iter().filter(|metric| !is_loss(metric) && !is_measure(metric));
    let text = |metric: &Metric| format!("{} {:.1}", metric.name.replace('_', " "), last(metric));
    others.map(text).collect::<Vec<_>>().join("   ")
}

fn log(app: &App, update: &Update, sheet: &mut Sheet<'_>) {
    let (rows, theme) = (usize::from(sheet.rows().saturating_sub(1)), sheet.theme);
    let title = sheet.pieces(1, 0, 2, &[("LOG", theme.heading())]);
    let Some(output) = &update.output else {
        let text = if app.pictured == Some(app.view.scope()) {
            "its node does not answer; the log is there"
        } else {
            "waiting for the log"
        };
        sheet.text(1, 1, text, theme.dim());
        return;
    };
    let lines = log_lines(&output.bytes);
    let end = lines.len() - app.log_back.min(lines.len().saturating_sub(1));
    let state = match (app.log_back, output.live) {
        (0, true) => "following".to_owned(),
        (0, false) => "ended".to_owned(),
        _ => format!("{} lines back; f follows", lines.len() - end),
    };
    sheet.text(title, 0, &format!("first task   {state}"), theme.dim());
    for (y, line) in lines[end.saturating_sub(rows)..end].iter().enumerate() {
        let line = String::from_utf8_lossy(line);
        let loud = line.starts_with('!') || line.contains("rror") || line.contains("panicked");
        sheet.text(1, y as u16 + 1, &line, if loud { theme.warn() } else { Style::new() });
    }
    if lines.is_empty() {
        sheet.text(1, 1, "no output yet", theme.dim());
    }
}
