//! Processes that have left their try's process group.
//!
//! A process that makes a session of its own, as daemons do, gets no signal of its group. Whatever
//! loses its parent becomes a child of the supervisor, which has asked the kernel for that, so that
//! none gets away. It is told by its variable `GANTRY_TRY` whose it is: it is ended once that try
//! has ended. One that does not say is ended once no try is left.
//!
//! Commands are started by other threads than the first, which makes the first thread's children
//! exactly the adopted ones but for tries with scripts: finding that there are none is one reading.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use gantry_model::TryId;
use rustix::process::{Pid, getpid, set_child_subreaper};

use crate::environ;

/// Children that are looked at in one round: those behind them follow once these have ended.
const BYTES_MAX: usize = 64 * 1024;

/// The list of the first thread's children.
#[derive(Debug)]
pub(super) struct Strays(File);

impl Strays {
    /// Adopts whatever loses its parent from now on. Without this, and on kernels that do not list
    /// children, those that have left their group stay alive.
    pub(super) fn adopt() -> io::Result<Self> {
        let own = getpid();
        set_child_subreaper(Some(own))?;
        File::open(format!("/proc/self/task/{}/children", own.as_raw_nonzero())).map(Self)
    }

    /// The present children of the first thread.
    pub(super) fn children(&self) -> Vec<Pid> {
        let mut text = [0; 1024];
        let mut all = Vec::new();
        while all.len() < BYTES_MAX {
            match self.0.read_at(&mut text, all.len() as u64) {
                Ok(length) if length > 0 => all.extend_from_slice(&text[..length]),
                _ => break,
            }
        }
        let text = String::from_utf8_lossy(&all);
        text.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
    }
}

/// The try that a process says it is of.
pub(super) fn try_of(process: Pid) -> Option<TryId> {
    let environment = environ::read(process)?;
    let value = environ::variable(&environment, "GANTRY_TRY")?;
    let number = std::str::from_utf8(value).ok()?.strip_prefix('t')?;
    number.parse().ok().map(TryId)
}
