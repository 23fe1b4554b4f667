//! What a supervisor holds, and the thread that waits for its processes.
//!
//! One lock guards all of it: a command is started and entered under the lock, so that its end,
//! however soon, finds it there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gantry_config::Orphans;
use gantry_model::{At, Exit, TryId, Usage};
use rustix::process::Pid;

use super::protocol::{FromSupervisor, Held, Start};
use super::{ends, process};
use crate::pipe;

/// The table behind its lock, and the bell that rings when a process was entered.
#[derive(Clone)]
pub(super) struct Shared(Arc<(Mutex<Table>, Condvar)>);

/// Every try, live or with an end that no agent has kept.
pub(super) struct Table {
    folder: PathBuf,
    held: BTreeMap<TryId, Held>,
    /// Ends that are in files.
    written: BTreeSet<TryId>,
    groups: HashMap<Pid, TryId>,
    agent: Option<UnixStream>,
    orphans: Orphans,
}

impl Shared {
    /// A table with what an earlier supervisor of the folder has left.
    pub(super) fn new(folder: PathBuf) -> std::io::Result<Self> {
        let held: BTreeMap<TryId, Held> =
            ends::read(&folder)?.into_iter().map(|held| (held.launch.try_id, held)).collect();
        let table = Table {
            written: held.keys().copied().collect(),
            held,
            folder,
            groups: HashMap::new(),
            agent: None,
            orphans: Orphans::Keep,
        };
        Ok(Self(Arc::new((Mutex::new(table), Condvar::new()))))
    }

    /// The table.
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a command.
    pub(super) fn start(&self, start: Start) {
        self.lock().start(start);
        self.0.1.notify_one();
    }

    /// Waits for processes for ever.
    pub(super) fn wait_for_ends(&self) {
        loop {
            let mut table = self.lock();
            while table.groups.is_empty() {
                table = self.0.1.wait(table).unwrap_or_else(PoisonError::into_inner);
            }
            drop(table);
            // An error means that a child which could not be started was the only one.
            if let Ok(leader) = process::next_ended() {
                self.lock().ended(leader);
            }
        }
    }
}

impl Table {
    /// Tells the agent. One that does not hear is gone, and asks again when it is back.
    fn say(&mut self, message: &FromSupervisor) {
        let Some(agent) = &mut self.agent else { return };
        if pipe::write(agent, message).is_err() {
            self.agent = None;
        }
    }

    /// An agent is there: it hears what is held, then what happens.
    pub(super) fn connect(&mut self, agent: UnixStream) {
        self.agent = Some(agent);
        let all: Vec<Held> = self.held.values().cloned().collect();
        for held in all {
            self.say(&FromSupervisor::Held(Box::new(held)));
        }
        self.say(&FromSupervisor::Ready);
    }

    /// The agent is gone. Ends that it has not kept become files; where nobody shall outlive it
    /// everything is told to end. Gives whether the supervisor is needed any longer.
    pub(super) fn disconnect(&mut self) -> Needed {
        self.agent = None;
        if self.orphans == Orphans::End {
            self.groups.keys().for_each(|group| process::signal(*group, libc::SIGKILL as u8));
            // The cluster hears that the node holds them no more: it was not they who failed.
            self.held.retain(|_, held| held.end.is_some());
        }
        self.write_ends();
        self.needed()
    }

    /// Writes the ends that are not in files yet.
    fn write_ends(&mut self) {
        let open = |held: &&Held| held.end.is_some() && !self.written.contains(&held.launch.try_id);
        let ended: Vec<&Held> = self.held.values().filter(open).collect();
        match ends::write(&self.folder, &ended) {
            Ok(()) => self.written.extend(ended.iter().map(|held| held.launch.try_id)),
            Err(error) => {
                self.complain(&format!(
                    "an end could not be written and is kept in memory: {error}"
                ));
            }
        }
    }

    /// What becomes of what runs when the agent is gone.
    pub(super) fn set_orphans(&mut self, orphans: Orphans) {
        self.orphans = orphans;
    }

    fn needed(&self) -> Needed {
        if self.agent.is_some() || !self.groups.is_empty() { Needed::Yes } else { Needed::No }
    }

    fn start(&mut self, start: Start) {
        let try_id = start.launch.try_id;
        if self.held.contains_key(&try_id) {
            return;
        }
        match process::start(&start) {
            Ok(group) => {
                let (launch, read) = (start.launch, start.read);
                let held = Held { launch, since: now(), read, end: None };
                self.held.insert(try_id, held);
                self.groups.insert(group, try_id);
                self.say(&FromSupervisor::Started { try_id });
            }
            Err(exit) => {
                let usage = Usage::default();
                let end = Some((exit.clone(), usage));
                let held = Held { launch: start.launch, since: now(), read: 0, end };
                self.held.insert(try_id, held);
                self.say(&FromSupervisor::Ended { try_id, exit, usage });
            }
        }
    }

    /// Sends a signal to a try's processes.
    pub(super) fn signal(&self, try_id: TryId, number: u8) {
        let group = self.groups.iter().find(|(_, of)| **of == try_id).map(|(group, _)| *group);
        if let Some(group) = group {
            process::signal(group, number);
        }
    }

    /// Remembers up to where a try's output was read.
    pub(super) fn read(&mut self, try_id: TryId, offset: u64) {
        if let Some(held) = self.held.get_mut(&try_id) {
            held.read = offset;
        }
    }

    /// The agent has the end in its spool.
    pub(super) fn kept(&mut self, try_id: TryId) {
        if self.held.get(&try_id).is_some_and(|held| held.end.is_some()) {
            self.held.remove(&try_id);
            if self.written.remove(&try_id) {
                ends::forget(&self.folder, try_id);
            }
        }
    }

    fn ended(&mut self, leader: Pid) {
        let Some(try_id) = self.groups.remove(&leader) else { return };
        let (exit, usage): (Exit, Usage) = process::reap(leader);
        if let Some(held) = self.held.get_mut(&try_id) {
            held.end = Some((exit.clone(), usage));
        }
        self.say(&FromSupervisor::Ended { try_id, exit, usage });
        if self.agent.is_some() {
            return;
        }
        self.write_ends();
        if self.needed() == Needed::No {
            leave();
        }
    }

    /// Leaves a line for people: a supervisor has no terminal and no agent to tell.
    fn complain(&self, line: &str) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("log"));
        // Where not even that can be written there is nobody left to tell.
        let _ = log.and_then(|mut log| writeln!(log, "{line}"));
    }
}

/// Whether a supervisor has anything left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needed {
    /// It holds processes, or has an agent.
    Yes,
    /// Everything it knows is in files.
    No,
}

/// Ends the process. Whoever is about to connect finds it gone and starts another.
pub(super) fn leave() -> ! {
    std::process::exit(0)
}

fn now() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}
