//! The nodes: state, use, what they hold; the chosen one below.

use gantry_model::health::Measure;
use gantry_model::{At, JobId, NodeRow, NodeState, Service};
use gantry_telemetry::GpuSample;
use gantry_wire::{NodeStatus, Update};
use ratatui::style::Style;

use super::sheet::Sheet;
use super::table::{self, Column, Rows};
use super::theme::Theme;
use super::words::{count, duration, gigabytes, node_state, percent};
use crate::app::{App, View, node_rows};

const COLUMNS: [Column; 13] = [
    Column::text("NODE", 10, 0).up_to(16),
    Column::text("STATE", 9, 0),
    Column::text("USE", 8, 5),
    Column::number("CPU %", 5, 0),
    Column::text("GPU", 8, 1),
    Column::number("SM", 5, 2),
    Column::number("CORES", 7, 3),
    Column::number("RAM GB", 11, 4),
    Column::number("TASKS", 5, 2),
    Column::number("DISK FREE", 9, 7),
    Column::number("NET KB/s", 8, 8),
    Column::text("AGENT", 7, 9),
    Column::text("NOTE", 18, 6),
];

/// Draws a table of nodes. Gives the row of the chosen one.
pub(super) fn table(
    app: &App,
    update: &Update,
    nodes: &[&NodeStatus],
    sheet: &mut Sheet<'_>,
) -> u16 {
    let (theme, now) = (sheet.theme, super::now_of(app, update));
    // Where no node has a GPU, their columns say nothing.
    let gpus = nodes.iter().any(|node| !node.row.facts.gpus.is_empty());
    let shown = |column: &&Column| gpus || !matches!(column.head, "GPU" | "SM");
    let columns: Vec<Column> = COLUMNS.iter().filter(shown).copied().collect();
    let place = || {
        nodes.iter().position(|node| Some(&node.row.facts.name) == app.node.as_ref()).unwrap_or(0)
    };
    let chosen = (app.view == View::Nodes && !nodes.is_empty()).then(place);
    let rows = Rows { count: nodes.len(), chosen };
    let y = table::draw(
        sheet,
        &columns,
        &rows,
        |_| ' ',
        |row, head, width| cell(nodes[row], head, width, now, theme),
    );
    if nodes.is_empty() {
        let none = if app.filter.is_empty() {
            "no nodes; gantry scheduler token NODE makes a token for one"
        } else {
            "no node fits the filter; Esc clears it"
        };
        sheet.text(2, 1, none, theme.dim());
    }
    y
}

/// The style of a node's state.
fn state_style(row: &NodeRow, theme: Theme) -> Style {
    match (row.state, &row.service) {
        (NodeState::Lost, _) | (NodeState::Up, Service::Quarantine { .. }) => theme.fail(),
        (NodeState::Late, _) | (NodeState::Up, Service::Drain { .. }) => theme.warn(),
        (NodeState::Up, Service::Open) => {
            match row.ailments.iter().map(|one| one.policy.measure).max() {
                Some(Measure::Node) => theme.fail(),
                Some(Measure::Gpu) => theme.warn(),
                _ => theme.good(),
            }
        }
    }
}

fn cell(node: &NodeStatus, head: &str, width: u16, now: At, theme: Theme) -> (String, Style) {
    let (row, facts, sample) = (&node.row, &node.row.facts, node.sample.as_ref());
    // What a node said before it went is old.
    let plain = if row.state == NodeState::Up { Style::new() } else { theme.dim() };
    let read = |text: Option<String>| (text.unwrap_or_else(|| "-".into()), plain);
    let ramp = |permille: u32| {
        if row.state == NodeState::Up { theme.ramp(permille) } else { theme.dim() }
    };
    match head {
        "NODE" => (facts.name.clone(), Style::new()),
        "STATE" => (node_state(node, now), state_style(row, theme)),
        "USE" => sample.map_or_else(
            || (theme.gap().to_string(), theme.dim()),
            |one| (theme.bar(one.cpu_permille, usize::from(width)), ramp(one.cpu_permille)),
        ),
        "CPU %" => read(sample.map(|one| percent(one.cpu_permille))),
        "GPU" => {
            let (strip, busy) = gpu_strip(node, theme);
            (strip, ramp(busy.unwrap_or(0)))
        }
        "SM" => read(gpu_strip(node, theme).1.map(percent)),
        "CORES" => (format!("{}/{}", row.used.cores, facts.resources.cores), plain),
        "RAM GB" => read(sample.map(|one| {
            format!("{}/{}", gigabytes(one.memory_used_mib), gigabytes(one.memory_total_mib))
        })),
        "TASKS" => (row.tasks.to_string(), plain),
        "DISK FREE" => read(sample.map(|one| format!("{} GB", one.disk_free_mib / 1024))),
        "NET KB/s" => {
            read(sample.map(|one| count(one.network_received_kib + one.network_sent_kib)))
        }
        "AGENT" => (facts.agent_version.clone(), theme.dim()),
        _ => note(node, theme),
    }
}

/// One block per GPU, and how busy they are together.
fn gpu_strip(node: &NodeStatus, theme: Theme) -> (String, Option<u32>) {
    let samples = node.sample.iter().flat_map(|sample| &sample.gpus);
    let busy: Vec<u32> = samples.filter_map(|gpu| gpu.busy_permille).collect();
    let average = (busy.iter().sum::<u32>()).checked_div(busy.len() as u32);
    let block = |index: usize| {
        let gpu = node.sample.as_ref().and_then(|sample| sample.gpus.get(index));
        gpu.and_then(|gpu| gpu.busy_permille).map_or_else(
            || theme.gap(),
            // An idle GPU is there: its lowest block is drawn.
            |busy| theme.block((busy.min(1000) as usize * 8).div_ceil(1000).max(1)),
        )
    };
    ((0..node.row.facts.gpus.len()).map(block).collect(), average)
}

/// What a person should know of a node beside its numbers.
fn note(node: &NodeStatus, theme: Theme) -> (String, Style) {
    let (row, facts) = (&node.row, &node.row.facts);
    let disk = node.sample.as_ref().map(|sample| (sample.disk_free_mib, sample.disk_total_mib));
    match (row.state, disk, &facts.gpu_reason) {
        (NodeState::Late, ..) => ("! does not answer; its tasks go on".into(), theme.warn()),
        (NodeState::Lost, ..) => ("! its tasks were queued again".into(), theme.fail()),
        (NodeState::Up, ..) if row.service != Service::Open => {
            (closed(row), state_style(row, theme))
        }
        (_, Some((free, total)), _) if total > 0 && free * 20 < total => {
            (format!("! disk {} % free", free * 100 / total), theme.warn())
        }
        (_, _, Some(reason)) => (format!("no gpu: {reason}"), theme.dim()),
        _ => (String::new(), theme.dim()),
    }
}

/// Why a node gets no new work.
fn closed(row: &NodeRow) -> String {
    match &row.service {
        Service::Open => row.ailments.first().map_or_else(String::new, |ailment| {
            format!("! {} ({})", ailment.detail, ailment.trouble)
        }),
        Service::Drain { reason, .. } => format!("! drained: {reason}"),
        Service::Quarantine { reason } => format!("! quarantined: {reason}"),
    }
}

/// The screen of nodes.
pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let nodes = node_rows(app);
    let (columns, height) = (sheet.columns(), sheet.rows());
    let chosen = nodes.iter().find(|node| Some(&node.row.facts.name) == app.node.as_ref());
    let wanted =
        chosen.map_or(0, |node| 8 + (node.row.facts.gpus.len() + node.row.ailments.len()) as u16);
    let below = if height < 12 { 0 } else { wanted.min(height / 2) };
    let top = u16::from(height >= 12);
    let y = {
        let mut panel = sheet.part(0, top, columns, height - below - top);
        table(app, update, &nodes, &mut panel)
    };
    // Right below the last row, where the eye is, not at the end of the screen.
    let end = (nodes.len() as u16 + top + 2).min(height - below);
    if let Some(node) = chosen.filter(|_| below > 0) {
        let mut panel = sheet.part(0, end, columns, height - end);
        detail(app, update, node, &mut panel);
    }
    y + top
}

fn detail(app: &App, update: &Update, node: &NodeStatus, sheet: &mut Sheet<'_>) {
    let (row, facts, now) = (&node.row, &node.row.facts, super::now_of(app, update));
    let (theme, plain) = (sheet.theme, Style::new());
    let roles: Vec<String> =
        facts.roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    let mut state = format!("{} for {}", row.state.word(), duration(now.since(row.since).0));
    if row.service != Service::Open || !row.ailments.is_empty() {
        state = format!("{state}, {}", closed(row).trim_start_matches("! "));
    }
    let facts_line = [
        format!("for {}", if roles.is_empty() { "-".into() } else { roles.join(", ") }),
        format!("{} cores", facts.resources.cores),
        format!("{} GB memory", gigabytes(facts.resources.memory.0)),
        format!("agent {}", facts.agent_version),
    ];
    let x =
        sheet.pieces(1, 0, 3, &[(&facts.name, theme.heading()), (&state, state_style(row, theme))]);
    sheet.pieces(x, 0, 3, &facts_line.each_ref().map(|text| (text.as_str(), plain)));
    let mut y = 2;
    if let Some(sample) = &node.sample {
        let age = node.sampled.map_or(0, |at| update.at.since(at).0 / 1000);
        let used = [
            format!("held {}/{} cores", row.used.cores, facts.resources.cores),
            format!("cpu {}", percent(sample.cpu_permille)),
            format!(
                "memory {} of {} GB",
                gigabytes(sample.memory_used_mib),
                gigabytes(sample.memory_total_mib)
            ),
            format!(
                "disk {} of {} GB free",
                sample.disk_free_mib / 1024,
                sample.disk_total_mib / 1024
            ),
            if age > 3 { format!("read {age} s ago") } else { String::new() },
        ];
        sheet.pieces(1, y, 3, &used.each_ref().map(|text| (text.as_str(), plain)));
        y += 1;
    } else {
        sheet.text(1, y, "no reading yet", theme.dim());
        y += 1;
    }
    for ailment in &row.ailments {
        let gpu = ailment
            .gpu
            .as_ref()
            .and_then(|uuid| facts.gpus.iter().position(|gpu| gpu.uuid == *uuid));
        let on = gpu.map_or(String::new(), |gpu| format!(" on gpu {gpu}"));
        let since = duration(now.since(ailment.since).0);
        let text = format!("! {}{on} ({}), for {since}", ailment.detail, ailment.trouble);
        sheet.text(1, y, &text, theme.fail());
        y += 1;
    }
    if let Some(reason) = &facts.gpu_reason {
        sheet.text(1, y, &format!("no gpu: {reason}"), theme.dim());
        y += 1;
    }
    if !facts.gpus.is_empty() {
        let head = format!(
            "{:>3}  {:<24}  {:>5}  {:>11}  {:>4}  {:>5}  JOB",
            "GPU", "NAME", "SM", "MEM GB", "C", "W"
        );
        sheet.text(1, y, &head, theme.heading());
        y += 1;
    }
    for (index, gpu) in facts.gpus.iter().enumerate() {
        let sample = node.sample.as_ref().and_then(|sample| sample.gpus.get(index));
        let job = row.gpu_jobs.get(index).copied().flatten();
        sheet.text(1, y, &gpu_line(index, gpu, sample, job), plain);
        y += 1;
    }
    let here: Vec<String> = update
        .jobs
        .iter()
        .filter(|job| !job.state.is_ended() && job.nodes.contains(&facts.name))
        .map(|job| format!("{} {}", job.job, job.name))
        .collect();
    let jobs = if here.is_empty() { "no jobs here".into() } else { here.join("   ") };
    sheet.text(1, y + 1, &jobs, if here.is_empty() { theme.dim() } else { plain });
}

fn gpu_line(
    index: usize,
    gpu: &gantry_model::Gpu,
    sample: Option<&GpuSample>,
    job: Option<JobId>,
) -> String {
    let number = |value: Option<u32>| value.map_or_else(|| "-".into(), |value| value.to_string());
    let memory = sample.and_then(|one| one.memory_used_mib).map_or_else(|| "-".into(), gigabytes);
    format!(
        "{index:>3}  {:<24}  {:>5}  {:>11}  {:>4}  {:>5}  {}",
        gpu.name.chars().take(24).collect::<String>(),
        sample.and_then(|one| one.busy_permille).map_or_else(|| "-".into(), percent),
        format!("{memory}/{}", gpu.memory.0 / 1024),
        number(sample.and_then(|one| one.temperature_c)),
        number(sample.and_then(|one| one.power_mw).map(|power| power / 1000)),
        job.map_or_else(String::new, |job| job.to_string())
    )
}
