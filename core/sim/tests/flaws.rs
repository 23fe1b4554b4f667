//! The checks can fail: a mistake built into a shell is found within a few seeds.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use gantry_model::Millis;
use gantry_sim::{Flaw, Simulation, SimulationSettings, Strength};

const SEEDS: u64 = 60;

/// Runs seeds with a mistake until a report says what it must.
fn check(flaw: Flaw, parts: &[&str]) {
    let mut reports = Vec::new();
    for seed in 0..SEEDS {
        let settings = SimulationSettings {
            seed,
            nodes: 5,
            length: Millis::from_seconds(3600),
            settle: Millis::from_seconds(6 * 3600),
            strength: Strength::Storm,
            jobs_per_hour: 120,
            flaw,
            ..SimulationSettings::default()
        };
        let Err(failure) = Simulation::new(settings).run() else { continue };
        if parts.iter().any(|part| failure.what.contains(part)) {
            println!("{flaw:?}: found by seed {seed}: {}", failure.what);
            assert!(!failure.recent.is_empty() && failure.recent.len() <= 40);
            return;
        }
        reports.push(failure.what);
    }
    panic!("{flaw:?} was not found in {SEEDS} seeds; they say: {reports:?}");
}

#[test]
fn a_scheduler_that_acts_before_its_journal_is_synced() {
    check(
        Flaw::ActsBeforeSync,
        &[
            "was answered and is not known",
            "was acknowledged as",
            "have the same key",
            "after Some",
        ],
    );
}

#[test]
fn orders_and_reports_of_sessions_that_were_replaced() {
    check(Flaw::HearsOldSessions, &["runs as", "none fenced", "second time", "given up"]);
}

#[test]
fn an_agent_that_forgets_what_runs() {
    check(Flaw::ForgetsProcesses, &["runs as", "given up", "processes use"]);
}

#[test]
fn a_node_that_reports_an_end_before_it_is_one() {
    check(Flaw::ReportsEarly, &["processes use", "is used to", "given up", "none fenced"]);
}

#[test]
fn a_scheduler_whose_timers_never_fire() {
    check(Flaw::ForgetsTimers, &["has not ended", "waits while an idle node fits it"]);
}

#[test]
fn a_scheduler_that_forgets_what_it_drains() {
    check(Flaw::ForgetsDrains, &["a drained node"]);
    check(Flaw::ForgetsDrains, &["into a window"]);
    check(Flaw::ForgetsDrains, &["where nothing may run any more"]);
}

#[test]
fn a_scheduler_that_forgets_what_it_holds() {
    check(Flaw::ForgetsHolds, &["is launched and is held"]);
}

#[test]
fn a_scheduler_that_does_not_read_its_settings_again() {
    check(Flaw::ForgetsSettings, &["beyond its"]);
    check(Flaw::ForgetsSettings, &["licences"]);
}

#[test]
fn a_scheduler_that_orders_other_devices_than_it_granted() {
    check(Flaw::MixesGpus, &["beyond a whole"]);
    check(Flaw::MixesGpus, &["and asks for"]);
}

#[test]
fn a_scheduler_that_stops_more_than_it_has_to() {
    check(Flaw::StopsBystanders, &["nobody asked and it may not be"]);
}

#[test]
fn a_scheduler_that_does_not_heed_what_is_wrong() {
    check(Flaw::ForgetsTroubles, &["where something is wrong"]);
}

#[test]
fn a_scheduler_that_takes_every_test_for_passed() {
    check(Flaw::TrustsTests, &["no test has found it well", "where something is wrong"]);
}

#[test]
fn an_agent_that_does_not_read_its_spool() {
    check(Flaw::ForgetsSpool, &["is launched again; it ended well as"]);
}

#[test]
fn an_agent_that_goes_by_a_clock_that_people_set() {
    check(Flaw::GoesByWallClock, &["which is due after", "runs on past its time limit"]);
}
