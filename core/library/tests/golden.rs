//! Every kind of record as version 1 writes it: a library that was written once is read today, and
//! what is written today has the same form. `GANTRY_BLESS=1` writes it anew.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_library::{Author, InstanceKey, Library, Source, Stage};
use serde_json::Value;
use support::{key, model, prediction, sample, store};
use tempfile::TempDir;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// One of everything.
fn fill(library: &Library) {
    store(library, "1.1", 1, b"first");
    store(library, "1.1", 1, b"other bytes");
    let scanner = Source::Association { calling_ae: "SCANNER".into() };
    let stray = InstanceKey { patient_id: "another".into(), ..key("1.1", 2) };
    library.store_instance(&stray, &scanner, b"other patient").unwrap();
    library.quarantine(b"junk", "not-dicom", "it has no preamble", &scanner).unwrap();
    library.add_sample(sample(library, "1.1", b"mask")).unwrap();
    let mut corrected = sample(library, "1.1", b"corrected");
    corrected.provenance.author = Author::Person("ada".into());
    library.add_sample(corrected).unwrap();
    let model = library.publish_model(model("lungs")).unwrap();
    library.set_stage(&model, Stage::Approved, "ada").unwrap();
    library.add_prediction(prediction(library, "1.1", &model, &[0.5, -0.25])).unwrap();
}

fn files(folder: &Path, below: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, below, all);
        } else {
            let name = path.strip_prefix(below).unwrap().to_owned();
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

/// The files of a library by name, without what depends on the hour.
fn shape(folder: &Path) -> BTreeMap<PathBuf, Value> {
    let mut all = BTreeMap::new();
    files(folder, folder, &mut all);
    let shape = |(name, bytes): (PathBuf, Vec<u8>)| {
        let Ok(mut json) = serde_json::from_slice::<Value>(&bytes) else {
            return (name, Value::from(String::from_utf8(bytes).unwrap()));
        };
        json["sha256"] = Value::Null;
        for time in ["created_ms", "received_ms", "at_ms"] {
            if let Some(at) = json["record"].get_mut(time) {
                assert!(at.as_u64().unwrap() > 1_600_000_000_000, "{}", name.display());
                *at = Value::Null;
            }
        }
        (name, json)
    };
    all.into_iter().map(shape).collect()
}

#[test]
fn version_1_is_written_as_it_was() {
    let folder = TempDir::new().unwrap();
    std::fs::copy(golden().join("library.json"), folder.path().join("library.json")).unwrap();
    fill(&Library::open(folder.path()).unwrap());
    if std::env::var_os("GANTRY_BLESS").is_some() {
        let mut all = BTreeMap::new();
        files(folder.path(), folder.path(), &mut all);
        for (name, bytes) in all {
            std::fs::create_dir_all(golden().join(&name).parent().unwrap()).unwrap();
            std::fs::write(golden().join(&name), bytes).unwrap();
        }
    }
    let (new, old) = (shape(folder.path()), shape(&golden()));
    let names = |shape: &BTreeMap<PathBuf, Value>| shape.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&new), names(&old));
    for (name, value) in &new {
        assert_eq!(value, &old[name], "{name:?}");
    }
}

#[test]
fn version_1_is_read() {
    let library = Library::open(&golden()).unwrap();
    let report = library.verify().unwrap();
    assert!(report.damage.is_empty() && report.unnamed == 0, "{report:?}");
    let series = &library.series().unwrap()[0];
    assert_eq!(series.id, library.series_id("1.1"));
    assert_eq!((series.instances, series.conflicts), (3, 2));
    let authors: Vec<Author> =
        library.samples().unwrap().into_iter().map(|sample| sample.provenance.author).collect();
    assert!(authors.contains(&Author::Auto) && authors.contains(&Author::Person("ada".into())));
    let model = library.model("lungs").unwrap();
    assert_eq!(library.stage(&model.id).unwrap(), Stage::Approved);
    assert_eq!(library.read_object(&model.weights).unwrap(), b"lungs");
    assert_eq!(library.prediction_of(&series.id).unwrap().embedding, [0.5, -0.25]);
    assert_eq!(library.quarantined().unwrap()[0].reason, "not-dicom");
}
