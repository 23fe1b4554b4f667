//! The jobs of a file once they are read, and what may still be done with them.
//!
//! [`JobFile::check`] is the one check of the whole: the reader runs it, and the command runs it
//! again once it has filled in what only a library knows. A job that turns out to have nothing to do
//! is left out ([`JobFile::leave_out`]), and those that waited for it wait for what it waited for.

use std::fmt::Display;

use gantry_model::{
    Array, Builtin, Dependency, DependencyKind, DependencyScope, IndexSet, JobId, JobSpec, Work,
};

use super::Mistake;
use super::kind::{FileBuiltin, FileModel, FileWork, Spot};
use crate::load::SettingsError;

/// The jobs of a file, each after those it waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct JobFile {
    /// The jobs.
    pub jobs: Vec<FileJob>,
    pub(super) path: String,
    pub(super) text: String,
}

/// One job of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileJob {
    /// The job, with the dependencies on jobs outside of the file. The work of a built-in operation
    /// is as the file writes it until the command fills it in.
    pub spec: JobSpec,
    /// The dependencies on jobs of the file.
    pub after: Vec<FileDependency>,
    /// What is to be filled in; nothing for a command.
    pub builtin: Option<FileBuiltin>,
    /// Where its table begins.
    pub(super) at: usize,
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
    /// Where it is written.
    pub(super) at: usize,
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

    /// Its series, where it has one task for each.
    fn series(&self) -> Option<&[String]> {
        match &self.spec.work {
            Work::Builtin(Builtin::Preprocess { series, .. } | Builtin::Predict { series, .. }) => {
                Some(series)
            }
            Work::Builtin(Builtin::Train { .. }) | Work::Command { .. } => None,
        }
    }

    /// Whether only the library knows how many tasks it has.
    fn is_open(&self) -> bool {
        self.series().is_some_and(<[String]>::is_empty)
    }

    /// The job as it is checked: one series stands for those that are not known yet.
    fn checked(&self, ids: &[JobId]) -> JobSpec {
        let mut spec = self.with_ids(ids);
        if self.is_open()
            && let Work::Builtin(
                Builtin::Preprocess { series, .. } | Builtin::Predict { series, .. },
            ) = &mut spec.work
        {
            series.push(String::new());
            spec.array = Some(Array { indices: IndexSet::first(1), at_once_max: None });
        }
        spec
    }
}

impl JobFile {
    /// Checks every job with the scheduler's own check, and that elements wait for elements that
    /// exist.
    ///
    /// # Errors
    /// With line and column of the first mistake.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.find_mistake().map_err(|mistake| mistake.placed(&self.path, &self.text))
    }

    pub(super) fn find_mistake(&self) -> Result<(), Mistake> {
        let placeholders = vec![JobId(1); self.jobs.len()];
        for job in &self.jobs {
            for dependency in &job.after {
                self.check_elements(job, dependency)?;
            }
            job.checked(&placeholders).validate().map_err(|reject| {
                Mistake::new(job.at, format!("job {:?}: {}", job.spec.name, reject.sentence))
            })?;
        }
        Ok(())
    }

    /// A mistake in a value of the file that was found later.
    #[must_use]
    pub fn mistake(&self, spot: &Spot, reason: impl Display) -> SettingsError {
        Mistake::new(spot.at, format!("{}: {reason}", spot.key)).placed(&self.path, &self.text)
    }

    /// Element by element needs the element on both sides, and where both go over series the same
    /// series.
    fn check_elements(&self, job: &FileJob, dependency: &FileDependency) -> Result<(), Mistake> {
        let other = &self.jobs[dependency.place];
        if dependency.scope == DependencyScope::Job || job.is_open() || other.is_open() {
            return Ok(());
        }
        let (own, others) = (job.spec.indices(), other.spec.indices());
        let (name, waited) = (&job.spec.name, &other.spec.name);
        if own != others
            && let Some(missing) = own.iter().find(|index| !others.contains(*index))
        {
            return Err(Mistake::new(
                dependency.at,
                format!(
                    "after: {name:?} waits element by element for {waited:?}, which has no element {missing}; give both the same {}",
                    if other.series().is_some() { "series" } else { "array" }
                ),
            ));
        }
        let (Some(series), Some(theirs)) = (job.series(), other.series()) else { return Ok(()) };
        match series.iter().zip(theirs).position(|(own, other)| own != other) {
            None => Ok(()),
            Some(index) => Err(Mistake::new(
                dependency.at,
                format!(
                    "after: {name:?} waits element by element for {waited:?}, and element {index} is another series there; give both the same series, or wait for the whole job as ok:{waited}"
                ),
            )),
        }
    }

    /// Takes out a job that has nothing to do. What waited for it waits for what it waited for.
    ///
    /// # Errors
    /// Where a job waits for its failure, with line and column of that.
    pub fn leave_out(&mut self, place: usize) -> Result<(), SettingsError> {
        let waits = |job: &FileJob| job.after.iter().find(|one| one.place == place).copied();
        let failing = self
            .jobs
            .iter()
            .flat_map(|job| &job.after)
            .find(|one| one.place == place && one.kind == DependencyKind::Fail);
        if let Some(dependency) = failing {
            let name = &self.jobs[place].spec.name;
            let reason = format!(
                "after: a job waits for {name:?} to fail, which has nothing to do; take one of the two out"
            );
            return Err(Mistake::new(dependency.at, reason).placed(&self.path, &self.text));
        }
        let left = self.jobs.remove(place);
        for job in &mut self.jobs {
            if let Some(waited) = waits(job) {
                inherit(job, &left, waited);
            }
            job.after.retain(|one| one.place != place);
            for one in &mut job.after {
                one.place = without(place, one.place);
            }
            if let Some(FileBuiltin { work: FileWork::Predict { model, .. }, .. }) =
                &mut job.builtin
                && let FileModel::Job(training) = &mut model.value
            {
                *training = without(place, *training);
            }
        }
        Ok(())
    }
}

/// Where a job stands once the one at `place` is taken out.
const fn without(place: usize, other: usize) -> usize {
    if other > place { other - 1 } else { other }
}

/// Lets `job`, which waited for `left`, wait for what that waited for. Where it waited for any end
/// it still does: a job that cannot start any more has ended.
fn inherit(job: &mut FileJob, left: &FileJob, waited: FileDependency) {
    let kind = |kind| match waited.kind {
        DependencyKind::Any => DependencyKind::Any,
        DependencyKind::Ok | DependencyKind::Fail => kind,
    };
    let (scope, at) = (DependencyScope::Job, waited.at);
    for one in &left.after {
        let new = FileDependency { place: one.place, kind: kind(one.kind), scope, at };
        let same = |old: &FileDependency| (old.place, old.kind) == (new.place, new.kind);
        if !job.after.iter().any(same) {
            job.after.push(new);
        }
    }
    for one in &left.spec.after {
        let new = Dependency { job: one.job, kind: kind(one.kind), scope };
        if !job.spec.after.contains(&new) {
            job.spec.after.push(new);
        }
    }
}
