//! Benchmarks: `cargo run --release -p gantry-tests --bin measure -- NAME... [--json]`.
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
mod document;
mod echo;
mod endure;
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
use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use report::{Report, Row};

/// Measures gantry beside a peer and the machine's limit.
#[derive(Debug, Parser)]
#[command(name = "measure")]
struct Options {
    /// What to measure. Several are measured each in a process of its own, and make a Markdown document.
    #[arg(required = true, value_name = "NAME", value_parser = words())]
    names: Vec<String>,
    /// Print one JSON value for each.
    #[arg(long)]
    json: bool,
    /// Print a Markdown table.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    #[command(flatten)]
    size: Size,
}

/// How much is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Size {
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Tasks, elements, jobs, gangs, images, cases or seconds, instead of the benchmark's own number.
    #[arg(long)]
    count: Option<u32>,
    /// Nodes, instead of the benchmark's own number.
    #[arg(long)]
    nodes: Option<u32>,
    /// `HyperQueue`'s program; the one on PATH where absent.
    #[arg(long, value_name = "PATH")]
    hq: Option<PathBuf>,
    /// Start a Slurm to measure beside, of this host's packages, where none runs; needs root.
    #[arg(long)]
    slurm: bool,
    /// Measure ours alone.
    #[arg(long)]
    no_peers: bool,
    /// Of the image operations, only those whose name contains this.
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// Draw what `endure` has looked at as an SVG.
    #[arg(long, value_name = "PATH")]
    picture: Option<PathBuf>,
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

/// A benchmark.
#[derive(Clone, Copy)]
struct Benchmark {
    /// Its name.
    word: &'static str,
    about: &'static str,
    run: fn(&Size) -> Result<Vec<Row>>,
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        word: "tasks",
        about: "Real true processes through one agent, beside a bare loop and peers",
        run: tasks::run,
    },
    Benchmark { word: "builtin", about: "Built-in operations on warm workers", run: builtin::run },
    Benchmark {
        word: "array",
        about: "An array of 1,000,000 elements, and the memory of an element",
        run: array::run,
    },
    Benchmark {
        word: "latency",
        about: "From a submit to its acknowledgement, and to the running task",
        run: latency::run,
    },
    Benchmark {
        word: "placement",
        about: "What an event costs with 10,000 nodes and 100,000 waiting jobs",
        run: placement::run,
    },
    Benchmark {
        word: "gangs",
        about: "What a pass costs with 10,000 waiting gangs",
        run: gangs::run,
    },
    Benchmark {
        word: "restart",
        about: "kill -9 of the scheduler with 1,000,000 tasks known",
        run: restart::run,
    },
    Benchmark {
        word: "deadnode",
        about: "From the death of a node to its tasks in the queue",
        run: deadnode::run,
    },
    Benchmark {
        word: "faults",
        about: "kill -9 and SIGSTOP of each daemon, partition and loss of packets, under work",
        run: faults::run,
    },
    Benchmark {
        word: "agent",
        about: "What an agent with 8 GPUs takes of its node",
        run: agent::run,
    },
    Benchmark {
        word: "agents",
        about: "10,000 agents and 100 consoles on one scheduler, and all of them coming back to it",
        run: agents::run,
    },
    Benchmark { word: "wire", about: "What a sample takes on its way", run: wire::run },
    Benchmark {
        word: "endure",
        about: "An hour of work on a cluster with 500 agents: what its daemons take of memory and disk",
        run: endure::run,
    },
    Benchmark {
        word: "kernels",
        about: "Each image operation beside OpenCV, SimpleITK, scikit-image and cc3d",
        run: kernels::run,
    },
    Benchmark {
        word: "ingest",
        about: "DICOM images received and synced, over one and eight associations, and through kill -9",
        run: ingest::run,
    },
    Benchmark {
        word: "soak",
        about: "100,000 DICOM images over eight associations, with kill -9 of the agent in the middle",
        run: soak::run,
    },
    Benchmark {
        word: "library",
        about: "Samples written, read and put into shards, and a region grown from a click",
        run: library::run,
    },
    Benchmark {
        word: "train",
        about: "Slices a second of both engines beside a plain loop of PyTorch, and of ranks together",
        run: train::run,
    },
    Benchmark {
        word: "brain",
        about: "Brains found in a head of another study than the two that a network was trained on",
        run: brain::run,
    },
    Benchmark {
        word: "predict",
        about: "Slices that a model predicts, beside PyTorch and ONNX Runtime with the same weights",
        run: predict::run,
    },
    Benchmark {
        word: "similar",
        about: "The nearest of 1,000,000 cases, beside NumPy and a read of the same memory",
        run: similar::run,
    },
    Benchmark {
        word: "screen",
        about: "What the console sends to its terminal, and what a frame costs",
        run: screen::run,
    },
    Benchmark {
        word: "cli",
        about: "What a command costs: its start, and a queue of 10,000 jobs",
        run: cli::run,
    },
];
/// What stands for each of them.
const ALL: &str = "all";

fn words() -> impl TypedValueParser<Value = String> {
    let one = BENCHMARKS.iter().map(|one| PossibleValue::new(one.word).help(one.about));
    let all = PossibleValue::new(ALL).help("Each of them, one after the other");
    PossibleValuesParser::new(one.chain([all]))
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
    let names = options.names.iter();
    let asked = |one: &&Benchmark| names.clone().any(|name| name == one.word || name == ALL);
    let asked: Vec<&Benchmark> = BENCHMARKS.iter().filter(asked).collect();
    match asked[..] {
        [one] => ended(one.word, measure(one, &options)),
        _ => ended("measure", document::print(&asked, options.json)),
    }
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

fn measure(one: &Benchmark, options: &Options) -> Result<()> {
    let rows = (one.run)(&options.size)?;
    let report = Report { name: one.word, machine: statistics::machine(), rows };
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", report.json())?;
    } else if options.markdown {
        write!(out, "{}", report.markdown())?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}
