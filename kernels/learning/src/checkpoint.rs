//! Checkpoints: everything that a run needs to go on as if it had not stopped.
//!
//! A checkpoint is one safetensors file with the weights and the optimizer's moments, and in its
//! header the state of the run and a SHA-256 over both. It is written under another name, synced,
//! and renamed, and the folder is synced too: after kill -9 at any moment the newest checkpoint with
//! its own name is whole. The last two are kept; where the newest is damaged all the same, the one
//! before is taken and that is said.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use gantry_library::SampleId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::Normalisation;
use crate::error::LearningError;
use crate::metadata::EpochMetrics;
use crate::optimizer::Moments;
use crate::settings::TrainSettings;
use crate::weights::Weights;

const KEPT: usize = 2;
const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".safetensors";
const TEMPORARY: &str = ".checkpoint.tmp";
const VERSION: u32 = 1;

/// The samples of a run, as they were split when it began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sides {
    pub(crate) train: Vec<SampleId>,
    pub(crate) validation: Vec<SampleId>,
    pub(crate) test: Vec<SampleId>,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) version: u32,
    pub(crate) settings: TrainSettings,
    pub(crate) sides: Sides,
    pub(crate) normalisation: Normalisation,
    /// How far slices are apart for the network, in mm, where it sees stacks of them.
    #[serde(default)]
    pub(crate) slice_mm: Option<f64>,
    /// Epochs that are done.
    pub(crate) epoch: u32,
    /// Steps that are done.
    pub(crate) step: u64,
    /// The losses of the steps of the epoch at hand; their number is the sampler's place.
    pub(crate) losses: Vec<f32>,
    pub(crate) history: Vec<EpochMetrics>,
}

impl State {
    pub(crate) fn new(settings: TrainSettings, sides: Sides, normalisation: Normalisation) -> Self {
        Self {
            version: VERSION,
            settings,
            sides,
            normalisation,
            slice_mm: None,
            epoch: 0,
            step: 0,
            losses: Vec::new(),
            history: Vec::new(),
        }
    }
}

/// A run at a moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) state: State,
    pub(crate) weights: Weights,
    pub(crate) moments: Moments,
    /// The weights of the best epoch so far, where a run ends early.
    pub(crate) best: Option<Weights>,
}

impl Checkpoint {
    /// Writes the checkpoint into the run's folder and removes those that are not kept.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), LearningError> {
        let bytes = self.to_bytes()?;
        let temporary = folder.join(TEMPORARY);
        let path = folder.join(format!("{PREFIX}{:010}{SUFFIX}", self.state.step));
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| LearningError::File { what, path, source }
        };
        let mut file =
            File::create(&temporary).map_err(failed("creating the checkpoint", &temporary))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(failed("writing the checkpoint", &temporary))?;
        fs::rename(&temporary, &path).map_err(failed("naming the checkpoint", &path))?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("syncing the run's folder", folder))?;
        for old in list(folder)?.into_iter().skip(KEPT) {
            fs::remove_file(&old).map_err(failed("removing the old checkpoint", &old))?;
        }
        Ok(())
    }

    /// Reads the newest checkpoint that is whole; `warn` is told of those that are not.
    pub(crate) fn newest(
        folder: &Path,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Option<Self>, LearningError> {
        for path in list(folder)? {
            let bytes = fs::read(&path)
                .map_err(|source| LearningError::file("reading the checkpoint", &path, source))?;
            match Self::from_bytes(&bytes) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    warn(&format!("{name} is not used, the one before is: {error}"));
                }
            }
        }
        Ok(None)
    }

    fn to_bytes(&self) -> Result<Vec<u8>, LearningError> {
        let mut all = Weights::default();
        for (part, arrays) in self.parts() {
            let named =
                |(name, array): (&String, &_)| (format!("{part}.{name}"), Clone::clone(array));
            all.0.extend(arrays.0.iter().map(named));
        }
        let state = serde_json::to_string(&self.state)
            .map_err(|error| LearningError::Damaged(format!("the run's state: {error}")))?;
        let text = format!("{} {state}", digest(&state, &all));
        all.to_safetensors(Some(("state", &text)))
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, LearningError> {
        let damaged = |why: &str| LearningError::Damaged(format!("the checkpoint {why}"));
        let (all, text) = Weights::from_safetensors(bytes, "state")?;
        let text = text.ok_or_else(|| damaged("has no state"))?;
        let (hash, json) = text.split_once(' ').ok_or_else(|| damaged("has no digest"))?;
        if hash != digest(json, &all) {
            return Err(damaged("does not have the bytes that were written"));
        }
        let state: State = serde_json::from_str(json)
            .map_err(|error| damaged(&format!("has a state that cannot be read: {error}")))?;
        let part = |name: &str| {
            let of = |(key, array): (&String, &_)| {
                let key = key.strip_prefix(name)?.strip_prefix('.')?;
                Some((key.to_owned(), Clone::clone(array)))
            };
            Weights(all.0.iter().filter_map(of).collect())
        };
        let weights = part("weights");
        let whole = |name: &str| {
            let arrays = part(name);
            arrays.require_shapes_of(&weights).map(|()| arrays)
        };
        let any = |name: &str| {
            Some(part(name)).filter(|arrays| !arrays.0.is_empty()).map(|_| whole(name)).transpose()
        };
        let moments =
            Moments { first: whole("first")?, second: whole("second")?, average: any("average")? };
        let best = any("best")?;
        Ok(Self { state, weights, moments, best })
    }

    fn parts(&self) -> impl Iterator<Item = (&'static str, &Weights)> {
        let always = [
            ("weights", &self.weights),
            ("first", &self.moments.first),
            ("second", &self.moments.second),
        ];
        let average = self.moments.average.as_ref().map(|arrays| ("average", arrays));
        let best = self.best.as_ref().map(|arrays| ("best", arrays));
        always.into_iter().chain(average).chain(best)
    }
}

/// The checkpoints of a folder, newest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, LearningError> {
    let failed = |source| LearningError::file("listing the run's folder", folder, source);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.reverse();
    Ok(paths)
}

fn digest(state: &str, arrays: &Weights) -> String {
    let mut hasher = Sha256::new();
    hasher.update(state.as_bytes());
    for (name, array) in &arrays.0 {
        hasher.update(name.as_bytes());
        for value in &array.values {
            hasher.update(value.to_le_bytes());
        }
    }
    hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Network, NetworkKind, Supervision};

    fn checkpoint(step: u64) -> Checkpoint {
        let kind = NetworkKind::UNet2d;
        let weights = Network { kind, base_channels: 4, classes: 2, supervision: Supervision::Top }
            .initial(step);
        let average = Some(weights.clone());
        let moments = Moments { average, ..Moments::new(&weights) };
        let mut state =
            State::new(TrainSettings::default(), Sides::default(), Normalisation::PerImage);
        state.step = step;
        state.losses = vec![0.1, 1.0 / 3.0, f32::MIN_POSITIVE];
        Checkpoint { state, best: Some(weights.clone()), moments, weights }
    }

    fn newest(folder: &Path) -> (Option<u64>, Vec<String>) {
        let mut warnings = Vec::new();
        let found = Checkpoint::newest(folder, &mut |text| warnings.push(text.to_owned())).unwrap();
        (found.map(|checkpoint| checkpoint.state.step), warnings)
    }

    #[test]
    fn reads_back_bit_for_bit_and_keeps_two() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest(folder.path()), (None, vec![]));
        for step in [8, 9, 10, 100] {
            checkpoint(step).save(folder.path()).unwrap();
        }
        let back = Checkpoint::newest(folder.path(), &mut |_| ()).unwrap().unwrap();
        assert_eq!(back, checkpoint(100));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEPT);
    }

    #[test]
    fn damage_anywhere_is_noticed_and_the_one_before_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(1).save(folder.path()).unwrap();
        checkpoint(2).save(folder.path()).unwrap();
        // What a killed process leaves behind is not taken for a checkpoint.
        fs::write(folder.path().join(TEMPORARY), b"half").unwrap();
        let path = list(folder.path()).unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        for place in (0..whole.len()).step_by(whole.len() / 37) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let (step, warnings) = newest(folder.path());
            assert_eq!((step, warnings.len()), (Some(1), 1), "byte {place}: {warnings:?}");
            fs::write(&path, &whole[..place]).unwrap();
            assert_eq!(newest(folder.path()).0, Some(1), "cut at {place}");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(newest(folder.path()), (Some(2), vec![]));
    }
}
