//! DICOM files and series.
