//! Job files: many jobs in one TOML file, with dependencies between them by name.
//!
//! `[[job]]` describes one job with the keys that `gantry submit` has as flags, or with those of
//! `gantry preprocess`, `train` and `predict` where it says so as its `kind`; `[defaults]` what all
//! of them share. The whole file is checked before anything is submitted, with the scheduler's own
//! `JobSpec::validate`, and a mistake is said with line and column. Jobs come out in an order in
//! which every job stands after those it waits for.
//!
//! Left to the command: the folder of a job that names none, the ids that the scheduler gives, and
//! what only a library knows ([`FileBuiltin`]).

mod draft;
mod file;
mod keys;
mod kind;
mod order;
mod text;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{Dependency, DependencyKind, DependencyScope, JobId};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::load::SettingsError;
use crate::nearest::nearest;
use draft::{Draft, Other};
pub use file::{FileDependency, FileJob, JobFile};
pub use kind::{FileBuiltin, FileModel, FileSeries, FileTraining, FileWork, Kind, Placed, Spot};
pub use text::{DependencyText, GpuAmount, LicenceText, RetryCodes};

/// Jobs of one file: their table must still be read by a person, and each is one submit.
pub const FILE_JOBS_MAX: usize = 1000;
/// Bytes of a file: a thousand jobs of 4 KiB each.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// The shipped job files, by name: to be copied and changed.
pub const EXAMPLES: &[(&str, &str)] = &[("chest-ct", include_str!("../files/jobs/chest-ct.toml"))];

/// What is wrong, and at which byte of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    at: usize,
    reason: String,
}

impl Mistake {
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self { at, reason: reason.into() }
    }

    fn placed(self, path: &str, text: &str) -> SettingsError {
        let before = text.get(..self.at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        SettingsError::Text { path: path.to_owned(), line, column, reason: self.reason }
    }
}

impl JobFile {
    /// Reads a job file's text that came from `path`.
    ///
    /// # Errors
    /// Where it is too long, no TOML, or a job in it is wrong: with line, column, key and what to do.
    pub fn parse(path: &str, text: &str) -> Result<Self, SettingsError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(SettingsError::Value {
                path: path.to_owned(),
                reason: format!(
                    "the file has {} bytes; at most {FILE_BYTES_MAX} are allowed, split it or put long scripts into files of their own",
                    text.len()
                ),
            });
        }
        read(path, text).map_err(|mistake| mistake.placed(path, text))
    }
}

fn read(path: &str, text: &str) -> Result<JobFile, Mistake> {
    let document = DeTable::parse(text).map_err(|error| {
        let first = error.message().lines().next().unwrap_or_default().to_owned();
        Mistake::new(error.span().map_or(0, |span| span.start), first)
    })?;
    let (defaults, tables) = parts(document.get_ref())?;
    let mut shared = Draft::default();
    if let Some((at, table)) = defaults {
        shared.fill(at, table, draft::Place::Defaults)?;
    }
    let mut drafts = Vec::with_capacity(tables.len());
    for (at, table) in tables {
        let mut draft = shared.clone();
        draft.fill(at, table, draft::Place::Job)?;
        drafts.push(draft);
    }
    let names = names(&drafts)?;
    let jobs: Vec<FileJob> =
        drafts.iter().map(|draft| resolve(draft, &drafts, &names)).collect::<Result<_, _>>()?;
    check_runs(&jobs)?;
    let order = order::order(&jobs)?;
    let file =
        JobFile { jobs: sorted(&order, &jobs), path: path.to_owned(), text: text.to_owned() };
    file.find_mistake()?;
    Ok(file)
}

/// A table and the byte at which it begins.
type Table<'a> = (usize, &'a DeTable<'a>);

/// The defaults and the jobs of a file.
fn parts<'a>(document: &'a DeTable<'a>) -> Result<(Option<Table<'a>>, Vec<Table<'a>>), Mistake> {
    let (mut defaults, mut jobs) = (None, Vec::new());
    for (key, value) in keys::in_order(document) {
        match key.get_ref().as_ref() {
            "defaults" => defaults = Some(table(value, "defaults", "[defaults]")?),
            "job" => {
                let list = value.get_ref().as_array().ok_or_else(|| {
                    Mistake::new(
                        value.span().start,
                        "each job has a table of its own; begin it with [[job]], in double brackets",
                    )
                })?;
                for item in list {
                    jobs.push(table(item, "job", "[[job]]")?);
                }
            }
            other => return Err(Mistake::new(key.span().start, unknown_part(other))),
        }
    }
    match jobs.len() {
        0 => Err(Mistake::new(0, "the file has no job; begin each with [[job]]")),
        count if count > FILE_JOBS_MAX => Err(Mistake::new(
            jobs[FILE_JOBS_MAX].0,
            format!(
                "the file has {count} jobs; at most {FILE_JOBS_MAX} are allowed, split it or make an array of what differs by a number"
            ),
        )),
        _ => Ok((defaults, jobs)),
    }
}

fn unknown_part(word: &str) -> String {
    if keys::known(word) {
        return format!(
            "{word:?} stands outside of a job; put it under [[job]], or under [defaults] for all jobs"
        );
    }
    match nearest(word, ["defaults", "job"]) {
        Some(near) => format!("there is no part {word:?} in a job file; did you mean {near:?}"),
        None => {
            format!("there is no part {word:?} in a job file; there are [defaults] and [[job]]")
        }
    }
}

fn table<'a>(
    value: &'a Spanned<DeValue<'a>>,
    name: &str,
    written: &str,
) -> Result<Table<'a>, Mistake> {
    let at = value.span().start;
    let found = value.get_ref();
    let fail = || {
        Mistake::new(at, format!("{name} is a table, not a {}; write {written}", found.type_str()))
    };
    found.as_table().map(|table| (at, table)).ok_or_else(fail)
}

/// Every job's place by its name.
fn names(drafts: &[Draft]) -> Result<BTreeMap<&str, usize>, Mistake> {
    let mut names = BTreeMap::new();
    for (place, draft) in drafts.iter().enumerate() {
        let name = draft.name.as_str();
        if name.parse::<JobId>().is_ok() {
            return Err(Mistake::new(
                draft.name_at,
                format!("the job name {name:?} looks like a job's id; choose another"),
            ));
        }
        if names.insert(name, place).is_some() {
            return Err(Mistake::new(
                draft.name_at,
                format!(
                    "two jobs of the file are named {name:?}; rename one, so that others can wait for it"
                ),
            ));
        }
    }
    Ok(names)
}

/// A job with its dependencies resolved: those by id stand in its specification, those within the
/// file beside it, by their places there.
fn resolve(
    draft: &Draft,
    drafts: &[Draft],
    names: &BTreeMap<&str, usize>,
) -> Result<FileJob, Mistake> {
    let trains =
        |name: &str| names.get(name).copied().filter(|place| drafts[*place].kind == Kind::Train);
    let (mut spec, builtin) = draft.finish(trains)?;
    let mut after = Vec::new();
    for Other { at, text } in &draft.after {
        let (kind, scope) = (text.kind, text.scope);
        if let Some(place) = names.get(text.job.as_str()) {
            after.push(FileDependency { place: *place, kind, scope, at: *at });
        } else if let Ok(job) = text.job.parse::<JobId>() {
            spec.after.push(Dependency { job, kind, scope });
        } else {
            let near = nearest(&text.job, names.keys().copied());
            let near = near.map_or_else(
                || "name a job of the file, or one of the cluster as j12".to_owned(),
                |near| format!("did you mean {near:?}"),
            );
            return Err(Mistake::new(
                *at,
                format!(
                    "after: {:?} waits for {:?}, which is no job of the file; {near}",
                    draft.name, text.job
                ),
            ));
        }
    }
    after.extend(builtin.as_ref().and_then(|builtin| training_of(builtin, &after)));
    Ok(FileJob { spec, after, builtin, at: draft.at })
}

/// A prediction waits for the training of its model, also where it does not say so.
fn training_of(builtin: &FileBuiltin, after: &[FileDependency]) -> Option<FileDependency> {
    let FileWork::Predict { model: Placed { value: FileModel::Job(place), spot }, .. } =
        &builtin.work
    else {
        return None;
    };
    let waits = |one: &FileDependency| one.place == *place && one.kind != DependencyKind::Fail;
    let (kind, scope) = (DependencyKind::Ok, DependencyScope::Job);
    let new = FileDependency { place: *place, kind, scope, at: spot.at };
    (!after.iter().any(waits)).then_some(new)
}

/// Two trainings of one run would write the same checkpoints.
fn check_runs(jobs: &[FileJob]) -> Result<(), Mistake> {
    let mut known = BTreeSet::new();
    for job in jobs {
        let Some(FileBuiltin { library, work: FileWork::Train(training), .. }) = &job.builtin
        else {
            continue;
        };
        let Some(run) = &training.run else { continue };
        let library = library.as_ref().map(|library| &library.value);
        if !known.insert((library, &run.value)) {
            return Err(Mistake::new(
                run.spot.at,
                format!(
                    "run: another training of the file is the run {:?}; give each its own name",
                    run.value
                ),
            ));
        }
    }
    Ok(())
}

/// The jobs in `order`, pointing at one another by their new places.
fn sorted(order: &[usize], jobs: &[FileJob]) -> Vec<FileJob> {
    let mut moved = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        moved[*old] = new;
    }
    let job = |old: &usize| {
        let mut job = jobs[*old].clone();
        for dependency in &mut job.after {
            dependency.place = moved[dependency.place];
        }
        if let Some(FileBuiltin { work: FileWork::Predict { model, .. }, .. }) = &mut job.builtin
            && let FileModel::Job(training) = &mut model.value
        {
            *training = moved[*training];
        }
        job
    };
    order.iter().map(job).collect()
}

/// Every key of a job, for documents and tests.
#[must_use]
pub fn job_keys() -> BTreeSet<&'static str> {
    keys::all().collect()
}
