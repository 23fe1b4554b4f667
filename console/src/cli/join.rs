//! `gantry join`: a node gets its identity, and a person does.
//!
//! People of the scheduler's own host need no token: the kernel says who calls ([`by_account`]), and the
//! first command that finds no other way to a cluster asks for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_link::Identity;
use gantry_wire::Invitation;
use serde_json::json;

use super::client::{Reach, resolve};
use super::daemons::{AGENT_FOLDER, hand_over, is_service, make, write};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Where the package's scheduler listens to people of its host.
const SOCKET: &str = "/run/gantry/scheduler.sock";
/// Where another one listens.
const SOCKET_VARIABLE: &str = "GANTRY_SOCKET";
/// Where a person's identity lies, within the home.
const HOME_FOLDER: &str = ".gantry";

/// `gantry join`.
#[derive(Debug, Args)]
pub struct Join {
    /// The token that gantry scheduler token or gantry access token printed.
    #[arg(required_unless_present = "local")]
    token: Option<String>,
    #[command(flatten)]
    who: Who,
    /// The scheduler, as HOST:PORT.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "local")]
    scheduler: Option<String>,
    /// The agent's folder; of a person the one that commands look into, ~/.gantry where none is named.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Whom the token was made for.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Who {
    /// The node's name, as the token was made for.
    #[arg(long)]
    node: Option<String>,
    /// The person's name, as the token was made for.
    // An id of its own: --as is a user too.
    #[arg(id = "join-user", long = "user", value_name = "NAME")]
    user: Option<String>,
    /// Yourself, on the scheduler's own host, where your account says who you are; without a token.
    #[arg(long, conflicts_with_all = ["token", "scheduler"])]
    local: bool,
}

impl Join {
    /// Carries it out: gets an identity, and writes the agent's first settings or the address that
    /// commands look for.
    ///
    /// # Errors
    /// Where the token is refused or the folder cannot be written.
    pub fn run(self, cluster: &Reach, format: Format) -> Outcome {
        if let Some(node) = &self.who.node {
            let dir = self.dir.clone().unwrap_or_else(|| AGENT_FOLDER.into());
            return self.node(node, &dir, format);
        }
        let named = self.dir.clone().or_else(|| cluster.folder.clone());
        let dir = named.or_else(home).ok_or_else(|| {
            Failure::usage("where shall the identity lie? name a folder of yours with --dir, and later with GANTRY_CLUSTER")
        })?;
        let (address, user, identity) = match &self.who.user {
            Some(user) => {
                let (address, token) = self.call()?;
                (address, user.clone(), enter(address, token, user)?)
            }
            None => invited()?,
        };
        keep(&identity, &user, address, &dir)?;
        let shown = dir.display();
        let people = || {
            let next = if home().as_deref() == Some(&dir) {
                "gantry access list".to_owned()
            } else {
                format!("export GANTRY_CLUSTER={shown}; gantry access list")
            };
            format!("{user} has an identity in {shown}\nnext: {next}")
        };
        let value = json!({ "user": user, "folder": dir });
        format.print("identity", &value, people, || user.clone())?;
        Ok(0)
    }

    /// The scheduler and the token, which the command line has wherever it names a node or a person.
    fn call(&self) -> Result<(SocketAddr, &str), Failure> {
        let (Some(scheduler), Some(token)) = (&self.scheduler, &self.token) else {
            return Err(Failure::usage("name the scheduler with --scheduler, and give the token"));
        };
        Ok((resolve(scheduler)?, token))
    }

    fn node(&self, node: &str, dir: &Path, format: Format) -> Outcome {
        let (address, token) = self.call()?;
        make(dir, 0o777)?;
        let runtime = tokio::runtime::Runtime::new()?;
        let identity = runtime.block_on(gantry_link::join(address, token, node))?;
        identity.save(dir, "agent")?;
        let path = dir.join("agent.toml");
        if !path.exists() {
            let text = format!("node = {node:?}\nscheduler = {:?}\n", address.to_string());
            write(&path, &text)?;
        }
        hand_over(dir)?;
        let people = || {
            let start = if is_service(dir, Path::new(AGENT_FOLDER), "agent") {
                "systemctl enable --now gantry-agent".to_owned()
            } else {
                format!("gantry agent --dir {}", dir.display())
            };
            format!("{node} has joined\nnext: {start}")
        };
        format.print("joined", &json!({ "node": node }), people, || node.to_owned())?;
        Ok(0)
    }
}

/// The folder in this person's home.
pub(super) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(HOME_FOLDER))
}

/// Gets an identity for the account that asks, where a scheduler of this host listens to it, and keeps it
/// in the home; gives that folder. Nothing where no scheduler listens here.
///
/// # Errors
/// Where it refuses, or the home cannot be written.
pub(super) fn by_account() -> Result<Option<PathBuf>, Failure> {
    let Some(folder) = home().filter(|_| socket().exists()) else { return Ok(None) };
    let (address, user, identity) = invited()?;
    let parent = folder.parent().unwrap_or(&folder);
    // Two commands may be the first at once: the folder of one of them comes into being whole, and the
    // other uses that.
    let part = tempfile::Builder::new().prefix(".gantry-").tempdir_in(parent).map_err(|error| {
        Failure::trouble(format!("writing to {} failed: {error}", parent.display()))
    })?;
    keep(&identity, &user, address, part.path())?;
    match std::fs::rename(part.path(), &folder) {
        Ok(()) => drop(part.keep()),
        Err(_) if folder.join("address").exists() => {}
        Err(_) => keep(&identity, &user, address, &folder)?,
    }
    let shown = folder.display();
    output::progress(&format!("you are {user} in this cluster by your account; see {shown}"));
    Ok(Some(folder))
}

/// The scheduler's socket on this host.
fn socket() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE).map_or_else(|| SOCKET.into(), PathBuf::from)
}

/// Asks the scheduler of this host for an invitation, and follows it.
fn invited() -> Result<(SocketAddr, String, Identity), Failure> {
    match gantry_link::local::call(&socket())? {
        Invitation::Refused(reject) => Err(reject.into()),
        Invitation::Given { name, address, token, .. } => {
            let address = resolve(&address)?;
            let identity = enter(address, &token, &name)?;
            Ok((address, name, identity))
        }
    }
}

fn enter(address: SocketAddr, token: &str, user: &str) -> Result<Identity, Failure> {
    if user.contains('/') || user.starts_with('.') {
        let sentence =
            format!("{user:?} cannot be the name of a file, and its identity lies in one");
        return Err(Failure::usage(sentence));
    }
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(gantry_link::join_user(address, token, user))?)
}

fn keep(
    identity: &Identity,
    user: &str,
    address: SocketAddr,
    folder: &Path,
) -> Result<(), Failure> {
    make(folder, 0o700)?;
    identity.save(folder, user)?;
    // Last: a folder with an address is one that commands look into.
    write(&folder.join("address"), &format!("{address}\n"))
}
