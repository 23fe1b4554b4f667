//! Every limit of the library, in one place, with the sum that led to it.

use std::time::Duration;

/// The largest object: a whole-body CT volume, uncompressed, with room to spare.
pub(crate) const OBJECT_BYTES_MAX: usize = 8 << 30;
/// The largest object of a bucket: what S3 takes in one piece.
pub(crate) const BUCKET_OBJECT_BYTES_MAX: u64 = 5 << 30;
/// Bytes of a bucket's object that are asked for at once: a piece of this size ends in time over any
/// network that images are worth sending over, and its round trip is nothing beside it.
pub(crate) const BUCKET_PIECE_BYTES: u64 = 32 << 20;
/// How long a storage over a network may be silent, and how long its troubles are waited out: a scanner
/// waits for a minute before it gives an association up.
pub(crate) const BUCKET_ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Objects that are put into a bucket at once, each over a connection of its own: a batch of a receiver
/// then takes a few round trips.
pub(crate) const PUTS_MAX: usize = 16;
/// Records that are read from a bucket, or made in it, at once. They are small: what they wait for is the
/// way to the storage and back.
pub(crate) const GETS_MAX: usize = 16;
/// Bytes of a bucket's records that are kept once they were read: a hundred thousand of a common size.
pub(crate) const RECORDS_BYTES_MAX: usize = 64 << 20;
/// The slowest storage: a piece that takes longer, beside the silence that is allowed, is given up.
pub(crate) const BUCKET_BYTES_PER_S_MIN: u64 = 1 << 20;
/// Bytes of a page of names: 1000 of them, with all that is said of each.
pub(crate) const BUCKET_PAGE_BYTES_MAX: u64 = 8 << 20;
/// Bytes that are read of a file of keys: thousands of profiles.
pub(crate) const KEYS_BYTES_MAX: u64 = 1 << 20;
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
/// Bytes of what a person has written of a series: a long report has some ten thousand.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 20;
/// Characters in the name of a run.
pub(crate) const RUN_NAME_MAX: usize = 64;
/// A temporary file that is older was left by a process that is gone: the largest object is
/// written within it at 3 MB/s.
pub(crate) const TEMPORARY_AGE_MAX: Duration = Duration::from_hours(1);
/// What no record names is left alone for so long at least: its writer may be about to name it. The
/// largest object is written within it, and a task that hangs over its next request is not yet given up.
pub(crate) const LEFTOVER_AGE_MIN: Duration = Duration::from_hours(1);
/// An object that is there and older than this is made young again before a record names it: half of the
/// least age at which a sweep takes it for left over, so that its writer has the other half to name it.
pub(crate) const REFRESH_AGE: Duration = Duration::from_mins(30);
/// Whoever has the claim to an old object acts within this time, which is long for two requests, or not
/// at all.
pub(crate) const CLAIM_ACTS_WITHIN: Duration = Duration::from_secs(10);
/// A claim that is older was left by a process that is gone: longer than its holder takes to begin, with
/// a storage's silence, all tries and the last request's own time behind it.
pub(crate) const CLAIM_AGE_MAX: Duration = Duration::from_mins(2);
/// Objects of which parts are read whose files stay open: a quarter of the files that a process usually may
/// have. Others are opened for each read.
pub(crate) const OPEN_MAX: usize = 256;
/// Bytes that a writer of an object in pieces keeps before it passes them on.
pub(crate) const WRITE_BYTES: usize = 1 << 20;
/// Predictions that are worth a file of the index: fewer are read again in some milliseconds.
pub(crate) const SEGMENT_ROWS_MIN: usize = 100;
/// Predictions that are read before what is known of them becomes a file: none of that work is lost where it
/// is broken off.
pub(crate) const INDEXED_AT_ONCE: usize = 4096;
/// The largest file of an index: ten million predictions with embeddings of 256 numbers.
pub(crate) const INDEX_BYTES_MAX: u64 = 16 << 30;
