//! What a supervisor holds, and the thread that waits for its processes.
//!
//! One lock guards all of it. It is free while a command is started, as that takes longer than
//! anything else: an end that comes before its command is entered waits for it. What is said to the
//! agent is gathered and written together.

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
    /// Whether a command is being started, of which nothing is entered yet.
    starting: Starting,
    agent: Option<UnixStream>,
    /// Messages to the agent that are not written yet.
    unsaid: Vec<u8>,
    orphans: Orphans,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starting {
    Nothing,
    One,
}

/// When the agent is told what was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// At once.
    Now,
    /// With what follows, unless there is much already.
    WithMore,
}

/// Bytes to the agent that wait for more: some 60 messages.
const UNSAID_BYTES_MAX: usize = 1024;

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
            starting: Starting::Nothing,
            agent: None,
            unsaid: Vec::new(),
            orphans: Orphans::Keep,
        };
        Ok(Self(Arc::new((Mutex::new(table), Condvar::new()))))
    }

    /// The table.
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a command. Only one thread does.
    pub(super) fn start(&self, start: Start) {
        let mut table = self.lock();
        if table.held.contains_key(&start.launch.try_id) {
            return;
        }
        table.starting = Starting::One;
        drop(table);
        let result = process::start(&start);
        let mut table = self.lock();
        table.starting = Starting::Nothing;
        table.enter(start, result);
        drop(table);
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
            let mut next = process::next_ended().ok();
            let mut table = self.lock();
            while let Some(leader) = next {
                while table.starting == Starting::One && !table.groups.contains_key(&leader) {
                    table = self.0.1.wait(table).unwrap_or_else(PoisonError::into_inner);
                }
                table.ended(leader);
                next = process::one_ended();
            }
            table.tell(Told::Now);
            table.keep_unheard();
        }
    }
}

impl Table {
    /// Says something to the agent, if there is one; it is told with [`Self::tell`].
    fn say(&mut self, message: &FromSupervisor) {
        if self.agent.is_none() {
            return;
        }
        // None is too long to be said: what is held came here in a longer message.
        if let Ok(frame) = pipe::frame(message) {
            self.unsaid.extend(frame);
        }
    }

    /// Tells the agent what was said. One that does not hear is gone, and asks again when it is back.
    pub(super) fn tell(&mut self, told: Told) {
        let few = told == Told::WithMore && self.unsaid.len() < UNSAID_BYTES_MAX;
        if few || self.unsaid.is_empty() {
            return;
        }
        if let Some(agent) = &mut self.agent
            && agent.write_all(&self.unsaid).is_err()
        {
            self.agent = None;
        }
        self.unsaid.clear();
    }

    /// An agent is there: it hears what is held, then what happens.
    pub(super) fn connect(&mut self, agent: UnixStream) {
        self.agent = Some(agent);
        let all: Vec<Held> = self.held.values().cloned().collect();
        for held in all {
            self.say(&FromSupervisor::Held(Box::new(held)));
            self.tell(Told::WithMore);
        }
        self.say(&FromSupervisor::Ready);
        self.tell(Told::Now);
    }

    /// The agent is gone. Ends that it has not kept become files; where nobody shall outlive it
    /// everything is told to end. Gives whether the supervisor is needed any longer.
    pub(super) fn disconnect(&mut self) -> Needed {
        self.agent = None;
        self.unsaid.clear();
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
        let runs = !self.groups.is_empty() || self.starting == Starting::One;
        if self.agent.is_some() || runs { Needed::Yes } else { Needed::No }
    }

    /// Enters a command that runs, or could not be started.
    fn enter(&mut self, start: Start, result: Result<Pid, Exit>) {
        let try_id = start.launch.try_id;
        match result {
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
    }

    /// Where no agent is there to hear it, what has ended becomes files; the last one ends the
    /// supervisor.
    fn keep_unheard(&mut self) {
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
