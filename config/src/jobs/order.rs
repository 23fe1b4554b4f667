//! The order in which a file's jobs are submitted: each after those it waits for.
//!
//! Of several that could be next, the one that stands first in the file is. Where there is no such
//! order, the jobs that wait for one another are named in full.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{FileJob, Mistake};

/// The places of the file's jobs in the order of their submission.
///
/// # Errors
/// Where jobs wait for one another.
pub(super) fn order(jobs: &[FileJob]) -> Result<Vec<usize>, Mistake> {
    let mut waits: Vec<usize> = jobs.iter().map(|job| job.after.len()).collect();
    let mut followers = vec![Vec::new(); jobs.len()];
    for (place, job) in jobs.iter().enumerate() {
        for dependency in &job.after {
            followers[dependency.place].push(place);
        }
    }
    let free = (0..jobs.len()).filter(|place| waits[*place] == 0);
    let mut ready: BinaryHeap<Reverse<usize>> = free.map(Reverse).collect();
    let mut order = Vec::with_capacity(jobs.len());
    while let Some(Reverse(place)) = ready.pop() {
        order.push(place);
        for follower in &followers[place] {
            waits[*follower] -= 1;
            if waits[*follower] == 0 {
                ready.push(Reverse(*follower));
            }
        }
    }
    if order.len() == jobs.len() { Ok(order) } else { Err(cycle(jobs, &waits)) }
}

/// Names one circle among the jobs that still wait. Each of them waits for another of them, so that
/// following the first such dependency must come back to a job it has passed.
fn cycle(jobs: &[FileJob], waits: &[usize]) -> Mistake {
    let next =
        |place: usize| jobs[place].after.iter().find(|dependency| waits[dependency.place] > 0);
    let name = |place: usize| jobs[place].spec.name.as_str();
    let mut passed = Vec::new();
    let mut here = waits.iter().position(|count| *count > 0).unwrap_or_default();
    while !passed.contains(&here) {
        passed.push(here);
        let Some(dependency) = next(here) else { break };
        here = dependency.place;
    }
    let begin = passed.iter().position(|place| *place == here).unwrap_or_default();
    let circle = &passed[begin..];
    let first = circle.iter().enumerate().min_by_key(|(_, place)| **place);
    let turn = first.map_or(0, |(at, _)| at);
    let mut names: Vec<&str> =
        circle.iter().cycle().skip(turn).take(circle.len()).map(|place| name(*place)).collect();
    names.extend(names.first().copied());
    let at = circle.get(turn).and_then(|place| next(*place)).map_or(0, |dependency| dependency.at);
    Mistake::new(
        at,
        format!(
            "after: jobs wait for one another: {}; take one of these dependencies out",
            names.join(" → ")
        ),
    )
}
