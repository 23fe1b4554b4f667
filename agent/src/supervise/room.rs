//! What a try has on its node beside its process: an account, cores, a scratch folder.
//!
//! It is made before the prolog and the command, and given up after the epilog.

use std::io;
use std::path::{Path, PathBuf};

use gantry_config::RunAs;
use gantry_model::Exit;
use rustix::process::geteuid;

use super::account::Account;
use super::isolation::{Isolation, RootJobs};
use super::protocol::Start;
use super::scratch;

/// Variables of the agent that a command with an account of its own is given.
const KEPT: [&str; 3] = ["PATH", "LANG", "TZ"];
/// Where programs are looked for where the agent does not say.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a try has on its node.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The account that its command runs with; the agent's where absent.
    pub(super) account: Option<Account>,
    /// Its scratch folder.
    pub(super) scratch: Option<PathBuf>,
    /// The cores that it is bound to.
    pub(super) cores: Option<Vec<u32>>,
}

impl Room {
    /// Makes what a try has. The cores are chosen by who knows those of the others.
    pub(super) fn prepare(
        start: &Start,
        isolation: &Isolation,
        cores: Option<Vec<u32>>,
    ) -> Result<Self, Exit> {
        let account = account(isolation, &start.launch.user)?;
        let make = |folders: &super::isolation::Scratch| {
            folders.make(start.launch.try_id, account.as_ref()).map_err(|error| {
                let folder = folders.folder.display();
                cannot(125, format!("its scratch folder cannot be made in {folder}: {error}"))
            })
        };
        let scratch = isolation.scratch.as_ref().map(make).transpose()?;
        Ok(Self { account, scratch, cores })
    }

    /// Gives up what needs to be removed.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.scratch.as_deref().map_or(Ok(()), scratch::remove)
    }

    /// The folder in which a command runs that names none.
    pub(super) fn folder<'a>(&'a self, of_agent: &'a Path) -> &'a Path {
        match &self.account {
            Some(account) if account.home.is_dir() => &account.home,
            Some(_) => self.scratch.as_deref().unwrap_or(Path::new("/")),
            None => of_agent,
        }
    }

    /// What a command finds in its environment instead of the agent's, where it has an account of
    /// its own.
    pub(super) fn clean_environment(&self) -> Option<Vec<(String, String)>> {
        let account = self.account.as_ref()?;
        let kept =
            KEPT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let mut all = vec![("PATH".to_owned(), PATH.to_owned())];
        all.extend(kept);
        let text = |path: &Path| path.display().to_string();
        all.push(("HOME".into(), text(&account.home)));
        all.push(("USER".into(), account.name.clone()));
        all.push(("LOGNAME".into(), account.name.clone()));
        all.push(("SHELL".into(), text(Path::new(&account.shell))));
        Some(all)
    }

    /// Variables that a job may set otherwise.
    pub(super) fn defaults(&self) -> Option<(&'static str, &Path)> {
        self.scratch.as_deref().map(|folder| ("TMPDIR", folder))
    }

    /// Variables that are what they are.
    pub(super) fn variables(&self) -> Option<(&'static str, &Path)> {
        self.scratch.as_deref().map(|folder| ("GANTRY_SCRATCH", folder))
    }
}

/// The account that a user's commands run with; none where that is the agent's.
fn account(isolation: &Isolation, user: &str) -> Result<Option<Account>, Exit> {
    if isolation.run_as == RunAs::Agent {
        return Ok(None);
    }
    let account = Account::find(user).map_err(|error| {
        cannot(125, format!("looking up the account of {user} on this node failed: {error}"))
    })?;
    let account = account.ok_or_else(|| {
        cannot(126, format!("{user} has no account on this node; submit as a user who has one, or let an administrator make it"))
    })?;
    let own = geteuid();
    if account.uid.is_root() && isolation.root == RootJobs::Refused {
        return Err(cannot(
            126,
            "this node runs nothing as root; submit as another user, or let an administrator set allow_root".into(),
        ));
    }
    if own.is_root() {
        Ok(Some(account))
    } else if account.uid == own {
        Ok(None)
    } else {
        Err(cannot(
            126,
            format!(
                "this node cannot run commands as {user}, as its agent is not root; let an administrator start it as root"
            ),
        ))
    }
}

/// A command that is not started: 125 where that is the node's fault, otherwise as a shell has it.
pub(super) fn cannot(code: u8, sentence: String) -> Exit {
    Exit::NotStarted { code, sentence }
}
