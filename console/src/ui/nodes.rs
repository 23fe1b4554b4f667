//! The nodes: state, use, what they hold; the chosen one below, with its GPUs and its last events.

use gantry_model::health::Measure;
use gantry_model::{At, JobId, NodeRow, NodeState, Service};
use gantry_wire::{NodeStatus, Update};
use ratatui::style::Style;

use super::sheet::Sheet;
use super::table::{self, Column, Rows};
use super::theme::Theme;
use super::words::{duration, gigabytes, kilowatts, minute, node_state, percent, since};
use super::{chart, gpus};
use crate::app::gpus::Metric;
use crate::app::layout::{ROWS_ROOMY, node_detail};
use crate::app::{App, GpuLine, View, gpu_busy, node_rows};

const COLUMNS: [Column; 14] = [
    Column::text("NODE", 10, 0).up_to(16),
    Column::text("STATE", 9, 0),
    Column::text("GPU", 8, 1),
    Column::number("BUSY", 5, 0),
    Column::number("CPU", 5, 2),
    Column::number("CORES", 7, 6),
    Column::number("RAM GB", 9, 5),
    Column::text("SCRATCH", 7, 8),
    Column::number("NET Gb/s", 8, 9),
    Column::number("kW", 4, 4),
    Column::text("UP", 5, 10),
    Column::text("AGENT", 6, 11),
    Column::number("TASKS", 5, 3),
    Column::text("NOTE", 12, 7),
];

/// What the overview has room for.
const SHORT: [Column; 8] = [
    Column::text("NODE", 9, 0).up_to(14),
    Column::text("GPU  sm %, a pair each", 23, 3),
    Column::text("USE", 8, 4),
    Column::number("BUSY", 5, 0),
    Column::number("MEM GB", 9, 1),
    Column::number("°C", 4, 5),
    Column::number("kW", 4, 2),
    Column::number("TASKS", 5, 1),
];

/// Draws a table of nodes. Gives the row of the chosen one.
pub(super) fn table(
    app: &App,
    update: &Update,
    nodes: &[&NodeStatus],
    sheet: &mut Sheet<'_>,
) -> u16 {
    draw_table(app, update, nodes, &COLUMNS, sheet)
}

/// The same with the columns of the overview.
pub(super) fn short_table(
    app: &App,
    update: &Update,
    nodes: &[&NodeStatus],
    sheet: &mut Sheet<'_>,
) -> u16 {
    draw_table(app, update, nodes, &SHORT, sheet)
}

fn draw_table(
    app: &App,
    update: &Update,
    nodes: &[&NodeStatus],
    columns: &[Column],
    sheet: &mut Sheet<'_>,
) -> u16 {
    let (theme, now) = (sheet.theme, super::now_of(app, update));
    // Where no node has a GPU, their columns say nothing.
    let gpus = nodes.iter().any(|node| !node.row.facts.gpus.is_empty());
    let shown = |column: &&Column| {
        gpus || !(column.head.starts_with("GPU") || matches!(column.head, "kW" | "°C"))
    };
    let columns: Vec<Column> = columns.iter().filter(shown).copied().collect();
    let rows = Rows {
        count: nodes.len(),
        chosen: nodes.iter().position(|node| Some(&node.row.facts.name) == app.node.as_ref()),
        top: app.top,
        sideways: app.sideways,
    };
    let y = table::draw(
        sheet,
        &columns,
        &rows,
        |row| if app.marked_nodes.contains(&nodes[row].row.facts.name) { '*' } else { ' ' },
        |row, head, width| cell(nodes[row], head, width, now, theme),
    );
    if nodes.is_empty() {
        let none = if app.filter().is_empty() || app.view != View::Nodes {
            "no nodes; gantry scheduler token NODE makes a token for one"
        } else {
            "no node fits the filter; Esc clears it"
        };
        sheet.text(2, 1, none, theme.dim());
    }
    y
}

/// The style of a node's state.
pub(super) fn state_style(row: &NodeRow, theme: Theme) -> Style {
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
    let busy = gpu_busy(node).or(sample.map(|one| one.cpu_permille));
    match head {
        "NODE" => (facts.name.clone(), Style::new()),
        "STATE" => (node_state(node, now), state_style(row, theme)),
        "USE" => busy.map_or_else(
            || (theme.gap().to_string(), theme.dim()),
            |busy| (theme.bar(busy, usize::from(width)), ramp(busy)),
        ),
        "BUSY" => read(busy.map(percent)),
        "CPU" => read(sample.map(|one| percent(one.cpu_permille))),
        "GPU" => (gpu_strip(node, theme).0, ramp(busy.unwrap_or(0))),
        "CORES" => (format!("{}/{}", row.used.cores, facts.resources.cores), plain),
        "RAM GB" => {
            read(sample.map(|one| {
                format!("{}/{}", one.memory_used_mib / 1024, one.memory_total_mib / 1024)
            }))
        }
        "MEM GB" => read(memory(node)),
        "SCRATCH" => sample.map_or_else(
            || ("-".into(), plain),
            |one| {
                let used = one.disk_total_mib.saturating_sub(one.disk_free_mib) * 1000;
                let used = used.checked_div(one.disk_total_mib).unwrap_or(0) as u32;
                (theme.bar(used, usize::from(width.min(6))), ramp(used))
            },
        ),
        "NET Gb/s" => read(sample.map(|one| {
            // KiB per second as tenths of a gigabit: 8,192 bits of 100,000,000.
            let tenths = (one.network_received_kib + one.network_sent_kib) * 8192 / 100_000_000;
            format!("{}.{}", tenths / 10, tenths % 10)
        })),
        "kW" => read(power_mw(node).map(kilowatts)),
        "°C" => read(hottest(node).map(|degrees| degrees.to_string())),
        "TASKS" => (row.tasks.to_string(), plain),
        "UP" => (since(now.since(row.since).0), plain),
        "AGENT" => (facts.agent_version.clone(), theme.dim()),
        "NOTE" => note(node, theme),
        _ => pairs(node, now, theme),
    }
}

/// The overview's column: a pair of blocks for each GPU, or why there is nothing to see.
fn pairs(node: &NodeStatus, now: At, theme: Theme) -> (String, Style) {
    if node.row.state != NodeState::Up || node.row.service != Service::Open {
        let (text, style) = note(node, theme);
        let state = node_state(node, now);
        return (format!("{state} {}", text.trim_start_matches("! ")), style);
    }
    let strip = gpu_strip(node, theme).0;
    if strip.is_empty() {
        let reason = node.row.facts.gpu_reason.as_ref().map_or("", |_| ", no gpu");
        return (format!("cpu{reason}"), theme.dim());
    }
    let busy = gpu_busy(node).unwrap_or(0);
    if strip.chars().count() > 8 {
        return (strip, theme.ramp(busy));
    }
    let pairs: Vec<String> = strip.chars().map(|block| format!("{block}{block}")).collect();
    (pairs.join(" "), theme.ramp(busy))
}

fn power_mw(node: &NodeStatus) -> Option<u64> {
    let gpus = node.sample.iter().flat_map(|sample| &sample.gpus);
    let drawn: Vec<u64> = gpus.filter_map(|gpu| gpu.power_mw).map(u64::from).collect();
    (!drawn.is_empty()).then(|| drawn.iter().sum())
}

fn hottest(node: &NodeStatus) -> Option<u32> {
    node.sample.iter().flat_map(|sample| &sample.gpus).filter_map(|gpu| gpu.temperature_c).max()
}

/// Memory in use: of the GPUs, or of the node where it has none.
fn memory(node: &NodeStatus) -> Option<String> {
    let sample = node.sample.as_ref()?;
    let facts = &node.row.facts;
    if facts.gpus.is_empty() {
        return Some(format!(
            "{}/{}",
            sample.memory_used_mib / 1024,
            sample.memory_total_mib / 1024
        ));
    }
    let used: u64 = sample.gpus.iter().filter_map(|gpu| gpu.memory_used_mib).sum();
    let all: u64 = facts.gpus.iter().map(|gpu| gpu.memory.0).sum();
    Some(format!("{}/{}", used / 1024, all / 1024))
}

/// One block per GPU, and how busy they are together.
pub(super) fn gpu_strip(node: &NodeStatus, theme: Theme) -> (String, Option<u32>) {
    let block = |index: usize| {
        if node.row.facts.gpus[index].unfit.is_some() {
            return 'x';
        }
        let gpu = node.sample.as_ref().and_then(|sample| sample.gpus.get(index));
        gpu.and_then(|gpu| gpu.busy_permille).map_or_else(
            || theme.gap(),
            // An idle GPU is there: its lowest block is drawn.
            |busy| theme.block((busy.min(1000) as usize * 8).div_ceil(1000).max(1)),
        )
    };
    ((0..node.row.facts.gpus.len()).map(block).collect(), gpu_busy(node))
}

/// What a person should know of a node beside its numbers.
fn note(node: &NodeStatus, theme: Theme) -> (String, Style) {
    let (row, facts) = (&node.row, &node.row.facts);
    let disk = node.sample.as_ref().map(|sample| (sample.disk_free_mib, sample.disk_total_mib));
    match (row.state, disk, &facts.gpu_reason) {
        (NodeState::Late, ..) => ("! does not answer; its tasks go on".into(), theme.warn()),
        (NodeState::Lost, ..) => ("! its tasks were queued again".into(), theme.fail()),
        (NodeState::Up, ..) if row.service != Service::Open || !row.ailments.is_empty() => {
            (closed(row), state_style(row, theme))
        }
        (_, Some((free, total)), _) if total > 0 && free * 20 < total => {
            (format!("! disk {} % free", free * 100 / total), theme.warn())
        }
        (_, _, Some(reason)) => (format!("no gpu: {reason}"), theme.dim()),
        _ => (String::new(), theme.dim()),
    }
}

/// Why a node gets no new work, or what is wrong with it.
fn closed(row: &NodeRow) -> String {
    match &row.service {
        Service::Open => row.ailments.first().map_or_else(String::new, |ailment| {
            let of = |uuid: &String| row.facts.gpus.iter().position(|gpu| gpu.uuid == *uuid);
            let gpu = ailment
                .gpu
                .as_ref()
                .and_then(of)
                .map_or_else(String::new, |at| format!("gpu{at} "));
            format!("! {gpu}{} ({})", ailment.detail, ailment.trouble)
        }),
        Service::Drain { reason, .. } => format!("! drained: {reason}"),
        Service::Quarantine { reason } => format!("! quarantined: {reason}"),
    }
}

/// The screen of nodes.
pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let nodes = node_rows(app);
    let (columns, height) = (sheet.columns(), sheet.rows());
    let chosen = nodes.iter().find(|node| Some(&node.row.facts.name) == app.looked_at.as_ref());
    let below = node_detail(app, height);
    let top = u16::from(height >= ROWS_ROOMY);
    let y = {
        let mut panel = sheet.part(0, top, columns, app.list_rows() as u16 + 1);
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
    let mut state = format!("{} for {}", row.state.word(), duration(now.since(row.since).0));
    if row.service != Service::Open || !row.ailments.is_empty() {
        state = format!("{state}, {}", closed(row).trim_start_matches("! "));
    }
    let x =
        sheet.pieces(1, 0, 3, &[(&facts.name, theme.heading()), (&state, state_style(row, theme))]);
    let facts_line = facts_of(node, update);
    sheet.pieces(x, 0, 3, &facts_line.each_ref().map(|text| (text.as_str(), plain)));
    let mut y = 1;
    for ailment in &row.ailments {
        let of = |uuid: &String| facts.gpus.iter().position(|gpu| gpu.uuid == *uuid);
        let gpu = ailment.gpu.as_ref().and_then(of);
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
    y += 1;
    if !facts.gpus.is_empty() {
        let rows = sheet.rows().saturating_sub(y + 2).min(facts.gpus.len() as u16 + 1);
        let columns = sheet.columns();
        gpu_rows(app, update, node, &mut sheet.part(0, y, columns, rows));
        y += rows + 1;
    }
    let last = last_notes(app, &facts.name);
    if y < sheet.rows() {
        let x = sheet.pieces(1, y, 2, &[("LAST", theme.heading())]);
        sheet.text(x, y, &last, theme.dim());
    }
}

fn facts_of(node: &NodeStatus, update: &Update) -> [String; 6] {
    let facts = &node.row.facts;
    let roles: Vec<String> =
        facts.roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    let gpus = match facts.gpus.first() {
        Some(gpu) => format!("{} x {}", facts.gpus.len(), short_name(&gpu.name)),
        None => String::new(),
    };
    let age = node.sampled.map_or(0, |at| update.at.since(at).0 / 1000);
    [
        gpus,
        format!("{}/{} cores", node.row.used.cores, facts.resources.cores),
        format!("{} GB", gigabytes(facts.resources.memory.0)),
        format!("for {}", if roles.is_empty() { "-".into() } else { roles.join(", ") }),
        facts.isolation.clone(),
        if age > 3 { format!("read {age} s ago") } else { String::new() },
    ]
    .map(|text| text.chars().take(44).collect())
}

/// A product's name without what every product has in it.
fn short_name(name: &str) -> String {
    name.trim_start_matches("NVIDIA ").split(" HBM").next().unwrap_or_default().to_owned()
}

fn gpu_rows(app: &App, update: &Update, node: &NodeStatus, sheet: &mut Sheet<'_>) {
    let (columns, theme, plain) = (sheet.columns(), sheet.theme, Style::new());
    let strip = columns.saturating_sub(58).clamp(0, 60);
    let x = 6 + strip + u16::from(strip > 0) * 2;
    let head = format!(
        "{:>5}  {:>9}  {:>3}  {:>4}  {:>5}  {:>4}  JOB",
        "SM", "MEM GB", "C", "W", "CLOCK", "NUMA"
    );
    sheet.text(1, 0, "GPU", theme.heading());
    if strip > 0 {
        sheet.text(6, 0, &format!("SM % {}", app.gpus.span()), theme.heading());
    }
    sheet.text(x, 0, &head, theme.heading());
    for (index, gpu) in
        facts_gpus(node).take(usize::from(sheet.rows().saturating_sub(1))).enumerate()
    {
        let (y, sample) =
            (index as u16 + 1, node.sample.as_ref().and_then(|one| one.gpus.get(index)));
        let line = GpuLine {
            node: node.row.facts.name.clone(),
            state: node.row.state,
            sampled: node.sampled,
            row: gantry_wire::GpuRow {
                index: index as u16,
                memory_mib: gpu.memory.0,
                ..gantry_wire::GpuRow::default()
            },
            name: String::new(),
            user: String::new(),
        };
        sheet.right(4, y, &index.to_string(), plain);
        if strip > 0 {
            let now = super::now_of(app, update);
            let (cells, written) = app.gpus.strip(&line, Metric::Busy, now, usize::from(strip));
            let written = app.gpus.sweep.then_some(written);
            chart::cells(&mut sheet.part(6, y, strip, 1), &cells, written);
        }
        let number =
            |value: Option<u32>| value.map_or_else(|| "-".into(), |value| value.to_string());
        let busy = sample.and_then(|one| one.busy_permille);
        let memory =
            sample.and_then(|one| one.memory_used_mib).map_or_else(|| "-".into(), gigabytes);
        let job = node.row.gpu_jobs.get(index).copied().flatten();
        let unfit = gpu.unfit.as_ref().map(|reason| format!("! {reason}"));
        let numbers = format!(
            "{:>5}  {:>9}  {:>3}  {:>4}  {:>5}  {:>4}  ",
            busy.map_or_else(|| "-".into(), percent),
            format!("{memory}/{}", gpu.memory.0 / 1024),
            number(sample.and_then(|one| one.temperature_c)),
            number(sample.and_then(|one| one.power_mw).map(|power| power / 1000)),
            number(sample.and_then(|one| one.clock_mhz)),
            gpu.numa.map_or_else(|| "-".into(), |numa| numa.to_string()),
        );
        let throttled = gpus::is_hot(sample.and_then(|one| one.temperature_c));
        sheet.text(x, y, &numbers, if throttled { theme.warn() } else { plain });
        let end = x + numbers.chars().count() as u16;
        match unfit {
            Some(reason) => sheet.text(end, y, &reason, theme.warn()),
            None => sheet.text(end, y, &job_words(app, update, job), plain),
        }
    }
}

fn facts_gpus(node: &NodeStatus) -> impl Iterator<Item = &gantry_model::Gpu> {
    node.row.facts.gpus.iter()
}

/// A job by its id, its name and its user, where the picture knows them.
fn job_words(app: &App, update: &Update, job: Option<JobId>) -> String {
    let Some(job) = job else { return String::new() };
    match update.jobs.iter().find(|row| row.job == job) {
        Some(row) => format!("{job} {}  {}", row.name, app.private(&row.user)),
        None => job.to_string(),
    }
}

/// What happened to a node last, the newest first.
fn last_notes(app: &App, name: &str) -> String {
    match &app.node_notes {
        Some((node, notes)) if node == name => {
            let words = notes.iter().rev().take(6).map(|note| {
                let sentence = note.sentence.strip_prefix(name).unwrap_or(&note.sentence);
                format!("{} {}", minute(note.at), sentence.trim_start())
            });
            let words: Vec<String> = words.collect();
            if words.is_empty() { "nothing is in the event log".into() } else { words.join("   ") }
        }
        _ => String::new(),
    }
}
