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
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gantry_library::{Library, LibraryError, ObjectReader, SampleId, SampleRecord, ShardRecord};
use serde::Deserialize;
use serde_json::Value;

use super::grid::Statistics;
use super::prepare::{About, Preparation, grouped, make};
use crate::error::LearningError;

/// Slices of one training: their order, places and sums take some 130 MiB.
pub(super) const SLICES_MAX: usize = 1 << 22;
/// Bytes that are read at once where slices are read one after the other.
const PIECE_BYTES: usize = 8 << 20;
/// How often a run says that it uses its shards: well within the age at which a sweep may take them.
const USED_EACH: Duration = Duration::from_mins(20);

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
    /// Finds the shards of samples, and makes those that are missing, each of about so many bytes. Before
    /// each it asks whether to go on, with its number and how many there are to make; nothing is returned
    /// where not, and those that are made are kept.
    pub(crate) fn open(
        library: &'a Library,
        preparation: Preparation,
        samples: &[&SampleRecord],
        shard_bytes: u64,
        goes_on: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Self>, LearningError> {
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
        let count = groups.len();
        groups.rotate_left(std::process::id() as usize % count.max(1));
        for (number, group) in groups.into_iter().enumerate() {
            if !goes_on(number + 1, count) {
                return Ok(None);
            }
            let record = if let Some(record) = library.shard_of(&preparation.words(), &group)? {
                record
            } else {
                shelf.made += 1;
                make(library, preparation, &group)?
            };
            shelf.take(record, &wanted)?;
        }
        shelf.say_used()?;
        Ok(Some(shelf))
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
