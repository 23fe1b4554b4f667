//! The calling end: agents, consoles and nodes that join.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_model::At;
use gantry_wire::{Greeting, JoinReply, JoinRequest, Peer, RenewRequest, Verdict, hello};
use quinn::{ConnectionError, Endpoint};
use rustls::pki_types::CertificateDer;

use crate::authority;
use crate::connection::{Connection, Receiver, Sender};
use crate::error::LinkError;
use crate::identity::{Identity, IdentityKind};
use crate::{identity, tls, token, transport};

/// From the first packet to the welcome. Thousands of agents that call together are greeted over some
/// seconds, and a call that is given up was work for nothing. Packets that get no answer are sent again
/// after one, three and seven seconds, so that a longer one would find a scheduler that was just started
/// later.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// What TLS calls a certificate that the authority at hand has not signed: one of another name, and one of
/// the same name, as the cluster's next authority has it.
const ANOTHER_AUTHORITY: [&str; 2] = ["UnknownIssuer", "BadSignature"];

/// A connection on which the welcome has arrived.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub connection: Connection,
    /// The first stream: what an agent reports on.
    pub sender: Sender,
    /// The first stream: what the scheduler orders on.
    pub receiver: Receiver,
    /// The version both speak.
    pub version: u16,
    /// The cluster's name.
    pub cluster: String,
    /// The scheduler's clock when it welcomed us.
    pub at: At,
    /// When the authority was made that follows ours, where the scheduler shows that one does.
    pub follows: Option<At>,
}

/// Calls the scheduler and waits for its welcome.
///
/// # Errors
/// Where nobody answers, or the scheduler refuses.
pub async fn connect(
    address: SocketAddr,
    identity: &Identity,
    peer: Peer,
) -> Result<Session, LinkError> {
    Caller::new(address)?.connect(&Credentials::new(identity)?, peer).await
}

/// An identity made ready to be shown, as often as it takes: its key is read and checked once.
#[derive(Clone, Debug)]
pub struct Credentials(Arc<rustls::ClientConfig>);

impl Credentials {
    /// Of this identity.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub fn new(identity: &Identity) -> Result<Self, LinkError> {
        Ok(Self(Arc::new(tls::client(identity)?)))
    }
}

/// A socket to call the scheduler from, again and again, and as many peers at once: its buffers
/// take megabytes, which a process that is thousands of peers cannot have for each.
#[derive(Debug)]
pub struct Caller {
    endpoint: Endpoint,
    address: SocketAddr,
}

impl Caller {
    /// Opens a socket that calls this address.
    ///
    /// # Errors
    /// Where no socket can be opened.
    pub fn new(address: SocketAddr) -> Result<Self, LinkError> {
        Ok(Self { endpoint: transport::call(address)?, address })
    }

    /// Calls the scheduler and waits for its welcome.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn connect(
        &self,
        credentials: &Credentials,
        peer: Peer,
    ) -> Result<Session, LinkError> {
        self.greet(credentials.0.clone(), &hello::greeting(peer)).await
    }

    /// Calls the scheduler with a greeting as another version of this program may send it.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn connect_as(
        &self,
        credentials: &Credentials,
        greeting: &Greeting,
    ) -> Result<Session, LinkError> {
        self.greet(credentials.0.clone(), greeting).await
    }

    async fn greet(
        &self,
        tls: Arc<rustls::ClientConfig>,
        greeting: &Greeting,
    ) -> Result<Session, LinkError> {
        let address = self.address;
        let fail = |reason: String| LinkError::Connect { address, reason };
        let attempt = async {
            // A scheduler that was just started greets thousands of agents one after the other. A
            // person is told sooner that nobody is there.
            let first_answer = (greeting.peer == Peer::Agent).then_some(CONNECT_TIMEOUT);
            let config = transport::client(address, tls, first_answer)?;
            let quic = self
                .endpoint
                .connect_with(config, address, tls::SERVER_NAME)
                .map_err(|error| fail(error.to_string()))?
                .await
                .map_err(|error| fail(reason(&error)))?;
            let follows = follows(&quic);
            let connection = Connection::new(quic)?;
            let (mut sender, mut receiver) = connection.open().await?;
            sender.send(greeting).await?;
            match receiver.expect().await.map_err(|error| fail(error.to_string()))? {
                Verdict::Refused(reject) => Err(LinkError::Refused(reject)),
                Verdict::Welcome { version, cluster, at } => {
                    hello::accept(version).map_err(LinkError::Refused)?;
                    Ok(Session { connection, sender, receiver, version, cluster, at, follows })
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or_else(|_| {
            Err(fail(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
        })
    }
}

/// Why nobody was reached, and what to do where that is something else than to look for the scheduler.
fn reason(error: &ConnectionError) -> String {
    let text = error.to_string();
    if ANOTHER_AUTHORITY.iter().any(|word| text.contains(word)) {
        return format!(
            "{text}: the authority of the cluster is another one by now, or this is another cluster; join again with a new token"
        );
    }
    text
}

/// When the authority was made that follows ours, if any: its certificate, by ours, stands behind the
/// scheduler's then.
fn follows(quic: &quinn::Connection) -> Option<At> {
    let chain = quic.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    identity::made_at(chain.get(1)?)
}

/// Gets an identity for a new node with a single-use token. The key is made here and stays here.
///
/// # Errors
/// Where the token is malformed, used, expired or for another node, or the scheduler's authority
/// is not the one that the token names.
pub async fn join(address: SocketAddr, token: &str, node: &str) -> Result<Identity, LinkError> {
    enter(address, token, node, Peer::Joining).await
}

/// Gets an identity for a person with a single-use token, as [`join`] does for a node.
///
/// # Errors
/// As [`join`].
pub async fn join_user(
    address: SocketAddr,
    token: &str,
    user: &str,
) -> Result<Identity, LinkError> {
    enter(address, token, user, Peer::JoiningUser).await
}

async fn enter(
    address: SocketAddr,
    token: &str,
    name: &str,
    peer: Peer,
) -> Result<Identity, LinkError> {
    let fingerprint = token::fingerprint(token)?;
    let (request_der, key) = authority::request()?;
    let tls = tls::joining(fingerprint.clone())?;
    let mut session = Caller::new(address)?.greet(Arc::new(tls), &hello::greeting(peer)).await?;
    let request = JoinRequest { token: token.trim().into(), node: name.into(), request_der };
    session.sender.send(&request).await?;
    match session.receiver.expect().await? {
        JoinReply::Refused(reject) => Err(LinkError::Refused(reject)),
        JoinReply::Joined { certificate_der, authority_der, .. } => {
            // The scheduler was known by the token's authority; where another one follows that now, the
            // certificate is of this one.
            let identity = Identity::new(certificate_der, authority_der, &key);
            let kind = identity.peer()?.kind;
            let fits = match peer {
                Peer::Joining => kind == Some(IdentityKind::Agent),
                _ => kind == Some(IdentityKind::User),
            };
            if !fits {
                return Err(LinkError::Identity(
                    "the scheduler answered with a certificate of another kind; upgrade one of the two".into(),
                ));
            }
            Ok(identity)
        }
    }
}

/// Gets the next certificate for an identity, over a connection of its own: those that are open are
/// not touched. The key stays.
///
/// # Errors
/// Where nobody answers, access was taken away, or the certificate has ended too long ago.
pub async fn renew(address: SocketAddr, identity: &Identity) -> Result<Identity, LinkError> {
    let mut session = connect(address, identity, Peer::Renewing).await?;
    session.sender.send(&RenewRequest { request_der: identity.request()? }).await?;
    let reply = tokio::time::timeout(CONNECT_TIMEOUT, session.receiver.expect()).await;
    let late = |_| LinkError::Timeout { what: "renewing", seconds: CONNECT_TIMEOUT.as_secs() };
    match reply.map_err(late)?? {
        JoinReply::Refused(reject) => Err(LinkError::Refused(reject)),
        JoinReply::Joined { certificate_der, authority_der, .. } => {
            identity.renewed(certificate_der, authority_der)
        }
    }
}
