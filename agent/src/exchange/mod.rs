//! Samples to and from the forms in which others keep them.
//!
//! | kind | what is in the folder | both ways |
//! |---|---|---|
//! | `nifti`, `nrrd`, `mha` | `images/ID.EXT`, `masks/ID.EXT` | yes |
//! | `nnunet` | nnU-Net's raw data set: `imagesTr`, `labelsTr`, `imagesTs`, `dataset.json`, `splits_final.json` | yes |
//! | `decathlon` | the Medical Segmentation Decathlon's datalist, as MONAI reads it | yes |
//! | `npz` | `ID.npz` with image, mask and grid, for `NumPy` | yes |
//! | `webdataset` | tar shards of about 1 GB for each side of the split | yes |
//! | `dicom-seg` | `ID.dcm`, the masks as segmentations of their series | yes, of series that are here |
//! | `coco` | `images/ID-SLICE.png` and `annotations.json`, slice by slice; in comes also a file of another name, with pictures beside it | yes, each picture as a series |
//!
//! What goes out names samples by their ids, which say nothing of a patient, and puts no patient on
//! two sides. It is written into an empty folder, the file that describes it last. What comes in
//! becomes a series of its own, so that a sample always has its images: a case is a patient, since
//! these forms do not know whose a case is. A segmentation stays with the series that it refers to. Of a
//! picture the file says whose it is, or else whoever imports it.

mod arrays;
mod coco;
mod fingerprint;
mod out;
mod shards;
mod take;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gantry_imaging::{Image, ImagingError, Mask, mha, nifti, nrrd};
use gantry_library::{Fractions, Library, LibraryError, SampleRecord, Split, SplitPlan};
use serde::Serialize;

pub use arrays::{Taken, npz, shard};
pub use coco::{MarkedPicture, marked_pictures, picture};
pub use fingerprint::{DatasetFingerprint, Intensities, dataset_fingerprint};
pub use out::export;
pub use take::import;

/// A form in which samples are kept elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pairs of `.nii.gz`.
    Nifti,
    /// Pairs of `.nrrd`.
    Nrrd,
    /// Pairs of `.mha`.
    Mha,
    /// nnU-Net's raw data set.
    NnUnet,
    /// The Decathlon's datalist.
    Decathlon,
    /// `NumPy` archives.
    Npz,
    /// Tar shards.
    WebDataset,
    /// DICOM segmentations.
    DicomSeg,
    /// COCO annotations of slices or other pictures.
    Coco,
}

/// What can go wrong on the way out or in. No sentence names a patient.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The library failed.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A sample or a case cannot be read or written.
    #[error("{what}: {reason}")]
    Case {
        /// The sample's id, or the place of the case within its folder.
        what: String,
        /// Why.
        reason: String,
    },
    /// A file or folder.
    #[error("{what} {path} failed: {reason}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something that cannot be done as it was asked.
    #[error("{0}")]
    Refused(String),
}

// Errors come by value, from `map_err`.
#[allow(clippy::needless_pass_by_value)]
impl ExchangeError {
    fn case(what: impl ToString, reason: impl ToString) -> Self {
        Self::Case { what: what.to_string(), reason: reason.to_string() }
    }

    fn file(what: &'static str, path: &Path, reason: impl ToString) -> Self {
        Self::File { what, path: path.to_owned(), reason: reason.to_string() }
    }
}

type Outcome<T> = Result<T, ExchangeError>;

/// Which samples go out, and how patients are dealt to the sides.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What their masks mark; needed where the library has samples of several labels.
    pub label: Option<String>,
    /// The seed of the split.
    pub seed: u64,
    /// How many patients of a hundred validate and test.
    pub fractions: Fractions,
    /// The most bytes of a shard.
    pub shard_bytes_max: u64,
    /// What becomes of samples that a person has rejected.
    pub rejected: Rejected,
}

/// What becomes of rejected samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// They stay here.
    LeftOut,
    /// They go with the others.
    Taken,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            label: None,
            seed: 0,
            fractions: Fractions { validation_percent: 20, test_percent: 0 },
            shard_bytes_max: 1_000_000_000,
            rejected: Rejected::LeftOut,
        }
    }
}

/// Whose the pictures of a COCO data set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patients {
    /// Whose its file says they are; without that nothing is taken.
    AsSaid,
    /// Each is of a patient of its own, unless its file says whose it is.
    EachPicture,
}

/// What an exchange did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExchangeReport {
    /// Samples that went out or came in.
    pub samples: u64,
    /// Of those, such as were there already.
    pub known: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Samples by the side of the split they are on.
    pub sides: BTreeMap<Split, u64>,
    /// What was left out, with the reason.
    pub left_out: Vec<(String, String)>,
}

/// Samples with one label, and a split that puts no patient on two sides.
struct Chosen {
    label: String,
    samples: Vec<SampleRecord>,
    plan: SplitPlan,
}

impl Chosen {
    fn of(library: &Library, choice: &Choice) -> Outcome<Self> {
        let mut samples = match choice.rejected {
            Rejected::LeftOut => library.usable_samples()?,
            Rejected::Taken => library.samples()?,
        };
        if let Some(label) = &choice.label {
            samples.retain(|sample| sample.label == *label);
        }
        let labels: Vec<&str> = {
            let mut labels: Vec<&str> =
                samples.iter().map(|sample| sample.label.as_str()).collect();
            labels.sort_unstable();
            labels.dedup();
            labels
        };
        let [label] = labels[..] else {
            return Err(ExchangeError::Refused(if labels.is_empty() {
                "the library has no such sample; gantry data samples lists those it has".into()
            } else {
                format!("the library has samples of {}; choose one with --label", labels.join(", "))
            }));
        };
        let label = label.to_owned();
        let plan = SplitPlan::new(&samples, choice.seed, choice.fractions, &[])?;
        Ok(Self { label, samples, plan })
    }

    fn side(&self, sample: &SampleRecord) -> Split {
        self.plan.side(&sample.patient)
    }
}

/// The image and the mask of a sample.
fn volumes(library: &Library, sample: &SampleRecord) -> Outcome<(Image, Mask)> {
    let wrong = |error: ImagingError| ExchangeError::case(&sample.id, error);
    let image = nifti::read(&library.read_object(&sample.image)?).map_err(wrong)?;
    let mask = nifti::read_mask(&library.read_object(&sample.mask)?).map_err(wrong)?;
    image.require_same_grid(&mask).map_err(wrong)?;
    Ok((image, mask))
}

/// Makes a folder that must be new or empty.
fn empty_folder(path: &Path) -> Outcome<()> {
    fs::create_dir_all(path).map_err(|error| ExchangeError::file("making", path, error))?;
    let mut entries =
        fs::read_dir(path).map_err(|error| ExchangeError::file("listing", path, error))?;
    if entries.next().is_some() {
        let reason = "it is not empty; name a new folder";
        return Err(ExchangeError::file("exporting to", path, reason));
    }
    Ok(())
}

/// Writes a file within a folder, and says how many bytes it has.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Outcome<u64> {
    let path = folder.join(name);
    let failed = |error: std::io::Error| ExchangeError::file("writing", &path, error);
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).map_err(failed)?;
    }
    fs::write(&path, bytes).map_err(failed)?;
    Ok(bytes.len() as u64)
}

/// Encodes a volume in one of the formats of pairs.
fn encode(kind: Kind, image: &Image, mask: &Mask) -> Result<(Vec<u8>, Vec<u8>), ImagingError> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    match kind {
        Kind::Nrrd => {
            nrrd::write_image(image, &mut first)?;
            nrrd::write_mask(mask, &mut second)?;
        }
        Kind::Mha => {
            mha::write_image(image, &mut first)?;
            mha::write_mask(mask, &mut second)?;
        }
        _ => {
            nifti::write_image(image, &mut first)?;
            nifti::write_mask(mask, &mut second)?;
        }
    }
    Ok((first, second))
}

/// Reads a volume by the end of its name.
fn decode(path: &Path) -> Outcome<Image> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ends = |end: &str| name.ends_with(end);
    let read = match () {
        () if ends(".nii") || ends(".nii.gz") => nifti::read_file(path),
        () if ends(".nrrd") => nrrd::read_file(path),
        () if ends(".mha") => mha::read_file(path),
        () => {
            let reason = "its name ends with none of .nii, .nii.gz, .nrrd and .mha";
            return Err(ExchangeError::file("reading", path, reason));
        }
    };
    read.map_err(|error| ExchangeError::file("reading", path, error))
}
