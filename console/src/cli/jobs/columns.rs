//! `gantry queue --format`: lines as squeue's `--format` makes them, for scripts that read those.
//!
//! `%i` is a field, `%8i` one of eight characters, `%.8i` the same to the right; longer texts are cut.

use gantry_model::{At, JobRow, JobState, Millis};

use crate::cli::time;
use crate::error::Failure;
use crate::output;

/// A width that a screen has room for.
const WIDTH_MAX: usize = 1000;

type Shows = fn(&JobRow, At) -> String;

/// The letters that are known: what stands over the column, and what in it.
const FIELDS: &[(char, &str, Shows)] = &[
    ('a', "ACCOUNT", |row, _| row.group.clone().unwrap_or_else(|| row.user.clone())),
    ('A', "JOBID", |row, _| row.job.to_string()),
    ('b', "TRES_PER_NODE", |row, _| match row.resources.gpus {
        0 => "N/A".into(),
        gpus => format!("gres:gpu:{gpus}"),
    }),
    ('C', "CPUS", |row, _| row.resources.cores.to_string()),
    ('D', "NODES", |row, _| row.nodes.len().max(1).to_string()),
    ('e', "END_TIME", |row, _| moment(row.ended)),
    ('i', "JOBID", |row, _| row.job.to_string()),
    ('j', "NAME", |row, _| row.name.clone()),
    ('l', "TIME_LIMIT", |row, _| row.time_limit.map_or("UNLIMITED".into(), length)),
    ('m', "MIN_MEMORY", |row, _| row.resources.memory.to_string()),
    ('M', "TIME", |row, now| {
        length(row.started.map_or(Millis(0), |started| row.ended.unwrap_or(now).since(started)))
    }),
    ('N', "NODELIST", |row, _| row.nodes.join(",")),
    ('p', "PRIORITY", |row, _| row.priority.to_string()),
    ('Q', "PRIORITY", |row, _| row.priority.to_string()),
    ('r', "REASON", |row, _| row.reason.clone().unwrap_or_else(|| "None".into())),
    ('R', "NODELIST(REASON)", |row, _| match (&row.reason, row.state) {
        (Some(reason), JobState::Wait) => format!("({reason})"),
        _ => row.nodes.join(","),
    }),
    ('S', "START_TIME", |row, _| moment(row.started)),
    ('t', "ST", |row, _| words(row.state).1.to_owned()),
    ('T', "STATE", |row, _| words(row.state).0.to_owned()),
    ('u', "USER", |row, _| row.user.clone()),
    ('V', "SUBMIT_TIME", |row, _| moment(Some(row.submitted))),
    ('x', "EXIT", |row, _| {
        row.exit.as_ref().map_or_else(String::new, |exit| exit.code().to_string())
    }),
];

/// Slurm's words for a state.
const fn words(state: JobState) -> (&'static str, &'static str) {
    match state {
        JobState::Run => ("RUNNING", "R"),
        JobState::Wait => ("PENDING", "PD"),
        JobState::Fail => ("FAILED", "F"),
        JobState::Cancel => ("CANCELLED", "CA"),
        JobState::Done => ("COMPLETED", "CD"),
    }
}

/// `days-hours:minutes:seconds`, without what is zero before the minutes.
fn length(time: Millis) -> String {
    let seconds = time.0 / 1000;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, hours) => format!("{hours}:{minutes:02}:{seconds:02}"),
        (days, hours) => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

fn moment(at: Option<At>) -> String {
    at.map_or_else(|| "N/A".to_owned(), |at| time::stamp(at).replace(' ', "T"))
}

/// A part of a line.
enum Part {
    Text(String),
    Field { field: &'static (char, &'static str, Shows), width: usize, right: bool },
}

/// Lines of a form.
pub(super) struct Columns(Vec<Part>);

impl Columns {
    /// Reads a form, as `%.10i %9j %T`.
    pub(super) fn read(form: &str) -> Result<Self, Failure> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut letters = form.chars().peekable();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                plain.push(letter);
                continue;
            }
            let right = letters.next_if_eq(&'.').is_some();
            let mut digits = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let width = if digits.is_empty() { Some(0) } else { digits.parse().ok() };
            let width = width.filter(|width| *width <= WIDTH_MAX).ok_or_else(|| {
                Failure::usage(format!(
                    "a column of {digits} characters is too wide; at most {WIDTH_MAX} are allowed"
                ))
            })?;
            let letter = letters.next().unwrap_or_default();
            if letter == '%' {
                plain.push('%');
                continue;
            }
            let field = FIELDS.iter().find(|(known, _, _)| *known == letter).ok_or_else(|| {
                let all: Vec<String> =
                    FIELDS.iter().map(|(letter, title, _)| format!("%{letter} {title}")).collect();
                Failure::usage(format!(
                    "%{letter} of the format {form:?} is no column of a job; there are {}",
                    all.join(", ")
                ))
            })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Field { field, width, right });
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// The line over all others.
    pub(super) fn titles(&self) -> String {
        self.line(|(_, title, _)| (*title).to_owned())
    }

    /// A job's line.
    pub(super) fn row(&self, row: &JobRow, now: At) -> String {
        self.line(|(_, _, shows)| shows(row, now))
    }

    fn line(&self, text: impl Fn(&'static (char, &'static str, Shows)) -> String) -> String {
        let mut line = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field { field, width, right } => {
                    let text = output::clean(&text(field));
                    let cut = if *width == 0 { text } else { text.chars().take(*width).collect() };
                    let room = " ".repeat(width.saturating_sub(output::width(&cut)));
                    line.push_str(&if *right { room + &cut } else { cut + &room });
                }
            }
        }
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{JobId, MemoryMib, Resources};

    use super::*;

    #[test]
    fn lines_as_squeue_makes_them() {
        let row = JobRow {
            job: JobId(12),
            name: "chest-of-ada".into(),
            user: "ada".into(),
            state: JobState::Run,
            nodes: vec!["gpu-1".into(), "gpu-2".into()],
            started: Some(At(1000)),
            time_limit: Some(Millis::from_seconds(90_061)),
            resources: Resources {
                cores: 4,
                memory: MemoryMib(2048),
                gpus: 2,
                scratch: MemoryMib(0),
            },
            reason: Some("a node".into()),
            ..JobRow::default()
        };
        let waits = JobRow { state: JobState::Wait, started: None, ..row.clone() };
        let now = At(3_662_000);
        for (form, title, line) in [
            ("%i %j %T", "JOBID NAME STATE", "j12 chest-of-ada RUNNING"),
            ("%.6i|%5j|%-t", "", ""),
            ("%.6i|%5j|%t", " JOBID|NAME |ST", "   j12|chest|R"),
            (
                "%M %l %C %m %b",
                "TIME TIME_LIMIT CPUS MIN_MEMORY TRES_PER_NODE",
                "1:01:01 1-01:01:01 4 2G gres:gpu:2",
            ),
            ("%D %N 100%%", "NODES NODELIST 100%", "2 gpu-1,gpu-2 100%"),
            ("%a %S", "ACCOUNT START_TIME", ""),
        ] {
            let Ok(columns) = Columns::read(form) else {
                assert!(title.is_empty(), "{form} is refused");
                continue;
            };
            assert_eq!(columns.titles(), title, "{form}");
            if !line.is_empty() {
                assert_eq!(columns.row(&row, now), line, "{form}");
            }
        }
        let reason = Columns::read("%t %R %M").unwrap();
        assert_eq!(reason.row(&waits, now), "PD (a node) 0:00");
        let error = Columns::read("%i %Z").err().unwrap();
        assert!(error.sentence.contains("%Z of the format") && error.sentence.contains("%j NAME"));
        assert!(Columns::read("%99999i").is_err());
    }
}
