//! The daemon on every server: probes, runner, workers and the DICOM receiver.
