//! Samples on their square grids, prepared once and kept in shards of the library, where other seeds,
//! folds and runs find them, and the same run when it goes on.
//!
//! A shard is a tar archive that `WebDataset` and `NumPy` read: of each sample `NUMBER.image.npy` (`<f4`,
//! not on any scale yet, since that depends on what is trained on), `NUMBER.label.npy` (`|u1`, 1 in the
//! label) and `NUMBER.json`, arrays with z first. Its record in the library says where the slices begin and
//! has a checksum of each, so that a part is read by its place and is what was written, or known to be
//! damaged. A shard that is damaged or gone is made anew from its samples, once in a run.
//!
//! What is missing is made by whoever needs it first. Several that begin at once begin with different
//! shards, and each looks whether another was faster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gantry_imaging::shards::{ShardWriter, member_bytes, npy_header};
use gantry_imaging::{Geometry, nifti, resample};
use gantry_library::{
    Library, LibraryError, ObjectReader, SampleId, SampleRecord, ShardMember, ShardRecord,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::grid::{Statistics, square_grid, to_square};
use crate::error::LearningError;

/// Raised whenever the same samples are prepared to other numbers than before.
const VERSION: u32 = 1;
/// Slices of one training: their order, places and sums take some 130 MiB.
pub(super) const SLICES_MAX: usize = 1 << 22;
/// Slices of one shard, and samples: so that its record stays below the most that a record may have.
const SHARD_SLICES_MAX: usize = 1 << 16;
const SHARD_SAMPLES_MAX: usize = 2048;
/// Bytes that are read at once where slices are read one after the other.
const PIECE_BYTES: usize = 8 << 20;
/// How often a run says that it uses its shards: well within the age at which a sweep may take them.
const USED_EACH: Duration = Duration::from_mins(20);

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
    fn words(&self) -> String {
        let apart = self.slice_mm.map_or("as they are".to_owned(), |mm| format!("{mm} mm apart"));
        format!("square grid, version {VERSION}, side {}, slices {apart}", self.side)
    }

    /// How many slices a sample will have.
    fn slices(&self, sample: &SampleRecord) -> usize {
        square_grid(&Geometry::new(sample.size, sample.spacing_mm), self.side, self.slice_mm).size
            [2]
    }

    fn area(&self) -> usize {
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
struct About {
    slices: usize,
    marked: usize,
    lowest_bits: u32,
    mean_bits: u64,
    deviation_bits: u64,
    image_at: u64,
    label_at: u64,
    /// The CRC-32 of each slice, in eight digits each.
    image_sums: String,
    label_sums: String,
}

/// Where a prepared sample is, and what it is like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    shard: usize,
    pub(super) slices: usize,
    /// Voxels in the label.
    pub(super) marked: usize,
    pub(super) statistics: Statistics,
    image: Array,
    label: Array,
}

/// Slices of one size, one after the other.
#[derive(Clone, Debug, PartialEq)]
struct Array {
    at: u64,
    sums: Vec<u32>,
}

impl Place {
    /// Those of these slices that the sample has.
    pub(super) fn within(&self, slices: &Range<usize>) -> Range<usize> {
        slices.start.min(self.slices)..slices.end.min(self.slices)
    }

    fn read(shard: usize, about: &Value) -> Option<Self> {
        let about = About::deserialize(about).ok()?;
        let array = |at, sums: &str| {
            let sums = sums
                .as_bytes()
                .chunks(8)
                .map(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
            Some(Array { at, sums: sums.collect::<Option<_>>()? })
        };
        let statistics = Statistics {
            lowest: f32::from_bits(about.lowest_bits),
            mean: f64::from_bits(about.mean_bits),
            deviation: f64::from_bits(about.deviation_bits),
        };
        let image = array(about.image_at, &about.image_sums)?;
        let label = array(about.label_at, &about.label_sums)?;
        let whole = image.sums.len() == about.slices && label.sums.len() == about.slices;
        let About { slices, marked, .. } = about;
        whole.then_some(Self { shard, slices, marked, statistics, image, label })
    }
}

/// A shard that is read.
struct Shard {
    /// Its record; where its samples lie is taken out.
    record: ShardRecord,
    reader: RwLock<Arc<ObjectReader>>,
    /// Whether this run has made it anew.
    mended: Mutex<bool>,
}

/// The prepared samples of a run.
pub(crate) struct Shelf<'a> {
    library: &'a Library,
    preparation: Preparation,
    shards: Vec<Shard>,
    places: BTreeMap<SampleId, Place>,
    /// Shards that this run has made.
    made: usize,
    warnings: Mutex<Vec<String>>,
    used: Mutex<Instant>,
}

impl<'a> Shelf<'a> {
    /// Finds the shards of samples, and makes those that are missing, each of about so many bytes.
    pub(crate) fn open(
        library: &'a Library,
        preparation: Preparation,
        samples: &[&SampleRecord],
        shard_bytes: u64,
    ) -> Result<Self, LearningError> {
        let slices = samples.iter().map(|sample| preparation.slices(sample)).sum();
        if slices > SLICES_MAX {
            return Err(LearningError::TooMany { slices, limit: SLICES_MAX });
        }
        let wanted: BTreeMap<&SampleId, &SampleRecord> =
            samples.iter().map(|sample| (&sample.id, *sample)).collect();
        let mut shelf = Self {
            library,
            preparation,
            shards: Vec::new(),
            places: BTreeMap::new(),
            made: 0,
            warnings: Mutex::default(),
            used: Mutex::new(Instant::now()),
        };
        for record in library.shards(&preparation.words())? {
            shelf.take(record?, &wanted)?;
        }
        let missing: Vec<&SampleRecord> =
            wanted.values().copied().filter(|one| !shelf.places.contains_key(&one.id)).collect();
        let mut groups = grouped(preparation, &missing, shard_bytes);
        let count = groups.len().max(1);
        groups.rotate_left(std::process::id() as usize % count);
        for group in groups {
            let record = if let Some(record) = library.shard_of(&preparation.words(), &group)? {
                record
            } else {
                shelf.made += 1;
                make(library, preparation, &group)?
            };
            shelf.take(record, &wanted)?;
        }
        shelf.say_used()?;
        Ok(shelf)
    }

    /// Takes what is wanted of a shard. One that says nothing useful of its samples is removed.
    fn take(
        &mut self,
        mut record: ShardRecord,
        wanted: &BTreeMap<&SampleId, &SampleRecord>,
    ) -> Result<(), LearningError> {
        let number = self.shards.len();
        let mut found = Vec::new();
        for member in &mut record.members {
            let about = member.about.take();
            let Some(sample) = wanted.get(&member.sample) else { continue };
            let same = sample.image == member.image && sample.mask == member.mask;
            if !same || self.places.contains_key(&member.sample) {
                continue;
            }
            let Some(place) = Place::read(number, &about) else {
                return Ok(self.library.remove_shard(&record)?);
            };
            found.push((member.sample.clone(), place));
        }
        if !found.is_empty() {
            let reader = RwLock::new(Arc::new(self.library.object_reader(&record.object)));
            self.shards.push(Shard { record, reader, mended: Mutex::new(false) });
            self.places.extend(found);
        }
        Ok(())
    }

    /// Where a sample is.
    pub(super) fn place(&self, sample: &SampleRecord) -> Result<&Place, LearningError> {
        self.places.get(&sample.id).ok_or_else(|| {
            LearningError::Damaged(format!(
                "sample {} is in no shard of prepared samples; start the run again, which makes one",
                sample.id
            ))
        })
    }

    /// Whether each read is a question to a storage over a network.
    pub(super) fn is_far(&self) -> bool {
        self.shards.first().is_some_and(|shard| shard.reader().is_remote())
    }

    /// What is read of a sample at once, from its first slice to its last.
    pub(super) fn pieces(&self, place: &Place) -> impl Iterator<Item = Range<usize>> + use<> {
        let slices = place.slices;
        let each = (PIECE_BYTES / (4 * self.preparation.area())).max(1);
        (0..slices).step_by(each).map(move |first| first..slices.min(first + each))
    }

    /// The voxels of slices of a sample, on no scale.
    pub(super) fn image(
        &self,
        place: &Place,
        slices: Range<usize>,
    ) -> Result<Vec<f32>, LearningError> {
        let bytes = self.read(place.shard, &place.image, 4 * self.preparation.area(), slices)?;
        Ok(bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }

    /// The labels of slices of a sample.
    pub(super) fn mask(
        &self,
        place: &Place,
        slices: Range<usize>,
    ) -> Result<Vec<u8>, LearningError> {
        self.read(place.shard, &place.label, self.preparation.area(), slices)
    }

    /// Reads slices of so many bytes each.
    fn read(
        &self,
        shard: usize,
        array: &Array,
        each: usize,
        slices: Range<usize>,
    ) -> Result<Vec<u8>, LearningError> {
        let mut bytes = vec![0; slices.len() * each];
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let shard = &self.shards[shard];
        let mut read = || -> Result<(), LibraryError> {
            let at = array.at + (slices.start * each) as u64;
            shard.reader().read_at(at, &mut bytes)?;
            let sums = bytes.chunks_exact(each).map(crc32fast::hash);
            if sums.eq(array.sums[slices.clone()].iter().copied()) {
                return Ok(());
            }
            let path = self.library.object_path(&shard.record.object);
            Err(LibraryError::Damaged { path, reason: "a slice is not what was written".into() })
        };
        match read() {
            Err(LibraryError::Damaged { .. }) => self.mend(shard, &mut read)?,
            done => done?,
        }
        Ok(bytes)
    }

    /// Makes a shard anew that is damaged or gone, and reads again.
    fn mend(
        &self,
        shard: &Shard,
        read: &mut dyn FnMut() -> Result<(), LibraryError>,
    ) -> Result<(), LearningError> {
        let mut mended = shard.mended.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread or run may have done it.
        shard.open(self.library);
        let reason = match read() {
            Err(LibraryError::Damaged { reason, .. }) => reason,
            done => return Ok(done?),
        };
        if *mended {
            return Err(LearningError::Damaged(format!(
                "a shard of prepared samples is damaged again after it was made anew ({reason}); \
                 check the disks of the library's storage"
            )));
        }
        *mended = true;
        self.warn(format!(
            "a shard of prepared samples is made anew, for it was damaged: {reason}"
        ));
        self.library.remove_shard(&shard.record)?;
        let members = shard.record.members.iter();
        let samples = members.map(|member| self.library.sample(&member.sample));
        let samples = samples.collect::<Result<Vec<_>, _>>()?;
        let record = make(self.library, self.preparation, &samples.iter().collect::<Vec<_>>())?;
        if record.object != shard.record.object {
            return Err(LearningError::Damaged(
                "a shard of prepared samples was damaged and is another now that it was made anew; \
                 start the run again, which goes on with that one"
                    .into(),
            ));
        }
        shard.open(self.library);
        Ok(read()?)
    }

    fn warn(&self, sentence: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(sentence);
    }

    /// What is to be told since the last look.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that the shards are in use, where that was said a while ago.
    pub(crate) fn keep_in_use(&self) -> Result<(), LearningError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.elapsed() > USED_EACH {
            *used = Instant::now();
            self.say_used()?;
        }
        Ok(())
    }

    fn say_used(&self) -> Result<(), LearningError> {
        for shard in &self.shards {
            self.library.use_shard(&shard.record)?;
        }
        Ok(())
    }

    /// What there is, in words.
    pub(crate) fn words(&self) -> String {
        let slices: usize = self.places.values().map(|place| place.slices).sum();
        let (samples, shards, made) = (self.places.len(), self.shards.len(), self.made);
        format!("{slices} slices of {samples} samples in {shards} shards, {made} of them made now")
    }
}

impl Shard {
    fn reader(&self) -> Arc<ObjectReader> {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens it, as it is on the storage now.
    fn open(&self, library: &Library) {
        let reader = Arc::new(library.object_reader(&self.record.object));
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
    }
}

/// Samples by the shards that they will be in, in the order of their ids.
fn grouped<'a>(
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
fn make(
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
