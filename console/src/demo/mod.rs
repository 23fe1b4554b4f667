//! `gantry demo`: the whole chain on one machine, without any set-up.
//!
//! A scheduler, two processor agents and one GPU agent run as separate processes and speak QUIC
//! with mutual TLS on loopback. A scanner sends series, a pipeline turns them into samples, a
//! network trains, and the model predicts on a patient it has never seen. A cluster's own commands
//! and requests drive all of it: nothing here takes a shortcut past the scheduler.
//!
//! With `--seed` none of that is started: a simulated cluster is shown instead ([`simulated`]).

mod chain;
mod cluster;
mod kept;
mod pictures;
mod processes;
mod report;
mod scanner;
mod simulated;

use std::path::PathBuf;
use std::sync::mpsc;

use clap::Args;
use gantry_sim::Strength;
use tokio::sync::watch;

use crate::cli::nodes::Look;
use crate::error::{Failure, Outcome};
use crate::librarian::Reader;
use crate::live;
use crate::output::{self, Format};
use chain::Chain;
use cluster::Site;
use report::Report;

/// `gantry demo`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Real images in this folder instead of phantoms; `tests/fetch_data.sh` brings them.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Do not open the console.
    #[arg(long)]
    no_screen: bool,
    /// Keep everything in this folder, which must be empty; a temporary one is removed.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Phantom patients; the last one is held out.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=50))]
    patients: u32,
    /// Epochs of the training.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    epochs: u32,
    /// Show a simulated cluster instead: everything that happens follows from this number.
    #[arg(long, value_name = "N", conflicts_with_all = ["data", "folder", "patients", "epochs"])]
    seed: Option<u64>,
    /// Nodes of the simulated cluster.
    #[arg(long, default_value_t = 50, requires = "seed", value_parser = clap::value_parser!(u32).range(1..=1000))]
    nodes: u32,
    /// How much faster than the clock it goes.
    #[arg(long, default_value_t = 20, requires = "seed", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    speed: u32,
    /// How often something fails: calm, light, heavy or storm.
    #[arg(long, default_value = "heavy", requires = "seed", value_parser = strength)]
    faults: Strength,
    /// Write the main screens as SVG files into this folder, and end.
    #[arg(long, requires = "seed", value_name = "DIR")]
    pictures: Option<PathBuf>,
    #[command(flatten)]
    look: Look,
}

fn strength(word: &str) -> Result<Strength, String> {
    Strength::of(word)
        .ok_or_else(|| format!("{word:?} is no strength; write calm, light, heavy or storm"))
}

/// Runs the demonstration and prints what came out.
///
/// # Errors
/// Where a stage fails; the sentence names it.
pub fn run(options: &Options, format: Format) -> Outcome {
    let screen = !options.no_screen && format == Format::Table;
    if let Some(seed) = options.seed {
        let (nodes, speed, strength) = (options.nodes, options.speed, options.faults);
        let course = simulated::Course { seed, nodes, speed, strength };
        if let Some(folder) = &options.pictures {
            return pictures::run(course, folder, format);
        }
        return if screen {
            simulated::run_on_screen(course, options.look)
        } else {
            simulated::run_quietly(course, format)
        };
    }
    let result = if screen { with_screen(options) } else { quietly(options) };
    match result {
        Ok(report) => {
            format.print("demo", &report, || report.people(), String::new)?;
            Ok(0)
        }
        Err(failure) => Err(Failure { code: 1, kind: "demo", ..failure }),
    }
}

fn quietly(options: &Options) -> Result<Report, Failure> {
    let site = Site::start(options.folder.as_deref())?;
    Chain::new(options, &site, &|sentence| output::progress(sentence)).run()
}

/// The chain on a thread of its own, the console on this one, until the user leaves it.
fn with_screen(options: &Options) -> Result<Report, Failure> {
    let site = Site::start(options.folder.as_deref())?;
    let (done, report) = mpsc::channel();
    let (said, banner) = watch::channel("demonstration: starting".to_owned());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let say = |sentence: &str| {
                said.send_replace(format!("demonstration: {sentence}"));
            };
            let result = Chain::new(options, &site, &say).run();
            say(match &result {
                Ok(_) => "the whole chain is done; q shows its report",
                Err(failure) => &failure.sentence,
            });
            // The receiver is gone only when the user has left: then nobody wants the report.
            let _ = done.send(result);
        });
        let access = site.access()?;
        let reader = Reader {
            library: Some(site.library_folder()),
            by: Some(Reader::of_environment().by)
                .filter(|by| !by.is_empty())
                .unwrap_or("demo".into()),
        };
        let look = live::ConsoleOptions { banner: Some(banner), reader, ..options.look.options() };
        live::run_console(access.own, look)
            .map_err(|error| Failure::trouble(format!("{error:#}")))?;
        report.try_recv().unwrap_or_else(|_| {
            site.abandon();
            Err(Failure::trouble("the demonstration was left before it had ended"))
        })
    })
}
