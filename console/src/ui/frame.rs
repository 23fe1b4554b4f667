//! What every screen has: two lines on top, two below, and the notices in between.

use crate::app::{App, Context, Link, View};

use super::sheet::Sheet;
use super::words::clock;

/// A picture older than this is said to be late: two were missed.
const LATE_MS: u64 = 12_000;

pub(super) fn top(app: &App, sheet: &mut Sheet<'_>) {
    let (columns, theme) = (sheet.columns(), sheet.theme);
    let name = app.update.as_ref().map_or("", |update| update.cluster.as_str());
    sheet.text(1, 0, "gantry", theme.heading());
    sheet.cell(9, 0, 20, name, theme.heading());
    if let Some(update) = &app.update {
        let sum = &update.summary;
        let busy = (sum.cores_used * 100).checked_div(sum.cores).unwrap_or(0);
        let jobs = format!("{} run {} wait {} fail", sum.jobs_run, sum.jobs_wait, sum.jobs_fail);
        let time = clock(super::now_of(app, update));
        let line = if columns >= 100 {
            let gpus = if sum.gpus > 0 { format!("{} gpu", sum.gpus) } else { "no gpu".into() };
            format!(
                "{} of {} nodes  {} cores  {gpus}  {busy} % leased    {jobs}    {time}",
                sum.nodes_up, sum.nodes, sum.cores
            )
        } else if columns >= 70 {
            format!("{} nodes {busy} %  {jobs}  {time}", sum.nodes_up)
        } else {
            jobs
        };
        sheet.right(columns - 1, 0, &line, ratatui::style::Style::new());
        if sum.jobs_fail > 0 || sum.nodes_up < sum.nodes {
            // The word says it; the mark is for the eye that only glances.
            sheet.text(columns - 1, 0, "!", theme.warn());
        }
    }
    tabs(app, sheet);
}

fn tabs(app: &App, sheet: &mut Sheet<'_>) {
    let views = [
        ("1 Overview", View::Overview),
        ("2 Nodes", View::Nodes),
        ("3 Jobs", View::Jobs),
        ("4 Data", View::Data),
    ];
    let (mut x, theme, columns) = (1, sheet.theme, sheet.columns());
    for (word, view) in views {
        let here = app.view == view || matches!(app.view, View::Job(_)) && view == View::Jobs;
        let text = if here { format!("[{word}]") } else { format!(" {word} ") };
        let style = if here { theme.heading() } else { ratatui::style::Style::new() };
        sheet.text(x, 1, &text, style);
        x += text.len() as u16 + u16::from(columns >= 100);
    }
    let (word, style) = state(app, sheet);
    sheet.right(columns - 1, 1, &word, style);
}

/// The state of the link, in words.
fn state(app: &App, sheet: &Sheet<'_>) -> (String, ratatui::style::Style) {
    let theme = sheet.theme;
    if app.frozen {
        let at = app.update.as_ref().map_or_else(String::new, |update| clock(update.at));
        return (format!("frozen {at}"), theme.warn());
    }
    match &app.link {
        Link::Connecting => ("connecting".into(), theme.dim()),
        Link::Reconnecting(_) => {
            (format!("reconnecting, {} s old", app.age_ms() / 1000), theme.warn())
        }
        Link::Live if app.age_ms() > LATE_MS => {
            (format!("{} s late", app.age_ms() / 1000), theme.warn())
        }
        Link::Live => ("live".into(), theme.good()),
    }
}

pub(super) fn bottom(app: &App, sheet: &mut Sheet<'_>) {
    let (rows, theme) = (sheet.rows(), sheet.theme);
    let line = match (&app.message, &app.link) {
        (Some((_, sentence)), _) => sentence.clone(),
        (None, Link::Reconnecting(reason)) => reason.clone(),
        _ if !app.filter.is_empty() => format!("/ {}", app.filter),
        _ => String::new(),
    };
    sheet.text(1, rows - 2, &line, theme.warn());
    let mut x = 1;
    for (key, word) in hints(app) {
        let length = (key.len() + word.chars().count() + 1) as u16;
        if x + length >= sheet.columns() {
            break;
        }
        sheet.text(x, rows - 1, &key, theme.heading());
        sheet.text(x + key.len() as u16 + 1, rows - 1, &word, theme.dim());
        x += length + 2;
    }
}

/// The keys of the last line, from the table.
fn hints(app: &App) -> Vec<(String, String)> {
    let contexts = app.contexts();
    let shown = |context: Context| contexts.contains(&context);
    let key = |keys: &[String]| {
        let first = keys.first().cloned().unwrap_or_default();
        match first.as_str() {
            "enter" => "Enter".to_owned(),
            "esc" => "Esc".to_owned(),
            _ => first,
        }
    };
    let mut all: Vec<(String, String)> = app
        .keymap
        .bindings()
        .iter()
        .filter(|binding| shown(binding.context))
        .filter_map(|binding| Some((key(&binding.keys), binding.hint.clone()?)))
        .collect();
    if matches!(app.view, View::Job(_)) {
        all.insert(0, ("Esc".into(), "back".into()));
    }
    all
}

/// A screen before the first picture.
pub(super) fn nothing_yet(app: &App, sheet: &mut Sheet<'_>) -> u16 {
    let text = match &app.link {
        Link::Reconnecting(reason) => reason.clone(),
        _ => "connecting to the scheduler …".into(),
    };
    sheet.text(2, 1, &text, sheet.theme.dim());
    0
}

pub(super) fn too_small(app: &App, sheet: &mut Sheet<'_>) {
    let (columns, rows) = app.size;
    let plain = ratatui::style::Style::new();
    sheet.text(0, 0, &format!("gantry: {columns}x{rows}, needs 40x10"), plain);
    if let Some(update) = &app.update {
        let sum = &update.summary;
        let line = format!("{} run {} wait {} fail", sum.jobs_run, sum.jobs_wait, sum.jobs_fail);
        sheet.text(0, 1, &line, plain);
    }
    sheet.text(0, 2, "q quit", plain);
}
