//! Boxes over a screen: what can be done, the value it needs, whether it is meant, the palette, and
//! why a job waits. What they say is the app's; here it gets its place.

use gantry_model::JobId;
use ratatui::style::Style;

use super::sheet::Sheet;
use super::words::{clock, duration, folded};
use crate::app::steer::{Choice, Line, Tone};
use crate::app::{App, Palette, Plan, Targets};
use crate::output::width;

/// The widest question.
const QUESTION_COLUMNS: u16 = 66;
/// The widest palette.
const PALETTE_COLUMNS: u16 = 108;
/// Entries of the palette that are shown.
const ENTRIES_SHOWN: u16 = 8;

fn style_of(tone: Tone, sheet: &Sheet<'_>) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Dim => sheet.theme.dim(),
        Tone::Loud => sheet.theme.fail(),
    }
}

/// A box of so many columns and rows in the middle of the screen, with what is in it cleared. Gives
/// where its inside begins.
fn boxed(title: &str, columns: u16, rows: u16, sheet: &mut Sheet<'_>) -> (u16, u16, u16, u16) {
    let width = columns.min(sheet.columns().saturating_sub(2)).max(4);
    let rows = rows.min(sheet.rows().saturating_sub(3)).max(3);
    let (left, top) = ((sheet.columns() - width) / 2, (sheet.rows() - rows) / 2);
    // A blank column at each side keeps the box apart from the rows behind it.
    sheet.part(left.saturating_sub(1), top, width + 2, rows).clear();
    let mut panel = sheet.part(left, top, width, rows);
    frame(&mut panel, title);
    (left + 2, top + 1, width - 4, rows - 2)
}

/// A box with a title.
fn frame(panel: &mut Sheet<'_>, title: &str) {
    let (columns, rows) = (panel.columns(), panel.rows());
    let [across, down, corners @ ..] = panel.theme.lines();
    let plain = Style::new();
    let line = |left: char, right: char| {
        let middle = across.to_string().repeat(usize::from(columns.saturating_sub(2)));
        format!("{left}{middle}{right}")
    };
    panel.text(0, 0, &line(corners[0], corners[1]), plain);
    panel.text(0, rows - 1, &line(corners[2], corners[3]), plain);
    for y in 1..rows - 1 {
        panel.text(0, y, &down.to_string(), plain);
        panel.text(columns - 1, y, &down.to_string(), plain);
    }
    panel.cell(2, 0, columns.saturating_sub(4), title, panel.theme.heading());
}

/// As many lines as fit, the most important ones.
fn fitting(mut lines: Vec<Line>, room: usize) -> Vec<Line> {
    while lines.len() > room {
        let Some(least) = (0..lines.len()).max_by_key(|at| (lines[*at].rank, *at)) else { break };
        lines.remove(least);
    }
    lines
}

fn title_of(targets: &Targets) -> String {
    match (targets, targets.names().as_slice()) {
        (_, [one]) => format!(" {one} "),
        (Targets::Jobs(_), several) => format!(" {} jobs ", several.len()),
        (Targets::Nodes(_), several) => format!(" {} nodes ", several.len()),
        (Targets::Library(_), several) => format!(" {} models ", several.len()),
    }
}

/// What can be done. Gives the place of the chosen line.
pub(super) fn menu(targets: &Targets, at: usize, sheet: &mut Sheet<'_>) -> (u16, u16) {
    let choices = crate::app::choices(targets);
    let (x, y, columns, rows) = boxed(&title_of(targets), 62, choices.len() as u16 + 2, sheet);
    let theme = sheet.theme;
    let top = (at as u16 + 1).saturating_sub(rows);
    for (n, choice) in choices.iter().enumerate().skip(usize::from(top)).take(usize::from(rows)) {
        let row = y + n as u16 - top;
        let key = choice.key.to_string();
        let mut line = sheet.part(x, row, columns, 1);
        line.pieces(0, 0, 2, &[(&key, theme.heading()), (choice.verb, Style::new())]);
        line.text(20, 0, choice.words, theme.dim());
        if n == at {
            line.style(theme.chosen());
        }
    }
    (x, y + at as u16 - top)
}

/// The value that something needs. Gives the place where one types.
pub(super) fn value(
    choice: &Choice,
    targets: &Targets,
    typed: &str,
    sheet: &mut Sheet<'_>,
) -> (u16, u16) {
    let title = format!(" {}{}", choice.verb, title_of(targets));
    let (x, y, columns, rows) = boxed(&title, QUESTION_COLUMNS, 4, sheet);
    let theme = sheet.theme;
    let prompt = format!("{}:", choice.value.unwrap_or_default());
    let mut inside = sheet.part(x, y, columns, rows);
    inside.text(0, 0, &prompt, theme.warn());
    let at = typed_line(typed, rows - 1, &mut inside);
    (x + at, y + rows - 1)
}

/// A line that is typed, its end in sight. Gives where the cursor stands.
fn typed_line(typed: &str, y: u16, sheet: &mut Sheet<'_>) -> u16 {
    let room = usize::from(sheet.columns().saturating_sub(1));
    let skip = typed.chars().count().saturating_sub(room);
    let shown: String = typed.chars().skip(skip).collect();
    sheet.text(0, y, &shown, sheet.theme.heading());
    (width(&shown) as u16).min(sheet.columns().saturating_sub(1))
}

/// Whether it is meant: what would happen, and the word that does it. Gives the place where one
/// types.
pub(super) fn confirm(app: &App, plan: &Plan, typed: &str, sheet: &mut Sheet<'_>) -> (u16, u16) {
    let columns =
        usize::from(QUESTION_COLUMNS.min(sheet.columns().saturating_sub(2)).saturating_sub(4))
            .max(1);
    let lines: Vec<Line> = plan
        .consequences(app)
        .into_iter()
        .flat_map(|line| {
            let parts = folded(&line.text, columns);
            parts.into_iter().map(move |text| Line { text, ..line.clone() })
        })
        .collect();
    let title = format!(" {} ", plan.title());
    let (x, y, columns, rows) = boxed(&title, QUESTION_COLUMNS, lines.len() as u16 + 4, sheet);
    let theme = sheet.theme;
    let mut inside = sheet.part(x, y, columns, rows);
    for (n, line) in fitting(lines, usize::from(rows.saturating_sub(1))).iter().enumerate() {
        let style = style_of(line.tone, &inside);
        inside.text(0, n as u16, &line.text, style);
    }
    let ask = match plan.word(app.update.as_deref()) {
        Some(word) => format!("type {word} to do it, Esc leaves it: "),
        None => "Enter does it, Esc leaves it ".to_owned(),
    };
    let at = inside.pieces(0, rows - 1, 0, &[(&ask, theme.warn()), (typed, theme.heading())]);
    (x + at.min(columns.saturating_sub(1)), y + rows - 1)
}

/// The palette. Gives the place where one types.
pub(super) fn commands(app: &App, palette: &Palette, sheet: &mut Sheet<'_>) -> (u16, u16) {
    let (columns, rows, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let entries = app.entries(&palette.typed);
    let (x, y, inner, height) = boxed(" commands ", PALETTE_COLUMNS, ENTRIES_SHOWN + 4, sheet);
    let shown = height.saturating_sub(2);
    let top = (palette.at as u16 + 1).saturating_sub(shown);
    let wide = inner >= 90;
    let (keys_at, means_at) = if wide { (34, 48) } else { (24, 24) };
    for (n, entry) in entries.iter().enumerate().skip(usize::from(top)).take(usize::from(shown)) {
        let mut line = sheet.part(x, y + n as u16 - top, inner, 1);
        line.cell(2, 0, keys_at - 4, &entry.line, Style::new());
        if wide {
            line.cell(keys_at, 0, means_at - keys_at - 2, &entry.keys, theme.dim());
        }
        line.text(means_at, 0, &entry.means, theme.dim());
        if n == palette.at {
            line.style(theme.chosen());
            line.text(0, 0, ">", theme.chosen());
        }
    }
    if entries.is_empty() {
        sheet.part(x, y, inner, 1).text(2, 0, "no command begins so", theme.dim());
    }
    let same = match entries.get(palette.at).map(|entry| &entry.does) {
        Some(crate::app::palette::Does::Plan(plan)) => format!("same as: {}", plan.command()),
        _ => String::new(),
    };
    let mut foot = sheet.part(x, y + height - 1, inner, 1);
    foot.text(2, 0, &same, theme.dim());
    let role = if app.read_only { "read-only: on" } else { "read-only: off" };
    if width(&same) + role.len() + 4 < usize::from(inner) {
        foot.right(inner, 0, role, if app.read_only { theme.warn() } else { theme.dim() });
    }
    sheet.part(0, rows - 2, columns, 1).clear();
    sheet.text(1, rows - 2, ":", theme.heading());
    let at =
        typed_line(&palette.typed, 0, &mut sheet.part(2, rows - 2, columns.saturating_sub(3), 1));
    (2 + at, rows - 2)
}

/// Why a job waits: the sentence, who is ahead, and each rule that says no with its nodes.
pub(super) fn why(app: &App, job: JobId, top: u16, sheet: &mut Sheet<'_>) {
    let lines = why_lines(app, job);
    let (x, y, columns, rows) =
        boxed(&format!(" why {job} waits "), 100, (lines.len() as u16 + 2).max(6), sheet);
    let theme = sheet.theme;
    let lines: Vec<(String, bool)> = lines
        .into_iter()
        .flat_map(|(text, loud)| {
            folded(&text, usize::from(columns)).into_iter().map(move |part| (part, loud))
        })
        .collect();
    let top = usize::from(top).min(lines.len().saturating_sub(usize::from(rows)));
    let mut inside = sheet.part(x, y, columns, rows);
    for (n, (text, loud)) in lines.iter().skip(top).take(usize::from(rows)).enumerate() {
        inside.text(0, n as u16, text, if *loud { theme.warn() } else { Style::new() });
    }
}

fn why_lines(app: &App, job: JobId) -> Vec<(String, bool)> {
    let why = match app.why.get(&job) {
        None => return vec![("asking the scheduler".into(), false)],
        Some(Err(sentence)) => return vec![(sentence.clone(), true)],
        Some(Ok(why)) => why,
    };
    let mut lines = vec![(why.sentence.clone(), true), (String::new(), false)];
    if why.ahead_count > 0 {
        let ahead: Vec<String> = why.ahead.iter().rev().take(8).map(ToString::to_string).collect();
        lines.push((format!("ahead    {}: {}", why.ahead_count, ahead.join(", ")), false));
    }
    if !why.reserved.is_empty() {
        lines.push((format!("kept     {}", why.reserved.join(", ")), false));
    }
    if let Some(start) = why.start {
        let wait = duration(start.since(app.now()).0);
        lines.push((format!("start    {}, in {wait}, as far as limits tell", clock(start)), false));
    }
    // Nodes with the same answer in one line, the most frequent first.
    let mut rules: Vec<(&str, Vec<&str>)> = Vec::new();
    for (node, rule) in &why.nodes {
        match rules.iter_mut().find(|(known, _)| known == rule) {
            Some((_, nodes)) => nodes.push(node),
            None => rules.push((rule, vec![node])),
        }
    }
    rules.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    for (rule, nodes) in rules {
        lines.push((format!("{:>4}  {rule}: {}", nodes.len(), nodes.join(" ")), false));
    }
    lines
}
