//! What every screen has: two lines on top, two below, and the notices in between.

use gantry_model::Summary;
use ratatui::style::Style;

use crate::app::{App, Context, Link, Overlay, Tab, View};

use super::sheet::Sheet;
use super::words::{clock, minute, things};

/// From so many columns on everything is spelt out.
const COLUMNS_WIDE: u16 = 110;

pub(super) fn top(app: &App, sheet: &mut Sheet<'_>) {
    let (columns, theme, plain) = (sheet.columns(), sheet.theme, Style::new());
    // A narrow screen has room for one of the two names.
    let name_at = if columns >= 60 { 9 } else { 1 };
    if columns >= 60 || app.update.is_none() {
        sheet.text(1, 0, "gantry", theme.heading());
    }
    if let Some(update) = &app.update {
        let time = minute(super::now_of(app, update));
        let mut end = sheet.right(columns - 1, 0, &time, plain);
        // From the right, so that what is cut off is the cluster's name.
        let alerts = alerts(&update.summary);
        let mut pieces = vec![(jobs_words(&update.summary, columns), fail_style(update, sheet))];
        if columns >= 60 && alerts > 0 {
            pieces.insert(0, (things(alerts, "alert"), theme.warn()));
        }
        if columns >= 60 {
            pieces.push((machines_words(update, columns), plain));
        }
        let gap = match columns {
            ..60 => 1,
            60..COLUMNS_WIDE => 2,
            _ => 4,
        };
        for (text, style) in pieces {
            end = sheet.right(end.saturating_sub(gap), 0, &text, style);
        }
        let room = end.saturating_sub(name_at + 2);
        sheet.cell(name_at, 0, room.min(40), &update.cluster, theme.heading());
    }
    tabs(app, sheet);
}

/// What a person should look at, counted alike on every screen.
fn alerts(sum: &Summary) -> u32 {
    sum.jobs_fail + sum.nodes.saturating_sub(sum.nodes_up)
}

fn fail_style(update: &gantry_wire::Update, sheet: &Sheet<'_>) -> Style {
    if update.summary.jobs_fail > 0 { sheet.theme.warn() } else { Style::new() }
}

fn jobs_words(sum: &Summary, columns: u16) -> String {
    if columns >= COLUMNS_WIDE {
        format!("{:>3} run {:>3} wait {:>2} failed", sum.jobs_run, sum.jobs_wait, sum.jobs_fail)
    } else {
        format!("{} run {} wait {} fail", sum.jobs_run, sum.jobs_wait, sum.jobs_fail)
    }
}

fn machines_words(update: &gantry_wire::Update, columns: u16) -> String {
    let sum = &update.summary;
    let newest = |values: &[Option<u16>]| values.iter().rev().find_map(|value| *value);
    let gpus = sum.gpus > 0;
    let busy = if gpus { newest(&update.gpu_busy_permille) } else { newest(&update.busy_permille) };
    let busy = busy.map(|permille| permille / 10);
    if columns < COLUMNS_WIDE {
        let busy = busy.map_or_else(String::new, |busy| format!(" {busy} %"));
        return if gpus {
            format!("{} gpu{busy}", sum.gpus)
        } else {
            format!("{} cores{busy}", sum.cores)
        };
    }
    let nodes = format!("{}/{} nodes", sum.nodes_up, sum.nodes);
    let machines = if gpus { format!("{} gpu", sum.gpus) } else { format!("{} cores", sum.cores) };
    let busy = busy.map_or_else(String::new, |busy| format!("  {busy} % busy"));
    format!("{nodes}  {machines}{busy}")
}

fn tabs(app: &App, sheet: &mut Sheet<'_>) {
    let views = [
        ("1 Overview", View::Overview),
        ("2 Nodes", View::Nodes),
        ("3 GPUs", View::Gpus),
        ("4 Jobs", View::Jobs),
        ("5 Data", View::Data),
        ("6 Events", View::Events),
    ];
    let (theme, columns) = (sheet.theme, sheet.columns());
    let (word, style) = state(app, sheet);
    let end = sheet.right(columns - 1, 1, &word, style);
    let mut x = 1;
    for (word, view) in views {
        let here = app.view == view
            || matches!(app.view, View::Job(_)) && view == View::Jobs
            || app.view == View::Image && view == View::Data;
        // Where there is no room for words, the number is the tab.
        let word = if columns < 74 && !here { &word[..1] } else { word };
        let text = if here { format!("[{word}]") } else { format!(" {word} ") };
        let style = if here { theme.heading() } else { Style::new() };
        if x + text.len() as u16 >= end {
            break;
        }
        sheet.text(x, 1, &text, style);
        x += text.len() as u16 + u16::from(columns >= COLUMNS_WIDE);
    }
}

/// The state of the link, in words.
fn state(app: &App, sheet: &Sheet<'_>) -> (String, Style) {
    let theme = sheet.theme;
    let age = app.age_ms() / 1000;
    if app.frozen {
        let at = app.update.as_ref().map_or_else(String::new, |update| clock(update.at));
        let back = app.age_ms() / 60_000;
        let back = if back > 0 { format!(", {back} m ago") } else { String::new() };
        return (format!("frozen {at}{back}"), theme.warn());
    }
    let (word, style) = match &app.link {
        Link::Connecting => ("connecting".into(), theme.dim()),
        Link::Reconnecting(_) if app.update.is_none() => ("not connected".into(), theme.warn()),
        Link::Reconnecting(_) => (format!("reconnecting, {age} s old"), theme.warn()),
        Link::Live if app.is_late() && app.update.is_some() => {
            (format!("{age} s late"), theme.warn())
        }
        Link::Live if app.lean => ("live, lean".into(), theme.good()),
        Link::Live => ("live".into(), theme.good()),
    };
    match app.view {
        View::Job(job) if sheet.columns() >= 60 => (format!("{job}  {word}"), style),
        _ => (word, style),
    }
}

/// The line of what is said or set, and the line of keys.
pub(super) fn bottom(app: &App, sheet: &mut Sheet<'_>) {
    let (rows, theme) = (sheet.rows(), sheet.theme);
    let (line, style) = said(app, sheet);
    sheet.text(1, rows - 2, &line, style);
    let mut x = 1;
    for (key, word) in hints(app, sheet.columns()) {
        let length = (key.len() + word.len() + 1) as u16;
        if x + length >= sheet.columns() {
            continue;
        }
        x = sheet.pieces(x, rows - 1, 1, &[(&key, theme.heading()), (&word, theme.dim())]) + 1;
    }
}

/// The most pressing of what there is to say.
fn said(app: &App, sheet: &Sheet<'_>) -> (String, Style) {
    let theme = sheet.theme;
    if let Some((_, sentence)) = &app.message {
        return (sentence.clone(), theme.warn());
    }
    if let (Link::Reconnecting(reason), true) = (&app.link, app.update.is_some()) {
        return (reason.clone(), theme.warn());
    }
    if let Some(first) = app.pending {
        let after = app.keymap.after(app.contexts(), first);
        let words: Vec<String> =
            after.iter().map(|(second, help)| format!("{first}{second} {help}")).collect();
        return (words.join("   "), Style::new());
    }
    let mut parts = Vec::new();
    let marked = app.marked.len() + app.marked_nodes.len();
    if marked > 0 {
        parts.push(format!("{marked} marked"));
    }
    match app.view {
        View::Gpus => parts.push(super::gpus::said(app)),
        View::Events => parts.push(super::events::said(app)),
        View::Job(_) if !app.log.search.is_empty() => {
            parts.push(format!("/ {}   n above, N below", app.log.search));
        }
        View::Job(_) | View::Image => {}
        View::Data if app.on_shelf() => parts.push(super::shelf::said(app)),
        _ if app.filter().is_empty() => {}
        _ => {
            let all = app.update.as_ref().map_or(0, |update| match app.view {
                View::Overview | View::Nodes => update.nodes.len(),
                _ => update.jobs.len() + app.older.rows().len(),
            });
            parts.push(format!("/ {}   {} of {all}", app.filter(), app.list_len()));
        }
    }
    parts.retain(|part| !part.is_empty());
    let banner = app.banner.as_ref().filter(|_| parts.is_empty());
    parts.extend(banner.cloned());
    if app.read_only {
        parts.push("read-only".into());
    }
    if app.privacy {
        parts.push("names hidden".into());
    }
    let calm = marked == 0 && app.filter().is_empty();
    let style = match (banner, calm) {
        (Some(_), _) => Style::new(),
        (None, true) => theme.dim(),
        (None, false) => theme.warn(),
    };
    (parts.join("   "), style)
}

/// The keys of the last line: from the table, or those of what lies over the screen.
fn hints(app: &App, columns: u16) -> Vec<(String, String)> {
    let fixed = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, word)| ((*key).to_owned(), (*word).to_owned())).collect()
    };
    match &app.overlay {
        Overlay::None => {}
        Overlay::Help(_) => return fixed(&[("? Esc", "close"), ("j k", "scroll")]),
        Overlay::Filter if matches!(app.view, View::Job(_)) => {
            return fixed(&[("Enter", "search"), ("Esc", "clear")]);
        }
        Overlay::Filter => {
            let fields = fields(app);
            return fixed(&[
                ("Enter", "keep"),
                ("Esc", "clear"),
                ("!not a|b n>5 field:value", fields),
            ]);
        }
        Overlay::Menu { .. } => {
            return fixed(&[("Enter", "choose"), ("j k", "move"), ("Esc", "leave")]);
        }
        Overlay::Value { .. } => return fixed(&[("Enter", "go on"), ("Esc", "leave")]),
        Overlay::Confirm { .. } => {
            return fixed(&[("Esc", "leave it"), ("Enter", "do it once confirmed")]);
        }
        Overlay::Palette(_) => {
            return fixed(&[
                ("Up Down", "choose"),
                ("Tab", "complete"),
                ("Enter", "run"),
                ("C-r", "history"),
                ("Esc", "close"),
            ]);
        }
        Overlay::Why { .. } => return fixed(&[("Esc", "close"), ("j k", "scroll")]),
    }
    let contexts = app.contexts();
    let shown = |context: Context| contexts.contains(&context);
    let bindings = app.keymap.bindings().iter().filter(|binding| shown(binding.context));
    let hinted = bindings.filter_map(|binding| Some((binding, binding.hint.clone()?)));
    let mut all: Vec<(String, String)> = hinted
        .map(|(binding, hint)| (key_name(binding.keys.first().map_or("", String::as_str)), hint))
        .collect();
    if matches!(app.view, View::Job(_) | View::Image) {
        all.insert(0, ("Esc".into(), "back".into()));
        all.retain(|(key, _)| key != "q");
    }
    if columns < COLUMNS_WIDE {
        // The way out and the way to more are never what is cut off.
        all.sort_by_key(|(key, _)| key != "?" && key != "q" && key != "Esc");
    }
    all
}

/// The fields that a filter knows on a screen.
fn fields(app: &App) -> &'static str {
    match app.view {
        View::Data if app.on_shelf() => match app.shelf.tab {
            Tab::Series | Tab::Work => "series patient mod",
            Tab::Samples => "sample series label split by state",
            Tab::Models => "model name run stage",
            Tab::Predictions => "series model name stage",
            Tab::Rejects => "reason file why",
        },
        View::Overview | View::Nodes => "node state role label gpu jobs cpu sm",
        View::Gpus => "gpu node job name user state sm mem temp watt",
        View::Events => "level:warn+ subject",
        View::Jobs | View::Data | View::Job(_) | View::Image => {
            "job name user group kind state node gpu tasks"
        }
    }
}

/// A key as it is written on screens.
pub(super) fn key_name(key: &str) -> String {
    match key {
        "up" | "down" | "left" | "right" | "enter" | "esc" | "tab" | "space" | "home" | "end" => {
            let mut name = key.to_owned();
            name[..1].make_ascii_uppercase();
            name
        }
        "pageup" => "PgUp".into(),
        "pagedown" => "PgDn".into(),
        other => other.to_owned(),
    }
}

/// A screen before the first picture.
pub(super) fn nothing_yet(app: &App, sheet: &mut Sheet<'_>) -> u16 {
    let theme = sheet.theme;
    match &app.link {
        Link::Reconnecting(reason) => {
            sheet.text(1, 1, reason, theme.warn());
            sheet.text(1, 3, "trying again; q quits", theme.dim());
        }
        Link::Connecting => sheet.text(1, 1, "connecting to the scheduler", theme.dim()),
        Link::Live => sheet.text(1, 1, "waiting for the first picture", theme.dim()),
    }
    0
}

pub(super) fn too_small(app: &App, sheet: &mut Sheet<'_>) {
    let (columns, rows) = (sheet.columns(), sheet.rows());
    let plain = Style::new();
    sheet.text(0, 0, &format!("gantry: {columns}x{rows}, needs 40x10"), plain);
    if let Some(update) = &app.update {
        let sum = &update.summary;
        let line = format!("{} gpu {}", sum.gpus, jobs_words(sum, 0));
        sheet.text(0, 1, &line, plain);
        let alerts = alerts(sum);
        sheet.text(0, 2, &format!("{}  q quit", things(alerts, "alert")), plain);
    } else {
        sheet.text(0, 1, "q quit", plain);
    }
}
