//! A command's connection to the scheduler: where it is, who asks, one request and its reply.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gantry_link::{Connection, Identity, LinkError, connect};
use gantry_model::{IndexSet, JobId, JobRow};
use gantry_wire::{Peer, Reply, Request, Scope, Update};
use tokio::runtime::Runtime;

use crate::error::Failure;

/// Where the cluster is looked for when nothing names it.
const DEFAULT_FOLDER: &str = "/var/lib/gantry/scheduler";
/// How long a request waits for its answer, except those that wait for a job.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// How to reach a cluster: its folder holds `address` and the operator's identity.
#[derive(Clone, Debug)]
pub struct Access {
    /// The scheduler's address.
    pub address: SocketAddr,
    /// Who asks.
    pub identity: Identity,
}

impl Access {
    /// Reads a cluster's folder.
    ///
    /// # Errors
    /// Where the folder, the address or the identity is missing, with what to do.
    pub fn find(folder: Option<PathBuf>) -> Result<Self, Failure> {
        let folder = folder.unwrap_or_else(|| DEFAULT_FOLDER.into());
        let identity = Identity::load(&folder, "operator").map_err(|error| {
            Failure::usage(format!(
                "no cluster in {}: {error}; name its folder with --cluster DIR or GANTRY_CLUSTER",
                folder.display()
            ))
        })?;
        Ok(Self { address: address(&folder)?, identity })
    }
}

fn address(folder: &Path) -> Result<SocketAddr, Failure> {
    let path = folder.join("address");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::trouble(format!(
            "reading the scheduler's address {} failed: {error}; start it with gantry scheduler --dir {}",
            path.display(),
            folder.display()
        ))
    })?;
    resolve(text.trim())
}

/// A socket address from `HOST:PORT`.
///
/// # Errors
/// Where it is malformed or the host is not known.
pub fn resolve(text: &str) -> Result<SocketAddr, Failure> {
    let fail =
        |why: String| Failure::usage(format!("{text:?} is no address ({why}); write HOST:PORT"));
    let mut found = text.to_socket_addrs().map_err(|error| fail(error.to_string()))?;
    found.next().ok_or_else(|| fail("the host has none".into()))
}

/// A connected command.
pub struct Client {
    runtime: Runtime,
    connection: Connection,
}

impl Client {
    /// Finds the cluster and connects.
    ///
    /// # Errors
    /// Where there is no cluster, or its scheduler does not answer.
    pub fn connect(folder: Option<PathBuf>) -> Result<Self, Failure> {
        Self::to(&Access::find(folder)?)
    }

    /// Connects to a known cluster.
    ///
    /// # Errors
    /// Where its scheduler does not answer.
    pub fn to(access: &Access) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(Failure::trouble)?;
        let session = runtime.block_on(connect(access.address, &access.identity, Peer::Console))?;
        Ok(Self { runtime, connection: session.connection })
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// Where the request is refused, or no answer comes.
    pub fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        self.runtime.block_on(async {
            tokio::time::timeout(REPLY_TIMEOUT, ask(&self.connection, request)).await.map_err(
                |_| Failure::trouble(format!("no answer within {} s", REPLY_TIMEOUT.as_secs())),
            )?
        })
    }

    /// Waits, as long as it takes, until a job has ended, or some elements of it.
    ///
    /// # Errors
    /// Where the job is unknown or the connection ends.
    pub fn wait(&self, job: JobId, indices: Option<IndexSet>) -> Result<JobRow, Failure> {
        let request = Request::Wait { job, indices };
        match self.runtime.block_on(ask(&self.connection, &request))? {
            Reply::Job(row) => Ok(*row),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes one picture of what a console would show.
    ///
    /// # Errors
    /// Where no picture comes.
    pub fn watch_once(&self, scope: Scope) -> Result<Update, Failure> {
        self.runtime.block_on(async {
            let picture = async {
                let (mut sender, mut receiver) = self.connection.open().await?;
                sender.send(&Request::Watch { scope }).await?;
                receiver.expect::<Update>().await
            };
            let late =
                || Failure::trouble(format!("no answer within {} s", REPLY_TIMEOUT.as_secs()));
            Ok(tokio::time::timeout(REPLY_TIMEOUT, picture).await.map_err(|_| late())??)
        })
    }
}

async fn ask(connection: &Connection, request: &Request) -> Result<Reply, Failure> {
    let exchange = async {
        let (mut sender, mut receiver) = connection.open().await?;
        sender.send(request).await?;
        sender.finish();
        receiver.expect::<Reply>().await
    };
    match exchange.await {
        Ok(Reply::Refused(reject)) => Err(reject.into()),
        Ok(reply) => Ok(reply),
        Err(LinkError::Closed(reason)) => Err(Failure {
            code: crate::error::TROUBLE,
            kind: "unreachable",
            sentence: format!("the scheduler went away while it was asked: {reason}"),
        }),
        Err(error) => Err(error.into()),
    }
}

/// A key that makes a submit idempotent: unlike any other of this user.
#[must_use]
pub fn submit_key() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), since.as_nanos())
}

/// An answer of a kind that does not belong to the question.
#[must_use]
pub fn unexpected(reply: &Reply) -> Failure {
    let text = format!("{reply:?}");
    let kind = text.split(['(', '{', ' ']).next().unwrap_or_default().to_owned();
    Failure::trouble(format!(
        "the scheduler gave an answer of another kind ({kind}); upgrade one of the two"
    ))
}
