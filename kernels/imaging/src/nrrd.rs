//! Reading and writing NRRD files, attached header and data in one, raw or gzip.
//!
//! The format is that of <https://teem.sourceforge.net/nrrd/format.html>. Two or three spatial axes;
//! the patient spaces LPS, RAS and LAS, converted to LPS. A file without a space is taken to be
//! aligned with LPS. Vectors per voxel, detached data and block types are refused by name.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::error::ImagingError;
use crate::format::{self, Format, HEADER_BYTES_MAX};
use crate::scalar::{Endian, Scalar};
use crate::volume::{Geometry, Image, Mask};

const FORMAT: Format = Format("NRRD");

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
    let header = Header::parse(&fields)?;
    let count = header.geometry.voxels();
    let voxels = match header.encoding {
        Encoding::Raw => header.scalar.read(from, header.endian, count, FORMAT.0)?,
        Encoding::Gzip => {
            header.scalar.read(GzDecoder::new(from), header.endian, count, FORMAT.0)?
        }
    };
    Image::new(header.geometry, voxels)
}

/// Writes an image of `float`, gzipped.
pub fn write_image(image: &Image, to: impl Write) -> Result<(), ImagingError> {
    write(&image.geometry, "float", &format::float_bytes(image), to)
}

/// Writes a mask of `unsigned char`, gzipped.
pub fn write_mask(mask: &Mask, to: impl Write) -> Result<(), ImagingError> {
    write(&mask.geometry, "unsigned char", &mask.voxels, to)
}

fn write(
    geometry: &Geometry,
    kind: &str,
    voxels: &[u8],
    mut to: impl Write,
) -> Result<(), ImagingError> {
    let [x, y, z] = geometry.size;
    let vector = |[a, b, c]: [f64; 3]| format!("({a},{b},{c})");
    let axis =
        |axis: usize| vector(geometry.direction[axis].map(|one| one * geometry.spacing_mm[axis]));
    write!(
        to,
        "NRRD0004\ntype: {kind}\ndimension: 3\nspace: left-posterior-superior\nsizes: {x} {y} {z}\n\
         space directions: {} {} {}\nkinds: domain domain domain\nendian: little\n\
         encoding: gzip\nspace origin: {}\n\n",
        axis(0),
        axis(1),
        axis(2),
        vector(geometry.origin_mm),
    )?;
    let mut packed = GzEncoder::new(to, Compression::fast());
    packed.write_all(voxels)?;
    packed.finish()?.flush()?;
    Ok(())
}

/// How the voxels are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Raw,
    Gzip,
}

/// What a header says.
#[derive(Debug)]
struct Header {
    geometry: Geometry,
    scalar: Scalar,
    endian: Endian,
    encoding: Encoding,
}

/// Reads the lines up to the empty one that ends the header, by the names of their fields.
fn read_fields(from: &mut impl BufRead) -> Result<BTreeMap<String, String>, ImagingError> {
    let mut limited = from.take(HEADER_BYTES_MAX);
    let mut fields = BTreeMap::new();
    let mut magic = false;
    loop {
        let line = format::line(&mut limited)?.ok_or_else(|| {
            FORMAT.problem(format!("no empty line ends its header within {HEADER_BYTES_MAX} bytes"))
        })?;
        if !magic {
            if !line.starts_with("NRRD000") {
                return Err(FORMAT.problem("it does not begin with NRRD000"));
            }
            magic = true;
        } else if line.is_empty() {
            return Ok(fields);
        } else if !line.starts_with('#') {
            // Key-value pairs of the writer's own have `:=`; they say nothing of the grid.
            if let Some((name, value)) = line.split_once(": ") {
                fields.insert(name.trim().to_lowercase(), value.trim().to_owned());
            }
        }
    }
}

impl Header {
    fn parse(fields: &BTreeMap<String, String>) -> Result<Self, ImagingError> {
        let required = |name: &str| {
            fields
                .get(name)
                .map(String::as_str)
                .ok_or_else(|| FORMAT.problem(format!("its header has no field {name:?}")))
        };
        if fields.contains_key("data file") || fields.contains_key("datafile") {
            return Err(FORMAT.unsupported("a header apart from its data"));
        }
        let scalar = scalar(required("type")?)?;
        let encoding = match required("encoding")? {
            "raw" => Encoding::Raw,
            "gzip" | "gz" => Encoding::Gzip,
            other => return Err(FORMAT.unsupported(format!("the encoding {other:?}"))),
        };
        let endian = match fields.get("endian").map(String::as_str) {
            Some("little") => Endian::Little,
            Some("big") => Endian::Big,
            Some(other) => return Err(FORMAT.problem(format!("its endian is {other:?}"))),
            None if scalar.bytes() == 1 => Endian::Little,
            None => return Err(FORMAT.problem("its header has no field \"endian\"")),
        };
        for field in ["line skip", "lineskip", "byte skip", "byteskip"] {
            if fields.get(field).is_some_and(|skip| skip != "0") {
                return Err(FORMAT.unsupported(format!("the field {field:?}")));
            }
        }
        Ok(Self { geometry: geometry(fields, required("sizes")?)?, scalar, endian, encoding })
    }
}

/// Returns the grid that the header describes.
fn geometry(fields: &BTreeMap<String, String>, sizes: &str) -> Result<Geometry, ImagingError> {
    let field = |name: &str| fields.get(name).map(String::as_str);
    let parsed: Vec<usize> =
        format::numbers(sizes).ok_or_else(|| FORMAT.problem(format!("its sizes are {sizes:?}")))?;
    let axes = parsed.len();
    if !(2..=3).contains(&axes) {
        return Err(FORMAT.unsupported(format!("an array of {axes} axes (2 or 3 are)")));
    }
    let mut geometry = Geometry::unit([parsed[0], parsed[1], *parsed.get(2).unwrap_or(&1)]);
    let flips = match field("space").map(str::to_lowercase).as_deref() {
        None | Some("left-posterior-superior" | "lps") => [1.0, 1.0, 1.0],
        Some("right-anterior-superior" | "ras") => [-1.0, -1.0, 1.0],
        Some("left-anterior-superior" | "las") => [1.0, -1.0, 1.0],
        Some(other) => return Err(FORMAT.unsupported(format!("the space {other:?}"))),
    };
    let in_lps = |vector: [f64; 3]| [0, 1, 2].map(|k| vector[k] * flips[k]);
    if let Some(directions) = field("space directions") {
        let vectors: Vec<&str> = directions.split_inclusive(')').map(str::trim).collect();
        if vectors.len() != axes {
            return Err(FORMAT.problem(format!("its space directions are {directions:?}")));
        }
        for (axis, text) in vectors.iter().enumerate() {
            let vector = in_lps(vector(text, "space directions")?);
            let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
            geometry.spacing_mm[axis] = length;
            geometry.direction[axis] = vector.map(|v| v / length);
        }
        if axes == 2 {
            geometry.direction[2] = format::across(geometry.direction);
        }
    } else if let Some(spacings) = field("spacings") {
        for (axis, text) in spacings.split_whitespace().take(3).enumerate() {
            geometry.spacing_mm[axis] = text
                .parse()
                .map_err(|_| FORMAT.problem(format!("its spacings are {spacings:?}")))?;
        }
    }
    if let Some(origin) = field("space origin") {
        geometry.origin_mm = in_lps(vector(origin, "space origin")?);
    }
    geometry.check()?;
    Ok(geometry)
}

/// Parses a vector like `(0.5,0,-1)`. Two coordinates are given a third, 0.
fn vector(text: &str, of: &str) -> Result<[f64; 3], ImagingError> {
    let wrong =
        || FORMAT.problem(format!("its {of} has {text:?} where a vector like (1,0,0) belongs"));
    let inner = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or_else(wrong)?;
    let parsed: Option<Vec<f64>> = inner.split(',').map(|part| part.trim().parse().ok()).collect();
    match parsed.ok_or_else(wrong)?[..] {
        [x, y] => Ok([x, y, 0.0]),
        [x, y, z] => Ok([x, y, z]),
        _ => Err(wrong()),
    }
}

/// Returns the type of number with a name of the format.
fn scalar(name: &str) -> Result<Scalar, ImagingError> {
    Ok(match name {
        "signed char" | "int8" | "int8_t" => Scalar::I8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => Scalar::U8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => {
            Scalar::I16
        }
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Scalar::U16,
        "int" | "signed int" | "int32" | "int32_t" => Scalar::I32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => Scalar::U32,
        "longlong"
        | "long long"
        | "long long int"
        | "signed long long"
        | "signed long long int"
        | "int64"
        | "int64_t" => Scalar::I64,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => {
            Scalar::U64
        }
        "float" => Scalar::F32,
        "double" => Scalar::F64,
        other => return Err(FORMAT.unsupported(format!("the type {other:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_comes_back() {
        let geometry = Geometry {
            size: [4, 3, 2],
            spacing_mm: [0.5, 2.0, 3.0],
            origin_mm: [-10.0, 20.0, 30.0],
            direction: [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]],
        };
        let image = Image::new(geometry, (0..24).map(|v| v as f32 * 1.5).collect()).unwrap();
        let mut bytes = Vec::new();
        write_image(&image, &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap(), image);
        let mask: Mask = image.map(|value| u8::from(*value > 9.0));
        let mut bytes = Vec::new();
        write_mask(&mask, &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap().to_mask().unwrap(), mask);
    }

    const HEADER: &str = "NRRD0004\n# a comment\ntype: short\ndimension: 3\n\
        space: right-anterior-superior\nsizes: 3 2 2\n\
        space directions: (0,0.5,0) (-2,0,0) (0,0,3)\nkinds: domain domain domain\n\
        endian: big\nencoding: raw\nspace origin: (10,20,30)\nown:=value: 3\n\n";

    fn file(header: &str) -> Vec<u8> {
        let values: Vec<u8> = (0i16..12).flat_map(|v| (v - 6).to_be_bytes()).collect();
        if header.contains("gzip") {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&values).unwrap();
            return [header.as_bytes(), &gzip.finish().unwrap()].concat();
        }
        [header.as_bytes(), &values].concat()
    }

    #[test]
    fn reads_values_and_places_them_in_lps() {
        for header in [HEADER.to_owned(), HEADER.replace("raw", "gzip")] {
            let image = read(&file(&header)).unwrap();
            let expected: Vec<f32> = (0..12).map(|v| v as f32 - 6.0).collect();
            assert_eq!(image.voxels, expected);
            let geometry = image.geometry;
            assert_eq!((geometry.size, geometry.spacing_mm), ([3, 2, 2], [0.5, 2.0, 3.0]));
            // One step along voxel x goes to the front: y falls in LPS.
            assert_eq!(geometry.to_patient_mm([0.0; 3]), [-10.0, -20.0, 30.0]);
            assert_eq!(geometry.to_patient_mm([1.0, 1.0, 1.0]), [-8.0, -20.5, 33.0]);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (from, to, sentence) in [
            ("NRRD0004", "NRRX0004", "does not begin"),
            ("type: short\n", "", "no field \"type\""),
            ("short", "block", "type \"block\" is not supported"),
            ("sizes: 3 2 2", "sizes: 3 2 2 2", "4 axes"),
            ("sizes: 3 2 2", "sizes: 3 2 -2", "sizes"),
            ("sizes: 3 2 2", "sizes: 99999 99999 99999", "limit"),
            ("sizes: 3 2 2", "sizes: 3 2 3", "ends before voxel 18 of 18"),
            ("(0,0,3)", "(0,0,0)", "spacing"),
            ("(0,0,3)", "none", "vector"),
            ("encoding: raw", "encoding: bzip2", "bzip2"),
            ("endian: big\n", "", "endian"),
            ("right-anterior-superior", "scanner-xyz", "scanner-xyz"),
            ("\n\n", "\n", "no empty line"),
        ] {
            let error = read(&file(&HEADER.replace(from, to))).unwrap_err().to_string();
            assert!(error.contains(sentence), "{to:?}: {error}");
        }
        let no_gzip = [HEADER.replace("raw", "gzip").as_bytes(), &[0u8; 40]].concat();
        assert!(read(&no_gzip).unwrap_err().to_string().contains("damaged"));
    }

    proptest! {
        #[test]
        fn damaged_files_are_errors_or_images_but_never_panics(
            changes in prop::collection::vec((0usize..400, any::<u8>()), 1..6),
            length in 0usize..400,
            gzip in any::<bool>(),
        ) {
            let header = if gzip { HEADER.replace("raw", "gzip") } else { HEADER.to_owned() };
            let mut bytes = file(&header);
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(length.max(300));
            if let Ok(image) = read(&bytes) {
                prop_assert_eq!(image.voxels.len(), image.geometry.voxels());
            }
        }
    }
}
