//! What lies over a screen: the help, the filter, the question before something ends.

use gantry_model::{At, JobId, JobRow};
use ratatui::style::Style;

use super::frame::key_name;
use super::sheet::Sheet;
use super::theme::Theme;
use super::words::{things, time_of};
use crate::app::{App, Overlay};

/// Jobs that a question lists by name.
const LISTED_MAX: usize = 5;
/// The widest question.
const QUESTION_COLUMNS: u16 = 66;

/// Draws what lies over the screen. Gives the cursor's place where one types.
pub(super) fn draw(app: &App, sheet: &mut Sheet<'_>) -> Option<(u16, u16)> {
    let rows = sheet.rows();
    match &app.overlay {
        Overlay::None => None,
        Overlay::Help(first) => {
            help(app, *first, sheet);
            None
        }
        Overlay::Filter => {
            let columns = sheet.columns();
            sheet.part(0, rows - 2, columns, 1).clear();
            let line = format!("/ {}", app.filter);
            sheet.text(1, rows - 2, &line, sheet.theme.heading());
            Some(((crate::output::width(&line) as u16 + 1).min(columns - 1), rows - 2))
        }
        Overlay::Cancel { jobs, typed } => Some(cancel(app, jobs, typed, sheet)),
    }
}

/// The keys, group by group; in two columns where there is room, scrolled where there is none.
fn help(app: &App, first: u16, sheet: &mut Sheet<'_>) {
    let (columns, rows, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let mut panel = sheet.part(0, 2, columns, rows - 3);
    panel.clear();
    let groups: Vec<Vec<(String, String)>> = app
        .keymap
        .groups()
        .into_iter()
        .map(|group| {
            let here = app.keymap.bindings().iter().filter(|binding| binding.group == group);
            let line = |binding: &crate::app::keys::Binding| {
                let keys: Vec<String> = binding.keys.iter().map(|key| key_name(key)).collect();
                (keys.join("  "), binding.help.clone())
            };
            let heading = (group.to_owned(), String::new());
            let blank = (String::new(), String::new());
            std::iter::once(heading).chain(here.map(line)).chain([blank]).collect()
        })
        .collect();
    let total: usize = groups.iter().map(Vec::len).sum();
    let parts = (columns / 40).clamp(1, 3);
    // Groups are not torn apart: a part takes groups until its share of the lines is there.
    let share = total.div_ceil(usize::from(parts));
    let mut panels: Vec<Vec<&(String, String)>> = vec![Vec::new()];
    for group in &groups {
        let last = panels.len() - 1;
        let half = group.len() / 2;
        if panels[last].len() + half > share && panels.len() < usize::from(parts) {
            panels.push(Vec::new());
        }
        let last = panels.len() - 1;
        panels[last].extend(group);
    }
    let wide = columns / parts;
    let height = panel.rows();
    let tallest = panels.iter().map(Vec::len).max().unwrap_or(0) as u16;
    let first = first.min((tallest + 1).saturating_sub(height));
    for (n, lines) in panels.iter().enumerate() {
        let x = n as u16 * wide + 1;
        for (y, (keys, words)) in lines.iter().skip(usize::from(first)).enumerate() {
            let y = y as u16;
            if y + 1 >= height {
                break;
            }
            if words.is_empty() {
                panel.cell(x, y, wide - 1, keys, theme.heading());
            } else {
                panel.cell(x, y, 11, keys, Style::new());
                panel.cell(x + 11, y, wide.saturating_sub(12), words, theme.dim());
            }
        }
    }
    let note = "keys are data: config/files/keys.toml";
    panel.text(1, height.saturating_sub(1), note, theme.dim());
}

/// A line of a question; the higher its rank, the sooner it gives way on a small screen.
struct Line {
    text: String,
    style: Style,
    rank: u8,
}

/// The lines of the question before jobs are cancelled: what they are and what will happen.
fn question(rows: &[&JobRow], jobs: &[JobId], now: At, theme: Theme) -> Vec<Line> {
    let plain = Style::new();
    let mut lines: Vec<Line> = Vec::new();
    let mut say = |rank: u8, style: Style, text: String| lines.push(Line { text, style, rank });
    for row in rows.iter().take(LISTED_MAX) {
        let work = if row.started.is_some() {
            format!("{} of work", time_of(row, now))
        } else {
            "waits".to_owned()
        };
        let job = row.job.to_string();
        say(2, plain, format!("{job:<6} {:<16} {:<10} {work}", row.name, row.user));
    }
    if rows.len() > LISTED_MAX {
        say(2, plain, format!("and {} more", rows.len() - LISTED_MAX));
    }
    say(5, plain, String::new());
    let sum = |of: fn(&JobRow) -> u32| rows.iter().map(|row| u64::from(of(row))).sum::<u64>();
    let (run, wait) = (sum(|row| row.tasks.run), sum(|row| row.tasks.wait));
    let cores = sum(|row| row.tasks.run.saturating_mul(row.resources.cores));
    let gpus = sum(|row| row.tasks.run.saturating_mul(row.resources.gpus));
    if run > 0 {
        let gpus = if gpus > 0 { format!(", {}", things(gpus, "gpu")) } else { String::new() };
        let (tasks, cores) = (things(run, "running task"), things(cores, "core"));
        say(0, plain, format!("stops {tasks}: frees {cores}{gpus}"));
        say(3, plain, "each gets TERM, then KILL after the grace time".into());
    }
    if wait > 0 {
        say(1, plain, format!("{} will never start", things(wait, "waiting task")));
    }
    let done = sum(|row| row.tasks.done);
    if done > 0 {
        say(4, plain, format!("{} done already, and kept", things(done, "task")));
    }
    say(3, plain, "jobs that depend on them are cancelled too".into());
    say(1, theme.fail(), "this cannot be undone".into());
    let names: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    say(1, theme.dim(), format!("same as: gantry cancel {}", names.join(" ")));
    lines
}

/// As many lines as fit, the most important ones.
fn fitting(mut lines: Vec<Line>, room: usize) -> Vec<Line> {
    while lines.len() > room {
        let Some(least) = (0..lines.len()).max_by_key(|at| (lines[*at].rank, *at)) else { break };
        lines.remove(least);
    }
    lines
}

/// The question before jobs are cancelled. Gives the place where one types.
fn cancel(app: &App, jobs: &[JobId], typed: &str, sheet: &mut Sheet<'_>) -> (u16, u16) {
    let theme = sheet.theme;
    let update = app.update.as_deref();
    let known = update.map_or(&[][..], |update| &update.jobs);
    let rows: Vec<&JobRow> = known.iter().filter(|row| jobs.contains(&row.job)).collect();
    let now = update.map_or(At(0), |update| super::now_of(app, update));
    let lines = question(&rows, jobs, now, theme);
    let title = match jobs {
        [one] => format!(" cancel {one} "),
        several => format!(" cancel {} ", things(several.len() as u32, "job")),
    };
    let (columns, height) = (sheet.columns(), sheet.rows());
    let width = QUESTION_COLUMNS.min(columns - 2);
    // Box, one line to type in, and of the rest what fits.
    let rows = (lines.len() as u16 + 4).min(height - 3);
    let (left, top) = ((columns - width) / 2, (height - rows) / 2);
    // A blank column at each side keeps the box apart from the rows behind it.
    sheet.part(left - 1, top, width + 2, rows).clear();
    let mut panel = sheet.part(left, top, width, rows);
    frame(&mut panel, &title);
    let room = rows.saturating_sub(3);
    {
        let mut inside = panel.part(2, 1, width - 4, room);
        for (y, line) in fitting(lines, usize::from(room)).iter().enumerate() {
            inside.text(0, y as u16, &line.text, line.style);
        }
    }
    let word = App::word_to_cancel(jobs);
    let ask = format!("type {word} to cancel, Esc keeps: ");
    let mut inside = panel.part(2, rows - 2, width - 4, 1);
    let x = inside.pieces(0, 0, 0, &[(&ask, theme.warn()), (typed, theme.heading())]);
    ((left + 2 + x).min(columns - 1), top + rows - 2)
}

/// A box with a title.
fn frame(panel: &mut Sheet<'_>, title: &str) {
    let (columns, rows) = (panel.columns(), panel.rows());
    let [across, down, corners @ ..] = panel.theme.lines();
    let plain = Style::new();
    let line = |left: char, right: char| {
        let middle = across.to_string().repeat(usize::from(columns.saturating_sub(2)));
        format!("{left}{middle}{right}")
    };
    panel.text(0, 0, &line(corners[0], corners[1]), plain);
    panel.text(0, rows - 1, &line(corners[2], corners[3]), plain);
    for y in 1..rows - 1 {
        panel.text(0, y, &down.to_string(), plain);
        panel.text(columns - 1, y, &down.to_string(), plain);
    }
    panel.text(2, 0, title, panel.theme.heading());
}
