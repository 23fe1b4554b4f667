//! The test after a trouble: whether the node, or one GPU of it, can be given work again.
//!
//! Of the node: a file is written in the folder that tasks run in, memory is written with patterns and
//! read back, and cores compute a sum whose result is known. Storage that is away often comes back by
//! itself: it is waited for. Of a GPU: the driver answers and lists it, it is not lost, no memory error was left
//! uncorrected while the test went on, and no row of it waits for a repair. A command of the
//! administrator's (`gpu_test`, for example `dcgmi diag`) is run on it beside that. A test takes a
//! few seconds, and [`COMMAND_MAX`] at most.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gantry_telemetry::{GpuSample, Sample};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(90);
/// How long storage that cannot be written is waited for: the cluster gives a test up after two minutes.
const STORAGE_MAX: Duration = Duration::from_secs(90);
/// Between two looks at whether it has ended.
const LOOK_EACH: Duration = Duration::from_millis(50);
/// Bytes of memory that each thread writes and reads.
const BYTES: usize = 64 << 20;
/// How often each writes and reads them.
const ROUNDS: u8 = 3;
/// Characters of what a command says that are told.
const SAID_MAX: usize = 200;
/// Seconds for which a driver may be silent: it is asked once a second.
const SILENT_MAX_S: u32 = 5;
/// Readings of a GPU within a test.
const READINGS: usize = 3;

/// What a test needs.
pub(crate) struct SelfTest {
    /// The GPU, by its place and UUID; the node where absent.
    pub(crate) gpu: Option<(usize, String)>,
    /// The administrator's command for GPUs.
    pub(crate) command: Vec<String>,
    /// The folder in which a command runs that names none.
    pub(crate) folder: PathBuf,
    /// The node's samples.
    pub(crate) samples: watch::Receiver<Sample>,
}

impl SelfTest {
    /// Runs the test; says what is wrong, if anything is.
    pub(crate) fn run(mut self) -> Option<String> {
        let result = match self.gpu.take() {
            None => storage(&self.folder, STORAGE_MAX).and_then(|()| node()),
            Some((place, uuid)) => self.gpu(place, &uuid),
        };
        result.err()
    }

    fn gpu(&mut self, place: usize, uuid: &str) -> Result<(), String> {
        let first = self.reading(place)?;
        if !self.command.is_empty() {
            run(&self.command, uuid)?;
        }
        let mut last = first.clone();
        for _ in 1..READINGS {
            last = self.reading(place)?;
        }
        compare(&first, &last)
    }

    /// The next reading of the GPU that was taken after this call.
    fn reading(&mut self, place: usize) -> Result<GpuSample, String> {
        self.samples.borrow_and_update();
        let changed = self.samples.has_changed();
        let mut wait = changed.map_err(|_| "the agent is ending".to_owned())?;
        let begun = Instant::now();
        while !wait {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err("no reading was taken for 10 s".into());
            }
            std::thread::sleep(LOOK_EACH);
            wait = self.samples.has_changed().map_err(|_| "the agent is ending".to_owned())?;
        }
        let sample = self.samples.borrow_and_update();
        if let Some(silent) = sample.driver_silent_s.filter(|silent| *silent > SILENT_MAX_S) {
            return Err(format!("the driver has not answered for {silent} s"));
        }
        let gpu = sample.gpus.get(place).ok_or("the driver does not list it any more")?;
        if gpu.lost {
            return Err("the driver has lost it".into());
        }
        if gpu.memory_used_mib.is_none() {
            return Err("the driver does not say how much of its memory is used".into());
        }
        Ok(gpu.clone())
    }
}

/// Whether a GPU is sound, by its readings at the begin and at the end of a test.
fn compare(first: &GpuSample, last: &GpuSample) -> Result<(), String> {
    if last.ecc_uncorrected > first.ecc_uncorrected {
        return Err("memory errors that were not corrected have come up within the test".into());
    }
    if last.remap_failed == Some(true) {
        return Err("a row of its memory could not be replaced; exchange it".into());
    }
    if last.remap_pending == Some(true) {
        return Err("a row of its memory waits to be replaced; reset it".into());
    }
    Ok(())
}

/// Runs a command on a GPU alone.
fn run(command: &[String], uuid: &str) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env("CUDA_VISIBLE_DEVICES", uuid)
        .env("GANTRY_GPU", uuid)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let begun = Instant::now();
    // Read beside the wait: a command that says much would stand still otherwise.
    let said = child.stdout.take().map(|mut output| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What cannot be read is not told.
            let _ = std::io::Read::read_to_end(&mut output, &mut text);
            text
        })
    });
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < COMMAND_MAX => std::thread::sleep(LOOK_EACH),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} had not ended after {} s", COMMAND_MAX.as_secs()));
            }
            Err(error) => return Err(format!("the end of {program} is not known: {error}")),
        }
    };
    if status.success() {
        return Ok(());
    }
    let text = said.and_then(|said| said.join().ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last: String = text.lines().last().unwrap_or_default().chars().take(SAID_MAX).collect();
    let last: String = last.chars().filter(|c| !c.is_control()).collect();
    Err(format!("{program} ended with {status}: {last}"))
}

/// Waits until a file can be written in a folder.
fn storage(folder: &Path, wait: Duration) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match write(folder) {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() >= wait => {
                let (shown, seconds) = (folder.display(), wait.as_secs());
                return Err(format!("{shown} could not be written for {seconds} s: {error}"));
            }
            Err(_) => std::thread::sleep(LOOK_EACH),
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let path = folder.join("self-test.part");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0x55; 4096])?;
        file.sync_all()
    });
    // What is left of it is written over by the next test.
    let _ = fs::remove_file(&path);
    written
}

/// Tests memory and cores: one thread a core.
fn node() -> Result<(), String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<_> =
        (0..cores).map(|core| std::thread::spawn(move || core_and_memory(core))).collect();
    for thread in threads {
        thread.join().map_err(|_| "a core could not finish its sum".to_owned())??;
    }
    Ok(())
}

fn core_and_memory(core: usize) -> Result<(), String> {
    let mut bytes = vec![0_u8; BYTES];
    for round in 0..ROUNDS {
        // Patterns of which neighbouring bits differ, and their inverses.
        let pattern = [0x55_u8, 0xaa, 0x33][usize::from(round) % 3] ^ core as u8;
        bytes.fill(pattern);
        if let Some(place) = bytes.iter().position(|byte| *byte != pattern) {
            return Err(format!(
                "a byte of memory is {:#x} and was written {pattern:#x}",
                bytes[place]
            ));
        }
    }
    let sum = Sha256::digest(b"gantry");
    for _ in 0..100_000 {
        let again = Sha256::digest(std::hint::black_box(b"gantry"));
        if again != sum {
            return Err("a core gives different sums of the same bytes".into());
        }
    }
    if hex(&sum) != KNOWN {
        return Err("a core gives a wrong sum".into());
    }
    Ok(())
}

/// SHA-256 of `gantry`.
const KNOWN: &str = "3014637776d42a85266a46eecaa689d23eed6e49a3cea1f282afce1001b796c7";

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_node_is_sound() {
        assert_eq!(node(), Ok(()));
    }

    #[test]
    fn storage_is_waited_for_until_it_can_be_written() {
        let root = tempfile::TempDir::new().unwrap();
        let folder = root.path().join("work");
        let wrong = storage(&folder, Duration::ZERO).unwrap_err();
        assert!(wrong.contains("could not be written for 0 s"), "{wrong}");
        let waits = folder.clone();
        let test = std::thread::spawn(move || storage(&waits, STORAGE_MAX));
        fs::create_dir(&folder).unwrap();
        assert_eq!(test.join().unwrap(), Ok(()));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is left of it");
    }

    #[test]
    fn readings_say_whether_a_gpu_is_sound() {
        let sound = GpuSample { ecc_uncorrected: Some(1), ..GpuSample::default() };
        for (last, wrong) in [
            (sound.clone(), None),
            (GpuSample { ecc_uncorrected: Some(2), ..sound.clone() }, Some("memory errors")),
            (GpuSample { remap_failed: Some(true), ..sound.clone() }, Some("exchange it")),
            (GpuSample { remap_pending: Some(true), ..sound.clone() }, Some("reset it")),
        ] {
            let result = compare(&sound, &last);
            let found = result.err();
            assert_eq!(found.is_some(), wrong.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(wrong.unwrap_or_default()));
        }
    }

    #[test]
    fn a_command_judges_too() {
        let command = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        assert_eq!(run(&command("test $CUDA_VISIBLE_DEVICES = GPU-1"), "GPU-1"), Ok(()));
        let wrong = run(&command("echo first; echo it is broken; exit 3"), "GPU-1").unwrap_err();
        assert!(wrong.ends_with(": it is broken"), "{wrong}");
        assert!(run(&["/nowhere/x".into()], "GPU-1").unwrap_err().contains("cannot be run"));
    }

    #[test]
    fn a_gpu_that_is_not_read_fails() {
        let (say, samples) = watch::channel(Sample::default());
        let folder = PathBuf::new();
        let test =
            SelfTest { gpu: Some((0, "GPU-1".into())), command: Vec::new(), folder, samples };
        let run = std::thread::spawn(move || test.run());
        while !run.is_finished() {
            say.send_replace(Sample {
                gpus: vec![GpuSample { lost: true, ..GpuSample::default() }],
                ..Sample::default()
            });
            std::thread::yield_now();
        }
        assert_eq!(run.join().unwrap(), Some("the driver has lost it".into()));
    }
}
