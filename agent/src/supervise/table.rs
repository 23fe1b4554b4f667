//! What a supervisor holds: tries, their processes, and what is to be said to its agent.
//!
//! What is said to the agent is gathered and written together: waking it costs more than a message.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

use gantry_config::Orphans;
use gantry_model::{Exit, TryId, Usage};
use rustix::process::{Pid, Signal, kill_process};

use super::cgroup::Group;
use super::cores::Cores;
use super::course::Course;
use super::ends;
use super::farewell::Farewell;
use super::isolation::Isolation;
use super::process::{self, Children};
use super::protocol::{FromSupervisor, Held, Welcomed};
use super::strays::{self, Strays};
use crate::clock::now;
use crate::{pipe, spool};

/// Every try, live or with an end that no agent has kept.
pub(super) struct Table {
    folder: PathBuf,
    pub(super) held: BTreeMap<TryId, Held>,
    /// Ends that are in files.
    written: BTreeSet<TryId>,
    pub(super) groups: HashMap<Pid, Live>,
    /// Tries that a thread starts, makes ready or clears up.
    pub(super) busy: BTreeMap<TryId, Busy>,
    /// Scripts of those.
    pub(super) scripts: HashMap<Pid, Script>,
    /// What processes that have left their group are found by, where the kernel lets.
    strays: Option<Strays>,
    /// Whether processes live that are neither commands nor scripts.
    adopted: Adopted,
    pub(super) isolation: Arc<Isolation>,
    pub(super) cores: Cores,
    agent: Option<UnixStream>,
    /// Who is to be told when the agent is gone.
    pub(super) welcomed: Option<Welcomed>,
    /// Farewells that are being said.
    farewells: u32,
    /// Messages to the agent that are not written yet.
    unsaid: Vec<u8>,
    orphans: Orphans,
}

/// A command that runs.
pub(super) struct Live {
    pub(super) try_id: TryId,
    pub(super) group: Option<Group>,
    /// What is to be cleared up after it; nothing where that takes no time.
    pub(super) course: Option<Box<Course>>,
}

/// What a thread does for a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// It makes it ready; this signal has come meanwhile.
    Before(Option<u8>),
    /// It clears up.
    After,
}

/// A script that runs or has ended.
pub(super) struct Script {
    pub(super) try_id: TryId,
    pub(super) end: Option<ExitStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adopted {
    None,
    Some,
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

impl Table {
    /// A table with what an earlier supervisor of the folder has left.
    pub(super) fn new(folder: PathBuf, strays: Option<Strays>) -> std::io::Result<Self> {
        let held: BTreeMap<TryId, Held> =
            ends::read(&folder)?.into_iter().map(|held| (held.launch.try_id, held)).collect();
        Ok(Self {
            written: held.keys().copied().collect(),
            held,
            folder,
            groups: HashMap::new(),
            busy: BTreeMap::new(),
            scripts: HashMap::new(),
            strays,
            adopted: Adopted::None,
            isolation: Arc::new(Isolation::none()),
            cores: Cores::of_machine(),
            agent: None,
            welcomed: None,
            farewells: 0,
            unsaid: Vec::new(),
            orphans: Orphans::Keep,
        })
    }

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
    /// everything is told to end.
    pub(super) fn disconnect(&mut self) {
        self.agent = None;
        self.unsaid.clear();
        if self.orphans == Orphans::End {
            self.groups.keys().for_each(|group| process::signal(*group, libc::SIGKILL as u8));
            let before: Vec<TryId> = self.busy.keys().copied().collect();
            for try_id in before {
                self.signal(try_id, libc::SIGKILL as u8);
            }
            // The cluster hears that the node holds them no more: it was not they who failed.
            self.held.retain(|_, held| held.end.is_some());
        }
        self.write_ends();
    }

    /// What the scheduler is to be told of an agent that is gone, if it had welcomed it. Until
    /// [`Self::farewell_said`] the supervisor is needed.
    pub(super) fn farewell(&mut self) -> Option<Farewell> {
        let welcomed = self.welcomed.take()?;
        let spooled = spool::tries(&welcomed.folder.join("spool"));
        self.farewells += 1;
        let holds = self.held.keys().copied().chain(spooled);
        Some(Farewell { holds: holds.collect(), welcomed })
    }

    /// The scheduler was told, or is not reached.
    pub(super) fn farewell_said(&mut self) {
        self.farewells -= 1;
        self.keep_unheard();
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

    /// How commands that are started from now on are kept apart.
    pub(super) fn set_isolation(&mut self, isolation: Isolation) {
        self.isolation = Arc::new(isolation);
    }

    /// What becomes of what runs when the agent is gone.
    pub(super) fn set_orphans(&mut self, orphans: Orphans) {
        self.orphans = orphans;
    }

    fn needed(&self) -> Needed {
        let runs = !self.groups.is_empty() || !self.busy.is_empty();
        let needed = self.agent.is_some() || runs || self.farewells > 0;
        if needed { Needed::Yes } else { Needed::No }
    }

    /// Whether a command or a script runs.
    fn runs(&self) -> bool {
        !self.groups.is_empty() || self.scripts.values().any(|script| script.end.is_none())
    }

    /// Whether there is anything to wait for.
    pub(super) fn has_children(&self) -> bool {
        self.adopted == Adopted::Some || self.runs()
    }

    /// Whether a child is a command or a script.
    pub(super) fn knows(&self, child: Pid) -> bool {
        self.groups.contains_key(&child) || self.scripts.contains_key(&child)
    }

    /// A command runs.
    pub(super) fn started(&mut self, leader: Pid, live: Live) {
        let try_id = live.try_id;
        if let Some(held) = self.held.get_mut(&try_id) {
            held.since = now();
        }
        if let Some(Busy::Before(Some(number))) = self.busy.remove(&try_id) {
            // It came after the last look.
            process::signal(leader, number);
        }
        self.groups.insert(leader, live);
        self.say(&FromSupervisor::Started { try_id });
    }

    /// A command has ended or could not be started, and all of it is cleared up.
    pub(super) fn end(&mut self, try_id: TryId, exit: Exit, usage: Usage) {
        self.busy.remove(&try_id);
        if let Some(held) = self.held.get_mut(&try_id) {
            held.end = Some((exit.clone(), usage));
        }
        self.say(&FromSupervisor::Ended { try_id, exit, usage });
    }

    /// Sends a signal to a try's processes. One whose command is not started yet will not be.
    pub(super) fn signal(&mut self, try_id: TryId, number: u8) {
        let group = self.groups.iter().find(|(_, live)| live.try_id == try_id);
        if let Some((group, _)) = group {
            process::signal(*group, number);
        } else if let Some(Busy::Before(signal)) = self.busy.get_mut(&try_id) {
            *signal = Some(number);
            if i32::from(number) == libc::SIGKILL {
                let own = |script: &&Script| script.try_id == try_id && script.end.is_none();
                let scripts = self.scripts.iter().filter(|(_, script)| own(script));
                scripts.for_each(|(group, _)| process::signal(*group, number));
            }
        }
    }

    /// Looks for adopted processes, unless there are no children at all.
    pub(super) fn look_for_strays(&mut self, children: Children) {
        let others = children == Children::Live && !self.runs();
        self.adopted = if others { Adopted::Some } else { Adopted::None };
        if children == Children::Live {
            self.end_strays();
        }
    }

    /// Ends adopted processes of tries that have ended.
    pub(super) fn end_strays(&self) {
        let Some(strays) = &self.strays else { return };
        for child in strays.children() {
            if self.knows(child) {
                continue;
            }
            let lives = |id| self.groups.values().any(|live| live.try_id == id);
            let kept = match strays::try_of(child) {
                Some(id) => lives(id) || self.busy.contains_key(&id),
                None => !self.groups.is_empty() || !self.busy.is_empty(),
            };
            if !kept {
                // It is not reaped yet, so that the number is nobody else's: it may have ended.
                let _ = kill_process(child, Signal::KILL);
            }
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

    /// Where no agent is there to hear it, what has ended becomes files; the last one ends the
    /// supervisor.
    pub(super) fn keep_unheard(&mut self) {
        if self.agent.is_some() {
            return;
        }
        self.write_ends();
        if self.needed() == Needed::No {
            leave();
        }
    }

    /// Leaves a line for people: a supervisor has no terminal and no agent to tell.
    pub(super) fn complain(&self, line: &str) {
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
