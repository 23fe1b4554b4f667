//! The scheduler's end: accepting connections and hearing who calls.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_model::{Reject, RejectKind};
use gantry_wire::{Greeting, Peer, Verdict, hello};
use quinn::Endpoint;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::connection::{Connection, Receiver, Sender};
use crate::error::LinkError;
use crate::identity::{Identity, IdentityKind};
use crate::{tls, transport};

/// From the first packet to the greeting.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at once, beyond which a caller waits: where thousands call together each of theirs would
/// take so long that they all give up, and call again. One that waits for its caller longer than
/// [`TURN`] lets the next one begin, so that callers who do not go on keep nobody out.
const HANDSHAKES_MAX: usize = 128;
const TURN: Duration = Duration::from_millis(100);
/// A caller that has waited so long is about to give up; it is left to call again.
const PATIENCE: Duration = Duration::from_secs(4);
/// Half-open connections above which a caller must first prove its address.
const HALF_OPEN_MAX: usize = 256;

/// The scheduler's socket.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    address: SocketAddr,
    turns: Arc<Semaphore>,
}

impl Server {
    /// Opens the socket. `folder` keeps the secret by which peers of an earlier life of this
    /// scheduler are told at once that it has ended.
    ///
    /// # Errors
    /// Where the address is taken or the identity cannot be used.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        folder: &Path,
    ) -> Result<Self, LinkError> {
        let endpoint = transport::listen(address, tls::server(identity)?, folder)?;
        let address = endpoint
            .local_addr()
            .map_err(|error| LinkError::Bind { address, reason: error.to_string() })?;
        Ok(Self { endpoint, address, turns: Arc::new(Semaphore::new(HANDSHAKES_MAX)) })
    }

    /// The address in use, with the port that was chosen for port 0.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a caller; `None` once the server is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.endpoint.accept().await?;
            // Each that is not greeted yet shares this.
            let half_open = Arc::strong_count(&self.turns);
            if half_open > HALF_OPEN_MAX && !incoming.remote_address_validated() {
                // An error means that the caller is gone.
                let _ = incoming.retry();
                continue;
            }
            let turns = self.turns.clone();
            return Some(Incoming { quic: incoming, came: Instant::now(), turns });
        }
    }

    /// Tells every peer that this end closes, and waits a moment for the packets to leave.
    pub async fn close(&self) {
        self.endpoint.close(0_u32.into(), b"the scheduler is shutting down");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

/// A caller of whom nothing is known yet.
#[derive(Debug)]
pub struct Incoming {
    quic: quinn::Incoming,
    came: Instant,
    turns: Arc<Semaphore>,
}

impl Incoming {
    /// Finishes the handshake and hears the greeting. The caller's certificate agrees with what
    /// the greeting claims, and a common version exists, or it is refused here.
    ///
    /// The answer, a [`Verdict`], is for the caller of this function to send.
    ///
    /// # Errors
    /// Where the handshake fails, takes too long, or the greeting is refused.
    pub async fn handshake(self) -> Result<(Connection, Greeting, Sender, Receiver), LinkError> {
        let Self { quic, came, turns } = self;
        // It is never closed.
        let turn = turns.acquire().await.ok();
        if came.elapsed() > PATIENCE {
            quic.ignore();
            let seconds = PATIENCE.as_secs();
            return Err(LinkError::Timeout { what: "waiting for a turn to be greeted", seconds });
        }
        tokio::time::timeout(HANDSHAKE_TIMEOUT, greet(quic, turn)).await.map_err(|_| {
            LinkError::Timeout { what: "greeting", seconds: HANDSHAKE_TIMEOUT.as_secs() }
        })?
    }
}

async fn greet(
    incoming: quinn::Incoming,
    turn: Option<SemaphorePermit<'_>>,
) -> Result<(Connection, Greeting, Sender, Receiver), LinkError> {
    let mut handshake = std::pin::pin!(incoming.into_future());
    let in_turn = tokio::time::timeout(TURN, &mut handshake).await;
    drop(turn);
    let quic = match in_turn {
        Ok(quic) => quic,
        Err(_) => handshake.await,
    };
    let quic = quic.map_err(|error| LinkError::Closed(error.to_string()))?;
    let connection = Connection::new(quic)?;
    let (mut sender, mut receiver) = connection
        .accept()
        .await
        .ok_or_else(|| LinkError::Closed("the caller left without a greeting".into()))?;
    let greeting: Greeting = receiver.expect().await?;
    let checked = hello::agree(&greeting).and_then(|_| agrees(&connection, greeting.peer));
    if let Err(reject) = checked {
        sender.send(&Verdict::Refused(reject.clone())).await?;
        sender.delivered().await;
        return Err(LinkError::Refused(reject));
    }
    Ok((connection, greeting, sender, receiver))
}

fn agrees(connection: &Connection, claimed: Peer) -> Result<(), Reject> {
    let expected = match claimed {
        Peer::Agent => Some(IdentityKind::Agent),
        Peer::Console => Some(IdentityKind::Operator),
        Peer::Joining => None,
    };
    let held = connection.peer().kind;
    if held == expected {
        return Ok(());
    }
    let word = |kind: Option<IdentityKind>| {
        kind.map_or("no certificate".to_owned(), |kind| {
            format!("a certificate of kind {}", kind.word())
        })
    };
    Err(Reject::new(
        RejectKind::Forbidden,
        format!("this needs {} and the caller showed {}", word(expected), word(held)),
    ))
}
