//! The nodes: state, use, what they hold; the chosen one below.

use gantry_model::NodeState;
use gantry_wire::{NodeStatus, Update};
use ratatui::style::Style;

use super::sheet::Sheet;
use super::words::{count, duration, gigabytes, node_state};
use crate::app::{App, node_rows};

/// Gives a node's state its style.
pub(super) fn style(sheet: &Sheet<'_>, state: NodeState) -> Style {
    match state {
        NodeState::Up => sheet.theme.good(),
        NodeState::Late => sheet.theme.warn(),
        NodeState::Lost => sheet.theme.fail(),
    }
}

/// Draws a table of nodes. Gives the row of the chosen one.
pub(super) fn table(
    app: &App,
    update: &Update,
    nodes: &[&NodeStatus],
    sheet: &mut Sheet<'_>,
) -> u16 {
    let wide = sheet.columns() >= 110;
    let now = super::now_of(app, update);
    let heading = sheet.theme.heading();
    sheet.text(1, 0, "NODE", heading);
    sheet.text(13, 0, "STATE", heading);
    sheet.text(24, 0, "CPU", heading);
    sheet.right(44, 0, "CORES", heading);
    sheet.right(58, 0, "RAM GB", heading);
    sheet.right(65, 0, "GPUS", heading);
    sheet.right(72, 0, "TASKS", heading);
    if wide {
        sheet.right(84, 0, "DISK FREE", heading);
        sheet.right(94, 0, "NET KB/s", heading);
    }
    sheet.text(if wide { 97 } else { 74 }, 0, "NOTE", heading);
    let page = usize::from(sheet.rows().saturating_sub(1));
    let chosen =
        nodes.iter().position(|node| Some(&node.row.facts.name) == app.node.as_ref()).unwrap_or(0);
    let first = chosen.saturating_sub(page.saturating_sub(1));
    for (line, node) in nodes.iter().enumerate().skip(first).take(page) {
        let y = (line - first + 1) as u16;
        let (row, facts) = (&node.row, &node.row.facts);
        let plain = Style::new();
        sheet.cell(1, y, 11, &facts.name, plain);
        sheet.cell(13, y, 10, &node_state(node, now), style(sheet, row.state));
        cpu(node, 24, y, sheet);
        sheet.right(44, y, &format!("{}/{}", row.used.cores, facts.resources.cores), plain);
        if let Some(sample) = &node.sample {
            let memory = format!(
                "{}/{}",
                gigabytes(sample.memory_used_mib),
                gigabytes(sample.memory_total_mib)
            );
            sheet.right(58, y, &memory, plain);
            if wide {
                sheet.right(84, y, &format!("{} GB", sample.disk_free_mib / 1024), plain);
                let network = sample.network_received_kib + sample.network_sent_kib;
                sheet.right(94, y, &count(network), plain);
            }
        }
        let gpus = if facts.gpus.is_empty() {
            "-".into()
        } else {
            format!("{}/{}", row.used.gpus, facts.gpus.len())
        };
        sheet.right(65, y, &gpus, plain);
        sheet.right(72, y, &row.tasks.to_string(), plain);
        let note = facts.gpu_reason.clone().unwrap_or_default();
        sheet.text(if wide { 97 } else { 74 }, y, &note, sheet.theme.dim());
        if app.view == crate::app::View::Nodes && line == chosen {
            sheet.row_style(y, sheet.theme.chosen());
            sheet.text(0, y, ">", sheet.theme.chosen());
        }
    }
    if nodes.is_empty() {
        sheet.text(
            2,
            2,
            "no nodes; gantry scheduler token NODE makes a token for one",
            sheet.theme.dim(),
        );
    }
    (chosen - first + 1) as u16
}

/// A bar and a number; nothing where there is no reading.
fn cpu(node: &NodeStatus, x: u16, y: u16, sheet: &mut Sheet<'_>) {
    let Some(sample) = &node.sample else { return };
    let theme = sheet.theme;
    let style =
        if node.row.state == NodeState::Up { theme.ramp(sample.cpu_permille) } else { theme.dim() };
    sheet.text(x, y, &theme.bar(sample.cpu_permille, 8), style);
    sheet.right(x + 14, y, &format!("{} %", sample.cpu_permille / 10), Style::new());
}

/// The screen of nodes.
pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let nodes = node_rows(app);
    let (columns, height) = (sheet.columns(), sheet.rows());
    let below = (height / 2).min(12);
    let used = {
        let mut top = sheet.part(0, 1, columns, height - below - 1);
        table(app, update, &nodes, &mut top)
    };
    if let Some(node) = nodes.iter().find(|node| Some(&node.row.facts.name) == app.node.as_ref()) {
        let mut bottom = sheet.part(0, height - below + 1, columns, below - 1);
        detail(app, update, node, &mut bottom);
    }
    used + 1
}

fn detail(app: &App, update: &Update, node: &NodeStatus, sheet: &mut Sheet<'_>) {
    let (row, facts, now) = (&node.row, &node.row.facts, super::now_of(app, update));
    let roles: Vec<String> =
        facts.roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    sheet.text(1, 0, &facts.name, sheet.theme.heading());
    let line = format!(
        "{} for {}   roles {}   {} cores, {} memory   agent {}",
        row.state.word(),
        duration(now.since(row.since).0),
        roles.join(", "),
        facts.resources.cores,
        facts.resources.memory,
        facts.agent_version
    );
    sheet.text(14, 0, &line, Style::new());
    let mut y = 2;
    if let Some(reason) = &facts.gpu_reason {
        sheet.text(1, y, &format!("no gpu: {reason}"), sheet.theme.dim());
        y += 1;
    }
    for (index, gpu) in facts.gpus.iter().enumerate() {
        let sample = node.sample.as_ref().and_then(|sample| sample.gpus.get(index));
        let number = |value: Option<u32>, unit: &str| {
            value.map_or_else(|| "-".into(), |value| format!("{value} {unit}"))
        };
        let job = row.gpu_jobs.get(index).copied().flatten();
        let line = format!(
            "{index:>2}  {:<24} {:>6}  {:>6}  {:>7}  {}",
            gpu.name,
            number(sample.and_then(|one| one.busy_permille).map(|busy| busy / 10), "%"),
            number(sample.and_then(|one| one.temperature_c), "C"),
            number(sample.and_then(|one| one.power_mw).map(|power| power / 1000), "W"),
            job.map_or_else(String::new, |job| job.to_string())
        );
        sheet.text(1, y, &line, Style::new());
        y += 1;
    }
    let here: Vec<String> = update
        .jobs
        .iter()
        .filter(|job| !job.state.is_ended() && job.nodes.contains(&facts.name))
        .map(|job| format!("{} {}", job.job, job.name))
        .collect();
    let jobs = if here.is_empty() { "no jobs here".into() } else { here.join("   ") };
    sheet.text(1, y + 1, &jobs, Style::new());
}
