//! What lies over a screen: the help, the filter that is typed, and the questions.

use ratatui::style::Style;

use super::frame::key_name;
use super::question;
use super::sheet::Sheet;
use crate::app::{App, Overlay, View};

/// Draws what lies over the screen. Gives the cursor's place where one types.
pub(super) fn draw(app: &App, sheet: &mut Sheet<'_>) -> Option<(u16, u16)> {
    let rows = sheet.rows();
    match &app.overlay {
        Overlay::None => None,
        Overlay::Help(first) => {
            help(app, *first, sheet);
            None
        }
        Overlay::Filter => {
            let columns = sheet.columns();
            sheet.part(0, rows - 2, columns, 1).clear();
            let text =
                if matches!(app.view, View::Job(_)) { &app.log.search } else { app.filter() };
            let line = format!("/ {text}");
            sheet.text(1, rows - 2, &line, sheet.theme.heading());
            Some(((crate::output::width(&line) as u16 + 1).min(columns - 1), rows - 2))
        }
        Overlay::Menu { targets, at } => Some(question::menu(targets, *at, sheet)),
        Overlay::Value { choice, targets, typed } => {
            Some(question::value(choice, targets, typed, sheet))
        }
        Overlay::Confirm { plan, typed } => Some(question::confirm(app, plan, typed, sheet)),
        Overlay::Palette(palette) => Some(question::commands(app, palette, sheet)),
        Overlay::Why { job, top } => {
            question::why(app, *job, *top, sheet);
            None
        }
    }
}

/// The keys, group by group; in two columns where there is room, scrolled where there is none.
fn help(app: &App, first: u16, sheet: &mut Sheet<'_>) {
    let (columns, rows, theme) = (sheet.columns(), sheet.rows(), sheet.theme);
    let mut panel = sheet.part(0, 2, columns, rows - 3);
    panel.clear();
    let groups: Vec<Vec<(String, String)>> = app
        .keymap
        .groups()
        .into_iter()
        .map(|group| {
            let here = app.keymap.bindings().iter().filter(|binding| binding.group == group);
            let line = |binding: &crate::app::keys::Binding| {
                let keys: Vec<String> = binding.keys.iter().map(|key| key_name(key)).collect();
                (keys.join("  "), binding.help.clone())
            };
            let heading = (group.to_owned(), String::new());
            let blank = (String::new(), String::new());
            std::iter::once(heading).chain(here.map(line)).chain([blank]).collect()
        })
        .collect();
    let total: usize = groups.iter().map(Vec::len).sum();
    let parts = (columns / 40).clamp(1, 3);
    // Groups are not torn apart: a part takes groups until its share of the lines is there.
    let share = total.div_ceil(usize::from(parts));
    let mut panels: Vec<Vec<&(String, String)>> = vec![Vec::new()];
    for group in &groups {
        let last = panels.len() - 1;
        let half = group.len() / 2;
        if panels[last].len() + half > share && panels.len() < usize::from(parts) {
            panels.push(Vec::new());
        }
        let last = panels.len() - 1;
        panels[last].extend(group);
    }
    let wide = columns / parts;
    let height = panel.rows();
    let tallest = panels.iter().map(Vec::len).max().unwrap_or(0) as u16;
    let first = first.min((tallest + 1).saturating_sub(height));
    for (n, lines) in panels.iter().enumerate() {
        let x = n as u16 * wide + 1;
        for (y, (keys, words)) in lines.iter().skip(usize::from(first)).enumerate() {
            let y = y as u16;
            if y + 1 >= height {
                break;
            }
            if words.is_empty() {
                panel.cell(x, y, wide - 1, keys, theme.heading());
            } else {
                panel.cell(x, y, 11, keys, Style::new());
                panel.cell(x + 11, y, wide.saturating_sub(12), words, theme.dim());
            }
        }
    }
    let note = "keys are data: config/files/keys.toml";
    panel.text(1, height.saturating_sub(1), note, theme.dim());
}
