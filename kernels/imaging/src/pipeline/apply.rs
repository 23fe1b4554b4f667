//! One operation applied to what a step reads.

use std::borrow::Cow;

use super::operation::{How, Keep, Operation, Radius, Start};
use crate::compute::Compute;
use crate::error::ImagingError;
use crate::morphology::{self, Ball};
use crate::neighbourhood::Space;
use crate::volume::{Image, Mask};
use crate::{
    bias, diffusion, edge_segmentation, fast_marching, flood, intensity, laplacian, median,
    random_walker, region, seeded, seeds, smooth, surface, threshold, watershed,
};

/// Runs an operation that makes a mask from an image; returns nothing for any other.
pub(super) fn segment(
    operation: &Operation,
    image: &Image,
    with: Option<&Mask>,
    compute: &mut Compute,
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
        Operation::Canny(parameters) => compute.canny(image, parameters)?,
        Operation::EdgeSegmentation(parameters) => {
            edge_segmentation::edge_segmentation(image, parameters)?
        }
        Operation::ConnectedThreshold { seeds, parameters } => {
            compute.connected_threshold(image, &seeds_of(seeds), parameters)?
        }
        Operation::NeighbourhoodConnected { seeds, parameters } => {
            compute.neighbourhood_connected(image, &seeds_of(seeds), parameters)?
        }
        Operation::ConfidenceConnected { seeds, parameters } => {
            compute.confidence_connected(image, &seeds_of(seeds), parameters)?.mask
        }
        Operation::MultiOtsu { otsu, thresholds } => {
            threshold::classes(image, &threshold::multi_otsu(image, otsu, *thresholds)?)
        }
        Operation::LaplacianEdges(parameters) => laplacian::laplacian_edges(image, parameters)?,
        Operation::Flood { seeds, parameters } => {
            flood::flood(image, &seeds_of(seeds), parameters)?
        }
        Operation::IsolatedConnected { seeds, others, parameters } => {
            flood::isolated_connected(image, &seeds_of(seeds), others, parameters)?.mask
        }
        Operation::FastMarching { seeds, parameters } => {
            fast_marching::fast_marching(image, &seeds_of(seeds), parameters)?
        }
        Operation::SeededGrowing { start, connectivity } => {
            seeded::seeded_growing(image, &*labels_of(start, image, with)?, *connectivity)?
        }
        Operation::Watershed { start, connectivity } => {
            watershed::watershed(image, &*labels_of(start, image, with)?, *connectivity)?
        }
        Operation::RandomWalker { start, parameters } => {
            random_walker::random_walker(image, &*labels_of(start, image, with)?, parameters)?
        }
        Operation::LocalExtrema { which, connectivity } => {
            seeds::local_extrema(image, *which, *connectivity)
        }
        Operation::GridSeeds { every_mm } => seeds::grid(&image.geometry, *every_mm)?,
        _ => return Ok(None),
    }))
}

/// Returns the labels that seeded algorithms start from.
fn labels_of<'m>(
    start: &Start,
    image: &Image,
    with: Option<&'m Mask>,
) -> Result<Cow<'m, Mask>, ImagingError> {
    let core = |radius_voxels: &usize| Ball { radius_voxels: *radius_voxels, space: Space::Volume };
    Ok(match start {
        Start::Mask => Cow::Borrowed(with.ok_or_else(no_mask)?),
        Start::Seeds(seeds) => Cow::Owned(seeded::seeds_at(&image.geometry, seeds)?),
        Start::Ranges { ranges, core_voxels } => {
            Cow::Owned(seeded::seeds_in_ranges(image, ranges, &core(core_voxels))?)
        }
        Start::Otsu { core_voxels } => {
            let otsu = threshold::Otsu::default();
            Cow::Owned(seeded::seeds_by_otsu(image, &otsu, &core(core_voxels))?)
        }
    })
}

/// Runs an operation that makes an image for other steps, not for a network; returns nothing for any
/// other.
pub(super) fn filter(
    operation: &Operation,
    image: &Image,
    compute: &mut Compute,
) -> Result<Option<Image>, ImagingError> {
    Ok(Some(match operation {
        Operation::Gaussian(parameters) => compute.gaussian(image, parameters)?,
        Operation::Median(parameters) => median::median(image, parameters)?,
        Operation::CurvatureFlow(parameters) => smooth::curvature_flow(image, parameters)?,
        Operation::AnisotropicDiffusion(parameters) => {
            diffusion::anisotropic_diffusion(image, parameters)?
        }
        Operation::Gradient { operator, space } => compute.gradient(image, *operator, *space)?,
        Operation::Laplacian(parameters) => laplacian::laplacian_of_gaussian(image, parameters)?,
        Operation::Sigmoid { centre, width } => intensity::sigmoid(image, *centre, *width)?,
        _ => return Ok(None),
    }))
}

/// Runs an operation that changes the scale of the intensities; returns nothing for any other.
pub(super) fn scale(
    operation: &Operation,
    image: &Image,
    with: Option<&Mask>,
) -> Result<Option<Image>, ImagingError> {
    Ok(Some(match operation {
        Operation::Window(window) => intensity::window(image, window)?,
        Operation::Rescale { slope, intercept } => intensity::rescale(image, *slope, *intercept)?,
        Operation::Clip { low, high } => intensity::clip(image, *low, *high)?,
        Operation::ZScore => intensity::z_score(image, with)?,
        Operation::NormaliseCt(by) => intensity::normalise_ct(image, by)?,
        Operation::BiasCorrection(parameters) => bias::bias_correction(image, with, parameters)?,
        _ => return Ok(None),
    }))
}

/// Runs an operation that makes a mask from a mask; returns nothing for any other.
pub(super) fn refine(
    operation: &Operation,
    mask: &Mask,
    with: Option<&Mask>,
    compute: &mut Compute,
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
        Operation::Components(ref filter) => compute.filter(mask, filter)?,
        Operation::Dilate { radius, space } => compute.dilate(mask, &ball(radius, space))?,
        Operation::Erode { radius, space } => compute.erode(mask, &ball(radius, space))?,
        Operation::Open { radius, space } => compute.open(mask, &ball(radius, space))?,
        Operation::Close { radius, space } => compute.close(mask, &ball(radius, space))?,
        Operation::FillHoles(space) => morphology::fill_holes(mask, space),
        Operation::Surface => surface::surface(mask),
        Operation::Numbered(connectivity) => seeds::numbered(mask, connectivity)?,
        Operation::Select { label } => mask.each(|found| u8::from(found == label)),
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

pub(super) fn no_mask() -> ImagingError {
    ImagingError::Parameter { operation: "pipeline", problem: "there is no mask yet".to_owned() }
}
