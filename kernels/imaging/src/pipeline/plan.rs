//! Planning: what a pipeline will do to an image of a given grid, how much memory that takes, and
//! under which key each step's result is kept.
//!
//! The prediction is an upper bound: it counts the volumes that are alive at a step, what the
//! operation needs beside them, and its result, each at its worst (a mask whose every second voxel
//! starts a run; a flood whose whole volume waits). A test runs every operation under a counting
//! allocator and holds the measured peak against it.

use std::fmt::Write;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::operation::{Interpolation, Operation};
use super::{Pipeline, Step};
use crate::error::ImagingError;
use crate::neighbourhood::Space;
use crate::volume::Geometry;

/// What a program takes before any image: code, stacks, buffers.
const BASE_BYTES: u64 = 32 << 20;
/// The bytes of a voxel of an image.
const IMAGE: u64 = 4;

/// What a pipeline will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The pipeline's hash.
    pub hash: String,
    /// Its steps in their order.
    pub steps: Vec<PlannedStep>,
    /// The most memory that any step takes, in bytes.
    pub peak_bytes: u64,
}

/// What a step will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedStep {
    /// The step's name.
    pub name: String,
    /// The operation's name.
    pub operation: &'static str,
    /// The hash of all that leads to its result but the image: this step and those before it.
    pub prefix: String,
    /// The voxels of its result along x, y and z; of a crop, at most so many.
    pub size: [usize; 3],
    /// The most memory that it takes, in bytes, with all volumes that are alive.
    pub peak_bytes: u64,
}

impl Pipeline {
    /// Returns what the pipeline will do to an image on this grid, or the first step that cannot
    /// be done to any image of its size.
    pub fn plan(&self, input: &Geometry) -> Result<Plan, ImagingError> {
        input.check()?;
        let mut grid = *input;
        // The image as it came is kept to the end; whoever called has one too.
        let mut kept = 2 * IMAGE * voxels(input);
        let mut current = 0;
        let mut steps = Vec::with_capacity(self.steps.len());
        for (position, step) in self.steps.iter().enumerate() {
            let before = voxels(&grid);
            let after = step_grid(step, &grid)?;
            // Image, mask and the image for the network; what the step makes comes on top.
            let result = (IMAGE + 1) * voxels(&after);
            let extra = extra_bytes(&step.operation) * before.max(voxels(&after));
            let peak_bytes = BASE_BYTES + kept + current + extra + result;
            current = (2 * IMAGE + 1) * voxels(&after);
            if self.is_named(&step.name) {
                kept += IMAGE * voxels(&after);
            }
            grid = after;
            steps.push(PlannedStep {
                name: step.name.clone(),
                operation: step.what,
                prefix: self.prefix(position),
                size: grid.size,
                peak_bytes,
            });
        }
        let peak_bytes = steps.iter().map(|step| step.peak_bytes).max().unwrap_or(BASE_BYTES);
        Ok(Plan { hash: self.hash(), steps, peak_bytes })
    }

    /// Returns the hash of the steps up to and with the one at this position.
    pub(super) fn prefix(&self, position: usize) -> String {
        hash_of(&("gantry pipeline prefix 1", &self.steps[..=position]))
    }

    fn is_named(&self, name: &str) -> bool {
        let named = self.steps.iter().flat_map(|step| step.from.iter().chain(&step.with));
        named.chain(&self.image).any(|other| other == name)
    }
}

/// Returns the SHA-256, in hexadecimal, of plain data.
pub(super) fn hash_of(value: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(value)
        .unwrap_or_else(|error| unreachable!("steps are plain data: {error}"));
    hexadecimal(&Sha256::digest(&bytes))
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn voxels(grid: &Geometry) -> u64 {
    grid.voxels() as u64
}

/// Returns the grid that a step leaves, as far as it is known before.
fn step_grid(step: &Step, grid: &Geometry) -> Result<Geometry, ImagingError> {
    let in_step = |source| ImagingError::Step { step: step.name.clone(), source: Box::new(source) };
    match &step.operation {
        Operation::Resample { target, .. } => target.grid(grid).map_err(in_step),
        // A turned grid has the same voxels in another order.
        Operation::Reorient(to) => Ok(to.grid(grid)),
        _ => Ok(*grid),
    }
}

/// Returns the bytes a voxel that an operation needs beside its input and its result.
fn extra_bytes(operation: &Operation) -> u64 {
    // The runs of a mask: 8 bytes each, at most one for every two voxels, and a number or a mark.
    const RUNS: u64 = 8;
    // A flood's voxel that waits.
    const WAITING: u64 = 8;
    match operation {
        Operation::Gaussian(_)
        | Operation::CurvatureFlow(_)
        | Operation::AnisotropicDiffusion(_)
        | Operation::NormaliseCt(_) => IMAGE,
        Operation::Augment { .. } | Operation::Laplacian(_) => 3 * IMAGE,
        Operation::LaplacianEdges(_) => 4 * IMAGE,
        Operation::BiasCorrection(_) => 48,
        Operation::Resample { interpolation: Interpolation::Spline, .. } => 16,
        Operation::Canny(canny) if canny.space == Space::Slice => 2,
        Operation::Canny(_) => 3 * IMAGE + RUNS,
        Operation::EdgeSegmentation(_) => 2 * IMAGE + RUNS,
        Operation::CropToBody { .. } => 2 + RUNS,
        Operation::ConnectedThreshold { .. }
        | Operation::NeighbourhoodConnected { .. }
        | Operation::ConfidenceConnected { .. }
        | Operation::Flood { .. }
        | Operation::IsolatedConnected { .. } => 4 + RUNS + 24,
        // A voxel waits once for each neighbour that reaches it.
        Operation::FastMarching { .. } => IMAGE + 1 + 6 * WAITING,
        // Once; lists that are filled in part take as much again in a slice.
        Operation::Watershed { .. } | Operation::SeededGrowing { .. } => 2 + 3 * WAITING,
        Operation::RandomWalker { .. } => 160,
        Operation::LocalExtrema { .. } => 8,
        Operation::Distance { .. } | Operation::ZScore => 2 * IMAGE,
        Operation::Components(_) | Operation::FillHoles(_) | Operation::Numbered(_) => 8 + RUNS,
        Operation::Dilate { .. }
        | Operation::Erode { .. }
        | Operation::Open { .. }
        | Operation::Close { .. } => 4 + RUNS,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(steps: &str, size: [usize; 3]) -> Result<Plan, ImagingError> {
        let text = format!("name = \"a\"\nlabel = \"b\"\n{steps}");
        Pipeline::parse(&text, "a").unwrap().plan(&Geometry::unit(size))
    }

    const STEPS: &str = "[[steps]]\noperation = \"resample\"\nsize = [40, 40, 10]\n\
                         [[steps]]\noperation = \"gaussian\"\n\
                         [[steps]]\noperation = \"otsu\"\n";

    #[test]
    fn a_plan_follows_the_grid_and_grows_with_it() {
        let small = plan(STEPS, [80, 80, 20]).unwrap();
        assert!(small.steps.iter().all(|step| step.size == [40, 40, 10]));
        let large = plan(STEPS, [512, 512, 128]).unwrap();
        assert!(large.peak_bytes > small.peak_bytes + 8 * 512 * 512 * 128);
        let huge = STEPS.replace("40, 40, 10", "100000, 100000, 100000");
        let error = plan(&huge, [80, 80, 20]).unwrap_err().to_string();
        assert!(error.starts_with("step \"resample\" failed"), "{error}");
    }

    #[test]
    fn a_prefix_depends_on_what_came_before_and_not_on_what_follows() {
        let prefixes = |steps: &str| -> Vec<String> {
            plan(steps, [9, 9, 9]).unwrap().steps.into_iter().map(|step| step.prefix).collect()
        };
        let base = prefixes(STEPS);
        let last = prefixes(&STEPS.replace("\"otsu\"", "\"otsu\"\nbins = 99"));
        assert_eq!((&base[..2], base[2] == last[2]), (&last[..2], false));
        let middle = prefixes(&STEPS.replace("\"gaussian\"", "\"gaussian\"\nsigma_mm = 2"));
        assert_eq!(
            (base[0] == middle[0], base[1] == middle[1], base[2] == middle[2]),
            (true, false, false)
        );
    }
}
