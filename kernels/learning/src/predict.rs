//! Prediction: what a model says of a new image, and which earlier cases are near to it.

use gantry_imaging::{Geometry, Image, Mask, resample};
use gantry_library::{Library, ModelId, Neighbour, SeriesId};

use crate::data::{Scale, Statistics, on_scale, to_square};
use crate::error::LearningError;
use crate::metadata::{ModelMetadata, VERSION};
use crate::settings::TrainSettings;
use crate::unet::{Mode, Network, values};
use crate::weights::Weights;

/// Slices worked on at once: what a prediction needs beside image and mask is bounded by them.
const SLICES_AT_ONCE: usize = 8;

/// What a model says of an image. Research use only, never a diagnosis.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionResult {
    /// 1 where the model finds its label, on the image's own grid.
    pub mask: Mask,
    /// The mean probability within the mask, 0.5 to 1; 0 where the mask is empty.
    pub confidence: f32,
    /// The mask's volume.
    pub volume_ml: f64,
    /// Where the image lies among others: the network's deepest features, averaged over the image,
    /// in deviations from the training set's, of length 1.
    pub embedding: Vec<f32>,
}

/// A model, ready to predict.
pub struct Predictor {
    model: ModelId,
    metadata: ModelMetadata,
    network: Network,
}

impl std::fmt::Debug for Predictor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Predictor").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Predictor {
    /// Takes a model from the library: by its id, its name, or `run:NAME` for what a run left.
    ///
    /// # Errors
    /// Where there is no such model, or this program cannot use it.
    pub fn load(library: &Library, model: &str) -> Result<Self, LearningError> {
        let record = library.model(model)?;
        let unusable =
            |reason: String| LearningError::Model { model: record.id.to_string(), reason };
        let metadata: ModelMetadata = serde_json::from_value(record.metadata.clone())
            .map_err(|error| unusable(format!("its metadata cannot be read: {error}")))?;
        if metadata.version != VERSION {
            let found = metadata.version;
            return Err(unusable(format!("its metadata is of version {found}, not {VERSION}")));
        }
        let checked = TrainSettings {
            input_size: metadata.input_size,
            base_channels: metadata.network.base_channels,
            ..TrainSettings::default()
        };
        checked.check().map_err(|error| unusable(error.to_string()))?;
        if metadata.network.classes != 2 || metadata.labels.len() != 2 {
            return Err(unusable("it must have one label beside the background".to_owned()));
        }
        let wanted = metadata.network.features();
        let features = &metadata.features;
        if features.mean.len() != wanted || features.deviation.len() != wanted {
            return Err(unusable(format!("its features are not described; there are {wanted}")));
        }
        let bytes = library.read_object(&record.weights)?;
        let (weights, _) =
            Weights::from_safetensors(&bytes, "").map_err(|error| unusable(error.to_string()))?;
        weights
            .require_shapes_of(&metadata.network.initial(0))
            .map_err(|error| unusable(error.to_string()))?;
        let network = Network::new(metadata.network, &weights, Mode::Use);
        Ok(Self { model: record.id, metadata, network })
    }

    /// The model's id.
    #[must_use]
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// What is said of the model.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// The name of what the model finds.
    #[must_use]
    pub fn label(&self) -> &str {
        self.metadata.labels.get(1).map_or("", String::as_str)
    }

    /// Finds the model's label in an image. An image without voxels has an empty mask.
    ///
    /// # Errors
    /// Where the image's grid is not sound.
    pub fn predict(&self, image: &Image) -> Result<PredictionResult, LearningError> {
        image.geometry.check()?;
        let statistics = Statistics::of(image);
        let scale = self.metadata.normalisation.scale(&statistics);
        let depth = if image.voxels.is_empty() { 0 } else { image.geometry.size[2] };
        let mut mask = Vec::with_capacity(image.voxels.len());
        let mut features = vec![0.0_f64; self.metadata.network.features()];
        let (mut certainty, mut found) = (0.0_f64, 0_usize);
        for first in (0..depth).step_by(SLICES_AT_ONCE) {
            let slab = slab(image, first, SLICES_AT_ONCE.min(depth - first))?;
            let probability = self.slab(&slab, scale, statistics.lowest, &mut features)?;
            for &probability in &probability.voxels {
                let inside = probability > 0.5;
                mask.push(u8::from(inside));
                found += usize::from(inside);
                certainty += if inside { f64::from(probability) } else { 0.0 };
            }
        }
        let mean: Vec<f64> = features.iter().map(|sum| sum / depth.max(1) as f64).collect();
        let features = self.metadata.features.apply(&mean);
        let length = features.iter().map(|one| one * one).sum::<f64>().sqrt().max(1e-12);
        Ok(PredictionResult {
            mask: Mask::new(image.geometry, mask)?,
            confidence: (certainty / found.max(1) as f64) as f32,
            volume_ml: found as f64 * image.geometry.voxel_ml(),
            embedding: features.iter().map(|one| (one / length) as f32).collect(),
        })
    }

    /// The label's probability in some slices, on their own grid; their features are added up.
    fn slab(
        &self,
        slab: &Image,
        scale: Scale,
        around: f32,
        features: &mut [f64],
    ) -> Result<Image, LearningError> {
        let side = self.metadata.input_size;
        let square = to_square(slab, side, around)?;
        let shape = [slab.geometry.size[2], 1, side, side];
        let output = self.network.forward(self.network.tensor(on_scale(&square, scale), shape));
        for image in values(output.features).chunks_exact(features.len()) {
            for (sum, &one) in features.iter_mut().zip(image) {
                *sum += f64::from(one);
            }
        }
        let logits = values(output.logits);
        let area = side * side;
        let probability = logits.chunks_exact(2 * area).flat_map(|slice| {
            let (no, yes) = slice.split_at(area);
            no.iter().zip(yes).map(|(no, yes)| 1.0 / (1.0 + (no - yes).exp()))
        });
        let probability = Image::new(square.geometry, probability.collect())?;
        Ok(resample::image_onto(&probability, &slab.geometry, 0.0)?)
    }
}

/// Some slices of an image, where they lie.
fn slab(image: &Image, first: usize, count: usize) -> Result<Image, LearningError> {
    let [width, height, _] = image.geometry.size;
    let geometry = Geometry {
        size: [width, height, count],
        origin_mm: image.geometry.to_patient_mm([0.0, 0.0, first as f64]),
        ..image.geometry
    };
    let area = width * height;
    Ok(Image::new(geometry, image.voxels[first * area..(first + count) * area].to_vec())?)
}

/// The cases nearest to the newest prediction of a series, nearest first: of other patients, by the
/// same model.
///
/// # Errors
/// Where the series has no prediction, or a record of the library is damaged.
pub fn similar(
    library: &Library,
    series: &SeriesId,
    count: usize,
) -> Result<Vec<Neighbour>, LearningError> {
    let prediction = library.prediction_of(series)?;
    Ok(library.nearest(&prediction, count)?)
}
