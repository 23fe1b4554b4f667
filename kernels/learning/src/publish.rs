//! From the end of a run to a model in the library.

use std::collections::BTreeSet;

use gantry_library::{Library, ModelDraft, ModelId, SampleRecord};
use serde_json::{Value, json};

use crate::checkpoint::State;
use crate::error::LearningError;
use crate::merit::Merit;
use crate::metadata::{FeatureScale, ModelMetadata, VERSION};
use crate::weights::Weights;

/// Puts the model of a finished run into the library. A run that is finished twice leaves one.
pub(crate) fn publish(
    library: &Library,
    run: &str,
    state: &State,
    weights: &Weights,
    trained_on: &[SampleRecord],
    features: FeatureScale,
    test: Merit,
) -> Result<ModelId, LearningError> {
    let settings = &state.settings;
    let (network, patch) = (settings.network().of_model(), settings.patch());
    let modalities: BTreeSet<_> = trained_on.iter().map(|sample| &sample.modality).collect();
    let metadata = ModelMetadata {
        version: VERSION,
        task: network.kind.task().word().to_owned(),
        network,
        input_size: patch.side,
        input_depth: patch.depth,
        slice_mm: state.slice_mm,
        normalisation: state.normalisation,
        mirroring: settings.mirroring,
        features,
        labels: vec!["background".to_owned(), settings.label.clone()],
        modalities: modalities.into_iter().cloned().collect(),
        library_hash: Library::fingerprint(trained_on).hash,
        samples: trained_on.len(),
        epochs: state.epoch,
        seed: settings.seed,
        fold: settings.fold,
        intended_use: "research use only".to_owned(),
        program: concat!("gantry ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let graph = serde_json::to_string(&network.graph())
        .map_err(|error| LearningError::Damaged(format!("the network's drawing: {error}")))?;
    let last = state.history.last();
    let draft = ModelDraft {
        name: format!("{}-{}", settings.label, network.kind.word()),
        run: run.to_owned(),
        weights: weights.of(&network).to_safetensors(Some(("graph", &graph)))?,
        metadata: as_read(&metadata)
            .map_err(|error| LearningError::Damaged(format!("the model's metadata: {error}")))?,
        metrics: json!({
            "epochs": state.history,
            "loss": last.map(|epoch| epoch.loss),
            "validation_dice": last.and_then(|epoch| epoch.validation_dice),
            "validation_auc": last.and_then(|epoch| epoch.validation_auc),
            "test_dice": test.dice,
            "test_auc": test.auc,
        }),
    };
    Ok(library.publish_model(draft)?)
}

/// A record as it is read back: numbers of 32 bits have few digits as text, and many as the numbers of
/// 64 bits that they are widened to, of which some would be read back as their neighbours. The id of a
/// model is made of this text.
fn as_read(metadata: &ModelMetadata) -> serde_json::Result<Value> {
    serde_json::from_str(&serde_json::to_string(metadata)?)
}
