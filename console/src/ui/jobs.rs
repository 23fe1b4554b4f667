//! The list of jobs, and one job: its log and its curves.

use gantry_model::{JobId, JobRow, JobState};
use gantry_wire::{Metric, Update};
use ratatui::style::Style;

use super::chart::{self, Curve};
use super::sheet::Sheet;
use super::words::time_of;
use crate::app::App;

/// The columns of a list, as they fit: (heading, where it begins, how wide).
struct Columns {
    name: (u16, u16),
    user: Option<(u16, u16)>,
    state: u16,
    tasks: u16,
    node: Option<(u16, u16)>,
    time: u16,
    bar: Option<(u16, usize)>,
    note: u16,
}

impl Columns {
    const fn of(columns: u16) -> Self {
        if columns >= 110 {
            Self {
                name: (8, 16),
                user: Some((25, 9)),
                state: 35,
                tasks: 49,
                node: Some((51, 13)),
                time: 74,
                bar: Some((76, 10)),
                note: 88,
            }
        } else if columns >= 70 {
            Self {
                name: (7, 12),
                user: Some((20, 8)),
                state: 29,
                tasks: 42,
                node: None,
                time: 53,
                bar: None,
                note: 55,
            }
        } else {
            Self {
                name: (7, 10),
                user: None,
                state: 18,
                tasks: 30,
                node: None,
                time: 40,
                bar: None,
                note: columns,
            }
        }
    }
}

/// The word and style of a state.
pub(super) fn state_style(sheet: &Sheet<'_>, state: JobState) -> Style {
    match state {
        JobState::Run => sheet.theme.good(),
        JobState::Fail => sheet.theme.fail(),
        JobState::Wait => Style::new(),
        JobState::Cancel | JobState::Done => sheet.theme.dim(),
    }
}

/// Draws the heading and as many rows as fit, so that the chosen one is among them. Gives its row.
pub(super) fn table(app: &App, update: &Update, rows: &[&JobRow], sheet: &mut Sheet<'_>) -> u16 {
    let columns = Columns::of(sheet.columns());
    let (heading, now) = (sheet.theme.heading(), super::now_of(app, update));
    sheet.text(1, 0, "JOB", heading);
    sheet.text(columns.name.0, 0, "NAME", heading);
    if let Some((x, _)) = columns.user {
        sheet.text(x, 0, "USER", heading);
    }
    sheet.text(columns.state, 0, "STATE", heading);
    sheet.right(columns.tasks, 0, "TASKS", heading);
    if let Some((x, _)) = columns.node {
        sheet.text(x, 0, "NODE", heading);
    }
    sheet.right(columns.time, 0, "TIME", heading);
    if let Some((x, _)) = columns.bar {
        sheet.text(x, 0, "DONE", heading);
    }
    sheet.text(columns.note, 0, "NOTE", heading);
    let page = usize::from(sheet.rows().saturating_sub(1));
    let chosen = rows.iter().position(|row| Some(row.job) == app.job).unwrap_or(0);
    let first = chosen.saturating_sub(page.saturating_sub(1));
    for (line, row) in rows.iter().enumerate().skip(first).take(page) {
        let y = (line - first + 1) as u16;
        one(row, now, y, &columns, sheet);
        if line == chosen {
            sheet.row_style(y, sheet.theme.chosen());
            sheet.text(0, y, ">", sheet.theme.chosen());
        }
    }
    if rows.is_empty() {
        let word = if app.filter.is_empty() {
            "no jobs; gantry submit -- CMD makes one"
        } else {
            "no job fits the filter; Esc clears it"
        };
        sheet.text(2, 2, word, sheet.theme.dim());
    }
    (chosen - first + 1) as u16
}

fn one(row: &JobRow, now: gantry_model::At, y: u16, columns: &Columns, sheet: &mut Sheet<'_>) {
    let plain = Style::new();
    sheet.cell(1, y, 6, &row.job.to_string(), plain);
    sheet.cell(columns.name.0, y, columns.name.1, &row.name, plain);
    if let Some((x, width)) = columns.user {
        sheet.cell(x, y, width, &row.user, plain);
    }
    sheet.cell(columns.state, y, 6, row.state.word(), state_style(sheet, row.state));
    let (ended, total) = (row.tasks.ended(), row.tasks.total());
    sheet.right(columns.tasks, y, &format!("{ended}/{total}"), plain);
    if let Some((x, width)) = columns.node {
        let nodes = if row.nodes.is_empty() { "-".into() } else { row.nodes.join(",") };
        sheet.cell(x, y, width, &nodes, plain);
    }
    sheet.right(columns.time, y, &time_of(row, now), plain);
    if let Some((x, cells)) = columns.bar {
        let permille = (u64::from(ended) * 1000).checked_div(u64::from(total)).unwrap_or(0);
        sheet.text(x, y, &sheet.theme.bar(permille as u32, cells), plain);
    }
    let note = row.reason.clone().unwrap_or_else(|| match row.state {
        JobState::Done => "exit 0".into(),
        _ => row.kind.clone(),
    });
    sheet.text(columns.note, y, &note, sheet.theme.dim());
}

/// The screen of jobs.
pub(super) fn list(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let rows = app.jobs();
    let (columns, height) = (sheet.columns(), sheet.rows());
    let below = if height >= 24 { 8 } else { 4 };
    let used = {
        let mut top = sheet.part(0, 1, columns, height.saturating_sub(below + 2));
        table(app, update, &rows, &mut top)
    };
    if let Some(row) = rows.iter().find(|row| Some(row.job) == app.job) {
        let mut bottom = sheet.part(0, height - below, columns, below);
        summary(row, &mut bottom);
    }
    used + 1
}

/// What is known of the chosen job.
fn summary(row: &JobRow, sheet: &mut Sheet<'_>) {
    let resources = &row.resources;
    let counts = &row.tasks;
    sheet.text(1, 0, &format!("{}  {}", row.job, row.name), sheet.theme.heading());
    let lines = [
        format!(
            "{} by {}   each task: {} cores, {} memory, {} gpus{}   starts {}",
            row.kind,
            row.user,
            resources.cores,
            resources.memory,
            resources.gpus,
            row.time_limit.map_or_else(String::new, |limit| format!(", at most {limit}")),
            row.starts
        ),
        format!(
            "{} wait  {} run  {} done  {} fail  {} cancel   on {}",
            counts.wait,
            counts.run,
            counts.done,
            counts.fail,
            counts.cancel,
            if row.nodes.is_empty() { "-".into() } else { row.nodes.join(", ") }
        ),
        row.reason.clone().unwrap_or_default(),
    ];
    for (y, line) in lines.iter().enumerate() {
        sheet.text(1, y as u16 + 1, line, if y == 2 { sheet.theme.warn() } else { Style::new() });
    }
}

/// The screen of one job.
pub(super) fn detail(app: &App, update: &Update, job: JobId, sheet: &mut Sheet<'_>) -> u16 {
    let Some(row) = update.jobs.iter().find(|row| row.job == job) else {
        sheet.text(2, 1, &format!("{job} …"), sheet.theme.dim());
        return 1;
    };
    let (columns, height, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let now = super::now_of(app, update);
    let state = state_style(sheet, row.state);
    sheet.text(1, 0, &format!("{}  {}", row.job, row.name), theme.heading());
    let line = format!(
        "{}  {}  {}/{} tasks  {}  {}",
        row.state.word(),
        time_of(row, now),
        row.tasks.ended(),
        row.tasks.total(),
        row.nodes.join(","),
        row.reason.as_deref().unwrap_or_default()
    );
    sheet.text(28.min(columns / 3), 0, &line, state);
    let rows = if update.metrics.is_empty() { 0 } else { (height / 3).clamp(5, 12) };
    if rows > 0 {
        let mut panel = sheet.part(0, 2, columns, rows);
        curves(&update.metrics, &mut panel);
    }
    let top = if rows > 0 { rows + 3 } else { 2 };
    let mut panel = sheet.part(0, top, columns, height.saturating_sub(top));
    log(app, update, &mut panel);
    0
}

/// Loss at the left, measures between 0 and 1 at the right, the newest values above both.
fn curves(metrics: &[Metric], sheet: &mut Sheet<'_>) {
    let (columns, rows, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let is_loss = |metric: &&Metric| metric.name.contains("loss");
    let is_measure = |metric: &&Metric| metric.name.contains("dice") || metric.name.contains("auc");
    let sides = [
        (metrics.iter().filter(is_loss).collect::<Vec<_>>(), "LOSS"),
        (metrics.iter().filter(|metric| is_measure(metric)).collect(), "DICE"),
    ];
    let shown: Vec<_> = sides.iter().filter(|(some, _)| !some.is_empty()).collect();
    let others: Vec<&Metric> =
        metrics.iter().filter(|metric| !is_loss(metric) && !is_measure(metric)).collect();
    let parts = shown.len().max(1) as u16 + u16::from(columns >= 100 && !others.is_empty());
    let each = columns / parts;
    for (n, (some, word)) in shown.iter().enumerate() {
        let mut panel = sheet.part(n as u16 * each, 0, each.saturating_sub(2), rows);
        let mut x = 1;
        panel.text(x, 0, word, theme.heading());
        x += 6;
        let styles = [theme.ramp(900), theme.warn(), theme.good()];
        let drawn: Vec<Curve<'_>> =
            some.iter().zip(styles).map(|(metric, style)| Curve { metric, style }).collect();
        for curve in &drawn {
            let last = curve.metric.points.last().map_or(0.0, gantry_wire::Point::value);
            let text = format!("{} {last:.4}", curve.metric.name);
            panel.text(x, 0, &text, curve.style);
            x += text.chars().count() as u16 + 2;
        }
        let (width, height) = (panel.columns(), panel.rows());
        let mut plot = panel.part(0, 1, width, height - 1);
        chart::curves(&mut plot, &drawn);
    }
    if columns >= 100 {
        let mut panel = sheet.part(shown.len() as u16 * each, 0, each, rows);
        for (y, metric) in others.iter().enumerate() {
            let last = metric.points.last().map_or(0.0, gantry_wire::Point::value);
            panel.text(1, y as u16, &format!("{:<20} {last:>10.2}", metric.name), Style::new());
        }
    }
}

fn log(app: &App, update: &Update, sheet: &mut Sheet<'_>) {
    let rows = usize::from(sheet.rows().saturating_sub(1));
    let following = if app.log_back == 0 { "following" } else { "stays; f follows" };
    sheet.text(1, 0, "LOG", sheet.theme.heading());
    sheet.text(6, 0, following, sheet.theme.dim());
    let Some(output) = &update.output else {
        sheet.text(1, 1, "its node does not answer; the log is there", sheet.theme.dim());
        return;
    };
    let text = String::from_utf8_lossy(&output.bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("::")).collect();
    let end = lines.len().saturating_sub(app.log_back.min(lines.len().saturating_sub(1)));
    let first = end.saturating_sub(rows);
    for (y, line) in lines[first..end].iter().enumerate() {
        let loud = line.starts_with('!') || line.contains("failed") || line.contains("rror");
        let style = if loud { sheet.theme.warn() } else { Style::new() };
        sheet.text(1, y as u16 + 1, line, style);
    }
    if lines.is_empty() {
        sheet.text(1, 1, "no output yet", sheet.theme.dim());
    }
}
