//! The command line: every subcommand and its flags, and where each is carried out.

mod access;
mod audit;
mod backup;
pub mod batch;
pub mod chosen;
pub mod client;
mod completions;
mod config;
mod create;
mod daemon;
pub mod daemons;
mod doctor;
pub mod events;
pub mod exchange;
mod gpus;
pub mod history;
pub mod jobs;
mod join;
mod label;
pub mod learning;
pub mod library;
pub mod logs;
pub mod man;
mod models;
pub mod needs;
pub mod nodes;
pub mod nouns;
mod pilot;
mod pipeline;
mod sbom;
mod secure;
pub mod series;
pub mod serve;
mod service;
pub mod steer;
pub mod submit;
mod sweep;
mod tail;
mod texts;
pub mod time;
mod verdicts;
mod watch;
pub mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use client::Reach;

use crate::demo;
use crate::error::{Failure, Outcome, USAGE};
use crate::output::{self, Format};
use crate::recording::{record, replay};

/// gantry: medical images from the scanner to the prediction, on one cluster.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Which cluster it is about, and who asks.
    #[command(flatten)]
    pub cluster: Reach,
    /// Print one JSON value, errors too.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print ids only.
    #[arg(long, short, global = true, conflicts_with = "json")]
    pub quiet: bool,
    #[command(flatten)]
    look: nodes::Look,
    /// What to do; without it the full-screen console opens.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Every subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on this machine: scanner, samples, training, prediction, console.
    Demo(demo::Options),
    /// Submit a command as a job, or the jobs of a file: gantry submit --cores 4 -- CMD ARGS.
    Submit(submit::Submit),
    /// List waiting and running jobs.
    Queue(jobs::List),
    /// List jobs, ended ones too with --all.
    Jobs(jobs::List),
    /// Show one job with its tasks, or do something with jobs: job cancel j12.
    Job(jobs::Show),
    /// Say why a job waits, who is ahead, and what each node says to it.
    Why(why::WhyJob),
    /// Print the output of tasks, or search it.
    Logs(logs::Logs),
    /// Cancel jobs: TERM, then KILL after the grace time.
    Cancel(steer::Cancel),
    /// Keep what waits of jobs from starting.
    Hold(steer::Jobs),
    /// Let held jobs go on.
    Release(steer::Jobs),
    /// Stop what runs of jobs and let it wait again.
    Requeue(steer::Requeue),
    /// Change jobs: priority, time limit, estimate, how many at once, retries.
    Change(steer::Change),
    /// Wait until jobs have ended and exit as the first one that failed.
    Wait(jobs::Wait),
    /// List jobs that have ended, also those the queue has forgotten.
    History(history::History),
    /// Sum what jobs took: hours of cores and GPUs by user, group, kind or day.
    Report(history::Report),
    /// List nodes.
    Nodes,
    /// Show one node, or do something with nodes: node drain cpu-1.
    Node(nodes::Show),
    /// List GPUs, with who has each and what it does.
    #[command(visible_alias = "gpu")]
    Gpus(gpus::Gpus),
    /// Give nodes no new work.
    Drain(service::Drain),
    /// Give drained or quarantined nodes work again.
    Resume(service::Resume),
    /// Forget nodes that are lost and will not come back.
    Forget(service::Forget),
    /// Keep nodes free for a time that comes.
    Maintenance(service::Maintenance),
    /// Show the past of a node's readings.
    Series(series::Series),
    /// Open the console, or print one frame of the overview with --once.
    Top(nodes::Top),
    /// Print what changes in the cluster, a line each.
    Watch(watch::Watch),
    /// Record what the console is told into a file, until interrupted.
    Record(record::Record),
    /// Show a recording on the console.
    Replay(replay::Replay),
    /// Print, follow or export the event log.
    #[command(visible_alias = "event")]
    Events(events::Events),
    /// Take DICOM files from a folder into a library.
    Import(library::Import),
    /// Send DICOM files to a receiver, as a scanner does.
    Send(library::Send),
    /// List the series of a library, or its samples, models, predictions, quarantine.
    Data(library::Data),
    /// Samples: to and from other programs, accept, reject, which case is next, and what a library is
    /// like.
    Library(exchange::Samples),
    /// List the labels of a library, or keep a mask that a person has drawn as one.
    Label(label::Label),
    /// List the models of a library, show one, approve or retire it.
    #[command(visible_alias = "model")]
    Models(models::Models),
    /// Predict series as they come into a library, and answer programs over HTTP.
    Serve(serve::Serve),
    /// List and check pipelines, plan one, or run it on one series here.
    #[command(visible_alias = "pipelines")]
    Pipeline(pipeline::Pipelines),
    /// Run a pipeline over series and keep the samples.
    Preprocess(learning::Preprocess),
    /// Train a network on the samples of a library.
    Train(learning::Train),
    /// Predict series with a model.
    Predict(learning::Predict),
    /// Show the earlier cases nearest to a series.
    Similar(library::Similar),
    /// The scheduler: serve, init, token, reload, check, repair.
    Scheduler(daemons::Scheduler),
    /// Who may do what: list, grant, revoke, token.
    Access(access::Access),
    /// Who did what to which: list, verify.
    Audit(audit::Audit),
    /// The agent of a node.
    Agent(daemons::Agent),
    /// Say what a setting means, what it is, and which layer says so.
    Config(config::Config),
    /// Look for what stands in the way on this machine, and say how to mend it.
    Doctor(doctor::Doctor),
    /// Bring nodes from the allocations of another scheduler, for a time.
    Pilot(pilot::Pilot),
    /// Join a node to a cluster with a token, or get a person's identity with one.
    Join(join::Join),
    /// Carry out built-in operations for an agent.
    #[command(hide = true)]
    Worker,
    /// Hold the processes of an agent's tasks, so that they outlive it.
    #[command(hide = true)]
    Supervise,
    /// Print the script with which a shell completes commands, jobs, nodes and series.
    Completions(completions::Completions),
    /// Print the manual page, or write those of all commands into a folder.
    Man(man::Man),
    /// Print the crates that this program was built with, in the form of `CycloneDX`.
    #[command(
        about = "Print the crates that this program was built with, some for other platforms and tests, as \
                 CycloneDX 1.5"
    )]
    Sbom,
}

impl Cli {
    /// How this command prints.
    #[must_use]
    pub const fn format(&self) -> Format {
        match (self.json, self.quiet) {
            (true, _) => Format::Json,
            (_, true) => Format::Quiet,
            _ => Format::Table,
        }
    }
}

/// The binary's entry point.
#[must_use]
pub fn main() -> ExitCode {
    if completions::answer() {
        return ExitCode::SUCCESS;
    }
    let cli = match nouns::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        Some(Command::Worker) => return gantry_agent::worker::run(),
        Some(Command::Supervise) => return gantry_agent::supervise::run(),
        _ => {}
    }
    output::measure();
    let format = cli.format();
    output::finish(format, run(cli))
}

/// What clap has to say: help and version succeed, everything else is a wrong command line.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args().any(|argument| argument == "--json") {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let sentence = first.strip_prefix("error: ").unwrap_or(first);
        return Format::Json.fail(&Failure::usage(sentence)).into();
    }
    // A closed terminal is no reason to fail.
    let _ = error.print();
    if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS }
}

fn run(cli: Cli) -> Outcome {
    let format = cli.format();
    let cluster = cli.cluster;
    let Some(command) = cli.command else { return nodes::console(cluster, cli.look) };
    match command {
        Command::Demo(options) => demo::run(&options, format),
        Command::Submit(submit) => submit.run(cluster, format),
        Command::Queue(list) => list.run(cluster, format, jobs::Ended::Hide),
        Command::Jobs(list) => list.run(cluster, format, jobs::Ended::Show),
        Command::Job(job) => job.run(cluster, format),
        Command::Why(why) => why.run(cluster, format),
        Command::Logs(logs) => logs.run(cluster, format),
        Command::Cancel(cancel) => cancel.run(cluster, format),
        Command::Hold(jobs) => jobs.hold(cluster, format),
        Command::Release(jobs) => jobs.release(cluster, format),
        Command::Requeue(requeue) => requeue.run(cluster, format),
        Command::Change(change) => change.run(cluster, format),
        Command::Wait(wait) => wait.run(cluster, format),
        Command::History(history) => history.run(cluster, format),
        Command::Report(report) => report.run(cluster, format),
        Command::Drain(drain) => drain.run(cluster, format),
        Command::Resume(resume) => resume.run(cluster, format),
        Command::Forget(forget) => forget.run(cluster, format),
        Command::Maintenance(maintenance) => maintenance.run(cluster, format),
        Command::Nodes => nodes::list(cluster, format),
        Command::Node(show) => show.run(cluster, format),
        Command::Gpus(gpus) => gpus.run(cluster, format),
        Command::Series(series) => series.run(cluster, format),
        Command::Top(top) => top.run(cluster, format),
        Command::Watch(watch) => watch.run(cluster, format),
        Command::Record(record) => record.run(cluster, format),
        Command::Replay(replay) => replay.run(),
        Command::Events(events) => events.run(cluster, format),
        Command::Import(import) => import.run(format),
        Command::Send(send) => send.run(format),
        Command::Data(data) => data.run(format),
        Command::Library(samples) => samples.run(format),
        Command::Label(label) => label.run(format),
        Command::Models(models) => models.run(format),
        Command::Serve(serve) => serve.run(format),
        Command::Pipeline(pipelines) => pipelines.run(format),
        Command::Preprocess(preprocess) => preprocess.run(cluster, format),
        Command::Train(train) => train.run(cluster, format),
        Command::Predict(predict) => predict.run(cluster, format),
        Command::Similar(similar) => similar.run(format),
        Command::Scheduler(scheduler) => scheduler.run(cluster, format),
        Command::Doctor(doctor) => doctor.run(&cluster, format),
        Command::Config(config) => config.run(&cluster, format),
        Command::Access(access) => access.run(cluster, format),
        Command::Audit(audit) => audit.run(cluster, format),
        Command::Agent(agent) => agent.run(),
        Command::Pilot(pilot) => pilot.run(cluster, format),
        Command::Join(join) => join.run(&cluster, format),
        Command::Worker | Command::Supervise => {
            unreachable!("handled before anything else is set up")
        }
        Command::Man(man) => man.run(format),
        Command::Sbom => sbom::run(format),
        Command::Completions(completions) => completions.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_help_fits() {
        let mut command = nouns::command();
        command.clone().debug_assert();
        command.build();
        let help = |command: &mut clap::Command| command.render_long_help().to_string();
        for sub in command.get_subcommands_mut() {
            let text = help(sub);
            let wide = text.lines().find(|line| output::width(line) > 100);
            assert_eq!(wide, None, "in the help of {}", sub.get_name());
        }
        let submit = help(command.find_subcommand_mut("submit").unwrap());
        for heading in ["Resources of each task", "Several tasks", "Order", "Life", "Options"] {
            assert_eq!(
                submit.matches(&format!("\n{heading}:\n")).count(),
                1,
                "{heading}\n{submit}"
            );
        }
    }

    /// The words of a line as a shell takes them, where only double quotes are special.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut begun) =
            (Vec::new(), String::new(), false, false);
        for c in line.chars() {
            match c {
                '"' => (quoted, begun) = (!quoted, true),
                c if c.is_whitespace() && !quoted => {
                    if begun {
                        words.push(std::mem::take(&mut word));
                    }
                    begun = false;
                }
                c => {
                    word.push(c);
                    begun = true;
                }
            }
        }
        words.extend(begun.then_some(word));
        words
    }

    #[test]
    fn every_command_of_the_readme_is_one() {
        let readme = include_str!("../../../README.md");
        let mut count = 0;
        for line in readme.lines().filter(|line| line.starts_with("gantry ")) {
            let line = line.split(" #").next().unwrap_or(line);
            for command in line.split(';').map(|one| one.trim().trim_end_matches('&')) {
                let mut words = words(command);
                // What GANTRY_LIBRARY says in the README.
                let library = [
                    "import",
                    "data",
                    "library",
                    "label",
                    "models",
                    "model",
                    "preprocess",
                    "train",
                    "predict",
                    "similar",
                    "plan",
                    "run",
                ];
                let is = |place: usize| {
                    words.get(place).is_some_and(|word| library.contains(&word.as_str()))
                };
                if is(1) || words.get(1).is_some_and(|word| word == "pipeline") && is(2) {
                    words.extend(["--library".to_owned(), "/mnt/library".to_owned()]);
                }
                let parsed = nouns::parse(&words);
                assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
                count += 1;
            }
        }
        assert!(count > 25, "only {count} commands were found");
    }

    /// clap keeps what is global beside a command's own flags, by their ids.
    #[test]
    fn a_commands_folder_and_user_are_not_those_of_the_cluster() {
        for line in ["submit --folder /out -- true", "history --user ada"] {
            let words = ["gantry", "--cluster", "/c", "--as", "grace"].into_iter();
            let cli = Cli::try_parse_from(words.chain(line.split(' '))).unwrap();
            assert_eq!(cli.cluster.folder, Some("/c".into()), "{line}");
            assert_eq!(cli.cluster.user.as_deref(), Some("grace"), "{line}");
        }
    }

    #[test]
    fn command_lines_people_type() {
        for (text, fine) in [
            ("pipeline list", true),
            ("pipelines check a.toml b.toml", true),
            ("pipeline check", false),
            ("pipeline plan a.toml --size 9,9,9 --spacing 1,1,2", true),
            ("pipeline plan a.toml --size 9,9", false),
            ("library --library /l reject s --by ada", false),
            ("library --library /l next", true),
            ("node show cpu-1", true),
            ("node", false),
            ("model approve m --library /l --by ada", true),
            ("hold j1 j2", true),
            ("hold", false),
            ("release j1", true),
            ("requeue j1.0-9 j2", true),
            ("change j1 --priority -3 --at-once 4", true),
            ("change j1", false),
            ("change j1 --at-once 0", false),
            ("why j1", true),
            ("drain cpu-1 cpu-2 --reason disk --deadline 30m", true),
            ("drain cpu-1", false),
            ("resume cpu-1", true),
            ("forget cpu-1 cpu-2", true),
            ("forget", false),
            ("maintenance cpu-1 --from 18:00 --for 2h --reason update", true),
            ("maintenance cpu-1 --clear", true),
            ("maintenance cpu-1 --from 18:00", false),
            ("maintenance cpu-1 --clear --for 2h", false),
            ("history --user ada --group chest --since 7d --limit 5", true),
            ("report --by day --since 2026-11-01", true),
            ("report --by colour", false),
            ("series gpu-1", true),
            ("series gpu-1 --what cpu,gpu-busy --last 2h --cells 80 --ascii", true),
            ("series gpu-1 --what gpu", false),
            ("series gpu-1 --cells 0", false),
            ("series", false),
            ("events --since 2h --level warn --node cpu-1 --grep disk -n 0", true),
            ("events --job j1.3 --follow", true),
            ("events --export - --follow", false),
            ("logs j1 -f --tail 10", true),
            ("logs j1.0-9 --search error", true),
            ("logs j1 -f --search error", false),
            ("cancel j1.3 j2", true),
            ("cancel j1 --elements 0-9", true),
            ("pilot slurm --nodes 2 --gpus 4 --time 2h --folder /f", true),
            ("pilot slurm --time 2h", false),
            ("pilot", false),
            ("submit --slurm a.sh --ignore qos -- x", true),
            ("queue --format %i --no-header", true),
            ("queue --no-header", false),
            ("config import slurm.conf --to /d", true),
            ("scheduler reload", true),
            ("scheduler check /tmp", true),
            ("scheduler repair /tmp", true),
            ("supervise", true),
            ("job j1", true),
            ("job", false),
            ("job show j1.0-9", true),
            ("job cancel j1 j2 --elements 0-3", true),
            ("job why j1", true),
            ("job list --all", true),
            ("gpus", true),
            ("gpus dgx-01 --state free", true),
            ("gpus --state busy", false),
            ("top --once", true),
            ("watch --plain", true),
            ("record /tmp/r --for 10m --size-max 100M", true),
            ("record", false),
            ("replay /tmp/r --speed 10 --ascii", true),
            ("replay /tmp/r --speed 0", false),
            ("queue --as ada --cluster /c", true),
            ("library --library /l labels", true),
            ("label --library /l", true),
            ("label --library /l s1", false),
            ("label --library /l s1 m.nii", false),
            ("label --library /l s1 m.nii --label lungs --by ada", true),
            ("models --library /l", true),
            ("models --library /l m1 --approve --by ada", true),
            ("models --library /l --approve", false),
            ("models --library /l m1 --approve --retire", false),
            ("completions fish", true),
            ("config explain node_timeout", true),
            ("config explain metrics --of agent --dir /a --set metrics=1", true),
            ("doctor --agent-dir /a --library /l", true),
            ("config explain", false),
            ("config list", true),
            ("config check --of agent", true),
            ("scheduler --dir /tmp --set node_timeout=9s", true),
            ("agent --set cores=2 --set grace=5s", true),
            ("completions tcsh", false),
            ("man", true),
            ("man /tmp/man", true),
            ("train --library /l --label lungs --node-label nvme --hold", true),
            ("submit jobs.toml --dry-run --wait --key k", true),
        ] {
            let words = std::iter::once("gantry").chain(text.split_whitespace());
            assert_eq!(nouns::parse(words).is_ok(), fine, "{text}");
        }
    }
}
