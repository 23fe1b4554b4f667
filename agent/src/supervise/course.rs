//! The course of a try: made ready, started, cleared up.
//!
//! Most tries are nothing but a process: a few threads start them, since whoever starts a process
//! waits until its program is loaded. Where the settings ask for a scratch folder, an account or
//! scripts a try has a thread of its own while it is made ready and another while it is cleared up, so
//! that a slow script or a full folder holds up nobody else. A try is held from the first moment, so
//! that an agent that connects meanwhile hears of it; a signal that comes before its command runs
//! keeps it from being started.

use std::io;
use std::sync::Arc;
use std::thread;

use gantry_model::{Exit, TryId, Usage};

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

/// A try that is to be started.
pub(super) struct Order {
    start: Start,
    isolation: Arc<Isolation>,
    cores: Option<Vec<u32>>,
}

impl Shared {
    /// Takes a try, which is held from now on, and has its command started.
    pub(super) fn start(&self, start: Start) {
        let try_id = start.launch.try_id;
        let mut table = self.lock();
        if table.held.contains_key(&try_id) || table.busy.contains_key(&try_id) {
            return;
        }
        table.busy.insert(try_id, Busy::Before(None));
        let (launch, read) = (start.launch.clone(), start.read);
        table.held.insert(try_id, Held { launch, since: now(), read, end: None });
        let isolation = table.isolation.clone();
        let cores = table.choose_cores(&start);
        drop(table);
        let order = Order { start, isolation, cores };
        if !order.isolation.takes_time() {
            return self.queue(order);
        }
        let shared = self.clone();
        let make_ready = move || shared.make_ready(order);
        if let Err(error) = thread::Builder::new().spawn(make_ready) {
            let exit = cannot(125, format!("a thread to make it ready cannot be started: {error}"));
            self.end(try_id, exit, Usage::default());
        }
    }

    /// Starts the commands that are queued, for ever.
    pub(super) fn start_queued(&self) -> ! {
        loop {
            let Order { start, isolation, cores } = self.next_queued();
            let try_id = start.launch.try_id;
            let room = Room { cores, ..Room::default() };
            let ready = process::prepare(&start, &room, &isolation);
            let begin = || self.unless_signalled(try_id).and_then(|()| ready?.start());
            self.enter(begin, |table, started| match started {
                Ok((leader, group)) => table.started(leader, Live { try_id, group, course: None }),
                Err(exit) => {
                    table.cores.give_back(try_id);
                    table.end(try_id, exit, Usage::default());
                }
            });
            // What comes together is told together.
            let told = if self.has_queued() { Told::WithMore } else { Told::Now };
            let mut table = self.lock();
            table.tell(told);
            table.keep_unheard();
        }
    }

    /// A signal that has come before the command was started keeps it from being started.
    fn unless_signalled(&self, try_id: TryId) -> Result<(), Exit> {
        let signal = self.lock().signalled(try_id);
        signal.map_or(Ok(()), |number| Err(Exit::Signal(number)))
    }

    /// Makes a try ready and starts its command, on a thread of its own.
    fn make_ready(&self, order: Order) {
        let Order { start, isolation, cores } = order;
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
        let begin = || self.unless_signalled(try_id).and_then(|()| ready?.start());
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
