//! COCO on its way in.
//!
//! Each picture on which something is marked becomes a series of one slice, and a sample for each label
//! that is marked on it. A picture has no grid: its pixels are taken for squares of 1 mm unless the file
//! gives it a `spacing_mm`. Nor has it a patient, which no split may have on two sides: the file says
//! whose a picture is (`patient`), or whoever imports it says that no two are of one. One text means one
//! patient in all that is imported, so that the files of a set that was split by others agree.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use gantry_imaging::dicom::write::Subject;
use gantry_imaging::{Geometry, Image, Mask};
use gantry_library::PatientKey;

use super::annotations::{Annotated, PIXELS_MAX, Picture};
use crate::exchange::take::{Taking, inside, packed};
use crate::exchange::{ExchangeError, Outcome, Patients};

/// Bytes of the file of annotations. That of COCO's own training images has 449 MB.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a file with a picture: the largest in 16 bits and colours, not compressed at all.
const PICTURE_BYTES_MAX: u64 = 6 * PIXELS_MAX as u64 + (1 << 20);

/// Takes the pictures that a file, or `annotations.json` of a folder, lists.
pub(crate) fn import(
    taking: &mut Taking<'_>,
    from: &Path,
    label: Option<&str>,
    patients: Patients,
) -> Outcome<()> {
    let path = if from.is_file() { from.to_owned() } else { from.join("annotations.json") };
    let folder = path.parent().unwrap_or(Path::new("."));
    let wrong = |reason: &dyn std::fmt::Display| ExchangeError::file("reading", &path, reason);
    let bytes = bytes_of(&path, FILE_BYTES_MAX).map_err(|error| wrong(&error))?;
    let mut set = Annotated::read(&bytes).map_err(|reason| wrong(&reason))?;
    drop(bytes);
    if let Some(label) = label {
        let [only] = &mut set.labels.values_mut().collect::<Vec<_>>()[..] else {
            return Err(ExchangeError::Refused(format!(
                "{} has {} categories, which say what its masks mark; leave --label out",
                path.display(),
                set.labels.len()
            )));
        };
        label.clone_into(only);
    }
    let nobodys = set.pictures.iter().find(|picture| picture.patient.is_none());
    if let (Some(picture), Patients::AsSaid) = (nobodys, patients) {
        return Err(ExchangeError::Refused(format!(
            "{} does not say whose image {} is; give each image a \"patient\", or say --patient-per-picture if no two are of one",
            path.display(),
            picture.id
        )));
    }
    let here: BTreeSet<PatientKey> =
        taking.library.series()?.into_iter().map(|series| series.patient).collect();
    for picture in &set.pictures {
        let taken = take(taking, &set, picture, folder, &here);
        taking.note(&format!("image {}", picture.id), taken)?;
    }
    Ok(())
}

/// Takes one picture. Says how many samples it has, and how many of them were there.
fn take(
    taking: &Taking<'_>,
    set: &Annotated,
    picture: &Picture,
    folder: &Path,
    here: &BTreeSet<PatientKey>,
) -> Outcome<(u64, u64)> {
    let wrong = |reason: &dyn std::fmt::Display| ExchangeError::case("", reason);
    let key = picture.patient.as_deref().and_then(|text| text.parse::<PatientKey>().ok());
    if key.is_some_and(|key| here.contains(&key)) {
        // As a copy it would be another patient, and could be on the other side of a split.
        return Err(wrong(&"it went out of this library, where its patient is already"));
    }
    let marks = picture.marks(&set.labels).map_err(|reason| wrong(&reason))?;
    let path =
        inside(folder, &picture.file).ok_or_else(|| wrong(&"it is not within the folder"))?;
    let image = read(&path, picture).map_err(|reason| wrong(&reason))?;
    let bytes = packed(&image)?;
    let digest = taking.library.digest(&bytes);
    // What a file calls a patient may be a name, and stays out of the library.
    let patient = match &picture.patient {
        Some(text) => format!("imported {}", taking.library.digest(text.as_bytes())),
        None => format!("imported {digest}"),
    };
    let subject = Subject::of_patient(patient.clone(), format!("{patient} {digest}"));
    let series = taking.series(&image, &subject)?;
    let (mut samples, mut known) = (0, 0);
    for (label, pixels) in marks {
        let mask = Mask::new(image.geometry, pixels).map_err(|error| wrong(&error))?;
        if mask.count() == 0 {
            continue;
        }
        known += taking.sample(&series, &label, &image, &mask, &bytes)?;
        samples += 1;
    }
    Ok((samples, known))
}

/// Reads a picture, which must be as large as the file says.
fn read(path: &Path, picture: &Picture) -> Result<Image, String> {
    let open = || {
        let file = File::open(path)?;
        if file.metadata()?.len() > PICTURE_BYTES_MAX {
            return Err(std::io::Error::other(format!("it has over {PICTURE_BYTES_MAX} bytes")));
        }
        Ok(BufReader::new(file))
    };
    let file = open().map_err(|error| format!("its picture cannot be read: {error}"))?;
    let (size, voxels) = grey(file)?;
    if size != [picture.width, picture.height] {
        return Err(format!(
            "its picture has {} by {} pixels, and the file says {} by {}",
            size[0], size[1], picture.width, picture.height
        ));
    }
    let geometry = Geometry::new([size[0], size[1], 1], picture.spacing_mm);
    Image::new(geometry, voxels).map_err(|error| error.to_string())
}

/// Columns, rows and values of a PNG of 1 to 16 bits. Of colours the brightness is taken (ITU-R BT.601),
/// in whole steps.
pub(crate) fn grey(from: impl BufRead + Seek) -> Result<([usize; 2], Vec<f32>), String> {
    let wrong = |error: png::DecodingError| match error {
        png::DecodingError::Format(error) => {
            format!("its picture is no sound PNG, which pictures have to be: {error}")
        }
        error => format!("its picture cannot be read: {error}"),
    };
    let mut decoder = png::Decoder::new(from);
    decoder.set_transformations(png::Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    let head = decoder.read_header_info().map_err(wrong)?;
    let size = [head.width as usize, head.height as usize];
    if size[0].checked_mul(size[1]).is_none_or(|pixels| pixels > PIXELS_MAX) {
        return Err(format!(
            "its picture has {} by {} pixels; at most {PIXELS_MAX} are read",
            size[0], size[1]
        ));
    }
    let mut reader = decoder.read_info().map_err(wrong)?;
    let length = reader.output_buffer_size().ok_or("its picture is too large")?;
    let mut bytes = vec![0; length];
    let about = reader.next_frame(&mut bytes).map_err(wrong)?;
    let samples = about.color_type.samples();
    let value = |sample: &[u8]| match sample {
        [byte] => f32::from(*byte),
        sample => sample.iter().fold(0.0, |value, byte| value * 256.0 + f32::from(*byte)),
    };
    let wide = if about.bit_depth == png::BitDepth::Sixteen { 2 } else { 1 };
    let pixel = |pixel: &[u8]| {
        let mut values = pixel.chunks_exact(wide).map(value);
        let mut next = || values.next().unwrap_or_default();
        if samples < 3 {
            return next();
        }
        let (red, green, blue) = (next(), next(), next());
        (0.299 * red + 0.587 * green + 0.114 * blue).round()
    };
    let voxels: Vec<f32> = bytes.chunks_exact(samples * wide).map(pixel).collect();
    Ok((size, voxels))
}

fn bytes_of(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > bytes_max {
        let reason = format!("it has {length} bytes, at most {bytes_max} are read");
        return Err(std::io::Error::other(reason));
    }
    fs::read(path)
}
