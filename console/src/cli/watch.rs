//! `gantry watch`: what changes in the cluster, a line each, for screen readers and for programs.
//!
//! On a terminal it is the full-screen console, unless `--plain` is given; anywhere else, and with
//! `--json`, it prints. What a line says comes from two pictures that follow one another
//! ([`changes`]); a scheduler that goes away is waited for, and what changed meanwhile is said then.

mod changes;

use std::io::{self, IsTerminal};

use clap::Args;
use gantry_wire::Scope;
use serde_json::json;

use super::client::{Client, Patience, Reach};
use super::nodes::{self, Look};
use super::time;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};
use changes::{Change, Changes};

/// `gantry watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// Print a line for each change, also on a terminal.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    look: Look,
}

impl Watch {
    /// Carries it out, until interrupted.
    ///
    /// # Errors
    /// Where there is no cluster, or its scheduler is away for too long.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        if !self.plain && format == Format::Table && io::stdout().is_terminal() {
            return nodes::console(cluster, self.look);
        }
        let mut client = Client::connect(cluster.clone())?;
        let mut patience = Patience::new(cluster);
        let mut changes = Changes::default();
        loop {
            let watched = client.watch(Scope::Overview, &mut |update| {
                patience.content();
                changes.take(&update).iter().try_for_each(|change| print(change, format))
            });
            // A watch never ends well.
            let failure = watched.err().unwrap_or_else(|| Failure::trouble("the watch has ended"));
            if let Some(again) = patience.call_again(failure)? {
                client = again;
            }
        }
    }
}

fn print(change: &Change, format: Format) -> Result<(), Failure> {
    let Change { at, subject, kind, sentence } = change;
    output::line(&match format {
        Format::Json => {
            json!({ "at_ms": at.0, "subject": subject, "change": kind, "sentence": sentence })
                .to_string()
        }
        Format::Quiet => output::clean(subject),
        Format::Table => output::clean(&format!("{}  {subject} {sentence}", time::stamp(*at))),
    })
}
