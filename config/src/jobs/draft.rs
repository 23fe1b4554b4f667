//! A job while its table is read: what its keys have said so far, and the job that they make.

use gantry_model::{Array, Builtin, Gang, IndexSet, JobSpec, MemoryMib, Work};
use toml::de::DeTable;

use super::Mistake;
use super::keys::{self, in_order};
use super::kind::{FileBuiltin, Kind, Operation};
use super::text::{DependencyText, GpuAmount};
use super::value::Entry;

/// Where a table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In `[defaults]`.
    Defaults,
    /// In `[[job]]`.
    Job,
}

/// A dependency as written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) at: usize,
    pub(super) text: DependencyText,
}

/// A job while its table is read.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Where its table begins.
    pub(super) at: usize,
    pub(super) name: String,
    /// Where its name is written.
    pub(super) name_at: usize,
    pub(super) after: Vec<Other>,
    pub(super) kind: Kind,
    pub(super) operation: Operation,
    /// Where `label` is written under `[defaults]`.
    label_at: Option<usize>,
    pub(super) spec: JobSpec,
    pub(super) command: Option<Vec<String>>,
    pub(super) script: Option<String>,
    pub(super) folder: Option<String>,
    pub(super) amount: GpuAmount,
    pub(super) mig: Option<String>,
    pub(super) gpu_model: Option<String>,
    pub(super) gpu_memory: MemoryMib,
    pub(super) ranks: Option<u32>,
    pub(super) nodes: Option<u32>,
}

impl Default for Draft {
    fn default() -> Self {
        let work = Work::Command { arguments: Vec::new(), folder: None };
        Self {
            at: 0,
            name: String::new(),
            name_at: 0,
            after: Vec::new(),
            kind: Kind::default(),
            operation: Operation::default(),
            label_at: None,
            spec: JobSpec::new("", work),
            command: None,
            script: None,
            folder: None,
            amount: GpuAmount::default(),
            mig: None,
            gpu_model: None,
            gpu_memory: MemoryMib(0),
            ranks: None,
            nodes: None,
        }
    }
}

impl Draft {
    /// Takes over what a table says. Entries are read in the order of the text, so that the first
    /// mistake is the one that is said.
    pub(super) fn fill(
        &mut self,
        at: usize,
        table: &DeTable<'_>,
        place: Place,
    ) -> Result<(), Mistake> {
        self.at = at;
        self.name_at = at;
        if place == Place::Job {
            self.fill_kind(table)?;
        }
        for (key, value) in in_order(table) {
            let word = key.get_ref().as_ref();
            let wrong = |reason| Err(Mistake::new(key.span().start, reason));
            let Some((kinds, set)) = keys::find(word) else {
                let kind = (place == Place::Job).then_some(self.kind);
                return wrong(keys::unknown(word, kind));
            };
            if place == Place::Defaults && keys::OF_ONE_JOB.contains(&word) {
                return wrong(format!("{word} belongs to one job; put it under [[job]]"));
            }
            if place == Place::Job && !kinds.contains(&self.kind) {
                return wrong(keys::misplaced(word, kinds, self.kind));
            }
            set(self, &Entry::new(word, value))?;
            if place == Place::Defaults && word == "label" {
                self.label_at = Some(key.span().start);
            }
        }
        if place == Place::Job && self.name.is_empty() {
            return Err(Mistake::new(at, "the job has no name; write name = \"…\""));
        }
        Ok(())
    }

    /// Reads the kind, by which the other keys are read, and lets go of what a job of this kind
    /// does not have from `[defaults]`.
    fn fill_kind(&mut self, table: &DeTable<'_>) -> Result<(), Mistake> {
        let kind = in_order(table).into_iter().find(|(key, _)| key.get_ref().as_ref() == "kind");
        let Some((_, value)) = kind else { return Ok(()) };
        let entry = Entry::new("kind", value);
        self.kind = entry.word()?;
        self.operation.spot = entry.placed(()).spot;
        if self.kind == Kind::Command {
            return Ok(());
        }
        if let Some(at) = self.label_at {
            return Err(Mistake::new(
                at,
                "label is a node's for a command, and what is learnt for a training; write node-label under [defaults]",
            ));
        }
        self.folder = None;
        if self.kind != Kind::Train {
            (self.ranks, self.nodes) = (None, None);
        }
        self.spec.array = None;
        self.spec.environment.clear();
        Ok(())
    }

    /// The job as it is submitted, without the dependencies, and what is to be filled in.
    /// `trains` gives the place of a training by its name.
    pub(super) fn finish(
        &self,
        trains: impl Fn(&str) -> Option<usize>,
    ) -> Result<(JobSpec, Option<FileBuiltin>), Mistake> {
        let fail = |reason: String| Mistake::new(self.at, format!("job {:?}: {reason}", self.name));
        let builtin = self.operation.finish(self.kind, trains)?;
        let work = match &builtin {
            Some(builtin) => Work::Builtin(builtin.written()),
            None => self.work(&fail)?,
        };
        let gpu = self
            .amount
            .demand(self.mig.as_deref(), self.gpu_model.as_deref(), self.gpu_memory)
            .map_err(|reject| fail(reject.sentence))?;
        let gang = match (self.ranks, self.nodes) {
            (None, Some(_)) => {
                return Err(fail(
                    "nodes says over how many nodes ranks are spread, and there are no ranks; add ranks, or write node for one node by its name".into(),
                ));
            }
            (ranks, nodes) => ranks.map(|ranks| Gang { ranks, nodes }),
        };
        let mut spec = JobSpec { name: self.name.clone(), work, gpu, gang, ..self.spec.clone() };
        spec.resources.gpus = self.amount.count;
        if let Work::Builtin(Builtin::Preprocess { series, .. } | Builtin::Predict { series, .. }) =
            &spec.work
            && !series.is_empty()
        {
            let indices = IndexSet::first(series.len() as u32);
            spec.array = Some(Array { indices, at_once_max: None });
        }
        Ok((spec, builtin))
    }

    /// The work of a command.
    fn work(&self, fail: &impl Fn(String) -> Mistake) -> Result<Work, Mistake> {
        let arguments = match (&self.command, &self.script) {
            (Some(command), None) => command.clone(),
            (None, Some(script)) => vec!["sh".to_owned(), "-c".to_owned(), script.clone()],
            (None, None) => {
                return Err(fail(
                    "there is no command; write command = [\"program\", \"argument\"], or script = \"line\" for a shell, or a kind".into(),
                ));
            }
            (Some(_), Some(_)) => {
                return Err(fail("there are a command and a script; keep one of the two".into()));
            }
        };
        Ok(Work::Command { arguments, folder: self.folder.clone() })
    }
}
