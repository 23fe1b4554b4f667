//! What each option of sbatch comes to: one table, so that none is forgotten and none means two things.

use std::collections::BTreeSet;

use super::Remark;
use super::directives::Directive;
use super::draft::{Draft, Export};
use super::values;

type Take = fn(&mut Draft, &str) -> Result<(), String>;

/// How an option is taken.
enum How {
    /// It has a value.
    Value(Take),
    /// It may have one behind `=`; it is given an empty text where there is none.
    Maybe(Take),
    /// It has none.
    Flag(fn(&mut Draft)),
    /// It changes nothing of what the script does; the sentence says what is otherwise here.
    Ignored(Arity, &'static str),
    /// It would change what the script means; the sentence says what to do instead.
    Refused(Arity, &'static str),
}

/// Whether an option that is not used has a value, which then is not the next option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arity {
    None,
    Maybe,
    One,
}

use Arity::{Maybe as MayHave, None as Alone, One};
use How::{Flag, Ignored, Maybe, Refused, Value};

/// Long name, letter, and what becomes of it.
const OPTIONS: &[(&str, Option<char>, How)] = &[
    ("account", Some('A'), Value(|draft, text| set(&mut draft.spec.group, text))),
    ("acctg-freq", None, Ignored(One, "gantry samples each second")),
    (
        "array",
        Some('a'),
        Value(|draft, text| {
            draft.spec.array = Some(values::array(text)?);
            Ok(())
        }),
    ),
    (
        "begin",
        Some('b'),
        Refused(One, "gantry has no time of start; use --hold, and gantry release when it is time"),
    ),
    ("chdir", Some('D'), Value(|draft, text| set(&mut draft.folder, text))),
    ("cluster", Some('M'), Refused(One, "name the cluster with gantry --cluster")),
    ("clusters", Some('M'), Refused(One, "name the cluster with gantry --cluster")),
    ("comment", None, Ignored(One, "a job has no comment here")),
    ("constraint", Some('C'), Value(Draft::constraint)),
    (
        "contiguous",
        None,
        Refused(Alone, "it is about several nodes, on which a script does not run here"),
    ),
    ("core-spec", Some('S'), Refused(One, "an agent's settings say which cores tasks have")),
    ("cpu-freq", None, Refused(One, "gantry sets no frequencies")),
    ("cpus-per-gpu", None, Refused(One, "write --cpus-per-task")),
    ("cpus-per-task", Some('c'), Value(|draft, text| count(&mut draft.cpus, text))),
    (
        "dependency",
        Some('d'),
        Value(|draft, text| {
            draft.spec.after.extend(values::dependencies(text)?);
            Ok(())
        }),
    ),
    ("distribution", Some('m'), Ignored(One, "a script runs on one node here")),
    ("error", Some('e'), Value(|draft, text| set(&mut draft.error, text))),
    (
        "exclude",
        Some('x'),
        Refused(One, "name what a node must have instead: --constraint with a label of the nodes"),
    ),
    ("exclusive", None, Maybe(Draft::exclusive)),
    (
        "export",
        None,
        Value(|draft, text| {
            draft.export = Export::read(text);
            Ok(())
        }),
    ),
    (
        "export-file",
        None,
        Refused(One, "read the file in the script, or name variables with --export"),
    ),
    ("extra-node-info", Some('B'), Refused(One, "write --cpus-per-task")),
    ("get-user-env", None, Refused(MayHave, "begin the script with #!/bin/bash -l")),
    ("gid", None, Refused(One, "a job is of who submits it")),
    ("gpu-bind", None, Ignored(One, "a task sees its own GPUs only")),
    ("gpu-freq", None, Refused(One, "gantry sets no frequencies")),
    ("gpus", Some('G'), Value(|draft, text| draft.gpus(text, super::draft::Per::Job))),
    ("gpus-per-node", None, Value(|draft, text| draft.gpus(text, super::draft::Per::Node))),
    ("gpus-per-socket", None, Refused(One, "write --gpus-per-node")),
    ("gpus-per-task", None, Value(|draft, text| draft.gpus(text, super::draft::Per::Task))),
    ("gres", None, Value(Draft::gres)),
    (
        "gres-flags",
        None,
        Ignored(One, "GPUs are chosen near the cores where the agent's settings say pin"),
    ),
    ("hint", None, Ignored(One, "cores are given as they are free")),
    ("hold", Some('H'), Flag(|draft| draft.spec.held = true)),
    (
        "immediate",
        Some('I'),
        Refused(MayHave, "a job waits until there is room; gantry why says for what"),
    ),
    ("input", Some('i'), Value(|draft, text| set(&mut draft.input, text))),
    ("job-name", Some('J'), Value(|draft, text| set(&mut draft.name, text))),
    (
        "kill-on-invalid-dep",
        None,
        Ignored(One, "what waits for a job that failed ends here, and gantry why says so"),
    ),
    ("licenses", Some('L'), Value(Draft::licences)),
    (
        "mail-type",
        None,
        Ignored(One, "gantry sends no mail; webhook in scheduler.toml tells another program"),
    ),
    (
        "mail-user",
        None,
        Ignored(One, "gantry sends no mail; webhook in scheduler.toml tells another program"),
    ),
    ("mem", None, Value(Draft::memory)),
    ("mem-bind", None, Ignored(One, "memory is near the cores where the agent's settings say pin")),
    ("mem-per-cpu", None, Value(|draft, text| size(&mut draft.memory_per_core, text))),
    ("mem-per-gpu", None, Value(|draft, text| size(&mut draft.memory_per_gpu, text))),
    ("mincpus", None, Refused(One, "write --cpus-per-task")),
    ("network", None, Refused(One, "gantry reserves no networks")),
    ("nice", None, Maybe(Draft::nice)),
    ("no-kill", Some('k'), Refused(Alone, "a task of a lost node waits again here")),
    (
        "no-requeue",
        None,
        Refused(
            Alone,
            "a task of a lost node waits again here; let the script look whether it has run, and pass --ignore no-requeue",
        ),
    ),
    (
        "nodefile",
        Some('F'),
        Refused(One, "name what a node must have instead: --constraint with a label of the nodes"),
    ),
    ("nodelist", Some('w'), Value(Draft::node)),
    ("nodes", Some('N'), Value(Draft::nodes)),
    ("ntasks", Some('n'), Value(|draft, text| count(&mut draft.tasks, text))),
    ("ntasks-per-core", None, Refused(One, "write --cpus-per-task")),
    ("ntasks-per-gpu", None, Refused(One, "write --ntasks and --gpus")),
    ("ntasks-per-node", None, Value(|draft, text| count(&mut draft.tasks_per_node, text))),
    ("ntasks-per-socket", None, Refused(One, "write --ntasks")),
    ("open-mode", None, Refused(One, "an output begins anew with each start here")),
    ("output", Some('o'), Value(|draft, text| set(&mut draft.output, text))),
    ("overcommit", Some('O'), Refused(Alone, "ask for the cores that the script uses")),
    (
        "oversubscribe",
        Some('s'),
        Ignored(Alone, "nodes are shared unless a job asks for --exclusive"),
    ),
    ("parsable", None, Ignored(Alone, "gantry --quiet submit prints the id alone")),
    ("partition", Some('p'), Value(Draft::partition)),
    ("power", None, Refused(One, "gantry sets no power")),
    (
        "prefer",
        None,
        Refused(
            One,
            "gantry knows what a node must have, not what it had better have; use --constraint",
        ),
    ),
    (
        "priority",
        None,
        Refused(
            One,
            "priorities have another scale here: change it with gantry change JOB --priority N",
        ),
    ),
    ("profile", None, Ignored(One, "gantry keeps the readings of every task")),
    ("propagate", None, Ignored(MayHave, "limits are those of the agent")),
    (
        "qos",
        Some('q'),
        Refused(
            One,
            "gantry has no QOS: a group has its quota, and a job --priority and --preemptible",
        ),
    ),
    ("quiet", Some('Q'), Ignored(Alone, "gantry --quiet submit prints the id alone")),
    ("reboot", None, Refused(Alone, "gantry reboots no nodes")),
    ("requeue", None, Ignored(Alone, "a task of a lost node waits again in any case")),
    ("reservation", None, Refused(One, "gantry has no reservations")),
    (
        "signal",
        None,
        Value(|draft, text| {
            draft.spec.warning = Some(values::warning(text)?);
            Ok(())
        }),
    ),
    ("sockets-per-node", None, Refused(One, "write --cpus-per-task")),
    ("spread-job", None, Ignored(Alone, "a script runs on one node here")),
    ("switches", None, Ignored(One, "a script runs on one node here")),
    ("test-only", None, Refused(Alone, "use gantry submit --dry-run")),
    ("thread-spec", None, Refused(One, "an agent's settings say which cores tasks have")),
    ("threads-per-core", None, Refused(One, "an agent's settings say how many cores there are")),
    (
        "time",
        Some('t'),
        Value(|draft, text| {
            draft.spec.time_limit = values::time(text)?;
            Ok(())
        }),
    ),
    ("time-min", None, Ignored(One, "a task always has its whole time limit")),
    (
        "tmp",
        None,
        Value(|draft, text| {
            draft.spec.resources.scratch = values::size(text)?;
            Ok(())
        }),
    ),
    ("uid", None, Refused(One, "a job is of who submits it")),
    ("use-min-nodes", None, Ignored(Alone, "a script runs on one node here")),
    ("verbose", Some('v'), Ignored(Alone, "gantry submit --dry-run says what would be submitted")),
    ("wait", Some('W'), Flag(|draft| draft.wait = true)),
    ("wait-all-nodes", None, Ignored(One, "a script runs on one node here")),
    ("wckey", None, Ignored(One, "gantry has no keys of workloads")),
    ("wrap", None, Refused(One, "it stands on a command line only: gantry submit -- COMMAND")),
];

fn set(place: &mut Option<String>, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it has no value".into());
    }
    *place = Some(text.to_owned());
    Ok(())
}

fn count(place: &mut Option<u32>, text: &str) -> Result<(), String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    *place = Some(number.ok_or_else(|| format!("{text:?} is no number from 1 on"))?);
    Ok(())
}

fn size(place: &mut Option<gantry_model::MemoryMib>, text: &str) -> Result<(), String> {
    *place = Some(values::size(text)?);
    Ok(())
}

/// Takes the options of a line.
pub(super) fn take(
    directive: &Directive,
    ignore: &BTreeSet<String>,
    draft: &mut Draft,
    remarks: &mut Vec<Remark>,
    refused: &mut Vec<Remark>,
) {
    let line = directive.line;
    let say = |what: &str, sentence: &str| Remark {
        line,
        what: what.to_owned(),
        sentence: sentence.to_owned(),
    };
    let Some(words) = &directive.words else {
        return refused.push(say("#SBATCH", "a quote is not closed"));
    };
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let Some((name, own, how)) = find(word) else {
            let name = word.split('=').next().unwrap_or(word);
            if !ignore.contains(name.trim_start_matches('-')) {
                let sentence = "is no option of sbatch that gantry knows; leave it out, or pass --ignore with its name where it does not matter";
                refused.push(say(name, sentence));
            }
            continue;
        };
        let shown = format!("--{name}");
        let mut value = || own.or_else(|| words.next());
        let (arity, outcome) = match how {
            Value(take) => (
                One,
                value().map_or(Err("it has no value".into()), |text| {
                    take_or(ignore, name, || take(draft, text))
                }),
            ),
            Maybe(take) => {
                (MayHave, take_or(ignore, name, || take(draft, own.unwrap_or_default())))
            }
            Flag(take) => {
                if !ignore.contains(name) {
                    take(draft);
                }
                (Alone, Ok(()))
            }
            Ignored(arity, sentence) => {
                remarks.push(say(&shown, sentence));
                (*arity, Ok(()))
            }
            Refused(arity, sentence) => {
                (*arity, take_or(ignore, name, || Err((*sentence).to_owned())))
            }
        };
        if let Err(sentence) = outcome {
            refused.push(say(&shown, &sentence));
        }
        // The value of an option that is not used is not the next option.
        if matches!(how, Ignored(..) | Refused(..)) && arity == One && own.is_none() {
            words.next();
        }
    }
}

/// Takes an option unless it is to be ignored.
fn take_or(
    ignore: &BTreeSet<String>,
    name: &str,
    take: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    if ignore.contains(name) { Ok(()) } else { take() }
}

/// The option that a word names, with the value that stands in the same word.
fn find(word: &str) -> Option<(&'static str, Option<&str>, &'static How)> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) =
            long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let (name, _, how) = OPTIONS.iter().find(|(known, _, _)| *known == name)?;
        return Some((name, value, how));
    }
    let mut letters = word.strip_prefix('-')?.chars();
    let letter = letters.next()?;
    let (name, _, how) = OPTIONS.iter().find(|(_, known, _)| *known == Some(letter))?;
    let rest = letters.as_str();
    Some((name, (!rest.is_empty()).then_some(rest), how))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_each_option_once() {
        let names: Vec<&str> = OPTIONS.iter().map(|(name, _, _)| *name).collect();
        assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
