//! The course of a try: made ready, started, cleared up.
//!
//! Most tries are nothing but a process, started where the order is read. Where the settings ask for
//! a scratch folder, an account or scripts a try has a thread while it is made ready and another
//! while it is cleared up, so that a slow script or a full folder holds up nobody else. Such a try is
//! held from the first moment, so that an agent that connects meanwhile hears of it; a signal that
//! comes before its command runs keeps it from being started.

use std::io;
use std::sync::Arc;
use std::thread;

use gantry_model::{Exit, TryId, Usage};
use rustix::process::Pid;

use super::cgroup::Group;
use super::isolation::{Isolation, Pin};
use super::process;
use super::protocol::{Held, Start};
use super::room::{Room, cannot};
use super::shared::Shared;
use super::table::{Busy, Live, Table, Told};
use crate::clock::now;

/// What a try that takes time goes through.
pub(super) struct Course {
    pub(super) start: Start,
    pub(super) room: Room,
    pub(super) isolation: Arc<Isolation>,
}

impl Shared {
    /// Starts a command. Only one thread does.
    pub(super) fn start(&self, start: Start) {
        let try_id = start.launch.try_id;
        let mut table = self.lock();
        if table.held.contains_key(&try_id) || table.busy.contains_key(&try_id) {
            return;
        }
        table.busy.insert(try_id, Busy::Before(None));
        let isolation = table.isolation.clone();
        let cores = table.choose_cores(&start);
        if !isolation.takes_time() {
            drop(table);
            return self.start_now(start, &Room { cores, ..Room::default() }, &isolation);
        }
        let (launch, read) = (start.launch.clone(), start.read);
        table.held.insert(try_id, Held { launch, since: now(), read, end: None });
        drop(table);
        let shared = self.clone();
        let make_ready = move || shared.make_ready(start, isolation, cores);
        if let Err(error) = thread::Builder::new().spawn(make_ready) {
            let exit = cannot(125, format!("a thread to make it ready cannot be started: {error}"));
            self.end(try_id, exit, Usage::default());
        }
    }

    fn start_now(&self, start: Start, room: &Room, isolation: &Isolation) {
        let begin = || process::prepare(&start, room, isolation);
        match begin() {
            Ok(ready) => self.enter(|| ready.start(), |table, started| table.enter(start, started)),
            Err(exit) => self.lock().enter(start, Err(exit)),
        }
    }

    /// Makes a try ready and starts its command, on a thread of its own.
    fn make_ready(&self, start: Start, isolation: Arc<Isolation>, cores: Option<Vec<u32>>) {
        let try_id = start.launch.try_id;
        let room = match Room::prepare(&start, &isolation, cores) {
            Ok(room) => room,
            Err(exit) => return self.end(try_id, exit, Usage::default()),
        };
        let course = Box::new(Course { start, room, isolation });
        let ready = self
            .prolog(&course)
            .and_then(|()| process::prepare(&course.start, &course.room, &course.isolation));
        let mut course = Some(course);
        let mut failed = None;
        let begin = || {
            let signal = self.lock().signalled(try_id);
            signal.map_or(Ok(()), |number| Err(Exit::Signal(number)))?;
            ready?.start()
        };
        self.enter(begin, |table, started| match started {
            Ok((leader, group)) => {
                table.started(leader, Live { try_id, group, course: course.take() });
            }
            Err(exit) => failed = Some(exit),
        });
        if let (Some(course), Some(exit)) = (course, failed) {
            course.leave(self, exit, Usage::default());
        }
        let mut table = self.lock();
        table.tell(Told::Now);
        table.keep_unheard();
    }

    /// Runs the prolog. Where it fails the node is not ready, but for 126: so it says that the task
    /// is to blame, and no node is taken out of service for what its user lacks.
    fn prolog(&self, course: &Course) -> Result<(), Exit> {
        let Some(prolog) = &course.isolation.scripts.prolog else { return Ok(()) };
        self.script(prolog, course).map_err(|wrong| match wrong.code {
            Some(126) => cannot(126, format!("the prolog of this node refuses it: {wrong}")),
            _ => cannot(125, format!("the prolog of this node failed: {wrong}")),
        })
    }

    /// The end of a try without anything to clear up.
    fn end(&self, try_id: TryId, exit: Exit, usage: Usage) {
        let mut table = self.lock();
        table.cores.give_back(try_id);
        table.end(try_id, exit, usage);
        table.end_strays();
        table.tell(Told::Now);
        table.keep_unheard();
    }
}

impl Table {
    /// Cores of its own for a try, where the settings ask for that.
    fn choose_cores(&mut self, start: &Start) -> Option<Vec<u32>> {
        let launch = &start.launch;
        match self.isolation.pin {
            Pin::Cores => self.cores.take(launch.try_id, launch.lease.resources.cores, &start.near),
            Pin::Nothing => None,
        }
    }

    /// Enters a command that runs, or could not be started.
    fn enter(&mut self, start: Start, started: Result<(Pid, Option<Group>), Exit>) {
        let (try_id, launch, read) = (start.launch.try_id, start.launch, start.read);
        self.held.insert(try_id, Held { launch, since: now(), read, end: None });
        match started {
            Ok((leader, group)) => self.started(leader, Live { try_id, group, course: None }),
            Err(exit) => {
                self.cores.give_back(try_id);
                self.end(try_id, exit, Usage::default());
            }
        }
    }

    /// The signal that has come for a try that is made ready.
    fn signalled(&self, try_id: TryId) -> Option<u8> {
        match self.busy.get(&try_id) {
            Some(Busy::Before(signal)) => *signal,
            _ => None,
        }
    }
}

impl Course {
    /// Clears up after a command on a thread of its own, and then tells its end.
    pub(super) fn clear_up(
        self: Box<Self>,
        shared: &Shared,
        (exit, usage): (Exit, Usage),
    ) -> io::Result<()> {
        let shared = shared.clone();
        let leave = move || self.leave(&shared, exit, usage);
        thread::Builder::new().spawn(leave).map(drop)
    }

    fn leave(self: Box<Self>, shared: &Shared, exit: Exit, usage: Usage) {
        let try_id = self.start.launch.try_id;
        let mut wrong = Vec::new();
        if let Some(epilog) = &self.isolation.scripts.epilog {
            shared.lock().busy.insert(try_id, Busy::After);
            wrong.extend(
                shared
                    .script(epilog, &self)
                    .err()
                    .map(|wrong| format!("the epilog failed: {wrong}")),
            );
        }
        let left = self.room.leave().err();
        wrong.extend(left.map(|error| format!("its scratch folder cannot be removed: {error}")));
        for wrong in wrong {
            shared.lock().complain(&format!("{try_id}: {wrong}"));
        }
        shared.end(try_id, exit, usage);
    }
}
