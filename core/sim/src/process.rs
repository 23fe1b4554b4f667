//! The processes of a server: how long they take, how they end, and how they follow signals.
//!
//! What a command says of itself is drawn around, so that two tries of a task differ. A process
//! belongs to its host: it ends whether or not an agent is there to see it.

use gantry_model::{At, Exit, Launch, MemoryMib, Millis, TaskWork, TryId, Usage};
use gantry_node::{Event, Signal};

use crate::calendar::Happening;
use crate::ledger::Gone;
use crate::settings::Flaw;
use crate::trace::Line;
use crate::world::World;
/// Of a thousand tries so many cannot be started.
const NOT_STARTED_PERMILLE: u64 = 3;
/// Of a thousand tries so many fail by themselves.
const FAILS_PERMILLE: u64 = 30;
/// How commands fail: codes, of which some say that a further start may mend it.
const CODES: [u8; 4] = [1, 1, 2, AGAIN_CODE];
/// The code by which a command says that it may be started again.
pub(crate) const AGAIN_CODE: u8 = 75;
/// On a host that is bad a task fails within so long.
const BAD_MS_MAX: u64 = 3_000;
/// Of a thousand tries so many do not heed TERM.
const DEAF_PERMILLE: u64 = 100;
/// A task that is told to end takes up to so long.
const HEEDS_MS_MAX: u64 = 5_000;

/// A process of a task.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) launch: Launch,
    pub(crate) began: At,
    /// Whether the agent has said that it began.
    said: bool,
    exit: Exit,
    /// The planned end that counts; an earlier one was replaced.
    plan: u64,
    /// The GPUs it uses, by their uuid.
    pub(crate) gpus: Vec<String>,
}

/// How long the work of a task takes, as its command says.
fn work_time(work: &TaskWork) -> Millis {
    let TaskWork::Command { arguments, .. } = work else { return Millis::from_seconds(60) };
    arguments.last().and_then(|text| text.parse().ok()).unwrap_or(Millis::from_seconds(60))
}

/// Whether a task fails whenever it runs.
fn is_broken(work: &TaskWork) -> bool {
    matches!(work, TaskWork::Command { arguments, .. } if arguments.iter().any(|text| text == "broken"))
}

impl World {
    /// The runner starts a process.
    pub(crate) fn begin(&mut self, server: usize, launch: Launch) {
        let here = &mut self.servers[server];
        let (try_id, task) = (launch.try_id, launch.task);
        let Some(agent) = &here.agent else { return };
        let uuid = |index: &u16| Some(agent.facts.gpus.get(usize::from(*index))?.uuid.clone());
        let gpus: Option<Vec<String>> = launch.lease.gpus.iter().map(uuid).collect();
        let Some(gpus) = gpus else {
            let sentence = "a gpu of its lease is gone".into();
            let exit = Exit::NotStarted { code: 126, sentence };
            return self.tell_node(server, Event::Exited { try_id, exit, usage: Usage::default() });
        };
        if here.random.chance(NOT_STARTED_PERMILLE) {
            let exit = Exit::NotStarted { code: 127, sentence: "not found".into() };
            return self.tell_node(server, Event::Exited { try_id, exit, usage: Usage::default() });
        }
        let takes = work_time(&launch.work);
        let takes = Millis(here.random.between(takes.0 * 3 / 4, takes.0 * 5 / 4));
        let fails = is_broken(&launch.work) || here.random.chance(FAILS_PERMILLE);
        let code = *here.random.pick(&CODES);
        let (takes, exit) = if here.bad > 0 {
            (Millis(here.random.between(1, BAD_MS_MAX)), Exit::Code(code))
        } else if fails {
            (Millis(here.random.between(1, takes.0.max(1))), Exit::Code(code))
        } else {
            (takes, Exit::Code(0))
        };
        here.plans += 1;
        let plan = here.plans;
        let process = Process { launch, began: self.now, said: false, exit, plan, gpus };
        here.processes.insert(try_id, process);
        let said = Millis(here.random.between(1, 300));
        self.trace.write(self.now, Line::Began { server, task, try_id });
        self.calendar.note(self.now.after(said), Happening::Begun { server, try_id });
        self.calendar.note(self.now.after(takes), Happening::Ends { server, try_id, number: plan });
        self.check_beginning(server, try_id);
    }

    /// A process says that it has started.
    pub(crate) fn begun(&mut self, server: usize, try_id: TryId) {
        let here = &mut self.servers[server];
        if here.agent.is_none() {
            return;
        }
        let Some(process) = here.processes.get_mut(&try_id) else { return };
        process.said = true;
        self.tell_node(server, Event::Started { try_id });
    }

    pub(crate) fn signal(&mut self, server: usize, try_id: TryId, signal: Signal) {
        self.check_signal(server, try_id, signal);
        let here = &mut self.servers[server];
        let Some(process) = here.processes.get_mut(&try_id) else { return };
        let wait = match signal {
            Signal::Warn(_) => return,
            Signal::Term if here.random.chance(DEAF_PERMILLE) => return,
            Signal::Term => Millis(here.random.between(1, HEEDS_MS_MAX)),
            Signal::Kill => Millis(1),
        };
        process.exit = Exit::Signal(if signal == Signal::Kill { 9 } else { 15 });
        here.plans += 1;
        process.plan = here.plans;
        let happening = Happening::Ends { server, try_id, number: here.plans };
        self.calendar.note(self.now.after(wait), happening);
        if self.settings.flaw == Flaw::ReportsEarly {
            let (exit, usage) = (Exit::Signal(15), Usage::default());
            self.tell_node(server, Event::Exited { try_id, exit, usage });
        }
    }

    /// A process ends, unless another end was planned for it meanwhile.
    pub(crate) fn ends(&mut self, server: usize, try_id: TryId, plan: u64) {
        let planned = self.servers[server].processes.get(&try_id).is_some_and(|p| p.plan == plan);
        if planned && let Some(process) = self.servers[server].processes.remove(&try_id) {
            self.gone(server, process);
        }
    }

    /// A process ends at once, and not as was planned.
    pub(crate) fn end_now(&mut self, server: usize, try_id: TryId, exit: Exit) {
        if let Some(process) = self.servers[server].processes.remove(&try_id) {
            self.gone(server, Process { exit, ..process });
        }
    }

    fn gone(&mut self, server: usize, process: Process) {
        let here = &mut self.servers[server];
        let (try_id, task, exit) = (process.launch.try_id, process.launch.task, process.exit);
        let how = if exit.is_success() { Gone::Well } else { Gone::Badly };
        self.ledger.gone(task, try_id, how);
        self.trace.write(self.now, Line::Exited { server, try_id, code: exit.code() });
        if here.agent.is_none() {
            here.unseen.insert(try_id, (process.launch, process.began, exit));
            return;
        }
        here.reaped.insert(try_id, (process.launch.clone(), process.began, exit.clone()));
        let usage = used(&process.launch, self.now.since(process.began));
        if !process.said {
            self.tell_node(server, Event::Started { try_id });
        }
        self.tell_node(server, Event::Exited { try_id, exit, usage });
    }
}

/// What a try has used: most of what it was leased.
pub(crate) fn used(launch: &Launch, ran: Millis) -> Usage {
    let cpu_ms = ran.0 * u64::from(launch.lease.resources.cores) * 9 / 10;
    let memory_peak = MemoryMib(launch.lease.resources.memory.0 * 3 / 4);
    Usage { cpu_ms, memory_peak, ..Usage::default() }
}
