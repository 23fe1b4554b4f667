//! An agent that runs nothing: each try has ended well by the time that what came with its order is
//! read.
//!
//! It speaks the real protocol over the real link and decides by the real node machine, so that tasks
//! launched ahead get their leases as on any node; what is measured with it is all of the scheduler
//! and little of a node. It reads and writes in two tasks, as a real agent does: one that waits in a
//! full stream does not keep the other from going on.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use gantry_link::{Identity, connect};
use gantry_model::{At, Exit, Machine, NodeFacts, Report, TryId, Usage};
use gantry_node::{Effect, Event, Node, NodeSettings};
use gantry_wire::{AgentMessage, Peer, SchedulerMessage};
use tokio::sync::{mpsc, oneshot};

/// The agent; it ends with this value.
pub(crate) struct Echo {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Reports that are sent together, as an agent does it.
const TOGETHER_MAX: usize = 256;

impl Echo {
    /// Connects as a node. After `ends_max` ends it goes on to take orders and reports no more.
    pub(crate) fn start(
        address: SocketAddr,
        identity: Identity,
        facts: NodeFacts,
        ends_max: Option<u64>,
    ) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = serve(address, &identity, facts, ends_max, ready) => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        let mut echo = Self { stop: Some(stop), thread: Some(thread) };
        match is_ready.recv() {
            Ok(()) => Ok(echo),
            Err(_) => Err(echo.end().err().unwrap_or_else(|| anyhow!("the agent ended at once"))),
        }
    }

    fn end(&mut self) -> Result<()> {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(anyhow!("the agent panicked")))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // That the scheduler was killed under it is what some benchmarks do.
        let _ = self.end();
    }
}

async fn serve(
    address: SocketAddr,
    identity: &Identity,
    facts: NodeFacts,
    ends_max: Option<u64>,
    ready: std::sync::mpsc::Sender<()>,
) -> Result<()> {
    let session = connect(address, identity, Peer::Agent).await?;
    let (mut sender, mut receiver) = (session.sender, session.receiver);
    sender.send(&AgentMessage::Up { facts: Box::new(facts), holds: Vec::new() }).await?;
    // Whoever started this waits for it.
    let _ = ready.send(());
    let (reports, mut outbox) = mpsc::unbounded_channel();
    let (orders_go, mut orders_come) = mpsc::unbounded_channel();
    let write = async move {
        let mut taken = Vec::with_capacity(TOGETHER_MAX);
        while outbox.recv_many(&mut taken, TOGETHER_MAX).await > 0 {
            let messages: Vec<_> = taken.drain(..).map(AgentMessage::Report).collect();
            sender.send_all(&messages).await?;
        }
        anyhow::Ok(())
    };
    let read = async move {
        let mut nothing = Nothing::new(ends_max);
        let mut orders = Vec::with_capacity(TOGETHER_MAX);
        // What is there is taken together, as an agent's shell does it.
        while orders_come.recv_many(&mut orders, TOGETHER_MAX).await > 0 {
            for order in orders.drain(..) {
                nothing.apply(Event::Order(order));
            }
            nothing.end_all();
            for report in nothing.said.drain(..) {
                reports.send(report)?;
            }
        }
        anyhow::Ok(())
    };
    let hear = async move {
        while let Some(message) = receiver.receive().await? {
            if let SchedulerMessage::Order(order) = message {
                orders_go.send(order)?;
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(write, read, hear)?;
    Ok(())
}

/// A node on which everything ends at once.
struct Nothing {
    node: Node,
    live: VecDeque<TryId>,
    said: Vec<Report>,
    /// Ends that it may still report.
    left: u64,
}

impl Nothing {
    fn new(ends_max: Option<u64>) -> Self {
        let node = Node::new(NodeSettings::default());
        let left = ends_max.unwrap_or(u64::MAX);
        let mut nothing = Self { node, live: VecDeque::new(), said: Vec::new(), left };
        nothing.apply(Event::Connected);
        nothing
    }

    fn apply(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.node.apply(At(0), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Start(launch) => self.live.push_back(launch.try_id),
                Effect::Send(report) => self.said.push(report),
                // Nothing is kept, signalled or tested where nothing runs.
                _ => {}
            }
        }
    }

    /// Ends what lives, and what lives on its leases. A start that ends within the same moment is
    /// told by its end alone, as an agent does it.
    fn end_all(&mut self) {
        while self.left > 0
            && let Some(try_id) = self.live.pop_front()
        {
            self.left -= 1;
            self.apply(Event::Exited { try_id, exit: Exit::Code(0), usage: Usage::default() });
        }
    }
}
