//! The numbers in which files store voxels, read as `f32`.
//!
//! Whole numbers beyond 2²⁴ and doubles lose their last digits, as in every program that computes
//! on floats. Voxels are converted while they are read: a header that promises more than the file
//! holds costs no more memory than the file.

use std::io::{ErrorKind, Read};

use crate::error::ImagingError;

/// A type of stored number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

/// The order of the bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endian {
    Little,
    Big,
}

/// The bytes converted at a time.
const CHUNK_BYTES: usize = 1 << 16;

impl Scalar {
    /// Returns the number of bytes of one number.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Reads `count` numbers of a file in `format`.
    pub(crate) fn read(
        self,
        mut from: impl Read,
        endian: Endian,
        count: usize,
        format: &'static str,
    ) -> Result<Vec<f32>, ImagingError> {
        let mut values = Vec::new();
        let mut buffer = vec![0u8; CHUNK_BYTES];
        while values.len() < count {
            let wanted = (count - values.len()).min(CHUNK_BYTES / self.bytes());
            let chunk = &mut buffer[..wanted * self.bytes()];
            from.read_exact(chunk).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => ImagingError::Format {
                    format,
                    problem: format!(
                        "it ends before voxel {} of {count}; it was cut off, copy it again",
                        values.len() + wanted
                    ),
                },
                ErrorKind::InvalidInput | ErrorKind::InvalidData => ImagingError::Format {
                    format,
                    problem: "its compressed data are damaged; copy it again".to_owned(),
                },
                _ => ImagingError::Io(error),
            })?;
            self.convert(chunk, endian, &mut values);
        }
        Ok(values)
    }

    /// Appends the numbers in `bytes` to `values`.
    fn convert(self, bytes: &mut [u8], endian: Endian, values: &mut Vec<f32>) {
        if endian == Endian::Big {
            bytes.chunks_exact_mut(self.bytes()).for_each(<[u8]>::reverse);
        }
        macro_rules! as_f32 {
            ($number:ty) => {
                values
                    .extend(bytes.as_chunks().0.iter().map(|&b| <$number>::from_le_bytes(b) as f32))
            };
        }
        match self {
            Self::I8 => as_f32!(i8),
            Self::U8 => as_f32!(u8),
            Self::I16 => as_f32!(i16),
            Self::U16 => as_f32!(u16),
            Self::I32 => as_f32!(i32),
            Self::U32 => as_f32!(u32),
            Self::I64 => as_f32!(i64),
            Self::U64 => as_f32!(u64),
            Self::F32 => as_f32!(f32),
            Self::F64 => as_f32!(f64),
        }
    }
}
