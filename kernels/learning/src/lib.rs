//! Networks that learn from the samples of a library and predict on new images.
//!
//! U-Nets over slices and over stacks of them, and classifiers of slices, trained by one of two
//! engines: the embedded one, on the CPU, with no Python and no download, or `PyTorch`, on the GPUs of a task and over the ranks of a
//! gang (its program is in `torch`). [`train`] reads the samples of a library, which it prepares once and
//! keeps in shards there, writes checkpoints into the run's folder, and leaves a model in the library; [`Predictor`] takes a model from there and
//! gives the mask, volume, confidence and embedding of an image; [`similar`] names the nearest
//! earlier cases.
//!
//! What it promises: the same samples, settings and seed give the same weights bit for bit on the
//! same machine and engine, whatever the number of threads, and a run that was stopped or killed and started
//! again gives the same bits as one that was not. No name, id or pixel of a patient is in what it
//! reports. No type of burn is in its interface.
//!
//! Predictions are for research; nothing here is a diagnosis.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::float_cmp))]

mod carry;
mod checkpoint;
mod data;
mod engine;
mod error;
mod loss;
mod merit;
mod metadata;
mod mirror;
mod network;
mod onnx;
mod optimizer;
mod plan;
mod predict;
mod publish;
mod random;
mod settings;
mod sides;
mod train;
mod weights;

pub use carry::{export_model, import_model};
pub use data::{DataRoom, Normalisation};
pub use engine::{EngineChoice, Precision, Rank, Surroundings};
pub use error::LearningError;
pub use merit::Merit;
pub use metadata::{EpochMetrics, FeatureScale, ModelMetadata};
pub use mirror::Mirroring;
pub use network::{Answer, Network, NetworkKind, Supervision};
pub use plan::{Plan, plan};
pub use predict::{PredictionResult, Predictor, Slices, similar};
pub use settings::{Augmentation, Fold, Sweep, TrainSettings};
pub use train::{RunOutcome, RunSink, train};
