//! Predictions, and the cases that they make comparable.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::LibraryError;
use crate::ids::{ModelId, ObjectHash, PatientKey, PredictionId, SeriesId};
use crate::root::{Library, now_ms};

/// The folder of their records.
const FOLDER: &str = "predictions";

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
    /// Its prediction.
    pub prediction: PredictionId,
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
        self.records().create(&format!("{FOLDER}/{id}.json"), &record)?;
        Ok(id)
    }

    /// Every prediction, in the order of their ids.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn predictions(&self) -> Result<Vec<PredictionRecord>, LibraryError> {
        self.records().read_all(FOLDER)
    }

    /// A prediction.
    ///
    /// # Errors
    /// Where there is none or its record is damaged.
    pub fn prediction(&self, id: &PredictionId) -> Result<PredictionRecord, LibraryError> {
        let found = self.records().find(&format!("{FOLDER}/{id}.json"))?;
        found.ok_or_else(|| LibraryError::Unknown { kind: "prediction", name: id.to_string() })
    }

    /// The ids of all predictions as numbers, in their order. Reads no record.
    pub(crate) fn prediction_ids(&self) -> Result<Vec<u64>, LibraryError> {
        let number = |name: String| {
            let id = name.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".json")?;
            Some(id.parse::<PredictionId>().ok()?.number())
        };
        // What is named otherwise was not made here.
        Ok(self.records().names(FOLDER)?.into_iter().filter_map(number).collect())
    }

    /// The newest prediction of a series. Records that the index has not seen yet are read, and no
    /// others.
    ///
    /// # Errors
    /// Where there is none or a record is damaged.
    pub fn prediction_of(&self, series: &SeriesId) -> Result<PredictionRecord, LibraryError> {
        let unknown = || LibraryError::Unknown { kind: "prediction", name: series.to_string() };
        let newest = self.ask_index(|index| index.newest(series, None))?;
        self.prediction(&newest.ok_or_else(unknown)?)
    }

    /// The newest prediction of a series by a model; none where there is none. Reads what
    /// [`Library::prediction_of`] reads.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn prediction_by(
        &self,
        series: &SeriesId,
        model: &ModelId,
    ) -> Result<Option<PredictionRecord>, LibraryError> {
        let newest = self.ask_index(|index| index.newest(series, Some(model)))?;
        newest.map(|id| self.prediction(&id)).transpose()
    }

    /// The cases nearest to a prediction, nearest first; ties in the order of their series. Only
    /// cases of other patients, and only of the same model: embeddings of two models do not
    /// compare. The search is exact. Records that the index has not seen yet are read, and those of the
    /// cases that are found.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn nearest(
        &self,
        to: &PredictionRecord,
        count: usize,
    ) -> Result<Vec<Neighbour>, LibraryError> {
        let near = self
            .ask_index(|index| index.nearest(&to.model, &to.embedding, &to.patient, count))?
            .into_iter();
        let neighbour = |(id, distance)| {
            let PredictionRecord { id, series, findings, .. } = self.prediction(&id)?;
            Ok(Neighbour { prediction: id, series, distance, findings })
        };
        near.map(neighbour).collect()
    }
}
