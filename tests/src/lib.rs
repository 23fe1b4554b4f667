//! End-to-end tests with real processes, real QUIC, real DICOM and a real pseudo-terminal.
