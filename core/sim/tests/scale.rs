//! A day of fifty nodes, and packets that are lost without a node being called lost.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::time::Instant;

use gantry_model::Millis;
use gantry_sim::{Simulation, SimulationSettings, Strength};

#[test]
fn a_day_of_fifty_nodes() {
    let begin = Instant::now();
    let settings =
        SimulationSettings { seed: 50, check_each: 2000, ..SimulationSettings::default() };
    let summary = Simulation::new(settings).run().unwrap_or_else(|failure| panic!("{failure}"));
    println!("{summary}; in {} ms", begin.elapsed().as_millis());
    assert!(summary.simulated >= Millis::from_seconds(24 * 3600));
    assert!(summary.jobs_done > 1000, "{summary}");
}

/// Fifty agents for four hours are 200 agent-hours.
fn lossy(loss_permille: u32) -> gantry_sim::Summary {
    let settings = SimulationSettings {
        seed: 200,
        length: Millis::from_seconds(4 * 3600),
        strength: Strength::Calm,
        loss_permille,
        jobs_per_hour: 40,
        check_each: 500,
        ..SimulationSettings::default()
    };
    Simulation::new(settings).run().unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn no_false_loss_in_200_agent_hours_at_five_percent_packet_loss() {
    let summary = lossy(50);
    println!("at 5 %: {} sessions, {} lost nodes", summary.sessions, summary.nodes_lost);
    assert_eq!((summary.sessions, summary.nodes_lost), (50, 0), "{summary}");
    // The network does lose packets: where most of them are lost, sessions break.
    let summary = lossy(800);
    println!("at 80 %: {} sessions, {} lost nodes", summary.sessions, summary.nodes_lost);
    assert!(summary.sessions > 100, "{summary}");
}
