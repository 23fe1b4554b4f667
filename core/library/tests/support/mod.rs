//! What the tests store.
#![allow(dead_code)]

pub(crate) mod storage;

use std::io::Write;

use gantry_library::{
    Author, InstanceKey, Library, ModelDraft, ModelId, PredictionDraft, Provenance, SampleDraft,
    SampleRecord, ShardMember, ShardRecord, Source, Stored,
};
use serde_json::json;

pub(crate) fn key(series: &str, instance: u64) -> InstanceKey {
    InstanceKey {
        patient_id: format!("patient-of-{series}"),
        study_uid: "1.2".into(),
        series_uid: series.into(),
        sop_instance_uid: format!("{series}.{instance}"),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        modality: "CT".into(),
        transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
        rows: 2,
        columns: 2,
        frames: 1,
    }
}

pub(crate) fn store(library: &Library, series: &str, instance: u64, bytes: &[u8]) -> Stored {
    library.store_instance(&key(series, instance), &Source::Import, bytes).unwrap()
}

pub(crate) fn sample(library: &Library, series: &str, mask: &[u8]) -> SampleDraft {
    SampleDraft {
        series: library.series_id(series),
        label: "lungs".into(),
        image: format!("image of {series}").into_bytes(),
        mask: mask.to_vec(),
        size: [4, 4, 2],
        spacing_mm: [1.0, 1.0, 2.0],
        mask_voxels: 3,
        volume_ml: 0.006,
        provenance: Provenance {
            sources: library.series_objects(&library.series_id(series)).unwrap(),
            pipeline: "chest-ct".into(),
            pipeline_hash: "ab".into(),
            program: "0.1.0".into(),
            author: Author::Auto,
        },
    }
}

pub(crate) fn model(name: &str) -> ModelDraft {
    ModelDraft {
        name: name.into(),
        run: format!("run-of-{name}"),
        weights: name.as_bytes().to_vec(),
        metadata: json!({"label": "lungs"}),
        metrics: json!({"dice": 0.5}),
    }
}

pub(crate) fn prediction(
    library: &Library,
    series: &str,
    model: &ModelId,
    embedding: &[f32],
) -> PredictionDraft {
    PredictionDraft {
        series: library.series_id(series),
        model: model.clone(),
        mask: format!("mask of {series}").into_bytes(),
        segmentation: Some(b"seg".to_vec()),
        volume_ml: 1.5,
        confidence: 0.5,
        embedding: embedding.to_vec(),
        findings: json!({"series": series}),
    }
}

/// The shard of a sample, prepared in this way.
pub(crate) fn shard(library: &Library, preparation: &str, sample: &SampleRecord) -> ShardRecord {
    let mut writer = library.object_writer(0).unwrap();
    writer.write_all(preparation.as_bytes()).unwrap();
    writer.write_all(&vec![7; 3_000_000]).unwrap();
    let object = writer.finish().unwrap();
    let SampleRecord { id, image, mask, .. } = sample.clone();
    let member = ShardMember { sample: id, image, mask, about: json!({"at": 512}) };
    library.keep_shard(preparation, object, vec![member]).unwrap()
}

/// The shards that were prepared in this way.
pub(crate) fn shards(library: &Library, preparation: &str) -> Vec<ShardRecord> {
    library.shards(preparation).unwrap().collect::<Result<_, _>>().unwrap()
}
