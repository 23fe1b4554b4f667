//! What has ended and what it took: `gantry history` and `gantry report`.

use clap::{Args, ValueEnum};
use gantry_model::{At, JobId, JobRow, Spent};
use gantry_wire::{HistoryQuery, Reply, Request, UseBy, UseRow};
use serde_json::{Value, json};

use super::client::{Client, Reach, unexpected};
use super::jobs::{ids, job_value, spent_value, time_taken};
use super::time;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// `gantry history`.
#[derive(Debug, Args)]
pub struct History {
    /// Only jobs of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only jobs that used the quota of this group.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Only jobs that ended since then: 7d ago, or 2026-11-24, also with T18:00.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only jobs that ended before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many, newest first.
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
}

impl History {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a time cannot be read or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let now = time::now();
        let point =
            |text: &Option<String>| text.as_deref().map(|text| time::back(text, now)).transpose();
        let query = HistoryQuery {
            user: self.user.clone(),
            group: self.group.clone(),
            from: point(&self.since)?,
            until: point(&self.until)?,
            before: None,
        };
        let client = Client::connect(cluster)?;
        let rows = pages(query, self.limit, &mut |request| client.ask(request))?;
        let value: Vec<Value> = rows.iter().map(job_value).collect();
        format.print("history", &value, || table(&rows, now), || ids(&rows))?;
        Ok(0)
    }
}

/// Asks for pages until there are enough rows or no more.
fn pages(
    mut query: HistoryQuery,
    limit: usize,
    ask: &mut dyn FnMut(&Request) -> Result<Reply, Failure>,
) -> Result<Vec<JobRow>, Failure> {
    let mut all: Vec<JobRow> = Vec::new();
    while all.len() < limit {
        let reply = ask(&Request::History { query: query.clone() })?;
        let Reply::Jobs { rows, more } = reply else { return Err(unexpected(&reply)) };
        let last: Option<JobId> = rows.last().map(|row| row.job);
        all.extend(rows);
        if !more || last.is_none() {
            break;
        }
        query.before = last;
    }
    all.truncate(limit);
    Ok(all)
}

fn table(rows: &[JobRow], now: At) -> String {
    if rows.is_empty() {
        return "no job has ended in that time".into();
    }
    let row = |row: &JobRow| {
        vec![
            row.job.to_string(),
            row.name.clone(),
            row.user.clone(),
            row.group.clone().unwrap_or_default(),
            row.kind.clone(),
            row.state.word().to_owned(),
            row.ended.map(|at| time::clock(at, now)).unwrap_or_default(),
            time_taken(row, now),
            hours(row.spent.core_ms),
            hours(row.spent.gpu_ms),
            row.reason.clone().unwrap_or_default(),
        ]
    };
    let heading = [
        "JOB", "NAME", "USER", "GROUP", "KIND", "STATE", "ENDED", "TIME", "CORE H", "GPU H", "NOTE",
    ];
    output::aligned(&heading, &rows.iter().map(row).collect::<Vec<_>>(), 8..10)
}

/// By what a report sums.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// Who submitted.
    User,
    /// Whose quota was used.
    Group,
    /// What the jobs did.
    Kind,
    /// The day on which they ended, in UTC.
    Day,
}

impl By {
    const fn wire(self) -> UseBy {
        match self {
            Self::User => UseBy::User,
            Self::Group => UseBy::Group,
            Self::Kind => UseBy::Kind,
            Self::Day => UseBy::Day,
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Group => "GROUP",
            Self::Kind => "KIND",
            Self::Day => "DAY",
        }
    }
}

/// `gantry report`.
#[derive(Debug, Args)]
pub struct Report {
    /// By what it is summed.
    #[arg(long, value_enum, default_value = "user")]
    by: By,
    /// Jobs that ended since then: 30d ago, or 2026-11-01.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    since: String,
    /// Jobs that ended before then; now where nothing is said.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Report {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a time cannot be read or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let now = time::now();
        let from = time::back(&self.since, now)?;
        // The scheduler's clock may be a little ahead: what ended just now belongs to it.
        let soon = At(now.0 + 60_000);
        let until = self.until.as_deref().map_or(Ok(soon), |text| time::back(text, now))?;
        let request = Request::Use { by: self.by.wire(), from, until };
        let reply = Client::connect(cluster)?.ask(&request)?;
        let Reply::Use(rows) = reply else { return Err(unexpected(&reply)) };
        let value: Vec<Value> = rows.iter().map(use_value).collect();
        let names = || rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join("\n");
        format.print("report", &value, || report(self.by.heading(), &rows), names)?;
        Ok(0)
    }
}

fn use_value(row: &UseRow) -> Value {
    json!({
        "name": row.name,
        "jobs": row.jobs,
        "failed": row.failed,
        "tasks": row.tasks,
        "spent": spent_value(&row.spent),
    })
}

fn report(heading: &str, rows: &[UseRow]) -> String {
    if rows.is_empty() {
        return "no job has ended in that time".into();
    }
    let mut all = rows.to_vec();
    if rows.len() > 1 {
        all.push(rows.iter().fold(
            UseRow { name: "all".into(), ..UseRow::default() },
            |sum, row| UseRow {
                jobs: sum.jobs + row.jobs,
                failed: sum.failed + row.failed,
                tasks: sum.tasks + row.tasks,
                spent: sum.spent.plus(&row.spent),
                ..sum
            },
        ));
    }
    let row = |row: &UseRow| {
        let Spent { core_ms, gpu_ms, cpu_ms, memory_peak, .. } = row.spent;
        vec![
            row.name.clone(),
            row.jobs.to_string(),
            row.failed.to_string(),
            row.tasks.to_string(),
            hours(core_ms),
            hours(gpu_ms),
            share(cpu_ms, core_ms),
            memory_peak.to_string(),
        ]
    };
    let heading =
        [heading, "JOBS", "FAILED", "TASKS", "CORE H", "GPU H", "CPU USED", "MEMORY PEAK"];
    output::aligned(&heading, &all.iter().map(row).collect::<Vec<_>>(), 1..8)
}

/// Hours with one decimal, rounded.
pub(super) fn hours(millis: u64) -> String {
    let tenths = millis.saturating_add(180_000) / 360_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// How much of what was leased was used.
fn share(used: u64, leased: u64) -> String {
    match leased {
        0 => String::new(),
        _ => format!("{} %", u128::from(used) * 100 / u128::from(leased)),
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::MemoryMib;

    use super::*;

    #[test]
    fn hours_are_rounded_to_tenths() {
        for (millis, text) in [
            (0, "0.0"),
            (179_999, "0.0"),
            (180_000, "0.1"),
            (3_600_000, "1.0"),
            (5_400_000, "1.5"),
            (3_600_000 * 12_345, "12345.0"),
        ] {
            assert_eq!(hours(millis), text, "{millis}");
        }
    }

    #[test]
    fn a_report_has_its_numbers_at_the_right_and_a_sum() {
        let row = |name: &str, jobs, hours: u64| UseRow {
            name: name.into(),
            jobs,
            failed: 1,
            tasks: jobs * 2,
            spent: Spent {
                core_ms: hours * 3_600_000,
                gpu_ms: 0,
                cpu_ms: hours * 1_800_000,
                memory_peak: MemoryMib(jobs),
                ..Spent::default()
            },
        };
        let rows = [row("ada", 3, 7), row("grace", 12, 1200)];
        assert_eq!(
            report("USER", &rows).lines().collect::<Vec<_>>(),
            [
                "USER   JOBS  FAILED  TASKS  CORE H  GPU H  CPU USED  MEMORY PEAK",
                "ada       3       1      6     7.0    0.0      50 %           3M",
                "grace    12       1     24  1200.0    0.0      50 %          12M",
                "all      15       2     30  1207.0    0.0      50 %          12M",
            ]
        );
        assert_eq!(report("USER", &rows[..1]).lines().count(), 2, "a sum of one says nothing");
        assert_eq!(report("USER", &[]), "no job has ended in that time");
    }

    #[test]
    fn pages_follow_one_another_up_to_the_limit() {
        let row = |job| JobRow { job: JobId(job), ..JobRow::default() };
        for (limit, expected) in [(100, 5), (3, 3), (0, 0)] {
            let mut ask = |request: &Request| {
                let Request::History { query } = request else { panic!("{request:?}") };
                let next = query.before.map_or(5, |job| job.0 - 1);
                let rows: Vec<JobRow> = (1..=next).rev().take(2).map(row).collect();
                Ok(Reply::Jobs { more: next > 2, rows })
            };
            let found = pages(HistoryQuery::default(), limit, &mut ask).unwrap();
            let expected: Vec<JobId> = (1..=5).rev().take(expected).map(JobId).collect();
            assert_eq!(found.iter().map(|row| row.job).collect::<Vec<_>>(), expected, "{limit}");
        }
    }
}
