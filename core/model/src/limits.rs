//! The limits of what a user may send, in one place.
//!
//! A submit travels in one frame of at most 64 KiB and is one record of the journal: 32 KiB of
//! command or settings and 16 KiB of environment leave room for names, lengths and the rest.

/// Elements of one array.
pub const ARRAY_ELEMENTS_MAX: u32 = 1_000_000;
/// Arguments of a command.
pub const ARGUMENTS_MAX: usize = 256;
/// Entries of a job's environment.
pub const ENVIRONMENT_MAX: usize = 256;
/// Bytes of a job's environment.
pub const ENVIRONMENT_BYTES_MAX: usize = 16 * 1024;
/// Characters of the key of a submit.
pub const KEY_CHARACTERS_MAX: usize = 128;
/// Bytes of all arguments and the folder of one job together.
pub const COMMAND_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the pattern of an output file's path.
pub const OUTPUT_BYTES_MAX: usize = 1024;
/// Dependencies of one job.
pub const DEPENDENCIES_MAX: usize = 64;
/// Characters of a job's, a node's or a user's name.
pub const NAME_CHARACTERS_MAX: usize = 64;
/// Bytes of the settings of one built-in operation (a pipeline file, training settings).
pub const BUILTIN_BYTES_MAX: usize = 32 * 1024;
/// Retries a job may ask for.
pub const RETRIES_MAX: u8 = 100;
/// Bytes of a node's address: the longest name of the domain name system.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Characters of what a node says keeps its tasks apart.
pub const ISOLATION_CHARACTERS_MAX: usize = 200;
/// Labels of one node, and labels one job may ask for.
pub const LABELS_MAX: usize = 64;
/// Licences one job may ask for.
pub const LICENCES_MAX: usize = 16;
/// Ranks of one gang: 512 nodes of 8 GPUs.
pub const RANKS_MAX: u32 = 4096;
/// Exit codes for which a job may ask to be started again.
pub const RETRY_CODES_MAX: usize = 32;
/// Changes of some elements only that are kept of one job.
pub const EXCEPTIONS_MAX: usize = 64;
/// Maintenance windows of one node.
pub const WINDOWS_MAX: usize = 16;
/// Characters of a reason that a person gives.
pub const REASON_CHARACTERS_MAX: usize = 200;
/// GPUs of one node.
pub const GPUS_MAX: usize = 64;
/// Points kept of one metric of one job, on the scheduler and on a console.
pub const METRIC_POINTS_MAX: usize = 2000;
/// Different metrics kept of one job.
pub const METRICS_MAX: usize = 32;
/// Jobs in one answer; a longer list is asked for in pages.
pub const JOBS_PAGE_MAX: usize = 200;
