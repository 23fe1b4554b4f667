//! The command line: every subcommand and its flags, and where each is carried out.

pub mod client;
pub mod daemons;
pub mod jobs;
pub mod learning;
pub mod library;
pub mod nodes;
pub mod submit;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::demo;
use crate::error::{Failure, Outcome, USAGE};
use crate::output::{self, Format};

/// gantry: medical images from the scanner to the prediction, on one cluster.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Folder with the cluster's address and your key.
    #[arg(long, global = true, env = "GANTRY_CLUSTER", value_name = "DIR")]
    pub cluster: Option<PathBuf>,
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
    /// Submit a command as a job: gantry submit --cores 4 -- CMD ARGS.
    Submit(submit::Submit),
    /// List waiting and running jobs.
    Queue(jobs::List),
    /// List jobs, ended ones too with --all.
    Jobs(jobs::List),
    /// Show one job with its tasks.
    Job(jobs::Show),
    /// Print the output of a task.
    Logs(jobs::Logs),
    /// Cancel jobs: TERM, then KILL after the grace time.
    Cancel(jobs::Cancel),
    /// Wait until jobs have ended and exit as the first one that failed.
    Wait(jobs::Wait),
    /// List nodes.
    Nodes,
    /// Print one frame of the overview.
    Top(nodes::Top),
    /// Print the newest lines of the event log.
    Events,
    /// Take DICOM files from a folder into a library.
    Import(library::Import),
    /// Send DICOM files to a receiver, as a scanner does.
    Send(library::Send),
    /// List the series of a library, or its samples, models, predictions, quarantine.
    Data(library::Data),
    /// Run a pipeline over series and keep the samples.
    Preprocess(learning::Preprocess),
    /// Train a network on the samples of a library.
    Train(learning::Train),
    /// Predict series with a model.
    Predict(learning::Predict),
    /// Show the earlier cases nearest to a series.
    Similar(library::Similar),
    /// The scheduler: init, serve, token.
    Scheduler(daemons::Scheduler),
    /// The agent of a node.
    Agent(daemons::Agent),
    /// Join a node to a cluster with a token.
    Join(daemons::Join),
    /// Carry out built-in operations for an agent.
    #[command(hide = true)]
    Worker,
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if matches!(cli.command, Some(Command::Worker)) {
        return gantry_agent::worker::run();
    }
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
        Command::Job(show) => show.run(cluster, format),
        Command::Logs(logs) => logs.run(cluster, format),
        Command::Cancel(cancel) => cancel.run(cluster, format),
        Command::Wait(wait) => wait.run(cluster, format),
        Command::Nodes => nodes::list(cluster, format),
        Command::Top(top) => top.run(cluster),
        Command::Events => nodes::events(cluster, format),
        Command::Import(import) => import.run(format),
        Command::Send(send) => send.run(format),
        Command::Data(data) => data.run(format),
        Command::Preprocess(preprocess) => preprocess.run(cluster, format),
        Command::Train(train) => train.run(cluster, format),
        Command::Predict(predict) => predict.run(cluster, format),
        Command::Similar(similar) => similar.run(format),
        Command::Scheduler(scheduler) => scheduler.run(cluster, format),
        Command::Agent(agent) => agent.run(),
        Command::Join(join) => join.run(format),
        Command::Worker => unreachable!("handled before anything else is set up"),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gantry", &mut script);
            output::raw(&script).map(|()| 0)
        }
    }
}
