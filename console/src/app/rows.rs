//! Which rows a screen lists: those of the picture that hold the filter's words.

use gantry_model::JobRow;
use gantry_wire::NodeStatus;

use super::{App, View};

/// The jobs that the screen lists, in its order.
#[must_use]
pub fn job_rows(app: &App) -> Vec<&JobRow> {
    let Some(update) = &app.update else { return Vec::new() };
    let here = |row: &&JobRow| match app.view {
        View::Job(job) => row.job == job,
        View::Data => row.kind != "command",
        View::Overview | View::Nodes | View::Jobs => true,
    };
    let text = |row: &JobRow| {
        format!(
            "{} {} {} {} {} {}",
            row.job,
            row.name,
            row.user,
            row.kind,
            row.state.word(),
            row.nodes.join(" ")
        )
    };
    let mut rows: Vec<&JobRow> =
        update.jobs.iter().filter(here).filter(|row| holds(&app.filter, &text(row))).collect();
    if app.view == View::Overview {
        // What runs and waits first; the newest first among equals.
        rows.sort_by_key(|row| row.state.is_ended());
    }
    rows
}

/// The nodes that the screen lists.
#[must_use]
pub fn node_rows(app: &App) -> Vec<&NodeStatus> {
    let Some(update) = &app.update else { return Vec::new() };
    let text = |node: &NodeStatus| {
        let roles: Vec<String> =
            node.row.facts.roles.iter().map(|role| format!("{role:?}")).collect();
        format!("{} {} {}", node.row.facts.name, node.row.state.word(), roles.join(" "))
    };
    let wanted = |node: &&NodeStatus| app.view != View::Nodes || holds(&app.filter, &text(node));
    update.nodes.iter().filter(wanted).collect()
}

/// Whether a text holds every word of a filter, and none that stands behind a `!`.
fn holds(filter: &str, text: &str) -> bool {
    let text = text.to_lowercase();
    filter.to_lowercase().split_whitespace().all(|word| match word.strip_prefix('!') {
        Some("") => true,
        Some(not) => !text.contains(not),
        None => text.contains(word),
    })
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn filters_people_type() {
        for (filter, expected) in [
            ("", true),
            ("train", true),
            ("TRAIN run", true),
            ("train wait", false),
            ("!wait", true),
            ("!run", false),
            ("!", true),
        ] {
            assert_eq!(holds(filter, "j12 train ada run gpu-1"), expected, "{filter}");
        }
    }
}
