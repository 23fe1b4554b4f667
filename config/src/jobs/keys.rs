//! The keys of a job in a file, each with how it is read.
//!
//! One table names them all with the kinds of job they belong to, so that what is accepted, what a
//! mistake is compared with and what the documents list cannot differ. Under `[defaults]` a key
//! counts for the jobs that may have it.

use gantry_model::{Preemption, Sharing};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Mistake;
use super::draft::Draft;
use super::kind::{FileSeries, Kind};
use super::value::Entry;
use crate::nearest::nearest;

/// Reads a key's value into a job.
pub(super) type Setter = fn(&mut Draft, &Entry<'_>) -> Result<(), Mistake>;

/// Keys that say what one job is, and so cannot stand in `[defaults]`.
pub(super) const OF_ONE_JOB: [&str; 12] = [
    "name", "kind", "command", "script", "pipeline", "series", "model", "epochs", "batch", "seed",
    "hold-out", "run",
];

const ANY: &[Kind] = &Kind::ALL;
const COMMAND: &[Kind] = &[Kind::Command];
/// Whose ranks start together.
const RANKS: &[Kind] = &[Kind::Command, Kind::Train];
const BUILTIN: &[Kind] = &[Kind::Preprocess, Kind::Train, Kind::Predict];
const SERIES: &[Kind] = &[Kind::Preprocess, Kind::Predict];
const PREPROCESS: &[Kind] = &[Kind::Preprocess];
const TRAIN: &[Kind] = &[Kind::Train];
const PREDICT: &[Kind] = &[Kind::Predict];
/// Whose `label` is what `gantry submit` and `gantry train` each call so.
const LABEL: &[Kind] = &[Kind::Command, Kind::Train];

/// Every key, with the kinds of job it belongs to and how it is read.
const KEYS: &[(&str, &[Kind], Setter)] = &[
    ("name", ANY, |draft, entry| {
        draft.name_at = entry.at();
        entry.string().map(|name| draft.name = name)
    }),
    ("kind", ANY, |draft, entry| {
        draft.operation.spot = entry.placed(()).spot;
        entry.word().map(|kind| draft.kind = kind)
    }),
    ("command", COMMAND, |draft, entry| {
        entry.command().map(|command| draft.command = Some(command))
    }),
    ("script", COMMAND, |draft, entry| entry.string().map(|script| draft.script = Some(script))),
    ("folder", COMMAND, |draft, entry| entry.string().map(|folder| draft.folder = Some(folder))),
    ("output", ANY, |draft, entry| entry.string().map(|output| draft.spec.output = Some(output))),
    ("environment", COMMAND, |draft, entry| {
        entry.environment().map(|found| draft.spec.environment.extend(found))
    }),
    ("cores", ANY, |draft, entry| entry.number().map(|cores| draft.spec.resources.cores = cores)),
    ("memory", ANY, |draft, entry| {
        entry.written().map(|memory| draft.spec.resources.memory = memory)
    }),
    ("gpus", ANY, |draft, entry| entry.written().map(|amount| draft.amount = amount)),
    ("gpu-model", ANY, |draft, entry| entry.string().map(|model| draft.gpu_model = Some(model))),
    ("gpu-memory", ANY, |draft, entry| entry.written().map(|memory| draft.gpu_memory = memory)),
    ("mig", ANY, |draft, entry| entry.string().map(|profile| draft.mig = Some(profile))),
    ("scratch", ANY, |draft, entry| {
        entry.written().map(|scratch| draft.spec.resources.scratch = scratch)
    }),
    ("label", LABEL, |draft, entry| {
        if draft.kind == Kind::Train {
            let label = entry.string().map(|label| entry.placed(label));
            return label.map(|label| draft.operation.training.label = Some(label));
        }
        entry.strings().map(|labels| draft.spec.labels = labels.into_iter().collect())
    }),
    ("node-label", ANY, |draft, entry| {
        entry.strings().map(|labels| draft.spec.labels = labels.into_iter().collect())
    }),
    ("exclusive", ANY, |draft, entry| {
        let choice = entry.choice(Sharing::Exclusive, Sharing::Shared);
        choice.map(|sharing| draft.spec.sharing = sharing)
    }),
    ("licence", ANY, |draft, entry| entry.licences().map(|found| draft.spec.licences = found)),
    ("ranks", RANKS, |draft, entry| entry.number().map(|ranks| draft.ranks = Some(ranks))),
    ("nodes", RANKS, |draft, entry| entry.number().map(|nodes| draft.nodes = Some(nodes))),
    ("node", ANY, |draft, entry| entry.string().map(|node| draft.spec.node = Some(node))),
    ("array", COMMAND, |draft, entry| entry.written().map(|array| draft.spec.array = Some(array))),
    ("after", ANY, |draft, entry| entry.after().map(|after| draft.after = after)),
    ("priority", ANY, |draft, entry| entry.number().map(|priority| draft.spec.priority = priority)),
    ("group", ANY, |draft, entry| entry.string().map(|group| draft.spec.group = Some(group))),
    ("hold", ANY, |draft, entry| entry.choice(true, false).map(|held| draft.spec.held = held)),
    ("preemptible", ANY, |draft, entry| {
        let choice = entry.choice(Preemption::Requeue, Preemption::Never);
        choice.map(|preemption| draft.spec.preemption = preemption)
    }),
    ("time", ANY, |draft, entry| entry.written().map(|limit| draft.spec.time_limit = Some(limit))),
    ("estimate", ANY, |draft, entry| entry.written().map(|time| draft.spec.estimate = Some(time))),
    ("warning", ANY, |draft, entry| {
        entry.written().map(|warning| draft.spec.warning = Some(warning))
    }),
    ("retries", ANY, |draft, entry| entry.number().map(|retries| draft.spec.retries = retries)),
    ("retry-codes", ANY, |draft, entry| entry.codes().map(|codes| draft.spec.retry_codes = codes)),
    ("library", BUILTIN, |draft, entry| {
        entry.string().map(|folder| draft.operation.library = Some(entry.placed(folder)))
    }),
    ("pipeline", PREPROCESS, |draft, entry| {
        entry.string().map(|name| draft.operation.pipeline = Some(entry.placed(name)))
    }),
    ("series", SERIES, |draft, entry| {
        FileSeries::read(entry).map(|series| draft.operation.series = Some(series))
    }),
    ("model", PREDICT, |draft, entry| {
        entry.string().map(|model| draft.operation.model = Some(entry.placed(model)))
    }),
    ("epochs", TRAIN, |draft, entry| {
        entry.number().map(|epochs| draft.operation.training.epochs = Some(entry.placed(epochs)))
    }),
    ("batch", TRAIN, |draft, entry| {
        entry.number().map(|batch| draft.operation.training.batch = Some(entry.placed(batch)))
    }),
    ("seed", TRAIN, |draft, entry| {
        entry.number().map(|seed| draft.operation.training.seed = Some(entry.placed(seed)))
    }),
    ("hold-out", TRAIN, |draft, entry| {
        entry.placed_strings().map(|patients| draft.operation.training.hold_out = patients)
    }),
    ("engine", TRAIN, |draft, entry| {
        entry.string().map(|engine| draft.operation.training.engine = Some(entry.placed(engine)))
    }),
    ("precision", TRAIN, |draft, entry| {
        entry.string().map(|bits| draft.operation.training.precision = Some(entry.placed(bits)))
    }),
    ("data-memory", TRAIN, |draft, entry| {
        entry
            .written()
            .map(|memory| draft.operation.training.data_memory = Some(entry.placed(memory)))
    }),
    ("network", TRAIN, |draft, entry| {
        entry.string().map(|name| draft.operation.training.network = Some(entry.placed(name)))
    }),
    ("input-size", TRAIN, |draft, entry| {
        entry.number().map(|count| draft.operation.training.input_size = Some(entry.placed(count)))
    }),
    ("input-depth", TRAIN, |draft, entry| {
        entry.number().map(|count| draft.operation.training.input_depth = Some(entry.placed(count)))
    }),
    ("base-channels", TRAIN, |draft, entry| {
        entry
            .number()
            .map(|count| draft.operation.training.base_channels = Some(entry.placed(count)))
    }),
    ("patience", TRAIN, |draft, entry| {
        entry.number().map(|count| draft.operation.training.patience = Some(entry.placed(count)))
    }),
    ("folds", TRAIN, |draft, entry| {
        entry.number().map(|count| draft.operation.training.folds = Some(entry.placed(count)))
    }),
    ("seeds", TRAIN, |draft, entry| {
        entry.number().map(|count| draft.operation.training.seeds = Some(entry.placed(count)))
    }),
    ("plan", TRAIN, |draft, entry| {
        entry.written().map(|memory| draft.operation.training.plan = Some(entry.placed(memory)))
    }),
    ("learning-rate", TRAIN, |draft, entry| {
        entry
            .decimal()
            .map(|rate| draft.operation.training.learning_rate = Some(entry.placed(rate)))
    }),
    ("average-decay", TRAIN, |draft, entry| {
        entry
            .decimal()
            .map(|share| draft.operation.training.average_decay = Some(entry.placed(share)))
    }),
    ("supervision", TRAIN, |draft, entry| {
        entry.string().map(|word| draft.operation.training.supervision = Some(entry.placed(word)))
    }),
    ("mirroring", TRAIN, |draft, entry| {
        entry.string().map(|sides| draft.operation.training.mirroring = Some(entry.placed(sides)))
    }),
    ("run", TRAIN, |draft, entry| {
        entry.string().map(|run| draft.operation.training.run = Some(entry.placed(run)))
    }),
];

/// What people call a key elsewhere.
const ELSEWHERE: [(&str, &str); 17] = [
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
    ("type", "kind"),
    ("batch-size", "batch"),
    ("batch_size", "batch"),
];

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
    KEYS.iter().map(|(key, ..)| *key)
}

/// Whether a job has such a key.
pub(super) fn known(word: &str) -> bool {
    all().any(|key| key == word)
}

/// Whom a key belongs to, and how it is read.
pub(super) fn find(word: &str) -> Option<(&'static [Kind], Setter)> {
    KEYS.iter().find(|(key, ..)| *key == word).map(|(_, kinds, set)| (*kinds, *set))
}

/// What is said of a key that stands in a job of another kind.
pub(super) fn misplaced(word: &str, kinds: &[Kind], kind: Kind) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let instead = match (word, kind) {
        ("label", _) => "write node-label for a label of the node".to_owned(),
        ("array", Kind::Preprocess | Kind::Predict) => {
            "it has one task for each of its series, so leave array out".to_owned()
        }
        _ => match kinds {
            [Kind::Command] => format!("leave {word} out, or leave kind out"),
            [one] => format!("leave {word} out, or write kind = {:?}", one.name()),
            _ => format!("leave {word} out, or change its kind"),
        },
    };
    format!(
        "{word} belongs to a job of the kind {}, and this one is of the kind {}; {instead}",
        names.join(" or "),
        kind.name()
    )
}

/// What is said of a key that there is not, in a job of a kind or in one that is not known yet.
pub(super) fn unknown(word: &str, kind: Option<Kind>) -> String {
    let elsewhere = ELSEWHERE.iter().find(|(other, _)| *other == word).map(|(_, key)| *key);
    if let Some(near) = elsewhere.or_else(|| nearest(word, all())) {
        return format!("there is no key {word:?} of a job; did you mean {near:?}");
    }
    let has = |kinds: &[Kind]| kind.is_none_or(|kind| kinds.contains(&kind));
    let there: Vec<&str> =
        KEYS.iter().filter(|(_, kinds, _)| has(kinds)).map(|(key, ..)| *key).collect();
    format!("there is no key {word:?} of a job; there are {}", there.join(", "))
}
