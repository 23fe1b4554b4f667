//! Job files: many jobs in one TOML file, with dependencies between them by name.
//!
//! `[[job]]` describes one job with the keys that `gantry submit` has as flags, `[defaults]` what
//! all of them share. The whole file is checked before anything is submitted, with the scheduler's
//! own [`JobSpec::validate`], and a mistake is said with line and column. Jobs come out in an order
//! in which every job stands after those it waits for.
//!
//! Left to the command: the folder of a job that names none, and the ids that the scheduler gives.

mod keys;
mod order;
mod text;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{Dependency, DependencyKind, DependencyScope, JobId, JobSpec};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::load::SettingsError;
use keys::{Draft, Other};
pub use text::{DependencyText, GpuAmount, LicenceText, RetryCodes};

/// Jobs of one file: their table must still be read by a person, and each is one submit.
pub const FILE_JOBS_MAX: usize = 1000;
/// Bytes of a file: a thousand jobs of 4 KiB each.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// The jobs of a file, each after those it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFile {
    /// The jobs.
    pub jobs: Vec<FileJob>,
}

/// One job of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileJob {
    /// The job, with the dependencies on jobs outside of the file.
    pub spec: JobSpec,
    /// The dependencies on jobs of the file.
    pub after: Vec<FileDependency>,
}

/// A dependency on another job of the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDependency {
    /// Its place in [`JobFile::jobs`], before the one that waits.
    pub place: usize,
    /// When it counts as met.
    pub kind: DependencyKind,
    /// Whether it goes element by element.
    pub scope: DependencyScope,
}

impl FileJob {
    /// The job with all its dependencies, once those before it have these ids.
    #[must_use]
    pub fn with_ids(&self, ids: &[JobId]) -> JobSpec {
        let mut spec = self.spec.clone();
        spec.after.extend(self.after.iter().filter_map(|dependency| {
            let job = *ids.get(dependency.place)?;
            Some(Dependency { job, kind: dependency.kind, scope: dependency.scope })
        }));
        spec
    }
}

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
        read(text).map_err(|mistake| mistake.placed(path, text))
    }
}

fn read(text: &str) -> Result<JobFile, Mistake> {
    let document = DeTable::parse(text).map_err(|error| {
        let first = error.message().lines().next().unwrap_or_default().to_owned();
        Mistake::new(error.span().map_or(0, |span| span.start), first)
    })?;
    let (defaults, tables) = parts(document.get_ref())?;
    let mut shared = Draft::default();
    if let Some((at, table)) = defaults {
        shared.fill(at, table, keys::Place::Defaults)?;
    }
    let mut drafts = Vec::with_capacity(tables.len());
    for (at, table) in tables {
        let mut draft = shared.clone();
        draft.fill(at, table, keys::Place::Job)?;
        drafts.push(draft);
    }
    let names = names(&drafts)?;
    let mut after: Vec<Vec<(usize, FileDependency)>> = Vec::with_capacity(drafts.len());
    let mut specs = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        let (spec, inside) = resolve(draft, &names)?;
        specs.push(spec);
        after.push(inside);
    }
    check_elements(&drafts, &specs, &after)?;
    let named = |place: usize| drafts[place].name.as_str();
    let order = order::order(&after, named)?;
    let jobs = sorted(&order, &specs, &after);
    for (job, place) in jobs.iter().zip(&order) {
        let placeholders = vec![JobId(1); jobs.len()];
        job.with_ids(&placeholders).validate().map_err(|reject| {
            Mistake::new(drafts[*place].at, format!("job {:?}: {}", job.spec.name, reject.sentence))
        })?;
    }
    Ok(JobFile { jobs })
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
    match keys::nearest(word, ["defaults", "job"].into_iter()) {
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

/// A job with its dependencies resolved: those by id stand in it, those within the file beside it,
/// each with the byte where it is written.
fn resolve(
    draft: &Draft,
    names: &BTreeMap<&str, usize>,
) -> Result<(JobSpec, Vec<(usize, FileDependency)>), Mistake> {
    let mut spec = draft.spec()?;
    let mut inside = Vec::new();
    for Other { at, text } in &draft.after {
        let (kind, scope) = (text.kind, text.scope);
        if let Some(place) = names.get(text.job.as_str()) {
            inside.push((*at, FileDependency { place: *place, kind, scope }));
        } else if let Ok(job) = text.job.parse::<JobId>() {
            spec.after.push(Dependency { job, kind, scope });
        } else {
            let near = keys::nearest(&text.job, names.keys().copied());
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
    Ok((spec, inside))
}

/// Element by element needs the element on both sides.
fn check_elements(
    drafts: &[Draft],
    specs: &[JobSpec],
    after: &[Vec<(usize, FileDependency)>],
) -> Result<(), Mistake> {
    for (place, dependencies) in after.iter().enumerate() {
        for (at, dependency) in dependencies {
            let (own, others) = (specs[place].indices(), specs[dependency.place].indices());
            if dependency.scope == DependencyScope::Job || own == others {
                continue;
            }
            let missing = own.iter().find(|index| !others.contains(*index));
            let Some(missing) = missing else { continue };
            return Err(Mistake::new(
                *at,
                format!(
                    "after: {:?} waits element by element for {:?}, which has no element {missing}; give both the same array",
                    drafts[place].name, drafts[dependency.place].name
                ),
            ));
        }
    }
    Ok(())
}

/// The jobs in `order`, their dependencies pointing into it.
fn sorted(
    order: &[usize],
    specs: &[JobSpec],
    after: &[Vec<(usize, FileDependency)>],
) -> Vec<FileJob> {
    let mut moved = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        moved[*old] = new;
    }
    let job = |old: &usize| {
        let points = after[*old].iter();
        let after = points.map(|(_, dependency)| FileDependency {
            place: moved[dependency.place],
            ..*dependency
        });
        FileJob { spec: specs[*old].clone(), after: after.collect() }
    };
    order.iter().map(job).collect()
}

/// Every key of a job, for documents and tests.
#[must_use]
pub fn job_keys() -> BTreeSet<&'static str> {
    keys::all().collect()
}
