//! Prediction: what a model says of a new image, and which earlier cases are near to it.

use gantry_imaging::{Geometry, Image, Mask, resample};
use gantry_library::{Library, ModelId, ModelRecord, Neighbour, SeriesId};
use serde_json::Value;

use crate::data::{Statistics, on_scale, to_square};
use crate::error::LearningError;
use crate::merit::leads;
use crate::metadata::{ModelMetadata, VERSION};
use crate::mirror::Side;
use crate::network::{Answer, DirectNetwork, Task};
use crate::settings::TrainSettings;
use crate::weights::Weights;

/// Slices worked on at once: what a prediction needs beside image and mask is bounded by them.
const SLICES_AT_ONCE: usize = 8;

/// What a model says of an image. Research use only, never a diagnosis.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionResult {
    /// 1 where the model finds its label, on the image's own grid. A classifier marks nothing.
    pub mask: Mask,
    /// The mean probability within the mask, 0.5 to 1; 0 where the mask is empty. Of a classifier how
    /// sure it is of what it says, 0.5 to 1.
    pub confidence: f32,
    /// What a classifier says of each slice; nothing of a network that marks.
    pub slices: Option<Slices>,
    /// The mask's volume.
    pub volume_ml: f64,
    /// Where the image lies among others: the network's deepest features, averaged over the image,
    /// in deviations from the training set's, of length 1.
    pub embedding: Vec<f32>,
}

/// Which slices of an image show a label.
#[derive(Clone, Debug, PartialEq)]
pub struct Slices {
    /// The probability of each slice.
    pub probability: Vec<f32>,
}

impl Slices {
    /// The slice that most probably shows the label, and its probability.
    #[must_use]
    pub fn first(&self) -> Option<(usize, f32)> {
        let all = self.probability.iter().copied().enumerate();
        all.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    }
}

/// A model, ready to predict.
pub struct Predictor {
    model: ModelId,
    metadata: ModelMetadata,
    network: DirectNetwork,
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
        let (metadata, weights) = read(library, &record)?;
        let network = DirectNetwork::new(metadata.network, &weights);
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
        let found = match self.metadata.network.kind.task() {
            Task::Segmentation if self.metadata.patch().depth > 1 => self.volume(image)?,
            Task::Segmentation => self.planes(image)?,
            Task::Classification => self.classes(image)?,
        };
        let Found { mask, certainty, slices, features } = found;
        let features = self.metadata.features.apply(&features);
        let length = features.iter().map(|one| one * one).sum::<f64>().sqrt().max(1e-12);
        let marked = mask.iter().filter(|&&voxel| voxel != 0).count();
        let confidence = match slices.as_ref().and_then(Slices::first) {
            Some((_, probability)) => probability.max(1.0 - probability),
            None => (certainty / marked.max(1) as f64) as f32,
        };
        Ok(PredictionResult {
            mask: Mask::new(image.geometry, mask)?,
            confidence,
            slices,
            volume_ml: marked as f64 * image.geometry.voxel_ml(),
            embedding: features.iter().map(|one| (one / length) as f32).collect(),
        })
    }

    /// What the bare network says of patches that are on its scale already, one after the other: what
    /// other programs compute of the exported files, to hold the two against each other.
    ///
    /// # Errors
    /// Where the numbers are no whole patches of the network's input.
    pub fn answer(&self, patches: &[f32]) -> Result<Answer, LearningError> {
        let patch = self.metadata.patch();
        if !patches.len().is_multiple_of(patch.voxels()) {
            return Err(LearningError::Engine(format!(
                "{} numbers are no patches of {} voxels each",
                patches.len(),
                patch.voxels()
            )));
        }
        Ok(self.network.answer(patches, patch))
    }

    /// Slice by slice, some at once.
    fn planes(&self, image: &Image) -> Result<Found, LearningError> {
        let statistics = Statistics::of(image);
        let scale = self.metadata.normalisation.scale(&statistics);
        let (mut found, mut seen) = self.nothing(image);
        for slab in slabs(image) {
            let slab = slab?;
            let square = to_square(&slab, self.metadata.input_size, None, statistics.lowest)?;
            let lead = self.lead(on_scale(&square, scale), &mut seen)?;
            let probability = Image::new(square.geometry, lead.into_iter().map(sigmoid).collect())?;
            found.take(&resample::image_onto(&probability, &slab.geometry, 0.0)?);
        }
        Ok(found.done(seen))
    }

    /// By stacks of slices that are half over each other, a voxel by the mean of those that hold it
    /// (nnU-Net's sliding window; the window is the whole picture in rows and columns).
    fn volume(&self, image: &Image) -> Result<Found, LearningError> {
        let patch = self.metadata.patch();
        let statistics = Statistics::of(image);
        let scale = self.metadata.normalisation.scale(&statistics);
        let (mut found, mut seen) = self.nothing(image);
        if image.voxels.is_empty() {
            return Ok(found.done(seen));
        }
        let square = to_square(image, patch.side, self.metadata.slice_mm, statistics.lowest)?;
        let slices = square.geometry.size[2];
        let mut voxels = on_scale(&square, scale);
        voxels.resize(slices.max(patch.depth) * patch.area(), scale.apply(statistics.lowest));
        let (mut lead, mut times) =
            (vec![0.0; voxels.len()], vec![0.0_f32; slices.max(patch.depth)]);
        for first in patch.cover(slices) {
            let own = first * patch.area()..first * patch.area() + patch.voxels();
            let said = self.lead(voxels[own.clone()].to_vec(), &mut seen)?;
            lead[own].iter_mut().zip(said).for_each(|(sum, one)| *sum += one);
            times[first..first + patch.depth].iter_mut().for_each(|count| *count += 1.0);
        }
        let mean = lead.chunks_exact(patch.area()).zip(&times).take(slices);
        let mean =
            mean.flat_map(|(slice, times)| slice.iter().map(move |sum| sigmoid(sum / times)));
        let probability = Image::new(square.geometry, mean.collect())?;
        for slab in slabs(image) {
            found.take(&resample::image_onto(&probability, &slab?.geometry, 0.0)?);
        }
        Ok(found.done(seen))
    }

    /// The class of each slice.
    fn classes(&self, image: &Image) -> Result<Found, LearningError> {
        let statistics = Statistics::of(image);
        let scale = self.metadata.normalisation.scale(&statistics);
        let (mut found, mut seen) = self.nothing(image);
        let mut probability = Vec::new();
        for slab in slabs(image) {
            let square = to_square(&slab?, self.metadata.input_size, None, statistics.lowest)?;
            let lead = self.lead(on_scale(&square, scale), &mut seen)?;
            probability.extend(lead.into_iter().map(sigmoid));
        }
        found.mask = vec![0; image.voxels.len()];
        found.slices = Some(Slices { probability });
        Ok(found.done(seen))
    }

    fn nothing(&self, image: &Image) -> (Found, Seen) {
        let mask = Vec::with_capacity(image.voxels.len());
        let features = vec![0.0; self.metadata.network.features()];
        let found = Found { mask, certainty: 0.0, slices: None, features: Vec::new() };
        (found, Seen { features, patches: 0 })
    }

    /// By how much the label leads the background in each voxel, or slice, of some patches, from the
    /// sides that the model looks from; their features as they are are added up.
    fn lead(&self, patches: Vec<f32>, seen: &mut Seen) -> Result<Vec<f32>, LearningError> {
        let patch = self.metadata.patch();
        self.metadata.mirroring.lead(patches, patch.side, |patches, side| {
            let answer = self.network.answer(&patches, patch);
            if side == Side::Straight {
                seen.add(&answer.features);
            }
            Ok(leads(&answer.logits, self.metadata.network.labels(patch)).collect())
        })
    }
}

/// What is found so far.
struct Found {
    mask: Vec<u8>,
    /// The sum of the probabilities within the mask.
    certainty: f64,
    slices: Option<Slices>,
    /// The mean features, once all is seen.
    features: Vec<f64>,
}

/// The features of so many patches, added up.
struct Seen {
    features: Vec<f64>,
    patches: usize,
}

impl Seen {
    fn add(&mut self, all: &[f32]) {
        for features in all.chunks_exact(self.features.len()) {
            self.features.iter_mut().zip(features).for_each(|(sum, &one)| *sum += f64::from(one));
            self.patches += 1;
        }
    }
}

impl Found {
    /// Takes the probability of the next slices.
    fn take(&mut self, probability: &Image) {
        for &probability in &probability.voxels {
            let inside = probability > 0.5;
            self.mask.push(u8::from(inside));
            self.certainty += if inside { f64::from(probability) } else { 0.0 };
        }
    }

    fn done(self, seen: Seen) -> Self {
        let count = seen.patches.max(1) as f64;
        Self { features: seen.features.into_iter().map(|sum| sum / count).collect(), ..self }
    }
}

fn sigmoid(lead: f32) -> f32 {
    1.0 / (1.0 + (-lead).exp())
}

/// The metadata and weights of a model, checked against each other.
pub(crate) fn read(
    library: &Library,
    record: &ModelRecord,
) -> Result<(ModelMetadata, Weights), LearningError> {
    let bytes = library.read_object(&record.weights)?;
    check(record.id.as_str(), &record.metadata, &bytes)
}

/// The metadata and weights of a model of this name, checked against each other.
pub(crate) fn check(
    model: &str,
    metadata: &Value,
    weights: &[u8],
) -> Result<(ModelMetadata, Weights), LearningError> {
    let unusable = |reason: String| LearningError::Model { model: model.to_owned(), reason };
    let metadata: ModelMetadata = serde_json::from_value(metadata.clone())
        .map_err(|error| unusable(format!("its metadata cannot be read: {error}")))?;
    if metadata.version != VERSION {
        let found = metadata.version;
        return Err(unusable(format!("its metadata is of version {found}, not {VERSION}")));
    }
    let checked = TrainSettings {
        network: metadata.network.kind,
        input_size: metadata.input_size,
        base_channels: metadata.network.base_channels,
        ..TrainSettings::default()
    };
    let depth = metadata.input_depth;
    let checked = if depth > 1 { TrainSettings { input_depth: depth, ..checked } } else { checked };
    checked.check().map_err(|error| unusable(error.to_string()))?;
    if checked.patch() != metadata.patch() {
        return Err(unusable(format!("its network does not see {depth} slices at once")));
    }
    if metadata.slice_mm.is_some_and(|apart| !(1e-3..=1e3).contains(&apart)) {
        return Err(unusable("its slices are not 0.001 to 1,000 mm apart".to_owned()));
    }
    if metadata.network.classes != 2 || metadata.labels.len() != 2 {
        return Err(unusable("it must have one label beside the background".to_owned()));
    }
    let wanted = metadata.network.features();
    let features = &metadata.features;
    if features.mean.len() != wanted || features.deviation.len() != wanted {
        return Err(unusable(format!("its features are not described; there are {wanted}")));
    }
    let (weights, _) =
        Weights::from_safetensors(weights, "").map_err(|error| unusable(error.to_string()))?;
    weights
        .require_shapes_of(&metadata.network.initial(0))
        .map_err(|error| unusable(error.to_string()))?;
    Ok((metadata, weights))
}

/// The slices of an image, some at once, where they lie.
fn slabs(image: &Image) -> impl Iterator<Item = Result<Image, LearningError>> {
    let depth = if image.voxels.is_empty() { 0 } else { image.geometry.size[2] };
    let firsts = (0..depth).step_by(SLICES_AT_ONCE);
    firsts.map(move |first| slab(image, first, SLICES_AT_ONCE.min(depth - first)))
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
