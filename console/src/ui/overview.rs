//! The overview: every node at a glance, who holds what and why the others wait, what needs a human,
//! what happened just now, and the last hour.

use gantry_model::{JobState, Level, NodeState, Service};
use gantry_wire::{NodeStatus, Update};
use ratatui::style::Style;

use super::sheet::Sheet;
use super::words::{clock, count, minute, percent, things};
use super::{chart, data, nodes};
use crate::app::layout::{self, COLUMNS_WIDE, NODE_CELL, Overview};
use crate::app::{App, gpu_busy, node_rows};

/// What needs a look, and how loud.
type Human = (String, Level);

pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let (columns, height) = (sheet.columns(), sheet.rows());
    let parts = layout::overview(app, columns, height);
    let humans = humans(update);
    if height < 12 {
        let all = node_rows(app);
        return nodes::table(app, update, &all, sheet);
    }
    if parts.across > 1 || columns < COLUMNS_WIDE {
        narrow(app, update, parts, &humans, sheet)
    } else {
        wide(app, update, parts, &humans, sheet)
    }
}

fn wide(
    app: &App,
    update: &Update,
    parts: Overview,
    humans: &[Human],
    sheet: &mut Sheet<'_>,
) -> u16 {
    let (columns, height) = (sheet.columns(), sheet.rows());
    let side = (columns * 3 / 10).clamp(36, 56);
    let left = columns - side;
    let all = node_rows(app);
    let cursor = {
        let mut panel = sheet.part(0, 1, left, parts.nodes + 1);
        nodes::short_table(app, update, &all, &mut panel) + 1
    };
    further(update, parts.nodes + 2, &mut sheet.part(0, 0, left, height));
    let mut y = parts.nodes + 3;
    {
        let mut panel = sheet.part(0, y, left, parts.owners + 1);
        owners(app, update, &mut panel);
    }
    {
        let mut panel = sheet.part(left, 1, side, height - parts.strip - 5);
        side_panel(app, update, humans, &mut panel);
    }
    // The last hour stands at the end, however many nodes there are.
    y = height - parts.strip - 4;
    let mut panel = sheet.part(0, y, columns, parts.strip + 2);
    charts(update, parts.strip, &mut panel);
    if let Some(line) = chosen_line(app, update) {
        let dim = sheet.theme.dim();
        sheet.text(1, height - 2, &line, dim);
    }
    cursor
}

/// What of the cluster no picture of the overview holds, below its nodes.
fn further(update: &Update, y: u16, sheet: &mut Sheet<'_>) {
    let left_out = (update.summary.nodes as usize).saturating_sub(update.nodes.len());
    if left_out > 0 {
        let text = format!("and {}; 2 lists all", things(left_out as u32, "further node"));
        sheet.text(1, y, &text, sheet.theme.dim());
    }
}

/// Where there is little room: nodes beside one another, the rest below.
fn narrow(
    app: &App,
    update: &Update,
    parts: Overview,
    humans: &[Human],
    sheet: &mut Sheet<'_>,
) -> u16 {
    let (columns, height, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let roomy = u16::from(height >= layout::ROWS_ROOMY);
    let cursor = grid(app, parts, &mut sheet.part(0, roomy, columns, parts.nodes + 1)) + roomy;
    further(update, parts.nodes + 1 + roomy, sheet);
    let mut y = parts.nodes + 2 + roomy;
    let (word, values) = if update.gpu_busy_permille.is_empty() {
        ("CPU BUSY %", &update.busy_permille)
    } else {
        ("GPU BUSY %", &update.gpu_busy_permille)
    };
    sheet.text(1, y, word, theme.heading());
    sheet.text(12, y, "60 min", theme.dim());
    let last = values.iter().rev().find_map(|value| *value);
    sheet.text(
        1,
        y + 1,
        &last.map_or_else(String::new, |last| format!("now {}", percent(last.into()))),
        Style::new(),
    );
    chart::strip(&mut sheet.part(20, y, columns.saturating_sub(21), parts.strip), values);
    y += parts.strip + 1;
    owners(app, update, &mut sheet.part(0, y, columns, parts.owners + 1));
    y += (update.owners.len() as u16).clamp(1, parts.owners) + 1 + roomy;
    let mut panel = sheet.part(0, y, columns, height.saturating_sub(y));
    needs_a_human(humans, &mut panel);
    cursor
}

/// Nodes beside one another, with no more than is needed to see where trouble is. Gives the row of
/// the chosen one.
fn grid(app: &App, parts: Overview, sheet: &mut Sheet<'_>) -> u16 {
    let theme = sheet.theme;
    let all = node_rows(app);
    let mut cursor = 1;
    for column in 0..parts.across {
        let x = column * NODE_CELL;
        sheet.text(x + 1, 0, "NODE      GPU       USE", theme.heading());
        for row in 0..parts.nodes {
            let at = app.top + usize::from(column * parts.nodes + row);
            let Some(node) = all.get(at) else { continue };
            let name = &node.row.facts.name;
            let y = row + 1;
            sheet.cell(x + 1, y, 9, name, Style::new());
            let word = crate::app::node_word(node);
            if word == "up" {
                let (strip, busy) = nodes::gpu_strip(node, theme);
                let busy = busy.or(node.sample.as_ref().map(|sample| sample.cpu_permille));
                let strip = if strip.is_empty() { "cpu".to_owned() } else { strip };
                sheet.cell(x + 11, y, 8, &strip, theme.ramp(busy.unwrap_or(0)));
                let busy = busy.map_or_else(|| "-".into(), percent);
                sheet.right(x + NODE_CELL - 2, y, &busy, Style::new());
            } else {
                sheet.cell(x + 11, y, 13, word, nodes::state_style(&node.row, theme));
            }
            if app.marked_nodes.contains(name) {
                sheet.text(x, y, "*", theme.heading());
            }
            if app.node.as_ref() == Some(name) {
                sheet.part(x, y, NODE_CELL - 1, 1).style(theme.chosen());
                sheet.text(x, y, ">", theme.chosen());
                cursor = y;
            }
        }
    }
    cursor
}

/// Who holds GPUs and cores, who waits, and why.
fn owners(app: &App, update: &Update, sheet: &mut Sheet<'_>) {
    let (columns, theme, plain) = (sheet.columns(), sheet.theme, Style::new());
    let gpus = update.summary.gpus > 0;
    let wide = columns >= 70;
    let (unit, total) = if gpus {
        ("GPU", u64::from(update.summary.gpus) * 1000)
    } else {
        ("CORES", u64::from(update.summary.cores))
    };
    let why = if wide { 47 } else { 24 };
    sheet.text(1, 0, "WHO HAS IT", theme.heading());
    sheet.right(20, 0, unit, theme.heading());
    if wide {
        sheet.text(23, 0, "SHARE", theme.heading());
    }
    sheet.right(why - 3, 0, if wide { "WAITING" } else { "" }, theme.heading());
    sheet.text(why, 0, "WHY THEY WAIT", theme.heading());
    for (row, owner) in
        update.owners.iter().take(usize::from(sheet.rows().saturating_sub(1))).enumerate()
    {
        let y = row as u16 + 1;
        let held = if gpus { owner.gpu_permille } else { owner.cores };
        let shown = match held {
            _ if !gpus => held.to_string(),
            whole if whole.is_multiple_of(1000) => (whole / 1000).to_string(),
            part => format!("{}.{}", part / 1000, part % 1000 / 100),
        };
        sheet.cell(1, y, 13, &app.private(&owner.user), plain);
        sheet.right(20, y, &shown, plain);
        if wide {
            let share = (held * 1000).checked_div(total).unwrap_or(0) as u32;
            sheet.text(23, y, &theme.bar(share, 8), theme.ramp(share.max(300)));
            let waiting = if owner.waiting > 0 { owner.waiting.to_string() } else { "-".into() };
            sheet.right(why - 3, y, &waiting, plain);
        }
        let reason = match (&owner.reason, wide) {
            (Some(reason), true) => app.hidden(reason),
            (Some(reason), false) => format!("{} wait: {reason}", owner.waiting),
            (None, _) => String::new(),
        };
        sheet.text(why, y, &reason, theme.dim());
    }
    if update.owners.is_empty() {
        sheet.text(1, 1, "nobody: no job waits or runs", theme.dim());
    }
}

/// The last hour: how busy, and how much power; of the cores alone where there are no GPUs.
fn charts(update: &Update, strip: u16, sheet: &mut Sheet<'_>) {
    let columns = sheet.columns();
    let half = columns / 2;
    let last = |values: &[Option<u16>]| values.iter().rev().find_map(|value| *value);
    let now = |value: Option<u16>| {
        value.map_or_else(|| "no reading".into(), |value| format!("now {} %", value / 10))
    };
    let (cpu, gpu) = (&update.busy_permille, &update.gpu_busy_permille);
    if gpu.is_empty() {
        let head = ("CPU BUSY %", now(last(cpu)), "100".to_owned());
        chart_of(update, head, cpu, strip, &mut sheet.part(0, 0, columns, strip + 2));
        return;
    }
    let head = ("GPU BUSY %", now(last(gpu)), "100".to_owned());
    chart_of(update, head, gpu, strip, &mut sheet.part(0, 0, half, strip + 2));
    let most = update.gpu_power_w.iter().flatten().max().copied().unwrap_or(0);
    let top_kw = (most / 1000 + 1).next_multiple_of(if most < 20_000 { 2 } else { 10 });
    let power: Vec<Option<u16>> = update
        .gpu_power_w
        .iter()
        .map(|value| value.map(|watts| (u64::from(watts) / u64::from(top_kw)).min(1000) as u16))
        .collect();
    let newest = update.gpu_power_w.iter().rev().find_map(|value| *value);
    let now = newest.map_or_else(
        || "no reading".into(),
        |watts| format!("now {}.{}", watts / 1000, watts % 1000 / 100),
    );
    let head = ("POWER kW", now, top_kw.to_string());
    let mut panel = sheet.part(half, 0, columns - half, strip + 2);
    chart_of(update, head, &power, strip, &mut panel);
}

/// One chart: its name, what is now, its strip with the scale, the times below.
fn chart_of(
    update: &Update,
    (name, now, top): (&str, String, String),
    values: &[Option<u16>],
    strip: u16,
    sheet: &mut Sheet<'_>,
) {
    let (columns, theme) = (sheet.columns(), sheet.theme);
    sheet.pieces(
        1,
        0,
        3,
        &[(name, theme.heading()), ("60 min", theme.dim()), (&now, Style::new())],
    );
    sheet.right(4, 1, &top, theme.dim());
    sheet.right(4, strip, "0", theme.dim());
    let width = columns.saturating_sub(7);
    chart::strip(&mut sheet.part(5, 1, width, strip), values);
    let start = gantry_model::At(update.at.0.saturating_sub(3_600_000));
    sheet.text(5, strip + 1, &minute(start), theme.dim());
    sheet.right(5 + width, strip + 1, &minute(update.at), theme.dim());
}

/// What there is to say of the chosen node.
fn chosen_line(app: &App, update: &Update) -> Option<String> {
    let name = app.looked_at.as_ref()?;
    let node = update.nodes.iter().find(|node| node.row.facts.name == *name)?;
    let row = &node.row;
    let here = update.jobs.iter().filter(|job| !job.state.is_ended() && job.nodes.contains(name));
    let oldest =
        here.clone().filter(|job| job.state == JobState::Run).min_by_key(|job| job.started);
    let mut line =
        format!("{name}: {}, {}", things(here.count() as u64, "job"), things(row.tasks, "task"));
    if !row.facts.gpus.is_empty() {
        let held = row.gpu_jobs.iter().flatten().count();
        line = format!("{line}, {held} of {} gpu held", row.facts.gpus.len());
        if let Some(busy) = gpu_busy(node) {
            line = format!("{line}, {} busy", percent(busy));
        }
    }
    if let Some(job) = oldest {
        let time = super::words::time_of(job, super::now_of(app, update));
        line = format!("{line}; oldest {} {} {time}", job.job, job.name);
    }
    Some(line)
}

/// What a human should look at: nodes and GPUs that are not there, jobs that failed, images refused.
fn humans(update: &Update) -> Vec<Human> {
    let mut lines = Vec::new();
    for node in &update.nodes {
        let name = &node.row.facts.name;
        match (node.row.state, &node.row.service) {
            (NodeState::Up, Service::Quarantine { reason }) => {
                lines.push((format!("! {name} quarantined: {reason}"), Level::Fail));
            }
            (NodeState::Up, _) => {}
            (NodeState::Late, _) => lines.push((format!("! {name} is late"), Level::Warn)),
            (NodeState::Lost, _) => lines.push((format!("! {name} is lost"), Level::Fail)),
        }
        for ailment in &node.row.ailments {
            let gpus = &node.row.facts.gpus;
            let of = |uuid: &String| gpus.iter().position(|gpu| gpu.uuid == *uuid);
            let gpu =
                ailment.gpu.as_ref().and_then(of).map_or_else(String::new, |at| format!(":{at}"));
            lines.push((format!("! {name}{gpu} {}", ailment.detail), Level::Warn));
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
fn needs_a_human(lines: &[Human], sheet: &mut Sheet<'_>) {
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

fn side_panel(app: &App, update: &Update, humans: &[Human], sheet: &mut Sheet<'_>) {
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
        let sentence = app.hidden(sentence);
        let time = clock(note.at);
        sheet.pieces(2, y, 1, &[(&time[..5], theme.dim()), (&subject, style), (&sentence, style)]);
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
