//! The audit log: who did what to which, and how it was answered.
//!
//! Everything that changes something has a line, and everything that was refused for want of a right;
//! questions that were answered have none. A line is on the disk before its request is answered; where
//! it cannot be written, nothing more is changed until it can. Lines hold words of ours, ids and the
//! names of users and nodes: no name of a job, no command, no reason and no path, since those may hold
//! a patient's.
//!
//! It is files of text beside the journal, not a table in it: they can be read, checked and copied
//! away while the scheduler runs, and by other programs. [`chain`] says what a line is and how each
//! vouches for all before it, [`files`] how files follow each other. One thread writes.

mod chain;
mod files;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gantry_model::{At, Reject, RejectKind};
use gantry_wire::{AuditPage, AuditQuery, AuditReport};
use tokio::sync::{mpsc, oneshot};

pub(crate) use chain::{Entry, hexadecimal};
pub(crate) use files::HEAD;
use files::{Head, Limits, Log};

use crate::error::SchedulerError;

/// Lines that wait; beyond that a caller waits.
const WAITING_MAX: usize = 4096;
/// Lines that one sync covers.
const BATCH_MAX: usize = 512;

/// Reads the audit log of a scheduler's folder and says whether it is as it was written; also a copy of
/// it, and also while the scheduler runs.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub fn verify(folder: &Path) -> Result<AuditReport, SchedulerError> {
    files::verify(folder, None, Limits::default())
        .map_err(|error| SchedulerError::file("reading the audit log in", folder, &error))
}

/// Writes a line into the log of a scheduler that does not run; says what is wrong with the log that
/// was there.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn write_down(folder: &Path, entry: Entry) -> Result<Option<String>, SchedulerError> {
    let fail = |error| SchedulerError::file("writing the audit log in", folder, &error);
    let (mut log, wrong) = Log::open(folder, Limits::default()).map_err(fail)?;
    log.append(vec![entry]).map_err(fail)?;
    Ok(wrong)
}

/// What the thread is asked.
enum Wanted {
    /// A line, and who waits until it is on the disk.
    Line(Box<Entry>, oneshot::Sender<()>),
    /// Whether lines can be written.
    Ready(oneshot::Sender<Result<(), Reject>>),
}

/// The way to the audit log. Clones share it.
#[derive(Clone)]
pub(crate) struct Audit {
    wanted: mpsc::Sender<Wanted>,
    head: Arc<Mutex<Head>>,
    folder: PathBuf,
}

impl Audit {
    /// Opens the log of a scheduler's folder, or makes it, and starts the thread. Gives what was wrong
    /// with the one that was there, too.
    pub(crate) fn start(folder: &Path) -> Result<(Self, Option<String>), SchedulerError> {
        let fail = |error| SchedulerError::file("opening the audit log in", folder, &error);
        let (log, wrong) = Log::open(folder, Limits::default()).map_err(fail)?;
        let head = Arc::new(Mutex::new(log.head().clone()));
        let (wanted, receiver) = mpsc::channel(WAITING_MAX);
        let known = head.clone();
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write(log, receiver, &known))
            .map_err(fail)?;
        Ok((Self { wanted, head, folder: folder.to_owned() }, wrong))
    }

    /// Writes a line; returns once it is on the disk, or known that it cannot be.
    pub(crate) async fn record(&self, entry: Entry) {
        let (done, written) = oneshot::channel();
        if self.wanted.send(Wanted::Line(Box::new(entry), done)).await.is_ok() {
            // What could not be written waits, and keeps everybody from changing more.
            let _ = written.await;
        }
    }

    /// Whether lines can be written, so that something may be changed.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) async fn ready(&self) -> Result<(), Reject> {
        let (done, answer) = oneshot::channel();
        let ending =
            || Reject::new(RejectKind::Busy, "the scheduler is ending; ask again once it is back");
        self.wanted.send(Wanted::Ready(done)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    /// One page of lines.
    pub(crate) async fn page(&self, query: AuditQuery) -> Result<AuditPage, Reject> {
        let folder = self.folder.clone();
        self.read(move || files::page(&folder, &query)).await
    }

    /// Whether the log is as it was written, up to what is its end now.
    pub(crate) async fn verify(&self) -> Result<AuditReport, Reject> {
        let folder = self.folder.clone();
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.read(move || files::verify(&folder, Some(head), Limits::default())).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Reject> {
        let fail = |why: String| {
            Reject::new(RejectKind::Busy, format!("the audit log cannot be read: {why}"))
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| fail(error.to_string()))?.map_err(|error| fail(error.to_string()))
    }
}

/// The thread: takes what is waiting, writes and syncs it once, and says so.
fn write(mut log: Log, mut wanted: mpsc::Receiver<Wanted>, head: &Mutex<Head>) {
    while let Some(first) = wanted.blocking_recv() {
        let (mut entries, mut waiting, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(one) = next.take() {
            match one {
                Wanted::Line(entry, done) => {
                    entries.push(*entry);
                    waiting.push(done);
                }
                Wanted::Ready(done) => asked.push(done),
            }
            if entries.len() < BATCH_MAX {
                next = wanted.try_recv().ok();
            }
        }
        let ready = log.append(entries);
        if let Err(error) = &ready {
            tracing::error!("the audit log cannot be written: {error}");
        }
        *head.lock().unwrap_or_else(PoisonError::into_inner) = log.head().clone();
        // Whoever asked may have left.
        for done in waiting {
            let _ = done.send(());
        }
        for done in asked {
            let _ = done.send(ready.as_ref().map_err(unwritable).copied());
        }
    }
}

fn unwritable(error: &std::io::Error) -> Reject {
    let sentence = if error.kind() == std::io::ErrorKind::StorageFull {
        "the audit log's disk is full; free some space, nothing is changed before its line can be written".to_owned()
    } else {
        format!(
            "the audit log cannot be written ({error}); nothing is changed before it can, see its folder"
        )
    };
    Reject::new(RejectKind::Busy, sentence)
}

impl Entry {
    /// A line about something that was done now.
    pub(crate) fn new(at: At, what: &'static str) -> Self {
        Self { at, what: what.into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
