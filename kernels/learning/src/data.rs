//! Samples as a network takes them: square slices of one size, or stacks of such slices, with
//! intensities on one scale.
//!
//! An image is laid on a grid of square pixels whose side is its longer side, so that shapes keep
//! their proportions; along z the slices stay as they are, but for a network that sees stacks of them:
//! for that they are as far apart as the training set's usually are. Where pixels grow it is smoothed first.
//! CT is put on the scale of the training set's foreground (nnU-Net's rule: the same Hounsfield
//! value is the same number in every image), everything else on the image's own.
//!
//! All slices are held in memory, at most [`SLICES_MAX`] of them. What an epoch does to a patch
//! (its place in the order, mirroring, shift) depends only on seed, epoch and the patch's number.

use std::ops::Range;

use gantry_imaging::gaussian::{Gaussian, SIGMA_VOXELS_MAX, gaussian};
use gantry_imaging::intensity::CtNormalisation;
use gantry_imaging::neighbourhood::Space;
use gantry_imaging::{Geometry, Image, Mask, nifti, resample};
use gantry_library::{Library, SampleRecord};
use serde::{Deserialize, Serialize};

use crate::error::LearningError;
use crate::network::{Network, Patch, Task};
use crate::random::Random;
use crate::settings::Augmentation;

/// Slices of one training: at 64 × 64 pixels they take 1.3 GiB.
const SLICES_MAX: usize = 1 << 16;
/// Foreground pixels that the training set's scale is taken from.
const STATISTICS_MAX: usize = 1 << 20;
/// How far augmentation shifts intensities and stretches them.
const SHIFT: f64 = 0.1;

/// How intensities become what the network sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// By the foreground of the whole training set, for CT.
    Ct(CtNormalisation),
    /// By the image's own mean and deviation.
    PerImage,
}

/// The scale of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    low: f32,
    high: f32,
    mean: f32,
    deviation: f32,
}

impl Scale {
    pub(crate) fn apply(self, value: f32) -> f32 {
        (value.clamp(self.low, self.high) - self.mean) / self.deviation
    }
}

/// What an image is like as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistics {
    /// The lowest value: what is taken to lie around the image.
    pub(crate) lowest: f32,
    mean: f64,
    deviation: f64,
}

impl Statistics {
    pub(crate) fn of(image: &Image) -> Self {
        let finite = || image.voxels.iter().copied().filter(|value| value.is_finite());
        let count = finite().count().max(1) as f64;
        let mean = finite().map(f64::from).sum::<f64>() / count;
        let variance = finite().map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        let lowest = finite().reduce(f32::min).unwrap_or(0.0);
        Self { lowest, mean, deviation: variance.sqrt() }
    }
}

impl Normalisation {
    /// The rule for these samples: CT's where all are CT and the mask marks anything.
    pub(crate) fn of(samples: &[&SampleRecord], prepared: &[Prepared]) -> Self {
        if samples.iter().any(|sample| sample.modality != "CT") {
            return Self::PerImage;
        }
        let pairs: Vec<_> = prepared.iter().map(|one| (&one.image, &one.mask)).collect();
        CtNormalisation::of(&pairs, STATISTICS_MAX).map_or(Self::PerImage, |found| {
            // Whole thousandths read back from JSON exactly, so that a resumed run sees the same.
            let round = |value: f64| (value * 1000.0).round() / 1000.0;
            Self::Ct(CtNormalisation {
                low: round(found.low),
                high: round(found.high),
                mean: round(found.mean),
                deviation: round(found.deviation),
            })
        })
    }

    /// The scale for an image.
    pub(crate) fn scale(&self, image: &Statistics) -> Scale {
        let (low, high, mean, deviation) = match self {
            Self::Ct(ct) => (ct.low as f32, ct.high as f32, ct.mean, ct.deviation),
            Self::PerImage => (f32::MIN, f32::MAX, image.mean, image.deviation),
        };
        // Order matters to clamp even where a damaged record gives the bounds.
        let (low, high) = (low.min(high), high.max(low));
        Scale { low, high, mean: mean as f32, deviation: deviation.max(1e-3) as f32 }
    }
}

/// Returns the grid of `side` × `side` square pixels that covers a slice, slices as they are or so far
/// apart.
pub(crate) fn square_grid(source: &Geometry, side: usize, slice_mm: Option<f64>) -> Geometry {
    let extent = |axis: usize| source.size[axis] as f64 * source.spacing_mm[axis];
    let pitch = extent(0).max(extent(1)) / side as f64;
    let (slices, apart) = match slice_mm {
        Some(apart) if source.size[2] > 0 => {
            let slices = (extent(2) / apart).round().clamp(1.0, SLICES_MAX as f64);
            (slices as usize, extent(2) / slices)
        }
        _ => (source.size[2], source.spacing_mm[2]),
    };
    let mut grid =
        Geometry { size: [side, side, slices], spacing_mm: [pitch, pitch, apart], ..*source };
    let middle = |size: [usize; 3]| size.map(|count| (count as f64 - 1.0) / 2.0);
    let (from, to) =
        (source.to_patient_mm(middle(source.size)), grid.to_patient_mm(middle(grid.size)));
    for axis in 0..3 {
        grid.origin_mm[axis] += from[axis] - to[axis];
    }
    grid
}

/// Returns the image on its square grid; what lies outside it has the value `around`.
pub(crate) fn to_square(
    image: &Image,
    side: usize,
    slice_mm: Option<f64>,
    around: f32,
) -> Result<Image, LearningError> {
    let grid = square_grid(&image.geometry, side, slice_mm);
    let finite = image.map(|&value| if value.is_finite() { value } else { around });
    let finest = image.geometry.spacing_mm[0].min(image.geometry.spacing_mm[1]);
    let pitch = grid.spacing_mm[0];
    if pitch < 1.5 * finest {
        return Ok(resample::image_onto(&finite, &grid, around)?);
    }
    // Pixels that are long and thin beyond all reason are smoothed as far as the operation goes.
    let sigma_mm = (pitch / 2.0).min(SIGMA_VOXELS_MAX * finest);
    let smooth = gaussian(&finite, &Gaussian { sigma_mm, space: Space::Slice })?;
    Ok(resample::image_onto(&smooth, &grid, around)?)
}

/// One sample on its square grid, not yet on a scale.
pub(crate) struct Prepared {
    image: Image,
    mask: Mask,
    statistics: Statistics,
}

/// Reads samples from the library and lays them on their square grids.
pub(crate) fn prepare(
    library: &Library,
    samples: &[&SampleRecord],
    side: usize,
    slice_mm: Option<f64>,
) -> Result<Vec<Prepared>, LearningError> {
    let slices = samples.iter().map(|sample| sample.size[2]).sum();
    if slices > SLICES_MAX {
        return Err(LearningError::TooMany { slices, limit: SLICES_MAX });
    }
    let one = |sample: &&SampleRecord| {
        let image = nifti::read(&library.read_object(&sample.image)?)?;
        let mask = nifti::read_mask(&library.read_object(&sample.mask)?)?;
        image.require_same_grid(&mask)?;
        let statistics = Statistics::of(&image);
        let mask = resample::mask_onto(&mask, &square_grid(&image.geometry, side, slice_mm))?;
        let image = to_square(&image, side, slice_mm, statistics.lowest)?;
        Ok(Prepared { image, mask, statistics })
    };
    samples.iter().map(one).collect()
}

/// How far slices of these samples usually are apart: the median, in whole thousandths of a millimetre,
/// which read back from JSON exactly.
pub(crate) fn usual_slice_mm(samples: &[&SampleRecord]) -> Option<f64> {
    let mut all: Vec<f64> = samples.iter().map(|sample| sample.spacing_mm[2]).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).map(|apart| (apart * 1000.0).round() / 1000.0)
}

/// The slices of samples on one scale, and the patches that are cut from them.
pub(crate) struct DataSet {
    patch: Patch,
    task: Task,
    images: Vec<f32>,
    /// 1 in the label, 0 elsewhere.
    masks: Vec<u8>,
    /// The slices of each sample; what a sample lacks for one patch is added.
    pub(crate) samples: Vec<Range<usize>>,
    /// The first slice of each patch.
    pub(crate) patches: Vec<usize>,
}

/// A batch of patches: voxels, and their labels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Batch {
    /// Patch, slice, row, column.
    pub(crate) images: Vec<f32>,
    /// The class of each voxel in the same order, or of each patch.
    pub(crate) labels: Vec<u8>,
}

/// What the labels of patches, so many each, are as a target: patch, class, label, 1 in the label's class
/// and 0 elsewhere.
pub(crate) fn target_of(all: &[u8], labels: usize, classes: usize) -> Vec<f32> {
    let mut target = Vec::with_capacity(all.len() * classes);
    for labels in all.chunks_exact(labels) {
        for class in 0..classes {
            let of = |&label: &u8| f32::from(u8::from(usize::from(label) == class));
            target.extend(labels.iter().map(of));
        }
    }
    target
}

/// The labels of patches whose sides are halved so often: of each group of voxels the first, as
/// `PyTorch`'s nearest has it. Slices are halved where the network halves them.
pub(crate) fn thinned(labels: &[u8], patch: Patch, axes: usize, halved: u32) -> Vec<u8> {
    let step = 1 << halved;
    let slices = (0..patch.depth).step_by(if axes == 3 { step } else { 1 });
    let along = || (0..patch.side).step_by(step);
    let place =
        |slice: usize, row: usize, column: usize| slice * patch.area() + row * patch.side + column;
    let places: Vec<usize> = slices
        .flat_map(|slice| {
            along().flat_map(move |row| along().map(move |column| place(slice, row, column)))
        })
        .collect();
    let one = |patch: &[u8]| places.iter().map(|&place| patch[place]).collect::<Vec<u8>>();
    labels.chunks_exact(patch.voxels()).flat_map(one).collect()
}

impl DataSet {
    pub(crate) fn new(
        prepared: Vec<Prepared>,
        normalisation: &Normalisation,
        network: Network,
        patch: Patch,
    ) -> Self {
        let task = network.kind.task();
        let (images, masks) = (Vec::new(), Vec::new());
        let mut all = Self { patch, task, images, masks, samples: Vec::new(), patches: Vec::new() };
        for one in prepared {
            let scale = normalisation.scale(&one.statistics);
            let first = all.slices();
            all.images.extend(one.image.voxels.iter().map(|&value| scale.apply(value)));
            all.masks.extend(one.mask.voxels.iter().map(|&label| u8::from(label != 0)));
            let firsts = patch.cover(all.slices() - first);
            if let Some(last) = firsts.last() {
                let end = (first + last + patch.depth).max(all.slices());
                all.images.resize(end * patch.area(), scale.apply(one.statistics.lowest));
                all.masks.resize(end * patch.area(), 0);
            }
            all.samples.push(first..all.slices());
            all.patches.extend(firsts.into_iter().map(|one| first + one));
        }
        all
    }

    /// How many slices there are.
    pub(crate) fn slices(&self) -> usize {
        self.masks.len() / self.patch.area()
    }

    /// How many patches there are.
    pub(crate) fn len(&self) -> usize {
        self.patches.len()
    }

    /// Whether no pixel of any slice is labelled.
    pub(crate) fn is_unlabelled(&self) -> bool {
        self.masks.iter().all(|&label| label == 0)
    }

    /// The voxels of patches, by their first slices.
    pub(crate) fn images(&self, firsts: &[usize]) -> Vec<f32> {
        let area = self.patch.area();
        let one = |first: &usize| &self.images[first * area..first * area + self.patch.voxels()];
        firsts.iter().flat_map(one).copied().collect()
    }

    /// The first slices of the patches of a sample.
    pub(crate) fn of_sample(&self, sample: &Range<usize>) -> &[usize] {
        let before = |bound: usize| self.patches.partition_point(|&first| first < bound);
        &self.patches[before(sample.start)..before(sample.end)]
    }

    /// The labels of slices.
    pub(crate) fn masks(&self, slices: Range<usize>) -> &[u8] {
        let area = self.patch.area();
        &self.masks[slices.start * area..slices.end * area]
    }

    /// Every patch once, in the order of an epoch.
    pub(crate) fn order(&self, seed: u64, epoch: u32) -> Vec<usize> {
        Random::new(seed, "order", u64::from(epoch), 0).order(self.len())
    }

    /// Patches as an epoch sees them.
    pub(crate) fn batch(
        &self,
        patches: &[usize],
        augmentation: Augmentation,
        seed: u64,
        epoch: u32,
    ) -> Batch {
        let (area, side) = (self.patch.area(), self.patch.side);
        let voxels = patches.len() * self.patch.voxels();
        let mut batch = Batch { images: Vec::with_capacity(voxels), labels: Vec::new() };
        for &patch in patches {
            let mut random = Random::new(seed, "augmentation", u64::from(epoch), patch as u64);
            let change = Change::draw(augmentation, &mut random);
            let first = self.patches[patch] * area;
            let within = first..first + self.patch.voxels();
            for row in self.images[within.clone()].chunks_exact(side) {
                change.row(row, &mut batch.images, |value| value * change.stretch + change.shift);
            }
            let labels = &self.masks[within];
            match self.task {
                Task::Segmentation => labels
                    .chunks_exact(side)
                    .for_each(|row| change.row(row, &mut batch.labels, |label| label)),
                Task::Classification => batch.labels.push(shows(labels)),
            }
        }
        batch
    }
}

/// The class of a slice: 1 where any of its pixels is labelled.
pub(crate) fn shows(labels: &[u8]) -> u8 {
    u8::from(labels.iter().any(|&label| label != 0))
}

/// How a patch is varied.
struct Change {
    direction: Direction,
    stretch: f32,
    shift: f32,
}

enum Direction {
    Straight,
    Mirrored,
}

impl Change {
    fn draw(augmentation: Augmentation, random: &mut Random) -> Self {
        match augmentation {
            Augmentation::None => Self { direction: Direction::Straight, stretch: 1.0, shift: 0.0 },
            Augmentation::MirrorAndShift => {
                let direction =
                    if random.below(2) == 0 { Direction::Straight } else { Direction::Mirrored };
                let mut around = || (SHIFT * (2.0 * random.unit() - 1.0)) as f32;
                Self { direction, stretch: 1.0 + around(), shift: around() }
            }
        }
    }

    fn row<T: Copy, U>(&self, row: &[T], to: &mut Vec<U>, value: impl Fn(T) -> U) {
        match self.direction {
            Direction::Straight => to.extend(row.iter().map(|&one| value(one))),
            Direction::Mirrored => to.extend(row.iter().rev().map(|&one| value(one))),
        }
    }
}

/// Puts an image that lies on its square grid on a scale.
pub(crate) fn on_scale(image: &Image, scale: Scale) -> Vec<f32> {
    image.voxels.iter().map(|&value| scale.apply(value)).collect()
}

/// A sample whose values rise from 0; those above 30 are labelled.
#[cfg(test)]
pub(crate) fn rising(network: Network, side: usize, depth: usize, slices: usize) -> DataSet {
    let geometry = Geometry::new([side, side, slices], [1.0, 1.0, 5.0]);
    let values = (0..geometry.voxels()).map(|value| value as f32).collect();
    let image = Image { geometry, voxels: values };
    let mask = image.map(|&value| u8::from(value > 30.0));
    let statistics = Statistics::of(&image);
    let prepared = vec![Prepared { image, mask, statistics }];
    DataSet::new(prepared, &Normalisation::PerImage, network, Patch { depth, side })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{NetworkKind, Supervision};

    fn network(kind: NetworkKind) -> Network {
        Network { kind, base_channels: 4, classes: 2, supervision: Supervision::Top }
    }

    fn set() -> DataSet {
        rising(network(NetworkKind::UNet2d), 4, 1, 3)
    }

    #[test]
    fn stacks_of_slices_are_half_over_each_other_and_short_samples_are_filled_up() {
        let kind = network(NetworkKind::UNet3d);
        let set = rising(kind, 4, 2, 3);
        assert_eq!(
            (&set.patches[..], &set.samples[0], set.samples.len()),
            (&[0, 1][..], &(0..3), 1)
        );
        let batch = set.batch(&[1], Augmentation::None, 1, 0);
        assert_eq!((batch.images.clone(), batch.labels.len()), (set.images(&[1]), 32));
        assert_eq!(batch.images[16..], set.images(&[1])[16..]);
        let short = rising(kind, 4, 8, 3);
        assert_eq!((short.len(), &short.samples[0]), (1, &(0..8)));
        assert!(short.images(&[0])[48..].iter().all(|value| *value == short.images(&[0])[0]));
        assert_eq!(shows(short.masks(3..8)), 0);
        assert_eq!(set.of_sample(&(0..3)), [0, 1]);
    }

    #[test]
    fn slices_are_laid_as_far_apart_as_is_wanted() {
        let source = Geometry::new([8, 8, 10], [1.0, 1.0, 2.0]);
        let grid = square_grid(&source, 8, Some(5.0));
        assert_eq!((grid.size, grid.spacing_mm), ([8, 8, 4], [1.0, 1.0, 5.0]));
        let (a, b) = (source.to_patient_mm([0.0, 0.0, 4.5]), grid.to_patient_mm([0.0, 0.0, 1.5]));
        assert!((a[2] - b[2]).abs() < 1e-9, "{a:?} {b:?}");
        let image = Image::filled(source, 3.0);
        let square = to_square(&image, 8, Some(5.0), 0.0).unwrap();
        assert!(square.voxels.iter().all(|value| (value - 3.0).abs() < 1e-6));
    }

    #[test]
    fn a_classifier_learns_whether_a_slice_shows_the_label() {
        // Slices 0 and 1 have values up to 15 and 31.
        let set = rising(network(NetworkKind::ResNet18), 4, 1, 3);
        let batch = set.batch(&[0, 1, 2], Augmentation::MirrorAndShift, 1, 0);
        assert_eq!(batch.labels, [0, 1, 1]);
        assert_eq!(target_of(&batch.labels, 1, 2), [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn the_first_voxel_of_each_group_gives_its_label() {
        let patch = Patch { depth: 2, side: 4 };
        let labels: Vec<u8> = (0..64).collect();
        assert_eq!(thinned(&labels, patch, 3, 0), labels);
        assert_eq!(thinned(&labels, patch, 3, 1), [0, 2, 8, 10, 32, 34, 40, 42]);
        assert_eq!(thinned(&labels, patch, 2, 2), [0, 16, 32, 48]);
    }

    #[test]
    fn square_grids_keep_proportions_and_place() {
        let source =
            Geometry { origin_mm: [5.0, -7.0, 3.0], ..Geometry::new([40, 20, 6], [0.5, 0.7, 3.0]) };
        let grid = square_grid(&source, 16, None);
        assert_eq!(grid.size, [16, 16, 6]);
        assert!((grid.spacing_mm[0] - 20.0 / 16.0).abs() < 1e-12);
        assert!((grid.spacing_mm[1] - grid.spacing_mm[0]).abs() < 1e-12);
        let (a, b) = (source.to_patient_mm([19.5, 9.5, 2.0]), grid.to_patient_mm([7.5, 7.5, 2.0]));
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9), "{a:?} {b:?}");
        let image = Image::filled(source, 100.0);
        let square = to_square(&image, 16, None, -1000.0).unwrap();
        assert!((square.at(8, 8, 0) - 100.0).abs() < 1e-3 && *square.at(8, 0, 0) == -1000.0);
    }

    #[test]
    fn damaged_values_do_not_spread() {
        let mut image = Image::filled(Geometry::unit([32, 32, 1]), 1.0);
        image.voxels[40] = f32::NAN;
        image.voxels[41] = f32::INFINITY;
        let statistics = Statistics::of(&image);
        let square = to_square(&image, 16, None, statistics.lowest).unwrap();
        let scaled = on_scale(&square, Normalisation::PerImage.scale(&statistics));
        assert!(scaled.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn an_epoch_sees_each_slice_once_and_mirrors_picture_and_label_alike() {
        let set = set();
        assert_eq!(set.len(), 3);
        assert!((1..9).any(|epoch| set.order(1, epoch) != set.order(1, 0)));
        assert_eq!(set.order(1, 0), set.order(1, 0));
        let plain = set.batch(&[1], Augmentation::None, 1, 0);
        assert_eq!(plain.images, set.images(&[1]));
        let mut mirrored = 0;
        for epoch in 0..32 {
            let varied = set.batch(&[1], Augmentation::MirrorAndShift, 1, epoch);
            let again = set.batch(&[0, 1], Augmentation::MirrorAndShift, 1, epoch);
            assert_eq!(varied.images, again.images[16..], "neighbours in the batch do not matter");
            let rising = varied.images[0] < varied.images[3];
            mirrored += u32::from(!rising);
            let labels = &target_of(&varied.labels, 16, 2)[16..];
            // Slice 1 has values 16 to 31: only the last, 31, is labelled.
            assert_eq!(labels[if rising { 15 } else { 12 }], 1.0, "{labels:?}");
            assert_eq!(labels.iter().sum::<f32>(), 1.0);
        }
        assert!((8..=24).contains(&mirrored), "{mirrored}");
    }
}
