//! Benchmarks: `cargo run --release -p gantry-tests --bin measure -- NAME [--json]`.
//!
//! Each prints ours beside a peer's, the machine's limit and the goal, all from the same run. What
//! decides is measured in this process ([`bare`]); what serves, with real processes over real QUIC
//! and a journal that is synced ([`served`]). A peer is run where it is installed; where it is not,
//! its place stays empty.
//!
//! A cluster of a benchmark runs this same program under the name `gantry`, so that what is
//! measured is never an older build.

#![forbid(unsafe_code)]

mod agent;
mod agents;
mod array;
mod bare;
mod brain;
mod builtin;
mod cli;
mod deadnode;
mod echo;
#[path = "../../../../agent/tests/nvml/fake.rs"]
mod fake;
mod faults;
mod fleet;
mod gangs;
mod ingest;
mod kernels;
mod latency;
mod library;
mod peers;
mod placement;
mod predict;
mod report;
mod restart;
mod samples;
mod screen;
mod served;
mod shelf;
mod similar;
mod soak;
mod statistics;
mod tasks;
mod train;
mod wire;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use report::{Report, Row};

/// Measures gantry beside a peer and the machine's limit.
#[derive(Debug, Parser)]
#[command(name = "measure")]
struct Options {
    /// What to measure.
    name: Name,
    /// Print one JSON value.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    size: Size,
}

/// How much is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Size {
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Tasks, elements, jobs, gangs, images or cases, instead of the benchmark's own number.
    #[arg(long)]
    count: Option<u32>,
    /// Nodes, instead of the benchmark's own number.
    #[arg(long)]
    nodes: Option<u32>,
    /// `HyperQueue`'s program; the one on PATH where absent.
    #[arg(long, value_name = "PATH")]
    hq: Option<PathBuf>,
    /// Measure ours alone.
    #[arg(long)]
    no_peers: bool,
    /// A Python with the peers: the package hyperqueue, used where there is no `hq`, or those of
    /// image operations.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

impl Size {
    fn rounds(&self) -> usize {
        usize::from(self.rounds)
    }
}

/// The benchmarks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// Real `true` processes through one agent, beside a bare loop and peers.
    Tasks,
    /// Built-in operations on warm workers.
    Builtin,
    /// An array of 1,000,000 elements, and the memory of an element.
    Array,
    /// From a submit to its acknowledgement, and to the running task.
    Latency,
    /// What an event costs with 10,000 nodes and 100,000 waiting jobs.
    Placement,
    /// What a pass costs with 10,000 waiting gangs.
    Gangs,
    /// kill -9 of the scheduler with 1,000,000 tasks known.
    Restart,
    /// From the death of a node to its tasks in the queue.
    Deadnode,
    /// kill -9 and SIGSTOP of each daemon, partition and loss of packets, under work.
    Faults,
    /// What an agent with 8 GPUs takes of its node.
    Agent,
    /// 10,000 agents and 100 consoles on one scheduler, and all of them coming back to it.
    Agents,
    /// What a sample takes on its way.
    Wire,
    /// Each image operation beside `OpenCV`, `SimpleITK`, scikit-image and cc3d.
    Kernels,
    /// DICOM images received and synced, over one and eight associations, and through kill -9.
    Ingest,
    /// 100,000 DICOM images over eight associations, with kill -9 of the agent in the middle.
    Soak,
    /// Samples written, read and put into shards, and a region grown from a click.
    Library,
    /// Slices a second of both engines beside a plain loop of `PyTorch`, and of ranks together.
    Train,
    /// Brains found in a head of another study than the two that a network was trained on.
    Brain,
    /// Slices that a model predicts, beside `PyTorch` and ONNX Runtime with the same weights.
    Predict,
    /// The nearest of 1,000,000 cases, beside `NumPy` and a read of the same memory.
    Similar,
    /// What the console sends to its terminal, and what a frame costs.
    Screen,
    /// What a command costs: its start, and a queue of 10,000 jobs.
    Cli,
}

impl Name {
    fn run(self, size: &Size) -> Result<Vec<Row>> {
        match self {
            Self::Tasks => tasks::run(size),
            Self::Builtin => builtin::run(size),
            Self::Array => array::run(size),
            Self::Latency => latency::run(size),
            Self::Placement => placement::run(size),
            Self::Gangs => gangs::run(size),
            Self::Restart => restart::run(size),
            Self::Deadnode => deadnode::run(size),
            Self::Faults => faults::run(size),
            Self::Agent => agent::run(size),
            Self::Agents => agents::run(size),
            Self::Wire => wire::run(size),
            Self::Kernels => kernels::run(size),
            Self::Ingest => ingest::run(size),
            Self::Soak => soak::run(size),
            Self::Library => library::run(size),
            Self::Train => train::run(size),
            Self::Brain => brain::run(size),
            Self::Predict => predict::run(size),
            Self::Similar => similar::run(size),
            Self::Screen => screen::run(size),
            Self::Cli => cli::run(size),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Builtin => "builtin",
            Self::Array => "array",
            Self::Latency => "latency",
            Self::Placement => "placement",
            Self::Gangs => "gangs",
            Self::Restart => "restart",
            Self::Deadnode => "deadnode",
            Self::Faults => "faults",
            Self::Agent => "agent",
            Self::Agents => "agents",
            Self::Wire => "wire",
            Self::Kernels => "kernels",
            Self::Ingest => "ingest",
            Self::Soak => "soak",
            Self::Library => "library",
            Self::Train => "train",
            Self::Brain => "brain",
            Self::Predict => "predict",
            Self::Similar => "similar",
            Self::Screen => "screen",
            Self::Cli => "cli",
        }
    }
}

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    if Path::new(&called).file_name().is_some_and(|name| name == "gantry") {
        return gantry::main();
    }
    if Path::new(&called).file_name().is_some_and(|name| name == kernels::MEMORY) {
        return ended(kernels::MEMORY, kernels::print_memory());
    }
    let options = Options::parse();
    ended(options.name.word(), measure(&options))
}

fn ended(name: &str, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    let rows = options.name.run(&options.size)?;
    let report = Report { name: options.name.word(), machine: statistics::machine(), rows };
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", report.json())?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}
