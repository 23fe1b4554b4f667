//! The data: what the library holds, what the receivers do, and the jobs that work on it as the
//! stages of one way, from images to predictions.

use gantry_model::{At, JobRow, JobState};
use gantry_telemetry::LibraryCounts;
use gantry_wire::Update;
use ratatui::style::Style;

use super::jobs;
use super::sheet::Sheet;
use super::table::{self, Column, Rows};
use super::theme::Theme;
use super::words::{count, things};
use crate::app::App;
use crate::app::layout::{ROWS_ROOMY, data_top};

/// No rate is told over less than this.
const MOMENT_MS: u64 = 5000;

/// The kinds of job that make the way, in its order.
const STAGES: [&str; 3] = ["preprocess", "train", "predict"];

const LIBRARY: [Column; 7] = [
    Column::text("LIBRARY", 10, 0),
    Column::number("SERIES", 7, 1),
    Column::number("INSTANCES", 9, 4),
    Column::number("SAMPLES", 7, 0),
    Column::number("MODELS", 6, 2),
    Column::number("PREDICTIONS", 11, 3),
    Column::number("QUARANTINED", 11, 2),
];

const RECEIVERS: [Column; 6] = [
    Column::text("RECEIVER", 10, 0).up_to(14),
    Column::number("OPEN", 7, 1),
    Column::number("RECEIVED", 9, 0),
    Column::number("CALLS", 7, 3),
    Column::number("REFUSED", 7, 1),
    Column::number("QUARANTINED", 11, 2),
];

const WORK: [Column; 6] = [
    Column::text("STAGE", 10, 0),
    Column::text("DONE", 10, 2).up_to(24),
    Column::number("TASKS", 9, 0),
    Column::number("FAILED", 6, 1),
    Column::number("PER MIN", 8, 3),
    Column::text("NOTE", 12, 4),
];

pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let (columns, height) = (sheet.columns(), sheet.rows());
    let roomy = height >= ROWS_ROOMY + 2;
    if roomy {
        super::shelf::tabs(app, sheet);
    }
    let mut y = u16::from(roomy);
    if height >= 12 {
        library(update, &mut sheet.part(0, y, columns, 3));
        y += 4;
        let receivers = (receiver_count(update) as u16).clamp(1, height / 5) + 1;
        receivers_table(update, &mut sheet.part(0, y, columns, receivers));
        y += receivers + 1;
    }
    let now = super::now_of(app, update);
    stages(update, now, &mut sheet.part(0, y, columns, STAGES.len() as u16 + 2));
    let y = data_top(app, height);
    let mut panel = sheet.part(0, y, columns, height.saturating_sub(y));
    jobs::table(app, update, &app.jobs(), &mut panel) + y
}

/// Every node on the shared storage sees the same library; the newest look counts.
fn newest_counts(update: &Update) -> Option<LibraryCounts> {
    let samples = update.nodes.iter().filter_map(|node| node.sample.as_ref().zip(node.sampled));
    let seen = samples.filter_map(|(sample, at)| Some((at, sample.library?)));
    seen.max_by_key(|(at, counts)| (*at, counts.instances)).map(|(_, counts)| counts)
}

/// The library in a few words, for the overview.
pub(super) fn library_lines(update: &Update) -> Vec<String> {
    let Some(counts) = newest_counts(update) else { return Vec::new() };
    vec![
        format!("{} series   {}", count(counts.series), things(counts.instances, "instance")),
        format!(
            "{}   {}   {}",
            things(counts.samples, "sample"),
            things(counts.models, "model"),
            things(counts.predictions, "prediction")
        ),
    ]
}

fn library(update: &Update, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let counts = newest_counts(update);
    let rows = Rows::plain(usize::from(counts.is_some()));
    let counts = counts.unwrap_or_default();
    let cell = |_: usize, head: &str, _: u16| {
        let plain = Style::new();
        match head {
            "LIBRARY" => ("shared".into(), plain),
            "SERIES" => (count(counts.series), plain),
            "INSTANCES" => (count(counts.instances), plain),
            "SAMPLES" => (count(counts.samples), plain),
            "MODELS" => (count(counts.models), plain),
            "PREDICTIONS" => (count(counts.predictions), plain),
            _ => set_aside(counts.quarantined, theme),
        }
    };
    table::draw(sheet, &LIBRARY, &rows, |_| ' ', cell);
    if rows.count == 0 {
        sheet.text(1, 1, "no node names one; set library in agent.toml", theme.dim());
    } else if counts.quarantined > 0 {
        sheet.text(1, 2, "! r says why files were set aside", theme.warn());
    }
}

/// A count of files set aside: none is fine, some want a look.
fn set_aside(number: u64, theme: Theme) -> (String, Style) {
    if number == 0 {
        ("0".into(), Style::new())
    } else {
        (format!("! {}", count(number)), theme.warn())
    }
}

fn receiver_count(update: &Update) -> usize {
    let samples = update.nodes.iter().filter_map(|node| node.sample.as_ref());
    samples.filter(|sample| sample.ingest.is_some()).count()
}

fn receivers_table(update: &Update, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let receivers: Vec<_> = update
        .nodes
        .iter()
        .filter_map(|node| Some((&node.row.facts.name, node.sample.as_ref()?.ingest?)))
        .collect();
    let rows = Rows::plain(receivers.len());
    let cell = |row: usize, head: &str, _: u16| {
        let (name, ingest) = &receivers[row];
        let plain = Style::new();
        match head {
            "RECEIVER" => ((*name).clone(), plain),
            "OPEN" => (ingest.associations.to_string(), plain),
            "RECEIVED" => (count(ingest.received), plain),
            "CALLS" => (count(ingest.associations_total), plain),
            "REFUSED" if ingest.refused > 0 => {
                (format!("! {}", count(ingest.refused)), theme.fail())
            }
            "REFUSED" => ("0".into(), plain),
            _ => set_aside(ingest.quarantined, theme),
        }
    };
    table::draw(sheet, &RECEIVERS, &rows, |_| ' ', cell);
    if receivers.is_empty() {
        sheet.text(1, 1, "none; [ingest] in agent.toml makes one", theme.dim());
    }
}

/// One kind of work on the way, over all of its jobs.
struct Stage<'a> {
    kind: &'static str,
    jobs: Vec<&'a JobRow>,
}

impl Stage<'_> {
    fn sum(&self, of: impl Fn(&JobRow) -> u32) -> u64 {
        self.jobs.iter().map(|row| u64::from(of(row))).sum()
    }

    /// Tasks done per minute since the first of them started, in tenths. A rate over a moment
    /// would say nothing.
    fn per_minute_tenths(&self, now: At) -> Option<u64> {
        let began = self.jobs.iter().filter_map(|row| row.started).min()?;
        let running = self.jobs.iter().any(|row| !row.state.is_ended());
        let last = self.jobs.iter().filter_map(|row| row.ended).max();
        let end = if running { now } else { last? };
        let done = self.sum(|row| row.tasks.done);
        let millis = end.since(began).0;
        (done > 0 && millis >= MOMENT_MS).then(|| done.saturating_mul(600_000) / millis)
    }

    /// Whether something of it is still to be done.
    fn is_behind(&self) -> bool {
        self.sum(|row| row.tasks.wait + row.tasks.run) > 0
    }

    /// How long what is left takes at the rate so far.
    fn left_ms(&self, now: At) -> Option<u64> {
        let left = self.sum(|row| row.tasks.wait + row.tasks.run);
        (left * 600_000).checked_div(self.per_minute_tenths(now)?)
    }

    fn note(&self, theme: Theme) -> (String, Style) {
        let of = |state: JobState| self.jobs.iter().find(|row| row.state == state);
        match (of(JobState::Run), of(JobState::Wait), of(JobState::Fail)) {
            (Some(row), ..) => (format!("runs on {}", row.nodes.join(", ")), theme.good()),
            (_, Some(row), _) => {
                (row.reason.clone().unwrap_or_else(|| "waits".into()), Style::new())
            }
            (_, _, Some(row)) => {
                (row.reason.clone().unwrap_or_else(|| "failed".into()), theme.fail())
            }
            _ if self.jobs.is_empty() => ("nothing asked for".into(), theme.dim()),
            _ => (format!("{} ended", things(self.jobs.len() as u64, "job")), theme.dim()),
        }
    }
}

fn stages(update: &Update, now: At, sheet: &mut Sheet<'_>) {
    let theme = sheet.theme;
    let stages = STAGES.map(|kind| Stage {
        kind,
        jobs: update.jobs.iter().filter(|row| row.kind == kind).collect(),
    });
    let cell = |row: usize, head: &str, width: u16| {
        let stage = &stages[row];
        let (total, done) = (stage.sum(|row| row.tasks.total()), stage.sum(|row| row.tasks.done));
        let failed = stage.sum(|row| row.tasks.fail);
        let plain = if total == 0 { theme.dim() } else { Style::new() };
        match head {
            "STAGE" => (stage.kind.into(), Style::new()),
            "DONE" => {
                let permille = (done * 1000).checked_div(total).unwrap_or(0);
                (theme.bar(permille as u32, usize::from(width)), theme.ramp(700))
            }
            "TASKS" if total == 0 => ("-".into(), plain),
            "TASKS" => (format!("{}/{}", count(done), count(total)), plain),
            "FAILED" if failed > 0 => (format!("! {failed}"), theme.fail()),
            "FAILED" => ("0".into(), plain),
            "PER MIN" => (
                stage.per_minute_tenths(now).map_or_else(
                    || "-".into(),
                    |tenths| format!("{}.{}", tenths / 10, tenths % 10),
                ),
                plain,
            ),
            _ => stage.note(theme),
        }
    };
    table::draw(sheet, &WORK, &Rows::plain(stages.len()), |_| ' ', cell);
    let slowest = stages.iter().filter(|stage| stage.is_behind());
    let slowest =
        slowest.filter_map(|stage| Some((stage.left_ms(now)?, stage))).max_by_key(|one| one.0);
    if let Some((left, stage)) = slowest {
        let text = format!("{}: {} more at this rate", stage.kind, super::words::duration(left));
        let y = stages.len() as u16 + 1;
        sheet.pieces(1, y, 2, &[("SLOWEST", theme.heading()), (&text, theme.warn())]);
    }
}
