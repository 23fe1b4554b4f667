//! A folder of results: what a step made of an image, kept under the hash of the steps that led to it
//! and of the image.
//!
//! A run that finds a result goes on from it: a pipeline that was stopped resumes, and one whose last
//! steps were changed does not do the first again. A result is one file: a line of JSON (what it
//! holds and on which grids), the voxels, and a checksum of all that. It is written under a temporary
//! name, synced and renamed, so that a file that is there is whole; one that is damaged all the same
//! counts as absent and is written anew. Many processes on many hosts may use one folder at once. Where
//! it is full, what was written longest ago makes room. No file name or content says whose image it was.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::plan::hexadecimal;
use crate::error::ImagingError;
use crate::volume::{Geometry, Image, Mask};

/// The most bytes that a cache takes where nothing else is said: 16 GiB.
pub const BYTES_MAX: u64 = 16 << 30;
/// The most bytes of a result's first line.
const HEADER_BYTES_MAX: u64 = 4096;

/// A folder of results.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    bytes: u64,
    /// A step that took less time than a byte of its result is worth is not kept.
    nanoseconds_per_kib_min: u64,
    /// What this cache did since it was opened.
    pub counts: CacheCounts,
}

/// How often a cache helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CacheCounts {
    /// Results that were found.
    pub found: u64,
    /// Results that were kept.
    pub kept: u64,
    /// Results that were not kept since they do not fit or the storage failed.
    pub full: u64,
    /// Files that were damaged, and ignored.
    pub damaged: u64,
}

/// What a step changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Entry {
    pub(super) image: Option<Arc<Image>>,
    pub(super) mask: Option<Arc<Mask>>,
    /// Whether the image is one for the network.
    pub(super) prepared: bool,
}

/// How long a step took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepTime {
    /// The voxels of the grid that it left.
    pub(super) voxels: u64,
    pub(super) nanoseconds: u64,
}

/// A grid to the last bit: numbers written as decimals may come back as their neighbours.
#[derive(Serialize, Deserialize)]
struct Grid {
    size: [usize; 3],
    /// Spacing, origin and directions, as bits.
    bits: [u64; 15],
}

impl Grid {
    fn of(geometry: &Geometry) -> Self {
        let mut bits = [0; 15];
        let numbers = geometry.spacing_mm.iter().chain(&geometry.origin_mm);
        let numbers = numbers.chain(geometry.direction.iter().flatten());
        bits.iter_mut().zip(numbers).for_each(|(bits, number)| *bits = number.to_bits());
        Self { size: geometry.size, bits }
    }

    fn geometry(&self) -> Geometry {
        let three = |from: usize| [0, 1, 2].map(|k| f64::from_bits(self.bits[from + k]));
        Geometry {
            size: self.size,
            spacing_mm: three(0),
            origin_mm: three(3),
            direction: [6, 9, 12].map(three),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    image: Option<Grid>,
    mask: Option<Grid>,
    prepared: bool,
}

impl Cache {
    /// Opens a folder, which is made where it is not there, for at most so many bytes.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, ImagingError> {
        fs::create_dir_all(folder)?;
        let counts = CacheCounts::default();
        let mut cache = Self {
            folder: folder.to_owned(),
            bytes_max,
            bytes: 0,
            nanoseconds_per_kib_min: 0,
            counts,
        };
        cache.bytes = cache.list()?.iter().map(|file| file.bytes).sum();
        Ok(cache)
    }

    /// Keeps the results only of steps that take longer than a storage takes to give them back, at so many
    /// MiB a second. Without this all are kept, which is what people want who change the last steps.
    #[must_use]
    pub fn only_slower_than_mib_per_s(mut self, speed: u64) -> Self {
        self.nanoseconds_per_kib_min = 1_000_000_000 / (1024 * speed.max(1));
        self
    }

    /// Returns whether a step that took so long is worth keeping.
    fn is_worth(&self, bytes: u64, nanoseconds: u64) -> bool {
        nanoseconds >= (bytes >> 10) * self.nanoseconds_per_kib_min
    }

    /// Returns every file of the folder. Others come and go while it is read.
    fn list(&self) -> Result<Vec<Kept>, ImagingError> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            match entry.metadata().and_then(|facts| Ok((facts.modified()?, facts.len()))) {
                Ok((written, bytes)) => all.push(Kept { written, bytes, path: entry.path() }),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all)
    }

    /// Removes what was written longest ago until so many bytes fit. Returns whether they do.
    fn make_room(&mut self, bytes: u64) -> Result<bool, ImagingError> {
        if bytes > self.bytes_max || self.bytes + bytes <= self.bytes_max {
            return Ok(bytes <= self.bytes_max);
        }
        // Others write here, too: what there is now counts.
        let mut all = self.list()?;
        self.bytes = all.iter().map(|file| file.bytes).sum();
        all.sort_by(|a, b| (a.written, &a.path).cmp(&(b.written, &b.path)));
        for old in all {
            if self.bytes + bytes <= self.bytes_max {
                break;
            }
            match fs::remove_file(&old.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => self.bytes = self.bytes.saturating_sub(old.bytes),
            }
        }
        Ok(self.bytes + bytes <= self.bytes_max)
    }

    /// Returns a name that no other process or host chooses.
    fn temporary(&self, name: &str) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let process = std::process::id();
        self.folder.join(format!("{name}.{process}-{count}-{}.new", since.as_nanos()))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.step"))
    }

    /// Returns whether there is a result, without reading it.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.path(key).is_file()
    }

    /// Returns how long a step took the last time, and on how many voxels.
    pub(super) fn time(&self, step: &str) -> Option<StepTime> {
        let text = fs::read(self.folder.join(format!("{step}.time"))).ok()?;
        serde_json::from_slice(&text).ok().filter(|time: &StepTime| time.voxels > 0)
    }

    /// Keeps how long a step took. It is a hint to people: nothing fails where it cannot be kept.
    pub(super) fn keep_time(&self, step: &str, time: StepTime) {
        let temporary = self.temporary(step);
        let Ok(text) = serde_json::to_vec(&time) else { return };
        let _ = fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, self.folder.join(format!("{step}.time"))));
    }

    /// Returns a result, if there is a whole one.
    pub(super) fn load(&mut self, key: &str) -> Option<Entry> {
        let file = File::open(self.path(key)).ok()?;
        let Ok(entry) = read(file) else {
            self.counts.damaged += 1;
            return None;
        };
        self.counts.found += 1;
        Some(entry)
    }

    /// Keeps a result of a step that took so long. A result that cannot be kept is counted: what it was
    /// made for goes on without.
    pub(super) fn store(&mut self, key: &str, entry: &Entry, nanoseconds: u64) {
        let size = |voxels: Option<usize>, bytes: u64| voxels.map_or(0, |n| n as u64 * bytes);
        let bytes = size(entry.image.as_ref().map(|image| image.voxels.len()), 4)
            + size(entry.mask.as_ref().map(|mask| mask.voxels.len()), 1)
            + HEADER_BYTES_MAX;
        if !self.is_worth(bytes, nanoseconds) {
            return;
        }
        let kept = self.make_room(bytes).and_then(|fits| {
            if fits {
                self.publish(key, entry)?;
            }
            Ok(fits)
        });
        if matches!(kept, Ok(true)) {
            self.bytes += bytes;
            self.counts.kept += 1;
        } else {
            self.counts.full += 1;
        }
    }

    fn publish(&self, key: &str, entry: &Entry) -> Result<(), ImagingError> {
        let temporary = self.temporary(key);
        let written = write(&temporary, entry)
            .and_then(|()| Ok(fs::rename(&temporary, self.path(key))?))
            .and_then(|()| Ok(File::open(&self.folder)?.sync_all()?));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// A file of the folder.
struct Kept {
    written: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// Writes through to a file and sums what passes.
struct Summed<W> {
    inner: W,
    sum: Sha256,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sum.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(bytes)?;
        self.sum.update(&bytes[..count]);
        Ok(count)
    }
}

fn write(path: &Path, entry: &Entry) -> Result<(), ImagingError> {
    let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut file = Summed { inner: file, sum: Sha256::new() };
    let header = Header {
        image: entry.image.as_ref().map(|image| Grid::of(&image.geometry)),
        mask: entry.mask.as_ref().map(|mask| Grid::of(&mask.geometry)),
        prepared: entry.prepared,
    };
    let mut line = serde_json::to_string(&header).map_err(std::io::Error::other)?;
    line.push('\n');
    file.write_all(line.as_bytes())?;
    for value in entry.image.iter().flat_map(|image| &image.voxels) {
        file.write_all(&value.to_le_bytes())?;
    }
    if let Some(mask) = &entry.mask {
        file.write_all(&mask.voxels)?;
    }
    let Summed { mut inner, sum } = file;
    inner.write_all(&sum.finalize())?;
    inner.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

fn read(file: File) -> Result<Entry, ImagingError> {
    let damaged =
        |problem: &str| ImagingError::Format { format: "cached step", problem: problem.to_owned() };
    let length = file.metadata()?.len();
    let mut file = Summed { inner: BufReader::with_capacity(1 << 20, file), sum: Sha256::new() };
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        if line.len() as u64 >= HEADER_BYTES_MAX {
            return Err(damaged("its first line does not end"));
        }
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let header: Header = serde_json::from_slice(&line).map_err(|_| damaged("no header"))?;
    let [image, mask] = [&header.image, &header.mask].map(|grid| grid.as_ref().map(Grid::geometry));
    let voxels = |grid: Option<Geometry>, bytes: u64| -> Result<u64, ImagingError> {
        grid.map_or(Ok(0), |grid| grid.check().map(|()| grid.voxels() as u64 * bytes))
    };
    // A header that promises more than the file holds must cost no memory.
    if length != line.len() as u64 + voxels(image, 4)? + voxels(mask, 1)? + 32 {
        return Err(damaged("its length is not what it says"));
    }
    let mut entry = Entry { prepared: header.prepared, ..Entry::default() };
    if let Some(geometry) = image {
        let mut voxels = vec![0.0f32; geometry.voxels()];
        let mut buffer = vec![0u8; 1 << 16];
        for values in voxels.chunks_mut(buffer.len() / 4) {
            let bytes = &mut buffer[..4 * values.len()];
            file.read_exact(bytes)?;
            let numbers = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
            values.iter_mut().zip(numbers).for_each(|(value, number)| *value = number);
        }
        entry.image = Some(Arc::new(Image::new(geometry, voxels)?));
    }
    if let Some(geometry) = mask {
        let mut voxels = vec![0u8; geometry.voxels()];
        file.read_exact(&mut voxels)?;
        entry.mask = Some(Arc::new(Mask::new(geometry, voxels)?));
    }
    let Summed { mut inner, sum } = file;
    let mut expected = [0u8; 32];
    inner.read_exact(&mut expected)?;
    if sum.finalize().as_slice() != expected {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(entry)
}

/// Returns the hash of an image: of its grid and its voxels.
pub(super) fn image_hash(image: &Image) -> String {
    let mut sum = Sha256::new();
    sum.update(serde_json::to_vec(&image.geometry).unwrap_or_default());
    let mut bytes = Vec::with_capacity(1 << 16);
    for values in image.voxels.chunks(1 << 14) {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        sum.update(&bytes);
    }
    hexadecimal(&sum.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let geometry = Geometry::new([3, 2, 2], [0.1, 8.4, 9.6]);
        let image = Image::new(geometry, (0..12).map(|k| k as f32 / 3.0).collect()).unwrap();
        let mask = image.map(|&value| u8::from(value > 1.0));
        Entry { image: Some(Arc::new(image)), mask: Some(Arc::new(mask)), prepared: true }
    }

    #[test]
    fn what_is_kept_is_found_unless_it_was_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(folder.path(), BYTES_MAX).unwrap();
        assert_eq!(cache.load("a"), None);
        cache.store("a", &entry(), 0);
        assert_eq!(cache.load("a"), Some(entry()));
        let path = cache.path("a");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(cache.load("a"), None, "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.load("a"), None, "cut at {at}");
        }
        assert_eq!(cache.counts.damaged, 2 * whole.len() as u64);
        cache.store("a", &entry(), 0);
        assert_eq!(cache.load("a"), Some(entry()));
    }

    #[test]
    fn the_last_time_of_a_step_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), BYTES_MAX).unwrap();
        assert_eq!(cache.time("a"), None);
        for nanoseconds in [7, 9] {
            let time = StepTime { voxels: 3, nanoseconds };
            cache.keep_time("a", time);
            assert_eq!(cache.time("a"), Some(time));
        }
        fs::write(folder.path().join("a.time"), "{").unwrap();
        assert_eq!(cache.time("a"), None);
    }

    #[test]
    fn a_full_cache_makes_room_for_the_newest_and_keeps_nothing_that_cannot_fit() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(folder.path(), 6000).unwrap();
        cache.store("a", &entry(), 0);
        // Its like of another host, which this cache has not counted.
        let other = fs::read(cache.path("a")).unwrap();
        fs::write(cache.path("b"), vec![0; 6000 - other.len()]).unwrap();
        cache.store("c", &entry(), 0);
        assert_eq!(cache.counts, CacheCounts { kept: 2, ..CacheCounts::default() });
        assert!(cache.holds("c") && !cache.holds("a"), "the oldest made room");
        let mut small = Cache::open(folder.path(), 1000).unwrap();
        small.store("d", &entry(), 0);
        assert_eq!(small.counts, CacheCounts { full: 1, ..CacheCounts::default() });
        assert!(small.holds("c") && !small.holds("d"), "nothing went for what cannot fit");
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_counted_and_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(&folder.path().join("cache"), BYTES_MAX).unwrap();
        fs::remove_dir(folder.path().join("cache")).unwrap();
        cache.store("a", &entry(), 0);
        assert_eq!(cache.counts, CacheCounts { full: 1, ..CacheCounts::default() });
        assert_eq!(cache.load("a"), None);
    }

    #[test]
    fn a_step_that_is_done_before_it_is_read_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), BYTES_MAX).unwrap();
        let choosy = Cache::open(folder.path(), BYTES_MAX).unwrap().only_slower_than_mib_per_s(100);
        for (mib, milliseconds, expected) in
            [(100, 1100, true), (100, 900, false), (0, 0, true), (300, 2000, false)]
        {
            let (bytes, nanoseconds) = (mib << 20, milliseconds * 1_000_000);
            assert_eq!(choosy.is_worth(bytes, nanoseconds), expected, "{mib} {milliseconds}");
            assert!(cache.is_worth(bytes, nanoseconds));
        }
    }
}
