//! From a series of a library to a sample: the series as a volume, the memory that a pipeline will take
//! for it, and what came of it kept with where it comes from.
//!
//! The built-in operation and the commands that do the same by hand share this. No sentence here names
//! anything but the library's opaque ids.

use std::fmt::Display;

use gantry_imaging::dicom::{self, Instance, Reason};
use gantry_imaging::pipeline::{Labelled, Pipeline};
use gantry_imaging::{Geometry, Image, ImagingError, Mask, measure, nifti};
use gantry_library::{Author, Library, ObjectHash, Provenance, SampleDraft, SampleId, SeriesId};
use gantry_model::MemoryMib;

/// Bytes of a file's begin that are read for its header: more than all but many-framed files have
/// before their pixels, and those are read whole.
const HEAD_BYTES: u64 = 64 << 10;
/// Heads that are read at once: a network storage answers many in the time of one.
const HEADS_AT_ONCE: usize = 16;
/// Of a hundred bytes that a plan predicts, so many are asked for: the allocator keeps some for itself,
/// and threads have stacks.
const REQUEST_PERCENT: u64 = 125;
/// What a process has before it begins.
const PROCESS_BYTES: u64 = 64 << 20;

fn words(error: impl Display) -> String {
    error.to_string()
}

/// A series as a volume, with what it was made of.
#[derive(Debug)]
pub struct SeriesVolume {
    /// The volume.
    pub image: Image,
    /// The objects that it was made of.
    pub sources: Vec<ObjectHash>,
    /// What they say of themselves.
    pub instances: Vec<Instance>,
    /// The bytes that they had.
    file_bytes: u64,
}

impl SeriesVolume {
    /// What [`outline`] finds without the pixels.
    #[must_use]
    pub const fn outline(&self) -> Outline {
        Outline { geometry: self.image.geometry, file_bytes: self.file_bytes }
    }
}

/// Reads a series as a volume.
///
/// # Errors
/// Where the library cannot be read, or the series makes no volume.
pub fn volume(library: &Library, series: &SeriesId) -> Result<SeriesVolume, String> {
    let sources = library.series_objects(series).map_err(words)?;
    let files: Vec<Vec<u8>> = sources
        .iter()
        .map(|object| library.read_object(object).map_err(words))
        .collect::<Result<_, _>>()?;
    let assembled = dicom::assemble(&files).map_err(|refusal| no_volume(series, &refusal))?;
    let instances = files.iter().filter_map(|file| dicom::inspect(file).ok()).collect();
    let file_bytes = files.iter().map(|file| file.len() as u64).sum();
    Ok(SeriesVolume { image: assembled.image, sources, instances, file_bytes })
}

fn no_volume(series: &SeriesId, refusal: &dicom::Refusal) -> String {
    format!("series {series} makes no volume: {refusal}")
}

/// What is known of a series without its pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outline {
    /// The grid of its volume.
    pub geometry: Geometry,
    /// The bytes of its files.
    pub file_bytes: u64,
}

/// Reads the headers of a series.
///
/// # Errors
/// Where the library cannot be read, or the series makes no volume.
pub fn outline(library: &Library, series: &SeriesId) -> Result<Outline, String> {
    let sources = library.series_objects(series).map_err(words)?;
    let length = |object: &ObjectHash| library.object_bytes(object).map_err(words);
    let head = |object: &ObjectHash| {
        let head = library.read_object_head(object, HEAD_BYTES).map_err(words)?;
        match dicom::grid(&[&head]) {
            // It does not reach the pixels, or is deflated.
            Err(refusal) if matches!(refusal.reason, Reason::Truncated | Reason::Malformed) => {
                library.read_object(object).map_err(words)
            }
            _ => Ok(head),
        }
    };
    let both = |object: &ObjectHash| Ok::<_, String>((head(object)?, length(object)?));
    let read = gantry_library::at_once(&sources, HEADS_AT_ONCE, both)?;
    let heads: Vec<&[u8]> = read.iter().map(|(head, _)| &head[..]).collect();
    let geometry = dicom::grid(&heads).map_err(|refusal| no_volume(series, &refusal))?;
    Ok(Outline { geometry, file_bytes: read.iter().map(|(_, bytes)| bytes).sum() })
}

/// The memory that a process takes which makes a sample of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The most that is predicted: an upper bound.
    pub peak: MemoryMib,
}

impl Need {
    /// Predicts what a pipeline takes for a series: to read it, to run each step, or to keep the result,
    /// whichever is most.
    ///
    /// # Errors
    /// Where a step cannot be done to any image of its size.
    pub fn of(pipeline: &Pipeline, outline: &Outline) -> Result<Self, ImagingError> {
        let plan = pipeline.plan(&outline.geometry)?;
        let voxels = |size: [usize; 3]| size.iter().map(|&n| n as u64).product::<u64>();
        let before = voxels(outline.geometry.size);
        let after = plan.steps.last().map_or(before, |step| voxels(step.size));
        // The files, the values of their slices, and the volume that is made of those.
        let reading = outline.file_bytes + 8 * before;
        // The input twice, the result, and the same as NIfTI, which may not compress.
        let keeping = 8 * before + 10 * after;
        let peak = PROCESS_BYTES + plan.peak_bytes.max(reading).max(keeping);
        Ok(Self { peak: MemoryMib(peak.div_ceil(1 << 20)) })
    }

    /// What to ask the scheduler for: the prediction and a quarter.
    #[must_use]
    pub const fn request(self) -> MemoryMib {
        MemoryMib((self.peak.0 * REQUEST_PERCENT).div_ceil(100))
    }
}

/// Keeps what a pipeline has made of a series. Gives the sample and the volume of its mask in ml.
///
/// # Errors
/// Where nothing is marked, or the library cannot be written.
pub fn keep(
    library: &Library,
    pipeline: &Pipeline,
    series: &SeriesId,
    sources: Vec<ObjectHash>,
    labelled: &Labelled,
) -> Result<(SampleId, f64), String> {
    let mask_voxels = labelled.mask.voxels.iter().filter(|voxel| **voxel != 0).count() as u64;
    if mask_voxels == 0 {
        return Err(format!(
            "the pipeline {} marks nothing in series {series}; look at the series, or loosen the pipeline",
            pipeline.name()
        ));
    }
    let volume_ml = measure::volume_ml(&labelled.mask, 1);
    let draft = SampleDraft {
        series: series.clone(),
        label: labelled.label.clone(),
        image: nifti_image(&labelled.image)?,
        mask: nifti_mask(&labelled.mask)?,
        size: labelled.image.geometry.size,
        spacing_mm: labelled.image.geometry.spacing_mm,
        mask_voxels,
        volume_ml,
        provenance: Provenance {
            sources,
            pipeline: pipeline.name().to_owned(),
            pipeline_hash: pipeline.hash(),
            program: concat!("gantry ", env!("CARGO_PKG_VERSION")).to_owned(),
            author: Author::Auto,
        },
    };
    Ok((library.add_sample(draft).map_err(words)?, volume_ml))
}

/// An image as `NIfTI`.
///
/// # Errors
/// Where an axis is longer than the form has.
pub fn nifti_image(image: &Image) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    nifti::write_image(image, &mut bytes).map_err(words)?;
    Ok(bytes)
}

/// A mask as `NIfTI`.
///
/// # Errors
/// Where an axis is longer than the form has.
pub fn nifti_mask(mask: &Mask) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    nifti::write_mask(mask, &mut bytes).map_err(words)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(size: [usize; 3], file_bytes: u64) -> Need {
        let text = "name = \"a\"\nlabel = \"b\"\n[[steps]]\noperation = \"otsu\"\n";
        let outline = Outline { geometry: Geometry::unit(size), file_bytes };
        Need::of(&Pipeline::parse(text, "a").unwrap(), &outline).unwrap()
    }

    #[test]
    fn a_need_grows_with_the_series_and_its_files() {
        let small = need([64, 64, 10], 0);
        let large = need([512, 512, 300], 0);
        assert!(small.peak < MemoryMib(128), "{small:?}");
        // At least the image twice and its mask.
        assert!(large.peak > MemoryMib(9 * 300 / 4), "{large:?}");
        assert!(need([512, 512, 300], 16 << 30).peak > MemoryMib(16 << 10));
        assert_eq!(Need { peak: MemoryMib(101) }.request(), MemoryMib(127));
    }
}
