//! `gantry label`: the labels of a library, and a mask that a person has drawn elsewhere kept as one.
//!
//! A mask belongs to the volume that a pipeline has made of its series: it has to stand on the same
//! grid, and what it was drawn with writes it as `NIfTI`. The sample names its author, so that masks of
//! people and of pipelines can be told apart for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_imaging::{Geometry, Mask, measure, nifti};
use gantry_learning::TrainSettings;
use gantry_library::{
    Author, Fractions, LabelState, Library, PatientKey, Provenance, SampleDraft, SampleId,
    SampleRecord, SeriesId, Split, SplitPlan, StateRecord, Verdict,
};
use serde_json::{Value, json};

use super::completions;
use super::library::Place;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Bytes of a mask's file: a volume at the limit of the library's samples, not compressed at all.
const MASK_BYTES_MAX: u64 = 4 << 30;
/// What stands for the pipeline of a mask that a person has drawn.
const BY_HAND: &str = "by-hand";

/// `gantry label`.
#[derive(Debug, Args)]
#[command(override_usage = "gantry label [SERIES MASK --label LABEL]")]
pub struct Label {
    #[command(flatten)]
    place: Place,
    /// The series whose volume was labelled; without it the labels of the library are listed.
    #[arg(requires = "mask", add = completions::series())]
    series: Option<String>,
    /// The mask, a .nii or .nii.gz file on the grid of the volume; what is not 0 in it is labelled.
    #[arg(requires = "marks")]
    mask: Option<PathBuf>,
    /// What the mask marks, as lungs.
    #[arg(long = "label", value_name = "LABEL")]
    marks: Option<String>,
    /// Who has drawn it.
    #[arg(long, env = "USER", value_name = "NAME", default_value = "")]
    by: String,
    /// Say too that it is final.
    #[arg(long = "final", requires = "series")]
    is_final: bool,
}

impl Label {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the series has no volume yet, the mask does not fit it, or the library fails.
    pub fn run(&self, format: Format) -> Outcome {
        let library = self.place.open()?;
        match (&self.series, &self.mask, &self.marks) {
            (Some(series), Some(mask), Some(label)) => {
                let sample = keep(&library, series, mask, label, &self.by)?;
                if self.is_final {
                    library
                        .judge_sample(&sample.id, &Verdict::Final, &self.by)
                        .map_err(Failure::usage_of)?;
                }
                said(&library, &sample, format)?;
            }
            _ => list(&library, format)?,
        }
        Ok(0)
    }
}

/// Keeps a mask as a sample.
fn keep(
    library: &Library,
    series: &str,
    path: &Path,
    label: &str,
    by: &str,
) -> Result<SampleRecord, Failure> {
    if by.is_empty() {
        return Err(Failure::usage("a label by hand has an author; name yourself with --by"));
    }
    gantry_model::job::check_name("label", label)?;
    let id: SeriesId = series.parse().map_err(Failure::usage_of)?;
    let samples = library.samples().map_err(Failure::trouble)?;
    let of_series = samples.iter().filter(|sample| sample.series == id);
    let base = of_series.max_by_key(|sample| sample.created_ms).ok_or_else(|| {
        Failure::usage(format!(
            "series {id} has no volume yet; gantry preprocess {id} makes one to be labelled"
        ))
    })?;
    let image = library.read_object(&base.image).map_err(Failure::trouble)?;
    let geometry = nifti::read(&image).map_err(Failure::trouble)?.geometry;
    let mask = read(path, &geometry)?;
    let mut bytes = Vec::new();
    nifti::write_mask(&mask, &mut bytes).map_err(Failure::trouble)?;
    let volume_ml = measure::volume_ml(&mask, 1);
    let draft = SampleDraft {
        series: id.clone(),
        label: label.to_owned(),
        image,
        mask: bytes,
        size: base.size,
        spacing_mm: base.spacing_mm,
        mask_voxels: mask.count() as u64,
        volume_ml,
        provenance: Provenance {
            sources: base.provenance.sources.clone(),
            pipeline: BY_HAND.to_owned(),
            // The volume is that of this pipeline; a mask on another one is another sample.
            pipeline_hash: base.provenance.pipeline_hash.clone(),
            program: concat!("gantry ", env!("CARGO_PKG_VERSION")).to_owned(),
            author: Author::Person(by.to_owned()),
        },
    };
    let sample = library.add_sample(draft).map_err(Failure::trouble)?;
    library.sample(&sample).map_err(Failure::trouble)
}

/// Says what is kept.
fn said(library: &Library, sample: &SampleRecord, format: Format) -> Result<(), Failure> {
    let state = library.sample_state(sample).map_err(Failure::trouble)?;
    let SampleRecord { id, series, label, volume_ml, .. } = sample;
    let value = json!({
        "sample": id,
        "series": series,
        "label": label,
        "volume_ml": volume_ml,
        "state": state,
    });
    let word = state.state.word();
    let people = || format!("sample {id}: {label}, {volume_ml:.1} ml, {word} by {}", state.by);
    format.print("label", &value, people, || id.to_string())
}

/// A mask from a file, with 1 for all that is marked, checked against the grid of the volume.
fn read(path: &Path, grid: &Geometry) -> Result<Mask, Failure> {
    // A name of a file may say who the patient is, and a refusal may end up in a log.
    let wrong = |why: String| Failure::usage(format!("the mask cannot be used: {why}"));
    let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > MASK_BYTES_MAX {
        return Err(wrong(format!("it has {length} bytes, and {MASK_BYTES_MAX} are the most")));
    }
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut mask = nifti::read_mask(&bytes).map_err(|error| wrong(error.to_string()))?;
    if !mask.geometry.same_grid(grid) {
        return Err(wrong(format!(
            "its grid of {:?} voxels of {:?} mm is not that of the volume, {:?} of {:?} mm in the same place; resample it, or draw on the sample's own image",
            mask.geometry.size, mask.geometry.spacing_mm, grid.size, grid.spacing_mm
        )));
    }
    for voxel in &mut mask.voxels {
        *voxel = u8::from(*voxel != 0);
    }
    if mask.count() == 0 {
        return Err(wrong("it marks nothing".into()));
    }
    Ok(mask)
}

/// What a library has of one label. What is rejected counts as that alone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    samples: u64,
    by_people: u64,
    finals: u64,
    rejected: u64,
    patients: BTreeSet<PatientKey>,
    /// Samples to train, to validate and to test, as a training with the default seed takes them.
    sides: [u64; 3],
}

/// The labels of some samples, each with its numbers.
fn tally(
    samples: &[SampleRecord],
    states: &BTreeMap<SampleId, StateRecord>,
) -> Result<BTreeMap<String, Tally>, Failure> {
    let mut labels: BTreeMap<String, Tally> = BTreeMap::new();
    let settings = TrainSettings::default();
    let is_rejected = |sample: &SampleRecord| states[&sample.id].state == LabelState::Rejected;
    for sample in samples {
        let tally = labels.entry(sample.label.clone()).or_default();
        if is_rejected(sample) {
            tally.rejected += 1;
            continue;
        }
        tally.samples += 1;
        tally.by_people += u64::from(matches!(sample.provenance.author, Author::Person(_)));
        tally.finals += u64::from(states[&sample.id].state == LabelState::Final);
        tally.patients.insert(sample.patient.clone());
    }
    for (label, tally) in labels.iter_mut().filter(|(_, tally)| tally.samples > 0) {
        let fits = |sample: &&SampleRecord| sample.label == *label && !is_rejected(sample);
        let some: Vec<SampleRecord> = samples.iter().filter(fits).cloned().collect();
        let fractions =
            Fractions { validation_percent: settings.validation_percent, test_percent: 0 };
        let plan =
            SplitPlan::new(&some, settings.seed, fractions, &[]).map_err(Failure::trouble)?;
        let sides = [Split::Train, Split::Validation, Split::Test];
        tally.sides = sides.map(|side| plan.of(side, &some).len() as u64);
    }
    Ok(labels)
}

pub(super) fn list(library: &Library, format: Format) -> Result<(), Failure> {
    let samples = library.samples().map_err(Failure::trouble)?;
    let states = library.states_of(&samples).map_err(Failure::trouble)?;
    let labels = tally(&samples, &states)?;
    let value = |(label, tally): (&String, &Tally)| {
        json!({
            "label": label,
            "samples": tally.samples,
            "by_people": tally.by_people,
            "final": tally.finals,
            "rejected": tally.rejected,
            "patients": tally.patients.len(),
            "train": tally.sides[0],
            "validation": tally.sides[1],
            "test": tally.sides[2],
        })
    };
    let values: Vec<Value> = labels.iter().map(value).collect();
    let people = || {
        if labels.is_empty() {
            return "the library has no samples; gantry preprocess makes some of its series".into();
        }
        let row = |(label, tally): (&String, &Tally)| {
            let [train, validation, test] = tally.sides;
            let Tally { samples, by_people, finals, rejected, .. } = *tally;
            let patients = tally.patients.len() as u64;
            let numbers = [samples, by_people, finals, rejected, patients, train, validation, test];
            [vec![label.clone()], numbers.map(|n| n.to_string()).to_vec()].concat()
        };
        let heading = [
            "LABEL",
            "SAMPLES",
            "BY PEOPLE",
            "FINAL",
            "REJECTED",
            "PATIENTS",
            "TRAIN",
            "VALIDATION",
            "TEST",
        ];
        output::aligned(&heading, &labels.iter().map(row).collect::<Vec<_>>(), 1..9)
    };
    format
        .print("labels", &values, people, || labels.keys().cloned().collect::<Vec<_>>().join("\n"))
}
