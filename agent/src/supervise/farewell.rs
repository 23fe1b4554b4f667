//! Word to the scheduler that an agent is gone, with what outlives it.
//!
//! An agent that is killed closes nothing: its connection would be missed only by its silence. The
//! supervisor sees it at once and says so, on a connection of its own with the node's identity. What
//! has gone with the agent, as all that ran in its workers, is so queued again within a moment.

use std::io;
use std::time::Duration;

use gantry_link::{LinkError, Own};
use gantry_model::TryId;
use gantry_wire::{AgentMessage, Peer};

use super::protocol::Welcomed;

/// By then the silence has said it.
const TIME_MAX: Duration = Duration::from_secs(2);

/// What is to be said.
pub(super) struct Farewell {
    pub(super) welcomed: Welcomed,
    /// What outlives the agent.
    pub(super) holds: Vec<TryId>,
}

impl Farewell {
    /// Says it, unless the scheduler is not reached soon.
    pub(super) fn say(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A timer is made where its runtime is.
        let said = runtime.block_on(async { tokio::time::timeout(TIME_MAX, self.say_now()).await });
        said?.map_err(io::Error::other)
    }

    async fn say_now(self) -> Result<(), LinkError> {
        let Self { welcomed: Welcomed { scheduler, folder, at }, holds } = self;
        let mut session = Own::load(scheduler, &folder, "agent")?.connect(Peer::Agent).await?;
        session.sender.send(&AgentMessage::Gone { welcomed: at, holds }).await?;
        session.sender.delivered().await;
        Ok(())
    }
}
