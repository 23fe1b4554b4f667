//! Every limit of the library, in one place, with the sum that led to it.

use std::time::Duration;

/// The largest object: a whole-body CT volume, uncompressed, with room to spare.
pub(crate) const OBJECT_BYTES_MAX: usize = 8 << 30;
/// The largest record. One with an embedding of 4096 numbers has 100 KiB; listing a folder of
/// records that are larger than this would no longer be quick.
pub(crate) const RECORD_BYTES_MAX: usize = 4 << 20;
/// Files that are written and synced at once. A disk and a network storage answer several syncs in
/// the time of one, and no more than some.
pub(crate) const SYNCS_MAX: usize = 8;
/// Changes of stage that one model may see, and of state that one sample may.
pub(crate) const STAGES_MAX: u32 = 1000;
/// Characters of a reason and of the name of who gives it: some lines.
pub(crate) const REASON_CHARACTERS_MAX: usize = 500;
/// Characters in the name of a run.
pub(crate) const RUN_NAME_MAX: usize = 64;
/// A temporary file that is older was left by a process that is gone: the largest object is
/// written within it at 3 MB/s.
pub(crate) const TEMPORARY_AGE_MAX: Duration = Duration::from_hours(1);
