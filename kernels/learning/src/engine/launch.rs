//! Starting `PyTorch`: the program that gantry brings, once for each GPU of the task.
//!
//! The program is written into a folder of this task alone, beside the socket on which its processes
//! are heard. One process is started as it is; several are started by `PyTorch`'s own launcher
//! (`torch.distributed.run`, which is what `torchrun` calls), which tells each which rank it is.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;

use super::link::Link;
use super::surroundings::Surroundings;
use crate::error::LearningError;

/// The program.
const FILES: [(&str, &str); 2] = [
    ("engine.py", include_str!("../../torch/engine.py")),
    ("network.py", include_str!("../../torch/network.py")),
];
/// The kernel takes 107 bytes of a socket's path.
const FOLDER_BYTES_MAX: usize = 80;
/// How long `PyTorch` may take to start: it is read from a storage that many may share.
const START_TIMEOUT: Duration = Duration::from_mins(5);
/// Between two looks whether its processes are there.
const LOOK_EACH: Duration = Duration::from_millis(5);

/// Processes of `PyTorch`. They end with this value.
pub(super) struct Processes {
    child: Child,
    /// Held until they have ended.
    _folder: TempDir,
}

/// What a process says first.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Hello {
    /// Its place among those of this task.
    place: usize,
    pub(super) torch: String,
    pub(super) device: String,
    pub(super) bf16: bool,
}

/// Whether a Python has `PyTorch`, or why not.
pub(super) fn find(python: &str) -> Result<(), String> {
    // A folder of that name where the task runs is no package.
    let look = "import importlib.util, sys; sys.path = [place for place in sys.path if place]; \
                found = importlib.util.find_spec('torch'); sys.exit(not (found and found.origin))";
    let mut command = Command::new(python);
    command.args(["-c", look]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("{python} has no package torch")),
        Err(error) => Err(format!("{python} cannot be run: {error}")),
    }
}

/// Starts the processes of a task and waits until each has said what it is.
pub(super) fn start(
    around: &Surroundings,
) -> Result<(Processes, Vec<(Hello, Link)>), LearningError> {
    let fail = |what: &str, error: &io::Error| LearningError::Engine(format!("{what}: {error}"));
    let folder = folder().map_err(|error| fail("no folder for PyTorch can be made", &error))?;
    for (name, text) in FILES {
        fs::write(folder.path().join(name), text)
            .map_err(|error| fail("PyTorch's program cannot be written", &error))?;
    }
    let socket = folder.path().join("socket");
    let listener =
        UnixListener::bind(&socket).map_err(|error| fail("PyTorch cannot be heard", &error))?;
    let child = command(around, folder.path(), &socket)
        .spawn()
        .map_err(|error| fail("PyTorch cannot be started", &error))?;
    let mut processes = Processes { child, _folder: folder };
    let mut all = Vec::new();
    while all.len() < around.processes() {
        let stream = accept(&listener, &mut processes.child)?;
        let mut link = Link::new(stream);
        let (hello, _) = link.receive()?;
        let hello: Hello = serde_json::from_value(hello)
            .map_err(|error| LearningError::Engine(format!("PyTorch greets strangely: {error}")))?;
        all.push((hello, link));
    }
    all.sort_by_key(|(hello, _)| hello.place);
    Ok((processes, all))
}

fn folder() -> io::Result<TempDir> {
    let usual = std::env::temp_dir();
    let short = usual.as_os_str().len() <= FOLDER_BYTES_MAX;
    let place = if short { usual } else { PathBuf::from("/tmp") };
    tempfile::Builder::new().prefix("gantry-torch-").tempdir_in(place)
}

fn command(around: &Surroundings, folder: &Path, socket: &Path) -> Command {
    let mut command = Command::new(&around.python);
    let here = around.processes();
    if here > 1 {
        command.args(["-m", "torch.distributed.run", "--max-restarts", "0"]);
        command.arg(format!("--nproc-per-node={here}"));
        match &around.rank {
            Some(rank) => {
                command.arg(format!("--nnodes={}", rank.of));
                command.arg(format!("--node-rank={}", rank.number));
                command.arg(format!("--master-addr={}", rank.address));
                command.arg(format!("--master-port={}", rank.port));
            }
            None => {
                command.arg("--standalone");
            }
        }
    } else {
        // Its lease has one GPU, whichever rank of its node it is.
        command.env("GANTRY_DEVICE", "0");
        if let Some(rank) = &around.rank {
            command.env("RANK", rank.number.to_string());
            command.env("WORLD_SIZE", rank.of.to_string());
            command.env("MASTER_ADDR", &rank.address);
            command.env("MASTER_PORT", rank.port.to_string());
        }
    }
    command.arg(folder.join("engine.py")).arg(socket);
    if let Some(threads) = around.threads {
        let threads = threads.to_string();
        command.env("GANTRY_THREADS", &threads).env("OMP_NUM_THREADS", &threads);
    }
    command
        // The same sums in the same order each time (cuBLAS, "Results reproducibility").
        .env("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}

/// The next process; an error where one has ended instead, or nothing comes.
fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream, LearningError> {
    let fail =
        |error: io::Error| LearningError::Engine(format!("PyTorch cannot be heard: {error}"));
    listener.set_nonblocking(true).map_err(fail)?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(fail)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(fail(error)),
        }
        if let Some(status) = child.try_wait().map_err(fail)? {
            return Err(LearningError::Engine(format!(
                "PyTorch ended while it was started ({status}); the lines before say why"
            )));
        }
        if start.elapsed() > START_TIMEOUT {
            return Err(LearningError::Engine(format!(
                "PyTorch did not start within {} minutes",
                START_TIMEOUT.as_secs() / 60
            )));
        }
        std::thread::sleep(LOOK_EACH);
    }
}

impl Drop for Processes {
    /// They end once their sockets are closed; what does not is killed.
    fn drop(&mut self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            // An error means that nothing is left to wait for.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_EACH);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
