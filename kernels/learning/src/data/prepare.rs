//! Preparing samples, and writing them into a shard of the library.
//!
//! One sample is at hand at a time. What is written follows from the samples and the preparation alone, so
//! that whoever makes a shard anew makes the same.

use std::fmt::Write as _;
use std::path::Path;

use gantry_imaging::shards::{ShardWriter, member_bytes, npy_header};
use gantry_imaging::{Geometry, nifti, resample};
use gantry_library::{Library, SampleRecord, ShardMember, ShardRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::grid::{Statistics, square_grid, to_square};
use crate::error::LearningError;

/// Raised whenever the same samples are prepared to other numbers than before.
const VERSION: u32 = 1;
/// Slices of one shard, and samples: so that its record stays below the most that a record may have.
const SHARD_SLICES_MAX: usize = 1 << 16;
const SHARD_SAMPLES_MAX: usize = 2048;

/// How samples are prepared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Preparation {
    /// Pixels along a side of a slice.
    pub(crate) side: usize,
    /// How far slices are apart, in mm; as they are where nothing is said.
    pub(crate) slice_mm: Option<f64>,
}

impl Preparation {
    /// The same words give the same numbers.
    pub(super) fn words(&self) -> String {
        let apart = self.slice_mm.map_or("as they are".to_owned(), |mm| format!("{mm} mm apart"));
        format!("square grid, version {VERSION}, side {}, slices {apart}", self.side)
    }

    /// How many slices a sample will have.
    pub(super) fn slices(&self, sample: &SampleRecord) -> usize {
        square_grid(&Geometry::new(sample.size, sample.spacing_mm), self.side, self.slice_mm).size
            [2]
    }

    pub(super) fn area(&self) -> usize {
        self.side * self.side
    }

    /// How many bytes a sample will take in a shard.
    fn bytes(&self, sample: &SampleRecord) -> u64 {
        let pixels = (self.slices(sample) * self.area()) as u64;
        // Of headers and the text some hundred bytes.
        member_bytes(4 * pixels + 128) + member_bytes(pixels + 128) + member_bytes(1024)
    }
}

/// What the record of a shard says of a sample. Numbers that count bit for bit are kept as bits.
#[derive(Serialize, Deserialize)]
pub(super) struct About {
    pub(super) slices: usize,
    pub(super) marked: usize,
    pub(super) lowest_bits: u32,
    pub(super) mean_bits: u64,
    pub(super) deviation_bits: u64,
    pub(super) image_at: u64,
    pub(super) label_at: u64,
    /// The CRC-32 of each slice, in eight digits each.
    pub(super) image_sums: String,
    pub(super) label_sums: String,
}

/// Samples by the shards that they will be in, in the order of their ids.
pub(super) fn grouped<'a>(
    preparation: Preparation,
    samples: &[&'a SampleRecord],
    shard_bytes: u64,
) -> Vec<Vec<&'a SampleRecord>> {
    let mut groups: Vec<Vec<&SampleRecord>> = Vec::new();
    let (mut bytes, mut slices) = (0, 0);
    for sample in samples {
        let (more, others) = (preparation.bytes(sample), preparation.slices(sample));
        match groups.last_mut() {
            Some(group)
                if bytes + more <= shard_bytes
                    && slices + others <= SHARD_SLICES_MAX
                    && group.len() < SHARD_SAMPLES_MAX =>
            {
                group.push(sample);
                (bytes, slices) = (bytes + more, slices + others);
            }
            _ => {
                groups.push(vec![sample]);
                (bytes, slices) = (more, others);
            }
        }
    }
    groups
}

/// Prepares samples one after the other, and keeps them as a shard.
pub(super) fn make(
    library: &Library,
    preparation: Preparation,
    samples: &[&SampleRecord],
) -> Result<ShardRecord, LearningError> {
    let bytes = samples.iter().map(|sample| preparation.bytes(sample)).sum();
    let mut shard = ShardWriter::new(library.object_writer(bytes)?);
    let mut members = Vec::with_capacity(samples.len());
    for (number, sample) in samples.iter().enumerate() {
        let about = put(library, preparation, sample, (&mut shard, number))?;
        let SampleRecord { id, image, mask, .. } = (*sample).clone();
        members.push(ShardMember { sample: id, image, mask, about: as_value(&about)? });
    }
    let object = shard.finish().map_err(not_written)?.finish()?;
    Ok(library.keep_shard(&preparation.words(), object, members)?)
}

fn as_value(about: &impl Serialize) -> Result<Value, LearningError> {
    serde_json::to_value(about)
        .map_err(|error| LearningError::Damaged(format!("a shard's record: {error}")))
}

fn not_written(source: std::io::Error) -> LearningError {
    LearningError::file("writing", Path::new("a shard of prepared samples"), source)
}

/// Prepares a sample and puts it into a shard under a number.
fn put<W: std::io::Write>(
    library: &Library,
    preparation: Preparation,
    sample: &SampleRecord,
    (shard, number): (&mut ShardWriter<W>, usize),
) -> Result<About, LearningError> {
    let Preparation { side, slice_mm } = preparation;
    let image = nifti::read(&library.read_object(&sample.image)?)?;
    let mask = nifti::read_mask(&library.read_object(&sample.mask)?)?;
    image.require_same_grid(&mask)?;
    let statistics = Statistics::of(&image);
    let mask = resample::mask_onto(&mask, &square_grid(&image.geometry, side, slice_mm))?;
    let image = to_square(&image, side, slice_mm, statistics.lowest)?;
    let [x, y, slices] = image.geometry.size;
    let voxels: Vec<u8> = image.voxels.iter().flat_map(|value| value.to_le_bytes()).collect();
    let spacing_mm = image.geometry.spacing_mm;
    drop(image);
    let labels: Vec<u8> = mask.voxels.iter().map(|&label| u8::from(label != 0)).collect();
    let mut array = |name: &str, kind: &str, bytes: &[u8]| {
        let header = npy_header(kind, &[slices, y, x]);
        let name = format!("{number:06}.{name}.npy");
        let at = shard.append(&name, &[&header, bytes]).map_err(not_written)?;
        Ok::<_, LearningError>(at + header.len() as u64)
    };
    let image_at = array("image", "<f4", &voxels)?;
    let label_at = array("label", "|u1", &labels)?;
    let Statistics { lowest, mean, deviation } = statistics;
    let text = json!({
        "sample": sample.id,
        "image": sample.image,
        "mask": sample.mask,
        "label": sample.label,
        "modality": sample.modality,
        "spacing_mm": spacing_mm,
        "lowest": lowest,
        "mean": mean,
        "deviation": deviation,
    });
    let text = format!("{text:#}\n");
    shard.append(&format!("{number:06}.json"), &[text.as_bytes()]).map_err(not_written)?;
    Ok(About {
        slices,
        marked: labels.iter().filter(|&&label| label != 0).count(),
        lowest_bits: lowest.to_bits(),
        mean_bits: mean.to_bits(),
        deviation_bits: deviation.to_bits(),
        image_at,
        label_at,
        image_sums: sums(&voxels, 4 * side * side),
        label_sums: sums(&labels, side * side),
    })
}

/// The sums of slices of so many bytes.
fn sums(bytes: &[u8], each: usize) -> String {
    bytes.chunks_exact(each).fold(String::new(), |mut text, slice| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{:08x}", crc32fast::hash(slice));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(slices: &[usize]) -> Vec<SampleRecord> {
        let one = |(number, slices): (usize, &usize)| {
            let record = json!({
                "id": format!("{number:016x}"), "series": "0".repeat(16), "patient": "0".repeat(16),
                "modality": "CT", "label": "lungs", "image": "0".repeat(64), "mask": "0".repeat(64),
                "size": [32, 32, slices], "spacing_mm": [0.7, 0.7, 2.5], "mask_voxels": 1,
                "volume_ml": 1.0, "created_ms": 0,
                "provenance": {
                    "sources": [], "pipeline": "p", "pipeline_hash": "0", "program": "t",
                    "author": "auto",
                },
            });
            serde_json::from_value(record).unwrap()
        };
        slices.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_shard_is_full_by_its_bytes_slices_or_samples() {
        let sizes = |slices: &[usize], bytes| -> Vec<usize> {
            let samples = samples(slices);
            let preparation = Preparation { side: 16, slice_mm: None };
            let all: Vec<&SampleRecord> = samples.iter().collect();
            grouped(preparation, &all, bytes).iter().map(Vec::len).collect()
        };
        let each = Preparation { side: 16, slice_mm: None }.bytes(&samples(&[10])[0]);
        assert!((10 * 16 * 16 * 5..10 * 16 * 16 * 5 + 5000).contains(&each), "{each}");
        assert_eq!(sizes(&[10; 5], 2 * each), [2, 2, 1]);
        assert_eq!(sizes(&[10; 5], 2 * each - 1), [1; 5]);
        assert_eq!(sizes(&[10, 9000, 10], 2 * each), [1, 1, 1], "a large one is alone");
        assert_eq!(sizes(&[40_000, 25_000, 1000], u64::MAX), [2, 1]);
        assert_eq!(sizes(&[1].repeat(5000), u64::MAX), [2048, 2048, 904]);
        assert!(sizes(&[], 1).is_empty());
    }

    #[test]
    fn the_record_of_a_shard_with_all_that_it_may_have_is_no_larger_than_a_record_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::create(folder.path()).unwrap();
        let slices = SHARD_SLICES_MAX / SHARD_SAMPLES_MAX;
        let about = About {
            slices,
            marked: usize::MAX,
            lowest_bits: u32::MAX,
            mean_bits: u64::MAX,
            deviation_bits: u64::MAX,
            image_at: u64::MAX,
            label_at: u64::MAX,
            image_sums: "f".repeat(8 * slices),
            label_sums: "f".repeat(8 * slices),
        };
        let about = as_value(&about).unwrap();
        let all = samples(&[slices].repeat(SHARD_SAMPLES_MAX)).into_iter();
        let members: Vec<ShardMember> = all
            .map(|one| ShardMember {
                sample: one.id,
                image: one.image,
                mask: one.mask,
                about: about.clone(),
            })
            .collect();
        let object = library.put_object(b"a shard").unwrap();
        let words = Preparation { side: 512, slice_mm: Some(123.456) }.words();
        let record = library.keep_shard(&words, (object, 7), members.clone()).unwrap();
        assert_eq!(record.members, members);
    }

    #[test]
    fn a_preparation_says_what_its_numbers_hang_on() {
        let words = |side, slice_mm| Preparation { side, slice_mm }.words();
        let all = [words(16, None), words(32, None), words(16, Some(2.5)), words(16, Some(2.501))];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one), "{all:?}");
        }
    }
}
