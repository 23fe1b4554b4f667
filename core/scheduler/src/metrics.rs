//! The whole cluster for a monitoring system, at one address.
//!
//! A page is made of one look at the cluster, as a console's picture is, and of the newest sample of
//! each node. Samples are copied a few nodes at a time: the cluster's thread needs the board for
//! every line of the event log and never waits for a page.

use std::sync::Arc;
use std::time::Duration;

use gantry_metrics::node::{GpuName, NodeReading, add};
use gantry_metrics::{MetricsError, Page, Source, Unit, bind, labels, serve};
use gantry_model::{At, NodeRow, NodeState, Service, Summary};
use tokio::task::JoinSet;

use crate::alerts::Raised;
use crate::outgoing::Counts;
use crate::session::Shared;
use crate::store::Counted;

/// Nodes whose samples are copied at once: about a tenth of a millisecond.
const TOGETHER_MAX: usize = 64;

/// Offers the endpoint where the settings name an address. It ends with what is returned.
pub(crate) async fn start(shared: &Arc<Shared>) -> Result<JoinSet<()>, MetricsError> {
    let mut endpoint = JoinSet::new();
    if let Some(address) = shared.settings.metrics {
        let listener = bind(address).await?;
        tracing::info!(%address, "metrics can be read");
        let source = ClusterPages(shared.clone());
        endpoint.spawn(async move { match serve(listener, source).await {} });
    }
    Ok(endpoint)
}

/// Makes pages of the whole cluster.
struct ClusterPages(Arc<Shared>);

impl Source for ClusterPages {
    async fn page(&self) -> Result<Page, String> {
        let core = &self.0.core;
        let read = core.read(|cluster| (cluster.summary(), cluster.nodes())).await;
        let (summary, rows) = read.map_err(|reject| reject.sentence)?;
        let mut page = Page::default();
        page.build("scheduler", env!("CARGO_PKG_VERSION"));
        counts(&mut page, &summary, &rows);
        for together in rows.chunks(TOGETHER_MAX) {
            // A page of ten thousand nodes takes a while, and other sessions have their turn meanwhile.
            tokio::task::yield_now().await;
            let samples: Vec<_> = {
                let board = core.board();
                let newest = |row: &NodeRow| board.telemetry.newest(&row.facts.name);
                together.iter().map(newest).collect()
            };
            let now = core.clock.now();
            for (row, newest) in together.iter().zip(samples) {
                node(&mut page, row);
                let Some((sample, at)) = newest else { continue };
                let gpus: Vec<GpuName> = row
                    .facts
                    .gpus
                    .iter()
                    .map(|gpu| GpuName { uuid: gpu.uuid.clone(), memory_mib: gpu.memory.0 })
                    .collect();
                let age = Duration::from_millis(now.since(at).0);
                let (node, gpus, sample) = (row.facts.name.as_str(), gpus.as_slice(), &sample);
                add(&mut page, &NodeReading { node, gpus, sample, age });
            }
        }
        let raised = core.board().telemetry.alerts.raised();
        alerts(&mut page, &raised);
        past(&mut page, core.board().telemetry.kept());
        let kept = core.board().journal;
        journal(&mut page, &kept, core.clock.now());
        webhook(&mut page, self.0.webhook.counts());
        if let Some(exporter) = &self.0.traces {
            traces(&mut page, exporter.counts());
        }
        unheard(&mut page, &self.0);
        Ok(page)
    }
}

/// The cluster as a whole.
fn counts(page: &mut Page, summary: &Summary, rows: &[NodeRow]) {
    let nodes = page.gauge("gantry_nodes", Unit::None, "Nodes, by where they stand");
    for state in [NodeState::Up, NodeState::Late, NodeState::Lost] {
        let count = rows.iter().filter(|row| row.state == state).count();
        nodes.add(&labels([("state", state.word())]), count as u64);
    }
    let help = "Jobs, by where they stand; of those that have ended, the newest are counted";
    let jobs = page.gauge("gantry_jobs", Unit::None, help);
    for (state, count) in [
        ("wait", summary.jobs_wait),
        ("run", summary.jobs_run),
        ("fail", summary.jobs_fail),
        ("ended", summary.jobs_ended),
    ] {
        jobs.add(&labels([("state", state)]), count);
    }
    let running: u64 = rows.iter().map(|row| u64::from(row.tasks)).sum();
    page.gauge("gantry_tasks", Unit::None, "Tasks with a live execution")
        .add(&labels([("state", "run")]), running);
    for (name, help, count) in [
        ("gantry_cores", "Cores of the nodes that are up", summary.cores),
        ("gantry_cores_used", "Cores that tasks hold", summary.cores_used),
        ("gantry_gpus", "GPUs of the nodes that are up", summary.gpus),
        ("gantry_gpus_used", "GPUs that tasks hold", summary.gpus_used),
    ] {
        page.gauge(name, Unit::None, help).add(&labels([]), count);
    }
}

/// What the cluster knows of a node.
fn node(page: &mut Page, row: &NodeRow) {
    let name = row.facts.name.as_str();
    let node = labels([("node", name)]);
    page.gauge("gantry_node_up", Unit::None, "1 where a node is connected")
        .add(&node, u32::from(row.state == NodeState::Up));
    let help = "1 where a node is given work: nobody has drained it and it is not in quarantine";
    page.gauge("gantry_node_open", Unit::None, help)
        .add(&node, u32::from(row.service == Service::Open));
    let help = "1 for each trouble that a node or a GPU has";
    let troubles = page.gauge("gantry_node_trouble", Unit::None, help);
    for ailment in &row.ailments {
        let trouble = ailment.trouble.word();
        let gpu = ailment.gpu.as_ref().map(|uuid| {
            let index = row.facts.gpus.iter().position(|gpu| gpu.uuid == *uuid);
            // One that is not listed any more has no index.
            (index.map_or("?".to_owned(), |index| index.to_string()), uuid)
        });
        let labels = match &gpu {
            None => labels([("node", name), ("trouble", trouble)]),
            Some((gpu, uuid)) => {
                labels([("node", name), ("trouble", trouble), ("gpu", gpu), ("uuid", uuid)])
            }
        };
        troubles.add(&labels, 1_u32);
    }
}

fn alerts(page: &mut Page, raised: &[Raised]) {
    let help = "1 for each alert of the settings that is raised";
    let alerts = page.gauge("gantry_alert", Unit::None, help);
    for Raised { alert, node, gpu } in raised {
        let labels = match gpu {
            None => labels([("node", node), ("alert", alert)]),
            Some(gpu) => labels([("node", node), ("alert", alert), ("gpu", &gpu.to_string())]),
        };
        alerts.add(&labels, 1_u32);
    }
}

/// What the past of readings takes, which grows for two weeks.
fn past(page: &mut Page, (series, bytes): (usize, usize)) {
    let none = labels([]);
    let help = "Readings of nodes and GPUs of which the past is kept";
    page.gauge("gantry_series", Unit::None, help).add(&none, series as u64);
    let help = "Memory that their past takes; it grows for two weeks, and then no more";
    page.gauge("gantry_series_memory", Unit::Bytes, help).add(&none, bytes as u64);
}

/// What durability costs.
fn journal(page: &mut Page, kept: &Counted, now: At) {
    let none = labels([]);
    let help = "Events that the journal has taken since the scheduler's start";
    page.counter("gantry_journal_events", Unit::None, help).add(&none, kept.events);
    let help = "Bytes of events that the journal has taken since the scheduler's start";
    page.counter("gantry_journal_written", Unit::Bytes, help).add(&none, kept.bytes);
    let help = "Syncs of the journal since the scheduler's start";
    page.counter("gantry_journal_syncs", Unit::None, help).add(&none, kept.syncs);
    let help = "Time that those syncs took";
    page.counter("gantry_journal_sync", Unit::Seconds, help).add(&none, kept.syncing.as_secs_f64());
    let help = "Age of the newest snapshot of the cluster, if there is one";
    page.gauge("gantry_journal_snapshot_age", Unit::Seconds, help)
        .add_some(&none, kept.snapshot.map(|at| now.since(at).0 as f64 / 1000.0));
}

fn webhook(page: &mut Page, counts: Counts) {
    let none = labels([]);
    let help = "Lines of the event log that the webhook has taken";
    page.counter("gantry_webhook_sent", Unit::None, help).add(&none, counts.sent);
    let help = "Lines of the event log that were given up on their way to the webhook";
    page.counter("gantry_webhook_dropped", Unit::None, help).add(&none, counts.dropped);
    let help = "Lines of the event log that wait for the webhook";
    page.gauge("gantry_webhook_waiting", Unit::None, help).add(&none, counts.waiting);
}

fn traces(page: &mut Page, counts: Counts) {
    let none = labels([]);
    let help = "Spans that the collector of traces has taken";
    page.counter("gantry_traces_sent", Unit::None, help).add(&none, counts.sent);
    let help = "Spans that were given up, or that the collector of traces has refused";
    page.counter("gantry_traces_dropped", Unit::None, help).add(&none, counts.dropped);
    let help = "Spans that wait for the collector of traces";
    page.gauge("gantry_traces_waiting", Unit::None, help).add(&none, counts.waiting);
}

/// Who was not heard, and why.
fn unheard(page: &mut Page, shared: &Shared) {
    for (name, help, counts) in [
        (
            "gantry_callers_turned_away",
            "Callers that were turned away before anything was heard of them, by the reason",
            &shared.turned_away,
        ),
        (
            "gantry_requests_given_up",
            "Requests that were given up before they were whole, by the reason",
            &shared.given_up,
        ),
    ] {
        let family = page.counter(name, Unit::None, help);
        for (reason, count) in counts.all() {
            family.add(&labels([("reason", reason)]), count);
        }
    }
}
