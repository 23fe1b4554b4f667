//! A driver that a test steers: builds the library of `fake.c` and writes the file it reads.
//!
//! Every test that needs GPUs includes this file by its path, whichever package it is in, and gives
//! [`Fake::library`] to the agent as the setting `nvml`. What is said holds from the driver's next
//! call on, in every process that has loaded this library. Where there is no C compiler there is no
//! driver, which is said on standard error.
#![allow(dead_code, reason = "each test that includes this file steers something else")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Words of which a GPU may have several lines.
const MANY: [&str; 4] = ["process", "nvlink", "mig", "xid"];

/// A driver of a test's own.
pub(crate) struct Fake {
    library: PathBuf,
    lines: Mutex<Vec<String>>,
}

impl Fake {
    /// Builds it in a folder; nothing where there is no C compiler. It begins with two GPUs that
    /// are idle.
    pub(crate) fn build(folder: &Path) -> Option<Self> {
        let library = folder.join("libnvidia-ml.so.1");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-x", "c", "-", "-o"])
            .arg(&library)
            .args(["-ldl", "-lpthread"])
            .stdin(Stdio::piped())
            .spawn();
        let mut compiler = match built {
            Ok(compiler) => compiler,
            Err(error) => {
                eprintln!("SKIPPED, NVML is not tested: no C compiler ({error})");
                return None;
            }
        };
        let mut source = compiler.stdin.take().expect("its input is a pipe");
        source.write_all(include_bytes!("fake.c")).expect("the compiler reads its input");
        drop(source);
        assert!(compiler.wait().is_ok_and(|status| status.success()), "fake.c does not compile");
        Some(Self { library, lines: Mutex::default() })
    }

    /// The library, for the agent's setting `nvml`.
    pub(crate) fn library(&self) -> &Path {
        &self.library
    }

    /// Adds lines; each takes the place of an earlier one of the same word and GPU, but for words
    /// of which there may be several.
    pub(crate) fn say(&self, added: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for line in added.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let word = line.split_whitespace().next().unwrap_or_default();
            if !MANY.contains(&word) {
                lines.retain(|old| subject(old) != subject(line));
            }
            lines.push(line.to_owned());
        }
        self.write(&lines);
    }

    /// Takes back every line that begins with these words.
    pub(crate) fn take_back(&self, beginning: &str) {
        let begins = |line: &String| {
            line.strip_prefix(beginning)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| !begins(line));
        self.write(&lines);
    }

    /// Puts the file in place at once, so that the driver never reads half of it.
    fn write(&self, lines: &[String]) {
        let state = PathBuf::from(format!("{}.state", self.library.display()));
        let new = state.with_extension("new");
        std::fs::write(&new, lines.join("\n") + "\n").expect("the state can be written");
        std::fs::rename(new, state).expect("the state can be put in place");
    }
}

/// What a line is about: its word, and its GPU where the word is a GPU's.
fn subject(line: &str) -> (&str, &str) {
    let mut words = line.split_whitespace();
    let word = words.next().unwrap_or_default();
    let of_driver = ["gpus", "prefix", "driver", "hang"].contains(&word);
    let of_reading = word == "unsupported";
    match (of_driver, of_reading) {
        (true, _) => (word, ""),
        (_, true) => (line, ""),
        _ => (word, words.next().unwrap_or_default()),
    }
}
