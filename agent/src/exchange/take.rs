//! Samples on their way in.
//!
//! Each case becomes a CT series of its own, whose images are written from the case's volume, and a
//! sample on the grid of the volume for each label of its mask; a DICOM segmentation becomes samples of the
//! series that it refers to. The same folder twice leaves the same samples once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::dicom::{FILE_BYTES_MAX, Segments, assemble, inspect, segmentation_subject};
use gantry_imaging::{Image, Mask, nifti};
use gantry_library::{
    Arrival, Author, Library, LibraryError, Provenance, SampleDraft, SeriesId, Source,
};
use serde::Deserialize;

use super::{ExchangeError, ExchangeReport, Kind, Outcome, Patients, arrays, coco, decode};
use crate::ingest::key;

/// Cases of one data set.
const CASES_MAX: usize = 1_000_000;
/// Bytes of the file that describes a data set.
const DESCRIPTION_BYTES_MAX: u64 = 256 << 20;

/// An image, its mask, and what the mask's values mean.
struct Case {
    name: String,
    image: PathBuf,
    mask: PathBuf,
}

/// A data set as its folder describes it.
struct Set {
    cases: Vec<Case>,
    /// What each value of a mask marks; the background is not among them.
    labels: BTreeMap<u8, String>,
}

/// Takes a folder's cases into the library. `label` says what masks mark where the folder does not,
/// `patients` whose the pictures of a COCO data set are where its file does not.
///
/// # Errors
/// Where the folder is none of that kind, or the library cannot be written. A case that cannot be
/// read is left out and reported.
pub fn import(
    library: &Library,
    kind: Kind,
    from: &Path,
    label: Option<&str>,
    patients: Patients,
    author: &Author,
) -> Outcome<ExchangeReport> {
    let mut taking = Taking { library, author, report: ExchangeReport::default(), seen: 0 };
    match kind {
        Kind::Nifti | Kind::Nrrd | Kind::Mha => taking.set(&pairs(kind, from, label)?)?,
        Kind::NnUnet => taking.set(&nnunet(from)?)?,
        Kind::Decathlon => taking.set(&decathlon(from)?)?,
        Kind::Npz => {
            let labels = [(1, needed(label)?.to_owned())].into();
            for path in files(from, ".npz")? {
                let read = arrays::npz(&path);
                let case = read.and_then(|(image, mask)| taking.case(&labels, &image, &mask));
                taking.note(&name_of(&path), case)?;
            }
        }
        Kind::WebDataset => {
            for path in files(from, ".tar")? {
                arrays::shard(&path, &mut |name, read| {
                    let case = read.and_then(|one| {
                        let said = label.or(one.label.as_deref());
                        let labels = [(1, needed(said)?.to_owned())].into();
                        taking.case(&labels, &one.image, &one.mask)
                    });
                    taking.note(name, case)
                })?;
            }
        }
        Kind::DicomSeg => {
            for path in files(from, ".dcm")? {
                let case = taking.segmentation(&path, label);
                taking.note(&name_of(&path), case)?;
            }
        }
        Kind::Coco => coco::import(&mut taking, from, label, patients)?,
    }
    if taking.seen == 0 {
        return Err(ExchangeError::file("importing", from, "there is no case in it"));
    }
    Ok(taking.report)
}

fn needed(label: Option<&str>) -> Outcome<&str> {
    label.ok_or_else(|| ExchangeError::Refused("say what the masks mark with --label".into()))
}

/// What is taken in, and what became of it.
pub(super) struct Taking<'a> {
    pub(super) library: &'a Library,
    author: &'a Author,
    report: ExchangeReport,
    seen: usize,
}

impl Taking<'_> {
    fn set(&mut self, set: &Set) -> Outcome<()> {
        for case in &set.cases {
            let volumes = decode(&case.image).and_then(|image| Ok((image, decode(&case.mask)?)));
            let taken = volumes.and_then(|(image, mask)| self.case(&set.labels, &image, &mask));
            self.note(&case.name, taken)?;
        }
        Ok(())
    }

    /// Notes what became of a case: how many samples it has, and how many of them were there. Only what
    /// fails for all ends the whole.
    pub(super) fn note(&mut self, name: &str, taken: Outcome<(u64, u64)>) -> Outcome<()> {
        self.seen += 1;
        match taken {
            Ok((samples, known)) => {
                self.report.samples += samples;
                self.report.known += known;
            }
            Err(error @ (ExchangeError::Library(_) | ExchangeError::Refused(_))) => {
                return Err(error);
            }
            Err(ExchangeError::Case { reason, .. }) => {
                self.report.left_out.push((name.to_owned(), reason));
            }
            Err(error) => self.report.left_out.push((name.to_owned(), error.to_string())),
        }
        Ok(())
    }

    /// Takes one case as a series of its own.
    fn case(
        &self,
        labels: &BTreeMap<u8, String>,
        image: &Image,
        mask: &Image,
    ) -> Outcome<(u64, u64)> {
        let wrong = |error: &dyn std::fmt::Display| ExchangeError::case("", error);
        let mask = mask.to_mask().map_err(|error| wrong(&error))?;
        image.require_same_grid(&mask).map_err(|error| wrong(&error))?;
        check(labels, &mask)?;
        let packed = packed(image)?;
        // The patient's id is the case's content: names of cases repeat from set to set.
        let subject = Subject::new(format!("imported {}", self.library.digest(&packed)));
        let series = self.series(image, &subject)?;
        self.samples(labels, &series, image, &mask, &packed)
    }

    /// Keeps an image as a series.
    pub(super) fn series(&self, image: &Image, subject: &Subject) -> Outcome<SeriesId> {
        let wrong = |error: &dyn std::fmt::Display| ExchangeError::case("", error);
        let files = ct_series(image, subject).map_err(|error| wrong(&error))?;
        let mut keys = Vec::with_capacity(files.len());
        for file in &files {
            keys.push(key(inspect(file).map_err(|refusal| wrong(&refusal))?));
        }
        let arrivals: Vec<Arrival<'_>> = keys
            .iter()
            .zip(&files)
            .map(|(key, file)| Arrival::new(key, &Source::Import, file.as_slice()))
            .collect();
        self.library.store_batch(&arrivals)?;
        Ok(self.library.series_id(&subject.series_uid()))
    }

    /// Takes the segments of a segmentation as samples of the series that it is about.
    fn segmentation(&self, path: &Path, label: Option<&str>) -> Outcome<(u64, u64)> {
        let wrong = |error: &dyn std::fmt::Display| ExchangeError::case("", error);
        let length = fs::metadata(path).map_err(|error| wrong(&error))?.len();
        if length > FILE_BYTES_MAX as u64 {
            return Err(wrong(&format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        let bytes = fs::read(path).map_err(|error| wrong(&error))?;
        let mut subject = segmentation_subject(&bytes).map_err(|refusal| wrong(&refusal))?;
        let series = self.library.series_id(&subject.series_uid);
        let objects = self.library.series_objects(&series).map_err(|error| match error {
            LibraryError::Unknown { .. } => {
                wrong(&"the series that it segments is not in the library; import it first")
            }
            error => error.into(),
        })?;
        let mut files = Vec::with_capacity(objects.len());
        for object in &objects {
            files.push(self.library.read_object(object)?);
        }
        let image = assemble(&files).map_err(|refusal| wrong(&refusal))?.image;
        let segments =
            Segments::read(&bytes, &image.geometry).map_err(|refusal| wrong(&refusal))?;
        if let (Some(label), 1) = (label, subject.labels.len()) {
            subject.labels.values_mut().for_each(|one| label.clone_into(one));
        }
        if let Some(other) = segments.numbers().find(|one| !subject.labels.contains_key(one)) {
            return Err(wrong(&format!("its segment {other} has no label")));
        }
        let packed = packed(&image)?;
        let (mut samples, mut known) = (0, 0);
        for (number, mask) in segments.masks().filter(|(_, mask)| mask.count() > 0) {
            known += self.sample(&series, &subject.labels[&number], &image, &mask, &packed)?;
            samples += 1;
        }
        Ok((samples, known))
    }

    /// Keeps a sample for each label of a mask.
    fn samples(
        &self,
        labels: &BTreeMap<u8, String>,
        series: &SeriesId,
        image: &Image,
        mask: &Mask,
        packed: &[u8],
    ) -> Outcome<(u64, u64)> {
        let (mut samples, mut known) = (0, 0);
        for (value, label) in labels {
            let mask = mask.map(|one| u8::from(one == value));
            if mask.count() == 0 {
                continue;
            }
            known += self.sample(series, label, image, &mask, packed)?;
            samples += 1;
        }
        Ok((samples, known))
    }

    /// Keeps a sample, of a mask whose values mark one thing. Returns 1 where it was there already.
    pub(super) fn sample(
        &self,
        series: &SeriesId,
        label: &str,
        image: &Image,
        mask: &Mask,
        packed: &[u8],
    ) -> Outcome<u64> {
        let draft = draft(self.library, series, label, image, mask, packed, self.author)?;
        let before = self.library.counts()?.samples;
        self.library.add_sample(draft)?;
        Ok(u64::from(self.library.counts()?.samples == before))
    }
}

/// An image as the library keeps it.
pub(super) fn packed(image: &Image) -> Outcome<Vec<u8>> {
    let mut packed = Vec::new();
    nifti::write_image(image, &mut packed).map_err(|error| ExchangeError::case("", error))?;
    Ok(packed)
}

/// Returns an error where a mask has a value that means nothing.
fn check(labels: &BTreeMap<u8, String>, mask: &Mask) -> Outcome<()> {
    match mask.voxels.iter().find(|one| **one != 0 && !labels.contains_key(one)) {
        None => Ok(()),
        Some(other) => {
            let reason = format!("its mask has the value {other}, which has no label");
            Err(ExchangeError::case("", reason))
        }
    }
}

fn draft(
    library: &Library,
    series: &SeriesId,
    label: &str,
    image: &Image,
    mask: &Mask,
    packed: &[u8],
    author: &Author,
) -> Outcome<SampleDraft> {
    let mut bytes = Vec::new();
    nifti::write_mask(mask, &mut bytes).map_err(|error| ExchangeError::case(series, error))?;
    Ok(SampleDraft {
        series: series.clone(),
        label: label.to_owned(),
        image: packed.to_vec(),
        mask: bytes,
        size: image.geometry.size,
        spacing_mm: image.geometry.spacing_mm,
        mask_voxels: mask.count() as u64,
        volume_ml: mask.count() as f64 * image.geometry.voxel_ml(),
        provenance: Provenance {
            sources: library.series_objects(series)?,
            pipeline: "import".into(),
            pipeline_hash: String::new(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            author: author.clone(),
        },
    })
}

/// `images/NAME.EXT` beside `masks/NAME.EXT`.
fn pairs(kind: Kind, from: &Path, label: Option<&str>) -> Outcome<Set> {
    let end = match kind {
        Kind::Nrrd => ".nrrd",
        Kind::Mha => ".mha",
        _ => ".nii.gz",
    };
    let label = needed(label)?;
    let images = from.join("images");
    let mut cases = Vec::new();
    for name in names(&images)? {
        let Some(case) = name.strip_suffix(end) else { continue };
        cases.push(Case {
            name: case.to_owned(),
            image: images.join(&name),
            mask: from.join("masks").join(&name),
        });
    }
    Ok(Set { cases, labels: [(1, label.to_owned())].into() })
}

#[derive(Deserialize)]
struct NnUnet {
    channel_names: BTreeMap<String, serde_json::Value>,
    labels: BTreeMap<String, u8>,
    file_ending: String,
}

fn nnunet(from: &Path) -> Outcome<Set> {
    let path = from.join("dataset.json");
    let about: NnUnet = described(&path)?;
    if about.channel_names.len() != 1 {
        let reason = format!("it has {} channels; one is read", about.channel_names.len());
        return Err(ExchangeError::file("importing", &path, reason));
    }
    let (images, masks) = (from.join("imagesTr"), from.join("labelsTr"));
    let mut cases = Vec::new();
    for name in names(&masks)? {
        let Some(case) = name.strip_suffix(&about.file_ending) else { continue };
        cases.push(Case {
            name: case.to_owned(),
            image: images.join(format!("{case}_0000{}", about.file_ending)),
            mask: masks.join(&name),
        });
    }
    let labels = about.labels.into_iter().filter(|(_, value)| *value != 0);
    Ok(Set { cases, labels: labels.map(|(label, value)| (value, label)).collect() })
}

#[derive(Deserialize)]
struct Decathlon {
    labels: BTreeMap<u8, String>,
    training: Vec<Pair>,
    #[serde(default)]
    validation: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    image: PathBuf,
    label: PathBuf,
}

fn decathlon(from: &Path) -> Outcome<Set> {
    let path = from.join("dataset.json");
    let about: Decathlon = described(&path)?;
    let mut cases = Vec::new();
    for pair in about.training.into_iter().chain(about.validation) {
        let (Some(image), Some(mask)) = (inside(from, &pair.image), inside(from, &pair.label))
        else {
            let reason =
                format!("it lists {}, which is not within the folder", pair.image.display());
            return Err(ExchangeError::file("importing", &path, reason));
        };
        cases.push(Case { name: pair.image.display().to_string(), image, mask });
    }
    let labels = about.labels.into_iter().filter(|(value, _)| *value != 0).collect();
    Ok(Set { cases, labels })
}

/// A name that a list has, within the list's folder: a data set is what is there, whatever its list says.
pub(super) fn inside(folder: &Path, name: &Path) -> Option<PathBuf> {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    name.components().all(plain).then(|| folder.join(name))
}

fn described<T: serde::de::DeserializeOwned>(path: &Path) -> Outcome<T> {
    let failed = |error: &dyn std::fmt::Display| ExchangeError::file("reading", path, error);
    let length = fs::metadata(path).map_err(|error| failed(&error))?.len();
    if length > DESCRIPTION_BYTES_MAX {
        return Err(failed(&format!(
            "it has {length} bytes, at most {DESCRIPTION_BYTES_MAX} are read"
        )));
    }
    let bytes = fs::read(path).map_err(|error| failed(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| failed(&error))
}

/// The files of a folder whose names end so, in order.
fn files(folder: &Path, end: &str) -> Outcome<Vec<PathBuf>> {
    let names = names(folder)?.into_iter().filter(|name| name.ends_with(end));
    Ok(names.map(|name| folder.join(name)).collect())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The names of a folder's files, in order.
fn names(folder: &Path) -> Outcome<Vec<String>> {
    let failed = |error: std::io::Error| ExchangeError::file("listing", folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        if names.len() > CASES_MAX {
            return Err(ExchangeError::file("listing", folder, "it has too many files"));
        }
    }
    names.sort();
    Ok(names)
}
