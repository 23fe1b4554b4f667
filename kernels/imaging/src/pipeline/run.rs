//! Running a pipeline's steps on an image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::operation::{How, Keep, Operation, Radius, Start};
use super::{INPUT, Pipeline, Step};
use crate::error::ImagingError;
use crate::morphology::{self, Ball};
use crate::neighbourhood::Space;
use crate::volume::{Image, Mask};
use crate::{
    components, crop, edge_segmentation, edges, gaussian, intensity, region, resample, seeded,
    smooth, threshold,
};

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
}

impl Pipeline {
    /// Runs the steps on an image, reporting each when it is done. Fails with the step that failed
    /// and why.
    pub fn run(
        &self,
        image: &Image,
        on_step: &mut dyn FnMut(StepReport),
    ) -> Result<Labelled, ImagingError> {
        let input = Arc::new(image.clone());
        let mut named: BTreeSet<&str> = self.image.iter().map(String::as_str).collect();
        named.extend(
            self.steps.iter().flat_map(|s| s.from.iter().chain(&s.with)).map(String::as_str),
        );
        let mut state = State {
            image: input.clone(),
            mask: None,
            prepared: input.clone(),
            named: BTreeMap::from([(INPUT.to_owned(), Made::Image(input))]),
        };
        let mut reports = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let begin = Instant::now();
            let (made, voxels) = state.run(step).map_err(|source| ImagingError::Step {
                step: step.name.clone(),
                source: Box::new(source),
            })?;
            if named.contains(step.name.as_str()) {
                state.named.insert(step.name.clone(), made);
            }
            let report = StepReport {
                name: step.name.clone(),
                operation: step.what.to_owned(),
                milliseconds: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
                voxels: voxels as u64,
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

impl State {
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
        if let Some(made) = segment(&step.operation, &image, with.as_deref())? {
            return Ok(self.keep_mask(made));
        }
        if let Some(mask) = &mask
            && let Some(made) = refine(&step.operation, mask, with.as_deref())?
        {
            return Ok(self.keep_mask(made));
        }
        let made = match &step.operation {
            Operation::Resample(target) => {
                if let Some(mask) = &self.mask {
                    self.mask = Some(Arc::new(resample::mask(mask, target)?));
                }
                resample::image(&image, target)?
            }
            Operation::Crop { margin_mm } => {
                let around = with.or_else(|| self.mask.clone()).ok_or_else(no_mask)?;
                image.require_same_grid(&around)?;
                // Nothing to cut to leaves the image whole.
                match crop::bounds(&around) {
                    Some(bounds) => {
                        let bounds = bounds.widened(*margin_mm, &image.geometry);
                        if let Some(mask) = &self.mask {
                            self.mask = Some(Arc::new(crop::crop(mask, &bounds)?));
                        }
                        crop::crop(&image, &bounds)?
                    }
                    None => (*image).clone(),
                }
            }
            Operation::Window(window) => intensity::window(&image, window)?,
            Operation::Clip { low, high } => intensity::clip(&image, *low, *high)?,
            Operation::ZScore => intensity::z_score(&image, with.as_deref())?,
            Operation::NormaliseCt(by) => intensity::normalise_ct(&image, by)?,
            other => return self.smooth(other, &image),
        };
        let made = Arc::new(made);
        self.prepared = made.clone();
        Ok(self.keep_image(made))
    }

    /// Runs a step that makes an image for other steps, not for a network.
    fn smooth(
        &mut self,
        operation: &Operation,
        image: &Image,
    ) -> Result<(Made, usize), ImagingError> {
        let made = match operation {
            Operation::Gaussian(parameters) => gaussian::gaussian(image, parameters)?,
            Operation::CurvatureFlow(parameters) => smooth::curvature_flow(image, parameters)?,
            Operation::Sobel(space) => edges::sobel(image, *space),
            // The parser has made sure that steps on masks have one.
            _ => return Err(no_mask()),
        };
        Ok(self.keep_image(Arc::new(made)))
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

/// Runs an operation that makes a mask from an image; returns nothing for any other.
fn segment(
    operation: &Operation,
    image: &Image,
    with: Option<&Mask>,
) -> Result<Option<Mask>, ImagingError> {
    let seeds_of = |given: &[region::Voxel]| match with {
        Some(mask) => seeds_in(mask),
        None => given.to_vec(),
    };
    Ok(Some(match operation {
        Operation::Threshold(range) => threshold::threshold(image, range.from, range.below),
        Operation::Otsu { otsu, keep } => {
            let split = threshold::otsu(image, otsu)? as f32;
            match keep {
                Keep::Above => threshold::threshold(image, split, f32::INFINITY),
                Keep::Below => threshold::threshold(image, f32::NEG_INFINITY, split),
            }
        }
        Operation::Canny(parameters) => edges::canny(image, parameters)?,
        Operation::EdgeSegmentation(parameters) => {
            edge_segmentation::edge_segmentation(image, parameters)?
        }
        Operation::ConnectedThreshold { seeds, parameters } => {
            region::connected_threshold(image, &seeds_of(seeds), parameters)?
        }
        Operation::NeighbourhoodConnected { seeds, parameters } => {
            region::neighbourhood_connected(image, &seeds_of(seeds), parameters)?
        }
        Operation::ConfidenceConnected { seeds, parameters } => {
            region::confidence_connected(image, &seeds_of(seeds), parameters)?.mask
        }
        Operation::SeededGrowing { start, connectivity } => {
            let core = |radius_voxels: &usize| Ball {
                radius_voxels: *radius_voxels,
                space: Space::Volume,
            };
            let made;
            let seeds = match (start, with) {
                (Start::Mask, Some(mask)) => mask,
                (Start::Mask, None) => return Err(no_mask()),
                (Start::Seeds(seeds), _) => {
                    made = seeded::seeds_at(&image.geometry, seeds)?;
                    &made
                }
                (Start::Ranges { ranges, core_voxels }, _) => {
                    made = seeded::seeds_in_ranges(image, ranges, &core(core_voxels))?;
                    &made
                }
                (Start::Otsu { core_voxels }, _) => {
                    let otsu = threshold::Otsu::default();
                    made = seeded::seeds_by_otsu(image, &otsu, &core(core_voxels))?;
                    &made
                }
            };
            seeded::seeded_growing(image, seeds, *connectivity)?
        }
        _ => return Ok(None),
    }))
}

/// Runs an operation that makes a mask from a mask; returns nothing for any other.
fn refine(
    operation: &Operation,
    mask: &Mask,
    with: Option<&Mask>,
) -> Result<Option<Mask>, ImagingError> {
    let ball = |radius: Radius, space: Space| {
        let radius_voxels = match radius {
            Radius::Voxels(voxels) => voxels,
            Radius::Mm(0.0) => 0,
            Radius::Mm(mm) => (mm / mask.geometry.spacing_mm[0]).round().max(1.0) as usize,
        };
        Ball { radius_voxels, space }
    };
    Ok(Some(match *operation {
        Operation::Components(ref filter) => components::filter(mask, filter),
        Operation::Dilate { radius, space } => morphology::dilate(mask, &ball(radius, space))?,
        Operation::Erode { radius, space } => morphology::erode(mask, &ball(radius, space))?,
        Operation::Open { radius, space } => morphology::open(mask, &ball(radius, space))?,
        Operation::Close { radius, space } => morphology::close(mask, &ball(radius, space))?,
        Operation::FillHoles(space) => morphology::fill_holes(mask, space),
        Operation::Select { label } => mask.map(|&found| u8::from(found == label)),
        Operation::Combine(how) => combine(mask, with.ok_or_else(no_mask)?, how)?,
        _ => return Ok(None),
    }))
}

fn combine(first: &Mask, second: &Mask, how: How) -> Result<Mask, ImagingError> {
    first.require_same_grid(second)?;
    let pair = |(&a, &b): (&u8, &u8)| {
        u8::from(match how {
            How::Union => a != 0 || b != 0,
            How::Intersection => a != 0 && b != 0,
            How::Difference => a != 0 && b == 0,
        })
    };
    let voxels = first.voxels.iter().zip(&second.voxels).map(pair).collect();
    Ok(Mask { geometry: first.geometry, voxels })
}

/// Returns the voxels of a mask.
fn seeds_in(mask: &Mask) -> Vec<region::Voxel> {
    let members = mask.voxels.iter().enumerate().filter(|&(_, &label)| label != 0);
    members.map(|(index, _)| mask.geometry.position(index)).collect()
}

fn no_mask() -> ImagingError {
    ImagingError::Parameter { operation: "pipeline", problem: "there is no mask yet".to_owned() }
}
