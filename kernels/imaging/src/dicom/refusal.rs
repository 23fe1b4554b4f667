//! Why a file or a series is refused: a word for machines, a sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The reasons. Their words are stable: they stand in quarantine records and in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is no DICOM at all.
    NotDicom,
    /// It ends before its last element, or its pixels are fewer than its header says.
    Truncated,
    /// Its elements cannot be read.
    Malformed,
    /// It is larger than is read.
    TooLarge,
    /// It is the directory of a medium, not an object of its own.
    DirectoryRecord,
    /// Its transfer syntax is not known.
    UnknownTransferSyntax,
    /// It has no SOP Instance UID.
    NoSopInstanceUid,
    /// It has no Series Instance UID.
    NoSeriesUid,
    /// It has no pixels.
    NoPixels,
    /// Its pixels are encoded in a way that cannot be decoded here.
    UnsupportedPixels,
    /// Its position, orientation or pixel spacing is missing or makes no volume.
    NoGeometry,
    /// Slices are missing, or their distances differ.
    IrregularSpacing,
    /// Its images differ in size or orientation.
    MixedImages,
    /// Its pixels may have a patient's name within them, so no machine can de-identify it.
    BurnedIn,
    /// It is a report or a document, so no machine can de-identify it.
    Document,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDicom => "not-dicom",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::DirectoryRecord => "directory-record",
            Self::UnknownTransferSyntax => "unknown-transfer-syntax",
            Self::NoSopInstanceUid => "no-sop-instance-uid",
            Self::NoSeriesUid => "no-series-uid",
            Self::NoPixels => "no-pixels",
            Self::UnsupportedPixels => "unsupported-pixels",
            Self::NoGeometry => "no-geometry",
            Self::IrregularSpacing => "irregular-spacing",
            Self::MixedImages => "mixed-images",
            Self::BurnedIn => "burned-in",
            Self::Document => "document",
        })
    }
}

/// A refused file or series. The sentence holds no patient data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// One sentence.
    pub sentence: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, sentence: impl Into<String>) -> Self {
        Self { reason, sentence: sentence.into() }
    }
}
