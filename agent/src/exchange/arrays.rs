//! `NumPy` archives and tar shards on their way in: what [`super::shards`] writes, and what others write in
//! the same form.
//!
//! What they claim to hold is not believed before it is there: a number of bytes is held against a limit,
//! and an array against the bytes that follow.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use gantry_imaging::{Geometry, Image, nifti};
use serde::Deserialize;
use zip::ZipArchive;

use super::{ExchangeError, Outcome};

/// Bytes of one array or file: a whole-body CT in 32 bits.
const BYTES_MAX: u64 = 8 << 30;
/// Bytes of an array's header: all that the form's version 1 can say.
const HEADER_BYTES_MAX: usize = 1 << 16;

/// A case that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// The image.
    pub image: Image,
    /// The mask's values.
    pub mask: Image,
    /// What it marks, where the form says so.
    pub label: Option<String>,
}

/// Reads an archive of arrays: `image` and `mask` with z first, and `spacing_mm`; where they are there,
/// `origin_mm` and `direction`.
///
/// # Errors
/// Where the file is no such archive, or one of its arrays is missing, too large or of another shape.
pub fn npz(path: &Path) -> Outcome<(Image, Image)> {
    let wrong = |reason: &dyn std::fmt::Display| ExchangeError::file("reading", path, reason);
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| wrong(&error))?;
    let mut array = |name: &str| -> Outcome<Option<Array>> {
        let Ok(mut entry) = archive.by_name(&format!("{name}.npy")) else { return Ok(None) };
        let bytes = bytes_of(&mut entry).map_err(|error| wrong(&error))?;
        let of = |reason: String| wrong(&format!("its array {name}: {reason}"));
        Array::read(&bytes).map(Some).map_err(of)
    };
    let needed = |found: Option<Array>, name: &str| {
        found.ok_or_else(|| {
            wrong(&format!("it has no array {name}; image, mask and spacing_mm are needed"))
        })
    };
    let (image, mask) = (needed(array("image")?, "image")?, needed(array("mask")?, "mask")?);
    let [z, y, x] = image.shape[..] else {
        return Err(wrong(&"its image has not three axes"));
    };
    if mask.shape != image.shape {
        return Err(wrong(&"its mask is not as large as its image"));
    }
    let three = |array: Array, name: &str| -> Outcome<[f64; 3]> {
        <[f64; 3]>::try_from(array.values)
            .map_err(|_| wrong(&format!("its {name} has not three numbers")))
    };
    let spacing = needed(array("spacing_mm")?, "spacing_mm")?;
    let mut geometry = Geometry::new([x, y, z], three(spacing, "spacing_mm")?);
    if let Some(origin) = array("origin_mm")? {
        geometry.origin_mm = three(origin, "origin_mm")?;
    }
    if let Some(direction) = array("direction")? {
        let (rows, []) = direction.values.as_chunks::<3>() else {
            return Err(wrong(&"its direction has not nine numbers"));
        };
        geometry.direction = <[[f64; 3]; 3]>::try_from(rows)
            .map_err(|_| wrong(&"its direction has not nine numbers"))?;
    }
    let volume = |array: Array| {
        let voxels = array.values.into_iter().map(|value| value as f32).collect();
        Image::new(geometry, voxels).map_err(|error| wrong(&error))
    };
    Ok((volume(image)?, volume(mask)?))
}

fn bytes_of(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if from.take(BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// An array of numbers in the order of C.
struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Array {
    /// Reads an `.npy` file, version 1 to 3 (NEP 1).
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let cut = || "it ends before its header does".to_owned();
        let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("it is no NumPy array")?;
        let (version, rest) = rest.split_at_checked(2).ok_or_else(cut)?;
        let wide = if version[0] == 1 { 2 } else { 4 };
        let (length, rest) = rest.split_at_checked(wide).ok_or_else(cut)?;
        let length = length.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        if length > HEADER_BYTES_MAX {
            return Err(format!("its header of {length} bytes is longer than any is"));
        }
        let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
        let header = String::from_utf8_lossy(header);
        if value_of(&header, "fortran_order").is_none_or(|value| !value.starts_with("False")) {
            return Err("it is in Fortran's order; save it with numpy.ascontiguousarray".into());
        }
        let kind = value_of(&header, "descr").unwrap_or_default();
        let kind = kind.get(1..4).unwrap_or_default().to_owned();
        let shape = value_of(&header, "shape").and_then(|text| {
            let inside = text.strip_prefix('(')?.split_once(')')?.0;
            let sides = inside.split(',').map(str::trim).filter(|side| !side.is_empty());
            sides.map(|side| side.parse().ok()).collect::<Option<Vec<usize>>>()
        });
        let shape = shape.ok_or("its shape cannot be read")?;
        let count = shape.iter().try_fold(1_usize, |all, side| all.checked_mul(*side));
        let values: Vec<f64> = match kind.as_str() {
            "<f4" => numbers(data, f32::from_le_bytes),
            "<f8" => numbers(data, f64::from_le_bytes),
            "<i2" => numbers(data, i16::from_le_bytes),
            "<u2" => numbers(data, u16::from_le_bytes),
            "<i4" => numbers(data, i32::from_le_bytes),
            "|u1" | "|b1" => numbers(data, u8::from_le_bytes),
            "|i1" => numbers(data, i8::from_le_bytes),
            other => {
                return Err(format!(
                    "its numbers are {other:?}; f4, f8, i1, i2, i4, u1, u2 and b1 are read"
                ));
            }
        };
        if count != Some(values.len()) {
            return Err(format!("it has {} numbers, and not those of its shape", values.len()));
        }
        Ok(Self { shape, values })
    }
}

fn numbers<const N: usize, T: Into<f64>>(data: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<f64> {
    let (all, rest) = data.as_chunks::<N>();
    let mut values: Vec<f64> = all.iter().map(|bytes| of(*bytes).into()).collect();
    if !rest.is_empty() {
        // A number that is cut is one too few.
        values.pop();
    }
    values
}

/// What stands behind a key of a header's dictionary.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    Some(rest.trim_start())
}

#[derive(Deserialize)]
struct About {
    label: Option<String>,
}

/// The files of one case that were read so far.
#[derive(Default)]
struct Group {
    name: String,
    image: Option<Vec<u8>>,
    mask: Option<Vec<u8>>,
    about: Option<Vec<u8>>,
}

/// Reads the cases of a shard one after the other: `NAME.image.nii.gz` and `NAME.mask.nii.gz` beside each
/// other, and `NAME.json` whose `label` says what the mask marks.
///
/// # Errors
/// Where the file is no tar archive, and what `on_each` gives as one. A case that cannot be read is given to
/// it.
pub fn shard(
    path: &Path,
    on_each: &mut dyn FnMut(&str, Outcome<Taken>) -> Outcome<()>,
) -> Outcome<()> {
    let wrong = |reason: &dyn std::fmt::Display| ExchangeError::file("reading", path, reason);
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, file));
    let mut group = Group::default();
    for entry in archive.entries().map_err(|error| wrong(&error))? {
        let mut entry = entry.map_err(|error| wrong(&error))?;
        let at = entry.path().map_err(|error| wrong(&error))?.into_owned();
        let file = at.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // As WebDataset has it, the key goes up to the first dot.
        let Some((key, end)) = file.split_once('.') else { continue };
        let name = at.with_file_name(key).to_string_lossy().into_owned();
        if name != group.name {
            let done = std::mem::replace(&mut group, Group { name, ..Group::default() });
            done.give(on_each)?;
        }
        let place = match end {
            "image.nii.gz" | "image.nii" => &mut group.image,
            "mask.nii.gz" | "mask.nii" => &mut group.mask,
            "json" => &mut group.about,
            _ => continue,
        };
        *place = Some(bytes_of(&mut entry).map_err(|error| wrong(&error))?);
    }
    group.give(on_each)
}

impl Group {
    fn give(self, on_each: &mut dyn FnMut(&str, Outcome<Taken>) -> Outcome<()>) -> Outcome<()> {
        if self.image.is_none() && self.mask.is_none() {
            return Ok(());
        }
        let name = self.name.clone();
        on_each(&name, self.read())
    }

    fn read(self) -> Outcome<Taken> {
        let wrong = |reason: &dyn std::fmt::Display| ExchangeError::case(&self.name, reason);
        let volume = |bytes: Option<&Vec<u8>>, what: &str| {
            let bytes = bytes.ok_or_else(|| wrong(&format!("its {what} is missing")))?;
            nifti::read(bytes).map_err(|error| wrong(&error))
        };
        let (image, mask) =
            (volume(self.image.as_ref(), "image")?, volume(self.mask.as_ref(), "mask")?);
        let about = self.about.as_deref().map(serde_json::from_slice::<About>).transpose();
        let label = about.map_err(|error| wrong(&error))?.and_then(|about| about.label);
        Ok(Taken { image, mask, label })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.into_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn arrays_are_read_or_refused_with_what_is_wrong() {
        for (bytes, expected) in [
            (npy("<i2", "False", "(2, 1)", &[1, 0, 255, 255]), Ok(vec![1.0, -1.0])),
            (npy("|b1", "False", "(3,)", &[1, 0, 1]), Ok(vec![1.0, 0.0, 1.0])),
            (npy("<f4", "False", "()", &1.5_f32.to_le_bytes()), Ok(vec![1.5])),
            (npy("<i2", "True", "(2, 1)", &[1, 0, 2, 0]), Err("Fortran")),
            (npy("<c8", "False", "(1,)", &[0; 8]), Err("c8")),
            (npy("<i2", "False", "(3,)", &[1, 0, 2, 0, 3]), Err("not those of its shape")),
            (npy("<i2", "False", "(99999999999999999, 99999999999)", &[]), Err("shape")),
            (npy("<i2", "False", "(-1,)", &[]), Err("shape cannot be read")),
            (b"\x93NUMPY\x01\x00\xff".to_vec(), Err("ends before")),
            (b"PK".to_vec(), Err("no NumPy array")),
        ] {
            match (Array::read(&bytes).map(|array| array.values), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        }
    }
}
