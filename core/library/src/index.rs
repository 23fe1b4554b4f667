//! An index of the predictions: what a search needs of each, without reading their records again.
//!
//! The records are the truth, and the index follows from them: it lies in the folder `index` of the
//! library's own folder, wherever the records are, and may be removed at any time. What is in the records
//! and not in the index is read, and once that is worth a file it becomes one, a segment. Segments never
//! change. A new one takes in those that are not much larger than itself, as in a log-structured merge
//! tree (O'Neil et al., 1996): so there are few, and a row is written again a few times only. A process
//! that finds a segment gone while it reads looks again; one that is damaged counts as not there.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::at_once::at_once;
use crate::cases::Cases;
use crate::error::LibraryError;
use crate::files;
use crate::ids::{ModelId, PatientKey, PredictionId, SeriesId};
use crate::limits::{GETS_MAX, INDEX_BYTES_MAX, INDEXED_AT_ONCE, SEGMENT_ROWS_MIN};
use crate::predictions::PredictionRecord;
use crate::root::Library;

/// Where segments lie.
pub(crate) const FOLDER: &str = "index";
/// What a segment begins with, and its name ends with: a newer format has others.
const MAGIC: &[u8; 16] = b"gantry cases  1\n";
const ENDING: &str = ".cases-1";
/// A segment takes in others of up to so many times its own rows.
const TAKES_IN: usize = 2;
/// How often a look at the segments begins again because one of them has gone meanwhile.
const LOOKS: usize = 4;
/// Bytes of a checksum.
const CRC_BYTES: usize = 4;

/// What is known of predictions.
#[derive(Debug, Default)]
pub(crate) struct Index {
    groups: Groups,
    known: HashSet<u64>,
    /// What the library held when it was last asked, in order: most often it holds the same again.
    held: Vec<u64>,
}

/// Predictions of one model whose embeddings have the same width.
#[derive(Debug, Default)]
struct Group {
    ids: Vec<u64>,
    created_ms: Vec<u64>,
    cases: Cases,
}

/// By model and width.
type Groups = BTreeMap<(u64, usize), Group>;

impl Group {
    fn push(&mut self, row: &Row<'_>) {
        self.ids.push(row.id);
        self.created_ms.push(row.created_ms);
        self.cases.add_unit(row.series, row.patient, row.embedding);
    }

    fn row(&self, place: usize) -> Row<'_> {
        let (series, patient, embedding) = self.cases.at(place);
        Row { id: self.ids[place], created_ms: self.created_ms[place], series, patient, embedding }
    }
}

/// A prediction; its embedding has the length 1, or 0.
struct Row<'a> {
    id: u64,
    created_ms: u64,
    series: u64,
    patient: u64,
    embedding: &'a [f32],
}

impl Index {
    /// The newest prediction of a series, by this model where one is given.
    pub(crate) fn newest<'a>(
        &'a self,
        series: &SeriesId,
        model: Option<&ModelId>,
    ) -> Option<PredictionId> {
        let (series, model) = (series.number(), model.map(ModelId::number));
        let groups = self.groups.iter().filter(|((own, _), _)| model.is_none_or(|one| one == *own));
        // Of two of the same time the greater id counts as newer.
        let of = |group: &'a Group| {
            let places = group.cases.places_of(series);
            places.map(|place| (group.created_ms[place], group.ids[place]))
        };
        let newest = groups.flat_map(|(_, group)| of(group)).max();
        newest.map(|(_, id)| PredictionId::from_number(id))
    }

    /// The cases nearest to an embedding of a model, as [`Cases::nearest`] has them: their predictions and
    /// distances.
    pub(crate) fn nearest(
        &self,
        model: &ModelId,
        to: &[f32],
        patient: &PatientKey,
        count: usize,
    ) -> Vec<(PredictionId, f32)> {
        let Some(group) = self.groups.get(&(model.number(), to.len())) else { return Vec::new() };
        let near = group.cases.nearest(to, patient, count).into_iter();
        near.map(|near| (PredictionId::from_number(group.ids[near.place]), near.distance)).collect()
    }

    fn push(&mut self, model: u64, row: &Row<'_>) {
        if self.known.insert(row.id) {
            let width = row.embedding.len();
            let fresh = || Group { cases: Cases::new(width), ..Group::default() };
            self.groups.entry((model, width)).or_insert_with(fresh).push(row);
        }
    }

    /// Takes in the rows of a segment that are asked for.
    fn take(&mut self, groups: &Groups, asked: impl Fn(u64) -> bool) {
        for ((model, _), group) in groups {
            for place in 0..group.ids.len() {
                let row = group.row(place);
                if asked(row.id) {
                    self.push(*model, &row);
                }
            }
        }
    }

    fn add(&mut self, record: &PredictionRecord, id: u64) {
        let row = Row {
            id,
            created_ms: record.created_ms,
            series: record.series.number(),
            patient: record.patient.number(),
            embedding: &crate::cases::unit(&record.embedding).collect::<Vec<f32>>(),
        };
        self.push(record.model.number(), &row);
    }
}

impl Library {
    /// Asks the index, which is brought up to what the library holds first.
    pub(crate) fn ask_index<T>(&self, ask: impl FnOnce(&Index) -> T) -> Result<T, LibraryError> {
        let held = self.prediction_ids()?;
        let mut index = self.index();
        if index.held != held {
            self.bring_up(&mut index, &held)?;
            index.held = held;
        }
        Ok(ask(&index))
    }

    /// Brings the index up to the predictions that are held.
    fn bring_up(&self, index: &mut Index, held: &[u64]) -> Result<(), LibraryError> {
        let folder = self.folder(FOLDER);
        let wanted: HashSet<u64> = held.iter().copied().collect();
        if index.known.is_empty() || index.known.iter().any(|id| !wanted.contains(id)) {
            *index = load(&folder, &wanted);
        }
        let mut missing =
            wanted.into_iter().filter(|id| !index.known.contains(id)).collect::<Vec<_>>();
        missing.sort_unstable();
        for some in missing.chunks(INDEXED_AT_ONCE) {
            let read = |id: &u64| self.prediction(&PredictionId::from_number(*id));
            let mut fresh = Index::default();
            for (record, id) in at_once(some, GETS_MAX, read)?.iter().zip(some) {
                index.add(record, *id);
                fresh.add(record, *id);
            }
            if some.len() >= SEGMENT_ROWS_MIN {
                // Whoever may only read asks all the same, and the next one reads the records again.
                let _ = write(&folder, fresh);
            }
        }
        Ok(())
    }
}

/// A segment's file.
struct Segment {
    path: PathBuf,
    rows: usize,
}

/// The segments of a folder, by their rows.
fn segments(folder: &Path) -> Result<Vec<Segment>, LibraryError> {
    let segment = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
        let rows = name.split_once('-')?.0.parse().ok()?;
        Some(Segment { path, rows })
    };
    let mut all: Vec<Segment> = files::list(folder)?.into_iter().filter_map(segment).collect();
    all.sort_by_key(|segment| segment.rows);
    Ok(all)
}

/// Reads the rows that are wanted of all segments. Where they cannot be read the records say it all.
fn load(folder: &Path, wanted: &HashSet<u64>) -> Index {
    for _ in 0..LOOKS {
        let mut index = Index::default();
        let all = segments(folder).unwrap_or_default();
        for segment in &all {
            if let Some(groups) = read_segment(&segment.path) {
                index.take(&groups, |id| wanted.contains(&id));
            }
        }
        if all.iter().all(|segment| segment.path.exists()) {
            return index;
        }
    }
    Index::default()
}

/// Writes rows as a segment, which takes in others that are small beside it.
fn write(folder: &Path, mut rows: Index) -> Result<(), LibraryError> {
    let mut taken = Vec::new();
    for segment in segments(folder)? {
        if segment.rows <= rows.known.len() * TAKES_IN {
            match read_segment(&segment.path) {
                Some(groups) => rows.take(&groups, |_| true),
                // What takes its place may have its name.
                None => files::remove(&segment.path)?,
            }
            taken.push(segment.path);
        }
    }
    let bytes = encode(&rows.groups);
    let name = format!("{:08}-{:08x}{ENDING}", rows.known.len(), crc32fast::hash(&bytes));
    files::make_folder(folder)?;
    let path = folder.join(name);
    files::create(&path, &bytes)?;
    for old in taken.iter().filter(|old| **old != path) {
        files::remove(old)?;
    }
    Ok(())
}

/// The rows of a segment; none where it is damaged or not there.
fn read_segment(path: &Path) -> Option<Groups> {
    let length = files::length(path).ok()?;
    let bytes = (length <= INDEX_BYTES_MAX).then(|| files::read(path).ok()).flatten()?;
    decode(&bytes)
}

/// A segment's bytes: after the magic, for each group its model, width and rows, then the ids, times,
/// series, patients and embeddings of all rows; a checksum at the end. All numbers are little-endian, of 64
/// bits where they are whole and of 32 where they are not.
fn encode(groups: &Groups) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for ((model, width), group) in groups {
        let rows = group.ids.len();
        let head = [*model, *width as u64, rows as u64];
        let row = |place: usize| group.row(place);
        let columns: [&dyn Fn(Row<'_>) -> u64; 4] =
            [&|row| row.id, &|row| row.created_ms, &|row| row.series, &|row| row.patient];
        bytes.extend(head.iter().flat_map(|number| number.to_le_bytes()));
        for column in columns {
            bytes.extend((0..rows).flat_map(|place| column(row(place)).to_le_bytes()));
        }
        for place in 0..rows {
            bytes.extend(row(place).embedding.iter().flat_map(|number| number.to_le_bytes()));
        }
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Groups> {
    let (bytes, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
    if crc32fast::hash(bytes) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut groups = Groups::new();
    while !rest.is_empty() {
        let head = numbers(&mut rest, 3)?;
        let (model, width, rows) =
            (head[0], usize::try_from(head[1]).ok()?, usize::try_from(head[2]).ok()?);
        let [ids, created_ms, series, patients] = [(); 4].map(|()| numbers(&mut rest, rows));
        let (ids, created_ms, series, patients) = (ids?, created_ms?, series?, patients?);
        let floats = rows.checked_mul(width)?.checked_mul(4)?;
        let (embeddings, tail) = rest.split_at_checked(floats)?;
        rest = tail;
        let embeddings = embeddings.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four));
        let cases = Cases::of_units(width, embeddings.collect(), series, patients)?;
        groups.insert((model, width), Group { ids, created_ms, cases });
    }
    Some(groups)
}

/// Takes whole numbers off the begin of some bytes.
fn numbers(rest: &mut &[u8], count: usize) -> Option<Vec<u64>> {
    let (taken, tail) = rest.split_at_checked(count.checked_mul(8)?)?;
    *rest = tail;
    Some(taken.as_chunks::<8>().0.iter().map(|eight| u64::from_le_bytes(*eight)).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::ops::Range;

    use proptest::prelude::*;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::ids::ObjectHash;
    use crate::record;
    use crate::records::NewRecord;

    const SERIES: u64 = 50;
    const MODELS: u64 = 2;

    fn record(number: u64) -> PredictionRecord {
        let random = |salt: u64| ObjectHash::of(&[&(number * 10 + salt).to_le_bytes()]).number();
        PredictionRecord {
            id: PredictionId::from_number(random(0)),
            series: SeriesId::from_number(number % SERIES),
            patient: PatientKey::from_number(number % SERIES / 2),
            model: ModelId::from_number(number % MODELS),
            mask: ObjectHash::of(&[b"mask"]),
            segmentation: None,
            volume_ml: 1.0,
            confidence: 0.5,
            embedding: (1..4).map(|salt| (random(salt) % 1000) as f32 - 500.0).collect(),
            findings: json!({ "number": number }),
            created_ms: number / 3,
        }
    }

    fn keep(library: &Library, numbers: Range<u64>) {
        let new = |number| {
            let record = record(number);
            let name = format!("predictions/{}.json", record.id);
            NewRecord { name, bytes: record::encode(&record).unwrap() }
        };
        library.records().create_all(&numbers.map(new).collect::<Vec<_>>()).unwrap();
    }

    /// Compares with what reading every record gives.
    fn check(library: &Library) {
        let all = library.predictions().unwrap();
        for to in all.iter().step_by(all.len() / 5 + 1) {
            let mut same = all.clone();
            same.retain(|one| one.model == to.model);
            let mut cases = Cases::new(3);
            for one in &same {
                assert!(cases.add(&one.series, &one.patient, &one.embedding));
            }
            let near = cases.nearest(&to.embedding, &to.patient, 7).into_iter();
            let wanted: Vec<_> =
                near.map(|near| (same[near.place].id.clone(), near.distance)).collect();
            let found = library.nearest(to, 7).unwrap().into_iter();
            let found: Vec<_> = found.map(|near| (near.prediction, near.distance)).collect();
            assert_eq!(found, wanted);
            let newest = |model: Option<&ModelId>| {
                let all = all.iter().filter(|one| one.series == to.series);
                let all = all.filter(|one| model.is_none_or(|model| one.model == *model));
                all.max_by_key(|one| (one.created_ms, one.id.clone())).unwrap().clone()
            };
            assert_eq!(library.prediction_of(&to.series).unwrap(), newest(None));
            let by = library.prediction_by(&to.series, &to.model).unwrap();
            assert_eq!(by, Some(newest(Some(&to.model))));
        }
    }

    fn rows(library: &Library) -> Vec<usize> {
        segments(&library.folder(FOLDER)).unwrap().iter().map(|segment| segment.rows).collect()
    }

    #[test]
    fn the_index_finds_what_reading_every_record_finds() {
        let folder = TempDir::new().unwrap();
        let library = Library::create(folder.path()).unwrap();
        let none = library.prediction_of(&SeriesId::from_number(1));
        assert!(matches!(none, Err(LibraryError::Unknown { kind: "prediction", .. })));
        // As many as are worth no file, and files that the next ones take in or leave.
        for (numbers, files) in [
            (0..30, vec![]),
            (30..250, vec![220]),
            (250..1000, vec![970]),
            (1000..5500, vec![404, 5066]),
            (5500..5510, vec![404, 5066]),
        ] {
            keep(&library, numbers);
            check(&library);
            assert_eq!(rows(&library), files);
        }
        check(&Library::open(folder.path()).unwrap());
    }

    #[test]
    fn records_that_are_known_are_not_read_again() {
        let folder = TempDir::new().unwrap();
        let library = Library::create(folder.path()).unwrap();
        keep(&library, 0..300);
        let to = record(0);
        let near = library.nearest(&to, 2).unwrap();
        let found: Vec<_> = near.iter().map(|near| near.prediction.clone()).collect();
        let path = |id: &PredictionId| folder.path().join(format!("predictions/{id}.json"));
        let far = (0..300).map(|number| record(number).id).find(|id| !found.contains(id)).unwrap();
        fs::write(path(&far), "damaged").unwrap();
        let again = Library::open(folder.path()).unwrap();
        assert_eq!(again.nearest(&to, 2).unwrap(), near);
        // What is gone is no case any more, for those either who have asked before.
        fs::remove_file(path(&found[0])).unwrap();
        fs::remove_file(path(&far)).unwrap();
        for library in [&library, &again, &Library::open(folder.path()).unwrap()] {
            assert_eq!(library.nearest(&to, 1).unwrap()[0].prediction, found[1]);
            check(library);
        }
    }

    #[test]
    fn an_index_that_is_damaged_or_gone_is_made_again() {
        let folder = TempDir::new().unwrap();
        let library = Library::create(folder.path()).unwrap();
        keep(&library, 0..400);
        check(&library);
        let index = library.folder(FOLDER);
        let flip = |bytes: &mut Vec<u8>| bytes[100] ^= 1;
        let harms: [fn(&mut Vec<u8>); 3] = [flip, |bytes| bytes.truncate(50), Vec::clear];
        for harm in harms {
            let path = segments(&index).unwrap().remove(0).path;
            let mut bytes = fs::read(&path).unwrap();
            harm(&mut bytes);
            fs::write(&path, bytes).unwrap();
            check(&Library::open(folder.path()).unwrap());
            let path = segments(&index).unwrap().remove(0).path;
            assert!(read_segment(&path).is_some(), "the damaged file is still there");
        }
        fs::remove_dir_all(&index).unwrap();
        fs::write(&index, "no folder").unwrap();
        let without = Library::open(folder.path()).unwrap();
        check(&without);
        fs::remove_file(&index).unwrap();
        check(&Library::open(folder.path()).unwrap());
        assert_eq!(rows(&library), [400]);
    }

    #[test]
    fn what_a_killed_writer_left_is_swept() {
        let folder = TempDir::new().unwrap();
        let library = Library::create(folder.path()).unwrap();
        keep(&library, 0..200);
        check(&library);
        let left = library.folder(FOLDER).join(".part-1");
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
        fs::File::create(&left).unwrap().set_modified(long_ago).unwrap();
        assert_eq!((library.sweep(), left.exists()), (1, false));
        assert_eq!(rows(&library), [200]);
    }

    #[test]
    fn many_may_write_the_index_at_once() {
        let folder = TempDir::new().unwrap();
        let library = Library::create(folder.path()).unwrap();
        let root = folder.path();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                scope.spawn(move || {
                    for part in 0..5 {
                        let own = Library::open(root).unwrap();
                        let first = (writer * 5 + part) * 120;
                        keep(&own, first..first + 120);
                        own.nearest(&record(0), 3).unwrap();
                    }
                });
            }
        });
        check(&library);
    }

    proptest! {
        #[test]
        fn a_malformed_segment_is_none(
            at in 0_usize..400, value in any::<u64>(), length in 0_usize..500, mends: bool
        ) {
            let mut index = Index::default();
            for number in 0..4 {
                index.add(&record(number), number);
            }
            let mut bytes = encode(&index.groups);
            let whole = decode(&bytes).unwrap();
            prop_assert_eq!(whole.values().map(|group| group.ids.len()).sum::<usize>(), 4);
            bytes.truncate(bytes.len() - CRC_BYTES);
            bytes.truncate(length.max(16));
            let place = at.min(bytes.len() - 8);
            bytes[place..place + 8].copy_from_slice(&value.to_le_bytes());
            let crc = if mends { crc32fast::hash(&bytes) } else { 0 };
            bytes.extend(crc.to_le_bytes());
            if let Some(groups) = decode(&bytes) {
                for ((_, width), group) in &groups {
                    for place in 0..group.ids.len() {
                        prop_assert_eq!(group.row(place).embedding.len(), *width);
                    }
                }
            }
        }
    }
}
