//! Sizes of a training from the samples there are and the memory that it may take, after nnU-Net's
//! rules (Isensee et al. 2021): as much of an image at once as it has, then as many channels as a
//! U-Net usually has, then as many images a step as there is room for.

use gantry_library::SampleRecord;

use crate::error::LearningError;
use crate::network::Patch;
use crate::settings::TrainSettings;

/// Sides are multiples of this, which every network takes.
const SIDE_MULTIPLE: usize = 32;
const SIDE_MAX: usize = 512;
const SIDE_MIN: usize = 32;
const DEPTH_MULTIPLE: usize = 8;
const DEPTH_MAX: usize = 64;
/// Channels of a U-Net's first level, the usual number first.
const CHANNELS: [usize; 3] = [32, 16, 8];
/// Images a step: fewer make its gradient noise, and more than a few hundred are no gain.
const BATCH_MIN: usize = 2;
const BATCH_MAX: usize = 64;
/// The part of all images that a step takes at most, in hundredths.
const BATCH_PERCENT_MAX: usize = 5;
/// A result is kept for the backward pass, which makes a gradient of the same size.
const TIMES_KEPT: usize = 2;

/// A plan, with what it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The settings with the sizes that were planned.
    pub settings: TrainSettings,
    /// The memory that a step takes for its images, in MiB.
    pub step_mib: u64,
    /// Voxels of the samples along x, y and z: the median of each.
    pub size: [usize; 3],
    /// Their distances in millimetres: the median of each.
    pub spacing_mm: [f64; 3],
    /// Samples of the label.
    pub samples: usize,
}

/// Plans the sizes of a training of these settings' network and label, within so much memory.
///
/// # Errors
/// Where no sample has the label, or not even the smallest sizes have room.
pub fn plan(
    settings: &TrainSettings,
    samples: &[SampleRecord],
    memory_mib: u64,
) -> Result<Plan, LearningError> {
    let own: Vec<&SampleRecord> =
        samples.iter().filter(|sample| sample.label == settings.label).collect();
    if own.is_empty() {
        return Err(LearningError::NoSamples {
            label: settings.label.clone(),
            there: "there is nothing to plan with; gantry library labels lists the labels".into(),
        });
    }
    let size = [0, 1, 2].map(|axis| median(own.iter().map(|one| one.size[axis] as f64)) as usize);
    let spacing_mm = [0, 1, 2].map(|axis| median(own.iter().map(|one| one.spacing_mm[axis])));
    let slices: usize = own.iter().map(|sample| sample.size[2]).sum();
    let mut side = size[0].max(size[1]).next_multiple_of(SIDE_MULTIPLE).clamp(SIDE_MIN, SIDE_MAX);
    let mut depth = (size[2] / DEPTH_MULTIPLE * DEPTH_MULTIPLE).clamp(DEPTH_MULTIPLE, DEPTH_MAX);
    loop {
        let sized = |base_channels: usize| TrainSettings {
            input_size: side,
            input_depth: depth,
            base_channels,
            ..settings.clone()
        };
        let choices: &[usize] =
            if settings.network.side_multiple() == SIDE_MULTIPLE { &[64] } else { &CHANNELS };
        for &channels in choices {
            let settings = sized(channels);
            let patch = settings.patch();
            let each = bytes_of(&settings, patch);
            let room = (memory_mib << 20) as usize / each.max(1);
            if room < BATCH_MIN {
                continue;
            }
            let patches = slices * 2 / (patch.depth + 1);
            let most = (patches * BATCH_PERCENT_MAX / 100).clamp(BATCH_MIN, BATCH_MAX);
            let batch = room.min(most);
            let step_mib = (batch * each).div_ceil(1 << 20) as u64;
            let settings = TrainSettings { batch_size: batch as u32, ..settings };
            settings.check()?;
            return Ok(Plan { settings, step_mib, size, spacing_mm, samples: own.len() });
        }
        if side == SIDE_MIN && depth == DEPTH_MULTIPLE {
            return Err(LearningError::Engine(format!(
                "{memory_mib} MiB have no room for two images a step; plan with more memory"
            )));
        }
        side = (side / 2).next_multiple_of(SIDE_MULTIPLE).max(SIDE_MIN);
        if side == SIDE_MIN {
            depth = (depth / 2).next_multiple_of(DEPTH_MULTIPLE);
        }
    }
}

/// What a patch takes in a step.
fn bytes_of(settings: &TrainSettings, patch: Patch) -> usize {
    settings.network().graph().values_of(patch) * size_of::<f32>() * TIMES_KEPT
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkKind;

    fn samples(count: usize, size: [usize; 3]) -> Vec<SampleRecord> {
        let one = serde_json::json!({
            "id": "0".repeat(16), "series": "0".repeat(16), "patient": "0".repeat(16),
            "modality": "CT", "label": "lungs", "image": "0".repeat(64), "mask": "0".repeat(64),
            "size": size, "spacing_mm": [0.7, 0.7, 2.5], "mask_voxels": 1, "volume_ml": 1.0,
            "provenance": {
                "sources": [], "pipeline": "p", "pipeline_hash": "0", "program": "t",
                "author": "auto",
            },
            "created_ms": 0,
        });
        (0..count).map(|_| serde_json::from_value(one.clone()).unwrap()).collect()
    }

    fn planned(kind: NetworkKind, count: usize, size: [usize; 3], memory_mib: u64) -> Plan {
        let settings = TrainSettings { network: kind, ..TrainSettings::default() };
        plan(&settings, &samples(count, size), memory_mib).unwrap()
    }

    #[test]
    fn as_much_as_there_is_room_for_and_the_images_have() {
        let large = planned(NetworkKind::UNet2d, 20, [512, 400, 90], 16 << 10);
        let sizes = |plan: &Plan| {
            let TrainSettings { input_size, base_channels, batch_size, .. } = plan.settings;
            (input_size, base_channels, batch_size)
        };
        assert_eq!((sizes(&large).0, sizes(&large).1), (512, 32));
        assert!((2..=64).contains(&sizes(&large).2) && large.step_mib <= 16 << 10, "{large:?}");
        assert_eq!((large.size, large.samples), ([512, 400, 90], 20));
        let small = planned(NetworkKind::UNet2d, 20, [512, 400, 90], 256);
        assert!(sizes(&small).0 < 512 && small.step_mib <= 256, "{small:?}");
        let tiny = planned(NetworkKind::UNet2d, 1, [40, 40, 10], 16 << 10);
        assert_eq!(sizes(&tiny), (64, 32, 2), "a twentieth of ten slices is less than two");
        let stack = planned(NetworkKind::UNet3d, 20, [128, 128, 90], 8 << 10);
        assert_eq!((stack.settings.input_depth, stack.settings.input_size), (64, 128));
        let slices = planned(NetworkKind::ResNet18, 20, [500, 500, 90], 8 << 10);
        assert_eq!((sizes(&slices).0, sizes(&slices).1), (512, 64));
    }

    #[test]
    fn what_cannot_be_planned_is_said() {
        let settings = TrainSettings::default();
        let none = plan(&settings, &[], 4096).unwrap_err().to_string();
        assert!(none.contains("gantry library labels"), "{none}");
        let room = plan(&settings, &samples(3, [64, 64, 9]), 0).unwrap_err().to_string();
        assert!(room.contains("0 MiB have no room"), "{room}");
    }
}
