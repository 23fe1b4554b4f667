//! An agent that runs nothing: it reports each try as started and ended the moment it is ordered.
//!
//! It speaks the real protocol over the real link, so that what is measured with it is all of the
//! scheduler and nothing of a node. It reads and writes in two tasks, as a real agent does: one that
//! waits in a full stream does not keep the other from going on.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use gantry_link::{Identity, connect};
use gantry_model::{Exit, NodeFacts, Order, Report, Usage};
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
    sender.send(&AgentMessage::Up { facts, holds: Vec::new() }).await?;
    // Whoever started this waits for it.
    let _ = ready.send(());
    let (reports, mut outbox) = mpsc::unbounded_channel();
    let write = async move {
        let mut taken = Vec::with_capacity(TOGETHER_MAX);
        while outbox.recv_many(&mut taken, TOGETHER_MAX).await > 0 {
            let messages: Vec<_> = taken.drain(..).map(AgentMessage::Report).collect();
            sender.send_all(&messages).await?;
        }
        anyhow::Ok(())
    };
    let read = async move {
        let mut ends = 0;
        while let Some(message) = receiver.receive().await? {
            let SchedulerMessage::Order(Order::Launch(launch)) = message else { continue };
            let try_id = launch.try_id;
            if ends_max.is_some_and(|most| ends >= most) {
                continue;
            }
            ends += 1;
            // A start that ends within the same moment is told by its end alone, as an agent does it.
            let exit = Exit::Code(0);
            reports.send(Report::Ended { try_id, exit, usage: Usage::default(), heir: None })?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(write, read)?;
    Ok(())
}
