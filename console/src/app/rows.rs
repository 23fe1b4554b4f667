//! Which rows a screen lists, and in which order: those of the picture that fit the filter.
//!
//! A filter is words, all of which a row must hold. `!word` must not stand in it; `field:value`
//! looks at one field only; `a|b` is one or the other.

use std::cmp::Ordering;

use gantry_model::{JobRow, JobState};
use gantry_wire::NodeStatus;

use super::{App, View};

/// By what jobs are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The newest first.
    Id,
    /// What runs first, then what waits, then what failed.
    State,
    /// By name.
    Name,
    /// By user.
    User,
    /// The one that has been running longest first.
    Time,
}

impl Sort {
    /// The next one, round and round.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Id => Self::State,
            Self::State => Self::Name,
            Self::Name => Self::User,
            Self::User => Self::Time,
            Self::Time => Self::Id,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::State => "state",
            Self::Name => "name",
            Self::User => "user",
            Self::Time => "time",
        }
    }

    fn compare(self, a: &JobRow, b: &JobRow) -> Ordering {
        let order = match self {
            Self::Id => Ordering::Equal,
            Self::State => rank(a.state).cmp(&rank(b.state)),
            Self::Name => a.name.cmp(&b.name),
            Self::User => a.user.cmp(&b.user),
            Self::Time => {
                let began = |row: &JobRow| row.started.unwrap_or(row.submitted);
                began(a).cmp(&began(b))
            }
        };
        order.then(b.job.cmp(&a.job))
    }
}

const fn rank(state: JobState) -> u8 {
    match state {
        JobState::Run => 0,
        JobState::Wait => 1,
        JobState::Fail => 2,
        JobState::Done => 3,
        JobState::Cancel => 4,
    }
}

/// The jobs that the screen lists, in its order.
#[must_use]
pub fn job_rows(app: &App) -> Vec<&JobRow> {
    let Some(update) = &app.update else { return Vec::new() };
    let here = |row: &&JobRow| match app.view {
        View::Job(job) => row.job == job,
        View::Data => row.kind != "command",
        View::Overview | View::Nodes | View::Jobs => true,
    };
    let fits =
        |row: &&JobRow| matches!(app.view, View::Job(_)) || holds(&app.filter, &job_fields(row));
    let mut rows: Vec<&JobRow> = update.jobs.iter().filter(here).filter(fits).collect();
    rows.sort_by(|a, b| app.sort.compare(a, b));
    if app.reverse {
        rows.reverse();
    }
    if app.view == View::Overview {
        // What runs and waits first, whatever the order among equals.
        rows.sort_by_key(|row| row.state.is_ended());
    }
    rows
}

fn job_fields(row: &JobRow) -> [(&'static str, String); 6] {
    [
        ("job", row.job.to_string()),
        ("name", row.name.clone()),
        ("user", row.user.clone()),
        ("kind", row.kind.clone()),
        ("state", row.state.word().to_owned()),
        ("node", row.nodes.join(" ")),
    ]
}

/// The nodes that the screen lists.
#[must_use]
pub fn node_rows(app: &App) -> Vec<&NodeStatus> {
    let Some(update) = &app.update else { return Vec::new() };
    let fields = |node: &NodeStatus| {
        let facts = &node.row.facts;
        let roles: Vec<String> = facts.roles.iter().map(|role| format!("{role:?}")).collect();
        let state = node.row.state.word().to_owned();
        [("node", facts.name.clone()), ("state", state), ("role", roles.join(" "))]
    };
    let wanted = |node: &&NodeStatus| app.view != View::Nodes || holds(&app.filter, &fields(node));
    update.nodes.iter().filter(wanted).collect()
}

/// The lines of a log that a person reads: without those that tell metrics and progress to the
/// agent, and of a line that was written over and over only what stood there last.
#[must_use]
pub fn log_lines(bytes: &[u8]) -> Vec<&[u8]> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let last = |line: &'_ [u8]| -> usize {
        let end = line.len() - usize::from(line.ends_with(b"\r"));
        line[..end].iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1)
    };
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| {
        let line = &line[last(line)..];
        line.strip_suffix(b"\r").unwrap_or(line)
    });
    lines.filter(|line| !line.starts_with(b"::")).collect()
}

/// Whether fields fit every word of a filter.
fn holds(filter: &str, fields: &[(&str, String)]) -> bool {
    let all = fields.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ");
    let all = all.to_lowercase();
    filter.to_lowercase().split_whitespace().all(|word| {
        let (wanted, word) = word.strip_prefix('!').map_or((true, word), |word| (false, word));
        if word.is_empty() {
            return true;
        }
        let field = |name: &str| {
            let found = fields.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_lowercase())
        };
        let named = word.split_once(':').and_then(|(name, value)| Some((field(name)?, value)));
        let (text, values) = named.unwrap_or_else(|| (all.clone(), word));
        values.split('|').any(|value| text.contains(value)) == wanted
    })
}

#[cfg(test)]
mod tests {
    use super::{holds, log_lines};

    #[test]
    fn a_log_without_what_only_the_agent_reads() {
        for (text, expected) in [
            ("", vec![]),
            ("one\ntwo", vec!["one", "two"]),
            ("one\n\ntwo\n", vec!["one", "", "two"]),
            ("one\r\n::metric loss 1 2\ntwo\r\n", vec!["one", "two"]),
            ("10 %\r20 %\r30 %\ndone", vec!["30 %", "done"]),
        ] {
            let lines: Vec<_> = log_lines(text.as_bytes())
                .iter()
                .map(|line| String::from_utf8_lossy(line))
                .collect();
            assert_eq!(lines, expected, "{text:?}");
        }
    }

    #[test]
    fn filters_people_type() {
        let fields = [
            ("job", "j12".to_owned()),
            ("name", "train".to_owned()),
            ("user", "ada".to_owned()),
            ("state", "run".to_owned()),
            ("node", "gpu-1 runner".to_owned()),
        ];
        for (filter, expected) in [
            ("", true),
            ("train", true),
            ("TRAIN run", true),
            ("train wait", false),
            ("!wait", true),
            ("!run", false),
            ("!", true),
            ("user:ada", true),
            ("user:train", false),
            ("state:wait|run", true),
            ("state:wait|fail", false),
            ("!state:wait|fail", true),
            ("node:GPU", true),
            ("nothing:ada", false),
            ("ada|bob j12", true),
        ] {
            assert_eq!(holds(filter, &fields), expected, "{filter}");
        }
    }
}
