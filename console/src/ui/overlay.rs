//! What lies over a screen: the help, the filter, the question before something ends.

use ratatui::style::Style;

use super::sheet::Sheet;
use super::words::time_of;
use crate::app::{App, Overlay};

/// Draws what lies over the screen. Gives the cursor's place where one types.
pub(super) fn draw(app: &App, sheet: &mut Sheet<'_>) -> Option<(u16, u16)> {
    let rows = sheet.rows();
    match &app.overlay {
        Overlay::None => None,
        Overlay::Help => {
            help(app, sheet);
            None
        }
        Overlay::Filter => {
            let columns = sheet.columns();
            sheet.part(0, rows - 2, columns, 1).clear();
            let line = format!("/ {}", app.filter);
            sheet.text(1, rows - 2, &line, sheet.theme.heading());
            Some(((crate::output::width(&line) as u16 + 1).min(columns - 1), rows - 2))
        }
        Overlay::Cancel { job, typed } => cancel(app, *job, typed, sheet),
    }
}

fn help(app: &App, sheet: &mut Sheet<'_>) {
    let (columns, rows) = (sheet.columns(), sheet.rows());
    let mut panel = sheet.part(0, 2, columns, rows - 2);
    panel.clear();
    let height = panel.rows() - 1;
    let mut groups: Vec<&str> = Vec::new();
    for binding in app.keymap.bindings() {
        if !groups.contains(&binding.group.as_str()) {
            groups.push(&binding.group);
        }
    }
    let wide = (columns / 2).max(38);
    let (mut x, mut y) = (1, 1);
    for group in groups {
        let rows: Vec<_> =
            app.keymap.bindings().iter().filter(|binding| binding.group == group).collect();
        if y + rows.len() as u16 + 1 > height && y > 1 {
            (x, y) = (x + wide, 1);
        }
        panel.text(x, y, group, panel.theme.heading());
        y += 1;
        for binding in rows {
            panel.cell(x, y, 13, &binding.keys.join(" "), Style::new());
            panel.cell(x + 14, y, wide.saturating_sub(15), &binding.help, panel.theme.dim());
            y += 1;
        }
        y += 1;
    }
    panel.text(
        1,
        height,
        "keys are data: config/files/keys.toml   any key closes",
        panel.theme.dim(),
    );
}

/// The question before a job is cancelled: what it is, what will happen, the equal command.
fn cancel(
    app: &App,
    job: gantry_model::JobId,
    typed: &str,
    sheet: &mut Sheet<'_>,
) -> Option<(u16, u16)> {
    let update = app.update.as_ref()?;
    let row = update.jobs.iter().find(|row| row.job == job)?;
    let (columns, rows) = (sheet.columns(), sheet.rows());
    let (width, height) = (64.min(columns - 4), 9.min(rows - 4));
    let (left, top) = ((columns - width) / 2, (rows - height) / 2);
    let mut panel = sheet.part(left, top, width, height);
    panel.clear();
    let theme = panel.theme;
    let dash = theme.dash().to_string();
    let rule = dash.repeat(usize::from(width));
    panel.text(0, 0, &rule, Style::new());
    panel.text(2, 0, &format!(" cancel {job} "), theme.heading());
    let now = super::now_of(app, update);
    let lines = [
        format!("{job}  {}  {}  {}", row.name, row.user, time_of(row, now)),
        format!(
            "{} tasks run, {} wait, {} are done",
            row.tasks.run, row.tasks.wait, row.tasks.done
        ),
        "What runs gets TERM, then KILL after the grace time.".into(),
        "This cannot be undone.".into(),
    ];
    for (y, line) in lines.iter().enumerate() {
        panel.text(2, y as u16 + 1, line, Style::new());
    }
    let question = format!("Type {} and Enter to cancel it, Esc to keep it: ", job.0);
    panel.text(2, 6, &question, theme.warn());
    panel.text(2 + question.len() as u16, 6, typed, theme.heading());
    panel.text(2, 7, &format!("same as: gantry cancel {job}"), theme.dim());
    panel.text(0, height - 1, &rule, Style::new());
    let x = left + 2 + question.len() as u16 + typed.len() as u16;
    Some((x.min(columns - 1), top + 6))
}
