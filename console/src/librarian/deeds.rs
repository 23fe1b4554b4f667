//! What is done to the library: a mask kept as a label, a sample rejected, a model moved to a stage,
//! images taken in, everything checked.

use std::path::Path;

use gantry_agent::{import, ingest, samples};
use gantry_imaging::dicom::deidentify::Profile;
use gantry_imaging::{Mask, measure, nifti};
use gantry_library::{
    Author, Library, ObjectHash, PredictionId, Provenance, SampleDraft, SampleId, SampleRecord,
    Stage, Verdict,
};

use super::{Reader, Tell, series_id, words};
use crate::app::image::Marks;
use crate::app::library::{Doing, Kind, Opened, Subject, Told};

/// What stands for the pipeline of a mask that a person has drawn.
const BY_HAND: &str = "by-hand";
/// How often the console hears how far an import is, in files.
const TOLD_EACH: u64 = 50;

/// Carries out what needs no image. Gives the sentence that says what was done.
pub(super) fn carry_out(
    library: &Library,
    reader: &Reader,
    doing: Doing,
    tell: &Tell,
) -> Result<String, String> {
    match doing {
        Doing::Accept { .. } => Err("no image is open any more".into()),
        Doing::Reject { sample, reason } => {
            let id: SampleId = sample.parse().map_err(words)?;
            let by = reader.author()?;
            library.judge_sample(&id, &Verdict::Rejected(reason), by).map_err(words)?;
            Ok(format!("sample {sample} is rejected; n opens the next"))
        }
        Doing::Stage { models, approve } => {
            let stage = if approve { Stage::Approved } else { Stage::Retired };
            let by = reader.author()?;
            for model in &models {
                library.set_stage(&model.parse().map_err(words)?, stage, by).map_err(words)?;
            }
            let word = if approve { "approved" } else { "retired" };
            Ok(format!("{word}: {}", models.join(", ")))
        }
        Doing::Add { path } => add(library, &path, tell),
        Doing::Verify => verify(library, tell),
    }
}

fn add(library: &Library, path: &str, tell: &Tell) -> Result<String, String> {
    // Options by their codes: the basic profile alone.
    let profile = Profile::new(&[113_100], &[]).map_err(words)?;
    let deidentifier = ingest::Deidentifier::new(profile, library);
    let mut seen = 0;
    let report = import::import(library, Path::new(path), Some(&deidentifier), &mut |_| {
        seen += 1;
        if seen % TOLD_EACH == 0 {
            tell(Told::Busy(format!("taking in: {seen} files")));
        }
    })
    .map_err(words)?;
    Ok(format!(
        "taken in: {} new, {} known, {} conflicts, {} set aside, {} not read",
        report.stored,
        report.same,
        report.conflicts,
        report.quarantined.len(),
        report.unread.len()
    ))
}

fn verify(library: &Library, tell: &Tell) -> Result<String, String> {
    tell(Told::Busy("checking every byte".into()));
    let report = library.verify().map_err(words)?;
    let whole = format!("{} records and {} objects were read", report.records, report.objects);
    match report.damage.len() {
        0 => Ok(format!("{whole}; all are whole")),
        damaged => Err(format!("{whole}; {damaged} are damaged: gantry data verify names them")),
    }
}

/// Keeps the mask of an open image as a label by a person: as it was, or as it was changed.
pub(super) fn accept(
    library: &Library,
    by: &str,
    subject: &Subject,
    opened: &Opened,
    label: &str,
    marks: Option<&Marks>,
) -> Result<String, String> {
    let base = base(library, subject)?;
    let geometry = opened.image.geometry;
    let mask: Mask = match (marks, &base) {
        (Some(marks), _) => marks.to_mask(geometry),
        (None, Base::Sample(sample)) => read_mask(library, &sample.mask)?,
        (None, Base::Mask(mask)) => read_mask(library, mask)?,
        (None, Base::None) => return Err("nothing is marked".into()),
    };
    let mask_voxels = mask.count() as u64;
    if mask_voxels == 0 {
        return Err("nothing is marked, so there is nothing to keep".into());
    }
    let volume_ml = measure::volume_ml(&mask, 1);
    let bytes = samples::nifti_mask(&mask)?;
    let series = series_id(&opened.series)?;
    let (image, provenance) = if let Base::Sample(sample) = &base {
        let image = library.read_object(&sample.image).map_err(words)?;
        let pipeline = if marks.is_some() { BY_HAND } else { &sample.provenance.pipeline };
        let pipeline = pipeline.to_owned();
        (image, Provenance { pipeline, ..sample.provenance.clone() })
    } else {
        let sources = library.series_objects(&series).map_err(words)?;
        // The volume is that of no pipeline; a mask on another one is another sample.
        let pipeline_hash = library.digest(BY_HAND.as_bytes());
        let provenance = Provenance {
            sources,
            pipeline: BY_HAND.into(),
            pipeline_hash,
            program: String::new(),
            author: Author::Auto,
        };
        (samples::nifti_image(&opened.image)?, provenance)
    };
    let draft = SampleDraft {
        series,
        label: label.to_owned(),
        image,
        mask: bytes,
        size: geometry.size,
        spacing_mm: geometry.spacing_mm,
        mask_voxels,
        volume_ml,
        provenance: Provenance {
            program: concat!("gantry ", env!("CARGO_PKG_VERSION")).to_owned(),
            author: Author::Person(by.to_owned()),
            ..provenance
        },
    };
    let id = library.add_sample(draft).map_err(words)?;
    Ok(format!("kept as sample {id}: {label}, {volume_ml:.1} ml, by {by}; n opens the next"))
}

/// What a label is made on.
enum Base {
    /// A sample's image and mask.
    Sample(Box<SampleRecord>),
    /// A prediction's mask.
    Mask(ObjectHash),
    /// A series without any.
    None,
}

fn base(library: &Library, subject: &Subject) -> Result<Base, String> {
    Ok(match subject.kind {
        Kind::Series => Base::None,
        Kind::Sample => {
            let id: SampleId = subject.id.parse().map_err(words)?;
            Base::Sample(Box::new(library.sample(&id).map_err(words)?))
        }
        Kind::Prediction => {
            let id: PredictionId = subject.id.parse().map_err(words)?;
            Base::Mask(library.prediction(&id).map_err(words)?.mask)
        }
    })
}

fn read_mask(library: &Library, mask: &ObjectHash) -> Result<Mask, String> {
    nifti::read_mask(&library.read_object(mask).map_err(words)?).map_err(words)
}
