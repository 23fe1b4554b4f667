//! The output of tasks.
//!
//! While a task runs its output is one file, `JOB/INDEX.out`, to which a further start appends. When
//! it ends and is small the file goes into the job's pack ([`pack`]), so that 100,000 small tasks
//! leave two files. Whoever reads sees neither: the output of a task is what its starts have
//! printed, one after the other, by offset.
//!
//! Reading happens beside the agent's loop. A lock keeps it from looking between the moment an
//! output is in the pack and the moment its file is gone.

mod pack;
mod search;
mod tail;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_model::{JobId, Reject, RejectKind, TaskId, TryId};
use gantry_wire::Output;

use pack::{Pack, Packer, Segment};
pub(crate) use tail::{Said, Tail};

/// Bytes of one piece: with its frame it stays below 64 KiB.
const PIECE_BYTES: u64 = 32 * 1024;
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

    /// Makes the folder of a task's output, and the file.
    pub(crate) fn create(&self, task: TaskId) -> io::Result<()> {
        let path = self.path(task);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        File::options().create(true).append(true).open(path).map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, (Packer, Synced)>> {
        self.packers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task has ended: a small output goes into the pack, an empty one goes. An output that
    /// cannot be packed stays the file it is.
    pub(crate) fn finish(&self, task: TaskId, try_id: TryId, hearing: Hearing) -> io::Result<()> {
        let path = self.path(task);
        let length = match fs::metadata(&path) {
            Ok(facts) => facts.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if length > PACKED_BYTES_MAX {
            return Ok(());
        }
        if length == 0 {
            return fs::remove_file(&path);
        }
        let mut bytes = Vec::with_capacity(length as usize);
        File::open(&path)?.take(PACKED_BYTES_MAX).read_to_end(&mut bytes)?;
        let packed = hearing == Hearing::Again && self.is_packed(task, try_id)?;
        let mut packers = self.lock();
        if !packed {
            self.packer(&mut packers, task.job)?.append(task.index, try_id, &bytes)?;
        }
        fs::remove_file(&path)
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
            if packers.len() >= PACKERS_MAX {
                packers.pop_first();
            }
            packers.insert(job, (Packer::open(&self.job(job))?, Synced::Yes));
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
        self.read(task, offset, live).map_err(|error| {
            Reject::new(
                RejectKind::Busy,
                format!("reading the output of {task} failed on its node: {error}"),
            )
        })
    }

    fn read(&self, task: TaskId, offset: u64, live: bool) -> io::Result<Output> {
        let mut parts = self.parts(task)?;
        let length = parts.length();
        let (start, count) = if offset == u64::MAX {
            (length.saturating_sub(LAST_BYTES), LAST_BYTES)
        } else {
            (offset.min(length), PIECE_BYTES)
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

/// A file with its present length, if it is there.
fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
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
