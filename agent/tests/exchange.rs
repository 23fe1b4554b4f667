//! Samples that go out are read by readers that are not ours, and those that can come in come back.
#![allow(clippy::unwrap_used, missing_docs)]

mod exchange_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use exchange_support::filled;
use gantry_agent::exchange::{
    Choice, Kind, Patients, Rejected, dataset_fingerprint, export, import,
};
use gantry_agent::ingest::keep;
use gantry_imaging::{Geometry, Image, Mask, nifti};
use gantry_library::{Author, Library, Source};
use serde_json::Value;
use tempfile::TempDir;

const PATIENTS: u32 = 5;
const FORMS: [(Kind, &str, &str); 9] = [
    (Kind::Nifti, "nifti", "SimpleITK"),
    (Kind::Nrrd, "nrrd", "SimpleITK"),
    (Kind::Mha, "mha", "SimpleITK"),
    (Kind::NnUnet, "nnunet", "SimpleITK"),
    (Kind::Decathlon, "decathlon", "SimpleITK"),
    (Kind::Npz, "npz", "numpy"),
    (Kind::WebDataset, "webdataset", "webdataset, nibabel"),
    (Kind::DicomSeg, "dicom-seg", "highdicom"),
    (Kind::Coco, "coco", "pycocotools, PIL"),
];

fn python(packages: &str) -> Option<PathBuf> {
    let program = std::env::var_os("GANTRY_PYTHON").map(PathBuf::from);
    let has = |program: &PathBuf| {
        let output = Command::new(program).args(["-c", &format!("import {packages}")]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = program.filter(has);
    if found.is_none() {
        eprintln!(
            "skipped: a reader that is not ours needs {packages}; set GANTRY_PYTHON to a Python with tests/peers/requirements.txt"
        );
    }
    found
}

fn near(found: &Value, expected: &[f64], within: f64) -> bool {
    let found: Vec<f64> =
        found.as_array().unwrap().iter().map(|one| one.as_f64().unwrap()).collect();
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= within)
}

#[test]
fn other_readers_find_what_went_out() {
    let folder = TempDir::new().unwrap();
    let (library, samples) = filled(&folder.path().join("library"), PATIENTS);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/read.py");
    for (kind, form, packages) in FORMS {
        let to = folder.path().join(form);
        let report = export(&library, kind, &to, &Choice::default()).unwrap();
        assert_eq!((report.samples, report.left_out.len()), (u64::from(PATIENTS), 0), "{form}");
        assert!(export(&library, kind, &to, &Choice::default()).is_err(), "{form} twice");
        let hidden = Command::new("grep").args(["-rqa", "SECRET"]).arg(&to).status().unwrap();
        // A segmentation is of its patient, as everything in DICOM.
        assert_eq!(hidden.success(), kind == Kind::DicomSeg, "{form}");
        let Some(python) = python(packages) else { continue };
        let output = Command::new(python).arg(&script).arg(form).arg(&to).output().unwrap();
        let (out, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let last = out.lines().last().unwrap_or_default();
        let found: BTreeMap<String, Value> =
            serde_json::from_str(last).unwrap_or_else(|_| panic!("{form}: {out}{error}"));
        assert_eq!(found.keys().collect::<Vec<_>>(), samples.keys().collect::<Vec<_>>(), "{form}");
        for (id, (image, mask)) in &samples {
            let found = &found[id];
            assert_eq!(found["marked"], mask.count(), "{form}");
            let size = image.geometry.size.map(|side| side as f64);
            for (name, expected, within) in [
                ("size", size, 0.0),
                ("spacing", image.geometry.spacing_mm, 1e-3),
                ("origin", image.geometry.origin_mm, 1e-2),
            ] {
                let there = found.get(name);
                assert!(there.is_none_or(|there| near(there, &expected, within)), "{form} {name}");
            }
            let sum: f64 = image.voxels.iter().map(|value| f64::from(*value)).sum();
            let there = found.get("sum").and_then(Value::as_f64);
            assert!(there.is_none_or(|there| (there - sum).abs() < 1e-6 * sum.abs()), "{form}");
        }
    }
}

#[test]
fn the_integrity_check_of_nn_u_net_finds_nothing_wrong_and_would() {
    let folder = TempDir::new().unwrap();
    let (library, _) = filled(&folder.path().join("library"), PATIENTS);
    let to = folder.path().join("raw");
    export(&library, Kind::NnUnet, &to, &Choice::default()).unwrap();
    let Some(python) = python("nnunetv2, batchgenerators, pandas, SimpleITK") else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/nnunet.py");
    let check = || {
        let output = Command::new(&python).arg(&script).arg(&to).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (fine, error) = check();
    assert!(fine, "{error}");
    let labels = std::fs::read_dir(to.join("labelsTr")).unwrap();
    let label = labels.map(|entry| entry.unwrap().path()).next().unwrap();
    let mut other = Vec::new();
    let grid = Geometry::unit([2, 2, 2]);
    nifti::write_mask(&Mask::filled(grid, 7), &mut other).unwrap();
    std::fs::write(&label, other).unwrap();
    let (fine, error) = check();
    assert!(!fine && error.contains("unexpected labels"), "{error}");
}

#[test]
fn what_was_rejected_stays_unless_it_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let (library, samples) = filled(&folder.path().join("library"), PATIENTS);
    let verdict = gantry_library::Verdict::Rejected("half of it".into());
    library
        .judge_sample(&samples.keys().next().unwrap().parse().unwrap(), &verdict, "anna")
        .unwrap();
    for (name, rejected, left) in [("out", Rejected::LeftOut, 1), ("with", Rejected::Taken, 0)] {
        let choice = Choice { rejected, ..Choice::default() };
        let report = export(&library, Kind::Nifti, &folder.path().join(name), &choice).unwrap();
        assert_eq!(report.samples, u64::from(PATIENTS) - left, "{name}");
    }
}

#[test]
fn what_went_out_comes_back_once_and_patients_stay_on_one_side() {
    let folder = TempDir::new().unwrap();
    let (library, samples) = filled(&folder.path().join("library"), PATIENTS);
    let choice = Choice {
        fractions: gantry_library::Fractions { validation_percent: 20, test_percent: 20 },
        ..Choice::default()
    };
    for (kind, form, _) in &FORMS[..7] {
        let to = folder.path().join(form);
        let report = export(&library, *kind, &to, &choice).unwrap();
        let trained = match kind {
            Kind::NnUnet | Kind::Decathlon => {
                assert_eq!(report.sides.values().sum::<u64>(), u64::from(PATIENTS));
                u64::from(PATIENTS) - report.sides[&gantry_library::Split::Test]
            }
            _ => u64::from(PATIENTS),
        };
        let other =
            Library::open_or_create(&folder.path().join(format!("{form} library"))).unwrap();
        let author = Author::Person("anna".into());
        let taken = import(&other, *kind, &to, Some("lungs"), Patients::AsSaid, &author).unwrap();
        assert_eq!((taken.samples, taken.known, taken.left_out), (trained, 0, vec![]), "{form}");
        let again = import(&other, *kind, &to, Some("lungs"), Patients::AsSaid, &author).unwrap();
        assert_eq!((again.samples, again.known), (trained, trained), "{form}");
        let found = other.samples().unwrap();
        assert_eq!(found.len() as u64, trained);
        let patients: BTreeSet<_> = found.iter().map(|sample| sample.patient.clone()).collect();
        assert_eq!(patients.len(), found.len(), "each case is a patient");
        for sample in found {
            assert_eq!(sample.provenance.author, author);
            assert!(!sample.provenance.sources.is_empty());
            let image = nifti::read(&other.read_object(&sample.image).unwrap()).unwrap();
            let mask = nifti::read_mask(&other.read_object(&sample.mask).unwrap()).unwrap();
            let same = |(one, lungs): &(Image, Mask)| {
                one.voxels == image.voxels && lungs.voxels == mask.voxels
            };
            assert!(samples.values().any(same), "{form}");
        }
        assert!(other.verify().unwrap().damage.is_empty());
    }
}

#[test]
fn segmentations_come_back_to_their_series() {
    let folder = TempDir::new().unwrap();
    let (library, samples) = filled(&folder.path().join("library"), PATIENTS);
    let to = folder.path().join("segmentations");
    export(&library, Kind::DicomSeg, &to, &Choice::default()).unwrap();
    let other = Library::open_or_create(&folder.path().join("other")).unwrap();
    let author = Author::Person("anna".into());
    let none = import(&other, Kind::DicomSeg, &to, None, Patients::AsSaid, &author).unwrap();
    assert_eq!((none.samples, none.left_out.len()), (0, samples.len()));
    assert!(none.left_out[0].1.contains("import it first"), "{:?}", none.left_out[0]);
    for series in library.series().unwrap() {
        for object in library.series_objects(&series.id).unwrap() {
            let file = library.read_object(&object).unwrap();
            keep(&other, &file, &Source::Import, None).unwrap();
        }
    }
    for known in [0, samples.len() as u64] {
        let taken = import(&other, Kind::DicomSeg, &to, None, Patients::AsSaid, &author).unwrap();
        assert_eq!((taken.samples, taken.known), (samples.len() as u64, known));
    }
    assert_eq!(other.series().unwrap().len(), samples.len(), "no series is added");
    for sample in other.samples().unwrap() {
        assert_eq!((sample.label.as_str(), &sample.provenance.author), ("lungs", &author));
        let mask = nifti::read_mask(&other.read_object(&sample.mask).unwrap()).unwrap();
        assert!(samples.values().any(|(_, lungs)| lungs.voxels == mask.voxels));
    }
    let named =
        import(&other, Kind::DicomSeg, &to, Some("air"), Patients::AsSaid, &author).unwrap();
    assert_eq!((named.samples, named.known), (samples.len() as u64, 0));
    std::fs::write(to.join("broken.dcm"), b"DICM").unwrap();
    let broken = import(&other, Kind::DicomSeg, &to, None, Patients::AsSaid, &author).unwrap();
    assert_eq!(broken.left_out.len(), 1);
    assert!(other.verify().unwrap().damage.is_empty());
}

#[test]
fn archives_of_others_come_in() {
    let folder = TempDir::new().unwrap();
    let Some(python) = python("numpy") else { return };
    let code = "import numpy, sys; a = numpy.arange(24, dtype='i2').reshape(2, 3, 4); \
                numpy.savez_compressed(sys.argv[1] + '/a.npz', image=a, mask=a > 20, spacing_mm=[1, 2, 3.5]); \
                numpy.savez(sys.argv[1] + '/b.npz', image=a, mask=a > 20)";
    let archives = folder.path().join("archives");
    std::fs::create_dir(&archives).unwrap();
    let made = Command::new(python).args(["-c", code]).arg(&archives).status().unwrap();
    assert!(made.success());
    let library = Library::open_or_create(&folder.path().join("library")).unwrap();
    let taken =
        import(&library, Kind::Npz, &archives, Some("end"), Patients::AsSaid, &Author::Auto)
            .unwrap();
    assert_eq!((taken.samples, taken.left_out.len()), (1, 1));
    assert!(taken.left_out[0].1.contains("no array spacing_mm"), "{:?}", taken.left_out);
    let sample = library.samples().unwrap().remove(0);
    assert_eq!(
        (sample.size, sample.spacing_mm, sample.mask_voxels),
        ([4, 3, 2], [1.0, 2.0, 3.5], 3)
    );
}

#[test]
fn shards_have_an_end_and_wrong_folders_are_refused() {
    let folder = TempDir::new().unwrap();
    let (library, _) = filled(&folder.path().join("library"), PATIENTS);
    let to = folder.path().join("shards");
    let choice = Choice { shard_bytes_max: 1, ..Choice::default() };
    export(&library, Kind::WebDataset, &to, &choice).unwrap();
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), PATIENTS as usize);
    let none = Choice { label: Some("liver".into()), ..Choice::default() };
    let error = export(&library, Kind::Npz, &folder.path().join("x"), &none).unwrap_err();
    assert!(error.to_string().contains("no such sample"), "{error}");
    let set = folder.path().join("set");
    std::fs::create_dir_all(&set).unwrap();
    for (kind, text, word) in [
        (
            Kind::Decathlon,
            r#"{"labels":{"1":"a"},"training":[{"image":"../x.nii","label":"y.nii"}]}"#,
            "within",
        ),
        (Kind::Decathlon, r#"{"labels":{"1":"a"},"training":[]}"#, "no case"),
        (
            Kind::NnUnet,
            r#"{"labels":{"a":1},"channel_names":{"0":"T1","1":"T2"},"file_ending":".nii"}"#,
            "2 channels",
        ),
        (Kind::NnUnet, "{", "dataset.json"),
        (Kind::Coco, "{}", "annotations.json"),
        (Kind::Npz, "{}", "--label"),
        (Kind::WebDataset, "{}", "no case"),
        (Kind::DicomSeg, "{}", "no case"),
    ] {
        std::fs::write(set.join("dataset.json"), text).unwrap();
        let error =
            import(&library, kind, &set, None, Patients::AsSaid, &Author::Auto).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let missing = r#"{"labels":{"1":"a"},"training":[{"image":"x.nii","label":"y.nii"}]}"#;
    std::fs::write(set.join("dataset.json"), missing).unwrap();
    let report =
        import(&library, Kind::Decathlon, &set, None, Patients::AsSaid, &Author::Auto).unwrap();
    assert_eq!((report.samples, report.left_out.len()), (0, 1));
}

#[test]
fn a_fingerprint_says_what_samples_are_like() {
    let folder = TempDir::new().unwrap();
    let (library, samples) = filled(&folder.path().join("library"), PATIENTS);
    let print = dataset_fingerprint(&library, &Choice::default()).unwrap();
    assert_eq!(print.shapes_after_crop.len(), samples.len());
    assert_eq!(print.shapes_after_crop[0], [6, 24, 30]);
    assert!((print.spacings[0][0] - 32.0).abs() < 1e-4);
    let lungs = print.foreground_intensity_properties_per_channel[&0];
    assert!(lungs.min <= lungs.percentile_00_5 && lungs.percentile_00_5 <= lungs.median);
    assert!((-1024.0..-500.0).contains(&lungs.median), "{lungs:?}");
}
