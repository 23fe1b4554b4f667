//! The GPUs: one row each with its past, its numbers and the job that holds it.

use gantry_wire::Update;
use ratatui::style::Style;

use super::sheet::Sheet;
use super::words::{gigabytes, percent};
use super::{chart, now_of};
use crate::app::gpus::Row;
use crate::app::{App, GpuLine};

/// From so many degrees on a GPU is hot.
const HOT_C: u32 = 83;

/// Whether a temperature wants a look.
pub(super) fn is_hot(degrees: Option<u32>) -> bool {
    degrees.is_some_and(|degrees| degrees >= HOT_C)
}

/// Where the columns stand, for so many columns of the screen.
struct Places {
    strip: u16,
    sm: u16,
    bar: Option<u16>,
    memory: u16,
    degrees: Option<u16>,
    watts: Option<u16>,
    job: Option<u16>,
}

/// The name's columns, before the strip.
const NAME: u16 = 12;

impl Places {
    fn of(columns: u16) -> Self {
        // Numbers keep their width; the strip takes what is left, and columns give way from the right.
        let bar = columns >= 110;
        let (degrees, watts, job) = (columns >= 60, columns >= 70, columns >= 78);
        let numbers =
            6 + if bar { 10 } else { 0 } + 9 + 5 * u16::from(degrees) + 6 * u16::from(watts);
        let job_width = if job { (columns / 4).min(40) } else { 0 };
        let strip = columns.saturating_sub(NAME + 2 + numbers + job_width + 2).min(60);
        let mut x = NAME + strip + 1;
        let mut next = |width: u16| {
            x += width;
            x
        };
        let sm = next(6);
        let bar = bar.then(|| next(10) - 8);
        let memory = next(9);
        let degrees = degrees.then(|| next(5));
        let watts = watts.then(|| next(6));
        Self { strip, sm, bar, memory, degrees, watts, job: job.then(|| x + 2) }
    }
}

/// The screen of GPUs. Gives the row of the chosen one.
pub(super) fn draw(app: &App, update: &Update, sheet: &mut Sheet<'_>) -> u16 {
    let (columns, theme) = (sheet.columns(), sheet.theme);
    let places = Places::of(columns);
    head(app, &places, sheet);
    let rows = app.gpus.rows();
    let page = usize::from(sheet.rows().saturating_sub(1));
    let mut cursor = 1;
    for (y, at) in (app.top..rows.len()).take(page).enumerate() {
        let y = y as u16 + 1;
        match &rows[at] {
            Row::Head(text) => {
                let text = hidden_head(app, text);
                sheet.text(1, y, &text, theme.heading());
            }
            Row::Gpu(_) => {
                let Some(line) = app.gpus.gpu(at) else { continue };
                gpu_row(app, update, line, &places, y, sheet);
                if app
                    .gpu
                    .as_ref()
                    .is_some_and(|(node, index)| *node == line.node && *index == line.row.index)
                {
                    sheet.row_style(y, theme.chosen());
                    sheet.text(0, y, ">", theme.chosen());
                    cursor = y;
                }
            }
        }
    }
    if rows.is_empty() {
        let none = match (app.gpus.known, app.filter().is_empty()) {
            (false, _) => "waiting for the GPUs",
            (true, true) => "no node has a GPU; the nodes say why (2)",
            (true, false) => "no gpu fits the filter; Esc clears it",
        };
        sheet.text(2, 1, none, theme.dim());
    }
    cursor
}

/// The head of a group; where names are hidden, those in it too.
fn hidden_head(app: &App, text: &str) -> String {
    match text.split_once("   ") {
        Some((name, rest)) if app.privacy && name != "free" => {
            format!("{}   {rest}", app.private(name))
        }
        _ => text.to_owned(),
    }
}

fn head(app: &App, places: &Places, sheet: &mut Sheet<'_>) {
    let heading = sheet.theme.heading();
    sheet.text(1, 0, "GPU", heading);
    if places.strip > 4 {
        let strip = format!("{} {}", app.gpus.metric.word(), app.gpus.span());
        sheet.cell(NAME, 0, places.strip, &strip, heading);
    }
    sheet.right(places.sm, 0, "SM", heading);
    if let Some(x) = places.bar {
        sheet.text(x, 0, "MEM", heading);
    }
    sheet.right(places.memory, 0, if places.bar.is_some() { "GB" } else { "MEM GB" }, heading);
    for (x, word) in [(places.degrees, "°C"), (places.watts, "W")] {
        if let Some(x) = x {
            sheet.right(x, 0, word, heading);
        }
    }
    if let Some(x) = places.job {
        sheet.text(x, 0, "JOB", heading);
    }
}

fn gpu_row(
    app: &App,
    update: &Update,
    line: &GpuLine,
    places: &Places,
    y: u16,
    sheet: &mut Sheet<'_>,
) {
    let (theme, row) = (sheet.theme, &line.row);
    let here = line.state == gantry_model::NodeState::Up && !row.unfit;
    let plain = if here { Style::new() } else { theme.dim() };
    let name = format!("{}:{}", line.node, row.index);
    sheet.cell(1, y, NAME - 2, &name, plain);
    if places.strip > 0 {
        let (cells, written) =
            app.gpus.strip(line, app.gpus.metric, now_of(app, update), usize::from(places.strip));
        let written = app.gpus.sweep.then_some(written);
        chart::cells(&mut sheet.part(NAME, y, places.strip, 1), &cells, written);
    }
    let or_gap = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    sheet.right(places.sm, y, &or_gap(row.busy_permille.map(percent)), plain);
    let part = row
        .memory_used_mib
        .map(|used| (used * 1000).checked_div(row.memory_mib).unwrap_or(0).min(1000) as u32);
    let memory = row.memory_used_mib.map(|used| {
        let used = if places.bar.is_some() { gigabytes(used) } else { (used / 1024).to_string() };
        format!("{used}/{}", row.memory_mib / 1024)
    });
    if let Some(x) = places.bar {
        sheet.text(x, y, &theme.bar(part.unwrap_or(0), 8), theme.ramp(part.unwrap_or(0)));
    }
    sheet.right(places.memory, y, &or_gap(memory), plain);
    if let Some(x) = places.degrees {
        let hot = is_hot(row.temperature_c);
        let text = or_gap(row.temperature_c.map(|degrees| degrees.to_string()));
        let text = if hot { format!("!{text}") } else { text };
        sheet.right(x, y, &text, if hot { theme.warn() } else { plain });
    }
    if let Some(x) = places.watts {
        sheet.right(x, y, &or_gap(row.power_w.map(|watts| watts.to_string())), plain);
    }
    if let Some(x) = places.job {
        let (text, style) = match (row.unfit, line.state, row.job) {
            (true, ..) => ("! gets no work".to_owned(), theme.warn()),
            (_, gantry_model::NodeState::Late, _) => {
                ("! its node is late".to_owned(), theme.warn())
            }
            (_, gantry_model::NodeState::Lost, _) => {
                ("! its node is lost".to_owned(), theme.fail())
            }
            (.., Some(job)) => (format!("{job} {} {}", line.name, app.private(&line.user)), plain),
            (.., None) => ("free".to_owned(), theme.dim()),
        };
        sheet.text(x, y, &text, style);
    }
}

/// Where one stands in the list, and how it is shown: the line above the keys.
pub(super) fn said(app: &App) -> String {
    let rows = app.gpus.rows();
    let gpus = |to: usize| {
        rows[..to.min(rows.len())].iter().filter(|row| matches!(row, Row::Gpu(_))).count()
    };
    let (all, shown) = (app.gpus.all().len(), gpus(rows.len()));
    let at = app.list_at().map_or(0, |at| gpus(at + 1));
    let of = if shown == all { String::new() } else { format!(" ({all} in all)") };
    let filter =
        if app.filter().is_empty() { String::new() } else { format!("/ {}   ", app.filter()) };
    let how = if app.gpus.sweep { "sweep" } else { "newest right" };
    let step = app.gpus.step().0;
    format!(
        "{filter}row {at} of {shown}{of}   group: {}   sort: {}   strip: {}, {}.{} s a cell, {how}",
        app.gpus.group.word(),
        app.gpus.sort.word(),
        app.gpus.span(),
        step / 1000,
        step % 1000 / 100,
    )
}
