//! Faults under work: what each costs, and whether anything is lost by it.
//!
//! For each kind of fault a cluster of its own runs tasks that note their start and their end. In the
//! middle of them the fault is done, seen to have happened, and ended. Then it is counted: tasks
//! without an end (lost), tasks with two ends (doubled), starts that came to no end (killed), and how
//! long it took until a task that was submitted afterwards was done. Harm to storage and memory is done by
//! [`harm`], clocks are put by [`clock`]; what this machine does not allow is skipped aloud.

mod clock;
mod harm;
mod place;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_model::JobId;
use gantry_tests::chance::Chance;
use gantry_tests::relay::{Relay, Weather};
use gantry_tests::until;
use rustix::process::{Pid, Signal, kill_process};

use clock::Dial;
use harm::Harm;
use place::Place;

use crate::Size;
use crate::deadnode::clean;
use crate::report::{Goal, Row};
use crate::served::{self, Served};
use crate::statistics::median;

const SEED: u64 = 20_261_130;
const TIMES: u32 = 10;
const TASKS: u32 = 8;
const NODE: &str = "cpu-1";
const SETTINGS: &str = "cores = 4\nmemory = \"1G\"\nworkers = 1\norphans = \"keep\"";
/// How long what is not killed stays as it is, at least and at most.
const HELD_MS: (u64, u64) = (200, 800);
/// The goal of a recovery, in seconds.
const RECOVERY_S: f64 = 5.0;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGKILL.
    Kill(Part),
    /// SIGSTOP, and SIGCONT after a while.
    Stop(Part),
    /// No packet between the scheduler and the node.
    Partition,
    /// One packet of ten lost, and one of twenty doubled.
    Loss,
    /// The wall clock jumps by an hour or a year, forwards and back, while steady clocks go on.
    Clock(Part),
    /// Harm to storage or memory.
    Harm(Harm),
}

/// Whose process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Scheduler,
    Agent,
    Supervisor,
}

const FAULTS: [Fault; 10] = [
    Fault::Kill(Part::Scheduler),
    Fault::Kill(Part::Agent),
    Fault::Kill(Part::Supervisor),
    Fault::Stop(Part::Scheduler),
    Fault::Stop(Part::Agent),
    Fault::Stop(Part::Supervisor),
    Fault::Partition,
    Fault::Loss,
    Fault::Clock(Part::Scheduler),
    Fault::Clock(Part::Agent),
];

fn all() -> impl Iterator<Item = Fault> {
    FAULTS.into_iter().chain(Harm::ALL.map(Fault::Harm))
}

impl Part {
    const fn word(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Agent => "agent",
            Self::Supervisor => "supervisor",
        }
    }

    /// Its processes.
    fn processes(self, served: &Served) -> Result<Vec<Pid>> {
        match self {
            Self::Scheduler => served.processes(&["scheduler", "--exit-with-parent"]),
            Self::Agent => served.processes(&["agent", "--exit-with-parent"]),
            Self::Supervisor => served.processes(&["supervise"]),
        }
    }
}

impl Fault {
    fn words(self) -> String {
        match self {
            Self::Kill(part) => format!("kill -9 of the {}", part.word()),
            Self::Stop(part) => format!("SIGSTOP of the {}", part.word()),
            Self::Partition => "partition of the node".into(),
            Self::Loss => "10 % of packets lost".into(),
            Self::Clock(part) => format!("clock jump of the {}", part.word()),
            Self::Harm(harm) => harm.words().into(),
        }
    }

    /// Why it cannot be done on this machine.
    fn is_beyond(self) -> Option<&'static str> {
        match self {
            Self::Clock(_) => clock::library().is_none().then_some("it needs libfaketime"),
            Self::Harm(harm) => harm.is_beyond(),
            _ => None,
        }
    }

    /// How long its tasks take. Nobody has the exit code of one that ends by itself between its
    /// supervisor's death and its own: it runs again, and is no task with two ends. On a busy machine
    /// that moment lasts some tenths of a second, so that these tasks take longer.
    const fn task_s(self) -> f64 {
        if matches!(self, Self::Kill(Part::Supervisor)) { 1.0 } else { 0.2 }
    }
}

/// What one kind of fault came to.
#[derive(Default)]
struct Outcome {
    lost: u32,
    doubled: u32,
    killed: u32,
    /// Starts that were refused for what the journal holds.
    refused: u32,
    /// Jobs that were acknowledged and are not known any more.
    forgotten: u32,
    recoveries_s: Vec<f64>,
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let times = size.count.unwrap_or(TIMES).max(1);
    let mut rows = Vec::new();
    for fault in all() {
        let words = fault.words();
        if let Some(why) = fault.is_beyond() {
            eprintln!("SKIPPED: {words}: {why}");
            continue;
        }
        let outcome = storm(fault, times).with_context(|| format!("{words}, seed {SEED}"))?;
        let longest = outcome.recoveries_s.iter().copied().fold(0.0, f64::max);
        let none = |what: &str, count: u32| {
            Row::new(format!("{words}: tasks {what}"), "tasks", f64::from(count))
                .goal(Goal::AtMost(0.0))
        };
        let killed = none("killed", outcome.killed);
        rows.extend([
            Row::new(words.clone(), "times", f64::from(times)),
            none("lost", outcome.lost),
            none("doubled", outcome.doubled),
            match fault {
                // Its processes end with it, and are started again: that is counted, and no loss.
                Fault::Kill(Part::Supervisor) => {
                    Row::new(format!("{words}: tasks killed"), "tasks", f64::from(outcome.killed))
                }
                _ => killed,
            },
            Row::new(format!("{words}: recovery, p50"), "s", median(&outcome.recoveries_s)),
            Row::new(format!("{words}: recovery, max"), "s", longest)
                .goal(Goal::AtMost(RECOVERY_S)),
        ]);
        if let Fault::Harm(harm) = fault {
            rows.push(none("forgotten", outcome.forgotten));
            if matches!(harm, Harm::Torn | Harm::Flipped) {
                let what = format!("{words}: starts refused");
                rows.push(Row::new(what, "starts", f64::from(outcome.refused)));
            }
        }
    }
    Ok(rows)
}

/// One cluster, its node behind a network that can be cut.
struct Scene {
    served: Served,
    relay: Relay,
    marks: PathBuf,
    chance: Chance,
    dial: Option<Dial>,
    // Dropped last: the daemons are on it.
    place: Option<Place>,
}

/// Does one fault again and again.
fn storm(fault: Fault, times: u32) -> Result<Outcome> {
    let mut served = Served::start()?;
    let bad = fault == Fault::Loss;
    let weather = Weather {
        seed: SEED,
        lost_permille: if bad { 100 } else { 0 },
        doubled_permille: if bad { 50 } else { 0 },
        delay: (Duration::ZERO, Duration::from_millis(if bad { 20 } else { 0 })),
    };
    let relay = Relay::start(served.cluster.address()?, weather)?;
    served.cluster.join_through(NODE, SETTINGS, relay.address)?;
    let marks = served.cluster.folder().join("marks");
    let place = match fault {
        Fault::Harm(harm) => harm.place(&mut served)?,
        _ => None,
    };
    let dial = match fault {
        Fault::Clock(part) => Some(Dial::place(part, &mut served)?),
        _ => None,
    };
    let mut scene = Scene { served, relay, marks, chance: Chance::new(SEED), dial, place };
    let mut outcome = Outcome::default();
    let mut jobs = Vec::new();
    for _ in 0..times {
        let job = scene.work(fault.task_s())?;
        jobs.push(job);
        let recovery_s = scene.fault(fault, &jobs, &mut outcome)?;
        outcome.recoveries_s.push(recovery_s);
        let ended = || {
            let row = scene.served.job(job).ok()?;
            row.state.is_ended().then_some(())
        };
        until("the end of a job", ended)?;
    }
    scene.count(&jobs, &mut outcome)?;
    if fault == Fault::Kill(Part::Supervisor) {
        ensure!(outcome.killed > 0, "no task ran under a supervisor that was killed");
    }
    clean(&scene.served)?;
    Ok(outcome)
}

impl Scene {
    /// Tasks of which the first has begun.
    fn work(&mut self, task_s: f64) -> Result<JobId> {
        let line = format!(
            "echo start $GANTRY_TASK >> {0}; sleep {task_s}; echo end $GANTRY_TASK >> {0}",
            self.marks.display()
        );
        let job =
            self.served.submit(served::array(TASKS, served::command(&["sh", "-c", &line])))?;
        let begun = format!("start {job}.");
        until("the first start", || {
            fs::read_to_string(&self.marks).ok()?.contains(&begun).then_some(())
        })?;
        Ok(job)
    }

    /// Does a fault, looks that it happened, and ends it; gives the seconds until a task that was
    /// submitted after it is done.
    fn fault(&mut self, fault: Fault, jobs: &[JobId], outcome: &mut Outcome) -> Result<f64> {
        let (least, most) = HELD_MS;
        let held = Duration::from_millis(least + self.chance.below(most - least));
        let start = match fault {
            Fault::Kill(part) => self.kill(part)?,
            Fault::Stop(part) => self.stop(part, held)?,
            Fault::Partition => {
                let before = self.lost_packets();
                self.relay.cut(true);
                std::thread::sleep(held);
                until("a packet that is held back", || {
                    (self.lost_packets() > before).then_some(())
                })?;
                self.relay.cut(false);
                Instant::now()
            }
            Fault::Loss => {
                let before = self.lost_packets();
                until("a packet that is lost", || (self.lost_packets() > before).then_some(()))?;
                Instant::now()
            }
            Fault::Clock(part) => self.jump(part)?,
            Fault::Harm(harm) => self.harm(harm, held, jobs, outcome)?,
        };
        let one = self.served.submit(served::command(&["true"]))?;
        self.wait_resuming(one)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn lost_packets(&self) -> u64 {
        self.relay.counts.lost.load(Ordering::Relaxed)
    }

    fn kill(&mut self, part: Part) -> Result<Instant> {
        let before = part.processes(&self.served)?;
        ensure!(!before.is_empty(), "there is no {} to kill", part.word());
        let start = Instant::now();
        match part {
            Part::Scheduler => {
                self.served.cluster.kill_scheduler();
                self.served.cluster.start_scheduler()?;
                self.served.reconnect()?;
            }
            Part::Agent => {
                self.served.cluster.kill_agent(NODE);
                self.served.cluster.start_agent(NODE)?;
            }
            Part::Supervisor => self.served.signal(&["supervise"], Signal::KILL)?,
        }
        until("the end of what was killed", || {
            let now = part.processes(&self.served).ok()?;
            before.iter().all(|process| !now.contains(process)).then_some(())
        })?;
        Ok(start)
    }

    fn stop(&self, part: Part, held: Duration) -> Result<Instant> {
        let processes = part.processes(&self.served)?;
        ensure!(!processes.is_empty(), "there is no {} to stop", part.word());
        for process in &processes {
            kill_process(*process, Signal::STOP)?;
            until("the stop", || is_stopped(*process).then_some(()))?;
        }
        std::thread::sleep(held);
        for process in &processes {
            kill_process(*process, Signal::CONT)?;
        }
        Ok(Instant::now())
    }

    /// Counts what the tasks of these jobs have noted.
    fn count(&self, jobs: &[JobId], outcome: &mut Outcome) -> Result<()> {
        let text = fs::read_to_string(&self.marks)?;
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        text.lines().for_each(|line| *seen.entry(line).or_default() += 1);
        for job in jobs {
            for index in 0..TASKS {
                let of = |word: &str| {
                    seen.get(format!("{word} {job}.{index}").as_str()).copied().unwrap_or(0)
                };
                let (starts, ends) = (of("start"), of("end"));
                outcome.lost += u32::from(ends == 0);
                outcome.doubled += u32::from(ends > 1);
                outcome.killed += starts.saturating_sub(ends);
            }
        }
        Ok(())
    }
}

/// Whether the kernel says that a process is stopped.
fn is_stopped(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
}
