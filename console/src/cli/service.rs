//! Commands that take nodes out of service and back: drain, resume, maintenance, forget.

use clap::Args;
use gantry_model::{Action, At, Millis, Reject, Window, things};
use gantry_wire::Request;

use super::client::Reach;
use super::steer::each;
use super::{completions, time};
use crate::error::Outcome;
use crate::output::Format;

/// `gantry drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// The nodes, by name.
    #[arg(required = true, value_name = "NODE", add = completions::nodes())]
    nodes: Vec<String>,
    /// Why, for everyone who looks.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Stop what still runs there after this long, as 30m, and queue it again.
    #[arg(long, value_name = "TIME")]
    deadline: Option<Millis>,
}

impl Drain {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a node is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let now = time::now();
        let deadline = self.deadline.map(|after| now.after(after));
        let requests = for_each(&self.nodes, |node| Action::Drain {
            node,
            reason: self.reason.clone(),
            deadline,
        });
        let until = deadline
            .map(|at| format!(" until {}, then it waits again elsewhere", time::clock(at, now)))
            .unwrap_or_default();
        let say = |name: &str, tasks| match tasks {
            0 => format!("{name} is drained"),
            n => format!("{name} gets no new work; {} may run there{until}", things(n, "task")),
        };
        each("node", &requests, "drained", say, cluster, format)
    }
}

/// `gantry resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The nodes, by name.
    #[arg(required = true, value_name = "NODE", add = completions::nodes())]
    nodes: Vec<String>,
}

impl Resume {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a node is unknown or in service, or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let requests = for_each(&self.nodes, |node| Action::Resume { node });
        let say = |name: &str, _| format!("{name} gets work again");
        each("node", &requests, "resumed", say, cluster, format)
    }
}

/// `gantry forget`.
#[derive(Debug, Args)]
pub struct Forget {
    /// The nodes, by name; they are lost.
    #[arg(required = true, value_name = "NODE", add = completions::nodes())]
    nodes: Vec<String>,
}

impl Forget {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a node is unknown or not lost, or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let requests = for_each(&self.nodes, |node| Action::Forget { node });
        let say = |name: &str, _| {
            format!(
                "{name} is forgotten; gantry access revoke --node {name} keeps it from coming back"
            )
        };
        each("node", &requests, "forgotten", say, cluster, format)
    }
}

/// `gantry maintenance`.
#[derive(Debug, Args)]
pub struct Maintenance {
    /// The nodes, by name.
    #[arg(required = true, value_name = "NODE", add = completions::nodes())]
    nodes: Vec<String>,
    /// When it begins: 2026-11-24T18:00, the next 18:00, or +2h from now.
    #[arg(long, value_name = "TIME", required_unless_present = "clear")]
    from: Option<String>,
    /// How long it lasts, as 2h.
    #[arg(long = "for", value_name = "TIME", required_unless_present = "clear")]
    length: Option<Millis>,
    /// Why, for everyone who looks.
    #[arg(long, value_name = "TEXT", required_unless_present = "clear")]
    reason: Option<String>,
    /// Forget the windows of these nodes.
    #[arg(long, conflicts_with_all = ["from", "length", "reason"])]
    clear: bool,
}

impl Maintenance {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the time cannot be read, a node is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let now = time::now();
        let Some(window) = self.window(now)? else {
            let requests = for_each(&self.nodes, |node| Action::DropWindows { node });
            let say = |name: &str, _| format!("{name} has no maintenance windows");
            return each("node", &requests, "cleared", say, cluster, format);
        };
        let requests =
            for_each(&self.nodes, |node| Action::AddWindow { node, window: window.clone() });
        let (from, until) = (time::clock(window.from, now), time::clock(window.until, now));
        let say = |name: &str, _| {
            format!("{name} is kept free from {from} to {until}: {}", window.reason)
        };
        each("node", &requests, "planned", say, cluster, format)
    }

    /// The window, unless all are to be forgotten.
    fn window(&self, now: At) -> Result<Option<Window>, Reject> {
        let (Some(from), Some(length), Some(reason)) = (&self.from, self.length, &self.reason)
        else {
            return Ok(None);
        };
        let from = time::ahead(from, now)?;
        if length == Millis(0) {
            return Err(Reject::invalid(
                "a maintenance window of 0s keeps nothing free; raise --for",
            ));
        }
        Ok(Some(Window { from, until: from.after(length), reason: reason.clone() }))
    }
}

fn for_each(nodes: &[String], action: impl Fn(String) -> Action) -> Vec<(String, Request)> {
    nodes.iter().map(|node| (node.clone(), Request::Act(action(node.clone())))).collect()
}
