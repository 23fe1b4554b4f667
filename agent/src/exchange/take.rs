//! Samples on their way in.
//!
//! Each case becomes a CT series of its own, whose images are written from the case's volume, and a
//! sample on the grid of the volume for each label of its mask. The same folder twice leaves the
//! same samples once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use gantry_imaging::dicom::inspect;
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::{Image, Mask, nifti};
use gantry_library::{Arrival, Author, Library, Provenance, SampleDraft, Source};
use serde::Deserialize;

use super::{ExchangeError, ExchangeReport, Kind, Outcome, decode};
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

/// Takes a folder's cases into the library. `label` says what masks mark where the folder does not.
///
/// # Errors
/// Where the folder is none of that kind, or the library cannot be written. A case that cannot be
/// read is left out and reported.
pub fn import(
    library: &Library,
    kind: Kind,
    from: &Path,
    label: Option<&str>,
    author: &Author,
) -> Outcome<ExchangeReport> {
    let set = match kind {
        Kind::Nifti | Kind::Nrrd | Kind::Mha => pairs(kind, from, label)?,
        Kind::NnUnet => nnunet(from)?,
        Kind::Decathlon => decathlon(from)?,
        Kind::Npz | Kind::WebDataset | Kind::DicomSeg | Kind::Coco => {
            return Err(ExchangeError::Refused(
                "this kind only goes out; nifti, nrrd, mha, nnunet and decathlon come in, and DICOM with gantry import".into(),
            ));
        }
    };
    if set.cases.is_empty() {
        return Err(ExchangeError::file("importing", from, "there is no case in it"));
    }
    let mut report = ExchangeReport::default();
    for case in &set.cases {
        match take(library, &set, case, author) {
            Ok((samples, known)) => {
                report.samples += samples;
                report.known += known;
            }
            Err(ExchangeError::Library(error)) => return Err(error.into()),
            Err(error) => report.left_out.push((case.name.clone(), error.to_string())),
        }
    }
    Ok(report)
}

/// Takes one case: how many samples it has, and how many of them were there.
fn take(library: &Library, set: &Set, case: &Case, author: &Author) -> Outcome<(u64, u64)> {
    let image = decode(&case.image)?;
    let wrong = |error: &dyn std::fmt::Display| ExchangeError::case(&case.name, error);
    let mask = decode(&case.mask)?.to_mask().map_err(|error| wrong(&error))?;
    image.require_same_grid(&mask).map_err(|error| wrong(&error))?;
    if let Some(other) = mask.voxels.iter().find(|one| **one != 0 && !set.labels.contains_key(one))
    {
        return Err(wrong(&format!("its mask has the value {other}, which has no label")));
    }
    let mut packed = Vec::new();
    nifti::write_image(&image, &mut packed).map_err(|error| wrong(&error))?;
    // The patient's id is the case's content: names of cases repeat from set to set.
    let subject = Subject::new(format!("imported {}", library.digest(&packed)));
    let files = ct_series(&image, &subject).map_err(|error| wrong(&error))?;
    let mut keys = Vec::with_capacity(files.len());
    for file in &files {
        keys.push(key(inspect(file).map_err(|refusal| wrong(&refusal))?));
    }
    let arrivals: Vec<Arrival<'_>> = keys
        .iter()
        .zip(&files)
        .map(|(key, file)| Arrival::new(key, &Source::Import, file.as_slice()))
        .collect();
    library.store_batch(&arrivals)?;
    let series = library.series_id(&subject.series_uid());
    let (mut samples, mut known) = (0, 0);
    for (value, label) in &set.labels {
        let mask = mask.map(|one| u8::from(one == value));
        if mask.count() == 0 {
            continue;
        }
        let draft = draft(library, &series, label, &image, &mask, &packed, author)?;
        let before = library.counts()?.samples;
        library.add_sample(draft)?;
        samples += 1;
        known += u64::from(library.counts()?.samples == before);
    }
    Ok((samples, known))
}

fn draft(
    library: &Library,
    series: &gantry_library::SeriesId,
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
    let label = label
        .ok_or_else(|| ExchangeError::Refused("say what the masks mark with --label".into()))?;
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
        let inside = |name: &Path| {
            // A data set is what is in its folder, whatever its list says.
            let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
            name.components().all(plain).then(|| from.join(name))
        };
        let (Some(image), Some(mask)) = (inside(&pair.image), inside(&pair.label)) else {
            let reason =
                format!("it lists {}, which is not within the folder", pair.image.display());
            return Err(ExchangeError::file("importing", &path, reason));
        };
        cases.push(Case { name: pair.image.display().to_string(), image, mask });
    }
    let labels = about.labels.into_iter().filter(|(value, _)| *value != 0).collect();
    Ok(Set { cases, labels })
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
