//! What the documents leave open: names that a reader replaces, and commands that end otherwise than well.

/// Words of the documents, and what stands for each in the test. Of several that begin at a place the first
/// one counts. `World::word` says what the braces hold.
pub(crate) const WORDS: &[(&str, &str)] = &[
    // A second cluster of the test's own; `{new}` is a folder that is not there yet, `{made}` the last such.
    (
        "scheduler init --name radiology-a --dir /var/lib/gantry/scheduler",
        "scheduler init --name radiology-a --dir {new}",
    ),
    ("scheduler init", "scheduler --dir {new} init"),
    ("restore /backup/gantry-monday --to /var/lib/gantry/scheduler", "restore {backup} --to {new}"),
    ("scheduler --dir /var/lib/gantry/scheduler token", "scheduler --dir {scheduler} token"),
    (
        "scheduler --dir /var/lib/gantry/scheduler",
        "scheduler --set listen=127.0.0.1:0 --dir {made}",
    ),
    ("scheduler check /var/lib/gantry/scheduler", "scheduler check {stopped}"),
    ("/var/lib/gantry/scheduler", "{scheduler}"),
    ("/backup/gantry-monday", "{backup}"),
    ("join TOKEN", "join {token} --dir {new}"),
    ("gantry agent", "gantry agent --dir {made}"),
    ("gantry-host:7400", "{address}"),
    ("HOST:7400", "{address}"),
    ("library --library /mnt/library create", "library --library {new} create"),
    ("/mnt/library", "{folder}/library"),
    ("/shared/library", "{folder}/library"),
    ("/mnt/out", "{new}"),
    ("/mnt/old-archive", "{folder}/scans/new"),
    ("/mnt/some-files", "{folder}/scans/new"),
    ("/mnt/x", "{folder}/scans/named"),
    ("/mnt/masks", "{folder}/masks"),
    ("/mnt/set", "{folder}/set"),
    ("/shared/pilots", "{folder}/pilots"),
    ("/etc/slurm/slurm.conf", "slurm.conf"),
    ("--to made", "--to {new}"),
    ("console/pictures", "{new}"),
    ("man DIR", "man {new}"),
    ("node show NODE", "node show gpu-3"),
    // A night of two seconds.
    ("--for 8h", "--for 2s"),
    ("gpu-1:11112", "{ingest}"),
    // Nobody listens there.
    ("pacs.site:2762", "127.0.0.1:1"),
    ("site.pem", "{scheduler}/authority.pem"),
    ("127.0.0.1:8080", "127.0.0.1:0"),
    // A script with an option that has to be named to be ignored.
    ("train.sh --ignore", "qos.sh --ignore"),
    ("SERIES", "{series}"),
    ("SAMPLE", "{sample}"),
    ("run:NAME", "run:one"),
    ("run:ONE", "run:one"),
    ("run:lungs", "run:one"),
    ("run:OTHER", "run:other"),
];

/// The place in [`WORDS`] of what a text begins with.
pub(crate) fn word_at(text: &str) -> Option<usize> {
    WORDS.iter().position(|(from, _)| text.starts_with(from))
}

/// How a command ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ends {
    /// With exit code 0; what it submits begins to work, or is done where it is one of gantry's own short
    /// operations.
    Well,
    /// With exit code 0; what it submits goes on and says this.
    Works(&'static str),
    /// With exit code 0; what it submits fails, and says this.
    Fails(&'static str),
    /// With this exit code, and a sentence that has this in it.
    Refused(i32, &'static str),
    /// Not by itself: it says this, and is ended.
    Lasts(&'static str),
    /// It shows this in a terminal, and is left with `q`.
    Shows(&'static str),
}

/// What a service says once it answers.
const SERVES: &str = "programs can ask at http://127.0.0.1:";
/// What a training says where it was to have `PyTorch`.
const NO_TORCH: &str = "has no package torch";

/// Commands that do not end well by themselves, each as the documents write it, and why that is.
pub(crate) const EXCEPTIONS: &[(&str, Ends, &str)] = &[
    ("gantry", Ends::Shows("gpu-3"), "the console"),
    ("gantry replay night.rec --speed 60", Ends::Shows("gpu-3"), "the console on a recording"),
    ("gantry scheduler --dir /var/lib/gantry/scheduler", Ends::Lasts("serving"), "a daemon"),
    ("gantry agent", Ends::Lasts("connected"), "a daemon"),
    ("gantry logs -f j12", Ends::Lasts("out of memory"), "follows a job that runs"),
    ("gantry events --follow", Ends::Lasts("joined"), "follows the log"),
    ("gantry watch --plain", Ends::Lasts("nodes are up"), "follows the cluster"),
    (
        "gantry submit --retries 9 -- gantry serve --library /mnt/library --model lungs-unet2d --modality CT --listen 127.0.0.1:8080",
        Ends::Works(SERVES),
        "a service",
    ),
    (
        "gantry submit --name serve --retries 9 -- gantry serve --library /mnt/library --model lungs-unet2d --modality CT --listen 127.0.0.1:8080",
        Ends::Works(SERVES),
        "a service",
    ),
    (
        "gantry train --label lungs --engine torch --ranks 4 --nodes 2 --gpus 2 --retries 3",
        Ends::Fails(NO_TORCH),
        "the nodes here have no PyTorch",
    ),
    (
        "gantry train --library /mnt/library --label lungs --engine torch --gpus 2",
        Ends::Fails(NO_TORCH),
        "the nodes here have no PyTorch",
    ),
    (
        "gantry library create --objects s3://scans/site --endpoint https://s3.example.org",
        Ends::Refused(2, "its keys are missing"),
        "there is no bucket",
    ),
    (
        "gantry library create --objects s3://scans/site --endpoint https://s3.example.org --records",
        Ends::Refused(2, "its keys are missing"),
        "there is no bucket",
    ),
    (
        "gantry send --to pacs.site:2762 --called PACS --tls-authority site.pem /mnt/x",
        Ends::Refused(125, "check that a receiver listens there"),
        "there is no PACS",
    ),
    (
        "gantry access authority --finish",
        Ends::Refused(2, "would lock out those who have not renewed yet"),
        "agents renew within a day; a test of its own has short certificates",
    ),
];

/// How a command of the documents ends.
pub(crate) fn end_of(command: &str) -> Ends {
    let found = EXCEPTIONS.iter().find(|(known, ..)| *known == command);
    found.map_or(Ends::Well, |(_, ends, _)| *ends)
}

/// The job that a number like `j12` stands for in a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// An array whose first elements run and whose others wait.
    Running,
    /// One that is held.
    Held,
    /// An array that has ended well.
    Ended,
}

/// Which job a command is about, by what it has in it; a running one where nothing is said here.
pub(crate) const JOBS: &[(&str, Job)] = &[
    ("gantry wait ", Job::Ended),
    (" --search ", Job::Ended),
    (" --after ", Job::Ended),
    ("gantry why ", Job::Held),
    ("gantry release ", Job::Held),
];

/// Which job a command is about.
pub(crate) fn job_of(command: &str) -> Job {
    let found = JOBS.iter().find(|(part, _)| command.contains(part));
    found.map_or(Job::Running, |(_, job)| *job)
}
