//! What would follow from a plan, told before it is carried out: what stops, what is freed, what waits
//! again, and the command that does the same.

use gantry_model::{At, JobChange, JobRow, Millis, NodeState, things};
use gantry_wire::{NodeStatus, Update};

use super::App;
use super::steer::{Deed, Line, Plan, Targets, Tone, job_rows, node_rows};

impl Plan {
    /// What would happen, from what the screen knows now.
    #[must_use]
    pub fn consequences(&self, app: &App) -> Vec<Line> {
        let mut lines = Vec::new();
        let update = app.update.as_deref();
        match &self.targets {
            Targets::Jobs(_) => self.of_jobs(app, &mut lines),
            Targets::Nodes(_) => self.of_nodes(app, update, &mut lines),
            Targets::Library(_) => {}
        }
        let mut command = format!("same as: {}", self.command());
        if let Deed::Library(deed) = &self.deed {
            deed.consequences(app, &self.targets, &mut lines);
            let (deed, targets) = deed.filled(app, &self.targets);
            command = format!("same as: {}", deed.command(&targets));
        }
        lines.push(Line { text: command, tone: Tone::Dim, rank: 1 });
        lines
    }

    fn of_jobs(&self, app: &App, lines: &mut Vec<Line>) {
        let mut say = |rank: u8, tone: Tone, text: String| lines.push(Line { text, tone, rank });
        let rows = job_rows(&self.targets, app.update.as_deref());
        let now = app.now();
        list(&rows, app, now, &mut say);
        say(5, Tone::Plain, String::new());
        let sum = |of: fn(&JobRow) -> u32| rows.iter().map(|row| u64::from(of(row))).sum::<u64>();
        let (run, wait) = (sum(|row| row.tasks.run), sum(|row| row.tasks.wait));
        let cores = sum(|row| row.tasks.run.saturating_mul(row.resources.cores));
        let gpus = sum(|row| row.tasks.run.saturating_mul(row.resources.gpus));
        let gpus = if gpus > 0 { format!(", {}", things(gpus, "gpu")) } else { String::new() };
        let stops =
            format!("stops {}: frees {}{gpus}", things(run, "running task"), things(cores, "core"));
        match &self.deed {
            Deed::Cancel => {
                if run > 0 {
                    say(0, Tone::Plain, stops);
                    say(3, Tone::Plain, "each gets TERM, then KILL after the grace time".into());
                }
                if wait > 0 {
                    say(
                        1,
                        Tone::Plain,
                        format!("{} will never start", things(wait, "waiting task")),
                    );
                }
                let done = sum(|row| row.tasks.done);
                if done > 0 {
                    say(4, Tone::Plain, format!("{} done already, and kept", things(done, "task")));
                }
                checkpoint(app, &rows, &mut say);
                say(3, Tone::Plain, "jobs that depend on them are cancelled too".into());
                say(1, Tone::Loud, "this cannot be undone".into());
            }
            Deed::Requeue if run > 0 => {
                say(0, Tone::Plain, stops);
                checkpoint(app, &rows, &mut say);
                say(1, Tone::Plain, "they wait again at their old place, and start anew".into());
            }
            Deed::Requeue => say(0, Tone::Plain, "nothing of it runs: nothing changes".into()),
            Deed::Hold => {
                say(0, Tone::Plain, format!("{} will not start", things(wait, "waiting task")));
                if run > 0 {
                    say(1, Tone::Plain, format!("{} may end", things(run, "running task")));
                }
            }
            Deed::Release => say(0, Tone::Plain, "what is held may start".into()),
            Deed::Change(change) => changed(change, wait, run, &mut say),
            Deed::Again(spec) => {
                let asked = &spec.resources;
                let (cores, gpus) = (things(asked.cores, "core"), things(asked.gpus, "gpu"));
                say(0, Tone::Plain, format!("a new job {:?}: {cores}, {gpus} each", spec.name));
            }
            Deed::Drain { .. }
            | Deed::Resume
            | Deed::DropWindows
            | Deed::Forget
            | Deed::Library(_) => {}
        }
    }

    fn of_nodes(&self, app: &App, update: Option<&Update>, lines: &mut Vec<Line>) {
        let mut say = |rank: u8, tone: Tone, text: String| lines.push(Line { text, tone, rank });
        let Some(update) = update else { return };
        let rows = node_rows(&self.targets, update);
        for node in rows.iter().take(LISTED_MAX) {
            let (tasks, gpus) = (things(node.row.tasks, "task"), node.row.facts.gpus.len());
            let gpus = if gpus > 0 { format!("   {gpus} gpu") } else { String::new() };
            let name = &node.row.facts.name;
            say(2, Tone::Plain, format!("{name:<12} {:<12} {tasks}{gpus}", node.row.state.word()));
        }
        if rows.len() > LISTED_MAX {
            say(2, Tone::Plain, format!("and {} more", rows.len() - LISTED_MAX));
        }
        say(5, Tone::Plain, String::new());
        let tasks: u64 = rows.iter().map(|node| u64::from(node.row.tasks)).sum();
        let share = self.share(Some(update)) / 10;
        match &self.deed {
            Deed::Drain { reason } => {
                say(
                    0,
                    Tone::Plain,
                    format!("{} may end there, none starts", things(tasks, "task")),
                );
                if let Some(longest) = longest(&rows, update, app.now()) {
                    say(1, Tone::Plain, longest);
                }
                let what = if rows.iter().any(|node| !node.row.facts.gpus.is_empty()) {
                    "gpu"
                } else {
                    "cores"
                };
                say(
                    1,
                    Tone::Loud,
                    format!("takes {share} % of all {what} away until it is resumed"),
                );
                say(3, Tone::Plain, format!("everyone reads: {reason}"));
            }
            Deed::Resume => {
                for node in &rows {
                    for ailment in &node.row.ailments {
                        let name = &node.row.facts.name;
                        say(
                            1,
                            Tone::Loud,
                            format!("! {name}: {} ({})", ailment.detail, ailment.trouble),
                        );
                    }
                }
                say(0, Tone::Plain, format!("gives {share} % of the cluster back to work"));
            }
            Deed::Forget => {
                let stays = rows.iter().filter(|node| node.row.state != NodeState::Lost).count();
                if stays > 0 {
                    say(0, Tone::Loud, format!("{stays} not lost: refused"));
                }
                say(0, Tone::Plain, "its readings, windows and troubles are gone".into());
                say(1, Tone::Plain, "it is a new node if it ever comes back".into());
            }
            _ => say(0, Tone::Plain, "work may start in what was kept free".into()),
        }
    }
}

/// Targets that a question lists by name.
const LISTED_MAX: usize = 5;

fn list(rows: &[&JobRow], app: &App, now: At, say: &mut impl FnMut(u8, Tone, String)) {
    for row in rows.iter().take(LISTED_MAX) {
        let work = match row.started {
            Some(_) => format!("{} of work", crate::ui::time_of(row, now)),
            None => "waits".to_owned(),
        };
        let (job, user) = (row.job.to_string(), app.private(&row.user));
        say(2, Tone::Plain, format!("{job:<6} {:<16} {user:<10} {work}", row.name));
    }
    if rows.len() > LISTED_MAX {
        say(2, Tone::Plain, format!("and {} more", rows.len() - LISTED_MAX));
    }
}

/// What the log on the screen says last of a checkpoint, where it is of the one job that is stopped.
fn checkpoint(app: &App, rows: &[&JobRow], say: &mut impl FnMut(u8, Tone, String)) {
    let [row] = rows else { return };
    let known = app.log.is_of(row.job).then(|| app.log.last_with("checkpoint")).flatten();
    match known {
        Some(line) => say(1, Tone::Plain, format!("last checkpoint: {line}")),
        None if row.tasks.run > 0 => {
            say(4, Tone::Dim, "its output on this screen names no checkpoint".into());
        }
        None => {}
    }
}

fn changed(change: &JobChange, wait: u64, run: u64, say: &mut impl FnMut(u8, Tone, String)) {
    let mut parts = Vec::new();
    if let Some(priority) = change.priority {
        parts.push(format!("priority becomes {priority}"));
    }
    if let Some(limit) = change.time_limit {
        parts.push(format!("what starts from now on is ended after {limit}"));
    }
    if let Some(estimate) = change.estimate {
        parts.push(format!("placement plans with {estimate} for a task"));
    }
    if let Some(count) = change.at_once_max {
        parts.push(format!("at most {} at once", things(count, "element")));
    }
    if let Some(retries) = change.retries {
        parts.push(format!("a failed task starts {retries} times more"));
    }
    for part in parts {
        say(0, Tone::Plain, part);
    }
    say(2, Tone::Plain, format!("{wait} waiting, {run} running tasks; what runs goes on"));
}

/// How long the longest task on some nodes may still take, where every job there has a limit.
fn longest(nodes: &[&NodeStatus], update: &Update, now: At) -> Option<String> {
    let on = |row: &&JobRow| {
        let here = |node: &&NodeStatus| row.nodes.contains(&node.row.facts.name);
        row.tasks.run > 0 && nodes.iter().any(here)
    };
    let rows: Vec<&JobRow> = update.jobs.iter().filter(on).collect();
    let left = |row: &&JobRow| {
        let limit = row.time_limit?;
        Some(limit.0.saturating_sub(now.since(row.started?).0))
    };
    let lefts: Vec<u64> = rows.iter().filter_map(left).collect();
    let most = *lefts.iter().max()?;
    let more = rows.len() - lefts.len();
    let unlimited = if more > 0 {
        format!("; {} without a limit", things(more as u64, "job"))
    } else {
        String::new()
    };
    Some(format!("the longest may take {} more{unlimited}", Millis(most / 1000 * 1000)))
}
