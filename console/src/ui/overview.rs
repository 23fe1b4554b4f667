//! The overview: nodes, work, what needs a human, what happened just now, use over the last hour.

use gantry_model::{JobState, Level, NodeState, Service};
use gantry_wire::{NodeStatus, Update};
use ratatui::style::Style;

use super::sheet::Sheet;
use super::words::{count, minute};
use super::{chart, data, jobs, nodes};
use crate::app::{App, node_rows};

/// From so many columns on there is a panel at the side.
const COLUMNS_WITH_SIDE: u16 = 110;

pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let (columns, height) = (sheet.columns(), sheet.rows());
    if height < 12 {
        let mut panel = sheet.part(0, 0, columns, height);
        return jobs::table(app, update, &app.jobs(), &mut panel);
    }
    let side = if columns >= COLUMNS_WITH_SIDE { (columns * 3 / 8).min(64) } else { 0 };
    let strip = (height / 8).clamp(2, 6);
    let upper = height - strip - 3;
    let all = node_rows(app);
    let node_rows = (all.len() as u16 + 1).clamp(2, upper / 2);
    {
        let mut panel = sheet.part(0, 1, columns - side, node_rows);
        nodes::table(app, update, &all, &mut panel);
    }
    let middle = node_rows + 2;
    let humans = humans(update);
    // Below the jobs where there is no side; never more than a third.
    let below = if side > 0 || humans.is_empty() {
        0
    } else {
        (humans.len() as u16 + 2).min((upper - middle) / 2)
    };
    let cursor = {
        let mut panel = sheet.part(0, middle, columns - side, upper - middle - below);
        jobs::table(app, update, &app.jobs(), &mut panel) + middle
    };
    if side > 0 {
        let mut panel = sheet.part(columns - side, 1, side, upper - 1);
        side_panel(update, &humans, &mut panel);
    } else if below > 0 {
        let mut panel = sheet.part(0, upper - below + 1, columns, below - 1);
        needs_a_human(&humans, &mut panel);
    }
    let mut panel = sheet.part(0, upper + 1, columns, strip + 2);
    busy(update, &mut panel);
    cursor
}

/// Processor use of the cluster over the last hour, with its scale.
fn busy(update: &Update, sheet: &mut Sheet<'_>) {
    let (columns, rows, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let last = update.busy_permille.iter().rev().find_map(|value| *value);
    let now = last.map_or_else(|| "no reading".into(), |last| format!("now {} %", last / 10));
    sheet.pieces(
        1,
        0,
        3,
        &[("CPU %", theme.heading()), ("60 min", theme.dim()), (&now, Style::new())],
    );
    sheet.right(5, 1, "100", theme.dim());
    sheet.right(5, rows - 1, "0", theme.dim());
    let mut panel = sheet.part(6, 1, columns.saturating_sub(7), rows - 1);
    chart::strip(&mut panel, &update.busy_permille);
}

/// What a human should look at: nodes that are not there, jobs that failed, images refused.
fn humans(update: &Update) -> Vec<(String, Level)> {
    let mut lines = Vec::new();
    for node in &update.nodes {
        let name = &node.row.facts.name;
        match node.row.state {
            NodeState::Up => {
                if matches!(node.row.service, Service::Quarantine { .. }) {
                    let line = format!("! {name} is quarantined: tasks fail on it");
                    lines.push((line, Level::Fail));
                }
            }
            NodeState::Late => lines.push((format!("! {name} is late"), Level::Warn)),
            NodeState::Lost => lines.push((format!("! {name} is lost"), Level::Fail)),
        }
        if refused(node) > 0 {
            let refused = count(refused(node));
            lines.push((format!("! {name} refused {refused} images: disk"), Level::Fail));
        }
    }
    for job in update.jobs.iter().filter(|job| job.state == JobState::Fail) {
        let reason = job.reason.as_deref().unwrap_or("failed");
        lines.push((format!("! {} {}: {reason}", job.job, job.name), Level::Fail));
    }
    lines.sort_by_key(|(_, level)| std::cmp::Reverse(*level));
    lines
}

fn refused(node: &NodeStatus) -> u64 {
    let ingest = node.sample.as_ref().and_then(|sample| sample.ingest);
    ingest.map_or(0, |ingest| ingest.refused)
}

/// The heading and as many lines as fit, the worst first; beside it how many more there are.
fn needs_a_human(lines: &[(String, Level)], sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    sheet.text(1, 0, "NEEDS A HUMAN", theme.heading());
    let room = usize::from(sheet.rows().saturating_sub(1));
    for (y, (line, level)) in lines.iter().take(room).enumerate() {
        let style = if *level == Level::Fail { theme.fail() } else { theme.warn() };
        sheet.text(1, y as u16 + 1, line, style);
    }
    if lines.len() > room {
        let more = format!("and {} more", lines.len() - room);
        sheet.pieces(16, 0, 0, &[(&more, theme.warn())]);
    }
    if lines.is_empty() {
        sheet.text(1, 1, "nothing", theme.dim());
    }
}

fn side_panel(update: &Update, humans: &[(String, Level)], sheet: &mut Sheet<'_>) {
    let (columns, rows, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let mut y = (humans.len() as u16).clamp(1, rows / 3) + 1;
    {
        let mut panel = sheet.part(1, 0, columns - 1, y);
        needs_a_human(humans, &mut panel);
    }
    let library = data::library_lines(update);
    let data_rows = if library.is_empty() { 0 } else { library.len() as u16 + 2 };
    y += 1;
    sheet.text(2, y, "JUST NOW", theme.heading());
    let room = usize::from(rows.saturating_sub(y + 1 + data_rows));
    for note in update.notes.iter().rev().take(room) {
        y += 1;
        let style = match note.level {
            Level::Fail => theme.fail(),
            Level::Warn => theme.warn(),
            Level::Info | Level::Note => Style::new(),
        };
        let subject = note.subject.to_string();
        // A sentence that begins with its subject needs it once.
        let sentence = match note.sentence.strip_prefix(&subject) {
            Some(rest) => rest.trim_start(),
            None => &note.sentence,
        };
        let time = minute(note.at);
        sheet.pieces(2, y, 1, &[(&time, theme.dim()), (&subject, style), (sentence, style)]);
    }
    if update.notes.is_empty() {
        y += 1;
        sheet.text(2, y, "nothing yet", theme.dim());
    }
    if data_rows > 0 {
        y += 2;
        sheet.text(2, y, "DATA", theme.heading());
        for line in library {
            y += 1;
            sheet.text(2, y, &line, Style::new());
        }
    }
}
