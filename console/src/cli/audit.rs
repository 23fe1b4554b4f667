//! `gantry audit`: who did what to which, and whether the log of it is as it was written.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gantry_wire::{AuditPage, AuditQuery, AuditReport, AuditRow, Reply, Request};
use serde_json::{Value, json};

use super::client::{Client, Reach, unexpected};
use super::time;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Lines that are printed where nothing is said.
const LIMIT: usize = 200;

/// `gantry audit`; without a verb the newest lines are listed.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
enum Verb {
    /// List what was changed, and what was refused.
    List(List),
    /// Look whether the log is as it was written, and name the first line that is not; exits with 1
    /// then.
    Verify {
        /// A scheduler's folder, or a copy of its audit log; that of the running scheduler where absent.
        folder: Option<PathBuf>,
    },
}

/// Which lines.
#[derive(Clone, Debug, Args)]
struct List {
    /// Only what this person or node did.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only what was done since then: 2h ago, or 2026-11-24, also with T18:00.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was done before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only what was refused.
    #[arg(long)]
    refused: bool,
    /// At most so many of the newest lines, 0 for all.
    #[arg(long, short = 'n', value_name = "N", default_value_t = LIMIT)]
    limit: usize,
}

impl Audit {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a time cannot be read, the scheduler is not there or refuses, or a folder cannot be read.
    pub fn run(self, cluster: Reach, format: Format) -> Outcome {
        match self.verb {
            None => self.list.run(cluster, format),
            Some(Verb::List(list)) => list.run(cluster, format),
            Some(Verb::Verify { folder }) => verify(cluster, folder, format),
        }
    }
}

impl List {
    fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let now = time::now();
        let point =
            |text: &Option<String>| text.as_deref().map(|text| time::back(text, now)).transpose();
        let query = AuditQuery {
            who: self.user.clone(),
            from: point(&self.since)?,
            until: point(&self.until)?,
            refused: self.refused,
            before: None,
        };
        let client = Client::connect(cluster)?;
        let rows = newest(&query, self.limit, &mut |request| client.ask(request))?;
        let value: Vec<Value> = rows.iter().map(row_value).collect();
        let numbers = || rows.iter().map(|row| row.number.to_string()).collect::<Vec<_>>();
        format.print("audit", &value, || table(&rows), || numbers().join("\n"))?;
        Ok(0)
    }
}

/// One way to ask the scheduler.
type Ask<'a> = dyn FnMut(&Request) -> Result<Reply, Failure> + 'a;

/// The newest lines, oldest first.
fn newest(query: &AuditQuery, limit: usize, ask: &mut Ask) -> Result<Vec<AuditRow>, Failure> {
    let mut all: Vec<AuditRow> = Vec::new();
    let mut before = None;
    loop {
        let query = AuditQuery { before, ..query.clone() };
        let page = match ask(&Request::Audit { query })? {
            Reply::Audit(page) => page,
            other => return Err(unexpected(&other)),
        };
        let AuditPage { rows, first, more } = page;
        all.extend(rows.into_iter().rev());
        before = Some(first);
        if !more || (limit > 0 && all.len() >= limit) {
            break;
        }
    }
    if limit > 0 {
        all.truncate(limit);
    }
    all.reverse();
    Ok(all)
}

fn verify(cluster: Reach, folder: Option<PathBuf>, format: Format) -> Outcome {
    let report = match folder {
        Some(folder) => gantry_scheduler::verify_audit(&folder).map_err(Failure::trouble)?,
        None => match Client::connect(cluster)?.ask(&Request::VerifyAudit)? {
            Reply::Verified(report) => report,
            other => return Err(unexpected(&other)),
        },
    };
    let broken = report.broken.as_ref();
    let value = json!({
        "first": report.first,
        "last": report.last,
        "head": report.head,
        "broken": broken.map(|(line, what)| json!({ "line": line, "what": what })),
    });
    format.print("verified", &value, || sentence(&report), || report.head.clone())?;
    Ok(u8::from(broken.is_some()))
}

fn sentence(report: &AuditReport) -> String {
    let AuditReport { first, last, head, broken } = report;
    match broken {
        Some((line, what)) => {
            format!("line {line} {what}; what stands before it is as it was written")
        }
        None if *last == 0 => "nothing is in the audit log yet".into(),
        None => format!(
            "lines {first} to {last} are as they were written\nthe newest has the hash {head}; kept elsewhere, it shows later that nothing up to here was changed"
        ),
    }
}

fn row_value(row: &AuditRow) -> Value {
    json!({
        "number": row.number,
        "at_ms": row.at.0,
        "who": row.who,
        "role": row.role,
        "from": row.from,
        "what": row.what,
        "whom": row.whom,
        "answer": answer(row),
        "why": row.why,
    })
}

const fn answer(row: &AuditRow) -> &'static str {
    if row.refused { "refused" } else { "done" }
}

fn table(rows: &[AuditRow]) -> String {
    if rows.is_empty() {
        return "no line of the audit log matches; ask with fewer conditions or more time".into();
    }
    let row = |row: &AuditRow| {
        let who = if row.who.is_empty() { "-" } else { &row.who };
        let answer = match (row.refused, row.why.as_str()) {
            (false, "") => "done".to_owned(),
            (false, why) => format!("done, {why}"),
            (true, "") => "REFUSED".to_owned(),
            (true, why) => format!("REFUSED: {why}"),
        };
        let cells =
            [&time::stamp(row.at), who, &row.role, &row.from, &row.what, &row.whom, &answer];
        let mut line = vec![row.number.to_string()];
        line.extend(cells.map(str::to_owned));
        line
    };
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    let heading = ["LINE", "TIME", "WHO", "ROLE", "FROM", "WHAT", "TO", "ANSWER"];
    output::table(&heading, &rows)
}

#[cfg(test)]
mod tests {
    use gantry_model::At;

    use super::*;

    fn row(number: u64) -> AuditRow {
        let (who, what, whom) = ("ada".into(), "cancel".into(), "j7".into());
        AuditRow { number, at: At(1), who, what, whom, ..AuditRow::default() }
    }

    #[test]
    fn pages_are_asked_for_until_there_are_enough() {
        // Three pages of two lines, with an empty one between them.
        let pages =
            [(vec![5, 6], 5, true), (vec![], 4, true), (vec![2, 3], 2, true), (vec![1], 1, false)];
        for (limit, expected, questions) in
            [(0, vec![1, 2, 3, 5, 6], 4), (2, vec![5, 6], 1), (3, vec![3, 5, 6], 3)]
        {
            let mut asked = Vec::new();
            let mut ask = |request: &Request| {
                let Request::Audit { query } = request else { panic!() };
                asked.push(query.before);
                let (rows, first, more) = pages[asked.len() - 1].clone();
                let rows = rows.into_iter().map(row).collect();
                Ok(Reply::Audit(AuditPage { rows, first, more }))
            };
            let rows = newest(&AuditQuery::default(), limit, &mut ask).unwrap();
            let numbers: Vec<u64> = rows.iter().map(|row| row.number).collect();
            assert_eq!((numbers, asked.len()), (expected, questions), "{limit}");
            assert_eq!(asked[0], None);
            assert!(asked.iter().skip(1).zip([5, 4, 2]).all(|(one, first)| *one == Some(first)));
        }
    }

    #[test]
    fn what_was_refused_says_why_and_a_break_says_where() {
        let refused = AuditRow { refused: true, why: "forbidden".into(), ..row(3) };
        let table = table(&[row(2), refused]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].ends_with("cancel  j7  done"), "{table}");
        assert!(lines[2].ends_with("REFUSED: forbidden"), "{table}");
        let broken = Some((3, "is missing".to_owned()));
        let report = AuditReport { first: 1, last: 9, head: "ab".into(), broken };
        assert!(sentence(&report).starts_with("line 3 is missing"));
        assert!(sentence(&AuditReport { broken: None, ..report }).contains("the hash ab"));
    }
}
