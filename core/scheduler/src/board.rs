//! What screens need at once: the newest notes, samples and curves. Bounded; samples and curves are
//! gone with the process, notes are in the store too.

use std::collections::BTreeMap;

use gantry_model::limits::{METRIC_POINTS_MAX, METRICS_MAX};
use gantry_model::{JobId, JobRow, TaskId};
use gantry_telemetry::Curve;
use gantry_wire::{Metric, Point};

use crate::notes::Notes;
use crate::store::Counted;
use crate::telemetry::Telemetry;

/// Jobs whose curves are kept.
const CURVES_MAX: usize = 256;
/// Tasks of one job whose progress is kept.
const PROGRESS_MAX: usize = 4096;

/// The newest of everything.
#[derive(Default)]
pub(crate) struct Board {
    /// The event log's newest lines.
    pub(crate) notes: Notes,
    /// What nodes say of themselves.
    pub(crate) telemetry: Telemetry,
    /// What the journal has cost.
    pub(crate) journal: Counted,
    curves: BTreeMap<JobId, BTreeMap<String, Curve>>,
    /// How far tasks say they are, by job.
    progress: BTreeMap<JobId, BTreeMap<u32, u16>>,
}

impl Board {
    /// A board with the event log of an earlier life.
    pub(crate) fn with_notes(notes: Notes) -> Self {
        Self { notes, ..Self::default() }
    }

    pub(crate) fn point(&mut self, job: JobId, name: &str, point: Point) {
        if !self.curves.contains_key(&job) && self.curves.len() >= CURVES_MAX {
            self.curves.pop_first();
        }
        let curves = self.curves.entry(job).or_default();
        if curves.contains_key(name) || curves.len() < METRICS_MAX {
            let new = || Curve::new(METRIC_POINTS_MAX);
            curves.entry(name.to_owned()).or_insert_with(new).push(point);
        }
    }

    /// Keeps how far a task says it is.
    pub(crate) fn progress(&mut self, task: TaskId, permille: u16) {
        if !self.progress.contains_key(&task.job) && self.progress.len() >= CURVES_MAX {
            self.progress.pop_first();
        }
        let tasks = self.progress.entry(task.job).or_default();
        if tasks.contains_key(&task.index) || tasks.len() < PROGRESS_MAX {
            tasks.insert(task.index, permille);
        }
    }

    /// Adds to a row how far its tasks say they are: those that have ended are through, those that
    /// say nothing have not begun.
    pub(crate) fn add_progress(&self, row: &mut JobRow) {
        let Some(tasks) = self.progress.get(&row.job).filter(|_| !row.state.is_ended()) else {
            return;
        };
        let total = u64::from(row.tasks.total()).max(1);
        let live: u64 = if total == 1 {
            tasks.values().map(|permille| u64::from(*permille)).sum()
        } else {
            // Which of them have ended is not known here: they have said what they had to say.
            tasks.values().filter(|permille| **permille < 1000).map(|one| u64::from(*one)).sum()
        };
        let ended = u64::from(row.tasks.ended()) * 1000;
        row.progress_permille = Some(((ended + live) / total).min(1000) as u16);
    }

    /// The curves of a job, each thinned to so many points.
    pub(crate) fn metrics(&self, job: JobId, points_max: usize) -> Vec<Metric> {
        let Some(curves) = self.curves.get(&job) else { return Vec::new() };
        let metric = |(name, curve): (&String, &Curve)| Metric {
            name: name.clone(),
            points: curve.thinned(points_max),
        };
        curves.iter().map(metric).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_keeps_its_ends_and_its_bound() {
        let mut board = Board::default();
        for step in 0..100_000 {
            board.point(JobId(1), "loss", Point::new(step, 1.0));
        }
        let metrics = board.metrics(JobId(1), 300);
        let points = &metrics[0].points;
        assert!(points.len() <= 301, "{}", points.len());
        assert_eq!((points[0].step, points.last().unwrap().step), (0, 99_999));
        assert!(points.windows(2).all(|pair| pair[0].step < pair[1].step));
    }

    #[test]
    fn jobs_and_names_are_bounded() {
        let mut board = Board::default();
        for job in 0..1000 {
            for name in 0..100 {
                board.point(JobId(job), &name.to_string(), Point::new(0, 0.0));
            }
        }
        assert_eq!(board.curves.len(), CURVES_MAX);
        assert_eq!(board.metrics(JobId(999), 10).len(), METRICS_MAX);
        assert!(board.metrics(JobId(0), 10).is_empty(), "the oldest gives way");
    }
}
