//! The connected agents: where orders go, and whom to ask for output.
//!
//! The cluster's thread alone puts sessions in and takes them out, at the very event by which the
//! machine learns of it. An order so reaches the session it was decided for, or none.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_link::Connection;
use gantry_model::{At, Order};
use tokio::sync::mpsc;

/// Orders that wait for a slow agent. One that lets more pile up is disconnected; when it comes
/// back, what it holds is compared with what it should hold.
pub(crate) const ORDERS_MAX: usize = 16_384;

/// Which call of an agent a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Called {
    /// Its number, new for each connection.
    pub(crate) session: u64,
    /// When it was welcomed: by this the node's own processes know it.
    pub(crate) welcomed: At,
}

/// One agent's session.
pub(crate) struct Agent {
    pub(crate) called: Called,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) connection: Connection,
}

/// The agents by node name.
#[derive(Default)]
pub(crate) struct Agents(Mutex<BTreeMap<String, Agent>>);

impl Agents {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Agent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new session in place of an older one of the same node, which is closed.
    pub(crate) fn enter(&self, node: &str, agent: Agent) {
        if let Some(old) = self.lock().insert(node.to_owned(), agent) {
            old.connection.close("another agent of this node has connected");
        }
    }

    /// Takes a session away, if it is still its node's.
    pub(crate) fn leave(&self, node: &str, session: u64) {
        let mut agents = self.lock();
        if agents.get(node).is_some_and(|agent| agent.called.session == session)
            && let Some(gone) = agents.remove(node)
        {
            gone.connection.close("this agent is gone");
        }
    }

    /// Sends an order. Where there is no session it is dropped: the node is asked what it holds
    /// when it connects.
    pub(crate) fn order(&self, node: &str, order: Order) {
        let agents = self.lock();
        if let Some(agent) = agents.get(node)
            && agent.orders.try_send(order).is_err()
        {
            agent.connection.close("too many orders wait for this agent");
        }
    }

    /// The connection of a node's agent.
    pub(crate) fn connection(&self, node: &str) -> Option<Connection> {
        self.lock().get(node).map(|agent| agent.connection.clone())
    }

    /// Disconnects every agent.
    pub(crate) fn close_all(&self, reason: &str) {
        for agent in std::mem::take(&mut *self.lock()).into_values() {
            agent.connection.close(reason);
        }
    }
}
