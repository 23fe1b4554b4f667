//! What only screens need: the newest notes, samples and curves. Bounded, and gone with the
//! process.

use std::collections::{BTreeMap, VecDeque};

use gantry_model::limits::{METRIC_POINTS_MAX, METRICS_MAX};
use gantry_model::{At, JobId, JobRow, Millis, Note, TaskId};
use gantry_telemetry::{Ring, Sample};
use gantry_wire::{Metric, Point};

/// Lines of the event log that are kept.
const NOTES_MAX: usize = 1000;
/// Jobs whose curves are kept.
const CURVES_MAX: usize = 256;
/// Tasks of one job whose progress is kept.
const PROGRESS_MAX: usize = 4096;
/// Seconds of the cluster's own series.
const BUSY_SECONDS: usize = 3600;
/// A sample older than this says nothing about now.
const FRESH: Millis = Millis::from_seconds(5);

/// One metric of one job. Once it is full every second point is dropped, and from then on every
/// second one is kept, and so on: the curve keeps its shape and its ends.
#[derive(Default)]
struct Curve {
    points: Vec<Point>,
    stride: u64,
    seen: u64,
    newest: Option<Point>,
}

impl Curve {
    fn push(&mut self, point: Point) {
        self.newest = Some(point);
        if self.seen.is_multiple_of(self.stride.max(1)) {
            self.points.push(point);
        }
        self.seen += 1;
        if self.points.len() >= METRIC_POINTS_MAX {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride = self.stride.max(1) * 2;
        }
    }

    fn thinned(&self, points_max: usize) -> Vec<Point> {
        let step = self.points.len().div_ceil(points_max.max(1)).max(1);
        let mut points: Vec<Point> = self.points.iter().copied().step_by(step).collect();
        if let Some(newest) = self.newest.filter(|newest| points.last() != Some(newest)) {
            points.push(newest);
        }
        points
    }
}

/// The newest of everything.
pub(crate) struct Board {
    notes: VecDeque<Note>,
    samples: BTreeMap<String, (Sample, At)>,
    busy: Ring,
    /// The second that the cluster's series was last given a value for.
    counted: Option<u64>,
    curves: BTreeMap<JobId, BTreeMap<String, Curve>>,
    /// How far tasks say they are, by job.
    progress: BTreeMap<JobId, BTreeMap<u32, u16>>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            notes: VecDeque::new(),
            samples: BTreeMap::new(),
            busy: Ring::new(BUSY_SECONDS),
            counted: None,
            curves: BTreeMap::new(),
            progress: BTreeMap::new(),
        }
    }
}

impl Board {
    pub(crate) fn note(&mut self, note: Note) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }

    /// The newest notes, oldest first.
    pub(crate) fn notes(&self, count: usize) -> Vec<Note> {
        self.notes.iter().skip(self.notes.len().saturating_sub(count)).cloned().collect()
    }

    /// Keeps a node's sample. The cluster's own series gets its value with the first sample of
    /// each second, so that many nodes cost no more than one look at each a second.
    pub(crate) fn sample(&mut self, node: &str, sample: Sample, at: At) {
        self.samples.insert(node.to_owned(), (sample, at));
        let second = at.0 / 1000;
        if self.counted == Some(second) {
            return;
        }
        self.counted = Some(second);
        let fresh = self.samples.values().filter(|(_, taken)| at.since(*taken) < FRESH);
        let (mut sum, mut count) = (0_u64, 0_u64);
        for (sample, _) in fresh {
            sum += u64::from(sample.cpu_permille);
            count += 1;
        }
        self.busy.push(at, (sum / count.max(1)) as u32);
    }

    /// A node's newest sample and when it came.
    pub(crate) fn newest(&self, node: &str) -> Option<(Sample, At)> {
        self.samples.get(node).cloned()
    }

    /// The cluster's processor use, one value a cell, oldest first.
    pub(crate) fn busy(&self, at: At, seconds: u64, cells: usize) -> Vec<Option<u16>> {
        let cells = self.busy.resample(at, seconds, cells);
        cells.into_iter().map(|cell| cell.map(|cell| cell.mean.min(1000) as u16)).collect()
    }

    pub(crate) fn point(&mut self, job: JobId, name: &str, point: Point) {
        if !self.curves.contains_key(&job) && self.curves.len() >= CURVES_MAX {
            self.curves.pop_first();
        }
        let curves = self.curves.entry(job).or_default();
        if curves.contains_key(name) || curves.len() < METRICS_MAX {
            curves.entry(name.to_owned()).or_default().push(point);
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
