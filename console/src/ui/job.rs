//! One job: what it is, its curves and those laid over them, its ranks with the slow one named, and
//! its output.

use gantry_model::{JobId, JobRow, TaskRow};
use gantry_wire::{Metric, Point, Update};
use ratatui::style::{Modifier, Style};

use super::chart::{self, Curve, Scale};
use super::jobs::{state_style, state_word, summary};
use super::sheet::Sheet;
use super::words::{percent, time_of};
use super::{gpus, now_of};
use crate::app::gpus::Metric as GpuMetric;
use crate::app::{App, GpuLine};

/// From so many columns on ranks stand beside the curves.
const COLUMNS_WITH_RANKS: u16 = 110;
/// Odd tasks that a line tells of.
const ODD_SHOWN: usize = 4;
/// A rank is slow that is so much less busy than the middle one, in thousandths of it.
const SLOW_PERMILLE: u64 = 850;

/// The screen of one job. Gives the row of its title: there is nothing to choose.
pub(super) fn draw(app: &App, update: &Update, job: JobId, sheet: &mut Sheet<'_>) -> u16 {
    let theme = sheet.theme;
    let Some(row) = update.jobs.iter().find(|row| row.job == job) else {
        let text = if app.pictured == Some(app.view.scope()) {
            format!("{job} is not known here any more; Esc goes back")
        } else {
            format!("waiting for {job}")
        };
        sheet.text(1, 1, &text, theme.dim());
        return 1;
    };
    let (columns, height) = (sheet.columns(), sheet.rows());
    let mut y = head(app, update, row, sheet);
    let ranks = app.ranks_of(job).unwrap_or_default();
    let has_curves = update.metrics.iter().any(is_curve);
    let beside = columns >= COLUMNS_WITH_RANKS && ranks.len() > 1 && height >= 20;
    if (has_curves || beside) && height >= 12 {
        let rows = (height / 3).clamp(5, 14);
        let left = match (has_curves, beside) {
            (true, true) => columns * 3 / 5,
            (true, false) => columns,
            _ => 0,
        };
        let mut runs: Vec<(String, &[Metric])> = vec![(job.to_string(), &update.metrics)];
        let others =
            app.laid_over.iter().filter_map(|other| Some((*other, app.metrics.get(other)?)));
        runs.extend(others.map(|(other, metrics)| (other.to_string(), metrics.as_slice())));
        if left > 0 {
            curves(&runs, &mut sheet.part(0, y, left, rows));
        }
        if beside {
            rank_rows(app, update, ranks, &mut sheet.part(left, y, columns - left, rows));
        }
        y += rows + 1;
        let numbers = numbers(&update.metrics);
        if !numbers.is_empty() {
            sheet.text(1, y, &numbers, Style::new());
            y += 2;
        }
    }
    if !beside && ranks.len() > 1 && height >= 12 {
        rank_line(ranks, &mut sheet.part(0, y, columns, 1));
        y += 2;
    }
    if let Some(tasks) = task_line(app, row).filter(|_| height >= 20) {
        sheet.pieces(1, y, 2, &[("TASKS", theme.heading()), (&tasks, Style::new())]);
        y += 2;
    }
    let mut panel = sheet.part(0, y, columns, height.saturating_sub(y));
    log(app, &mut panel);
    0
}

/// What the job is, as much as there is room for. Gives the first free row.
fn head(app: &App, update: &Update, row: &JobRow, sheet: &mut Sheet<'_>) -> u16 {
    let theme = sheet.theme;
    let time = time_of(row, now_of(app, update));
    if sheet.rows() >= 20 {
        let columns = sheet.columns();
        summary(app, row, &mut sheet.part(0, 0, columns, 4));
        sheet.right(columns - 1, 0, &time, theme.heading());
        return if row.reason.is_some() { 5 } else { 4 };
    }
    let done = format!("{}/{}", row.tasks.ended(), row.tasks.total());
    sheet.pieces(
        1,
        0,
        2,
        &[
            (&row.job.to_string(), theme.heading()),
            (state_word(row.state), state_style(row.state, theme)),
            (&time, Style::new()),
            (&done, Style::new()),
            (&row.name, Style::new()),
            (&row.nodes.join(","), theme.dim()),
            (row.reason.as_deref().unwrap_or_default(), theme.warn()),
        ],
    );
    if sheet.rows() >= 12 { 2 } else { 1 }
}

fn is_loss(metric: &Metric) -> bool {
    metric.name.contains("loss")
}

/// What lies between 0 and 1, whatever the training.
fn is_measure(metric: &Metric) -> bool {
    ["dice", "auc", "accuracy", "iou"].iter().any(|word| metric.name.contains(word))
}

/// Whether a metric is drawn, and not only told.
pub(super) fn is_curve(metric: &Metric) -> bool {
    is_loss(metric) || is_measure(metric)
}

/// Whether it was measured on what was not trained with.
fn is_validation(metric: &Metric) -> bool {
    metric.name.starts_with("val")
}

fn last(metric: &Metric) -> f64 {
    metric.points.last().map_or(0.0, Point::value)
}

/// The best of a curve: the least of a loss, the most of a measure.
fn best(metric: &Metric) -> Option<f64> {
    let values = metric.points.iter().map(Point::value).filter(|value| value.is_finite());
    if is_loss(metric) { values.reduce(f64::min) } else { values.reduce(f64::max) }
}

/// Losses at the left, measures between 0 and 1 at the right, the newest values above both; several
/// runs over one another, each with its id.
pub(super) fn curves(runs: &[(String, &[Metric])], sheet: &mut Sheet<'_>) {
    let (columns, rows) = (sheet.columns(), sheet.rows());
    let of = |wanted: fn(&Metric) -> bool| -> Vec<(&str, &Metric)> {
        let each =
            runs.iter().flat_map(|(run, metrics)| metrics.iter().map(|one| (run.as_str(), one)));
        each.filter(|(_, metric)| wanted(metric)).collect()
    };
    let sides = [("LOSS", Scale::FromZero, of(is_loss)), ("SCORE", Scale::Unit, of(is_measure))];
    let shown: Vec<_> = sides.iter().filter(|(_, _, some)| !some.is_empty()).collect();
    let each = columns / shown.len().max(1) as u16;
    for (n, (word, scale, some)) in shown.iter().enumerate() {
        let mut panel = sheet.part(n as u16 * each, 0, each.saturating_sub(1), rows);
        side((word, *scale), some, runs.len() > 1, &mut panel);
    }
}

fn side(
    (word, scale): (&str, Scale),
    some: &[(&str, &Metric)],
    several: bool,
    panel: &mut Sheet<'_>,
) {
    let theme = panel.theme;
    // The coarse curve lies over the fine one, so it stands last.
    let mut some = some.to_vec();
    some.sort_by_key(|(_, metric)| std::cmp::Reverse(metric.points.len()));
    let drawn: Vec<Curve<'_>> = some
        .iter()
        .enumerate()
        .map(|(n, (_, metric))| Curve { metric, style: theme.curve(n), star: theme.star(n) })
        .collect();
    let (gap, digits) = if panel.columns() >= 50 { (2, 4) } else { (1, 3) };
    let mut x = panel.pieces(1, 0, gap, &[(word, theme.heading())]);
    for (curve, (job, metric)) in drawn.iter().zip(&some) {
        let name = metric.name.replace("validation", "val");
        let whose = if several { format!("{job} ") } else { String::new() };
        let best = match best(metric).filter(|_| is_validation(metric) && !several) {
            Some(best) => format!(" (best {best:.digits$})"),
            None => String::new(),
        };
        let text =
            format!("{} {whose}{name} {:.digits$}{best}", theme.key(curve.star), last(metric));
        x = panel.pieces(x, 0, gap, &[(&text, curve.style)]);
    }
    let (width, height) = (panel.columns(), panel.rows());
    chart::curves(&mut panel.part(0, 1, width, height.saturating_sub(1)), &drawn, scale);
}

/// The newest values of what has no curve.
fn numbers(metrics: &[Metric]) -> String {
    let others = metrics.iter().filter(|metric| !is_curve(metric));
    let text = |metric: &Metric| format!("{} {:.1}", metric.name.replace('_', " "), last(metric));
    others.map(text).collect::<Vec<_>>().join("   ")
}

/// The rank that is slow: clearly less busy than the middle one, and by how much in percent.
fn slow(ranks: &[GpuLine]) -> Option<(usize, u64)> {
    let mut busy: Vec<u64> =
        ranks.iter().filter_map(|rank| rank.row.busy_permille.map(u64::from)).collect();
    if busy.len() < 3 {
        return None;
    }
    busy.sort_unstable();
    let middle = busy[busy.len() / 2];
    let least =
        ranks.iter().enumerate().filter_map(|(at, rank)| Some((rank.row.busy_permille?, at)));
    let (value, at) = least.min()?;
    let share = (u64::from(value) * 1000).checked_div(middle)?;
    (share < SLOW_PERMILLE).then(|| (at, (1000 - share) / 10))
}

/// The slow rank in words, with what its numbers say of why.
fn slow_words(ranks: &[GpuLine]) -> String {
    let Some((at, less)) = slow(ranks) else { return format!("{} ranks alike", ranks.len()) };
    let rank = &ranks[at];
    let mut words = format!("rank {at} is slow (-{less} %): {}:{}", rank.node, rank.row.index);
    if gpus::is_hot(rank.row.temperature_c) {
        words = format!("{words}, hot at {} C", rank.row.temperature_c.unwrap_or(0));
    }
    words
}

/// One row for each GPU that it holds.
fn rank_rows(app: &App, update: &Update, ranks: &[GpuLine], sheet: &mut Sheet<'_>) {
    let (columns, theme) = (sheet.columns(), sheet.theme);
    let strip = columns.saturating_sub(30).min(40);
    let head = format!(
        "{:<6}{:<width$} {:>5} {:>4} {:>3}  ON",
        "RANK",
        "SM %",
        "SM",
        "GB",
        "C",
        width = usize::from(strip)
    );
    sheet.text(1, 0, &head, theme.heading());
    let room = usize::from(sheet.rows().saturating_sub(2));
    let slow_one = slow(ranks).map(|(at, _)| at);
    // Where not all fit, the slow one is among them.
    let first = slow_one.map_or(0, |at| (at + 1).saturating_sub(room));
    for (y, (at, rank)) in ranks.iter().enumerate().skip(first).take(room).enumerate() {
        let y = y as u16 + 1;
        let style = if slow_one == Some(at) { theme.warn() } else { Style::new() };
        sheet.text(1, y, &at.to_string(), style);
        let now = now_of(app, update);
        let (cells, written) = app.gpus.strip(rank, GpuMetric::Busy, now, usize::from(strip));
        let written = app.gpus.sweep.then_some(written);
        chart::cells(&mut sheet.part(7, y, strip, 1), &cells, written);
        let number =
            |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
        let text = format!(
            "{:>5} {:>4} {:>3}  {}:{}",
            rank.row.busy_permille.map_or_else(|| "-".into(), percent),
            number(rank.row.memory_used_mib.map(|used| used / 1024)),
            number(rank.row.temperature_c.map(u64::from)),
            rank.node,
            rank.row.index,
        );
        sheet.text(8 + strip, y, &text, style);
    }
    let rows = sheet.rows();
    let style = if slow_one.is_some() { theme.warn() } else { theme.dim() };
    sheet.text(1, rows.saturating_sub(1), &slow_words(ranks), style);
}

/// All ranks in one line.
fn rank_line(ranks: &[GpuLine], sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let block = |rank: &GpuLine| {
        let busy = rank.row.busy_permille;
        busy.map_or(theme.gap(), |busy| theme.block((busy as usize * 8).div_ceil(1000).clamp(1, 8)))
    };
    let strip: String = ranks.iter().take(32).map(block).collect();
    let style = if slow(ranks).is_some() { theme.warn() } else { theme.dim() };
    sheet.pieces(
        1,
        0,
        2,
        &[("RANKS", theme.heading()), (&strip, theme.ramp(700)), (&slow_words(ranks), style)],
    );
}

/// The tasks of an array or a gang that did not end well, or how far they are.
fn task_line(app: &App, row: &JobRow) -> Option<String> {
    let look = app.tasks.of(row.job)?;
    let of = if look.more { format!(" of {}", row.tasks.total()) } else { String::new() };
    let looked = format!("{}{of}", look.looked);
    if look.odds == 0 {
        return Some(format!("{looked}: none failed, none started twice"));
    }
    let words = |task: &TaskRow| {
        let exit = task.exit.as_ref().map_or_else(String::new, |exit| format!(", {exit}"));
        let node = task.node.as_deref().map_or_else(String::new, |node| format!(" on {node}"));
        format!("{} {}{node}{exit}, {} starts", task.task, task.state, task.starts)
    };
    let mut parts: Vec<String> = look.odd.iter().take(ODD_SHOWN).map(words).collect();
    let others = look.odds - parts.len() as u32;
    if others > 0 || look.more {
        // What the row has no room for must not hide how many there are.
        parts.insert(0, format!("{} of {looked} failed or started twice:", look.odds));
    }
    Some(parts.join("   "))
}

fn log(app: &App, sheet: &mut Sheet<'_>) {
    let (columns, theme, log) = (sheet.columns(), sheet.theme, &app.log);
    let rows = usize::from(sheet.rows().saturating_sub(1));
    let title = sheet.pieces(1, 0, 2, &[("LOG", theme.heading())]);
    if !log.known {
        let text = if app.pictured == Some(app.view.scope()) {
            "its node does not answer; the log is there"
        } else {
            "waiting for the log"
        };
        sheet.text(1, 1, text, theme.dim());
        return;
    }
    let end = log.end();
    let mut state = match (log.back, log.live) {
        (0, true) => "following".to_owned(),
        (0, false) => "ended".to_owned(),
        _ => format!("{} lines back; f follows", log.len() - end),
    };
    if log.errors_only {
        state = format!("errors only   {state}");
    }
    if log.begins_later() {
        state = format!("{state}   earlier lines come as you scroll");
    }
    sheet.text(title, 0, &format!("first task   {} lines   {state}", log.len()), theme.dim());
    // From the last line up, since a long one may take several rows.
    let mut y = rows;
    let width = usize::from(columns.saturating_sub(2)).max(1);
    let parts_of = |number| {
        let line = log.line(number);
        let line: String = line.chars().skip(usize::from(log.sideways)).collect();
        let parts = if log.wrap { super::words::folded(&line, width) } else { vec![line] };
        let loud = log.is_loud(number);
        let mut style = if loud { theme.warn() } else { Style::new() };
        if log.is_match(number) {
            style = style.add_modifier(Modifier::UNDERLINED | Modifier::BOLD);
        }
        (parts, style)
    };
    for number in (0..end).rev() {
        let (parts, style) = parts_of(number);
        for part in parts.iter().rev() {
            if y == 0 {
                return;
            }
            sheet.text(1, y as u16, part, style);
            y -= 1;
        }
    }
    if log.is_empty() {
        let none = if log.errors_only {
            "no line looks like an error; e shows all"
        } else {
            "no output yet"
        };
        sheet.text(1, 1, none, theme.dim());
    } else if y > 0 {
        // Few lines stand at the top, not at the bottom: close up. What comes behind them, where one has
        // scrolled to the first, fills the rest.
        lift(y as u16, sheet);
        let behind = (end..log.len()).flat_map(|number| {
            let (parts, style) = parts_of(number);
            parts.into_iter().map(move |part| (part, style))
        });
        for (row, (part, style)) in (rows - y + 1..=rows).zip(behind) {
            sheet.text(1, row as u16, &part, style);
        }
    }
}

/// Moves what was drawn below some empty rows up under the heading.
fn lift(empty: u16, sheet: &mut Sheet<'_>) {
    let area = sheet.area;
    for y in 1..area.height.saturating_sub(empty) {
        for x in 0..area.width {
            let cell = sheet.buffer[(area.x + x, area.y + y + empty)].clone();
            sheet.buffer[(area.x + x, area.y + y)] = cell;
        }
    }
    let from = area.height.saturating_sub(empty).max(1);
    sheet.part(0, from, area.width, empty).clear();
}
