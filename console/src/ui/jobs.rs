//! The list of jobs, and what is known of the chosen one.

use gantry_model::{At, JobRow, JobState};
use gantry_wire::Update;
use ratatui::style::Style;

use super::sheet::Sheet;
use super::table::{self, Column, Rows};
use super::theme::Theme;
use super::words::{count, gigabytes, things, time_of};
use crate::app::App;

const COLUMNS: [Column; 11] = [
    Column::text("JOB", 6, 0),
    Column::text("NAME", 14, 1).up_to(28),
    Column::text("USER", 8, 6).up_to(14),
    Column::text("KIND", 10, 8),
    Column::text("STATE", 6, 0),
    Column::number("TASKS", 7, 0),
    Column::number("GPUS", 4, 4),
    Column::text("NODE", 12, 5).up_to(20),
    Column::number("TIME", 12, 2),
    Column::text("DONE", 10, 9),
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
    let columns: Vec<Column> =
        COLUMNS.iter().filter(|column| gpus || column.head != "GPUS").copied().collect();
    let chosen = jobs.iter().position(|row| Some(row.job) == app.job);
    let rows = Rows { count: jobs.len(), chosen };
    let y = table::draw(
        sheet,
        &columns,
        &rows,
        |row| if app.marked.contains(&jobs[row].job) { '*' } else { ' ' },
        |row, head, width| cell(jobs[row], app, head, width, now, theme),
    );
    if jobs.is_empty() {
        let none = if app.filter.is_empty() {
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
        "USER" => (row.user.clone(), plain),
        "KIND" => (row.kind.clone(), theme.dim()),
        "STATE" => (state_word(row.state).into(), state_style(row.state, theme)),
        "TASKS" => (format!("{}/{}", count(ended), count(total)), plain),
        "GPUS" => (row.resources.gpus.to_string(), plain),
        "NODE" => (nodes(row), plain),
        "TIME" => (time_of(row, now), plain),
        "DONE" => {
            let permille = (ended * 1000).checked_div(total).unwrap_or(0) as u32;
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
    let below = if height < 12 { 0 } else { 6 };
    let top = u16::from(height >= 12);
    let y = {
        let mut panel = sheet.part(0, top, columns, height - below - top);
        table(app, update, &jobs, &mut panel)
    };
    let end = (jobs.len() as u16 + top + 2).min(height - below);
    if let Some(row) = jobs.iter().find(|row| Some(row.job) == app.job).filter(|_| below > 0) {
        let mut panel = sheet.part(0, end, columns, below);
        summary(row, &mut panel);
    }
    y + top
}

/// What is known of a job, in lines from its name on.
pub(super) fn summary(row: &JobRow, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let (asked, tasks) = (&row.resources, &row.tasks);
    let x = sheet.pieces(
        1,
        0,
        3,
        &[
            (&row.job.to_string(), theme.heading()),
            (&row.name, theme.heading()),
            (state_word(row.state), state_style(row.state, theme)),
        ],
    );
    sheet.text(x, 0, &format!("{} by {}", row.kind, row.user), Style::new());
    let gpus = if asked.gpus > 0 { format!(", {} gpu", asked.gpus) } else { String::new() };
    let each = format!(
        "each task {}, {} GB memory{gpus}   {} so far   on {}",
        things(asked.cores, "core"),
        gigabytes(asked.memory.0),
        things(row.starts, "start"),
        nodes(row)
    );
    let counts = format!(
        "{}: {} wait, {} run, {} done, {} failed, {} cancelled",
        things(tasks.total(), "task"),
        tasks.wait,
        tasks.run,
        tasks.done,
        tasks.fail,
        tasks.cancel
    );
    sheet.text(1, 1, &each, Style::new());
    sheet.text(1, 2, &counts, Style::new());
    if let Some(reason) = &row.reason {
        let style = if row.state == JobState::Fail { theme.fail() } else { theme.warn() };
        let word = if row.state == JobState::Wait { "waits: " } else { "" };
        sheet.text(1, 3, &format!("{word}{reason}"), style);
    }
}
