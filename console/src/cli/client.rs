//! A command's connection to the scheduler: where it is, who asks, one request and its reply.
//!
//! A refusal because a node or a job is unknown says which one was probably meant.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use gantry_config::nearest;
use gantry_link::{Connection, Identity, LinkError, Own};
use gantry_model::{Action, At, IndexSet, JobId, JobRow, Principal, Subject};
use gantry_wire::{NodeStatus, Peer, Reply, Request, Scope, Update};
use tokio::runtime::Runtime;

use super::join;
use crate::error::{Failure, TROUBLE};
use crate::output;
use crate::watched::Watched;

/// Where the cluster is looked for when nothing names it.
pub const DEFAULT_FOLDER: &str = "/var/lib/gantry/scheduler";
/// The identity that commands use when nothing names another.
pub const DEFAULT_USER: &str = "operator";
/// How long a request waits for its answer, except those that wait for a job.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a scheduler that went away is waited for by a command that follows something.
const AWAY_MAX: Duration = Duration::from_mins(5);
/// Between two attempts to call it again.
const AGAIN_EACH: Duration = Duration::from_millis(500);

/// Which cluster a command is for, and who asks.
#[derive(Clone, Debug, Default, Args)]
pub struct Reach {
    /// Folder with the cluster's address and your key; ~/.gantry, or that of the scheduler on this host,
    /// where nothing is said.
    // Ids of their own: commands have folders and users too.
    #[arg(
        id = "reach-folder",
        long = "cluster",
        global = true,
        env = "GANTRY_CLUSTER",
        value_name = "DIR"
    )]
    pub folder: Option<PathBuf>,
    /// Ask with the identity of this name in that folder; the only one there, or operator, where nothing
    /// is said.
    #[arg(id = "reach-user", long = "as", global = true, env = "GANTRY_AS", value_name = "NAME")]
    pub user: Option<String>,
}

impl Reach {
    /// The same, with this folder where none is named.
    #[must_use]
    pub fn or(self, folder: PathBuf) -> Self {
        Self { folder: self.folder.or(Some(folder)), ..self }
    }

    /// The folder that is looked into.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        let own = || join::home().filter(|home| home.join("address").exists());
        self.folder.clone().or_else(own).unwrap_or_else(|| DEFAULT_FOLDER.into())
    }

    /// The same; where that is no cluster's and none was named, an identity is asked for by the account,
    /// if the scheduler of this host listens to it.
    fn place_or_join(&self) -> Result<PathBuf, Failure> {
        let place = self.place();
        if self.folder.is_some() || std::fs::read(place.join("address")).is_ok() {
            return Ok(place);
        }
        Ok(join::by_account()?.unwrap_or(place))
    }
}

impl From<Option<PathBuf>> for Reach {
    fn from(folder: Option<PathBuf>) -> Self {
        Self { folder, user: None }
    }
}

/// How to reach a cluster: its folder holds `address` and the identity of who asks.
#[derive(Clone, Debug)]
pub struct Access {
    /// The scheduler's address.
    pub address: SocketAddr,
    /// Who asks.
    pub identity: Identity,
    /// The same, where it lies: it is renewed there when that is due.
    pub own: Own,
}

impl Access {
    /// Reads a cluster's folder.
    ///
    /// # Errors
    /// Where the folder, the address or the identity is missing, with what to do.
    pub fn find(reach: impl Into<Reach>) -> Result<Self, Failure> {
        let reach = reach.into();
        let folder = reach.place_or_join()?;
        let known = identities(&folder);
        // Who got an identity on another host has one alone there.
        let only = match known.as_slice() {
            [only] => only.clone(),
            _ => DEFAULT_USER.to_owned(),
        };
        let user = &reach.user.clone().unwrap_or(only);
        let identity = Identity::load(&folder, user).map_err(|error| {
            Failure::usage(match known {
                known if known.is_empty() => format!(
                    "no cluster in {}: {error}; name its folder with --cluster DIR or GANTRY_CLUSTER",
                    folder.display()
                ),
                known if known.contains(user) => error.to_string(),
                known => format!(
                    "{} holds no identity {user:?}; name one of {} with --as",
                    folder.display(),
                    known.join(", ")
                ),
            })
        })?;
        let address = address(&folder)?;
        let own = Own::load(address, &folder, user)?;
        Ok(Self { address, identity, own })
    }
}

/// The names of the identities in a folder, in order.
fn identities(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| {
        Some(entry.file_name().to_str()?.strip_suffix(".pem")?.to_owned())
    };
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.retain(|name| name != "authority");
    names.sort();
    names
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
    /// The scheduler's clock when it answered, and the cluster's name.
    welcome: (At, String),
}

impl Client {
    /// Finds the cluster and connects.
    ///
    /// # Errors
    /// Where there is no cluster, or its scheduler does not answer.
    pub fn connect(reach: impl Into<Reach>) -> Result<Self, Failure> {
        Self::to(&Access::find(reach)?)
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
        let mut own = access.own.clone();
        let session = runtime.block_on(own.connect(Peer::Console))?;
        let welcome = (session.at, session.cluster);
        Ok(Self { runtime, connection: session.connection, welcome })
    }

    /// The scheduler's clock when it answered.
    #[must_use]
    pub const fn greeted(&self) -> At {
        self.welcome.0
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.welcome.1
    }

    /// The open connection, and the runtime it lives on.
    #[must_use]
    pub const fn parts(&self) -> (&Runtime, &Connection) {
        (&self.runtime, &self.connection)
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// Where the request is refused, or no answer comes.
    pub fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        self.within(request).map_err(|failure| self.with_meant(failure, request))
    }

    /// Waits, as long as it takes, until a job has ended, or some elements of it.
    ///
    /// # Errors
    /// Where the job is unknown or the connection ends.
    pub fn wait(&self, job: JobId, indices: Option<IndexSet>) -> Result<JobRow, Failure> {
        let request = Request::Wait { job, indices };
        let reply = self.runtime.block_on(ask(&self.connection, &request));
        match reply.map_err(|failure| self.with_meant(failure, &request))? {
            Reply::Job(row) => Ok(*row),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Self::ask`], where the answer may take as long as it takes.
    ///
    /// # Errors
    /// As [`Self::ask`], but for one that is late.
    pub fn ask_patiently(&self, request: &Request) -> Result<Reply, Failure> {
        self.runtime.block_on(ask(&self.connection, request))
    }

    fn within(&self, request: &Request) -> Result<Reply, Failure> {
        self.runtime.block_on(async {
            tokio::time::timeout(REPLY_TIMEOUT, ask(&self.connection, request)).await.map_err(
                |_| Failure::trouble(format!("no answer within {} s", REPLY_TIMEOUT.as_secs())),
            )?
        })
    }

    /// A refusal because something is unknown, with what was probably meant.
    fn with_meant(&self, failure: Failure, request: &Request) -> Failure {
        let unknown = (failure.kind == "not-found").then(|| subject(request)).flatten();
        let meant = unknown.and_then(|subject| {
            let word = subject.to_string();
            // A question about the refusal that fails itself adds nothing to it.
            let known: Vec<String> = match subject {
                Subject::Node(_) => self.node_names().ok()?,
                _ => self.newest_jobs().ok()?.iter().map(|row| row.job.to_string()).collect(),
            };
            nearest(&word, known.iter().map(String::as_str)).map(str::to_owned)
        });
        match meant {
            Some(meant) => Failure {
                sentence: format!("{}; did you mean {meant}", failure.sentence),
                ..failure
            },
            None => failure,
        }
    }

    /// The names of all nodes.
    ///
    /// # Errors
    /// Where no answer comes.
    pub fn node_names(&self) -> Result<Vec<String>, Failure> {
        let nodes = pages_of_nodes(|request| self.within(request))?;
        Ok(nodes.into_iter().map(|node| node.row.facts.name).collect())
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn nodes(&self) -> Result<Vec<NodeStatus>, Failure> {
        pages_of_nodes(|request| self.ask(request))
    }

    /// One page of jobs, the newest.
    ///
    /// # Errors
    /// Where no answer comes.
    pub fn newest_jobs(&self) -> Result<Vec<JobRow>, Failure> {
        match self.within(&Request::Jobs { before: None, ended: true })? {
            Reply::Jobs { rows, .. } => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// Hands on every picture of a scope, as long as they come.
    ///
    /// # Errors
    /// What `take` fails with, or why no more pictures come.
    pub fn watch(
        &self,
        scope: Scope,
        take: &mut dyn FnMut(Update) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut watched = self.runtime.block_on(Watched::open(&self.connection, scope))?;
        while let Some(update) = self.runtime.block_on(watched.next())? {
            take(*update)?;
        }
        Err(gone("the watch has ended"))
    }

    /// Takes one picture of what a console would show.
    ///
    /// # Errors
    /// Where no picture comes.
    pub fn watch_once(&self, scope: Scope) -> Result<Update, Failure> {
        self.runtime.block_on(async {
            let picture = async { Watched::open(&self.connection, scope).await?.next().await };
            let late =
                || Failure::trouble(format!("no answer within {} s", REPLY_TIMEOUT.as_secs()));
            let picture =
                tokio::time::timeout(REPLY_TIMEOUT, picture).await.map_err(|_| late())??;
            picture.map(|picture| *picture).ok_or_else(|| gone("the watch has ended"))
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
        Err(LinkError::Closed(reason)) => Err(gone(&reason)),
        Err(error) => Err(error.into()),
    }
}

/// All nodes, page after page.
fn pages_of_nodes(
    ask: impl Fn(&Request) -> Result<Reply, Failure>,
) -> Result<Vec<NodeStatus>, Failure> {
    let mut nodes: Vec<NodeStatus> = Vec::new();
    loop {
        let after = nodes.last().map(|last| last.row.facts.name.clone());
        match ask(&Request::Nodes { after })? {
            Reply::Nodes { rows, more } => {
                // A page without rows has nothing behind it, whatever it says.
                let more = more && !rows.is_empty();
                nodes.extend(rows);
                if !more {
                    return Ok(nodes);
                }
            }
            other => return Err(unexpected(&other)),
        }
    }
}

fn gone(reason: &str) -> Failure {
    let sentence = format!("the scheduler went away while it was asked: {reason}");
    Failure { code: TROUBLE, kind: "unreachable", sentence }
}

/// The node or job that a request is about, as far as it can be mistyped.
fn subject(request: &Request) -> Option<Subject> {
    let node = |name: &String| Some(Subject::Node(name.clone()));
    match request {
        Request::Act(action) => match action {
            Action::Drain { node: name, .. }
            | Action::Resume { node: name }
            | Action::AddWindow { node: name, .. }
            | Action::DropWindows { node: name }
            | Action::Forget { node: name } => node(name),
            Action::Hold { job, .. }
            | Action::Release { job, .. }
            | Action::Requeue { job, .. }
            | Action::Change { job, .. } => Some(Subject::Job(*job)),
        },
        Request::Series { node: name, .. }
        | Request::Revoke { principal: Principal::Node(name) } => node(name),
        Request::Cancel { job, .. }
        | Request::Why { job, .. }
        | Request::Search { job, .. }
        | Request::Job { job }
        | Request::Tasks { job, .. }
        | Request::Wait { job, .. }
        | Request::Metrics { job } => Some(Subject::Job(*job)),
        Request::Output { task, .. } => Some(Subject::Job(task.job)),
        _ => None,
    }
}

/// The patience of a command that follows something over a restart of the scheduler.
#[derive(Debug)]
pub struct Patience {
    reach: Reach,
    /// Since when the scheduler is away.
    away: Option<Instant>,
}

impl Patience {
    /// With the scheduler of this cluster.
    #[must_use]
    pub const fn new(reach: Reach) -> Self {
        Self { reach, away: None }
    }

    /// It has answered.
    pub fn content(&mut self) {
        self.away = None;
    }

    /// Calls the scheduler again after a failure, after a moment; nothing where it is still away.
    ///
    /// # Errors
    /// The failure itself, where it is a refusal, or the scheduler has been away for too long.
    pub fn call_again(&mut self, failure: Failure) -> Result<Option<Client>, Failure> {
        if self.away.is_none() {
            output::progress(&format!("{}; waiting for the scheduler", failure.sentence));
        }
        let since = *self.away.get_or_insert_with(Instant::now);
        if failure.code != TROUBLE || since.elapsed() > AWAY_MAX {
            return Err(failure);
        }
        std::thread::sleep(AGAIN_EACH);
        Ok(Client::connect(self.reach.clone()).ok())
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
