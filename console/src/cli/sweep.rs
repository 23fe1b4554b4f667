//! `gantry library sweep`: what killed writers left behind, shown first and removed then.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use gantry_library::{Leftover, Leftovers, Library, Removed, Tally};
use gantry_model::Millis;
use serde_json::json;

use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Lines of what is shown to people; the whole is in `--json`.
const SHOWN_MAX: usize = 10;

/// `gantry library sweep`.
///
/// Objects that no record names and files that never got their names take space and are nothing else: a
/// writer was killed. Shards of prepared samples that no training has used for that time, or that have lost
/// a sample, are made anew when one needs them. Without --yes nothing is removed, unless somebody at a terminal says so.
#[derive(Debug, Args)]
pub(super) struct Sweep {
    /// Leave what is younger than this, at least an hour: its writer may be at work. A shard is as old as its
    /// last use.
    #[arg(long, value_name = "TIME", default_value = "1d")]
    older_than: Millis,
    /// Remove what is found without asking.
    #[arg(long)]
    yes: bool,
}

impl Sweep {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the age is too small, a record is damaged, or the storage fails.
    pub(super) fn run(&self, library: &Library, format: Format) -> Outcome {
        let older_than = Duration::from_millis(self.older_than.0);
        let found = library.find_leftovers(older_than).map_err(Failure::trouble)?;
        let there = found.all().count();
        let remove = there > 0 && (self.yes || format == Format::Table && asked(&found)?);
        let removed = remove.then(|| library.remove_leftovers(&found)).transpose();
        let removed = removed.map_err(Failure::trouble)?;
        let value = json!({
            "records": found.records,
            "objects": found.objects,
            "young": found.young,
            "unnamed": found.unnamed,
            "temporary": found.temporary,
            "shards": found.shards,
            "bytes": found.bytes(),
            "removed": removed.unwrap_or_default(),
        });
        let people = || match removed {
            // What was found stands above the question.
            Some(removed) if !self.yes => done(&removed),
            Some(removed) => format!("{}\n{}", shown(&found), done(&removed)),
            None if there == 0 => shown(&found),
            None => format!("{}\nnothing was removed; --yes removes it", shown(&found)),
        };
        let quiet = || {
            let all = found.all();
            all.map(|one| one.place.display().to_string()).collect::<Vec<_>>().join("\n")
        };
        format.print("sweep", &value, people, quiet)?;
        Ok(0)
    }
}

/// Shows what was found to a person at a terminal, and asks. False where nobody is there.
fn asked(found: &Leftovers) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(false);
    }
    output::text(&shown(found))?;
    output::raw(b"remove it? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::trouble)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn shown(found: &Leftovers) -> String {
    let Leftovers { records, objects, young, unnamed, temporary, shards, .. } = found;
    let bytes = |of: &[Leftover]| of.iter().map(|one| one.bytes).sum();
    let mut lines = vec![
        format!("{records} records and {objects} objects looked at"),
        format!("{} objects are named by no record ({})", unnamed.len(), size(bytes(unnamed))),
        format!("{} files were never finished ({})", temporary.len(), size(bytes(temporary))),
    ];
    if !shards.is_empty() {
        lines.push(format!(
            "{} shards of prepared samples are not used any more ({})",
            shards.len(),
            size(bytes(shards))
        ));
    }
    if young.count > 0 {
        let Tally { count, bytes } = young;
        lines.push(format!(
            "{count} more ({}) are too young to tell: a writer may be about to name them",
            size(*bytes)
        ));
    }
    let all: Vec<&Leftover> = found.all().collect();
    for one in all.iter().take(SHOWN_MAX) {
        let age = Millis::from_seconds(one.age_s);
        lines.push(format!("  {}, {}, {age} old", one.place.display(), size(one.bytes)));
    }
    if all.len() > SHOWN_MAX {
        lines.push(format!("  and {} more", all.len() - SHOWN_MAX));
    }
    lines.join("\n")
}

fn done(removed: &Removed) -> String {
    let Removed { objects, temporary, shards, spared } = removed;
    let left = match spared {
        0 => String::new(),
        spared => format!("; {spared} were left, as writers came back to them"),
    };
    let of_shards = match shards.count {
        0 => String::new(),
        count => format!(", {count} shards"),
    };
    format!(
        "{} objects{of_shards} and {} files were removed, {} are free again{left}",
        objects.count,
        temporary.count,
        size(objects.bytes + temporary.bytes + shards.bytes)
    )
}

/// Bytes in a unit that people read.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes} bytes"),
        |(unit, name)| format!("{:.1} {name}", bytes as f64 / unit as f64),
    )
}
