//! The connected agents: where orders go, and whom to ask for output.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_link::Connection;
use gantry_model::Order;
use tokio::sync::mpsc;

/// Orders that wait for a slow agent. One that lets more pile up is disconnected; when it comes
/// back, what it holds is compared with what it should hold.
pub(crate) const ORDERS_MAX: usize = 16_384;

struct Agent {
    session: u64,
    orders: mpsc::Sender<Order>,
    connection: Connection,
}

/// The agents by node name.
#[derive(Default)]
pub(crate) struct Agents(Mutex<(u64, BTreeMap<String, Agent>)>);

impl Agents {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<String, Agent>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new session in place of an older one of the same node, which is closed.
    pub(crate) fn enter(&self, node: &str, connection: Connection) -> (u64, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let mut agents = self.lock();
        agents.0 += 1;
        let session = agents.0;
        let agent = Agent { session, orders, connection };
        if let Some(old) = agents.1.insert(node.to_owned(), agent) {
            old.connection.close("another agent of this node has connected");
        }
        (session, receiver)
    }

    /// Takes a session away; says whether it was still its node's.
    pub(crate) fn leave(&self, node: &str, session: u64) -> bool {
        let mut agents = self.lock();
        let current = agents.1.get(node).is_some_and(|agent| agent.session == session);
        if current {
            agents.1.remove(node);
        }
        current
    }

    /// Sends an order. Where there is no session it is dropped: the node is asked what it holds
    /// when it connects.
    pub(crate) fn order(&self, node: &str, order: Order) {
        let agents = self.lock();
        if let Some(agent) = agents.1.get(node)
            && agent.orders.try_send(order).is_err()
        {
            agent.connection.close("too many orders wait for this agent");
        }
    }

    /// The connection of a node's agent.
    pub(crate) fn connection(&self, node: &str) -> Option<Connection> {
        self.lock().1.get(node).map(|agent| agent.connection.clone())
    }

    /// Disconnects every agent.
    pub(crate) fn close_all(&self, reason: &str) {
        for agent in self.lock().1.values() {
            agent.connection.close(reason);
        }
    }
}
