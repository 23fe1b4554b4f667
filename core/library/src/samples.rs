//! Samples: an image, its mask, and where both come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::LibraryError;
use crate::ids::{ObjectHash, PatientKey, SampleId, SeriesId, sha256_hex};
use crate::root::{Library, now_ms};

/// Who made a mask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Author {
    /// A pipeline.
    Auto,
    /// A person, by the name of the account.
    Person(String),
}

/// Where a sample comes from: enough to make it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The objects that it was made of.
    pub sources: Vec<ObjectHash>,
    /// The pipeline's name.
    pub pipeline: String,
    /// The hash of the pipeline with all its parameters.
    pub pipeline_hash: String,
    /// The program's version.
    pub program: String,
    /// Who made the mask.
    pub author: Author,
}

/// A sample to be kept.
#[derive(Clone, Debug)]
pub struct SampleDraft {
    /// The series it was made of.
    pub series: SeriesId,
    /// What the mask marks.
    pub label: String,
    /// The image as `NIfTI` (`.nii.gz`).
    pub image: Vec<u8>,
    /// The mask as `NIfTI` on the image's grid.
    pub mask: Vec<u8>,
    /// Voxels along x, y, z.
    pub size: [usize; 3],
    /// Voxel pitch along x, y, z in mm.
    pub spacing_mm: [f64; 3],
    /// Voxels of the mask.
    pub mask_voxels: u64,
    /// The mask's volume.
    pub volume_ml: f64,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// A sample that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// Its id.
    pub id: SampleId,
    /// The series it was made of.
    pub series: SeriesId,
    /// Whose it is.
    pub patient: PatientKey,
    /// Its modality.
    pub modality: String,
    /// What the mask marks.
    pub label: String,
    /// The image.
    pub image: ObjectHash,
    /// The mask.
    pub mask: ObjectHash,
    /// Voxels along x, y, z.
    pub size: [usize; 3],
    /// Voxel pitch along x, y, z in mm.
    pub spacing_mm: [f64; 3],
    /// Voxels of the mask.
    pub mask_voxels: u64,
    /// The mask's volume.
    pub volume_ml: f64,
    /// Where it comes from.
    pub provenance: Provenance,
    /// When it was kept.
    pub created_ms: u64,
}

/// What a set of samples is like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Samples.
    pub samples: u64,
    /// Patients.
    pub patients: u64,
    /// Samples by label.
    pub labels: BTreeMap<String, u64>,
    /// Samples by modality.
    pub modalities: BTreeMap<String, u64>,
    /// The median voxel pitch along x, y, z in mm.
    pub median_spacing_mm: [f64; 3],
    /// The median size along x, y, z in voxels.
    pub median_size: [usize; 3],
    /// The hash of the whole set.
    pub hash: String,
}

impl Library {
    /// Keeps a sample. The same content from the same pipeline and author is the same sample,
    /// however often it is made.
    ///
    /// # Errors
    /// Where the series is unknown, or the storage is full or fails.
    pub fn add_sample(&self, draft: SampleDraft) -> Result<SampleId, LibraryError> {
        let series = self.series_record(&draft.series)?;
        let image = self.put_object(&draft.image)?;
        let mask = self.put_object(&draft.mask)?;
        let author = match &draft.provenance.author {
            Author::Auto => "",
            Author::Person(name) => name,
        };
        let id = SampleId::of(&[
            author.as_bytes(),
            draft.series.as_str().as_bytes(),
            draft.label.as_bytes(),
            image.as_str().as_bytes(),
            mask.as_str().as_bytes(),
            draft.provenance.pipeline_hash.as_bytes(),
        ]);
        let record = SampleRecord {
            id: id.clone(),
            series: draft.series,
            patient: series.patient,
            modality: series.modality,
            label: draft.label,
            image,
            mask,
            size: draft.size,
            spacing_mm: draft.spacing_mm,
            mask_voxels: draft.mask_voxels,
            volume_ml: draft.volume_ml,
            provenance: draft.provenance,
            created_ms: now_ms(),
        };
        self.records().create(&sample_record(&id), &record)?;
        Ok(id)
    }

    /// Every sample, in the order of their ids.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn samples(&self) -> Result<Vec<SampleRecord>, LibraryError> {
        self.records().read_all("samples")
    }

    /// One sample.
    ///
    /// # Errors
    /// Where there is none of this id, or its record is damaged.
    pub fn sample(&self, id: &SampleId) -> Result<SampleRecord, LibraryError> {
        let unknown = || LibraryError::Unknown { kind: "sample", name: id.to_string() };
        self.records().find(&sample_record(id))?.ok_or_else(unknown)
    }

    /// What a set of samples is like.
    #[must_use]
    pub fn fingerprint(samples: &[SampleRecord]) -> Fingerprint {
        let mut labels = BTreeMap::new();
        let mut modalities = BTreeMap::new();
        for sample in samples {
            *labels.entry(sample.label.clone()).or_default() += 1;
            *modalities.entry(sample.modality.clone()).or_default() += 1;
        }
        let patients: std::collections::BTreeSet<_> =
            samples.iter().map(|sample| &sample.patient).collect();
        let mut ids: Vec<&[u8]> =
            samples.iter().map(|sample| sample.id.as_str().as_bytes()).collect();
        ids.sort_unstable();
        ids.push(b"set");
        Fingerprint {
            samples: samples.len() as u64,
            patients: patients.len() as u64,
            labels,
            modalities,
            median_spacing_mm: std::array::from_fn(|axis| {
                let mut all: Vec<f64> =
                    samples.iter().map(|sample| sample.spacing_mm[axis]).collect();
                all.sort_by(f64::total_cmp);
                all.get(all.len() / 2).copied().unwrap_or(0.0)
            }),
            median_size: std::array::from_fn(|axis| {
                let mut all: Vec<usize> = samples.iter().map(|sample| sample.size[axis]).collect();
                all.sort_unstable();
                all.get(all.len() / 2).copied().unwrap_or(0)
            }),
            hash: sha256_hex(&ids),
        }
    }
}

fn sample_record(id: &SampleId) -> String {
    format!("samples/{id}.json")
}
