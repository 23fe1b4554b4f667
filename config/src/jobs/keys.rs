//! The keys of a job in a file, each with how it is read.
//!
//! One table names them all, so that what is accepted, what a mistake is compared with and what
//! the documents list cannot differ.

use gantry_model::{Gang, JobSpec, MemoryMib, Preemption, Sharing, Work};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Mistake;
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
    spec: JobSpec,
    command: Option<Vec<String>>,
    script: Option<String>,
    folder: Option<String>,
    amount: GpuAmount,
    mig: Option<String>,
    model: Option<String>,
    gpu_memory: MemoryMib,
    ranks: Option<u32>,
    nodes: Option<u32>,
}

impl Default for Draft {
    fn default() -> Self {
        let work = Work::Command { arguments: Vec::new(), folder: None };
        Self {
            at: 0,
            name: String::new(),
            name_at: 0,
            after: Vec::new(),
            spec: JobSpec::new("", work),
            command: None,
            script: None,
            folder: None,
            amount: GpuAmount::default(),
            mig: None,
            model: None,
            gpu_memory: MemoryMib(0),
            ranks: None,
            nodes: None,
        }
    }
}

type Setter = fn(&mut Draft, &Entry<'_>) -> Result<(), Mistake>;

/// Keys that say what one job is, and so cannot stand in `[defaults]`.
const OF_ONE_JOB: [&str; 3] = ["name", "command", "script"];

/// Every key, with how it is read.
const KEYS: &[(&str, Setter)] = &[
    ("name", |draft, entry| {
        draft.name_at = entry.at();
        entry.string().map(|name| draft.name = name)
    }),
    ("command", |draft, entry| entry.command().map(|command| draft.command = Some(command))),
    ("script", |draft, entry| entry.string().map(|script| draft.script = Some(script))),
    ("folder", |draft, entry| entry.string().map(|folder| draft.folder = Some(folder))),
    ("output", |draft, entry| entry.string().map(|output| draft.spec.output = Some(output))),
    ("environment", |draft, entry| {
        entry.environment().map(|found| draft.spec.environment.extend(found))
    }),
    ("cores", |draft, entry| entry.number().map(|cores| draft.spec.resources.cores = cores)),
    ("memory", |draft, entry| entry.written().map(|memory| draft.spec.resources.memory = memory)),
    ("gpus", |draft, entry| entry.written().map(|amount| draft.amount = amount)),
    ("gpu-model", |draft, entry| entry.string().map(|model| draft.model = Some(model))),
    ("gpu-memory", |draft, entry| entry.written().map(|memory| draft.gpu_memory = memory)),
    ("mig", |draft, entry| entry.string().map(|profile| draft.mig = Some(profile))),
    ("scratch", |draft, entry| {
        entry.written().map(|scratch| draft.spec.resources.scratch = scratch)
    }),
    ("label", |draft, entry| {
        entry.strings().map(|labels| draft.spec.labels = labels.into_iter().collect())
    }),
    ("exclusive", |draft, entry| {
        let choice = entry.choice(Sharing::Exclusive, Sharing::Shared);
        choice.map(|sharing| draft.spec.sharing = sharing)
    }),
    ("licence", |draft, entry| entry.licences().map(|found| draft.spec.licences = found)),
    ("ranks", |draft, entry| entry.number().map(|ranks| draft.ranks = Some(ranks))),
    ("nodes", |draft, entry| entry.number().map(|nodes| draft.nodes = Some(nodes))),
    ("node", |draft, entry| entry.string().map(|node| draft.spec.node = Some(node))),
    ("array", |draft, entry| entry.written().map(|array| draft.spec.array = Some(array))),
    ("after", |draft, entry| entry.after().map(|after| draft.after = after)),
    ("priority", |draft, entry| entry.number().map(|priority| draft.spec.priority = priority)),
    ("group", |draft, entry| entry.string().map(|group| draft.spec.group = Some(group))),
    ("hold", |draft, entry| entry.choice(true, false).map(|held| draft.spec.held = held)),
    ("preemptible", |draft, entry| {
        let choice = entry.choice(Preemption::Requeue, Preemption::Never);
        choice.map(|preemption| draft.spec.preemption = preemption)
    }),
    ("time", |draft, entry| entry.written().map(|limit| draft.spec.time_limit = Some(limit))),
    ("estimate", |draft, entry| entry.written().map(|time| draft.spec.estimate = Some(time))),
    ("warning", |draft, entry| entry.written().map(|warning| draft.spec.warning = Some(warning))),
    ("retries", |draft, entry| entry.number().map(|retries| draft.spec.retries = retries)),
    ("retry-codes", |draft, entry| entry.codes().map(|codes| draft.spec.retry_codes = codes)),
];

/// What people call a key elsewhere.
const ELSEWHERE: [(&str, &str); 14] = [
    ("cpus", "cores"),
    ("cpu", "cores"),
    ("threads", "cores"),
    ("mem", "memory"),
    ("ram", "memory"),
    ("env", "environment"),
    ("cwd", "folder"),
    ("workdir", "folder"),
    ("depends", "after"),
    ("needs", "after"),
    ("dependencies", "after"),
    ("walltime", "time"),
    ("time-limit", "time"),
    ("held", "hold"),
];

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
        for (key, value) in in_order(table) {
            let word = key.get_ref().as_ref();
            let Some((_, set)) = KEYS.iter().find(|(known, _)| *known == word) else {
                return Err(Mistake::new(key.span().start, unknown(word)));
            };
            if place == Place::Defaults && OF_ONE_JOB.contains(&word) {
                return Err(Mistake::new(
                    key.span().start,
                    format!("{word} belongs to one job; put it under [[job]]"),
                ));
            }
            set(self, &Entry::new(word, value))?;
        }
        if place == Place::Job && self.name.is_empty() {
            return Err(Mistake::new(at, "the job has no name; write name = \"…\""));
        }
        Ok(())
    }

    /// The job as it is submitted, without the dependencies.
    pub(super) fn spec(&self) -> Result<JobSpec, Mistake> {
        let fail = |reason: String| Mistake::new(self.at, format!("job {:?}: {reason}", self.name));
        let arguments = match (&self.command, &self.script) {
            (Some(command), None) => command.clone(),
            (None, Some(script)) => vec!["sh".to_owned(), "-c".to_owned(), script.clone()],
            (None, None) => {
                return Err(fail(
                    "there is no command; write command = [\"program\", \"argument\"], or script = \"line\" for a shell".into(),
                ));
            }
            (Some(_), Some(_)) => {
                return Err(fail("there are a command and a script; keep one of the two".into()));
            }
        };
        let gpu = self
            .amount
            .demand(self.mig.as_deref(), self.model.as_deref(), self.gpu_memory)
            .map_err(|reject| fail(reject.sentence))?;
        let gang = match (self.ranks, self.nodes) {
            (None, Some(_)) => {
                return Err(fail(
                    "nodes says over how many nodes ranks are spread, and there are no ranks; add ranks, or write node for one node by its name".into(),
                ));
            }
            (ranks, nodes) => ranks.map(|ranks| Gang { ranks, nodes }),
        };
        let mut spec = JobSpec {
            name: self.name.clone(),
            work: Work::Command { arguments, folder: self.folder.clone() },
            gpu,
            gang,
            ..self.spec.clone()
        };
        spec.resources.gpus = self.amount.count;
        Ok(spec)
    }
}

/// A table's entries in the order in which they are written.
pub(super) fn in_order<'a>(
    table: &'a DeTable<'a>,
) -> Vec<(&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Every key of a job.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(key, _)| *key)
}

/// Whether a job has such a key.
pub(super) fn known(word: &str) -> bool {
    all().any(|key| key == word)
}

fn unknown(word: &str) -> String {
    let elsewhere = ELSEWHERE.iter().find(|(other, _)| *other == word).map(|(_, key)| *key);
    match elsewhere.or_else(|| nearest(word, all())) {
        Some(near) => format!("there is no key {word:?} of a job; did you mean {near:?}"),
        None => format!(
            "there is no key {word:?} of a job; there are {}",
            all().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The known word that `word` was probably meant to be: at most a third of it is wrong.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .map(|key| (strsim::damerau_levenshtein(word, key), key))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, key)| key)
}
