//! Predictions, and the cases that they make comparable.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cases::{Cases, Near};
use crate::error::LibraryError;
use crate::ids::{ModelId, ObjectHash, PatientKey, PredictionId, SeriesId};
use crate::root::{Library, now_ms};

/// A prediction to be kept.
#[derive(Clone, Debug)]
pub struct PredictionDraft {
    /// The series.
    pub series: SeriesId,
    /// The model.
    pub model: ModelId,
    /// The mask as `NIfTI` on the series' grid.
    pub mask: Vec<u8>,
    /// The mask as DICOM SEG; none where nothing is marked.
    pub segmentation: Option<Vec<u8>>,
    /// The mask's volume.
    pub volume_ml: f64,
    /// The mean probability within the mask.
    pub confidence: f32,
    /// Where the series lies among others, of length 1.
    pub embedding: Vec<f32>,
    /// What was found, for people who compare.
    pub findings: Value,
}

/// A prediction that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictionRecord {
    /// Its id.
    pub id: PredictionId,
    /// The series.
    pub series: SeriesId,
    /// Whose it is.
    pub patient: PatientKey,
    /// The model.
    pub model: ModelId,
    /// The mask (`NIfTI`).
    pub mask: ObjectHash,
    /// The mask (DICOM SEG); none where nothing is marked.
    pub segmentation: Option<ObjectHash>,
    /// The mask's volume.
    pub volume_ml: f64,
    /// The mean probability within the mask.
    pub confidence: f32,
    /// Where the series lies among others.
    pub embedding: Vec<f32>,
    /// What was found.
    pub findings: Value,
    /// When it was kept.
    pub created_ms: u64,
}

/// An earlier case near to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Neighbour {
    /// Its series.
    pub series: SeriesId,
    /// One minus the cosine of the angle between the embeddings: 0 is the same direction.
    pub distance: f32,
    /// What was found there.
    pub findings: Value,
}

impl Library {
    /// Keeps a prediction; it is a case from then on. The same content is the same prediction.
    ///
    /// # Errors
    /// Where the series or the model is unknown, a number is infinite, or the storage is full or
    /// fails.
    pub fn add_prediction(&self, draft: PredictionDraft) -> Result<PredictionId, LibraryError> {
        let series = self.series_record(&draft.series)?;
        if !self.has_model(&draft.model)? {
            let name = draft.model.to_string();
            return Err(LibraryError::Unknown { kind: "model", name });
        }
        let mask = self.put_object(&draft.mask)?;
        let segmentation = draft.segmentation.map(|bytes| self.put_object(&bytes)).transpose()?;
        let id = PredictionId::of(&[
            draft.series.as_str().as_bytes(),
            draft.model.as_str().as_bytes(),
            mask.as_str().as_bytes(),
        ]);
        let record = PredictionRecord {
            id: id.clone(),
            series: draft.series,
            patient: series.patient,
            model: draft.model,
            mask,
            segmentation,
            volume_ml: draft.volume_ml,
            confidence: draft.confidence,
            embedding: draft.embedding,
            findings: draft.findings,
            created_ms: now_ms(),
        };
        self.records().create(&format!("predictions/{id}.json"), &record)?;
        Ok(id)
    }

    /// Every prediction, in the order of their ids.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn predictions(&self) -> Result<Vec<PredictionRecord>, LibraryError> {
        self.records().read_all("predictions")
    }

    /// The newest prediction of a series.
    ///
    /// # Errors
    /// Where there is none or a record is damaged.
    pub fn prediction_of(&self, series: &SeriesId) -> Result<PredictionRecord, LibraryError> {
        self.predictions()?
            .into_iter()
            .filter(|prediction| prediction.series == *series)
            .max_by_key(|prediction| prediction.created_ms)
            .ok_or_else(|| LibraryError::Unknown { kind: "prediction", name: series.to_string() })
    }

    /// The newest prediction of a series by a model; none where there is none.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn prediction_by(
        &self,
        series: &SeriesId,
        model: &ModelId,
    ) -> Result<Option<PredictionRecord>, LibraryError> {
        let all = self.predictions()?.into_iter();
        let own = all.filter(|one| one.series == *series && one.model == *model);
        Ok(own.max_by_key(|one| one.created_ms))
    }

    /// The cases nearest to a prediction, nearest first; ties in the order of their series. Only
    /// cases of other patients, and only of the same model: embeddings of two models do not
    /// compare. The search is exact.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn nearest(
        &self,
        to: &PredictionRecord,
        count: usize,
    ) -> Result<Vec<Neighbour>, LibraryError> {
        let mut same = self.predictions()?;
        same.retain(|case| case.model == to.model && case.embedding.len() == to.embedding.len());
        let mut cases = Cases::new(to.embedding.len());
        for case in &same {
            cases.add(&case.series, &case.patient, &case.embedding);
        }
        let near = cases.nearest(&to.embedding, &to.patient, count).into_iter();
        let neighbour = |near: Near| Neighbour {
            series: same[near.place].series.clone(),
            distance: near.distance,
            findings: same[near.place].findings.clone(),
        };
        Ok(near.map(neighbour).collect())
    }
}
