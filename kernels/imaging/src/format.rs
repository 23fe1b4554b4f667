//! What the readers and writers of image files have in common: how they refuse, how they read numbers of
//! a header, and how voxels become bytes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::str::FromStr;

use crate::error::ImagingError;
use crate::volume::Image;

/// The most bytes of a header of lines; real ones have less than one KiB.
pub(crate) const HEADER_BYTES_MAX: u64 = 64 * 1024;

/// A format, by the name that users have for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format(pub(crate) &'static str);

impl Format {
    /// The file is not what the format asks for.
    pub(crate) fn problem(self, problem: impl Into<String>) -> ImagingError {
        ImagingError::Format { format: self.0, problem: problem.into() }
    }

    /// The file uses a part of the format that is not supported.
    pub(crate) fn unsupported(self, feature: impl Into<String>) -> ImagingError {
        ImagingError::Unsupported { format: self.0, feature: feature.into() }
    }
}

/// Opens a file to read it from its begin.
pub(crate) fn open(path: &Path) -> Result<BufReader<File>, ImagingError> {
    Ok(BufReader::with_capacity(1 << 16, File::open(path)?))
}

/// Reads the next line of a header, without its end; none where it has no end.
pub(crate) fn line(from: &mut impl BufRead) -> Result<Option<String>, ImagingError> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    let whole = line.ends_with(b"\n");
    Ok(whole.then(|| String::from_utf8_lossy(&line).trim_end().to_owned()))
}

/// Reads numbers with spaces between them; none where one is no number.
pub(crate) fn numbers<T: FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_whitespace().map(|number| number.parse().ok()).collect()
}

/// Returns the direction across two others, of a flat image that does not say its third.
pub(crate) fn across([a, b, _]: [[f64; 3]; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// Returns the voxels of an image as little-endian floats.
pub(crate) fn float_bytes(image: &Image) -> Vec<u8> {
    image.voxels.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An image whose axes are turned and that is as long as it is wide along none.
#[cfg(test)]
pub(crate) fn turned_image() -> Image {
    let geometry = crate::volume::Geometry {
        size: [4, 3, 2],
        spacing_mm: [0.5, 2.0, 3.0],
        origin_mm: [-10.0, 20.0, 30.0],
        direction: [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]],
    };
    Image::new(geometry, (0..24).map(|v| v as f32 * 1.5 - 7.0).collect()).unwrap()
}
