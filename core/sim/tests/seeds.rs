//! Seeds: a table of them under each strength, and every seed that ever failed.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::ops::Range;

use gantry_model::Millis;
use gantry_sim::{Simulation, SimulationSettings, Strength, Summary};

/// One course: what a line of `seeds.txt` says.
#[derive(Clone, Copy, Debug)]
struct Course {
    strength: Strength,
    nodes: u32,
    minutes: u64,
    jobs_per_hour: u32,
    seed: u64,
}

impl Course {
    fn settings(self) -> SimulationSettings {
        SimulationSettings {
            seed: self.seed,
            nodes: self.nodes,
            length: Millis::from_seconds(self.minutes * 60),
            strength: self.strength,
            jobs_per_hour: self.jobs_per_hour,
            ..SimulationSettings::default()
        }
    }

    /// The line of `seeds.txt` that means it.
    fn line(self) -> String {
        let Self { strength, nodes, minutes, jobs_per_hour, seed } = self;
        format!("{} {nodes} {minutes} {jobs_per_hour} {seed}", strength.word())
    }

    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [strength, nodes, minutes, jobs_per_hour, seed] = words[..] else {
            panic!("{line:?} is not a strength, servers, minutes, jobs each hour and a seed");
        };
        Self {
            strength: Strength::of(strength).unwrap_or_else(|| panic!("{strength:?} in {line:?}")),
            nodes: nodes.parse().unwrap(),
            minutes: minutes.parse().unwrap(),
            jobs_per_hour: jobs_per_hour.parse().unwrap(),
            seed: seed.parse().unwrap(),
        }
    }
}

/// Runs courses; every one that fails is shown with its line.
fn check(courses: impl Iterator<Item = Course>) -> Vec<Summary> {
    let mut held = Vec::new();
    let mut failed = Vec::new();
    for course in courses {
        match Simulation::new(course.settings()).run() {
            Ok(summary) => held.push(summary),
            Err(failure) => failed.push(format!("{}: {failure}", course.line())),
        }
    }
    println!("{} courses held, {} failed", held.len(), failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    held
}

fn table(strength: Strength, nodes: u32, minutes: u64, seeds: Range<u64>) -> Vec<Summary> {
    let jobs_per_hour = nodes * 6;
    check(seeds.map(|seed| Course { strength, nodes, minutes, jobs_per_hour, seed }))
}

#[test]
fn calm() {
    let held = table(Strength::Calm, 4, 120, 1000..1006);
    assert!(held.iter().all(|summary| summary.faults == 0 && summary.nodes_lost == 0));
    assert!(held.iter().all(|summary| summary.jobs_done > 10), "{held:?}");
}

#[test]
fn light() {
    let held = table(Strength::Light, 6, 480, 2000..2005);
    assert!(held.iter().any(|summary| summary.faults > 0));
}

#[test]
fn heavy() {
    let held = table(Strength::Heavy, 6, 240, 3000..3016);
    assert!(held.iter().all(|summary| summary.faults > 20), "{held:?}");
}

#[test]
fn storm() {
    let held = table(Strength::Storm, 5, 60, 4000..4030);
    let crashes: u32 = held.iter().map(|summary| summary.scheduler_crashes).sum();
    let lost: u32 = held.iter().map(|summary| summary.nodes_lost).sum();
    println!("{crashes} crashes of the scheduler, {lost} lost nodes");
    everything_happens(&held);
    assert!(crashes > 100 && lost > 100, "the faults did not strike");
}

/// Each thing that the checks are about has really happened somewhere.
fn everything_happens(held: &[Summary]) {
    let sum = |count: fn(&Summary) -> u32| held.iter().map(count).sum::<u32>();
    for (what, count) in [
        ("tries made room for others", sum(|summary| summary.preempted)),
        ("tries gave back what was borrowed", sum(|summary| summary.reclaimed)),
        ("nodes were quarantined", sum(|summary| summary.quarantined)),
        ("tries were stopped as their node had to be empty", sum(|summary| summary.cleared)),
        ("settings were read again", sum(|summary| summary.reloads)),
        ("leases were handed on", sum(|summary| summary.handed_on)),
        ("tries were called back", sum(|summary| summary.recalled)),
        ("records of spools were torn", sum(|summary| summary.records_torn)),
        ("tries were warned", sum(|summary| summary.warned)),
        ("tries were ended by their limit", sum(|summary| summary.limited)),
        ("XIDs were seen", sum(|summary| summary.xids)),
        ("times something kept work away", sum(|summary| summary.sick)),
        ("tests were ordered", sum(|summary| summary.tests)),
        ("tests found something", sum(|summary| summary.tests_failed)),
        ("tests gave work back", sum(|summary| summary.readmitted)),
        ("lost nodes were forgotten", sum(|summary| summary.forgotten)),
    ] {
        println!("{count} {what}");
        assert!(count > 0, "no {what}");
    }
}

#[test]
fn seeds_that_ever_failed() {
    let lines = include_str!("../seeds.txt").lines();
    let lines = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    check(lines.filter(|line| !line.is_empty()).map(Course::read));
}

#[test]
fn the_same_seed_has_the_same_course() {
    let course =
        Course { strength: Strength::Storm, nodes: 4, minutes: 30, jobs_per_hour: 40, seed: 5000 };
    let summary = || Simulation::new(course.settings()).run().unwrap();
    let (first, second) = (summary(), summary());
    assert_eq!(first, second);
    let other = Simulation::new(Course { seed: 5001, ..course }.settings()).run().unwrap();
    assert_ne!(first.digest, other.digest);
}
