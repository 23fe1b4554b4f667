//! The console in a real pseudo-terminal: it starts, is asked nothing, shows the cluster, stops and
//! comes back, and leaves the terminal as it was.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use gantry_tests::{Cluster, until};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// A console in a pseudo-terminal. It ends with this value.
struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    size: (u16, u16),
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
    }
}

impl Terminal {
    fn open(cluster: &Cluster, columns: u16, rows: u16) -> Result<Self> {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size)?;
        let mut command = CommandBuilder::new(PROGRAM);
        command.env("GANTRY_CLUSTER", cluster.folder().join("scheduler"));
        command.env("TERM", "xterm-256color");
        command.env("LANG", "C.UTF-8");
        command.env_remove("NO_COLOR");
        let child = pair.slave.spawn_command(command)?;
        let mut reader = pair.master.try_clone_reader()?;
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                kept.lock().unwrap().extend(&buffer[..count]);
            }
        });
        let keys = pair.master.take_writer()?;
        let size = (columns, rows);
        Ok(Self { master: pair.master, keys, child, bytes, reader, size })
    }

    fn screen(&self) -> String {
        let cells = |n: u16| NonZeroU16::new(n).unwrap();
        let mut parser = vt100::Parser::new(cells(self.size.1), cells(self.size.0), 0);
        parser.process(&self.bytes.lock().unwrap());
        parser.screen().contents()
    }

    fn shows(&self, part: &str) -> Result<()> {
        until(part, || self.screen().contains(part).then_some(())).with_context(|| self.screen())
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes())?;
        Ok(self.keys.flush()?)
    }

    /// Waits for the console's end and the last of what it has written; says whether it ended well.
    fn ended(&mut self) -> Result<bool> {
        let child = &mut self.child;
        let status = until("the console's end", || child.try_wait().ok().flatten())?;
        until("the last of its bytes", || self.reader.is_finished().then_some(()))?;
        Ok(status.success())
    }

    fn count(&self) -> usize {
        self.bytes.lock().unwrap().len()
    }
}

#[test]
fn the_console_shows_the_cluster_and_gives_the_terminal_back() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", "cores = 2\nworkers = 1")?;
    let line = "i=0; while true; do i=$((i+1)); echo \"::metric loss 0.5 $i\"; echo line $i; sleep 0.2; done";
    let job = cluster.gantry.json(&["submit", "--name", "looping", "--", "sh", "-c", line])?;
    let job = job["job"].as_str().unwrap().to_owned();
    for (columns, rows) in [(80, 24), (120, 36)] {
        let mut terminal = Terminal::open(&cluster, columns, rows)?;
        terminal.shows("cpu-1")?;
        terminal.shows("live")?;
        terminal.press("2")?;
        terminal.shows("[2 Nodes]")?;
        terminal.press("3")?;
        terminal.shows("no node has a GPU")?;
        terminal.press("6")?;
        terminal.shows("PER MINUTE")?;
        terminal.press("4\r")?;
        terminal.shows("LOSS")?;
        terminal.shows("line ")?;
        terminal.press("?")?;
        terminal.shows("MOVE")?;
        // Escape closes the help, q leaves the job, and at the top q leaves the console.
        terminal.press("\x1b")?;
        terminal.shows("LOSS")?;
        terminal.press("q")?;
        terminal.shows("STATE")?;
        terminal.press("q")?;
        ensure!(terminal.ended()?, "{}", terminal.screen());
        let bytes = terminal.bytes.lock().unwrap().clone();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        ensure!(
            text.contains("\x1b[?1049h") && text.contains("\x1b[?1049l"),
            "the alternate screen"
        );
        // Queries that a terminal would answer: cursor position, device attributes, colours.
        for query in ["\x1b[6n", "\x1b[c", "\x1b[>c", "\x1b]10;?", "\x1b]11;?", "\x1b[?u"] {
            ensure!(!text.contains(query), "the terminal was asked {query:?}");
        }
    }
    let mut terminal = Terminal::open(&cluster, 80, 24)?;
    terminal.shows("cpu-1")?;
    terminal.press("4")?;
    terminal.shows("looping")?;
    terminal.press("xc")?;
    terminal.shows("cannot be undone")?;
    // Return alone keeps it.
    terminal.press("\r")?;
    terminal.press(&format!("{}\r", job.trim_start_matches('j')))?;
    terminal.shows("done, 1 task")?;
    let state = |cluster: &Cluster| {
        cluster.gantry.json(&["job", &job]).ok()?["state"].as_str().map(str::to_owned)
    };
    until("the end of the job", || (state(&cluster)? == "cancel").then_some(()))?;
    // The scheduler goes away and comes back; the console says so and goes on.
    cluster.kill_scheduler();
    terminal.shows("reconnecting")?;
    cluster.start_scheduler()?;
    terminal.shows("live")?;
    for (columns, rows) in [(30, 5), (200, 60), (80, 24)] {
        terminal.master.resize(PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 })?;
        terminal.size = (columns, rows);
    }
    let before = terminal.count();
    until("a frame of the new size", || (terminal.count() > before).then_some(()))?;
    // A hang-up ends it.
    let pid = terminal.child.process_id().context("a process")?;
    let pid = rustix::process::Pid::from_raw(pid as i32).context("a process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::HUP)?;
    ensure!(terminal.ended()?, "{}", terminal.screen());
    Ok(())
}
