//! Volumes, masks and the operations on them; DICOM, NIfTI and NRRD; pipelines.
