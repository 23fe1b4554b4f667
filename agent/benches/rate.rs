//! Real processes per second through one agent, beside a bare loop that starts and waits.
//!
//! Both start `true` as often on the same machine in the same run. The bare loop is what the machine
//! can do at most from one thread; a second number has as many threads as there are cores. The
//! agent speaks to a scheduler that only counts, over real QUIC, and its spool is synced.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/daemon_support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod daemon_support;

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use daemon_support::{Bench, Scheduler, command, plan};
use gantry_model::{Exit, JobId, Launch, Order, TryId};

/// Processes of each measurement.
const COUNT: u64 = 2000;
/// Rounds, of which the median counts.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [role] if role == "worker" => return gantry_agent::worker::run(),
        [role] if role == "supervise" => return gantry_agent::supervise::run(),
        _ => {}
    }
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let mut rates: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        rates[0].push(bare(1));
        rates[1].push(bare(cores));
        for (place, slots) in [(2, 2), (3, 16), (4, 128)] {
            rates[place].push(runtime.block_on(through_an_agent(slots)));
        }
    }
    let names =
        ["bare loop", "bare loops, one per core", "agent, 2 slots", "16 slots", "128 slots"];
    let medians: Vec<f64> = rates.into_iter().map(median).collect();
    for (name, rate) in names.iter().zip(&medians) {
        println!("{name}: {rate:.0} tasks/s, {:.0} % of the bare loop", 100.0 * rate / medians[0]);
    }
    ExitCode::SUCCESS
}

/// Starts and waits, on so many threads.
fn bare(threads: u64) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..COUNT / threads {
                    let mut command = Command::new("true");
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    assert!(command.spawn().unwrap().wait().unwrap().success());
                }
            });
        }
    });
    COUNT as f64 / start.elapsed().as_secs_f64()
}

/// As many tries, so many of them live at a time.
async fn through_an_agent(slots: u64) -> f64 {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let agent = bench.agent(scheduler.address(), |_| {});
    let mut session = scheduler.session().await;
    let start = Instant::now();
    for number in 1..=COUNT + slots {
        if number <= COUNT {
            let task = JobId(1).task(number as u32);
            let launch = Launch { task, ..plan(number, command(&["true"])) };
            session.order(Order::Launch(Box::new(launch))).await;
        }
        if number > slots {
            let ended = number - slots;
            assert_eq!(session.end(ended).await, Exit::Code(0));
            session.order(Order::Acknowledge { try_id: TryId(ended) }).await;
        }
    }
    let rate = COUNT as f64 / start.elapsed().as_secs_f64();
    agent.stop().await;
    rate
}
