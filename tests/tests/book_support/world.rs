//! A world in which what the documents name exists: nodes with GPUs, a person, scripts, and a small library.

use std::cell::{Cell, OnceCell, RefCell};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_tests::{Cluster, free_ports, until};
use rustix::process::Signal;
use serde_json::Value;

use super::commands::words;
use super::fake::Fake;
use super::tables::{Ends, Job, WORDS, job_of, word_at};

/// Nodes with four GPUs each; the first one receives images too.
const GPU_NODES: [&str; 4] = ["gpu-1", "gpu-2", "gpu-3", "gpu-4"];
const GPUS: usize = 4;
const CPU_NODE: &str = "cpu-7";
const NODE: &str = "cores = 128\nmemory = \"512G\"\nworkers = 1\npython = \"no-torch\"\nlabels = [\"pilot=slurm\"]\n";
const SETTINGS: &str =
    "node_timeout = \"4s\"\n[groups.research]\nusers = [\"operator\", \"ada\"]\n";
/// What each script of the documents does here.
const SCRIPT: &str = "#!/bin/sh\necho nan, out of memory\nexec sleep 600\n";
/// What each of them says.
const SAYS: &str = "out of memory";
const SCRIPTS: [&str; 7] = [
    "clean-up.sh",
    "next.sh",
    "notebook.sh",
    "one.sh",
    "reconstruct.sh",
    "second-step.sh",
    "train.sh",
];
/// Files in the folder where commands run.
const FILES: [(&str, &str); 8] = [
    (
        "sweep.sh",
        "#!/bin/sh\n#SBATCH --array=0-3\n#SBATCH --time=10\necho out of memory\nsleep 600\n",
    ),
    (
        "qos.sh",
        "#!/bin/sh\n#SBATCH --qos=high\n#SBATCH --mail-type=END\necho out of memory\nsleep 600\n",
    ),
    ("train.py", "#!/bin/sh\necho ::metric loss 0.31 120\necho out of memory\n"),
    ("report.txt", "A small nodule in the right lung.\n"),
    ("study.toml", "[[job]]\nname = \"one\"\ncommand = [\"./one.sh\"]\n"),
    (
        "slurm.conf",
        "NodeName=a CPUs=2 RealMemory=9 Gres=gpu:1\nPartitionName=p Nodes=a MaxTime=60\n",
    ),
    ("my.toml", include_str!("../../../config/files/pipelines/chest-ct.toml")),
    ("chest-ct.toml", include_str!("../../../config/files/jobs/chest-ct.toml")),
];
/// Programs on the path, of whoever types and of the nodes; those of Slurm take what they are given, and
/// the Python of the team runs its program and has no `PyTorch`.
const PROGRAMS: [(&str, &str); 5] = [
    ("sbatch", "#!/bin/sh\ncat > /dev/null\necho 77\n"),
    ("squeue", "#!/bin/sh\n"),
    ("torch-worker.sh", SCRIPT),
    ("python3", "#!/bin/sh\nexec sh \"$@\"\n"),
    ("no-torch", "#!/bin/sh\nexit 1\n"),
];
/// Names of files that are there for commands of the documents.
pub(crate) fn files() -> impl Iterator<Item = &'static str> {
    SCRIPTS.into_iter().chain(FILES.map(|(name, _)| name)).filter(|name| *name != "qos.sh")
}

const SMALL: PhantomSettings = PhantomSettings {
    size: [32, 32, 6],
    spacing_mm: [10.5, 10.5, 32.0],
    noise_hu: 18.0,
    lesions_max: 2,
};

/// It ends, with all that runs in it, with this value.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// Variables that a document has exported.
    exported: RefCell<Vec<(String, String)>>,
    ingest: String,
    made: Cell<usize>,
    ended: OnceCell<String>,
    subject: OnceCell<[String; 2]>,
    _drivers: Vec<Fake>,
}

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, PermissionsExt::from_mode(0o755))?)
}

/// Makes the folders, the scripts and the programs.
fn fill(folder: &Path, program: &str) -> Result<()> {
    for name in ["bin", "home", "work", "drivers"] {
        fs::create_dir(folder.join(name))?;
    }
    for (name, text) in SCRIPTS.map(|name| (name, SCRIPT)).into_iter().chain(FILES) {
        executable(&folder.join("work").join(name), text)?;
    }
    for (name, text) in PROGRAMS {
        executable(&folder.join("bin").join(name), text)?;
    }
    Ok(symlink(program, folder.join("bin/gantry"))?)
}

/// Where programs are looked for.
fn path(folder: &Path) -> String {
    format!("{}/bin:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

impl World {
    /// Starts one; nothing where there is no C compiler for the driver of its GPUs, which is said aloud.
    ///
    /// # Errors
    /// Where it does not come up.
    pub(crate) fn start(program: &str) -> Result<Option<Self>> {
        let mut cluster = Cluster::start(program)?;
        let folder = cluster.folder().to_owned();
        fill(&folder, program)?;
        let settings = folder.join("scheduler/scheduler.toml");
        let text = fs::read_to_string(&settings)? + SETTINGS;
        fs::write(&settings, text)?;
        cluster.gantry.json(&["scheduler", "reload"])?;
        let path = path(&folder);
        for node in GPU_NODES.into_iter().chain([CPU_NODE]) {
            cluster.set_environment(node, [("PATH".to_owned(), path.clone())]);
        }
        let ingest = format!("127.0.0.1:{}", free_ports()?.1);
        let library = folder.join("library").display().to_string();
        let receives = format!("library = {library:?}\n[ingest]\nlisten = {ingest:?}\n");
        let mut drivers = Vec::new();
        for node in GPU_NODES {
            let place = folder.join("drivers").join(node);
            fs::create_dir(&place)?;
            let Some(driver) = Fake::build(&place) else { return Ok(None) };
            driver.say(&format!("gpus {GPUS}\nprefix {node}"));
            (0..GPUS).for_each(|gpu| driver.say(&format!("name {gpu} NVIDIA H100 80GB HBM3")));
            let nvml = driver.library().display().to_string();
            let more = if node == GPU_NODES[0] { &receives } else { "" };
            let settings = format!("{NODE}roles = [\"cpu\", \"gpu\"]\nnvml = {nvml:?}\n{more}");
            cluster.join(node, &settings)?;
            drivers.push(driver);
        }
        cluster.join(CPU_NODE, NODE)?;
        let world = Self {
            cluster,
            exported: RefCell::default(),
            ingest,
            made: Cell::new(0),
            ended: OnceCell::new(),
            subject: OnceCell::new(),
            _drivers: drivers,
        };
        world.join_ada()?;
        world.see_gpus()?;
        Ok(Some(world))
    }

    /// Has ada join, who is given another role by the documents.
    fn join_ada(&self) -> Result<()> {
        let folder = self.folder().join("ada").display().to_string();
        let token = self.token("--user", "ada")?;
        let address = self.cluster.address()?.to_string();
        let join = ["join", &token, "--user", "ada", "--scheduler", &address, "--dir", &folder];
        self.cluster.gantry.json(&join)?;
        Ok(())
    }

    /// Waits until every GPU is known to the scheduler.
    fn see_gpus(&self) -> Result<()> {
        until("all GPUs", || {
            let nodes = self.cluster.gantry.json(&["nodes"]).ok()?;
            let count = |row: &Value| row["sample"]["gpus"].as_array().map_or(0, Vec::len);
            let all: usize = nodes.as_array()?.iter().map(count).sum();
            (all == GPU_NODES.len() * GPUS).then_some(())
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.cluster.folder()
    }

    /// The folder where commands run.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder().join("work")
    }

    /// The variables of a command.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let folder = self.folder().display();
        let own = [
            ("HOME", format!("{folder}/home")),
            ("PATH", path(self.folder())),
            ("USER", "ada".to_owned()),
            ("GANTRY_CLUSTER", format!("{folder}/scheduler")),
            ("AWS_SHARED_CREDENTIALS_FILE", format!("{folder}/none")),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(self.exported.borrow().iter().cloned()).collect()
    }

    /// A command line with these variables, ready to be run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.cluster.gantry.command(arguments);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            command.env_remove(name);
        }
        command.envs(self.environment()).current_dir(self.work());
        command
    }

    /// Takes back the variables of the document before.
    pub(crate) fn forget_exports(&self) {
        self.exported.borrow_mut().clear();
    }

    /// Sets a variable for all commands that follow.
    pub(crate) fn export(&self, name: &str, value: &str) -> Result<()> {
        let value = self.translate(value, "")?;
        self.exported.borrow_mut().push((name.to_owned(), value));
        Ok(())
    }

    /// A token with which a node or a person joins.
    fn token(&self, kind: &str, name: &str) -> Result<String> {
        let value = match kind {
            "--node" => self.cluster.gantry.json(&["scheduler", "token", name])?,
            _ => self.cluster.gantry.json(&["access", "token", name, "--role", "user"])?,
        };
        Ok(value["token"].as_str().context("no token")?.to_owned())
    }

    /// What stands for a word in braces, in a command of the documents.
    fn word(&self, name: &str, command: &str) -> Result<String> {
        let place = |name: &str| self.folder().join(name).display().to_string();
        Ok(match name {
            "folder" => self.folder().display().to_string(),
            "scheduler" | "backup" | "stopped" => place(name),
            "new" => {
                self.made.set(self.made.get() + 1);
                place(&format!("made-{}", self.made.get()))
            }
            "made" => place(&format!("made-{}", self.made.get())),
            "address" => self.cluster.address()?.to_string(),
            "ingest" => self.ingest.clone(),
            "token" => {
                let words = words(command);
                let pair = words.windows(2).find(|pair| ["--node", "--user"].contains(&&*pair[0]));
                let pair = pair.context("a token for nobody")?;
                self.token(&pair[0], &pair[1])?
            }
            "series" => self.subject.get().context("no library")?[0].clone(),
            "sample" => self.subject.get().context("no library")?[1].clone(),
            other => anyhow::bail!("{{{other}}} stands for nothing"),
        })
    }

    /// A text of the documents with the words of this world.
    fn translate(&self, text: &str, command: &str) -> Result<String> {
        let (mut rest, mut made) = (text, String::new());
        while let Some(first) = rest.chars().next() {
            let Some((from, to)) = word_at(rest).map(|place| WORDS[place]) else {
                made.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            };
            rest = &rest[from.len()..];
            for part in to.split_inclusive('}') {
                match part.split_once('{') {
                    Some((before, name)) => {
                        made += before;
                        made += &self.word(name.trim_end_matches('}'), command)?;
                    }
                    None => made += part,
                }
            }
        }
        Ok(made)
    }

    /// Brings about what a command of the documents needs; gives its arguments in this world, and the job
    /// that was made for it.
    ///
    /// # Errors
    /// Where that fails.
    pub(crate) fn prepare(&self, command: &str) -> Result<(Vec<String>, Option<String>)> {
        let text = self.translate(command, command)?;
        let (mut arguments, mut job) = (words(&text), None);
        arguments.remove(0);
        for word in &mut arguments {
            let at = word.find(':').map_or(0, |at| at + 1);
            let Some(number) = word[at..].strip_prefix('j') else { continue };
            let digits = number.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || !matches!(number.as_bytes().get(digits), None | Some(b'.')) {
                continue;
            }
            if job.is_none() {
                job = Some(self.job(job_of(command))?);
            }
            let known = job.as_deref().unwrap_or_default();
            *word = format!("{}{known}{}", &word[..at], &number[digits..]);
        }
        if let Some(node) = command.strip_prefix("gantry forget ") {
            self.lose(node)?;
        }
        if command.starts_with("gantry scheduler check") {
            let [backup, stopped] =
                ["stopped-backup", "stopped"].map(|name| self.folder().join(name));
            let [backup, stopped] = [&backup, &stopped].map(|path| path.display().to_string());
            self.cluster.gantry.json(&["scheduler", "backup", &backup])?;
            self.cluster.gantry.json(&["scheduler", "restore", &backup, "--to", &stopped])?;
        }
        // The shared one ends by itself, and others of the page need it.
        Ok((arguments, job.filter(|job| Some(job) != self.ended.get())))
    }

    /// Does what follows from a command outside of gantry: a node whose access was taken away is switched off.
    /// Else its agent would call until others from this address are not heard either.
    ///
    /// # Errors
    /// Where the node had no agent.
    pub(crate) fn follow_up(&self, command: &str) -> Result<()> {
        match command.strip_prefix("gantry access revoke --node ") {
            Some(node) => self.cluster.signal_agent(node, Signal::TERM),
            None => Ok(()),
        }
    }

    fn submit(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(&[&["--json", "submit"], arguments].concat()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let kind = value["kind"].as_str().unwrap_or_default();
        let job = value[kind]["job"].as_str().map(str::to_owned);
        job.with_context(|| text.clone())
    }

    /// Waits until a job that a command has submitted does what it should.
    ///
    /// # Errors
    /// Where it ends otherwise.
    pub(crate) fn expect(&self, job: &str, ends: Ends) -> Result<()> {
        let look = || self.cluster.gantry.json(&["job", job]);
        let begun = look()?;
        let says = match (ends, begun["kind"].as_str()) {
            (Ends::Works(part) | Ends::Fails(part), _) => Some(part),
            (_, Some("command")) => Some(SAYS),
            // Its first epoch has begun.
            (_, Some("train")) => Some("::progress "),
            _ => None,
        };
        let fails = matches!(ends, Ends::Fails(_));
        let has_said = |part: &str| {
            let found = self.cluster.gantry.run(&["logs", job, "--search", part]);
            found.is_ok_and(|output| output.status.success())
        };
        let reached = || {
            let row = look().ok()?;
            let tasks = row["first_tasks"].as_array()?;
            let failed =
                tasks.iter().any(|task| task["exit_code"].as_i64().is_some_and(|code| code != 0));
            let there = match says {
                _ if fails => row["state"] == "fail" && says.is_some_and(has_said),
                Some(part) => has_said(part),
                None => row["state"] == "done",
            };
            match (there, failed && !fails) {
                (_, true) => Some(Err(anyhow::anyhow!("a task of {job} has failed"))),
                (true, false) => Some(Ok(())),
                (false, false) => None,
            }
        };
        let seen = until(&format!("{says:?} of {job}"), reached).and_then(|seen| seen);
        seen.with_context(|| {
            let row = look().unwrap_or_default();
            let said = self.cluster.gantry.run(&["logs", job]).map(|output| output.stdout);
            let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
            format!("{job} is in state {}, {}\n{said}", row["state"], row["reason"])
        })
    }

    fn job(&self, job: Job) -> Result<String> {
        let state = |job: &str, state: &str| {
            until(&format!("{job} {state}"), || {
                (self.cluster.gantry.json(&["job", job]).ok()?["state"] == state).then_some(())
            })
        };
        match job {
            Job::Held => self.submit(&["--hold", "--", "./one.sh"]),
            Job::Running => {
                let made = self.submit(&["--array", "0-99%8", "--", "./one.sh"])?;
                state(&made, "run")?;
                Ok(made)
            }
            Job::Ended => {
                if let Some(job) = self.ended.get() {
                    return Ok(job.clone());
                }
                let print = ["--array", "0-99", "--", "echo", "nan, out of memory"];
                let made = self.submit(&print)?;
                state(&made, "done")?;
                Ok(self.ended.get_or_init(|| made).clone())
            }
        }
    }

    /// Ends the agent of a node, and waits until the scheduler gives it up.
    fn lose(&self, node: &str) -> Result<()> {
        self.cluster.signal_agent(node, Signal::TERM)?;
        until(&format!("the loss of {node}"), || {
            let nodes = self.cluster.gantry.json(&["nodes"]).ok()?;
            let row = nodes.as_array()?.iter().find(|row| row["node"] == node).cloned()?;
            (row["state"] == "lost").then_some(())
        })
    }

    fn done(&self, line: &str) -> Result<()> {
        let line = line.replace("{}", &self.folder().display().to_string());
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = self.command(&arguments).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{line}: {errors}");
        Ok(())
    }

    fn scan(&self, number: u32, name: &str) -> Result<()> {
        let scan = self.folder().join("scans").join(name);
        fs::create_dir_all(&scan)?;
        let series =
            ct_series(&patient(number, &SMALL).image, &Subject::new(format!("p{number}")))?;
        for (slice, bytes) in series.iter().enumerate() {
            fs::write(scan.join(format!("{slice}.dcm")), bytes)?;
        }
        Ok(())
    }

    /// Fills the library: three patients with samples, two trained runs, a prediction; beside it lie scans
    /// of another patient, masks, and pictures of one with their annotations.
    ///
    /// # Errors
    /// Where that fails.
    pub(crate) fn fill_library(&self) -> Result<()> {
        for (number, name) in
            ["old/1", "old/2", "old/3", "elsewhere", "new", "named"].into_iter().enumerate()
        {
            self.scan(number as u32 + 1, name)?;
        }
        for (library, scans) in [("library", "old"), ("other", "elsewhere")] {
            self.done(&format!("import --library {{}}/{library} {{}}/scans/{scans}"))?;
            let made = "--pipeline chest-ct --all --wait";
            self.done(&format!("preprocess --library {{}}/{library} {made}"))?;
        }
        for (seed, run) in [(1, "one"), (2, "other")] {
            let short = "--label lungs --epochs 2 --batch 4 --engine embedded --wait";
            self.done(&format!("train --library {{}}/library {short} --seed {seed} --run {run}"))?;
        }
        let library = self.folder().join("library").display().to_string();
        let samples = self.cluster.gantry.json(&["data", "samples", "--library", &library])?;
        let text = |field: &str| samples[0][field].as_str().map(str::to_owned);
        let series = text("series").context("no series")?;
        let sample = text("id").context("no sample")?;
        self.done("models --library {}/library run:one --approve --by ada")?;
        self.done(&format!("predict --library {{}}/library --model run:one --wait {series}"))?;
        self.done("library --library {}/library export dicom-seg {}/masks")?;
        self.done("library --library {}/library export nnunet {}/exported")?;
        let mask = self.folder().join(format!("exported/labelsTr/{sample}.nii.gz"));
        fs::copy(mask, self.work().join("mask.nii.gz"))?;
        // The same pictures twice: as one export is, and with a file of annotations of another name.
        self.done("library --library {}/other export coco {}/set")?;
        self.done("library --library {}/other export coco {}/set/annotations")?;
        let annotations = self.folder().join("set/annotations");
        fs::rename(annotations.join("annotations.json"), annotations.join("train.json"))?;
        let jobs = self.work().join("chest-ct.toml");
        let text = fs::read_to_string(&jobs)?.replace("/shared/library", &library);
        fs::write(jobs, text)?;
        ensure!(self.subject.set([series, sample]).is_ok(), "it was filled twice");
        Ok(())
    }
}
