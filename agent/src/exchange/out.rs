//! Samples on their way out.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_imaging::dicom::{self, Instance, SegmentationHead};
use gantry_imaging::{Image, Mask};
use gantry_library::{Author, Library, SampleRecord, Split};
use serde_json::{Value, json};

use super::{
    Choice, Chosen, ExchangeError, ExchangeReport, Kind, Outcome, coco, empty_folder, encode,
    shards, volumes, write,
};
use crate::predictions::date_time;

/// Writes samples into an empty folder. What cannot be said in a form is left out and reported.
///
/// # Errors
/// Where there is no such sample, the folder is not empty, or a file cannot be written.
pub fn export(
    library: &Library,
    kind: Kind,
    to: &Path,
    choice: &Choice,
) -> Outcome<ExchangeReport> {
    let chosen = Chosen::of(library, choice)?;
    empty_folder(to)?;
    match kind {
        Kind::WebDataset => shards::export(library, &chosen, to, choice.shard_bytes_max),
        Kind::Coco => coco::export(library, &chosen, to),
        Kind::NnUnet | Kind::Decathlon => dataset(library, &chosen, kind, to),
        _ => files(library, &chosen, kind, to),
    }
}

/// A file or a pair of files for each sample.
fn files(library: &Library, chosen: &Chosen, kind: Kind, to: &Path) -> Outcome<ExchangeReport> {
    let mut report = ExchangeReport::default();
    for sample in &chosen.samples {
        let id = &sample.id;
        let wrong = |error: &dyn std::fmt::Display| ExchangeError::case(id, error);
        let written = match kind {
            Kind::DicomSeg => match segmentation(library, sample) {
                Ok(bytes) => write(to, &format!("{id}.dcm"), &bytes)?,
                Err(ExchangeError::Case { what, reason }) => {
                    report.left_out.push((what, reason));
                    continue;
                }
                Err(error) => return Err(error),
            },
            Kind::Npz => {
                let (image, mask) = volumes(library, sample)?;
                let bytes = shards::npz(&image, &mask).map_err(|error| wrong(&error))?;
                write(to, &format!("{id}.npz"), &bytes)?
            }
            Kind::Nifti => {
                let bytes = library.read_object(&sample.image)?;
                write(to, &format!("images/{id}.nii.gz"), &bytes)?
                    + write(to, &format!("masks/{id}.nii.gz"), &library.read_object(&sample.mask)?)?
            }
            _ => {
                let (image, mask) = volumes(library, sample)?;
                let end = if kind == Kind::Nrrd { "nrrd" } else { "mha" };
                let (image, mask) = encode(kind, &image, &mask).map_err(|error| wrong(&error))?;
                write(to, &format!("images/{id}.{end}"), &image)?
                    + write(to, &format!("masks/{id}.{end}"), &mask)?
            }
        };
        report.bytes += written;
        report.samples += 1;
    }
    Ok(report)
}

/// A mask as a segmentation of the series it was drawn on.
fn segmentation(library: &Library, sample: &SampleRecord) -> Outcome<Vec<u8>> {
    let (image, mask) = volumes(library, sample)?;
    let mut files = Vec::new();
    for source in &sample.provenance.sources {
        files.push(library.read_object(source)?);
    }
    let wrong = |reason: &dyn std::fmt::Display| ExchangeError::case(&sample.id, reason);
    let series = dicom::assemble(&files).map_err(|refusal| wrong(&refusal))?;
    if !series.image.geometry.same_grid(&image.geometry) {
        return Err(wrong(
            &"its mask lies on another grid than its series, which a segmentation cannot say",
        ));
    }
    let instances: Vec<Instance> = files
        .iter()
        .map(|file| dicom::inspect(file))
        .collect::<Result<_, _>>()
        .map_err(|refusal| wrong(&refusal))?;
    let head = SegmentationHead {
        label: sample.label.clone(),
        algorithm: match &sample.provenance.author {
            Author::Auto => format!("gantry {}", sample.provenance.pipeline),
            Author::Person(_) => "gantry, by a person".into(),
        },
        version: sample.provenance.program.clone(),
        made: date_time(sample.created_ms / 1000),
    };
    dicom::segmentation(&mask, &instances, &head).map_err(|error| wrong(&error))
}

/// The cases of one data set, by side.
#[derive(Default)]
struct Cases {
    train: Vec<String>,
    validation: Vec<String>,
    test: Vec<String>,
}

/// nnU-Net's raw data set, or the Decathlon's, which differ in names and in what describes them.
fn dataset(library: &Library, chosen: &Chosen, kind: Kind, to: &Path) -> Outcome<ExchangeReport> {
    let mut report = ExchangeReport::default();
    let mut cases = Cases::default();
    let mut modalities = BTreeMap::new();
    let channel = if kind == Kind::NnUnet { "_0000" } else { "" };
    for sample in &chosen.samples {
        let (id, side) = (&sample.id, chosen.side(sample));
        let (_, mask) = volumes(library, sample)?;
        if let Some(other) = mask.voxels.iter().find(|value| **value > 1) {
            let reason = format!("its mask has the label {other} beside 0 and 1");
            report.left_out.push((id.to_string(), reason));
            continue;
        }
        let part = if side == Split::Test { "Ts" } else { "Tr" };
        let image = library.read_object(&sample.image)?;
        let mask = library.read_object(&sample.mask)?;
        report.bytes += write(to, &format!("images{part}/{id}{channel}.nii.gz"), &image)?;
        report.bytes += write(to, &format!("labels{part}/{id}.nii.gz"), &mask)?;
        *modalities.entry(sample.modality.clone()).or_insert(0_u64) += 1;
        *report.sides.entry(side).or_default() += 1;
        report.samples += 1;
        match side {
            Split::Train => cases.train.push(id.to_string()),
            Split::Validation => cases.validation.push(id.to_string()),
            Split::Test => cases.test.push(id.to_string()),
        }
    }
    let modality: Vec<String> = modalities.into_keys().collect();
    let [modality] = &modality[..] else {
        return Err(ExchangeError::Refused(format!(
            "the samples are of {}; a data set has one modality",
            if modality.is_empty() { "no modality".into() } else { modality.join(" and ") }
        )));
    };
    let (name, value) = match kind {
        Kind::NnUnet => {
            let splits = json!([{ "train": cases.train, "val": cases.validation }]);
            report.bytes += write(to, "splits_final.json", &pretty(&splits)?)?;
            ("dataset.json", nnunet(&chosen.label, modality, &cases))
        }
        _ => ("dataset.json", decathlon(&chosen.label, modality, &cases)),
    };
    report.bytes += write(to, name, &pretty(&value)?)?;
    Ok(report)
}

fn nnunet(label: &str, modality: &str, cases: &Cases) -> Value {
    json!({
        "channel_names": { "0": modality },
        "labels": { "background": 0, label: 1 },
        "numTraining": cases.train.len() + cases.validation.len(),
        "file_ending": ".nii.gz",
        "name": label,
        "description": "exported by gantry; cases are named by sample ids",
    })
}

fn decathlon(label: &str, modality: &str, cases: &Cases) -> Value {
    let pairs = |ids: &[String]| -> Vec<Value> {
        let pair = |id: &String| {
            json!({
                "image": format!("./imagesTr/{id}.nii.gz"),
                "label": format!("./labelsTr/{id}.nii.gz"),
            })
        };
        ids.iter().map(pair).collect()
    };
    let test: Vec<String> = cases.test.iter().map(|id| format!("./imagesTs/{id}.nii.gz")).collect();
    json!({
        "name": label,
        "description": "exported by gantry; cases are named by sample ids",
        "tensorImageSize": "3D",
        "modality": { "0": modality },
        "labels": { "0": "background", "1": label },
        "numTraining": cases.train.len(),
        "numTest": cases.test.len(),
        "training": pairs(&cases.train),
        "validation": pairs(&cases.validation),
        "test": test,
    })
}

pub(super) fn pretty(value: &Value) -> Outcome<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| ExchangeError::Refused(error.to_string()))
}

/// The grid of a volume, for readers that know no image format.
pub(super) fn grid(image: &Image, mask: &Mask) -> Value {
    let marked = mask.voxels.iter().filter(|value| **value != 0).count();
    json!({
        "size": image.geometry.size,
        "spacing_mm": image.geometry.spacing_mm,
        "origin_mm": image.geometry.origin_mm,
        "direction": image.geometry.direction,
        "mask_voxels": marked,
    })
}
