//! How faults strike the parts of a world, and how they end.

use gantry_model::{Exit, Millis};

use crate::calendar::Happening;
use crate::faults::Fault;
use crate::network::Direction;
use crate::process::Process;
use crate::scheduler::Doom;
use crate::server::Power;
use crate::trace::Line;
use crate::world::World;

/// Messages on a path that has changed or was mended are held up for so long at most: the wait
/// before a packet is sent again has doubled while nothing got through.
const HELD_UP_MS_MAX: u64 = 8_000;

impl World {
    /// Draws the next fault.
    pub(crate) fn plan_fault(&mut self) {
        let Some(mean) = self.settings.strength.between() else { return };
        let at = self.now.after(self.faults.wait(mean));
        let fault = Fault::draw(&mut self.faults, self.servers.len());
        self.calendar.note(at, Happening::Strikes(fault));
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        if matches!(fault, Fault::Xid { .. } | Fault::GpuIsLost { .. }) {
            self.trace.write(self.now, Line::Struck(fault));
            return self.falls_ill(fault);
        }
        self.plan_fault();
        self.summary.faults += 1;
        self.trace.write(self.now, Line::Struck(fault));
        match fault {
            Fault::SchedulerCrash if self.faults.chance(500) => {
                self.scheduler.doom = Doom::AtNextSync;
                return;
            }
            Fault::SchedulerCrash => self.crash_scheduler(),
            Fault::AgentCrash { server } => {
                let agent = self.servers[server].agent.as_ref();
                let session = agent.and_then(|agent| agent.session);
                self.kill_agent(server);
                if let Some(session) = session {
                    self.say_gone(server, session);
                }
            }
            Fault::Reboot { server } => self.reboot(server, Power::Kept),
            Fault::PowerCut { server } => self.reboot(server, Power::Cut),
            Fault::BadHost { server } => self.servers[server].bad += 1,
            Fault::ClockJump { server, by_ms } => self.set_clock(server, by_ms),
            Fault::Cut { server, direction } => self.network.cut(server, direction),
            Fault::Partition { server, count } => {
                for server in self.servers_from(server, count) {
                    for direction in Direction::BOTH {
                        self.network.cut(server, direction);
                    }
                }
            }
            Fault::Loss { permille } => self.network.loss_more += permille,
            Fault::Reset { server } => {
                let agent = self.servers[server].agent.as_ref();
                if let Some(session) = agent.and_then(|agent| agent.session) {
                    self.agent_leaves_unheard(server, session);
                }
            }
            Fault::GpuVanishes { server, gpu } => {
                if !self.lose_gpu(server, gpu) {
                    return;
                }
            }
            Fault::SlowDisk => self.scheduler.slow += 1,
            Fault::FullDisk => self.scheduler.full += 1,
            // They have their own ways.
            Fault::Xid { .. } | Fault::GpuIsLost { .. } => return,
        }
        self.plan_end(fault);
    }

    /// Draws how long a fault that has struck lasts.
    pub(crate) fn plan_end(&mut self, fault: Fault) {
        let lasts = fault.lasts(&mut self.faults);
        self.calendar.note(self.now.after(lasts), Happening::Over(fault));
    }

    pub(crate) fn over(&mut self, fault: Fault) {
        self.trace.write(self.now, Line::Over(fault));
        match fault {
            Fault::SchedulerCrash => self.start_scheduler(),
            Fault::AgentCrash { server }
            | Fault::Reboot { server }
            | Fault::PowerCut { server } => self.start_agent(server),
            Fault::BadHost { server } => self.servers[server].bad -= 1,
            Fault::ClockJump { server, by_ms } => self.set_clock(server, -by_ms),
            Fault::Cut { server, direction } => self.mend(server, direction),
            Fault::Partition { server, count } => {
                for server in self.servers_from(server, count) {
                    for direction in Direction::BOTH {
                        self.mend(server, direction);
                    }
                }
            }
            Fault::Loss { permille } => self.network.loss_more -= permille,
            Fault::Reset { .. } => {}
            Fault::GpuVanishes { server, gpu } => {
                self.servers[server].find_board(gpu);
                self.kill_agent(server);
                self.start_agent(server);
            }
            Fault::Xid { .. } | Fault::GpuIsLost { .. } => self.is_well(fault),
            Fault::SlowDisk => self.scheduler.slow -= 1,
            Fault::FullDisk => self.scheduler.full -= 1,
        }
    }

    /// Sets the wall clock of a server, or of the scheduler's host.
    fn set_clock(&mut self, server: Option<usize>, by_ms: i64) {
        match server {
            Some(server) => self.servers[server].wall_ms += by_ms,
            None => self.scheduler.wall_ms += by_ms,
        }
    }

    /// Neighbours, around the end of the row.
    fn servers_from(&self, first: usize, count: usize) -> Vec<usize> {
        (first..first + count).map(|server| server % self.servers.len()).collect()
    }

    fn mend(&mut self, server: usize, direction: Direction) {
        for session in self.network.mend(server, direction) {
            // A lane whose first message was held up has no delivery noted. Its packets are sent
            // again only when their doubled wait is over.
            let again = Millis(self.faults.between(0, HELD_UP_MS_MAX));
            self.calendar.note(self.now.after(again), Happening::Deliver { session, direction });
        }
    }

    /// An agent leaves its session without a word: its address has changed.
    fn agent_leaves_unheard(&mut self, server: usize, session: u64) {
        let held_up = Millis(self.faults.between(0, HELD_UP_MS_MAX));
        self.network.hold_up(session, self.now.after(held_up));
        if let Some(session) = self.network.sessions.get_mut(&session) {
            session.server_open = false;
        }
        self.agent_leaves(server, session);
    }

    /// A GPU falls off the bus, and its instances where it is cut into some. What used it fails or
    /// hangs on; the agent is started again.
    fn lose_gpu(&mut self, server: usize, gpu: usize) -> bool {
        let here = &mut self.servers[server];
        let devices = here.lose_board(gpu);
        if devices.is_empty() {
            return false;
        }
        let uses = |process: &Process| process.gpus.iter().any(|uuid| devices.contains(uuid));
        let users = here.processes.iter().filter(|(_, process)| uses(process));
        let users: Vec<_> = users.map(|(try_id, _)| *try_id).collect();
        self.kill_agent(server);
        for try_id in users {
            if self.faults.chance(500) {
                self.end_now(server, try_id, Exit::Code(1));
            }
        }
        self.start_agent(server);
        true
    }
}
