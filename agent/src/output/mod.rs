//! The output of tasks.
//!
//! While a task runs its output is one file, `JOB/INDEX.out`, to which a further start appends. When
//! it ends and is small the file goes into the job's pack ([`pack`]), so that 100,000 small tasks
//! leave two files. Whoever reads sees neither: the output of a task is what its starts have
//! printed, one after the other, by offset.
//!
//! A job that names its output files has links to them instead, which are never packed.
//!
//! Reading happens beside the agent's loop. A lock keeps it from looking between the moment an
//! output is in the pack and the moment its file is gone.

mod age;
mod named;
mod pack;
mod search;
mod tail;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_config::RunAs;
use gantry_model::{JobId, Reject, RejectKind, TaskId, TryId};
use gantry_wire::Output;

use pack::{Pack, Packer, Segment};
pub(crate) use tail::{Said, Tail};

/// Bytes of the last piece, which a screen asks for each second.
const LAST_BYTES: u64 = 8 * 1024;
/// Bytes of the output of one task, over all its starts. One that writes more is ended: a loop that
/// prints fills a disk that others need.
pub(crate) const OUTPUT_BYTES_MAX: u64 = 4 << 30;
/// Bytes of an output that goes into a pack.
const PACKED_BYTES_MAX: u64 = 1 << 20;
/// Packs that are held open: more jobs than that rarely end tasks at once on one node.
const PACKERS_MAX: usize = 64;

/// Whether an end is heard for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// It just happened.
    First,
    /// An earlier agent may have heard it already.
    Again,
}

/// The outputs of an agent. Clones see the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    folder: PathBuf,
    packers: Arc<Mutex<BTreeMap<JobId, (Packer, Synced)>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Synced {
    Yes,
    NotYet,
}

/// What the output of a task consists of, held open.
struct Parts {
    pack: Option<Pack>,
    segments: Vec<Segment>,
    file: Option<(File, u64)>,
}

impl Outputs {
    /// The outputs in a folder.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, packers: Arc::default() }
    }

    fn job(&self, job: JobId) -> PathBuf {
        self.folder.join(job.to_string())
    }

    /// The file that a task writes to.
    pub(crate) fn path(&self, task: TaskId) -> PathBuf {
        self.job(task.job).join(format!("{}.out", task.index))
    }

    /// Sends the output of a task to a file of its job's choice, by a link where it would be. Such
    /// an output stays the file it is.
    pub(crate) fn send_to(&self, task: TaskId, file: &Path, run_as: RunAs) -> io::Result<()> {
        fs::create_dir_all(self.job(task.job))?;
        named::link(&self.path(task), file, run_as)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, (Packer, Synced)>> {
        self.packers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task has ended with an output file of this length, if any, and these last lines that are
    /// in no file: a small output goes into the pack, an empty one goes. An output that cannot be
    /// packed stays the file it is.
    pub(crate) fn finish(
        &self,
        task: TaskId,
        try_id: TryId,
        hearing: Hearing,
        (length, last): (Option<u64>, &str),
    ) -> io::Result<()> {
        let path = self.path(task);
        if fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_symlink()) {
            return if last.is_empty() {
                Ok(())
            } else {
                named::append(&path)?.write_all(last.as_bytes())
            };
        }
        match length {
            Some(0) if last.is_empty() => return fs::remove_file(&path),
            None if last.is_empty() => return Ok(()),
            Some(length) if length > PACKED_BYTES_MAX => {
                return append_to(&path)?.write_all(last.as_bytes());
            }
            _ => {}
        }
        let mut bytes = Vec::with_capacity(length.unwrap_or(0) as usize + last.len());
        if length.is_some() {
            File::open(&path)?.take(PACKED_BYTES_MAX).read_to_end(&mut bytes)?;
        }
        bytes.extend_from_slice(last.as_bytes());
        let packed = hearing == Hearing::Again && self.is_packed(task, try_id)?;
        // Held until the file is gone, so that nobody reads both.
        let mut packers = self.lock();
        if !packed {
            let packer = self.packer(&mut packers, task.job)?;
            packer.append(task.index, try_id, &bytes);
            if length.is_some() {
                packer.write()?;
            }
        }
        if length.is_some() { fs::remove_file(&path) } else { Ok(()) }
    }

    /// Writes to the packs what was in no file. Until then nobody has been told of those ends, so
    /// nobody looks for it.
    pub(crate) fn write(&self) -> io::Result<()> {
        let mut packers = self.lock();
        packers.values_mut().map(|(packer, _)| packer.write()).fold(Ok(()), Result::and)
    }

    fn is_packed(&self, task: TaskId, try_id: TryId) -> io::Result<bool> {
        let Some(mut pack) = Pack::open(&self.job(task.job))? else { return Ok(false) };
        let wanted = |one: &Segment| (one.index, one.try_id) == (task.index, try_id);
        Ok(!pack.index(wanted)?.segments.is_empty())
    }

    fn packer<'a>(
        &self,
        packers: &'a mut BTreeMap<JobId, (Packer, Synced)>,
        job: JobId,
    ) -> io::Result<&'a mut Packer> {
        if !packers.contains_key(&job) {
            if packers.len() >= PACKERS_MAX
                && let Some((_, (mut oldest, _))) = packers.pop_first()
            {
                oldest.write()?;
            }
            let folder = self.job(job);
            // There is none where no task has written to a file of its own.
            fs::create_dir_all(&folder)?;
            packers.insert(job, (Packer::open(&folder)?, Synced::Yes));
        }
        let (packer, synced) =
            packers.get_mut(&job).ok_or_else(|| io::Error::other("a pack was closed"))?;
        *synced = Synced::NotYet;
        Ok(packer)
    }

    /// Syncs what was packed since the last time.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for (packer, synced) in self.lock().values_mut() {
            if *synced == Synced::NotYet {
                *synced = Synced::Yes;
                files.extend(packer.files()?);
            }
        }
        files.iter().try_for_each(File::sync_data)
    }

    /// Whether anything was packed since the last sync.
    pub(crate) fn is_synced(&self) -> bool {
        self.lock().values().all(|(_, synced)| *synced == Synced::Yes)
    }

    /// A piece of a task's output from an offset on; the last one for `u64::MAX`.
    pub(crate) fn piece(&self, task: TaskId, offset: u64, live: bool) -> Result<Output, Reject> {
        let output = self.read(task, offset, live).map_err(|error| {
            Reject::new(
                RejectKind::Busy,
                format!("reading the output of {task} failed on its node: {error}"),
            )
        })?;
        if output.next == 0 && !live && self.may_be_removed(task.job) {
            return Err(Reject::new(
                RejectKind::NotFound,
                format!(
                    "the output of {task} is no longer on its node, if there was any: outputs as old as \
                     this are removed there (output_age in the agent's settings)"
                ),
            ));
        }
        Ok(output)
    }

    fn read(&self, task: TaskId, offset: u64, live: bool) -> io::Result<Output> {
        let mut parts = self.parts(task)?;
        let length = parts.length();
        let (start, count) = if offset == u64::MAX {
            (length.saturating_sub(LAST_BYTES), LAST_BYTES)
        } else {
            (offset.min(length), Output::PIECE_BYTES)
        };
        let bytes = parts.read(start, count)?;
        Ok(Output { next: start + bytes.len() as u64, bytes, live })
    }

    /// Opens all of a task's output.
    fn parts(&self, task: TaskId) -> io::Result<Parts> {
        let (mut pack, file) = {
            let _packing = self.lock();
            (Pack::open(&self.job(task.job))?, open(&self.path(task))?)
        };
        let index = match &mut pack {
            Some(pack) => pack.index(|segment| segment.index == task.index)?,
            None => pack::Index::default(),
        };
        if index.damaged > 0 && index.segments.is_empty() && file.is_none() {
            return Err(io::Error::other(format!(
                "{} records of its job's index are damaged; its output may be among those",
                index.damaged
            )));
        }
        Ok(Parts { pack, segments: index.segments, file })
    }
}

/// Opens an output file to append to it; the folder above is made where it is missing, which is
/// once per job. A pipe that nobody reads is an error: nothing here may wait for somebody.
pub(crate) fn append_to(path: &Path) -> io::Result<File> {
    let open = || {
        let mut options = File::options();
        options.create(true).append(true).custom_flags(named::AT_ONCE).open(path)
    };
    let file = match (open(), path.parent()) {
        (Err(error), Some(above)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(above)?;
            open()
        }
        (result, _) => result,
    }?;
    if !file.metadata()?.is_file() {
        // Whoever writes to it waits as ever.
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK)?;
    }
    Ok(file)
}

/// The length of a file, if it is there.
pub(crate) fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|facts| facts.len())
}

/// A file with its present length, if it is there.
fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match named::open(path) {
        Ok(file) => {
            let length = file.metadata()?.len();
            Ok(Some((file, length)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Parts {
    fn length(&self) -> u64 {
        let packed: u64 = self.segments.iter().map(|segment| u64::from(segment.length)).sum();
        packed + self.file.as_ref().map_or(0, |(_, length)| *length)
    }

    /// Up to `count` bytes from `start` on.
    fn read(&mut self, start: u64, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut begin = 0;
        for segment in &self.segments {
            let end = begin + u64::from(segment.length);
            let missing = (count - bytes.len() as u64) as usize;
            if let Some(pack) = self.pack.as_mut().filter(|_| end > start && missing > 0) {
                let skipped = start.saturating_sub(begin) as usize;
                bytes.extend(pack.read(segment).into_iter().skip(skipped).take(missing));
            }
            begin = end;
        }
        if let Some((file, _)) = &mut self.file {
            file.seek(SeekFrom::Start(start.saturating_sub(begin)))?;
            file.take(count - bytes.len() as u64).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "../output_tests.rs"]
mod tests;
