//! A model as a folder that can be carried to another library, or used by other programs:
//! `weights.safetensors`, `model.onnx`, and `model.json` with all that is said of it.
//!
//! Who has approved it stays behind: in another library it is a candidate.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use gantry_library::{Library, ModelDraft, ModelId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::LearningError;
use crate::onnx::onnx;
use crate::predict::{check, read};

const WEIGHTS: &str = "weights.safetensors";
const ONNX: &str = "model.onnx";
const RECORD: &str = "model.json";
/// Bytes of a record: a long training has some hundred bytes an epoch.
const RECORD_BYTES_MAX: u64 = 16 << 20;
/// Bytes of weights, as many as a checkpoint may have.
const WEIGHTS_BYTES_MAX: u64 = 4 << 30;

/// What is said of a model.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Carried {
    name: String,
    run: String,
    metadata: Value,
    metrics: Value,
}

/// Writes a model into a folder, which is made where it is absent: by its id, its name, or `run:NAME`
/// for what a run left.
///
/// # Errors
/// Where there is no such model, this program cannot use it, or one of the files is there already or
/// cannot be written.
pub fn export_model(
    library: &Library,
    model: &str,
    folder: &Path,
) -> Result<ModelId, LearningError> {
    let record = library.model(model)?;
    let (metadata, weights) = read(library, &record)?;
    let onnx = onnx(&record, &metadata, &weights)?;
    let bytes = library.read_object(&record.weights)?;
    let carried = Carried {
        name: record.name,
        run: record.run,
        metadata: record.metadata,
        metrics: record.metrics,
    };
    let text = serde_json::to_vec_pretty(&carried)
        .map_err(|error| LearningError::Damaged(format!("the model's record: {error}")))?;
    fs::create_dir_all(folder)
        .map_err(|source| LearningError::file("making the folder", folder, source))?;
    for (name, bytes) in [(WEIGHTS, &bytes[..]), (ONNX, &onnx), (RECORD, &text)] {
        let path = folder.join(name);
        let mut file = File::create_new(&path)
            .map_err(|source| LearningError::file("creating", &path, source))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|source| LearningError::file("writing", &path, source))?;
    }
    Ok(record.id)
}

/// Takes a model from a folder that [`export_model`] wrote. The same model is taken once.
///
/// # Errors
/// Where a file is missing or too long, the model is not one that this program can use, or the
/// library is full or fails.
pub fn import_model(library: &Library, folder: &Path) -> Result<ModelId, LearningError> {
    let text = bounded(&folder.join(RECORD), RECORD_BYTES_MAX)?;
    let weights = bounded(&folder.join(WEIGHTS), WEIGHTS_BYTES_MAX)?;
    let Carried { name, run, metadata, metrics } =
        serde_json::from_slice(&text).map_err(|error| {
            LearningError::Damaged(format!("{RECORD} is not what gantry writes: {error}"))
        })?;
    check(&name, &metadata, &weights)?;
    Ok(library.publish_model(ModelDraft { name, run, weights, metadata, metrics })?)
}

/// A file's bytes, of which there may be so many.
fn bounded(path: &Path, most: u64) -> Result<Vec<u8>, LearningError> {
    let failed = |source| LearningError::file("reading", path, source);
    let mut bytes = Vec::new();
    let read = File::open(path).map_err(failed)?.take(most + 1).read_to_end(&mut bytes);
    if read.map_err(failed)? as u64 > most {
        let what = path.file_name().unwrap_or_default().to_string_lossy();
        return Err(LearningError::Damaged(format!("{what} is longer than {most} bytes")));
    }
    Ok(bytes)
}
