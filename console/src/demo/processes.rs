//! The demonstration's daemons: real processes of this binary, kept alive as an init system would.
//!
//! A daemon that ends is started again after a moment, and the starts are counted. All of them end
//! with this process, also when it is killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::Failure;

/// How long a daemon that ended is left alone before it is started again.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// How often the daemons are looked at.
const LOOK_EACH: Duration = Duration::from_millis(50);
/// How long daemons may take to end once they are told to.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// One daemon: how to start it, and its process.
struct Daemon {
    name: String,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    due: Option<Instant>,
    starts: u32,
}

impl Daemon {
    fn start(&mut self) -> Result<(), Failure> {
        let fail = |error: std::io::Error, what: &str| {
            Failure::trouble(format!("starting {} failed: {what}: {error}", self.name))
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|error| fail(error, "opening its log"))?;
        let program = std::env::current_exe().map_err(|error| fail(error, "finding gantry"))?;
        let child = Command::new(program)
            .args(&self.arguments)
            .arg("--exit-with-parent")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| fail(error, "spawning"))?;
        self.child = Some(child);
        self.due = None;
        self.starts += 1;
        Ok(())
    }

    /// Notices an end, and starts the daemon again once it was left alone for a moment.
    fn look(&mut self) -> Result<(), Failure> {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
            self.due = Some(Instant::now() + RESTART_AFTER);
        }
        match self.due {
            Some(due) if due <= Instant::now() => self.start(),
            _ => Ok(()),
        }
    }

    fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Some(pid) = Pid::from_raw(child.id() as i32) {
            // An error means that it has ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn end(&mut self, deadline: Instant) {
        let Some(child) = &mut self.child else { return };
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_EACH);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// All daemons of the demonstration and the thread that keeps them alive.
pub(super) struct Processes {
    folder: PathBuf,
    daemons: Arc<Mutex<Vec<Daemon>>>,
    stop: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl Processes {
    /// No daemon yet; logs go into `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        let daemons = Arc::new(Mutex::new(Vec::<Daemon>::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, stopped) = (daemons.clone(), stop.clone());
        let keeper = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for daemon in lock(&kept).iter_mut() {
                    if let Err(failure) = daemon.look() {
                        crate::output::progress(&failure.sentence);
                    }
                }
                std::thread::sleep(LOOK_EACH);
            }
        });
        Self { folder: folder.to_owned(), daemons, stop, keeper: Some(keeper) }
    }

    /// Starts a daemon and keeps it alive from now on.
    ///
    /// The keeper's thread starts it: the signal that ends a daemon with its parent follows the
    /// thread that spawned it, and the keeper lives as long as the demonstration.
    pub(super) fn start(&self, name: &str, arguments: &[&str]) {
        lock(&self.daemons).push(Daemon {
            name: name.to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            log: self.folder.join(format!("{name}.log")),
            child: None,
            due: Some(Instant::now()),
            starts: 0,
        });
    }

    /// How often daemons had to be started again.
    pub(super) fn restarts(&self) -> u32 {
        lock(&self.daemons).iter().map(|daemon| daemon.starts.saturating_sub(1)).sum()
    }

    /// The end of a daemon's log, for the sentence about a failure.
    pub(super) fn log_end(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.join(format!("{name}.log")));
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }

    /// Tells every daemon to end, and starts none again.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // Agents first: the scheduler still hears how their tasks end.
        lock(&self.daemons).iter_mut().rev().for_each(Daemon::stop);
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
        let mut daemons = lock(&self.daemons);
        let deadline = Instant::now() + STOP_WITHIN;
        daemons.iter_mut().rev().for_each(|daemon| daemon.end(deadline));
    }
}

fn lock(daemons: &Mutex<Vec<Daemon>>) -> MutexGuard<'_, Vec<Daemon>> {
    daemons.lock().unwrap_or_else(PoisonError::into_inner)
}
