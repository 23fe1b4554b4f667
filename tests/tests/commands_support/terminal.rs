//! A program in a terminal of its own.

use std::io::{Read, Write as _};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use gantry_tests::until;
use portable_pty::{CommandBuilder, PtySize, native_pty_system};

/// A program in a terminal, and what that shows.
pub(crate) struct Terminal {
    pub(crate) child: Box<dyn portable_pty::Child + Send + Sync>,
    writer: Box<dyn std::io::Write + Send>,
    screen: Arc<Mutex<vt100::Parser>>,
    // Closed last: the program would end without it.
    _pair: portable_pty::PtyPair,
}

impl Terminal {
    /// Starts it.
    ///
    /// # Errors
    /// Where there is no terminal, or no such program.
    pub(crate) fn start(command: CommandBuilder) -> Result<Self> {
        let pair =
            native_pty_system().openpty(PtySize { rows: 30, cols: 110, ..PtySize::default() })?;
        let child = pair.slave.spawn_command(command)?;
        let mut reader = pair.master.try_clone_reader()?;
        let size = |n: u16| std::num::NonZeroU16::new(n).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(size(30), size(110), 0)));
        let shown = screen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shown.lock().unwrap().process(&buffer[..count]);
            }
        });
        Ok(Self { child, writer: pair.master.take_writer()?, screen, _pair: pair })
    }

    /// Types keys.
    pub(crate) fn keys(&mut self, keys: &str) -> Result<()> {
        Ok(self.writer.write_all(keys.as_bytes())?)
    }

    /// What is on the screen.
    pub(crate) fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until all of this is on the screen.
    pub(crate) fn shows(&self, parts: &[&str]) -> Result<()> {
        let there = || {
            let text = format!("\n{}", self.text());
            parts.iter().all(|part| text.contains(part)).then_some(())
        };
        until(&format!("{parts:?}"), there).with_context(|| self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
