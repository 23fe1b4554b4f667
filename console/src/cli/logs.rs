//! `gantry logs`: the output of one task as it is, or of several with the task before each line.
//!
//! Output is asked for in pieces from an offset on, so that nothing is held but the piece. A task
//! whose node is away is named on standard error and the others go on; the exit code tells.

use std::time::Duration;

use clap::Args;
use gantry_model::{TaskId, TaskRow};
use gantry_wire::{Found, Output, Reply, Request};
use serde_json::{Value, json};

use super::chosen::Chosen;
use super::client::{Client, Reach, unexpected};
use super::{completions, tail};
use crate::error::{Failure, Outcome, TROUBLE};
use crate::output::{self, Format};

/// How often a log that is followed is asked for more.
const FOLLOW_EACH: Duration = Duration::from_millis(300);
/// Tasks that are followed at once: each costs a request every [`FOLLOW_EACH`].
const FOLLOWED_MAX: usize = 100;

/// `gantry logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The job, one element as j12.3, or several as j12.0-99.
    #[arg(value_name = "JOB", add = completions::jobs())]
    tasks: Chosen,
    /// Print what is added until the tasks have ended.
    #[arg(long, short)]
    follow: bool,
    /// Begin with the last lines, so many of each task.
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<usize>,
    /// Print only the lines that hold this text, with their task and number; exits with 1 where
    /// there are none.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["follow", "tail"])]
    search: Option<String>,
}

impl Logs {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the task is unknown, its node is away, or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let client = Client::connect(cluster)?;
        if let Some(text) = &self.search {
            return search(&client, &self.tasks, text, format);
        }
        let rows = rows(&client, &self.tasks)?;
        match (&rows[..], self.follow) {
            ([], _) => Err(Failure::usage(format!(
                "there is no task {}; gantry job {} lists them",
                self.tasks, self.tasks.job
            ))),
            ([row], _) => self.one(&client, row.task, format),
            (_, true) => self.follow(&client, &rows, format),
            (_, false) => self.several(&client, &rows, format),
        }
    }

    /// Where a task's output is begun.
    fn start(&self, client: &Client, task: TaskId) -> Result<u64, Failure> {
        let mut read = |offset| piece(client, task, offset);
        self.tail.map_or(Ok(0), |lines| tail::offset(lines, &mut read))
    }

    /// One task, byte for byte.
    fn one(&self, client: &Client, task: TaskId, format: Format) -> Outcome {
        let mut offset = self.start(client, task)?;
        let mut lines = Lines::new(task);
        let mut whole = Vec::new();
        let mut foreign = output::Foreign::new();
        loop {
            let piece = piece(client, task, offset)?;
            let (empty, live) = (piece.bytes.is_empty(), piece.live);
            offset = piece.next;
            match (format, self.follow) {
                (Format::Json, false) => whole.extend(piece.bytes),
                (Format::Json, true) => lines.add(&piece.bytes, &mut print_json)?,
                _ => foreign.write(&piece.bytes)?,
            }
            if empty && !(self.follow && live) {
                break;
            }
            if empty && offset == 0 && never_starts(client, task)? {
                break;
            }
            if empty {
                std::thread::sleep(FOLLOW_EACH);
            }
        }
        if format == Format::Json && self.follow {
            lines.end(&mut print_json)?;
        } else if format == Format::Json {
            let text = String::from_utf8_lossy(&whole).into_owned();
            let value = json!({ "task": task.to_string(), "text": text });
            format.print("output", &value, String::new, String::new)?;
        }
        Ok(0)
    }

    /// Several tasks, one after the other.
    fn several(&self, client: &Client, rows: &[TaskRow], format: Format) -> Outcome {
        let (mut code, mut texts) = (0, Vec::new());
        for row in rows.iter().filter(|row| row.starts > 0) {
            let mut text = String::new();
            let mut print = |task: TaskId, line: &str| match format {
                Format::Json => {
                    text.push_str(line);
                    text.push('\n');
                    Ok(())
                }
                _ => print_line(task, line),
            };
            if let Err(failure) = self.whole(client, row.task, &mut print) {
                output::complain(&failure.sentence);
                code = TROUBLE;
            }
            if format == Format::Json {
                texts.push(json!({ "task": row.task.to_string(), "text": text }));
            }
        }
        if format == Format::Json {
            format.print("output", &texts, String::new, String::new)?;
        }
        Ok(code)
    }

    fn whole(&self, client: &Client, task: TaskId, print: Print<'_>) -> Result<(), Failure> {
        let mut lines = Lines::new(task);
        let mut offset = self.start(client, task)?;
        loop {
            let piece = piece(client, task, offset)?;
            if piece.bytes.is_empty() {
                return lines.end(print);
            }
            offset = piece.next;
            lines.add(&piece.bytes, print)?;
        }
    }

    /// Several tasks as their lines come, until all have ended.
    fn follow(&self, client: &Client, rows: &[TaskRow], format: Format) -> Outcome {
        if rows.len() > FOLLOWED_MAX {
            return Err(Failure::usage(format!(
                "{} has {} tasks, and at most {FOLLOWED_MAX} can be followed at once; name some, as {}.0-{}",
                self.tasks,
                rows.len(),
                self.tasks.job,
                FOLLOWED_MAX - 1
            )));
        }
        let print: Print<'_> =
            if format == Format::Json { &mut print_json } else { &mut print_line };
        let mut live = Vec::new();
        for row in rows {
            live.push((Lines::new(row.task), self.start(client, row.task)?));
        }
        let mut code = 0;
        while !live.is_empty() {
            let mut quiet = true;
            let mut next = Vec::new();
            for (mut lines, offset) in live {
                match piece(client, lines.task, offset) {
                    Ok(piece) => {
                        quiet &= piece.bytes.is_empty();
                        lines.add(&piece.bytes, print)?;
                        let begun = piece.next > 0 || !never_starts(client, lines.task)?;
                        if piece.live && begun || !piece.bytes.is_empty() {
                            next.push((lines, piece.next));
                        } else {
                            lines.end(print)?;
                        }
                    }
                    Err(failure) => {
                        output::complain(&failure.sentence);
                        code = TROUBLE;
                    }
                }
            }
            live = next;
            if quiet && !live.is_empty() {
                std::thread::sleep(FOLLOW_EACH);
            }
        }
        Ok(code)
    }
}

/// Prints one line of a task.
type Print<'a> = &'a mut dyn FnMut(TaskId, &str) -> Result<(), Failure>;

fn print_line(task: TaskId, line: &str) -> Result<(), Failure> {
    output::Foreign::new().write(format!("{task} | {line}\n").as_bytes())
}

fn print_json(task: TaskId, line: &str) -> Result<(), Failure> {
    output::line(&json!({ "task": task.to_string(), "line": line }).to_string())
}

/// The lines of a task while its bytes arrive in pieces.
struct Lines {
    task: TaskId,
    rest: Vec<u8>,
}

impl Lines {
    fn new(task: TaskId) -> Self {
        Self { task, rest: Vec::new() }
    }

    fn add(&mut self, bytes: &[u8], print: Print<'_>) -> Result<(), Failure> {
        self.rest.extend(bytes);
        let Some(last) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let rest = self.rest.split_off(last + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        for line in whole[..last].split(|byte| *byte == b'\n') {
            print(self.task, &String::from_utf8_lossy(line))?;
        }
        Ok(())
    }

    /// Prints a last line that no newline ended.
    fn end(&mut self, print: Print<'_>) -> Result<(), Failure> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Ok(()) } else { print(self.task, &String::from_utf8_lossy(&rest)) }
    }
}

fn piece(client: &Client, task: TaskId, offset: u64) -> Result<Output, Failure> {
    match client.ask(&Request::Output { task, offset })? {
        Reply::Output(piece) => Ok(piece),
        other => Err(unexpected(&other)),
    }
}

/// Whether a task has ended without a start, so that no output will ever come.
fn never_starts(client: &Client, task: TaskId) -> Result<bool, Failure> {
    let reply = client.ask(&Request::Tasks { job: task.job, from: task.index })?;
    let Reply::Tasks { rows, .. } = reply else { return Err(unexpected(&reply)) };
    let ended = |row: &TaskRow| ["done", "fail", "cancel"].contains(&row.state.as_str());
    Ok(rows.first().is_none_or(|row| row.task != task || row.starts == 0 && ended(row)))
}

/// The tasks that were chosen, in order.
pub(super) fn rows(client: &Client, chosen: &Chosen) -> Result<Vec<TaskRow>, Failure> {
    let ranges = chosen.indices.as_ref().map(|indices| indices.ranges().to_vec());
    let mut all = Vec::new();
    for (first, last) in ranges.unwrap_or_else(|| vec![(0, u32::MAX)]) {
        let mut from = first;
        loop {
            let reply = client.ask(&Request::Tasks { job: chosen.job, from })?;
            let Reply::Tasks { rows, more } = reply else { return Err(unexpected(&reply)) };
            let Some(end) = rows.last().map(|row| row.task.index) else { break };
            all.extend(rows.into_iter().filter(|row| row.task.index <= last));
            if !more || end >= last {
                break;
            }
            from = end + 1;
        }
    }
    Ok(all)
}

fn search(client: &Client, chosen: &Chosen, text: &str, format: Format) -> Outcome {
    let reply = client.ask(&Request::Search { job: chosen.job, text: text.to_owned() })?;
    let Reply::Found { mut lines, more } = reply else { return Err(unexpected(&reply)) };
    lines.retain(|line| chosen.contains(line.task.index));
    let value: Vec<Value> = lines.iter().map(found_value).collect();
    let value = json!({ "lines": value, "more": more });
    let people = || {
        let line = |found: &Found| {
            format!("{}:{}: {}", found.task, found.line, output::clean(&found.text))
        };
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let quiet = || {
        let mut tasks: Vec<String> = lines.iter().map(|found| found.task.to_string()).collect();
        tasks.dedup();
        tasks.join("\n")
    };
    format.print("found", &value, people, quiet)?;
    if more && format == Format::Table {
        output::complain(
            "there are more lines than are shown, or a node did not answer; search for a longer text",
        );
    }
    Ok(u8::from(lines.is_empty()))
}

fn found_value(found: &Found) -> Value {
    json!({ "task": found.task.to_string(), "line": found.line, "text": found.text })
}

#[cfg(test)]
mod tests {
    use gantry_model::JobId;

    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        for (pieces, expected) in [
            (&["a\nb\n"][..], &["a", "b"][..]),
            (&["a", "b\nc"], &["ab", "c"]),
            (&["\n", "\n"], &["", ""]),
            (&["a\r\nb"], &["a\r", "b"]),
            (&[""], &[]),
        ] {
            let mut found = Vec::new();
            let mut print = |task: TaskId, line: &str| {
                assert_eq!(task, JobId(1).task(2));
                found.push(line.to_owned());
                Ok(())
            };
            let mut lines = Lines::new(JobId(1).task(2));
            for piece in pieces {
                lines.add(piece.as_bytes(), &mut print).unwrap();
            }
            lines.end(&mut print).unwrap();
            assert_eq!(found, expected, "{pieces:?}");
        }
    }
}
