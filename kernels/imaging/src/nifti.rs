//! Reading and writing NIfTI-1 files, `.nii` and `.nii.gz`.
//!
//! The format is that of <https://nifti.nimh.nih.gov/nifti-1>. Volumes of two or three axes (and
//! longer ones whose further axes have length 1), in either byte order, plain or gzip, told apart
//! by their first bytes. The grid comes from the sform, else from the qform, else from the voxel
//! sizes alone. NIfTI's patient space is RAS; here it is LPS, so x and y change their signs.
//! Written files are little-endian, gzip, with an sform.

use std::io::{BufRead, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::error::ImagingError;
use crate::format::{self, Format};
use crate::scalar::{Endian, Scalar};
use crate::volume::{Geometry, Image, Mask};

/// The most bytes between the header and the voxels: room for extensions.
pub const EXTENSION_BYTES_MAX: usize = 16 * 1024 * 1024;

const FORMAT: Format = Format("NIfTI");
const HEADER_BYTES: usize = 348;
/// Where voxels begin in a file without extensions.
const VOXELS_AT: usize = 352;

/// Reads an image from a file.
pub fn read_file(path: &Path) -> Result<Image, ImagingError> {
    read_stream(format::open(path)?)
}

/// Reads an image from the bytes of a file.
pub fn read(bytes: &[u8]) -> Result<Image, ImagingError> {
    read_stream(bytes)
}

/// Reads a mask from the bytes of a file. Values that are no labels are an error.
pub fn read_mask(bytes: &[u8]) -> Result<Mask, ImagingError> {
    read(bytes)?.to_mask()
}

fn read_stream(mut from: impl BufRead) -> Result<Image, ImagingError> {
    if from.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        read_plain(MultiGzDecoder::new(from))
    } else {
        read_plain(from)
    }
}

/// Reads an image from bytes that are not compressed.
fn read_plain(mut from: impl Read) -> Result<Image, ImagingError> {
    let mut bytes = [0u8; HEADER_BYTES];
    read_exact(&mut from, &mut bytes)?;
    let header = Header::parse(&bytes)?;
    let mut extensions = vec![0u8; header.voxels_at - HEADER_BYTES];
    read_exact(&mut from, &mut extensions)?;
    let count = header.geometry.voxels();
    let mut voxels = header.scalar.read(from, header.endian, count, FORMAT.0)?;
    let (slope, intercept) = header.scale;
    if (slope, intercept) != (1.0, 0.0) {
        for value in &mut voxels {
            *value = (f64::from(*value) * slope + intercept) as f32;
        }
    }
    Image::new(header.geometry, voxels)
}

/// Reads bytes of the header, with a sentence for a file that ends early.
fn read_exact(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), ImagingError> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof
        | std::io::ErrorKind::InvalidInput
        | std::io::ErrorKind::InvalidData => {
            FORMAT.problem("it ends within its header or is damaged; copy it again")
        }
        _ => ImagingError::Io(error),
    })
}

/// What a header says.
#[derive(Debug)]
struct Header {
    geometry: Geometry,
    scalar: Scalar,
    endian: Endian,
    voxels_at: usize,
    /// Stored values times the first plus the second are the true ones.
    scale: (f64, f64),
}

/// The fields of a header by their places.
struct Fields<'a> {
    bytes: &'a [u8; HEADER_BYTES],
    endian: Endian,
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[at..at + N]);
        if self.endian == Endian::Big {
            field.reverse();
        }
        field
    }

    fn whole(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.array(at))
    }

    fn real(&self, at: usize) -> f64 {
        f64::from(f32::from_le_bytes(self.array(at)))
    }
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ImagingError> {
        let endian = match i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) {
            348 => Endian::Little,
            0x5c01_0000 => Endian::Big,
            540 | 0x1c02_0000 => return Err(FORMAT.unsupported("version 2")),
            _ => return Err(FORMAT.problem("its header is not 348 bytes long")),
        };
        let fields = Fields { bytes, endian };
        match &bytes[344..348] {
            b"n+1\0" => {}
            b"ni1\0" => return Err(FORMAT.unsupported("a header apart from its data")),
            _ => return Err(FORMAT.problem("its magic is not n+1")),
        }
        let scalar = match fields.whole(70) {
            2 => Scalar::U8,
            4 => Scalar::I16,
            8 => Scalar::I32,
            16 => Scalar::F32,
            64 => Scalar::F64,
            256 => Scalar::I8,
            512 => Scalar::U16,
            768 => Scalar::U32,
            1024 => Scalar::I64,
            1280 => Scalar::U64,
            other => return Err(FORMAT.unsupported(format!("the data type {other}"))),
        };
        let voxels_at = fields.real(108);
        if !(VOXELS_AT as f64..=(HEADER_BYTES + EXTENSION_BYTES_MAX) as f64).contains(&voxels_at) {
            return Err(FORMAT.problem(format!("its voxels begin at byte {voxels_at}")));
        }
        let (slope, intercept) = (fields.real(112), fields.real(116));
        // A slope of 0 means that there is no scale.
        let scaled = slope != 0.0 && slope.is_finite() && intercept.is_finite();
        Ok(Self {
            geometry: geometry(&fields)?,
            scalar,
            endian,
            voxels_at: voxels_at as usize,
            scale: if scaled { (slope, intercept) } else { (1.0, 0.0) },
        })
    }
}

/// Returns the grid that the header describes.
fn geometry(fields: &Fields) -> Result<Geometry, ImagingError> {
    let axes = fields.whole(40);
    if !(2..=7).contains(&axes) {
        return Err(FORMAT.unsupported(format!("an array of {axes} axes (2 to 7 are)")));
    }
    let mut size = [1usize; 3];
    for axis in 0..axes as usize {
        let length = fields.whole(42 + 2 * axis);
        if length < 1 {
            return Err(FORMAT.problem(format!("axis {axis} has length {length}")));
        }
        if axis < 3 {
            size[axis] = length as usize;
        } else if length > 1 {
            return Err(FORMAT.unsupported(format!("an axis {axis} of length {length} (1 is)")));
        }
    }
    let unit_mm = match fields.bytes[123] & 7 {
        1 => 1000.0,
        3 => 0.001,
        _ => 1.0,
    };
    let pixdim = [0, 1, 2].map(|axis| fields.real(80 + 4 * axis).abs());
    let (columns, origin) = if fields.whole(254) > 0 {
        let row = |row: usize| [0, 1, 2, 3].map(|k| fields.real(280 + 16 * row + 4 * k));
        let rows = [row(0), row(1), row(2)];
        let column = |k: usize| [rows[0][k], rows[1][k], rows[2][k]];
        ([column(0), column(1), column(2)], column(3))
    } else if fields.whole(252) > 0 {
        let rotation = rotation([0, 1, 2].map(|k| fields.real(256 + 4 * k)));
        // pixdim[0] is the sign of the third axis; 0 counts as 1.
        let signs = [1.0, 1.0, if fields.real(76) < 0.0 { -1.0 } else { 1.0 }];
        let column = |axis: usize| rotation[axis].map(|v| v * pixdim[axis] * signs[axis]);
        ([column(0), column(1), column(2)], [0, 1, 2].map(|k| fields.real(268 + 4 * k)))
    } else {
        let column = |axis: usize| Geometry::IDENTITY[axis].map(|v| v * pixdim[axis]);
        ([column(0), column(1), column(2)], [0.0; 3])
    };
    let to_lps = |ras: [f64; 3]| [0.0 - ras[0] * unit_mm, 0.0 - ras[1] * unit_mm, ras[2] * unit_mm];
    let mut geometry = Geometry { origin_mm: to_lps(origin), ..Geometry::unit(size) };
    for axis in 0..3 {
        let column = to_lps(columns[axis]);
        let length = column.iter().map(|v| v * v).sum::<f64>().sqrt();
        if size[axis] == 1 && (length == 0.0 || !length.is_finite()) {
            // A flat image need not say how thick it is; only its third axis is known to be across.
            geometry.direction[axis] = format::across(geometry.direction);
            continue;
        }
        geometry.spacing_mm[axis] = length;
        geometry.direction[axis] = column.map(|v| v / length);
    }
    geometry.check()?;
    Ok(geometry)
}

/// Returns the columns of the rotation of a unit quaternion (a, b, c, d) without its first part.
fn rotation([b, c, d]: [f64; 3]) -> [[f64; 3]; 3] {
    let a = (1.0 - (b * b + c * c + d * d)).max(0.0).sqrt();
    [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c + a * d), 2.0 * (b * d - a * c)],
        [2.0 * (b * c - a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d + a * b)],
        [2.0 * (b * d + a * c), 2.0 * (c * d - a * b), a * a + d * d - b * b - c * c],
    ]
}

/// Writes an image as a `.nii.gz` of `float32`.
pub fn write_image(image: &Image, to: impl Write) -> Result<(), ImagingError> {
    let bytes = image.voxels.iter().map(|value| value.to_le_bytes());
    write(&image.geometry, (16, 32), bytes, to)
}

/// Writes a mask as a `.nii.gz` of `uint8`.
pub fn write_mask(mask: &Mask, to: impl Write) -> Result<(), ImagingError> {
    write(&mask.geometry, (2, 8), mask.voxels.iter().map(|&label| [label]), to)
}

/// Writes voxels of a data type (its code and its bits).
fn write<const N: usize>(
    geometry: &Geometry,
    (code, bits): (i16, i16),
    voxels: impl Iterator<Item = [u8; N]>,
    to: impl Write,
) -> Result<(), ImagingError> {
    let mut header = [0u8; VOXELS_AT];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348i32.to_le_bytes());
    put(40, &3i16.to_le_bytes());
    for axis in 0..7 {
        let size = *geometry.size.get(axis).unwrap_or(&1);
        let length = i16::try_from(size).map_err(|_| ImagingError::TooLarge {
            what: "axis of a NIfTI file",
            found: size as u64,
            limit: i16::MAX as u64,
        })?;
        put(42 + 2 * axis, &length.to_le_bytes());
        let spacing = *geometry.spacing_mm.get(axis).unwrap_or(&1.0) as f32;
        put(80 + 4 * axis, &spacing.to_le_bytes());
    }
    put(70, &code.to_le_bytes());
    put(72, &bits.to_le_bytes());
    put(76, &1f32.to_le_bytes());
    put(108, &(VOXELS_AT as f32).to_le_bytes());
    put(112, &1f32.to_le_bytes());
    put(123, &[2]);
    // The sform's code 1: the scanner's own coordinates.
    put(254, &1i16.to_le_bytes());
    for (row, sign) in [-1.0, -1.0, 1.0].into_iter().enumerate() {
        for column in 0..4 {
            let value = match geometry.direction.get(column) {
                Some(direction) => direction[row] * geometry.spacing_mm[column],
                None => geometry.origin_mm[row],
            };
            put(280 + 16 * row + 4 * column, &((sign * value) as f32).to_le_bytes());
        }
    }
    put(344, b"n+1\0");
    let mut gzip = GzEncoder::new(to, Compression::fast());
    gzip.write_all(&header)?;
    let mut buffer = Vec::with_capacity(1 << 16);
    for bytes in voxels {
        buffer.extend_from_slice(&bytes);
        if buffer.len() >= 1 << 16 {
            gzip.write_all(&buffer)?;
            buffer.clear();
        }
    }
    gzip.write_all(&buffer)?;
    gzip.finish()?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::turned_image as image;

    fn plain() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_image(&image(), &mut bytes).unwrap();
        let mut plain = Vec::new();
        MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut bytes = Vec::new();
        write_image(&image(), &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap(), image());
        assert_eq!(read(&plain()).unwrap(), image());
        let mask = image().map(|&value| u8::from(value > 0.0));
        bytes.clear();
        write_mask(&mask, &mut bytes).unwrap();
        assert_eq!(read_mask(&bytes).unwrap(), mask);
        let wide = Mask::filled(Geometry::unit([40_000, 1, 1]), 0);
        assert!(write_mask(&wide, Vec::new()).is_err());
    }

    #[test]
    fn the_quaternion_gives_the_same_grid() {
        let mut bytes = plain();
        bytes[254] = 0;
        bytes[252] = 1;
        // In RAS the axes are (0,-1,0), (1,0,0), (0,0,-1): a half turn about x and y at once,
        // (b, c) = (1, -1) / sqrt 2, and no flip.
        bytes[256..260].copy_from_slice(&std::f32::consts::FRAC_1_SQRT_2.to_le_bytes());
        bytes[260..264].copy_from_slice(&(-std::f32::consts::FRAC_1_SQRT_2).to_le_bytes());
        for (k, value) in [10.0f32, -20.0, 30.0].into_iter().enumerate() {
            bytes[268 + 4 * k..272 + 4 * k].copy_from_slice(&value.to_le_bytes());
        }
        // The half turn maps y to -x: axes (0,-1,0), (-1,0,0), (0,0,-1).
        let geometry = read(&bytes).unwrap().geometry;
        let expected = Geometry {
            direction: [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]],
            ..image().geometry
        };
        assert!(geometry.same_grid(&expected), "{geometry:?}");
    }

    #[test]
    fn scale_and_big_endian_are_honoured() {
        let mut bytes = plain();
        bytes.truncate(VOXELS_AT);
        bytes[112..116].copy_from_slice(&2f32.to_le_bytes());
        bytes[116..120].copy_from_slice(&(-5f32).to_le_bytes());
        bytes[70] = 4;
        let swap = |bytes: &mut Vec<u8>, at: usize, width: usize, count: usize| {
            bytes[at..at + width * count].chunks_mut(width).for_each(<[u8]>::reverse);
        };
        for (at, width, count) in
            [(0, 4, 1), (40, 2, 8), (70, 2, 2), (76, 4, 8), (108, 4, 3), (252, 2, 2), (256, 4, 18)]
        {
            swap(&mut bytes, at, width, count);
        }
        bytes.extend((0i16..24).flat_map(i16::to_be_bytes));
        let found = read(&bytes).unwrap();
        assert_eq!(found.geometry, image().geometry);
        assert_eq!((found.voxels[0], found.voxels[23]), (-5.0, 41.0));
    }

    #[test]
    fn says_what_is_wrong() {
        for (at, byte, sentence) in [
            (0, 1, "348 bytes"),
            (345, b'x', "magic"),
            (345, b'i', "apart from its data"),
            (70, 32, "data type 32"),
            (40, 9, "9 axes"),
            (43, 0x80, "length"),
            (111, 0x7f, "begin at byte"),
        ] {
            let mut bytes = plain();
            bytes[at] = byte;
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(sentence), "{at}: {error}");
        }
        let error = read(&plain()[..400]).unwrap_err().to_string();
        assert!(error.contains("ends before voxel"), "{error}");
        assert!(read(b"").is_err());
    }

    proptest! {
        #[test]
        fn damaged_files_are_errors_or_images_but_never_panics(
            changes in prop::collection::vec((0usize..VOXELS_AT, any::<u8>()), 1..8),
            length in 0usize..500,
            cut in any::<bool>(),
        ) {
            let mut bytes = plain();
            for (at, value) in changes {
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(length);
            }
            if let Ok(image) = read(&bytes) {
                prop_assert_eq!(image.voxels.len(), image.geometry.voxels());
            }
        }
    }
}
