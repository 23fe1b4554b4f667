//! The overview: nodes, running work, what needs a human, use over the last hour.

use gantry_model::{JobState, Level, NodeState};
use gantry_wire::Update;
use ratatui::style::Style;

use super::sheet::Sheet;
use super::words::clock;
use super::{chart, jobs, nodes};
use crate::app::{App, node_rows};

/// Columns of the side panel where there is room for one.
const SIDE: u16 = 44;

pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let (columns, height) = (sheet.columns(), sheet.rows());
    let all = node_rows(app);
    let strip = if height >= 28 { 5 } else { 3 };
    let node_rows = (all.len() as u16 + 1).min(height / 3).max(2);
    {
        let mut top = sheet.part(0, 1, columns, node_rows);
        nodes::table(app, update, &all, &mut top);
    }
    let middle = node_rows + 2;
    let rest = height.saturating_sub(middle + strip + 2);
    let side = columns >= 110;
    let cursor = {
        let wide = if side { columns - SIDE } else { columns };
        let humans = humans(update).len() as u16;
        let rows = if side { rest } else { rest.saturating_sub((humans + 2).min(5)) };
        let mut panel = sheet.part(0, middle, wide, rows);
        jobs::table(app, update, &app.jobs(), &mut panel) + middle
    };
    if side {
        let mut panel = sheet.part(columns - SIDE + 1, middle, SIDE - 1, rest);
        panel_of_notes(update, &mut panel);
    } else {
        let rows = (humans(update).len() as u16 + 1).min(4);
        let mut panel = sheet.part(0, middle + rest - rows.min(rest), columns, rows);
        needs_a_human(update, &mut panel);
    }
    let below = height.saturating_sub(strip + 1);
    sheet.text(1, below, "CPU %  60 min", sheet.theme.heading());
    let last = update.busy_permille.iter().rev().find_map(|value| *value);
    if let Some(last) = last {
        sheet.text(16, below, &format!("now {} %", last / 10), Style::new());
    }
    let mut panel = sheet.part(1, below + 1, columns - 2, strip);
    chart::strip(&mut panel, &update.busy_permille);
    cursor
}

/// What a human should look at: failed jobs, nodes that are not there, images set aside.
fn humans(update: &Update) -> Vec<(String, Level)> {
    let mut lines = Vec::new();
    for node in &update.nodes {
        match node.row.state {
            NodeState::Up => {}
            NodeState::Late => {
                lines.push((format!("! {} is late", node.row.facts.name), Level::Warn));
            }
            NodeState::Lost => {
                lines.push((format!("! {} is lost", node.row.facts.name), Level::Fail));
            }
        }
    }
    for job in update.jobs.iter().filter(|job| job.state == JobState::Fail) {
        let reason = job.reason.as_deref().unwrap_or("failed");
        lines.push((format!("! {} {}: {reason}", job.job, job.name), Level::Fail));
    }
    lines
}

fn needs_a_human(update: &Update, sheet: &mut Sheet<'_>) {
    let lines = humans(update);
    if lines.is_empty() {
        return;
    }
    sheet.text(1, 0, "NEEDS A HUMAN", sheet.theme.heading());
    for (y, (line, level)) in lines.iter().enumerate() {
        let style = if *level == Level::Fail { sheet.theme.fail() } else { sheet.theme.warn() };
        sheet.text(1, y as u16 + 1, line, style);
    }
}

fn panel_of_notes(update: &Update, sheet: &mut Sheet<'_>) {
    let (columns, rows) = (sheet.columns(), sheet.rows());
    let needed = (humans(update).len() as u16 + 1).min(rows / 2);
    let top = if needed > 1 {
        let mut panel = sheet.part(0, 0, columns, needed);
        needs_a_human(update, &mut panel);
        needed + 1
    } else {
        0
    };
    sheet.text(1, top, "JUST NOW", sheet.theme.heading());
    let room = usize::from(rows.saturating_sub(top + 1));
    for (y, note) in update.notes.iter().rev().take(room).enumerate() {
        let style = match note.level {
            Level::Fail => sheet.theme.fail(),
            Level::Warn => sheet.theme.warn(),
            Level::Info | Level::Note => Style::new(),
        };
        let time = clock(note.at);
        let line = format!("{}  {} {}", &time[..5], note.subject, note.sentence);
        sheet.text(1, top + 1 + y as u16, &line, style);
    }
}
