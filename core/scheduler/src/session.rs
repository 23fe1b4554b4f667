//! One connection: who calls, and what it may do.
//!
//! The certificate decides. An agent speaks for its own node only; a console asks; a node without
//! a certificate may show a token and nothing else.

mod agent;
mod console;
mod join;

use std::sync::Arc;

use gantry_config::SchedulerSettings;
use gantry_link::{Authority, Connection, Incoming, LinkError, Receiver, Sender};
use gantry_model::TaskId;
use gantry_wire::{Output, Peer, Verdict, hello};

use crate::core::Core;
use crate::update::Pictures;
use crate::webhook::Webhook;

/// What every session needs.
pub(crate) struct Shared {
    pub(crate) cluster: String,
    /// The folder with the settings file.
    pub(crate) folder: std::path::PathBuf,
    pub(crate) authority: Authority,
    pub(crate) core: Core,
    pub(crate) settings: SchedulerSettings,
    pub(crate) pictures: Pictures,
    pub(crate) webhook: Webhook,
}

/// The parts of a greeted connection.
struct Greeted {
    connection: Connection,
    sender: Sender,
    receiver: Receiver,
}

/// Serves one caller until it leaves.
pub(crate) async fn run(shared: Arc<Shared>, incoming: Incoming) {
    let (peer, greeted) = match greet(&shared, incoming).await {
        Ok(greeted) => greeted,
        Err(error) => {
            tracing::warn!("a caller was turned away: {error}");
            return;
        }
    };
    let result = match peer {
        Peer::Agent => agent::run(&shared, greeted).await,
        Peer::Console => console::run(&shared, greeted).await,
        Peer::Joining => join::run(&shared, greeted).await,
    };
    // A peer that just leaves is the normal end of a session.
    if let Err(error) = result
        && !matches!(error, LinkError::Closed(_))
    {
        tracing::warn!("a session ended: {error}");
    }
}

async fn greet(shared: &Shared, incoming: Incoming) -> Result<(Peer, Greeted), LinkError> {
    let (connection, greeting, mut sender, receiver) = incoming.handshake().await?;
    let version = hello::agree(&greeting).map_err(LinkError::Refused)?;
    let at = shared.core.clock.now();
    let welcome = Verdict::Welcome { version, cluster: shared.cluster.clone(), at };
    sender.send(&welcome).await?;
    Ok((greeting.peer, Greeted { connection, sender, receiver }))
}

/// The end of a task's output, for a screen; nothing where its node is away.
pub(crate) async fn end_of_output(shared: &Shared, task: TaskId) -> Option<Output> {
    console::output(shared, task, u64::MAX).await.ok()
}
