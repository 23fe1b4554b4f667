//! Running a pipeline's steps on an image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::cache::{self, Cache, Entry, StepTime};
use super::operation::{Interpolation, Operation};
use super::{INPUT, Pipeline, Plan, PlannedStep, Step, apply, plan};
use crate::compute::{Compute, Ran};
use crate::crop::{self, Bounds};
use crate::error::ImagingError;
use crate::volume::{Image, Mask};
use crate::{augment, distance, reorient, spline};

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// The operation's name.
    pub operation: String,
    /// How long it took.
    pub milliseconds: u64,
    /// The voxels of the mask that it made, or of the image.
    pub voxels: u64,
    /// Whether its result was found in a cache.
    #[serde(default)]
    pub cached: bool,
    /// On what it ran, if it did.
    #[serde(default)]
    pub ran: Ran,
}

/// A labelled image.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// The image that a network shall see.
    pub image: Image,
    /// Its mask, on the same grid.
    pub mask: Mask,
    /// What the mask shows.
    pub label: String,
    /// What each step did.
    pub steps: Vec<StepReport>,
}

/// What a step made. Steps share volumes; none is copied to be passed on.
#[derive(Debug, Clone)]
enum Made {
    Image(Arc<Image>),
    Mask(Arc<Mask>),
}

/// What the steps so far have made.
struct State {
    image: Arc<Image>,
    mask: Option<Arc<Mask>>,
    /// The newest image that a network shall see.
    prepared: Arc<Image>,
    /// The results that later steps name.
    named: BTreeMap<String, Made>,
    compute: Compute,
}

impl Pipeline {
    /// Runs the steps on an image, reporting each when it is done. Fails with the step that failed
    /// and why.
    pub fn run(
        &self,
        image: &Image,
        on_step: &mut dyn FnMut(StepReport),
    ) -> Result<Labelled, ImagingError> {
        self.run_with(image, None, on_step)
    }

    /// The same, but takes from the cache what it has, and keeps there what it has not.
    pub fn run_cached(
        &self,
        image: &Image,
        cache: &mut Cache,
        on_step: &mut dyn FnMut(StepReport),
    ) -> Result<Labelled, ImagingError> {
        self.run_with(image, Some(cache), on_step)
    }

    /// Returns for each step whether the cache has its result for an image.
    #[must_use]
    pub fn cached(&self, image: &Image, cache: &Cache) -> Vec<bool> {
        let input = cache::image_hash(image);
        (0..self.steps.len()).map(|position| cache.holds(&self.key(&input, position))).collect()
    }

    /// Returns for each step of a plan how many milliseconds it will take, by the time that the same
    /// operation took when the cache saw it last; nothing where it never did.
    #[must_use]
    pub fn predicted_ms(&self, plan: &Plan, cache: &Cache) -> Vec<Option<u64>> {
        let predicted = |(step, planned): (&Step, &PlannedStep)| {
            let time = cache.time(&time_key(step))?;
            let voxels: u128 = planned.size.iter().map(|&n| n as u128).product();
            let nanoseconds = u128::from(time.nanoseconds) * voxels / u128::from(time.voxels);
            Some(u64::try_from(nanoseconds / 1_000_000).unwrap_or(u64::MAX))
        };
        self.steps.iter().zip(&plan.steps).map(predicted).collect()
    }

    /// Returns the key of a step's result for an image.
    fn key(&self, input: &str, position: usize) -> String {
        plan::hash_of(&("gantry step 1", input, self.prefix(position)))
    }

    fn run_with(
        &self,
        image: &Image,
        mut cache: Option<&mut Cache>,
        on_step: &mut dyn FnMut(StepReport),
    ) -> Result<Labelled, ImagingError> {
        let input = Arc::new(image.clone());
        let input_hash = cache.as_ref().map(|_| cache::image_hash(image));
        let mut named: BTreeSet<&str> = self.image.iter().map(String::as_str).collect();
        named.extend(
            self.steps.iter().flat_map(|s| s.from.iter().chain(&s.with)).map(String::as_str),
        );
        let mut state = State {
            image: input.clone(),
            mask: None,
            prepared: input.clone(),
            named: BTreeMap::from([(INPUT.to_owned(), Made::Image(input))]),
            compute: Compute::on(self.device),
        };
        let mut reports = Vec::with_capacity(self.steps.len());
        for (position, step) in self.steps.iter().enumerate() {
            let begin = Instant::now();
            let key = input_hash.as_ref().map(|input| self.key(input, position));
            let found = match (&mut cache, &key) {
                (Some(cache), Some(key)) => cache.load(key),
                _ => None,
            };
            let cached = found.is_some();
            let (made, voxels) = if let Some(entry) = found {
                state.restore(entry)
            } else {
                let before = (state.image.clone(), state.mask.clone());
                let done = state.run(step).map_err(|source| ImagingError::Step {
                    step: step.name.clone(),
                    source: Box::new(source),
                })?;
                if let (Some(cache), Some(key)) = (&mut cache, &key) {
                    let time = state.time(begin);
                    cache.keep_time(&time_key(step), time);
                    cache.store(key, &state.changes(&before), time.nanoseconds);
                }
                done
            };
            if named.contains(step.name.as_str()) {
                state.named.insert(step.name.clone(), made);
            }
            let report = StepReport {
                name: step.name.clone(),
                operation: step.what.to_owned(),
                milliseconds: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
                voxels: voxels as u64,
                cached,
                ran: state.compute.take_ran(),
            };
            on_step(report.clone());
            reports.push(report);
        }
        let image = match self.image.as_ref().and_then(|name| state.named.remove(name)) {
            Some(Made::Image(image)) => image,
            _ => state.prepared,
        };
        let mask = state.mask.ok_or_else(|| ImagingError::Parameter {
            operation: "pipeline",
            problem: "no step made a mask".to_owned(),
        })?;
        image.require_same_grid(&mask)?;
        Ok(Labelled {
            image: Arc::unwrap_or_clone(image),
            mask: Arc::unwrap_or_clone(mask),
            label: self.label.clone(),
            steps: reports,
        })
    }
}

/// Returns the key under which an operation's time is kept.
fn time_key(step: &Step) -> String {
    plan::hash_of(&("gantry step time 1", &step.operation))
}

impl State {
    /// Returns how long the step took that has just made this.
    fn time(&self, begin: Instant) -> StepTime {
        let nanoseconds = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        StepTime { voxels: self.image.voxels.len() as u64, nanoseconds }
    }

    /// Runs one step; returns what it made and the number of its voxels.
    fn run(&mut self, step: &Step) -> Result<(Made, usize), ImagingError> {
        let image = match step.from.as_ref().and_then(|name| self.named.get(name)) {
            Some(Made::Image(image)) => image.clone(),
            _ => self.image.clone(),
        };
        let mask = match step.from.as_ref().and_then(|name| self.named.get(name)) {
            Some(Made::Mask(mask)) => Some(mask.clone()),
            _ => self.mask.clone(),
        };
        let with = match step.with.as_ref().and_then(|name| self.named.get(name)) {
            Some(Made::Mask(mask)) => Some(mask.clone()),
            _ => None,
        };
        if let Some(made) =
            apply::segment(&step.operation, &image, with.as_deref(), &mut self.compute)?
        {
            return Ok(self.keep_mask(made));
        }
        if let Some(mask) = &mask
            && let Some(made) =
                apply::refine(&step.operation, mask, with.as_deref(), &mut self.compute)?
        {
            return Ok(self.keep_mask(made));
        }
        if let (Some(mask), Operation::Distance { side, space }) = (&mask, &step.operation) {
            return Ok(self.keep_image(Arc::new(distance::distance(mask, *side, *space))));
        }
        if let Some(made) = apply::filter(&step.operation, &image, &mut self.compute)? {
            return Ok(self.keep_image(Arc::new(made)));
        }
        let made = match apply::scale(&step.operation, &image, with.as_deref())? {
            Some(made) => made,
            None => self.move_both(&step.operation, &image, with.as_deref())?,
        };
        let made = Arc::new(made);
        self.prepared = made.clone();
        Ok(self.keep_image(made))
    }

    /// Runs a step that changes the grid: the current mask follows the image.
    fn move_both(
        &mut self,
        operation: &Operation,
        image: &Image,
        with: Option<&Mask>,
    ) -> Result<Image, ImagingError> {
        let cut = |bounds: Option<Bounds>, margin_mm: f64| {
            // Nothing to cut to leaves the image whole.
            let whole = Bounds { from: [0; 3], to: image.geometry.size };
            bounds.map_or(whole, |bounds| bounds.widened(margin_mm, &image.geometry))
        };
        let current = self.mask.clone();
        let (image, mask) = match operation {
            Operation::Resample { target, interpolation } => {
                let compute = &mut self.compute;
                let onto = |mask: Arc<Mask>| {
                    let grid = target.grid(&mask.geometry)?;
                    compute.mask_onto(&mask, &grid)
                };
                let mask = current.map(onto).transpose()?;
                let image = match interpolation {
                    Interpolation::Linear => {
                        let grid = target.grid(&image.geometry)?;
                        self.compute.image_onto(image, &grid, 0.0)?
                    }
                    Interpolation::Spline => spline::image(image, target)?,
                };
                (image, mask)
            }
            Operation::Reorient(to) => {
                let mask = current.map(|mask| reorient::reorient(&mask, *to)).transpose()?;
                (reorient::reorient(image, *to)?, mask)
            }
            Operation::Crop { margin_mm } => {
                let around = with.or(current.as_deref()).ok_or_else(apply::no_mask)?;
                image.require_same_grid(around)?;
                let bounds = cut(crop::bounds(around), *margin_mm);
                let mask = current.as_deref().map(|mask| crop::crop(mask, &bounds)).transpose()?;
                (crop::crop(image, &bounds)?, mask)
            }
            Operation::CropToBody { at_least, margin_mm } => {
                let bounds = cut(crop::body_bounds(image, *at_least), *margin_mm);
                let mask = current.map(|mask| crop::crop(&mask, &bounds)).transpose()?;
                (crop::crop(image, &bounds)?, mask)
            }
            Operation::Augment { seed, parameters } => {
                let none = || Arc::new(Mask::filled(image.geometry, 0));
                let labels = current.clone().unwrap_or_else(none);
                let (image, mask) = augment::augment(image, &labels, parameters, *seed)?;
                (image, current.map(|_| mask))
            }
            // The parser has made sure that steps on masks have one.
            _ => return Err(apply::no_mask()),
        };
        self.mask = mask.map(Arc::new);
        Ok(image)
    }

    /// Returns what is not as it was before.
    fn changes(&self, before: &(Arc<Image>, Option<Arc<Mask>>)) -> Entry {
        let same_mask = match (&self.mask, &before.1) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (now, then) => now.is_none() && then.is_none(),
        };
        let same_image = Arc::ptr_eq(&self.image, &before.0);
        Entry {
            image: (!same_image).then(|| self.image.clone()),
            mask: self.mask.clone().filter(|_| !same_mask),
            prepared: !same_image && Arc::ptr_eq(&self.image, &self.prepared),
        }
    }

    /// Puts back what a step changed when it was run.
    fn restore(&mut self, entry: Entry) -> (Made, usize) {
        if let Some(mask) = entry.mask {
            self.mask = Some(mask);
        }
        match (entry.image, &self.mask) {
            (Some(image), _) => {
                if entry.prepared {
                    self.prepared = image.clone();
                }
                self.keep_image(image)
            }
            (None, Some(mask)) => (Made::Mask(mask.clone()), mask.count()),
            // A step changes one of the two, and no mask is there only before any.
            (None, None) => (Made::Image(self.image.clone()), self.image.voxels.len()),
        }
    }

    fn keep_image(&mut self, image: Arc<Image>) -> (Made, usize) {
        self.image = image.clone();
        let voxels = image.voxels.len();
        (Made::Image(image), voxels)
    }

    fn keep_mask(&mut self, mask: Mask) -> (Made, usize) {
        let (voxels, mask) = (mask.count(), Arc::new(mask));
        self.mask = Some(mask.clone());
        (Made::Mask(mask), voxels)
    }
}
