//! What a `slurm.conf` says of nodes, partitions and licences, as settings of gantry.
//!
//! A partition becomes a label of its nodes, `partition=NAME`, which is what a translated script asks
//! for; features become labels; accounts that may use a partition become groups without a limit, to be
//! filled in. GPUs are found by the agents themselves. What has no place here is said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use gantry_model::{MemoryMib, limits};

use super::{Remark, hosts};

/// Bytes of a file: a thousand nodes of a line each are a hundredth of it.
pub const CONF_BYTES_MAX: usize = 16 << 20;

/// Names of hosts that all lines of a file stand for together: a hundred partitions of ten thousand nodes.
const NAMED_MAX: usize = 1_000_000;

/// A node as the file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its cores, where the file says so.
    pub cores: Option<u32>,
    /// Its memory, where the file says so.
    pub memory: Option<MemoryMib>,
    /// Its GPUs, as the file counts them.
    pub gpus: u32,
    /// Its labels: its features, and its partitions as `partition=NAME`.
    pub labels: BTreeSet<String>,
}

/// What a file comes to.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Partitions, each with how many nodes it has.
    pub partitions: BTreeMap<String, usize>,
    /// Accounts that partitions name.
    pub groups: BTreeSet<String>,
    /// Licences, and how many of each.
    pub licences: BTreeMap<String, u32>,
    /// What has no place here.
    pub remarks: Vec<Remark>,
    /// Names that lists of hosts have stood for so far.
    named: usize,
}

/// Settings of a partition that have no counterpart, with what to do.
const OF_PARTITION: [(&str, &str); 10] = [
    ("AllowGroups", "who may use nodes is not limited here; give roles with gantry access grant"),
    ("AllowQos", "gantry has no QOS"),
    ("DefMemPerCPU", "a job says its memory itself; without, it has no limit"),
    ("DefaultTime", "a job says its time limit itself; without, it has none"),
    ("DenyAccounts", "who may use nodes is not limited here"),
    ("MaxMemPerCPU", "limit what a group has: [groups.NAME] limit"),
    ("MaxNodes", "limit what a group has: [groups.NAME] limit"),
    ("MaxTime", "jobs have no greatest time limit here"),
    ("PreemptMode", "a job says whether it may be stopped: --preemptible"),
    ("PriorityTier", "jobs are ordered by priority and share, not by partition"),
];

/// Reads a file's text.
#[must_use]
pub fn import(text: &str) -> Imported {
    let mut all = Imported::default();
    let mut defaults: BTreeMap<&str, Line> = BTreeMap::new();
    let mut partitions = Vec::new();
    for line in lines(text) {
        let Some((first, name)) = line.fields.first().cloned() else { continue };
        let kind = match first.to_ascii_lowercase().as_str() {
            "nodename" => "NodeName",
            "partitionname" => "PartitionName",
            "licenses" => {
                all.licences(&line, &name);
                continue;
            }
            "include" | "nodeset" => {
                all.say(
                    line.number,
                    &first,
                    "is not followed; write what it stands for into the file",
                );
                continue;
            }
            _ => continue,
        };
        if name.eq_ignore_ascii_case("DEFAULT") {
            defaults.insert(kind, line);
            continue;
        }
        let line = line.over(defaults.get(kind));
        if kind == "NodeName" {
            all.nodes(&line, &name);
        } else {
            partitions.push((name, line));
        }
    }
    for (name, line) in partitions {
        all.partition(&name, &line);
    }
    all
}

impl Imported {
    fn say(&mut self, line: usize, what: &str, sentence: impl Into<String>) {
        self.remarks.push(Remark { line, what: what.to_owned(), sentence: sentence.into() });
    }

    /// The hosts of a list; it is said where it is none, or the file names too many by now.
    fn hosts(&mut self, line: &Line, key: &str, list: &str) -> Vec<String> {
        let left = NAMED_MAX.saturating_sub(self.named);
        let names = hosts::expand(list).and_then(|names| {
            let why = || format!("the lists of the file name more than {NAMED_MAX} hosts");
            if names.len() <= left { Ok(names) } else { Err(why()) }
        });
        match names {
            Ok(names) => {
                self.named += names.len();
                names
            }
            Err(why) => {
                self.say(line.number, key, why);
                Vec::new()
            }
        }
    }

    fn licences(&mut self, line: &Line, text: &str) {
        for one in text.split(',') {
            let (name, count) = one.split_once([':', '*']).unwrap_or((one, "1"));
            match count.parse() {
                Ok(count) => drop(self.licences.insert(name.to_owned(), count)),
                Err(_) => self.say(line.number, "Licenses", format!("{one:?} has no number")),
            }
        }
    }

    fn nodes(&mut self, line: &Line, list: &str) {
        let number = |key: &str| line.value(key).and_then(|text| text.parse::<u32>().ok());
        let product = || {
            let sockets = number("Sockets")
                .or_else(|| number("Boards").unwrap_or(1).checked_mul(number("SocketsPerBoard")?));
            let cores = sockets.unwrap_or(1).checked_mul(number("CoresPerSocket")?)?;
            cores.checked_mul(number("ThreadsPerCore").unwrap_or(1))
        };
        let gpus = line.value("Gres").unwrap_or_default();
        let gpus = gpus.split(',').filter(|one| one.starts_with("gpu")).map(|one| {
            // What stands in brackets says near which cores.
            let counted = one.split('(').next().unwrap_or_default();
            counted.rsplit(':').next().and_then(|count| count.parse().ok()).unwrap_or(1)
        });
        let features = line.value("Feature").or_else(|| line.value("Features")).unwrap_or_default();
        let features = features.split(',').filter(|one| !one.is_empty());
        // Each node has its own of them.
        if features.clone().count() > limits::LABELS_MAX || features.clone().any(is_long) {
            let (most, long) = (limits::LABELS_MAX, limits::NAME_CHARACTERS_MAX);
            let why =
                format!("a node has at most {most} labels here, of at most {long} characters");
            return self.say(line.number, "Feature", why);
        }
        let node = Node {
            cores: number("CPUs").or_else(product),
            memory: number("RealMemory").map(|mib| MemoryMib(u64::from(mib))),
            gpus: gpus.fold(0, u32::saturating_add),
            labels: features.map(str::to_owned).collect(),
        };
        let names = self.hosts(line, "NodeName", list);
        self.nodes.extend(names.into_iter().map(|name| (name, node.clone())));
    }

    fn partition(&mut self, name: &str, line: &Line) {
        if is_long(name) {
            let why = format!("a name has at most {} characters here", limits::NAME_CHARACTERS_MAX);
            return self.say(line.number, "PartitionName", why);
        }
        let list = line.value("Nodes").unwrap_or_default();
        let names = match list {
            list if list.eq_ignore_ascii_case("ALL") => self.nodes.keys().cloned().collect(),
            "" | "(null)" => Vec::new(),
            list => self.hosts(line, "Nodes", list),
        };
        self.partitions.insert(name.to_owned(), names.len());
        let mut unknown = Vec::new();
        for host in names {
            match self.nodes.get_mut(&host) {
                Some(node) => drop(node.labels.insert(format!("partition={name}"))),
                None => unknown.push(host),
            }
        }
        match unknown.as_slice() {
            [] => {}
            [host] => self.say(line.number, "Nodes", format!("{host} is no node of the file")),
            [host, others @ ..] => {
                let why = format!("{host} and {} others are no nodes of the file", others.len());
                self.say(line.number, "Nodes", why);
            }
        }
        let accounts = line.value("AllowAccounts").filter(|text| !text.eq_ignore_ascii_case("ALL"));
        self.groups.extend(
            accounts
                .unwrap_or_default()
                .split(',')
                .filter(|one| !one.is_empty())
                .map(str::to_owned),
        );
        if accounts.is_some() {
            self.say(line.number, "AllowAccounts", format!("the accounts are groups now, and each may use {name}: who may use nodes is not limited here"));
        }
        if line.value("Default").is_some_and(|text| text.eq_ignore_ascii_case("YES")) {
            self.say(line.number, "Default", format!("a job that names no partition may run on every node, not on those of {name} alone"));
        }
        for (key, sentence) in OF_PARTITION {
            let said = line.value(key).filter(|text| {
                !text.eq_ignore_ascii_case("UNLIMITED")
                    && !text.eq_ignore_ascii_case("INFINITE")
                    && !text.eq_ignore_ascii_case("ALL")
            });
            if let Some(text) = said {
                self.say(line.number, &format!("{key}={text} of {name}"), sentence);
            }
        }
    }

    /// The settings of the scheduler.
    #[must_use]
    pub fn scheduler_file(&self) -> String {
        let mut text =
            String::from("# Taken from slurm.conf; what is not named here has its default.\n");
        if !self.licences.is_empty() {
            text.push_str("\n[licences]\n");
            for (name, count) in &self.licences {
                let _ = writeln!(text, "{} = {count}", key(name));
            }
        }
        for group in &self.groups {
            let _ = writeln!(
                text,
                "\n# guarantee, limit and weight are the site's to say.\n[groups.{}]\nusers = []",
                key(group)
            );
        }
        text
    }

    /// The settings of a node's agent, beside its name and the scheduler's address, which join writes.
    #[must_use]
    pub fn agent_file(&self, name: &str) -> Option<String> {
        let node = self.nodes.get(name)?;
        let mut text = format!("# Taken from slurm.conf for {name}.\n");
        if node.gpus > 0 {
            text.push_str("roles = [\"gpu\"]\n");
        }
        if let Some(cores) = node.cores {
            let _ = writeln!(text, "cores = {cores}");
        }
        if let Some(memory) = node.memory {
            let _ = writeln!(text, "memory = \"{memory}\"");
        }
        let labels: Vec<String> = node.labels.iter().map(|label| written(label)).collect();
        let _ = writeln!(text, "labels = [{}]", labels.join(", "));
        Some(text)
    }
}

/// Whether a name is longer than one may be here.
fn is_long(name: &str) -> bool {
    name.chars().count() > limits::NAME_CHARACTERS_MAX
}

/// A key as TOML writes it, which not every text that is a value can be.
fn key(name: &str) -> String {
    let line = toml::Table::from_iter([(name.to_owned(), true.into())]).to_string();
    line.trim_end().trim_end_matches("= true").trim_end().to_owned()
}

/// A text as TOML writes it.
fn written(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A line of the file, with those that continue it.
#[derive(Clone, Debug, Default)]
struct Line {
    number: usize,
    fields: Vec<(String, String)>,
}

impl Line {
    fn value(&self, key: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.as_str())
    }

    /// The line with what another sets that it does not.
    fn over(mut self, defaults: Option<&Self>) -> Self {
        for (name, value) in defaults.into_iter().flat_map(|line| &line.fields) {
            if self.value(name).is_none() {
                self.fields.push((name.clone(), value.clone()));
            }
        }
        self
    }
}

fn lines(text: &str) -> Vec<Line> {
    let (mut all, mut whole, mut begin) = (Vec::new(), String::new(), 0);
    for (at, line) in text.lines().enumerate() {
        if whole.is_empty() {
            begin = at + 1;
        }
        let line = line.split('#').next().unwrap_or_default().trim_end();
        if let Some(part) = line.strip_suffix('\\') {
            whole.push_str(part);
            whole.push(' ');
            continue;
        }
        whole.push_str(line);
        all.push(Line { number: begin, fields: fields(&std::mem::take(&mut whole)) });
    }
    all.push(Line { number: begin, fields: fields(&whole) });
    all
}

/// `Key=Value` between blanks; a value may be quoted.
fn fields(line: &str) -> Vec<(String, String)> {
    let (mut found, mut rest) = (Vec::new(), line.trim_start());
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let Some(after) = after.strip_prefix('=') else {
            // Include FILE.
            let (value, left) = after
                .trim_start()
                .split_once(char::is_whitespace)
                .unwrap_or((after.trim_start(), ""));
            found.push((name.to_owned(), value.to_owned()));
            rest = left.trim_start();
            continue;
        };
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_at(after.find(char::is_whitespace).unwrap_or(after.len())),
        };
        found.push((name.to_owned(), value.to_owned()));
        rest = left.trim_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentSettings, SchedulerSettings, load};

    const CONF: &str = "\
ClusterName=site  # ours
Licenses=matlab:5,idl
NodeName=DEFAULT RealMemory=128000 State=UNKNOWN
NodeName=cpu[01-02] CPUs=32 Feature=avx512,nvme
nodename=gpu1 Sockets=2 CoresPerSocket=16 ThreadsPerCore=2 \\
    RealMemory=512000 Gres=gpu:a100:4(S:0-1),mps:2
PartitionName=DEFAULT MaxTime=1-00:00:00
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes=gpu[1-2] AllowAccounts=chest,brain PriorityTier=5
Include other.conf
";

    #[test]
    fn nodes_partitions_accounts_and_licences_are_taken_over() {
        let found = import(CONF);
        let names: Vec<&str> = found.nodes.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu01", "cpu02", "gpu1"]);
        assert_eq!((found.nodes["cpu01"].cores, found.nodes["gpu1"].cores), (Some(32), Some(64)));
        assert_eq!(found.nodes["gpu1"].gpus, 4);
        assert_eq!(found.partitions, [("gpu".into(), 2), ("main".into(), 3)].into());
        let agent: AgentSettings =
            load("a", &format!("node = \"gpu1\"\n{}", found.agent_file("gpu1").unwrap())).unwrap();
        assert_eq!((agent.cores, agent.memory), (Some(64), Some(MemoryMib(512_000))));
        assert!(agent.labels.contains("partition=gpu") && agent.labels.contains("partition=main"));
        let plain: AgentSettings =
            load("a", &format!("node = \"cpu01\"\n{}", found.agent_file("cpu01").unwrap()))
                .unwrap();
        assert!(plain.labels.contains("nvme") && plain.labels.contains("avx512"));
        let scheduler: SchedulerSettings = load("s", &found.scheduler_file()).unwrap();
        assert_eq!((scheduler.licences["matlab"], scheduler.licences["idl"]), (5, 1));
        assert!(scheduler.groups.contains_key("chest") && scheduler.groups.contains_key("brain"));
    }

    #[test]
    fn a_small_file_that_stands_for_much_is_no_plan_of_it() {
        let features: Vec<String> = (0..=limits::LABELS_MAX).map(|n| format!("f{n}")).collect();
        let long = "x".repeat(limits::NAME_CHARACTERS_MAX + 1);
        let many = "PartitionName=p Nodes=n[1-99999]\n".repeat(12);
        for (text, part) in [
            (format!("NodeName=n[1-9] Feature={}\n", features.join(",")), "64 labels"),
            (format!("NodeName=n[1-9] Feature={long}\n"), "64 characters"),
            (format!("NodeName=n1\nPartitionName={long} Nodes=n1\n"), "64 characters"),
            (many, "more than 1000000 hosts"),
        ] {
            let found = import(&text);
            let said = found.remarks.iter().any(|remark| remark.sentence.contains(part));
            assert!(said, "{:?}", found.remarks);
            assert!(found.remarks.len() < 20, "{}", found.remarks.len());
            assert!(found.nodes.values().all(|node| node.labels.is_empty()));
        }
    }

    #[test]
    fn names_are_keys_whatever_is_in_them() {
        for name in ["a", "a b", "a.b", "", "a'\\b", "\"a'\\", "a = true", "\u{fffd}\u{1}", "tür"]
        {
            let text = format!("[of.{0}]\n{0} = 3\n", key(name));
            let read: toml::Table = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read["of"][name][name].as_integer(), Some(3), "{text}");
        }
    }

    #[test]
    fn what_has_no_place_is_said_with_its_line() {
        let said: Vec<(usize, String)> =
            import(CONF).remarks.into_iter().map(|one| (one.line, one.what)).collect();
        assert_eq!(
            said,
            [
                (10, "Include"),
                (8, "Default"),
                (9, "Nodes"),
                (9, "AllowAccounts"),
                (9, "MaxTime=1-00:00:00 of gpu"),
                (9, "PriorityTier=5 of gpu"),
            ]
            .map(|(line, what)| (line, what.to_owned()))
        );
    }
}
