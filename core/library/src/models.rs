//! Models: weights, what is said of them, and the stages they go through.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::LibraryError;
use crate::files::Made;
use crate::ids::{ModelId, ObjectHash};
use crate::limits::STAGES_MAX;
use crate::root::{Library, now_ms};

/// Where a model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Trained, and not looked at yet.
    Candidate,
    /// Good enough to be served.
    Approved,
    /// Not to be used any more.
    Retired,
}

/// A model to be kept.
#[derive(Clone, Debug)]
pub struct ModelDraft {
    /// A name for people.
    pub name: String,
    /// The run that left it.
    pub run: String,
    /// The weights (safetensors).
    pub weights: Vec<u8>,
    /// Everything that is needed to use it.
    pub metadata: Value,
    /// How it did.
    pub metrics: Value,
}

/// A model that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Its id.
    pub id: ModelId,
    /// A name for people.
    pub name: String,
    /// The run that left it.
    pub run: String,
    /// The weights.
    pub weights: ObjectHash,
    /// Everything that is needed to use it.
    pub metadata: Value,
    /// How it did.
    pub metrics: Value,
    /// When it was kept.
    pub created_ms: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StageRecord {
    stage: Stage,
    by: String,
    at_ms: u64,
}

impl Library {
    /// Keeps a model as a candidate. The same weights with the same metadata are the same model.
    ///
    /// # Errors
    /// Where the storage is full or fails.
    pub fn publish_model(&self, draft: ModelDraft) -> Result<ModelId, LibraryError> {
        let weights = self.put_object(&draft.weights)?;
        let metadata = draft.metadata.to_string();
        let id =
            ModelId::of(&[weights.as_str().as_bytes(), metadata.as_bytes(), draft.run.as_bytes()]);
        let record = ModelRecord {
            id: id.clone(),
            name: draft.name,
            run: draft.run,
            weights,
            metadata: draft.metadata,
            metrics: draft.metrics,
            created_ms: now_ms(),
        };
        self.records().create(&format!("models/{id}.json"), &record)?;
        Ok(id)
    }

    /// Every model, in the order of their ids.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn models(&self) -> Result<Vec<ModelRecord>, LibraryError> {
        self.records().read_all("models")
    }

    pub(crate) fn has_model(&self, id: &ModelId) -> Result<bool, LibraryError> {
        self.records().holds(&format!("models/{id}.json"))
    }

    /// A model by its id, its name, or `run:NAME` for what a run left; the newest of several.
    ///
    /// # Errors
    /// Where there is none.
    pub fn model(&self, name: &str) -> Result<ModelRecord, LibraryError> {
        let fits = |model: &ModelRecord| match name.strip_prefix("run:") {
            Some(run) => model.run == run,
            None => model.id.as_str() == name || model.name == name,
        };
        self.models()?
            .into_iter()
            .filter(fits)
            .max_by_key(|model| model.created_ms)
            .ok_or_else(|| LibraryError::Unknown { kind: "model", name: name.to_owned() })
    }

    /// The stage of a model.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn stage(&self, model: &ModelId) -> Result<Stage, LibraryError> {
        Ok(self.last_stage(model)?.map_or(Stage::Candidate, |record| record.stage))
    }

    fn last_stage(&self, model: &ModelId) -> Result<Option<StageRecord>, LibraryError> {
        let names = self.records().names(&format!("models/{model}"))?;
        names.last().map(|name| self.records().read(name)).transpose()
    }

    /// The model that is served under a name or an id: of those that are approved the one approved
    /// last. So an earlier one is served again once it is approved again, or the later one retired.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn approved_model(&self, name: &str) -> Result<Option<ModelRecord>, LibraryError> {
        let mut newest: Option<(u64, ModelRecord)> = None;
        for model in self.models()? {
            if model.id.as_str() != name && model.name != name {
                continue;
            }
            let Some(record) = self.last_stage(&model.id)? else { continue };
            let later = newest.as_ref().is_none_or(|(at_ms, _)| record.at_ms >= *at_ms);
            if record.stage == Stage::Approved && later {
                newest = Some((record.at_ms, model));
            }
        }
        Ok(newest.map(|(_, model)| model))
    }

    /// Moves a model to a stage, and keeps who did so.
    ///
    /// # Errors
    /// Where the model is unknown or the storage fails.
    pub fn set_stage(&self, model: &ModelId, stage: Stage, by: &str) -> Result<(), LibraryError> {
        if !self.has_model(model)? {
            return Err(LibraryError::Unknown { kind: "model", name: model.to_string() });
        }
        let next = self.records().names(&format!("models/{model}"))?.len() as u32;
        for number in next..STAGES_MAX {
            let record = StageRecord { stage, by: by.to_owned(), at_ms: now_ms() };
            let name = format!("models/{model}/{number:04}.json");
            if self.records().create(&name, &record)? == Made::New {
                return Ok(());
            }
        }
        Err(LibraryError::Invalid(format!(
            "model {model} has changed its stage {STAGES_MAX} times"
        )))
    }
}
