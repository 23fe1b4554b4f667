//! Samples of integers, ring buffers and their resampling.
