//! How sessions are opened, carry messages, break and are noticed to be broken.
//!
//! Either side may give a session up while the other still believes in it; word of that may be
//! lost. What is sent on a session reaches the other side in order or not at all.

use gantry_model::{Millis, Order};

use crate::calendar::Happening;
use crate::network::{Answers, Direction, Said, Silence};
use crate::scheduler::{Input, Phase};
use crate::settings::Flaw;
use crate::trace::Line;
use crate::world::World;
/// Between two keep-alives of any session.
pub(crate) const BEAT: Millis = Millis::from_seconds(1);
/// A call that nobody takes fails after so long.
const CALL_TIMEOUT: Millis = Millis::from_seconds(5);
impl World {
    pub(crate) fn beat(&mut self) {
        let up = self.scheduler.phase != Phase::Down;
        let answers = if up { Answers::Yes } else { Answers::No };
        for silence in self.network.beat(self.now, answers) {
            match silence {
                Silence::Server(session) => self.server_closes(session),
                Silence::Scheduler(session) => self.scheduler_gives_up(session),
            }
        }
        self.look_at_samples();
        self.network.forget();
        self.calendar.note(self.now.after(BEAT), Happening::Beat);
    }

    /// An agent leaves a session; the scheduler may get word of it.
    pub(crate) fn server_closes(&mut self, id: u64) {
        let Some(session) = self.network.sessions.get_mut(&id) else { return };
        session.server_open = false;
        let server = session.server;
        if session.scheduler_open {
            let direction = Direction::ToScheduler;
            if let Some(at) = self.network.word_of_closing(self.now, id, direction) {
                self.calendar.note(at, Happening::Closed { session: id, direction });
            }
        }
        self.agent_leaves(server, id);
    }

    /// The scheduler closes a session; the agent may get word of it.
    pub(crate) fn scheduler_closes(&mut self, id: u64) {
        let Some(session) = self.network.sessions.get_mut(&id) else { return };
        session.scheduler_open = false;
        let direction = Direction::ToServer;
        if let Some(at) = self.network.word_of_closing(self.now, id, direction) {
            self.calendar.note(at, Happening::Closed { session: id, direction });
        }
    }

    /// The scheduler's side of a session is gone by itself.
    pub(crate) fn scheduler_gives_up(&mut self, id: u64) {
        let Some(session) = self.network.sessions.get_mut(&id) else { return };
        if session.scheduler_open {
            session.scheduler_open = false;
            let server = session.server;
            self.reach_scheduler(Input::Left { session: id, server });
        }
    }

    pub(crate) fn closed(&mut self, id: u64, direction: Direction) {
        match direction {
            Direction::ToScheduler => self.scheduler_gives_up(id),
            Direction::ToServer => {
                let Some(session) = self.network.sessions.get_mut(&id) else { return };
                session.server_open = false;
                let server = session.server;
                self.agent_leaves(server, id);
            }
        }
    }

    /// An agent calls the scheduler.
    pub(crate) fn call(&mut self, server: usize, life: u32) {
        let here = &self.servers[server];
        let alone = here.agent.as_ref().is_some_and(|agent| agent.session.is_none());
        if here.life != life || !alone {
            return;
        }
        if Direction::BOTH.into_iter().any(|direction| self.network.is_cut(server, direction)) {
            let again = Happening::Call { server, life };
            self.calendar.note(self.now.after(CALL_TIMEOUT), again);
        } else if self.scheduler.phase == Phase::Down {
            self.call_soon(server);
        } else {
            // Three ways: hello, its answer, and the welcome.
            let takes: u64 = (0..3).map(|_| self.network.travel().0).sum();
            let scheduler_life = self.scheduler.life;
            let taken = Happening::Taken { server, life, scheduler_life };
            self.calendar.note(self.now.after(Millis(takes)), taken);
        }
    }

    pub(crate) fn taken(&mut self, server: usize, life: u32, scheduler_life: u32) {
        let here = &self.servers[server];
        let alone = here.agent.as_ref().is_some_and(|agent| agent.session.is_none());
        if here.life != life || !alone {
            return;
        }
        if self.scheduler.life != scheduler_life || self.scheduler.phase == Phase::Down {
            return self.call_soon(server);
        }
        let session = self.network.open(self.now, server);
        self.summary.sessions += 1;
        self.welcome(server, session);
    }

    /// The supervisor of an agent that was killed says so, once, on a connection of its own.
    pub(crate) fn say_gone(&mut self, server: usize, session: u64) {
        if Direction::BOTH.into_iter().any(|direction| self.network.is_cut(server, direction)) {
            return;
        }
        // Three ways: hello, its answer, and what it has to say.
        let takes: u64 = (0..3).map(|_| self.network.travel().0).sum();
        let holds = self.servers[server].outlives_agent();
        let farewell = Happening::Farewell { server, session, holds };
        self.calendar.note(self.now.after(Millis(takes)), farewell);
    }

    /// An agent says something on a session.
    pub(crate) fn say(&mut self, session: u64, said: Said) {
        if let Some(at) = self.network.say(self.now, session, said) {
            let direction = Direction::ToScheduler;
            self.calendar.note(at, Happening::Deliver { session, direction });
        }
    }

    /// An order leaves the scheduler; dropped where its server has no session.
    pub(crate) fn order(&mut self, server: usize, order: Order) {
        match &order {
            Order::Launch(launch) => {
                self.summary.launches += 1;
                let (task, try_id) = (launch.task, launch.try_id);
                self.trace.write(self.now, Line::Launched { server, task, try_id });
                self.check_launch(server, launch);
            }
            Order::Ahead(launch) => {
                let (task, try_id) = (launch.task, launch.try_id);
                self.trace.write(self.now, Line::Launched { server, task, try_id });
                self.check_launch(server, launch);
            }
            Order::Recall { try_id } => {
                self.trace.write(self.now, Line::ToldToStop { server, try_id: *try_id });
            }
            Order::Stop { try_id } => {
                self.ledger.told_to_stop.insert(*try_id);
                self.trace.write(self.now, Line::ToldToStop { server, try_id: *try_id });
            }
            Order::Acknowledge { try_id } => {
                self.trace.write(self.now, Line::Acknowledged { server, try_id: *try_id });
                if let Some(task) = self.ledger.task_of(*try_id) {
                    self.ledger.acknowledged(&self.scheduler.cluster, task);
                }
            }
            Order::Test { .. } => {}
        }
        let Some(session) = self.scheduler.session(server) else { return };
        if let Some(at) = self.network.order(self.now, session, order) {
            let direction = Direction::ToServer;
            self.calendar.note(at, Happening::Deliver { session, direction });
        }
    }

    /// The messages of a lane that have arrived reach whoever they are for.
    pub(crate) fn deliver(&mut self, id: u64, direction: Direction) {
        let Some(session) = self.network.sessions.get(&id) else { return };
        let server = session.server;
        // A side that has closed a session hears nothing of it any more.
        let deaf = !session.scheduler_open && self.settings.flaw != Flaw::HearsOldSessions;
        match direction {
            Direction::ToScheduler => {
                while let Some(said) = self.network.said(self.now, id) {
                    if deaf {
                        continue;
                    }
                    self.reach_scheduler(match said {
                        Said::Up { facts, holds } => Input::Up { session: id, facts, holds },
                        Said::Report(report) => Input::Report { session: id, server, report },
                        Said::Found(finding) => Input::Found { session: id, server, finding },
                        Said::Tested { number, wrong } => {
                            Input::Tested { session: id, server, number, wrong }
                        }
                    });
                }
            }
            Direction::ToServer => {
                while let Some(order) = self.network.ordered(self.now, id) {
                    self.agent_hears(server, id, order);
                }
            }
        }
        if let Some(at) = self.network.due(id, direction) {
            let at = at.max(self.now);
            self.calendar.note(at, Happening::Deliver { session: id, direction });
        }
    }
}
