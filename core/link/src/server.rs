//! The scheduler's end: accepting connections and hearing who calls.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_model::{At, Millis, Reject, RejectKind};
use gantry_wire::{Greeting, Peer, Verdict, hello};
use quinn::{ConnectionError, Endpoint};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::authority::{Trust, system_now};
use crate::connection::{Connection, Receiver, Sender};
use crate::error::LinkError;
use crate::identity::{Identity, IdentityKind, PeerIdentity};
use crate::{tls, transport};

/// From the first packet to the greeting.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at once, beyond which a caller waits: where thousands call together each of theirs would
/// take so long that they all give up, and call again. One that waits for its caller longer than
/// [`TURN`] lets the next one begin, so that callers who do not go on keep nobody out.
const HANDSHAKES_MAX: usize = 128;
const TURN: Duration = Duration::from_millis(100);
/// A caller that has waited so long is about to give up; it is left to call again.
const PATIENCE: Duration = Duration::from_secs(7);
/// Half-open connections above which a caller must first prove its address.
const HALF_OPEN_MAX: usize = 256;

/// The clock by which certificates are judged, and how long after its end one may still be renewed.
#[derive(Clone)]
pub struct Times {
    now: Arc<dyn Fn() -> At + Send + Sync>,
    pub(crate) grace: Millis,
}

impl Times {
    /// By this clock, with so much time to renew what has ended.
    #[must_use]
    pub fn new(now: impl Fn() -> At + Send + Sync + 'static, grace: Millis) -> Self {
        Self { now: Arc::new(now), grace }
    }

    /// What the clock shows.
    #[must_use]
    pub fn now(&self) -> At {
        (self.now)()
    }
}

impl Default for Times {
    /// This host's clock; what has ended is not renewed.
    fn default() -> Self {
        Self::new(system_now, Millis(0))
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Times").field("grace", &self.grace).finish_non_exhaustive()
    }
}

/// The scheduler's socket.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    address: SocketAddr,
    turns: Arc<Semaphore>,
    times: Times,
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
        Self::bind_by(address, identity, &Trust::of(identity), folder, Times::default())
    }

    /// As [`Self::bind`]; those are listened to whom this trusts, and certificates are judged by these
    /// times.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_by(
        address: SocketAddr,
        identity: &Identity,
        trust: &Trust,
        folder: &Path,
        times: Times,
    ) -> Result<Self, LinkError> {
        let endpoint = transport::listen(address, tls::server(identity, trust, &times)?, folder)?;
        let address = endpoint
            .local_addr()
            .map_err(|error| LinkError::Bind { address, reason: error.to_string() })?;
        let turns = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        Ok(Self { endpoint, address, turns, times })
    }

    /// Shows another certificate to those who call from now on, and listens to whom this trusts. Connections
    /// that there are stay.
    ///
    /// # Errors
    /// Where the identity cannot be used.
    pub fn show(&self, identity: &Identity, trust: &Trust) -> Result<(), LinkError> {
        let server = transport::server(tls::server(identity, trust, &self.times)?)?;
        self.endpoint.set_server_config(Some(server));
        Ok(())
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
            let (turns, times) = (self.turns.clone(), self.times.clone());
            return Some(Incoming { quic: incoming, came: Instant::now(), turns, times });
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
    times: Times,
}

impl Incoming {
    /// Where the caller calls from.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// Finishes the handshake and hears the greeting. The caller's certificate agrees with what
    /// the greeting claims, and a common version exists, or it is refused here.
    ///
    /// The answer, a [`Verdict`], is for the caller of this function to send.
    ///
    /// # Errors
    /// Where the handshake fails, takes too long, or the greeting is refused.
    pub async fn handshake(self) -> Result<(Connection, Greeting, Sender, Receiver), LinkError> {
        let Self { quic, came, turns, times } = self;
        // It is never closed.
        let turn = turns.acquire().await.ok();
        if came.elapsed() > PATIENCE {
            quic.ignore();
            let seconds = PATIENCE.as_secs();
            return Err(LinkError::Timeout { what: "waiting for a turn to be greeted", seconds });
        }
        tokio::time::timeout(HANDSHAKE_TIMEOUT, greet(quic, turn, &times)).await.map_err(|_| {
            LinkError::Timeout { what: "greeting", seconds: HANDSHAKE_TIMEOUT.as_secs() }
        })?
    }
}

async fn greet(
    incoming: quinn::Incoming,
    turn: Option<SemaphorePermit<'_>>,
    times: &Times,
) -> Result<(Connection, Greeting, Sender, Receiver), LinkError> {
    let mut handshake = std::pin::pin!(incoming.into_future());
    let in_turn = tokio::time::timeout(TURN, &mut handshake).await;
    drop(turn);
    let quic = match in_turn {
        Ok(quic) => quic,
        Err(_) => handshake.await,
    };
    let quic = quic.map_err(|error| match error {
        // What this end says where it does not trust a certificate, or no key fits it.
        ConnectionError::TransportError(error) => LinkError::Untrusted(error.to_string()),
        ConnectionError::TimedOut => {
            let seconds = transport::IDLE.as_millis().div_ceil(1000) as u64;
            LinkError::Timeout { what: "shaking hands", seconds }
        }
        error => LinkError::Closed(error.to_string()),
    })?;
    let connection = Connection::new(quic)?;
    let (mut sender, mut receiver) = connection
        .accept()
        .await
        .ok_or_else(|| LinkError::Closed("the caller left without a greeting".into()))?;
    let greeting: Greeting = receiver.expect().await?;
    let checked = hello::agree(&greeting)
        .and_then(|_| agrees(connection.peer(), greeting.peer))
        .and_then(|()| counts(connection.peer(), greeting.peer, times.now()));
    if let Err(reject) = checked {
        sender.send(&Verdict::Refused(reject.clone())).await?;
        sender.delivered().await;
        return Err(LinkError::Refused(reject));
    }
    if greeting.peer == Peer::Console {
        connection.allow_streams();
    }
    Ok((connection, greeting, sender, receiver))
}

/// Whether a certificate is of the kind that the caller needs.
fn agrees(peer: &PeerIdentity, claimed: Peer) -> Result<(), Reject> {
    let (fits, needs) = match (claimed, peer.kind) {
        (Peer::Agent, kind) => (kind == Some(IdentityKind::Agent), "a certificate of kind agent"),
        (Peer::Console, kind) => (
            kind.is_some_and(IdentityKind::is_person),
            "a person's certificate, of kind user or operator",
        ),
        (Peer::Joining | Peer::JoiningUser, kind) => (kind.is_none(), "no certificate"),
        (Peer::Renewing, kind) => (
            kind.is_some_and(|kind| kind != IdentityKind::Scheduler),
            "a certificate of a person or an agent",
        ),
    };
    if fits {
        return Ok(());
    }
    let held = peer.kind.map_or("no certificate".to_owned(), |kind| {
        format!("a certificate of kind {}", kind.word())
    });
    let sentence = format!("this needs {needs} and the caller showed {held}");
    Err(Reject::new(RejectKind::Forbidden, sentence))
}

/// Whether a certificate counts now; one that has ended can only be renewed.
fn counts(peer: &PeerIdentity, claimed: Peer, now: At) -> Result<(), Reject> {
    if peer.kind.is_none() || claimed == Peer::Renewing || now < peer.expires {
        return Ok(());
    }
    let ago = Millis(now.since(peer.expires).0 / 1000 * 1000);
    let sentence = format!(
        "the certificate of {} ended {ago} ago; it can still be renewed, which gantry does by itself where its folder can be written",
        peer.name
    );
    // By this kind the caller knows that a renewal is what it needs.
    Err(Reject::new(RejectKind::State, sentence))
}
