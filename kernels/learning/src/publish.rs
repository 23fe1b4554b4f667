//! From the end of a run to a model in the library.

use std::collections::BTreeSet;

use gantry_library::{Library, ModelDraft, ModelId, SampleRecord};
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::error::LearningError;
use crate::metadata::{FeatureScale, ModelMetadata, VERSION};
use crate::unet::UNet;

/// Puts the model of a finished run into the library. A run that is finished twice leaves one.
pub(crate) fn publish(
    library: &Library,
    run: &str,
    shape: UNet,
    checkpoint: &Checkpoint,
    trained_on: &[SampleRecord],
    features: FeatureScale,
    test_dice: Option<f32>,
) -> Result<ModelId, LearningError> {
    let state = &checkpoint.state;
    let settings = &state.settings;
    let modalities: BTreeSet<_> = trained_on.iter().map(|sample| &sample.modality).collect();
    let metadata = ModelMetadata {
        version: VERSION,
        task: "segmentation".to_owned(),
        network: shape,
        input_size: settings.input_size,
        normalisation: state.normalisation,
        features,
        labels: vec!["background".to_owned(), settings.label.clone()],
        modalities: modalities.into_iter().cloned().collect(),
        library_hash: Library::fingerprint(trained_on).hash,
        samples: trained_on.len(),
        epochs: settings.epochs,
        seed: settings.seed,
        intended_use: "research use only".to_owned(),
        program: concat!("gantry ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let last = state.history.last();
    let draft = ModelDraft {
        name: format!("{}-unet2d", settings.label),
        run: run.to_owned(),
        weights: checkpoint.weights.to_safetensors(None)?,
        metadata: serde_json::to_value(&metadata)
            .map_err(|error| LearningError::Damaged(format!("the model's metadata: {error}")))?,
        metrics: json!({
            "epochs": state.history,
            "loss": last.map(|epoch| epoch.loss),
            "validation_dice": last.and_then(|epoch| epoch.validation_dice),
            "test_dice": test_dice,
        }),
    };
    Ok(library.publish_model(draft)?)
}
