//! `MetaImage` files with header and data in one (`.mha`), plain or compressed: what ITK writes on
//! its own account.
//!
//! The format is that of <https://itk.org/Wiki/MetaIO/Documentation>. Two or three axes in the
//! patient space LPS, as ITK has it. Vectors per voxel, text data, a data file apart (`.mhd`) and
//! other spaces are refused by name.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;

use crate::error::ImagingError;
use crate::format::{self, Format, HEADER_BYTES_MAX};
use crate::scalar::{Endian, Scalar};
use crate::volume::{Geometry, Image, Mask};

const FORMAT: Format = Format("MetaImage");

/// Reads an image from a file.
pub fn read_file(path: &Path) -> Result<Image, ImagingError> {
    read_stream(format::open(path)?)
}

/// Reads an image from the bytes of a file.
pub fn read(bytes: &[u8]) -> Result<Image, ImagingError> {
    read_stream(bytes)
}

fn read_stream(mut from: impl BufRead) -> Result<Image, ImagingError> {
    let fields = read_fields(&mut from)?;
    let field = |name: &str| fields.get(name).map(String::as_str);
    let truth = |name: &str| field(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if !truth("binarydata") {
        return Err(FORMAT.unsupported("data as text (BinaryData is not True)"));
    }
    if field("elementnumberofchannels").is_some_and(|count| count != "1") {
        return Err(FORMAT.unsupported("an image of several channels"));
    }
    let big = truth("binarydatabyteordermsb") || truth("elementbyteordermsb");
    let endian = if big { Endian::Big } else { Endian::Little };
    let kind = field("elementtype").ok_or_else(|| missing("ElementType"))?;
    let scalar = scalar(kind)?;
    let geometry = geometry(&fields)?;
    let count = geometry.voxels();
    let voxels = if truth("compresseddata") {
        scalar.read(ZlibDecoder::new(from), endian, count, FORMAT.0)?
    } else {
        scalar.read(from, endian, count, FORMAT.0)?
    };
    Image::new(geometry, voxels)
}

/// Reads the lines up to the one that says where the data are, by the names of their fields in
/// small letters.
fn read_fields(from: &mut impl BufRead) -> Result<BTreeMap<String, String>, ImagingError> {
    let mut limited = from.take(HEADER_BYTES_MAX);
    let mut fields = BTreeMap::new();
    loop {
        let text = format::line(&mut limited)?;
        let Some((name, value)) = text.as_deref().and_then(|text| text.split_once('=')) else {
            return Err(FORMAT.problem(format!(
                "no line ElementDataFile ends its header within {HEADER_BYTES_MAX} bytes"
            )));
        };
        let (name, value) = (name.trim().to_lowercase(), value.trim().to_owned());
        if name == "elementdatafile" {
            if value != "LOCAL" {
                return Err(FORMAT.unsupported("a header apart from its data (.mhd)"));
            }
            return Ok(fields);
        }
        fields.insert(name, value);
    }
}

/// The grid that a header describes. Each axis' vector stands in its row of the matrix.
fn geometry(fields: &BTreeMap<String, String>) -> Result<Geometry, ImagingError> {
    let numbers = |names: &[&str], count: usize| -> Result<Option<Vec<f64>>, ImagingError> {
        let Some(text) = names.iter().find_map(|name| fields.get(*name)) else { return Ok(None) };
        let parsed = format::numbers::<f64>(text).filter(|numbers| numbers.len() == count);
        parsed.map(Some).ok_or_else(|| FORMAT.problem(format!("its {} are {text:?}", names[0])))
    };
    let axes = match fields.get("ndims").map(String::as_str) {
        Some("2") => 2,
        Some("3") => 3,
        Some(other) => return Err(FORMAT.unsupported(format!("{other} axes (2 or 3 are)"))),
        None => return Err(missing("NDims")),
    };
    let sizes = fields.get("dimsize").ok_or_else(|| missing("DimSize"))?;
    let sizes = format::numbers::<usize>(sizes)
        .filter(|sizes| sizes.len() == axes)
        .ok_or_else(|| FORMAT.problem("its DimSize is no list of sizes"))?;
    let mut geometry = Geometry::unit([sizes[0], sizes[1], *sizes.get(2).unwrap_or(&1)]);
    for (axis, spacing) in
        numbers(&["elementspacing", "elementsize"], axes)?.into_iter().flatten().enumerate()
    {
        geometry.spacing_mm[axis] = spacing;
    }
    let origin = numbers(&["offset", "position", "origin"], axes)?;
    for (axis, origin) in origin.into_iter().flatten().enumerate() {
        geometry.origin_mm[axis] = origin;
    }
    let matrix = numbers(&["transformmatrix", "orientation", "rotation"], axes * axes)?;
    for (n, value) in matrix.into_iter().flatten().enumerate() {
        geometry.direction[n / axes][n % axes] = value;
    }
    geometry.check()?;
    Ok(geometry)
}

/// Writes an image of `float`, compressed.
pub fn write_image(image: &Image, to: impl Write) -> Result<(), ImagingError> {
    write(&image.geometry, "MET_FLOAT", &format::float_bytes(image), to)
}

/// Writes a mask of `unsigned char`, compressed.
pub fn write_mask(mask: &Mask, to: impl Write) -> Result<(), ImagingError> {
    write(&mask.geometry, "MET_UCHAR", &mask.voxels, to)
}

fn write(
    geometry: &Geometry,
    kind: &str,
    voxels: &[u8],
    mut to: impl Write,
) -> Result<(), ImagingError> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(voxels)?;
    let packed = packed.finish()?;
    let list =
        |numbers: &[f64]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let [x, y, z] = geometry.size;
    write!(
        to,
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
         CompressedData = True\nCompressedDataSize = {}\nTransformMatrix = {}\nOffset = {}\n\
         CenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\nElementSpacing = {}\n\
         DimSize = {x} {y} {z}\nElementType = {kind}\nElementDataFile = LOCAL\n",
        packed.len(),
        list(&geometry.direction.concat()),
        list(&geometry.origin_mm),
        list(&geometry.spacing_mm),
    )?;
    to.write_all(&packed)?;
    to.flush()?;
    Ok(())
}

fn scalar(name: &str) -> Result<Scalar, ImagingError> {
    Ok(match name {
        "MET_CHAR" => Scalar::I8,
        "MET_UCHAR" => Scalar::U8,
        "MET_SHORT" => Scalar::I16,
        "MET_USHORT" => Scalar::U16,
        "MET_INT" | "MET_LONG" => Scalar::I32,
        "MET_UINT" | "MET_ULONG" => Scalar::U32,
        "MET_LONG_LONG" => Scalar::I64,
        "MET_ULONG_LONG" => Scalar::U64,
        "MET_FLOAT" => Scalar::F32,
        "MET_DOUBLE" => Scalar::F64,
        other => return Err(FORMAT.unsupported(format!("the type {other:?}"))),
    })
}

fn missing(field: &str) -> ImagingError {
    FORMAT.problem(format!("its header has no field {field}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::turned_image as image;

    #[test]
    fn what_is_written_comes_back() {
        let mut bytes = Vec::new();
        write_image(&image(), &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap(), image());
        let mask: Mask = image().map(|value| u8::from(*value > 0.0));
        let mut bytes = Vec::new();
        write_mask(&mask, &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap().to_mask().unwrap(), mask);
    }

    #[test]
    fn plain_data_of_either_order_are_read_and_what_is_not_is_named() {
        let header = |more: &str| {
            format!(
                "NDims = 2\nDimSize = 2 1\nBinaryData = True\nElementType = MET_SHORT\n{more}\n\
                 ElementDataFile = LOCAL\n"
            )
        };
        let file = |more: &str, data: &[u8]| [header(more).as_bytes(), data].concat();
        let little = read(&file("ElementSpacing = 1 2", &[1, 0, 0xff, 0xff])).unwrap();
        assert_eq!((little.voxels, little.geometry.spacing_mm), (vec![1.0, -1.0], [1.0, 2.0, 1.0]));
        let big = read(&file("BinaryDataByteOrderMSB = True", &[0, 1, 0xff, 0xff])).unwrap();
        assert_eq!(big.voxels, [1.0, -1.0]);
        for (bytes, word) in [
            (file("ElementNumberOfChannels = 3", &[0; 4]), "channels"),
            (file("ElementSpacing = 1", &[0; 4]), "elementspacing"),
            (file("ElementSpacing = 0 1", &[0; 4]), "spacing"),
            (file("CompressedData = True", &[1, 2, 3, 4]), "damaged"),
            (file("A = 1", &[0; 3]), "cut off"),
            (b"NDims = 3\nElementDataFile = a.raw\n".to_vec(), ".mhd"),
            (b"NDims = 3\n".to_vec(), "ElementDataFile"),
            (b"nonsense".to_vec(), "ElementDataFile"),
        ] {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..400) {
            let _ = read(&bytes);
            let mut sound = Vec::new();
            write_image(&image(), &mut sound).unwrap();
            let at = at.min(sound.len());
            sound.splice(at..at, bytes.drain(..));
            let _ = read(&sound);
        }
    }
}
