//! The list of jobs, and what is known of the chosen one.

use gantry_model::{At, JobRow, JobState};
use gantry_wire::Update;
use ratatui::style::Style;

use super::job;
use super::sheet::Sheet;
use super::table::{self, Column, Rows};
use super::theme::Theme;
use super::words::{count, gigabytes, percent, things, time_of};
use crate::app::App;
use crate::app::layout::{ROWS_ROOMY, job_detail};

const COLUMNS: [Column; 12] = [
    Column::text("JOB", 6, 0),
    Column::text("NAME", 14, 1).up_to(28),
    Column::text("USER", 8, 6).up_to(14),
    Column::text("KIND", 10, 9),
    Column::text("STATE", 6, 0),
    Column::number("TASKS", 7, 0),
    Column::number("GPUS", 4, 4),
    Column::text("NODE", 12, 5).up_to(20),
    Column::number("TIME", 12, 2),
    Column::number("SM", 5, 7),
    Column::text("DONE", 10, 8),
    Column::text("NOTE", 18, 3),
];

/// The style of a state.
pub(super) fn state_style(state: JobState, theme: Theme) -> Style {
    match state {
        JobState::Run => theme.good(),
        JobState::Fail => theme.fail(),
        JobState::Wait => Style::new(),
        JobState::Cancel | JobState::Done => theme.dim(),
    }
}

/// Draws the heading and as many rows as fit, so that the chosen one is among them. Gives its row.
pub(super) fn table(app: &App, update: &Update, jobs: &[&JobRow], sheet: &mut Sheet<'_>) -> u16 {
    let (theme, now) = (sheet.theme, super::now_of(app, update));
    // Where nobody asks for a GPU, their column says nothing.
    let gpus = jobs.iter().any(|row| row.resources.gpus > 0);
    let shown = |column: &&Column| gpus || !matches!(column.head, "GPUS" | "SM");
    let columns: Vec<Column> = COLUMNS.iter().filter(shown).copied().collect();
    let chosen = jobs.iter().position(|row| Some(row.job) == app.job);
    let rows = Rows { count: jobs.len(), chosen, top: app.top, sideways: app.sideways };
    let y = table::draw(
        sheet,
        &columns,
        &rows,
        |row| if app.marked.contains(&jobs[row].job) { '*' } else { ' ' },
        |row, head, width| cell(jobs[row], app, head, width, now, theme),
    );
    if jobs.is_empty() {
        let none = if app.filter().is_empty() {
            "no jobs; gantry submit -- CMD makes one"
        } else {
            "no job fits the filter; Esc clears it"
        };
        sheet.text(2, 1, none, theme.dim());
    }
    y
}

fn cell(row: &JobRow, app: &App, head: &str, width: u16, now: At, theme: Theme) -> (String, Style) {
    let plain = if row.state.is_ended() { theme.dim() } else { Style::new() };
    let (ended, total) = (u64::from(row.tasks.ended()), u64::from(row.tasks.total()));
    match head {
        // The mark of the chosen row hides that of a marked one; its id tells both.
        "JOB" if app.marked.contains(&row.job) => (row.job.to_string(), theme.heading()),
        "JOB" => (row.job.to_string(), plain),
        "NAME" => (row.name.clone(), plain),
        "USER" => (app.private(&row.user), plain),
        "KIND" => (row.kind.clone(), theme.dim()),
        "STATE" if row.held => ("hold".into(), theme.warn()),
        "STATE" => (state_word(row.state).into(), state_style(row.state, theme)),
        "TASKS" => (format!("{}/{}", count(ended), count(total)), plain),
        "GPUS" => (gpu_count(row), plain),
        "SM" => (busy(app, row).map_or_else(String::new, percent), plain),
        "NODE" => (nodes(row), plain),
        "TIME" => (time_of(row, now), plain),
        "DONE" => {
            let ended = (ended * 1000).checked_div(total).unwrap_or(0) as u32;
            // What the tasks say of themselves is finer than how many have ended.
            let permille = row.progress_permille.map_or(ended, u32::from).max(ended);
            let style = if row.state == JobState::Run { theme.ramp(700) } else { theme.dim() };
            (theme.bar(permille, usize::from(width)), style)
        }
        _ => note(row, theme),
    }
}

/// A state as a word; the loud one is upper case, so that colour need not carry it.
pub(super) const fn state_word(state: JobState) -> &'static str {
    match state {
        JobState::Fail => "FAIL",
        other => other.word(),
    }
}

/// The GPUs that it holds, or those that a task of it asks for while none runs.
fn gpu_count(row: &JobRow) -> String {
    let gpus = u64::from(row.resources.gpus) * u64::from(row.tasks.run.max(1));
    if gpus == 0 { "-".into() } else { count(gpus) }
}

/// How busy the GPUs are that it holds, where that is known.
fn busy(app: &App, row: &JobRow) -> Option<u32> {
    let of = app.gpus.all().iter().filter(|line| line.row.job == Some(row.job));
    let busy: Vec<u32> = of.filter_map(|line| line.row.busy_permille).collect();
    busy.iter().sum::<u32>().checked_div(busy.len() as u32)
}

fn nodes(row: &JobRow) -> String {
    if row.nodes.is_empty() { "-".into() } else { row.nodes.join(",") }
}

fn note(row: &JobRow, theme: Theme) -> (String, Style) {
    match (row.state, &row.reason) {
        (JobState::Fail, Some(reason)) => (reason.clone(), theme.fail()),
        (_, Some(reason)) => (reason.clone(), theme.dim()),
        (JobState::Run, None) if row.tasks.fail > 0 => {
            (format!("! {} failed", things(row.tasks.fail, "task")), theme.warn())
        }
        (JobState::Run, None) if row.starts > row.tasks.total() - row.tasks.wait => {
            (format!("! {}", things(row.starts, "start")), theme.warn())
        }
        (_, None) => (row.exit.as_ref().map_or_else(String::new, ToString::to_string), theme.dim()),
    }
}

/// The screen of jobs.
pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let jobs = app.jobs();
    let (columns, height) = (sheet.columns(), sheet.rows());
    let below = job_detail(height);
    let top = u16::from(height >= ROWS_ROOMY);
    let y = {
        let mut panel = sheet.part(0, top, columns, app.list_rows() as u16 + 1);
        table(app, update, &jobs, &mut panel)
    };
    let end = (jobs.len() as u16 + top + 2).min(height - below);
    if let Some(row) = jobs.iter().find(|row| Some(row.job) == app.job).filter(|_| below > 0) {
        let mut panel = sheet.part(0, end, columns, height - end);
        detail(app, row, &mut panel);
    }
    y + top
}

/// The chosen job: what it is, its loss and the end of its output.
fn detail(app: &App, row: &JobRow, sheet: &mut Sheet<'_>) {
    let (columns, height, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    summary(app, row, sheet);
    if height < 9 {
        return;
    }
    let y = 5;
    let metrics = app.metrics.get(&row.job).map(Vec::as_slice).unwrap_or_default();
    let half = if metrics.iter().any(job::is_curve) { columns / 2 } else { 0 };
    if half > 0 {
        job::curves(
            &[(row.job.to_string(), metrics)],
            &mut sheet.part(0, y, half, (height - y).min(12)),
        );
    }
    let log = &app.log;
    sheet.pieces(
        half + 1,
        y,
        2,
        &[("LOG", theme.heading()), ("first task; o opens it", theme.dim())],
    );
    let rows = usize::from(height - y - 1);
    if !log.is_of(row.job) || !log.known {
        sheet.text(half + 1, y + 1, "asking its node", theme.dim());
        return;
    }
    let first = log.len().saturating_sub(rows);
    for (n, number) in (first..log.len()).enumerate() {
        let style = if log.is_loud(number) { theme.warn() } else { Style::new() };
        sheet.text(half + 1, y + 1 + n as u16, &log.line(number), style);
    }
    if log.is_empty() {
        sheet.text(half + 1, y + 1, "no output yet", theme.dim());
    }
}

/// What is known of a job, in lines from its name on; the last free row.
pub(super) fn summary(app: &App, row: &JobRow, sheet: &mut Sheet<'_>) {
    let (theme, plain) = (sheet.theme, Style::new());
    let (asked, tasks) = (&row.resources, &row.tasks);
    let state = if row.held { "hold" } else { state_word(row.state) };
    let x = sheet.pieces(
        1,
        0,
        3,
        &[
            (&row.job.to_string(), theme.heading()),
            (&row.name, theme.heading()),
            (state, state_style(row.state, theme)),
        ],
    );
    let by = format!("{} by {}", row.kind, app.private(&row.user));
    let facts = [
        by,
        if row.nodes.is_empty() { String::new() } else { format!("on {}", nodes(row)) },
        things(row.starts, "start"),
        format!("priority {}", row.priority),
    ];
    sheet.pieces(x, 0, 3, &facts.each_ref().map(|text| (text.as_str(), plain)));
    let gpus = if asked.gpus > 0 { format!(", {} gpu", asked.gpus) } else { String::new() };
    let each = format!(
        "each task {}, {} GB memory{gpus}   {}: {} wait, {} run, {} done, {} failed, {} cancelled",
        things(asked.cores, "core"),
        gigabytes(asked.memory.0),
        things(tasks.total(), "task"),
        tasks.wait,
        tasks.run,
        tasks.done,
        tasks.fail,
        tasks.cancel
    );
    sheet.text(1, 1, &each, plain);
    if let Some(spec) = app.specs.get(&row.job).filter(|_| !app.privacy) {
        sheet.text(1, 2, &crate::app::steer::submit_line(spec), theme.dim());
    }
    if let Some(reason) = &row.reason {
        let style = if row.state == JobState::Fail { theme.fail() } else { theme.warn() };
        let word = if row.state == JobState::Wait { "waits: " } else { "" };
        sheet.text(1, 3, &format!("{word}{reason}"), style);
    }
}
