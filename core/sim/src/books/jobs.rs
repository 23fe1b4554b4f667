//! What is known of a job: how it was changed, what of it may not start, and how its tasks went.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{
    Action, Exit, IndexSet, JobChange, JobId, JobRow, JobSpec, JobState, Millis, TryId,
};

use super::Books;

/// What was changed of one element alone.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    time_limit: Option<Millis>,
    retries: Option<u8>,
}

/// A job that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) group: String,
    /// As submitted, with what was changed since.
    pub(crate) spec: JobSpec,
    /// Whether all of it waits for a release.
    pub(crate) held: bool,
    /// Elements that wait for one.
    pub(crate) parked: BTreeSet<u32>,
    own: BTreeMap<u32, Own>,
    /// Tries that hold a lease, by element.
    pub(crate) live: BTreeMap<u32, TryId>,
    /// How often each was launched.
    pub(crate) starts: BTreeMap<u32, u32>,
    failures: BTreeMap<u32, u32>,
    gang_failures: u32,
    /// Elements that may not start any more: they have failed for good, or were cancelled.
    pub(crate) over: BTreeSet<u32>,
    /// Whether a task has failed for good.
    failed: bool,
    /// Elements that ended well.
    pub(crate) well: BTreeSet<u32>,
}

/// A job that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    pub(crate) state: JobState,
    pub(crate) well: BTreeSet<u32>,
}

impl Entry {
    fn new(group: String, spec: JobSpec) -> Self {
        Self {
            group,
            held: spec.held,
            spec,
            parked: BTreeSet::new(),
            own: BTreeMap::new(),
            live: BTreeMap::new(),
            starts: BTreeMap::new(),
            failures: BTreeMap::new(),
            gang_failures: 0,
            over: BTreeSet::new(),
            failed: false,
            well: BTreeSet::new(),
        }
    }

    /// The time limit of an element.
    pub(crate) fn time_limit(&self, index: u32) -> Option<Millis> {
        self.own.get(&index).and_then(|own| own.time_limit).or(self.spec.time_limit)
    }

    fn retries(&self, index: u32) -> u32 {
        u32::from(self.own.get(&index).and_then(|own| own.retries).unwrap_or(self.spec.retries))
    }

    pub(super) fn cancel(&mut self, indices: Option<&IndexSet>) {
        let indices = indices.filter(|_| self.spec.gang.is_none());
        let all = self.spec.indices();
        self.over
            .extend(all.iter().filter(|index| indices.is_none_or(|some| some.contains(*index))));
    }

    fn hold(&mut self, indices: Option<&IndexSet>) {
        match indices.filter(|_| self.spec.gang.is_none()) {
            None => self.held = true,
            Some(some) => {
                // What runs goes on, and may start again once it has been stopped.
                let waits = some.iter().filter(|index| !self.live.contains_key(index));
                let waits: Vec<u32> = waits.collect();
                self.parked.extend(waits);
            }
        }
    }

    fn let_go(&mut self, indices: Option<&IndexSet>) {
        match indices.filter(|_| self.spec.gang.is_none()) {
            None => self.parked.clear(),
            Some(some) => self.parked.retain(|index| !some.contains(*index)),
        }
        self.held = false;
    }

    fn change(&mut self, indices: Option<&IndexSet>, change: &JobChange) {
        if let Some(indices) = indices {
            for index in indices.iter() {
                let own = self.own.entry(index).or_default();
                own.time_limit = change.time_limit.or(own.time_limit);
                own.retries = change.retries.or(own.retries);
            }
            return;
        }
        let spec = &mut self.spec;
        spec.priority = change.priority.unwrap_or(spec.priority);
        spec.time_limit = change.time_limit.or(spec.time_limit);
        spec.estimate = change.estimate.or(spec.estimate);
        spec.retries = change.retries.unwrap_or(spec.retries);
        if let (Some(array), Some(cap)) = (&mut spec.array, change.at_once_max) {
            array.at_once_max = Some(cap);
        }
        for own in self.own.values_mut() {
            own.time_limit = own.time_limit.filter(|_| change.time_limit.is_none());
            own.retries = own.retries.filter(|_| change.retries.is_none());
        }
    }

    /// A try of an element has ended; says whether its gang has fallen by it.
    pub(super) fn ends(&mut self, index: u32, exit: &Exit, told: bool) -> bool {
        let gang = self.spec.gang.is_some();
        if exit.is_success() {
            if !gang || !told {
                self.well.insert(index);
            }
            return false;
        }
        if told {
            return false;
        }
        if *exit == Exit::NodeLost {
            return gang;
        }
        let codes = &self.spec.retry_codes;
        let mends = codes.is_empty() || matches!(exit, Exit::Code(code) if codes.contains(code));
        let retries = self.retries(index);
        let failures =
            if gang { &mut self.gang_failures } else { self.failures.entry(index).or_default() };
        *failures += 1;
        if !mends || *failures > retries {
            self.failed = true;
            if gang {
                self.over.extend(self.spec.indices().iter());
            } else {
                self.over.insert(index);
            }
        }
        gang
    }
}

impl Books {
    /// A job is known from now on.
    pub(super) fn enter(&mut self, job: JobId, user: &str, spec: &JobSpec) {
        if self.ended.contains_key(&job) || self.jobs.contains_key(&job) {
            return;
        }
        let lists = self.settings.groups.iter().find(|(_, group)| group.users.contains(user));
        let own = lists.map_or(user, |(name, _)| name.as_str());
        let group = spec.group.as_deref().unwrap_or(own).to_owned();
        self.jobs.insert(job, Entry::new(group, spec.clone()));
    }

    /// A person has changed something.
    pub(super) fn acted(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Hold { job, indices } => self.open(*job)?.hold(indices.as_ref()),
            Action::Release { job, indices } => self.open(*job)?.let_go(indices.as_ref()),
            Action::Change { job, indices, change } => {
                self.open(*job)?.change(indices.as_ref(), change);
            }
            Action::Requeue { job, .. } => drop(self.open(*job)?),
            Action::Drain { node, deadline, .. } => {
                self.place(crate::server::number(node)).drain(*deadline);
            }
            Action::Resume { node } => self.place(crate::server::number(node)).resume(),
            Action::AddWindow { node, window } => {
                self.place(crate::server::number(node)).windows.push(window.clone());
            }
            Action::DropWindows { node } => {
                self.place(crate::server::number(node)).windows.clear();
            }
            Action::Forget { node } => {
                self.counts.forgotten += 1;
                self.place(crate::server::number(node)).forget();
            }
        }
        Ok(())
    }

    fn open(&mut self, job: JobId) -> Result<&mut Entry, String> {
        self.jobs.get_mut(&job).ok_or_else(|| format!("{job} is changed and has ended"))
    }

    /// A job has ended: nothing of it holds a lease, and if it failed there is a task that did.
    pub(super) fn job_ended(&mut self, row: &JobRow) -> Result<(), String> {
        let job = row.job;
        let Some(entry) = self.jobs.remove(&job) else {
            return Err(format!("{job} has ended and was not open"));
        };
        let Entry { well, failed, live, .. } = entry;
        self.ended.insert(job, Over { state: row.state, well });
        if let Some((index, try_id)) = live.first_key_value() {
            return Err(format!("{job} has ended and {job}.{index} runs as {try_id}"));
        }
        if (row.state == JobState::Fail) != failed {
            let word = row.state.word();
            return Err(format!("{job} has ended as {word}; a task failed for good: {failed}"));
        }
        Ok(())
    }
}
