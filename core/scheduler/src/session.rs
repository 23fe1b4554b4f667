//! One connection: who calls, and what it may do.
//!
//! The certificate says who calls. An agent speaks for its own node only; a console asks, and each
//! request is held against the role of its person; who has no certificate may show a token and
//! nothing else, and whose certificate has ended may only renew it. Whose access was taken away is
//! turned away here. People of this host get a token by their account ([`local`]).

mod admit;
mod agent;
mod console;
mod join;
pub(crate) mod local;
mod renew;
mod strangers;
mod trust;

use std::sync::Arc;

use gantry_config::SchedulerSettings;
use gantry_link::{
    Connection, IdentityKind, Incoming, LinkError, PeerIdentity, Receiver, Sender, Term,
};
use gantry_model::{At, TaskId};
use gantry_wire::{Output, Peer, Verdict, hello};

use crate::access::{Counted, principal};
use crate::audit::{Audit, Entry};
use crate::core::Core;
use crate::signing::Signing;
use crate::traces::Exporter;
use crate::update::Pictures;
use crate::webhook::Webhook;
pub(crate) use strangers::{Strangers, Tallied};

/// What every session needs.
pub(crate) struct Shared {
    pub(crate) cluster: String,
    /// The folder with the settings file.
    pub(crate) folder: std::path::PathBuf,
    /// Where it is called from this host.
    pub(crate) address: std::net::SocketAddr,
    pub(crate) signing: Signing,
    pub(crate) core: Core,
    pub(crate) settings: SchedulerSettings,
    pub(crate) pictures: Pictures,
    pub(crate) webhook: Webhook,
    /// Where there is a collector.
    pub(crate) traces: Option<Exporter>,
    pub(crate) audit: Audit,
    /// Tokens that were none, which are bounded.
    pub(crate) guesses: Strangers,
    /// Callers without access, whose lines in the audit log are bounded. A node that was revoked calls again
    /// and again, and keeps nobody else from joining at its address.
    pub(crate) callers: Strangers,
    /// Callers that were turned away of late, for the log alone: not all of them guess.
    pub(crate) said: Strangers,
    /// Callers that were turned away.
    pub(crate) turned_away: Tallied,
    /// Requests of callers who are heard that were given up before they were whole.
    pub(crate) given_up: Tallied,
}

impl Shared {
    /// How long a new certificate counts.
    fn term(&self, kind: IdentityKind, from: At) -> Term {
        let valid = match kind {
            IdentityKind::Agent | IdentityKind::User => self.settings.certificate_valid,
            IdentityKind::Operator | IdentityKind::Scheduler => Term::LONG,
        };
        Term { from, valid }
    }
}

/// The parts of a greeted connection.
struct Greeted {
    connection: Connection,
    sender: Sender,
    receiver: Receiver,
    /// The clock when it was welcomed.
    at: At,
    /// Lets whoever takes access away find the connection.
    _counted: Option<Counted>,
}

/// Serves one caller until it leaves.
pub(crate) async fn run(shared: Arc<Shared>, incoming: Incoming) {
    let remote = incoming.remote();
    // In boxes, so that an agent's session, of which there are thousands, is no larger than itself.
    let (peer, greeted) = match Box::pin(greet(&shared, incoming)).await {
        Ok(greeted) => greeted,
        Err(error) => {
            shared.turned_away.count((&error).into());
            if shared.said.is_said(remote.ip(), shared.core.clock.now()) {
                tracing::warn!(%remote, "a caller was turned away: {error}");
            }
            Box::pin(strangers::turned_away(&shared, remote.ip(), &error)).await;
            return;
        }
    };
    let result = match peer {
        Peer::Agent => Box::pin(agent::run(&shared, greeted)).await,
        Peer::Console => Box::pin(console::run(&shared, greeted)).await,
        Peer::Joining | Peer::JoiningUser => Box::pin(join::run(&shared, greeted, peer)).await,
        Peer::Renewing => Box::pin(renew::run(&shared, greeted)).await,
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
    let counted = match shared.core.access.enter(&connection) {
        Ok(counted) => {
            if let Some(principal) = principal(connection.peer()) {
                shared.signing.saw(&principal, connection.peer().issued);
            }
            counted
        }
        Err(reject) => {
            strangers::known(shared, &connection, &reject).await;
            sender.send(&Verdict::Refused(reject.clone())).await?;
            sender.delivered().await;
            // It has its line.
            return Err(LinkError::Closed(reject.sentence));
        }
    };
    let version = hello::agree(&greeting).map_err(LinkError::Refused)?;
    let at = shared.core.clock.now();
    let welcome = Verdict::Welcome { version, cluster: shared.cluster.clone(), at };
    sender.send(&welcome).await?;
    Ok((greeting.peer, Greeted { connection, sender, receiver, at, _counted: counted }))
}

/// Who asks, for the whole of a session.
struct Caller {
    peer: PeerIdentity,
    from: String,
}

impl Caller {
    fn of(connection: &Connection) -> Self {
        let from = connection.remote().ip().to_canonical().to_string();
        Self { peer: connection.peer().clone(), from }
    }

    /// A line of the audit log about something that the caller does now.
    fn line(&self, shared: &Shared, what: &'static str) -> Entry {
        let role = match self.peer.kind {
            None => String::new(),
            Some(IdentityKind::Agent) => "node".into(),
            Some(_) => {
                let role = shared.core.access.look(|grants| grants.role(&self.peer));
                role.map_or_else(|_| "none".into(), |role| role.word().to_owned())
            }
        };
        let at = shared.core.clock.now();
        let (who, from) = (self.peer.name.clone(), self.from.clone());
        Entry { who, role, from, ..Entry::new(at, what) }
    }
}

/// The end of a task's output, for a screen; nothing where its node is away.
pub(crate) async fn end_of_output(shared: &Shared, task: TaskId) -> Option<Output> {
    console::output(shared, task, u64::MAX).await.ok()
}
