//! The agent's side of its supervisor: finds it or starts it, and speaks to it.
//!
//! Messages to it are gathered and sent together. The agent's loop never waits for a supervisor
//! that is busy starting commands: what its socket does not take is written by a thread, and
//! another thread reads and hands on. A supervisor that dies is an event,
//! [`Input::SupervisorGone`], and another is started with the next command.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc as queue};
use std::thread::JoinHandle;
use std::time::Duration;

use gantry_config::Orphans;
use gantry_model::{At, TryId};
use rustix::net::{SendFlags, send};
use tokio::sync::mpsc;

use super::SOCKET;
use super::isolation::Isolation;
use super::protocol::{
    FromSupervisor, Held, Hello, Start, ToSupervisor, VERSION, WELCOMED_SINCE, Welcome, Welcomed,
    common,
};
use crate::error::AgentError;
use crate::pipe;
use crate::runner::{Places, sweep};
use crate::shell::Input;

/// How long a supervisor may take to answer: it may be writing ends to a slow disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How an agent's supervisors are made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The command line.
    pub(crate) program: Vec<String>,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The agent's folder, and the scheduler that is told when the agent is gone.
    pub(crate) home: PathBuf,
    pub(crate) scheduler: SocketAddr,
    /// What becomes of commands when the agent ends.
    pub(crate) orphans: Orphans,
    /// How commands are kept apart.
    pub(crate) isolation: Isolation,
    /// Where tasks live, to find what a dead supervisor has left.
    pub(crate) places: Places,
}

/// A supervisor that is there.
pub(crate) struct Supervisor {
    /// What it and this agent speak.
    version: u16,
    /// Messages that are not sent yet.
    unsent: Vec<u8>,
    late: queue::Sender<Vec<u8>>,
    /// How many pieces the writing thread still has; what comes later goes behind them.
    late_pieces: Arc<AtomicUsize>,
    stream: UnixStream,
    reader: Option<JoinHandle<()>>,
    /// Where this agent has started it.
    child: Option<Child>,
    orphans: Orphans,
}

/// A connection on which the supervisor has said everything it holds.
struct Greeted {
    version: u16,
    stream: UnixStream,
    input: BufReader<UnixStream>,
    held: Vec<Held>,
}

impl Supervisor {
    /// Connects to the supervisor of the folder, or starts one. Gives what it holds.
    pub(crate) fn open(
        plan: &Plan,
        inputs: &mpsc::Sender<Input>,
    ) -> Result<(Self, Vec<Held>), AgentError> {
        let fail =
            |error: io::Error| AgentError::file("starting a supervisor in", &plan.folder, error);
        DirBuilder::new().recursive(true).mode(0o700).create(&plan.folder).map_err(fail)?;
        if let Some(stream) = find(&plan.folder).map_err(fail)?
            && let Some(greeted) = greet(stream)?
        {
            return Self::take(greeted, None, plan, inputs).map_err(fail);
        }
        // Nobody fences what an earlier one has left.
        let left = sweep(&plan.places);
        if left > 0 {
            tracing::warn!(left, "ended processes that a dead supervisor had left");
        }
        plan.isolation.clear();
        let (stream, child) = spawn(plan).map_err(fail)?;
        match greet(stream)? {
            Some(greeted) => Self::take(greeted, Some(child), plan, inputs).map_err(fail),
            None => Err(fail(io::Error::other("it has ended at once"))),
        }
    }

    fn take(
        greeted: Greeted,
        child: Option<Child>,
        plan: &Plan,
        inputs: &mpsc::Sender<Input>,
    ) -> io::Result<(Self, Vec<Held>)> {
        greeted.stream.set_read_timeout(None)?;
        let mut writer = greeted.stream.try_clone()?;
        let (late, queued) = queue::channel::<Vec<u8>>();
        let late_pieces = Arc::new(AtomicUsize::new(0));
        let left = late_pieces.clone();
        std::thread::spawn(move || {
            // A failed write is a supervisor that is gone, which the reader tells.
            while let Ok(bytes) = queued.recv() {
                if writer.write_all(&bytes).is_err() {
                    return;
                }
                left.fetch_sub(1, Ordering::Release);
            }
        });
        let (inputs, mut input) = (inputs.clone(), greeted.input);
        let reader = std::thread::spawn(move || {
            while let Some(said) = hear(&mut input) {
                if inputs.blocking_send(Input::Supervisor(said)).is_err() {
                    // The agent is ending: what else comes is there for the next one.
                    let _ = io::copy(&mut input, &mut io::sink());
                    return;
                }
            }
            let _ = inputs.blocking_send(Input::SupervisorGone);
        });
        let (stream, version) = (greeted.stream, greeted.version);
        let reader = Some(reader);
        let orphans = plan.orphans;
        let isolation = Box::new(plan.isolation.clone());
        let mut unsent = pipe::frame(&ToSupervisor::Orphans(orphans))?;
        unsent.extend(pipe::frame(&ToSupervisor::Isolation(isolation))?);
        let supervisor =
            Self { version, unsent, late, late_pieces, stream, reader, child, orphans };
        Ok((supervisor, greeted.held))
    }

    /// Adds a message to what is sent next. The error is that it is too long.
    fn tell(&mut self, message: &ToSupervisor) -> io::Result<()> {
        self.unsent.extend(pipe::frame(message)?);
        Ok(())
    }

    /// Sends what was gathered, as far as the socket takes it, and leaves the rest to the thread.
    pub(crate) fn send(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let sent = if self.late_pieces.load(Ordering::Acquire) == 0 {
            // An error is a full socket, or a supervisor that is gone, which the reader tells.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            send(&self.stream, &self.unsent, flags).unwrap_or(0)
        } else {
            0
        };
        if sent < self.unsent.len() {
            self.late_pieces.fetch_add(1, Ordering::Relaxed);
            // Where the thread has ended the supervisor is gone.
            let _ = self.late.send(self.unsent.split_off(sent));
        }
        self.unsent.clear();
    }

    /// Starts a command; whether it runs is said later. The error is that it is too long.
    pub(crate) fn start(&mut self, start: Start) -> io::Result<()> {
        self.tell(&ToSupervisor::Start(Box::new(start)))
    }

    /// Sends a signal to all processes of a try.
    pub(crate) fn signal(&mut self, try_id: TryId, number: u8) {
        // A message of two numbers is never too long; the same holds for the two below.
        let _ = self.tell(&ToSupervisor::Signal { try_id, number });
    }

    /// Says up to where a try's output was read.
    pub(crate) fn read(&mut self, try_id: TryId, offset: u64) {
        let _ = self.tell(&ToSupervisor::Read { try_id, offset });
    }

    /// Says that the scheduler has welcomed the agent, at this time of its clock. Where an older one does
    /// not know that, the scheduler finds out by the silence when the agent is gone.
    pub(crate) fn welcomed(&mut self, plan: &Plan, at: At) {
        if self.version < WELCOMED_SINCE {
            return;
        }
        let welcomed = Welcomed { scheduler: plan.scheduler, folder: plan.home.clone(), at };
        // A path is never too long for a message.
        let _ = self.tell(&ToSupervisor::Welcomed(welcomed));
    }

    /// Says that an end is in the spool.
    pub(crate) fn kept(&mut self, try_id: TryId) {
        let _ = self.tell(&ToSupervisor::Kept { try_id });
    }
}

impl Drop for Supervisor {
    /// Leaves the supervisor. Where commands shall end with the agent, waits until they have.
    fn drop(&mut self) {
        self.send();
        let how = match self.orphans {
            Orphans::Keep => Shutdown::Both,
            Orphans::End => Shutdown::Write,
        };
        // An error means that it is gone already.
        let _ = self.stream.shutdown(how);
        if self.orphans == Orphans::End {
            if let Some(reader) = self.reader.take() {
                let _ = reader.join();
            }
            if let Some(child) = &mut self.child {
                let _ = child.wait();
            }
        }
    }
}

/// The supervisor of a folder, if one listens.
fn find(folder: &Path) -> io::Result<Option<UnixStream>> {
    // The kernel takes 107 bytes of a socket's path, and a folder's may be longer.
    let open = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd());
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Waits for a message, and takes with it what has arrived already: waking the agent's loop costs
/// more than a message. Nothing where the supervisor is gone.
fn hear(input: &mut BufReader<UnixStream>) -> Option<Vec<FromSupervisor>> {
    let mut said = Vec::new();
    while said.is_empty() || !input.buffer().is_empty() {
        // What came before a broken message counts.
        match pipe::read(input) {
            Ok(Some(message)) => said.push(message),
            Ok(None) | Err(_) => break,
        }
    }
    (!said.is_empty()).then_some(said)
}

/// Starts a supervisor in its folder, with one end of a pair as its standard input.
fn spawn(plan: &Plan) -> io::Result<(UnixStream, Child)> {
    let (own, its) = UnixStream::pair()?;
    let (program, arguments) =
        plan.program.split_first().ok_or_else(|| io::Error::other("no supervisor program"))?;
    let child = Command::new(program)
        .args(arguments)
        .current_dir(fs::canonicalize(&plan.folder)?)
        .stdin(OwnedFd::from(its))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((own, child))
}

/// Exchanges greetings and hears what is held; nothing where the supervisor was about to leave.
fn greet(stream: UnixStream) -> Result<Option<Greeted>, AgentError> {
    let broken = |error: io::Error| AgentError::Supervisor {
        reason: format!(
            "the supervisor of this folder does not answer ({error}); end the process gantry supervise, and start the agent again"
        ),
    };
    let said = |stream: &UnixStream| -> io::Result<_> {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut input = BufReader::new(stream.try_clone()?);
        Ok(pipe::read::<Welcome>(&mut input)?.map(|welcome| (welcome, input)))
    };
    let (welcome, input) = match said(&stream) {
        Ok(Some(said)) => said,
        Ok(None) => return Ok(None),
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(broken(error)),
    };
    let other = || AgentError::Supervisor {
        reason: format!(
            "the supervisor that runs (process {}) is of another version ({}, this agent's is {VERSION}) and does not speak this one's; let its tasks end, or end it, and start the agent again",
            welcome.process, welcome.version
        ),
    };
    let version = common(welcome.version).ok_or_else(other)?;
    match introduce(stream, input, version) {
        Ok(Some(greeted)) => Ok(Some(greeted)),
        Err(error) if !is_gone(&error) => Err(broken(error)),
        // A newer one closes where it does not go back so far, and its tasks live on.
        _ if welcome.version > VERSION => Err(other()),
        _ => Ok(None),
    }
}

/// Says what is spoken and hears what is held; nothing where the supervisor closes.
fn introduce(
    stream: UnixStream,
    mut input: BufReader<UnixStream>,
    version: u16,
) -> io::Result<Option<Greeted>> {
    pipe::write(&mut &stream, &Hello { version })?;
    let mut held = Vec::new();
    loop {
        match pipe::read(&mut input)? {
            Some(FromSupervisor::Held(one)) => held.push(*one),
            Some(FromSupervisor::Ready) => {
                return Ok(Some(Greeted { version, stream, input, held }));
            }
            Some(_) => return Err(io::Error::other("it speaks out of turn")),
            None => return Ok(None),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::protocol::VERSION_MIN;
    use std::os::unix::net::UnixListener;
    use tempfile::TempDir;

    /// A supervisor that says this and closes.
    fn greeted_by(said: &[u8]) -> Result<Option<Greeted>, AgentError> {
        let (own, mut its) = UnixStream::pair().unwrap();
        its.write_all(said).unwrap();
        its.shutdown(Shutdown::Write).unwrap();
        greet(own)
    }

    #[test]
    fn what_a_supervisor_may_say_first() {
        let welcome = |version| pipe::frame(&Welcome { version, process: 77 }).unwrap();
        let ready = pipe::frame(&FromSupervisor::Ready).unwrap();
        let started = pipe::frame(&FromSupervisor::Started { try_id: TryId(1) }).unwrap();
        for (what, said, expected) in [
            ("all is well", [welcome(VERSION), ready.clone()].concat(), Ok(Some(VERSION))),
            ("an older one", [welcome(VERSION_MIN), ready.clone()].concat(), Ok(Some(VERSION_MIN))),
            ("a newer one", [welcome(VERSION + 1), ready].concat(), Ok(Some(VERSION))),
            ("it leaves at once", Vec::new(), Ok(None)),
            ("it leaves within its list", welcome(VERSION), Ok(None)),
            ("one that is too old", welcome(VERSION_MIN - 1), Err("process 77")),
            ("a newer one does not speak ours", welcome(VERSION + 1), Err("process 77")),
            ("out of turn", [welcome(VERSION), started].concat(), Err("out of turn")),
            ("no message", vec![0xff; 9], Err("does not answer")),
        ] {
            match (greeted_by(&said), expected) {
                (Ok(greeted), Ok(version)) => {
                    assert_eq!(greeted.map(|greeted| greeted.version), version, "{what}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (Ok(_), Err(_)) => panic!("{what} was taken"),
                (Err(error), Ok(_)) => panic!("{what}: {error}"),
            }
        }
    }

    #[test]
    fn a_supervisor_is_found_however_long_its_folders_name_is() {
        let root = TempDir::new().unwrap();
        let folder = root.path().join("a".repeat(100)).join("b".repeat(100));
        fs::create_dir_all(&folder).unwrap();
        assert!(find(&folder).unwrap().is_none(), "there is none yet");
        let open = File::open(&folder).unwrap();
        let path = format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd());
        let listener = UnixListener::bind(path).unwrap();
        assert!(find(&folder).unwrap().is_some());
        drop(listener);
        assert!(find(&folder).unwrap().is_none(), "a dead one's socket is nobody");
    }
}
