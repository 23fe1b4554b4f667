//! Several benchmarks as one Markdown document: on what, with what and when, and a table for each.
//!
//! Each runs in a process of its own, so that none finds the memory and the threads of the one before.
//! One that fails is named at the end and keeps nobody else back.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use gantry_model::{At, Millis};

use crate::{ALL, BENCHMARKS, Benchmark, statistics};

/// Measures, and prints as it goes on: Markdown, or a JSON value a line.
pub(crate) fn print(asked: &[&Benchmark], json: bool) -> Result<()> {
    let mut out = std::io::stdout();
    if !json {
        writeln!(out, "{}", head(now()))?;
    }
    let mut failed = Vec::new();
    for one in asked {
        let begun = Instant::now();
        let table = table(one.word, json);
        let took = Millis::from_seconds(begun.elapsed().as_secs());
        let how = if table.is_ok() { "took" } else { "failed after" };
        writeln!(std::io::stderr(), "{} {how} {took}", one.word)?;
        match table {
            Ok(table) if json => write!(out, "{table}")?,
            Ok(table) => writeln!(out, "## {}\n\n{}.\n\n{table}", one.word, one.about)?,
            Err(_) => failed.push(one.word),
        }
    }
    ensure!(failed.is_empty(), "these failed, and said above why: {}", failed.join(", "));
    Ok(())
}

fn now() -> At {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    At(since.as_millis() as u64)
}

/// Runs one of them with the options of this process; what it prints.
fn table(word: &str, json: bool) -> Result<String> {
    let is_name = |word: &str| word == ALL || BENCHMARKS.iter().any(|one| one.word == word);
    let options = std::env::args().skip(1).filter(|word| !is_name(word) && word != "--json");
    let form = if json { "--json" } else { "--markdown" };
    let output = Command::new(std::env::current_exe()?)
        .args([word, form])
        .args(options)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "it failed");
    Ok(String::from_utf8(output.stdout)?)
}

fn head(at: At) -> String {
    format!(
        "# Measurements\n\ngantry {}, {}, on {}. Every figure of a table is from one run; a dash stands for \
         what was not there.\n",
        env!("CARGO_PKG_VERSION"),
        gantry::cli::time::stamp(at),
        statistics::machine(),
    )
}
