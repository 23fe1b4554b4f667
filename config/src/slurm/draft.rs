//! What the options of a script have said so far, and the job that it comes to.

use std::collections::BTreeMap;

use gantry_model::{GpuDemand, JobSpec, MemoryMib, Sharing, Work};

use super::script::Script;
use super::values::{self, Part};
use super::{Batch, Remark};

/// What a number of GPUs is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    Job,
    Node,
    Task,
}

/// Which variables a job is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Export {
    /// All of who submits, and these.
    All(BTreeMap<String, String>),
    /// These, and those of these names.
    Some { set: BTreeMap<String, String>, named: Vec<String> },
}

impl Export {
    pub(super) fn read(text: &str) -> Self {
        let (mut set, mut named, mut all) = (BTreeMap::new(), Vec::new(), false);
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((name, value)) => drop(set.insert(name.to_owned(), value.to_owned())),
                None if part == "ALL" => all = true,
                None if part == "NONE" => {}
                None => named.push(part.to_owned()),
            }
        }
        if all { Self::All(set) } else { Self::Some { set, named } }
    }
}

/// Variables of a session, a shell or an account, which are none of a job's: the node sets its own.
const OF_SESSION: [&str; 21] = [
    "_",
    "COLUMNS",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "HOME",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LINES",
    "LOGNAME",
    "LS_COLORS",
    "MAIL",
    "NOTIFY_SOCKET",
    "OLDPWD",
    "PWD",
    "SHELL",
    "SHLVL",
    "TERM",
    "TMPDIR",
    "USER",
    "WINDOWID",
    "XAUTHORITY",
];
/// How the names of others begin.
const OF_OTHERS: [&str; 6] = ["GANTRY_", "SLURM_", "SBATCH_", "SSH_", "TMUX", "XDG_"];
/// What the names of secrets have in them: a job keeps its variables in the scheduler's journal.
const SECRET: [&str; 6] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY"];

/// What was said.
#[derive(Debug)]
pub(super) struct Draft {
    /// What goes into the job as it was said.
    pub(super) spec: JobSpec,
    pub(super) name: Option<String>,
    pub(super) folder: Option<String>,
    pub(super) nodes: Option<u32>,
    pub(super) tasks: Option<u32>,
    pub(super) tasks_per_node: Option<u32>,
    pub(super) cpus: Option<u32>,
    pub(super) memory: Option<MemoryMib>,
    pub(super) memory_per_core: Option<MemoryMib>,
    pub(super) memory_per_gpu: Option<MemoryMib>,
    pub(super) gpus: Option<(u32, Per)>,
    pub(super) partition: Option<String>,
    pub(super) output: Option<String>,
    pub(super) error: Option<String>,
    pub(super) input: Option<String>,
    pub(super) export: Export,
    pub(super) wait: bool,
}

impl Default for Draft {
    fn default() -> Self {
        let work = Work::Command { arguments: Vec::new(), folder: None };
        Self {
            spec: JobSpec::new("", work),
            name: None,
            folder: None,
            nodes: None,
            tasks: None,
            tasks_per_node: None,
            cpus: None,
            memory: None,
            memory_per_core: None,
            memory_per_gpu: None,
            gpus: None,
            partition: None,
            output: None,
            error: None,
            input: None,
            // As sbatch does where nothing is said.
            export: Export::All(BTreeMap::new()),
            wait: false,
        }
    }
}

impl Draft {
    pub(super) fn constraint(&mut self, text: &str) -> Result<(), String> {
        if text.contains(['|', '[', '(', '*']) {
            return Err(
                "only features that a node must have together can be asked for, as a&b".into()
            );
        }
        self.spec.labels.extend(text.split(['&', ',']).map(str::to_owned));
        Ok(())
    }

    pub(super) fn exclusive(&mut self, text: &str) -> Result<(), String> {
        if !text.is_empty() {
            return Err(format!(
                "a node can be had alone or shared, not by {text}; write --exclusive"
            ));
        }
        self.spec.sharing = Sharing::Exclusive;
        Ok(())
    }

    pub(super) fn gpus(&mut self, text: &str, per: Per) -> Result<(), String> {
        let (count, model) = values::gpus(text)?;
        if self.gpus.is_some_and(|(known, _)| known != count) {
            return Err("gpus were asked for twice, and not as many; keep one of the two".into());
        }
        self.gpus = Some((count, per));
        self.spec.gpu.model = model.or(self.spec.gpu.model.take());
        Ok(())
    }

    pub(super) fn gres(&mut self, text: &str) -> Result<(), String> {
        if text == "none" {
            return Ok(());
        }
        for one in text.split(',') {
            match one.split_once(':') {
                Some(("gpu", rest)) => self.gpus(rest, Per::Node)?,
                None if one == "gpu" => self.gpus("1", Per::Node)?,
                _ => {
                    return Err(format!(
                        "{one:?} is nothing that nodes have here; a licence is counted (--licenses), and a label names what a node has (--constraint)"
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn licences(&mut self, text: &str) -> Result<(), String> {
        for one in text.split([',', ';']) {
            let (name, count) = one.split_once([':', '*']).unwrap_or((one, "1"));
            let count =
                count.parse().map_err(|_| format!("{one:?} is no licence; write name:2"))?;
            self.spec.licences.insert(name.to_owned(), count);
        }
        Ok(())
    }

    pub(super) fn memory(&mut self, text: &str) -> Result<(), String> {
        let size = values::size(text)?;
        if size == MemoryMib(0) {
            return Err(
                "0 is all of a node under Slurm; say how much, or take the node with --exclusive"
                    .into(),
            );
        }
        self.memory = Some(size);
        Ok(())
    }

    pub(super) fn nice(&mut self, text: &str) -> Result<(), String> {
        // sbatch's own where it says no number.
        let less: i32 = if text.is_empty() {
            100
        } else {
            text.parse().map_err(|_| format!("{text:?} is no number"))?
        };
        self.spec.priority = less.checked_neg().ok_or("it is too small")?;
        Ok(())
    }

    pub(super) fn node(&mut self, text: &str) -> Result<(), String> {
        if text.contains([',', '[']) {
            return Err(
                "one node can be named here; several share a label, as --constraint says".into()
            );
        }
        self.spec.node = Some(text.to_owned());
        Ok(())
    }

    pub(super) fn nodes(&mut self, text: &str) -> Result<(), String> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let wrong = || format!("{text:?} is no number of nodes");
        let (least, most): (u32, u32) =
            (least.parse().map_err(|_| wrong())?, most.parse().map_err(|_| wrong())?);
        if least == 0 || most < least {
            return Err(wrong());
        }
        self.nodes = Some(least);
        Ok(())
    }

    pub(super) fn partition(&mut self, text: &str) -> Result<(), String> {
        if text.contains(',') {
            return Err("one partition can be asked for; nodes may have several labels, and a job those that it needs".into());
        }
        self.partition = Some(text.to_owned());
        Ok(())
    }

    /// The job; what is wrong with the whole is added to what was refused.
    pub(super) fn job(
        &self,
        batch: &Batch,
        remarks: &mut Vec<Remark>,
        refused: &mut Vec<Remark>,
    ) -> Option<JobSpec> {
        let whole = |what: &str, sentence: String| Remark { line: 0, what: what.into(), sentence };
        if self.nodes.unwrap_or(1) > 1 {
            let each = self.tasks_per_node.unwrap_or(1);
            let ranks = self.tasks.unwrap_or_else(|| self.nodes.unwrap_or(1).saturating_mul(each));
            refused.push(whole("--nodes", format!(
                "gantry starts the ranks of several nodes itself, without srun: gantry submit --ranks {ranks} --nodes {} --cores {} -- COMMAND, where COMMAND is what srun starts",
                self.nodes.unwrap_or(1), self.cpus.unwrap_or(1)
            )));
        }
        let tasks = self.tasks.or(self.tasks_per_node).unwrap_or(1);
        let mut spec = self.spec.clone();
        spec.name = self.name.clone().unwrap_or_else(|| batch.name.clone());
        let cores = tasks.checked_mul(self.cpus.unwrap_or(1));
        spec.resources.cores = cores.unwrap_or(u32::MAX);
        spec.resources.gpus = match self.gpus {
            Some((count, Per::Task)) => count.saturating_mul(tasks),
            Some((count, _)) => count,
            None => 0,
        };
        if spec.resources.gpus == 0 {
            spec.gpu = GpuDemand::default();
        }
        let times =
            |size: MemoryMib, count: u32| MemoryMib(size.0.saturating_mul(u64::from(count)));
        let by_core = self.memory_per_core.map(|size| times(size, spec.resources.cores));
        let by_gpu = self.memory_per_gpu.map(|size| times(size, spec.resources.gpus));
        spec.resources.memory = self.memory.or(by_core).or(by_gpu).unwrap_or_default();
        spec.labels.extend(self.partition.iter().map(|name| format!("partition={name}")));
        let mut names = |what: &str, text: &Option<String>| -> Option<Vec<Part>> {
            let text = text.as_ref()?;
            values::pattern(text, &batch.user).map_err(|why| refused.push(whole(what, why))).ok()
        };
        let folder = absolute(&batch.folder, self.folder.as_deref().unwrap_or("."));
        let (output, error) = (names("--output", &self.output), names("--error", &self.error));
        let input = self.input.as_ref().map(|file| absolute(&folder, file));
        if output.is_none() {
            remarks.push(whole(
                "--output",
                "is not said: what the script prints is in gantry logs, not in slurm-%j.out".into(),
            ));
        }
        if let Export::All(_) = self.export {
            let kept: Vec<&str> = batch
                .environment
                .keys()
                .map(String::as_str)
                .filter(|name| is_secret(name))
                .collect();
            if !kept.is_empty() {
                remarks.push(whole("--export", format!(
                    "{} does not go with the job, as the name says that it is secret; let the script read it from a file of yours",
                    kept.join(", ")
                )));
            }
        }
        let environment = match self.variables(batch, tasks, &spec) {
            Ok(environment) => environment,
            Err(why) => {
                refused.push(whole("--export", why));
                return None;
            }
        };
        spec.environment = environment;
        let script = Script {
            batch,
            folder: &folder,
            output,
            error,
            input,
            array: spec.array.is_some(),
            tasks,
        };
        let (arguments, pattern) = script.arguments(remarks, refused)?;
        spec.output = pattern;
        spec.work = Work::Command { arguments, folder: Some(folder) };
        if let Err(reject) = spec.validate() {
            let hint = if reject.sentence.starts_with("the environment") {
                "; write --export=NONE, or name the variables that the script needs"
            } else {
                ""
            };
            refused.push(whole(&batch.name, format!("{}{hint}", reject.sentence)));
        }
        Some(spec)
    }

    /// The variables of the job: those that are exported, and those of Slurm that stand already.
    fn variables(
        &self,
        batch: &Batch,
        tasks: u32,
        spec: &JobSpec,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut all = match &self.export {
            Export::All(set) => {
                let mut all = batch.environment.clone();
                all.retain(|name, _| is_carried(name));
                all.extend(set.clone());
                all
            }
            Export::Some { set, named } => {
                let mut all = set.clone();
                for name in named {
                    let value = batch.environment.get(name);
                    let value =
                        value.ok_or_else(|| format!("the variable {name} is not set here"))?;
                    all.insert(name.clone(), value.clone());
                }
                all
            }
        };
        let resources = &spec.resources;
        let mut say = |names: &[&str], value: String| {
            all.extend(names.iter().map(|name| (format!("SLURM_{name}"), value.clone())));
        };
        say(&["JOB_NAME"], spec.name.clone());
        say(&["JOB_USER"], batch.user.clone());
        say(&["SUBMIT_DIR"], batch.folder.clone());
        say(&["SUBMIT_HOST"], batch.host.clone());
        say(&["JOB_NUM_NODES", "NNODES"], "1".into());
        say(&["NTASKS", "NPROCS", "TASKS_PER_NODE"], tasks.to_string());
        say(&["PROCID", "LOCALID", "NODEID"], "0".into());
        say(&["CPUS_ON_NODE", "JOB_CPUS_PER_NODE"], resources.cores.to_string());
        if let Some(cpus) = self.cpus {
            say(&["CPUS_PER_TASK"], cpus.to_string());
        }
        if let Some(count) = self.tasks_per_node {
            say(&["NTASKS_PER_NODE"], count.to_string());
        }
        if let Some(size) = self.memory_per_core {
            say(&["MEM_PER_CPU"], size.0.to_string());
        } else if resources.memory.0 > 0 {
            say(&["MEM_PER_NODE"], resources.memory.0.to_string());
        }
        if resources.gpus > 0 {
            say(&["GPUS", "GPUS_ON_NODE"], resources.gpus.to_string());
        }
        if let Some(partition) = &self.partition {
            say(&["JOB_PARTITION"], partition.clone());
        }
        if let Some(account) = &spec.group {
            say(&["JOB_ACCOUNT"], account.clone());
        }
        if let Some(array) = &spec.array {
            let ranges = array.indices.ranges();
            let edges =
                ranges.first().zip(ranges.last()).map_or((0, 0), |(one, other)| (one.0, other.1));
            say(&["ARRAY_TASK_COUNT"], array.indices.count().to_string());
            say(&["ARRAY_TASK_MIN"], edges.0.to_string());
            say(&["ARRAY_TASK_MAX"], edges.1.to_string());
        }
        Ok(all)
    }
}

/// Whether a variable's name says that it is a secret.
fn is_secret(name: &str) -> bool {
    let upper = name.to_uppercase();
    SECRET.iter().any(|part| upper.contains(part))
}

/// Whether a variable of who submits goes with the job.
fn is_carried(name: &str) -> bool {
    // A shell's functions are no variables that another shell would want.
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain
        && !OF_SESSION.contains(&name)
        && !OF_OTHERS.iter().any(|begin| name.starts_with(begin))
        && !is_secret(name)
}

/// A path as it is from a folder.
pub(super) fn absolute(folder: &str, path: &str) -> String {
    match path {
        "." => folder.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{}/{}", folder.trim_end_matches('/'), path.trim_start_matches("./")),
    }
}
