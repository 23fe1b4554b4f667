//! The script itself: with which program it runs, what is around it, and what in it only Slurm has.
//!
//! A small shell goes first. It sets the variables of Slurm that are known only once a task runs, sends
//! errors and input to the files that the script names, and becomes the script's own interpreter.

use super::draft::absolute;
use super::values::Part;
use super::{Batch, Remark};

/// Interpreters of scripts: how a name begins, the option that takes a text, and whether the first
/// argument behind it is the script's name.
const INTERPRETERS: [(&str, &str, bool); 7] = [
    ("bash", "-c", true),
    ("dash", "-c", true),
    ("ksh", "-c", true),
    ("sh", "-c", true),
    ("zsh", "-c", true),
    ("python", "-c", false),
    ("perl", "-e", false),
];

/// Commands of Slurm, which a task of gantry does not have.
const COMMANDS: [(&str, &str); 9] = [
    (
        "srun",
        "there are no steps; call the program itself, or start ranks with gantry submit --ranks",
    ),
    ("sbatch", "submit with gantry submit"),
    ("salloc", "submit with gantry submit"),
    ("scancel", "cancel with gantry cancel"),
    ("scontrol", "ask with gantry job, or change with gantry change"),
    ("squeue", "ask with gantry queue"),
    ("sacct", "ask with gantry history"),
    ("sbcast", "files are on the shared storage; copy them to $GANTRY_SCRATCH"),
    ("sattach", "read with gantry logs -f"),
];
/// Words of a shell behind which a command stands.
const BEFORE_COMMAND: [&str; 11] =
    ["!", "do", "else", "exec", "if", "nohup", "then", "time", "until", "while", "{"];

/// What `srun PROGRAM` is on one node with one task: the program.
const SRUN: &str = "srun() { \"$@\"; }; ";

/// A script that is to be run.
pub(super) struct Script<'a> {
    pub(super) batch: &'a Batch,
    pub(super) folder: &'a str,
    pub(super) output: Option<Vec<Part>>,
    pub(super) error: Option<Vec<Part>>,
    pub(super) input: Option<String>,
    pub(super) array: bool,
    pub(super) tasks: u32,
}

impl Script<'_> {
    /// The command of the job and where its output goes; nothing where it is refused.
    pub(super) fn arguments(
        &self,
        remarks: &mut Vec<Remark>,
        refused: &mut Vec<Remark>,
    ) -> Option<(Vec<String>, Option<String>)> {
        let text = &self.batch.text;
        let mut refuse = |line, what: &str, sentence: String| {
            refused.push(Remark { line, what: what.to_owned(), sentence });
        };
        let Some(program) = text.lines().next().and_then(|line| line.strip_prefix("#!")) else {
            refuse(1, "#!", "a batch script begins with its interpreter, as #!/bin/bash".into());
            return None;
        };
        let Some((interpreter, flag, named)) = interpreter(program) else {
            let shown = program.trim();
            refuse(
                1,
                "#!",
                format!(
                    "a script of {shown} cannot go with the job; leave it on shared storage and submit it: gantry submit -- {shown} SCRIPT"
                ),
            );
            return None;
        };
        let mut body = text.clone();
        if named && self.scan(remarks, &mut refuse) {
            body = format!("{SRUN}{body}");
        }
        let mut first = vec!["SLURM_JOB_ID=${GANTRY_JOB#j}".to_owned()];
        let mut exported = vec![
            "SLURM_JOB_ID",
            "SLURM_JOBID",
            "SLURMD_NODENAME",
            "SLURM_JOB_NODELIST",
            "SLURM_NODELIST",
        ];
        first.push("SLURM_JOBID=$SLURM_JOB_ID".into());
        first.push(
            "SLURMD_NODENAME=$(uname -n) SLURM_JOB_NODELIST=$(uname -n) SLURM_NODELIST=$(uname -n)"
                .into(),
        );
        if self.array {
            first.push("SLURM_ARRAY_JOB_ID=$SLURM_JOB_ID SLURM_ARRAY_TASK_ID=$GANTRY_INDEX".into());
            exported.extend(["SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"]);
        }
        first.push(format!("export {}", exported.join(" ")));
        first.extend(self.input.as_ref().map(|file| format!("exec <{}", quoted(file))));
        let output = self.pattern().map_err(|why| refuse(0, "--output", why)).ok()?;
        // What has no %a for an array would be one file for all: what is thrown away may be.
        let away = output.as_deref() == Some("/dev/null");
        if away {
            first.push("exec >/dev/null".into());
        }
        match &self.error {
            Some(error) if Some(error) != self.output.as_ref() => {
                first.push(format!("exec 2>{}", self.shell_path(error)));
            }
            _ if away => first.push("exec 2>&1".into()),
            _ => {}
        }
        first.push("s=$1; n=$2; shift 2".into());
        let name = if named { " \"$n\"" } else { "" };
        first.push(format!("exec {interpreter} {flag} \"$s\"{name} \"$@\""));
        let mut arguments: Vec<String> =
            ["/bin/sh", "-c", &first.join("; "), "slurm", &body, &self.batch.name]
                .map(str::to_owned)
                .into();
        arguments.extend(self.batch.arguments.iter().cloned());
        Some((arguments, output.filter(|_| !away)))
    }

    /// Looks for commands of Slurm; says whether srun needs a stand-in.
    fn scan(
        &self,
        remarks: &mut Vec<Remark>,
        refuse: &mut impl FnMut(usize, &str, String),
    ) -> bool {
        let mut stand_in = false;
        for (at, line) in self.batch.text.lines().enumerate() {
            for (command, next) in commands(line) {
                let Some((name, instead)) = COMMANDS.iter().find(|(name, _)| *name == command)
                else {
                    continue;
                };
                let plain = next.is_some_and(|next| !next.starts_with('-'));
                if *name == "srun" && self.tasks == 1 && plain {
                    stand_in = true;
                    let sentence = "runs the program itself, as there is one task".into();
                    remarks.push(Remark { line: at + 1, what: (*name).into(), sentence });
                } else if !self.batch.ignore.contains(*name) {
                    refuse(
                        at + 1,
                        name,
                        format!(
                            "a task of gantry has no {name}: {instead}; where the line does not matter pass --ignore {name}"
                        ),
                    );
                }
            }
        }
        stand_in
    }

    /// The output's pattern as gantry writes it.
    fn pattern(&self) -> Result<Option<String>, String> {
        let Some(parts) = &self.output else { return Ok(None) };
        let written: String = parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.replace('%', "%%"),
                Part::Job => "%j".to_owned(),
                Part::Index => "%i".to_owned(),
                Part::Name => "%n".to_owned(),
            })
            .collect();
        let path = absolute(self.folder, &written);
        if self.array && path != "/dev/null" && !parts.contains(&Part::Index) {
            return Err("is one file for all elements; put %a into its name".into());
        }
        Ok(Some(path))
    }

    /// A file's name for the shell that goes first.
    fn shell_path(&self, parts: &[Part]) -> String {
        let mut path = String::new();
        if !matches!(parts.first(), Some(Part::Text(text)) if text.starts_with('/')) {
            path.push_str(&quoted(&format!("{}/", self.folder.trim_end_matches('/'))));
        }
        for part in parts {
            match part {
                Part::Text(text) => path.push_str(&quoted(text)),
                Part::Job => path.push_str("\"$GANTRY_JOB\""),
                Part::Index => path.push_str("\"$GANTRY_INDEX\""),
                Part::Name => path.push_str("\"$SLURM_JOB_NAME\""),
            }
        }
        path
    }
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// How a shebang's program runs a text: the words of a shell, the option, whether a name follows.
fn interpreter(program: &str) -> Option<(String, &'static str, bool)> {
    let words: Vec<&str> = program.split_whitespace().collect();
    let own = |word: &&&str| !word.starts_with('-') && !word.ends_with("/env") && **word != "env";
    let name = words.iter().find(own)?.rsplit('/').next()?;
    let (_, flag, named) = INTERPRETERS.iter().find(|(known, _, _)| match *known {
        "python" => name.starts_with("python"),
        known => name == known,
    })?;
    let quoted: Vec<String> =
        words.iter().filter(|word| **word != "-S").map(|word| quoted(word)).collect();
    Some((quoted.join(" "), flag, *named))
}

/// The commands of a line, each with the word behind it, as far as a look without a shell tells.
fn commands(line: &str) -> Vec<(&str, Option<&str>)> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return Vec::new();
    }
    let parts = line.split([';', '|', '&', '(', ')', '`']);
    parts
        .filter_map(|part| {
            let mut words = part.split_whitespace().peekable();
            while let Some(word) = words.peek() {
                let assigns = word.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                });
                if !assigns && !BEFORE_COMMAND.contains(word) {
                    break;
                }
                words.next();
            }
            let command = words.next()?;
            Some((command.rsplit('/').next().unwrap_or(command), words.next()))
        })
        .collect()
}
