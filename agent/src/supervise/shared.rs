//! The lock around what a supervisor holds, and the thread that waits for its processes.
//!
//! The lock is free while a command is started, as that takes longer than anything else; a second one
//! is shared by those who start one meanwhile, so that whoever meets an unknown process can wait until
//! what is being started is entered. Every process is reaped with the lock held: a number that is
//! looked up under it is nobody else's. Commands wait in a queue for a few threads that start them; a
//! try whose making ready or clearing up takes time has a thread of its own ([`super::course`]).

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use super::course::Order;
use super::process::{self, Children};
use super::strays::Strays;
use super::table::{Busy, Table, Told};

/// The table behind its lock, and the bell that rings when a process was entered or a script has
/// ended.
#[derive(Clone)]
pub(super) struct Shared(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    bell: Condvar,
    /// Shared while a process is started and entered. Taken before the table's lock.
    starting: RwLock<()>,
    queue: Mutex<VecDeque<Order>>,
    /// Rings when something was queued.
    queued: Condvar,
}

/// Threads that start commands: one for each core, and no more than these.
const STARTERS_MAX: usize = 8;

impl Shared {
    /// A table with what an earlier supervisor of the folder has left.
    pub(super) fn new(folder: PathBuf, strays: Option<Strays>) -> io::Result<Self> {
        let shared = Self(Arc::new(Inner {
            table: Mutex::new(Table::new(folder, strays)?),
            bell: Condvar::new(),
            starting: RwLock::new(()),
            queue: Mutex::default(),
            queued: Condvar::new(),
        }));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores.min(STARTERS_MAX) {
            let starter = shared.clone();
            thread::Builder::new().name("start".into()).spawn(move || starter.start_queued())?;
        }
        Ok(shared)
    }

    /// Leaves a command to whichever thread is free to start it.
    pub(super) fn queue(&self, order: Order) {
        self.queued().push_back(order);
        self.0.queued.notify_one();
    }

    /// Waits for the next command to be started.
    pub(super) fn next_queued(&self) -> Order {
        let mut queue = self.queued();
        loop {
            match queue.pop_front() {
                Some(order) => return order,
                None => {
                    queue = self.0.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Whether commands wait to be started.
    pub(super) fn has_queued(&self) -> bool {
        !self.queued().is_empty()
    }

    fn queued(&self) -> MutexGuard<'_, VecDeque<Order>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table.
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process and enters it, so that nobody meets it who does not know it.
    pub(super) fn enter<T>(&self, start: impl FnOnce() -> T, enter: impl FnOnce(&mut Table, T)) {
        let starting = self.0.starting.read().unwrap_or_else(PoisonError::into_inner);
        let started = start();
        enter(&mut self.lock(), started);
        drop(starting);
        self.0.bell.notify_all();
    }

    /// Waits for the bell, or for so long.
    pub(super) fn wait<'a>(
        &self,
        table: MutexGuard<'a, Table>,
        wait: Duration,
    ) -> MutexGuard<'a, Table> {
        self.0.bell.wait_timeout(table, wait).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for processes for ever.
    pub(super) fn wait_for_ends(&self) -> ! {
        loop {
            let mut table = self.lock();
            while !table.has_children() {
                table = self.0.bell.wait(table).unwrap_or_else(PoisonError::into_inner);
            }
            drop(table);
            let mut next = process::next_ended();
            let mut table = self.lock();
            while let Children::Ended(child) = next {
                if table.knows(child) {
                    self.ended(&mut table, child);
                } else {
                    drop(table);
                    let starting = self.0.starting.write().unwrap_or_else(PoisonError::into_inner);
                    table = self.lock();
                    self.ended(&mut table, child);
                    drop(starting);
                }
                next = process::one_ended();
            }
            table.look_for_strays(next);
            table.tell(Told::Now);
            table.keep_unheard();
        }
    }

    /// A child has ended: a command, a script, or one that was adopted.
    fn ended(&self, table: &mut Table, child: Pid) {
        if let Some(live) = table.groups.remove(&child) {
            let (exit, usage) = process::reap(child);
            let (exit, usage) = match live.group {
                Some(group) => group.end(exit, usage),
                None => (exit, usage),
            };
            table.cores.give_back(live.try_id);
            match live.course {
                Some(course) => {
                    table.busy.insert(live.try_id, Busy::After);
                    if let Err(error) = course.clear_up(self, (exit.clone(), usage)) {
                        table.complain(&format!("{} is not cleared up: {error}", live.try_id));
                        table.end(live.try_id, exit, usage);
                    }
                }
                None => table.end(live.try_id, exit, usage),
            }
        } else if let Some(script) = table.scripts.get_mut(&child) {
            script.end = Some(process::reap_script(child));
            self.0.bell.notify_all();
        } else {
            process::reap_stray(child);
        }
    }
}
