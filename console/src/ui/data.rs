//! The data: what the library holds, what the receivers do, and the jobs that work on it as the
//! stages of one way, from images to predictions.

use gantry_model::{JobRow, JobState};
use gantry_telemetry::{IngestCounts, LibraryCounts};
use gantry_wire::Update;
use ratatui::style::Style;

use super::jobs;
use super::sheet::Sheet;
use super::words::count;
use crate::app::App;

pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let (columns, height, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let library = update
        .nodes
        .iter()
        .filter_map(|node| node.sample.as_ref()?.library)
        .max_by_key(|counts| counts.instances);
    sheet.text(1, 1, "LIBRARY", theme.heading());
    match library {
        Some(counts) => counts_line(&counts, sheet),
        None => sheet.text(12, 1, "no node names one; set library in agent.toml", theme.dim()),
    }
    sheet.text(1, 4, "RECEIVER", theme.heading());
    let mut y = 4;
    for node in &update.nodes {
        let Some(ingest) = node.sample.as_ref().and_then(|sample| sample.ingest) else { continue };
        sheet.text(12, y, &receiver(&node.row.facts.name, &ingest), Style::new());
        y += 1;
    }
    if y == 4 {
        sheet.text(12, y, "none; [ingest] in agent.toml makes one", theme.dim());
        y += 1;
    }
    sheet.text(1, y + 1, "STAGE", theme.heading());
    sheet.text(16, y + 1, "DONE", theme.heading());
    sheet.right(48, y + 1, "TASKS", theme.heading());
    sheet.text(51, y + 1, "NOTE", theme.heading());
    for (n, kind) in ["preprocess", "train", "predict"].iter().enumerate() {
        stage(update, kind, y + 2 + n as u16, sheet);
    }
    let top = y + 6;
    let mut panel = sheet.part(0, top, columns, height.saturating_sub(top));
    jobs::table(app, update, &app.jobs(), &mut panel) + top
}

fn counts_line(counts: &LibraryCounts, sheet: &mut Sheet<'_>) {
    let parts = [
        ("series", counts.series),
        ("instances", counts.instances),
        ("samples", counts.samples),
        ("models", counts.models),
        ("predictions", counts.predictions),
    ];
    let mut x = 12;
    for (word, number) in parts {
        let text = format!("{} {word}", count(number));
        sheet.text(x, 1, &text, Style::new());
        x += text.len() as u16 + 3;
    }
    if counts.quarantined > 0 {
        let text =
            format!("! {} quarantined; gantry data quarantine says why", count(counts.quarantined));
        sheet.text(12, 2, &text, sheet.theme.warn());
    }
}

fn receiver(node: &str, ingest: &IngestCounts) -> String {
    let mut text = format!(
        "{node}   {} associations   {} received   {} quarantined",
        ingest.associations,
        count(ingest.received),
        count(ingest.quarantined)
    );
    if ingest.refused > 0 {
        text.push_str("   ! images refused: storage is short");
    }
    text
}

/// One kind of work on the way, over all of its jobs.
fn stage(update: &Update, kind: &str, y: u16, sheet: &mut Sheet<'_>) {
    let rows: Vec<&JobRow> = update.jobs.iter().filter(|row| row.kind == kind).collect();
    let total: u32 = rows.iter().map(|row| row.tasks.total()).sum();
    let done: u32 = rows.iter().map(|row| row.tasks.done).sum();
    let failed: u32 = rows.iter().map(|row| row.tasks.fail).sum();
    sheet.text(1, y, kind, Style::new());
    if total == 0 {
        sheet.text(16, y, "nothing asked for", sheet.theme.dim());
        return;
    }
    let bar = sheet.theme.bar(done * 1000 / total, 22);
    sheet.text(16, y, &bar, sheet.theme.ramp(700));
    sheet.right(48, y, &format!("{done}/{total}"), Style::new());
    let running = rows.iter().find(|row| row.state == JobState::Run);
    let waiting = rows.iter().find(|row| row.state == JobState::Wait);
    let (note, style) = match (failed, running, waiting) {
        (1.., ..) => (format!("! {failed} failed"), sheet.theme.fail()),
        (_, Some(row), _) => (format!("running on {}", row.nodes.join(", ")), sheet.theme.good()),
        (_, _, Some(row)) => (row.reason.clone().unwrap_or_else(|| "waiting".into()), Style::new()),
        _ => ("ended".into(), sheet.theme.dim()),
    };
    sheet.text(51, y, &note, style);
}
