//! Networks: how they are called and drawn, and the weights that they begin with.
//!
//! A network is a description of three numbers and a name ([`Network`]). It is drawn once, as a list
//! of operations with the names of their weights ([`graph::Graph`]), and that list is what the
//! embedded engine computes (`direct.rs`, and in tests burn with its own gradients, `run.rs`), what the program of `PyTorch` is sent, and what is written as
//! ONNX: none of them knows a U-Net from a classifier.
//!
//! | network | drawn after | learns |
//! |---|---|---|
//! | `unet2d`, `unet3d` | U-Net (Ronneberger, Fischer and Brox 2015; Çiçek et al. 2016), as nnU-Net does | the mask of slices, or of stacks of slices |
//! | `residual-unet2d`, `residual-unet3d` | the same with residual blocks on the way down (nnU-Net's residual encoder, Isensee et al. 2024) | the same |
//! | `resnet18` | `ResNet`-18 (He et al. 2016) | whether a slice shows the label |
//! | `densenet121` | `DenseNet`-121 (Huang et al. 2017) | the same |
//!
//! Every convolution is followed by group normalisation (Wu and He 2018), also where the original has
//! normalisation over the batch: what a network says of an image does not depend on the others in its
//! batch, a gang of ranks learns what one rank would, and batches may be small.

mod back;
mod classifiers;
mod convolve;
mod direct;
pub(crate) mod graph;
#[cfg(test)]
mod run;
mod slopes;
mod unet;

use std::collections::BTreeMap;
use std::str::FromStr;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub(crate) use self::back::{Kept, Slopes};
pub use self::direct::Answer;
pub(crate) use self::direct::DirectNetwork;
pub(crate) use self::graph::Aid;
#[cfg(test)]
pub(crate) use self::run::{LoadedNetwork, Mode};

use self::graph::{Begin, Graph};
use crate::error::LearningError;
use crate::random::Random;
use crate::weights::{Parameter, Weights};

/// What a network is drawn after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkKind {
    /// A U-Net over slices.
    #[default]
    #[serde(rename = "unet2d")]
    UNet2d,
    /// A U-Net over stacks of slices.
    #[serde(rename = "unet3d")]
    UNet3d,
    /// A U-Net over slices with residual blocks on the way down.
    #[serde(rename = "residual-unet2d")]
    ResidualUNet2d,
    /// A U-Net over stacks of slices with residual blocks on the way down.
    #[serde(rename = "residual-unet3d")]
    ResidualUNet3d,
    /// `ResNet`-18 over slices.
    #[serde(rename = "resnet18")]
    ResNet18,
    /// `DenseNet`-121 over slices.
    #[serde(rename = "densenet121")]
    DenseNet121,
}

/// What a network learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// The class of each voxel.
    Segmentation,
    /// The class of each slice: whether any of its pixels has the label.
    Classification,
}

impl Task {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Segmentation => "segmentation",
            Self::Classification => "classification",
        }
    }
}

impl NetworkKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::UNet2d,
        Self::UNet3d,
        Self::ResidualUNet2d,
        Self::ResidualUNet3d,
        Self::ResNet18,
        Self::DenseNet121,
    ];

    /// Its name in settings, commands and records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::UNet2d => "unet2d",
            Self::UNet3d => "unet3d",
            Self::ResidualUNet2d => "residual-unet2d",
            Self::ResidualUNet3d => "residual-unet3d",
            Self::ResNet18 => "resnet18",
            Self::DenseNet121 => "densenet121",
        }
    }

    pub(crate) const fn task(self) -> Task {
        match self {
            Self::ResNet18 | Self::DenseNet121 => Task::Classification,
            _ => Task::Segmentation,
        }
    }

    /// Axes of what it takes: rows and columns, or slices before them.
    pub(crate) const fn axes(self) -> usize {
        match self {
            Self::UNet3d | Self::ResidualUNet3d => 3,
            _ => 2,
        }
    }

    /// Channels of the first level where the settings say nothing: the classifiers' are those of
    /// their papers.
    pub(crate) const fn usual_channels(self) -> usize {
        match self.task() {
            Task::Segmentation => 8,
            Task::Classification => 64,
        }
    }

    /// What the sides of its input must be multiples of: so often it is halved.
    #[must_use]
    pub const fn side_multiple(self) -> usize {
        match self.task() {
            Task::Segmentation => 1 << unet::DEPTH,
            Task::Classification => 32,
        }
    }
}

impl FromStr for NetworkKind {
    type Err = LearningError;

    fn from_str(text: &str) -> Result<Self, LearningError> {
        let all = Self::ALL.map(|kind| (kind.word(), kind));
        crate::engine::word("network", text, &all)
    }
}

/// Where a network is told what it should have said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supervision {
    /// At its top alone.
    #[default]
    Top,
    /// At every size on the way up too, each half as much as the one above it (deep supervision: Lee
    /// et al. 2015; as nnU-Net weights it). What it needs for that no model keeps.
    Deep,
}

impl Supervision {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Top, Self::Deep];

    /// Its name in settings and commands.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Deep => "deep",
        }
    }

    /// Whether it is at the top alone, which records do not write.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(crate) fn is_top(&self) -> bool {
        *self == Self::Top
    }
}

impl FromStr for Supervision {
    type Err = LearningError;

    fn from_str(text: &str) -> Result<Self, LearningError> {
        crate::engine::word("supervision", text, &Self::ALL.map(|one| (one.word(), one)))
    }
}

/// The shape of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// What it is drawn after.
    #[serde(default)]
    pub kind: NetworkKind,
    /// Channels of its first level.
    pub base_channels: usize,
    /// Classes, the background included.
    pub classes: usize,
    /// Where it is told what it should have said, while it learns.
    #[serde(default, skip_serializing_if = "Supervision::is_top")]
    pub supervision: Supervision,
}

impl Network {
    /// The network's operations.
    pub(crate) fn graph(&self) -> Graph {
        match self.kind {
            NetworkKind::UNet2d | NetworkKind::UNet3d => unet::draw(self, unet::Encoder::Plain),
            NetworkKind::ResidualUNet2d | NetworkKind::ResidualUNet3d => {
                unet::draw(self, unet::Encoder::Residual)
            }
            NetworkKind::ResNet18 => classifiers::resnet18(self),
            NetworkKind::DenseNet121 => classifiers::densenet121(self),
        }
    }

    /// The network as a model keeps it.
    pub(crate) fn of_model(self) -> Self {
        Self { supervision: Supervision::Top, ..self }
    }

    /// How many features an image has.
    #[must_use]
    pub fn features(&self) -> usize {
        self.graph().features_width()
    }

    /// How many labels a patch has: one for each voxel, or one for the slice.
    pub(crate) const fn labels(&self, patch: Patch) -> usize {
        match self.kind.task() {
            Task::Segmentation => patch.voxels(),
            Task::Classification => 1,
        }
    }

    /// The weights before training, from the seed alone: normal after He et al. 2015.
    pub(crate) fn initial(&self, seed: u64) -> Weights {
        let mut weights = BTreeMap::new();
        for (name, shape, begin) in self.graph().parameters() {
            let count = shape.iter().product();
            let values = match begin {
                Begin::Value(value) => vec![value; count],
                Begin::Normal { inputs } => {
                    let mut random = Random::new(seed, &name, 0, 0);
                    let spread = (2.0 / inputs as f64).sqrt();
                    (0..count).map(|_| (random.normal() * spread) as f32).collect()
                }
            };
            weights.insert(name, Parameter { shape, values });
        }
        Weights(weights)
    }
}

/// What a network takes at once of an image: a slice, or some slices on top of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Slices.
    pub(crate) depth: usize,
    /// Pixels along a side of a slice.
    pub(crate) side: usize,
}

impl Patch {
    /// Pixels of a slice.
    pub(crate) const fn area(self) -> usize {
        self.side * self.side
    }

    pub(crate) const fn voxels(self) -> usize {
        self.depth * self.area()
    }

    /// The shape of so many patches, with their one channel.
    pub(crate) fn shape(self, axes: usize, patches: usize) -> Vec<usize> {
        let own = [self.depth, self.side, self.side];
        [&[patches, 1], &own[3 - axes..]].concat()
    }

    /// The first slices of the patches that cover an image of so many slices, each half over the one
    /// before. An image with fewer slices than a patch has one.
    pub(crate) fn cover(self, slices: usize) -> Vec<usize> {
        let last = slices.saturating_sub(self.depth);
        let step = (self.depth / 2).max(1);
        let mut firsts: Vec<usize> = (0..last).step_by(step).collect();
        if slices > 0 {
            firsts.push(last);
        }
        firsts
    }
}

/// The numbers of a tensor, the last axis fastest.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("every tensor of the network is f32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_cover_every_slice() {
        for depth in [1, 2, 8, 16] {
            let patch = Patch { depth, side: 4 };
            for slices in 0..40 {
                let firsts = patch.cover(slices);
                let covered =
                    |slice| firsts.iter().any(|&first| (first..first + depth).contains(&slice));
                assert!((0..slices).all(covered), "{depth} {slices}: {firsts:?}");
                assert!(firsts.iter().all(|first| first + depth <= slices.max(depth)));
                assert!(firsts.windows(2).all(|two| two[0] < two[1]), "{firsts:?}");
            }
        }
        assert_eq!(Patch { depth: 1, side: 4 }.cover(3), [0, 1, 2]);
    }

    #[test]
    fn networks_have_the_sizes_of_their_papers() {
        let count = |kind, base_channels, classes| {
            let supervision = Supervision::Top;
            let graph = Network { kind, base_channels, classes, supervision }.graph();
            let sizes =
                graph.parameters().into_iter().map(|(_, shape, _)| shape.iter().product::<usize>());
            sizes.sum::<usize>()
        };
        assert_eq!(count(NetworkKind::UNet2d, 8, 2), 100_826);
        // Theirs have three channels of input and 1,000 classes.
        let first = |channels: usize| 2 * 49 * channels;
        assert_eq!(count(NetworkKind::ResNet18, 64, 1000) + first(64), 11_689_512);
        assert_eq!(count(NetworkKind::DenseNet121, 64, 1000) + first(64), 7_978_856);
    }

    #[test]
    fn names_are_read_back() {
        for kind in NetworkKind::ALL {
            assert_eq!(kind.word().parse::<NetworkKind>().unwrap(), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
        let sentence = "unet".parse::<NetworkKind>().unwrap_err().to_string();
        assert!(sentence.contains("unet2d, unet3d"), "{sentence}");
        let old: Network = serde_json::from_str(r#"{"base_channels":8,"classes":2}"#).unwrap();
        assert_eq!(old.kind, NetworkKind::UNet2d);
    }
}
