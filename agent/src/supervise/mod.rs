//! The supervisor: one small process per agent that starts commands, so that they outlive the agent.
//!
//! `gantry supervise` is the process; [`client`] is the agent's side. The agent starts one when none
//! is there, and speaks to it over a local socket in its folder. When the agent ends or is killed
//! the supervisor goes on: the next agent connects, hears what runs and what has ended meanwhile,
//! and takes all of it over. With nothing left to hold and no agent it ends by itself.
//!
//! Why one per agent and not one per command: a command then costs no second process, starting it
//! is a fork of a process of a few pages, and since the supervisor is the parent of everything it
//! started no number of a process is ever looked up again: none can be mistaken for another.
//!
//! What it promises: a command is started at most once; connections are served one after the
//! other, so that what an agent has sent before it died is held before the next hears what is
//! held; an end is in memory until an agent has kept it, and in a synced file while there is none.

mod account;
mod cgroup;
mod child;
pub(crate) mod client;
mod cores;
mod course;
mod ends;
mod farewell;
pub(crate) mod isolation;
mod process;
pub(crate) mod protocol;
mod room;
mod scratch;
mod script;
mod shared;
mod strays;
mod table;
pub(crate) mod warm;

use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::pipe;
use protocol::{Hello, ToSupervisor, VERSION, VERSION_MIN, Welcome};
use rustix::process::{Resource, Rlimit, setrlimit};
use shared::Shared;
use strays::Strays;
use table::Told;

/// The socket's name in the supervisor's folder.
const SOCKET: &str = "socket";

/// The process: runs in the folder it was started in, and speaks first on its standard input.
#[must_use]
pub fn run() -> ExitCode {
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(125),
    }
}

fn supervise() -> io::Result<()> {
    // A terminal's interrupt and a session's end are for the agent alone. An error means that it
    // leads a session already.
    let _ = rustix::process::setsid();
    // What it starts has both from it, at no cost for each: a program with another's rights gives
    // them to no task, and no memory with images in it is written to a disk when a task crashes.
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let first = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // One supervisor to a folder: the one before is about to leave.
    let lock = File::create("lock")?;
    lock.lock()?;
    match std::fs::remove_file(SOCKET) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Its name is short whatever the folder's is: the kernel takes 107 bytes.
    let listener = UnixListener::bind(SOCKET)?;
    let shared = Shared::new(PathBuf::from("."), Strays::adopt().ok())?;
    let serving = shared.clone();
    std::thread::spawn(move || {
        serve(&serving, first);
        loop {
            match listener.accept() {
                Ok((agent, _)) => serve(&serving, agent),
                // Nobody will be heard any more.
                Err(_) => std::process::exit(125),
            }
        }
    });
    shared.wait_for_ends()
}

/// Serves one agent until it is gone.
fn serve(shared: &Shared, agent: UnixStream) {
    // Whatever goes wrong on a connection is the end of that connection.
    let _ = converse(shared, agent);
    let mut table = shared.lock();
    table.disconnect();
    let farewell = table.farewell();
    drop(table);
    let Some(farewell) = farewell else { return shared.lock().keep_unheard() };
    let saying = Saying(shared.clone());
    // The next agent is not kept waiting for it.
    std::thread::spawn(move || {
        // One that is not heard is found out by the silence.
        let _ = farewell.say();
        drop(saying);
    });
}

/// Keeps the supervisor while a farewell is said, however that ends.
struct Saying(Shared);

impl Drop for Saying {
    fn drop(&mut self) {
        self.0.lock().farewell_said();
    }
}

fn converse(shared: &Shared, mut agent: UnixStream) -> io::Result<()> {
    let mut input = BufReader::new(agent.try_clone()?);
    pipe::write(&mut agent, &Welcome { version: VERSION, process: std::process::id() })?;
    let hello = pipe::read::<Hello>(&mut input)?;
    if hello.is_none_or(|hello| !(VERSION_MIN..=VERSION).contains(&hello.version)) {
        return Ok(());
    }
    shared.lock().connect(agent);
    while let Some(message) = pipe::read(&mut input)? {
        match message {
            ToSupervisor::Orphans(orphans) => shared.lock().set_orphans(orphans),
            ToSupervisor::Isolation(isolation) => shared.lock().set_isolation(*isolation),
            ToSupervisor::Start(start) => shared.start(*start),
            ToSupervisor::Signal { try_id, number } => shared.lock().signal(try_id, number),
            ToSupervisor::Read { try_id, offset } => shared.lock().read(try_id, offset),
            ToSupervisor::Kept { try_id } => shared.lock().kept(try_id),
            ToSupervisor::Welcomed(welcomed) => shared.lock().welcomed = Some(welcomed),
        }
        // What comes together is answered together: waking the agent costs more than a message.
        shared.lock().tell(if input.buffer().is_empty() { Told::Now } else { Told::WithMore });
    }
    Ok(())
}
