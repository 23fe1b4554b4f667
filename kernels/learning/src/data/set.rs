//! The patches of samples on one scale, as a training sees them, epoch after epoch.
//!
//! Samples for which there is room are held in memory; of the others each patch is read from its shard
//! when it is wanted. Both give the same bits. What an epoch does to a patch (its place in the order,
//! mirroring, shift) depends only on seed, epoch and the patch's number.

use std::borrow::Cow;
use std::ops::Range;

use gantry_library::{SampleRecord, at_once};

use super::grid::{Normalisation, Scale};
use super::room::{Hold, Room};
use super::shelf::{Place, Shelf};
use crate::error::LearningError;
use crate::network::{Network, Patch, Task};
use crate::random::Random;
use crate::settings::Augmentation;

/// How far augmentation shifts intensities and stretches them.
const SHIFT: f64 = 0.1;
/// Patches that are read at once: where each is a question to a storage over a network, they are asked
/// together.
pub(super) const READS_AT_ONCE: usize = 8;

/// The slices of samples on one scale, and the patches that are cut from them.
pub(crate) struct DataSet<'a> {
    patch: Patch,
    task: Task,
    parts: Vec<Part<'a>>,
    /// The slices of each sample; what a sample lacks for one patch is added.
    pub(crate) samples: Vec<Range<usize>>,
    /// The first slice of each patch.
    pub(crate) patches: Vec<usize>,
    marked: usize,
    /// Whether reads are questions to a storage over a network.
    far: bool,
}

/// A sample.
enum Part<'a> {
    /// On its scale, with what it lacks for one patch.
    Held {
        images: Vec<f32>,
        /// 1 in the label, 0 elsewhere.
        masks: Vec<u8>,
        _hold: Hold,
    },
    Stored {
        shelf: &'a Shelf<'a>,
        place: &'a Place,
        scale: Scale,
    },
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

impl<'a> DataSet<'a> {
    /// The patches of samples. Those are held for which there is room.
    pub(crate) fn new(
        shelf: &'a Shelf<'a>,
        samples: &[&SampleRecord],
        normalisation: &Normalisation,
        network: Network,
        patch: Patch,
        room: &Room,
    ) -> Result<Self, LearningError> {
        let mut all = Self { far: shelf.is_far(), ..Self::empty(network, patch) };
        for sample in samples {
            let place = shelf.place(sample)?;
            let scale = normalisation.scale(&place.statistics);
            let slices = all.add(place.slices, place.marked);
            let stored = Part::Stored { shelf, place, scale };
            let part = match room.take(slices * patch.area() * BYTES_OF_VOXEL) {
                None => stored,
                Some(hold) => held(&stored, (place.slices, slices), patch, hold)?,
            };
            all.parts.push(part);
        }
        Ok(all)
    }

    fn empty(network: Network, patch: Patch) -> Self {
        let task = network.kind.task();
        let (samples, patches) = (Vec::new(), Vec::new());
        Self { patch, task, parts: Vec::new(), samples, patches, marked: 0, far: false }
    }

    /// Counts a sample's patches; returns how many slices it has with what it lacks for one.
    fn add(&mut self, slices: usize, marked: usize) -> usize {
        let first = self.slices();
        let firsts = self.patch.cover(slices);
        let all = firsts.last().map_or(0, |last| (last + self.patch.depth).max(slices));
        self.samples.push(first..first + all);
        self.patches.extend(firsts.into_iter().map(|one| first + one));
        self.marked += marked;
        all
    }

    /// How many slices there are.
    pub(crate) fn slices(&self) -> usize {
        self.samples.last().map_or(0, |sample| sample.end)
    }

    /// How many patches there are.
    pub(crate) fn len(&self) -> usize {
        self.patches.len()
    }

    /// Whether no pixel of any slice is labelled.
    pub(crate) fn is_unlabelled(&self) -> bool {
        self.marked == 0
    }

    /// The voxels of patches, by their first slices.
    pub(crate) fn images(&self, firsts: &[usize]) -> Result<Vec<f32>, LearningError> {
        let one = |first: &usize| self.image_of(self.slices_of(*first));
        let mut images = Vec::with_capacity(firsts.len() * self.patch.voxels());
        for some in firsts.chunks(READS_AT_ONCE) {
            for image in self.read(some, one)? {
                images.extend_from_slice(&image);
            }
        }
        Ok(images)
    }

    /// The slices of a patch.
    fn slices_of(&self, first: usize) -> Range<usize> {
        first..first + self.patch.depth
    }

    /// The first slices of the patches of a sample.
    pub(crate) fn of_sample(&self, sample: &Range<usize>) -> &[usize] {
        let before = |bound: usize| self.patches.partition_point(|&first| first < bound);
        &self.patches[before(sample.start)..before(sample.end)]
    }

    /// The labels of slices of one sample.
    pub(crate) fn masks(&self, slices: Range<usize>) -> Result<Cow<'_, [u8]>, LearningError> {
        let area = self.patch.area();
        let (part, own) = self.part(&slices);
        part.masks(own, area)
    }

    /// The voxels of slices of one sample.
    fn image_of(&self, slices: Range<usize>) -> Result<Cow<'_, [f32]>, LearningError> {
        let area = self.patch.area();
        let (part, own) = self.part(&slices);
        part.images(own, area)
    }

    /// The sample that has these slices, and which of its own they are.
    fn part(&self, slices: &Range<usize>) -> (&Part<'a>, Range<usize>) {
        let number = self.samples.partition_point(|sample| sample.end <= slices.start);
        let first = self.samples[number].start;
        (&self.parts[number], slices.start - first..slices.end - first)
    }

    /// Does a read for each item, all at once where that is faster.
    fn read<T: Sync, R: Send>(
        &self,
        items: &[T],
        read: impl Fn(&T) -> Result<R, LearningError> + Sync,
    ) -> Result<Vec<R>, LearningError> {
        if self.far {
            at_once(items, READS_AT_ONCE, read)
        } else {
            items.iter().map(read).collect()
        }
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
    ) -> Result<Batch, LearningError> {
        let side = self.patch.side;
        let voxels = patches.len() * self.patch.voxels();
        let mut batch = Batch { images: Vec::with_capacity(voxels), labels: Vec::new() };
        let both = |patch: &usize| {
            let slices = self.slices_of(self.patches[*patch]);
            Ok((self.image_of(slices.clone())?, self.masks(slices)?))
        };
        for some in patches.chunks(READS_AT_ONCE) {
            for (patch, (image, labels)) in some.iter().zip(self.read(some, both)?) {
                let mut random = Random::new(seed, "augmentation", u64::from(epoch), *patch as u64);
                let change = Change::draw(augmentation, &mut random);
                for row in image.chunks_exact(side) {
                    let value = |value| value * change.stretch + change.shift;
                    change.row(row, &mut batch.images, value);
                }
                match self.task {
                    Task::Segmentation => labels
                        .chunks_exact(side)
                        .for_each(|row| change.row(row, &mut batch.labels, |label| label)),
                    Task::Classification => batch.labels.push(shows(&labels)),
                }
            }
        }
        Ok(batch)
    }
}

/// Bytes of a voxel and its label.
pub(super) const BYTES_OF_VOXEL: usize = size_of::<f32>() + 1;

/// Reads a stored sample, of so many slices, into memory, where it gets so many.
fn held<'a>(
    stored: &Part<'a>,
    (own, slices): (usize, usize),
    patch: Patch,
    hold: Hold,
) -> Result<Part<'a>, LearningError> {
    let Part::Stored { shelf, place, .. } = stored else { return Ok(Part::none(hold)) };
    let area = patch.area();
    let mut images = Vec::with_capacity(slices * area);
    let mut masks = Vec::with_capacity(slices * area);
    // What is behind its own slices comes with no read.
    for piece in shelf.pieces(place).chain((own < slices).then_some(own..slices)) {
        images.extend_from_slice(&stored.images(piece.clone(), area)?);
        masks.extend_from_slice(&stored.masks(piece, area)?);
    }
    Ok(Part::Held { images, masks, _hold: hold })
}

impl Part<'_> {
    fn none(hold: Hold) -> Self {
        Self::Held { images: Vec::new(), masks: Vec::new(), _hold: hold }
    }

    fn images(&self, slices: Range<usize>, area: usize) -> Result<Cow<'_, [f32]>, LearningError> {
        match self {
            Self::Held { images, .. } => {
                Ok(Cow::Borrowed(&images[slices.start * area..slices.end * area]))
            }
            Self::Stored { shelf, place, scale } => {
                let mut images = shelf.image(place, place.within(&slices))?;
                for value in &mut images {
                    *value = scale.apply(*value);
                }
                images.resize(slices.len() * area, scale.apply(place.statistics.lowest));
                Ok(Cow::Owned(images))
            }
        }
    }

    fn masks(&self, slices: Range<usize>, area: usize) -> Result<Cow<'_, [u8]>, LearningError> {
        match self {
            Self::Held { masks, .. } => {
                Ok(Cow::Borrowed(&masks[slices.start * area..slices.end * area]))
            }
            Self::Stored { shelf, place, .. } => {
                let mut masks = shelf.mask(place, place.within(&slices))?;
                masks.resize(slices.len() * area, 0);
                Ok(Cow::Owned(masks))
            }
        }
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

/// A sample whose values rise from 0; those above 30 are labelled.
#[cfg(test)]
pub(crate) fn rising(
    network: Network,
    side: usize,
    depth: usize,
    slices: usize,
) -> DataSet<'static> {
    use gantry_imaging::{Geometry, Image};

    let geometry = Geometry::new([side, side, slices], [1.0, 1.0, 5.0]);
    let values = (0..geometry.voxels()).map(|value| value as f32).collect();
    let image = Image { geometry, voxels: values };
    let statistics = super::grid::Statistics::of(&image);
    let scale = Normalisation::PerImage.scale(&statistics);
    let patch = Patch { depth, side };
    let mut set = DataSet::empty(network, patch);
    let mut masks: Vec<u8> = image.voxels.iter().map(|&value| u8::from(value > 30.0)).collect();
    let marked = masks.iter().filter(|&&label| label != 0).count();
    let voxels = set.add(slices, marked) * patch.area();
    let mut images: Vec<f32> = image.voxels.iter().map(|&value| scale.apply(value)).collect();
    images.resize(voxels, scale.apply(statistics.lowest));
    masks.resize(voxels, 0);
    set.parts.push(Part::Held { images, masks, _hold: Hold::default() });
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{NetworkKind, Supervision};

    fn network(kind: NetworkKind) -> Network {
        Network { kind, base_channels: 4, classes: 2, supervision: Supervision::Top }
    }

    fn set() -> DataSet<'static> {
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
        let batch = set.batch(&[1], Augmentation::None, 1, 0).unwrap();
        assert_eq!((batch.images.clone(), batch.labels.len()), (set.images(&[1]).unwrap(), 32));
        assert_eq!(batch.images[16..], set.images(&[1]).unwrap()[16..]);
        let short = rising(kind, 4, 8, 3);
        assert_eq!((short.len(), &short.samples[0]), (1, &(0..8)));
        assert!(
            short.images(&[0]).unwrap()[48..]
                .iter()
                .all(|value| *value == short.images(&[0]).unwrap()[0])
        );
        assert_eq!(shows(&short.masks(3..8).unwrap()), 0);
        assert_eq!(set.of_sample(&(0..3)), [0, 1]);
    }

    #[test]
    fn a_classifier_learns_whether_a_slice_shows_the_label() {
        // Slices 0 and 1 have values up to 15 and 31.
        let set = rising(network(NetworkKind::ResNet18), 4, 1, 3);
        let batch = set.batch(&[0, 1, 2], Augmentation::MirrorAndShift, 1, 0).unwrap();
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
    fn an_epoch_sees_each_slice_once_and_mirrors_picture_and_label_alike() {
        let set = set();
        assert_eq!(set.len(), 3);
        assert!((1..9).any(|epoch| set.order(1, epoch) != set.order(1, 0)));
        assert_eq!(set.order(1, 0), set.order(1, 0));
        let plain = set.batch(&[1], Augmentation::None, 1, 0).unwrap();
        assert_eq!(plain.images, set.images(&[1]).unwrap());
        let mut mirrored = 0;
        for epoch in 0..32 {
            let varied = set.batch(&[1], Augmentation::MirrorAndShift, 1, epoch).unwrap();
            let again = set.batch(&[0, 1], Augmentation::MirrorAndShift, 1, epoch).unwrap();
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
