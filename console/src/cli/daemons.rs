//! The daemons' entry points: `gantry scheduler` and `gantry agent`; and what an
//! administrator does with a scheduler: init, token, reload, backup, restore, check, repair.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use gantry_config::layers::{self, Override};
use gantry_config::{AgentSettings, SchedulerSettings};
use gantry_model::{Millis, Summary};
use gantry_scheduler::JournalReport;
use gantry_wire::{JournalUse, Reply, Request, SchedulerStatus};
use serde_json::json;

use super::backup;
use super::client::{Client, Reach, unexpected};
use super::daemon::{self, Threads};
use crate::error::{Failure, Outcome};
use crate::output::Format;

/// Where a scheduler keeps its files when nothing names another folder.
const SCHEDULER_FOLDER: &str = "/var/lib/gantry/scheduler";
/// Where an agent keeps its files when nothing names another folder.
pub(super) const AGENT_FOLDER: &str = "/var/lib/gantry/agent";

/// Where a package has the units of its services.
const UNITS: &str = "/usr/lib/systemd/system";

/// `gantry scheduler`.
#[derive(Debug, Args)]
pub struct Scheduler {
    /// The scheduler's folder.
    #[arg(long, global = true, value_name = "DIR", default_value = SCHEDULER_FOLDER)]
    dir: PathBuf,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    tie: Tie,
    #[command(subcommand)]
    verb: Option<SchedulerVerb>,
}

/// What to do with the scheduler; without a verb it is started.
#[derive(Debug, Subcommand)]
enum SchedulerVerb {
    /// Make a new cluster: its authority, the scheduler's and the first administrator's identity.
    Init {
        /// The cluster's name.
        #[arg(long, default_value = "gantry")]
        name: String,
    },
    /// Make a token with which one node may join within 15 minutes.
    Token {
        /// The node's name.
        node: String,
    },
    /// Say how the scheduler does: what it has to do, and what its journal costs.
    Status,
    /// Read the settings file again, without a restart.
    Reload,
    /// Copy everything that brings the scheduler back when its disk is lost, also while it runs; asked
    /// by an administrator who may read the scheduler's folder.
    Backup {
        /// A new folder for the backup. It holds the keys of the cluster: keep it as those are kept.
        to: PathBuf,
    },
    /// Make a scheduler's folder of a backup, after each of its files was held against its checksum.
    Restore {
        /// The folder that the backup is in.
        backup: PathBuf,
        /// The scheduler's new folder, empty or not there yet.
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
    },
    /// Read the journal of a scheduler that does not run, and say what is wrong; exits with 1 where
    /// it is damaged.
    Check {
        /// The scheduler's folder.
        folder: PathBuf,
    },
    /// Cut a damaged journal where the damage begins; what is cut is kept beside it.
    Repair {
        /// The scheduler's folder.
        folder: PathBuf,
    },
}

/// Settings on the command line.
#[derive(Debug, Default, Args)]
pub(super) struct Flags {
    /// Set a key of the settings, before file and environment, as cores=4.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = Override::flag)]
    pub(super) set: Vec<Override>,
}

/// Ties a daemon to the process that started it.
#[derive(Debug, Args)]
struct Tie {
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

impl Tie {
    fn fasten(&self) -> Result<(), Failure> {
        if self.exit_with_parent {
            let signal = Some(rustix::process::Signal::TERM);
            rustix::process::set_parent_process_death_signal(signal).map_err(Failure::trouble)?;
        }
        Ok(())
    }
}

impl Scheduler {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the folder, the settings or the socket cannot be used.
    pub fn run(self, cluster: Reach, format: Format) -> Outcome {
        match self.verb {
            Some(SchedulerVerb::Init { name }) => init(&self.dir, &name, format),
            Some(SchedulerVerb::Token { node }) => token(cluster.or(self.dir), node, format),
            Some(SchedulerVerb::Status) => status(cluster.or(self.dir), format),
            Some(SchedulerVerb::Reload) => reload(cluster.or(self.dir), format),
            Some(SchedulerVerb::Backup { to }) => backup::backup(cluster.or(self.dir), &to, format),
            Some(SchedulerVerb::Restore { backup, to }) => backup::restore(&backup, &to, format),
            Some(SchedulerVerb::Check { folder }) => {
                let report = gantry_scheduler::check(&folder).map_err(Failure::trouble)?;
                journal(&report, format)?;
                Ok(u8::from(report.damage.is_some()))
            }
            Some(SchedulerVerb::Repair { folder }) => {
                let report = gantry_scheduler::repair(&folder).map_err(Failure::trouble)?;
                journal(&report, format)?;
                Ok(0)
            }
            None => {
                self.tie.fasten()?;
                layers::keep_flags(self.flags.set);
                let settings: SchedulerSettings = settings(&self.dir.join("scheduler.toml"))?;
                daemon::run(Threads::Some, |stop| async move {
                    gantry_scheduler::serve_alive(&self.dir, settings, stop, daemon::alive)
                        .await
                        .map_err(Failure::trouble)
                })
            }
        }
    }
}

fn init(folder: &Path, name: &str, format: Format) -> Outcome {
    gantry_scheduler::init(folder, name).map_err(Failure::trouble)?;
    hand_over(folder)?;
    let shown = folder.display();
    let people = || {
        let (start, then) = if is_service(folder, Path::new(SCHEDULER_FOLDER), "scheduler") {
            ("systemctl enable --now gantry-scheduler".into(), String::new())
        } else {
            (format!("gantry scheduler --dir {shown}"), format!(" --dir {shown}"))
        };
        format!(
            "cluster {name} made in {shown}\nnext: {start}\nthen: gantry scheduler{then} token NODE"
        )
    };
    format.print("cluster", &json!({ "name": name, "folder": folder }), people, || {
        shown.to_string()
    })?;
    Ok(0)
}

fn token(cluster: Reach, node: String, format: Format) -> Outcome {
    let client = Client::connect(cluster)?;
    let reply = client.ask(&Request::Token { node })?;
    let Reply::Token(token) = reply else { return Err(unexpected(&reply)) };
    format.print("token", &json!({ "token": token }), || token.clone(), || token.clone())?;
    Ok(0)
}

fn reload(cluster: Reach, format: Format) -> Outcome {
    let reply = Client::connect(cluster)?.ask(&Request::Reload)?;
    let Reply::Reloaded(waiting) = reply else { return Err(unexpected(&reply)) };
    let people = || {
        let but = match waiting.join(", ") {
            none if none.is_empty() => none,
            some => format!(", but for what needs a restart: {some}"),
        };
        format!("the settings are in force{but}")
    };
    format.print("reloaded", &json!({ "restart": waiting }), people, || waiting.join("\n"))?;
    Ok(0)
}

fn status(cluster: Reach, format: Format) -> Outcome {
    let client = Client::connect(cluster)?;
    let reply = client.ask(&Request::Status)?;
    let Reply::Status(status) = reply else { return Err(unexpected(&reply)) };
    let JournalUse { events, bytes, syncs, syncing_us, .. } = status.journal;
    let age_ms = status.journal.snapshot.map(|at| status.at.since(at).0);
    let value = json!({
        "cluster": client.cluster(),
        "version": status.version,
        "at_ms": status.at.0,
        "summary": status.summary,
        "journal": {
            "events": events,
            "bytes": bytes,
            "syncs": syncs,
            "syncing_us": syncing_us,
            "sync_us": status.journal.sync_us(),
            "snapshot_age_ms": age_ms,
        },
    });
    let people = || {
        let Summary { nodes_up, nodes, jobs_wait, jobs_run, .. } = status.summary;
        format!(
            "cluster {} of gantry {}\nnodes    {nodes_up} of {nodes} up\njobs     {jobs_run} run, {jobs_wait} wait\njournal  {}",
            client.cluster(),
            status.version,
            journal_use(&status)
        )
    };
    format.print("scheduler", &value, people, || client.cluster().to_owned())?;
    Ok(0)
}

/// What a journal costs, in a sentence.
pub(super) fn journal_use(status: &SchedulerStatus) -> String {
    let JournalUse { events, bytes, syncs, .. } = status.journal;
    let each = status
        .journal
        .sync_us()
        .map_or(String::new(), |us| format!(" of {}.{} ms each", us / 1000, us % 1000 / 100));
    let snapshot = status.journal.snapshot.map_or_else(
        || "no snapshot yet".to_owned(),
        |at| format!("the newest snapshot is {} old", Millis(status.at.since(at).0 / 1000 * 1000)),
    );
    format!(
        "{events} events ({} KiB) in {syncs} syncs{each} since its start; {snapshot}",
        bytes.div_ceil(1024)
    )
}

/// Prints what a journal holds.
fn journal(report: &JournalReport, format: Format) -> Result<(), Failure> {
    let value = json!({
        "events": report.events,
        "snapshot": report.snapshot,
        "damage": report.damage,
        "cut": report.cut,
    });
    format.print("journal", &value, || journal_text(report), String::new)
}

fn journal_text(report: &JournalReport) -> String {
    let mut lines = vec![match report.snapshot {
        Some(at) => format!("{} events, the newest snapshot at event {at}", report.events),
        None => format!("{} events, no snapshot", report.events),
    }];
    match &report.damage {
        Some(damage) => lines.push(format!("damaged: {damage}")),
        None if report.cut == 0 => lines.push("no damage".to_owned()),
        None => {}
    }
    if report.cut > 0 {
        lines.push(format!("cut: {} blocks", report.cut));
    }
    lines.join("\n")
}

/// `gantry agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// The agent's folder.
    #[arg(long, value_name = "DIR", default_value = AGENT_FOLDER)]
    dir: PathBuf,
    /// Leave the cluster after this long, as 2h: get no task that would not end before, and end.
    #[arg(long, value_name = "TIME")]
    leave_after: Option<Millis>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    tie: Tie,
}

impl Agent {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the folder, the settings or the identity cannot be used.
    pub fn run(self) -> Outcome {
        self.tie.fasten()?;
        layers::keep_flags(self.flags.set);
        let settings: AgentSettings = settings(&self.dir.join("agent.toml"))?;
        daemon::run(Threads::One, |stop| async move {
            let leave_after = self.leave_after.map(|after| Duration::from_millis(after.0));
            gantry_agent::serve_alive(&self.dir, settings, leave_after, stop, daemon::alive)
                .await
                .map_err(Failure::trouble)
        })
    }
}

/// Whether the folder is the one of the package's service, which is installed.
pub(super) fn is_service(folder: &Path, own: &Path, role: &str) -> bool {
    folder == own && Path::new(UNITS).join(format!("gantry-{role}.service")).exists()
}

/// Gives what root has made in a daemon's folder to the account that the folder belongs to, which the
/// daemon runs as and which otherwise could not read its own key. What has a second name may be a file
/// of somebody else's, and stays.
pub(super) fn hand_over(folder: &Path) -> Result<(), Failure> {
    let fail = |error: std::io::Error| {
        let shown = folder.display();
        Failure::trouble(format!("giving the files in {shown} to its owner failed: {error}"))
    };
    let owner = std::fs::metadata(folder).map_err(fail)?;
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let known = std::fs::symlink_metadata(&path).map_err(fail)?;
        if known.is_file() && known.nlink() == 1 && known.uid() == 0 {
            lchown(&path, Some(owner.uid()), Some(owner.gid())).map_err(fail)?;
        }
    }
    Ok(())
}

pub(super) fn make(folder: &Path, mode: u32) -> Result<(), Failure> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(folder).map_err(|error| {
        Failure::trouble(format!("making the folder {} failed: {error}", folder.display()))
    })
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::trouble(format!("writing {} failed: {error}", path.display())))
}

/// Reads a daemon's settings; a missing file stands for the defaults.
fn settings<T: gantry_config::Settings>(path: &Path) -> Result<T, Failure> {
    gantry_config::load_file(path).map_err(Failure::usage_of)
}
