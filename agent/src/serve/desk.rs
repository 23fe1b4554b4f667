//! What a prediction service knows, and what it does next.
//!
//! Series come from two sides: those that are found in the library, and those that a program asks
//! for, which go first and of which only so many wait. A series is predicted again once it has more
//! instances than it had then. One that could not be predicted is tried again after a while that grows:
//! the storage may have been full, or away.

use std::collections::{BTreeMap, VecDeque};

use gantry_library::{ModelId, SeriesId};

/// Series found at one look; the rest is found at the next.
const FOUND_MAX: usize = 1024;
/// How long a series that could not be predicted waits, at first and at most.
const AGAIN_MS: u64 = 60_000;
const AGAIN_MAX_MS: u64 = 3_600_000;

/// A series that may be predicted, with its instances.
pub(crate) type Present = (SeriesId, u64);

/// Why a series that was asked for does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// As many wait as may.
    Full,
    /// No model is served.
    NoModel,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) predicted: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) sent: u64,
    pub(crate) not_sent: u64,
    /// Seconds that predictions took, all of them together, and the last one.
    pub(crate) seconds: f64,
    pub(crate) last_seconds: f64,
}

/// A service at a moment.
#[derive(Debug)]
pub(crate) struct Desk {
    places: usize,
    model: Option<ModelId>,
    asked: VecDeque<SeriesId>,
    found: VecDeque<Present>,
    /// Instances that a series had when it was worked on last.
    worked: BTreeMap<SeriesId, u64>,
    /// How long each that failed waits, and until when.
    failed: BTreeMap<SeriesId, (u64, u64)>,
    pub(crate) counts: Counts,
}

impl Desk {
    /// A service without a model, in which so many series that were asked for may wait.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places,
            model: None,
            asked: VecDeque::new(),
            found: VecDeque::new(),
            worked: BTreeMap::new(),
            failed: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// The model that is served.
    pub(crate) fn model(&self) -> Option<&ModelId> {
        self.model.as_ref()
    }

    /// Serves another model from now on, which has predicted these series already.
    pub(crate) fn serve(&mut self, model: Option<ModelId>, predicted: Vec<Present>) {
        self.model = model;
        self.worked = predicted.into_iter().collect();
        self.failed.clear();
        self.found.clear();
        if self.model.is_none() {
            // Nobody can answer them any more.
            self.counts.refused += self.asked.len() as u64;
            self.asked.clear();
        }
    }

    /// Takes note of the series that the library has and the rule allows.
    pub(crate) fn look(&mut self, present: Vec<Present>, now_ms: u64) {
        let is_new = |(series, instances): &Present| {
            self.worked.get(series).is_none_or(|worked| instances > worked)
                || self.failed.get(series).is_some_and(|(_, until_ms)| *until_ms <= now_ms)
        };
        self.found = present.into_iter().filter(is_new).take(FOUND_MAX).collect();
    }

    /// Lets a series wait that a program asks for; gives its place, counted from 1. One that waits
    /// already keeps its place.
    pub(crate) fn ask(&mut self, series: SeriesId) -> Result<usize, NoPlace> {
        if let Some(place) = self.asked.iter().position(|one| *one == series) {
            return Ok(place + 1);
        }
        let refused = match &self.model {
            None => NoPlace::NoModel,
            Some(_) if self.asked.len() >= self.places => NoPlace::Full,
            Some(_) => {
                self.asked.push_back(series);
                return Ok(self.asked.len());
            }
        };
        self.counts.refused += 1;
        Err(refused)
    }

    /// The next series, if a model is served.
    pub(crate) fn next(&mut self) -> Option<SeriesId> {
        self.model.as_ref()?;
        if let Some(series) = self.asked.pop_front() {
            // One that was found too is done by this.
            if let Some(place) = self.found.iter().position(|(found, _)| *found == series) {
                self.worked.extend(self.found.remove(place));
            }
            return Some(series);
        }
        let (series, instances) = self.found.pop_front()?;
        self.worked.insert(series.clone(), instances);
        Some(series)
    }

    /// A series could not be predicted.
    pub(crate) fn failed(&mut self, series: SeriesId, now_ms: u64) {
        self.counts.failed += 1;
        let wait_ms = self.failed.get(&series).map_or(AGAIN_MS, |(waited_ms, _)| 2 * waited_ms);
        let wait_ms = wait_ms.min(AGAIN_MAX_MS);
        self.failed.insert(series, (wait_ms, now_ms + wait_ms));
    }

    /// A series was predicted, in so many seconds.
    pub(crate) fn predicted(&mut self, series: &SeriesId, seconds: f64) {
        self.failed.remove(series);
        self.counts.predicted += 1;
        self.counts.seconds += seconds;
        self.counts.last_seconds = seconds;
    }

    /// How many wait that were asked for, and how many that were found.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.asked.len(), self.found.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(number: u8) -> SeriesId {
        id(number)
    }

    fn model(number: u8) -> ModelId {
        id(number)
    }

    /// An id, of as many digits as it has.
    fn id<T: std::str::FromStr>(number: u8) -> T {
        (1..=64).find_map(|digits| format!("{number:0digits$x}").parse().ok()).unwrap()
    }

    #[test]
    fn what_is_asked_for_goes_first_and_only_so_many_wait() {
        let mut desk = Desk::new(2);
        assert_eq!(desk.ask(series(1)), Err(NoPlace::NoModel));
        desk.serve(Some(model(1)), vec![]);
        desk.look(vec![(series(9), 3)], 0);
        assert_eq!(desk.ask(series(1)), Ok(1));
        assert_eq!(desk.ask(series(2)), Ok(2));
        assert_eq!(desk.ask(series(1)), Ok(1), "it waits already");
        assert_eq!(desk.ask(series(3)), Err(NoPlace::Full));
        assert_eq!(desk.waiting(), (2, 1));
        desk.look(vec![(series(2), 4), (series(9), 3)], 0);
        let order: Vec<_> = std::iter::from_fn(|| desk.next()).collect();
        assert_eq!(order, [series(1), series(2), series(9)], "what was found too is done once");
        desk.look(vec![(series(2), 4), (series(9), 3)], 0);
        assert_eq!(desk.next(), None);
        assert_eq!(desk.counts.refused, 2);
    }

    #[test]
    fn a_series_is_worked_on_again_once_it_has_grown_or_the_model_is_another() {
        let mut desk = Desk::new(2);
        desk.serve(Some(model(1)), vec![(series(1), 10)]);
        let all = || vec![(series(1), 10), (series(2), 5)];
        desk.look(all(), 0);
        assert_eq!((desk.next(), desk.next()), (Some(series(2)), None));
        desk.look(all(), 0);
        assert_eq!(desk.next(), None, "both are done");
        desk.look(vec![(series(1), 11)], 0);
        assert_eq!(desk.next(), Some(series(1)));
        desk.serve(Some(model(2)), vec![]);
        desk.look(all(), 0);
        assert_eq!(desk.waiting(), (0, 2));
        assert_eq!(desk.ask(series(7)), Ok(1));
        desk.serve(None, vec![]);
        assert_eq!((desk.next(), desk.counts.refused), (None, 1));
    }

    #[test]
    fn what_failed_is_tried_again_after_a_while_that_grows() {
        let mut desk = Desk::new(2);
        desk.serve(Some(model(1)), vec![]);
        let mut at = |now_ms, outcome: Option<bool>| {
            desk.look(vec![(series(1), 3)], now_ms);
            let next = desk.next();
            match outcome {
                Some(true) => desk.predicted(&series(1), 1.0),
                Some(false) => desk.failed(series(1), now_ms),
                None => {}
            }
            next.is_some()
        };
        assert!(at(0, Some(false)), "it is new");
        assert!(!at(AGAIN_MS - 1, None) && at(AGAIN_MS, Some(false)));
        assert!(!at(3 * AGAIN_MS - 1, None) && at(3 * AGAIN_MS, Some(true)));
        assert!(!at(AGAIN_MAX_MS * 9, None), "it is done");
        assert_eq!((desk.counts.failed, desk.counts.predicted), (2, 1));
    }
}
